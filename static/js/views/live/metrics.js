/** Prometheus' text format, read in the browser. Pure. */

/** @typedef {{ name: string, labels: Record<string, string>, value: number }} Reading */

/** More series than any service of ours has; a page must not choke on the metrics of another. */
const MAX_READINGS = 20_000;
const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
/** @type {Record<string, string>} */
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };
/** @type {Record<string, number>} */
const SPECIAL = { "+Inf": Infinity, "-Inf": -Infinity, NaN: Number.NaN };

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

export class Snapshot {
  /**
   * @param {Reading[]} readings
   * @param {number} at seconds, from a clock that only goes forward
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
   * @param {Record<string, string>} [where] labels that it has to have
   * @returns {Reading[]}
   */
  of(name, where = {}) {
    const wanted = Object.entries(where);
    return (this.byName.get(name) ?? []).filter(({ labels }) => wanted.every(([key, value]) => labels[key] === value));
  }

  /**
   * @param {string} name
   * @param {Record<string, string>} [where]
   * @returns {number | null} null where the service has none of these
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
   * Cumulative counts by upper bound.
   * @param {string} name of a histogram
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
 * How fast a counter grew; a service that was started anew counts from 0.
 * @param {number | null} before
 * @param {number | null} after
 * @param {number} seconds
 */
export function rate(before, after, seconds) {
  if (before === null || after === null || seconds <= 0) return null;
  return Math.max(0, after < before ? after : after - before) / seconds;
}

/**
 * A percentile of what came between two states of a histogram, interpolated within its bucket.
 * @param {Map<number, number>} before
 * @param {Map<number, number>} after
 * @param {number} share
 * @returns {number | null} null where nothing came
 */
export function percentile(before, after, share) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => (after.get(bound) ?? 0) - (before.get(bound) ?? 0));
  const total = counts[counts.length - 1] ?? 0;
  if (total <= 0 || counts.some((count) => count < 0)) return null;
  const rank = share * total;
  const k = counts.findIndex((count) => count >= rank);
  const [low, below] = k > 0 ? [bounds[k - 1], counts[k - 1]] : [0, 0];
  if (!Number.isFinite(bounds[k])) return low;
  return low + (bounds[k] - low) * ((rank - below) / Math.max(counts[k] - below, 1e-12));
}
