/** The models that the service has, as cards; and one of them with all that is known of it. */

import { h } from "../../ui/dom.js";
import { bytes, count, digits, metric, short } from "../../ui/format.js";
import { layerFigures, thumbnails } from "./layers.js";
import { roleName, weights } from "../../model/display.js";
import { href } from "../../shell/router.js";
import { taskOf } from "../../model/task.js";
import { when } from "../../ui/when.js";

/**
 * @import { Child } from "../../ui/dom.js"
 * @import { App, Route, View } from "../../shell/router.js"
 * @import { ModelInfo, Tensor } from "../../api/types.js"
 */

const HEAD = 12;

/** @param {ModelInfo} model */
const colour = ({ card }) => `tone-${card?.role ?? "other-0"}`;

/**
 * @param {[string, Child][]} facts those without a value are left out
 * @param {string} [kind]
 */
function list(facts, kind = "facts") {
  const told = facts.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  return h("dl", { class: kind }, ...told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** @param {Tensor} tensor */
const tensor = ({ name, datatype, shape }) => `${name}: ${datatype} [${shape.map((size) => (size < 0 ? "batch" : size)).join(", ")}]`;

/** @param {ModelInfo} model */
function card(model) {
  const { card: told } = model;
  const stored = weights(model);
  return h(
    "li",
    { class: `card model ${colour(model)}`, "data-model": model.name },
    h("header", {}, h("h2", {}, h("a", { href: href("models", model.name) }, model.name)), h("span", { class: "muted" }, `${roleName(told?.role)}, version ${model.version}`)),
    thumbnails(model) ?? h("p", { class: "thumbnails muted" }, "Its file does not say how it is built."),
    list([
      ["weights", stored === null ? null : count(stored)],
      ["multiply-adds", told?.macs_per_sample ? short(told.macs_per_sample) : null],
      ["file", bytes(model.file_bytes)],
      [`test ${told?.test_metric?.name}`, told?.test_metric ? metric(told.test_metric) : null],
    ]),
    h("p", { class: "muted" }, told?.data?.name ? `Trained on ${told.data.name}${told.training?.recipe ? `, recipe “${told.training.recipe}”` : ""}.` : told ? "Its card does not name its data." : "No card: where it came from is not known."),
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

  /** Shows what is known by now; what has the focus keeps it. */
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
      h("p", { class: "lead muted" }, "Dashed: what a dense layer of these widths would store. Filled: what this network stores. To scale within each network."),
      h("p", { class: "message failed", role: "status" }),
      h("ul", { class: "cards" }, ...models.map(card)),
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
    const { card: told } = model;
    const { data, training, test_metric: quality, versions, labels } = told ?? {};
    const stored = weights(model);
    const layers = layerFigures(model);
    const partners = this.catalog.models.filter((other) => other.name !== model.name && told?.twin && other.card?.twin === told.twin);
    const both = [model, ...partners].map(({ name }) => name).slice(0, 6).join(",");
    const names = told?.input?.names;
    /** @type {(title: string, ...children: Child[]) => HTMLElement} */
    const part = (title, ...children) => h("section", { class: "panel" }, h("h2", {}, title), ...children);
    this.element.replaceChildren(
      h("p", { class: "crumb" }, h("a", { href: href("models") }, "All models")),
      h("h1", { class: colour(model) }, h("span", { class: "swatch" }), model.name),
      h("p", { class: "lead muted" }, `${roleName(told?.role)}, version ${model.version}, on ${model.provider} with ${model.threads} ${model.threads === 1 ? "thread" : "threads"}`),
      h("p", { class: "message failed", role: "status" }),
      h(
        "p",
        { class: "actions" },
        typeof taskOf(model) !== "string" && h("a", { class: "button", href: href("try", null, { models: both }) }, "Try it"),
        partners.length > 0 && h("a", { class: "button", href: href("compare", null, { models: both }) }, `Compare with ${partners.map(({ name }) => name).slice(0, 5).join(", ")}`),
      ),
      list([
        ["weights", stored === null ? null : count(stored)],
        ["multiply-adds a sample", told?.macs_per_sample ? count(told.macs_per_sample) : null],
        ["file", bytes(model.file_bytes)],
        [`test ${quality?.name}${quality?.samples ? `, ${count(quality.samples)} samples` : ""}`, quality ? metric(quality) : null],
      ], "facts large"),
      layers.length === 0
        ? ""
        : h(
          "section",
          { class: `panel ${colour(model)}` },
          h("h2", {}, "Layers"),
          h("p", { class: "muted" }, "To one scale: as wide as the layer’s outputs, as high as its inputs. Dashed: a dense layer’s weights. Filled: what is stored. Pale squares: biases."),
          h("ol", { class: "layers" }, ...layers),
        ),
      h(
        "div",
        { class: "panels" },
        part(
          "Where it came from",
          list([
            ["Data", data?.name],
            ["Samples", data?.train_samples ? `${count(data.train_samples)} to train, ${count(data.test_samples ?? 0)} to test` : null],
            ["Recipe", training?.recipe],
            ["Training", training?.seconds ? `${training.epochs ? `${training.epochs} epochs in ` : ""}${digits(training.seconds)} s${training.ms_per_step ? `, ${digits(training.ms_per_step)} ms a step` : ""}` : null],
            ["Optimiser", [training?.optimizer, training?.learning_rate && `learning rate ${training.learning_rate}`, training?.schedule, training?.batch_size && `batches of ${training.batch_size}`].filter(Boolean).join(", ")],
            ["Seed", training?.seed ?? null],
            ["Trained on", training?.device ? `${training.device}${training.threads ? `, ${training.threads} ${training.threads === 1 ? "thread" : "threads"}` : ""}` : null],
            ["Finished", when(told?.created)],
            ["Made with", versions ? Object.entries(versions).slice(0, 20).map(([name, version]) => `${name} ${version}`).join(", ") : null],
            ["Data’s SHA-256", data?.sha256 ? h("code", {}, data.sha256) : null],
          ], "details"),
          !data && !training && h("p", { class: "muted" }, told ? "Its card does not say." : "Its file has no model card."),
        ),
        part(
          "File and interface",
          list([
            ["File", bytes(model.file_bytes)],
            ["of it weights", bytes(model.initializer_bytes)],
            ["Inputs", h("span", {}, ...model.inputs.map((each) => h("code", {}, tensor(each))))],
            ["Outputs", h("span", {}, ...model.outputs.map((each) => h("code", {}, tensor(each))))],
            ["Features", names ? `${names.slice(0, HEAD).join(", ")}${names.length > HEAD ? ` and ${count(names.length - HEAD)} more` : ""}` : null],
            ["Labels", labels ? `${labels.slice(0, HEAD).join(", ")}${labels.length > HEAD ? ` and ${count(labels.length - HEAD)} more` : ""}` : null],
            ["Preparation", told?.preprocessing],
            ["Test samples", model.samples ? `${count(model.samples)} beside the model` : "none"],
          ], "details"),
        ),
      ),
    );
  }
}

/** @param {App} app */
export const makeView = (app) => new ModelsView(app);
