/** What a training gave, as tables: both networks side by side, and every epoch. */

import { h } from "../../ui/dom.js";
import { TIME, count, digits, metric } from "../../ui/format.js";
import { roleName } from "../../model/display.js";
import { lossWord, metricWord, score } from "./score.js";
import { pointsApart, speed, tableRow } from "../jobs/table-row.js";

/**
 * @import { Lane } from "./lane.js"
 * @import { Row } from "../jobs/table-row.js"
 * @import { EpochResult, TrainedMember } from "./types.js"
 */

/** @param {TrainedMember[]} members */
export function sideBySide(members) {
  const two = members.length === 2;
  const [{ test_metric: quality }] = members;
  /** @param {(member: TrainedMember) => number | null} get */
  const of = (get) => members.map(get);
  /** @type {Row[]} */
  const rows = [
    { name: "Weights", values: of((m) => m.parameters), format: count, words: ["fewer", "more"] },
    { name: "Multiply-adds a sample", values: of((m) => m.macs_per_sample), format: count, words: ["fewer", "more"] },
    {
      name: `Test ${metricWord(quality.name)}${quality.samples ? `, ${count(quality.samples)} samples` : ""}`,
      values: of((m) => m.test_metric.value),
      format: (value) => metric({ name: quality.name, value }),
      ...(quality.name === "accuracy" ? { ratio: pointsApart(members.map((m) => m.test_metric)) } : { words: ["smaller", "larger"] }),
    },
    { name: "Training", values: of((m) => m.training_seconds * 1e6), units: TIME, ratio: speed(members.map((m) => m.training_seconds)) },
    { name: "A step", values: of((m) => m.ms_per_step * 1e3), units: TIME, ratio: speed(members.map((m) => m.ms_per_step)) },
  ];
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "Both networks side by side"),
    h("thead", {}, h("tr", {}, h("td", {}), ...members.map(({ role }) => h("th", { scope: "col", class: `tone-${role}` }, h("span", { class: "swatch" }), roleName(role))), two && h("th", { scope: "col", class: "ratio" }, `${roleName(members[0].role)} is`))),
    h("tbody", {}, ...rows.map((row) => tableRow(row, two))),
  );
}

/**
 * Every point of the charts.
 * @param {Lane[]} lanes
 * @param {string} name of the metric
 */
export function epochTable(lanes, name) {
  const most = Math.max(0, ...lanes.map(({ epochs }) => epochs.length));
  /** @param {EpochResult | undefined} epoch */
  const cells = (epoch) => (epoch === undefined ? ["", "", ""] : [digits(epoch.seconds), lossWord(epoch.loss), score(name, epoch.test)]);
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All epochs"),
    h(
      "thead",
      {},
      h("tr", {}, h("td", {}), ...lanes.map((lane) => h("th", { scope: "colgroup", colspan: 3, class: lane.tone }, h("span", { class: "swatch" }), lane.name))),
      h("tr", {}, h("th", { scope: "col" }, "Epoch"), ...lanes.flatMap(() => ["seconds", "loss", metricWord(name)].map((head) => h("th", { scope: "col" }, head)))),
    ),
    h("tbody", {}, ...Array.from({ length: most }, (_, i) => h("tr", {}, h("th", { scope: "row" }, i + 1), ...lanes.flatMap(({ epochs }) => cells(epochs[i])).map((text) => h("td", {}, text))))),
  );
}
