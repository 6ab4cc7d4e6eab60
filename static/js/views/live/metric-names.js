/** Under which names the service's metrics stand: Triton's where they mean the same, and our own. */

/** Requests answered, a counter by model. */
export const ANSWERED = "nv_inference_request_success";
/** Requests refused or failed, a counter by reason; it is there from the first one on. */
export const FAILURES = "kron_failures_total";
/** From the parsed request to its answer, a histogram by model, in seconds like the others. */
export const REQUEST = "kron_request_seconds";
/** Waiting for a thread, a histogram by model. */
export const QUEUE = "kron_queue_seconds";
/** Running a model, a histogram by model. */
export const COMPUTE = "kron_compute_seconds";
/** Resident memory in bytes. */
export const MEMORY = "process_resident_memory_bytes";
/** Seconds that the processor has worked, a counter. */
export const CPU = "process_cpu_seconds_total";
/** Start, in seconds since 1970. */
export const STARTED = "process_start_time_seconds";
