/** The operators Conv and MaxPool, on images of one sample. */

import { multiply } from "./products.js";
import { allocate, expect, offsets } from "./tensors.js";

/**
 * @import { Attribute, Tensor } from "./model-file.js"
 * @import { Operator } from "./tensors.js"
 */

/**
 * Lays out the windows of a convolution or pooling over an image with a margin: which pixels each window covers.
 * @param {Tensor} image @param {Record<string, Attribute>} attributes @param {number} margin value of the pixels around it
 */
function windows({ shape, data }, { kernel_shape: kernel, strides: stride = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], auto_pad: pad = "NOTSET", ceil_mode: up = 0 }, margin) {
  const sizes = [kernel, stride, dilations, pads];
  expect(shape.length === 4 && shape[0] === 1 && sizes.every(Array.isArray) && pad === "NOTSET" && up === 0, "a convolution or pooling of other inputs than images, with automatic padding, or without its kernel's size");
  const [[kh, kw], [sh, sw], [dh, dw], [top, left, bottom, right]] = /** @type {number[][]} */ (sizes);
  const [, channels, rows, columns] = shape;
  const [high, wide] = [rows + top + bottom, columns + left + right];
  const padded = allocate([channels, high, wide]).fill(margin);
  const inner = offsets([channels, rows, columns], [high * wide, wide, 1], top * wide + left);
  const [oh, ow] = [Math.floor((high - dh * (kh - 1) - 1) / sh) + 1, Math.floor((wide - dw * (kw - 1) - 1) / sw) + 1];
  expect(oh > 0 && ow > 0 && Math.min(kh, kw, sh, sw, dh, dw) > 0, `a window of ${kh}×${kw} pixels on an image of ${rows}×${columns}`);
  const table = offsets([channels, kh, kw, oh, ow], [high * wide, dh * wide, dw, sh * wide, sw]);
  const fill = () => { for (let i = 0; i < inner.length; i++) padded[inner[i]] = data[i]; };
  return { padded, table, fill, taps: kh * kw, channels, shape: [oh, ow] };
}

/** @type {Operator} */
export function convolution([image, kernel, bias], attributes) {
  expect((attributes.group ?? 1) === 1 && kernel.shape[1] === image.shape[1], "Conv in groups");
  const { padded, table, fill, taps, channels, shape: [oh, ow] } = windows(image, { kernel_shape: kernel.shape.slice(2), ...attributes }, 0);
  const [maps, depth, pixels] = [kernel.shape[0], channels * taps, oh * ow];
  const [shape, covered] = [[1, maps, oh, ow], allocate([depth, pixels])];
  const out = allocate(shape);
  const run = () => {
    fill();
    for (let i = 0; i < table.length; i++) covered[i] = padded[table[i]];
    multiply({ data: kernel.data, at: 0, row: depth, column: 1 }, { data: covered, at: 0, row: pixels, column: 1 }, out, 0, maps, depth, pixels);
    if (bias) for (let i = 0; i < out.length; i++) out[i] += bias.data[Math.floor(i / pixels)];
  };
  return { shape, data: out, run, steps: out.length * depth };
}

/** @type {Operator} */
export function maxPooling([image], attributes) {
  const { padded, table, fill, taps, channels, shape: [oh, ow] } = windows(image, attributes, -Infinity);
  const [shape, pixels] = [[1, channels, oh, ow], oh * ow];
  const out = allocate(shape);
  const run = () => {
    fill();
    out.fill(-Infinity);
    for (let i = 0; i < table.length; i++) {
      const at = Math.floor(i / (taps * pixels)) * pixels + (i % pixels);
      out[at] = Math.max(out[at], padded[table[i]]);
    }
  };
  return { shape, data: out, run, steps: table.length };
}
