/** Reads a picture file for the drawing pad: in colours, or as grey ink separated from its background. */

import { paint } from "./image.js";
import { boundingBox } from "./preprocessing.js";

/** @import { Grey } from "./types.js" */

/** @typedef {(context: CanvasRenderingContext2D) => void} Painter paints the whole pad */

/** Enough for a photograph; decoding needs memory per pixel. */
const MAX_FILE_BYTES = 25_000_000;
/** Larger pictures are scaled down: networks use fewer pixels. */
const MAX_SIDE = 1024;

/** An unusable picture file; the message is shown to the user. */
export class PictureError extends Error {}

/** Fraction of the pad's side that uploaded ink fills. */
const INK_FRACTION = 0.72;

/**
 * @param {File} file
 * @returns {Promise<Painter>} of the picture's centre, cropped to the pad's shape
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
 * @returns {Promise<Painter>} of the ink, white on black, centred on the pad
 * @throws {PictureError}
 */
export async function readInk(file) {
  const { canvas, context: read } = await decode(file);
  const { width, height } = canvas;
  const grey = inkOf(read.getImageData(0, 0, width, height).data, width, height);
  const box = grey && boundingBox(grey);
  if (grey === null || box === null) throw new PictureError(`${file.name} cannot be used: it has a single colour.`);
  const small = document.createElement("canvas");
  paint(small, grey.values, { rows: height, columns: width, channels: 1, last: false, range: [0, 1] });
  return (context) => {
    const side = context.canvas;
    const scale = (INK_FRACTION * Math.min(side.width, side.height)) / Math.max(box.width, box.height);
    const [w, h] = [box.width * scale, box.height * scale];
    context.drawImage(small, box.left, box.top, box.width, box.height, (side.width - w) / 2, (side.height - h) / 2, w, h);
  };
}

/** @param {File} file */
async function decode(file) {
  if (file.size > MAX_FILE_BYTES) throw new PictureError(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, expected at most ${MAX_FILE_BYTES / 1e6} MB.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new PictureError(`${file.name} is not a picture that this browser can decode.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (context === null) throw new PictureError("This browser does not support a 2-d canvas.");
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { canvas, context };
}

/**
 * Separates ink from paper, light on dark or dark on light. The paper's brightness is the median of the border.
 * @param {ArrayLike<number>} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Grey | null} null without ink
 */
export function inkOf(rgba, width, height) {
  const light = luminance(rgba, width * height);
  const paper = median(border(light, width, height));
  const difference = Float32Array.from(light, (value) => Math.abs(value - paper));
  const strongest = percentile(difference, 0.999);
  if (strongest < 0.06) return null;
  // Removes shading and noise of the paper, keeps the soft edge of the ink.
  const floor = 0.5 * threshold(difference, strongest);
  const values = difference.map((value) => Math.max(0, Math.min(1, (value - floor) / (strongest - floor))));
  return { values, width, height };
}

/**
 * @param {ArrayLike<number>} rgba
 * @param {number} count
 * @returns {Float32Array} values from 0 to 1; transparent pixels get the brightness opposite to the ink
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
 * @param {number} fraction
 */
function percentile(values, fraction) {
  const sorted = values.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(fraction * sorted.length) - 1)];
}

/** @param {Float32Array} values */
const median = (values) => percentile(values, 0.5);

/**
 * Returns Otsu's threshold, which maximizes the variance between the values below and above it.
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
