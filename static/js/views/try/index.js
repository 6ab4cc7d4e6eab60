/** The Try view: the chosen models answer a drawing, a picture, a test sample or a row. */

import * as api from "../../api/client.js";
import { roles, shortName, tone } from "../../model/display.js";
import { taskKey, taskOf } from "../../model/task.js";
import { byId, h } from "../../ui/dom.js";
import { listed } from "../../ui/format.js";
import { LiveRegion } from "../../ui/live-region.js";
import { recallNames, remember } from "../../ui/store.js";
import { stylesheets } from "../../ui/stylesheet.js";
import { AnswerCard, answerText } from "./answer-card.js";
import { Drawing } from "./drawing.js";
import { SampleStrip } from "./sample-strip.js";
import { storeInput, storedInput } from "./stored-input.js";
import { textsFor } from "./texts.js";

/**
 * @import { Answer, ModelInfo } from "../../api/types.js"
 * @import { RowTask, Task } from "../../model/types.js"
 * @import { App, Route, View } from "../../shell/types.js"
 * @import { Input, Sample } from "./types.js"
 */

/** Milliseconds without a change after which a drawing is stored for a reload. */
const STORE_DELAY_MS = 700;
const MAX_MODELS = 6;
const NO_MODEL = "The service has no models yet. Train a twin with “kronmodel train” or in the Train view.";

/** @implements {View} */
class TryView {
  /** @param {App} app */
  constructor({ connection, catalog }) {
    this.connection = connection;
    this.catalog = catalog;
    this.element = byId("view-try");
    this.drawing = new Drawing(connection);
    this.verdict = byId("verdict");
    this.spoken = new LiveRegion(byId("spoken"));
    /** Form for a row; fetched when needed. @type {import("./row-form.js").RowForm | import("./column-form.js").ColumnForm | null} */
    this.form = null;
    this.strip = new SampleStrip(byId("samples"), byId("more-samples", HTMLButtonElement), (sample) => this.#pick(sample));
    /** Check boxes of the models; fetched when needed. @type {import("../../model/picker.js").ModelPicker | null} */
    this.picker = null;
    /** @type {AnswerCard[]} */
    this.cards = [];
    /** @type {ModelInfo[]} */
    this.models = [];
    /** @type {Task | null} */
    this.task = null;
    /** Current input of the models; null without one. @type {Input | null} */
    this.input = null;
    /** Number of the chosen test sample, counted from 1. @type {number | undefined} */
    this.sampleNumber = undefined;
    this.prompt = "";
    this.saving = 0;
    this.signature = "";
    /** Gets the answers; fetched when needed. @type {import("./predictor.js").Predictor | null} */
    this.predictor = null;
    this.#listen();
  }

  #listen() {
    this.drawing.addEventListener("start", () => this.strip.clearChoice());
    this.drawing.addEventListener("change", () => this.#setInput(this.drawing.values && { values: this.drawing.values, truth: null }));
    for (const clear of [byId("clear", HTMLButtonElement), byId("clear-row", HTMLButtonElement)]) {
      clear.addEventListener("click", () => {
        this.strip.clearChoice();
        if (this.task?.kind === "row") this.form?.clear();
        else this.drawing.clear();
      });
    }
    for (const near of ["pointerenter", "focusin"]) byId("try").addEventListener(near, () => void this.#prepare(), { once: true });
    this.connection.addEventListener("back", () => this.#resume());
    addEventListener("pagehide", () => this.#save());
  }

  title() {
    return "Try";
  }

  /** @param {Route} route */
  show({ query }) {
    const asked = query.get("models");
    if (asked) remember("try.models", asked.split(","));
    void this.#open(Number(query.get("sample")));
  }

  hide() {
    this.#save();
  }

  async #open(sample = 0) {
    const answers = byId("answers");
    try {
      await this.catalog.load();
    } catch (error) {
      this.#say(`No models: ${this.connection.explain(error)}`, "failed");
      if (error instanceof api.ApiError && error.status === 503) this.connection.lost("The service is not ready yet.");
      return;
    } finally {
      answers.removeAttribute("aria-busy");
    }
    const names = recallNames("try.models");
    const wanted = this.catalog.pick(names.length > 0 ? names : this.catalog.defaults).slice(0, MAX_MODELS);
    const models = wanted.length > 0 ? wanted : this.catalog.pick(this.catalog.defaults);
    const key = models.length > 0 ? taskKey(models[0]) : "";
    const together = models.filter((model) => taskKey(model) === key);
    const choice = this.catalog.models.length > together.length;
    byId("chooser").hidden = !choice;
    await this.#fetched(async () => {
      if (choice) await this.#showPicker(together.map(({ name }) => name));
      await this.#use(together);
      if (sample > 0 && this.task && this.source) await this.strip.open(this.source, this.task, sample);
    });
  }

  /** @param {string[]} names of the chosen models */
  async #showPicker(names) {
    if (this.picker === null) {
      const [{ ModelPicker }] = await Promise.all([import("../../model/picker.js"), stylesheets("ui/forms", "model/picker", "views/try/chooser")]);
      const picker = (this.picker = new ModelPicker("Choose models of one group", MAX_MODELS));
      byId("chooser-models").replaceChildren(picker.element);
      picker.addEventListener("change", () => {
        if (picker.chosen.length > 0) void this.#fetched(() => this.#use(this.catalog.pick(picker.chosen)));
      });
    }
    this.picker.set(this.catalog.models, names);
  }

  /** @param {() => Promise<void>} work that imports modules */
  async #fetched(work) {
    if (await this.connection.fetched(work)) return;
    this.signature = "";
    this.#say(`No answer: ${api.UNREACHABLE}`, "failed");
  }

  /** @param {ModelInfo[]} models to show side by side */
  async #use(models) {
    byId("chooser-names").textContent = listed(models.map(({ name }) => name));
    const signature = JSON.stringify(models.map(({ name, version }) => [name, version]));
    if (signature === this.signature) return;
    if (this.signature !== "") remember("try.models", models.map(({ name }) => name));
    this.signature = signature;
    const before = this.task;
    const task = models.length > 0 ? taskOf(models[0]) : NO_MODEL;
    this.models = models;
    this.task = typeof task === "string" ? null : task;
    this.cards = models.map((model, i) => new AnswerCard(model, this.task?.labels ?? [], tone(roles(models), i)));
    this.predictor?.use(this.task === null ? [] : models, this.cards);
    byId("answers").replaceChildren(...this.cards.map((card) => card.element));
    void this.#fetched(() => this.#drawStructure(models));
    this.element.classList.toggle("no-input", this.task === null);
    this.element.classList.toggle("row-input", this.task?.kind === "row");
    if (typeof task === "string") {
      byId("lead").textContent = "The service’s models, and what they cost.";
      this.#say(task, "");
      return;
    }
    byId("preprocessing").textContent = `${task.labels ? "A network always picks one of its labels. " : ""}${task.preprocessing && `Preprocessing: ${task.preprocessing}.`}`;
    const same = before !== null && JSON.stringify(before) === JSON.stringify(task);
    const texts = textsFor(task, models);
    byId("lead").textContent = texts.lead;
    byId("strip-legend").textContent = texts.legend;
    this.prompt = texts.prompt;
    if (task.kind === "image") await this.drawing.open(task, texts.prompt);
    else await this.#openRow(task, same);
    if (same) {
      this.#resume();
      return;
    }
    this.input = null;
    this.predictor?.ask(null);
    this.#empty();
    this.source = (models.find((model) => model.samples) ?? models[0]).name;
    await this.strip.open(this.source, task, this.#restore(task));
  }

  /** @param {ModelInfo[]} models */
  async #drawStructure(models) {
    const { showStructure } = await import("../../charts/structure.js");
    byId("structure").hidden = !showStructure(models, byId("structure-words"), byId("structure-figures"));
  }

  /**
   * @param {RowTask} task
   * @param {boolean} same whether the previous models took the same input
   */
  async #openRow(task, same) {
    if (same && this.form !== null) return;
    const [Form] = await Promise.all([
      task.columns ? import("./column-form.js").then((module) => module.ColumnForm) : import("./row-form.js").then((module) => module.RowForm),
      stylesheets("ui/forms", "views/try/row-form"),
    ]);
    this.form = new Form(byId("row-form"));
    this.form.addEventListener("change", () => this.#rowChanged());
    this.form.open(task);
  }

  /**
   * Restores the input from before a reload, if it fits the task.
   * @param {Task} task
   * @returns {number} the sample to pick, counted from 1; 0 for none
   */
  #restore(task) {
    const { sample = 0, drawing, row } = storedInput(this.models[0], task);
    if (drawing !== undefined) this.drawing.restore(drawing);
    else if (task.kind === "image" && sample === 0) this.drawing.clear();
    if (row !== undefined) {
      this.form?.show(row);
      this.#rowChanged();
    }
    return sample;
  }

  /** Stores the input for a reload. */
  #save() {
    clearTimeout(this.saving);
    const [model] = this.models;
    if (model === undefined || this.task === null || this.sampleNumber !== undefined) return;
    if (this.input === null) storeInput(model, null);
    else storeInput(model, this.task.kind === "row" ? { row: this.input.values } : { drawing: this.drawing.toDataUrl() });
  }

  #rowChanged() {
    const values = this.form?.values ?? null;
    this.strip.clearChoice();
    this.#setInput(values && { values, truth: null });
  }

  /** @param {Sample} sample */
  #pick(sample) {
    const { task } = this;
    if (task === null) return;
    if (task.kind === "image") this.drawing.show(/** @type {number[]} */ (sample.values), sample.image);
    else this.form?.show(sample.values);
    this.#setInput({ values: sample.values, truth: sample.label }, sample.number);
  }

  /**
   * @param {Input | null} input null: none
   * @param {number} [sample] number of the test sample
   */
  #setInput(input, sample) {
    this.input = input;
    this.sampleNumber = sample;
    if (input === null) this.#empty();
    void this.#ask();
    clearTimeout(this.saving);
    if (sample === undefined) this.saving = setTimeout(() => this.#save(), STORE_DELAY_MS);
    else storeInput(this.models[0], { sample });
  }

  /** Asks for the answers to the current input. */
  async #ask() {
    if (this.input !== null && this.predictor === null) await this.#fetched(() => this.#fetchPredictor());
    this.predictor?.ask(this.input);
  }

  /** Loads the models' files; without them, the service answers. */
  async #prepare() {
    await this.#fetchPredictor().catch(() => {});
    if (this.task !== null) await this.predictor?.load();
  }

  async #fetchPredictor() {
    const [{ Predictor }, { verdict }] = await Promise.all([import("./predictor.js"), import("./verdict.js")]);
    if (this.predictor !== null) return;
    this.predictor = new Predictor(this.connection, {
      answered: (answers, input) => this.#show(answers, input, verdict),
      failed: (why) => {
        for (const card of this.cards) card.setStale();
        this.#say(`No answer: ${why}`, "failed");
      },
      outdated: () => void this.#open(),
    });
    this.predictor.use(this.task === null ? [] : this.models, this.cards);
  }

  /** Continues after a lost connection. */
  #resume() {
    if (this.element.hidden) return;
    if (this.models.length === 0) void this.#open();
    else if (this.signature === "") void this.#open();
    else if (this.input !== null) void this.#ask();
    else if (this.task !== null) this.#empty();
  }

  /**
   * @param {string} text
   * @param {"" | "failed" | import("./types.js").Verdict["kind"]} kind
   */
  #say(text, kind) {
    this.verdict.replaceChildren(h("span", {}, text));
    this.verdict.className = `verdict ${kind}`;
    this.spoken.say(text);
  }

  #empty() {
    for (const card of this.cards) card.clear();
    this.#say(`${this.prompt}, or pick a test sample.`, "");
  }

  /**
   * @param {Answer[]} answers of the models, in their order
   * @param {Input} input
   * @param {typeof import("./verdict.js").verdict} verdict
   */
  #show(answers, { truth }, verdict) {
    const named = this.models.map(({ name, card }) => ({ model: name, role: card?.role }));
    for (const [i, card] of this.cards.entries()) card.show(answers[i], truth);
    const said = answers.map((answer, i) => ({ name: shortName(named, i), text: answerText(answer), ...answer }));
    const { text, kind } = verdict(said, truth);
    this.#say(text, kind);
  }
}

/** @param {App} app */
export const makeView = (app) => new TryView(app);
