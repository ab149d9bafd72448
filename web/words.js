// @ts-check
/** What the page says in its log about connections, sessions and the microphone. */

/** @typedef {import("./state.js").Event} Event */

/** Why a connection ended, and what becomes of it.
 * @param {Event} event a connection's state: "reconnecting" or "closed" */
export function closeWords(event) {
  const reason = event.reason ? `: ${event.reason.replace(/\.$/, "")}` : "";
  if (event.state === "closed") return `Disconnected${reason}.`;
  const next = event.retryInMs === undefined ? "" : ` in ${seconds(event.retryInMs)}`;
  return `No connection${reason}. Attempt ${event.attempt ?? 1}${next}.`;
}

/** @param {number} ms */
export function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

/**
 * The answer to a start or to `configure`.
 * @param {Event} message a `status` with more in it @param {string} known the id of the session
 *   that the page had, or ""
 */
export function sessionWords(message, known) {
  const { configuration: set } = message;
  const voice = set ? ` Language ${set.language}, voice ${set.voice_id}.` : "";
  if (message.restored === undefined) return `Configuration applied.${voice}`;
  const session = `session ${String(message.session_id).slice(0, 8)}`;
  if (message.restored) return `Connected again: ${session} goes on.${voice}`;
  if (known !== message.session_id) return `Connected: new ${session}.${voice}`;
  return `Connected again with ${session}; the server has forgotten what was said before.${voice}`;
}

/** @param {string} state */
export function microphoneWords(state) {
  return MICROPHONE[state] ?? "";
}

/** @type {Record<string, string>} */
const MICROPHONE = {
  live: "Microphone on.",
  denied: "The browser does not give this page the microphone.",
  lost: "The microphone was unplugged or taken by another program.",
  insecure: "No microphone and no sound on this address: it is neither https nor localhost.",
  missing: "No microphone was found.",
};
