/** Table rows of figures: one per model, and the ratio of the first to the second in words. */

import { h } from "../../ui/dom.js";
import { digits, ratioDigits, times, unitFor } from "../../ui/format.js";

/**
 * @import { Metric } from "../../api/types.js"
 * @import { Unit } from "../../ui/format.js"
 */

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {(number | null | undefined)[]} values one per model
 * @property {Unit[]} [units] one of them is chosen for the whole row, so that its figures are comparable
 * @property {[string, string]} [words] for a first value below and above the second, such as "smaller", "larger"
 * @property {string} [ratio] text instead of the computed ratio
 * @property {(value: number) => string} [format]
 */

const NOTHING = "–";
export const NO_DIFFERENCE = "no clear difference";
/** Ratios of rows that "Show differences only" hides. */
const SAME = ["the same", NO_DIFFERENCE];

/**
 * Formats the ratio of the first value to the second: "58× fewer".
 * @param {Pick<Row, "values" | "words" | "ratio">} row
 */
export function ratioText({ values, words, ratio }) {
  if (ratio !== undefined) return ratio;
  const [a, b] = values;
  if (words === undefined || values.length !== 2 || !a || !b) return "";
  const text = ratioDigits(Math.max(a / b, b / a));
  return text === "1.00" ? "the same" : `${text}× ${a < b ? words[0] : words[1]}`;
}

/**
 * Formats the difference of two accuracies: "0.42 points higher".
 * @param {(Metric | null | undefined)[]} metrics
 */
export function pointsDifference([a, b, ...more]) {
  if (a?.name !== "accuracy" || b?.name !== "accuracy" || more.length > 0) return "";
  const points = 100 * (a.value - b.value);
  return Math.abs(points) < 0.005 ? "the same" : `${Math.abs(points).toFixed(2)} points ${points < 0 ? "lower" : "higher"}`;
}

/**
 * Formats the speed of the first model relative to the second: "2.0× as fast".
 * @param {(number | null | undefined)[]} times
 */
export const speedRatio = ([time, other]) => (time && other ? `${times(other / time)} as fast` : "");

/**
 * @param {Row} row
 * @param {boolean} withRatio
 */
export function tableRow(row, withRatio) {
  const known = row.values.filter((value) => value != null);
  const unit = row.units ? unitFor(Math.min(...known.filter((value) => value > 0)), row.units) : null;
  const format = row.format ?? digits;
  const texts = row.values.map((value) => (value == null ? NOTHING : format(value / (unit?.size ?? 1))));
  const ratio = ratioText(row);
  return h(
    "tr",
    { class: texts.length === 2 && (texts[0] === texts[1] || SAME.includes(ratio)) ? "same" : null },
    h("th", { scope: "row" }, row.name, unit && h("span", { class: "unit" }, ` ${unit.name}`)),
    ...texts.map((text) => h("td", {}, text)),
    withRatio && h("td", { class: "ratio" }, ratio),
  );
}
