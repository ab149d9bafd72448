// @ts-check
/** How each message of the server changes what the page knows: one row a `type`.  Pure. */

import {
  closeSpan,
  dropPartial,
  mark,
  openSpan,
  problem,
  put,
  roundTripOf,
  system,
  turnKey,
  withStream,
  withTurn,
} from "./state_parts.js";
import { sessionWords } from "./words.js";

/** @typedef {import("./state.js").Change} Change */

const ROUND_TRIPS_KEPT = 5; // the shortest of them counts

/** @type {Record<string, Change>} */
export const FROM_SERVER = {
  status(state, message, at) {
    const { session } = state;
    const isNew = message.restored === false;
    const next = {
      ...state,
      phase: message.state,
      streams: isNew ? {} : state.streams,
      session: {
        ...session,
        id: message.session_id ?? session.id,
        generation: session.generation + (isNew ? 1 : 0),
        restored: message.restored ?? session.restored,
        configuration: message.configuration ?? session.configuration,
        capabilities: message.capabilities ?? session.capabilities,
        statistics: message.statistics ?? session.statistics,
      },
    };
    if (message.state === "hearing") return openSpan(next, "you", at);
    const silent = closeSpan(next, "you", at);
    if (message.state === "listening") return dropPartial(silent);
    if (message.restored === undefined && !message.configuration) return silent;
    return system(silent, at, sessionWords(message, session.id));
  },

  asr_result(state, message, at) {
    const key = turnKey(state, message.turn_id);
    const id = `user-${key}`;
    const known = state.entries.find((entry) => entry.id === id);
    const next = put(state, {
      id,
      kind: "user",
      at: known?.at ?? at,
      turnKey: key,
      text: message.text,
      cause: "spoken",
      stage: message.is_final ? "final" : "partial",
    });
    const noted = message.is_final ? withTurn(next, message.turn_id, { cause: "spoken" }) : next;
    return message.speeching ? openSpan(noted, "you", at) : closeSpan(noted, "you", at);
  },

  llm_response(state, message, at) {
    const key = turnKey(state, message.turn_id);
    const id = `assistant-${key}`;
    const known = state.entries.find((entry) => entry.id === id);
    const text = message.done ? message.text : (known?.text ?? "") + message.text;
    if (!text) return withTurn(state, message.turn_id, {});
    return put(withTurn(state, message.turn_id, {}), {
      heard: 0,
      outcome: "open",
      unheard: "",
      ...known,
      id,
      kind: "assistant",
      at: known?.at ?? at,
      turnKey: key,
      text,
    });
  },

  tool_call(state, message, at) {
    const counts = { ...state.counts, toolCalls: state.counts.toolCalls + 1 };
    return put(withTurn({ ...state, counts }, message.turn_id, {}), {
      id: `tool-${turnKey(state, message.turn_id)}-${message.call_id}`,
      kind: "tool",
      at,
      turnKey: turnKey(state, message.turn_id),
      name: message.name,
      arguments: message.arguments,
      target: message.target,
      stage: "running",
      outcome: null,
      durationMs: null,
    });
  },

  tool_result(state, message, at) {
    const key = turnKey(state, message.turn_id);
    const id = `tool-${key}-${message.call_id}`;
    const known = state.entries.find((entry) => entry.id === id);
    return put(state, {
      arguments: {},
      target: "server",
      turnKey: key,
      ...known,
      id,
      kind: "tool",
      at: known?.at ?? at,
      name: message.name,
      stage: message.ok ? "ok" : "failed",
      outcome: message.ok ? message.result : message.error,
      durationMs: message.duration_ms,
    });
  },

  tts_audio(state, message) {
    const id = message.stream_id;
    if (message.state === "start") {
      const stream = {
        id,
        // Music goes on when the turn that asked for it is over.
        turnId: message.source === "music" ? null : message.turn_id,
        source: message.source ?? "speech",
        sampleRate: message.sample_rate,
        sentences: [],
        received: 0,
        played: 0,
        total: null,
      };
      return withStream(state, id, stream);
    }
    const stream = state.streams[id];
    if (!stream) return state;
    if (message.state === "end") return withStream(state, id, { total: message.samples });
    const sentence = { text: message.text, from: message.from_sample };
    return withStream(state, id, { sentences: [...stream.sentences, sentence] });
  },

  pause(state, message, at) {
    const silent = closeSpan(openSpan(state, "you", at), "assistant", at);
    if (state.streams[message.stream_id]?.source === "music") return silent;
    return { ...mark(silent, at, "held"), phase: "held" };
  },

  resume(state, _message, at) {
    const phase = state.phase === "held" ? "speaking" : state.phase;
    return { ...closeSpan(state, "you", at), phase };
  },

  flush(state, message, at) {
    const silent = closeSpan(state, "assistant", at);
    const isMusic = state.streams[message.stream_id]?.source === "music";
    return isMusic ? silent : { ...silent, phase: "interrupted" };
  },

  interrupted(state, message, at) {
    const counts = { ...state.counts, bargeIns: state.counts.bargeIns + 1 };
    const next = mark(closeSpan({ ...state, counts }, "assistant", at), at, "barge-in");
    const key = turnKey(state, message.turn_id);
    const id = `assistant-${key}`;
    const known = next.entries.find((entry) => entry.id === id);
    if (!known && !message.unheard_text) {
      return system(next, at, "Interrupted before anything was said.");
    }
    return put(next, {
      ...known,
      id,
      kind: "assistant",
      at: known?.at ?? at,
      turnKey: key,
      text: message.heard_text,
      unheard: message.unheard_text,
      heard: message.heard_text.length,
      outcome: "interrupted",
      playedMs: message.played_ms,
      certainty: message.certainty,
    });
  },

  turn_metrics(state, message) {
    const { type: _type, turn_id: id, ...metrics } = message;
    const roundTripMs = roundTripOf(state);
    const next = withTurn(state, id, { metrics, roundTripMs });
    const entry = next.entries.find((one) => one.id === `assistant-${turnKey(next, id)}`);
    if (!entry || entry.outcome !== "open") return next;
    return put(next, { ...entry, outcome: "heard", heard: entry.text.length });
  },

  session_stats(state, message) {
    const { type: _type, session_id: _id, ...statistics } = message;
    return { ...state, session: { ...state.session, statistics } };
  },

  error: (state, message, at) => problem(state, at, message.code, message.message),

  pong(state, message, at) {
    const sent = state.pings[message.id ?? ""];
    if (sent === undefined) return state;
    const roundTrips = [...state.roundTrips, at - sent].slice(-ROUND_TRIPS_KEPT);
    return { ...state, roundTrips, pings: {} };
  },
};
