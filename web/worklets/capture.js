// @ts-check
// The microphone's AudioWorklet: whatever the context's rate, out come frames of 16 kHz int16.
//
//   options   processorOptions: {frameSamples}     samples of a frame, at 16 kHz
//   to page   {pcm: Int16Array, level}             a frame; level: its RMS, 0 to 1
//   from page "stop"                               nothing more comes, the node can be collected
//
// Overflow policy: nothing is queued here.  A full frame is posted at once (posting copies it),
// and who gets it decides.  `process` makes no objects, so that it never waits for a collection.

import { Resampler } from "./resampler.js";

const OUTPUT_RATE = 16000; // Hz, what the server listens to

class Capture extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, OUTPUT_RATE);
  #message;
  #filled = 0;
  #power = 0; // sum of squares of the frame so far
  #stopped = false;

  /** @param {{processorOptions: {frameSamples: number}}} options */
  constructor({ processorOptions }) {
    super();
    this.#message = { pcm: new Int16Array(processorOptions.frameSamples), level: 0 };
    this.port.onmessage = (event) => {
      if (event.data === "stop") this.#stopped = true;
    };
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const channels = inputs[0];
    if (this.#stopped) return false;
    if (channels.length === 0) return true; // the source has not begun, or is gone
    const length = channels[0].length;
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let c = 0; c < channels.length; c++) sum += channels[c][i];
      this.#resampler.push(sum / channels.length);
      while (this.#resampler.due) this.#take(this.#resampler.pull());
    }
    return true;
  }

  /** @param {number} sample */
  #take(sample) {
    const { pcm } = this.#message;
    const clipped = Math.max(-1, Math.min(1, sample));
    pcm[this.#filled] = Math.round(clipped * 32767);
    this.#power += clipped * clipped;
    this.#filled += 1;
    if (this.#filled === pcm.length) {
      this.#message.level = Math.sqrt(this.#power / pcm.length);
      this.port.postMessage(this.#message);
      this.#filled = 0;
      this.#power = 0;
    }
  }
}

registerProcessor("listenai-capture", Capture);
