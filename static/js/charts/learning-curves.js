/** Learning curves: a metric or loss by epoch or time, one line per network, which grow during training. */

import { s } from "../ui/dom.js";
import { Plot, apart, canvas, mark } from "./plot.js";
import { linear, linearTicks, logTicks, logarithmic } from "./scale.js";

/**
 * @typedef {object} Curve
 * @property {string} tone classes
 * @property {{ x: number, y: number }[]} points
 *
 * @typedef {object} Options
 * @property {string} axis name of the horizontal axis
 * @property {number} minEnd minimum of its end
 * @property {(value: number) => string} format of a value
 * @property {(value: number) => string} tick
 * @property {number} [best] upper bound of the values: the vertical axis ends there; otherwise it starts at 0 or is logarithmic
 * @property {string} alternative text for screen readers
 */

const HEIGHT = 240;
const MARGIN = { left: 52, right: 66, top: 14, bottom: 44 };
/** The vertical axis is logarithmic above this ratio of the highest to the lowest value. */
const LOG_RATIO = 4;
/** Curves with more points have a mark only at the end. */
const MAX_MARKS = 24;
/** Labels are moved apart if their ends are nearer to each other, in pixels. */
const NEAR = 64;

/**
 * @param {number[]} values
 * @param {number | undefined} best
 * @param {[number, number]} to pixels
 */
function verticalAxis(values, best, to) {
  const [low, high] = values.length > 0 ? [Math.min(...values), Math.max(...values)] : [0, 1];
  if (best !== undefined) {
    const ticks = linearTicks(best, 4, Math.min(low, 0.9 * best));
    return { y: linear([ticks[0], ticks[ticks.length - 1]], to), ticks };
  }
  if (low > 0 && high / low > LOG_RATIO) {
    const ticks = logTicks(low, high);
    return { y: logarithmic([Math.min(low, ticks[0]), ticks[ticks.length - 1]], to), ticks };
  }
  const ticks = linearTicks(high);
  return { y: linear([0, ticks[ticks.length - 1]], to), ticks };
}

/**
 * @param {Curve[]} curves
 * @param {Options} options
 * @param {number} width
 */
function paint(curves, { axis, minEnd, format, tick: tickText, best, alternative }, width) {
  const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
  const { y, ticks } = verticalAxis(curves.flatMap(({ points }) => points.map((point) => point.y)), best, [bottom, MARGIN.top]);
  const steps = linearTicks(Math.max(minEnd, ...curves.flatMap(({ points }) => points.map((point) => point.x))), right > 320 ? 5 : 3);
  const x = linear([0, steps[steps.length - 1]], [MARGIN.left, right]);
  const drawn = curves.filter(({ points }) => points.length > 0).sort((a, b) => (b.points.at(-1)?.y ?? 0) - (a.points.at(-1)?.y ?? 0));
  const ends = drawn.map(({ points }) => points[points.length - 1]);
  const near = Math.max(...ends.map((end) => x(end.x))) - Math.min(...ends.map((end) => x(end.x))) < NEAR;
  const heights = ends.map((end) => y(end.y));
  const labels = near ? apart(heights) : heights;
  return canvas(
    width,
    HEIGHT,
    alternative,
    ...ticks.map((tick) =>
      s("g", {}, s("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }), s("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tickText(tick))),
    ),
    ...steps.map((step) => s("text", { class: "tick", x: x(step), y: bottom + 18, "text-anchor": "middle" }, step)),
    s("text", { class: "axis", x: (MARGIN.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, axis),
    ...drawn.map(({ tone, points }, i) =>
      s(
        "g",
        { class: tone },
        s("path", { class: "line", d: `M${points.map((point) => `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("L")}` }),
        ...(points.length > MAX_MARKS ? [ends[i]] : points).map((point) => mark(x(point.x), y(point.y), tone)),
      ),
    ),
    ...ends.map((end, i) => s("text", { class: "figure", x: x(end.x) + 11, y: labels[i] + 4 }, format(end.y))), // drawn above all lines
  );
}

export class LearningCurves {
  /** @param {HTMLElement} place */
  constructor(place) {
    place.style.minHeight = `${HEIGHT}px`;
    /** @type {Curve[]} */
    this.curves = [];
    /** @type {Options | null} */
    this.options = null;
    this.plot = new Plot(place, (width) => (this.options === null ? canvas(width, HEIGHT, "") : paint(this.curves, this.options, width)));
  }

  /**
   * @param {Curve[]} curves
   * @param {Options} options
   */
  show(curves, options) {
    this.curves = curves;
    this.options = options;
    this.plot.draw();
  }
}
