/** Reads a picture file for the drawing pad: in colours, or as grey ink separated from its background. */

import { paint } from "../../model/image.js";
import { inkOf } from "./ink.js";
import { boundingBox } from "./preprocessing.js";

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
