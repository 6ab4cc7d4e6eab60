/** Reader of ONNX files: the nodes, weights, inputs and outputs of the graph, and the metadata. */

import { integer, integers, parts, readMessage, text, texts } from "./protobuf.js";

/**
 * @import { Message } from "./protobuf.js"
 */

/** The model has an operator, a size or a data type that is not supported; the message names it. */
export class UnsupportedModel extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "UnsupportedModel";
  }
}

/** @typedef {Float32Array | Float64Array | Int8Array | Uint8Array | Int32Array} Data integers of 64 bits are in a Float64Array */
/** @typedef {{ shape: number[], data: Data }} Tensor */
/** @typedef {number | string | number[] | Tensor} Attribute */
/** @typedef {{ operator: string, inputs: string[], outputs: string[], attributes: Record<string, Attribute> }} Node */
/** @typedef {{ name: string, shape: number[] }} Input a dimension of any size is -1 */

/**
 * @typedef {object} Model
 * @property {Node[]} nodes in the order in which they are computed
 * @property {Map<string, Tensor>} weights
 * @property {Input[]} inputs
 * @property {string[]} outputs
 * @property {Map<string, string>} metadata
 */

const FLOAT = 1;
const INT64 = 7;
const FLOAT16 = 10;
/** Arrays by the number of the data type; bits of the signed integers of which a byte holds several. */
const ARRAYS = { 1: Float32Array, 2: Uint8Array, 3: Int8Array, 6: Int32Array, 7: BigInt64Array };
/** @type {Record<number, number>} */
const PACKED = { 22: 4, 26: 2 };

/** @param {number[]} sizes */
export const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/**
 * Reads an ONNX file.
 * @param {Uint8Array} bytes
 * @returns {Model}
 * @throws {UnsupportedModel} if weights are missing, in other files or of another data type
 * @throws {RangeError} if it is not an ONNX file
 */
export function readModel(bytes) {
  const file = readMessage(bytes);
  const [content] = parts(file, 7);
  if (content === undefined) throw new RangeError("not an ONNX file: it has no graph");
  const graph = readMessage(content);
  const weights = new Map(parts(graph, 5).map(readMessage).map((part) => [text(part, 8), tensor(part)]));
  const entries = parts(file, 14).map(readMessage);
  return {
    nodes: parts(graph, 1).map((part) => node(readMessage(part))),
    weights,
    inputs: parts(graph, 11).map((part) => input(readMessage(part))).filter(({ name }) => !weights.has(name)),
    outputs: parts(graph, 12).map((part) => text(readMessage(part), 1)),
    metadata: new Map(entries.map((entry) => [text(entry, 1), text(entry, 2)])),
  };
}

/**
 * @param {Message} message a TensorProto
 * @returns {Tensor}
 */
function tensor(message) {
  const name = text(message, 8);
  const type = integer(message, 2);
  const shape = integers(message, 1);
  if (integer(message, 14) !== 0) throw new UnsupportedModel(`the weights ${name} are in another file`);
  const data = type in ARRAYS ? values(message, /** @type {keyof typeof ARRAYS} */ (type)) : small(message, type, product(shape));
  if (!shape.every((size) => size >= 0) || product(shape) !== data.length) {
    throw new RangeError(`not an ONNX file: ${name} has ${data.length} values, expected ${shape.join("×")}`);
  }
  return { shape, data };
}

/**
 * @param {Message} message a TensorProto
 * @param {keyof typeof ARRAYS} type
 * @returns {Data}
 */
function values(message, type) {
  const [raw] = parts(message, 9);
  const [floats] = parts(message, 4);
  const bytes = raw ?? (type === FLOAT ? floats : undefined);
  if (bytes === undefined) {
    const singles = /** @type {number[]} */ ((message.get(4) ?? []).filter((value) => typeof value === "number"));
    if (type === INT64) return Float64Array.from(integers(message, 7));
    return ARRAYS[type].from(type === FLOAT ? singles : integers(message, 5));
  }
  const array = ARRAYS[type];
  if (bytes.length % array.BYTES_PER_ELEMENT !== 0) throw new RangeError(`not an ONNX file: ${text(message, 8)} is cut off`);
  const copy = new array(bytes.slice().buffer); // a copy, since its start may not be aligned
  return copy instanceof BigInt64Array ? Float64Array.from(copy, Number) : copy;
}

/**
 * Reads quantised weights of 4 and 2 bits, the first in the lowest bits of a byte, and step sizes of 16 bits.
 * @param {Message} message a TensorProto
 * @param {number} type
 * @param {number} count
 * @returns {Data}
 */
function small(message, type, count) {
  const [raw] = parts(message, 9);
  const bits = PACKED[type] ?? 16;
  if (raw === undefined || !(type in PACKED || type === FLOAT16)) {
    throw new UnsupportedModel(`the weights ${text(message, 8)} are of type ${type}; supported are 32-bit floats and integers of 8, 32 and 64 bits`);
  }
  if (raw.length !== Math.ceil(count * bits / 8)) throw new RangeError(`not an ONNX file: ${text(message, 8)} is cut off`);
  if (type === FLOAT16) return Float32Array.from({ length: count }, (_, i) => half(raw[2 * i] + 256 * raw[2 * i + 1]));
  return Int8Array.from({ length: count }, (_, i) => (raw[Math.floor(i * bits / 8)] << (32 - bits - (i * bits) % 8)) >> (32 - bits));
}

/** @param {number} word the bits of a number of 16 bits, which is finite */
const half = (word) => (word < 32768 ? 1 : -1) * ((word & 31744) === 0 ? (word & 1023) * 2 ** -24 : (1024 + (word & 1023)) * 2 ** (((word >> 10) & 31) - 25));

/**
 * @param {Message} message a NodeProto
 * @returns {Node}
 */
function node(message) {
  const domain = text(message, 7);
  const attributes = parts(message, 5).map((part) => attribute(readMessage(part)));
  return {
    operator: `${domain === "" || domain === "ai.onnx" ? "" : `${domain}.`}${text(message, 4)}`,
    inputs: texts(message, 1),
    outputs: texts(message, 2),
    attributes: Object.fromEntries(attributes),
  };
}

/**
 * @param {Message} message an AttributeProto
 * @returns {[string, Attribute]}
 */
function attribute(message) {
  const name = text(message, 1);
  switch (integer(message, 20)) {
    case 1: return [name, Number(message.get(2)?.[0] ?? 0)];
    case 2: return [name, integer(message, 3)];
    case 3: return [name, text(message, 4)];
    case 4: return [name, tensor(readMessage(parts(message, 5)[0] ?? new Uint8Array()))];
    case 7: return [name, integers(message, 8)];
    default: return [name, []]; // of a kind that no supported operator has
  }
}

/**
 * @param {Message} message a ValueInfoProto
 * @returns {Input}
 */
function input(message) {
  const name = text(message, 1);
  const inner = (/** @type {Message} */ from, /** @type {number} */ field) => readMessage(parts(from, field)[0] ?? new Uint8Array());
  const type = inner(inner(message, 2), 1);
  if (integer(type, 1) !== FLOAT) throw new UnsupportedModel(`the input ${name} is of type ${integer(type, 1)}; supported are 32-bit floats`);
  const shape = parts(inner(type, 2), 1).map((part) => {
    const dimension = readMessage(part);
    return dimension.has(1) ? integer(dimension, 1) : -1;
  });
  return { name, shape };
}
