/** Types of the inputs that models take. */

/**
 * @typedef {object} Layout of an image as a row of numbers
 * @property {number} rows
 * @property {number} columns
 * @property {1 | 3} channels grey, or red, green and blue
 * @property {boolean} last whether the channels of a pixel are adjacent (channels last)
 * @property {[number, number]} range values of black and of full intensity
 *
 * @typedef {object} ImageInput
 * @property {"image"} kind
 * @property {boolean} framed whether images have a margin around the subject, like MNIST's digits
 * @property {string[] | null} labels null for regression
 * @property {string} preprocessing
 *
 * @typedef {ImageInput & Layout} ImageTask
 *
 * @typedef {object} RowTask
 * @property {"row"} kind
 * @property {number} width number of features
 * @property {string[]} names of the features
 * @property {Column[]} [columns] of a table, where each is an input of the model
 * @property {string[] | null} labels
 * @property {string} preprocessing
 *
 * @typedef {import("../api/types.js").Column} Column
 *
 * @typedef {ImageTask | RowTask} Task
 */

export {};
