/** Describes an embedded model as the service describes its models. */

import { product, readModel } from "../onnx/model-file.js";
import { decode } from "./base64.js";

/**
 * @import { Card, ModelInfo } from "../api/types.js"
 * @import { Embedded } from "./data.js"
 */

/** @param {string | undefined} text @returns {Card | null} */
function readCard(text) {
  try {
    return text === undefined ? null : JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/**
 * @param {Embedded} embedded
 * @returns {ModelInfo}
 */
export function describe({ name, version, file, samples }) {
  const bytes = decode(file);
  const { inputs, outputs, weights, metadata } = readModel(bytes);
  const elements = [...weights.values()].reduce((sum, { shape }) => sum + product(shape), 0);
  const card = readCard(metadata.get("kronmodel"));
  return {
    name,
    version,
    provider: "browser",
    threads: 1,
    inputs: inputs.map(({ name: input, shape }) => ({ name: input, datatype: "FP32", shape })),
    outputs: outputs.map((output) => ({ name: output, datatype: "FP32", shape: [] })),
    file_bytes: bytes.length,
    initializer_bytes: 4 * elements,
    parameters: card?.parameters ?? elements,
    samples: samples?.labels.length ?? 0,
    downloadable: true,
    batching: { joined: false, max_rows: 1, reason: "the browser computes one input at a time" },
    card,
  };
}
