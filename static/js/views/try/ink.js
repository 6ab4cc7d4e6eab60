/**
 * Separates ink from paper in photographs: shading, shadow edges, ruled lines and specks are not ink.
 *
 * The paper behind the ink is estimated by a morphological closing (an opening for light ink): strokes narrower than its window
 * are filled with the brightness around them, while the edge of a shadow keeps its place.
 */

import { blots, dilate, highest, lowest, opened } from "./morphology.js";

/** @import { Grey } from "./types.js" */

/** Side of the window that estimates the paper, as a fraction of the picture's shorter side; strokes are narrower. */
const WINDOW = 1 / 3;
/** Smallest difference of ink from paper. */
const LEAST_CONTRAST = 0.06;
/** Ruled lines are paler than this fraction of the ink. */
const RULED = 0.4;
/** Parts of the ink that are smaller than this fraction of the largest are specks. */
const SPECK = 0.15;

/**
 * Separates ink from paper, light on dark or dark on light.
 * @param {ArrayLike<number>} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Grey | null} null without ink
 */
export function inkOf(rgba, width, height) {
  const size = { width, height };
  const side = Math.min(width, height);
  const light = blurred(luminance(rgba, width * height), size, Math.round(side / 400));
  const radius = Math.max(1, Math.round((WINDOW * side) / 2));
  const difference = isDark(light, size) ? darkness(light, lowest(highest(light, size, radius), size, radius)) : brightness(light, highest(lowest(light, size, radius), size, radius));
  const strongest = percentile(difference, 0.999);
  if (strongest < LEAST_CONTRAST) return null;
  const split = threshold(difference, strongest);
  const mask = Uint8Array.from(difference, (value) => Number(value > Math.max(split, RULED * strongest)));
  const kept = dilate(writing(mask, size), size, Math.max(2, Math.round(side / 250)));
  const floor = 0.5 * split;
  const values = difference.map((value, i) => (kept[i] ? Math.max(0, Math.min(1, (value - floor) / (strongest - floor))) : 0));
  return { values, width, height };
}

/**
 * Keeps the largest blot and those that are not much smaller. What touches the border of the picture, such as the edge of the
 * table or a ruled line, is left out if anything else is found.
 * @param {Uint8Array} mask
 * @param {{ width: number, height: number }} size
 */
function writing(mask, size) {
  const inside = (/** @type {Uint8Array} */ from) => blots(from, size).filter(({ border }) => !border);
  const all = blots(mask, size);
  const most = Math.max(...all.map(({ pixels }) => pixels.length));
  let chosen = all.filter(({ border }) => !border);
  // Dark ruled lines tie the writing to the border: they are thinner than its strokes.
  if (!chosen.some(({ pixels }) => pixels.length > SPECK * most)) chosen = inside(opened(mask, size));
  if (chosen.length === 0) chosen = all;
  const largest = Math.max(...chosen.map(({ pixels }) => pixels.length));
  const kept = new Uint8Array(mask.length);
  for (const { pixels } of chosen) if (pixels.length >= SPECK * largest) for (const i of pixels) kept[i] = 1;
  return kept;
}

/**
 * Tells whether the ink is darker than the paper: whether the largest differences from the surroundings are negative.
 * @param {Float32Array} light
 * @param {{ width: number, height: number }} size
 */
function isDark(light, size) {
  const around = blurred(light, size, Math.max(1, Math.round(Math.min(size.width, size.height) / 4)));
  return light.reduce((sum, value, i) => sum + (value - around[i]) ** 3, 0) < 0;
}

/**
 * @param {Float32Array} light
 * @param {Float32Array} paper
 */
const darkness = (light, paper) => light.map((value, i) => Math.max(0, 1 - value / Math.max(0.1, paper[i])));

/**
 * @param {Float32Array} light
 * @param {Float32Array} paper
 */
const brightness = (light, paper) => light.map((value, i) => Math.max(0, value - paper[i]));

/**
 * Averages each pixel with its neighbours in a square.
 * @param {Float32Array} values
 * @param {{ width: number, height: number }} size
 * @param {number} radius 0 for none
 */
function blurred(values, { width, height }, radius) {
  if (radius < 1) return values;
  const across = averaged(values, height, width, width, 1, radius);
  return averaged(across, width, height, 1, width, radius);
}

/**
 * @param {Float32Array} values
 * @param {number} lines
 * @param {number} length of a line
 * @param {number} next distance of two lines
 * @param {number} step distance of two values of a line
 * @param {number} radius
 */
function averaged(values, lines, length, next, step, radius) {
  const found = new Float32Array(values.length);
  const sums = new Float64Array(length + 1);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < length; i++) sums[i + 1] = sums[i] + values[line * next + i * step];
    for (let i = 0; i < length; i++) {
      const [from, to] = [Math.max(0, i - radius), Math.min(length, i + radius + 1)];
      found[line * next + i * step] = (sums[to] - sums[from]) / (to - from);
    }
  }
  return found;
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
 * @param {number} fraction
 */
function percentile(values, fraction) {
  const sorted = values.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(fraction * sorted.length) - 1)];
}

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
