/** Time series chart of the last minutes: lines, or stacked areas; with gaps for missing values. */

import { s } from "../ui/dom.js";
import { unitFor } from "../ui/format.js";
import { Plot, canvas } from "./plot.js";
import { linear, linearTicks } from "./scale.js";

/** @import { Unit } from "../ui/format.js" */

/**
 * @typedef {object} Line
 * @property {string} tone classes
 * @property {(number | null)[]} values one per point in time, the latest last
 */

const HEIGHT = 132;
const MARGIN = { left: 8, right: 56, top: 10, bottom: 22 };

/**
 * @param {(number | null)[]} values
 * @param {(index: number) => number} x
 * @param {(value: number) => number} y
 */
function path(values, x, y) {
  let down = false;
  let d = "";
  values.forEach((value, i) => {
    if (value !== null) d += `${down ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    down = value !== null;
  });
  return d;
}

/**
 * Stacks each series on those before it.
 * @param {Line[]} lines
 * @returns {(Line & { under: (number | null)[] })[]}
 */
function layers(lines) {
  /** @type {(number | null)[]} */
  let under = (lines[0]?.values ?? []).map(() => 0);
  return lines.map(({ tone, values }) => {
    const layer = { tone, under, values: values.map((value, i) => (value === null ? null : value + (under[i] ?? 0))) };
    under = layer.values;
    return layer;
  });
}

/**
 * Returns the path of the area between a layer and the one under it, with gaps for missing values.
 * @param {{ values: (number | null)[], under: (number | null)[] }} layer
 * @param {(index: number) => number} x
 * @param {(value: number) => number} y
 */
function area({ values, under }, x, y) {
  let d = "";
  for (let from = 0; from < values.length; from++) {
    if (values[from] === null) continue;
    let to = from;
    while (to + 1 < values.length && values[to + 1] !== null) to++;
    const at = (/** @type {(number | null)[]} */ edge, /** @type {number} */ i) => `${x(i).toFixed(1)} ${y(edge[i] ?? 0).toFixed(1)}`;
    const stretch = Array.from({ length: to - from + 1 }, (_, i) => from + i);
    d += `M${stretch.map((i) => at(values, i)).join("L")}L${stretch.reverse().map((i) => at(under, i)).join("L")}Z`;
    from = to;
  }
  return d;
}

export class Timeline {
  /**
   * @param {HTMLElement} place
   * @param {number} points on the time axis
   * @param {Unit[]} units one is chosen for the axis
   * @param {boolean} [layered] whether to stack the series
   */
  constructor(place, points, units, layered = false) {
    this.points = points;
    this.units = units;
    this.layered = layered;
    /** @type {Line[]} */
    this.lines = [];
    this.alternative = "";
    this.plot = new Plot(place, (width) => this.#paint(width));
  }

  /**
   * @param {Line[]} lines
   * @param {string} alternative
   */
  show(lines, alternative) {
    this.lines = lines;
    this.alternative = alternative;
    this.plot.draw();
  }

  /** @param {number} width */
  #paint(width) {
    const { points } = this;
    const stacked = this.layered ? layers(this.lines) : [];
    const lines = this.layered ? stacked : this.lines; // values in the smallest unit
    const highest = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const top = linearTicks(highest, 2).at(-1) ?? highest; // the axis may end at 1 of a larger unit
    const unit = unitFor(highest > 0 ? top : 0, this.units);
    const ticks = linearTicks(highest / unit.size, 2);
    const right = width - MARGIN.right;
    const y = linear([0, ticks[ticks.length - 1] * unit.size], [HEIGHT - MARGIN.bottom, MARGIN.top]);
    const x = linear([0, points - 1], [MARGIN.left, right]);
    return canvas(
      width,
      HEIGHT,
      this.alternative,
      ...ticks.map((tick) =>
        s(
          "g",
          {},
          s("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick * unit.size), y2: y(tick * unit.size) }),
          s("text", { x: right + 8, y: y(tick * unit.size) + 4 }, tick === 0 ? "0" : highest > 0 ? `${tick}\u202f${unit.name}` : ""),
        ),
      ),
      s("text", { x: MARGIN.left, y: HEIGHT - 5 }, `${Math.round((points - 1) / 60)} min ago`),
      s("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, "now"),
      ...stacked.map((layer) => s("path", { class: `area ${layer.tone}`, d: area(layer, (i) => x(points - layer.values.length + i), y) })),
      // A layer of zeros would hide the line under it.
      ...lines.filter((_, i) => !this.layered || this.lines[i].values.some((value) => value)).map(({ tone, values }) => s("path", { class: `line ${tone}`, d: path(values, (i) => x(points - values.length + i), y) })),
    );
  }
}
