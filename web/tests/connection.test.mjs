// The connection: what it says, when it comes back and when not, and that audio never piles up.

import assert from "node:assert/strict";
import test from "node:test";

import { Connection } from "../connection.js";

/** A WebSocket whose server and network a test plays. */
class FakeSocket {
  sent = [];
  bufferedAmount = 0;
  closed = null;

  send(data) {
    if (typeof data !== "string") this.bufferedAmount += data.byteLength;
    this.sent.push(data);
  }

  close(code) {
    this.closed = code ?? 1005;
  }

  answer(message) {
    this.onmessage({ data: typeof message === "object" ? JSON.stringify(message) : message });
  }

  audio(bytes) {
    this.onmessage({ data: new Uint8Array(bytes).buffer });
  }

  texts() {
    return this.sent.filter((data) => typeof data === "string").map((data) => JSON.parse(data));
  }
}

/** A connection in a world of its own: `pass` lets time go by. */
function world({ probe = async () => Promise.reject(new Error("nobody")), random = () => 1 } = {}) {
  const [sockets, events, timers] = [[], [], new Map()];
  let [now, names] = [0, 0];
  const connection = new Connection({
    url: "ws://server.test/",
    startSession: () => ({ type: "start_session", capabilities: { pause: true } }),
    on: (event) => events.push(event),
    random,
    probe,
    now: () => now,
    setTimer: (callback, ms) => (timers.set((names += 1), { callback, due: now + ms }), names),
    clearTimer: (name) => timers.delete(name),
    makeSocket: (url) => (sockets.push(Object.assign(new FakeSocket(), { url })), sockets.at(-1)),
  });
  const pass = (ms) => {
    const end = now + ms;
    for (;;) {
      const [next] = [...timers].sort(([, a], [, b]) => a.due - b.due);
      if (!next || next[1].due > end) break;
      timers.delete(next[0]);
      now = next[1].due;
      next[1].callback();
    }
    now = end;
  };
  const told = (type) => events.filter((event) => event.type === type);
  const states = () => told("state").map(({ state }) => state);
  return { connection, sockets, events, pass, told, states, timers };
}

/** The latest socket shakes hands, and the server gives it a session. */
function welcome({ sockets }, session_id = "s1", restored = false) {
  const socket = sockets.at(-1);
  socket.onopen();
  socket.answer({ type: "status", state: "ready", session_id, restored });
  return socket;
}

async function lose({ sockets }, code, reason = "") {
  sockets.at(-1).onclose({ code, reason });
  for (let k = 0; k < 5; k += 1) await Promise.resolve(); // the probe answers
}

test("it is open when the server has answered start_session", () => {
  const one = world();
  one.connection.connect();
  const [socket] = one.sockets;
  assert.equal(socket.url, "ws://server.test/");
  socket.onopen();
  assert.equal(one.connection.state, "connecting");
  assert.deepEqual(socket.texts(), [{ type: "start_session", capabilities: { pause: true } }]);
  socket.answer({ type: "status", state: "ready", session_id: "s1" });
  assert.equal(one.connection.state, "open");
  assert.deepEqual(one.told("state").at(-1), { type: "state", state: "open", sessionId: "s1" });
  assert.equal(one.told("message")[0].message.session_id, "s1");
});

test("a lost connection comes back with the id of its session", async () => {
  const one = world();
  one.connection.connect();
  welcome(one);
  one.pass(6000);
  await lose(one, 1006);
  assert.deepEqual(one.told("state").at(-1), {
    type: "state", state: "reconnecting", attempt: 1, retryInMs: 500, code: 1006,
    reason: "The connection was lost.", sessionId: "s1",
  });
  one.pass(499);
  assert.equal(one.sockets.length, 1);
  one.pass(1);
  assert.equal(one.sockets.length, 2);
  welcome(one, "s1", true);
  assert.equal(one.sockets[1].texts()[0].session_id, "s1");
  assert.deepEqual(one.states(), ["connecting", "open", "reconnecting", "connecting", "open"]);
});

test("pauses double up to 15 s, and are drawn from their upper half", async () => {
  for (const [lot, expected] of [
    [1, [500, 1000, 2000, 4000, 8000, 15000, 15000]],
    [0, [250, 500, 1000, 2000, 4000, 7500, 7500]],
  ]) {
    const one = world({ random: () => lot });
    one.connection.connect();
    for (const ms of expected) {
      await lose(one, 1006);
      assert.equal(one.told("state").at(-1).retryInMs, ms);
      one.pass(ms);
    }
  }
});

test("only a session that lasted begins the backoff anew", async () => {
  const one = world();
  one.connection.connect();
  const pauses = [];
  for (const lasted of [10, 10, 4999, 5000]) {
    welcome(one);
    one.pass(lasted);
    await lose(one, 1011);
    pauses.push(one.told("state").at(-1).retryInMs);
    one.pass(pauses.at(-1));
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 500]);
});

for (const code of [1000, 1008, 4001]) {
  test(`after close code ${code} it stays closed, and says why`, async () => {
    const one = world();
    one.connection.connect();
    welcome(one);
    await lose(one, code, code === 1008 ? "in the server's words" : "");
    const last = one.told("state").at(-1);
    assert.equal(last.state, "closed");
    assert.equal(last.code, code);
    assert.match(last.reason, code === 1008 ? /server's words/ : /session/i);
    one.pass(60000);
    assert.equal(one.sockets.length, 1);
    assert.equal(one.timers.size, 0);
  });
}

for (const code of [1001, 1006, 1011, 1013]) {
  test(`after close code ${code} it comes back`, async () => {
    const one = world();
    one.connection.connect();
    welcome(one);
    await lose(one, code);
    assert.equal(one.told("state").at(-1).code, code);
    one.pass(1000);
    assert.equal(one.sockets.length, 2);
  });
}

test("a handshake refused for want of a key is not tried again", async () => {
  const asked = [];
  const one = world({ probe: async (url) => (asked.push(url), 401) });
  one.connection.connect();
  await lose(one, 1006);
  assert.deepEqual(asked, ["ws://server.test/"]);
  const { state, code, reason } = one.told("state").at(-1);
  assert.deepEqual([state, code], ["closed", 401]);
  assert.match(reason, /key/);
});

test("a handshake refused by a server that is there is tried again, as 503", async () => {
  const one = world({ probe: async () => 404 });
  one.connection.connect();
  await lose(one, 1006);
  const { state, code, reason } = one.told("state").at(-1);
  assert.deepEqual([state, code], ["reconnecting", 503]);
  assert.match(reason, /full/);
});

test("leaving while it is asked why the handshake failed is leaving", async () => {
  let answer;
  const one = world({ probe: () => new Promise((resolve) => (answer = resolve)) });
  one.connection.connect();
  const lost = lose(one, 1006);
  one.connection.disconnect();
  answer(503);
  await lost;
  assert.equal(one.connection.state, "closed");
  assert.equal(one.timers.size, 0);
});

test("a server that takes the socket and says nothing is left after 10 s", () => {
  const one = world();
  one.connection.connect();
  one.sockets[0].onopen();
  one.pass(9999);
  assert.equal(one.connection.state, "connecting");
  one.pass(1);
  assert.equal(one.connection.state, "reconnecting");
  assert.notEqual(one.sockets[0].closed, null);
});

test("a network that is gone is noticed by a ping without any answer", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  one.pass(10000);
  assert.deepEqual(socket.texts().at(-1), { type: "ping" });
  socket.answer({ type: "pong" });
  one.pass(10000);
  assert.equal(one.connection.state, "open");
  one.pass(10000);
  assert.equal(one.connection.state, "reconnecting");
});

test("connect does not wait for the next attempt", async () => {
  const one = world();
  one.connection.connect();
  welcome(one);
  await lose(one, 1006);
  one.connection.connect();
  assert.equal(one.sockets.length, 2);
  one.pass(1000);
  assert.equal(one.sockets.length, 2);
});

test("disconnect leaves at once and for good; connect takes the session up again", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  one.connection.disconnect();
  assert.equal(socket.closed, 1000);
  assert.deepEqual(one.told("state").at(-1), {
    type: "state", state: "closed", code: 1000, reason: "", sessionId: "s1",
  });
  one.pass(60000);
  assert.equal(one.sockets.length, 1);
  one.connection.connect();
  assert.equal(welcome(one).texts()[0].session_id, "s1");
});

test("a session that was ended is not taken up again", async () => {
  const one = world();
  one.connection.connect();
  welcome(one);
  one.connection.send({ type: "end_session" });
  await lose(one, 1000);
  one.connection.connect();
  one.sockets[1].onopen();
  assert.equal("session_id" in one.sockets[1].texts()[0], false);
});

test("an address that is none is told, not thrown", () => {
  const events = [];
  const connection = new Connection({
    url: "ws://",
    startSession: () => ({}),
    on: (event) => events.push(event),
    makeSocket: () => {
      throw new SyntaxError("no such URL");
    },
  });
  connection.connect();
  assert.equal(events.at(-1).state, "closed");
  assert.match(events.at(-1).reason, /no such URL/);
});

test("messages need a session, and are told when they leave", () => {
  const one = world();
  assert.equal(one.connection.send({ type: "text", text: "hello" }), false);
  one.connection.connect();
  one.sockets[0].onopen();
  assert.equal(one.connection.send({ type: "text", text: "hello" }), false);
  one.sockets[0].answer({ type: "status", state: "ready", session_id: "s1" });
  assert.equal(one.connection.send({ type: "text", text: "hello" }), true);
  assert.deepEqual(one.told("sent").at(-1).message, { type: "text", text: "hello" });
  assert.deepEqual(one.sockets[0].texts().at(-1), { type: "text", text: "hello" });
});

test("what is not JSON is told as an error", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  for (const text of ["{", "7", "null"]) socket.answer(text);
  const messages = one.told("message").slice(1);
  assert.deepEqual(messages.map(({ message }) => message.code), Array(3).fill("INVALID_MESSAGE"));
});

test("audio belongs to the stream that is open; what comes late is dropped and told", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  socket.audio([9, 9]);
  socket.answer({ type: "tts_audio", state: "start", stream_id: 4, sample_rate: 16000 });
  socket.audio([1, 0, 2, 0, 255]); // half a sample too much
  socket.answer({ type: "pause", stream_id: 4 });
  socket.answer({ type: "resume", stream_id: 4 });
  socket.audio([3, 0]);
  socket.answer({ type: "flush", stream_id: 3 }); // another one
  socket.audio([4, 0]);
  socket.answer({ type: "flush", stream_id: 4 });
  socket.audio([5, 0, 6, 0]);
  socket.answer({ type: "tts_audio", state: "start", stream_id: 5, sample_rate: 16000 });
  socket.audio([7, 0]);
  socket.answer({ type: "tts_audio", state: "end", stream_id: 5, samples: 1 });
  socket.audio([8, 0]);
  const audio = one.told("audio").map(({ streamId, pcm }) => [streamId, ...pcm]);
  assert.deepEqual(audio, [[4, 1, 2], [4, 3], [4, 4], [5, 7]]);
  const stale = one.told("stale").map(({ streamId, samples }) => [streamId, samples]);
  assert.deepEqual(stale, [[0, 1], [4, 2], [5, 1]]);
});

const FRAME = 320;

function speak({ connection }, frames, first = 0) {
  for (let k = 0; k < frames; k += 1) connection.sendAudio(new Int16Array(FRAME).fill(first + k));
}

function audioOf(socket) {
  return socket.sent.filter((data) => typeof data !== "string").map((pcm) => pcm[0]);
}

test("audio goes out at once, and is summarised by the second", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  for (let k = 0; k < 100; k += 1) {
    speak(one, 1, k);
    socket.bufferedAmount = 0;
  }
  assert.equal(audioOf(socket).length, 100);
  const summaries = one.told("sent").map(({ message }) => message).slice(1);
  assert.deepEqual(summaries, Array(2).fill({ type: "audio", frames: 50, samples: 16000 }));
});

test("where the network takes nothing, a second waits and the oldest is dropped and counted", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  speak(one, 100);
  assert.deepEqual(audioOf(socket), [...Array(25).keys()]); // 16 000 bytes are in the socket
  assert.equal(one.connection.droppedSamples, 50 * FRAME);
  assert.equal(one.told("dropped").reduce((sum, { samples }) => sum + samples, 0), 50 * FRAME);
  socket.bufferedAmount = 0;
  one.pass(40); // without more being said
  assert.deepEqual(audioOf(socket).slice(25), Array.from({ length: 25 }, (_, k) => 75 + k));
  one.pass(1000);
  assert.equal(one.connection.droppedSamples, 50 * FRAME);
});

test("a message does not overtake the audio before it", () => {
  const one = world();
  one.connection.connect();
  const socket = welcome(one);
  speak(one, 30);
  one.connection.send({ type: "end_of_speech" });
  assert.equal(audioOf(socket).length, 30);
  assert.deepEqual(JSON.parse(socket.sent.at(-1)), { type: "end_of_speech" });
});

test("the last half second from before the session goes to it", () => {
  const one = world();
  speak(one, 3); // nobody has asked to connect
  one.connection.connect();
  speak(one, 30);
  const socket = welcome(one);
  assert.deepEqual(audioOf(socket), Array.from({ length: 25 }, (_, k) => 5 + k));
  one.connection.disconnect();
  speak(one, 30);
  assert.equal(one.connection.droppedSamples, 5 * FRAME);
});
