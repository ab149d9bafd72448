// @ts-check
/** The protocol as it goes by: every message both ways, audio summed up, with filters. */

import { byId, clockTime, make, setText } from "./dom.js";

/** @typedef {import("../state.js").Happening} Happening */
/**
 * @typedef {object} Row a message, or audio messages that follow each other
 * @property {number} at ms
 * @property {"sent"|"received"} direction
 * @property {string} type
 * @property {any} message
 * @property {number} frames of audio; 0: no audio
 * @property {number} samples
 */

const ROWS_KEPT = 1_000; // a few minutes; all of them are in the export

/**
 * The row that a happening is, or null where it is no message.
 * @param {Happening} happening @returns {Row|null}
 */
export function protocolRow({ at, source, event }) {
  if (source !== "connection") return null;
  if (event.type === "message" || event.type === "sent") {
    const { message } = event;
    const direction = event.type === "sent" ? "sent" : "received";
    const { frames = 0, samples = 0 } = message.type === "audio" ? message : {};
    return { at, direction, type: message.type, message, frames, samples };
  }
  if (event.type !== "audio" && event.type !== "stale") return null;
  const samples = event.samples ?? event.pcm.length;
  const type = event.type === "stale" ? "stale audio" : "audio";
  const message = { stream_id: event.streamId };
  return { at, direction: "received", type, message, frames: 1, samples };
}

/** Whether two rows are audio of the same stream, and so are one. @param {Row} a @param {Row} b */
function sameAudio(a, b) {
  return (
    a.frames > 0 &&
    a.type === b.type &&
    a.direction === b.direction &&
    a.message.stream_id === b.message.stream_id
  );
}

/** What a row says beside its type. @param {Row} row */
export function summaryOf({ message, frames, samples }) {
  if (frames) {
    const stream = message.stream_id === undefined ? "" : `stream ${message.stream_id}, `;
    return `${stream}${frames} frame${frames === 1 ? "" : "s"}, ${samples} samples`;
  }
  const { type: _type, ...rest } = message;
  return JSON.stringify(rest).slice(1, -1).replaceAll('"', "").slice(0, 160);
}

/**
 * @typedef {object} Filter
 * @property {"all"|"sent"|"received"} direction
 * @property {string} type part of it; "" for every one
 * @property {boolean} audio
 */

/** @param {Row} row @param {Filter} filter */
export function passes(row, { direction, type, audio }) {
  if (direction !== "all" && row.direction !== direction) return false;
  if (!audio && row.frames > 0) return false;
  return row.type.includes(type.trim().toLowerCase());
}

export class Protocol {
  #list = byId("protocol");
  #scroller = byId("protocol-scroller");
  #panel = byId("panel-protocol");
  /** @type {Row[]} */
  #rows = [];
  /** @type {Map<Row, HTMLElement>} what is in the list */
  #drawn = new Map();
  #frozen = false;
  #stale = true; // rows have changed since they were drawn
  #originMs = 0;
  #total = 0;

  constructor() {
    const redraw = () => {
      this.#list.replaceChildren();
      this.#drawn.clear();
      this.#stale = true;
      this.draw();
    };
    byId("protocol-direction").addEventListener("change", redraw);
    byId("protocol-type").addEventListener("input", redraw);
    byId("protocol-audio").addEventListener("change", redraw);
    byId("protocol-freeze").addEventListener("click", () => {
      this.#frozen = !this.#frozen;
      byId("protocol-freeze").setAttribute("aria-pressed", String(this.#frozen));
      this.#stale = true;
      this.draw();
    });
  }

  /** Begins anew. @param {number} originMs */
  clear(originMs) {
    this.#originMs = originMs;
    this.#rows = [];
    this.#total = 0;
    this.#drawn.clear();
    this.#list.replaceChildren();
    this.#stale = true;
  }

  /** @param {Happening} happening */
  add(happening) {
    const row = protocolRow(happening);
    if (!row) return;
    const last = this.#rows.at(-1);
    this.#stale = true;
    this.#total++;
    if (last && sameAudio(last, row)) {
      last.frames += row.frames;
      last.samples += row.samples;
      const line = this.#drawn.get(last);
      if (line && !this.#frozen)
        setText(/** @type {Element} */ (line.querySelector(".summary")), summaryOf(last));
      return;
    }
    this.#rows.push(row);
    if (this.#rows.length > ROWS_KEPT) {
      for (const old of this.#rows.splice(0, ROWS_KEPT / 10)) {
        this.#drawn.get(old)?.remove();
        this.#drawn.delete(old);
      }
    }
  }

  /** Draws what is new; does nothing while nobody looks. */
  draw() {
    if (!this.#stale || this.#frozen || this.#panel.hidden) return;
    this.#stale = false;
    const filter = {
      direction: byId("protocol-direction").value,
      type: byId("protocol-type").value,
      audio: byId("protocol-audio").checked,
    };
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    for (const row of this.#rows) {
      if (this.#drawn.has(row) || !passes(row, filter)) continue;
      const line = lineOf(row, this.#originMs);
      this.#drawn.set(row, line);
      this.#list.append(line);
    }
    setText(byId("protocol-count"), `${this.#total} messages`);
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

/** @param {Row} row @param {number} originMs */
function lineOf(row, originMs) {
  const cells = [
    make("time", "", clockTime(originMs + row.at)),
    make(
      "span",
      { class: row.direction, "aria-hidden": "true" },
      row.direction === "sent" ? "↑" : "↓",
    ),
    make(
      "span",
      `type ${row.direction}`,
      make("span", "visually-hidden", `${row.direction} `),
      row.type,
    ),
    make("span", "summary", summaryOf(row)),
  ];
  if (row.frames) return make("li", "", make("div", "plain", ...cells));
  const line = make("details", "", make("summary", "", ...cells));
  line.addEventListener("toggle", () => {
    if (line.open && line.children.length === 1) {
      line.append(make("pre", "", JSON.stringify(row.message, null, 2)));
    }
  });
  return make("li", "", line);
}
