/**
 * Prepares a drawing as MNIST's digits were: the ink's bounding box is fitted into 20 × 20 of 28 × 28 pixels with its
 * aspect ratio kept, as area-averaged grey levels, and moved by whole pixels so that its centre of mass lies in the
 * middle. Pure: arrays in, array out; nothing of the page.
 *
 * "The middle" is pixel 14, counted from 0: in MNIST the mean centre of mass is 14.0 ± 0.3 in both directions, not 13.5.
 */

/** @import { ImageTask } from "../../model/task.js" */

/**
 * @typedef {object} Grey
 * @property {ArrayLike<number>} values row by row, 0 is background
 * @property {number} width
 * @property {number} height
 */

/**
 * @typedef {object} Box first column and row, and how many of them
 * @property {number} left
 * @property {number} top
 * @property {number} width
 * @property {number} height
 */

/** MNIST leaves 4 of 28 pixels free on every side. */
const INNER_SHARE = 20 / 28;

/**
 * The smallest box that holds all ink; null when there is none.
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
 * Averages `count` equal stretches of a line of `length` values. Where a stretch begins or ends inside a value, that
 * value counts with the share that lies inside.
 * @param {number} length
 * @param {number} count
 * @returns {{ start: number, shares: number[] }[]} for each stretch its first index and the weights from there on
 */
function stretches(length, count) {
  const step = length / count;
  return Array.from({ length: count }, (_, k) => {
    const from = k * step;
    const to = from + step;
    const start = Math.floor(from);
    const end = Math.min(length, Math.ceil(to - 1e-9));
    const shares = [];
    for (let i = start; i < end; i++) {
      shares.push((Math.min(i + 1, to) - Math.max(i, from)) / step);
    }
    return { start, shares };
  });
}

/**
 * A part of an image at another size, each new pixel the mean of the area that it covers.
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
    columns.forEach(({ start, shares }, x) => {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += shares[i] * grey.values[row + start + i];
      narrow[y * width + x] = sum;
    });
  }
  const small = new Float32Array(height * width);
  stretches(box.height, height).forEach(({ start, shares }, y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let i = 0; i < shares.length; i++) sum += shares[i] * narrow[(start + i) * width + x];
      small[y * width + x] = sum;
    }
  });
  return small;
}

/**
 * Where along one axis the image has to begin for its centre of mass to lie on the middle pixel.
 * @param {number} centre of mass, in pixels counted from the image's own first one
 * @param {number} length of the image
 * @param {number} room pixels there are
 */
function offset(centre, length, room) {
  // Halves go down, and just as well where rounding errors blur them: an even image keeps equal margins.
  return Math.max(0, Math.min(room - length, Math.ceil(room / 2 - centre - 0.5 - 1e-6)));
}

/**
 * @param {Grey} grey a drawing, any size, ink above 0
 * @param {number} rows of the image that the network takes
 * @param {number} columns
 * @param {boolean} framed whether to leave MNIST's margin; else the ink reaches the edges
 * @returns {Float32Array | null} `rows * columns` values between 0 and the drawing's greatest; null when nothing is drawn
 */
export function prepare(grey, rows = 28, columns = 28, framed = true) {
  const box = boundingBox(grey);
  if (box === null) return null;
  const inner = (framed ? INNER_SHARE : 1) * Math.min(rows, columns);
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
 * A drawing at the size that the network takes: in grey it is fitted as above, in colours it stays as it stands.
 * @param {Grey[]} channels
 * @param {ImageTask} task
 * @returns {ArrayLike<number>[] | null} null when nothing is drawn
 */
export function prepared(channels, { rows, columns, framed }) {
  if (channels.length > 1) {
    return channels.map((plane) => areaAverage(plane, { left: 0, top: 0, width: plane.width, height: plane.height }, columns, rows));
  }
  const image = prepare(channels[0], rows, columns, framed);
  return image && [image];
}
