// @ts-check
/** The conversation: one row an entry, in the colour of its kind and named by it. */

import { voiceToVoice } from "../latency.js";
import { byId, clockTime, icon, make, rounded, setText } from "./dom.js";
import { toolCard, toolIcon } from "./tools.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Entry} Entry */
/** @typedef {import("../state.js").Turn} Turn */

/** @type {Record<string, string>} */
const NAMES = {
  system: "System",
  user: "You",
  assistant: "Assistant",
  tool: "Tool",
  error: "Error",
};
/** @type {Record<string, string>} */
const FILTERS = {
  user: "You",
  assistant: "Assistant",
  tool: "Tools",
  system: "System",
  error: "Errors",
};
const NEAR_END = 40; // px from the end count as the end

export class Log {
  #list = byId("log");
  #scroller = byId("log-scroller");
  #latest = byId("latest");
  #welcome = byId("welcome");
  /** @type {Map<string, {entry: Entry, turn: Turn|undefined, row: HTMLElement}>} */
  #rows = new Map();
  /** @type {Set<string>} */
  #shown = new Set(Object.keys(FILTERS));
  #atEnd = true;

  constructor() {
    byId("log-filters").append(
      ...Object.entries(FILTERS).map(([kind, name]) => this.#filter(kind, name)),
    );
    this.#scroller.addEventListener("scroll", () => this.#noteScroll());
    this.#latest.addEventListener("click", () => this.#scrollToEnd());
    new ResizeObserver(() => this.#atEnd && this.#scrollToEnd()).observe(this.#scroller);
  }

  /** @param {State} state */
  render({ entries, turns, originMs }) {
    const byTurn = new Map(turns.map((turn) => [turn.key, turn]));
    const kept = new Set(entries.map((entry) => entry.id));
    for (const [id, { row }] of this.#rows) {
      if (kept.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const entry of entries) this.#update(entry, byTurn.get(entry.turnKey), originMs);
    this.#welcome.hidden = entries.some((entry) => entry.kind !== "system");
    if (this.#atEnd) this.#scrollToEnd();
  }

  /** Forgets every row: another conversation follows. */
  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#atEnd = true;
  }

  /** @param {Entry} entry @param {Turn|undefined} turn @param {number} originMs */
  #update(entry, turn, originMs) {
    const known = this.#rows.get(entry.id);
    if (known && known.entry === entry && known.turn === turn) return;
    const row = rowOf(entry, turn, originMs);
    row.hidden = !this.#shown.has(entry.kind);
    if (known) known.row.replaceWith(row);
    else this.#list.append(row);
    this.#rows.set(entry.id, { entry, turn, row });
  }

  /** @param {string} kind @param {string} name */
  #filter(kind, name) {
    const button = make(
      "button",
      { type: "button", class: `k-${kind}`, "aria-pressed": "true" },
      make("i"),
      name,
    );
    button.addEventListener("click", () => {
      const show = !this.#shown.delete(kind);
      if (show) this.#shown.add(kind);
      button.setAttribute("aria-pressed", String(show));
      for (const { entry, row } of this.#rows.values()) row.hidden = !this.#shown.has(entry.kind);
    });
    return button;
  }

  #noteScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.#latest.hidden = this.#atEnd;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

/** @param {Entry} entry @param {Turn|undefined} turn @param {number} originMs */
function rowOf(entry, turn, originMs) {
  const { kind } = entry;
  const name = kind === "tool" ? `Tool · ${entry.name}` : NAMES[kind];
  const when = originMs + entry.at;
  const time = make(
    "time",
    { datetime: new Date(when).toISOString() },
    clockTime(when).slice(0, 8),
  );
  const meta = make("div", "meta", make("span", "who", name), time, ...chipsOf(entry, turn));
  const badge = make(
    "span",
    { class: "badge", "aria-hidden": "true" },
    kind === "tool" ? toolIcon(entry.name) : icon(kind),
  );
  const body = make("div", "body", meta, kind === "tool" ? toolCard(entry) : textOf(entry));
  const cut = entry.kind === "assistant" && entry.outcome === "interrupted";
  const classes = ["entry", `k-${kind}`, cut ? "interrupted" : (entry.stage ?? "")];
  return make("li", classes.join(" ").trim(), badge, body);
}

/** @param {Entry} entry */
function textOf(entry) {
  const text = make("p", "text");
  if (entry.kind !== "assistant") {
    setText(text, entry.text);
    return text;
  }
  const end = entry.outcome === "open" ? entry.heard : entry.text.length;
  text.append(make("span", "heard", entry.text.slice(0, end)));
  if (end < entry.text.length) text.append(make("span", "ahead", entry.text.slice(end)));
  if (entry.unheard) {
    const label = make("span", "visually-hidden", " (Never heard: ");
    const close = make("span", "visually-hidden", ")");
    text.append(entry.text ? " " : "", label, make("s", "unheard", entry.unheard), close);
  }
  return text;
}

/** @param {Entry} entry @param {Turn|undefined} turn @returns {HTMLElement[]} */
function chipsOf(entry, turn) {
  const chip = (/** @type {string} */ text, more = "") => make("span", `chip ${more}`.trim(), text);
  if (entry.kind === "user") {
    if (entry.stage === "partial") return [chip("still listening")];
    return [chip(entry.cause)];
  }
  if (entry.kind === "error") return [chip(entry.code)];
  if (entry.kind !== "assistant") return [];
  const chips = [];
  const latency = turn ? voiceToVoice(turn) : null;
  if (latency !== null) chips.push(chip(`${rounded(latency, " ms")} to first sound`));
  if (entry.outcome === "interrupted") {
    chips.push(chip(`interrupted after ${(entry.playedMs / 1000).toFixed(1)} s`, "cut"));
    if (entry.unheard) chips.push(chip(`struck out: never heard (${entry.certainty})`));
  }
  return chips;
}
