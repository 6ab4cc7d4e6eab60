/** Interval chart: rows with a mark and a whisker on a common axis, and the figure at the end of the row. */

import { s } from "../ui/dom.js";
import { Plot, canvas, fit, mark } from "./plot.js";
import { linear, linearTicks, logTicks, logarithmic } from "./scale.js";

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} tone classes
 * @property {number} value
 * @property {number} [low] start of the whisker
 * @property {number} [high]
 * @property {number} [far] end of a thinner whisker
 * @property {number} [other] a second value with a hollow mark
 * @property {string} text of the figure
 *
 * @typedef {object} Group
 * @property {string} title
 * @property {Row[]} rows
 *
 * @typedef {object} Chart
 * @property {Group[]} groups
 * @property {string} alternative
 * @property {string} axis quantity and unit
 * @property {(value: number) => string} format of a tick
 * @property {boolean} [log]
 * @property {[number, number]} [range] instead of the rows' range
 * @property {number} [reference] value of a dashed line
 */

const ROW = 26;
const TITLE = 30;
const AXIS = 44;

/** @param {Chart} chart */
export const chartHeight = ({ groups }) => groups.reduce((sum, { rows }) => sum + TITLE + ROW * rows.length, 0) + AXIS;

/**
 * @param {Chart} chart
 * @param {[number, number]} to pixels
 */
function axis({ groups, log, range, reference }, to) {
  const values = groups.flatMap(({ rows }) => rows.flatMap(({ value, low, high, far, other }) => [value, low, high, far, other])).filter((v) => v !== undefined);
  if (reference !== undefined) values.push(reference);
  const [low, high] = range ?? [Math.min(...values), Math.max(...values)];
  if (!log) {
    if (range) return { scale: linear(range, to), ticks: linearTicks(high - low, 3).map((tick) => low + tick).filter((tick) => tick <= high * 1.0001) };
    const ticks = linearTicks(high);
    return { scale: linear([0, ticks[ticks.length - 1]], to), ticks };
  }
  const ticks = logTicks(low, high);
  return { scale: logarithmic([Math.min(low, ticks[0]), ticks[ticks.length - 1]], to), ticks };
}

/**
 * @param {Chart} chart
 * @param {number} width
 */
function paint(chart, width) {
  const rows = chart.groups.flatMap((group) => group.rows);
  const names = Math.min(Math.max(...rows.map(({ name }) => name.length)) * 7.4 + 12, width * 0.36);
  const figures = Math.min(Math.max(...rows.map(({ text }) => text.length)) * 7.9 + 22, width * 0.4);
  const height = chartHeight(chart);
  const [left, right] = [names, width - figures];
  const { scale, ticks } = axis(chart, [left + 6, right - 6]);
  const bottom = height - AXIS + 6;
  let y = 0;
  const drawn = chart.groups.map(({ title, rows: inside }) => {
    y += TITLE;
    const head = s("text", { class: "group-title", x: 0, y: y - 10 }, fit(title, width));
    return s("g", {}, head, ...inside.map((row) => {
      y += ROW;
      return paintRow(row, scale, y - ROW / 2, names, right);
    }));
  });
  const room = Math.max(1, Math.ceil((ticks.length * 52) / Math.max(right - left, 44)));
  return canvas(
    width,
    height,
    chart.alternative,
    ...ticks.map((tick, i) =>
      s(
        "g",
        {},
        s("line", { class: "grid", x1: scale(tick), x2: scale(tick), y1: TITLE - 4, y2: bottom }),
        i % room === 0 && s("text", { class: "tick", x: scale(tick), y: bottom + 15, "text-anchor": "middle" }, chart.format(tick)),
      ),
    ),
    chart.reference !== undefined && s("line", { class: "reference", x1: scale(chart.reference), x2: scale(chart.reference), y1: TITLE - 4, y2: bottom }),
    ...drawn,
    s("text", { class: "axis", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, fit(chart.axis, width)),
  );
}

/**
 * @param {Row} row
 * @param {(value: number) => number} scale
 * @param {number} y
 * @param {number} names width
 * @param {number} right
 */
function paintRow({ name, tone, value, low, high, far, other, text }, scale, y, names, right) {
  return s(
    "g",
    { class: tone },
    s("title", {}, `${name}: ${text}`),
    s("text", { x: 0, y: y + 4 }, fit(name, names - 8)),
    far !== undefined && s("line", { class: "whisker thin", x1: scale(value), x2: scale(far), y1: y, y2: y }),
    far !== undefined && s("line", { class: "whisker thin", x1: scale(far), x2: scale(far), y1: y - 4, y2: y + 4 }),
    low !== undefined && high !== undefined && s("line", { class: "whisker", x1: scale(low), x2: scale(high), y1: y, y2: y }),
    other !== undefined && s("line", { class: "whisker thin", x1: scale(other), x2: scale(value), y1: y, y2: y }),
    other !== undefined && s("g", { class: "hollow" }, mark(scale(other), y, tone)),
    mark(scale(value), y, tone),
    s("text", { class: "figure", x: right + 12, y: y + 4 }, text),
  );
}

/**
 * @param {HTMLElement} place
 * @param {Chart} chart
 */
export function showIntervals(place, chart) {
  place.style.minHeight = `${chartHeight(chart)}px`;
  new Plot(place, (width) => paint(chart, width)).draw();
}
