/** Draws a network's weights to scale: as wide as the outputs and as high as the inputs; biases are a square of their area. */

import { roles, shortName, tone, weights } from "../model/display.js";
import { h, s } from "../ui/dom.js";
import { count, times } from "../ui/format.js";

/**
 * @import { Layer, Drawn } from "../api/types.js"
 */

/** @typedef {{ x: number, y: number, width: number, height: number, bias: boolean }} Part */
/** @typedef {{ parts: Part[], width: number, height: number, name: string }} Block */

const MAX_LAYERS = 12;
const MAX_BRANCHES = 32;

/** @param {number[]} sizes */
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/**
 * @param {Layer} layer
 * @param {number} gap
 * @returns {Block | null} null if the card lacks the layer's shape
 */
export function block(layer, gap) {
  const { in_shape: from, out_shape: to, kernel, rank } = layer;
  if (!from?.length || !to?.length || ![...from, ...to].every((size) => size > 0)) return null;
  const whole = kernel?.length ? [to[0], from[0] * product(kernel)] : [product(to), product(from)];
  const factors = rank && from.length === to.length && from.length > 1 ? from.map((size, i) => [to[i], size]) : [whole];
  const branches = factors.length > 1 ? Math.min(rank ?? 1, MAX_BRANCHES) : 1;
  const rowHeight = Math.max(...factors.map(([, height]) => height));
  /** @type {Part[]} */
  const parts = [];
  let [width, y] = [0, 0];
  for (let k = 0; k < branches; k++) {
    let x = 0;
    for (const [w, high] of factors) {
      parts.push({ x, y, width: w, height: high, bias: false });
      x += w + gap / 2;
    }
    width = Math.max(width, x - gap / 2);
    y += rowHeight + gap / 2;
  }
  const stored = (factors.length > 1 ? (rank ?? 1) : 1) * factors.reduce((sum, [w, high]) => sum + w * high, 0);
  const biases = (layer.parameters ?? stored) - stored;
  if (biases > 0) {
    const side = Math.sqrt(biases);
    parts.push({ x: 0, y: y + gap / 2, width: side, height: side, bias: true });
    width = Math.max(width, side);
    y += gap / 2 + side + gap / 2;
  }
  const matrix = (/** @type {number[]} */ sizes) => sizes.join("×");
  const name = factors.length > 1 ? `${rank} × (${factors.map(matrix).join(" ⊗ ")})` : matrix(factors[0]);
  return { parts, width, height: y - gap / 2, name };
}

/**
 * @param {Drawn} model
 * @returns {Block[]}
 */
function blocks(model, gap = 12) {
  return (model.card?.layers ?? []).slice(0, MAX_LAYERS).map((layer) => block(layer, gap)).filter((found) => found !== null);
}

/**
 * @param {Block[]} found
 * @param {number} gap between layers
 */
function extent(found, gap) {
  return {
    width: found.reduce((sum, { width }) => sum + width, 0) + gap * (found.length - 1),
    height: Math.max(...found.map(({ height }) => height)),
  };
}

const LAYER_GAP = 36;
/** Minimum width, in weights. */
const MIN_SCALE = 160;
/** Maximum ratio of height to width. */
const MAX_HEIGHT = 0.9;

/**
 * @param {Drawn[]} models
 * @param {HTMLElement} words
 * @param {HTMLElement} figures
 * @returns {boolean} whether there was anything to draw
 */
export function showStructure(models, words, figures) {
  const drawn = models.map((model, index) => ({ model, index, found: blocks(model) })).filter(({ found }) => found.length > 0);
  if (drawn.length === 0) return false;
  const named = models.map(({ name, card }) => ({ model: name, role: card?.role }));
  const extents = drawn.map(({ found }) => extent(found, LAYER_GAP));
  const scale = Math.max(MIN_SCALE, ...extents.map(({ width, height }) => Math.max(width, height / MAX_HEIGHT)));
  figures.replaceChildren(
    ...drawn.map(({ model, index, found }) => {
      const { height } = extent(found, LAYER_GAP);
      const names = found.map(({ name }) => name);
      let x = 0;
      const layers = found.map(({ parts, width, name }) => {
        const layer = s(
          "g",
          { transform: `translate(${x} 0)` },
          s("title", {}, name),
          ...parts.map((p) => s("rect", { x: p.x, y: p.y, width: p.width, height: p.height, class: p.bias ? "bias" : "weight" })),
        );
        x += width + LAYER_GAP;
        return layer;
      });
      const stored = weights(model);
      return h(
        "figure",
        { class: tone(roles(models), index) },
        h("figcaption", {}, h("strong", {}, shortName(named, index)), stored ? ` ${count(stored)} weights` : ""),
        s(
          "svg",
          { viewBox: `0 0 ${scale} ${height}`, role: "img", "aria-label": `${model.name}, layer by layer: ${names.join("; ")}` },
          ...layers,
        ),
        h("p", { class: "muted layer-names" }, ...names.map((name) => h("span", {}, name))),
      );
    }),
  );
  const [small, large] = ["kronecker", "dense"].map((role) => {
    const model = drawn.find((each) => each.model.card?.role === role)?.model;
    return model ? (weights(model) ?? 0) : 0;
  });
  words.replaceChildren();
  if (small > 0 && large > 0 && small !== large) {
    words.append(
      h("p", { class: `figure-number tone-${small <= large ? "kronecker" : "dense"}` }, times(Math.max(large / small, small / large))),
      h("p", {}, small <= large ? "fewer weights in the Kronecker network." : "more weights in the Kronecker network at these sizes."),
    );
  }
  return true;
}
