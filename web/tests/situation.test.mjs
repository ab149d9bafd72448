// Every state has words and, where it helps, a way out.
import assert from "node:assert/strict";
import test from "node:test";

import { situationOf } from "../situation.js";
import { INITIAL } from "../state.js";

const OPEN = {
  ...INITIAL,
  connection: { ...INITIAL.connection, state: "open" },
  phase: "listening",
};
const LIVE = { ...OPEN, microphone: { ...INITIAL.microphone, state: "live" } };
const closed = (changes) => ({ ...INITIAL, connection: { ...INITIAL.connection, ...changes } });
const microphone = (state) => ({ ...OPEN, microphone: { ...INITIAL.microphone, state } });

/** @type {[string, object, string|null][]} key, state, way out */
const TABLE = [
  ["idle", INITIAL, "connect"],
  ["connecting", closed({ state: "connecting" }), "disconnect"],
  ["reconnecting", closed({ state: "reconnecting", retryAt: 3000, code: 1006 }), "retry"],
  ["full", closed({ state: "reconnecting", retryAt: 3000, code: 503 }), "retry"],
  ["full", closed({ code: 1013 }), "connect"],
  ["refused", closed({ code: 401 }), "settings"],
  ["refused", closed({ code: 1008 }), "settings"],
  ["taken-over", closed({ code: 4001 }), "connect"],
  ["unreachable", closed({ code: 1011 }), "connect"],
  ["idle", closed({ code: 1000 }), "connect"],
  ["listening", LIVE, null],
  ["hearing", { ...LIVE, phase: "hearing" }, null],
  ["hearing", { ...LIVE, phase: "held" }, null],
  ["thinking", { ...LIVE, phase: "thinking" }, "interrupt"],
  ["speaking", { ...LIVE, phase: "speaking" }, "interrupt"],
  ["interrupted", { ...LIVE, phase: "interrupted" }, null],
  ["queued", { ...LIVE, phase: "queued" }, null],
  ["closing", { ...LIVE, phase: "closing" }, null],
  [
    "tool",
    { ...LIVE, phase: "thinking", entries: [{ kind: "tool", stage: "running", name: "t" }] },
    "interrupt",
  ],
  ["muted", { ...LIVE, microphone: { ...LIVE.microphone, muted: true } }, "unmute"],
  ["asking", microphone("asking"), null],
  ["denied", microphone("denied"), "microphone"],
  ["lost", microphone("lost"), "microphone"],
  ["missing", microphone("missing"), "microphone"],
  ["insecure", microphone("insecure"), "settings"],
  ["typing", microphone("off"), "microphone"],
  [
    "blocked",
    { ...LIVE, phase: "speaking", player: { state: "blocked", userPaused: false } },
    "unlock",
  ],
  ["paused", { ...LIVE, phase: "speaking", player: { state: "paused", userPaused: true } }, "play"],
];

for (const [key, state, intent] of TABLE) {
  test(`${key}: words${intent ? `, and the way out is ${intent}` : ""}`, () => {
    const situation = situationOf(state, 1000);
    assert.equal(situation.key, key);
    assert.ok(situation.title && situation.detail.length > 5);
    assert.equal(situation.action?.intent ?? null, intent);
    assert.equal(Boolean(situation.action), Boolean(situation.action?.label));
  });
}

test("the countdown counts", () => {
  const state = closed({ state: "reconnecting", retryAt: 3000, code: 1006 });
  assert.match(situationOf(state, 1000).detail, /in 2 s/);
  assert.match(situationOf(state, 3000).detail, /Trying now/);
});

test("a trouble with the microphone does not hide what the assistant does", () => {
  const state = { ...microphone("denied"), phase: "speaking" };
  assert.equal(situationOf(state, 0).key, "speaking");
});

test("push to talk says how", () => {
  assert.match(situationOf(LIVE, 0, "push_to_talk").detail, /Hold/);
});

test("music is mentioned while it plays", () => {
  const playing = { state: "playing", userPaused: false };
  const streams = { 3: { source: "music", total: null } };
  assert.match(situationOf({ ...LIVE, player: playing, streams }, 0).detail, /^Music plays/);
  assert.doesNotMatch(situationOf({ ...LIVE, streams }, 0).detail, /Music/);
});
