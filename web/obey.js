// @ts-check
/** What a message of the server means for the loudspeaker. */

/** @typedef {import("./audio/player.js").Player} Player */

/**
 * Does what a message says about streams of audio; ignores every other message.
 * @param {Player} player @param {Record<string, any>} message
 */
export function obey(player, message) {
  const id = message.stream_id;
  if (message.type === "tts_audio" && message.state === "start")
    player.open(id, message.sample_rate);
  if (message.type === "tts_audio" && message.state === "end") player.end(id);
  if (message.type === "pause") player.pause(id);
  if (message.type === "resume") player.resume(id);
  if (message.type === "flush") void player.flush(id);
}
