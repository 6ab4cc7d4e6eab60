/** Dates as people read them. */

/**
 * A point in time, to the minute.
 * @param {string | number | null | undefined} time ISO 8601, or milliseconds since 1970
 * @returns {string | null} null where it is none
 */
export function when(time) {
  const date = new Date(time ?? "");
  return Number.isNaN(date.getTime()) ? null : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
