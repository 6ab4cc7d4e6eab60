/** The verdict on all answers: whether the networks agree, and whether they are right. */

import { digits } from "../../ui/format.js";

/** @import { Answered, Verdict } from "./types.js" */

/**
 * @param {Answered[]} answers at least one
 * @param {string | null} truth null if unknown
 * @returns {Verdict}
 */
export function verdict(answers, truth) {
  if (answers.some(({ label }) => label == null)) return valueVerdict(answers, truth);
  // One line, whatever the answers: while the pen moves, sure and unsure ones follow each other.
  if (truth === null && answers.some(({ unlike }) => unlike)) return { text: "Unsure: this is unlike the training images.", kind: "unsure" };
  return labelVerdict(answers, truth);
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
