/** The samples behind a cell of a confusion matrix, each with a link that shows it in the Try view. */

import * as api from "../../api/client.js";
import { paint } from "../../model/image.js";
import { taskOf } from "../../model/task.js";
import { href } from "../../shell/router.js";
import { h } from "../../ui/dom.js";
import { count, listed } from "../../ui/format.js";

/** @import { Quality, WrongRows } from "../../api/types.js" */

/**
 * @param {HTMLElement} place
 * @param {Quality} quality
 * @param {string} model that predicted
 * @param {WrongRows} wrong
 * @param {number} total number of rows in the cell
 */
export async function showBehind(place, quality, model, { true: actual, predicted, rows }, total) {
  const names = quality.labels ?? [];
  const shown = rows.length < total ? `, of which the first ${rows.length}` : "";
  const title = h("p", {}, `${names[actual]} taken for ${names[predicted]} by ${model}: ${count(total)} ${total === 1 ? "sample" : "samples"}${shown}.`);
  if (quality.source !== "samples") {
    place.replaceChildren(title, h("p", { class: "muted" }, `Rows of ${quality.name}, counted from 1: ${listed(rows.map((row) => count(row + 1)))}.`));
    return;
  }
  const models = quality.models.map((each) => each.model);
  const links = rows.map((row) => h("a", { href: href("try", null, { models: models.join(","), sample: String(row + 1) }), "aria-label": `Try sample ${row + 1}` }, count(row + 1)));
  place.replaceChildren(title, h("p", { class: "behind-samples" }, ...links));
  const source = quality.name.replace(/^samples of /, "");
  try {
    const info = (await api.models()).models.find(({ name }) => name === source);
    const task = info === undefined ? null : taskOf(info);
    if (task === null || typeof task === "string" || task.kind !== "image") return;
    for (const [i, row] of rows.entries()) {
      const { inputs } = await api.samples(source, row, 1);
      if (inputs.length === 0 || !links[i].isConnected) return; // another cell was chosen meanwhile
      const canvas = h("canvas", { "aria-hidden": "true" });
      paint(canvas, /** @type {number[]} */ ([inputs[0]].flat(4)), task);
      links[i].prepend(canvas);
    }
  } catch (error) {
    if (!(error instanceof api.ApiError || error instanceof api.NetworkError)) throw error;
    title.append(` Their pictures cannot be loaded: ${error.message}`);
  }
}
