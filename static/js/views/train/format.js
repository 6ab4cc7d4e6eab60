/** Formats figures of a training: metrics, losses, the time left. */

import { digits, metric } from "../../ui/format.js";

const NOTHING = "–";
/** Milliseconds that have to pass before a speed can be estimated. */
const MIN_ELAPSED_MS = 500;

/** @param {string} name of a metric */
export const metricName = (name) => (name === "rmse" ? "RMSE" : name);

/**
 * @param {string} name
 * @param {number | null} value null if it was not finite
 */
export const metricValue = (name, value) => (value === null ? NOTHING : metric({ name, value }));

/**
 * Formats a metric with its name: "98.31 % accuracy", "RMSE 4.52".
 * @param {string} name
 * @param {number | null} value
 */
export const metricText = (name, value) => (name === "accuracy" ? `${metricValue(name, value)} accuracy` : `${metricName(name)} ${metricValue(name, value)}`);

/** @param {number | null} loss null if it was not finite */
export const lossText = (loss) => (loss === null ? NOTHING : digits(loss));

/** @param {number} seconds */
export const timeLeft = (seconds) => (seconds < 100 ? `about ${Math.max(1, Math.round(seconds))} s left` : `about ${Math.round(seconds / 60)} min left`);

/** Estimates the remaining time from the progress since it was first observed. */
export class TimeEstimate {
  /** @type {{ done: number, at: number } | null} */
  #first = null;

  /**
   * @param {number} done
   * @param {number} total
   * @param {number} at milliseconds
   * @returns {number | null} seconds left; null while there is too little progress
   */
  left(done, total, at) {
    this.#first ??= { done, at };
    const [steps, time] = [done - this.#first.done, at - this.#first.at];
    return steps > 0 && time >= MIN_ELAPSED_MS ? ((total - done) * time) / steps / 1000 : null;
  }
}
