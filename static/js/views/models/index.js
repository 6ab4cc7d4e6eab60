/** The Models view: all models as cards, and one model with its layers, training and interface. */

import { roleName, tone, weights } from "../../model/display.js";
import { taskOf } from "../../model/task.js";
import { href } from "../../shell/router.js";
import { h } from "../../ui/dom.js";
import { bytes, count, digits, metric, short } from "../../ui/format.js";
import { dateTime } from "../../ui/text.js";
import { layerFigures, thumbnails } from "./layers.js";

/**
 * @import { ModelInfo, Tensor } from "../../api/types.js"
 * @import { App, Route, View } from "../../shell/types.js"
 * @import { Child } from "../../ui/dom.js"
 */

/** Features and labels listed by name. */
const LISTED = 12;

/** @param {ModelInfo} model */
const colour = ({ card }) => tone([{ role: card?.role }], 0);

/**
 * @param {[string, Child][]} facts those without a value are omitted
 * @param {string} [kind]
 */
function list(facts, kind = "facts") {
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  return h("dl", { class: kind }, ...known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** @param {Tensor} tensor */
const tensor = ({ name, datatype, shape }) => `${name}: ${datatype} [${shape.map((size) => (size < 0 ? "batch" : size)).join(", ")}]`;

/** @param {ModelInfo} model whether its requests share runs, and why */
function joining({ batching: { joined, max_rows: rows, reason } }) {
  return `${joined ? `share runs of up to ${count(rows)} rows` : "run alone"}: ${reason}`;
}

/** @param {ModelInfo} model */
function modelCard(model) {
  const { card } = model;
  const stored = weights(model);
  return h(
    "li",
    { class: `card model ${colour(model)}`, "data-model": model.name },
    h("header", {}, h("h2", {}, h("a", { href: href("models", model.name) }, model.name)), h("span", { class: "muted" }, `${roleName(card?.role)}, version ${model.version}`)),
    thumbnails(model) ?? h("p", { class: "thumbnails muted" }, "The file does not describe its layers."),
    list([
      ["weights", stored === null ? null : count(stored)],
      ["bytes of weights", card?.weight_bytes ? count(card.weight_bytes) : null],
      ["multiply-adds", card?.macs_per_sample ? short(card.macs_per_sample) : null],
      ["file", bytes(model.file_bytes)],
      [`test ${card?.test_metric?.name}`, card?.test_metric ? metric(card.test_metric) : null],
    ]),
    h("p", { class: "muted" }, card?.data?.name ? `Trained on ${card.data.name}${card.training?.recipe ? `, recipe “${card.training.recipe}”` : ""}.` : card ? "The model card names no data." : "The file has no model card."),
  );
}

/** @implements {View} */
class ModelsView {
  /** @param {App} app */
  constructor({ connection, catalog }) {
    this.connection = connection;
    this.catalog = catalog;
    this.element = h("section", { class: "view models-view" });
    /** @type {string | null} */
    this.name = null;
    this.state = "";
    this.list();
    connection.addEventListener("back", () => {
      if (!this.element.hidden) void this.#load();
    });
  }

  /** @param {Route} route */
  title({ argument }) {
    return argument ?? "Models";
  }

  /** @param {Route} route */
  show({ argument }) {
    const changed = argument !== this.name;
    this.name = argument;
    this.list();
    if (changed) scrollTo(0, 0);
    void this.#load();
  }

  hide() {}

  async #load() {
    try {
      await this.catalog.load();
      this.list();
    } catch (error) {
      this.#say(`No models: ${this.connection.explain(error)}`);
    }
  }

  /** @param {string} text */
  #say(text) {
    this.element.querySelector(".message")?.replaceChildren(text);
  }

  /** Shows the loaded models. A heading or link that has the focus passes it to the new heading. */
  list() {
    const { name, catalog } = this;
    const state = JSON.stringify([name, catalog.models]);
    if (state === this.state) return;
    this.state = state;
    const model = name === null ? undefined : catalog.find(name);
    const focused = this.element.contains(document.activeElement);
    if (name === null) this.#all();
    else if (model === undefined) this.#unknown(name);
    else this.#one(model);
    const heading = this.element.querySelector("h1");
    if (heading) heading.tabIndex = -1;
    if (focused) heading?.focus({ preventScroll: true });
  }

  #all() {
    const { models } = this.catalog;
    this.element.replaceChildren(
      h("h1", {}, "Models"),
      h("p", { class: "lead muted" }, "Filled: the weights of each layer. Dashed: the weights of a dense layer of the same widths. To scale within each model."),
      h("p", { class: "message failed", role: "status" }),
      h("ul", { class: "cards" }, ...models.map(modelCard)),
    );
  }

  /** @param {string} name */
  #unknown(name) {
    const known = this.catalog.models.length > 0;
    this.element.replaceChildren(
      h("p", { class: "crumb" }, h("a", { href: href("models") }, "All models")),
      h("h1", {}, name),
      h("p", { class: "message failed", role: "status" }, known ? `The service has no model “${name}”.` : ""),
    );
  }

  /** @param {ModelInfo} model */
  #one(model) {
    const { card } = model;
    const { c, data, training, test_metric: quality, versions } = card ?? {};
    const labels = card?.labels ?? model.labels;
    const stored = weights(model);
    const layers = layerFigures(model);
    const partners = this.catalog.models.filter((other) => other.name !== model.name && card?.twin && other.card?.twin === card.twin);
    const both = [model, ...partners].map(({ name }) => name).slice(0, 6).join(",");
    const names = card?.input?.names;
    /** @type {(title: string, ...children: Child[]) => HTMLElement} */
    const part = (title, ...children) => h("section", { class: "panel" }, h("h2", {}, title), ...children);
    this.element.replaceChildren(
      h("p", { class: "crumb" }, h("a", { href: href("models") }, "All models")),
      h("h1", { class: colour(model) }, h("span", { class: "swatch" }), model.name),
      h("p", { class: "lead muted" }, `${roleName(card?.role)}, version ${model.version}, on ${model.provider} with ${model.threads} ${model.threads === 1 ? "thread" : "threads"}`),
      h("p", { class: "message failed", role: "status" }),
      h(
        "p",
        { class: "actions" },
        typeof taskOf(model) !== "string" && h("a", { class: "button", href: href("try", null, { models: both }) }, "Try this model"),
        partners.length > 0 && h("a", { class: "button", href: href("compare", null, { models: both }) }, `Compare with ${partners.map(({ name }) => name).slice(0, 5).join(", ")}`),
      ),
      list([
        ["weights", stored === null ? null : count(stored)],
        ["bytes of weights", card?.weight_bytes ? count(card.weight_bytes) : null],
        ["multiply-adds per sample", card?.macs_per_sample ? count(card.macs_per_sample) : null],
        ["file", bytes(model.file_bytes)],
        [`test ${quality?.name}${quality?.samples ? `, ${count(quality.samples)} samples` : ""}`, quality ? metric(quality) : null],
      ], "facts large"),
      layers.length === 0
        ? ""
        : h(
          "section",
          { class: `panel ${colour(model)}` },
          h("h2", {}, "Layers"),
          h("p", { class: "muted" }, "To scale: as wide as the layer’s outputs, as high as its inputs. Filled: weights of this model. Dashed: weights of a dense layer. Pale squares: biases."),
          h("ol", { class: "layers" }, ...layers),
        ),
      h(
        "div",
        { class: "panels" },
        part(
          "Data and training",
          list([
            ["Data", data?.name],
            ["Samples", data?.train_samples ? `${count(data.train_samples)} for training, ${count(data.test_samples ?? 0)} for testing` : null],
            ["Recipe", training?.recipe],
            ["Duration", training?.seconds ? `${training.epochs ? `${training.epochs} epochs in ` : ""}${digits(training.seconds)} s${training.ms_per_step ? `, ${digits(training.ms_per_step)} ms per step` : ""}` : null],
            ["Optimizer", [training?.optimizer, training?.learning_rate && `learning rate ${training.learning_rate}`, training?.schedule, training?.batch_size && `batch size ${training.batch_size}`].filter(Boolean).join(", ")],
            ["Seed", training?.seed ?? null],
            ["Device", training?.device ? `${training.device}${training.threads ? `, ${training.threads} ${training.threads === 1 ? "thread" : "threads"}` : ""}` : null],
            ["Finished", dateTime(card?.created)],
            ["Versions", versions ? Object.entries(versions).slice(0, 20).map(([name, version]) => `${name} ${version}`).join(", ") : null],
            ["Data SHA-256", data?.sha256 ? h("code", {}, data.sha256) : null],
          ], "details"),
          !data && !training && h("p", { class: "muted" }, card ? "The model card does not describe the training." : "The file has no model card."),
        ),
        part(
          "File and interface",
          list([
            ["File", bytes(model.file_bytes)],
            ["of which weights", bytes(model.initializer_bytes)],
            ["As C code", c && [
              c.bits && `${c.bits} bits a weight`,
              c.weight_bytes != null && `weights ${bytes(c.weight_bytes)}`,
              c.code_bytes != null && `code ${bytes(c.code_bytes)}${c.compiler ? ` (${c.compiler})` : ""}`,
              c.scratch_bytes != null && `memory ${bytes(c.scratch_bytes)}`,
            ].filter(Boolean).join(", ")],
            ["Inputs", h("span", {}, ...model.inputs.map((each) => h("code", {}, tensor(each))))],
            ["Outputs", h("span", {}, ...model.outputs.map((each) => h("code", {}, tensor(each))))],
            ["Features", names ? `${names.slice(0, LISTED).join(", ")}${names.length > LISTED ? ` and ${count(names.length - LISTED)} more` : ""}` : null],
            ["Labels", labels ? `${labels.slice(0, LISTED).join(", ")}${labels.length > LISTED ? ` and ${count(labels.length - LISTED)} more` : ""}` : null],
            ["Preprocessing", card?.preprocessing],
            ["Requests", joining(model)],
            ["Test samples", model.samples ? `${count(model.samples)} stored with the model` : "none"],
          ], "details"),
        ),
      ),
    );
  }
}

/** @param {App} app */
export const makeView = (app) => new ModelsView(app);
