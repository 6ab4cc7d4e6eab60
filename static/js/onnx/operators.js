/**
 * ONNX operators on tensors of known shapes, in float32: each allocates its output and its index tables once, and returns a
 * function that computes the output from the inputs' present values.
 */

import { convolution, maxPooling } from "./convolutions.js";
import { gelu, geluTanh } from "./gelu.js";
import { product } from "./model-file.js";
import { gemm, matrixProduct } from "./products.js";
import { allocate, broadcast, broadcastOffsets, expect, offsets, strides } from "./tensors.js";

/**
 * @import { Data } from "./model-file.js"
 * @import { Operator, Result } from "./tensors.js"
 */

/** @param {(x: number) => number} of @returns {Operator} */
const elementwise = (of) => ([{ shape, data }]) => {
  const out = allocate(shape);
  return { shape, data: out, run() { for (let i = 0; i < out.length; i++) out[i] = of(data[i]); } };
};

/** @param {(a: number, b: number) => number} of @returns {Operator} */
const combined = (of) => ([a, b]) => {
  const shape = broadcast(a.shape, b.shape);
  const out = allocate(shape);
  const [from, to] = [a, b].map((each) => broadcastOffsets(each.shape, shape));
  return { shape, data: out, run() { for (let i = 0; i < out.length; i++) out[i] = of(a.data[from[i]], b.data[to[i]]); } };
};

/** @param {Data} data @param {Int32Array} table @param {number[]} shape @returns {Result} */
function gathered(data, table, shape) {
  const out = allocate(shape);
  return { shape, data: out, run() { for (let i = 0; i < out.length; i++) out[i] = data[table[i]]; } };
}

/** @type {Operator} */
function softmax([{ shape, data }], { axis = -1 }) {
  expect(axis === -1 || axis === shape.length - 1, `Softmax along axis ${axis}`);
  const width = shape[shape.length - 1];
  const out = allocate(shape);
  const run = () => {
    for (let at = 0; at < out.length; at += width) {
      let [largest, sum] = [-Infinity, 0];
      for (let i = at; i < at + width; i++) largest = Math.max(largest, data[i]);
      for (let i = at; i < at + width; i++) sum += out[i] = Math.exp(data[i] - largest);
      for (let i = at; i < at + width; i++) out[i] /= sum;
    }
  };
  return { shape, data: out, run };
}

/** @type {Operator} */
function reshape([{ shape, data }, sizes], { allowzero = 0 }) {
  const to = [...sizes.data].map((size, axis) => (size === 0 && !allowzero ? shape[axis] : size));
  const known = product(to.filter((size) => size !== -1));
  const full = to.map((size) => (size === -1 ? data.length / known : size));
  expect(product(full) === data.length && full.every((size) => size >= 0 && Number.isInteger(size)), `Reshape of ${shape.join("×")} to ${to.join("×")}`);
  return { shape: full, data };
}

/** @type {Operator} */
function flatten([{ shape, data }], { axis = 1 }) {
  const at = Number(axis) < 0 ? Number(axis) + shape.length : Number(axis);
  return { shape: [product(shape.slice(0, at)), product(shape.slice(at))], data };
}

/** @type {Operator} */
function transpose([{ shape, data }], { perm }) {
  const order = Array.isArray(perm) ? perm : shape.map((_, axis) => shape.length - 1 - axis);
  expect(order.length === shape.length && new Set(order).size === shape.length && order.every((axis) => axis in shape), `Transpose by ${order.join(", ")}`);
  const to = order.map((axis) => shape[axis]);
  const steps = strides(shape);
  return gathered(data, offsets(to, order.map((axis) => steps[axis])), to);
}

/** @type {Operator} */
function pad([{ shape, data }, pads, value, axes], { mode = "constant" }) {
  const sizes = [...(pads?.data ?? [])];
  expect(mode === "constant" && !axes && sizes.length === 2 * shape.length && sizes.every((size) => size >= 0), "Pad by other ways than with a constant");
  const to = shape.map((size, axis) => size + sizes[axis] + sizes[axis + shape.length]);
  const steps = strides(to);
  const out = allocate(to).fill(value?.data[0] ?? 0);
  const inner = offsets(shape, steps, steps.reduce((sum, step, axis) => sum + step * sizes[axis], 0));
  return { shape: to, data: out, run() { for (let i = 0; i < inner.length; i++) out[inner[i]] = data[i]; } };
}

/** Quantised weights, with one scale or one for each index of an axis. @type {Operator} */
function dequantize([{ shape, data }, scale, zero], { axis = 1, block_size: block = 0 }) {
  const at = Number(axis) < 0 ? Number(axis) + shape.length : Number(axis);
  const one = scale.data.length === 1;
  expect(block === 0 && (one || scale.data.length === shape[at]), "DequantizeLinear in blocks");
  const index = one ? new Int32Array(data.length) : offsets(shape, shape.map((_, each) => (each === at ? 1 : 0)));
  const out = allocate(shape);
  return { shape, data: out, run() { for (let i = 0; i < out.length; i++) out[i] = (data[i] - (zero?.data[index[i]] ?? 0)) * scale.data[index[i]]; } };
}

/** Activations of a byte, rounded to even as in ONNX, with one scale. @type {Operator} */
function quantize([{ shape, data }, scale, zero]) {
  expect(scale.data.length === 1 && zero?.data instanceof Uint8Array, "QuantizeLinear to anything but a byte with one scale");
  const [step, shift] = [scale.data[0], zero.data[0]];
  const out = allocate(shape);
  const level = (/** @type {number} */ x) => {
    const nearest = Math.round(x);
    return nearest - x === 0.5 && nearest % 2 ? nearest - 1 : nearest;
  };
  return { shape, data: out, run() { for (let i = 0; i < out.length; i++) out[i] = Math.min(255, Math.max(0, level(Math.fround(data[i] / step)) + shift)); } };
}

/** @type {Operator} */
function gather([{ shape, data }, indices], { axis = 0 }) {
  const [count, width] = [indices.data.length, product(shape.slice(1))];
  expect(axis === 0 && indices.shape.length === 1 && [...indices.data].every((each) => each >= 0 && each < shape[0]), "Gather of anything but rows");
  return gathered(data, offsets([count, width], [0, 1]).map((at, i) => at + width * indices.data[Math.floor(i / width)]), [count, ...shape.slice(1)]);
}

/** By the name in the graph, which has the domain in front unless it is ONNX's own. @type {Record<string, Operator>} */
export const OPERATORS = {
  Add: combined((a, b) => a + b),
  Cast: ([{ shape, data }], { to }) => (expect(to === 1 && data instanceof Float32Array, "Cast to anything but 32-bit floats"), { shape, data }),
  Conv: convolution,
  DequantizeLinear: dequantize,
  Div: combined((a, b) => a / b),
  Flatten: flatten,
  Gather: gather,
  Gelu: (inputs, { approximate }) => elementwise(approximate === "tanh" ? geluTanh : gelu)(inputs, {}),
  Gemm: gemm,
  Identity: ([{ shape, data }]) => ({ shape, data }),
  MatMul: matrixProduct,
  Max: combined(Math.max),
  MaxPool: maxPooling,
  Mul: combined((a, b) => a * b),
  Pad: pad,
  QuantizeLinear: quantize,
  Relu: elementwise((x) => (x > 0 ? x : 0)),
  Reshape: reshape,
  Softmax: softmax,
  Sub: combined((a, b) => a - b),
  Tanh: elementwise(Math.tanh),
  Transpose: transpose,
};
