// What the page knows after each thing that happens.
import assert from "node:assert/strict";
import test from "node:test";

import { INITIAL, reduce } from "../state.js";
import { ENTRIES_KEPT, roundTripOf } from "../state_parts.js";

const server = (message, at = 0) => ({
  at,
  source: "connection",
  event: { type: "message", message },
});
const connection = (event, at = 0) => ({ at, source: "connection", event });
const player = (event, at = 0) => ({ at, source: "player", event });
const fold = (happenings, state = INITIAL) => happenings.reduce(reduce, state);
const kinds = (state) => state.entries.map((entry) => entry.kind);

const SPOKEN = [
  server({ type: "status", state: "hearing" }, 100),
  server({ type: "asr_result", turn_id: 1, text: "what", is_final: false, speeching: true }, 200),
  server(
    { type: "asr_result", turn_id: 1, text: "what time is it", is_final: true, speeching: false },
    900,
  ),
  server({ type: "status", state: "thinking" }, 901),
];
const ANSWERED = [
  ...SPOKEN,
  server({ type: "llm_response", turn_id: 1, delta: true, text: "It is ten. " }, 910),
  server({ type: "tts_audio", state: "start", turn_id: 1, stream_id: 4, sample_rate: 16000 }, 920),
  server(
    { type: "tts_audio", state: "sentence", stream_id: 4, text: "It is ten.", from_sample: 0 },
    921,
  ),
  connection({ type: "audio", streamId: 4, pcm: new Int16Array(1600) }, 930),
  player({ type: "state", state: "playing" }, 1050),
  server({ type: "status", state: "speaking" }, 1051),
];

test("the same happenings give the same state, and leave the one before as it was", () => {
  const before = structuredClone(INITIAL);
  assert.deepEqual(fold(ANSWERED), fold(ANSWERED));
  assert.deepEqual(INITIAL, before);
});

test("what changes nothing gives the same object", () => {
  const state = fold(ANSWERED);
  assert.equal(
    reduce(state, { at: 1, source: "microphone", event: { type: "frame", pcm: [] } }),
    state,
  );
  assert.equal(reduce(state, server({ type: "of a later version" })), state);
  assert.equal(reduce(state, player({ type: "report", streamId: 99, playedSamples: 1 })), state);
});

test("a partial transcript becomes the final one in its own row", () => {
  const state = fold(SPOKEN);
  const [entry] = state.entries;
  assert.equal(state.entries.length, 1);
  assert.deepEqual([entry.text, entry.stage, entry.at], ["what time is it", "final", 200]);
});

test("a partial transcript that comes to nothing disappears, and is not counted", () => {
  const state = fold([...SPOKEN.slice(0, 2), server({ type: "status", state: "listening" }, 500)]);
  assert.deepEqual(state.entries, []);
  assert.equal(state.counts.messages, 0);
});

test("speech that was noticed is a span of the user's lane", () => {
  assert.deepEqual(fold(SPOKEN).timeline.you, [{ from: 100, to: 900 }]);
  assert.deepEqual(fold(SPOKEN.slice(0, 2)).timeline.you, [{ from: 100, to: null }]);
});

test("the first sound of a turn is where the loudspeaker begins after its first audio", () => {
  const [turn] = fold(ANSWERED).turns;
  assert.deepEqual([turn.cause, turn.firstAudioAt, turn.playingAt], ["spoken", 930, 1050]);
});

test("an answer that goes on after a pause has not begun anew", () => {
  const states = ["paused", "playing"].map((state, i) =>
    player({ type: "state", state }, 2000 + i),
  );
  assert.equal(fold([...ANSWERED, ...states]).turns[0].playingAt, 1050);
});

test("audio behind the tail of another stream sounds without a new beginning", () => {
  const second = [
    server({ type: "llm_response", turn_id: 2, delta: true, text: "And" }, 1100),
    server(
      { type: "tts_audio", state: "start", turn_id: 2, stream_id: 5, sample_rate: 16000 },
      1110,
    ),
    connection({ type: "audio", streamId: 5, samples: 960 }, 1120),
  ];
  assert.equal(fold([...ANSWERED, ...second]).turns[1].playingAt, 1120);
});

test("how much of the answer was heard follows the reports", () => {
  const report = (playedSamples) =>
    player({ type: "report", streamId: 4, playedSamples, outputLatencyMs: 30, final: false });
  const heard = (samples) => fold([...ANSWERED, report(samples)]).entries.at(-1).heard;
  assert.deepEqual([heard(0), heard(800), heard(1600)], [0, 5, 10]); // whole words
  assert.equal(fold([...ANSWERED, report(800)]).turns[0].outputLatencyMs, 30);
});

test("an interrupted answer is what was heard and, apart, what never was", () => {
  const state = fold([
    ...ANSWERED,
    server({ type: "pause", stream_id: 4 }, 1200),
    server({ type: "flush", stream_id: 4 }, 1300),
    server(
      {
        type: "interrupted",
        turn_id: 1,
        heard_text: "It is",
        unheard_text: "ten.",
        played_ms: 250,
        certainty: "reported",
      },
      1310,
    ),
  ]);
  const { text, unheard, outcome } = state.entries.at(-1);
  assert.deepEqual([text, unheard, outcome], ["It is", "ten.", "interrupted"]);
  assert.deepEqual(state.timeline.marks, [
    { at: 1200, kind: "held" },
    { at: 1310, kind: "barge-in" },
  ]);
  assert.deepEqual(state.timeline.assistant, [{ from: 1050, to: 1200 }]);
  assert.equal(state.counts.bargeIns, 1);
  assert.equal(state.phase, "interrupted");
});

test("music that makes way for speech is no answer that was interrupted", () => {
  const start = { type: "tts_audio", state: "start", turn_id: 1, stream_id: 7, sample_rate: 16000 };
  const state = fold([
    server({ ...start, source: "music" }),
    player({ type: "state", state: "playing" }, 10),
    server({ type: "status", state: "hearing" }, 20),
    server({ type: "pause", stream_id: 7 }, 21),
    server({ type: "flush", stream_id: 7 }, 22),
  ]);
  assert.equal(state.phase, "hearing");
  assert.deepEqual(state.timeline.marks, []);
  assert.deepEqual(state.timeline.assistant, [{ from: 10, to: 21 }]);
});

test("a reply interrupted before its first word is said to be so", () => {
  const message = {
    type: "interrupted",
    turn_id: 1,
    heard_text: "",
    unheard_text: "",
    played_ms: 0,
  };
  assert.deepEqual(kinds(fold([...SPOKEN, server(message)])), ["user", "system"]);
});

test("a false alarm holds the answer and lets it go on", () => {
  const held = fold([...ANSWERED, server({ type: "pause", stream_id: 4 }, 1200)]);
  assert.equal(held.phase, "held");
  const resumed = reduce(held, server({ type: "resume", stream_id: 4 }, 1400));
  assert.equal(resumed.phase, "speaking");
  assert.deepEqual(resumed.timeline.you.at(-1), { from: 1200, to: 1400 });
  assert.equal(resumed.counts.bargeIns, 0);
});

test("a finished answer counts as heard", () => {
  const state = fold([
    ...ANSWERED,
    server({ type: "turn_metrics", turn_id: 1, first_audio_ms: 400 }),
  ]);
  assert.deepEqual([state.entries.at(-1).outcome, state.entries.at(-1).heard], ["heard", 11]);
  assert.equal(state.turns[0].metrics.first_audio_ms, 400);
});

test("a tool call and its result are one card", () => {
  const call = {
    type: "tool_call",
    turn_id: 1,
    call_id: "c",
    name: "get_weather",
    arguments: { city: "Paris" },
    target: "server",
  };
  const failed = {
    type: "tool_result",
    turn_id: 1,
    call_id: "c",
    name: "get_weather",
    ok: false,
    error: "no such city",
    duration_ms: 12,
  };
  const running = fold([server(call, 5)]);
  assert.equal(running.entries[0].stage, "running");
  assert.equal(running.counts.toolCalls, 1);
  const [card] = reduce(running, server(failed, 17)).entries;
  assert.deepEqual(
    [card.stage, card.outcome, card.durationMs, card.at],
    ["failed", "no such city", 12, 5],
  );
  assert.deepEqual(card.arguments, { city: "Paris" });
});

test("a lost connection ends what was running and says when it tries again", () => {
  const call = {
    type: "tool_call",
    turn_id: 1,
    call_id: "c",
    name: "t",
    arguments: {},
    target: "server",
  };
  const lost = {
    type: "state",
    state: "reconnecting",
    attempt: 1,
    retryInMs: 500,
    code: 1006,
    reason: "The connection was lost.",
  };
  const state = fold([
    connection({ type: "state", state: "open" }, 10),
    ...ANSWERED,
    server(call),
    connection(lost, 2000),
  ]);
  assert.equal(state.connection.retryAt, 2500);
  assert.equal(state.entries.find((entry) => entry.kind === "tool").stage, "failed");
  assert.deepEqual(state.timeline.assistant.at(-1).to, 2000);
  assert.deepEqual([state.session.startedAt, state.session.endedAt], [10, 2000]);
  assert.match(state.entries.at(-1).text, /The connection was lost\. Attempt 1 in 0\.5 s/);
});

test("attempts that follow each other share a row", () => {
  const lost = (attempt) =>
    connection({ type: "state", state: "reconnecting", attempt, retryInMs: 1000 });
  const state = fold([lost(1), connection({ type: "state", state: "connecting" }), lost(2)]);
  assert.equal(state.entries.length, 1);
  assert.match(state.entries[0].text, /Attempt 2/);
});

test("a session that goes on is said to go on", () => {
  const ready = (restored) =>
    server({
      type: "status",
      state: "ready",
      session_id: "s",
      restored,
      configuration: { language: "en", voice_id: "v" },
    });
  assert.match(fold([ready(false)]).entries[0].text, /new session/);
  assert.match(fold([ready(true)]).entries[0].text, /goes on/);
  assert.match(
    fold([ready(false), ready(false)]).entries[1].text,
    /again with session s; the server has forgotten/,
  );
});

test("a server that lost the session counts turns anew, and the old ones stay", () => {
  const ready = server({ type: "status", state: "ready", session_id: "s", restored: false }, 5000);
  const state = fold([...ANSWERED, ready, ...ANSWERED]);
  assert.deepEqual(kinds(state), ["user", "assistant", "system", "user", "assistant"]);
  assert.equal(state.turns.length, 2);
  assert.equal(
    fold([
      ...ANSWERED,
      { ...ready, event: { ...ready.event, message: { ...ready.event.message, restored: true } } },
      ...SPOKEN,
    ]).turns.length,
    1,
  );
});

test("what is reported of a session that is gone says nothing of the new one", () => {
  const ready = { type: "status", state: "ready", session_id: "s", restored: false };
  const state = fold([...ANSWERED, server(ready, 5000)]);
  const report = { type: "report", streamId: 4, playedSamples: 800, outputLatencyMs: 1 };
  assert.equal(reduce(state, player(report)), state);
});

test("the shortest of the latest round trips counts", () => {
  const trip = (from, to) => [
    connection({ type: "sent", message: { type: "ping" } }, from),
    server({ type: "pong" }, to),
  ];
  const state = fold([...trip(0, 90), ...trip(100, 104), ...trip(200, 230)]);
  assert.equal(roundTripOf(state), 4);
  assert.equal(roundTripOf(INITIAL), null);
});

test("errors, late audio, gaps and unsent speech are counted", () => {
  const state = fold([
    server({ type: "error", code: "LLM_ERROR", message: "no answer" }),
    connection({ type: "stale", streamId: 1, samples: 960 }),
    connection({ type: "dropped", samples: 320 }),
    player({ type: "underrun", streamId: 1 }),
    player({ type: "failed", message: "no worklet" }),
  ]);
  const { errors, staleSamples, unsentSamples, underruns } = state.counts;
  assert.deepEqual([errors, staleSamples, unsentSamples, underruns], [2, 960, 320, 1]);
  assert.deepEqual(
    state.entries.map((entry) => entry.code),
    ["LLM_ERROR", "PLAYER"],
  );
});

test("a long conversation keeps its latest rows", () => {
  const rows = Array.from({ length: ENTRIES_KEPT + 7 }, (_, i) =>
    connection({ type: "sent", message: { type: "text", text: `line ${i}` } }),
  );
  const state = fold(rows);
  assert.equal(state.entries.length, ENTRIES_KEPT);
  assert.equal(state.entries.at(-1).text, `line ${ENTRIES_KEPT + 6}`);
  assert.equal(state.counts.messages, ENTRIES_KEPT + 7);
});
