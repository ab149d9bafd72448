// @ts-check
/** What goes on now: the pill, the title and its way out, the ring's face, the transport. */

import { roundTripOf } from "../state_parts.js";
import { byId, rounded, setAttribute, setText } from "./dom.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../situation.js").Situation} Situation */
/**
 * @typedef {"connect"|"disconnect"|"interrupt"|"mute"|"unmute"|"hold"|"microphone"
 *   |"none"} TalkIntent
 */

/**
 * What the ring does when it is pressed.
 * @param {State} state @param {"hands_free"|"push_to_talk"} mode
 * @returns {{intent: TalkIntent, label: string, icon: string}}
 */
export function talkOf({ connection, phase, microphone, origin, entries }, mode) {
  if (origin === "replay") return { intent: "none", label: "Replay", icon: "play" };
  if (connection.state === "closed") return { intent: "connect", label: "Connect", icon: "mic" };
  if (connection.state !== "open") return { intent: "disconnect", label: "Cancel", icon: "close" };
  if (mode === "push_to_talk" && microphone.state === "live") {
    return { intent: "hold", label: "Hold to talk", icon: "mic" };
  }
  const usesTool = entries.some((entry) => entry.kind === "tool" && entry.stage === "running");
  if (phase === "speaking" || phase === "thinking" || phase === "held" || usesTool) {
    return { intent: "interrupt", label: "Interrupt", icon: "pause" };
  }
  if (microphone.state === "asking")
    return { intent: "none", label: "Allow the microphone", icon: "mic" };
  if (microphone.state !== "live")
    return { intent: "microphone", label: "Turn on microphone", icon: "mic" };
  if (microphone.muted) return { intent: "unmute", label: "Unmute", icon: "mic-off" };
  return { intent: "mute", label: phase === "hearing" ? "Hearing you" : "Mute", icon: "mic" };
}

export class Stage {
  /** @type {{intent: TalkIntent, label: string, icon: string}} */
  #talk = { intent: "connect", label: "", icon: "" };
  /** @type {Situation|null} */
  #situation = null;

  /** What a press of the ring means now. */
  get talkIntent() {
    return this.#talk.intent;
  }

  /** What the recovery button means now. */
  get recovery() {
    return this.#situation?.action?.intent ?? null;
  }

  /**
   * @param {State} state @param {Situation} situation
   * @param {{mode: "hands_free"|"push_to_talk", volume: number, prebufferMs: number}} settings
   */
  render(state, situation, settings) {
    this.#situation = situation;
    this.#showSituation(state, situation);
    this.#showTalk(state, settings.mode);
    this.#showTransport(state, settings);
  }

  /** @param {State} state @param {Situation} situation */
  #showSituation(state, situation) {
    const { tone, title, detail, action } = situation;
    for (const id of ["situation", "pill", "talk"]) setAttribute(byId(id), "data-tone", tone);
    setAttribute(byId("situation"), "data-key", situation.key);
    setText(byId("title"), title);
    setText(byId("detail"), detail);
    setText(byId("pill-text"), title);
    const recover = byId("recover");
    // The ring and the head already have a button for these.
    const elsewhere = !action || action.intent === "interrupt" || situation.key === "idle";
    recover.hidden = elsewhere || state.origin === "replay";
    setText(recover, action?.label ?? "");
    byId("demo").hidden = situation.key !== "idle" || state.origin === "replay";
    const connect = byId("connect");
    const connected = state.connection.state !== "closed" && state.origin === "live";
    setText(connect, connected ? "Disconnect" : "Connect");
    connect.classList.toggle("primary", !connected);
    const ms = roundTripOf(state);
    const trip = ms === null ? "" : `round trip ${ms.toFixed(0)} ms`;
    const music = Object.values(state.streams).find(
      (stream) => stream.source === "music" && stream.total === null,
    );
    setText(
      byId("vitals"),
      [trip, music && state.player.state === "playing" ? "music" : ""].filter(Boolean).join(" · "),
    );
  }

  /** @param {State} state @param {"hands_free"|"push_to_talk"} mode */
  #showTalk(state, mode) {
    const talk = talkOf(state, mode);
    if (talk.label !== this.#talk.label) setText(byId("talk-text"), talk.label);
    if (talk.icon !== this.#talk.icon) setAttribute(byId("talk-icon"), "href", `#i-${talk.icon}`);
    this.#talk = talk;
  }

  /** @param {State} state @param {{volume: number}} settings */
  #showTransport({ microphone, player, origin }, { volume }) {
    setAttribute(byId("mute"), "aria-pressed", String(microphone.muted));
    setAttribute(byId("mute-icon"), "href", microphone.muted ? "#i-mic-off" : "#i-mic");
    byId("mute").disabled = origin === "replay";
    setAttribute(byId("pause"), "aria-pressed", String(player.userPaused));
    setAttribute(byId("pause-icon"), "href", player.userPaused ? "#i-play" : "#i-pause");
    setText(byId("pause-text"), player.userPaused ? "Play" : "Pause");
    if (Number(byId("volume").value) !== volume) byId("volume").value = String(volume);
    setText(byId("volume-value"), rounded(volume, "%"));
  }
}
