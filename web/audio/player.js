// @ts-check
// The loudspeaker: plays numbered streams through `worklets/player.js`, and says truthfully how
// much of each was heard.
//
// One AudioContext at the machine's own rate for all streams: a new one for each rate would leave
// a gap between two streams, and cost a device each.  It is made when it is first needed, because
// browsers complain about contexts made before the user has touched the page.

const WORKLET = new URL("../worklets/player.js", import.meta.url);
const PREBUFFER_MS = 120; // covers 60 ms of jitter twice; the server sends half a second ahead
const START_MS = 500; // a context that is not running by then is not allowed to
// The server waits 250 ms for what was played; a worklet that does not render may never answer.
const ANSWER_MS = 150;
// What a browser does not tell (WebKit) is taken for what the others say, 30 to 45 ms: a word is
// rather called unheard than heard.
const UNKNOWN_LATENCY_MS = 40;
// Firefox answers by asking its audio process while the page waits; seen to stand still for good
// where a microphone was closed at the same moment on a busy machine.
const ASKING_STALLS = navigator.userAgent.includes("Firefox/");
const MAX_FINISHED = 16; // streams whose count is still known after their end

/**
 * @typedef {{type: "report", streamId: number, playedSamples: number, outputLatencyMs: number,
 *     final: boolean}} PlayerReport
 *     outputLatencyMs: of playedSamples, what the ear has not reached yet; what is left out of
 *     it counts as heard
 * @typedef {{type: "state", state: "idle" | "buffering" | "playing" | "paused" | "blocked"}} PlayerState
 * @typedef {PlayerReport | PlayerState | {type: "underrun", streamId: number}
 *     | {type: "overflow", streamId: number, samples: number}
 *     | {type: "failed", message: string}} PlayerEvent
 * @typedef {{played: number, discarded: number}} Flushed samples of the stream
 * @typedef {{played: number, pushed: number}} Account
 */

export class Player {
  #on;
  #prebufferMs;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioWorkletNode | null} */
  #node = null;
  /** @type {GainNode | null} */
  #gain = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  /** @type {object[] | null} messages from before the worklet is there; null: it will not be */
  #early = [];
  /** @type {Map<number, Account>} in the worklet's line */
  #open = new Map();
  /** @type {Map<number, Account>} the latest that are over */
  #finished = new Map();
  /** @type {Map<number, (answer: Flushed) => void>} */
  #flushes = new Map();
  #volume = 1;
  #startsBy = 0; // performance.now()
  #state = "idle"; // the worklet's
  #told = "idle"; // ours

  /** @param {{on: (event: PlayerEvent) => void, prebufferMs?: number}} options
   *  prebufferMs: of a stream that are queued before it begins */
  constructor({ on, prebufferMs = PREBUFFER_MS }) {
    this.#on = on;
    this.#prebufferMs = prebufferMs;
  }

  /** Of what is played, before the volume; null until anything was to be played.
   * @returns {AnalyserNode | null} */
  get analyser() {
    return this.#analyser;
  }

  /** Lets sound out; to be called from a click or a key.  Resolves to whether it runs.
   * @returns {Promise<boolean>} */
  async unlock() {
    const context = this.#ensureContext();
    await Promise.race([context.resume().catch(() => {}), delay(START_MS)]);
    return context.state === "running";
  }

  /** A stream begins, behind what is still to be played of others.
   * @param {number} streamId @param {number} sampleRate Hz */
  open(streamId, sampleRate) {
    if (!(sampleRate >= 8000 && sampleRate <= 192000)) {
      throw new RangeError(`sampleRate must be from 8000 to 192000 Hz, not ${sampleRate}`);
    }
    this.#ensureContext();
    // A server that was started anew counts anew, and has not asked what became of the old one.
    if (this.#open.has(streamId)) this.#post({ type: "flush", id: streamId });
    this.#finished.delete(streamId);
    this.#open.set(streamId, { played: 0, pushed: 0 });
    this.#post({ type: "open", id: streamId, rate: sampleRate });
    setTimeout(() => this.#tellState(), START_MS);
  }

  /** Audio of an open stream; false, and nothing is played of it, where it is not open.
   * @param {number} streamId @param {Int16Array} pcm mono */
  push(streamId, pcm) {
    const account = this.#open.get(streamId);
    if (!account) return false;
    account.pushed += pcm.length;
    const copy = pcm.slice(); // the caller keeps his
    this.#post({ type: "push", id: streamId, pcm: copy }, [copy.buffer]);
    return true;
  }

  /** All of the stream was pushed.  @param {number} streamId */
  end(streamId) {
    this.#post({ type: "end", id: streamId });
  }

  /** Silent at once; its queue is kept.  @param {number} streamId */
  pause(streamId) {
    this.#post({ type: "pause", id: streamId });
  }

  /** @param {number} streamId */
  resume(streamId) {
    this.#post({ type: "resume", id: streamId });
  }

  /** Silent at once and for ever: what of it was not played is discarded.  A stream that is over
   *  answers with all that it played.
   * @param {number} streamId @returns {Promise<Flushed>} */
  flush(streamId) {
    const account = this.#open.get(streamId);
    if (!account) return this.#flushFinished(streamId);
    this.#open.delete(streamId); // what still arrives of it is not pushed
    this.#finish(streamId, account);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        const { played, pushed } = account;
        this.#flushed(streamId, { played, discarded: pushed - played }, this.#latencyMs());
      }, ANSWER_MS);
      this.#flushes.set(streamId, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#post({ type: "flush", id: streamId });
    });
  }

  /** @param {number} volume 0 to 1 */
  setVolume(volume) {
    this.#volume = Math.max(0, Math.min(1, volume));
    if (this.#context && this.#gain) {
      this.#gain.gain.setTargetAtTime(this.#volume, this.#context.currentTime, 0.01);
    }
  }

  /** The user's own pause, of everything.  @param {boolean} held */
  userPause(held) {
    this.#post({ type: "hold", held });
  }

  /** Chooses the loudspeaker; false where the browser cannot.  @param {string} deviceId */
  async setOutput(deviceId) {
    const context = /** @type {any} */ (this.#ensureContext());
    if (!context.setSinkId) return false;
    await context.setSinkId(deviceId);
    return true;
  }

  /** Gives the audio device back; the player is of no use after it. */
  async close() {
    if (this.#context && this.#context.state !== "closed") await this.#context.close();
  }

  // --- the context and its worklet -----------------------------------------------------------

  #ensureContext() {
    if (this.#context) return this.#context;
    const context = new AudioContext({ latencyHint: "interactive" });
    const gain = new GainNode(context, { gain: this.#volume });
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    analyser.connect(gain).connect(context.destination);
    context.onstatechange = () => this.#tellState();
    this.#context = context;
    this.#gain = gain;
    this.#analyser = analyser;
    this.#startsBy = performance.now() + START_MS;
    this.#load(context, analyser).catch((error) => {
      this.#early = null;
      this.#on({ type: "failed", message: `this browser cannot play: ${error.message}` });
    });
    return context;
  }

  /** @param {AudioContext} context @param {AudioNode} output */
  async #load(context, output) {
    await context.audioWorklet.addModule(WORKLET.href);
    const node = new AudioWorkletNode(context, "listenai-player", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { prebufferMs: this.#prebufferMs },
    });
    node.port.onmessage = (event) => this.#receive(event.data);
    node.onprocessorerror = () =>
      this.#on({ type: "failed", message: "the player has stopped; reload the page" });
    node.connect(output);
    this.#node = node;
    for (const message of this.#early ?? []) node.port.postMessage(message);
    this.#early = null;
  }

  /** @param {object} message @param {Transferable[]} [transfer] */
  #post(message, transfer = []) {
    if (this.#node) this.#node.port.postMessage(message, transfer);
    else this.#early?.push(message);
  }

  // --- what the worklet says -----------------------------------------------------------------

  /** @param {any} message */
  #receive(message) {
    if (message.type === "state") {
      this.#state = message.state;
      this.#tellState();
    } else if (message.type === "position") {
      this.#position(message.id, message.played, message.final);
    } else if (message.type === "flushed") {
      const known = this.#finished.get(message.id);
      const played = message.played ?? known?.played ?? 0;
      if (known) known.played = played;
      const latencyMs = Math.max(0, this.#latencyMs() - message.stillMs);
      this.#flushed(message.id, { played, discarded: message.discarded }, latencyMs);
    } else if (message.type === "underrun") {
      this.#on({ type: "underrun", streamId: message.id });
    } else if (message.type === "overflow") {
      this.#on({ type: "overflow", streamId: message.id, samples: message.samples });
    }
  }

  /** @param {number} streamId @param {number} played @param {boolean} final */
  #position(streamId, played, final) {
    const account = this.#open.get(streamId) ?? this.#finished.get(streamId);
    if (account) account.played = played;
    if (!this.#open.has(streamId)) return; // its last word is the flush's
    if (final) {
      this.#finish(streamId, { played, pushed: played });
      this.#open.delete(streamId);
    }
    this.#report(streamId, played, this.#latencyMs(), final);
  }

  /** @param {number} streamId @param {Flushed} answer @param {number} latencyMs */
  #flushed(streamId, answer, latencyMs) {
    const resolve = this.#flushes.get(streamId);
    if (!resolve) return; // answered without the worklet
    this.#flushes.delete(streamId);
    this.#report(streamId, answer.played, latencyMs, true);
    resolve(answer);
  }

  /** @param {number} streamId @returns {Promise<Flushed>} */
  async #flushFinished(streamId) {
    const played = this.#finished.get(streamId)?.played ?? 0;
    if (!this.#flushes.has(streamId)) this.#report(streamId, played, 0, true);
    return { played, discarded: 0 };
  }

  /** @param {number} streamId @param {Account} account */
  #finish(streamId, account) {
    this.#finished.set(streamId, account);
    for (const oldest of this.#finished.keys()) {
      if (this.#finished.size <= MAX_FINISHED) break;
      this.#finished.delete(oldest);
    }
  }

  /** @param {number} streamId @param {number} playedSamples @param {number} outputLatencyMs
   *  @param {boolean} final */
  #report(streamId, playedSamples, outputLatencyMs, final) {
    this.#on({ type: "report", streamId, playedSamples, outputLatencyMs, final });
  }

  /** From the worklet to the ear. */
  #latencyMs() {
    if (!this.#context || ASKING_STALLS) return UNKNOWN_LATENCY_MS;
    const { outputLatency, baseLatency } = this.#context;
    return outputLatency ? Math.round((outputLatency + baseLatency) * 1000) : UNKNOWN_LATENCY_MS;
  }

  #tellState() {
    const running = this.#context?.state === "running";
    const mayStart = performance.now() < this.#startsBy;
    let state = this.#state;
    if (this.#open.size > 0 && !running && !mayStart) state = "blocked";
    else if (state === "playing" && !running) state = "buffering"; // as far as anyone can hear
    if (state === this.#told) return;
    this.#told = state;
    this.#on({ type: "state", state: /** @type {PlayerState["state"]} */ (state) });
  }
}

/** @param {number} ms @returns {Promise<void>} */
function delay(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
