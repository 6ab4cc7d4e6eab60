/** What all answers together say, in a sentence. Pure. */

import { digits } from "../../ui/format.js";

/**
 * @typedef {object} Told
 * @property {string} who
 * @property {string} text what it says
 * @property {string | null | undefined} label none where it says a number
 *
 * @typedef {{ text: string, kind: "agree" | "differ" }} Verdict
 */

/**
 * @param {Told[]} answers at least one
 * @param {string | null} truth where it is known
 * @returns {Verdict}
 */
export function verdict(answers, truth) {
  return answers.some(({ label }) => label == null) ? ofValues(answers, truth) : ofLabels(answers, truth);
}

/**
 * @param {Told[]} answers
 * @param {string | null} truth
 * @returns {Verdict}
 */
function ofValues(answers, truth) {
  const what = answers.map(({ who, text }) => `${who} says ${text}`).join(", ");
  return { text: `${what}${truth === null ? "" : `; it is ${Number.isFinite(Number(truth)) ? digits(Number(truth)) : truth}`}.`, kind: "agree" };
}

/**
 * @param {Told[]} answers
 * @param {string | null} truth
 * @returns {Verdict}
 */
function ofLabels(answers, truth) {
  const [{ text }] = answers;
  const agree = answers.every((each) => each.text === text);
  const right = truth === null ? "" : agree && text === truth ? ", and that is right" : `; it is labelled ${truth}`;
  const verb = answers.every((each) => each.text.length < 3) ? "read" : "say"; // signs are read
  if (!agree) return { text: `They disagree: ${answers.map((each) => `${each.who} ${verb}s ${each.text}`).join(", ")}${right}.`, kind: "differ" };
  const who = answers.length < 2 ? `It ${verb}s` : answers.length === 2 ? `Both ${verb}` : `All ${verb}`;
  return { text: `${who} ${text}${right}.`, kind: "agree" };
}
