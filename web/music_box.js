// @ts-check
/** A music box in the page: one short tune of our own, struck on sine bars. */

const TITLE = "Small rain, a music box tune";
const BEAT_SECONDS = 0.3;
// Semitones above A4, one a beat; null is a rest.
const TUNE = [
  0,
  4,
  7,
  12,
  11,
  7,
  4,
  null,
  2,
  5,
  9,
  14,
  12,
  9,
  5,
  null,
  -3,
  0,
  4,
  9,
  7,
  4,
  0,
  null,
  -1,
  2,
  7,
  11,
  12,
  null,
  12,
  null,
];
const ROUNDS = 4;
const LEVEL = 0.16; // below speech

export class MusicBox {
  /** @type {AudioContext|null} */
  #context = null;
  /** @type {GainNode|null} */
  #gain = null;
  #volume = 1;

  /** Starts the tune from its beginning; returns its title. */
  play() {
    this.stop();
    const context = (this.#context ??= new AudioContext());
    void context.resume();
    const gain = (this.#gain = new GainNode(context, { gain: LEVEL * this.#volume }));
    gain.connect(context.destination);
    const start = context.currentTime + 0.05;
    for (let beat = 0; beat < TUNE.length * ROUNDS; beat++) {
      const semitones = TUNE[beat % TUNE.length];
      if (semitones !== null) strike(context, gain, start + beat * BEAT_SECONDS, semitones);
    }
    return TITLE;
  }

  /** Falls silent; returns whether it played. */
  stop() {
    const playing = this.#gain;
    this.#gain = null;
    if (!playing || !this.#context) return false;
    playing.gain.setTargetAtTime(0, this.#context.currentTime, 0.02); // no click
    setTimeout(() => playing.disconnect(), 200);
    return true;
  }

  /** @param {number} share 0..1 */
  setVolume(share) {
    this.#volume = share;
    if (this.#gain && this.#context) {
      this.#gain.gain.setTargetAtTime(LEVEL * share, this.#context.currentTime, 0.02);
    }
  }
}

/** @param {AudioContext} context @param {AudioNode} output @param {number} at s
 * @param {number} semitones above A4 */
function strike(context, output, at, semitones) {
  const frequency = 440 * 2 ** (semitones / 12);
  for (const [multiple, level, seconds] of [
    [1, 0.8, 1.2],
    [4, 0.2, 0.3],
  ]) {
    const bar = new OscillatorNode(context, { frequency: frequency * multiple });
    const envelope = new GainNode(context, { gain: 0 });
    envelope.gain.setValueAtTime(0, at);
    envelope.gain.linearRampToValueAtTime(level, at + 0.005);
    envelope.gain.exponentialRampToValueAtTime(0.0001, at + seconds);
    bar.connect(envelope).connect(output);
    bar.start(at);
    bar.stop(at + seconds);
  }
}
