/** Time of each node of the compared models' graphs, side by side. */

import { tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { count, digits, percent } from "../../ui/format.js";
import { closedPanel } from "../jobs/panels.js";
import { batchName } from "./latency.js";

/** @import { Measured, ModelNodes } from "../../api/types.js" */

/**
 * @param {ModelNodes} model
 * @param {string} colour
 */
function nodeTable({ model, us, nodes }, colour) {
  const most = Math.max(...nodes.map((node) => node.us), 1e-9);
  return h(
    "table",
    { class: `nodes ${colour}` },
    h("caption", {}, h("span", { class: "swatch" }), model, h("span", { class: "muted" }, ` ${digits(us)} µs in ${count(nodes.length)} nodes`)),
    h("thead", {}, h("tr", {}, ...["Operator", "Node", "µs", "share"].map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      ...nodes.map((node) => {
        const row = h("tr", {}, h("th", { scope: "row" }, node.op), h("td", {}, node.name), h("td", {}, digits(node.us)), h("td", {}, percent(us > 0 ? node.us / us : 0, 0)));
        row.style.setProperty("--fraction", String(node.us / most));
        return row;
      }),
    ),
  );
}

/**
 * @param {ModelNodes[]} measured
 * @param {Measured[]} models
 * @returns {HTMLElement | null} null if it was not measured
 */
export function nodesPanel(measured, models) {
  if (measured.length === 0) return null;
  const [{ batch_size, runs }] = measured;
  return closedPanel(
    "Time of each node",
    h("p", { class: "muted" }, `Mean of ${count(runs)} runs without the fastest and the slowest fifth, ${batchName(batch_size).toLowerCase()}, by onnxruntime’s profile, which counts whole microseconds and slows the runs down. Nodes are those of the optimised graphs, in their order.`),
    h(
      "div",
      { class: "confusions", tabindex: 0, role: "region", "aria-label": "Time of each node" },
      ...measured.map((each) => nodeTable(each, tone(models, Math.max(0, models.findIndex(({ model }) => model === each.model))))),
    ),
  );
}
