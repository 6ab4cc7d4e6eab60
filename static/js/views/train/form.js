/** The form of a training: data, recipe, ranks, layers. Its values survive a reload. */

import { json } from "../../api/client.js";
import { h } from "../../ui/dom.js";
import { count, listed } from "../../ui/format.js";
import { recall, remember } from "../../ui/store.js";
import { FieldError, field, optionalNumber, textInput } from "../jobs/fields.js";
import { DataChooser } from "./data-chooser.js";
import { LayerShapes } from "./layer-shapes.js";
import { inputShape } from "./network-size.js";
import { SizePreview } from "./size-preview.js";

/**
 * @import { Form } from "../jobs/types.js"
 * @import { Network } from "./network-size.js"
 * @import { Recipe, TrainingOptions } from "./types.js"
 */

const STORED_AS = "train.form";
const MAX_SEED = 2 ** 31 - 1;

/** @param {string} text */
const plain = (text) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", value: text });

/** @implements {Form} */
export class TrainForm {
  constructor() {
    /** @type {TrainingOptions | null} */
    this.options = null;
    this.data = new DataChooser();
    this.recipe = h("select", {});
    this.summary = h("p", { class: "muted summary" });
    this.slider = h("input", { type: "range", min: 1, max: 8, value: 2, "aria-label": "Rank slider" });
    this.rank = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", maxlength: 4, value: "2", "aria-label": "Rank", "aria-describedby": "rank-words" });
    this.rankWords = h("p", { id: "rank-words", class: "muted" });
    /** Whether the user has chosen the rank; otherwise the recipe's ranks apply, which may differ by layer. */
    this.customRank = false;
    /** The recommended recipe of the chosen data. */
    this.recommended = "";
    this.layers = new LayerShapes();
    this.denseNote = h("p", { class: "muted", hidden: true });
    this.preview = new SizePreview();
    this.epochs = textInput("");
    this.name = plain("");
    this.activation = h("select", {});
    this.rate = textInput("");
    this.batch = textInput("");
    this.seed = textInput("0");
    this.texts = { epochs: this.epochs, name: this.name, rate: this.rate, batch: this.batch, seed: this.seed };
    this.unavailable = h("p", { class: "unavailable", hidden: true });
    this.fields = h(
      "div",
      { class: "form" },
      this.data.element,
      h("div", { class: "form tight" }, field("Recipe", this.recipe), this.summary),
      h("fieldset", { class: "rank" }, h("legend", {}, "Kronecker rank"), this.slider, this.rank, this.rankWords),
      this.layers.element,
      this.denseNote,
      this.preview.element,
      h("div", { class: "fields two" }, field("Epochs", this.epochs), field("Name", this.name)),
      h(
        "details",
        {},
        h("summary", {}, "More options"),
        h("div", { class: "fields two" }, field("Activation", this.activation), field("Learning rate", this.rate), field("Batch size", this.batch), field("Seed", this.seed)),
      ),
    );
    this.element = h("div", { class: "form train-form" }, this.fields, this.unavailable);
    this.aside = this.preview.aside;
    this.data.addEventListener("change", () => this.#dataChanged());
    this.recipe.addEventListener("change", () => this.#recipeChanged());
    this.layers.addEventListener("change", () => this.#recount());
    for (const input of [this.slider, this.rank]) {
      input.addEventListener("input", () => {
        this.customRank = true;
        if (input === this.slider) this.rank.value = this.slider.value;
        this.#recount();
      });
    }
    this.element.addEventListener("change", () => this.#save());
    this.layers.set([[28, 28], [28, 28]]);
  }

  /** Whether the service cannot train. */
  get blocked() {
    return this.options?.available === false;
  }

  async open() {
    const options = /** @type {TrainingOptions} */ (await json("/api/trainings/options"));
    const first = !this.options?.available;
    this.options = options;
    this.unavailable.hidden = options.available;
    this.unavailable.textContent = options.available ? "" : `Training is not available: ${options.reason ?? "the service gives no reason"}`;
    this.fields.hidden = this.aside.hidden = !options.available;
    if (!first || !options.available) return; // keep what the user has entered
    this.recipe.replaceChildren(...options.recipes.map(({ name }) => h("option", { value: name }, name)));
    this.activation.replaceChildren(...options.activations.map((name) => h("option", { value: name }, name)));
    const stored = recall(STORED_AS);
    const values = typeof stored === "object" && stored !== null ? /** @type {Record<string, unknown>} */ (stored) : {};
    this.data.offer(options, typeof values.data === "string" ? values.data : null);
    this.#restore(values);
    this.#recount();
  }

  /** @returns {Recipe | undefined} */
  get selected() {
    return this.options?.recipes.find(({ name }) => name === this.recipe.value);
  }

  #dataChanged() {
    const { recipe, name } = this.data.shown;
    this.name.placeholder = name && `as the data: ${name}`;
    if (this.recommended !== recipe && this.options?.recipes.some((each) => each.name === recipe)) {
      this.recommended = recipe;
      this.recipe.value = recipe;
      this.#recipeChanged();
    } else {
      this.#recount();
    }
  }

  #recipeChanged() {
    const recipe = this.selected;
    if (recipe === undefined) return;
    this.summary.textContent = recipe.summary ?? "";
    this.customRank = false;
    this.rank.value = String(Math.max(...[recipe.rank].flat()));
    this.activation.value = recipe.activation;
    this.epochs.placeholder = `by the recipe: ${recipe.epochs}`;
    this.batch.placeholder = `by the recipe: ${recipe.batch_size}`;
    this.rate.placeholder = `by the recipe: ${[...new Set([recipe.learning_rate, recipe.dense.learning_rate])].join(" and ")}`;
    this.layers.set(recipe.hidden);
  }

  /** Whether the hidden layers are the recipe's. Then the dense network has the recipe's own layers, if it names any. */
  get hasRecipeLayers() {
    return JSON.stringify(this.layers.texts) === JSON.stringify(this.selected?.hidden.map((shape) => shape.map(String)));
  }

  /**
   * Returns the network that the form describes.
   * @returns {Network | string} or why its size is unknown
   * @throws {FieldError}
   */
  #network() {
    const { selected: recipe, options } = this;
    const { features, image, outputs, pad } = this.data.shown;
    const hidden = this.layers.read();
    if (recipe === undefined || options === null) return "";
    const channels = recipe.features ?? [];
    const limits = { most: options.limits.hidden_layers, widest: options.limits.width };
    if (features === null || outputs === null) {
      this.layers.limit(limits, null);
      this.#readRank(recipe, options.limits.rank, hidden.length + 1);
      return "The sizes are known once the service has read the data.";
    }
    if (channels.length > 0 && (image === null || Math.min(...image.slice(-2)) < 2 ** channels.length)) {
      throw new FieldError(`Recipe: ${recipe.name} has ${channels.length} convolutions, which need larger images than these data have.`);
    }
    /** @type {Network} */
    const network = { features, image, outputs, pad, hidden, rank: 1, order: recipe.order, channels, denseHidden: this.hasRecipeLayers ? recipe.dense_hidden : null, ...(recipe.bits !== 32 && { bits: recipe.bits, bias_bits: recipe.bias_bits, bias_form: recipe.bias_form }) };
    this.layers.limit(limits, inputShape(network));
    return { ...network, rank: this.#readRank(recipe, options.limits.rank, hidden.length + 1) };
  }

  /**
   * @param {Recipe} recipe
   * @param {number} most
   * @param {number} layers
   * @returns {number | number[]}
   * @throws {FieldError}
   */
  #readRank(recipe, most, layers) {
    const each = Array.isArray(recipe.rank) && recipe.rank.length === layers ? recipe.rank : null;
    const fixed = Array.isArray(recipe.order) ? recipe.order.length : null;
    if (each === null && Array.isArray(recipe.rank)) this.customRank = true; // the recipe's ranks are for another number of layers
    const custom = this.customRank || each === null;
    this.slider.disabled = this.rank.disabled = fixed !== null;
    this.slider.max = String(most);
    const rank = fixed ?? optionalNumber("Rank", this.rank.value, { low: 1, high: most, whole: true });
    if (rank === undefined) throw new FieldError(`Rank: got nothing, expected a whole number from 1 to ${most}.`);
    this.slider.value = String(rank);
    this.rankWords.textContent =
      fixed !== null ? "Fixed by the recipe, which sets the order of factors for each branch." : custom ? `Rank of each layer, 1 to ${most}. A higher rank stores more weights and can learn more.` : `The recipe’s ranks by layer: ${each?.join(", ")}.`;
    return custom ? rank : (each ?? rank);
  }

  #recount() {
    const dense = this.hasRecipeLayers ? this.selected?.dense_hidden : null;
    this.denseNote.hidden = !dense;
    this.denseNote.textContent = `Hidden layers of the dense network, from the recipe: ${listed((dense ?? []).map(count))} wide.`;
    try {
      this.preview.show(this.#network());
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.preview.show(error.message, true);
    }
  }

  read() {
    const { selected: recipe, options } = this;
    if (recipe === undefined || options === null) return "The service’s training options are not loaded yet; try again.";
    const { data, activation } = this;
    const source = data.read();
    if (typeof source === "string") return source;
    const { file, ...values } = source;
    try {
      const hidden = this.layers.read();
      this.#network(); // throws if the sizes are invalid
      const recipeRank = !this.customRank || Array.isArray(recipe.order);
      return {
        request: {
          ...values,
          name: this.name.value.trim() || null,
          kind: "twin",
          recipe: recipe.name,
          rank: recipeRank ? null : optionalNumber("Rank", this.rank.value, { low: 1, high: options.limits.rank, whole: true }),
          hidden: this.hasRecipeLayers ? null : hidden,
          activation: activation.value === recipe.activation ? null : activation.value,
          epochs: optionalNumber("Epochs", this.epochs.value, { low: 1, high: options.limits.epochs, whole: true }) ?? null,
          batch_size: optionalNumber("Batch size", this.batch.value, { low: 1, high: 1 << 16, whole: true }) ?? null,
          learning_rate: optionalNumber("Learning rate", this.rate.value, { low: 1e-9, high: 100 }) ?? null,
          seed: optionalNumber("Seed", this.seed.value, { low: 0, high: MAX_SEED, whole: true }) ?? 0,
        },
        files: { data: file },
      };
    } catch (error) {
      if (error instanceof FieldError) return error.message;
      throw error;
    }
  }

  #save() {
    if (this.options === null) return;
    remember(STORED_AS, {
      data: this.data.set.value,
      recipe: this.recipe.value,
      rank: this.customRank ? this.rank.value : null,
      hidden: this.layers.texts,
      activation: this.activation.value,
      texts: Object.fromEntries(Object.entries(this.texts).map(([name, { value }]) => [name, value])),
    });
  }

  /** @param {Record<string, unknown>} values unchecked */
  #restore({ recipe, rank, hidden, activation, texts }) {
    if (this.options?.recipes.some(({ name }) => name === recipe)) {
      this.recipe.value = String(recipe);
      this.#recipeChanged();
    }
    const isPair = (/** @type {unknown} */ each) => Array.isArray(each) && each.length === 2 && each.every((size) => typeof size === "string");
    if (Array.isArray(hidden) && hidden.length > 0 && hidden.length <= this.layers.most && hidden.every(isPair)) this.layers.set(hidden);
    if (typeof rank === "string") {
      this.customRank = true;
      this.rank.value = rank;
    }
    if (this.options?.activations.some((name) => name === activation)) this.activation.value = String(activation);
    if (typeof texts !== "object" || texts === null) return;
    for (const [name, input] of Object.entries(this.texts)) {
      const value = /** @type {Record<string, unknown>} */ (texts)[name];
      if (typeof value === "string") input.value = value;
    }
  }
}
