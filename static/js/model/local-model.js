/** A model that the browser computes, with answers in the form of the service's. */

import { Network } from "../onnx/network.js";

/**
 * @import { Answer, ModelInfo } from "../api/types.js"
 */

/** Maximum difference of a probability, or of a value in proportion to it, from the service's answer. */
const TOLERANCE = 1e-5;
/** Rounds of a measurement, and the duration of each: the clock of browsers has steps of 0.1 ms. */
const ROUNDS = 5;
const ROUND_MS = 3;

/** Differs from the service's answer, so that it must not be shown. */
export class ParityError extends Error {
  /** @param {number} difference */
  constructor(difference) {
    super(`the browser's answer differs by ${difference.toExponential(1)} from the service's`);
    this.name = "ParityError";
  }
}

/** @param {ArrayLike<number>} logits */
function softmax(logits) {
  const values = Array.from(logits);
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** @param {Answer} answer @returns {number[]} its probabilities or values */
const numbers = ({ probabilities, value }) => probabilities ?? [value ?? []].flat();

export class LocalModel {
  /**
   * @param {ModelInfo} model
   * @param {Uint8Array} bytes its ONNX file
   * @throws {Error} if the browser cannot compute it
   */
  constructor({ card, labels }, bytes) {
    this.network = new Network(bytes);
    const names = [...this.network.outputs.keys()];
    const regression = card?.task === "regression";
    /** Whether an answer was compared with the service's. */
    this.checked = false;
    this.output = (regression ? ["prediction"] : ["probabilities", "logits"]).find((name) => names.includes(name)) ?? names[0];
    this.classifies = !regression && (this.output === "probabilities" || this.output === "logits");
    this.labels = card?.labels ?? labels ?? null;
  }

  /**
   * @param {ArrayLike<number>} row
   * @returns {Answer}
   */
  answer(row) {
    const data = this.network.run(row).get(this.output)?.data ?? [];
    const values = Array.from(data);
    if (!values.every(Number.isFinite)) throw new RangeError("the answer is not finite");
    if (!this.classifies) return { value: values.length === 1 ? values[0] : values };
    const probabilities = this.output === "logits" ? softmax(values) : values;
    const best = probabilities.indexOf(Math.max(...probabilities));
    return { label: this.labels?.length === values.length ? this.labels[best] : String(best), probabilities };
  }

  /**
   * Measures the time of a run: the mean of the fastest of a few rounds.
   * @param {ArrayLike<number>} row
   * @returns {number} microseconds
   */
  measure(row) {
    let fastest = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      const start = performance.now();
      let [runs, ms] = [0, 0];
      do {
        this.network.run(row);
        runs++;
        ms = performance.now() - start;
      } while (ms < ROUND_MS);
      fastest = Math.min(fastest, ms / runs);
    }
    return 1000 * fastest;
  }

  /**
   * Compares the answer with the service's, once.
   * @param {ArrayLike<number>} row
   * @param {Answer} served
   * @throws {ParityError} if they differ
   */
  check(row, served) {
    if (this.checked) return;
    const [own, other] = [numbers(this.answer(row)), numbers(served)];
    const difference = own.length === other.length ? Math.max(...own.map((value, i) => Math.abs(value - other[i]) / Math.max(1, Math.abs(other[i])))) : Infinity;
    if (!(difference <= TOLERANCE)) throw new ParityError(difference);
    this.checked = true;
  }
}
