/**
 * Drawings of a model's layers, to one scale per model: a dashed outline of the matrix that a dense layer of the same widths
 * would store, and beside it the factors of the Kronecker layer.
 */

import { block } from "../../charts/structure.js";
import { h, s } from "../../ui/dom.js";
import { count, short, times } from "../../ui/format.js";

/**
 * @import { Layer, ModelInfo } from "../../api/types.js"
 */

const MAX_LAYERS = 24;
const GAP = 4;

/** @param {number[]} sizes */
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/** @param {Layer} layer */
const factored = ({ in_shape: from, out_shape: to, rank, kernel }) => Boolean(rank && !kernel && from && to && from.length > 1 && from.length === to.length);

/**
 * Returns the number of weights and biases of a dense layer of the same widths.
 * @param {Layer} layer
 */
const dense = ({ in_shape: from = [], out_shape: to = [] }) => product(to) * (product(from) + 1);

/**
 * @param {Layer} layer
 * @param {number} scale pixels for a weight's side
 */
function drawing(layer, scale) {
  const drawn = block(layer, GAP / scale);
  if (drawn === null) return null;
  const outline = factored(layer) ? { width: product(layer.out_shape ?? []) * scale, height: product(layer.in_shape ?? []) * scale } : { width: 0, height: 0 };
  const start = outline.width > 0 ? outline.width + 14 : 0;
  const [width, height] = [start + drawn.width * scale + 2, Math.max(outline.height, drawn.height * scale) + 2];
  return s(
    "svg",
    { width: Math.ceil(width), height: Math.ceil(height), viewBox: `-1 -1 ${Math.ceil(width)} ${Math.ceil(height)}`, "aria-hidden": "true" },
    outline.width > 0 && s("rect", { class: `outline${outline.width < 12 ? " thin" : ""}`, x: 0, y: 0, width: outline.width, height: outline.height }),
    ...drawn.parts.map((part) =>
      s("rect", { class: part.bias ? "bias" : "weight", x: start + part.x * scale, y: part.y * scale, width: Math.max(1, part.width * scale), height: Math.max(1, part.height * scale) }),
    ),
  );
}

/**
 * @param {Layer[]} layers
 * @param {number} side pixels of the widest matrix
 */
function scaleFor(layers, side) {
  const sizes = layers.flatMap(({ in_shape: from = [1], out_shape: to = [1] }) => [product(from), product(to)]);
  return side / Math.max(1, ...sizes);
}

/**
 * @param {ModelInfo} model
 * @returns {HTMLElement | null} small drawings without text, for a card
 */
export function thumbnails(model) {
  const layers = (model.card?.layers ?? []).slice(0, MAX_LAYERS);
  const scale = scaleFor(layers, 72);
  const found = layers.map((layer) => drawing(layer, scale)).filter((each) => each !== null);
  return found.length > 0 ? h("div", { class: "thumbnails" }, ...found) : null;
}

/**
 * @param {ModelInfo} model
 * @returns {HTMLElement[]} one per layer
 */
export function layerFigures(model) {
  const layers = (model.card?.layers ?? []).slice(0, MAX_LAYERS);
  const scale = scaleFor(layers, 150);
  return layers.map((layer, i) => {
    const { parameters, macs_per_sample: macs } = layer;
    const ratio = factored(layer) && parameters ? dense(layer) / parameters : null;
    return h(
      "li",
      { class: "layer" },
      h("div", { class: "layer-drawing" }, drawing(layer, scale)),
      h(
        "div",
        {},
        h("h3", {}, `${i + 1}. ${layer.kind ?? "layer"}${layer.rank ? `, rank ${layer.rank}` : ""}`),
        h("p", {}, `${(layer.in_shape ?? []).join("×")} → ${(layer.out_shape ?? []).join("×")}`),
        parameters != null && h("p", {}, h("strong", {}, count(parameters)), " weights", ratio !== null && `, ${times(Math.max(ratio, 1 / ratio))} ${ratio >= 1 ? "fewer" : "more"} than the ${count(dense(layer))} of a dense layer`),
        block(layer, 0) && h("p", { class: "muted" }, `stores ${block(layer, 0)?.name}${macs ? `; ${short(macs)} multiply-adds per sample` : ""}`),
      ),
    );
  });
}
