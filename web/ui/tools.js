// @ts-check
/** A tool call as a card: what was called with what, how it went, how long it took. */

import { icon, make, rounded } from "./dom.js";

/** @type {Record<string, string>} */
const ICONS = {
  get_weather: "weather",
  set_volume: "volume",
  play_music: "music",
  set_timer: "clock",
  get_time: "clock",
};

/** @type {Record<string, string>} */
const STAGES = { running: "running…", ok: "succeeded", failed: "failed" };

/** @param {string} name */
export function toolIcon(name) {
  return icon(ICONS[name] ?? "tool");
}

/** @param {import("../state.js").Entry} entry of kind "tool" @returns {HTMLElement} */
export function toolCard(entry) {
  const terms = make("dl");
  for (const [name, value] of Object.entries(entry.arguments ?? {})) {
    terms.append(make("dt", "", name), make("dd", "", plain(value)));
  }
  if (entry.stage !== "running") {
    const label = entry.stage === "ok" ? "result" : "reason";
    terms.append(make("dt", "", label), make("dd", "", plain(entry.outcome)));
  }
  const time =
    entry.durationMs === null ? null : make("span", "chip", rounded(entry.durationMs, " ms"));
  const where = entry.target === "device" ? "on this page" : "on the server";
  const stage = make("span", "status", STAGES[entry.stage]);
  const line = make("div", "meta", stage, time, make("span", "chip", where));
  return make("div", "toolcard", line, terms);
}

/** @param {unknown} value */
function plain(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
}
