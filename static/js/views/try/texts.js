/** Texts of the Try view: the lead, the prompt, and the verdict on all answers. */

import { digits } from "../../ui/format.js";

/**
 * @import { ModelInfo } from "../../api/types.js"
 * @import { ImageTask, RowTask, Task } from "../../model/types.js"
 * @import { Answered, Texts, Verdict } from "./types.js"
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

/**
 * @param {Answered[]} answers at least one
 * @param {string | null} truth null if unknown
 * @returns {Verdict}
 */
export function verdict(answers, truth) {
  return answers.some(({ label }) => label == null) ? valueVerdict(answers, truth) : labelVerdict(answers, truth);
}

/**
 * @param {Answered[]} answers
 * @param {string | null} truth
 * @returns {Verdict}
 */
function valueVerdict(answers, truth) {
  const predictions = answers.map(({ name, text }) => `${name} predicts ${text}`).join(", ");
  const value = truth !== null && Number.isFinite(Number(truth)) ? digits(Number(truth)) : truth;
  return { text: `${predictions}${truth === null ? "" : `; the true value is ${value}`}.`, kind: "agree" };
}

/**
 * @param {Answered[]} answers
 * @param {string | null} truth
 * @returns {Verdict}
 */
function labelVerdict(answers, truth) {
  const [{ text }] = answers;
  const agree = answers.every((each) => each.text === text);
  const right = truth === null ? "" : agree && text === truth ? ", which is right" : `; the true label is ${truth}`;
  const verb = answers.every((each) => each.text.length < 3) ? "read" : "say"; // characters are read
  if (!agree) return { text: `They disagree: ${answers.map((each) => `${each.name} ${verb}s ${each.text}`).join(", ")}${right}.`, kind: "differ" };
  const who = answers.length < 2 ? `It ${verb}s` : answers.length === 2 ? `Both ${verb}` : `All ${verb}`;
  return { text: `${who} ${text}${right}.`, kind: "agree" };
}
