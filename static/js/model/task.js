/** The kind of input that a model takes, from its card and graph: an image to draw or a row of numbers to enter. */

/**
 * @import { Column, ModelInfo } from "../api/types.js"
 * @import { ImageTask, RowTask, Task } from "./types.js"
 */

/** A card is untrusted: larger images could exhaust the browser's memory. */
const MAX_SIDE = 512;
const MAX_WIDTH = 1_000_000;
const MAX_COLUMNS = 256;
const NUMERIC = /^(FP|INT|UINT)\d+$/;

/** @param {number[]} sizes */
const known = (sizes) => sizes.every((size) => size > 0);

/** @param {number[]} sizes */
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/**
 * @param {ModelInfo} model
 * @returns {Task | string} or why the page cannot provide the input
 */
export function taskOf(model) {
  const { card, inputs, name } = model;
  if (card?.input?.columns) return columnTask(model, card.input.columns);
  if (inputs.length !== 1) return `${name} takes ${inputs.length} inputs; this page supports one. Use the API instead.`;
  const [{ datatype, shape }] = inputs;
  if (!NUMERIC.test(datatype)) return `${name} takes ${datatype} input; this page supports numbers only.`;
  const labels = labelsOf(model);
  const preprocessing = card?.preprocessing ?? "";
  const sizes = shape.slice(1);
  const image = card?.input?.kind === "image" ? imageShape(card.input.shape ?? []) : null;
  if (image !== null && (!known(sizes) || product(sizes) === image.rows * image.columns * image.channels)) {
    const [low, high] = card?.input?.range ?? [0, 1];
    const framed = preprocessing === "" || /20\s*[x×]\s*20/.test(preprocessing);
    return { kind: "image", ...image, range: [low, high], framed, labels, preprocessing };
  }
  const given = card?.input?.names;
  const width = known(sizes) ? product(sizes) : (given?.length ?? 0);
  if (width < 1 || width > MAX_WIDTH) return `${name} does not declare its number of features, so this page cannot ask for them.`;
  const names = given?.length === width ? given : Array.from({ length: width }, (_, i) => `feature ${i + 1}`);
  return { kind: "row", width, names, labels, preprocessing };
}

/** @param {ModelInfo} model */
const labelsOf = ({ card, labels }) => (card?.task === "regression" ? null : (card?.labels ?? labels ?? null));

/**
 * @param {ModelInfo} model that takes the columns of a table, each as an input
 * @param {Column[]} columns
 * @returns {RowTask | string}
 */
function columnTask(model, columns) {
  if (columns.length > MAX_COLUMNS) return `${model.name} takes ${columns.length} columns; this page has fields for ${MAX_COLUMNS} at most. Use the API instead.`;
  const names = columns.map(({ name }) => name);
  return { kind: "row", width: columns.length, names, columns, labels: labelsOf(model), preprocessing: model.card?.preprocessing ?? "" };
}

/**
 * Returns the layout of images of this shape; null if they cannot be drawn.
 * @param {number[]} shape rows and columns, with the channels before or after them
 * @returns {Pick<ImageTask, "rows" | "columns" | "channels" | "last"> | null}
 */
function imageShape(shape) {
  const [first, second, third] = shape.length === 2 ? [1, ...shape] : shape;
  if (shape.length < 2 || shape.length > 3) return null;
  const last = first !== 1 && first !== 3;
  const [channels, rows, columns] = last ? [third, first, second] : [first, second, third];
  const drawable = [rows, columns].every((side) => Number.isInteger(side) && side >= 4 && side <= MAX_SIDE);
  return drawable && (channels === 1 || channels === 3) ? { rows, columns, channels, last } : null;
}

/**
 * Returns a key that is equal for models that take the same input and predict the same labels. For models whose input the
 * page cannot provide, it is that of the names, kinds and ranks of their inputs: the precision of floats may differ.
 * @param {ModelInfo} model
 */
export function taskKey(model) {
  const task = taskOf(model);
  if (typeof task === "string") {
    const inputs = model.inputs.map(({ name, datatype, shape }) => [name, /^B?FP?\d+$/.test(datatype) ? "float" : datatype, shape.length]);
    return JSON.stringify(inputs.sort(([a], [b]) => String(a).localeCompare(String(b))));
  }
  const asked = task.kind === "image" ? [task.rows, task.columns, task.channels, task.last, ...task.range] : [task.width, ...task.names.slice(0, 100), task.columns];
  return JSON.stringify([task.kind, asked, task.labels]);
}
