// @ts-check
/**
 * A session as it happened: kept while it goes on, exported as a zip, and replayed.
 *
 * The archive holds `session.jsonl` and one WAV file for each track.  The first line is
 * the head: {"format", "version", "epoch_ms": of time 0, "tracks": {name: {"file", "rate"}}}.
 * Every other line is one happening: {"at": ms, "source", "event"}, and for audio
 * {"track", "from": sample, "samples"} in place of the samples.  Both tracks have the
 * session's time, except that the assistant's is up to its lead early: it is what came,
 * not what was heard.
 */

import { readWav, writeWav } from "./wav.js";
import { readZip, writeZip } from "./zip.js";

/** @typedef {import("./state.js").Happening} Happening */
/**
 * @typedef {object} Line a happening that is kept, its audio apart
 * @property {number} at ms
 * @property {Happening["source"]} source
 * @property {any} event
 * @property {Int16Array|null} pcm
 * @property {number} rate Hz
 */
/** @typedef {{rate: number, length: number, pieces: {from: number, pcm: Int16Array}[]}} Track */

const FORMAT = "listenai-session";
const VERSION = 1;
const EVENTS = "session.jsonl";
const MICROPHONE_RATE = 16_000; // Hz
const FRAME_SAMPLES = 320; // 20 ms: what a longer line of the microphone is replayed in
const LINE_SAMPLES = 3_200; // 200 ms of the microphone share a line
const LINES_KEPT = 100_000; // an hour and more
const AUDIO_BYTES_KEPT = 64 << 20; // 17 min of both tracks at 16 kHz; older events stay, silent
const GAP_MS = 250; // less is jitter, and no silence is put into the track

export class Recording {
  /** @type {Line[]} */
  #lines = [];
  /** @type {Map<number, number>} */
  #rates = new Map();
  #audioBytes = 0;
  #silent = 0; // lines from the beginning that have no audio, or none any more
  #epochMs;

  /** @param {number} epochMs of the clock's zero */
  constructor(epochMs) {
    this.#epochMs = epochMs;
  }

  /** @param {Happening} happening */
  add({ at, source, event }) {
    const { pcm = null, at: _at, ...rest } = event; // it has its time already
    const last = this.#lines.at(-1);
    if (
      source === "connection" &&
      event.message?.type === "tts_audio" &&
      event.message.sample_rate
    ) {
      this.#rates.set(event.message.stream_id, event.message.sample_rate);
    }
    if (pcm && source === "microphone" && last?.pcm && last.source === "microphone") {
      if (last.pcm.length + pcm.length <= LINE_SAMPLES) {
        last.pcm = joined([last.pcm, pcm]);
        this.#audioBytes += pcm.byteLength;
        return;
      }
    }
    const rate =
      source === "microphone" ? MICROPHONE_RATE : (this.#rates.get(event.streamId) ?? 16_000);
    this.#lines.push({ at, source, event: rest, pcm, rate });
    this.#audioBytes += pcm?.byteLength ?? 0;
    this.#forget();
  }

  /** Everything that happened, without audio: for looking at. */
  get events() {
    return this.#lines.map(({ at, source, event, pcm }) => ({
      at,
      source,
      event: pcm ? { ...event, samples: pcm.length } : event,
    }));
  }

  /** Whether there is anything to export. */
  get empty() {
    return this.#lines.length === 0;
  }

  /** The archive. @returns {Blob} */
  export() {
    return writeZip(packSession(this.#lines, this.#epochMs), new Date());
  }

  #forget() {
    while (this.#audioBytes > AUDIO_BYTES_KEPT && this.#silent < this.#lines.length - 1) {
      const line = this.#lines[this.#silent++];
      this.#audioBytes -= line.pcm?.byteLength ?? 0;
      line.pcm = null;
    }
    if (this.#lines.length > LINES_KEPT) {
      const gone = this.#lines.splice(0, LINES_KEPT / 10);
      for (const line of gone) this.#audioBytes -= line.pcm?.byteLength ?? 0;
      this.#silent = Math.max(0, this.#silent - gone.length);
    }
  }
}

/**
 * The files of a session: events and tracks.
 * @param {Line[]} lines @param {number} epochMs @returns {Record<string, Uint8Array>}
 */
export function packSession(lines, epochMs) {
  const start = lines[0]?.at ?? 0;
  /** @type {Map<string, Track>} */
  const tracks = new Map();
  const written = lines.map(({ at, source, event, pcm, rate }) => {
    const line = { at: Math.round((at - start) * 10) / 10, source, event };
    if (!pcm) return line;
    const name = trackName(source === "microphone" ? "you" : "assistant", rate, tracks);
    const track = tracks.get(name) ?? { rate, length: 0, pieces: [] };
    tracks.set(name, track);
    const due = Math.round((line.at / 1000) * rate);
    const from = due - track.length > (GAP_MS / 1000) * rate ? due : track.length;
    track.pieces.push({ from, pcm });
    track.length = from + pcm.length;
    return { ...line, track: name, from, samples: pcm.length };
  });
  const head = {
    format: FORMAT,
    version: VERSION,
    epoch_ms: Math.round(epochMs + start),
    tracks: Object.fromEntries(
      [...tracks].map(([name, { rate }]) => [name, { file: `${name}.wav`, rate }]),
    ),
  };
  const text = [head, ...written].map((line) => JSON.stringify(line)).join("\n");
  /** @type {Record<string, Uint8Array>} */
  const files = { [EVENTS]: new TextEncoder().encode(`${text}\n`) };
  for (const [name, { rate, length, pieces }] of tracks) {
    const samples = new Int16Array(length);
    for (const { from, pcm } of pieces) samples.set(pcm, from);
    files[`${name}.wav`] = writeWav(samples, rate);
  }
  return files;
}

/** One file has one rate.
 * @param {string} who @param {number} rate @param {Map<string, Track>} tracks */
function trackName(who, rate, tracks) {
  const first = tracks.get(who);
  return !first || first.rate === rate ? who : `${who}-${rate}`;
}

/**
 * A session from its files, every line with its audio again.
 * @param {Record<string, Uint8Array>} files
 * @returns {{epochMs: number, happenings: Happening[]}}
 * @throws {Error} with words for the user
 */
export function openSession(files) {
  if (!files[EVENTS]) throw new Error(`this is no exported session: it has no ${EVENTS}`);
  const [head, ...lines] = new TextDecoder()
    .decode(files[EVENTS])
    .split("\n")
    .filter((line) => line.trim())
    .map(parseLine);
  if (head?.format !== FORMAT)
    throw new Error(`${EVENTS} does not begin with the head of a session`);
  if (head.version !== VERSION) {
    throw new Error(`the session has version ${head.version}; this page reads version ${VERSION}`);
  }
  /** @type {Record<string, Int16Array>} */
  const tracks = {};
  for (const [name, { file }] of Object.entries(head.tracks ?? {})) {
    if (!files[file]) throw new Error(`the session's audio ${file} is missing`);
    tracks[name] = readWav(files[file]).samples;
  }
  const happenings = lines.flatMap((line) => restored(line, tracks));
  happenings.sort((a, b) => a.at - b.at); // pieces of a long line lie between others
  return { epochMs: head.epoch_ms, happenings };
}

/** A session that was exported. @param {Uint8Array} bytes */
export function openArchive(bytes) {
  return openSession(readZip(bytes));
}

/** @param {string} line @param {number} index */
function parseLine(line, index) {
  try {
    return JSON.parse(line);
  } catch {
    throw new Error(`line ${index + 1} of ${EVENTS} is not JSON`);
  }
}

/** @param {any} line @param {Record<string, Int16Array>} tracks @returns {Happening[]} */
function restored({ at, source, event, track, from, samples }, tracks) {
  if (!track) return [{ at, source, event }];
  const pcm = tracks[track]?.subarray(from, from + samples) ?? new Int16Array(samples);
  if (source !== "microphone") return [{ at, source, event: { ...event, pcm } }];
  const pieces = [];
  for (let start = 0; start < pcm.length; start += FRAME_SAMPLES) {
    const piece = pcm.subarray(start, start + FRAME_SAMPLES);
    pieces.push({
      at: at + (start / MICROPHONE_RATE) * 1000,
      source,
      event: { ...event, pcm: piece },
    });
  }
  return pieces;
}

/** @param {Int16Array[]} parts */
function joined(parts) {
  const whole = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Lets a session happen again, at its own pace. */
export class Replay {
  #happenings;
  #on;
  #ended;
  #clock;
  #next = 0;
  /** @type {number|null} */
  #startedAt = null; // of the clock, less what was played before; null: it stands
  #position = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;

  /**
   * @param {object} parts
   * @param {Happening[]} parts.happenings in order
   * @param {(happening: Happening) => void} parts.on
   * @param {() => void} parts.ended all of them have happened
   * @param {() => number} [parts.clock] ms
   */
  constructor({ happenings, on, ended, clock = () => performance.now() }) {
    this.#happenings = happenings;
    this.#on = on;
    this.#ended = ended;
    this.#clock = clock;
  }

  /** ms of the session's time. */
  get position() {
    return this.#startedAt === null ? this.#position : this.#clock() - this.#startedAt;
  }

  /** ms. */
  get duration() {
    return this.#happenings.at(-1)?.at ?? 0;
  }

  get running() {
    return this.#startedAt !== null;
  }

  /** Begins, or goes on. */
  start() {
    if (this.#startedAt !== null) return;
    this.#startedAt = this.#clock() - this.#position;
    this.#step();
  }

  /** Stands still until `start`. */
  pause() {
    this.#position = this.position;
    this.#startedAt = null;
    clearTimeout(this.#timer);
  }

  #step() {
    while (this.#startedAt !== null && this.#next < this.#happenings.length) {
      const happening = this.#happenings[this.#next];
      const wait = happening.at - this.position;
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#step(), wait);
        return;
      }
      this.#next++;
      this.#on(happening);
    }
    if (this.#startedAt === null) return;
    this.pause();
    this.#ended();
  }
}
