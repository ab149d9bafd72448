// @ts-check
/** The ring: a spectrum of whoever is heard, mirrored left and right, low tones on top. */

import { freshContext, palette } from "./palette.js";

const BANDS = 40; // a side
const LOW_HZ = 90;
const HIGH_HZ = 7_000; // speech has nothing above it, and 16 kHz audio neither

export class Spectrum {
  #canvas;
  /** @type {Uint8Array<ArrayBuffer>} */
  #bins = new Uint8Array(0);
  #bars = new Float32Array(BANDS);

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** @param {AnalyserNode|null} analyser null: nobody @param {string} colour of the palette */
  draw(analyser, colour) {
    const fresh = freshContext(this.#canvas);
    if (!fresh) return;
    const { context, width } = fresh;
    this.#measure(analyser);
    const middle = width / 2;
    const inner = width * 0.345;
    const tall = width * 0.145;
    context.lineCap = "round";
    context.lineWidth = Math.max(2, width / 70);
    context.strokeStyle = palette()[colour];
    for (let band = 0; band < BANDS; band++) {
      const level = this.#bars[band];
      context.globalAlpha = 0.35 + 0.65 * Math.min(1, level * 2);
      for (const side of [-1, 1]) {
        const angle = side * Math.PI * ((band + 0.5) / BANDS) - Math.PI / 2;
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        const outer = inner + 1 + level * tall;
        context.beginPath();
        context.moveTo(middle + inner * cos, middle + inner * sin);
        context.lineTo(middle + outer * cos, middle + outer * sin);
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  /** @param {AnalyserNode|null} analyser */
  #measure(analyser) {
    if (analyser) {
      if (this.#bins.length !== analyser.frequencyBinCount) {
        this.#bins = new Uint8Array(analyser.frequencyBinCount);
      }
      analyser.getByteFrequencyData(this.#bins);
    }
    const hertz = analyser ? analyser.context.sampleRate / 2 / this.#bins.length : 1;
    for (let band = 0; band < BANDS; band++) {
      const [from, to] = [band, band + 1].map((edge) =>
        Math.floor((LOW_HZ * (HIGH_HZ / LOW_HZ) ** (edge / BANDS)) / hertz),
      );
      let highest = 0;
      for (let bin = from; analyser && bin <= to && bin < this.#bins.length; bin++) {
        highest = Math.max(highest, this.#bins[bin]);
      }
      const level = (highest / 255) ** 1.6;
      this.#bars[band] = Math.max(level, this.#bars[band] * 0.8); // falls softly
    }
  }
}

const SAMPLES = new Float32Array(1024);

/** What sounds now, RMS 0..1. @param {AnalyserNode} analyser */
export function loudness(analyser) {
  analyser.getFloatTimeDomainData(SAMPLES);
  let sum = 0;
  for (const sample of SAMPLES) sum += sample * sample;
  return Math.sqrt(sum / SAMPLES.length);
}
