/** Draw, upload, pick or fill in, and the chosen models answer. */

import * as api from "../api.js";
import { AnswerCard, said } from "../answers.js";
import { byId, h, paintGrey } from "../dom.js";
import { digits } from "../format.js";
import { latest } from "../latest.js";
import { listed, roles, shortName, tone, whatToDraw } from "../models.js";
import { Pad } from "../pad.js";
import { prepare } from "../prepare.js";
import { SampleStrip } from "../samples.js";
import { recall, recallNames, remember } from "../store.js";
import { taskKey, taskOf } from "../task.js";

/**
 * @import { App, Route, View } from "../router.js"
 * @import { Sample } from "../samples.js"
 * @import { Task } from "../task.js"
 * @import { ModelInfo, Prediction } from "../types.js"
 */

/** @typedef {{ values: number[], truth: string | null }} Question */

/** Answers are asked for at most this often; more the eye does not follow. */
const GAP_MS = 70;
/** A screen reader hears an answer, and a reload finds a drawing, once the hand has rested this long. */
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
    this.pad = new Pad(byId("pad", HTMLCanvasElement), byId("pad-cursor", HTMLElement));
    this.seen = byId("seen", HTMLCanvasElement);
    this.hint = byId("pad-hint", HTMLElement);
    this.verdict = byId("verdict", HTMLElement);
    this.spoken = byId("spoken", HTMLElement);
    this.fileMessage = byId("file-message", HTMLElement);
    /** Fetched with the first row to fill in. @type {import("../rowform.js").RowForm | null} */
    this.form = null;
    this.strip = new SampleStrip(byId("samples", HTMLElement), byId("more-samples", HTMLButtonElement), (sample) => this.#pick(sample));
    /** Fetched once there is something to choose. @type {import("../picker.js").ModelPicker | null} */
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
    this.speech = 0;
    this.saving = 0;
    this.signature = "";
    this.ask = latest(() => this.#predict(), GAP_MS);
    this.#listen();
  }

  #listen() {
    this.pad.addEventListener("start", () => this.strip.clearChoice());
    this.pad.addEventListener("change", () => this.#drawn());
    for (const clear of [byId("clear", HTMLButtonElement), byId("clear-row", HTMLButtonElement)]) {
      clear.addEventListener("click", () => {
        this.strip.clearChoice();
        this.fileMessage.textContent = "";
        if (this.task?.kind === "row") this.form?.clear();
        else this.pad.clear();
      });
    }
    const file = byId("file", HTMLInputElement);
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen) void this.#upload(chosen);
      file.value = ""; // so that the same file may be chosen again
    });
    const box = byId("pad-box", HTMLElement);
    box.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.add("over");
    });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("over");
      const [dropped] = event.dataTransfer?.files ?? [];
      if (dropped) void this.#upload(dropped);
    });
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
      if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
      this.#say(`No models: ${error.message}`, "failed");
      this.connection.lost(error instanceof api.Unreachable ? error.message : "The service is not ready yet.");
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
      const { ModelPicker } = await import("../picker.js");
      const picker = (this.picker = new ModelPicker("Which models shall answer? Those of one group go together.", MOST));
      byId("chooser-models", HTMLElement).replaceChildren(picker.element);
      picker.addEventListener("change", () => {
        if (picker.chosen.length > 0) void this.#fetched(() => this.#use(this.catalog.pick(picker.chosen)));
      });
    }
    this.picker.set(this.catalog.models, names);
  }

  /**
   * Modules that only some visitors need come later than the page, if the service is still there.
   * @param {() => Promise<void>} work
   */
  async #fetched(work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // what a module that cannot be fetched throws
      this.signature = "";
      this.#say("No answer: The service cannot be reached.", "failed");
      this.connection.lost("The service cannot be reached.");
    }
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
      this.#say(task, "");
      return;
    }
    byId("preparation", HTMLElement).textContent = task.preprocessing && `Prepared as: ${task.preprocessing}.`;
    const same = before !== null && JSON.stringify(before) === JSON.stringify(task);
    if (task.kind === "image") this.#openImage(task);
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
    const { showStructure } = await import("../structure.js");
    byId("structure", HTMLElement).hidden = !showStructure(models, byId("structure-words", HTMLElement), byId("structure-figures", HTMLElement));
  }

  /** @param {import("../task.js").ImageTask} task */
  #openImage(task) {
    const size = `${task.columns}×${task.rows}`;
    byId("lead", HTMLElement).textContent = `Draw, and ${this.models.length === 2 ? "two" : "the"} networks read it: one stores every weight, the other only small Kronecker factors.`;
    byId("strip-legend", HTMLElement).textContent = "Or pick a test sample, shown with its true label";
    byId("seen-size", HTMLElement).textContent = size;
    this.seen.setAttribute("aria-label", `The ${size} image that the networks see`);
    this.invitation = `Draw ${task.labels ? whatToDraw(task.labels) : "something"}`;
    this.hint.textContent = this.invitation;
    if (this.question === null) paintGrey(this.seen, null, task.rows, task.columns);
  }

  /**
   * @param {import("../task.js").RowTask} task
   * @param {boolean} same as before
   */
  async #openRow(task, same) {
    byId("lead", HTMLElement).textContent = `Fill in a row, and ${this.models.length === 1 ? "the network answers" : "the networks answer"}, side by side.`;
    byId("strip-legend", HTMLElement).textContent = `Or pick a test row, shown with its true ${task.labels ? "label" : "value"}`;
    this.invitation = `Fill in ${task.width === 1 ? "the number" : `the ${task.width} numbers`}`;
    if (this.form === null) {
      const { RowForm } = await import("../rowform.js");
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
    const kept = recall("try.question");
    if (typeof kept !== "object" || kept === null || !("key" in kept) || kept.key !== taskKey(this.models[0])) {
      if (task.kind === "image") this.pad.clear();
      return 0;
    }
    if ("sample" in kept && typeof kept.sample === "number") return kept.sample;
    if (task.kind === "image") {
      if ("drawing" in kept && typeof kept.drawing === "string" && kept.drawing.startsWith("data:image/png;")) void this.pad.restore(kept.drawing);
      else this.pad.clear();
    } else if ("row" in kept && Array.isArray(kept.row) && kept.row.length === task.width && kept.row.every((v) => typeof v === "number")) {
      this.form?.show(kept.row);
      this.#filled();
    }
    return 0;
  }

  /** Keeps what is asked, so that a reload finds it again. */
  #save() {
    clearTimeout(this.saving);
    const [model] = this.models;
    if (model === undefined || this.task === null || this.sampled !== undefined) return;
    const key = taskKey(model);
    if (this.question === null) remember("try.question", undefined);
    else if (this.task.kind === "row") remember("try.question", { key, row: this.question.values });
    else remember("try.question", { key, drawing: this.pad.toAddress() });
  }

  #drawn() {
    const { task } = this;
    if (task?.kind !== "image") return;
    const image = this.pad.blank ? null : prepare(this.pad.grey(), task.rows, task.columns, task.framed);
    this.hint.hidden = image !== null;
    paintGrey(this.seen, image, task.rows, task.columns);
    const [low, high] = task.range;
    this.#pose(image && { values: Array.from(image, (v) => low + v * (high - low)), truth: null });
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
    if (task.kind === "image") {
      this.hint.hidden = true;
      this.fileMessage.textContent = "";
      if (sample.image) this.pad.show(sample.image);
      const [low, high] = task.range;
      paintGrey(this.seen, sample.values.map((v) => (v - low) / (high - low)), task.rows, task.columns);
    } else {
      this.form?.show(sample.values);
    }
    this.#pose({ values: sample.values, truth: sample.label }, sample.number);
  }

  /** @param {File} file */
  async #upload(file) {
    if (this.task?.kind !== "image") return;
    await this.#fetched(async () => {
      const { PictureError, readPicture } = await import("../picture.js");
      try {
        this.pad.place(await readPicture(file));
        this.fileMessage.textContent = "";
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        this.fileMessage.textContent = error.message;
      }
    });
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
    else remember("try.question", { key: taskKey(this.models[0]), sample });
  }

  async #predict() {
    const { question, models } = this;
    if (question === null || models.length === 0) return;
    try {
      const prediction = await api.predict(models.map(({ name }) => name), [question.values]);
      // All may have been cleared meanwhile; a stroke that went on is answered by the next request.
      if (this.question !== null && models === this.models) this.#show(prediction, question);
    } catch (error) {
      if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
      for (const card of this.cards) card.setStale();
      this.#say(`No answer: ${error.message}`, "failed");
      if (error instanceof api.Unreachable) this.connection.lost(error.message);
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
    this.#say(`${this.invitation}, or pick a test sample.`, "");
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
    if (answers.some(({ label }) => label == null)) this.#sayValues(answers, truth);
    else this.#sayLabels(answers, truth);
  }

  /**
   * @param {{ who: string, text: string }[]} answers
   * @param {string | null} truth
   */
  #sayValues(answers, truth) {
    const what = answers.map(({ who, text }) => `${who} says ${text}`).join(", ");
    this.#say(`${what}${truth === null ? "" : `; it is ${Number.isFinite(Number(truth)) ? digits(Number(truth)) : truth}`}.`, "agree");
  }

  /**
   * @param {{ who: string, text: string }[]} answers
   * @param {string | null} truth
   */
  #sayLabels(answers, truth) {
    const [{ text }] = answers;
    const agree = answers.every((each) => each.text === text);
    const right = truth === null ? "" : agree && text === truth ? ", and that is right" : `; it is labelled ${truth}`;
    if (answers.length < 2) this.#say(`It reads ${text}${right}.`, "agree");
    else if (agree) this.#say(`${answers.length === 2 ? "Both" : "All"} read ${text}${right}.`, "agree");
    else this.#say(`They disagree: ${answers.map((each) => `${each.who} reads ${each.text}`).join(", ")}${right}.`, "differ");
  }

  /**
   * @param {string} text
   * @param {"" | "agree" | "differ" | "failed"} kind
   */
  #say(text, kind) {
    this.verdict.replaceChildren(h("span", {}, text));
    this.verdict.className = `verdict ${kind}`;
    clearTimeout(this.speech);
    this.speech = setTimeout(() => {
      this.spoken.textContent = text;
    }, REST_MS);
  }
}

/** @param {App} app */
export const makeView = (app) => new TryView(app);
