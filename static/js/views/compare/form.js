/** What to compare, and how. It remembers itself across a reload. */

import { h } from "../../ui/dom.js";
import { DeviceField, FieldError, field, optionalNumber, textInput, wholeNumbers } from "../jobs/fields.js";
import { ModelPicker } from "../../model/picker.js";
import { recall, remember } from "../../ui/store.js";
import { taskKey } from "../../model/task.js";

/**
 * @import { Catalog } from "../../model/catalog.js"
 * @import { Form } from "../jobs/job-view.js"
 */

const MOST = 6;
/** @type {[string, string][]} */
const DEPTHS = [["queue", "through the queue"], ["http", "over HTTP"]];
const KEPT_AS = "compare.form";

/** @implements {Form} */
export class CompareForm {
  /** @param {Catalog} catalog */
  constructor(catalog) {
    this.catalog = catalog;
    this.picker = new ModelPicker("Models, two to six", MOST);
    this.batches = textInput("1, 32");
    this.threads = textInput("", "as served");
    this.seconds = textInput("", "automatic");
    this.device = new DeviceField();
    this.depths = DEPTHS.map(([value, name]) => ({ value, name, input: h("input", { type: "checkbox", value, checked: true }) }));
    this.inputs = h("input", { type: "file", accept: ".npy,.npz,.csv" });
    this.labels = h("input", { type: "file", accept: ".npy,.csv" });
    this.element = h(
      "div",
      { class: "form" },
      this.picker.element,
      h(
        "div",
        { class: "fields" },
        field("Batch sizes", this.batches),
        field("Threads", this.threads),
        field("Seconds", this.seconds),
        this.device.element,
      ),
      h(
        "fieldset",
        { class: "choices" },
        h("legend", {}, "Latency of the session alone, and"),
        ...this.depths.map(({ name, input }) => h("label", { class: "choice" }, input, h("span", {}, name))),
      ),
      h(
        "details",
        {},
        h("summary", {}, "Own inputs"),
        h("div", { class: "fields wide" }, field("Rows (.npy, .npz or .csv)", this.inputs), field("Labels (.npy or .csv), if the rows have none", this.labels)),
      ),
    );
    this.element.addEventListener("change", () => this.#keep());
    this.picker.addEventListener("change", () => this.#keep());
    this.#recall();
  }

  #keep() {
    remember(KEPT_AS, {
      models: this.picker.chosen,
      texts: [this.batches, this.threads, this.seconds].map(({ value }) => value),
      device: this.device.value,
      depths: this.depths.filter(({ input }) => input.checked).map(({ value }) => value),
    });
  }

  #recall() {
    /** @type {string[]} */
    this.wanted = [];
    this.wantedDevice = "";
    const kept = recall(KEPT_AS);
    if (typeof kept !== "object" || kept === null) return;
    const { models, texts, depths, device } = /** @type {Record<string, unknown>} */ (kept);
    if (Array.isArray(models)) this.wanted = models.filter((name) => typeof name === "string");
    if (Array.isArray(texts)) {
      [this.batches, this.threads, this.seconds].forEach((input, i) => {
        if (typeof texts[i] === "string") input.value = texts[i];
      });
    }
    if (typeof device === "string") this.wantedDevice = device;
    if (Array.isArray(depths)) for (const { value, input } of this.depths) input.checked = depths.includes(value);
  }

  /** @param {URLSearchParams} query */
  open(query) {
    this.device.offer(this.catalog.devices);
    this.device.choose(this.device.value ?? this.wantedDevice ?? "");
    const asked = query.get("models")?.split(",") ?? [];
    const known = [asked, this.picker.chosen, this.wanted ?? [], this.catalog.defaults].map((names) => this.catalog.pick(names));
    const [first, ...rest] = known.find((models) => models.length > 0) ?? [];
    const together = first === undefined ? [] : [first, ...rest.filter((model) => taskKey(model) === taskKey(first))];
    this.picker.set(this.catalog.models, together.slice(0, MOST).map(({ name }) => name));
  }

  read() {
    const models = this.picker.chosen;
    if (models.length < 2) {
      return this.catalog.models.length < 2
        ? "A comparison takes two models, and the service does not have that many."
        : `Choose two to six models; ${models.length === 0 ? "none is" : "one is"} chosen.`;
    }
    const [inputs] = this.inputs.files ?? [];
    const [labels] = this.labels.files ?? [];
    if (labels && !inputs) return "Labels without rows: choose a file of rows, too.";
    try {
      return {
        request: {
          models: [...models].sort((a, b) => this.#rank(a) - this.#rank(b)),
          batch_sizes: wholeNumbers("Batch sizes", this.batches.value, { low: 1, high: 1024, most: 8 }),
          threads: optionalNumber("Threads", this.threads.value, { low: 1, high: this.catalog.cpus, whole: true }),
          device: this.device.value,
          seconds: optionalNumber("Seconds", this.seconds.value, { low: 0.1, high: 600 }),
          depths: ["session", ...this.depths.filter(({ input }) => input.checked).map(({ value }) => value)],
        },
        files: { inputs, labels },
      };
    } catch (error) {
      if (error instanceof FieldError) return error.message;
      throw error;
    }
  }

  /**
   * A Kronecker network comes first: what is said of a pair is said of its first.
   * @param {string} name
   */
  #rank(name) {
    return this.catalog.find(name)?.card?.role === "kronecker" ? 0 : 1;
  }
}
