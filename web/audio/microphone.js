// @ts-check
// The microphone: asks for it, and gives frames of 16 kHz int16 through `worklets/capture.js`.
//
// The AudioContext runs at the machine's own rate and the worklet resamples: a context of 16 kHz
// loses audio in Firefox.

const WORKLET = new URL("../worklets/capture.js", import.meta.url);
const SAMPLES_PER_MS = 16;
const FRAME_MS = { shortest: 10, longest: 100 };
const SILENT_MS = 2000; // no frame for so long: the browser's audio has stopped

/** @typedef {"asking" | "live" | "denied" | "lost" | "insecure" | "missing" | "off"} MicrophoneState */
/**
 * @typedef {{type: "frame", pcm: Int16Array, level: number}
 *     | {type: "state", state: MicrophoneState, message?: string}
 *     | {type: "devices", inputs: MediaDeviceInfo[], outputs: MediaDeviceInfo[]}} MicrophoneEvent
 *     level: RMS of the frame, 0 to 1
 * @typedef {{deviceId?: string, echoCancellation?: boolean, noiseSuppression?: boolean,
 *     autoGainControl?: boolean, frameMs?: number}} MicrophoneSettings
 */

/** What a refusal of getUserMedia means (W3C Media Capture and Streams, 10.2).
 * @type {Record<string, {state: MicrophoneState, message: string}>} */
const REFUSALS = {
  NotAllowedError: {
    state: "denied",
    message: "The microphone was refused. Allow it in the browser's address bar, then try again.",
  },
  NotFoundError: {
    state: "missing",
    message: "There is no microphone. Plug one in, then try again.",
  },
  OverconstrainedError: {
    state: "missing",
    message: "The chosen microphone is not there any more. Choose another one.",
  },
  NotReadableError: {
    state: "lost",
    message: "The microphone cannot be opened; another program may be using it.",
  },
};
const INSECURE =
  "Browsers give the microphone only to pages from localhost or over HTTPS. " +
  "Open this page in one of these ways.";

export class Microphone {
  #on;
  #muted = false;
  /** @type {Capture | null} the one that was asked for last */
  #capture = null;

  /** @param {{on: (event: MicrophoneEvent) => void}} options */
  constructor({ on }) {
    this.#on = on;
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#tellDevices());
  }

  /** Of what is heard; null while the microphone is off.  @returns {AnalyserNode | null} */
  get analyser() {
    return this.#capture?.analyser ?? null;
  }

  /** Frames of silence instead of sound; the browser itself cuts the sound off. */
  set muted(/** @type {boolean} */ muted) {
    this.#muted = muted;
    this.#capture?.mute(muted);
  }

  get muted() {
    return this.#muted;
  }

  /** Asks for a microphone and listens, until `stop` or the next `start`; what comes of it is told
   *  by states.  Raises RangeError for a frameMs that is not from 10 to 100.
   * @param {MicrophoneSettings} [settings] */
  async start(settings = {}) {
    const { frameMs = 20 } = settings;
    if (!(frameMs >= FRAME_MS.shortest && frameMs <= FRAME_MS.longest)) {
      const { shortest, longest } = FRAME_MS;
      throw new RangeError(`frameMs must be from ${shortest} to ${longest}, not ${frameMs}`);
    }
    this.#capture?.close();
    if (!window.isSecureContext || !navigator.mediaDevices) {
      this.#capture = null;
      this.#on({ type: "state", state: "insecure", message: INSECURE });
      return;
    }
    /** @type {(event: MicrophoneEvent) => void} */
    const on = (event) => {
      if (this.#capture === capture) this.#on(event);
    };
    const capture = new Capture(on, Math.round(frameMs) * SAMPLES_PER_MS);
    this.#capture = capture;
    capture.mute(this.#muted);
    on({ type: "state", state: "asking" });
    await capture.open(settings);
    if (this.#capture === capture) await this.#tellDevices();
  }

  /** Gives the microphone back. */
  stop() {
    if (!this.#capture) return;
    this.#capture.close();
    this.#capture = null;
    this.#on({ type: "state", state: "off" });
  }

  async #tellDevices() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const inputs = devices.filter((device) => device.kind === "audioinput");
    const outputs = devices.filter((device) => device.kind === "audiooutput");
    this.#on({ type: "devices", inputs, outputs });
  }
}

/** One time that the microphone is on. */
class Capture {
  /** @type {AnalyserNode | null} */
  analyser = null;
  #on;
  #frameSamples;
  #muted = false;
  #closed = false;
  #flowing = false; // whether frames come
  #heardAt = 0; // performance.now() of the latest frame
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;

  /** @param {(event: MicrophoneEvent) => void} on @param {number} frameSamples */
  constructor(on, frameSamples) {
    this.#on = on;
    this.#frameSamples = frameSamples;
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** @param {MicrophoneSettings} settings */
  async open(settings) {
    try {
      const audio = {
        channelCount: 1,
        echoCancellation: settings.echoCancellation ?? true,
        noiseSuppression: settings.noiseSuppression ?? true,
        autoGainControl: settings.autoGainControl ?? true,
        ...(settings.deviceId ? { deviceId: { exact: settings.deviceId } } : {}),
      };
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
      if (!this.#closed) await this.#listen(this.#stream);
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
    if (this.#closed) this.close(); // while it was being opened
  }

  close() {
    this.#closed = true;
    clearInterval(this.#watch);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
    this.analyser = null;
  }

  /** @param {MediaStream} stream */
  async #listen(stream) {
    this.mute(this.#muted);
    const [track] = stream.getAudioTracks();
    track.onended = () => this.#lose("The microphone was unplugged or taken away.");
    const context = new AudioContext({ latencyHint: "interactive" });
    this.#context = context;
    await context.audioWorklet.addModule(WORKLET.href);
    if (this.#closed) return;
    const source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    const node = new AudioWorkletNode(context, "listenai-capture", {
      outputChannelCount: [1],
      processorOptions: { frameSamples: this.#frameSamples },
    });
    node.port.onmessage = (event) => this.#hear(event.data);
    node.onprocessorerror = () => this.#lose("The browser has stopped listening; try again.");
    this.analyser = new AnalyserNode(context, { fftSize: 2048 });
    source.connect(this.analyser);
    // Browsers render only what leads to the loudspeaker; the worklet itself puts out nothing.
    source.connect(node).connect(context.destination);
    context.resume().catch(() => {}); // where it is not allowed yet, the watch tells
    this.#heardAt = performance.now();
    this.#watch = setInterval(() => this.#check(), SILENT_MS / 4);
  }

  /** @param {{pcm: Int16Array, level: number}} frame */
  #hear({ pcm, level }) {
    if (this.#closed) return;
    this.#heardAt = performance.now();
    if (!this.#flowing) {
      this.#flowing = true;
      this.#on({ type: "state", state: "live" });
    }
    this.#on({ type: "frame", pcm, level });
  }

  /** Told once, and taken back by the next frame: after the machine has slept there are none. */
  #check() {
    if (performance.now() - this.#heardAt < SILENT_MS) return;
    this.#heardAt = Infinity;
    this.#flowing = false;
    const message = "No sound comes from the microphone; the browser's audio does not run.";
    this.#on({ type: "state", state: "lost", message });
    this.#context?.resume().catch(() => {});
  }

  /** @param {Error} error */
  #fail(error) {
    const unknown = { state: /** @type {MicrophoneState} */ ("lost"), message: error.message };
    const { state, message } = REFUSALS[error.name] ?? unknown;
    this.#on({ type: "state", state, message });
    this.close();
  }

  /** @param {string} message */
  #lose(message) {
    this.#on({ type: "state", state: "lost", message });
    this.close();
  }
}
