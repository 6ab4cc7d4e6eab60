/** The models of an exported page or module: `kronmodel export` replaces this list. */

/**
 * @typedef {object} Embedded
 * @property {string} name
 * @property {string} version
 * @property {string} file the ONNX file in base64
 * @property {{ inputs: string, divisor: number, labels: number[] } | null} samples test inputs in base64: float32, or bytes to be divided by `divisor` unless it is 0
 */

/** @type {Embedded[]} */
export const MODELS = [];
