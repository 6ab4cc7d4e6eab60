/** Texts of the Try view before an answer: the lead, the legend of the samples, the prompt. */

/**
 * @import { ModelInfo } from "../../api/types.js"
 * @import { ImageTask, RowTask, Task } from "../../model/types.js"
 * @import { Texts } from "./types.js"
 */

/**
 * @param {Task} task
 * @param {ModelInfo[]} models
 * @returns {Texts}
 */
export const textsFor = (task, models) => (task.kind === "image" ? imageTexts(task, models) : rowTexts(task, models));

/**
 * @param {ImageTask} task
 * @param {ModelInfo[]} models
 * @returns {Texts}
 */
function imageTexts({ labels, channels }, models) {
  const roles = models.map(({ card }) => card?.role);
  const twin = models.length === 2 && roles.includes("kronecker") && roles.includes("dense");
  const networks = twin
    ? "two networks classify it: one stores every weight, the other only small Kronecker factors"
    : models.length === 1 ? "the network classifies it" : "the networks classify it, side by side";
  return {
    lead: `${channels === 3 ? "Paint or upload a picture" : "Draw"}, and ${networks}.`,
    legend: "Or pick a test sample, shown with its true label",
    prompt: `${channels === 3 ? "Paint" : "Draw"} ${labels ? choiceOf(labels) : "something"}`,
  };
}

/**
 * @param {RowTask} task
 * @param {ModelInfo[]} models
 * @returns {Texts}
 */
function rowTexts({ columns, labels, width }, models) {
  return {
    lead: `Enter a row, and ${models.length === 1 ? "the network answers" : "the networks answer, side by side"}.`,
    legend: `Or pick a test row, shown with its true ${labels ? "label" : "value"}`,
    prompt: columns ? "Fill in the columns" : `Enter ${width === 1 ? "the number" : `the ${width} numbers`}`,
  };
}

/**
 * Lists the labels, or the ends of a range of numbers.
 * @param {string[]} labels
 */
function choiceOf(labels) {
  if (labels.length > 4 && labels.every((label, i) => Number(label) === Number(labels[0]) + i)) {
    return `a number from ${labels[0]} to ${labels[labels.length - 1]}`;
  }
  return labels.length <= 12 ? `one of ${labels.join(", ")}` : `one of ${labels.length} things: ${labels.slice(0, 8).join(", ")} …`;
}
