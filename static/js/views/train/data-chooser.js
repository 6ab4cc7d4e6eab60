/** Form part for the training data: a data set of the service or an uploaded file. */

import { h } from "../../ui/dom.js";
import { bytes, count } from "../../ui/format.js";
import { field } from "../jobs/fields.js";
import { CsvHead } from "./csv-head.js";
import { inputShape, product } from "./network-size.js";

/**
 * @import { TrainingData, TrainingOptions } from "./types.js"
 *
 * @typedef {object} Shown the facts known before the service has read the data
 * @property {number | null} features
 * @property {number[] | null} image
 * @property {number | null} outputs
 * @property {boolean} pad whether the service pads rows with zeros to a width with balanced factors, as it does for files
 * @property {string} recipe the recommended one
 * @property {string} name default name of the twin
 */

const UPLOAD = "";
/** With fewer training samples, the default recipe's epochs have too few steps. */
const SMALL_TABLE = 5_000;
const TRAINING_FRACTION = 0.8;

export class DataChooser extends EventTarget {
  /** Dispatches "change" when the data or the known facts about them change. */
  constructor() {
    super();
    this.set = h("select", {});
    this.file = h("input", { type: "file", accept: ".csv,.npz" });
    this.target = h("select", {});
    this.description = h("p", { class: "muted data-description", role: "status" });
    this.upload = h(
      "div",
      { class: "fields wide", hidden: true },
      field("File (.csv with a header line, or .npz with x and y)", this.file),
    );
    this.column = field("Column to predict", this.target);
    this.element = h("div", { class: "form tight" }, field("Data", this.set), this.upload, this.description);
    /** @type {TrainingData[]} */
    this.known = [];
    this.most = Infinity;
    /** @type {CsvHead | null} */
    this.head = null;
    this.set.addEventListener("change", () => this.#changed());
    this.target.addEventListener("change", () => this.#changed());
    this.file.addEventListener("change", () => void this.#readHead());
  }

  /**
   * @param {TrainingOptions} options
   * @param {string | null} stored name of a data set
   */
  offer({ data, limits }, stored) {
    this.known = data;
    this.most = limits.upload_bytes;
    const chosen = this.set.options.length > 0 ? this.set.value : stored;
    this.set.replaceChildren(
      ...data.map(({ name, title, found }) => h("option", { value: name }, found ? title : `${title} (not downloaded)`)),
      h("option", { value: UPLOAD }, "Upload a file …"),
    );
    this.set.value = data.some(({ name }) => name === chosen) || chosen === UPLOAD ? String(chosen) : (data.find(({ found }) => found)?.name ?? UPLOAD);
    this.#changed();
  }

  /** @returns {{ data: string | null, target: string | null, file: File | undefined } | string} for the request, or what is missing */
  read() {
    if (this.set.value !== UPLOAD) return { data: this.set.value, target: null, file: undefined };
    const [file] = this.file.files ?? [];
    if (file === undefined) return "Data: choose a .csv or .npz file, or one of the data sets.";
    if (file.size > this.most) return `Data: ${this.#tooLarge(file)}`;
    if (!/\.(csv|npz)$/i.test(file.name)) return `Data: got ${file.name}, expected a .csv or .npz file.`;
    return { data: null, target: this.#csv(file) ? this.target.value : null, file };
  }

  /** @returns {Shown} */
  get shown() {
    const set = this.known.find(({ name }) => name === this.set.value);
    if (set) return { features: set.features, image: set.image, outputs: set.outputs, pad: false, recipe: "default", name: set.name };
    const [file] = this.file.files ?? [];
    const name = file?.name.replace(/\.\w+$/, "").replace(/[^A-Za-z0-9._-]+/g, "-") ?? "";
    if (this.head === null) return { features: null, image: null, outputs: null, pad: true, recipe: "default", name };
    const { columns, total } = this.head;
    return {
      features: columns.length - 1,
      image: null,
      outputs: this.head.target(this.target.value)?.outputs ?? null,
      pad: true,
      recipe: total * TRAINING_FRACTION < SMALL_TABLE ? "small-table" : "default",
      name,
    };
  }

  /** @param {File} file */
  #tooLarge(file) {
    return `${file.name} has ${bytes(file.size)}, expected at most ${bytes(this.most)}: the service takes no larger files.`;
  }

  /** @param {File} file */
  #csv(file) {
    return /\.csv$/i.test(file.name);
  }

  async #readHead() {
    const [file] = this.file.files ?? [];
    this.head = null;
    if (file && this.#csv(file) && file.size <= this.most) {
      try {
        this.head = await CsvHead.read(file);
      } catch (error) {
        if (!(error instanceof DOMException)) throw error; // the file is gone or not readable; its upload will fail with a message
      }
      if (file !== this.file.files?.[0]) return; // another file was chosen meanwhile
    }
    if (this.head !== null && this.head.columns.length < 2) this.head = null;
    this.target.replaceChildren(...(this.head?.columns ?? []).map((name) => h("option", { value: name }, name)));
    this.target.value = this.head?.columns.at(-1) ?? ""; // only proposed: the description asks for it
    if (this.head === null) this.column.remove();
    else this.upload.append(this.column);
    this.#changed();
  }

  #changed() {
    const upload = this.set.value === UPLOAD;
    this.upload.hidden = !upload;
    this.description.textContent = upload ? this.#describeFile() : this.#describeSet();
    this.dispatchEvent(new Event("change"));
  }

  #describeSet() {
    const set = this.known.find(({ name }) => name === this.set.value);
    if (set === undefined) return "";
    const samples = set.image ? `images of ${set.image.join("×")}` : `${count(set.features)} columns`;
    const target = set.task === "regression" ? "a number to predict" : `${count(set.outputs)} classes`;
    return `${count(set.samples)} ${samples} to train on, ${target}.${set.found ? "" : ` ${set.note ?? "The service has not downloaded it."}`}`;
  }

  #describeFile() {
    const [file] = this.file.files ?? [];
    if (file === undefined) return "One column is predicted from all others. A fifth of the rows is held out for testing.";
    if (file.size > this.most) return this.#tooLarge(file);
    if (this.head === null) {
      return this.#csv(file)
        ? "This file has no columns: expected a header line of names, separated by commas, semicolons or tabs."
        : "The shape of its samples is known once the service has read the file.";
    }
    const { columns, total, whole } = this.head;
    const width = columns.length - 1;
    const guess = this.head.target(this.target.value);
    const target =
      guess === null
        ? "a column that training will probably reject: it has a single value, only distinct values, or numbers mixed with text"
        : guess.task === "regression"
          ? "a number"
          : `one of ${count(guess.outputs)} classes`;
    const shape = inputShape({ features: width, image: null, pad: true });
    const rows = whole && total === 1 ? "row" : "rows";
    const padding = product(shape) === width ? "" : ` For the Kronecker network, rows are padded with zeros to ${shape.join("×")}.`;
    return `Choose the column to predict; the last one is only proposed. ${whole ? "" : "About "}${count(total)} ${rows} of ${count(width)} ${width === 1 ? "column" : "columns"}; predicts ${target}.${padding}`;
  }
}
