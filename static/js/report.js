/** A comparison's report as words and as a table. Pure: report in, elements out. */

import { h } from "./dom.js";
import { BYTES, TIME, count, digits, metric, ratioDigits, times, unitFor } from "./format.js";
import { shortName, tone } from "./models.js";

/**
 * @import { Unit } from "./format.js"
 * @import { Latency, Measured, Pair, Report } from "./types.js"
 */

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {(number | null | undefined)[]} values one per model
 * @property {Unit[]} [units] of which one is chosen for the whole row, so that the figures can be compared
 * @property {[string, string]} [words] for a first value below the second, and above: "smaller", "larger"
 * @property {string} [ratio] instead of the computed one
 * @property {(value: number) => string} [format]
 */

const NOTHING = "–";

/** @param {number} size */
const batchName = (size) => (size === 1 ? "One sample at a time" : `${count(size)} samples at a time`);

/**
 * "58× fewer": how the first value stands to the second.
 * @param {Row} row
 */
function ratioText({ values, words, ratio }) {
  if (ratio !== undefined) return ratio;
  const [a, b] = values;
  if (words === undefined || values.length !== 2 || !a || !b) return "";
  const text = ratioDigits(Math.max(a / b, b / a));
  return text === "1.00" ? "the same" : `${text}× ${a < b ? words[0] : words[1]}`;
}

/** @param {Pair} pair */
const distinguishable = ({ verdict }) => verdict !== "not distinguishable";

/**
 * How the times of two models stand to each other, in the words that the service's sentences use: 2.0× as fast.
 * @param {number | null | undefined} time
 * @param {number | null | undefined} other
 */
const speed = (time, other) => (time && other ? `${times(other / time)} as fast` : "");

/**
 * The interval of a pair, as the ratio is told: above 1.
 * @param {Pair} pair
 */
function interval({ ratio, low, high }) {
  const [from, to] = ratio >= 1 ? [low, high] : [1 / high, 1 / low];
  const decimals = from < 2 ? 2 : to < 100 ? 1 : 0;
  return `${from.toFixed(decimals)} to ${to.toFixed(decimals)}`;
}

/**
 * @param {Report} report
 * @returns {{ title: string, rows: Row[] }[]}
 */
function groups({ models, pairs }) {
  /** @param {(model: Measured) => number | null | undefined} get */
  const of = (get) => models.map(get);
  const quality = models.find(({ test_metric }) => test_metric)?.test_metric;
  /** @type {[string, string]} */
  const smaller = ["smaller", "larger"];
  const accuracy = of((m) => m.test_metric?.value);
  const [first, second] = accuracy;
  const points = quality?.name === "accuracy" && models.length === 2 && first != null && second != null ? 100 * (first - second) : null;
  /** @type {{ title: string, rows: Row[] }[]} */
  const found = [
    {
      title: "Network",
      rows: [
        {
          name: `Test ${quality?.name ?? "metric"}${quality?.samples ? `, ${count(quality.samples)} samples` : ""}`,
          values: accuracy,
          format: (value) => metric({ name: quality?.name ?? "", value }),
          ratio: points === null ? "" : Math.abs(points) < 0.005 ? "the same" : `${Math.abs(points).toFixed(2)} points ${points < 0 ? "lower" : "higher"}`,
        },
        { name: "Weights", values: of((m) => m.parameters), format: count, words: ["fewer", "more"] },
        { name: "Multiply-adds a sample", values: of((m) => m.macs_per_sample), format: count, words: ["fewer", "more"] },
        { name: "File", values: of((m) => m.file_bytes), units: BYTES, words: smaller },
      ],
    },
  ];
  for (const size of models[0]?.latency.map(({ batch_size }) => batch_size) ?? []) {
    const at = latencyAt(models, size);
    const pair = models.length === 2 ? pairs.find((p) => p.batch_size === size && p.a === models[0].model && p.b === models[1].model) : undefined;
    const unstable = at((l) => Number(l.unstable ?? false)).some(Boolean);
    /** @param {(latency: Latency) => number | null | undefined} get */
    const timed = (get) => ({ values: at(get), units: TIME, ratio: models.length === 2 ? speed(at(get)[0], at(get)[1]) : "" });
    found.push({
      title: `${batchName(size)}${unstable ? " (unstable: times varied between series)" : ""}`,
      rows: [
        { name: "p50", ...timed((l) => l.p50_us), ...(pair && { ratio: distinguishable(pair) ? `${times(pair.ratio)} as fast` : "not distinguishable" }) },
        { name: "p95", ...timed((l) => l.p95_us) },
        { name: "p99", ...timed((l) => l.p99_us) },
        { name: "Samples a second", values: at((l) => l.samples_per_s), format: digits, words: ["fewer", "more"] },
        { name: "Runs measured", values: at((l) => l.n), format: count },
      ],
    });
  }
  found.push(
    {
      title: "Memory of a process",
      rows: [
        { name: "Before loading", values: of((m) => m.memory.baseline_rss_bytes), units: BYTES },
        { name: "Added by loading", values: of((m) => Math.max(0, m.memory.loaded_rss_bytes - m.memory.baseline_rss_bytes)), units: BYTES, words: smaller },
        { name: "Loaded", values: of((m) => m.memory.loaded_rss_bytes), units: BYTES, words: smaller },
        { name: "Peak", values: of((m) => m.memory.peak_rss_bytes), units: BYTES, words: smaller },
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

/**
 * @param {Measured[]} models
 * @param {number} size
 */
function latencyAt(models, size) {
  return (/** @type {(latency: Latency) => number | null | undefined} */ get) =>
    models.map(({ latency }) => {
      const found = latency.find(({ batch_size }) => batch_size === size);
      return found && get(found);
    });
}

/**
 * @param {Row} row
 * @param {Measured[]} models
 * @param {boolean} withRatio
 */
function tableRow(row, models, withRatio) {
  const known = row.values.filter((value) => value != null);
  const unit = row.units ? unitFor(Math.min(...known.filter((value) => value > 0)), row.units) : null;
  const format = row.format ?? digits;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, row.name, unit && h("span", { class: "unit" }, ` ${unit.name}`)),
    ...row.values.map((value, i) =>
      h("td", { class: `tone-${tone(models[i].role, i)}` }, value == null ? NOTHING : format(value / (unit?.size ?? 1))),
    ),
    withRatio && h("td", { class: "ratio" }, ratioText(row)),
  );
}

/** @param {Report} report */
export function reportTable(report) {
  const { models } = report;
  const withRatio = models.length === 2;
  const columns = 1 + models.length + Number(withRatio);
  return h(
    "table",
    {},
    h("caption", {}, "All figures"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td", {}),
        ...models.map(({ model, role }, i) => h("th", { scope: "col", class: `tone-${tone(role, i)}` }, h("span", { class: "swatch" }), model)),
        withRatio && h("th", { scope: "col", class: "ratio" }, `${shortName(models, 0)} is`),
      ),
    ),
    ...groups(report).map(({ title, rows }) =>
      h(
        "tbody",
        {},
        h("tr", {}, h("th", { scope: "rowgroup", colspan: columns, class: "group" }, title)),
        ...rows.filter(({ values }) => values.some((value) => value != null)).map((row) => tableRow(row, models, withRatio)),
      ),
    ),
  );
}

/**
 * The findings: per pair and batch size the ratio, large, and the service's sentence.
 * @param {Report} report
 */
export function findings({ models, pairs }) {
  return pairs.map((pair) => {
    const winner = Math.max(0, models.findIndex(({ model }) => model === (pair.ratio >= 1 ? pair.a : pair.b)));
    const open = !distinguishable(pair);
    return h(
      "div",
      { class: `finding ${open ? "" : `tone-${tone(models[winner].role, winner)}`}` },
      h("p", { class: "figure-number" }, open ? "≈" : times(Math.max(pair.ratio, 1 / pair.ratio))),
      h(
        "p",
        {},
        h("strong", {}, open ? "No clear difference" : `${shortName(models, winner)} is faster`),
        h("br"),
        `${batchName(pair.batch_size)} `,
        h("span", { class: "muted" }, `(95 % interval ${interval(pair)})`),
      ),
    );
  });
}

/**
 * The first pair in one sentence.
 * @param {Report} report
 */
export function headline({ pairs }) {
  const [pair] = pairs;
  if (pair === undefined) return "Measured.";
  if (pair.sentence) return pair.sentence;
  const what = distinguishable(pair) ? `is ${times(pair.ratio)} as fast as` : "and";
  return `At batch size ${pair.batch_size}, ${pair.a} ${what} ${pair.b}${distinguishable(pair) ? "" : " are not distinguishable"}.`;
}

/** @param {Report} report */
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
