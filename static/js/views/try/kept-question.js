/** The question that a reload of the tab finds again, if the models that answer still take such questions. */

import { recall, remember } from "../../ui/store.js";
import { taskKey } from "../../model/task.js";

/**
 * @import { Task } from "../../model/task.js"
 * @import { ModelInfo } from "../../api/types.js"
 */

/** @typedef {{ sample?: number, drawing?: string, row?: number[] }} Kept a test sample's number, a drawing's address, or a row */

const KEPT_AS = "try.question";

/**
 * @param {ModelInfo} model
 * @param {Kept | null} question null: none
 */
export function keepQuestion(model, question) {
  remember(KEPT_AS, question === null ? undefined : { key: taskKey(model), ...question });
}

/**
 * @param {ModelInfo} model
 * @param {Task} task its own
 * @returns {Kept} empty where there is none
 */
export function keptQuestion(model, task) {
  const kept = recall(KEPT_AS);
  if (typeof kept !== "object" || kept === null) return {};
  const { key, sample, drawing, row } = /** @type {Record<string, unknown>} */ (kept);
  if (key !== taskKey(model)) return {};
  if (typeof sample === "number") return { sample };
  if (task.kind === "image") return typeof drawing === "string" && drawing.startsWith("data:image/png;") ? { drawing } : {};
  return Array.isArray(row) && row.length === task.width && row.every((value) => typeof value === "number") ? { row } : {};
}
