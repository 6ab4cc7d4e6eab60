/** Shapes, memory and index tables of tensors. */

import { UnsupportedModel, product } from "./model-file.js";

/**
 * @import { Attribute, Data, Tensor } from "./model-file.js"
 */

/** @typedef {{ shape: number[], data: Data, steps?: number, run?: () => void }} Result without `run`, its data is that of an input */
/** @typedef {(inputs: Tensor[], attributes: Record<string, Attribute>) => Result} Operator */

/** Maximum size of a computed tensor: a graph is untrusted, and a few bytes can ask for any memory. */
const MAX_ELEMENTS = 2 ** 22;

/** @param {boolean} supported @param {string} what */
export function expect(supported, what) {
  if (!supported) throw new UnsupportedModel(`${what} is not supported`);
}

/** @param {number[]} shape @returns {number} of elements */
function size(shape) {
  expect(product(shape) <= MAX_ELEMENTS && shape.every((each) => each >= 0), `a tensor of ${shape.join("×")} values`);
  return product(shape);
}

/** @param {number[]} shape */
export const allocate = (shape) => new Float32Array(size(shape));

/** @param {number[]} shape */
export const strides = (shape) => shape.map((_, axis) => product(shape.slice(axis + 1)));

/**
 * Returns the offset of each element of a tensor of this shape in memory where each axis has the given step.
 * @param {number[]} shape
 * @param {number[]} steps
 */
export function offsets(shape, steps, start = 0) {
  const table = new Int32Array(size(shape)).fill(start);
  const inner = strides(shape);
  for (let axis = 0; axis < shape.length; axis++) {
    for (let i = 0; i < table.length; i++) table[i] += (Math.floor(i / inner[axis]) % shape[axis]) * steps[axis];
  }
  return table;
}

/** @param {number[][]} shapes @returns {number[]} the shape that all are broadcast to */
export function broadcast(...shapes) {
  const rank = Math.max(...shapes.map(({ length }) => length));
  const padded = shapes.map((shape) => [...Array(rank - shape.length).fill(1), ...shape]);
  return padded[0].map((_, axis) => padded.reduce((size, shape) => {
    expect(shape[axis] === size || shape[axis] === 1 || size === 1, `the pair of shapes ${shapes.map((each) => each.join("×")).join(" and ")}`);
    return size === 1 ? shape[axis] : size;
  }, 1));
}

/** @param {number[]} shape @param {number[]} to @returns {Int32Array} for each element of the broadcast tensor, its offset */
export function broadcastOffsets(shape, to) {
  const steps = strides(shape).map((step, axis) => (shape[axis] === 1 ? 0 : step));
  return offsets(to, [...Array(to.length - shape.length).fill(0), ...steps]);
}
