/** Stands in for api/client.js in an exported page: its models are part of the page, and nothing is sent. */

import { product } from "../onnx/model-file.js";
import { decode } from "./base64.js";
import { MODELS } from "./data.js";
import { describe } from "./model-info.js";

/**
 * @import { ModelList, Prediction, Samples } from "../api/types.js"
 */

export const SERVED = false;
export const UNREACHABLE = "A part of this page is missing.";

export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Is never thrown. */
export class NetworkError extends Error {}

const described = MODELS.map(describe);

/** @param {string} name @returns {number} the model's place in the list */
export function position(name) {
  const found = MODELS.findIndex((model) => model.name === name);
  if (found < 0) throw new ApiError(`This page has no model ${name}.`, 404);
  return found;
}

/** @returns {Promise<ModelList>} */
export async function models() {
  return { models: described, default: described.map(({ name }) => name), devices: [], cpus: 1 };
}

/**
 * @param {string} model
 * @param {number} offset
 * @param {number} limit
 * @returns {Promise<Samples>}
 */
export async function samples(model, offset, limit) {
  const { samples: embedded } = MODELS[position(model)];
  const { inputs: [input], card } = described[position(model)];
  if (embedded === null) return { total: 0, offset, inputs: [], labels: [] };
  const bytes = decode(embedded.inputs);
  const values = embedded.divisor === 0 ? new Float32Array(bytes.buffer) : Float32Array.from(bytes, (byte) => byte / embedded.divisor);
  const width = product(input.shape.slice(1));
  const labels = embedded.labels.map((label) => (card?.task === "regression" ? label : (card?.labels?.[label] ?? String(label))));
  const range = labels.map((_, i) => i).slice(offset, offset + limit);
  return { total: labels.length, offset, inputs: range.map((i) => Array.from(values.subarray(i * width, (i + 1) * width))), labels: range.map((i) => labels[i]) };
}

/** @returns {Promise<Prediction>} */
export async function predict() {
  throw new ApiError("this page cannot compute the model", 501);
}

export const ready = async () => true;
