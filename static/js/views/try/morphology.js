/** Morphology of images: minimum and maximum filters with square windows, and connected blots. */

/** @typedef {{ width: number, height: number }} Size */
/** @typedef {{ pixels: number[], border: boolean }} Blot connected pixels, and whether they touch the image's border */

/**
 * Maximum filter with a square window.
 * @param {Float32Array} values
 * @param {Size} size
 * @param {number} radius
 */
export function highest(values, { width, height }, radius) {
  return extremes(extremes(values, height, width, width, 1, radius, 1), width, height, 1, width, radius, 1);
}

/**
 * Minimum filter with a square window.
 * @param {Float32Array} values
 * @param {Size} size
 * @param {number} radius
 */
export function lowest(values, { width, height }, radius) {
  return extremes(extremes(values, height, width, width, 1, radius, -1), width, height, 1, width, radius, -1);
}

/**
 * Filters lines by a queue of the candidates in the window, in a time that does not depend on the radius.
 * @param {Float32Array} values
 * @param {number} lines
 * @param {number} length of a line
 * @param {number} next distance of two lines
 * @param {number} step distance of two values of a line
 * @param {number} radius
 * @param {1 | -1} sign 1 for the maximum
 */
function extremes(values, lines, length, next, step, radius, sign) {
  const found = new Float32Array(values.length);
  const queue = new Int32Array(length);
  for (let line = 0; line < lines; line++) {
    const at = (/** @type {number} */ i) => sign * values[line * next + i * step];
    let [head, tail] = [0, 0];
    for (let i = 0; i < length + radius; i++) {
      if (i < length) {
        while (tail > head && at(queue[tail - 1]) <= at(i)) tail--;
        queue[tail++] = i;
      }
      if (i < radius) continue;
      while (queue[head] < i - 2 * radius) head++;
      found[line * next + (i - radius) * step] = sign * at(queue[head]);
    }
  }
  return found;
}

/**
 * Widens a mask.
 * @param {Uint8Array} mask
 * @param {Size} size
 * @param {number} radius
 */
export const dilate = (mask, size, radius) => Uint8Array.from(highest(Float32Array.from(mask), size, radius));

/**
 * Removes what is thinner than about a third of the mask's thickest place.
 * @param {Uint8Array} mask
 * @param {Size} size
 */
export function opened(mask, { width, height }) {
  const depth = new Int32Array(mask.length); // chessboard distance to the nearest pixel outside the mask
  const near = (/** @type {number} */ x, /** @type {number} */ y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : depth[y * width + x]);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (mask[i]) depth[i] = 1 + Math.min(near(x - 1, y), near(x - 1, y - 1), near(x, y - 1), near(x + 1, y - 1));
    }
  }
  for (let y = height - 1, i = mask.length - 1; y >= 0; y--) {
    for (let x = width - 1; x >= 0; x--, i--) {
      if (mask[i]) depth[i] = Math.min(depth[i], 1 + Math.min(near(x + 1, y), near(x + 1, y + 1), near(x, y + 1), near(x - 1, y + 1)));
    }
  }
  const radius = Math.max(1, Math.floor(depth.reduce((most, each) => Math.max(most, each), 0) / 3));
  return dilate(Uint8Array.from(depth, (each) => Number(each > radius)), { width, height }, radius);
}

/**
 * Finds the connected parts of a mask; pixels that touch at a corner are connected.
 * @param {Uint8Array} mask
 * @param {Size} size
 * @returns {Blot[]}
 */
export function blots(mask, { width, height }) {
  const left = mask.slice();
  const found = [];
  for (let start = 0; start < left.length; start++) {
    if (!left[start]) continue;
    left[start] = 0;
    const pixels = [start];
    let border = false;
    for (let k = 0; k < pixels.length; k++) {
      const [x, y] = [pixels[k] % width, Math.floor(pixels[k] / width)];
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) border = true;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const i = v * width + u;
          if (left[i]) {
            left[i] = 0;
            pixels.push(i);
          }
        }
      }
    }
    found.push({ pixels, border });
  }
  return found;
}
