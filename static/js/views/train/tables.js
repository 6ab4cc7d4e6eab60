/** Tables of a training: the trained networks side by side, and all epochs. */

import { roleName } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { BYTE_UNITS, TIME_UNITS, count, digits, metric } from "../../ui/format.js";
import { pointsDifference, speedRatio, tableRow } from "../jobs/table-row.js";
import { lossText, metricName, metricValue } from "./format.js";

/**
 * @import { Row } from "../jobs/table-row.js"
 * @import { MemberProgress } from "./member-progress.js"
 * @import { EpochResult, TrainedMember } from "./types.js"
 */

/** @param {TrainedMember[]} members */
export function resultTable(members) {
  const two = members.length === 2;
  const [{ test_metric: quality }] = members;
  /** @param {(member: TrainedMember) => number | null} get */
  const of = (get) => members.map(get);
  /** @type {[string, string]} */
  const smaller = ["smaller", "larger"];
  /** @type {Row[]} */
  const rows = [
    { name: "Weights", values: of((m) => m.parameters), format: count, words: ["fewer", "more"] },
    { name: "Bytes of weights", values: of((m) => m.weight_bytes || null), format: count, words: smaller },
    ...[
      { name: "As C code: flash, weights", values: of((m) => m.c?.weight_bytes ?? null), units: BYTE_UNITS, words: smaller },
      { name: "As C code: memory", values: of((m) => m.c?.scratch_bytes ?? null), units: BYTE_UNITS, words: smaller },
    ].filter(({ values }) => values.some((value) => value !== null)),
    { name: "Multiply-adds per sample", values: of((m) => m.macs_per_sample), format: count, words: ["fewer", "more"] },
    {
      name: `Test ${metricName(quality.name)}${quality.samples ? `, ${count(quality.samples)} samples` : ""}`,
      values: of((m) => m.test_metric.value),
      format: (value) => metric({ name: quality.name, value }),
      ...(quality.name === "accuracy" ? { ratio: pointsDifference(members.map((m) => m.test_metric)) } : { words: ["smaller", "larger"] }),
    },
    { name: "Training time", values: of((m) => m.training_seconds * 1e6), units: TIME_UNITS, ratio: speedRatio(members.map((m) => m.training_seconds)) },
    { name: "Time per step", values: of((m) => m.ms_per_step * 1e3), units: TIME_UNITS, ratio: speedRatio(members.map((m) => m.ms_per_step)) },
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
 * @param {MemberProgress[]} members
 * @param {string} name of the metric
 */
export function epochTable(members, name) {
  const most = Math.max(0, ...members.map(({ epochs }) => epochs.length));
  /** @param {EpochResult | undefined} epoch */
  const cells = (epoch) => (epoch === undefined ? ["", "", ""] : [digits(epoch.seconds), lossText(epoch.loss), metricValue(name, epoch.test)]);
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All epochs"),
    h(
      "thead",
      {},
      h("tr", {}, h("td", {}), ...members.map((member) => h("th", { scope: "colgroup", colspan: 3, class: member.tone }, h("span", { class: "swatch" }), member.name))),
      h("tr", {}, h("th", { scope: "col" }, "Epoch"), ...members.flatMap(() => ["seconds", "loss", metricName(name)].map((head) => h("th", { scope: "col" }, head)))),
    ),
    h("tbody", {}, ...Array.from({ length: most }, (_, i) => h("tr", {}, h("th", { scope: "row" }, i + 1), ...members.flatMap(({ epochs }) => cells(epochs[i])).map((text) => h("td", {}, text))))),
  );
}
