// @ts-check
/** Tabs as WAI-ARIA describes them: one is in the tab order, arrows go to the others. */

/** @param {HTMLElement} list its `role="tablist"` */
export function mountTabs(list) {
  const tabs = /** @type {HTMLElement[]} */ ([...list.querySelectorAll('[role="tab"]')]);

  /** @param {HTMLElement} chosen */
  const select = (chosen) => {
    for (const tab of tabs) {
      const panel = document.getElementById(tab.getAttribute("aria-controls") ?? "");
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      if (panel) panel.hidden = tab !== chosen;
    }
  };

  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = STEPS[event.key]?.(index, tabs.length);
      if (step === undefined) return;
      event.preventDefault();
      select(tabs[step]);
      tabs[step].focus();
    });
  }
  return { select };
}

/** @type {Record<string, (index: number, count: number) => number>} */
const STEPS = {
  ArrowRight: (index, count) => (index + 1) % count,
  ArrowLeft: (index, count) => (index + count - 1) % count,
  Home: () => 0,
  End: (_index, count) => count - 1,
};
