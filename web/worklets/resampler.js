// @ts-check
// Changes the sample rate of a stream: a windowed-sinc low-pass filter, evaluated only where an
// output sample lies.
//
// Theory.  With both rates divided by their greatest common divisor, output k lies at input
// position k * step / phases, and the fraction of that position is one of `phases` values.  Each
// has a row of filter taps, worked out once; position and phase are whole numbers, so nothing
// drifts however long a stream is.  Input is pushed sample by sample until an output is due:
// that serves one who is given input (the microphone) and one who is asked for output (the
// player) alike, and tells the player to the sample how far it is.
//
// Equal rates pass unchanged, bit by bit.

// Zero crossings of the sinc on each side.  With the window below: 1 dB less at 0.87 of the
// narrower band, 80 dB less what would fold back to below 0.9 of it; 1.5 ms of delay at 16 kHz.
const CROSSINGS = 24;
const CUTOFF = 0.95; // of the narrower band: the middle of the slope
const KAISER_BETA = 8; // 80 dB

/**
 * @typedef {object} Filter
 * @property {number} phases
 * @property {number} step input positions between two outputs, in phases
 * @property {number} ahead input samples after its place that an output needs
 * @property {number} taps
 * @property {Float32Array} table `phases` rows of `taps`
 */

/** Filters are the same for every stream of a pair of rates: a second one costs nothing.
 * @type {Map<string, Filter>} */
const filters = new Map();

export class Resampler {
  #filter;
  #history; // the latest inputs, each written twice: a window of them is always in one piece
  #at = 0; // where the next input goes
  #phase = 0;
  #wanted; // inputs before the next output is due

  /** @param {number} inputRate Hz  @param {number} outputRate Hz */
  constructor(inputRate, outputRate) {
    this.#filter = filterOf(Math.round(inputRate), Math.round(outputRate));
    this.#history = new Float32Array(2 * this.#filter.taps);
    this.#wanted = this.#filter.ahead + 1;
  }

  /** Input samples that an output needs from after its own place. */
  get ahead() {
    return this.#filter.ahead;
  }

  /** Whether `pull` is next; else `push` is. */
  get due() {
    return this.#wanted === 0;
  }

  /** Takes the next input sample; none may be due.  @param {number} sample */
  push(sample) {
    const { taps } = this.#filter;
    this.#history[this.#at] = sample;
    this.#history[this.#at + taps] = sample;
    this.#at = (this.#at + 1) % taps;
    this.#wanted -= 1;
  }

  /** The next output sample; one must be due. */
  pull() {
    const { table, taps, phases, step } = this.#filter;
    const history = this.#history;
    const row = this.#phase * taps;
    let sum = 0;
    for (let k = 0; k < taps; k++) sum += table[row + k] * history[this.#at + k];
    const next = this.#phase + step;
    this.#wanted = Math.floor(next / phases);
    this.#phase = next % phases;
    return sum;
  }
}

/** @param {number} inputRate @param {number} outputRate @returns {Filter} */
function filterOf(inputRate, outputRate) {
  const name = `${inputRate}:${outputRate}`;
  let filter = filters.get(name);
  if (!filter) filters.set(name, (filter = makeFilter(inputRate, outputRate)));
  return filter;
}

/** @param {number} inputRate @param {number} outputRate @returns {Filter} */
function makeFilter(inputRate, outputRate) {
  if (inputRate === outputRate) {
    return { phases: 1, step: 1, ahead: 0, taps: 1, table: Float32Array.of(1) };
  }
  const common = greatestCommonDivisor(inputRate, outputRate);
  const phases = outputRate / common;
  const step = inputRate / common;
  const band = Math.min(1, outputRate / inputRate); // of the input's band, what the output has
  const half = Math.ceil(CROSSINGS / band);
  const taps = 2 * half;
  const table = new Float32Array(phases * taps);
  for (let phase = 0; phase < phases; phase++) {
    // Tap k belongs to the input half - 1 - k before the output's place, less the fraction.
    let sum = 0;
    for (let k = 0; k < taps; k++) {
      const distance = k - (half - 1) - phase / phases;
      const tap = sinc(distance * band * CUTOFF) * kaiser(distance / half);
      table[phase * taps + k] = tap;
      sum += tap;
    }
    for (let k = 0; k < taps; k++) table[phase * taps + k] /= sum; // the same gain in each phase
  }
  return { phases, step, ahead: half, taps, table };
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @param {number} x from -1 to 1 over the window */
function kaiser(x) {
  return besselI0(KAISER_BETA * Math.sqrt(Math.max(0, 1 - x * x))) / besselI0(KAISER_BETA);
}

/** The modified Bessel function of order 0, by its power series.  @param {number} x */
function besselI0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-9 * sum; k++) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}

/** @param {number} a @param {number} b @returns {number} */
function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
