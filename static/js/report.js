/** A comparison's report as words and as a table. Pure: report in, elements out. */

import { h } from "./dom.js";
import { BYTES, MEMORY, TIME, count, digits, metric, times } from "./format.js";
import { shortName, tone } from "./models.js";
import { pointsApart, speed, tableRow } from "./tablerow.js";

/**
 * @import { Row } from "./tablerow.js"
 * @import { Depth, Latency, Measured, Pair, Report } from "./types.js"
 */

/** @type {Record<Depth, string>} */
export const DEPTH_NAMES = { session: "the session alone", queue: "through the queue", http: "over HTTP" };

/** @param {number} size */
export const batchName = (size) => (size === 1 ? "One sample at a time" : `${count(size)} samples at a time`);

/** @param {Pair} pair */
export const distinguishable = ({ verdict }) => verdict !== "not distinguishable";

/**
 * The interval of a pair, as the ratio is told: above 1.
 * @param {Pair} pair
 */
export function interval({ ratio, low, high }) {
  const [from, to] = ratio >= 1 ? [low, high] : [1 / high, 1 / low];
  const decimals = from < 2 ? 2 : to < 100 ? 1 : 0;
  return `${from.toFixed(decimals)} to ${to.toFixed(decimals)}`;
}

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
          ratio: pointsApart(models.map(({ test_metric }) => test_metric)),
        },
        { name: "Weights", values: of((m) => m.parameters), format: count, words: ["fewer", "more"] },
        { name: "Multiply-adds a sample", values: of((m) => m.macs_per_sample), format: count, words: ["fewer", "more"] },
        { name: "File", values: of((m) => m.file_bytes), units: BYTES, words: smaller },
      ],
    },
  ];
  for (const depth of depths(models)) {
    for (const size of batchSizes(models, depth)) found.push(timing(models, [...pairs, ...service_pairs], depth, size));
  }
  found.push(
    {
      title: "Memory of a process",
      rows: [
        { name: "Before loading", values: of((m) => m.memory.baseline_rss_bytes), units: MEMORY },
        { name: "Added by loading", values: of((m) => positive(m.memory.session_bytes)), units: MEMORY, words: smaller },
        { name: "Kept after running", values: of((m) => positive(m.memory.arena_bytes)), units: MEMORY, words: smaller },
        { name: "Loaded", values: of((m) => m.memory.loaded_rss_bytes), units: MEMORY, words: smaller },
        { name: "Peak", values: of((m) => m.memory.peak_rss_bytes), units: MEMORY, words: smaller },
        { name: "On the device", values: of((m) => m.memory.device_bytes), units: MEMORY, words: smaller },
      ],
    },
    {
      title: "Start, measured once", // so there is no ratio worth telling
      rows: [
        { name: "Loading", values: of((m) => m.load_ms * 1000), units: TIME },
        { name: "First run", values: of((m) => m.first_run_ms * 1000), units: TIME },
      ],
    },
  );
  return found;
}

/** @param {number | null | undefined} value a difference of two measurements may come out below 0 */
const positive = (value) => (value == null ? value : Math.max(0, value));

/**
 * @param {Measured[]} models
 * @param {Pair[]} pairs
 * @param {Depth} depth
 * @param {number} size
 */
function timing(models, pairs, depth, size) {
  const at = models.map((model) => latencyAt(model, depth, size));
  const two = models.length === 2;
  const pair = two ? pairs.find((p) => p.depth === depth && p.batch_size === size && p.a === models[0].model && p.b === models[1].model) : undefined;
  /** @param {(latency: Latency) => number | null | undefined} get */
  const of = (get) => at.map((latency) => latency && get(latency));
  /** @param {(latency: Latency) => number | null | undefined} get */
  const timed = (get) => ({ values: of(get), units: TIME, ratio: two ? speed(of(get)) : "" });
  return {
    title: `${batchName(size)}, ${DEPTH_NAMES[depth]}${at.some((latency) => latency?.unstable) ? " (unstable: times varied between series)" : ""}`,
    rows: [
      { name: "p50", ...timed((l) => l.p50_us), ...(pair && { ratio: distinguishable(pair) ? `${times(pair.ratio)} as fast` : "not distinguishable" }) },
      { name: "p90", ...timed((l) => l.p90_us) },
      { name: "p95", ...timed((l) => l.p95_us) },
      { name: "p99", ...timed((l) => l.p99_us) },
      { name: "Samples a second", values: of((l) => l.samples_per_s), format: digits, words: /** @type {[string, string]} */ (["fewer", "more"]) },
      { name: "Runs measured", values: of((l) => l.n), format: count },
    ],
  };
}

/** @param {Measured} model */
const latencies = ({ latency, service_latency = [] }) => [...latency, ...service_latency];

/**
 * @param {Measured} model
 * @param {Depth} depth
 * @param {number} size
 */
export const latencyAt = (model, depth, size) => latencies(model).find((l) => l.depth === depth && l.batch_size === size);

/** @param {Measured[]} models */
export function depths(models) {
  return /** @type {Depth[]} */ (["session", "queue", "http"]).filter((depth) => models.some((model) => latencies(model).some((l) => l.depth === depth)));
}

/**
 * @param {Measured[]} models
 * @param {Depth} depth
 */
export function batchSizes(models, depth) {
  const sizes = models.flatMap((model) => latencies(model).filter((l) => l.depth === depth).map((l) => l.batch_size));
  return [...new Set(sizes)].sort((a, b) => a - b);
}

/** @param {Report} report */
export function reportTable(report) {
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

/** Of more pairs the table tells. */
const MAX_FINDINGS = 8;

/**
 * The findings: per pair and batch size the ratio, large. Of more than two models, those of the first with each other.
 * @param {Report} report
 */
export function findings({ models, pairs }) {
  const ofFirst = pairs.filter(({ depth, a }) => depth === "session" && a === models[0].model);
  return ofFirst.slice(0, MAX_FINDINGS).map((pair) => {
    const winner = Math.max(0, models.findIndex(({ model }) => model === (pair.ratio >= 1 ? pair.a : pair.b)));
    const loser = Math.max(0, models.findIndex(({ model }) => model === (pair.ratio >= 1 ? pair.b : pair.a)));
    const open = !distinguishable(pair);
    const than = models.length > 2 ? ` than ${shortName(models, loser)}` : "";
    const between = models.length > 2 ? `, ${shortName(models, winner)} and ${shortName(models, loser)}` : "";
    return h(
      "div",
      { class: `finding ${open ? "" : tone(models, winner)}` },
      h("p", { class: "figure-number" }, open ? "≈" : times(Math.max(pair.ratio, 1 / pair.ratio))),
      h(
        "p",
        {},
        h("strong", {}, open ? `No clear difference${between}` : `${shortName(models, winner)} is faster${than}`),
        h("br"),
        `${batchName(pair.batch_size)} `,
        h("span", { class: "muted" }, `(95 % interval ${interval(pair)})`),
      ),
    );
  });
}

/**
 * Every pair at every depth, where there are more than two models.
 * @param {Report} report
 */
export function pairTable({ pairs, service_pairs = [] }) {
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All pairs"),
    h("thead", {}, h("tr", {}, ...["", "with", "depth", "batch", "is … as fast", "95 % interval", "verdict"].map((name) => (name ? h("th", { scope: "col" }, name) : h("td", {}))))),
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

/** @param {{ environment: import("./types.js").Environment, seconds: number, created: string }} report */
export function ranOn({ environment: e, seconds, created }) {
  const threads = e.threads === undefined ? null : `${e.threads} ${e.threads === 1 ? "thread" : "threads"}`;
  const cores = e.cores === undefined ? null : `${e.cores} ${e.cores === 1 ? "core" : "cores"}`;
  const when = new Date(created);
  /** @type {[string, string | null | undefined][]} */
  const facts = [
    ["Processor", [e.cpu, cores].filter(Boolean).join(", ")],
    ["Provider", [e.provider, threads].filter(Boolean).join(", ")],
    ["System", e.platform],
    ["Versions", [e.onnxruntime && `onnxruntime ${e.onnxruntime}`, e.python && `Python ${e.python}`].filter(Boolean).join(", ")],
    ["Measured", `${Number.isNaN(when.getTime()) ? "" : `${when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })}, `}in ${digits(seconds)} s`],
  ];
  return h("dl", { class: "ran-on" }, ...facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/**
 * The first pair in one sentence.
 * @param {Report} report
 */
export function headline({ pairs }) {
  return pairs[0]?.sentence ?? "Measured.";
}
