/**
 * Under which names the service's metrics stand. Of several the first that the service has is taken: those of Triton,
 * and our own.
 */

/**
 * @typedef {object} Series
 * @property {string} name
 * @property {Record<string, string>} [labels] that it has to have
 * @property {number} [scale] to seconds
 */

/** @type {Series[]} counters by model */
export const ANSWERED = [{ name: "nv_inference_request_success" }, { name: "kron_predictions_total", labels: { outcome: "ok" } }];
/** @type {Series[]} counters by model */
export const NOT_ANSWERED = [{ name: "nv_inference_request_failure" }, { name: "kron_predictions_total", labels: { outcome: "error" } }];
/** @type {Series[]} counters by reason */
export const FAILURES = [{ name: "kron_failures_total" }];
/** @type {Series[]} histograms by model */
export const COMPUTE = [{ name: "kron_compute_seconds" }];
/** @type {Series[]} histograms */
export const QUEUE = [{ name: "kron_queue_seconds" }];
/** @type {Series[]} gauges, bytes */
export const MEMORY = [{ name: "process_resident_memory_bytes" }];
/** @type {Series[]} counters, seconds */
export const CPU = [{ name: "process_cpu_seconds_total" }];
/** @type {Series[]} gauges, seconds since 1970 */
export const STARTED = [{ name: "process_start_time_seconds" }];
