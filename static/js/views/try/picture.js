/**
 * A picture file for the drawing pad: as it is, or as ink, whatever its background. The decoding is the browser's; telling
 * ink from paper is pure, arrays in and arrays out.
 */

import { greyLayout, paint } from "./image.js";
import { boundingBox } from "./preprocessing.js";

/** @import { Grey } from "./preprocessing.js" */

/** @typedef {(context: CanvasRenderingContext2D) => void} Painter of a whole pad */

/** Decoding takes memory by the pixel; a photograph of this size still passes. */
const MAX_FILE_BYTES = 25_000_000;
/** Larger pictures are shrunk on reading; more detail than this no network here can use. */
const MAX_SIDE = 1024;

/** A file that is no picture to be used; the message is for people. */
export class PictureError extends Error {}

/** The share of the pad that uploaded ink fills. */
const INK_SHARE = 0.72;

/**
 * @param {File} file
 * @returns {Promise<Painter>} of the picture's middle, as large as the pad
 * @throws {PictureError}
 */
export async function readPicture(file) {
  const { canvas } = await decode(file);
  return (context) => {
    const { width, height } = context.canvas;
    const scale = Math.max(width / canvas.width, height / canvas.height);
    const [w, h] = [width / scale, height / scale];
    context.drawImage(canvas, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h, 0, 0, width, height);
  };
}

/**
 * @param {File} file
 * @returns {Promise<Painter>} of its ink, white on black, in the middle of the pad
 * @throws {PictureError}
 */
export async function readInk(file) {
  const { canvas, context: read } = await decode(file);
  const { width, height } = canvas;
  const grey = inkOf(read.getImageData(0, 0, width, height).data, width, height);
  const box = grey && boundingBox(grey);
  if (grey === null || box === null) throw new PictureError(`${file.name} shows nothing: it has one colour only.`);
  const small = document.createElement("canvas");
  paint(small, grey.values, greyLayout(grey));
  return (context) => {
    const side = context.canvas;
    const scale = (INK_SHARE * Math.min(side.width, side.height)) / Math.max(box.width, box.height);
    const [w, h] = [box.width * scale, box.height * scale];
    context.drawImage(small, box.left, box.top, box.width, box.height, (side.width - w) / 2, (side.height - h) / 2, w, h);
  };
}

/** @param {File} file */
async function decode(file) {
  if (file.size > MAX_FILE_BYTES) throw new PictureError(`${file.name} is larger than ${MAX_FILE_BYTES / 1e6} MB.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new PictureError(`${file.name} is not a picture that this browser can read.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (context === null) throw new PictureError("This browser has no 2-d canvas.");
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { canvas, context };
}

/**
 * What stands out from the paper, light on dark or dark on light. The paper is what most of the border shows.
 * @param {ArrayLike<number>} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Grey | null} null where nothing stands out
 */
export function inkOf(rgba, width, height) {
  const light = luminance(rgba, width * height);
  const paper = median(border(light, width, height));
  const difference = Float32Array.from(light, (value) => Math.abs(value - paper));
  const strongest = percentile(difference, 0.999);
  if (strongest < 0.06) return null;
  // Shading and noise of the paper go; the soft edge of the ink stays.
  const floor = 0.5 * threshold(difference, strongest);
  const values = difference.map((value) => Math.max(0, Math.min(1, (value - floor) / (strongest - floor))));
  return { values, width, height };
}

/**
 * @param {ArrayLike<number>} rgba
 * @param {number} count
 * @returns {Float32Array} 0..1; what is transparent lies on the side opposite to the ink
 */
function luminance(rgba, count) {
  const light = new Float32Array(count);
  let [sum, opaque] = [0, 0];
  for (let i = 0; i < count; i++) {
    light[i] = (0.2126 * rgba[4 * i] + 0.7152 * rgba[4 * i + 1] + 0.0722 * rgba[4 * i + 2]) / 255;
    sum += light[i] * rgba[4 * i + 3];
    opaque += rgba[4 * i + 3];
  }
  const behind = opaque > 0 && sum / opaque > 0.5 ? 0 : 1;
  for (let i = 0; i < count; i++) {
    const alpha = rgba[4 * i + 3] / 255;
    light[i] = alpha * light[i] + (1 - alpha) * behind;
  }
  return light;
}

/**
 * @param {Float32Array} values
 * @param {number} width
 * @param {number} height
 */
function border(values, width, height) {
  const found = [];
  for (let x = 0; x < width; x++) found.push(values[x], values[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) found.push(values[y * width], values[y * width + width - 1]);
  return Float32Array.from(found);
}

/**
 * @param {Float32Array} values
 * @param {number} share
 */
function percentile(values, share) {
  const sorted = values.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

/** @param {Float32Array} values */
const median = (values) => percentile(values, 0.5);

/**
 * Otsu's threshold: the level that parts the values into two groups as far from each other as can be.
 * @param {Float32Array} values
 * @param {number} top
 */
function threshold(values, top) {
  const bins = 64;
  const counts = new Float64Array(bins);
  for (const value of values) counts[Math.min(bins - 1, Math.floor((value / top) * bins))] += 1;
  const total = values.length;
  const sumAll = counts.reduce((sum, n, i) => sum + n * i, 0);
  let [below, sumBelow, best, bestAt] = [0, 0, -1, 0];
  for (let i = 0; i < bins - 1; i++) {
    below += counts[i];
    sumBelow += counts[i] * i;
    if (below === 0 || below === total) continue;
    const gap = sumBelow / below - (sumAll - sumBelow) / (total - below);
    const between = below * (total - below) * gap * gap;
    if (between > best) [best, bestAt] = [between, i + 1];
  }
  return (bestAt / bins) * top;
}
