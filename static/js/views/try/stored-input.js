/** Stores the input of the Try view for a reload of the tab. */

import { taskKey } from "../../model/task.js";
import { recall, remember } from "../../ui/store.js";

/**
 * @import { ModelInfo } from "../../api/types.js"
 * @import { Task } from "../../model/types.js"
 * @import { Row, Stored } from "./types.js"
 */

const STORED_AS = "try.question";

/**
 * @param {ModelInfo} model
 * @param {Stored | null} input null removes it
 */
export function storeInput(model, input) {
  remember(STORED_AS, input === null ? undefined : { key: taskKey(model), ...input });
}

/**
 * @param {ModelInfo} model
 * @param {Task} task of the model
 * @returns {Stored} empty if there is none for this task
 */
export function storedInput(model, task) {
  const stored = recall(STORED_AS);
  if (typeof stored !== "object" || stored === null) return {};
  const { key, sample, drawing, row } = /** @type {Record<string, unknown>} */ (stored);
  if (key !== taskKey(model)) return {};
  if (typeof sample === "number") return { sample };
  if (task.kind === "image") return typeof drawing === "string" && drawing.startsWith("data:image/png;") ? { drawing } : {};
  if (task.columns) return typeof row === "object" && row !== null && task.names.every((name) => name in row) ? { row: /** @type {Row} */ (row) } : {};
  return Array.isArray(row) && row.length === task.width && row.every((value) => typeof value === "number") ? { row } : {};
}
