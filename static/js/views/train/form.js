/** Which twin to train, and on what. It remembers itself across a reload. */

import { json } from "../../api/client.js";
import { h } from "../../ui/dom.js";
import { FieldError, field, optionalNumber, textInput } from "../jobs/fields.js";
import { count } from "../../ui/format.js";
import { LayerShapes } from "./layer-shapes.js";
import { listed } from "../../model/display.js";
import { inputShape, maxCommonRank } from "./network-size.js";
import { SizePreview } from "./size-preview.js";
import { recall, remember } from "../../ui/store.js";
import { DataChooser } from "./data-chooser.js";

/**
 * @import { Form } from "../jobs/job-view.js"
 * @import { Network } from "./network-size.js"
 * @import { Recipe, TrainingOptions } from "./types.js"
 */

const KEPT_AS = "train.form";
const LARGEST_SEED = 2 ** 31 - 1;

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
    this.slider = h("input", { type: "range", min: 1, max: 8, value: 2, "aria-label": "Rank, as a slider" });
    this.rank = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", maxlength: 4, value: "2", "aria-label": "Rank", "aria-describedby": "rank-words" });
    this.rankWords = h("p", { id: "rank-words", class: "muted" });
    /** Whether the reader has chosen the rank; else it is the recipe's, which may be another for each layer. */
    this.ownRank = false;
    /** The recipe for the data that were chosen last. */
    this.recommended = "";
    this.layers = new LayerShapes();
    this.others = h("p", { class: "muted", hidden: true });
    this.preview = new SizePreview();
    this.epochs = textInput("");
    this.name = plain("");
    this.activation = h("select", {});
    this.rate = textInput("");
    this.batch = textInput("");
    this.seed = textInput("0");
    this.texts = { epochs: this.epochs, name: this.name, rate: this.rate, batch: this.batch, seed: this.seed };
    this.refused = h("p", { class: "refused", hidden: true });
    this.fields = h(
      "div",
      { class: "form" },
      this.data.element,
      h("div", { class: "form tight" }, field("Recipe", this.recipe), this.summary),
      h("fieldset", { class: "rank" }, h("legend", {}, "Kronecker rank"), this.slider, this.rank, this.rankWords),
      this.layers.element,
      this.others,
      this.preview.element,
      h("div", { class: "fields two" }, field("Epochs", this.epochs), field("Name", this.name)),
      h(
        "details",
        {},
        h("summary", {}, "More settings"),
        h("div", { class: "fields two" }, field("Activation", this.activation), field("Learning rate", this.rate), field("Batch size", this.batch), field("Seed", this.seed)),
      ),
    );
    this.element = h("div", { class: "form train-form" }, this.fields, this.refused);
    this.aside = this.preview.aside;
    this.data.addEventListener("change", () => this.#newData());
    this.recipe.addEventListener("change", () => this.#newRecipe());
    this.layers.addEventListener("change", () => this.#recount());
    for (const input of [this.slider, this.rank]) {
      input.addEventListener("input", () => {
        this.ownRank = true;
        if (input === this.slider) this.rank.value = this.slider.value;
        this.#recount();
      });
    }
    this.element.addEventListener("change", () => this.#keep());
    this.layers.set([[28, 28], [28, 28]]);
  }

  /** Whether nothing can be started here, whatever stands in the form. */
  get blocked() {
    return this.options?.available === false;
  }

  async open() {
    const options = /** @type {TrainingOptions} */ (await json("/api/trainings/options"));
    const first = !this.options?.available;
    this.options = options;
    this.refused.hidden = options.available;
    this.refused.textContent = options.available ? "" : `Training is not possible here: ${options.reason ?? "the service does not say why"}`;
    this.fields.hidden = this.aside.hidden = !options.available;
    if (!first || !options.available) return; // what the reader has filled in stays
    this.recipe.replaceChildren(...options.recipes.map(({ name }) => h("option", { value: name }, name)));
    this.activation.replaceChildren(...options.activations.map((name) => h("option", { value: name }, name)));
    const kept = recall(KEPT_AS);
    const old = typeof kept === "object" && kept !== null ? /** @type {Record<string, unknown>} */ (kept) : {};
    this.data.offer(options, typeof old.data === "string" ? old.data : null);
    this.#recall(old);
    this.#recount();
  }

  /** @returns {Recipe | undefined} */
  get chosen() {
    return this.options?.recipes.find(({ name }) => name === this.recipe.value);
  }

  #newData() {
    const { recipe, name } = this.data.shown;
    this.name.placeholder = name;
    if (this.recommended !== recipe && this.options?.recipes.some((each) => each.name === recipe)) {
      this.recommended = recipe;
      this.recipe.value = recipe;
      this.#newRecipe();
    } else {
      this.#recount();
    }
  }

  #newRecipe() {
    const recipe = this.chosen;
    if (recipe === undefined) return;
    this.summary.textContent = recipe.summary ?? "";
    this.ownRank = false;
    this.rank.value = String(Math.max(...[recipe.rank].flat()));
    this.activation.value = recipe.activation;
    this.epochs.placeholder = String(recipe.epochs);
    this.batch.placeholder = String(recipe.batch_size);
    this.rate.placeholder = [...new Set([recipe.learning_rate, recipe.dense.learning_rate])].join(" and ");
    this.layers.set(recipe.hidden);
  }

  /** Whether the hidden layers are the recipe's, with which go the dense twin's where these are others. */
  get recipesLayers() {
    return JSON.stringify(this.layers.texts) === JSON.stringify(this.chosen?.hidden.map((shape) => shape.map(String)));
  }

  /**
   * The network as the form describes it, as far as that is known.
   * @returns {Network | string} or why it cannot be counted
   * @throws {FieldError}
   */
  #network() {
    const { chosen: recipe, options } = this;
    const { features, image, outputs, pad } = this.data.shown;
    const hidden = this.layers.read();
    if (recipe === undefined || options === null) return "";
    const channels = recipe.features ?? [];
    const limits = { most: options.limits.hidden_layers, widest: options.limits.width };
    if (features === null || outputs === null) {
      this.layers.limit(limits, null);
      this.#readRank(recipe, options.limits.rank, hidden.length + 1);
      return "Counted once the service has read the data: how wide they are, or what is predicted, is not known before.";
    }
    if (channels.length > 0 && (image === null || Math.min(...image.slice(-2)) < 2 ** channels.length)) {
      throw new FieldError(`Recipe: ${recipe.name} puts ${channels.length} convolutions in front, which need larger images than these data are.`);
    }
    /** @type {Network} */
    const network = { features, image, outputs, pad, hidden, rank: 1, order: recipe.order, channels, denseHidden: this.recipesLayers ? recipe.dense_hidden : null };
    this.layers.limit(limits, inputShape(network));
    return { ...network, rank: this.#readRank(recipe, Math.min(maxCommonRank(network), options.limits.rank), hidden.length + 1) };
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
    if (each === null && Array.isArray(recipe.rank)) this.ownRank = true; // of another number of layers it cannot be the recipe's
    const own = this.ownRank || each === null;
    this.slider.disabled = this.rank.disabled = fixed !== null;
    this.slider.max = String(most);
    const rank = fixed ?? optionalNumber("Rank", this.rank.value, { low: 1, high: most, whole: true });
    if (rank === undefined) throw new FieldError(`Rank: got nothing, expected a whole number from 1 to ${most}.`);
    this.slider.value = String(rank);
    this.rankWords.textContent =
      fixed !== null ? "The recipe says of each branch which factor comes first, so their number is fixed." : own ? `Of each layer, from 1 to ${most}: with more the Kronecker network stores more and can learn more.` : `Layer by layer ${each?.join(", ")}, as in the recipe.`;
    return own ? rank : (each ?? rank);
  }

  #recount() {
    const other = this.recipesLayers ? this.chosen?.dense_hidden : null;
    this.others.hidden = !other;
    this.others.textContent = `The dense network’s hidden layers are ${listed((other ?? []).map(count))} wide, as in the recipe.`;
    try {
      this.preview.show(this.#network());
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.preview.show(error.message, true);
    }
  }

  read() {
    const { chosen: recipe, options } = this;
    if (recipe === undefined || options === null) return "The service has not said yet what it can train; try again.";
    const { data, activation } = this;
    const from = data.read();
    if (typeof from === "string") return from;
    try {
      const hidden = this.layers.read();
      this.#network(); // what cannot be counted cannot be trained
      const known = !this.ownRank || Array.isArray(recipe.order);
      return {
        request: {
          data: from.data,
          target: from.target,
          name: this.name.value.trim() || null,
          kind: "twin",
          recipe: recipe.name,
          rank: known ? null : optionalNumber("Rank", this.rank.value, { low: 1, high: options.limits.rank, whole: true }),
          hidden: this.recipesLayers ? null : hidden,
          activation: activation.value === recipe.activation ? null : activation.value,
          epochs: optionalNumber("Epochs", this.epochs.value, { low: 1, high: options.limits.epochs, whole: true }) ?? null,
          batch_size: optionalNumber("Batch size", this.batch.value, { low: 1, high: 1 << 16, whole: true }) ?? null,
          learning_rate: optionalNumber("Learning rate", this.rate.value, { low: 1e-9, high: 100 }) ?? null,
          seed: optionalNumber("Seed", this.seed.value, { low: 0, high: LARGEST_SEED, whole: true }) ?? 0,
        },
        files: { data: from.file },
      };
    } catch (error) {
      if (error instanceof FieldError) return error.message;
      throw error;
    }
  }

  #keep() {
    if (this.options === null) return;
    remember(KEPT_AS, {
      data: this.data.set.value,
      recipe: this.recipe.value,
      rank: this.ownRank ? this.rank.value : null,
      hidden: this.layers.texts,
      activation: this.activation.value,
      texts: Object.fromEntries(Object.entries(this.texts).map(([name, { value }]) => [name, value])),
    });
  }

  /** @param {Record<string, unknown>} kept anything at all */
  #recall({ recipe, rank, hidden, activation, texts }) {
    if (this.options?.recipes.some(({ name }) => name === recipe)) {
      this.recipe.value = String(recipe);
      this.#newRecipe();
    }
    const isPair = (/** @type {unknown} */ each) => Array.isArray(each) && each.length === 2 && each.every((size) => typeof size === "string");
    if (Array.isArray(hidden) && hidden.length > 0 && hidden.length <= this.layers.most && hidden.every(isPair)) this.layers.set(hidden);
    if (typeof rank === "string") {
      this.ownRank = true;
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
