/** List of a table's columns: what the service takes each for, which the user can change, and what becomes of it. */

import { h } from "../../ui/dom.js";
import { count } from "../../ui/format.js";

/** @import { ColumnKinds, DescribedColumn } from "./types.js" */

/** More columns are taken as the service reads them. */
const SHOWN = 200;
/** @type {[keyof ColumnKinds, string][]} */
const KINDS = [["numeric", "number"], ["categorical", "category"], ["date", "date"], ["drop", "left out"]];

export class ColumnList extends EventTarget {
  /** Dispatches "change" when the user gives a column a kind. */
  constructor() {
    super();
    this.element = h("div", { class: "columns", role: "region", tabindex: 0, "aria-label": "What each column becomes", hidden: true });
    /** @type {Map<string, { row: HTMLElement, select: HTMLSelectElement, read: HTMLOptionElement, done: HTMLElement }>} */
    this.rows = new Map();
    this.more = h("p", { class: "muted" });
    /** @type {DescribedColumn[]} */
    this.columns = [];
  }

  clear() {
    this.rows.clear();
    this.columns = [];
    this.element.replaceChildren();
  }

  /** @param {DescribedColumn[]} columns */
  show(columns) {
    this.columns = columns;
    for (const { name, kind, done } of columns.slice(0, SHOWN)) {
      const { select, read, done: text } = this.rows.get(name) ?? this.#add(name);
      if (select.value === "") read.textContent = `as read: ${kind}`;
      text.textContent = done;
    }
    this.more.textContent = columns.length > SHOWN ? `and ${count(columns.length - SHOWN)} more columns, as they are read` : "";
  }

  /** @param {string} name */
  #add(name) {
    const read = h("option", { value: "" });
    const select = h("select", { "aria-label": `${name}: kind` }, read, ...KINDS.map(([value, text]) => h("option", { value }, text)));
    const done = h("p", { class: "muted" });
    const row = h("div", {}, h("span", {}, name), select, done);
    select.addEventListener("change", () => this.dispatchEvent(new Event("change")));
    this.element.append(row, this.more);
    const found = { row, select, read, done };
    this.rows.set(name, found);
    return found;
  }

  /** @param {string} target column to predict, which is no feature */
  markTarget(target) {
    for (const [name, { row }] of this.rows) row.hidden = name === target;
  }

  /**
   * @param {string} [target]
   * @returns {ColumnKinds} columns by the kind that the user gave them
   */
  kinds(target) {
    /** @type {ColumnKinds} */
    const found = {};
    for (const [name, { select }] of this.rows) {
      const kind = /** @type {keyof ColumnKinds | ""} */ (select.value);
      if (kind !== "" && name !== target) (found[kind] ??= []).push(name);
    }
    return found;
  }

  /** @param {string} target */
  features(target) {
    const kept = this.columns.filter(({ name, kind }) => name !== target && kind !== "left out");
    return kept.every(({ plain }) => plain) ? kept.length : kept.reduce((sum, { width }) => sum + width, 0);
  }
}
