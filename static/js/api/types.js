/**
 * Types of the service's answers: the fields that the page reads. All fields of a card are optional: it comes from a model
 * file.
 *
 * @typedef {object} Layer
 * @property {string} [kind]
 * @property {number[]} [in_shape]
 * @property {number[]} [out_shape]
 * @property {number[]} [kernel] height and width of a convolution's kernel; its shapes are channels, height and width
 * @property {number} [rank]
 * @property {number} [parameters]
 * @property {number} [weight_bytes]
 * @property {number} [macs_per_sample]
 *
 * @typedef {object} Metric
 * @property {string} name
 * @property {number} value
 * @property {number} [samples]
 *
 * @typedef {object} Training
 * @property {string} [recipe]
 * @property {number} [epochs]
 * @property {number} [seconds]
 * @property {number} [ms_per_step]
 * @property {number} [batch_size]
 * @property {string} [optimizer]
 * @property {number} [learning_rate]
 * @property {string} [schedule]
 * @property {number | string} [seed]
 * @property {string} [device]
 * @property {number} [threads]
 *
 * @typedef {object} Column of a table, an input of the model
 * @property {string} name
 * @property {"number" | "boolean" | "date" | "category"} kind
 * @property {string | number | null} [fill] what a missing value is taken for
 * @property {string[] | null} [turns] cycles of a date that count: "year", "week", "day"
 * @property {string[] | null} [values] of a category
 * @property {boolean | null} [other] whether further values are told apart from these
 *
 * @typedef {Record<string, string | number | boolean | null>} Row values of a table's columns by their names
 *
 * @typedef {object} CCode sizes as C code for a microcontroller
 * @property {number | null} [bits] of a weight
 * @property {number | null} [weight_bytes]
 * @property {number | null} [scratch_bytes]
 * @property {number | null} [code_bytes]
 * @property {string | null} [compiler]
 *
 * @typedef {object} Card
 * @property {string | null} [twin]
 * @property {string | null} [role]
 * @property {string | null} [task]
 * @property {Layer[] | null} [layers]
 * @property {number | null} [parameters]
 * @property {number | null} [macs_per_sample]
 * @property {number | null} [weight_bytes]
 * @property {CCode | null} [c]
 * @property {{ kind?: string, shape?: number[] | null, range?: number[] | null, names?: string[] | null, columns?: Column[] | null } | null} [input]
 * @property {string | null} [preprocessing]
 * @property {string[] | null} [labels]
 * @property {{ name?: string, sha256?: string, train_samples?: number, test_samples?: number } | null} [data]
 * @property {Metric | null} [test_metric]
 * @property {Training | null} [training]
 * @property {Record<string, string> | null} [versions]
 * @property {string | null} [created]
 *
 * @typedef {object} Tensor
 * @property {string} name
 * @property {string} datatype
 * @property {number[]} shape -1 is a dimension of any size
 *
 * @typedef {object} ModelInfo
 * @property {string} name
 * @property {string} version
 * @property {string} provider
 * @property {number} threads
 * @property {Tensor[]} inputs
 * @property {Tensor[]} outputs
 * @property {number} file_bytes
 * @property {number} initializer_bytes
 * @property {number | null} [parameters]
 * @property {number | null} [samples]
 * @property {boolean} [downloadable] whether the service hands out the ONNX file
 * @property {string[] | null} [labels] of classes that the card does not name
 * @property {Batching} batching
 * @property {Card | null} [card]
 *
 * @typedef {object} Batching whether requests may share a run, and why
 * @property {boolean} joined
 * @property {number} max_rows of a run that is shared
 * @property {string} reason
 *
 * @typedef {"cpu" | "cuda"} Device
 *
 * @typedef {Pick<ModelInfo, "name" | "parameters" | "card">} Drawn the fields that a drawing of a served or planned model needs
 *
 * @typedef {object} ModelList
 * @property {ModelInfo[]} models
 * @property {string[]} default
 * @property {Device[]} devices that can measure models
 * @property {number} cpus maximum of threads in a measurement
 *
 * @typedef {object} Samples
 * @property {number} total
 * @property {number} offset
 * @property {any[]} inputs
 * @property {(string | number)[]} labels
 *
 * @typedef {object} Answer label and probabilities of a classifier, or a value
 * @property {string | null} [label]
 * @property {number[] | null} [probabilities]
 * @property {number | number[] | null} [value]
 * @property {boolean | null} [unlike] whether the image is unlike the training images
 *
 * @typedef {object} Result
 * @property {string} model
 * @property {string} version
 * @property {Answer[]} outputs
 * @property {number} queue_us
 * @property {number} compute_us
 *
 * @typedef {object} Prediction
 * @property {Result[]} results
 * @property {number | null} agreement
 *
 * @typedef {"session" | "queue" | "http"} Depth
 *
 * @typedef {object} Latency
 * @property {Depth} depth
 * @property {number} batch_size
 * @property {number} n
 * @property {number} p50_us
 * @property {number} p90_us
 * @property {number} p95_us
 * @property {number | null} [p99_us]
 * @property {number} samples_per_s
 * @property {boolean} unstable
 *
 * @typedef {object} Memory
 * @property {number | null} baseline_rss_bytes
 * @property {number | null} loaded_rss_bytes
 * @property {number | null} peak_rss_bytes
 * @property {number | null} [device_bytes]
 * @property {number | null} [session_bytes] added by loading
 * @property {number | null} [arena_bytes] kept after running
 *
 * @typedef {object} Measured
 * @property {string} model
 * @property {string | null} [role]
 * @property {number | null} [parameters]
 * @property {number} file_bytes
 * @property {number} initializer_bytes
 * @property {number} [weight_bytes] 0 in reports of earlier versions
 * @property {CCode | null} [c]
 * @property {number | null} [macs_per_sample]
 * @property {Metric | null} [test_metric]
 * @property {number} load_ms
 * @property {number} first_run_ms
 * @property {Memory} memory
 * @property {Latency[]} latency
 * @property {Latency[]} [service_latency]
 *
 * @typedef {object} Pair
 * @property {Depth} depth
 * @property {string} a
 * @property {string} b
 * @property {number} batch_size
 * @property {number} ratio median of b over median of a: above 1, a is faster
 * @property {number} low
 * @property {number} high
 * @property {string} verdict
 * @property {string} sentence
 *
 * @typedef {object} Expectation ratios of a pair predicted from its sizes, and the measured ones
 * @property {string} a
 * @property {string} b
 * @property {number | null} macs_ratio
 * @property {number | null} initializer_bytes_ratio
 * @property {{ batch_size: number, predicted_ratio: number | null, measured_ratio: number }[]} time
 * @property {{ predicted_ratio: number | null, measured_ratio: number | null }} memory
 * @property {string[]} sentences
 *
 * @typedef {object} ModelQuality
 * @property {string} model
 * @property {number | null} accuracy
 * @property {number | null} accuracy_low
 * @property {number | null} accuracy_high
 * @property {number[][] | null} confusion rows: true class, columns: predicted
 * @property {WrongRows[] | null} [wrong] missing in reports of earlier versions
 * @property {number | null} rmse
 *
 * @typedef {object} WrongRows behind a cell of a confusion matrix
 * @property {number} true position of the true class
 * @property {number} predicted
 * @property {number[]} rows the first ones
 *
 * @typedef {object} PairQuality
 * @property {string} a
 * @property {string} b
 * @property {number | null} agreement
 * @property {number | null} largest_probability_drift
 * @property {number | null} largest_difference
 *
 * @typedef {object} Quality
 * @property {"samples" | "uploaded"} source
 * @property {string} name of the rows
 * @property {number} rows
 * @property {boolean} labelled
 * @property {string} sentence
 * @property {string[] | null} labels
 * @property {ModelQuality[]} models
 * @property {PairQuality[]} pairs
 *
 * @typedef {object} MeasuredInputs that all models ran on
 * @property {"samples" | "uploaded" | "generated"} source
 * @property {string} name of the file or samples; a description of generated ones
 * @property {number} rows
 * @property {string[]} [notes] batch sizes that were not measured, and why
 *
 * @typedef {object} ModelNodes time of each node of a model
 * @property {string} model
 * @property {number} batch_size
 * @property {number} runs
 * @property {number} us of all nodes
 * @property {{ name: string, op: string, us: number }[]} nodes
 *
 * @typedef {object} OutputDifference of one output of two models on the same rows; null: not for this kind of output
 * @property {string} a
 * @property {string} b
 * @property {string} output
 * @property {number} rows
 * @property {number | null} largest
 * @property {number | null} mean
 * @property {number | null} cosine
 * @property {number | null} lowest_cosine
 * @property {number | null} equal_top1
 * @property {number | null} equal
 * @property {string} sentence
 *
 * @typedef {object} Environment
 * @property {string} [cpu]
 * @property {number} [cores]
 * @property {string} [platform]
 * @property {string} [python]
 * @property {string} [onnxruntime]
 * @property {string} [provider]
 * @property {number} [threads]
 *
 * @typedef {object} Report
 * @property {string} id
 * @property {string} created
 * @property {number} seconds
 * @property {Environment} environment
 * @property {Measured[]} models
 * @property {Pair[]} pairs
 * @property {Pair[]} [service_pairs]
 * @property {string} [memory_sentence]
 * @property {Expectation[]} [predictions]
 * @property {Quality | null} [quality]
 * @property {MeasuredInputs | null} [inputs] null in reports of earlier versions
 * @property {OutputDifference[]} [differences]
 * @property {ModelNodes[]} [nodes]
 *
 * @typedef {object} Cell of a sweep: one pair of synthetic networks
 * @property {number} width
 * @property {number} rank
 * @property {number} batch_size
 * @property {number} threads
 * @property {number} dense_p50_us
 * @property {number} kronecker_p50_us
 * @property {number} ratio time of dense / time of Kronecker: above 1, Kronecker is faster
 * @property {number} low
 * @property {number} high
 * @property {boolean} unstable
 * @property {number} macs_ratio
 * @property {string} verdict
 *
 * @typedef {object} SweepReport
 * @property {string} id
 * @property {string} created
 * @property {number} seconds
 * @property {Environment} environment
 * @property {Cell[]} cells
 * @property {{ rank: number, batch_size: number, threads: number, width: number | null, sentence: string }[]} crossovers
 *
 * @typedef {object} Shadow a second model that scores the requests of the first off the request path
 * @property {string | null} primary null without a shadow
 * @property {string | null} shadow
 * @property {number} share fraction of the requests
 * @property {number} requests
 * @property {number} rows
 * @property {number} dropped
 * @property {number} failed
 * @property {number | null} disagreement_rate
 * @property {number | null} largest_probability_drift
 * @property {number | null} largest_difference
 * @property {number | null} primary_p50_us
 * @property {number | null} shadow_p50_us
 * @property {number | null} difference_p50_us
 *
 * @typedef {object} Progress
 * @property {string} stage
 * @property {number} done
 * @property {number} total
 *
 * @typedef {object} JobSummary a comparison, a sweep or a training
 * @property {string} id
 * @property {"running" | "done" | "failed"} status
 * @property {string} created
 * @property {number | null} seconds
 * @property {string} title
 * @property {Progress | null} progress
 * @property {string | null} headline
 * @property {string | null} error
 */

export {};
