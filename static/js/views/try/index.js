/** Draw, upload, pick or fill in, and the chosen models answer. */

import * as api from "../../api/client.js";
import { Announcement } from "./announcement.js";
import { AnswerCard, said } from "./answer-card.js";
import { byId } from "../../ui/dom.js";
import { Drawing } from "./drawing.js";
import { wordsFor } from "./invitation.js";
import { keepQuestion, keptQuestion } from "./kept-question.js";
import { latest } from "./throttle.js";
import { listed, roles, shortName, tone } from "../../model/display.js";
import { SampleStrip } from "./sample-strip.js";
import { recallNames, remember } from "../../ui/store.js";
import { stylesheet } from "../../ui/stylesheet.js";
import { taskKey, taskOf } from "../../model/task.js";
import { verdict } from "./verdict.js";

/**
 * @import { App, Route, View } from "../../shell/router.js"
 * @import { Sample } from "./sample-strip.js"
 * @import { Task } from "../../model/task.js"
 * @import { ModelInfo, Prediction } from "../../api/types.js"
 */

/** @typedef {{ values: number[], truth: string | null }} Question */

/** Answers are asked for at most this often; more the eye does not follow. */
const GAP_MS = 70;
/** A reload finds a drawing once the hand has rested this long. */
const REST_MS = 700;
const MOST = 6;
const NO_MODEL = "The service has no model yet. Train a twin with “kronmodel train”; it appears here once served.";

/** @implements {View} */
class TryView {
  /** @param {App} app */
  constructor({ connection, catalog }) {
    this.connection = connection;
    this.catalog = catalog;
    this.element = byId("view-try", HTMLElement);
    this.drawing = new Drawing(connection);
    this.verdict = new Announcement(byId("verdict", HTMLElement), byId("spoken", HTMLElement));
    /** Fetched with the first row to fill in. @type {import("./row-form.js").RowForm | null} */
    this.form = null;
    this.strip = new SampleStrip(byId("samples", HTMLElement), byId("more-samples", HTMLButtonElement), (sample) => this.#pick(sample));
    /** Fetched once there is something to choose. @type {import("../../model/picker.js").ModelPicker | null} */
    this.picker = null;
    /** @type {AnswerCard[]} */
    this.cards = [];
    /** @type {ModelInfo[]} */
    this.models = [];
    /** @type {Task | null} */
    this.task = null;
    /** What the answers on the page are to answer; null when nothing is asked. @type {Question | null} */
    this.question = null;
    /** The number of the test sample that was picked. @type {number | undefined} */
    this.sampled = undefined;
    this.invitation = "";
    this.saving = 0;
    this.signature = "";
    this.ask = latest(() => this.#predict(), GAP_MS);
    this.#listen();
  }

  #listen() {
    this.drawing.addEventListener("start", () => this.strip.clearChoice());
    this.drawing.addEventListener("change", () => this.#pose(this.drawing.values && { values: this.drawing.values, truth: null }));
    for (const clear of [byId("clear", HTMLButtonElement), byId("clear-row", HTMLButtonElement)]) {
      clear.addEventListener("click", () => {
        this.strip.clearChoice();
        if (this.task?.kind === "row") this.form?.clear();
        else this.drawing.clear();
      });
    }
    this.connection.addEventListener("back", () => this.#again());
    addEventListener("pagehide", () => this.#save());
  }

  title() {
    return "Try";
  }

  /** @param {Route} route */
  show({ query }) {
    const asked = query.get("models");
    if (asked) remember("try.models", asked.split(","));
    void this.#open();
  }

  hide() {
    this.#save();
  }

  async #open() {
    const answers = byId("answers", HTMLElement);
    try {
      await this.catalog.load();
    } catch (error) {
      this.verdict.say(`No models: ${this.connection.explain(error)}`, "failed");
      if (error instanceof api.Refused && error.status === 503) this.connection.lost("The service is not ready yet.");
      return;
    } finally {
      answers.removeAttribute("aria-busy");
    }
    const names = recallNames("try.models");
    const wanted = this.catalog.pick(names.length > 0 ? names : this.catalog.defaults).slice(0, MOST);
    const models = wanted.length > 0 ? wanted : this.catalog.pick(this.catalog.defaults);
    const key = models.length > 0 ? taskKey(models[0]) : "";
    const together = models.filter((model) => taskKey(model) === key);
    const choice = this.catalog.models.length > together.length;
    byId("chooser", HTMLElement).hidden = !choice;
    await this.#fetched(async () => {
      if (choice) await this.#offer(together.map(({ name }) => name));
      await this.#use(together);
    });
  }

  /** @param {string[]} names that are chosen by now */
  async #offer(names) {
    if (this.picker === null) {
      const [{ ModelPicker }] = await Promise.all([import("../../model/picker.js"), stylesheet("forms")]);
      const picker = (this.picker = new ModelPicker("Which models shall answer? Those of one group go together.", MOST));
      byId("chooser-models", HTMLElement).replaceChildren(picker.element);
      picker.addEventListener("change", () => {
        if (picker.chosen.length > 0) void this.#fetched(() => this.#use(this.catalog.pick(picker.chosen)));
      });
    }
    this.picker.set(this.catalog.models, names);
  }

  /** @param {() => Promise<void>} work that fetches modules */
  async #fetched(work) {
    if (await this.connection.fetched(work)) return;
    this.signature = "";
    this.verdict.say(`No answer: ${api.NOT_REACHED}`, "failed");
  }

  /** @param {ModelInfo[]} models that answer, side by side */
  async #use(models) {
    byId("chooser-names", HTMLElement).textContent = listed(models.map(({ name }) => name));
    const signature = JSON.stringify(models.map(({ name, version }) => [name, version]));
    if (signature === this.signature) return;
    if (this.signature !== "") remember("try.models", models.map(({ name }) => name));
    this.signature = signature;
    const before = this.task;
    const task = models.length > 0 ? taskOf(models[0]) : NO_MODEL;
    this.models = models;
    this.task = typeof task === "string" ? null : task;
    this.cards = models.map((model, i) => new AnswerCard(model, this.task?.labels ?? [], tone(roles(models), i)));
    byId("answers", HTMLElement).replaceChildren(...this.cards.map((card) => card.element));
    void this.#fetched(() => this.#draw(models));
    this.element.classList.toggle("no-question", this.task === null);
    this.element.classList.toggle("row-question", this.task?.kind === "row");
    if (typeof task === "string") {
      byId("lead", HTMLElement).textContent = "What this service runs, and what it costs.";
      this.verdict.say(task, "");
      return;
    }
    byId("preparation", HTMLElement).textContent = task.preprocessing && `Prepared as: ${task.preprocessing}.`;
    const same = before !== null && JSON.stringify(before) === JSON.stringify(task);
    const words = wordsFor(task, models);
    byId("lead", HTMLElement).textContent = words.lead;
    byId("strip-legend", HTMLElement).textContent = words.legend;
    this.invitation = words.invitation;
    if (task.kind === "image") await this.drawing.open(task, words.invitation);
    else await this.#openRow(task, same);
    if (same) {
      this.#again();
      return;
    }
    this.question = null;
    this.#empty();
    const sampled = (models.find((model) => model.samples) ?? models[0]).name;
    await this.strip.open(sampled, task, this.#restore(task));
  }

  /** @param {ModelInfo[]} models */
  async #draw(models) {
    const { showStructure } = await import("../../charts/structure.js");
    byId("structure", HTMLElement).hidden = !showStructure(models, byId("structure-words", HTMLElement), byId("structure-figures", HTMLElement));
  }

  /**
   * @param {import("../../model/task.js").RowTask} task
   * @param {boolean} same as before
   */
  async #openRow(task, same) {
    if (this.form === null) {
      const [{ RowForm }] = await Promise.all([import("./row-form.js"), stylesheet("forms")]);
      this.form = new RowForm(byId("row-form", HTMLElement));
      this.form.addEventListener("change", () => this.#filled());
    }
    if (!same) this.form.open(task);
  }

  /**
   * What was asked before the reload, if it was of this task.
   * @param {Task} task
   * @returns {number} of the sample to pick, counted from 1
   */
  #restore(task) {
    const { sample = 0, drawing, row } = keptQuestion(this.models[0], task);
    if (drawing !== undefined) this.drawing.restore(drawing);
    else if (task.kind === "image" && sample === 0) this.drawing.clear();
    if (row !== undefined) {
      this.form?.show(row);
      this.#filled();
    }
    return sample;
  }

  /** Keeps what is asked, so that a reload finds it again. */
  #save() {
    clearTimeout(this.saving);
    const [model] = this.models;
    if (model === undefined || this.task === null || this.sampled !== undefined) return;
    if (this.question === null) keepQuestion(model, null);
    else keepQuestion(model, this.task.kind === "row" ? { row: this.question.values } : { drawing: this.drawing.toAddress() });
  }

  #filled() {
    const values = this.form?.values ?? null;
    this.strip.clearChoice();
    this.#pose(values && { values, truth: null });
  }

  /** @param {Sample} sample */
  #pick(sample) {
    const { task } = this;
    if (task === null) return;
    if (task.kind === "image") this.drawing.show(sample.values, sample.image);
    else this.form?.show(sample.values);
    this.#pose({ values: sample.values, truth: sample.label }, sample.number);
  }

  /**
   * @param {Question | null} question null: nothing is asked
   * @param {number} [sample] its number, where it is a test sample
   */
  #pose(question, sample) {
    this.question = question;
    this.sampled = sample;
    if (question === null) this.#empty();
    else this.ask(undefined);
    clearTimeout(this.saving);
    if (sample === undefined) this.saving = setTimeout(() => this.#save(), REST_MS);
    else keepQuestion(this.models[0], { sample });
  }

  async #predict() {
    const { question, models } = this;
    if (question === null || models.length === 0) return;
    try {
      const prediction = await api.predict(models.map(({ name }) => name), [question.values]);
      // All may have been cleared meanwhile; a stroke that went on is answered by the next request.
      if (this.question !== null && models === this.models) this.#show(prediction, question);
    } catch (error) {
      const why = this.connection.explain(error);
      for (const card of this.cards) card.setStale();
      this.verdict.say(`No answer: ${why}`, "failed");
    }
  }

  /** The service is back: what is asked still waits for its answer. */
  #again() {
    if (this.element.hidden) return;
    if (this.models.length === 0) void this.#open();
    else if (this.signature === "") void this.#open();
    else if (this.question !== null) this.ask(undefined);
    else if (this.task !== null) this.#empty();
  }

  #empty() {
    for (const card of this.cards) card.clear();
    this.verdict.say(`${this.invitation}, or pick a test sample.`, "");
  }

  /**
   * @param {Prediction} prediction
   * @param {Question} question
   */
  #show(prediction, { truth }) {
    const named = this.models.map(({ name, card }) => ({ model: name, role: card?.role }));
    const answers = [];
    for (const [i, card] of this.cards.entries()) {
      const result = prediction.results.find(({ model }) => model === card.name);
      if (result === undefined) continue;
      card.show(result, truth);
      answers.push({ who: shortName(named, i), text: said(result.outputs[0]), label: result.outputs[0].label });
    }
    if (answers.length === 0) return;
    const { text, kind } = verdict(answers, truth);
    this.verdict.say(text, kind);
  }
}

/** @param {App} app */
export const makeView = (app) => new TryView(app);
