// @ts-check
/** The latency of a turn as a waterfall, and of all turns as quantiles. */

import { latencySummary, stagesOf, voiceToVoice } from "../latency.js";
import { bar, byId, make, rounded, setText } from "./dom.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Turn} Turn */

export class Waterfall {
  #body = byId("waterfall");
  /** @type {string|null} the turn that was chosen; null: the latest that was measured */
  #chosen = null;
  /** @type {Turn[]} */
  #turns = [];
  /** @type {Turn|null} */
  #drawn = null;

  constructor() {
    byId("turn-before").addEventListener("click", () => this.#step(-1));
    byId("turn-after").addEventListener("click", () => this.#step(1));
  }

  /** @param {State} state */
  render({ turns }) {
    if (turns === this.#turns && this.#drawn) return;
    this.#turns = turns;
    const summary = latencySummary(turns);
    setText(byId("latency-p50"), rounded(summary.p50, " ms"));
    setText(byId("latency-p95"), rounded(summary.p95, " ms"));
    setText(byId("latency-count"), String(summary.count));
    this.#show();
  }

  #measured() {
    return this.#turns.filter((turn) => stagesOf(turn).length > 0);
  }

  /** @param {number} step */
  #step(step) {
    const measured = this.#measured();
    const at = measured.findIndex((turn) => turn.key === this.#chosen);
    const next = (at < 0 ? measured.length - 1 : at) + step;
    if (next < 0 || next >= measured.length) return;
    this.#chosen = next === measured.length - 1 ? null : measured[next].key;
    this.#show();
  }

  /** @param {number|null} ms */
  #showWhole(ms) {
    const big = byId("latency-last");
    setText(big, rounded(ms));
    big.toggleAttribute("data-none", ms === null);
  }

  #show() {
    const measured = this.#measured();
    const at = measured.findIndex((turn) => turn.key === this.#chosen);
    const index = at < 0 ? measured.length - 1 : at;
    const turn = measured[index] ?? null;
    byId("turn-before").disabled = index <= 0;
    byId("turn-after").disabled = at < 0;
    byId("waterfall-note").hidden = turn !== null;
    this.#drawn = turn;
    if (!turn) {
      this.#showWhole(null);
      setText(byId("turn-name"), "No turn yet");
      setText(byId("waterfall-scale"), "from – to");
      this.#body.replaceChildren();
      return;
    }
    const stages = stagesOf(turn);
    const whole = voiceToVoice(turn);
    const scale = niceAbove(stages[stages.length - 1].to);
    const typed = turn.cause === "typed";
    this.#showWhole(whole);
    setText(
      byId("latency-what"),
      `from your ${typed ? "message" : "last word"} to the first sound`,
    );
    setText(byId("turn-name"), `Turn ${turn.id}, ${turn.cause}${at < 0 ? " · latest" : ""}`);
    setText(byId("waterfall-scale"), `0 – ${rounded(scale)}`);
    this.#body.replaceChildren(
      ...stages.map(({ name, kind, from, to }) =>
        make(
          "tr",
          `s-${kind}`,
          make("th", { scope: "row" }, name),
          make("td", "number", rounded(to - from)),
          make("td", {}, bar(from / scale, to / scale)),
        ),
      ),
    );
  }
}

/** The next round number, for an axis. @param {number} value */
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return (
    [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((one) => one * power).find((one) => one >= value) ?? value
  );
}
