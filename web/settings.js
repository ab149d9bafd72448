// @ts-check
/** What the user chose, kept in the browser: a table of what is allowed, read and written. */

/**
 * @typedef {object} Settings
 * @property {string} url server address; "": where this page came from
 * @property {"hands_free"|"push_to_talk"} mode
 * @property {string} inputId
 * @property {string} outputId
 * @property {boolean} echoCancellation
 * @property {boolean} noiseSuppression
 * @property {boolean} autoGainControl
 * @property {number} frameMs audio in one message
 * @property {number} visualiserFps
 * @property {number} prebufferMs
 * @property {number} volume percent
 * @property {"system"|"light"|"dark"} theme
 * @property {boolean} shortcuts keys without Ctrl
 * @property {boolean} readReplies aloud by a screen reader, too
 * @property {boolean} ownMusic whether the page has a music box for `play_music`
 * @property {Record<string, string|number|boolean>} server what to `configure`: what was chosen
 */

/** @typedef {{default: any, allows: (value: any) => boolean}} Rule */

/** @type {(...values: any[]) => Rule} */
const oneOf = (...values) => ({ default: values[0], allows: (value) => values.includes(value) });
/** @type {(initial: boolean) => Rule} */
const choice = (initial) => ({ default: initial, allows: (value) => typeof value === "boolean" });
/** @type {(initial: number, low: number, high: number) => Rule} */
const number = (initial, low, high) => ({
  default: initial,
  allows: (value) => typeof value === "number" && value >= low && value <= high,
});
const text = { default: "", allows: (/** @type {any} */ value) => typeof value === "string" };

/** @type {Record<keyof Settings, Rule>} */
const RULES = {
  url: text,
  mode: oneOf("hands_free", "push_to_talk"),
  inputId: text,
  outputId: text,
  echoCancellation: choice(true),
  noiseSuppression: choice(true),
  autoGainControl: choice(true),
  frameMs: oneOf(20, 10, 40, 60, 100),
  visualiserFps: oneOf(30, 5, 15, 60),
  prebufferMs: number(120, 20, 1000),
  volume: number(100, 0, 100),
  theme: oneOf("system", "light", "dark"),
  shortcuts: choice(true),
  readReplies: choice(false),
  ownMusic: choice(false),
  server: {
    default: {},
    allows: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  },
};

/** The settings of what `configure` takes, and how a form's text becomes a value. */
export const SERVER_FIELDS = Object.freeze({
  language: "text",
  voice_id: "text",
  system_prompt: "text",
  vad_threshold: "number",
  vad_silence_frames: "number",
  end_of_turn_ms: "number",
  output_sample_rate: "number",
  interruptible: "switch",
  tools: "switch",
  partial_results: "switch",
});

/** What was kept, where it is still allowed; the default for the rest.
 * @param {string|null} json @returns {Settings} */
export function readSettings(json) {
  let kept = /** @type {Record<string, any>} */ ({});
  try {
    kept = Object(JSON.parse(json ?? "{}"));
  } catch {
    // Somebody edited it: the defaults are the way out.
  }
  const entries = Object.entries(RULES).map(([name, rule]) => [
    name,
    rule.allows(kept[name]) ? kept[name] : structuredClone(rule.default),
  ]);
  return Object.fromEntries(entries);
}

/** Whether a setting may have this value. @param {keyof Settings} name @param {any} value */
export function allows(name, value) {
  return RULES[name].allows(value);
}

/**
 * The WebSocket to open: as entered, or where the page came from.
 * @param {string} entered a ws, wss, http or https URL, a host with or without port, or ""
 * @param {{protocol: string, host: string}} page
 * @param {string} key API key; "" for none
 * @returns {string} a ws:// or wss:// URL
 * @throws {Error} with words for the user
 */
export function socketUrl(entered, page, key = "") {
  const secure = page.protocol === "https:";
  const address = entered.trim() || `${secure ? "wss" : "ws"}://${page.host}/`;
  const whole = /^[a-z]+:\/\//i.test(address) ? address : `${secure ? "wss" : "ws"}://${address}`;
  let url;
  try {
    url = new URL(whole.replace(/^http/i, "ws"));
  } catch {
    throw new Error(`“${address}” is no address. Write it like ws://192.168.1.20:9400/`);
  }
  if (!["ws:", "wss:"].includes(url.protocol)) {
    throw new Error(`“${address}” must begin with ws:// or wss://, not ${url.protocol}//`);
  }
  if (secure && url.protocol === "ws:" && !["localhost", "127.0.0.1"].includes(url.hostname)) {
    throw new Error("This page came over https: browsers then allow wss:// addresses only.");
  }
  if (key) url.searchParams.set("key", key);
  url.hash = "";
  return url.href;
}

/** The API key that an address brings, or "". @param {string} url */
export function keyIn(url) {
  return new URL(url).searchParams.get("key") ?? "";
}

/** An address as it may be shown and exported: without its key. @param {string} url */
export function withoutKey(url) {
  const shown = new URL(url);
  shown.searchParams.delete("key");
  return shown.href;
}
