/** Form part for the training data: a data set of the service or an uploaded file, which the service describes first. */

import { ApiError, NetworkError } from "../../api/client.js";
import { describeData } from "../../api/jobs.js";
import { h } from "../../ui/dom.js";
import { bytes, count } from "../../ui/format.js";
import { capitalized, sentence } from "../../ui/text.js";
import { field } from "../jobs/fields.js";
import { ColumnList } from "./column-list.js";
import { fileHead } from "./file-head.js";
import { inputShape, product } from "./network-size.js";

/**
 * @import { ColumnKinds, DataDescription, TrainingData, TrainingOptions } from "./types.js"
 *
 * @typedef {object} Shown the facts known before the service has read the data
 * @property {number | null} features
 * @property {number[] | null} image
 * @property {number | null} outputs
 * @property {boolean} pad whether the service pads rows with zeros to a width with balanced factors, as it does for files
 * @property {string} recipe the recommended one
 * @property {string} name default name of the twin
 *
 * @typedef {{ data: string | null, file: File | undefined, target?: string, skip_bad_rows?: boolean } & ColumnKinds} Source
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
    this.file = h("input", { type: "file", accept: ".csv,.tsv,.tab,.txt,.psv,.jsonl,.ndjson,.parquet,.feather,.arrow,.npz,.gz,.bz2,.zst,.lz4" });
    this.target = h("select", {});
    this.description = h("p", { class: "muted data-description", role: "status" });
    this.upload = h(
      "div",
      { class: "fields wide", hidden: true },
      field("File (.csv, .tsv, .csv.gz, .parquet, .feather, .jsonl, or .npz with x and y)", this.file),
    );
    this.columns = new ColumnList();
    this.skip = h("input", { type: "checkbox" });
    this.column = h("div", { class: "form tight" }, field("Column to predict", this.target), this.columns.element, h("label", { class: "choice" }, this.skip, "Leave out rows that cannot be used"));
    this.element = h("div", { class: "form tight" }, field("Data", this.set), this.upload, this.description);
    /** @type {TrainingData[]} */
    this.known = [];
    this.most = Infinity;
    /** @type {DataDescription | null} */
    this.described = null;
    /** Fraction of the file's bytes that the service has described. */
    this.part = 1;
    this.problem = "";
    this.inspections = 0;
    this.set.addEventListener("change", () => this.#changed());
    this.target.addEventListener("change", () => this.#changed());
    this.skip.addEventListener("change", () => this.#changed());
    this.columns.addEventListener("change", () => void this.#inspect());
    this.file.addEventListener("change", () => {
      this.columns.clear();
      this.target.replaceChildren();
      this.skip.checked = false;
      this.described = null;
      void this.#inspect();
    });
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

  /** @returns {Source | string} for the request, or what is missing */
  read() {
    if (this.set.value !== UPLOAD) return { data: this.set.value, file: undefined };
    const [file] = this.file.files ?? [];
    if (file === undefined) return "Data: choose a file, or one of the data sets.";
    if (file.size > this.most) return `Data: ${this.#tooLarge(file)}`;
    if (this.problem || this.described === null) return `Data: ${this.problem || "the file is still being read."}`;
    const { columns } = this.described;
    if (columns.length === 0) return { data: null, file };
    const target = this.target.value;
    if (this.#unusable && !this.skip.checked) return "Data: some rows cannot be used. Correct the file, or choose to leave them out.";
    return { data: null, file, target, skip_bad_rows: this.skip.checked, ...this.columns.kinds(target) };
  }

  /** Whether rows are known that cannot be used. */
  get #unusable() {
    return this.described?.bad_rows != null || (this.#predicted?.unusable ?? 0) > 0;
  }

  get #predicted() {
    return this.described?.columns.find(({ name }) => name === this.target.value);
  }

  /** @returns {Shown} */
  get shown() {
    const set = this.known.find(({ name }) => name === this.set.value);
    if (set) return { features: set.features, image: set.image, outputs: set.outputs, pad: false, recipe: "default", name: set.name };
    const [file] = this.file.files ?? [];
    const name = file?.name.replace(/\..*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-") ?? "";
    if (this.described === null) return { features: null, image: null, outputs: null, pad: true, recipe: "default", name };
    const { columns, features, image, outputs } = this.described;
    const small = this.#rows * TRAINING_FRACTION < SMALL_TABLE && image === null;
    const sizes = columns.length > 0 ? { features: this.columns.features(this.target.value) || null, outputs: this.#predicted?.outputs ?? null } : { features, outputs };
    return { ...sizes, image, pad: true, recipe: small ? "small-table" : "default", name };
  }

  get #rows() {
    return Math.round((this.described?.rows ?? 0) / this.part);
  }

  /** @param {File} file */
  #tooLarge(file) {
    return `${file.name} has ${bytes(file.size)}, expected at most ${bytes(this.most)}: the service takes no larger files.`;
  }

  /** Asks the service what the file's columns become, with the kinds that the user gave them. */
  async #inspect() {
    const [file] = this.file.files ?? [];
    const inspection = ++this.inspections;
    this.problem = "";
    if (file && file.size <= this.most) {
      this.#changed();
      try {
        const head = await fileHead(file, this.most);
        const described = await describeData(this.columns.kinds(), head);
        if (inspection !== this.inspections) return; // another file or kind was chosen meanwhile
        this.described = described;
        this.part = head.size / file.size;
        this.#offerColumns(described);
      } catch (error) {
        if (!(error instanceof ApiError || error instanceof NetworkError || error instanceof DOMException)) throw error; // DOMException: the file is gone
        if (inspection !== this.inspections) return;
        this.problem = sentence(error.message.replace(/^data: /, ""));
      }
    }
    this.#changed();
  }

  /** @param {DataDescription} described */
  #offerColumns({ columns }) {
    this.columns.show(columns);
    if (this.target.options.length > 0) return; // keep the user's choice
    this.target.replaceChildren(...columns.map(({ name }) => h("option", { value: name }, name)));
    this.target.value = columns.at(-1)?.name ?? ""; // only proposed: the description asks for it
  }

  #changed() {
    const upload = this.set.value === UPLOAD;
    this.upload.hidden = !upload;
    const listed = this.target.options.length > 0;
    if (listed) this.upload.append(this.column);
    else this.column.remove();
    this.columns.element.hidden = !listed;
    this.columns.markTarget(this.target.value);
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
    if (this.problem) return this.problem;
    if (this.described === null) return "The service reads the file …";
    const { rows, notes, bad_rows: bad, columns, task, features, image, outputs } = this.described;
    const named = notes.map((note) => ` ${sentence(capitalized(note))}`).join("");
    if (columns.length === 0) {
      return `${count(rows)} ${image ? `images of ${image.join("×")}` : `rows of ${count(features ?? 0)} numbers`}; predicts ${predicted(task, outputs)}.${named}`;
    }
    const target = this.#predicted;
    const width = this.columns.features(this.target.value);
    const shape = inputShape({ features: width, image: null, pad: true });
    const padding = width === 0 || product(shape) === width ? "" : ` For the Kronecker network, rows are padded with zeros to ${shape.join("×")}.`;
    const lacking = target?.unusable ? ` ${count(target.unusable)} ${target.unusable === 1 ? "row has" : "rows have"} no usable ${target.name}.` : "";
    const where = this.part < 1 ? "In the first part of the file: " : "";
    return `Choose the column to predict; the last one is only proposed. ${this.part < 1 ? "About " : ""}${count(this.#rows)} ${this.#rows === 1 ? "row" : "rows"}, of which the network takes ${count(width)} ${width === 1 ? "number" : "numbers"} each; predicts ${target?.task ? predicted(target.task, target.outputs) : `a column that cannot be predicted: ${target?.reason.split(";")[0] ?? ""}`}.${padding}${named}${lacking}${bad === null ? "" : ` ${where}${sentence(bad)}`}`;
  }
}

/**
 * @param {string | null} task
 * @param {number | null} outputs
 */
const predicted = (task, outputs) => (task === "classification" ? `one of ${count(outputs ?? 0)} classes` : outputs === 1 ? "a number" : `${count(outputs ?? 0)} numbers`);
