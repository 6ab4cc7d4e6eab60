/** Reader of protobuf messages, the format of ONNX files. The bytes are untrusted: every length is checked. */

const VARINT = 0, BITS_64 = 1, BYTES = 2, BITS_32 = 5;
const decoder = new TextDecoder();

/** @typedef {Map<number, (number | Uint8Array)[]>} Message values by field number: numbers, or the bytes of strings and messages */

class Cursor {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  get ended() {
    return this.at >= this.bytes.length;
  }

  /** @returns {number} a signed 64-bit integer */
  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.ended) break;
      const byte = this.bytes[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
    throw new RangeError("not a protobuf message: it ends within a number");
  }

  /** @param {number} length of the part to skip @returns {number} its start */
  skip(length) {
    const start = this.at;
    if (!(length >= 0 && length <= this.bytes.length - start)) throw new RangeError("not a protobuf message: it is cut off");
    this.at += length;
    return start;
  }
}

/**
 * Reads the fields of one message, without those of the messages in it.
 * @param {Uint8Array} bytes
 * @returns {Message}
 */
export function readMessage(bytes) {
  const cursor = new Cursor(bytes);
  /** @type {Message} */
  const message = new Map();
  while (!cursor.ended) {
    const tag = cursor.varint();
    const [field, kind] = [Math.floor(tag / 8), tag & 7];
    let value;
    if (kind === VARINT) value = cursor.varint();
    else if (kind === BYTES) value = bytes.subarray(cursor.skip(cursor.varint()), cursor.at);
    else if (kind === BITS_32) value = cursor.view.getFloat32(cursor.skip(4), true);
    else if (kind === BITS_64) value = cursor.view.getFloat64(cursor.skip(8), true);
    else throw new RangeError(`not a protobuf message: it has a field of kind ${kind}`);
    const values = message.get(field);
    if (values) values.push(value);
    else message.set(field, [value]);
  }
  return message;
}

/**
 * Reads the integers of a repeated field, each in a field of its own or all packed in one.
 * @param {Message} message
 * @param {number} field
 */
export function integers(message, field) {
  return (message.get(field) ?? []).flatMap((value) => {
    if (typeof value === "number") return [value];
    const cursor = new Cursor(value);
    const packed = [];
    while (!cursor.ended) packed.push(cursor.varint());
    return packed;
  });
}

/**
 * @param {Message} message
 * @param {number} field
 * @returns {Uint8Array[]} the strings or messages of a repeated field
 */
export const parts = (message, field) => (message.get(field) ?? []).filter((value) => typeof value !== "number");

/**
 * @param {Message} message
 * @param {number} field
 */
export const integer = (message, field) => integers(message, field)[0] ?? 0;

/**
 * @param {Message} message
 * @param {number} field
 * @returns {string} empty if the field is missing
 */
export const text = (message, field) => parts(message, field).map((bytes) => decoder.decode(bytes))[0] ?? "";

/**
 * @param {Message} message
 * @param {number} field
 */
export const texts = (message, field) => parts(message, field).map((bytes) => decoder.decode(bytes));
