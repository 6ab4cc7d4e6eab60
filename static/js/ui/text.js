/** Dates, memory sizes and sentences as reports show them. Separate from format.js, which the first view loads. */

import { withUnit } from "./format.js";

/** @import { Unit } from "./format.js" */

/** Powers of two, as operating systems count memory. @type {Unit[]} */
export const MEMORY_UNITS = [{ name: "B", size: 1 }, { name: "KiB", size: 2 ** 10 }, { name: "MiB", size: 2 ** 20 }, { name: "GiB", size: 2 ** 30 }];

/** @param {number} bytes */
export const memorySize = (bytes) => withUnit(bytes, MEMORY_UNITS);

/**
 * Formats a point in time to the minute.
 * @param {string | number | null | undefined} time ISO 8601, or milliseconds since 1970
 * @returns {string | null} null for an invalid date
 */
export function dateTime(time) {
  const date = new Date(time ?? "");
  return Number.isNaN(date.getTime()) ? null : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/**
 * Joins each number to its unit with a non-breaking space, so that no line ends between them.
 * @param {string} sentence
 */
export const keepUnits = (sentence) => sentence.replace(/(\d) (?=(?:µs|ms|s|MiB|kB|MB|%|times|points)\b|%)/g, "$1\u00a0");

/**
 * Ends an error message of the service with exactly one full stop.
 * @param {string} message
 */
export const sentence = (message) => `${message.replace(/\.$/, "")}.`;

/** @param {string} text */
export const capitalized = (text) => text.replace(/^./, (first) => first.toUpperCase());
