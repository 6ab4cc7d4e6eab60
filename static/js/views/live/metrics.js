/** The service's metrics: fetches and parses Prometheus' text format, and computes rates and percentiles. */

import { DISCONNECTED, NetworkError, TIMEOUT_MS, send } from "../../api/client.js";

/** @typedef {{ name: string, labels: Record<string, string>, value: number }} Reading */

/** Names of metrics: Triton's where they mean the same, otherwise the service's own. Times are in seconds. */
export const METRICS = {
  /** Successful predictions, a counter by model. */
  success: "nv_inference_request_success",
  /** Rejected and failed requests, a counter by reason; absent before the first one. */
  failures: "kron_failures_total",
  /** From the parsed request to its answer, a histogram by model. */
  request: "kron_request_seconds",
  /** Waiting for a thread, a histogram by model. */
  queue: "kron_queue_seconds",
  /** Running a model, a histogram by model. */
  compute: "kron_compute_seconds",
  /** Resident memory in bytes. */
  memory: "process_resident_memory_bytes",
  /** Processor time, a counter. */
  cpu: "process_cpu_seconds_total",
  /** Start of the process, since 1970. */
  start: "process_start_time_seconds",
};

/** Limits far above the service's metrics, so that a response of another server cannot exhaust the memory. */
const MAX_CHARS = 8_000_000;
const MAX_READINGS = 20_000;
const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
/** @type {Record<string, string>} */
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };
/** @type {Record<string, number>} */
const SPECIAL = { "+Inf": Infinity, "-Inf": -Infinity, NaN: Number.NaN };

/** @returns {Promise<string>} in Prometheus' text format */
export async function fetchMetrics() {
  const response = await send("/metrics", {}, TIMEOUT_MS);
  try {
    return (await response.text()).slice(0, MAX_CHARS);
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) throw new NetworkError(DISCONNECTED);
    throw error;
  }
}

/**
 * @param {string} text
 * @returns {Reading[]}
 */
export function parseMetrics(text) {
  /** @type {Reading[]} */
  const found = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("#") || found.length >= MAX_READINGS) continue;
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, name, inside = "", number] = match;
    /** @type {Record<string, string>} */
    const labels = {};
    for (const [, key, value] of inside.matchAll(LABEL)) labels[key] = value.replace(/\\[n"\\]/g, (escape) => ESCAPED[escape]);
    found.push({ name, labels, value: SPECIAL[number] ?? Number(number) });
  }
  return found;
}

/** All metrics read at one point in time. */
export class Snapshot {
  /**
   * @param {Reading[]} readings
   * @param {number} at seconds of a monotonic clock
   */
  constructor(readings, at) {
    this.at = at;
    /** @type {Map<string, Reading[]>} */
    this.byName = new Map();
    for (const reading of readings) {
      const known = this.byName.get(reading.name);
      if (known) known.push(reading);
      else this.byName.set(reading.name, [reading]);
    }
  }

  /**
   * @param {string} name
   * @param {Record<string, string>} [where] required labels
   * @returns {Reading[]}
   */
  of(name, where = {}) {
    const wanted = Object.entries(where);
    return (this.byName.get(name) ?? []).filter(({ labels }) => wanted.every(([key, value]) => labels[key] === value));
  }

  /**
   * @param {string} name
   * @param {Record<string, string>} [where]
   * @returns {number | null} null if there are none
   */
  sum(name, where) {
    const found = this.of(name, where);
    return found.length === 0 ? null : found.reduce((total, { value }) => total + value, 0);
  }

  /**
   * @param {string} name
   * @param {string} label
   * @returns {string[]} its values, sorted
   */
  values(name, label) {
    return [...new Set(this.of(name).map(({ labels }) => labels[label]))].filter((value) => value !== undefined).sort();
  }

  /**
   * Returns a histogram's cumulative counts by upper bound.
   * @param {string} name
   * @param {Record<string, string>} [where]
   * @returns {Map<number, number>}
   */
  buckets(name, where) {
    /** @type {Map<number, number>} */
    const counts = new Map();
    for (const { labels, value } of this.of(`${name}_bucket`, where)) {
      const bound = SPECIAL[labels.le] ?? Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
    return counts;
  }
}

/**
 * Returns a counter's increase per second. A restarted service counts from 0.
 * @param {number | null} before
 * @param {number | null} after
 * @param {number} seconds
 */
export function rate(before, after, seconds) {
  if (before === null || after === null || seconds <= 0) return null;
  return Math.max(0, after < before ? after : after - before) / seconds;
}

/**
 * Returns a percentile of the values between two states of a histogram, interpolated within its bucket.
 * @param {Map<number, number>} before
 * @param {Map<number, number>} after
 * @param {number} fraction
 * @returns {number | null} null without values
 */
export function percentile(before, after, fraction) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => (after.get(bound) ?? 0) - (before.get(bound) ?? 0));
  const total = counts[counts.length - 1] ?? 0;
  if (total <= 0 || counts.some((count) => count < 0)) return null;
  const rank = fraction * total;
  const k = counts.findIndex((count) => count >= rank);
  const [low, below] = k > 0 ? [bounds[k - 1], counts[k - 1]] : [0, 0];
  if (!Number.isFinite(bounds[k])) return low;
  return low + (bounds[k] - low) * ((rank - below) / Math.max(counts[k] - below, 1e-12));
}
