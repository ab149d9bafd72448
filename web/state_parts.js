// @ts-check
/** The steps that changes of the state are made of.  Pure. */

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Entry} Entry */
/** @typedef {import("./state.js").Kind} Kind */
/** @typedef {import("./state.js").Turn} Turn */
/** @typedef {import("./state.js").Stream} Stream */

export const ENTRIES_KEPT = 500; // a long conversation; older rows are in the export
const TURNS_KEPT = 200;
const STREAMS_KEPT = 8; // the one that plays, and those whose last report is on its way
const SPANS_KEPT = 60; // the timeline shows 30 s

/** @param {State} state @param {number} at @param {string} text */
export function system(state, at, text) {
  return append(state, { kind: "system", at, text });
}

/** @param {State} state @param {number} at @param {string} code @param {string} text */
export function problem(state, at, code, text) {
  const counts = { ...state.counts, errors: state.counts.errors + 1 };
  return append({ ...state, counts }, { kind: "error", at, code, text });
}

/** @param {State} state @param {Record<string, any> & {kind: Kind, at: number}} entry */
export function append(state, entry) {
  return put(state, { ...entry, id: `${entry.kind}-at-${state.counts.messages}` });
}

/** Replaces the entry of that id, or appends it. @param {State} state @param {Entry} entry */
export function put(state, entry) {
  const index = state.entries.findLastIndex((one) => one.id === entry.id);
  if (index >= 0) return { ...state, entries: state.entries.with(index, entry) };
  const counts = { ...state.counts, messages: state.counts.messages + 1 };
  return { ...state, counts, entries: [...state.entries, entry].slice(-ENTRIES_KEPT) };
}

/** What was half understood and then forgotten was a cough. @param {State} state */
export function dropPartial(state) {
  const entries = state.entries.filter((entry) => entry.stage !== "partial");
  if (entries.length === state.entries.length) return state;
  const dropped = state.entries.length - entries.length;
  const counts = { ...state.counts, messages: state.counts.messages - dropped };
  return { ...state, entries, counts };
}

/** A turn's name among those of all sessions that the page has seen: a new one counts anew.
 * @param {State} state @param {number} id */
export function turnKey({ session }, id) {
  return `${session.generation}-${id}`;
}

/** @param {State} state @param {number} id @param {Partial<Turn>} changes */
export function withTurn(state, id, changes) {
  const key = turnKey(state, id);
  const index = state.turns.findLastIndex((turn) => turn.key === key);
  if (index >= 0) {
    return { ...state, turns: state.turns.with(index, { ...state.turns[index], ...changes }) };
  }
  /** @type {Turn} */
  const turn = {
    key,
    id,
    cause: "typed",
    firstAudioAt: null,
    playingAt: null,
    outputLatencyMs: null,
    roundTripMs: null,
    metrics: null,
    ...changes,
  };
  return { ...state, turns: [...state.turns, turn].slice(-TURNS_KEPT) };
}

/** @param {State} state @param {number} id @param {Partial<Stream>} changes */
export function withStream(state, id, changes) {
  const stream = /** @type {Stream} */ ({ ...state.streams[id], ...changes });
  const others = Object.entries(state.streams).filter(([key]) => key !== String(id));
  const kept = others.slice(1 - STREAMS_KEPT);
  return { ...state, streams: { ...Object.fromEntries(kept), [id]: stream } };
}

/** @param {State} state @param {"you"|"assistant"} lane @param {number} at */
export function openSpan(state, lane, at) {
  const spans = state.timeline[lane];
  if (spans.at(-1)?.to === null) return state;
  const next = [...spans, { from: at, to: null }].slice(-SPANS_KEPT);
  return { ...state, timeline: { ...state.timeline, [lane]: next } };
}

/** @param {State} state @param {"you"|"assistant"} lane @param {number} at */
export function closeSpan(state, lane, at) {
  const spans = state.timeline[lane];
  const last = spans.at(-1);
  if (!last || last.to !== null) return state;
  const next = spans.with(-1, { from: last.from, to: at });
  return { ...state, timeline: { ...state.timeline, [lane]: next } };
}

/** @param {State} state @param {number} at @param {"barge-in"|"held"} kind */
export function mark(state, at, kind) {
  const marks = [...state.timeline.marks, { at, kind }].slice(-SPANS_KEPT);
  return { ...state, timeline: { ...state.timeline, marks } };
}

/** The connection is gone: nothing of its turn will be told any more.
 * @param {State} state @param {number} at */
export function abandon(state, at) {
  const entries = state.entries.map((entry) =>
    entry.kind === "tool" && entry.stage === "running"
      ? { ...entry, stage: "failed", outcome: "the connection ended before it answered" }
      : entry,
  );
  const silent = closeSpan(closeSpan({ ...state, entries }, "you", at), "assistant", at);
  return dropPartial({ ...silent, phase: "off", roundTrips: [], pings: {} });
}

/** The shortest of the latest round trips, ms: the others waited for something else, too.
 * @param {State} state */
export function roundTripOf({ roundTrips }) {
  return roundTrips.length ? Math.min(...roundTrips) : null;
}
