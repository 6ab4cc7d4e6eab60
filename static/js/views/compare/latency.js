/** Latencies of a comparison: lookup by layer and batch size, and their charts. */

import { showIntervals } from "../../charts/intervals.js";
import { shortName, tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { TIME_UNITS, count, duration, unitFor } from "../../ui/format.js";
import { capitalized } from "../../ui/text.js";

/**
 * @import { Depth, Measured } from "../../api/types.js"
 */

/** @type {Record<Depth, string>} */
export const LAYER_NAMES = { session: "the session alone", queue: "through the queue", http: "over HTTP" };

/** @param {number} size */
export const batchName = (size) => (size === 1 ? "One sample at a time" : `${count(size)} samples at a time`);

/** @param {Measured} model */
const latencies = ({ latency, service_latency = [] }) => [...latency, ...service_latency];

/**
 * @param {Measured} model
 * @param {Depth} depth
 * @param {number} size
 */
export const latencyAt = (model, depth, size) => latencies(model).find((l) => l.depth === depth && l.batch_size === size);

/** @param {Measured[]} models */
export function measuredLayers(models) {
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

/** @param {number} value */
export const plainDigits = (value) => (value >= 1 ? count(value) : String(Number(value.toPrecision(1))));

/**
 * @param {Measured[]} models
 * @param {Depth} depth
 */
function chart(models, depth) {
  const place = h("div", { class: "chart" });
  const sizes = batchSizes(models, depth);
  const all = sizes.flatMap((size) => models.map((model) => latencyAt(model, depth, size))).filter((l) => l !== undefined);
  const unit = unitFor(Math.min(...all.map(({ p50_us }) => p50_us)), TIME_UNITS);
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
    axis: `time per call, ${unit.name}`,
    format: (value) => plainDigits(value / unit.size),
    log: Math.max(...spread) / Math.min(...spread) > 6,
    alternative: `Latency of ${LAYER_NAMES[depth]}. ${groups.map(({ title, rows }) => `${title}: ${rows.map(({ name, text, high }) => `${name} median ${text}, 95th percentile ${duration(high)}`).join("; ")}`).join(". ")}.`,
  });
  return h("figure", {}, h("figcaption", {}, capitalized(LAYER_NAMES[depth])), place);
}

/** @param {Measured[]} models */
export function latencyPanel(models) {
  const unstable = models.some((model) => latencies(model).some((each) => each.unstable));
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Latency"),
    h("p", { class: "muted" }, `Mark: median. Thick line: up to the 95th percentile; thin line: up to the 99th.${unstable ? " Question mark: unstable, the times varied between series." : ""}`),
    h("div", { class: "chart-grid" }, ...measuredLayers(models).map((depth) => chart(models, depth))),
  );
}
