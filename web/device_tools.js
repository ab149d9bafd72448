// @ts-check
/** The tools that this page runs when the assistant asks: declared at the start, answered here. */

const VOLUME = {
  name: "set_volume",
  description: "Set the volume of the device: either to a level, or louder or quieter by a change.",
  parameters: {
    type: "object",
    properties: {
      level: { type: "integer", minimum: 0, maximum: 100 },
      change: { type: "integer", minimum: -100, maximum: 100 },
    },
    additionalProperties: false,
  },
};

const MUSIC = {
  name: "play_music",
  description: "Play the music box of this web page, or stop it.",
  parameters: {
    type: "object",
    properties: {
      action: { type: "string", enum: ["play", "stop"], default: "play" },
      query: { type: "string", description: "what to play; the box knows one tune" },
    },
    additionalProperties: false,
  },
};

/**
 * What `start_session` declares.
 * @param {{ownMusic: boolean}} settings without a music box of its own, the page leaves
 *   `play_music` to the server, which streams what it plays
 */
export function deviceTools({ ownMusic }) {
  return ownMusic ? [VOLUME, MUSIC] : [VOLUME];
}

/**
 * @typedef {object} Device
 * @property {() => number} volume percent
 * @property {(percent: number) => void} setVolume
 * @property {{play: () => string, stop: () => boolean}} musicBox
 */

/**
 * The answer to a `tool_call` for this device: a `tool_result` with a result or an error.
 * @param {Record<string, any>} call @param {Device} device
 */
export function answerToolCall(call, device) {
  try {
    const run = RUN[call.name];
    if (!run) throw new Error(`this page has no tool ${call.name}; it has set_volume, play_music`);
    const result = run(call.arguments ?? {}, device);
    return { type: "tool_result", call_id: call.call_id, result };
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    return { type: "tool_result", call_id: call.call_id, error: words };
  }
}

/** @type {Record<string, (args: Record<string, any>, device: Device) => object>} */
const RUN = {
  set_volume({ level, change }, device) {
    if ((level === undefined) === (change === undefined)) {
      throw new Error("set_volume needs either level (0 to 100) or change (-100 to 100)");
    }
    const given = level ?? change;
    if (!Number.isInteger(given) || given > 100 || given < (level === undefined ? -100 : 0)) {
      throw new Error(`set_volume: ${JSON.stringify(given)} is no whole number in its range`);
    }
    const previous = device.volume();
    const wanted = level ?? previous + change;
    const now = Math.min(100, Math.max(0, wanted));
    device.setVolume(now);
    return { level: now, previous };
  },

  play_music({ action = "play" }, { musicBox }) {
    if (action === "play") return { action, title: musicBox.play() };
    if (action === "stop") return { action, was_playing: musicBox.stop() };
    throw new Error(`play_music: action must be play or stop, not ${JSON.stringify(action)}`);
  },
};
