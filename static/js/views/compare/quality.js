/** Prediction quality of compared models: accuracy with its interval, differences, confusion matrices. */

import { showIntervals } from "../../charts/intervals.js";
import { shortName, tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { count, digits, percent } from "../../ui/format.js";
import { keepUnits } from "../../ui/text.js";
import { closedPanel, panel } from "../jobs/panels.js";

/**
 * @import { Measured, ModelQuality, Quality, WrongRows } from "../../api/types.js"
 */

/** Larger matrices are unreadable on the page; they are in the report's JSON. */
const MAX_CLASSES = 20;

/**
 * @param {ModelQuality} quality
 * @param {string[]} labels
 * @param {string} colour
 * @param {(wrong: WrongRows, total: number) => void} onPick
 */
function confusionMatrix({ model, confusion, wrong }, labels, colour, onPick) {
  if (!confusion || confusion.length > MAX_CLASSES || confusion.length !== labels.length) return null;
  const most = Math.max(1, ...confusion.flatMap((row, i) => row.filter((_, j) => j !== i)));
  return h(
    "table",
    { class: `confusion ${colour}` },
    h("caption", {}, h("span", { class: "swatch" }), model),
    h("thead", {}, h("tr", {}, h("td", {}), ...labels.map((label) => h("th", { scope: "col" }, label)))),
    h(
      "tbody",
      {},
      ...confusion.map((row, i) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, labels[i]),
          ...row.map((value, j) => {
            const behind = wrong?.find((each) => each.true === i && each.predicted === j);
            const button = behind && h("button", { type: "button", "aria-label": `${count(value)}: ${labels[i]} taken for ${labels[j]} by ${model}` }, count(value));
            button?.addEventListener("click", () => behind && onPick(behind, value));
            const cell = h("td", { class: i === j ? "right" : value > 0 ? "wrong" : "none" }, button ?? (value === 0 ? "·" : count(value)));
            if (i !== j) cell.style.setProperty("--fraction", String(value / most));
            return cell;
          }),
        ),
      ),
    ),
  );
}

/**
 * @param {Quality} quality
 * @param {Measured[]} models
 * @returns {HTMLElement}
 */
export function qualityPanel(quality, models) {
  const known = quality.models.map((each) => ({ ...each, index: models.findIndex(({ model }) => model === each.model) })).filter(({ index }) => index >= 0);
  const accurate = known.filter(({ accuracy }) => accuracy !== null);
  const place = h("div", { class: "chart" });
  if (accurate.length > 0) {
    const lowest = Math.min(...accurate.map(({ accuracy, accuracy_low }) => accuracy_low ?? accuracy ?? 0));
    showIntervals(place, {
      groups: [
        {
          title: `${count(quality.rows)} rows`,
          rows: accurate.map(({ index, accuracy, accuracy_low, accuracy_high }) => ({
            name: shortName(models, index),
            tone: tone(models, index),
            value: accuracy ?? 0,
            low: accuracy_low ?? undefined,
            high: accuracy_high ?? undefined,
            text: percent(accuracy ?? 0, 1),
          })),
        },
      ],
      alternative: `Accuracy on ${count(quality.rows)} rows. ${accurate.map(({ model, accuracy, accuracy_low: low, accuracy_high: high }) => `${model}: ${percent(accuracy ?? 0, 1)}${low !== null && high !== null ? `, 95 % interval ${percent(low, 1)} to ${percent(high, 1)}` : ""}`).join(". ")}.`,
      axis: "accuracy, with its 95 % interval",
      format: (value) => percent(value, 0),
      range: [Math.max(0, Math.floor(lowest * 10 - 0.2) / 10), 1],
    });
  }
  const values = known.filter(({ rmse }) => rmse !== null);
  const sentences = quality.pairs.flatMap(({ a, b, largest_probability_drift: drift, largest_difference: difference }) => [
    ...(drift === null ? [] : [`The probabilities of ${a} and ${b} differ by up to ${digits(drift)}.`]),
    ...(difference === null ? [] : [`The values of ${a} and ${b} differ by up to ${digits(difference)}.`]),
  ]);
  return panel(
    "Quality",
    keepUnits(quality.sentence),
    accurate.length > 0 && place,
    values.length > 0 && h("p", {}, values.map(({ model, rmse }) => `${model}: RMSE ${digits(rmse ?? 0)}`).join("; ")),
    ...sentences.slice(0, 15).map((sentence) => h("p", {}, sentence)),
  );
}

/**
 * @param {Quality} quality
 * @param {Measured[]} models
 * @returns {HTMLElement | null} null without labels, or with too many
 */
export function confusionPanel(quality, models) {
  const behind = h("div", { class: "behind", role: "status", hidden: true });
  /** @param {string} model @returns {(wrong: WrongRows, total: number) => void} */
  const show = (model) => (wrong, total) => {
    behind.hidden = false;
    void import("./behind.js").then((module) => module.showBehind(behind, quality, model, wrong, total));
  };
  const tables = quality.models
    .map((each) => ({ each, index: models.findIndex(({ model }) => model === each.model) }))
    .filter(({ index }) => index >= 0)
    .map(({ each, index }) => confusionMatrix(each, quality.labels ?? [], tone(models, index), show(each.model)))
    .filter((table) => table !== null);
  if (tables.length === 0) return null;
  return closedPanel(
    "Confusion matrix",
    h("p", { class: "muted" }, "Rows: true label. Columns: predicted label. Tinted: wrong predictions; choose one for its samples."),
    h("div", { class: "confusions", tabindex: 0, role: "region", "aria-label": "Confusion matrices" }, ...tables),
    behind,
  );
}
