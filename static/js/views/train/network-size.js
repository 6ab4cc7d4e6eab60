/**
 * What a twin will store and compute, counted from shapes alone and layer by layer, before anything is trained: the same
 * numbers that its model cards will say. Pure, and a test compares it with the networks themselves.
 */

/**
 * @import { Layer } from "../../api/types.js"
 */

/** @typedef {[number, number]} Shape factor sizes of a width */
/** @typedef {"left" | "right"} Order which factor of a branch comes first */

/**
 * @typedef {object} Network what a twin is built from
 * @property {number} features of a sample
 * @property {number[] | null} image its shape, where a sample is an image
 * @property {number} outputs classes, or values to predict
 * @property {Shape[]} hidden
 * @property {number[] | null} [denseHidden] widths of the dense twin's hidden layers, where they are others
 * @property {number | number[]} rank of every layer, or one for each
 * @property {Order | Order[]} [order] of every branch, or one for each
 * @property {number[]} [channels] of the convolutions in front
 * @property {boolean} [pad] rather a larger width than unbalanced factors, filled up with zeros
 *
 * @typedef {object} Size
 * @property {Layer[]} layers
 * @property {number} parameters
 * @property {number} macs multiply-adds a sample
 */

const KERNEL = 3;
const POOL = 2;
/** The largest ratio of two factors that padding is content with. */
const BALANCED = 2;

/** @param {number[]} sizes */
export const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/**
 * Whether there are factors worth the name, or the width is so small that it does not matter.
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
 * The most balanced factors of a width, the smaller one first: 784 gives 28×28.
 * @param {number} width
 * @param {boolean} [pad] rather those of a larger width than unbalanced ones
 * @returns {Shape}
 */
export function proposedShape(width, pad = false) {
  let shape = mostBalanced(width);
  while (pad && shape[1] > BALANCED * shape[0]) shape = mostBalanced(++width);
  return shape;
}

/**
 * @param {Pick<Network, "features" | "image" | "channels" | "pad">} network
 * @returns {Shape} of the first Kronecker layer's input
 */
export function inputShape({ features, image, channels = [], pad = false }) {
  if (channels.length > 0) return proposedShape(product(convolved(image, channels).at(-1) ?? []));
  if (image?.length === 2) return [image[0], image[1]];
  return proposedShape(features, pad);
}

/**
 * Factors of so few outputs are no mistake where there are none but 1 and the number itself.
 * @param {number} width
 * @returns {Shape}
 */
export const outputShape = (width) => (hasFactors(width) ? proposedShape(width) : [1, width]);

/**
 * A rank that reaches every matrix: more is of no use.
 * @param {Shape} from
 * @param {Shape} to
 */
export const maxRank = (from, to) => Math.min(from[0] * to[0], from[1] * to[1]);

/**
 * The largest rank that every layer can have.
 * @param {Network} network
 */
export function maxCommonRank(network) {
  const shapes = kroneckerShapes(network);
  return Math.min(...shapes.slice(1).map((to, i) => maxRank(shapes[i], to)));
}

/** @param {Network} network */
const kroneckerShapes = (network) => [inputShape(network), ...network.hidden, outputShape(network.outputs)];

/**
 * Channels, height and width of the image and of what each convolution gives, pooled.
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
function convolutions({ image, channels = [] }) {
  const shapes = convolved(image, channels);
  return channels.map((to, i) => {
    const [from, height, width] = shapes[i];
    const weights = to * from * KERNEL * KERNEL;
    return { kind: "Conv2d", in_shape: shapes[i], out_shape: shapes[i + 1], kernel: [KERNEL, KERNEL], parameters: weights + to, macs_per_sample: weights * height * width };
  });
}

/**
 * A branch has two factors, a bias between them and its share of a sum, which has the bias of the output.
 * @param {Shape} from
 * @param {Shape} to
 * @param {number} rank
 * @param {Order | Order[]} order
 * @returns {Layer}
 */
function kroneckerLayer(from, to, rank, order) {
  const [[n1, n2], [m1, m2]] = [from, to];
  const right = Array.isArray(order) ? order.filter((each) => each === "right").length : order === "right" ? rank : 0;
  const left = rank - right;
  return {
    kind: "KroneckerDual",
    in_shape: from,
    out_shape: to,
    rank,
    parameters: rank * (m1 * n1 + m2 * n2) + left * m1 * n2 + right * n1 * m2 + m1 * m2,
    macs_per_sample: left * (m1 * n1 * n2 + m1 * n2 * m2) + right * (n1 * n2 * m2 + n1 * m2 * m1),
  };
}

/**
 * @param {number} from
 * @param {number} to
 * @returns {Layer}
 */
const denseLayer = (from, to) => ({ kind: "Linear", in_shape: [from], out_shape: [to], parameters: to * from + to, macs_per_sample: to * from });

/**
 * @param {Layer[]} layers
 * @returns {Size}
 */
function size(layers) {
  const sum = (/** @type {"parameters" | "macs_per_sample"} */ name) => layers.reduce((total, layer) => total + (layer[name] ?? 0), 0);
  return { layers, parameters: sum("parameters"), macs: sum("macs_per_sample") };
}

/**
 * @param {Network} network
 * @returns {{ kronecker: Size, dense: Size }}
 */
export function twinSize(network) {
  const { features, hidden, denseHidden, outputs, rank, order = "left", channels = [] } = network;
  const before = convolutions(network);
  const shapes = kroneckerShapes(network);
  const first = channels.length > 0 ? product(shapes[0]) : features;
  const widths = [first, ...(denseHidden ?? hidden.map(product)), outputs];
  return {
    kronecker: size([...before, ...shapes.slice(1).map((to, i) => kroneckerLayer(shapes[i], to, Array.isArray(rank) ? rank[i] : rank, order))]),
    dense: size([...before, ...widths.slice(1).map((to, i) => denseLayer(widths[i], to))]),
  };
}
