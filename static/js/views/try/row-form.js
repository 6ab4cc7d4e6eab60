/** Row input: one field per feature, or a pasted line of CSV. */

import { h } from "../../ui/dom.js";

/**
 * @import { Row } from "../../api/types.js"
 * @import { RowTask } from "../../model/types.js"
 */

/** Rows with more features can only be pasted. */
const MAX_FIELDS = 64;

/**
 * @param {string} text separated by commas or blanks; or by semicolons or tabs, then numbers may have a decimal comma
 * @returns {string[]}
 */
export function splitRow(text) {
  const line = text.trim().split(/\r?\n/, 1)[0];
  if (/[;\t]/.test(line)) return line.split(/[;\t]/).map((part) => part.trim().replace(",", "."));
  return line.split(line.includes(",") ? "," : /\s+/).map((part) => part.trim());
}

/**
 * @param {string} text
 * @returns {number | null}
 */
function numberOf(text) {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? value : null;
}

/** Formats the significant digits of a float32. */
const shown = (/** @type {number} */ value) => String(Number(value.toPrecision(7)));

export class RowForm extends EventTarget {
  /**
   * Dispatches "change" when the row changes.
   * @param {HTMLElement} place
   */
  constructor(place) {
    super();
    this.message = h("p", { class: "message", id: "row-message", role: "status" });
    this.paste = h("input", { type: "text", id: "row-paste", autocomplete: "off", spellcheck: "false", "aria-describedby": "row-message", placeholder: "0.5, 12, -3.25, …" });
    this.fields = h("div", { class: "fields" });
    /** @type {HTMLInputElement[]} */
    this.inputs = [];
    /** @type {number[] | null} */
    this.values = null;
    this.paste.addEventListener("input", () => this.#pasted());
    place.replaceChildren(this.fields, h("label", { class: "field wide", for: "row-paste" }, h("span", {}, "Or paste a row of CSV")), this.paste, this.message);
  }

  /** @param {RowTask} task */
  open(task) {
    this.task = task;
    this.values = null;
    const names = task.width <= MAX_FIELDS ? task.names : [];
    this.inputs = names.map(() => h("input", { type: "text", inputmode: "decimal", autocomplete: "off" }));
    this.fields.replaceChildren(...names.map((name, i) => h("label", { class: "field" }, h("span", {}, name), this.inputs[i])));
    for (const input of this.inputs) input.addEventListener("input", () => this.#typed());
    this.paste.value = "";
    this.#say("");
  }

  /**
   * Shows a row without dispatching "change".
   * @param {number[] | Row} row numbers
   */
  show(row) {
    const values = /** @type {number[]} */ (row);
    this.inputs.forEach((input, i) => {
      input.value = shown(values[i]);
      input.removeAttribute("aria-invalid");
    });
    this.paste.value = this.inputs.length > 0 ? "" : values.map(shown).join(", ");
    this.values = values;
    this.#say("");
  }

  clear() {
    for (const input of this.inputs) {
      input.value = "";
      input.removeAttribute("aria-invalid");
    }
    this.paste.value = "";
    this.values = null;
    this.#say("");
    this.dispatchEvent(new Event("change"));
  }

  #typed() {
    const { task } = this;
    if (task === undefined) return;
    const values = this.inputs.map(({ value }) => numberOf(value));
    this.inputs.forEach((input, i) => input.toggleAttribute("aria-invalid", values[i] === null && input.value.trim() !== ""));
    const missing = task.names.filter((_, i) => this.inputs[i].value.trim() === "");
    const wrong = task.names.findIndex((_, i) => values[i] === null && this.inputs[i].value.trim() !== "");
    if (wrong >= 0) this.#say(`${task.names[wrong]}: got “${this.inputs[wrong].value.slice(0, 40)}”, expected a number.`, true);
    else if (missing.length === task.width) this.#say("");
    else if (missing.length > 0) this.#say(`Missing: ${missing.slice(0, 4).join(", ")}${missing.length > 4 ? ` and ${missing.length - 4} more` : ""}.`);
    else this.#say("");
    this.values = values.every((value) => value !== null) ? values : null;
    this.dispatchEvent(new Event("change"));
  }

  #pasted() {
    const { task } = this;
    if (task === undefined || this.paste.value.trim() === "") {
      this.#say("");
      return;
    }
    const parts = splitRow(this.paste.value);
    const values = parts.map(numberOf);
    const wrong = values.indexOf(null);
    this.values = null;
    if (parts.length !== task.width) this.#say(`Got ${parts.length} ${parts.length === 1 ? "value" : "values"}, expected ${task.width}.`, true);
    else if (wrong >= 0) this.#say(`Value ${wrong + 1}: got “${parts[wrong].slice(0, 40)}”, expected a number.`, true);
    else {
      const row = values.filter((value) => value !== null);
      this.inputs.forEach((input, i) => {
        input.value = parts[i];
        input.removeAttribute("aria-invalid");
      });
      this.values = row;
      this.#say("");
    }
    this.dispatchEvent(new Event("change"));
  }

  /**
   * @param {string} text
   * @param {boolean} [failed]
   */
  #say(text, failed = false) {
    this.message.textContent = text;
    this.message.classList.toggle("failed", failed);
  }
}
