// @ts-check
// The connection to the server: one WebSocket after another, one session.
//
// It begins each socket with `start_session`, with the id of the session as soon as there is one,
// and is "open" when the server has answered with `status`.  A lost socket is replaced after a
// pause that doubles, and is drawn by lot so that a thousand pages do not return at once; where
// coming back would be wrong or useless (FINAL), it stays closed.

const BACKOFF_MS = { first: 500, longest: 15000 };
const STABLE_MS = 5000; // a session that lasts so long begins the backoff anew
const OPEN_MS = 10000; // from the attempt to the server's first `status`
// A browser does not tell a page that the network is gone; a ping without any answer does.
const PING_MS = 10000;
// Audio that the network does not take is old before it is heard.  So much may wait in the socket,
const MAX_BUFFERED_BYTES = 16000; // half a second
// and so much before it; then the oldest is dropped.
const MAX_WAITING_SAMPLES = 8000; // half a second
const DRAIN_MS = 40; // between looks at whether the socket has taken some
const SUMMARY_SAMPLES = 16000; // of audio that was sent, in one "sent" event

/** After these a new attempt would fail like the last, or take the session from its new owner. */
const FINAL = new Map([
  [401, "A valid key is needed."],
  [1000, "The session has ended."],
  [1008, "What this page asked for was not accepted."],
  [4001, "The session goes on in another window or device."],
]);
const REASONS = new Map([
  [503, "The server is there but took no connection: it is full, or the address is not its own."],
  [1001, "The server is being stopped."],
  [1006, "The connection was lost."],
  [1011, "The server had an error."],
  [1013, "The server is full."],
]);

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} ConnectionState
 * @typedef {{type: "state", state: ConnectionState, attempt?: number, retryInMs?: number,
 *     code?: number, reason?: string, sessionId?: string}} StateEvent
 *     code: a WebSocket close code, or 401 or 503 where HTTP answered
 * @typedef {StateEvent
 *     | {type: "message", message: any, at: number}
 *     | {type: "audio", streamId: number, pcm: Int16Array, at: number}
 *     | {type: "sent", message: any, at: number}
 *     | {type: "stale", streamId: number, samples: number}
 *     | {type: "dropped", samples: number}} ConnectionEvent
 *     at: performance.now(); dropped: microphone audio that the network did not take in time
 * @typedef {object} Options
 * @property {string} url ws:// or wss://
 * @property {() => object} startSession the `start_session` message, without a session id or
 *     with that to begin with
 * @property {(event: ConnectionEvent) => void} on
 * @property {() => number} [random] from 0 to 1
 * @property {(callback: () => void, ms: number) => any} [setTimer]
 * @property {(timer: any) => void} [clearTimer]
 * @property {(url: string) => WebSocket} [makeSocket]
 * @property {() => number} [now] ms
 * @property {(url: string) => Promise<number>} [probe] the HTTP status that a page gets where the
 *     socket was refused without a word; rejects where nobody answers
 */

export class Connection {
  #options;
  /** @type {ConnectionState} */
  #state = "closed";
  /** @type {WebSocket | null} */
  #socket = null;
  #sessionId = "";
  #attempt = 0; // since the last stable session
  #openedAt = 0;
  #heard = false; // anything since the last ping
  #erasing = false; // the session has been asked to end
  #stream = { id: 0, isOpen: false };
  /** @type {Map<"open" | "retry" | "ping" | "drain", any>} */
  #timers = new Map();
  /** @type {Int16Array[]} */
  #waiting = [];
  #waitingSamples = 0;
  #droppedSamples = 0;
  #summary = { frames: 0, samples: 0 };

  /** @param {Options} options */
  constructor(options) {
    this.#options = {
      random: Math.random,
      setTimer: (/** @type {() => void} */ callback, /** @type {number} */ ms) =>
        setTimeout(callback, ms),
      clearTimer: (/** @type {number} */ timer) => clearTimeout(timer),
      makeSocket: (/** @type {string} */ url) => new WebSocket(url),
      now: () => performance.now(),
      probe: probeHttp,
      ...options,
    };
  }

  get state() {
    return this.#state;
  }

  /** "" until the server has given one. */
  get sessionId() {
    return this.#sessionId;
  }

  /** Of the microphone, since the beginning. */
  get droppedSamples() {
    return this.#droppedSamples;
  }

  /** Connects, also at once where the next attempt is being waited for. */
  connect() {
    if (this.#state === "reconnecting") this.#clearTimers();
    else if (this.#state === "closed") this.#attempt = 0;
    else return;
    this.#open();
  }

  /** Leaves; the session can be taken up again by `connect`. */
  disconnect() {
    if (this.#state === "closed") return;
    this.#drop(1000);
    this.#dropWaiting();
    this.#tell("closed", { code: 1000, reason: "" });
  }

  /** Sends a message in its place among the audio; false where there is no session to take it.
   * @param {any} message */
  send(message) {
    if (this.#state !== "open" || !this.#socket) return false;
    this.#sendWaiting(this.#socket, Infinity);
    if (message.type === "end_session") this.#erasing = true;
    this.#transmit(this.#socket, message);
    return true;
  }

  /** Sends microphone audio, or keeps it for half a second until that is possible.
   * @param {Int16Array} pcm 16 kHz mono */
  sendAudio(pcm) {
    if (this.#state === "closed" || pcm.length === 0) return;
    this.#waiting.push(pcm.slice());
    this.#waitingSamples += pcm.length;
    this.#drain();
    let dropped = 0;
    while (this.#waitingSamples > MAX_WAITING_SAMPLES) {
      const oldest = /** @type {Int16Array} */ (this.#waiting.shift());
      this.#waitingSamples -= oldest.length;
      dropped += oldest.length;
    }
    this.#countDropped(dropped);
  }

  // --- sockets -------------------------------------------------------------------------------

  #open() {
    const { makeSocket, url } = this.#options;
    this.#tell("connecting", this.#attempt > 0 ? { attempt: this.#attempt } : {});
    let socket;
    try {
      socket = makeSocket(url);
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      this.#tell("closed", { code: 1006, reason: `The address cannot be used: ${message}` });
      return;
    }
    this.#socket = socket;
    this.#stream = { id: 0, isOpen: false };
    let shaken = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      shaken = true;
      const session = this.#sessionId ? { session_id: this.#sessionId } : {};
      this.#transmit(socket, { ...this.#options.startSession(), ...session });
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason, shaken);
    this.#timer("open", OPEN_MS, () => this.#lose("The server did not answer in time."));
  }

  /** Forgets the socket without waiting for its farewell.  @param {number} [code] */
  #drop(code) {
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  /** @param {string} reason */
  #lose(reason) {
    this.#drop();
    this.#retry(1006, reason);
  }

  /** @param {number} code @param {string} reason @param {boolean} shaken whether hands were */
  async #closed(code, reason, shaken) {
    this.#drop();
    if (this.#erasing) {
      this.#erasing = false;
      this.#sessionId = "";
    }
    if (!shaken) {
      // A browser keeps from the page with what HTTP status it was refused.
      const state = this.#state;
      const status = await this.#options.probe(this.#options.url).catch(() => 0);
      if (this.#state !== state || this.#socket) return; // the user was quicker
      if (status !== 0) code = status === 401 ? 401 : 503;
    }
    if (FINAL.has(code)) {
      this.#dropWaiting();
      this.#tell("closed", { code, reason: reason || FINAL.get(code) });
    } else {
      this.#retry(code, reason || REASONS.get(code) || `The connection was closed (${code}).`);
    }
  }

  /** @param {number} code @param {string} reason */
  #retry(code, reason) {
    const { now, random } = this.#options;
    if (this.#state === "open" && now() - this.#openedAt >= STABLE_MS) this.#attempt = 0;
    const pause = Math.min(BACKOFF_MS.longest, BACKOFF_MS.first * 2 ** this.#attempt);
    const retryInMs = Math.round(pause * (0.5 + random() / 2));
    this.#attempt += 1;
    this.#timer("retry", retryInMs, () => this.#open());
    this.#tell("reconnecting", { attempt: this.#attempt, retryInMs, code, reason });
  }

  #ping() {
    if (!this.#socket) return;
    if (!this.#heard) {
      this.#lose("The server has not answered for a while.");
      return;
    }
    this.#heard = false;
    this.#transmit(this.#socket, { type: "ping" });
    this.#timer("ping", PING_MS, () => this.#ping());
  }

  // --- what is received ----------------------------------------------------------------------

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#heard = true;
    const at = this.#options.now();
    if (typeof data !== "string") {
      this.#receiveAudio(data, at);
      return;
    }
    const message = parse(data);
    if (message.type === "status") this.#receiveStatus(message);
    if (message.type === "tts_audio" && message.state === "start") {
      this.#stream = { id: message.stream_id, isOpen: true };
    }
    const over = message.type === "flush" || (message.type === "tts_audio" && message.state === "end");
    if (over && message.stream_id === this.#stream.id) this.#stream.isOpen = false;
    this.#options.on({ type: "message", message, at });
  }

  /** @param {ArrayBuffer} data @param {number} at */
  #receiveAudio(data, at) {
    const pcm = new Int16Array(data, 0, data.byteLength >> 1);
    const { id: streamId, isOpen } = this.#stream;
    if (isOpen) this.#options.on({ type: "audio", streamId, pcm, at });
    else this.#options.on({ type: "stale", streamId, samples: pcm.length });
  }

  /** @param {any} message */
  #receiveStatus(message) {
    if (message.session_id) this.#sessionId = message.session_id;
    if (this.#state === "open") return;
    this.#clearTimers();
    this.#openedAt = this.#options.now();
    this.#heard = true;
    this.#timer("ping", PING_MS, () => this.#ping());
    this.#tell("open");
    this.#drain();
  }

  // --- what is sent --------------------------------------------------------------------------

  /** @param {WebSocket} socket @param {any} message */
  #transmit(socket, message) {
    socket.send(JSON.stringify(message));
    this.#options.on({ type: "sent", message, at: this.#options.now() });
  }

  #drain() {
    if (this.#state === "open" && this.#socket) {
      this.#sendWaiting(this.#socket, MAX_BUFFERED_BYTES);
      if (this.#waiting.length > 0) this.#timer("drain", DRAIN_MS, () => this.#drain());
    }
  }

  /** @param {WebSocket} socket @param {number} room bytes that may lie in the socket */
  #sendWaiting(socket, room) {
    while (this.#waiting.length > 0 && socket.bufferedAmount < room) {
      const pcm = /** @type {Int16Array<ArrayBuffer>} */ (this.#waiting.shift());
      this.#waitingSamples -= pcm.length;
      socket.send(pcm);
      this.#summary.frames += 1;
      this.#summary.samples += pcm.length;
    }
    if (this.#summary.samples >= SUMMARY_SAMPLES) {
      const message = { type: "audio", ...this.#summary };
      this.#summary = { frames: 0, samples: 0 };
      this.#options.on({ type: "sent", message, at: this.#options.now() });
    }
  }

  #dropWaiting() {
    this.#countDropped(this.#waitingSamples);
    this.#waiting = [];
    this.#waitingSamples = 0;
  }

  /** @param {number} samples */
  #countDropped(samples) {
    if (samples === 0) return;
    this.#droppedSamples += samples;
    this.#options.on({ type: "dropped", samples });
  }

  // --- states and timers ---------------------------------------------------------------------

  /** @param {ConnectionState} state @param {Partial<StateEvent>} [details] */
  #tell(state, details = {}) {
    this.#state = state;
    const session = this.#sessionId ? { sessionId: this.#sessionId } : {};
    this.#options.on({ type: "state", ...session, ...details, state });
  }

  /** @param {"open" | "retry" | "ping" | "drain"} name @param {number} ms
   *  @param {() => void} callback */
  #timer(name, ms, callback) {
    const { setTimer, clearTimer } = this.#options;
    if (this.#timers.has(name)) clearTimer(this.#timers.get(name));
    const timer = setTimer(() => {
      this.#timers.delete(name);
      callback();
    }, ms);
    this.#timers.set(name, timer);
  }

  #clearTimers() {
    for (const timer of this.#timers.values()) this.#options.clearTimer(timer);
    this.#timers.clear();
  }
}

/** @param {string} text */
function parse(text) {
  try {
    const message = JSON.parse(text);
    if (message && typeof message === "object") return message;
  } catch {
    // what follows says it
  }
  const message = "The server sent text that is no JSON object.";
  return { type: "error", code: "INVALID_MESSAGE", message };
}

/** Asks the same server for what is closed without a key, with the key of the address.
 * @param {string} url */
async function probeHttp(url) {
  const address = new URL(url);
  address.protocol = address.protocol === "wss:" ? "https:" : "http:";
  address.pathname = "/metrics";
  // The page's policy keeps it from asking any other server than its own.
  if (address.origin !== location.origin) throw new Error("another origin");
  const answer = await fetch(address, { method: "HEAD", cache: "no-store" });
  return answer.status;
}
