// The page's other plain parts: settings, latency, device tools, heard words, protocol rows.
import assert from "node:assert/strict";
import test from "node:test";

import { answerToolCall, deviceTools } from "../device_tools.js";
import { heardCharacters } from "../heard.js";
import { latencySummary, percentile, stagesOf, voiceToVoice } from "../latency.js";
import { keyIn, readSettings, socketUrl, withoutKey } from "../settings.js";
import { passes, protocolRow, summaryOf } from "../ui/protocol.js";

const HTTP = { protocol: "http:", host: "localhost:9400" };
const HTTPS = { protocol: "https:", host: "voice.example" };
const TURN = {
  id: 1,
  cause: "spoken",
  firstAudioAt: 1000,
  playingAt: 1050,
  outputLatencyMs: 30,
  roundTripMs: 10,
};
const METRICS = {
  end_of_speech_ms: 80,
  transcript_ms: 200,
  turn_started_ms: 350,
  first_token_ms: 350.2,
  first_sentence_ms: 380,
  first_audio_ms: 400,
};

test("settings come back as they were, and what is not allowed as the default", () => {
  const defaults = readSettings(null);
  assert.deepEqual(readSettings("{nonsense"), defaults);
  assert.deepEqual(readSettings("7"), defaults);
  const kept = readSettings(
    JSON.stringify({ frameMs: 60, volume: 300, theme: "dark", server: [], unknown: 1 }),
  );
  assert.deepEqual([kept.frameMs, kept.volume, kept.theme], [60, 100, "dark"]);
  assert.deepEqual(kept.server, {});
  assert.ok(!("unknown" in kept));
  assert.notEqual(readSettings(null).server, defaults.server); // nobody shares it
});

test("the address is where the page came from, or as entered", () => {
  assert.equal(socketUrl("", HTTP), "ws://localhost:9400/");
  assert.equal(socketUrl("", HTTPS), "wss://voice.example/");
  assert.equal(socketUrl(" 192.168.1.20:9400 ", HTTP), "ws://192.168.1.20:9400/");
  assert.equal(socketUrl("https://far.example/listenai", HTTP), "wss://far.example/listenai");
  assert.equal(socketUrl("", HTTP, "a b"), "ws://localhost:9400/?key=a+b");
  assert.equal(withoutKey("ws://localhost:9400/?key=a+b&x=1"), "ws://localhost:9400/?x=1");
  assert.equal(keyIn("http://localhost:9400/?x=1&key=a%2Bb"), "a+b");
  assert.equal(keyIn("http://localhost:9400/"), "");
});

test("an address that cannot work is refused in words", () => {
  assert.throws(() => socketUrl("ftp://x", HTTP), /must begin with ws:\/\/ or wss:\/\//);
  assert.throws(() => socketUrl("ws://", HTTP), /no address\. Write it like/);
  assert.throws(() => socketUrl("ws://far.example", HTTPS), /wss:\/\/ addresses only/);
  assert.equal(socketUrl("ws://127.0.0.1:9400", HTTPS), "ws://127.0.0.1:9400/");
});

test("the stages of a turn lie behind each other, from the last word to the first sound", () => {
  const stages = stagesOf({ ...TURN, metrics: METRICS });
  assert.deepEqual(
    stages.map(({ from, to }) => [from, to]),
    [
      [0, 80],
      [80, 200],
      [200, 350],
      [350.2, 380],
      [380, 400],
      [400, 410],
      [410, 460],
      [460, 490],
    ],
  );
  assert.equal(voiceToVoice({ ...TURN, metrics: METRICS }), 490);
});

test("what nobody measured is left out, and a reply that never sounded has no latency", () => {
  const unknown = {
    ...TURN,
    outputLatencyMs: null,
    roundTripMs: null,
    metrics: { ...METRICS, transcript_ms: null },
  };
  assert.equal(stagesOf(unknown).length, 5);
  assert.equal(voiceToVoice({ ...TURN, playingAt: null, metrics: METRICS }), null);
  assert.equal(voiceToVoice({ ...TURN, metrics: null }), null);
});

test("quantiles are by nearest rank", () => {
  assert.equal(percentile([], 0.5), null);
  assert.equal(percentile([30, 10, 20], 0.5), 20);
  assert.equal(
    percentile(
      Array.from({ length: 100 }, (_, i) => i + 1),
      0.95,
    ),
    95,
  );
  const turns = [100, 200].map((ms) => ({ ...TURN, metrics: { first_audio_ms: ms } }));
  assert.deepEqual(latencySummary(turns), { count: 2, mean: 240, p50: 190, p95: 290, last: 290 });
});

test("heard words: none before the first sample, whole ones in proportion, all at the end", () => {
  const text = "One two three. Four five.";
  const stream = {
    sentences: [
      { text: "One two three.", from: 0 },
      { text: " Four five.", from: 1000 },
    ],
    received: 1500,
    total: 1500,
  };
  const heard = (played) => text.slice(0, heardCharacters(text, { ...stream, played }));
  assert.equal(heard(0), "");
  assert.equal(heard(300), "One two");
  assert.equal(heard(1000), "One two three.");
  assert.equal(heard(1500), text);
});

test("words that the text does not have yet are not heard", () => {
  const stream = {
    sentences: [
      { text: "One.", from: 0 },
      { text: "Two.", from: 100 },
    ],
    played: 200,
    received: 200,
    total: null,
  };
  assert.equal(heardCharacters("One. T", stream), 4);
});

test("the page declares set_volume, and its music box only when it is wanted", () => {
  const names = (ownMusic) => deviceTools({ ownMusic }).map((tool) => tool.name);
  assert.deepEqual([names(false), names(true)], [["set_volume"], ["set_volume", "play_music"]]);
});

test("device tools do what they are asked, within bounds", () => {
  let volume = 50;
  let playing = false;
  const device = {
    volume: () => volume,
    setVolume: (/** @type {number} */ percent) => (volume = percent),
    musicBox: {
      play: () => ((playing = true), "a tune"),
      stop: () => playing && !(playing = false),
    },
  };
  const ask = (name, args) => answerToolCall({ call_id: "c", name, arguments: args }, device);
  assert.deepEqual(ask("set_volume", { level: 80 }), {
    type: "tool_result",
    call_id: "c",
    result: { level: 80, previous: 50 },
  });
  assert.deepEqual(ask("set_volume", { change: 40 }).result, { level: 100, previous: 80 });
  assert.deepEqual(ask("set_volume", { change: -100 }).result, { level: 0, previous: 100 });
  assert.deepEqual(ask("play_music", { query: "jazz" }).result, {
    action: "play",
    title: "a tune",
  });
  assert.deepEqual(ask("play_music", { action: "stop" }).result, {
    action: "stop",
    was_playing: true,
  });
  assert.deepEqual(ask("play_music", { action: "stop" }).result, {
    action: "stop",
    was_playing: false,
  });
});

test("a call that makes no sense is answered with what is allowed", () => {
  const device = {
    volume: () => 1,
    setVolume: assert.fail,
    musicBox: { play: assert.fail, stop: assert.fail },
  };
  const error = (name, args) =>
    answerToolCall({ call_id: "c", name, arguments: args }, device).error;
  assert.match(error("set_volume", {}), /either level \(0 to 100\) or change/);
  assert.match(error("set_volume", { level: 101 }), /101 is no whole number in its range/);
  assert.match(error("set_volume", { level: -1 }), /-1/);
  assert.match(error("set_volume", { level: "loud" }), /"loud"/);
  assert.match(error("play_music", { action: "dance" }), /play or stop, not "dance"/);
  assert.match(error("make_tea", {}), /no tool make_tea/);
});

test("the protocol's rows: direction, type, what is in it; audio by the frame", () => {
  const row = (event) => protocolRow({ at: 1, source: "connection", event });
  const received = row({ type: "message", message: { type: "flush", stream_id: 3 } });
  assert.deepEqual(
    [received.direction, received.type, summaryOf(received)],
    ["received", "flush", "stream_id:3"],
  );
  const sent = row({ type: "sent", message: { type: "audio", frames: 50, samples: 16000 } });
  assert.deepEqual([sent.direction, summaryOf(sent)], ["sent", "50 frames, 16000 samples"]);
  const audio = row({ type: "audio", streamId: 2, pcm: new Int16Array(960) });
  assert.equal(summaryOf(audio), "stream 2, 1 frame, 960 samples");
  assert.equal(row({ type: "state", state: "open" }), null);
  assert.equal(protocolRow({ at: 1, source: "player", event: { type: "report" } }), null);
});

test("the protocol's filters", () => {
  const row = { at: 0, direction: "sent", type: "playback", message: {}, frames: 0, samples: 0 };
  const all = { direction: "all", type: "", audio: true };
  assert.ok(passes(row, all) && passes(row, { ...all, type: " PLAY " }));
  assert.ok(
    !passes(row, { ...all, direction: "received" }) && !passes(row, { ...all, type: "flush" }),
  );
  assert.ok(!passes({ ...row, type: "audio", frames: 3 }, { ...all, audio: false }));
});
