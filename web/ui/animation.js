// @ts-check
/** What moves: the timeline and the ring, as often as was chosen, seldom while nothing happens. */

import { byId } from "./dom.js";
import { Spectrum, loudness } from "./spectrum.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("./timeline.js").Timeline} Timeline */
/**
 * @typedef {object} Scene
 * @property {State} state
 * @property {number} now ms, of the state's clock
 * @property {import("../situation.js").Situation["tone"]} tone
 * @property {number} fps
 * @property {{you: AnalyserNode|null, assistant: AnalyserNode|null}} analysers
 */

const IDLE_FPS = 2;
const CALM_FPS = 5; // for who wants less motion
const EARLY_MS = 4; // the browser's frames do not come evenly

/** @type {Record<string, string>} */
const COLOURS = {
  user: "user",
  assistant: "assistant",
  tool: "tool",
  listen: "system",
  busy: "system",
};

/**
 * Draws for ever.
 * @param {Timeline} timeline its assistant's lane gets what sounds @param {() => Scene} look
 */
export function animate(timeline, look) {
  const spectrum = new Spectrum(byId("spectrum"));
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let drawnAt = 0;

  const draw = (/** @type {number} */ at) => {
    requestAnimationFrame(draw);
    const { state, now, tone, fps, analysers } = look();
    const idle = state.connection.state === "closed" && state.origin === "live";
    const wanted = idle ? IDLE_FPS : calm.matches ? Math.min(CALM_FPS, fps) : fps;
    if (at - drawnAt < 1000 / wanted - EARLY_MS) return;
    drawnAt = at;
    const { you, assistant } = analysers;
    const playing = state.player.state === "playing";
    if (assistant && playing) timeline.assistant.add(now, loudness(assistant));
    timeline.draw(state, now);
    spectrum.draw(playing ? assistant : you, COLOURS[tone] ?? "edge");
  };

  requestAnimationFrame(draw);
}
