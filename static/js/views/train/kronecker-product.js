/** What a Kronecker product is: a sentence, and a picture of a 2 by 2 matrix and a 3 by 3 one. */

import { h, s } from "../../ui/dom.js";

/** Squares of a matrix as dashes of lines: the dark ones and the pale ones. */
const A = ["M0 22h8M9 31h8", "M9 22h8M0 31h8"];
const B = ["M0 4h26M9 13h8M0 22h26", "M9 4h8M0 13h26M9 22h8"];

/**
 * @param {string[]} paths
 * @param {number} x
 * @param {number} y
 * @param {boolean} [pale]
 */
const matrix = ([dark, light], x, y, pale) =>
  s("g", { transform: `translate(${x} ${y})`, class: pale ? "pale" : null }, s("path", { d: dark }), s("path", { d: light, class: "pale" }));

/** @returns {HTMLElement} */
export const kroneckerProduct = () =>
  h(
    "figure",
    { class: "product tone-kronecker" },
    s(
      "svg",
      { viewBox: "0 0 142 53", width: 213, role: "img", "aria-label": "A 2 by 2 matrix ⊗ a 3 by 3 matrix = a 6 by 6 matrix of four shaded copies." },
      matrix(A, 0, 0),
      matrix(B, 36, 13),
      matrix(B, 88, 0),
      matrix(B, 115, 27),
      matrix(B, 115, 0, true),
      matrix(B, 88, 27, true),
      s("text", { x: 21, y: 30 }, "⊗"),
      s("text", { x: 71, y: 30 }, "="),
    ),
    h("figcaption", { class: "muted" }, "A ⊗ B, a Kronecker product, has B times each number of A: 4 + 9 numbers stand for 36."),
  );
