// The loudspeaker's worklet: gapless, silent at once, and truthful to the sample.

import assert from "node:assert/strict";
import test from "node:test";

import { amplitudeAt, loadProcessor, sine } from "./worklet_scope.mjs";

const RATE = 48000;
const QUANTUM = 128;
const FADE = 144; // 3 ms at RATE

/** A player that is told things and rendered. */
async function player({ prebufferMs = 0, rate = RATE } = {}) {
  const { processor, posted } = await loadProcessor("player", rate, { prebufferMs });
  const tell = (message) => processor.port.onmessage({ data: structuredClone(message) });
  const render = (blocks) => {
    const output = new Float32Array(blocks * QUANTUM);
    for (let at = 0; at < output.length; at += QUANTUM) {
      assert.equal(processor.process([], [[output.subarray(at, at + QUANTUM)]]), true);
      globalThis.currentTime += QUANTUM / rate;
    }
    return output;
  };
  const told = (type) => posted.filter((message) => message.type === type);
  return { tell, render, told, posted };
}

/** Samples that are all different and none of them 0. */
function ramp(length, first = 1) {
  return Int16Array.from({ length }, (_, k) => ((first + k) % 30000) + 1);
}

function begin(one, id, pcm, rate = RATE) {
  one.tell({ type: "open", id, rate });
  one.tell({ type: "push", id, pcm });
}

function asPlayed(pcm) {
  return [...pcm].map((sample) => sample / 32768);
}

test("equal rates: bit by bit, then idle with the whole stream as its last word", async () => {
  const one = await player();
  const pcm = ramp(1000);
  begin(one, 7, pcm);
  one.tell({ type: "end", id: 7 });
  const output = one.render(10);
  assert.deepEqual([...output.subarray(0, 1000)], asPlayed(pcm));
  assert.ok(output.subarray(1000).every((sample) => sample === 0));
  assert.deepEqual(one.told("position"), [{ type: "position", id: 7, played: 1000, final: true }]);
  assert.deepEqual(one.told("state").map(({ state }) => state), ["buffering", "playing", "idle"]);
});

for (const rate of [8000, 16000, 22050, 24000, 44100]) {
  test(`a tone at ${rate} Hz keeps its pitch and loudness`, async () => {
    const one = await player();
    const tone = sine(1000, rate, 1, 0.5);
    begin(one, 1, Int16Array.from(tone, (sample) => Math.round(sample * 32768)), rate);
    one.tell({ type: "end", id: 1 });
    const output = one.render(400);
    const { amplitude, restRms } = amplitudeAt(output.subarray(4800, 43200), 1000, RATE);
    assert.ok(Math.abs(amplitude - 0.5) < 0.005, `amplitude ${amplitude}`);
    assert.ok(20 * Math.log10(amplitude / Math.SQRT2 / restRms) > 65, `rest ${restRms}`);
    const sounding = output.findLastIndex((sample) => Math.abs(sample) > 0.01);
    assert.ok(Math.abs(sounding - RATE) < 100, `sounds for ${sounding} of ${RATE} samples`);
    assert.equal(one.told("position").at(-1).played, rate);
  });
}

test("nothing sounds before enough is queued", async () => {
  const one = await player({ prebufferMs: 120 });
  begin(one, 1, ramp(5759)); // of 5760
  assert.ok(one.render(4).every((sample) => sample === 0));
  assert.deepEqual(one.told("state").map(({ state }) => state), ["buffering"]);
  one.tell({ type: "push", id: 1, pcm: ramp(1, 5760) });
  assert.notEqual(one.render(1)[0], 0);
});

test("a stream shorter than that sounds as soon as it is complete", async () => {
  const one = await player({ prebufferMs: 120 });
  begin(one, 1, ramp(200));
  assert.ok(one.render(1).every((sample) => sample === 0));
  one.tell({ type: "end", id: 1 });
  assert.deepEqual([...one.render(2).subarray(0, 200)], asPlayed(ramp(200)));
});

test("audio that jitters by half of the prebuffer leaves no gap", async () => {
  const one = await player({ prebufferMs: 120 });
  const frame = 960; // 20 ms
  let pushed = 0;
  const arrivals = Array.from({ length: 100 }, (_, k) => k * frame + ((k * 7919) % 61) * 48);
  one.tell({ type: "open", id: 1, rate: RATE });
  const output = [];
  for (let now = 0; now < 100 * frame; now += QUANTUM) {
    while (pushed < 100 && Math.max(...arrivals.slice(0, pushed + 1)) <= now) {
      one.tell({ type: "push", id: 1, pcm: ramp(frame, pushed * frame) });
      pushed += 1;
    }
    output.push(...one.render(1));
  }
  const first = output.findIndex((sample) => sample !== 0);
  assert.ok(first > 0 && output.slice(first).every((sample) => sample !== 0));
  assert.deepEqual(one.told("underrun"), []);
});

test("a stream follows the one before without a gap, also at another rate", async () => {
  for (const rate of [48000, 24000]) {
    const one = await player();
    const first = new Int16Array(1000).fill(8000);
    const second = new Int16Array(1000).fill(8000);
    begin(one, 1, first, rate);
    one.tell({ type: "end", id: 1 });
    begin(one, 2, second, 16000);
    one.tell({ type: "end", id: 2 });
    const output = one.render(60);
    const [from, to] = [100, (1000 * RATE) / rate + 3000 - 100];
    const quiet = output.subarray(from, to).filter((sample) => Math.abs(sample) < 0.05).length;
    assert.ok(quiet < 60, `${quiet} quiet samples at the joint of ${rate} Hz`); // 1.3 ms
    assert.deepEqual(one.told("position").map(({ id, played }) => [id, played]), [[1, 1000], [2, 1000]]);
  }
});

test("flush: exact counts at once, silence within 3 ms, and nothing of it any more", async () => {
  const one = await player();
  const pcm = new Int16Array(24000).fill(16000);
  begin(one, 3, pcm);
  one.render(10);
  one.tell({ type: "flush", id: 3 });
  assert.deepEqual(
    { ...one.told("flushed")[0], stillMs: 0 },
    { type: "flushed", id: 3, played: 1280, discarded: 22720, stillMs: 0 },
  );
  assert.ok(one.told("flushed")[0].stillMs < 3);
  one.tell({ type: "push", id: 3, pcm });
  const after = one.render(20);
  assert.ok(after[0] > 0.4 && after[FADE - 1] < 0.01, "fades");
  assert.ok(after.subarray(FADE).every((sample) => sample === 0));
  assert.equal(one.told("state").at(-1).state, "idle");
});

test("flush says when the last sample was put out, long ago after a pause", async () => {
  const one = await player();
  begin(one, 1, ramp(24000));
  one.render(10);
  one.tell({ type: "pause", id: 1 });
  one.render(375); // 1 s
  one.tell({ type: "flush", id: 1 });
  assert.ok(Math.abs(one.told("flushed")[0].stillMs - 1000) < 5);
});

test("flush at other rates counts samples of the stream, within one", async () => {
  for (const rate of [8000, 22050, 44100]) {
    const one = await player();
    begin(one, 1, ramp(rate), rate);
    one.render(100);
    one.tell({ type: "flush", id: 1 });
    const { played, discarded } = one.told("flushed")[0];
    assert.ok(Math.abs(played - (12800 * rate) / RATE) <= 1, `${played} at ${rate} Hz`);
    assert.equal(played + discarded, rate);
  }
});

test("flush of a stream that waits leaves the one that sounds", async () => {
  const one = await player();
  begin(one, 1, ramp(2560));
  one.tell({ type: "end", id: 1 });
  begin(one, 2, ramp(1000));
  one.render(10);
  one.tell({ type: "flush", id: 2 });
  const flushed = one.told("flushed")[0];
  assert.deepEqual([flushed.played, flushed.discarded], [0, 1000]);
  assert.deepEqual([...one.render(10)], asPlayed(ramp(2560)).slice(1280));
});

test("flush of a stream that is not there says so", async () => {
  const one = await player();
  one.tell({ type: "flush", id: 9 });
  assert.equal(one.told("flushed")[0].played, null);
});

test("pause is silence within 3 ms and loses nothing", async () => {
  const one = await player();
  const pcm = new Int16Array(4000).fill(16000);
  begin(one, 1, pcm);
  one.tell({ type: "end", id: 1 });
  one.render(10);
  one.tell({ type: "pause", id: 1 });
  assert.equal(one.told("state").at(-1).state, "paused");
  const silence = one.render(100);
  assert.ok(silence[0] > 0.4 && silence.subarray(FADE).every((sample) => sample === 0));
  one.tell({ type: "resume", id: 1 });
  const rest = one.render(40);
  assert.ok(rest[0] < 0.01 && Math.abs(rest[FADE] - 16000 / 32768) < 0.01, "fades in");
  assert.equal(rest.findLastIndex((sample) => sample !== 0), 4000 - 1280 - 1);
  assert.equal(one.told("position").at(-1).played, 4000);
});

test("a pause of the stream that waits does not stop the one that sounds", async () => {
  const one = await player();
  begin(one, 1, ramp(1280));
  one.tell({ type: "end", id: 1 });
  begin(one, 2, ramp(1280));
  one.tell({ type: "pause", id: 2 });
  assert.deepEqual([...one.render(12)], [...asPlayed(ramp(1280)), ...Array(256).fill(0)]);
  assert.equal(one.told("state").at(-1).state, "paused");
});

test("the user's pause holds everything, whatever the server says", async () => {
  const one = await player();
  begin(one, 1, ramp(12800));
  one.render(10);
  one.tell({ type: "hold", held: true });
  one.tell({ type: "pause", id: 1 });
  one.tell({ type: "resume", id: 1 });
  assert.ok(one.render(10).subarray(FADE).every((sample) => sample === 0));
  one.tell({ type: "hold", held: false });
  assert.ok(Math.abs(one.render(10).at(-1) - asPlayed(ramp(12800))[2559]) < 1e-6);
});

test("a stream that opens ends the pause of the one before", async () => {
  const one = await player();
  begin(one, 1, ramp(1280));
  one.tell({ type: "pause", id: 1 });
  begin(one, 2, ramp(1280));
  assert.deepEqual([...one.render(20)], [...asPlayed(ramp(1280)), ...asPlayed(ramp(1280))]);
});

test("an underrun is told once, does not click, and buffers again", async () => {
  const one = await player({ prebufferMs: 10 });
  begin(one, 5, new Int16Array(1280).fill(16000));
  const output = one.render(20);
  assert.deepEqual(one.told("underrun"), [{ type: "underrun", id: 5 }]);
  const steps = output.map((sample, k) => (k ? Math.abs(sample - output[k - 1]) : 0));
  assert.ok(Math.max(...steps.subarray(1)) < 0.01, "fades out");
  one.tell({ type: "push", id: 5, pcm: new Int16Array(479).fill(16000) }); // of 480
  assert.ok(one.render(2).every((sample) => sample === 0));
  one.tell({ type: "push", id: 5, pcm: new Int16Array(801).fill(16000) });
  const more = one.render(10);
  assert.ok(more[0] < 0.01 && Math.abs(more[640] - 16000 / 32768) < 1e-6, "fades in");
  one.tell({ type: "flush", id: 5 });
  assert.deepEqual([one.told("flushed")[0].played, one.told("flushed")[0].discarded], [2560, 0]);
});

test("positions come four times a second while it plays, and never run ahead", async () => {
  const one = await player();
  begin(one, 1, new Int16Array(RATE * 2).fill(100));
  one.render(375); // 1 s
  const positions = one.told("position").map(({ played }) => played);
  assert.equal(positions.length, 3); // the fourth is due in the block after
  positions.forEach((played, k) => assert.ok(Math.abs(played - (k + 1) * 12000) <= 3 * QUANTUM));
  one.tell({ type: "pause", id: 1 });
  one.render(375);
  assert.equal(one.told("position").length, 3);
});

test("what is too much is dropped and told, and the rest plays", async () => {
  const one = await player();
  one.tell({ type: "open", id: 1, rate: 8000 });
  for (let second = 0; second < 121; second += 1) {
    one.tell({ type: "push", id: 1, pcm: new Int16Array(8000).fill(1) });
  }
  assert.deepEqual(one.told("overflow"), [{ type: "overflow", id: 1, samples: 8000 }]);
  one.tell({ type: "flush", id: 1 });
  assert.equal(one.told("flushed")[0].discarded, 120 * 8000);
});

test("audio after the end of a stream is not played", async () => {
  const one = await player();
  begin(one, 1, ramp(128));
  one.tell({ type: "end", id: 1 });
  one.tell({ type: "push", id: 1, pcm: ramp(128) });
  one.render(3);
  assert.equal(one.told("position").at(-1).played, 128);
  assert.equal(one.told("overflow")[0].samples, 128);
});
