/** The page of one comparison's report: the verdict in words first, then pictures, then every figure. */

import { barList } from "../../charts/bars.js";
import { showIntervals } from "../../charts/intervals.js";
import { h } from "../../ui/dom.js";
import { TIME, bytes, count, digits, duration, times, unitFor } from "../../ui/format.js";
import { MEMORY, memory } from "../../ui/memory.js";
import { shortName, tone } from "../../model/display.js";
import { confusionPanel, qualityPanel } from "./quality.js";
import { DEPTH_NAMES, batchName, batchSizes, depths, findings, headline, latencyAt, ranOn } from "./figures.js";
import { pairTable, reportTable } from "./tables.js";
import { unbroken } from "../../ui/sentence.js";

/**
 * @import { Child } from "../../ui/dom.js"
 * @import { Presentation } from "../jobs/job-view.js"
 * @import { Depth, Measured, Report } from "../../api/types.js"
 */

/**
 * @param {string} title
 * @param {string} note
 * @param {...Child} children
 */
const panel = (title, note, ...children) => h("section", { class: "panel" }, h("h2", {}, title), note && h("p", { class: "muted" }, note), ...children);

/**
 * A long table, folded away: the pictures tell its main part.
 * @param {string} title
 * @param {HTMLElement} table
 */
const folded = (title, table) => h("details", { class: "panel" }, h("summary", {}, h("h2", {}, title)), h("div", { class: "table", tabindex: 0, role: "region", "aria-label": title }, table));

/**
 * @param {Measured[]} models
 * @param {Depth} depth
 * @returns {HTMLElement}
 */
function latencyChart(models, depth) {
  const place = h("div", { class: "chart" });
  const sizes = batchSizes(models, depth);
  const all = sizes.flatMap((size) => models.map((model) => latencyAt(model, depth, size))).filter((l) => l !== undefined);
  const unit = unitFor(Math.min(...all.map(({ p50_us }) => p50_us)), TIME);
  const groups = sizes.map((size) => ({
    title: batchName(size),
    rows: models.flatMap((model, i) => {
      const l = latencyAt(model, depth, size);
      if (l === undefined) return [];
      return [{ name: shortName(models, i), tone: tone(models, i), value: l.p50_us, low: l.p50_us, high: l.p95_us, far: l.p99_us ?? undefined, text: `${duration(l.p50_us)}${l.unstable ? " ?" : ""}` }];
    }),
  }));
  const spread = all.flatMap(({ p50_us, p95_us }) => [p50_us, p95_us]);
  showIntervals(place, {
    groups,
    axis: `time of one call, ${unit.name}`,
    format: (value) => digitsPlain(value / unit.size),
    log: Math.max(...spread) / Math.min(...spread) > 6,
    alternative: `Latency of ${DEPTH_NAMES[depth]}. ${groups.map(({ title, rows }) => `${title}: ${rows.map(({ name, text, high }) => `${name} median ${text}, 95th percentile ${duration(high)}`).join("; ")}`).join(". ")}.`,
  });
  return h("figure", {}, h("figcaption", {}, DEPTH_NAMES[depth].replace(/^./, (first) => first.toUpperCase())), place);
}

/** @param {Measured} model */
const unstable = ({ latency, service_latency = [] }) => [...latency, ...service_latency].some((each) => each.unstable);

/** @param {number} value */
const digitsPlain = (value) => (value >= 1 ? count(value) : String(Number(value.toPrecision(1))));

/** @param {Report} report */
function expectationPanel({ models, predictions = [] }) {
  const ofFirst = predictions.filter(({ a }) => a === models[0].model).slice(0, 5);
  if (ofFirst.length === 0) return null;
  const short = new Map(models.map(({ model }, i) => [model, shortName(models, i)]));
  const colour = tone(models, 0);
  const groups = ofFirst.map(({ a, b, time, memory: kept }) => ({
    title: `${short.get(b)} ÷ ${short.get(a)}`,
    rows: [
      ...time.map(({ batch_size, predicted_ratio, measured_ratio }) => ({
        name: batch_size === 1 ? "1 sample" : `${count(batch_size)} samples`,
        tone: colour,
        value: measured_ratio,
        other: predicted_ratio ?? undefined,
        text: `${times(measured_ratio)}${predicted_ratio ? ` of ${times(predicted_ratio)}` : ""}`,
      })),
      ...(kept.measured_ratio && kept.measured_ratio > 0
        ? [{ name: "Memory", tone: colour, value: kept.measured_ratio, other: kept.predicted_ratio ?? undefined, text: `${times(kept.measured_ratio)}${kept.predicted_ratio ? ` of ${times(kept.predicted_ratio)}` : ""}` }]
        : []),
    ],
  }));
  const place = h("div", { class: "chart" });
  showIntervals(place, {
    groups,
    axis: `above 1, ${short.get(models[0].model)} is better`,
    format: (value) => `${digitsPlain(value)}×`,
    log: true,
    reference: 1,
    alternative: `Measured ratios beside those that multiply-adds and bytes of weights promise. ${groups.map(({ title, rows }) => `${title}: ${rows.map(({ name, text }) => `${name} ${text}`).join("; ")}`).join(". ")}.`,
  });
  const sentences = ofFirst.flatMap((each) => each.sentences);
  return panel(
    "Promised and measured",
    "Time of a call of so many samples, and memory that loading adds. Hollow: what multiply-adds and bytes of weights promise. Filled: what was measured. Left of the line, the first model loses.",
    place,
    ...sentences.slice(0, 8).map((sentence) => h("p", {}, unbroken(sentence))),
  );
}

/** @param {Report} report */
function memoryPanel({ models, memory_sentence }) {
  if (models.some(({ memory: m }) => m.baseline_rss_bytes === null)) return null;
  const unit = unitFor(Math.max(...models.map(({ memory: m }) => m.loaded_rss_bytes ?? 0)), MEMORY);
  const bars = models.map((model, i) => {
    const { baseline_rss_bytes: base, session_bytes: session, arena_bytes: arena } = model.memory;
    const [low, own, more] = [base ?? 0, Math.max(0, session ?? 0), Math.max(0, arena ?? 0)];
    return {
      name: shortName(models, i),
      tone: tone(models, i),
      parts: [{ value: low, kind: /** @type {const} */ ("base") }, { value: own, kind: /** @type {const} */ ("own") }, { value: more, kind: /** @type {const} */ ("more") }],
      text: `${digits((low + own + more) / unit.size)} ${unit.name}: ${memory(low)} runtime, ${memory(own)} model, ${memory(more)} kept after running`,
    };
  });
  return panel("Memory of a process", "Grey: Python, numpy and onnxruntime before loading. Colour: added by the model. Pale: kept after running.", barList(bars, "Memory of a process"), memory_sentence && h("p", {}, unbroken(memory_sentence)));
}

/** @param {Report} report */
function filePanel({ models }) {
  const bars = models.map((model, i) => ({
    name: shortName(models, i),
    tone: tone(models, i),
    parts: [{ value: model.file_bytes, kind: /** @type {const} */ ("own") }],
    text: `${bytes(model.file_bytes)}, of it weights ${bytes(model.initializer_bytes)}`,
  }));
  return panel("File", "", barList(bars, "Size of the files"));
}

/** @implements {Presentation} */
export class ComparisonPage {
  constructor() {
    this.element = h("div", { class: "report" });
  }

  /** @param {Report} report */
  show(report) {
    const { models, quality } = report;
    this.element.replaceChildren(
      ...[
        h("p", { class: "headline", role: "status" }, headline(report)),
        h("div", { class: "findings" }, ...findings(report)),
        h(
          "section",
          { class: "panel" },
          h("h2", {}, "Latency"),
          h("p", { class: "muted" }, `Mark: median. Whisker: up to the 95th percentile; thin: up to the 99th.${models.some(unstable) ? " Question mark: unstable, the times varied between series." : ""}`),
          h("div", { class: "depths" }, ...depths(models).map((depth) => latencyChart(models, depth))),
        ),
        h("div", { class: "panels" }, expectationPanel(report), memoryPanel(report), filePanel(report), quality ? qualityPanel(quality, models) : null),
        quality ? confusionPanel(quality, models) : null,
        folded("All figures", reportTable(report)),
        models.length > 2 ? folded("All pairs", pairTable(report)) : null,
        panel("What it ran on", "", ranOn(report)),
      ].filter((each) => each !== null),
    );
  }
}
