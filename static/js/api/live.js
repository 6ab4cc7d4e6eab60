/** What the service tells of itself while it runs, as functions. Errors are those of `api.js`. */

import { CUT, Unreachable, WAIT_MS, json, send } from "./client.js";

/**
 * @import { Shadow } from "./types.js"
 */

/** @returns {Promise<Shadow>} */
export const shadow = () => json("/api/shadow");

/** Longer than any metrics of ours: a page must not fill its memory with those of something else. */
const MAX_METRICS_CHARS = 8_000_000;

/** @returns {Promise<string>} in Prometheus' text format */
export async function metrics() {
  const response = await send("/metrics", {}, WAIT_MS);
  try {
    return (await response.text()).slice(0, MAX_METRICS_CHARS);
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) throw new Unreachable(CUT);
    throw error;
  }
}
