/**
 * Images as networks take them, which is a row of numbers, from what is drawn and to what is painted. Pure but for the
 * painting.
 */

/**
 * @import { Grey } from "./preprocessing.js"
 */

/**
 * @typedef {object} Layout
 * @property {number} rows
 * @property {number} columns
 * @property {1 | 3} channels grey, or red, green and blue
 * @property {boolean} last whether a pixel's channels stand together; else one channel follows the other
 * @property {[number, number]} range of the numbers: no light, and full light
 */

/**
 * Where in the row a pixel's channel stands.
 * @param {Layout} layout
 * @param {number} pixel
 * @param {number} channel
 */
function place({ rows, columns, channels, last }, pixel, channel) {
  return last ? channels * pixel + channel : rows * columns * channel + pixel;
}

/**
 * @param {ArrayLike<number>[]} planes one for each channel, 0..1, pixel by pixel
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
 * One canvas pixel for each pixel; CSS enlarges them.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number> | null} row null paints all paper
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
      image.data[4 * i + k] = Math.round(255 * value); // the array itself keeps to 0..255
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/**
 * What is drawn on: black as MNIST's background, white where there are colours.
 * @param {Layout} layout
 */
export const paper = ({ channels }) => (channels === 3 ? 1 : 0);

/**
 * @param {Grey} grey
 * @returns {Layout}
 */
export const greyLayout = ({ width, height }) => ({ rows: height, columns: width, channels: 1, last: false, range: [0, 1] });
