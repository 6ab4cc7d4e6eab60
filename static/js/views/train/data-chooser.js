/** The data to train on, as a part of a form: a set that is found at the service, or a file of the reader's. */

import { CsvHead } from "./csv-head.js";
import { h } from "../../ui/dom.js";
import { field } from "../jobs/fields.js";
import { bytes, count } from "../../ui/format.js";
import { inputShape, product } from "./network-size.js";

/**
 * @import { TrainingData, TrainingOptions } from "./types.js"
 *
 * @typedef {object} Shown as far as it is known before the service has read it
 * @property {number | null} features
 * @property {number[] | null} image
 * @property {number | null} outputs
 * @property {boolean} pad whether the service fills rows up with zeros to a width with balanced factors: those of a file
 * @property {string} recipe that is recommended
 * @property {string} name of a twin trained on it
 */

const OWN = "";
/** Of fewer samples to train on, epochs of the default recipe are too few steps. */
const SMALL_TABLE = 5_000;
const TRAINED_ON = 0.8;

export class DataChooser extends EventTarget {
  /** Dispatches "change" when there are other data, or more is known of them. */
  constructor() {
    super();
    this.set = h("select", {});
    this.file = h("input", { type: "file", accept: ".csv,.npz" });
    this.target = h("select", {});
    this.words = h("p", { class: "muted data-words", role: "status" });
    this.own = h(
      "div",
      { class: "fields wide", hidden: true },
      field("File (.csv with a header line, or .npz with x and y)", this.file),
    );
    this.column = field("Column to predict", this.target);
    this.element = h("div", { class: "form tight" }, field("Data", this.set), this.own, this.words);
    /** @type {TrainingData[]} */
    this.known = [];
    this.most = Infinity;
    /** @type {CsvHead | null} */
    this.head = null;
    this.set.addEventListener("change", () => this.#changed());
    this.target.addEventListener("change", () => this.#changed());
    this.file.addEventListener("change", () => void this.#look());
  }

  /**
   * @param {TrainingOptions} options
   * @param {string | null} wanted name of a set
   */
  offer({ data, limits }, wanted) {
    this.known = data;
    this.most = limits.upload_bytes;
    const chosen = this.set.options.length > 0 ? this.set.value : wanted;
    this.set.replaceChildren(
      ...data.map(({ name, title, found }) => h("option", { value: name }, found ? title : `${title} (not here yet)`)),
      h("option", { value: OWN }, "A file of your own …"),
    );
    this.set.value = data.some(({ name }) => name === chosen) || chosen === OWN ? String(chosen) : (data.find(({ found }) => found)?.name ?? OWN);
    this.#changed();
  }

  /** @returns {{ data: string | null, target: string | null, file: File | undefined } | string} for the service, or what is missing */
  read() {
    if (this.set.value !== OWN) return { data: this.set.value, target: null, file: undefined };
    const [file] = this.file.files ?? [];
    if (file === undefined) return "Data: choose a .csv or .npz file, or one of the data sets.";
    if (file.size > this.most) return `Data: ${file.name} has ${bytes(file.size)}, expected at most ${bytes(this.most)}.`;
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
      recipe: total * TRAINED_ON < SMALL_TABLE ? "small-table" : "default",
      name,
    };
  }

  /** @param {File} file */
  #csv(file) {
    return /\.csv$/i.test(file.name);
  }

  async #look() {
    const [file] = this.file.files ?? [];
    this.head = null;
    if (file && this.#csv(file) && file.size <= this.most) {
      try {
        this.head = await CsvHead.read(file);
      } catch (error) {
        if (!(error instanceof DOMException)) throw error; // it has gone or may not be read: the service will not get it either
      }
      if (file !== this.file.files?.[0]) return; // another one by now
    }
    if (this.head !== null && this.head.columns.length < 2) this.head = null;
    this.target.replaceChildren(...(this.head?.columns ?? []).map((name) => h("option", { value: name }, name)));
    this.target.value = this.head?.columns.at(-1) ?? "";
    if (this.head === null) this.column.remove();
    else this.own.append(this.column);
    this.#changed();
  }

  #changed() {
    const own = this.set.value === OWN;
    this.own.hidden = !own;
    this.words.textContent = own ? this.#ofFile() : this.#ofSet();
    this.dispatchEvent(new Event("change"));
  }

  #ofSet() {
    const set = this.known.find(({ name }) => name === this.set.value);
    if (set === undefined) return "";
    const what = set.image ? `images of ${set.image.join("×")}` : `${count(set.features)} columns`;
    const predicts = set.task === "regression" ? "a number to predict" : `${count(set.outputs)} classes`;
    return `${count(set.samples)} ${what} to train on, ${predicts}.${set.found ? "" : ` ${set.note ?? "It is not on the service’s machine."}`}`;
  }

  #ofFile() {
    const [file] = this.file.files ?? [];
    if (file === undefined) return "A column of the file is predicted from all the others; a fifth of the rows is kept for the test.";
    if (this.head === null) {
      return this.#csv(file)
        ? "No columns were found in this file: expected a header line with names, separated by commas, semicolons or tabs."
        : "How wide its samples are and what they are is known once the service has read the file.";
    }
    const { columns, total, whole } = this.head;
    const width = columns.length - 1;
    const guess = this.head.target(this.target.value);
    const what =
      guess === null
        ? "which training is not likely to take: it holds one value only, or values that are all different, or numbers with words among them"
        : guess.task === "regression"
          ? "a number"
          : `one of ${count(guess.outputs)} classes`;
    const shape = inputShape({ features: width, image: null, pad: true });
    const filled = product(shape) === width ? "" : ` For the Kronecker network each row is filled up with zeros to ${shape.join("×")}.`;
    return `${whole ? "" : "About "}${count(total)} rows of ${count(width)} columns; predicts ${what}.${filled}`;
  }
}
