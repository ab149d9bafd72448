// Keeping, exporting, reading and replaying a session.
import assert from "node:assert/strict";
import { readFile, readdir, stat } from "node:fs/promises";
import test from "node:test";

import { Recording, Replay, openArchive, openSession } from "../session.js";
import { INITIAL, reduce } from "../state.js";
import { readWav, writeWav } from "../wav.js";
import { readZip, writeZip } from "../zip.js";

const DEMO = new URL("../demo/", import.meta.url);
const ramp = (length, first = 0) => Int16Array.from({ length }, (_, i) => first + i);
const frame = (at, pcm) => ({
  at,
  source: "microphone",
  event: { type: "frame", pcm, level: 0.1 },
});
const audio = (at, streamId, pcm) => ({
  at,
  source: "connection",
  event: { type: "audio", streamId, pcm, at },
});
const start = (at, stream_id, sample_rate) => ({
  at,
  source: "connection",
  event: {
    type: "message",
    message: { type: "tts_audio", state: "start", stream_id, sample_rate },
    at,
  },
});
const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());
const roundTrip = async (happenings) => {
  const recording = new Recording(1_700_000_000_000);
  for (const one of happenings) recording.add(one);
  return openArchive(await bytesOf(recording.export()));
};
const pcmOf = (session, source) =>
  session.happenings
    .filter((one) => one.source === source && one.event.pcm)
    .flatMap((one) => [...one.event.pcm]);

test("a zip comes back file by file, names in any language", async () => {
  const files = {
    "a.txt": new TextEncoder().encode("hello"),
    "größe.bin": Uint8Array.of(0, 255, 7),
    empty: new Uint8Array(),
  };
  const back = readZip(await bytesOf(writeZip(files, new Date(2026, 1, 3))));
  assert.deepEqual(Object.keys(back), Object.keys(files));
  for (const [name, content] of Object.entries(files))
    assert.deepEqual([...back[name]], [...content]);
});

test("the CRC is that of the standard's check value", async () => {
  const bytes = await bytesOf(writeZip({ a: new TextEncoder().encode("123456789") }, new Date()));
  assert.equal(new DataView(bytes.buffer).getUint32(14, true), 0xcbf43926);
});

test("a damaged, cut or compressed zip is refused in words", async () => {
  const bytes = await bytesOf(writeZip({ "a.txt": new Uint8Array(64).fill(65) }, new Date()));
  const changed = (at, value) => Object.assign(bytes.slice(), { [at]: value });
  assert.throws(() => readZip(bytes.subarray(0, 60)), /not a zip file, or not the whole/);
  assert.throws(() => readZip(changed(40, 66)), /a\.txt is damaged/);
  const directory = bytes.length - 22 - 51;
  assert.throws(() => readZip(changed(directory + 10, 8)), /a\.txt is compressed; store it/);
  assert.throws(() => readZip(changed(directory, 0)), /directory is damaged/);
});

test("a WAV file of 16-bit PCM comes back to the sample", () => {
  const samples = Int16Array.of(0, 1, -1, 32767, -32768);
  assert.deepEqual(readWav(writeWav(samples, 22050)), { rate: 22050, samples });
});

test("µ-law is read as G.711 has it", () => {
  const wav = writeWav(new Int16Array(2), 8000);
  const view = new DataView(wav.buffer);
  view.setUint16(20, 7, true);
  view.setUint16(34, 8, true);
  wav.set([0xff, 0x00, 0x80, 0xf0], 44); // zero, the largest of each sign, and a small one
  assert.deepEqual([...readWav(wav).samples], [0, -32124, 32124, 120]);
});

test("another kind of WAV is refused with what can be read", () => {
  const wav = writeWav(new Int16Array(2), 8000);
  wav[22] = 2;
  assert.throws(() => readWav(wav), /2 channels.*only 16-bit PCM or 8-bit µ-law/);
  assert.throws(() => readWav(new Uint8Array(50)), /not a WAV file/);
});

test("everything comes back from an export: what, when, and every sample", async () => {
  const session = await roundTrip([
    { at: 500, source: "page", event: { type: "muted", muted: true } },
    ...Array.from({ length: 25 }, (_, i) => frame(600 + i * 20, ramp(320, i * 320))),
    start(1200, 3, 24000),
    audio(1210, 3, ramp(1440)),
    audio(1215, 3, ramp(1440, 1440)),
  ]);
  assert.equal(session.epochMs, 1_700_000_000_500);
  assert.deepEqual(session.happenings[0], {
    at: 0,
    source: "page",
    event: { type: "muted", muted: true },
  });
  assert.deepEqual(pcmOf(session, "microphone"), [...ramp(25 * 320)]);
  assert.deepEqual(pcmOf(session, "connection"), [...ramp(2880)]);
  const times = session.happenings.map((one) => one.at);
  assert.deepEqual(
    times,
    [...times].sort((a, b) => a - b),
  );
  assert.equal(session.happenings.findLast((one) => one.source === "microphone").at, 100 + 24 * 20);
});

test("frames that came in a heap are replayed in time, each thing in its order", async () => {
  const muted = { at: 10, source: "page", event: { type: "muted", muted: true } };
  const heap = Array.from({ length: 5 }, () => frame(0, ramp(320)));
  const { happenings } = await roundTrip([...heap, muted]);
  assert.deepEqual(
    happenings.map(({ at, source }) => [at, source === "page"]),
    [
      [0, false],
      [10, true],
      [20, false],
      [40, false],
      [60, false],
      [80, false],
    ],
  );
});

test("the tracks have the session's time: silence where nothing came", async () => {
  const recording = new Recording(0);
  for (const one of [frame(0, ramp(320, 1)), frame(1000, ramp(320, 1))]) recording.add(one);
  const files = readZip(await bytesOf(recording.export()));
  assert.deepEqual(Object.keys(files), ["session.jsonl", "you.wav"]);
  // The second frame shares the line of the first: what is less than a line is not placed.
  const apart = new Recording(0);
  for (const one of [frame(0, ramp(3200, 1)), frame(1000, ramp(320, 1))]) apart.add(one);
  const { samples } = readWav(readZip(await bytesOf(apart.export()))["you.wav"]);
  assert.deepEqual([samples.length, samples[3200], samples[16000]], [16320, 0, 1]);
});

test("streams of another rate have a track of their own", async () => {
  const recording = new Recording(0);
  for (const one of [
    start(0, 1, 16000),
    audio(1, 1, ramp(9)),
    start(2, 2, 24000),
    audio(3, 2, ramp(9)),
  ])
    recording.add(one);
  const files = readZip(await bytesOf(recording.export()));
  assert.deepEqual(Object.keys(files), ["session.jsonl", "assistant.wav", "assistant-24000.wav"]);
  assert.equal(readWav(files["assistant-24000.wav"]).rate, 24000);
});

test("what is no session is refused in words", () => {
  const text = (...lines) => ({ "session.jsonl": new TextEncoder().encode(lines.join("\n")) });
  assert.throws(() => openSession({}), /no exported session/);
  assert.throws(() => openSession(text("{}")), /does not begin with the head/);
  assert.throws(
    () => openSession(text('{"format":"listenai-session","version":9}')),
    /version 9; .* version 1/,
  );
  assert.throws(
    () => openSession(text('{"format":"listenai-session","version":1}', "{")),
    /line 2 .* not JSON/,
  );
  const missing = '{"format":"listenai-session","version":1,"tracks":{"you":{"file":"you.wav"}}}';
  assert.throws(() => openSession(text(missing)), /you\.wav is missing/);
});

test("a replay happens in order and at its own pace, stands still and goes on", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  const tick = (ms) => {
    now += ms;
    t.mock.timers.tick(ms);
  };
  const seen = [];
  let ended = 0;
  const happenings = [0, 100, 100, 300].map((at, name) => ({
    at,
    source: "page",
    event: { type: String(name) },
  }));
  const replay = new Replay({
    happenings,
    on: (one) => seen.push(one.event.type),
    ended: () => ended++,
    clock: () => now,
  });
  replay.start();
  assert.deepEqual(seen, ["0"]);
  tick(100);
  assert.deepEqual(seen, ["0", "1", "2"]);
  replay.pause();
  tick(1000);
  assert.deepEqual([seen.length, replay.position, replay.running], [3, 100, false]);
  replay.start();
  tick(199);
  assert.equal(seen.length, 3);
  tick(1);
  assert.deepEqual([seen.length, ended, replay.running, replay.position], [4, 1, false, 300]);
});

test("the demo is a whole session, small enough, that ends as it should", async () => {
  const names = (await readdir(DEMO)).sort();
  const sizes = await Promise.all(
    names.map(async (name) => (await stat(new URL(name, DEMO))).size),
  );
  assert.ok(sizes.reduce((a, b) => a + b) < 400 * 1024, String(sizes));
  const files = await Promise.all(
    names.map(async (name) => [name, new Uint8Array(await readFile(new URL(name, DEMO)))]),
  );
  const { happenings } = openSession(Object.fromEntries(files));
  const state = happenings.reduce(reduce, INITIAL);
  const kinds = new Set(state.entries.map((entry) => entry.kind));
  assert.ok(
    ["system", "user", "assistant", "tool"].every((kind) => kinds.has(kind)),
    [...kinds].join(),
  );
  const cut = state.entries.find((entry) => entry.outcome === "interrupted");
  assert.ok(cut.text && cut.unheard);
  assert.equal(state.phase, "listening");
  assert.ok(state.turns.every((turn) => turn.metrics));
});
