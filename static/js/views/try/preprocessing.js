/**
 * Preprocesses a drawing like MNIST's digits: scales the ink's bounding box into 20 × 20 of 28 × 28 pixels by area averaging
 * with its aspect ratio kept, then moves its centre of mass to the centre by whole pixels.
 *
 * The centre is pixel 14, counted from 0: in MNIST the mean centre of mass is 14.0 ± 0.3 in both directions, not 13.5.
 */

/**
 * @import { ImageTask } from "../../model/types.js"
 * @import { Grey } from "./types.js"
 */

/**
 * @typedef {object} Box in pixels
 * @property {number} left
 * @property {number} top
 * @property {number} width
 * @property {number} height
 */

/** MNIST has a margin of 4 of 28 pixels on every side. */
const INNER_FRACTION = 20 / 28;

/**
 * Returns the smallest box around all ink; null if there is none.
 * @param {Grey} grey
 * @returns {Box | null}
 */
export function boundingBox({ values, width, height }) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] > 0) {
        if (x < left) left = x;
        if (x > right) right = x;
        if (y < top) top = y;
        bottom = y;
      }
    }
  }
  return bottom < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/**
 * Returns the weights that average a line of `length` values over `count` equal stretches. A value at the end of a stretch
 * is weighted by the part that lies inside.
 * @param {number} length
 * @param {number} count
 * @returns {{ start: number, weights: number[] }[]} per stretch the first index and the weights from there
 */
function stretches(length, count) {
  const step = length / count;
  return Array.from({ length: count }, (_, k) => {
    const from = k * step;
    const to = from + step;
    const start = Math.floor(from);
    const end = Math.min(length, Math.ceil(to - 1e-9));
    const weights = [];
    for (let i = start; i < end; i++) {
      weights.push((Math.min(i + 1, to) - Math.max(i, from)) / step);
    }
    return { start, weights };
  });
}

/**
 * Resizes a part of an image by area averaging.
 * @param {Grey} grey
 * @param {Box} box
 * @param {number} width
 * @param {number} height
 * @returns {Float32Array} `width * height` values
 */
export function areaAverage(grey, box, width, height) {
  const columns = stretches(box.width, width);
  const narrow = new Float64Array(box.height * width);
  for (let y = 0; y < box.height; y++) {
    const row = (box.top + y) * grey.width + box.left;
    columns.forEach(({ start, weights }, x) => {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * grey.values[row + start + i];
      narrow[y * width + x] = sum;
    });
  }
  const small = new Float32Array(height * width);
  stretches(box.height, height).forEach(({ start, weights }, y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * narrow[(start + i) * width + x];
      small[y * width + x] = sum;
    }
  });
  return small;
}

/**
 * Returns the first pixel of the image along one axis that puts its centre of mass on the middle pixel.
 * @param {number} middle centre of mass, in pixels from the image's first one
 * @param {number} length of the image
 * @param {number} room available pixels
 */
function offset(middle, length, room) {
  // Rounds halves down despite rounding errors, so that a symmetric image keeps equal margins.
  return Math.max(0, Math.min(room - length, Math.ceil(room / 2 - middle - 0.5 - 1e-6)));
}

/**
 * @param {Grey} grey drawing of any size, ink above 0
 * @param {number} rows of the network's input
 * @param {number} columns
 * @param {boolean} framed whether to add MNIST's margin
 * @returns {Float32Array | null} `rows * columns` values from 0 to the drawing's maximum; null if nothing is drawn
 */
export function centre(grey, rows = 28, columns = 28, framed = true) {
  const box = boundingBox(grey);
  if (box === null) return null;
  const inner = (framed ? INNER_FRACTION : 1) * Math.min(rows, columns);
  const scale = inner / Math.max(box.width, box.height);
  const width = Math.max(1, Math.round(box.width * scale));
  const height = Math.max(1, Math.round(box.height * scale));
  const small = areaAverage(grey, box, width, height);

  let [mass, sumX, sumY] = [0, 0, 0];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      mass += small[i];
      sumX += small[i] * x;
      sumY += small[i] * y;
    }
  }
  const left = offset(sumX / mass, width, columns);
  const top = offset(sumY / mass, height, rows);

  const image = new Float32Array(rows * columns);
  for (let y = 0; y < height; y++) {
    image.set(small.subarray(y * width, (y + 1) * width), (top + y) * columns + left);
  }
  return image;
}

/**
 * Resizes a drawing to the network's input: grey drawings are centred like MNIST's digits, colours only resized.
 * @param {Grey[]} channels
 * @param {ImageTask} task
 * @returns {ArrayLike<number>[] | null} null if nothing is drawn
 */
export function preprocess(channels, { rows, columns, framed }) {
  if (channels.length > 1) {
    return channels.map((plane) => areaAverage(plane, { left: 0, top: 0, width: plane.width, height: plane.height }, columns, rows));
  }
  const image = centre(channels[0], rows, columns, framed);
  return image && [image];
}
