/** The test metric of a training, in words. */

import { digits, metric } from "../../ui/format.js";

const NOTHING = "–";

/** @param {string} name of a metric */
export const metricWord = (name) => (name === "rmse" ? "RMSE" : name);

/**
 * @param {string} name
 * @param {number | null} value null: it was no finite number
 */
export const score = (name, value) => (value === null ? NOTHING : metric({ name, value }));

/**
 * @param {string} name
 * @param {number | null} value
 */
export const scoreWords = (name, value) => (name === "accuracy" ? `${score(name, value)} accuracy` : `${metricWord(name)} ${score(name, value)}`);

/** @param {number | null} loss */
export const lossWord = (loss) => (loss === null ? NOTHING : digits(loss));
