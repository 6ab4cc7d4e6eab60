/** Input of a table's row: a field for each column, which suits its values. An empty field is a missing value. */

import { h } from "../../ui/dom.js";

/**
 * @import { Column, Row } from "../../api/types.js"
 * @import { RowTask } from "../../model/types.js"
 */

/** More categories than this are typed instead of chosen. */
const MAX_CHOICES = 500;
const DAY_SECONDS = 86_400;

/**
 * @typedef {object} Field of a column
 * @property {HTMLInputElement | HTMLSelectElement} element
 * @property {() => string | number | boolean | null} read the value; null for a missing one; NaN for one that is no number
 * @property {(value: string | number | boolean | null) => void} write
 */

/**
 * Returns the type of the picker: only dates whose time of day differs are asked for one.
 * @param {Column} column
 */
function pickerOf({ turns, fill }) {
  if (!turns?.includes("day")) return "date";
  return turns.length === 1 && typeof fill === "number" && fill < DAY_SECONDS ? "time" : "datetime-local";
}

/**
 * @param {Column} column
 * @returns {Field}
 */
function fieldOf(column) {
  const { kind, values, other } = column;
  if (kind === "boolean") {
    const select = choice([["true", "yes"], ["false", "no"]]);
    return { element: select, read: () => (select.value === "" ? null : select.value === "true"), write: (value) => (select.value = value === null ? "" : String(Boolean(value))) };
  }
  if (kind === "category" && values && values.length <= MAX_CHOICES) {
    const select = choice(values.map((value) => [value, value]));
    // A value that the model does not tell apart is one like all others, so that any text stands for it.
    if (other) select.append(h("option", { value: unlike(values) }, "another value"));
    const write = (/** @type {unknown} */ value) => (select.value = value === null ? "" : values.includes(String(value)) || !other ? String(value) : unlike(values));
    return { element: select, read: () => select.value || null, write };
  }
  if (kind === "category") {
    const input = h("input", { type: "text", autocomplete: "off" });
    return { element: input, read: () => input.value.trim() || null, write: (value) => (input.value = value === null ? "" : String(value)) };
  }
  if (kind === "date") {
    const type = pickerOf(column);
    const input = h("input", { type, step: type === "date" ? "1" : "any" });
    return { element: input, read: () => input.value || null, write: (value) => (input.value = momentText(value, type)) };
  }
  const input = h("input", { type: "text", inputmode: "decimal", autocomplete: "off" });
  const read = () => (input.value.trim() === "" ? null : Number(input.value));
  return { element: input, read, write: (value) => (input.value = value === null ? "" : String(value)) };
}

/** @param {[string, string][]} options values and texts */
function choice(options) {
  return h("select", {}, h("option", { value: "" }, "not known"), ...options.map(([value, text]) => h("option", { value }, text)));
}

/** @param {string[]} values */
function unlike(values) {
  let text = "other";
  while (values.includes(text)) text += "_";
  return text;
}

/**
 * @param {string | number | boolean | null} value an ISO date, perhaps with a time; a time; or seconds since 1970
 * @param {string} type of the picker
 */
function momentText(value, type) {
  if (value === null) return "";
  const text = typeof value === "number" ? new Date(value * 1000).toISOString().slice(0, 19) : String(value);
  if (type === "time") return text.slice(text.indexOf("T") + 1);
  const [date, time = "00:00"] = text.split("T");
  return type === "date" ? date : `${date}T${time}`;
}

export class ColumnForm extends EventTarget {
  /**
   * Dispatches "change" when the row changes.
   * @param {HTMLElement} place
   */
  constructor(place) {
    super();
    this.message = h("p", { class: "message", id: "row-message", role: "status" });
    this.place = h("div", { class: "fields" });
    /** @type {Field[]} */
    this.fields = [];
    /** @type {string[]} */
    this.names = [];
    /** @type {Row | null} */
    this.values = null;
    place.replaceChildren(this.place, this.message);
  }

  /** @param {RowTask} task */
  open({ names, columns = [] }) {
    this.names = names;
    this.values = null;
    this.fields = columns.map(fieldOf);
    this.place.replaceChildren(...this.fields.map(({ element }, i) => h("label", { class: "field" }, h("span", {}, names[i]), element)));
    for (const { element } of this.fields) element.addEventListener("input", () => this.#changed());
    this.#say("");
  }

  /**
   * Shows a row without dispatching "change".
   * @param {number[] | Row} row
   */
  show(row) {
    const values = /** @type {Row} */ (row);
    this.fields.forEach(({ write }, i) => write(values[this.names[i]] ?? null));
    this.#read();
    this.values = values;
  }

  clear() {
    for (const { write } of this.fields) write(null);
    this.#changed();
  }

  #changed() {
    this.values = this.#read();
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {Row | null} null if nothing is filled in, or a number is none */
  #read() {
    const values = this.fields.map(({ read }) => read());
    const wrong = values.findIndex((value) => typeof value === "number" && !Number.isFinite(value));
    this.fields.forEach(({ element }, i) => element.toggleAttribute("aria-invalid", typeof values[i] === "number" && !Number.isFinite(values[i])));
    const missing = this.names.filter((_, i) => values[i] === null);
    if (wrong >= 0) this.#say(`${this.names[wrong]}: got “${this.fields[wrong].element.value.slice(0, 40)}”, expected a number.`, true);
    else if (missing.length === 0 || missing.length === values.length) this.#say("");
    else this.#say(`Taken as not known: ${missing.slice(0, 4).join(", ")}${missing.length > 4 ? ` and ${missing.length - 4} more` : ""}.`);
    if (wrong >= 0 || missing.length === values.length) return null;
    return Object.fromEntries(this.names.map((name, i) => [name, values[i]]));
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
