// @ts-check
/**
 * What the page knows, as plain data, and how each thing that happens changes it.
 *
 * Pure: the same happenings give the same state, live, in a replay or in a test.  A
 * happening is what a part of the page reported, as it reported it: that is also what
 * is exported, so a replay is a fold over the file.  Times are ms on one clock.
 */

import { heardCharacters } from "./heard.js";
import {
  abandon,
  append,
  closeSpan,
  openSpan,
  problem,
  put,
  system,
  turnKey,
  withStream,
  withTurn,
} from "./state_parts.js";
import { FROM_SERVER } from "./state_server.js";
import { closeWords, microphoneWords } from "./words.js";

/** @typedef {Record<string, any> & {type: string}} Event */
/** @typedef {"connection"|"microphone"|"player"|"page"} Source */
/** @typedef {{at: number, source: Source, event: Event}} Happening */
/** @typedef {"system"|"user"|"assistant"|"error"|"tool"} Kind */
/** @typedef {Record<string, any> & {id: string, kind: Kind, at: number}} Entry a row of the log */
/** @typedef {{from: number, to: number|null}} Span */
/** @typedef {{at: number, kind: "barge-in"|"held"}} Mark */
/**
 * @typedef {object} Stream one run of audio
 * @property {number} id
 * @property {number|null} turnId
 * @property {"speech"|"music"} source
 * @property {number} sampleRate Hz
 * @property {{text: string, from: number}[]} sentences `from` in samples
 * @property {number} received samples
 * @property {number} played samples
 * @property {number|null} total samples, once the stream is complete
 */
/**
 * @typedef {object} Turn
 * @property {string} key of all sessions
 * @property {number} id
 * @property {"spoken"|"typed"} cause
 * @property {number|null} firstAudioAt when its first audio came
 * @property {number|null} playingAt when the loudspeaker began with it
 * @property {number|null} outputLatencyMs null: the browser does not tell
 * @property {number|null} roundTripMs as measured when it ended
 * @property {Record<string, any>|null} metrics the server's `turn_metrics`
 */
/**
 * @typedef {object} ConnectionView
 * @property {string} state as the connection tells it
 * @property {number} attempt
 * @property {number|null} retryAt
 * @property {number|null} code why it ended
 * @property {string} reason
 * @property {string} url without its key
 */
/**
 * @typedef {object} SessionView
 * @property {string} id
 * @property {number} generation how many sessions there were: each counts its turns from 1
 * @property {boolean} restored
 * @property {Record<string, any>|null} configuration what the server uses
 * @property {Record<string, any>|null} capabilities what there is to choose from
 * @property {Record<string, any>|null} statistics
 * @property {number|null} startedAt
 * @property {number|null} endedAt
 */
/**
 * @typedef {object} MicrophoneView
 * @property {string} state as the microphone tells it
 * @property {string} message
 * @property {boolean} muted
 * @property {{deviceId: string, label: string}[]} inputs
 * @property {{deviceId: string, label: string}[]} outputs
 */
/**
 * @typedef {object} Counts
 * @property {number} messages rows of the log
 * @property {number} toolCalls
 * @property {number} bargeIns
 * @property {number} errors
 * @property {number} underruns gaps in what was played
 * @property {number} staleSamples came after their flush
 * @property {number} unsentSamples of the microphone, not taken by the network in time
 * @property {number} unplayedSamples too many for the player's queue
 */
/**
 * @typedef {object} State
 * @property {number} originMs epoch of the clock's zero
 * @property {"live"|"replay"} origin
 * @property {ConnectionView} connection
 * @property {SessionView} session
 * @property {string} phase the assistant's state: a `status`, or held, interrupted, off
 * @property {MicrophoneView} microphone
 * @property {{state: string, userPaused: boolean}} player as it tells it, and the user's pause
 * @property {Entry[]} entries
 * @property {Turn[]} turns
 * @property {Record<number, Stream>} streams
 * @property {{you: Span[], assistant: Span[], marks: Mark[]}} timeline
 * @property {Counts} counts
 * @property {number[]} roundTrips ms, of the latest pings
 * @property {Record<string, number>} pings when each unanswered one was sent
 */

/** @type {State} */
export const INITIAL = Object.freeze({
  originMs: 0,
  origin: /** @type {const} */ ("live"),
  connection: { state: "closed", attempt: 0, retryAt: null, code: null, reason: "", url: "" },
  session: {
    id: "",
    generation: 0,
    restored: false,
    configuration: null,
    capabilities: null,
    statistics: null,
    startedAt: null,
    endedAt: null,
  },
  phase: "off",
  microphone: { state: "off", message: "", muted: false, inputs: [], outputs: [] },
  player: { state: "idle", userPaused: false },
  entries: [],
  turns: [],
  streams: {},
  timeline: { you: [], assistant: [], marks: [] },
  counts: {
    messages: 0,
    toolCalls: 0,
    bargeIns: 0,
    errors: 0,
    underruns: 0,
    staleSamples: 0,
    unsentSamples: 0,
    unplayedSamples: 0,
  },
  roundTrips: [],
  pings: {},
});

/**
 * The state after one thing happened; the same object when it changes nothing.
 * @param {State} state @param {Happening} happening @returns {State}
 */
export function reduce(state, { at, source, event }) {
  const change = CHANGES[source]?.[event.type];
  return change ? change(state, event, at) : state;
}

/** @typedef {(state: State, event: Event, at: number) => State} Change */

/** @type {Record<string, Change>} */
const FROM_CONNECTION = {
  state(state, event, at) {
    const closed = event.state === "closed" || event.state === "reconnecting";
    const next = {
      ...state,
      connection: {
        ...state.connection,
        state: event.state,
        attempt: event.attempt ?? 0,
        retryAt: event.retryInMs === undefined ? null : at + event.retryInMs,
        code: event.code ?? null,
        reason: event.reason ?? "",
      },
      session: {
        ...state.session,
        startedAt: state.session.startedAt ?? (event.state === "open" ? at : null),
        endedAt: closed ? (state.session.endedAt ?? at) : null,
      },
    };
    if (event.state === "open" || event.state === "connecting") return next;
    const text = closeWords(event);
    const last = next.entries.at(-1);
    // The next attempt takes the row of the one before.
    if (last?.topic === "connection") return put(abandon(next, at), { ...last, text });
    return append(abandon(next, at), { kind: "system", at, text, topic: "connection" });
  },

  message(state, event, at) {
    return FROM_SERVER[event.message.type]?.(state, event.message, at) ?? state;
  },

  sent(state, event, at) {
    const { message } = event;
    if (message.type === "ping") return { ...state, pings: { [message.id ?? ""]: at } };
    if (message.type !== "text") return state;
    return append(state, {
      kind: "user",
      at,
      text: message.text,
      cause: "typed",
      stage: "final",
    });
  },

  audio(state, event, at) {
    const stream = state.streams[event.streamId];
    if (!stream) return state;
    const samples = event.samples ?? event.pcm.length;
    const next = withStream(state, stream.id, { received: stream.received + samples });
    const turn = next.turns.find((one) => one.key === turnKey(next, stream.turnId ?? 0));
    if (!turn || turn.firstAudioAt !== null) return next;
    const playing = state.player.state === "playing"; // behind the tail of another stream
    return withTurn(next, turn.id, { firstAudioAt: at, playingAt: playing ? at : null });
  },

  stale(state, event) {
    const staleSamples = state.counts.staleSamples + event.samples;
    return { ...state, counts: { ...state.counts, staleSamples } };
  },

  dropped(state, event) {
    const unsentSamples = state.counts.unsentSamples + event.samples;
    return { ...state, counts: { ...state.counts, unsentSamples } };
  },
};

/** @type {Record<string, Change>} */
const FROM_MICROPHONE = {
  state(state, event, at) {
    const message = event.message ?? "";
    const next = {
      ...state,
      microphone: { ...state.microphone, state: event.state, message },
    };
    const words = microphoneWords(event.state);
    return words && state.microphone.state !== event.state ? system(next, at, words) : next;
  },
  devices(state, { inputs, outputs }) {
    return { ...state, microphone: { ...state.microphone, inputs, outputs } };
  },
};

/** @type {Record<string, Change>} */
const FROM_PLAYER = {
  state(state, event, at) {
    const next = { ...state, player: { ...state.player, state: event.state } };
    if (event.state !== "playing") return closeSpan(next, "assistant", at);
    const turn = next.turns.at(-1);
    const first = turn && turn.firstAudioAt !== null && turn.playingAt === null;
    const started = first ? withTurn(next, turn.id, { playingAt: at }) : next;
    return openSpan(started, "assistant", at);
  },
  report(state, event) {
    const stream = state.streams[event.streamId];
    if (!stream) return state;
    const next = withStream(state, stream.id, { played: event.playedSamples });
    if (stream.turnId === null) return next;
    // 0: the browser does not tell, or the last of a flushed stream has been heard.
    const latency = event.outputLatencyMs > 0 ? { outputLatencyMs: event.outputLatencyMs } : {};
    const noted = withTurn(next, stream.turnId, latency);
    const entry = noted.entries.find(
      (one) => one.id === `assistant-${turnKey(noted, stream.turnId ?? 0)}`,
    );
    if (!entry || entry.outcome !== "open") return noted;
    const heard = heardCharacters(entry.text, noted.streams[stream.id]);
    return heard === entry.heard ? noted : put(noted, { ...entry, heard });
  },
  underrun(state) {
    const underruns = state.counts.underruns + 1;
    return { ...state, counts: { ...state.counts, underruns } };
  },
  overflow(state, event) {
    const unplayedSamples = state.counts.unplayedSamples + event.samples;
    return { ...state, counts: { ...state.counts, unplayedSamples } };
  },
  failed: (state, event, at) => problem(state, at, "PLAYER", event.message),
};

/** @type {Record<string, Change>} */
const FROM_PAGE = {
  began(_state, event) {
    return { ...INITIAL, originMs: event.epochMs, origin: event.origin };
  },
  addressed(state, event) {
    return { ...state, connection: { ...state.connection, url: event.url } };
  },
  muted(state, event) {
    return { ...state, microphone: { ...state.microphone, muted: event.muted } };
  },
  paused(state, event) {
    return { ...state, player: { ...state.player, userPaused: event.paused } };
  },
  notice(state, event, at) {
    return system(state, at, event.text);
  },
  problem: (state, event, at) => problem(state, at, "PAGE", event.text),
};

/** @type {Record<Source, Record<string, Change>>} */
const CHANGES = {
  connection: FROM_CONNECTION,
  microphone: FROM_MICROPHONE,
  player: FROM_PLAYER,
  page: FROM_PAGE,
};
