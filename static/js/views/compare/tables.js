/** Tables of all figures of a comparison's report. */

import { shortName, tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { BYTE_UNITS, TIME_UNITS, count, digits, metric, times } from "../../ui/format.js";
import { MEMORY_UNITS } from "../../ui/text.js";
import { NO_DIFFERENCE, pointsDifference, speedRatio, tableRow } from "../jobs/table-row.js";
import { LAYER_NAMES, batchName, batchSizes, latencyAt, measuredLayers } from "./latency.js";

/**
 * @import { Depth, Latency, Measured, Pair, Report } from "../../api/types.js"
 * @import { Row } from "../jobs/table-row.js"
 */

/**
 * @param {Report} report
 * @returns {{ title: string, rows: Row[] }[]}
 */
function groups({ models, pairs, service_pairs = [] }) {
  /** @param {(model: Measured) => number | null | undefined} get */
  const of = (get) => models.map(get);
  const quality = models.find(({ test_metric }) => test_metric)?.test_metric;
  /** @type {[string, string]} */
  const smaller = ["smaller", "larger"];
  /** @type {{ title: string, rows: Row[] }[]} */
  const found = [
    {
      title: "Network",
      rows: [
        {
          name: `Test ${quality?.name ?? "metric"}${quality?.samples ? `, ${count(quality.samples)} samples` : ""}`,
          values: of((m) => m.test_metric?.value),
          format: (value) => metric({ name: quality?.name ?? "", value }),
          ratio: pointsDifference(models.map(({ test_metric }) => test_metric)),
        },
        { name: "Weights", values: of((m) => m.parameters), format: count, words: ["fewer", "more"] },
        { name: "Bytes of weights", values: of((m) => m.weight_bytes || null), format: count, words: smaller },
        { name: "Multiply-adds per sample", values: of((m) => m.macs_per_sample), format: count, words: ["fewer", "more"] },
        { name: "File", values: of((m) => m.file_bytes), units: BYTE_UNITS, words: smaller },
      ],
    },
  ];
  /** @type {Row[]} */
  const inC = [
    { name: "Bits of a weight", values: of((m) => m.c?.bits), format: count },
    { name: "Flash, weights", values: of((m) => m.c?.weight_bytes), units: BYTE_UNITS, words: smaller },
    { name: "Flash, code", values: of((m) => m.c?.code_bytes), units: BYTE_UNITS, words: smaller },
    { name: "Memory", values: of((m) => m.c?.scratch_bytes), units: BYTE_UNITS, words: smaller },
  ];
  const known = inC.filter(({ values }) => values.some((value) => value != null));
  if (known.length > 0) found.push({ title: "As C code for a microcontroller", rows: known });
  for (const depth of measuredLayers(models)) {
    for (const size of batchSizes(models, depth)) found.push(latencyGroup(models, [...pairs, ...service_pairs], depth, size));
  }
  found.push(
    {
      title: "Process memory",
      rows: [
        { name: "Before loading", values: of((m) => m.memory.baseline_rss_bytes), units: MEMORY_UNITS },
        { name: "Added by loading", values: of((m) => positive(m.memory.session_bytes)), units: MEMORY_UNITS, words: smaller },
        { name: "Kept after running", values: of((m) => positive(m.memory.arena_bytes)), units: MEMORY_UNITS, words: smaller },
        { name: "Loaded", values: of((m) => m.memory.loaded_rss_bytes), units: MEMORY_UNITS, words: smaller },
        { name: "Peak", values: of((m) => m.memory.peak_rss_bytes), units: MEMORY_UNITS, words: smaller },
        { name: "On the device", values: of((m) => m.memory.device_bytes), units: MEMORY_UNITS, words: smaller },
      ],
    },
    {
      title: "Start, measured once", // too few measurements for a ratio
      rows: [
        { name: "Loading", values: of((m) => m.load_ms * 1000), units: TIME_UNITS },
        { name: "First run", values: of((m) => m.first_run_ms * 1000), units: TIME_UNITS },
      ],
    },
  );
  return found;
}

/** @param {number | null | undefined} value a difference of two measurements, which noise may make negative */
const positive = (value) => (value == null ? value : Math.max(0, value));

/**
 * @param {Measured[]} models
 * @param {Pair[]} pairs
 * @param {Depth} depth
 * @param {number} size
 */
function latencyGroup(models, pairs, depth, size) {
  const at = models.map((model) => latencyAt(model, depth, size));
  const two = models.length === 2;
  const pair = two ? pairs.find((p) => p.depth === depth && p.batch_size === size && p.a === models[0].model && p.b === models[1].model) : undefined;
  /** @param {(latency: Latency) => number | null | undefined} get */
  const of = (get) => at.map((latency) => latency && get(latency));
  /** @param {(latency: Latency) => number | null | undefined} get */
  const time = (get) => ({ values: of(get), units: TIME_UNITS, ratio: two ? speedRatio(of(get)) : "" });
  return {
    title: `${batchName(size)}, ${LAYER_NAMES[depth]}${at.some((latency) => latency?.unstable) ? " (unstable: times varied between series)" : ""}`,
    rows: [
      { name: "p50", ...time((l) => l.p50_us), ...(pair && { ratio: pair.verdict !== "not distinguishable" ? `${times(pair.ratio)} as fast` : NO_DIFFERENCE }) },
      { name: "p90", ...time((l) => l.p90_us) },
      { name: "p95", ...time((l) => l.p95_us) },
      { name: "p99", ...time((l) => l.p99_us) },
      { name: "Samples per second", values: of((l) => l.samples_per_s), format: digits, words: /** @type {[string, string]} */ (["fewer", "more"]) },
      { name: "Runs measured", values: of((l) => l.n), format: count },
    ],
  };
}

/** @param {Report} report */
export function figuresTable(report) {
  const { models } = report;
  const withRatio = models.length === 2;
  const columns = 1 + models.length + Number(withRatio);
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All figures"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td", {}),
        ...models.map(({ model }, i) => h("th", { scope: "col", class: tone(models, i) }, h("span", { class: "swatch" }), model)),
        withRatio && h("th", { scope: "col", class: "ratio" }, `${shortName(models, 0)} is`),
      ),
    ),
    ...groups(report).map(({ title, rows }) =>
      h(
        "tbody",
        {},
        h("tr", {}, h("th", { scope: "rowgroup", colspan: columns, class: "group" }, title)),
        ...rows.filter(({ values }) => values.some((value) => value != null)).map((row) => tableRow(row, withRatio)),
      ),
    ),
  );
}

/**
 * Lists every pair at every layer and batch size.
 * @param {Report} report
 */
export function pairsTable({ pairs, service_pairs = [] }) {
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All pairs"),
    h("thead", {}, h("tr", {}, ...["", "with", "layer", "batch", "speed ratio", "95 % interval", "verdict"].map((name) => (name ? h("th", { scope: "col" }, name) : h("td", {}))))),
    h(
      "tbody",
      {},
      ...[...pairs, ...service_pairs].map((pair) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, pair.a),
          h("td", {}, pair.b),
          h("td", {}, pair.depth),
          h("td", {}, count(pair.batch_size)),
          h("td", {}, times(pair.ratio)),
          h("td", {}, `${pair.low.toPrecision(3)} to ${pair.high.toPrecision(3)}`),
          h("td", {}, pair.verdict),
        ),
      ),
    ),
  );
}
