/** Computes a network from its ONNX file, for one sample at a time, in float32 like onnxruntime. */

import { UnsupportedModel, product, readModel } from "./model-file.js";
import { OPERATORS } from "./operators.js";

/**
 * @import { Node, Tensor } from "./model-file.js"
 */

/** Maximum number of multiply-adds and copied values of a run, about 30 ms: longer ones would make the page slow. */
const MAX_STEPS = 2e7;

export class Network {
  /**
   * Computes what depends on weights alone, and allocates the memory of all runs.
   * @param {Uint8Array} bytes an ONNX file
   * @throws {UnsupportedModel} if the graph cannot be computed
   * @throws {RangeError} if it is not an ONNX file
   */
  constructor(bytes) {
    const { nodes, weights, inputs, outputs, metadata } = readModel(bytes);
    if (inputs.length !== 1) throw new UnsupportedModel(`the model takes ${inputs.length} inputs; supported is one`);
    const [{ name, shape: [batch, ...row] }] = inputs;
    if (batch !== -1 && batch !== 1) throw new UnsupportedModel(`the model takes ${batch ?? "no"} samples at once; supported is one`);
    if (!row.every((size) => size > 0)) throw new UnsupportedModel(`the model does not declare the size of its input ${name}`);
    this.shape = row;
    this.metadata = metadata;
    this.input = new Float32Array(product(row));
    /** @type {(() => void)[]} */
    this.runs = [];
    this.steps = 0;
    const tensors = new Map(weights);
    tensors.set(name, { shape: [1, ...row], data: this.input });
    const constants = new Set(weights.keys());
    for (const node of nodes) this.#add(node, tensors, constants);
    /** @type {Map<string, Tensor>} */
    this.outputs = new Map(outputs.map((output) => [output, find(tensors, output)]));
  }

  /**
   * @param {Node} node
   * @param {Map<string, Tensor>} tensors by name
   * @param {Set<string>} constants names of the tensors that are the same for all samples
   */
  #add({ operator, inputs, outputs, attributes }, tensors, constants) {
    if (!Object.hasOwn(OPERATORS, operator)) throw new UnsupportedModel(`the operator ${operator} is not supported`);
    if (outputs.length !== 1) throw new UnsupportedModel(`${operator} with ${outputs.length} outputs is not supported`);
    const given = inputs.map((input) => (input === "" ? undefined : find(tensors, input)));
    const { shape, data, run, steps = data.length } = OPERATORS[operator](/** @type {Tensor[]} */ (given), attributes);
    tensors.set(outputs[0], { shape, data });
    this.steps += steps;
    if (this.steps > MAX_STEPS) throw new UnsupportedModel(`more than ${MAX_STEPS / 1e6} million multiply-adds are not supported`);
    if (inputs.every((input) => input === "" || constants.has(input))) {
      constants.add(outputs[0]);
      run?.();
    } else if (run) {
      this.runs.push(run);
    }
  }

  /**
   * Computes one sample.
   * @param {ArrayLike<number>} row its values, flat
   * @returns {Map<string, Tensor>} the outputs by name, overwritten by the next run
   */
  run(row) {
    if (row.length !== this.input.length) throw new RangeError(`got ${row.length} values, expected ${this.input.length}`);
    this.input.set(row);
    for (const run of this.runs) run();
    return this.outputs;
  }
}

/**
 * @param {Map<string, Tensor>} tensors
 * @param {string} name
 */
function find(tensors, name) {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new RangeError(`not an ONNX file: the tensor ${name} is missing`);
  return tensor;
}
