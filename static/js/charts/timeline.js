/** A quantity over the last minutes: one line for each series, broken where nothing is known. */

import { s } from "../dom.js";
import { Plot, canvas } from "./plot.js";
import { linear, linearTicks } from "./scale.js";

/**
 * @typedef {object} Line
 * @property {string} tone classes
 * @property {(number | null)[]} values one for each point in time, the latest last
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

export class Timeline {
  /**
   * @param {HTMLElement} place
   * @param {number} points kept
   * @param {(value: number) => string} format
   */
  constructor(place, points, format) {
    this.points = points;
    this.format = format;
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
    const { points, lines } = this;
    const highest = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const ticks = linearTicks(highest, 2);
    const right = width - MARGIN.right;
    const y = linear([0, ticks[ticks.length - 1]], [HEIGHT - MARGIN.bottom, MARGIN.top]);
    const x = linear([0, points - 1], [MARGIN.left, right]);
    return canvas(
      width,
      HEIGHT,
      this.alternative,
      ...ticks.map((tick) =>
        s(
          "g",
          {},
          s("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
          s("text", { x: right + 8, y: y(tick) + 4 }, highest > 0 || tick === 0 ? this.format(tick) : ""),
        ),
      ),
      s("text", { x: MARGIN.left, y: HEIGHT - 5 }, `${Math.round((points - 1) / 60)} min ago`),
      s("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, "now"),
      ...lines.map(({ tone, values }) => s("path", { class: `line ${tone}`, d: path(values, (i) => x(points - values.length + i), y) })),
    );
  }
}
