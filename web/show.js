// @ts-check
/** A replay that is seen and heard: no server, no microphone, the same page. */

import { Player } from "./audio/player.js";
import { obey } from "./obey.js";
import { Replay } from "./session.js";

/** @typedef {import("./state.js").Happening} Happening */

const YOU = 1; // the only stream of the player that speaks the user's part
const MICROPHONE_RATE = 16_000; // Hz
const QUIET_LEVEL = 0.4; // the user's part, beside the assistant's

export class Show {
  #replay;
  #on;
  #assistant = new Player({ on: () => {}, prebufferMs: 60 });
  #you = new Player({ on: () => {}, prebufferMs: 60 });
  #heard = false; // the user's part has begun

  /**
   * @param {{happenings: Happening[]}} session
   * @param {{on: (happening: Happening) => void, ended: () => void}} parts
   */
  constructor({ happenings }, { on, ended }) {
    this.#on = on;
    this.#replay = new Replay({ happenings, on: (one) => this.#happen(one), ended });
    void this.#assistant.unlock();
    void this.#you.unlock();
  }

  get analysers() {
    return { you: this.#you.analyser, assistant: this.#assistant.analyser };
  }

  get position() {
    return this.#replay.position;
  }

  get duration() {
    return this.#replay.duration;
  }

  get running() {
    return this.#replay.running;
  }

  start() {
    this.#replay.start();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.#assistant.userPause(paused);
    this.#you.userPause(paused);
    if (paused) this.#replay.pause();
    else this.#replay.start();
  }

  /** @param {number} percent */
  setVolume(percent) {
    this.#assistant.setVolume(percent / 100);
    this.#you.setVolume((percent / 100) * QUIET_LEVEL);
  }

  close() {
    this.#replay.pause();
    void this.#assistant.close();
    void this.#you.close();
  }

  /** @param {Happening} happening */
  #happen(happening) {
    const { source, event } = happening;
    if (source === "connection" && event.type === "message") obey(this.#assistant, event.message);
    if (source === "connection" && event.type === "audio") {
      this.#assistant.push(event.streamId, event.pcm);
    }
    if (source === "microphone" && event.type === "frame") this.#say(event.pcm);
    this.#on(happening);
  }

  /** @param {Int16Array} pcm */
  #say(pcm) {
    if (!this.#heard) this.#you.open(YOU, MICROPHONE_RATE);
    this.#heard = true;
    this.#you.push(YOU, pcm);
  }
}
