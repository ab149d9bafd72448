// @ts-check
/**
 * What a screen reader says of its own accord: troubles and what is new, but not what the
 * loudspeaker says anyway, and not every change of a light.
 */

import { byId } from "./dom.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Entry} Entry */
/** @typedef {import("../situation.js").Situation} Situation */

const TOLD_TONES = new Set(["warning", "error"]);
const TOLD_KEYS = new Set(["asking", "connecting", "listening", "muted", "typing"]);
// After these, "Listening" is no news.
const PLAIN_KEYS = new Set(["hearing", "thinking", "speaking", "tool", "interrupted", "listening"]);

export class Announcer {
  #key = "idle";
  #entries = 0;

  /** @param {State} state @param {Situation} situation @param {boolean} readReplies */
  render({ entries, counts }, situation, readReplies) {
    if (situation.key !== this.#key) {
      const plain = situation.key === "listening" && PLAIN_KEYS.has(this.#key);
      this.#key = situation.key;
      const told = TOLD_TONES.has(situation.tone) || TOLD_KEYS.has(situation.key);
      if (told && !plain) say("polite", `${situation.title}. ${situation.detail}`);
    }
    if (counts.messages === this.#entries) return;
    const added = counts.messages - this.#entries;
    this.#entries = counts.messages;
    for (const entry of added > 0 ? entries.slice(-added) : []) {
      if (entry.kind === "error") say("assertive", `Error: ${entry.text}`);
    }
    if (readReplies) this.#readReply(entries);
  }

  /** @type {string|null} */
  #read = null;

  /** @param {Entry[]} entries */
  #readReply(entries) {
    const reply = entries.findLast(
      (entry) => entry.kind === "assistant" && entry.outcome !== "open",
    );
    if (!reply || reply.id === this.#read) return;
    this.#read = reply.id;
    say("polite", `Assistant: ${reply.text}`);
  }
}

/** @param {"polite"|"assertive"} region @param {string} text */
function say(region, text) {
  byId(region).textContent = text;
}
