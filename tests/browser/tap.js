// @ts-check
// Listens in on a page, before anything of it runs: what its loudspeaker puts out, sample by
// sample, and what its socket receives.  `recorder.js` is beside the page, or where
// `window.recorderModule` says.

(() => {
  /** Where a browser did not render, frames are missing.
   * @type {{frame: number, samples: Float32Array}[]} */
  const blocks = [];
  /** @type {BaseAudioContext | null} */
  let context = null;
  /** @type {{at: number, played: number, message: any}[]} played: s of the loudspeaker's clock */
  const messages = [];
  /** @type {Map<number, Int16Array[]>} by stream */
  const received = new Map();
  let streamId = 0;

  const connect = /** @type {any} */ (AudioNode.prototype.connect);
  AudioNode.prototype.connect = /** @this {AudioNode} @param {any[]} to @returns {any} */ function (
    ...to
  ) {
    // The volume is what a player has before its loudspeaker; a microphone has none.
    if (to[0] instanceof AudioDestinationNode && this instanceof GainNode) record(this);
    return connect.apply(this, to);
  };

  /** @param {AudioNode} source */
  async function record(source) {
    await source.context.audioWorklet.addModule(/** @type {any} */ (window).recorderModule ?? "./recorder.js");
    const node = new AudioWorkletNode(source.context, "recorder", { channelCount: 1 });
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
    };
    connect.call(source, node);
    connect.call(node, source.context.destination);
    context = source.context;
  }

  const Socket = WebSocket;
  window.WebSocket = class extends Socket {
    /** @param {string} url */
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => receive(data));
    }
  };

  /** @param {string | ArrayBuffer} data */
  function receive(data) {
    if (typeof data !== "string") {
      received.get(streamId)?.push(new Int16Array(data.slice(0)));
      return;
    }
    const message = JSON.parse(data);
    messages.push({ at: performance.now(), played: context?.currentTime ?? 0, message });
    if (message.type === "tts_audio" && message.state === "start") {
      streamId = message.stream_id;
      received.set(streamId, []);
    }
  }

  function recorded() {
    const last = blocks.at(-1);
    const pcm = new Int16Array(last ? last.frame + last.samples.length : 0);
    for (const { frame, samples } of blocks) {
      samples.forEach((sample, k) => {
        pcm[frame + k] = Math.round(sample * 32768);
      });
    }
    return pcm;
  }

  /** @param {Iterable<Int16Array>} pieces @returns {string} their samples in base64 */
  function base64(pieces) {
    let text = "";
    for (const piece of pieces) {
      const bytes = new Uint8Array(piece.buffer);
      for (let at = 0; at < bytes.length; at += 8192) {
        text += String.fromCharCode(...bytes.subarray(at, at + 8192));
      }
    }
    return btoa(text);
  }

  Object.assign(window, {
    tap: {
      messages,
      /** Hz; 0 until the page has opened a loudspeaker. */
      rate: () => context?.sampleRate ?? 0,
      /** int16 from the beginning of the loudspeaker's clock. */
      recorded: () => base64([recorded()]),
      /** @param {number} id */
      received: (id) => base64(received.get(id) ?? []),
      /** The first message with all of these fields.  @param {Record<string, any>} fields */
      message: (fields) =>
        messages.find(({ message }) =>
          Object.entries(fields).every(([key, value]) => message[key] === value),
        ),
    },
  });
})();
