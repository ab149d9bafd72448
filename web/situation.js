// @ts-check
/** The one thing that is going on, in words, and the one button that leads on from it. */

/** @typedef {import("./state.js").State} State */
/**
 * @typedef {"connect"|"disconnect"|"retry"|"microphone"|"unlock"|"unmute"|"interrupt"|"settings"
 *   |"play"} Intent
 */
/**
 * @typedef {object} Situation
 * @property {string} key stable, for styles and tests
 * @property {"idle"|"busy"|"listen"|"user"|"assistant"|"tool"|"warning"|"error"} tone
 * @property {string} title two or three words
 * @property {string} detail a sentence: what it means, what to do
 * @property {{label: string, intent: Intent}|null} action
 */

/** @type {(key: string, tone: Situation["tone"], title: string, detail: string, label?: string,
 *   intent?: Intent) => Situation} */
const make = (key, tone, title, detail, label, intent) => ({
  key,
  tone,
  title,
  detail,
  action: label && intent ? { label, intent } : null,
});

/**
 * What to show now.  Troubles come first, the nearest to the server before the others.
 * @param {State} state @param {number} now ms, of the state's clock
 * @param {"hands_free"|"push_to_talk"} mode how the user talks
 * @returns {Situation}
 */
export function situationOf(state, now, mode = "hands_free") {
  return ofConnection(state, now) ?? ofSound(state) ?? ofAssistant(state, mode);
}

/** @param {State} state @param {number} now @returns {Situation|null} */
function ofConnection({ connection, microphone }, now) {
  const { state, code, reason } = connection;
  if (state === "open") return null;
  if (state === "connecting") {
    if (microphone.state === "asking") return ASKING;
    return make(
      "connecting",
      "busy",
      "Connecting",
      "Opening a connection to the server.",
      "Cancel",
      "disconnect",
    );
  }
  if (state === "reconnecting") {
    const left = Math.max(0, Math.ceil(((connection.retryAt ?? now) - now) / 1000));
    const when = left > 0 ? `Next attempt in ${left} s` : "Trying now";
    const detail = `${when}; your session is kept and goes on then.`;
    if (code === 1013 || code === 503) {
      return make(
        "full",
        "warning",
        "Server full",
        `Every place is taken. ${detail}`,
        "Try now",
        "retry",
      );
    }
    return make("reconnecting", "warning", "Reconnecting", detail, "Try now", "retry");
  }
  const said = reason ? ` The server said: ${reason}` : "";
  if (code === 1008 || code === 401) {
    const detail = `The server refused the connection. Check the key in Settings.${said}`;
    return make("refused", "error", "Not let in", detail, "Open settings", "settings");
  }
  if (code === 4001) {
    const detail = "This session goes on in another window. Take it back, or close this page.";
    return make("taken-over", "warning", "Taken over", detail, "Take it back", "connect");
  }
  if (code === 1013 || code === 503) {
    return make(
      "full",
      "warning",
      "Server full",
      "Every place is taken. Try again later.",
      "Try again",
      "connect",
    );
  }
  if (code !== null && code !== 1000 && code !== 1005) {
    const detail = `No server answers. See that it runs, and its address in Settings.${said}`;
    return make("unreachable", "error", "No connection", detail, "Connect", "connect");
  }
  const detail = "Connect, then talk, type, and interrupt the answer whenever you like.";
  return make("idle", "idle", "Not connected", detail, "Connect", "connect");
}

const ASKING = make(
  "asking",
  "busy",
  "Microphone?",
  "Your browser asks whether this page may listen: choose Allow. Typing works without.",
);

/** @type {Record<string, Situation>} */
const MICROPHONE = {
  asking: ASKING,
  denied: make(
    "denied",
    "warning",
    "Microphone refused",
    "Allow it in the browser's address bar and try again. Meanwhile you can type.",
    "Try again",
    "microphone",
  ),
  lost: make(
    "lost",
    "warning",
    "Microphone lost",
    "It was unplugged or another program took it. Plug it in, or choose another in Settings.",
    "Use a microphone",
    "microphone",
  ),
  missing: make(
    "missing",
    "warning",
    "No microphone",
    "Plug one in and try again. Meanwhile you can type.",
    "Try again",
    "microphone",
  ),
  insecure: make(
    "insecure",
    "warning",
    "Microphone blocked",
    "Browsers give microphone and sound only to https and to localhost. Open this page as " +
      "http://localhost (an SSH tunnel will do) or over https. Here you can type and read.",
    "Open settings",
    "settings",
  ),
};

/** @param {State} state @returns {Situation|null} */
function ofSound({ player, microphone, phase }) {
  if (player.state === "blocked") {
    const detail = "The browser plays no sound before you click something on the page.";
    return make("blocked", "warning", "Sound blocked", detail, "Turn on sound", "unlock");
  }
  if (player.userPaused) {
    return make("paused", "warning", "Playback paused", "You paused the answer.", "Go on", "play");
  }
  if (phase !== "listening" && phase !== "ready") return null;
  return MICROPHONE[microphone.state] ?? null;
}

/** @param {State} state @param {string} mode @returns {Situation} */
function ofAssistant({ phase, entries, microphone, player, streams, origin }, mode) {
  if (phase === "hearing" || phase === "held") {
    const detail =
      phase === "held" ? "The answer waits: is somebody speaking?" : "You are speaking.";
    return make("hearing", "user", "Hearing you", detail);
  }
  if (phase === "interrupted") {
    return make("interrupted", "user", "Interrupted", "The rest of the answer was dropped.");
  }
  const tool = entries.findLast((entry) => entry.kind === "tool" && entry.stage === "running");
  if (tool) {
    return make("tool", "tool", "Using a tool", `${tool.name} is running.`, "Stop", "interrupt");
  }
  if (phase === "thinking") {
    return make("thinking", "assistant", "Thinking", "Looking for an answer.", "Stop", "interrupt");
  }
  if (phase === "speaking") {
    const hears = microphone.state === "live" && !microphone.muted && origin === "live";
    const detail = hears ? "Speak over it to interrupt." : "The answer goes on.";
    return make("speaking", "assistant", "Speaking", detail, "Stop", "interrupt");
  }
  if (phase === "queued")
    return make("queued", "busy", "Waiting", "Your turn waits for a free place.");
  if (phase === "closing")
    return make("closing", "busy", "Closing", "The server is saying goodbye.");
  if (origin === "replay") return make("listening", "listen", "Listening", "This was recorded.");
  if (microphone.muted) {
    return make("muted", "warning", "Muted", "The assistant cannot hear you.", "Unmute", "unmute");
  }
  if (microphone.state !== "live") {
    const detail = "Type a message below, or turn the microphone on and talk.";
    return make("typing", "listen", "Ready", detail, "Use a microphone", "microphone");
  }
  const music = Object.values(streams).some(
    (stream) => stream.source === "music" && player.state === "playing" && stream.total === null,
  );
  const invitation = mode === "push_to_talk" ? "Hold the ring, or Space, and talk." : "Just talk.";
  const detail = music ? `Music plays. ${invitation}` : invitation;
  return make("listening", "listen", "Listening", detail);
}
