// @ts-check
/** Keys: one does one thing, only Esc while somebody types, and they can be turned off. */

import { byId, make } from "./dom.js";

/** @type {[string, string][]} */
const KEYS = [
  ["Space", "Hold to talk; hands-free: interrupt or mute"],
  ["Esc", "Interrupt the answer"],
  ["C", "Connect or disconnect"],
  ["M", "Mute or unmute the microphone"],
  ["P", "Pause or play the answer"],
  ["T", "Change the theme"],
  ["/", "Go to the message field"],
  ["?", "Show these keys"],
];
const TYPING = "input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select";
const PRESSABLE = "button, summary, a, input, label, [role=tab]";

/**
 * @typedef {object} Actions
 * @property {() => void} talkPressed
 * @property {() => void} talkReleased
 * @property {() => void} interrupt
 * @property {() => void} connect
 * @property {() => void} mute
 * @property {() => void} pause
 * @property {() => void} theme
 */

/** @param {Actions} actions @param {() => boolean} enabled */
export function mountShortcuts(actions, enabled) {
  const dialog = byId("shortcuts");
  byId("keys").append(
    ...KEYS.flatMap(([key, what]) => [make("dt", "", make("kbd", "", key)), make("dd", "", what)]),
  );
  byId("help").addEventListener("click", () => dialog.showModal());

  /** @type {Record<string, () => void>} */
  const keys = {
    c: actions.connect,
    m: actions.mute,
    p: actions.pause,
    t: actions.theme,
    "/": () => byId("message").focus(),
    "?": () => dialog.showModal(),
    escape: actions.interrupt,
  };
  let holding = false;

  document.addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (dialog.open || event.ctrlKey || event.metaKey || event.altKey || !enabled()) return;
    if (target.matches(TYPING) && event.key !== "Escape") return;
    if (event.key === " ") {
      if (target.matches(PRESSABLE) && target.id !== "talk") return; // Space presses that
      event.preventDefault();
      if (event.repeat || holding) return;
      holding = true;
      actions.talkPressed();
      return;
    }
    const act = event.repeat ? undefined : keys[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " " || !holding) return;
    event.preventDefault();
    holding = false;
    actions.talkReleased();
  });
  window.addEventListener("blur", () => {
    if (holding) actions.talkReleased(); // the key is let go elsewhere
    holding = false;
  });
}
