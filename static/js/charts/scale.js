/** Scales from values to pixels, and their ticks. */

/** @typedef {(value: number) => number} Scale */

/**
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {Scale}
 */
export function linear([low, high], [start, end]) {
  const step = high > low ? (end - start) / (high - low) : 0;
  return (value) => start + (value - low) * step;
}

/**
 * @param {[number, number]} from above 0
 * @param {[number, number]} to
 * @returns {Scale}
 */
export function logarithmic([low, high], to) {
  const inner = linear([Math.log(low), Math.log(high)], to);
  return (value) => inner(Math.log(value));
}

/**
 * Returns ticks at round values that cover a range.
 * @param {number} high
 * @param {number} [count] approximate number of steps
 * @param {number} [low]
 */
export function linearTicks(high, count = 4, low = 0) {
  if (!(high > low)) return [low, low + 1];
  const rough = (high - low) / count;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = decade * ([1, 2, 2.5, 5, 10].find((factor) => factor * decade >= rough * 0.999) ?? 10);
  const first = Math.floor(low / step + 1e-9);
  return Array.from({ length: Math.ceil(high / step - 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/**
 * Returns ticks 1, 3, 10, 30 ... that cover a range.
 * @param {number} low above 0
 * @param {number} high
 */
export function logTicks(low, high) {
  const found = [];
  for (let k = Math.floor(Math.log10(low)); found.length < 40; k++) {
    for (const step of [1, 3]) {
      const tick = Number((step * 10 ** k).toPrecision(1));
      if (tick * 3.4 > low) found.push(tick);
      if (tick >= high) return found;
    }
  }
  return found;
}
