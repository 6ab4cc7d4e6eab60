/** Converts images to a network's row of numbers, and paints such rows on a canvas. */

/** @import { Layout } from "./types.js" */

/**
 * Returns the index of a pixel's channel in the row.
 * @param {Layout} layout
 * @param {number} pixel
 * @param {number} channel
 */
function place({ rows, columns, channels, last }, pixel, channel) {
  return last ? channels * pixel + channel : rows * columns * channel + pixel;
}

/**
 * @param {ArrayLike<number>[]} planes one per channel, values from 0 to 1
 * @param {Layout} layout
 * @returns {number[]}
 */
export function toRow(planes, layout) {
  const [low, high] = layout.range;
  /** @type {number[]} */
  const row = new Array(layout.rows * layout.columns * layout.channels);
  planes.forEach((plane, channel) => {
    for (let i = 0; i < plane.length; i++) row[place(layout, i, channel)] = low + plane[i] * (high - low);
  });
  return row;
}

/**
 * Paints one canvas pixel per image pixel; CSS scales the canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number> | null} row null paints the background
 * @param {Layout} layout
 */
export function paint(canvas, row, layout) {
  const { rows, columns, channels } = layout;
  const [low, high] = layout.range;
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  if (context === null) return;
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    for (let k = 0; k < 3; k++) {
      const value = row === null ? paper(layout) : (row[place(layout, i, channels === 3 ? k : 0)] - low) / (high - low);
      image.data[4 * i + k] = Math.round(255 * value); // the array clamps to 0..255
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** The background: black like MNIST's, white for colour images. @param {Layout} layout */
const paper = ({ channels }) => (channels === 3 ? 1 : 0);
