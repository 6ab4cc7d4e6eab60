/** Formats numbers: three significant digits, a thin space, a unit. */

const THIN = "\u202f";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, minimumSignificantDigits: 3 });

/** @typedef {{ name: string, size: number }} Unit */

/** @type {Unit[]} */
export const TIME_UNITS = [{ name: "µs", size: 1 }, { name: "ms", size: 1e3 }, { name: "s", size: 1e6 }];
/** @type {Unit[]} */
export const BYTE_UNITS = [{ name: "B", size: 1 }, { name: "kB", size: 1e3 }, { name: "MB", size: 1e6 }, { name: "GB", size: 1e9 }];
/** @type {Unit[]} */
const COUNT_UNITS = [{ name: "", size: 1 }, { name: "k", size: 1e3 }, { name: "M", size: 1e6 }, { name: "G", size: 1e9 }];

/**
 * Formats with three significant digits, or all digits of a larger whole number.
 * @param {number} value
 */
export function digits(value) {
  return Math.abs(value) >= 100 ? whole.format(value) : value === 0 ? "0" : three.format(value);
}

/** @param {number} value */
export function count(value) {
  return whole.format(value);
}

/**
 * Returns the largest unit in which the value is at least 1.
 * @param {number} value
 * @param {Unit[]} units
 */
export function unitFor(value, units) {
  return units.findLast((unit) => Math.abs(value) >= unit.size) ?? units[0];
}

/**
 * @param {number} value
 * @param {Unit[]} units
 */
export function withUnit(value, units) {
  const unit = unitFor(Number(value.toPrecision(3)), units); // 999.9 µs are 1.00 ms
  return `${digits(value / unit.size)}${unit.name && THIN}${unit.name}`;
}

/** @param {number} microseconds */
export const duration = (microseconds) => withUnit(microseconds, TIME_UNITS);

/** @param {number} bytes */
export const bytes = (bytes) => withUnit(bytes, BYTE_UNITS);

/** @param {number} value */
export const short = (value) => (value < 1e4 ? count(value) : withUnit(value, COUNT_UNITS));

/**
 * Formats a probability. Rounding must not show 0 % or 100 %, which a softmax never reaches.
 * @param {number} fraction
 */
export function probability(fraction) {
  if (fraction > 0.999) return `>99.9${THIN}%`;
  if (fraction < 0.001) return `<0.1${THIN}%`;
  return `${(100 * fraction).toFixed(1)}${THIN}%`;
}

/**
 * @param {number} fraction
 * @param {number} [decimals]
 */
export function percent(fraction, decimals = 2) {
  return `${(100 * fraction).toFixed(decimals)}${THIN}%`;
}

/**
 * Formats a ratio of at least 1: 1.04×, 9.8×, 58×.
 * @param {number} ratio
 */
export function times(ratio) {
  return `${ratioDigits(ratio)}×`;
}

/** @param {number} ratio */
export function ratioDigits(ratio) {
  if (ratio >= 9.95) return whole.format(ratio);
  return ratio.toFixed(ratio < 1.995 ? 2 : 1);
}

/**
 * Formats a test metric: accuracy in percent, others as numbers.
 * @param {{ name: string, value: number } | null | undefined} metric
 */
export function metric(metric) {
  if (!metric) return "–";
  return metric.name === "accuracy" ? percent(metric.value) : digits(metric.value);
}

/**
 * Joins names: "a, b and c".
 * @param {string[]} names
 */
export function listed(names) {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
