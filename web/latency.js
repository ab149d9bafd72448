// @ts-check
/** Where the time of a turn went, from the last speech sample to the first sound. */

/** @typedef {import("./state.js").Turn} Turn */
/** @typedef {{name: string, kind: string, from: number, to: number}} Stage ms after the speech */

const SHOWN_MS = 0.5; // shorter is nothing

/** The server's marks, in their order; a stage ends at its mark. */
const SERVER_STAGES = [
  { field: "end_of_speech_ms", name: "End of speech noticed", kind: "wait" },
  { field: "transcript_ms", name: "Transcript", kind: "user" },
  { field: "turn_started_ms", name: "End-of-turn delay", kind: "wait" },
  { field: "first_token_ms", name: "First word", kind: "assistant" },
  { field: "first_sentence_ms", name: "First sentence", kind: "assistant" },
  { field: "first_audio_ms", name: "First audio", kind: "voice" },
];

/**
 * The stages of a turn, one behind the other; what nobody measured is left out.
 *
 * The server's clock starts when it has the last speech sample and stops when it hands
 * the first audio to the network, so one round trip comes on top of it; then the page
 * waits for its prebuffer, and the browser for the loudspeaker.
 * @param {Turn} turn @returns {Stage[]}
 */
export function stagesOf(turn) {
  /** @type {Stage[]} */
  const stages = [];
  let end = 0;
  /** @param {string} name @param {string} kind @param {number} to */
  const add = (name, kind, to) => {
    if (to - end >= SHOWN_MS) stages.push({ name, kind, from: end, to });
    end = Math.max(end, to);
  };
  for (const { field, name, kind } of SERVER_STAGES) {
    const ms = turn.metrics?.[field];
    if (typeof ms === "number") add(name, kind, ms);
  }
  if (typeof turn.metrics?.first_audio_ms !== "number") return stages;
  if (turn.roundTripMs !== null) add("Network, both ways", "system", end + turn.roundTripMs);
  if (turn.firstAudioAt !== null && turn.playingAt !== null) {
    add("Prebuffer", "system", end + turn.playingAt - turn.firstAudioAt);
  }
  if (turn.outputLatencyMs !== null) add("Loudspeaker", "system", end + turn.outputLatencyMs);
  return stages;
}

/**
 * From the end of the user's speech (or text) to the first sound, ms; null: nothing was played.
 * @param {Turn} turn
 */
export function voiceToVoice(turn) {
  if (typeof turn.metrics?.first_audio_ms !== "number" || turn.playingAt === null) return null;
  return stagesOf(turn).at(-1)?.to ?? null;
}

/**
 * The value that a share of them do not exceed (nearest rank); null when there are none.
 * @param {number[]} values @param {number} share 0..1
 */
export function percentile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

/** Of all turns that were heard. @param {Turn[]} turns */
export function latencySummary(turns) {
  const values = turns.map(voiceToVoice).filter((value) => value !== null);
  const mean = values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : null;
  return {
    count: values.length,
    mean,
    p50: percentile(values, 0.5),
    p95: percentile(values, 0.95),
    last: values.at(-1) ?? null,
  };
}
