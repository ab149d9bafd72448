// @ts-check
/** Zip archives without compression (APPNOTE 6.3: local headers, central directory, its end). */

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END_BYTES = 22;
const UTF8_NAMES = 0x800;

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes */
function crc32(bytes) {
  let value = ~0;
  for (const byte of bytes) value = CRC[(value ^ byte) & 0xff] ^ (value >>> 8);
  return ~value >>> 0;
}

/** Little-endian numbers: [value, bytes] in a row. @param {...[number, 2|4]} fields */
function packed(...fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [, size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [value, size] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return bytes;
}

/**
 * @param {Record<string, Uint8Array>} files by name
 * @param {Date} date their time, to 2 s
 * @returns {Blob}
 */
export function writeZip(files, date) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const directory = [];
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day =
    (Math.max(0, date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  let offset = 0;
  for (const [name, content] of Object.entries(files)) {
    const encoded = new TextEncoder().encode(name);
    /** @type {[number, 2|4][]} version, flags, stored, time, day, crc, sizes, name, no extra */
    const common = [
      [20, 2],
      [UTF8_NAMES, 2],
      [0, 2],
      [time, 2],
      [day, 2],
      [crc32(content), 4],
      [content.length, 4],
      [content.length, 4],
      [encoded.length, 2],
      [0, 2],
    ];
    const head = packed([LOCAL, 4], ...common);
    parts.push(head, encoded, new Uint8Array(content));
    directory.push(
      packed([CENTRAL, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]),
      encoded,
    );
    offset += head.length + encoded.length + content.length;
  }
  const count = Object.keys(files).length;
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = packed(
    [END, 4],
    [0, 2],
    [0, 2],
    [count, 2],
    [count, 2],
    [size, 4],
    [offset, 4],
    [0, 2],
  );
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/**
 * The files of an archive whose files are stored, not compressed.
 * @param {Uint8Array} bytes
 * @returns {Record<string, Uint8Array>}
 * @throws {Error} saying what is wrong with it
 */
export function readZip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - END_BYTES;
  while (end >= 0 && view.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("not a zip file, or not the whole of it");
  /** @type {Record<string, Uint8Array>} */
  const files = {};
  try {
    let at = view.getUint32(end + 16, true);
    for (let count = view.getUint16(end + 10, true); count > 0; count--) {
      if (view.getUint32(at, true) !== CENTRAL) throw new RangeError();
      const nameLength = view.getUint16(at + 28, true);
      const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
      if (view.getUint16(at + 10, true) !== 0) {
        throw new Error(`${name} is compressed; store it without compression (zip -0)`);
      }
      const local = view.getUint32(at + 42, true);
      const begin =
        local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const content = bytes.subarray(begin, begin + view.getUint32(at + 24, true));
      if (crc32(content) !== view.getUint32(at + 16, true)) throw new Error(`${name} is damaged`);
      files[name] = content;
      at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    }
  } catch (error) {
    if (error instanceof RangeError) throw new Error("the zip file's directory is damaged");
    throw error;
  }
  return files;
}
