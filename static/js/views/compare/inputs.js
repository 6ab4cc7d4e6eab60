/** The inputs of a comparison, and how far the outputs of the models are apart on them. */

import { h } from "../../ui/dom.js";
import { count, digits, percent } from "../../ui/format.js";
import { capitalized } from "../../ui/text.js";
import { panel, tableRegion } from "../jobs/panels.js";

/**
 * @import { MeasuredInputs, OutputDifference } from "../../api/types.js"
 */

/** Further rows are in the report's JSON. */
const MAX_ROWS = 60;

/** @param {MeasuredInputs} inputs */
export function inputsPanel({ source, name, rows, notes = [] }) {
  const [first, ...more] = source === "generated" ? name.split("; ") : [name];
  const from = source === "uploaded" ? `File ${first}` : capitalized(first);
  return panel(
    "Inputs",
    `${count(rows)} ${rows === 1 ? "row" : "rows"}, the same for all models.`,
    h("p", { class: "origin" }, [from, ...more].join("; ")),
    ...notes.map((note) => h("p", {}, note)),
  );
}

/** @type {[string, (difference: OutputDifference) => string | null][]} */
const COLUMNS = [
  ["largest", ({ largest }) => (largest === null ? null : digits(largest))],
  ["mean", ({ mean }) => (mean === null ? null : digits(mean))],
  ["cosine similarity", ({ cosine }) => (cosine === null ? null : cosine.toFixed(5))],
  ["lowest of a row", ({ lowest_cosine }) => (lowest_cosine === null ? null : lowest_cosine.toFixed(5))],
  ["same class", ({ equal_top1 }) => (equal_top1 === null ? null : percent(equal_top1, 1))],
  ["equal", ({ equal }) => (equal === null ? null : percent(equal, 1))],
];

/**
 * @param {OutputDifference[]} differences
 * @param {boolean} named whether each row names its models
 * @returns {HTMLElement | null}
 */
export function differencesPanel(differences, named) {
  if (differences.length === 0) return null;
  const columns = COLUMNS.filter(([, text]) => differences.some((each) => text(each) !== null));
  const rows = differences.slice(0, MAX_ROWS).map((each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, each.output),
      named && h("td", {}, `${each.a}, ${each.b}`),
      ...columns.map(([, text]) => h("td", {}, text(each) ?? "")),
    ),
  );
  const without = differences.filter((each) => COLUMNS.every(([, text]) => text(each) === null)).map(({ sentence }) => sentence);
  const [{ a, b, rows: measured }] = differences;
  return panel(
    "Differences of the outputs",
    `${named ? "Each pair" : `${a} and ${b}`} on ${measured === 1 ? "one row" : `the same ${count(measured)} rows`}. Largest and mean: absolute differences of numbers.`,
    columns.length > 0 &&
      tableRegion(
        "Differences of the outputs",
        h(
          "table",
          {},
          h("caption", { class: "sr-only" }, "Differences of the outputs"),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "output"), named && h("th", { scope: "col" }, "models"), ...columns.map(([name]) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, ...rows),
        ),
      ),
    ...without.slice(0, MAX_ROWS).map((sentence) => h("p", {}, sentence)),
  );
}
