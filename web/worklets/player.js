// @ts-check
// The loudspeaker's AudioWorklet: plays numbered streams one behind the other, without a gap,
// each resampled from its own rate to the context's, and knows to the sample how far it is.
//
//   options    processorOptions: {prebufferMs}
//   from page  {type: "open", id, rate}            behind the others, which are complete by that;
//                                                  as in the protocol, it ends a pause of theirs
//              {type: "push", id, pcm: Int16Array} ignored for a stream that is not open
//              {type: "end", id}                   nothing more will be pushed
//              {type: "pause" | "resume", id}      the queue is kept
//              {type: "flush", id}                 answered by "flushed"
//              {type: "hold", held}                the user's own pause of everything
//   to page    {type: "state", state}              "idle" | "buffering" | "playing" | "paused"
//              {type: "position", id, played, final}   every 250 ms, and at a stream's end
//              {type: "flushed", id, played, discarded, stillMs}   stillMs: since its last
//                                                  sample; played is null where it was not open
//              {type: "underrun", id}              ran dry before its end; buffers again
//              {type: "overflow", id, samples}     dropped, see below
//
// Counts are samples of the stream, at its rate.  Overflow policy: MAX_QUEUED_SECONDS are kept;
// of more, the *newest* are dropped and told.  (Dropping the oldest would count words as played
// that nobody heard.)
//
// Where sound stops short (pause, flush, underrun) its last value fades to nothing; where it
// goes on, it fades in.  The cursor stands still from the moment of the message, so answers are
// exact and do not wait for a block to be rendered.

import { Resampler } from "./resampler.js";

const FADE_MS = 3; // short enough to be silence at once, long enough not to click
const REPORT_MS = 250;
// The server is half a second ahead at most, unless the user pauses: then a whole reply waits.
const MAX_QUEUED_SECONDS = 120;

class Stream {
  paused = false;
  ended = false;
  primed = false; // enough is queued to begin, or to go on after an underrun
  gain = 1; // below 1 while it fades in
  written = 0;
  #resampler;
  /** @type {Int16Array[]} */
  #chunks = [];
  #offset = 0; // into the first chunk
  #taken = 0; // samples given to the resampler
  #padding = 0; // zeros after the end, which bring out the last samples

  /** @param {number} id  @param {number} rate Hz */
  constructor(id, rate) {
    this.id = id;
    this.rate = rate;
    this.#resampler = new Resampler(rate, sampleRate);
  }

  get queued() {
    return this.written - this.#taken;
  }

  get played() {
    return Math.max(0, this.#taken + this.#padding - this.#resampler.ahead);
  }

  /** @param {Int16Array} pcm */
  push(pcm) {
    if (pcm.length === 0) return;
    this.#chunks.push(pcm);
    this.written += pcm.length;
  }

  /** The next output sample; NaN where there is none. */
  next() {
    while (!this.#resampler.due) {
      if (this.queued > 0) {
        const chunk = this.#chunks[0];
        this.#resampler.push(chunk[this.#offset] / 32768);
        this.#taken += 1;
        this.#offset += 1;
        if (this.#offset === chunk.length) {
          this.#chunks.shift();
          this.#offset = 0;
        }
      } else if (this.ended && this.#padding < this.#resampler.ahead) {
        this.#resampler.push(0);
        this.#padding += 1;
      } else {
        return NaN;
      }
    }
    return this.#resampler.pull();
  }
}

class Player extends AudioWorkletProcessor {
  /** @type {Stream[]} the first one sounds */
  #line = [];
  #held = false;
  #state = "idle";
  #prebufferSeconds;
  #fadeLength = Math.round((sampleRate * FADE_MS) / 1000);
  #last = 0; // what was put out last; 0 where nothing sounds
  #tail = 0; // what a stop faded from
  #tailLeft = 0;
  #sinceReport = 0; // output samples
  #soundedAt = 0; // seconds of the context, when a sample was last taken

  /** @param {{processorOptions: {prebufferMs: number}}} options */
  constructor({ processorOptions }) {
    super();
    this.#prebufferSeconds = processorOptions.prebufferMs / 1000;
    this.port.onmessage = (event) => {
      this.#handle(event.data);
      this.#tellState();
    };
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    const output = outputs[0][0];
    for (let i = 0; i < output.length; i++) {
      let sample = this.#nextSample();
      if (this.#tailLeft > 0) {
        sample += (this.#tail * this.#tailLeft) / this.#fadeLength;
        this.#tailLeft -= 1;
      }
      output[i] = sample;
    }
    this.#report();
    this.#tellState();
    return true;
  }

  /** @param {any} message */
  #handle(message) {
    if (message.type === "hold") {
      if (message.held && !this.#held) this.#stopShort();
      this.#held = message.held;
      return;
    }
    if (message.type === "open") {
      this.#open(message.id, message.rate);
      return;
    }
    const stream = this.#line.find((one) => one.id === message.id);
    if (message.type === "flush") {
      this.#flush(message.id, stream);
    } else if (stream && message.type === "push") {
      this.#push(stream, message.pcm);
    } else if (stream && message.type === "end") {
      stream.ended = true;
      this.#prime(stream);
    } else if (stream && message.type === "pause") {
      if (stream === this.#line[0] && !stream.paused) this.#stopShort();
      stream.paused = true;
    } else if (stream && message.type === "resume") {
      stream.paused = false;
    }
  }

  /** @param {number} id @param {number} rate */
  #open(id, rate) {
    for (const before of this.#line) {
      before.paused = false;
      before.ended = true;
      this.#prime(before);
    }
    this.#line.push(new Stream(id, rate));
  }

  /** @param {Stream} stream @param {Int16Array} pcm */
  #push(stream, pcm) {
    let seconds = pcm.length / stream.rate;
    for (const one of this.#line) seconds += one.queued / one.rate;
    if (stream.ended || seconds > MAX_QUEUED_SECONDS) {
      this.port.postMessage({ type: "overflow", id: stream.id, samples: pcm.length });
      return;
    }
    stream.push(pcm);
    this.#prime(stream);
  }

  /** @param {Stream} stream */
  #prime(stream) {
    stream.primed ||= stream.ended || stream.queued >= this.#prebufferSeconds * stream.rate;
  }

  /** @param {number} id @param {Stream | undefined} stream */
  #flush(id, stream) {
    if (stream && stream === this.#line[0]) this.#stopShort();
    const played = stream ? stream.played : null;
    const discarded = stream ? stream.written - stream.played : 0;
    this.#line = this.#line.filter((one) => one !== stream);
    const stillMs = (currentTime - this.#soundedAt) * 1000;
    this.port.postMessage({ type: "flushed", id, played, discarded, stillMs });
  }

  /** What sounds stops here, if anything does. */
  #stopShort() {
    if (this.#last !== 0) {
      this.#tail = this.#last;
      this.#tailLeft = this.#fadeLength;
      this.#last = 0;
    }
    if (this.#line.length > 0 && this.#line[0].played > 0) this.#line[0].gain = 0;
  }

  #nextSample() {
    while (this.#line.length > 0) {
      const stream = this.#line[0];
      if (this.#held || stream.paused || !stream.primed) break;
      const sample = stream.next();
      if (!Number.isNaN(sample)) {
        this.#sinceReport += 1;
        this.#last = sample * stream.gain;
        if (stream.gain < 1) stream.gain = Math.min(1, stream.gain + 1 / this.#fadeLength);
        return this.#last;
      }
      if (stream.ended) {
        this.#finish(stream);
      } else {
        this.#stopShort();
        stream.primed = false;
        this.port.postMessage({ type: "underrun", id: stream.id });
      }
    }
    return 0;
  }

  /** @param {Stream} stream */
  #finish(stream) {
    this.#line.shift();
    this.#last = 0;
    this.#sinceReport = 0;
    const played = stream.written;
    this.port.postMessage({ type: "position", id: stream.id, played, final: true });
  }

  /** At the end of a block. */
  #report() {
    if (this.#last !== 0 || this.#state === "playing") this.#soundedAt = currentTime;
    if (this.#sinceReport < (sampleRate * REPORT_MS) / 1000) return;
    this.#sinceReport = 0;
    const stream = this.#line[0];
    if (!stream) return;
    const { id, played } = stream;
    this.port.postMessage({ type: "position", id, played, final: false });
  }

  #tellState() {
    const stream = this.#line[0];
    let state = "idle";
    if (stream && (this.#held || stream.paused)) state = "paused";
    else if (stream) state = stream.primed ? "playing" : "buffering";
    if (state === this.#state) return;
    this.#state = state;
    this.port.postMessage({ type: "state", state });
  }
}

registerProcessor("listenai-player", Player);
