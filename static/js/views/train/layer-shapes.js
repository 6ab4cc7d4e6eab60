/** Form part for the hidden layers of a Kronecker network: two factor sizes each, layers can be added and removed. */

import { h } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { FieldError, optionalNumber } from "../jobs/fields.js";

/** @import { Shape } from "./types.js" */

const SMALL = 8;
const STEPS = { small: [1, 1.5, 2], wide: [Math.SQRT1_2, 1, Math.SQRT2] };

/**
 * Suggests layers half as wide as the input, as wide, and twice as wide; none narrower for few columns, since narrow layers learn little.
 * @param {Shape} input
 * @param {number} widest
 * @returns {Shape[]}
 */
export function suggestions(input, widest) {
  const side = Math.max(SMALL, Math.ceil(Math.sqrt(input[0] * input[1])));
  const base = Math.min(...input) >= SMALL && input[1] <= 2 * input[0] ? input : [side, side];
  const steps = Math.min(...base) < 2 * SMALL ? STEPS.small : STEPS.wide;
  return steps.map((step) => /** @type {Shape} */ (base.map((size) => Math.round(size * step)))).filter(([a, b]) => a * b <= widest);
}

const name = (/** @type {Shape} */ [a, b]) => `${a}×${b}`;

export class LayerShapes extends EventTarget {
  /** Dispatches "change" when a size or the number of layers changes. */
  constructor() {
    super();
    this.widest = 4096;
    this.most = 4;
    /** The sizes that are suggested now, as text. */
    this.suggestedNames = "";
    this.rows = h("ol", { class: "shape-rows" });
    this.add = h("button", { type: "button", class: "button small" }, "Add a layer");
    this.suggested = h("div", { class: "suggested", role: "group", "aria-label": "Suggested sizes for all hidden layers" });
    this.element = h("fieldset", { class: "shapes" }, h("legend", {}, "Hidden layers, as two factors each"), this.rows, h("div", { class: "shape-actions" }, this.add, this.suggested));
    this.add.addEventListener("click", () => {
      const last = this.inputs.at(-1);
      this.#row(last?.map(({ value }) => value) ?? ["16", "16"]);
      this.#changed();
      this.inputs.at(-1)?.[0].focus();
    });
    this.rows.addEventListener("input", () => this.#changed());
  }

  /** @returns {HTMLInputElement[][]} */
  get inputs() {
    return [...this.rows.children].map((row) => [...row.querySelectorAll("input")]);
  }

  /** @returns {string[][]} the fields' texts, to be stored */
  get texts() {
    return this.inputs.map((row) => row.map(({ value }) => value));
  }

  /**
   * @param {(string | number)[][]} shapes
   */
  set(shapes) {
    this.rows.replaceChildren();
    for (const shape of shapes) this.#row(shape.map(String));
    this.#changed();
  }

  /**
   * @param {{ most: number, widest: number }} limits
   * @param {Shape | null} input shape of the data; null if unknown
   */
  limit({ most, widest }, input) {
    this.most = most;
    this.widest = widest;
    const sizes = input === null ? [] : suggestions(input, widest);
    const names = sizes.map(name).join();
    if (names !== this.suggestedNames) {
      this.suggestedNames = names;
      this.suggested.replaceChildren(
        h("span", { class: "muted" }, "All:"),
        ...sizes.map((shape) => {
          const button = h("button", { type: "button", class: "button small", "aria-label": `All hidden layers ${shape.join(" by ")}` }, name(shape));
          button.addEventListener("click", () => this.set(this.inputs.map(() => shape)));
          return button;
        }),
      );
    }
    this.#count();
  }

  /**
   * @returns {Shape[]}
   * @throws {FieldError}
   */
  read() {
    return this.inputs.map((row, i) => {
      const [a, b] = row.map(({ value }) => {
        const size = optionalNumber(`Hidden layer ${i + 1}`, value, { low: 1, high: this.widest, whole: true });
        if (size === undefined) throw new FieldError(`Hidden layer ${i + 1}: got nothing, expected two whole numbers such as 28 and 28.`);
        return size;
      });
      if (a * b > this.widest) throw new FieldError(`Hidden layer ${i + 1}: got ${a} × ${b} = ${count(a * b)}, expected a width of at most ${count(this.widest)}.`);
      return [a, b];
    });
  }

  /** @param {string[]} values */
  #row(values) {
    const inputs = values.map((value) => h("input", { type: "text", inputmode: "numeric", autocomplete: "off", maxlength: 5, value }));
    const width = h("output", { class: "muted" });
    const remove = h("button", { type: "button", class: "button small" }, "Remove");
    const row = h("li", {}, h("span", { class: "shape-name", "aria-hidden": "true" }), inputs[0], h("span", { "aria-hidden": "true" }, "×"), inputs[1], width, remove);
    remove.addEventListener("click", () => {
      row.remove();
      this.#changed();
      (this.inputs.at(-1)?.[0] ?? this.add).focus();
    });
    this.rows.append(row);
  }

  #changed() {
    this.#count();
    this.dispatchEvent(new Event("change"));
  }

  #count() {
    [...this.rows.children].forEach((row, i) => {
      const [first, second] = row.querySelectorAll("input");
      const width = Number(first.value) * Number(second.value);
      first.setAttribute("aria-label", `Hidden layer ${i + 1}, first factor`);
      second.setAttribute("aria-label", `Hidden layer ${i + 1}, second factor`);
      const output = row.querySelector("output");
      if (output) output.textContent = Number.isInteger(width) && width > 0 ? `= ${count(width)}` : "";
      const remove = row.querySelector("button");
      remove?.setAttribute("aria-label", `Remove hidden layer ${i + 1}`);
      if (remove) remove.disabled = this.rows.childElementCount < 2;
      const label = row.querySelector(".shape-name");
      if (label) label.textContent = `${i + 1}`;
    });
    this.add.disabled = this.rows.childElementCount >= this.most;
  }
}
