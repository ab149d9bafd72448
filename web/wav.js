// @ts-check
/** WAV files of one channel: written as 16-bit PCM; read as that or as 8-bit µ-law (G.711). */

const PCM = 1;
const MU_LAW = 7;

/** @param {Int16Array} samples @param {number} rate Hz @returns {Uint8Array<ArrayBuffer>} */
export function writeWav(samples, rate) {
  const bytes = new Uint8Array(44 + samples.length * 2);
  const view = new DataView(bytes.buffer);
  ascii(bytes, 0, "RIFF");
  view.setUint32(4, bytes.length - 8, true);
  ascii(bytes, 8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, PCM, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  ascii(bytes, 36, "data");
  view.setUint32(40, samples.length * 2, true);
  for (let i = 0; i < samples.length; i++) view.setInt16(44 + i * 2, samples[i], true);
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @returns {{rate: number, samples: Int16Array}}
 * @throws {Error} saying what the file has and what can be read
 */
export function readWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || tag(bytes, 0) !== "RIFF" || tag(bytes, 8) !== "WAVE") {
    throw new Error("not a WAV file");
  }
  let rate = 0;
  let read = null;
  for (let at = 12; at + 8 <= bytes.length;) {
    const size = Math.min(view.getUint32(at + 4, true), bytes.length - at - 8);
    const body = at + 8;
    if (tag(bytes, at) === "fmt " && size >= 16) {
      rate = view.getUint32(body + 4, true);
      read = readerOf(
        view.getUint16(body, true),
        view.getUint16(body + 2, true),
        view.getUint16(body + 14, true),
      );
    }
    if (tag(bytes, at) === "data" && read) return { rate, samples: read(view, body, size) };
    at = body + size + (size % 2);
  }
  throw new Error("a WAV file without a format or without audio");
}

/** @param {number} format @param {number} channels @param {number} bits */
function readerOf(format, channels, bits) {
  if (channels === 1 && format === PCM && bits === 16) return readPcm;
  if (channels === 1 && format === MU_LAW && bits === 8) return readMuLaw;
  throw new Error(
    `audio of format ${format}, ${channels} channels, ${bits} bits; ` +
      "only 16-bit PCM or 8-bit µ-law of one channel can be read",
  );
}

/** @param {DataView} view @param {number} at @param {number} size */
function readPcm(view, at, size) {
  const samples = new Int16Array(size >> 1);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(at + i * 2, true);
  return samples;
}

/** @param {DataView} view @param {number} at @param {number} size */
function readMuLaw(view, at, size) {
  const samples = new Int16Array(size);
  for (let i = 0; i < size; i++) samples[i] = MU_LAW_VALUES[view.getUint8(at + i)];
  return samples;
}

// G.711: inverted bits; sign, three bits of exponent, four of mantissa, bias 132.
const MU_LAW_VALUES = Int16Array.from({ length: 256 }, (_, coded) => {
  const bits = ~coded & 0xff;
  const magnitude = ((((bits & 15) << 3) + 132) << ((bits >> 4) & 7)) - 132;
  return bits & 0x80 ? -magnitude : magnitude;
});

/** @param {Uint8Array} bytes @param {number} at @param {string} text */
function ascii(bytes, at, text) {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
}

/** @param {Uint8Array} bytes @param {number} at */
function tag(bytes, at) {
  return String.fromCharCode(...bytes.subarray(at, at + 4));
}
