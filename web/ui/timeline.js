// @ts-check
/** Two lanes of the last 30 s: levels, where speech was noticed, where an answer was cut. */

import { freshContext, palette } from "./palette.js";
import { setAttribute } from "./dom.js";

/** @typedef {import("../state.js").State} State */

const SHOWN_MS = 30_000;
const LEVELS_KEPT = 4096; // 30 s of 10 ms frames, and some
const BAR = 3; // px, with its gap
const FLOOR_DB = -54; // quieter is a line
const DESCRIBE_MS = 4_000; // for screen readers, not oftener

/** The latest levels of one lane, each with its time. */
export class Levels {
  #times = new Float64Array(LEVELS_KEPT);
  #values = new Float32Array(LEVELS_KEPT);
  #count = 0;

  /** @param {number} at ms @param {number} level RMS, 0..1 */
  add(at, level) {
    this.#times[this.#count % LEVELS_KEPT] = at;
    this.#values[this.#count % LEVELS_KEPT] = level;
    this.#count++;
  }

  /** The highest in each bin of time. @param {number} binMs @returns {Map<number, number>} */
  bins(/** @type {number} */ since, binMs) {
    const bins = new Map();
    for (let i = this.#count - 1; i >= Math.max(0, this.#count - LEVELS_KEPT); i--) {
      const at = this.#times[i % LEVELS_KEPT];
      if (at < since) break;
      const bin = Math.floor(at / binMs);
      bins.set(bin, Math.max(bins.get(bin) ?? 0, this.#values[i % LEVELS_KEPT]));
    }
    return bins;
  }

  clear() {
    this.#count = 0;
  }
}

/** Root mean square of int16 samples, 0..1. @param {Int16Array} pcm */
export function levelOf(pcm) {
  let sum = 0;
  for (const sample of pcm) sum += sample * sample;
  return pcm.length ? Math.sqrt(sum / pcm.length) / 32768 : 0;
}

export class Timeline {
  you = new Levels();
  assistant = new Levels();
  #canvas;
  #describedAt = -Infinity;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  clear() {
    this.you.clear();
    this.assistant.clear();
    this.#describedAt = -Infinity;
  }

  /** @param {State} state @param {number} now ms, of the state's clock */
  draw({ timeline }, now) {
    const fresh = freshContext(this.#canvas);
    if (!fresh) return;
    const { context, width, height } = fresh;
    const colours = palette();
    const x = (/** @type {number} */ at) => width - ((now - at) / SHOWN_MS) * width;
    const lane = height / 2;
    drawGrid(context, x, now, width, height, colours);
    for (const [index, who, colour] of /** @type {const} */ ([
      [0, "you", colours.user],
      [1, "assistant", colours.assistant],
    ])) {
      context.fillStyle = colour;
      context.globalAlpha = 0.16;
      for (const { from, to } of timeline[who]) {
        const right = x(to ?? now);
        if (right < 0) continue;
        const left = Math.max(0, x(from));
        context.beginPath();
        context.roundRect(left, index * lane + 3, Math.max(2, right - left), lane - 6, 5);
        context.fill();
      }
      context.globalAlpha = 1;
      drawBars(context, this[who], now, width, (index + 0.5) * lane, lane - 14);
    }
    drawMarks(context, timeline.marks, x, height, colours);
    if (now - this.#describedAt > DESCRIBE_MS) {
      this.#describedAt = now;
      setAttribute(this.#canvas, "aria-label", describe(timeline, now));
    }
  }
}

/** @param {CanvasRenderingContext2D} context @param {(at: number) => number} x
 * @param {number} now @param {number} width @param {number} height
 * @param {Record<string, string>} colours */
function drawGrid(context, x, now, width, height, colours) {
  context.fillStyle = colours.line;
  context.fillRect(0, height / 2 - 0.5, width, 1);
  for (let at = Math.ceil((now - SHOWN_MS) / 5000) * 5000; at < now; at += 5000) {
    context.fillRect(x(at), 0, 1, height);
  }
}

/** @param {CanvasRenderingContext2D} context @param {Levels} levels @param {number} now
 * @param {number} width @param {number} middle @param {number} tall */
function drawBars(context, levels, now, width, middle, tall) {
  const binMs = (SHOWN_MS * BAR) / width;
  for (const [bin, level] of levels.bins(now - SHOWN_MS, binMs)) {
    const decibel = 20 * Math.log10(Math.max(level, 1e-6));
    const share = Math.max(0, Math.min(1, 1 - decibel / FLOOR_DB));
    const bar = Math.max(1.5, share ** 1.5 * 1.35 * tall);
    const left = width - ((now - bin * binMs) / SHOWN_MS) * width;
    context.fillRect(left, middle - Math.min(bar, tall) / 2, BAR - 1, Math.min(bar, tall));
  }
}

/** @param {CanvasRenderingContext2D} context @param {State["timeline"]["marks"]} marks
 * @param {(at: number) => number} x @param {number} height
 * @param {Record<string, string>} colours */
function drawMarks(context, marks, x, height, colours) {
  for (const { at, kind } of marks) {
    const left = x(at);
    if (left < 0) continue;
    const cut = kind === "barge-in";
    context.setLineDash(cut ? [] : [3, 3]);
    context.lineWidth = cut ? 2 : 1.5;
    context.strokeStyle = cut ? colours.error : colours.edge;
    context.beginPath();
    context.moveTo(left, 0);
    context.lineTo(left, height);
    context.stroke();
  }
  context.setLineDash([]);
}

/** @param {State["timeline"]} timeline @param {number} now */
function describe({ you, assistant, marks }, now) {
  const since = now - SHOWN_MS;
  const count = (/** @type {{to: number|null}[]} */ spans) =>
    spans.filter(({ to }) => (to ?? now) > since).length;
  const times = (/** @type {number} */ n) => (n === 1 ? "once" : n === 2 ? "twice" : `${n} times`);
  const cuts = marks.filter(({ at, kind }) => kind === "barge-in" && at > since).length;
  const [spoke, answered] = [count(you), count(assistant)];
  if (!spoke && !answered) return "The last 30 seconds: nothing was said.";
  const interrupted = cuts ? `, interrupted ${times(cuts)}` : "";
  const said = (/** @type {number} */ n) => (n ? `spoke ${times(n)}` : "did not speak");
  return `The last 30 seconds: you ${said(spoke)}, the assistant ${said(answered)}${interrupted}.`;
}
