// The microphone's worklet: what leaves it is what came in, at 16 kHz.

import assert from "node:assert/strict";
import test from "node:test";

import { amplitudeAt, loadProcessor, sine } from "./worklet_scope.mjs";

const QUANTUM = 128;

/** Runs a whole signal through a processor; channels: the same for each.
 * @returns frames as they were posted */
async function capture(rate, signal, { frameSamples = 320, channels = (one) => [one] } = {}) {
  const { processor, posted } = await loadProcessor("capture", rate, { frameSamples });
  for (let at = 0; at + QUANTUM <= signal.length; at += QUANTUM) {
    const block = signal.subarray(at, at + QUANTUM);
    assert.equal(processor.process([channels(block)], [[new Float32Array(QUANTUM)]]), true);
  }
  return posted;
}

function samplesOf(posted) {
  return Float64Array.from(posted.flatMap(({ pcm }) => [...pcm]), (sample) => sample / 32767);
}

for (const rate of [8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000]) {
  test(`a tone at ${rate} Hz leaves with its pitch and loudness, and nothing else`, async () => {
    const heard = samplesOf(await capture(rate, sine(1000, rate, 1.2, 0.5))).subarray(1600);
    const tone = amplitudeAt(heard, 1000, 16000);
    assert.ok(Math.abs(tone.amplitude - 0.5) < 0.005, `amplitude ${tone.amplitude}`);
    const ratio = 20 * Math.log10(tone.amplitude / Math.SQRT2 / tone.restRms);
    assert.ok(ratio > 70, `${ratio} dB between the tone and all else`);
  });

  test(`no sample is lost or added at ${rate} Hz`, async () => {
    const seconds = 10;
    const posted = await capture(rate, sine(440, rate, seconds, 0.3));
    const expected = seconds * 16000;
    const got = posted.length * 320;
    assert.ok(expected - got >= 0 && expected - got < 2 * 320, `${got} of ${expected}`);
  });
}

test("what 16 kHz cannot hold is not folded into what it can", async () => {
  for (const hertz of [9000, 12000, 15000, 20000]) {
    const heard = samplesOf(await capture(48000, sine(hertz, 48000, 1, 0.9))).subarray(1600);
    const rms = Math.sqrt(heard.reduce((sum, one) => sum + one * one, 0) / heard.length);
    assert.ok(20 * Math.log10(rms) < -70, `${hertz} Hz left ${20 * Math.log10(rms)} dBFS`);
  }
});

test("speech frequencies pass at their level", async () => {
  for (const hertz of [100, 300, 3000, 6000, 6700]) {
    const heard = samplesOf(await capture(44100, sine(hertz, 44100, 1, 0.5))).subarray(1600);
    const decibel = 20 * Math.log10(amplitudeAt(heard, hertz, 16000).amplitude / 0.5);
    assert.ok(Math.abs(decibel) < 0.5, `${hertz} Hz: ${decibel} dB`);
  }
});

test("at 16 kHz samples pass as they are", async () => {
  const signal = Float32Array.from({ length: 1280 }, (_, k) => ((k * 37) % 2001) / 2001 - 0.5);
  const heard = (await capture(16000, signal)).flatMap(({ pcm }) => [...pcm]);
  assert.deepEqual(heard, [...signal].map((sample) => Math.round(sample * 32767)));
});

test("frames have the size that was asked for, and their level", async () => {
  const posted = await capture(16000, sine(500, 16000, 0.5, 0.5), { frameSamples: 800 });
  assert.equal(posted.length, 9); // of 62 whole blocks of 128
  for (const { pcm, level } of posted) {
    assert.equal(pcm.length, 800);
    assert.ok(Math.abs(level - 0.5 / Math.SQRT2) < 1e-3, `level ${level}`);
  }
});

test("what is too loud is clipped, not turned over", async () => {
  const [{ pcm }] = await capture(16000, sine(50, 16000, 0.1, 3));
  assert.equal(Math.max(...pcm), 32767);
  assert.equal(Math.min(...pcm), -32767);
  assert.ok(pcm.slice(20, 140).every((sample) => sample > 0));
});

test("channels are mixed", async () => {
  const channels = (block) => [block, block.map((sample) => -sample)];
  const posted = await capture(48000, sine(1000, 48000, 0.2, 0.5), { channels });
  assert.ok(posted.length > 5);
  assert.ok(posted.every(({ pcm }) => pcm.every((sample) => sample === 0)));
});

test("without a source it waits, and stops when told", async () => {
  const { processor, posted } = await loadProcessor("capture", 48000, { frameSamples: 160 });
  assert.equal(processor.process([[]], [[new Float32Array(QUANTUM)]]), true);
  processor.port.onmessage({ data: "stop" });
  assert.equal(processor.process([[new Float32Array(4800)]], [[new Float32Array(QUANTUM)]]), false);
  assert.deepEqual(posted, []);
});
