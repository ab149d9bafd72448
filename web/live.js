// @ts-check
/** A live conversation: connection, microphone and player, and what passes between them. */

import { Microphone } from "./audio/microphone.js";
import { Player } from "./audio/player.js";
import { Connection } from "./connection.js";
import { answerToolCall, deviceTools } from "./device_tools.js";
import { MusicBox } from "./music_box.js";
import { obey } from "./obey.js";
import { socketUrl, withoutKey } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./state.js").Source} Source */
/** @typedef {import("./state.js").Event} Event */
/** @typedef {import("./audio/player.js").PlayerEvent} PlayerEvent */
/** @typedef {import("./audio/microphone.js").MicrophoneEvent} MicrophoneEvent */
/** @typedef {import("./connection.js").ConnectionEvent} ConnectionEvent */

// The page is busy while it begins: the shortest round trip of several is the network's.
const FIRST_PINGS_MS = [0, 800, 1600];
const SESSION_ITEM = "listenai.session"; // of the tab: a reloaded page goes on with its session

/**
 * @typedef {object} LiveParts
 * @property {() => Settings} settings as they are now
 * @property {() => string} key the server's API key, or ""
 * @property {(source: Source, event: Event, at?: number) => void} happen
 * @property {(percent: number) => void} setVolume the user's slider
 * @property {(reason: string) => void} refused what was asked for by `configure`
 */

export class Live {
  #parts;
  #microphone;
  #musicBox = new MusicBox();
  /** @type {Player|null} */
  #player = null;
  #prebufferMs = 0;
  /** @type {Connection|null} */
  #connection = null;
  #url = "";
  #talking = false; // the ring or the key is held
  /** @type {Set<number>} streams that the server has not ended */
  #streams = new Set();

  /** @param {LiveParts} parts */
  constructor(parts) {
    this.#parts = parts;
    this.#microphone = new Microphone({ on: (event) => this.#fromMicrophone(event) });
  }

  get analysers() {
    return { you: this.#microphone.analyser, assistant: this.#player?.analyser ?? null };
  }

  // --- what the user does --------------------------------------------------------------------

  /** Connects, or tries again at once; to be called from a click or a key: it may make sound. */
  connect() {
    const { settings, key, happen } = this.#parts;
    let url;
    try {
      url = socketUrl(settings().url, location, key());
    } catch (error) {
      happen("page", { type: "problem", text: /** @type {Error} */ (error).message });
      return;
    }
    this.unlock();
    if (!this.#connection || url !== this.#url) this.#connection = this.#makeConnection(url);
    happen("page", { type: "addressed", url: withoutKey(url) });
    this.#connection.connect();
    void this.listen();
  }

  disconnect() {
    this.#connection?.disconnect();
    this.#rest();
  }

  /** Turns the microphone on, as the settings say. */
  async listen() {
    const { inputId, echoCancellation, noiseSuppression, autoGainControl, frameMs } =
      this.#parts.settings();
    const processing = { echoCancellation, noiseSuppression, autoGainControl };
    const device = inputId ? { deviceId: inputId } : {};
    await this.#microphone.start({ ...device, ...processing, frameMs });
  }

  /** Lets sound out; on an address that is not secure there is none. */
  unlock() {
    if (!window.isSecureContext) return;
    const { prebufferMs, volume, outputId } = this.#parts.settings();
    if (this.#player && this.#prebufferMs !== prebufferMs && this.#streams.size === 0) {
      void this.#player.close();
      this.#player = null;
    }
    if (!this.#player) {
      this.#prebufferMs = prebufferMs;
      this.#player = new Player({ on: (event) => this.#fromPlayer(event), prebufferMs });
      this.#player.setVolume(volume / 100);
      if (outputId) this.setOutput(outputId);
    }
    void this.#player.unlock();
  }

  /** @param {string} text @returns {boolean} whether it was sent */
  type(text) {
    return this.send({ type: "text", text });
  }

  /** @param {Record<string, any>} message @returns {boolean} whether it was sent */
  send(message) {
    return this.#connection?.send(message) ?? false;
  }

  interrupt() {
    this.send({ type: "interrupt" });
  }

  /** Asks for what the user has chosen, if anything. */
  configure() {
    const { server } = this.#parts.settings();
    return Object.keys(server).length > 0 && this.send({ type: "configure", ...server });
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#microphone.muted = muted;
    this.#parts.happen("page", { type: "muted", muted });
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.#player?.userPause(paused);
    this.#parts.happen("page", { type: "paused", paused });
  }

  /** Push-to-talk: what is said from now on is sent. @param {boolean} interrupting an answer */
  talk(interrupting) {
    this.#talking = true;
    if (interrupting) this.interrupt();
  }

  /** Push-to-talk was let go. */
  endTalk() {
    if (!this.#talking) return;
    this.#talking = false;
    this.send({ type: "end_of_speech" });
  }

  /** @param {number} percent */
  setVolume(percent) {
    this.#player?.setVolume(percent / 100);
    this.#musicBox.setVolume(percent / 100);
  }

  /** @param {string} deviceId "": the system's */
  setOutput(deviceId) {
    const report = (/** @type {boolean} */ done) => {
      if (done) return;
      const text =
        "This browser cannot choose the loudspeaker: choose it in the system's settings.";
      this.#parts.happen("page", { type: "problem", text });
    };
    this.#player?.setOutput(deviceId).then(report, () => report(false));
  }

  /** Erases the session at the server and leaves. */
  endSession() {
    this.send({ type: "end_session" });
    sessionStorage.removeItem(SESSION_ITEM);
  }

  // --- the connection ------------------------------------------------------------------------

  /** @param {string} url */
  #makeConnection(url) {
    this.#connection?.disconnect();
    this.#url = url;
    return new Connection({
      url,
      startSession: () => this.#startSession(),
      on: (event) => this.#fromConnection(event),
    });
  }

  #startSession() {
    const { echoCancellation, ownMusic } = this.#parts.settings();
    const audible = window.isSecureContext;
    const kept = keptSession();
    const session = kept?.url === withoutKey(this.#url) ? { session_id: kept.id } : {};
    return {
      type: "start_session",
      ...session,
      capabilities: {
        pause: audible,
        flush: audible,
        playback_reports: audible,
        // The text is shown, but what was not heard was not said: history follows the ear,
        // and the eye only where there is nothing to hear.
        display_text: !audible,
        echo: echoCancellation ? "cancelled" : "raw",
      },
      device_tools: deviceTools({ ownMusic }),
    };
  }

  /** @param {ConnectionEvent} event */
  #fromConnection(event) {
    const at = "at" in event ? event.at : performance.now();
    this.#parts.happen("connection", event, at);
    if (event.type === "audio") this.#player?.push(event.streamId, event.pcm);
    if (event.type === "message") this.#receive(event.message);
    if (event.type !== "state") return;
    if (event.state === "closed") this.#rest();
    if (event.state === "reconnecting") this.#flushAll();
  }

  /** @param {Record<string, any>} message */
  #receive(message) {
    if (message.type === "tts_audio" && message.state === "start")
      this.#streams.add(message.stream_id);
    if (message.type === "tts_audio" && message.state === "end")
      this.#streams.delete(message.stream_id);
    if (message.type === "flush") this.#streams.delete(message.stream_id);
    if (this.#player) obey(this.#player, message);
    if (message.type === "tool_call" && message.target === "device") this.#runTool(message);
    if (message.type === "status" && message.restored !== undefined) this.#started(message);
    const { type, code, message: words } = message;
    if (type === "error" && code === "INVALID_MESSAGE" && words.startsWith("configure")) {
      this.#parts.refused(words);
    }
  }

  /** @param {Record<string, any>} status */
  #started({ session_id: id }) {
    const kept = JSON.stringify({ url: withoutKey(this.#url), id });
    sessionStorage.setItem(SESSION_ITEM, kept);
    for (const ms of FIRST_PINGS_MS) setTimeout(() => this.send({ type: "ping", id: ms }), ms);
    this.configure();
  }

  /** @param {Record<string, any>} call */
  #runTool(call) {
    const { settings, setVolume } = this.#parts;
    const device = { volume: () => settings().volume, setVolume, musicBox: this.#musicBox };
    this.send(answerToolCall(call, device));
  }

  /** Nothing more comes: what was begun is not finished, and nobody listens. */
  #rest() {
    this.#flushAll();
    this.#talking = false;
    this.#musicBox.stop();
    this.#microphone.stop();
  }

  #flushAll() {
    for (const id of this.#streams) void this.#player?.flush(id);
    this.#streams.clear();
  }

  // --- sound ---------------------------------------------------------------------------------

  /** @param {PlayerEvent} event */
  #fromPlayer(event) {
    this.#parts.happen("player", event);
    if (event.type !== "report") return;
    this.send({
      type: "playback",
      stream_id: event.streamId,
      played_samples: event.playedSamples,
      output_latency_ms: event.outputLatencyMs,
    });
  }

  /** @param {MicrophoneEvent} event */
  #fromMicrophone(event) {
    if (event.type === "devices") {
      const plain = (/** @type {MediaDeviceInfo[]} */ devices) =>
        devices.map(({ deviceId, label }) => ({ deviceId, label }));
      const { inputs, outputs } = event;
      this.#parts.happen("microphone", {
        type: "devices",
        inputs: plain(inputs),
        outputs: plain(outputs),
      });
      return;
    }
    if (event.type !== "frame") {
      this.#parts.happen("microphone", event);
      return;
    }
    // What is not sent is not kept either.
    const sent = this.#talking || this.#parts.settings().mode === "hands_free";
    if (!sent || !this.#connection || this.#connection.state !== "open") return;
    this.#connection.sendAudio(event.pcm);
    this.#parts.happen("microphone", event);
  }
}

/** @returns {{url: string, id: string}|null} */
function keptSession() {
  try {
    return JSON.parse(sessionStorage.getItem(SESSION_ITEM) ?? "null");
  } catch {
    return null; // somebody edited it
  }
}
