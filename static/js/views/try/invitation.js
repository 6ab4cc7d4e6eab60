/** How the page asks for a picture or a row: its lead, the words over the test samples, the invitation. Pure. */

/**
 * @import { ImageTask, RowTask, Task } from "../../model/task.js"
 * @import { ModelInfo } from "../../api/types.js"
 */

/** @typedef {{ lead: string, legend: string, invitation: string }} Words */

/**
 * @param {Task} task
 * @param {ModelInfo[]} models that answer
 * @returns {Words}
 */
export const wordsFor = (task, models) => (task.kind === "image" ? ofImages(task, models) : ofRows(task, models));

/**
 * @param {ImageTask} task
 * @param {ModelInfo[]} models
 * @returns {Words}
 */
function ofImages({ labels, channels }, models) {
  const roles = models.map(({ card }) => card?.role);
  const twin = models.length === 2 && roles.includes("kronecker") && roles.includes("dense");
  const readers = twin
    ? "two networks read it: one stores every weight, the other only small Kronecker factors"
    : models.length === 1 ? "the network reads it" : "the networks read it, side by side";
  return {
    lead: `${channels === 3 ? "Paint or upload a picture" : "Draw"}, and ${readers}.`,
    legend: "Or pick a test sample, shown with its true label",
    invitation: `${channels === 3 ? "Paint" : "Draw"} ${labels ? whatToDraw(labels) : "something"}`,
  };
}

/**
 * @param {RowTask} task
 * @param {ModelInfo[]} models
 * @returns {Words}
 */
function ofRows({ labels, width }, models) {
  return {
    lead: `Fill in a row, and ${models.length === 1 ? "the network answers" : "the networks answer, side by side"}.`,
    legend: `Or pick a test row, shown with its true ${labels ? "label" : "value"}`,
    invitation: `Fill in ${width === 1 ? "the number" : `the ${width} numbers`}`,
  };
}

/**
 * What may be drawn: a full list, or its two ends.
 * @param {string[]} labels
 */
function whatToDraw(labels) {
  if (labels.length > 4 && labels.every((label, i) => Number(label) === Number(labels[0]) + i)) {
    return `a number from ${labels[0]} to ${labels[labels.length - 1]}`;
  }
  return labels.length <= 12 ? `one of ${labels.join(", ")}` : `one of ${labels.length} things: ${labels.slice(0, 8).join(", ")} …`;
}
