/** Sizes of both networks of a twin, updated with the form: a table, and a drawing to scale. */

import { showStructure } from "../../charts/structure.js";
import { roleName } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { LiveRegion } from "../../ui/live-region.js";
import { ratioText } from "../jobs/table-row.js";
import { kroneckerProduct } from "./kronecker-product.js";
import { twinSize } from "./network-size.js";

/**
 * @import { Network } from "./network-size.js"
 */

const NOTHING = "–";

/**
 * Formats the ratio of the Kronecker network's number to the dense one's.
 * @param {number} kronecker
 * @param {number} dense
 */
const ratio = (kronecker, dense) => ratioText({ values: [kronecker, dense], words: ["fewer", "more"] });

export class SizePreview {
  constructor() {
    const column = () => [h("td", {}, NOTHING), h("td", {}, NOTHING), h("td", { class: "ratio" }, NOTHING)];
    /** Cells of the Kronecker network, the dense one, and their ratio. */
    this.weights = column();
    this.bytes = column();
    this.macs = column();
    this.note = h("p", { class: "message", role: "status" });
    this.spoken = new LiveRegion();
    const names = [...["kronecker", "dense"].map((role) => h("th", { scope: "row", class: `tone-${role}` }, h("span", { class: "swatch" }), roleName(role))), h("th", { scope: "row" }, "Kronecker has")];
    this.element = h(
      "div",
      { class: "sizes" },
      h(
        "table",
        {},
        h("caption", { class: "sr-only" }, "Weights, their bytes, and multiply-adds of both networks"),
        h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "Weights"), h("th", { scope: "col" }, "Bytes"), h("th", { scope: "col" }, "Multiply-adds"))),
        h("tbody", {}, ...names.map((name, i) => h("tr", {}, name, this.weights[i], this.bytes[i], this.macs[i]))),
      ),
      this.note,
      this.spoken.element,
    );
    this.legend = h("p", { class: "muted" }, "To scale: a matrix is as wide as the layer’s outputs and as high as its inputs; its area is its number of weights. Pale squares: biases.");
    this.words = h("div", { class: "structure-words" });
    this.figures = h("div", { class: "figures" });
    this.aside = h(
      "section",
      { class: "preview", "aria-labelledby": "preview-title" },
      h("h2", { id: "preview-title" }, "Weights of each network"),
      kroneckerProduct(),
      this.words,
      this.figures,
      this.legend,
    );
  }

  /**
   * @param {Network | string} network or why it cannot be counted
   * @param {boolean} [failed] whether a value of the form is invalid
   */
  show(network, failed = false) {
    const reason = typeof network === "string" ? network : "";
    if (this.note.textContent !== reason) this.note.textContent = reason;
    this.note.classList.toggle("failed", failed);
    this.legend.hidden = typeof network === "string";
    if (typeof network === "string") {
      for (const cell of [...this.weights, ...this.bytes, ...this.macs]) cell.textContent = NOTHING;
      this.words.replaceChildren();
      this.figures.replaceChildren();
      this.spoken.say("");
      return;
    }
    const { kronecker, dense } = twinSize(network);
    for (const [cells, a, b] of /** @type {const} */ ([[this.weights, kronecker.parameters, dense.parameters], [this.bytes, kronecker.bytes, dense.bytes], [this.macs, kronecker.macs, dense.macs]])) {
      cells[0].textContent = count(a);
      cells[1].textContent = count(b);
      cells[2].textContent = ratio(a, b);
    }
    this.spoken.say(`Kronecker ${count(kronecker.parameters)} weights, ${ratio(kronecker.parameters, dense.parameters)} than dense; ${count(kronecker.bytes)} bytes; ${count(kronecker.macs)} multiply-adds per sample, ${ratio(kronecker.macs, dense.macs)}.`);
    const drawn = Object.entries({ kronecker, dense }).map(([role, { layers, parameters }]) => ({ name: role, card: { role, layers, parameters } }));
    showStructure(drawn, this.words, this.figures);
  }
}
