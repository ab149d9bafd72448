// @ts-check
// The page's connection, microphone and loudspeaker, wired as the page wires them, and a record
// of all that happens.  Tests call what `window.harness` offers.

import { Microphone } from "./audio/microphone.js";
import { Player } from "./audio/player.js";
import { Connection } from "./connection.js";

const query = new URLSearchParams(location.search);
const outputRate = Number(query.get("output_sample_rate") ?? 0);

/** @type {any[]} every event, with `from` and `at`, without the samples */
const events = [];
/** @type {Map<number, {played: number, discarded: number}>} */
const flushed = new Map();
/** frame: of one; loud: since the beginning; quiet: digital silence since the last sound */
const microphoneSamples = { count: 0, frame: 0, loud: 0, quiet: 0 };

/** @param {string} from @param {any} event */
function note(from, { pcm, ...event }) {
  if (event.type === "frame") {
    microphoneSamples.count += pcm.length;
    microphoneSamples.frame = pcm.length;
    if (event.level > 0.01) microphoneSamples.loud += pcm.length;
    microphoneSamples.quiet = event.level === 0 ? microphoneSamples.quiet + pcm.length : 0;
    return;
  }
  events.push({ from, at: performance.now(), ...event, ...(pcm ? { samples: pcm.length } : {}) });
}

const player = new Player({
  on: (event) => {
    note("player", event);
    if (event.type === "report") {
      connection.send({
        type: "playback",
        stream_id: event.streamId,
        played_samples: event.playedSamples,
        output_latency_ms: event.outputLatencyMs,
      });
    }
  },
});

/** @type {Record<string, (message: any) => void>} */
const actions = {
  pause: ({ stream_id }) => player.pause(stream_id),
  resume: ({ stream_id }) => player.resume(stream_id),
  flush: async ({ stream_id }) => flushed.set(stream_id, await player.flush(stream_id)),
  tts_audio: ({ state, stream_id, sample_rate }) => {
    if (state === "start") {
      player.open(stream_id, sample_rate);
    } else if (state === "end") {
      player.end(stream_id);
    }
  },
};

const connection = new Connection({
  url: query.get("server") ?? "",
  startSession: () => ({
    type: "start_session",
    capabilities: { pause: true, flush: true, playback_reports: true, echo: "cancelled" },
  }),
  on: (event) => {
    if (event.type === "message") actions[event.message.type]?.(event.message);
    if (event.type === "audio") player.push(event.streamId, event.pcm);
    if (event.type === "state" && event.state === "open" && outputRate) {
      connection.send({ type: "configure", output_sample_rate: outputRate });
    }
    note("connection", event);
  },
});

const microphone = new Microphone({
  on: (event) => {
    if (event.type === "frame") connection.sendAudio(event.pcm);
    note("microphone", event);
  },
});

/** @param {any} object @param {Record<string, any>} fields */
function has(object, fields) {
  return Object.entries(fields).every(([key, value]) => object[key] === value);
}

const unlock = /** @type {HTMLButtonElement} */ (document.querySelector("#unlock"));
unlock.onclick = () => player.unlock();
if (query.has("tone")) {
  // Before the user has touched the page.
  player.open(1, 16000);
  player.push(1, new Int16Array(16000).fill(8000));
}

Object.assign(window, {
  harness: {
    connection,
    microphone,
    player,
    events,
    flushed: (/** @type {number} */ id) => flushed.get(id),
    microphoneSamples,
    /** The first event with all of these fields. */
    find: (/** @type {Record<string, any>} */ fields) => events.find((event) => has(event, fields)),
  },
});
