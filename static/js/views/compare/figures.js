/** A comparison's report in words, and where its figures are found. Pure: report in, words and elements out. */

import { h } from "../../ui/dom.js";
import { count, digits, times } from "../../ui/format.js";
import { shortName, tone } from "../../model/display.js";
import { unbroken } from "../../ui/sentence.js";
import { when } from "../../ui/when.js";

/**
 * @import { Depth, Measured, Pair, Report } from "../../api/types.js"
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

/** @param {{ environment: import("../../api/types.js").Environment, seconds: number, created: string }} report */
export function ranOn({ environment: e, seconds, created }) {
  const threads = e.threads === undefined ? null : `${e.threads} ${e.threads === 1 ? "thread" : "threads"}`;
  const cores = e.cores === undefined ? null : `${e.cores} ${e.cores === 1 ? "core" : "cores"}`;
  const date = when(created);
  /** @type {[string, string | null | undefined][]} */
  const facts = [
    ["Processor", [e.cpu, cores].filter(Boolean).join(", ")],
    ["Provider", [e.provider, threads].filter(Boolean).join(", ")],
    ["System", e.platform],
    ["Versions", [e.onnxruntime && `onnxruntime ${e.onnxruntime}`, e.python && `Python ${e.python}`].filter(Boolean).join(", ")],
    ["Measured", `${date === null ? "" : `${date}, `}in ${digits(seconds)} s`],
  ];
  return h("dl", { class: "ran-on" }, ...facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/**
 * The first pair in one sentence.
 * @param {Report} report
 */
export function headline({ pairs }) {
  return unbroken(pairs[0]?.sentence ?? "Measured.");
}
