// @ts-check
/** What was counted, here and by the server. */

import { latencySummary } from "../latency.js";
import { roundTripOf } from "../state_parts.js";
import { byId, clockTime, duration, rounded, setTerms } from "./dom.js";

/** @typedef {import("../state.js").State} State */

/** @type {Record<string, string>} */
const CONNECTION = {
  open: "connected",
  connecting: "connecting",
  reconnecting: "reconnecting",
  closed: "not connected",
};

/** @param {State} state @param {number} now ms */
export function renderStats(state, now) {
  const { counts, session, connection, turns } = state;
  const latency = latencySummary(turns);
  const trip = roundTripOf(state);
  const lasted = session.startedAt === null ? null : (session.endedAt ?? now) - session.startedAt;
  setTerms(byId("stats"), [
    ["Connection", CONNECTION[connection.state] ?? connection.state],
    ["Session duration", lasted === null ? "–" : duration(lasted)],
    ["Messages", rounded(counts.messages)],
    ["Turns", rounded(turns.length)],
    ["Tool calls", rounded(counts.toolCalls)],
    ["Interruptions", rounded(counts.bargeIns)],
    ["Errors", rounded(counts.errors)],
    ["Average latency", rounded(latency.mean, " ms")],
    ["Latency p50", rounded(latency.p50, " ms")],
    ["Latency p95", rounded(latency.p95, " ms")],
    ["Round trip", trip === null ? "–" : `${trip.toFixed(1)} ms`],
    ["Gaps in playback", rounded(counts.underruns)],
    ["Late audio dropped", `${rounded(counts.staleSamples)} samples`],
    ["Speech not sent in time", `${rounded(counts.unsentSamples)} samples`],
  ]);
  const known = session.statistics;
  const average = known?.average_interaction_seconds;
  const last = known?.last_activity;
  setTerms(byId("server-stats"), [
    ["Messages", rounded(known?.message_count)],
    ["Interactions", rounded(known?.interaction_count)],
    ["Duration", known ? duration(known.session_duration_seconds * 1000) : "–"],
    [
      "Average interaction",
      average === null || average === undefined ? "–" : `${average.toFixed(1)} s`,
    ],
    ["Last activity", last ? clockTime(last * 1000).slice(0, 8) : "–"],
  ]);
  byId("ask-stats").disabled = connection.state !== "open";
}
