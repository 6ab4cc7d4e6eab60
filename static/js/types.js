/**
 * What the service answers, as far as the page reads it. Fields of a card are all optional: a card comes out of a model
 * file, and a model may have none.
 *
 * @typedef {object} Layer
 * @property {string} [kind]
 * @property {number[]} [in_shape]
 * @property {number[]} [out_shape]
 * @property {number[]} [kernel] height and width of a convolution's; its shapes are channels, height and width
 * @property {number} [rank]
 * @property {number} [parameters]
 *
 * @typedef {object} Metric
 * @property {string} name
 * @property {number} value
 * @property {number} [samples]
 *
 * @typedef {object} Card
 * @property {string | null} [twin]
 * @property {string | null} [role]
 * @property {string | null} [task]
 * @property {Layer[] | null} [layers]
 * @property {number | null} [parameters]
 * @property {number | null} [macs_per_sample]
 * @property {{ kind?: string, shape?: number[] | null, range?: number[] | null, names?: string[] | null } | null} [input]
 * @property {string | null} [preprocessing]
 * @property {string[] | null} [labels]
 * @property {{ name?: string, train_samples?: number, test_samples?: number } | null} [data]
 * @property {Metric | null} [test_metric]
 *
 * @typedef {object} ModelInfo
 * @property {string} name
 * @property {string} version
 * @property {string} provider
 * @property {number} threads
 * @property {number} file_bytes
 * @property {number | null} [parameters]
 * @property {number | null} [samples]
 * @property {Card | null} [card]
 *
 * @typedef {object} ModelList
 * @property {ModelInfo[]} models
 * @property {string[]} default
 *
 * @typedef {object} Samples
 * @property {number} total
 * @property {number} offset
 * @property {number[][]} inputs
 * @property {string[]} labels
 *
 * @typedef {object} Answer
 * @property {string} label
 * @property {number[]} probabilities
 *
 * @typedef {object} Result
 * @property {string} model
 * @property {Answer[]} outputs
 * @property {number} queue_us
 * @property {number} compute_us
 *
 * @typedef {object} Prediction
 * @property {Result[]} results
 * @property {number | null} agreement
 *
 * @typedef {object} Latency
 * @property {number} batch_size
 * @property {number} n
 * @property {number} p50_us
 * @property {number} p95_us
 * @property {number | null} [p99_us]
 * @property {number} samples_per_s
 * @property {boolean} [unstable]
 *
 * @typedef {object} Measured
 * @property {string} model
 * @property {string | null} [role]
 * @property {number | null} [parameters]
 * @property {number} file_bytes
 * @property {number | null} [macs_per_sample]
 * @property {Metric | null} [test_metric]
 * @property {number} load_ms
 * @property {number} first_run_ms
 * @property {{ baseline_rss_bytes: number, loaded_rss_bytes: number, peak_rss_bytes: number }} memory
 * @property {Latency[]} latency
 *
 * @typedef {object} Pair
 * @property {string} a
 * @property {string} b
 * @property {number} batch_size
 * @property {number} ratio median of b over median of a: above 1, a is faster
 * @property {number} low
 * @property {number} high
 * @property {string} verdict
 * @property {string} [sentence]
 *
 * @typedef {object} Report
 * @property {string} id
 * @property {string} created
 * @property {number} seconds
 * @property {{ cpu?: string, cores?: number, platform?: string, python?: string, onnxruntime?: string,
 *   provider?: string, threads?: number }} environment
 * @property {Measured[]} models
 * @property {Pair[]} pairs
 *
 * @typedef {object} Progress
 * @property {string} stage
 * @property {number} done
 * @property {number} total
 */

export {};
