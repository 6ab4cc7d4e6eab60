/**
 * Types of the service's training API: the fields that the page reads.
 *
 * @import { CCode, Layer, Metric } from "../../api/types.js"
 */

/** @typedef {[number, number]} Shape factor sizes of a width */
/** @typedef {"left" | "right"} Order the factor of a branch that is applied first */

/**
 * @typedef {object} TrainingData a data set that the service knows by name
 * @property {string} name
 * @property {string} title
 * @property {number} features
 * @property {number[] | null} image
 * @property {number} outputs
 * @property {"classification" | "regression"} task
 * @property {number} samples to train on
 * @property {boolean} found whether it is on the service's machine
 * @property {string | null} [note]
 *
 * @typedef {Partial<Record<"drop" | "categorical" | "numeric" | "date", string[]>>} ColumnKinds
 *
 * @typedef {object} DescribedColumn
 * @property {string} name
 * @property {string} kind
 * @property {string} done what becomes of it, or why it is left out
 * @property {number} width number of features
 * @property {boolean} plain whether it is a feature without an encoding, or left out
 * @property {"classification" | "regression" | null} task of predicting it
 * @property {number | null} outputs
 * @property {string} reason
 * @property {number} unusable rows in which it cannot be predicted
 *
 * @typedef {object} DataDescription
 * @property {number} rows
 * @property {string[]} notes
 * @property {string | null} bad_rows
 * @property {DescribedColumn[]} columns empty for arrays
 * @property {string | null} task of arrays, as the sizes that follow
 * @property {number | null} features
 * @property {number[] | null} image
 * @property {number | null} outputs
 *
 * @typedef {object} Recipe
 * @property {string} name
 * @property {string} [summary]
 * @property {number | number[]} rank
 * @property {Shape[]} hidden
 * @property {number[] | null} [dense_hidden]
 * @property {Order | Order[]} [order]
 * @property {number[]} [features] channels of convolutions
 * @property {string} activation
 * @property {number} epochs
 * @property {number} batch_size
 * @property {number} learning_rate of the Kronecker network
 * @property {number} [bits] of a weight in both networks; 32 for floats
 * @property {number} [bias_bits]
 * @property {string} [bias_form]
 * @property {{ learning_rate: number }} dense
 *
 * @typedef {object} TrainingOptions
 * @property {boolean} available
 * @property {string | null} reason
 * @property {TrainingData[]} data
 * @property {Recipe[]} recipes
 * @property {string[]} activations
 * @property {{ rank: number, hidden_layers: number, width: number, epochs: number, upload_bytes: number }} limits
 *
 * @typedef {"kronecker" | "dense"} Role
 *
 * @typedef {object} PlannedMember
 * @property {Role} role
 * @property {string} name
 * @property {number} parameters
 * @property {number} [weight_bytes] 0 in reports of earlier versions
 * @property {number} macs_per_sample
 * @property {Layer[]} layers
 *
 * @typedef {object} Plan of a training, once its data is read
 * @property {PlannedMember[]} members
 * @property {number} epochs
 * @property {string} metric
 * @property {{ name?: string, features?: number, outputs?: number, task?: string, train_samples?: number, test_samples?: number }} data
 *
 * @typedef {object} EpochResult
 * @property {number} epoch
 * @property {number} seconds
 * @property {number} ms_per_step
 * @property {number | null} loss null if it was not finite
 * @property {number | null} validation
 * @property {number | null} test
 *
 * @typedef {object} TrainedMember
 * @property {Role} role
 * @property {string} name
 * @property {string | number} version
 * @property {number} parameters
 * @property {number} [weight_bytes] 0 in reports of earlier versions
 * @property {CCode | null} [c]
 * @property {number} macs_per_sample
 * @property {Metric} test_metric
 * @property {number} training_seconds
 * @property {number} ms_per_step
 * @property {EpochResult[]} epochs
 *
 * @typedef {object} TrainingReport
 * @property {number} seconds
 * @property {string} headline
 * @property {string} metric
 * @property {string | null} [not_served] why the published models are not served
 * @property {TrainedMember[]} members
 */

export {};
