/** The report of a comparison: the conclusion in words, then charts, then tables of all figures. */

import { barList } from "../../charts/bars.js";
import { showIntervals } from "../../charts/intervals.js";
import { shortName, tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { bytes, count, digits, times, unitFor } from "../../ui/format.js";
import { MEMORY_UNITS, keepUnits, memorySize } from "../../ui/text.js";
import { closedPanel, comparedRegion, environmentPanel, panel, tableRegion } from "../jobs/panels.js";
import { differencesPanel, inputsPanel } from "./inputs.js";
import { batchName, latencyPanel, plainDigits } from "./latency.js";
import { nodesPanel } from "./nodes.js";
import { confusionPanel, qualityPanel } from "./quality.js";
import { figuresTable, pairsTable } from "./tables.js";

/**
 * @import { Measured, Pair, Report } from "../../api/types.js"
 * @import { Presentation } from "../jobs/types.js"
 */

/** Maximum number of findings; further pairs are in the table. */
const MAX_FINDINGS = 8;

/**
 * Formats the interval of a pair's ratio, inverted like the ratio if it is below 1.
 * @param {Pair} pair
 */
function interval({ ratio, low, high }) {
  const [from, to] = ratio >= 1 ? [low, high] : [1 / high, 1 / low];
  const decimals = from < 2 ? 2 : to < 100 ? 1 : 0;
  return `${from.toFixed(decimals)} to ${to.toFixed(decimals)}`;
}

/**
 * Makes one finding per pair and batch size; of more than two models, only pairs with the first.
 * @param {Report} report
 */
function findings({ models, pairs }) {
  const ofFirst = pairs.filter(({ depth, a }) => depth === "session" && a === models[0].model);
  return ofFirst.slice(0, MAX_FINDINGS).map((pair) => {
    const winner = Math.max(0, models.findIndex(({ model }) => model === (pair.ratio >= 1 ? pair.a : pair.b)));
    const loser = Math.max(0, models.findIndex(({ model }) => model === (pair.ratio >= 1 ? pair.b : pair.a)));
    const open = pair.verdict === "not distinguishable";
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

/** @param {Report} report */
function predictionPanel({ models, predictions = [] }) {
  const ofFirst = predictions.filter(({ a }) => a === models[0].model).slice(0, 5);
  if (ofFirst.length === 0) return null;
  const short = new Map(models.map(({ model }, i) => [model, shortName(models, i)]));
  const colour = tone(models, 0);
  const groups = ofFirst.map(({ a, b, time, memory }) => ({
    title: `${short.get(b)} ÷ ${short.get(a)}`,
    rows: [
      ...time.map(({ batch_size, predicted_ratio, measured_ratio }) => ({
        name: batch_size === 1 ? "1 sample" : `${count(batch_size)} samples`,
        tone: colour,
        value: measured_ratio,
        other: predicted_ratio ?? undefined,
        text: `${times(measured_ratio)}${predicted_ratio ? ` of ${times(predicted_ratio)}` : ""}`,
      })),
      ...(memory.measured_ratio && memory.measured_ratio > 0
        ? [{ name: "Memory", tone: colour, value: memory.measured_ratio, other: memory.predicted_ratio ?? undefined, text: `${times(memory.measured_ratio)}${memory.predicted_ratio ? ` of ${times(memory.predicted_ratio)}` : ""}` }]
        : []),
    ],
  }));
  const place = h("div", { class: "chart" });
  showIntervals(place, {
    groups,
    axis: `ratio; above 1, ${short.get(models[0].model)} is better`,
    format: (value) => `${plainDigits(value)}×`,
    log: true,
    reference: 1,
    alternative: `Measured ratios beside those predicted from multiply-adds and bytes of weights. ${groups.map(({ title, rows }) => `${title}: ${rows.map(({ name, text }) => `${name} ${text}`).join("; ")}`).join(". ")}.`,
  });
  const sentences = ofFirst.flatMap((each) => each.sentences);
  return panel(
    "Predicted and measured",
    "Ratios of the time per call, by batch size, and of the memory that loading adds. Hollow: predicted from multiply-adds and bytes of weights. Filled: measured. Left of the dashed line, the first model is worse.",
    place,
    ...sentences.slice(0, 8).map((sentence) => h("p", {}, keepUnits(sentence))),
  );
}

/** @param {Report} report */
function memoryPanel({ models, memory_sentence }) {
  if (models.some(({ memory }) => memory.baseline_rss_bytes === null)) return null;
  const unit = unitFor(Math.max(...models.map(({ memory }) => memory.loaded_rss_bytes ?? 0)), MEMORY_UNITS);
  const bars = models.map((model, i) => {
    const { baseline_rss_bytes: base, session_bytes: session, arena_bytes: arena } = model.memory;
    const [low, own, more] = [base ?? 0, Math.max(0, session ?? 0), Math.max(0, arena ?? 0)];
    return {
      name: shortName(models, i),
      tone: tone(models, i),
      parts: [{ value: low, kind: /** @type {const} */ ("base") }, { value: own, kind: /** @type {const} */ ("own") }, { value: more, kind: /** @type {const} */ ("more") }],
      text: `${digits((low + own + more) / unit.size)} ${unit.name}: ${memorySize(low)} runtime, ${memorySize(own)} model, ${memorySize(more)} kept after running`,
    };
  });
  return panel("Process memory", "Grey: Python, numpy and onnxruntime before loading. Colour: added by loading the model. Pale: kept after running it.", barList(bars, "Process memory"), memory_sentence && h("p", {}, keepUnits(memory_sentence)));
}

/** @param {Measured[]} models */
function filePanel(models) {
  const bars = models.map((model, i) => ({
    name: shortName(models, i),
    tone: tone(models, i),
    parts: [{ value: model.file_bytes, kind: /** @type {const} */ ("own") }],
    text: `${bytes(model.file_bytes)}, of which weights ${bytes(model.initializer_bytes)}`,
  }));
  return panel("File size", "", barList(bars, "File size"));
}

/** @implements {Presentation} */
export class ComparisonPresentation {
  constructor() {
    this.element = h("div", { class: "report" });
  }

  /** @param {Report} report */
  show(report) {
    const { models, pairs, quality, inputs, differences = [], nodes = [] } = report;
    this.element.replaceChildren(
      ...[
        h("p", { class: "headline", role: "status" }, keepUnits(pairs[0]?.sentence ?? "Measured.")),
        h("div", { class: "findings" }, ...findings(report)),
        latencyPanel(models),
        h("div", { class: "panels" }, predictionPanel(report), quality ? qualityPanel(quality, models) : null, memoryPanel(report), filePanel(models)),
        differencesPanel(differences, models.length > 2),
        quality ? confusionPanel(quality, models) : null,
        nodesPanel(nodes, models),
        closedPanel("All figures", comparedRegion("All figures", figuresTable(report))),
        models.length > 2 ? closedPanel("All pairs", tableRegion("All pairs", pairsTable(report))) : null,
        inputs ? inputsPanel(inputs) : null,
        environmentPanel(report),
      ].filter((each) => each !== null),
    );
  }
}
