/** Chart of a ratio by the width of a network: a line per rank, its interval as a band, a dashed line at 1. */

import { s } from "../ui/dom.js";
import { count } from "../ui/format.js";
import { Plot, apart, canvas, mark } from "./plot.js";
import { logTicks, logarithmic } from "./scale.js";

/**
 * @typedef {object} Curve
 * @property {string} name
 * @property {string} tone classes
 * @property {{ x: number, y: number, low: number, high: number, clear: boolean }[]} points
 *
 * @typedef {object} Crossover
 * @property {Curve[]} curves
 * @property {number[]} widths
 * @property {[number, number]} range of the ratios, equal for charts side by side
 * @property {string} alternative
 */

const HEIGHT = 280;
const MARGIN = { left: 56, right: 64, top: 14, bottom: 44 };

/**
 * @param {Crossover} chart
 * @param {number} width
 */
function paint({ curves, widths, range, alternative }, width) {
  const ticks = logTicks(...range);
  const right = width - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const x = logarithmic([Math.min(...widths), Math.max(...widths, Math.min(...widths) * 1.01)], [MARGIN.left + 8, right - 8]);
  const y = logarithmic([Math.min(range[0], ticks[0]), ticks[ticks.length - 1]], [bottom, MARGIN.top]);
  const at = (/** @type {number} */ a, /** @type {number} */ b) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`;
  const drawn = curves.filter(({ points }) => points.length > 0).sort((a, b) => b.points[b.points.length - 1].y - a.points[a.points.length - 1].y);
  const labels = apart(drawn.map(({ points }) => y(points[points.length - 1].y)));
  let last = -Infinity;
  return canvas(
    width,
    HEIGHT,
    alternative,
    ...ticks.map((tick) =>
      s("g", {}, s("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }), s("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, `${tick < 1 ? tick : count(tick)}×`)),
    ),
    ...widths.map((size) => {
      if (x(size) - last < 38) return null;
      last = x(size);
      return s("text", { class: "tick", x: x(size), y: bottom + 18, "text-anchor": "middle" }, count(size));
    }),
    s("line", { class: "reference", x1: MARGIN.left, x2: right, y1: y(1), y2: y(1) }),
    s("text", { class: "axis", x: (MARGIN.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "layer width"),
    ...drawn.map(({ name, tone, points }, i) =>
      s(
        "g",
        { class: tone },
        s("path", { class: "band", d: `M${points.map((p) => at(p.x, p.high)).join("L")}L${[...points].reverse().map((p) => at(p.x, p.low)).join("L")}Z` }),
        s("path", { class: "line", d: `M${points.map((p) => at(p.x, p.y)).join("L")}` }),
        ...points.map((p) => s("g", { class: p.clear ? "" : "hollow" }, mark(x(p.x), y(p.y), tone))),
        s("text", { x: x(points[points.length - 1].x) + 12, y: labels[i] + 4 }, name),
      ),
    ),
  );
}

/**
 * @param {HTMLElement} place
 * @param {Crossover} chart
 */
export function showCrossover(place, chart) {
  place.style.minHeight = `${HEIGHT}px`;
  new Plot(place, (width) => paint(chart, width)).draw();
}
