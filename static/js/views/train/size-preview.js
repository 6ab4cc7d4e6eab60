/** What both twins will store and compute, as figures that move with the form, and drawn to scale beside it. */

import { h } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { roleName } from "../../model/display.js";
import { twinSize } from "./network-size.js";
import { showStructure } from "../../charts/structure.js";
import { ratioText } from "../jobs/table-row.js";

/**
 * @import { Network } from "./network-size.js"
 */

const NOTHING = "–";
/** A slider that moves is not read out at each step. */
const SPOKEN_AFTER_MS = 700;

/**
 * How Kronecker's number stands to dense's.
 * @param {number} kronecker
 * @param {number} dense
 */
const ratio = (kronecker, dense) => ratioText({ values: [kronecker, dense], words: ["fewer", "more"] });

export class SizePreview {
  constructor() {
    const column = () => [h("td", {}, NOTHING), h("td", {}, NOTHING), h("td", { class: "ratio" }, NOTHING)];
    /** Kronecker's, dense's, and how they stand to each other. */
    this.weights = column();
    this.macs = column();
    this.note = h("p", { class: "message", role: "status" });
    this.spoken = h("p", { class: "sr-only", "aria-live": "polite" });
    const names = [...["kronecker", "dense"].map((role) => h("th", { scope: "row", class: `tone-${role}` }, h("span", { class: "swatch" }), roleName(role))), h("th", { scope: "row" }, "Kronecker has")];
    this.element = h(
      "div",
      { class: "sizes" },
      h(
        "table",
        {},
        h("caption", { class: "sr-only" }, "What both networks will store and compute for a sample"),
        h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "Weights"), h("th", { scope: "col" }, "Multiply-adds"))),
        h("tbody", {}, ...names.map((name, i) => h("tr", {}, name, this.weights[i], this.macs[i]))),
      ),
      this.note,
      this.spoken,
    );
    this.legend = h("p", { class: "muted" }, "Drawn to one scale: a matrix is as wide as the layer’s outputs and as high as its inputs. Paler squares are biases. Areas compare numbers of weights.");
    this.words = h("div", { class: "structure-words" });
    this.figures = h("div", { class: "figures" });
    this.aside = h(
      "section",
      { class: "preview", "aria-labelledby": "preview-title" },
      h("h2", { id: "preview-title" }, "What each network will store"),
      this.words,
      this.figures,
      this.legend,
    );
    this.timer = 0;
  }

  /**
   * @param {Network | string} network or why there is none to count
   * @param {boolean} [failed] it is a mistake of the reader's
   */
  show(network, failed = false) {
    const told = typeof network === "string" ? network : "";
    if (this.note.textContent !== told) this.note.textContent = told;
    this.note.classList.toggle("failed", failed);
    this.legend.hidden = typeof network === "string";
    if (typeof network === "string") {
      for (const cell of [...this.weights, ...this.macs]) cell.textContent = NOTHING;
      this.words.replaceChildren();
      this.figures.replaceChildren();
      this.#say("");
      return;
    }
    const { kronecker, dense } = twinSize(network);
    for (const [cells, a, b] of /** @type {const} */ ([[this.weights, kronecker.parameters, dense.parameters], [this.macs, kronecker.macs, dense.macs]])) {
      cells[0].textContent = count(a);
      cells[1].textContent = count(b);
      cells[2].textContent = ratio(a, b);
    }
    this.#say(`Kronecker ${count(kronecker.parameters)} weights, ${ratio(kronecker.parameters, dense.parameters)} than dense; ${count(kronecker.macs)} multiply-adds a sample, ${ratio(kronecker.macs, dense.macs)}.`);
    const drawn = Object.entries({ kronecker, dense }).map(([role, { layers, parameters }]) => ({ name: role, card: { role, layers, parameters } }));
    showStructure(drawn, this.words, this.figures);
  }

  /** @param {string} text */
  #say(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.spoken.textContent !== text) this.spoken.textContent = text;
    }, SPOKEN_AFTER_MS);
  }
}
