/**
 * Counts the weights and multiply-adds of a twin from its layer shapes, as its model cards will state them. A test compares
 * the counts with kronmodel's.
 */

/**
 * @import { Layer } from "../../api/types.js"
 * @import { Order, Shape } from "./types.js"
 */

/**
 * @typedef {object} Network configuration of a twin
 * @property {number} features of a sample
 * @property {number[] | null} image shape of a sample; null if it is not an image
 * @property {number} outputs classes, or values to predict
 * @property {Shape[]} hidden
 * @property {number[] | null} [denseHidden] widths of the dense twin's hidden layers, if they differ
 * @property {number | number[]} rank of every layer, or one for each
 * @property {Order | Order[]} [order] of every branch, or one for each
 * @property {number[]} [channels] of the convolutions before the dense or Kronecker layers
 * @property {boolean} [pad] whether to pad the input with zeros to a width with balanced factors
 * @property {number} [bits] of a weight
 * @property {number} [bias_bits]
 * @property {string} [bias_form] of Kronecker layers: "full", or "row-column" for the sum of a vector for each axis
 *
 * @typedef {object} Size
 * @property {Layer[]} layers
 * @property {number} parameters
 * @property {number} bytes of the weights, biases and step sizes
 * @property {number} macs multiply-adds per sample
 */

const KERNEL = 3;
const POOL = 2;
/** Maximum ratio of the factors of a padded width. */
const MAX_RATIO = 2;

const FLOAT = 32;
const STEP_BYTES = 2;

/**
 * Counts stored values in rows with a step size each, which floats do not have.
 * @param {[rows: number, length: number, bits: number][]} tensors
 */
const stored = (tensors) => ({
  parameters: tensors.reduce((sum, [rows, length]) => sum + rows * length, 0),
  weight_bytes: tensors.reduce((sum, [rows, length, bits]) => sum + Math.ceil((rows * length * bits) / 8) + (bits === FLOAT ? 0 : rows * STEP_BYTES), 0),
});

/** @param {number[]} sizes */
export const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/**
 * Checks whether a width has factors other than 1 and itself, or is too small to matter.
 * @param {number} width
 */
const hasFactors = (width) => width <= 3 || mostBalanced(width)[0] > 1;

/**
 * @param {number} width
 * @returns {Shape}
 */
function mostBalanced(width) {
  let size = Math.floor(Math.sqrt(width));
  while (width % size !== 0) size--;
  return [size, width / size];
}

/**
 * Returns the most balanced factors of a width, the smaller one first: 28×28 for 784.
 * @param {number} width
 * @param {boolean} [pad] take a larger width rather than unbalanced factors
 * @returns {Shape}
 */
export function proposedShape(width, pad = false) {
  let shape = mostBalanced(width);
  while (pad && shape[1] > MAX_RATIO * shape[0]) shape = mostBalanced(++width);
  return shape;
}

/**
 * @param {Pick<Network, "features" | "image" | "channels" | "pad">} network
 * @returns {Shape} factors of the first Kronecker layer's input
 */
export function inputShape({ features, image, channels = [], pad = false }) {
  if (channels.length > 0) return proposedShape(product(convolved(image, channels).at(-1) ?? []));
  if (image?.length === 2) return [image[0], image[1]];
  return proposedShape(features, pad);
}

/**
 * Returns the factors of the output's width. A prime number of outputs is not padded.
 * @param {number} width
 * @returns {Shape}
 */
export const outputShape = (width) => (hasFactors(width) ? proposedShape(width) : [1, width]);

/** @param {Network} network */
const kroneckerShapes = (network) => [inputShape(network), ...network.hidden, outputShape(network.outputs)];

/**
 * Returns channels, height and width of the image and of each convolution's pooled output.
 * @param {number[] | null} image
 * @param {number[]} channels
 */
function convolved(image, channels) {
  const [planes, height, width] = image?.length === 2 ? [1, ...image] : (image ?? [0, 0, 0]);
  return [[planes, height, width], ...channels.map((each, i) => [each, Math.floor(height / POOL ** (i + 1)), Math.floor(width / POOL ** (i + 1))])];
}

/**
 * @param {Network} network
 * @returns {Layer[]}
 */
function convolutions({ image, channels = [], bits = FLOAT, bias_bits: biasBits = FLOAT }) {
  const shapes = convolved(image, channels);
  return channels.map((to, i) => {
    const [from, height, width] = shapes[i];
    const weights = to * from * KERNEL * KERNEL;
    return { kind: "Conv2d", in_shape: shapes[i], out_shape: shapes[i + 1], kernel: [KERNEL, KERNEL], ...stored([[to, from * KERNEL * KERNEL, bits], [1, to, biasBits]]), macs_per_sample: weights * height * width };
  });
}

/**
 * Counts a dual layer: each branch has two factors and a bias between them; their sum has the output's bias.
 * @param {Shape} from
 * @param {Shape} to
 * @param {number} rank
 * @param {Network} network
 * @param {boolean} last whether it is the output layer, whose output bias is full
 * @returns {Layer}
 */
function kroneckerLayer(from, to, rank, { order = "left", bits = FLOAT, bias_bits: biasBits = FLOAT, bias_form: form }, last) {
  const [[n1, n2], [m1, m2]] = [from, to];
  const right = Array.isArray(order) ? order.filter((each) => each === "right").length : order === "right" ? rank : 0;
  const left = rank - right;
  /** @type {(branches: number, shape: Shape, whole: boolean) => [number, number, number][]} */
  const bias = (branches, shape, whole) => (whole ? [[branches, product(shape), biasBits]] : shape.map((size) => [branches, size, biasBits]));
  const full = form !== "row-column";
  return {
    kind: "KroneckerDual",
    in_shape: from,
    out_shape: to,
    rank,
    ...stored([[rank * m1, n1, bits], [rank * m2, n2, bits], ...bias(left, [m1, n2], full), ...bias(right, [n1, m2], full), ...bias(1, to, full || last)]),
    macs_per_sample: left * (m1 * n1 * n2 + m1 * n2 * m2) + right * (n1 * n2 * m2 + n1 * m2 * m1),
  };
}

/**
 * @param {number} from
 * @param {number} to
 * @param {Network} network
 * @returns {Layer}
 */
const denseLayer = (from, to, { bits = FLOAT, bias_bits: biasBits = FLOAT }) => ({ kind: "Linear", in_shape: [from], out_shape: [to], ...stored([[to, from, bits], [1, to, biasBits]]), macs_per_sample: to * from });

/**
 * @param {Layer[]} layers
 * @returns {Size}
 */
function size(layers) {
  const sum = (/** @type {"parameters" | "weight_bytes" | "macs_per_sample"} */ name) => layers.reduce((total, layer) => total + (layer[name] ?? 0), 0);
  return { layers, parameters: sum("parameters"), bytes: sum("weight_bytes"), macs: sum("macs_per_sample") };
}

/**
 * @param {Network} network
 * @returns {{ kronecker: Size, dense: Size }}
 */
export function twinSize(network) {
  const { features, hidden, denseHidden, outputs, rank, channels = [] } = network;
  const before = convolutions(network);
  const shapes = kroneckerShapes(network);
  const first = channels.length > 0 ? product(shapes[0]) : features;
  const widths = [first, ...(denseHidden ?? hidden.map(product)), outputs];
  return {
    kronecker: size([...before, ...shapes.slice(1).map((to, i) => kroneckerLayer(shapes[i], to, Array.isArray(rank) ? rank[i] : rank, network, i === hidden.length))]),
    dense: size([...before, ...widths.slice(1).map((to, i) => denseLayer(widths[i], to, network))]),
  };
}
