/** The operators MatMul and Gemm. */

import { allocate, broadcast, broadcastOffsets, expect } from "./tensors.js";

/**
 * @import { Attribute, Data, Tensor } from "./model-file.js"
 * @import { Operator } from "./tensors.js"
 */

/** @typedef {{ data: Data, at: number, row: number, column: number }} Matrix with the steps from row to row and column to column */

/**
 * Multiplies matrices of `m` × `k` and `k` × `n` elements, in blocks of up to two rows and four columns, whose sums stay in registers.
 * @param {Matrix} a @param {Matrix} b @param {Float32Array} out @param {number} at @param {number} m @param {number} k @param {number} n
 */
export function multiply(a, b, out, at, m, k, n) {
  const { data: x, row, column: dx } = a;
  const { data: y, row: dy, column: step } = b;
  for (let i = 0; i < m; i += 2) {
    for (let j = 0; j < n; j += 4) {
      const [from, to, o] = [a.at + i * row, b.at + j * step, at + i * n + j];
      if (j + 3 >= n) {
        for (let rest = 0; rest < (i + 1 < m ? 2 : 1) * (n - j); rest++) {
          const [below, right] = [rest >= n - j ? 1 : 0, rest % (n - j)];
          let sum = 0;
          for (let l = 0, u = from + below * row, v = to + right * step; l < k; l++, u += dx, v += dy) sum += x[u] * y[v];
          out[o + below * n + right] = sum;
        }
      } else if (i + 1 < m) {
        let p = 0, q = 0, r = 0, s = 0, t = 0, w = 0, c = 0, d = 0;
        for (let l = 0, u = from, v = to; l < k; l++, u += dx, v += dy) {
          const f = x[u], g = x[u + row], y0 = y[v], y1 = y[v + step], y2 = y[v + 2 * step], y3 = y[v + 3 * step];
          p += f * y0; q += f * y1; r += f * y2; s += f * y3;
          t += g * y0; w += g * y1; c += g * y2; d += g * y3;
        }
        out[o] = p; out[o + 1] = q; out[o + 2] = r; out[o + 3] = s;
        out[o + n] = t; out[o + n + 1] = w; out[o + n + 2] = c; out[o + n + 3] = d;
      } else {
        let p = 0, q = 0, r = 0, s = 0;
        for (let l = 0, u = from, v = to; l < k; l++, u += dx, v += dy) {
          const f = x[u];
          p += f * y[v]; q += f * y[v + step]; r += f * y[v + 2 * step]; s += f * y[v + 3 * step];
        }
        out[o] = p; out[o + 1] = q; out[o + 2] = r; out[o + 3] = s;
      }
    }
  }
}

/** @type {Operator} */
export function matrixProduct([a, b]) {
  expect(a.shape.length > 1 && b.shape.length > 1, "MatMul of a vector");
  const [m, k] = a.shape.slice(-2);
  const n = b.shape[b.shape.length - 1];
  expect(b.shape[b.shape.length - 2] === k, `MatMul of ${a.shape.join("×")} and ${b.shape.join("×")}`);
  const [before, behind] = [a, b].map(({ shape }) => shape.slice(0, -2));
  const batch = broadcast(before, behind);
  const [from, to] = [before, behind].map((shape) => broadcastOffsets(shape, batch));
  const shape = [...batch, m, n];
  const out = allocate(shape);
  const run = () => from.forEach((_, i) => {
    const x = { data: a.data, at: from[i] * m * k, row: k, column: 1 };
    multiply(x, { data: b.data, at: to[i] * k * n, row: n, column: 1 }, out, i * m * n, m, k, n);
  });
  return { shape, data: out, run, steps: out.length * k };
}

/** @type {Operator} */
export function gemm([a, b, c], { transA = 0, transB = 0, alpha = 1, beta = 1 }) {
  expect(a.shape.length === 2 && b.shape.length === 2, "Gemm of other tensors than matrices");
  const [[m, k], [l, n]] = [transA ? [...a.shape].reverse() : a.shape, transB ? [...b.shape].reverse() : b.shape];
  expect(k === l, `Gemm of ${m}×${k} and ${l}×${n}`);
  const [shape, scale, weight] = [[m, n], Number(alpha), Number(beta)];
  const out = allocate(shape);
  const bias = c && broadcastOffsets(c.shape, broadcast(c.shape, shape));
  expect(!bias || bias.length === out.length, "Gemm with a bias larger than its product");
  const matrix = (/** @type {Tensor} */ { data, shape: [, width] }, /** @type {Attribute} */ turned) => ({ data, at: 0, row: turned ? 1 : width, column: turned ? width : 1 });
  const run = () => {
    multiply(matrix(a, transA), matrix(b, transB), out, 0, m, k, n);
    for (let i = 0; i < out.length; i++) out[i] = scale * out[i] + (bias ? weight * c.data[bias[i]] : 0);
  };
  return { shape, data: out, run, steps: out.length * k };
}
