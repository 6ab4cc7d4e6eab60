/** The form of a comparison: models, batch sizes, layers, uploaded inputs. Its values survive a reload. */

import { ModelPicker } from "../../model/picker.js";
import { taskKey } from "../../model/task.js";
import { h } from "../../ui/dom.js";
import { recall, remember } from "../../ui/store.js";
import { DeviceField, FieldError, field, optionalNumber, textInput, wholeNumbers } from "../jobs/fields.js";

/**
 * @import { Catalog } from "../../model/catalog.js"
 * @import { Form } from "../jobs/types.js"
 */

const MAX_MODELS = 6;
/** @type {[string, string][]} */
const SERVICE_LAYERS = [["queue", "through the queue"], ["http", "over HTTP"]];
const STORED_AS = "compare.form";

/** @implements {Form} */
export class CompareForm {
  /** @param {Catalog} catalog */
  constructor(catalog) {
    this.catalog = catalog;
    this.picker = new ModelPicker("Models, two to six", MAX_MODELS);
    this.batches = textInput("1, 32");
    this.threads = textInput("", "as served");
    this.seconds = textInput("", "automatic");
    this.device = new DeviceField();
    this.depths = SERVICE_LAYERS.map(([value, name]) => ({ value, name, input: h("input", { type: "checkbox", value, checked: true }) }));
    this.nodes = h("input", { type: "checkbox", checked: true });
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
        h("legend", {}, "Measure latency of the session alone, and"),
        ...this.depths.map(({ name, input }) => h("label", { class: "choice" }, input, h("span", {}, name))),
        h("label", { class: "choice" }, this.nodes, h("span", {}, "of each node")),
      ),
      h(
        "details",
        {},
        h("summary", {}, "Uploaded inputs"),
        h("p", { class: "muted" }, "Models of several inputs: an .npz file with an array for each input by name, and perhaps labels. Without a file: samples that came with the models, or else inputs made up from their metadata."),
        h("div", { class: "fields wide" }, field("Rows (.npy, .npz or .csv)", this.inputs), field("Labels (.npy or .csv), if not in the rows’ file", this.labels)),
      ),
    );
    this.element.addEventListener("change", () => this.#keep());
    this.picker.addEventListener("change", () => this.#keep());
    this.#recall();
  }

  #keep() {
    remember(STORED_AS, {
      models: this.picker.chosen,
      texts: [this.batches, this.threads, this.seconds].map(({ value }) => value),
      device: this.device.value,
      depths: this.depths.filter(({ input }) => input.checked).map(({ value }) => value),
      nodes: this.nodes.checked,
    });
  }

  #recall() {
    /** @type {string[]} */
    this.storedModels = [];
    this.storedDevice = "";
    const stored = recall(STORED_AS);
    if (typeof stored !== "object" || stored === null) return;
    const { models, texts, depths, device, nodes } = /** @type {Record<string, unknown>} */ (stored);
    if (Array.isArray(models)) this.storedModels = models.filter((name) => typeof name === "string");
    if (Array.isArray(texts)) {
      [this.batches, this.threads, this.seconds].forEach((input, i) => {
        if (typeof texts[i] === "string") input.value = texts[i];
      });
    }
    this.nodes.checked = nodes !== false;
    if (typeof device === "string") this.storedDevice = device;
    if (Array.isArray(depths)) for (const { value, input } of this.depths) input.checked = depths.includes(value);
  }

  /** @param {URLSearchParams} query */
  open(query) {
    this.device.offer(this.catalog.devices);
    this.device.choose(this.device.value ?? this.storedDevice ?? "");
    const asked = query.get("models")?.split(",") ?? [];
    const known = [asked, this.picker.chosen, this.storedModels ?? [], this.catalog.defaults].map((names) => this.catalog.pick(names));
    const [first, ...rest] = known.find((models) => models.length > 0) ?? [];
    const together = first === undefined ? [] : [first, ...rest.filter((model) => taskKey(model) === taskKey(first))];
    this.picker.set(this.catalog.models, together.slice(0, MAX_MODELS).map(({ name }) => name));
  }

  read() {
    const models = this.picker.chosen;
    if (models.length < 2) {
      return this.catalog.models.length < 2
        ? "A comparison needs two models; the service has fewer."
        : `Models: got ${models.length}, expected two to six.`;
    }
    const [inputs] = this.inputs.files ?? [];
    const [labels] = this.labels.files ?? [];
    if (labels && !inputs) return "Labels: got no rows; choose a file of rows too.";
    try {
      return {
        request: {
          models: [...models].sort((a, b) => this.#rank(a) - this.#rank(b)),
          batch_sizes: wholeNumbers("Batch sizes", this.batches.value, { low: 1, high: 1024, most: 8 }),
          threads: optionalNumber("Threads", this.threads.value, { low: 1, high: this.catalog.cpus, whole: true }),
          device: this.device.value,
          seconds: optionalNumber("Seconds", this.seconds.value, { low: 0.1, high: 600 }),
          depths: ["session", ...this.depths.filter(({ input }) => input.checked).map(({ value }) => value)],
          nodes: this.nodes.checked,
        },
        files: { inputs, labels },
      };
    } catch (error) {
      if (error instanceof FieldError) return error.message;
      throw error;
    }
  }

  /**
   * Sorts Kronecker networks first: the report compares the first model to the others.
   * @param {string} name
   */
  #rank(name) {
    return this.catalog.find(name)?.card?.role === "kronecker" ? 0 : 1;
  }
}
