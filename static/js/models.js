/** What a card says about a model, asked in the page's words. */

/**
 * @import { ModelInfo, ModelList } from "./types.js"
 */

/**
 * The role decides the colour, everywhere; a model without one gets the next of the others.
 * @param {string | null | undefined} role
 * @param {number} index
 */
export function tone(role, index) {
  return role === "kronecker" || role === "dense" ? role : `other-${index % 3}`;
}

/** @param {string | null | undefined} role */
export function roleName(role) {
  return role === "kronecker" ? "Kronecker" : role === "dense" ? "Dense" : "ONNX";
}

/**
 * The role where roles tell the models apart, the name otherwise.
 * @param {{ model: string, role?: string | null }[]} models
 * @param {number} index
 */
export function shortName(models, index) {
  const { model, role } = models[index];
  return role && new Set(models.map((each) => each.role)).size === models.length ? roleName(role) : model;
}

/**
 * The models that the service shows unless asked for others.
 * @param {ModelList} list
 */
export function defaults(list) {
  return list.default
    .map((name) => list.models.find((model) => model.name === name))
    .filter((model) => model !== undefined);
}

/**
 * @typedef {object} ImageTask
 * @property {number} rows
 * @property {number} columns
 * @property {[number, number]} range of the grey levels that the network takes
 * @property {string[]} labels
 * @property {string} preprocessing
 */

/** More rows or columns than this are no drawing any more; the card is not to be trusted with the browser's memory. */
const MAX_SIDE = 512;

/**
 * What the pad needs to know, or the reason why there is none.
 * @param {ModelInfo | undefined} model
 * @returns {ImageTask | string}
 */
export function imageTask(model) {
  if (model === undefined) return "The service has no model yet. Train a twin with “kronmodel train”; it appears here once served.";
  const { card, name } = model;
  if (!card) return `${name} has no model card, so this page does not know what to draw for it.`;
  const { input, labels, task } = card;
  if (task !== "classification" || !labels || labels.length < 2) {
    return `${name} predicts a number, not one of several labels, so there is nothing to draw.`;
  }
  const shape = input?.shape ?? [];
  const plain = shape.length === 3 && shape[0] === 1 ? shape.slice(1) : shape;
  if (input?.kind !== "image" || plain.length !== 2) {
    const takes = input?.names ? `${input.names.length} features` : shape.length > 0 ? `inputs of shape ${shape.join(" × ")}` : "other inputs";
    return `${name} takes ${takes}, not a grey image, so there is nothing to draw.`;
  }
  const [rows, columns] = plain;
  if (!plain.every((side) => Number.isInteger(side) && side >= 4 && side <= MAX_SIDE)) {
    return `${name} takes images of ${rows} × ${columns}; this page draws up to ${MAX_SIDE} × ${MAX_SIDE}.`;
  }
  const [low, high] = input.range ?? [0, 1];
  return { rows, columns, range: [low, high], labels, preprocessing: card.preprocessing ?? "" };
}

/**
 * How to say what may be drawn: a full list, or its two ends.
 * @param {string[]} labels
 */
export function whatToDraw(labels) {
  if (labels.length > 4 && labels.every((label, i) => Number(label) === Number(labels[0]) + i)) {
    return `a number from ${labels[0]} to ${labels[labels.length - 1]}`;
  }
  return labels.length <= 12 ? `one of ${labels.join(", ")}` : `one of ${labels.length} things: ${labels.slice(0, 8).join(", ")} …`;
}
