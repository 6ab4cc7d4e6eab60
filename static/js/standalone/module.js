/** The exports of `kronmodel export --to js`. */

import { LocalModel } from "../model/local-model.js";
import { decode } from "./base64.js";
import { MODELS } from "./data.js";
import { describe } from "./model-info.js";

const info = describe(MODELS[0]);
const model = new LocalModel(info, decode(MODELS[0].file));

/** Name of the model. @type {string} */
export const name = info.name;

/** Shape of a sample; `predict` takes its values flat. @type {readonly number[]} */
export const shape = info.inputs[0].shape.slice(1);

/** Labels of a classifier, in the order of the probabilities; null for other models. @type {readonly string[] | null} */
export const labels = info.card?.labels ?? null;

/** The model card; null if the file has none. @type {Record<string, any> | null} */
export const card = info.card ?? null;

/**
 * Computes the answer to one sample.
 * @param {ArrayLike<number>} values of the sample, flat, in the form that the card's `preprocessing` describes
 * @returns {{ label?: string, probabilities?: number[], value?: number | number[] }} label and probabilities of a classifier, or the predicted value or values
 * @throws {RangeError} if the number of values is not that of a sample, or the answer is not finite
 */
export function predict(values) {
  return /** @type {{ label?: string, probabilities?: number[], value?: number | number[] }} */ (model.answer(values));
}
