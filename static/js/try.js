/** The upper half of the page: draw or pick, and both models answer. */

import * as api from "./api.js";
import { AnswerCard } from "./answers.js";
import { byId, h, paintGrey } from "./dom.js";
import { latest } from "./live.js";
import { imageTask, roleName, whatToDraw } from "./models.js";
import { Pad } from "./pad.js";
import { prepare } from "./prepare.js";
import { SampleStrip } from "./samples.js";

/**
 * @import { Connection } from "./connection.js"
 * @import { ImageTask } from "./models.js"
 * @import { ModelInfo, Prediction } from "./types.js"
 */

/** @typedef {{ values: number[], truth: string | null }} Question */

/** Answers are asked for at most this often; more the eye does not follow. */
const GAP_MS = 70;
/** A screen reader hears an answer once the hand has rested this long. */
const REST_MS = 700;

export class TryView {
  /** @param {Connection} connection */
  constructor(connection) {
    this.connection = connection;
    this.pad = new Pad(byId("pad", HTMLCanvasElement), byId("pad-cursor", HTMLElement));
    this.seen = byId("seen", HTMLCanvasElement);
    this.hint = byId("pad-hint", HTMLElement);
    this.verdict = byId("verdict", HTMLElement);
    this.spoken = byId("spoken", HTMLElement);
    this.strip = new SampleStrip(byId("samples", HTMLElement), byId("more-samples", HTMLButtonElement), (sample) => this.#pick(sample));
    /** @type {AnswerCard[]} */
    this.cards = [];
    /** @type {ModelInfo[]} */
    this.models = [];
    /** @type {ImageTask | null} */
    this.task = null;
    /** What the answers on the page are to answer; null when the pad is empty. @type {Question | null} */
    this.question = null;
    this.invitation = "";
    this.speech = 0;
    this.ask = latest(() => this.#predict(), GAP_MS);
    this.pad.addEventListener("start", () => this.strip.clearChoice());
    this.pad.addEventListener("change", () => this.#drawn());
    byId("clear", HTMLButtonElement).addEventListener("click", () => {
      this.strip.clearChoice();
      this.pad.clear();
    });
    connection.addEventListener("back", () => this.#again());
  }

  /** @param {ModelInfo[]} models that answer, side by side */
  async open(models) {
    const task = imageTask(models[0]);
    const other = models.find((model) => typeof imageTask(model) === "string");
    const refusal = typeof task === "string" ? task : other ? imageTask(other) : null;
    byId("try", HTMLElement).classList.toggle("no-pad", refusal !== null);
    if (refusal !== null) byId("lead", HTMLElement).textContent = "What this service runs, and what it costs.";
    this.models = models;
    if (typeof task === "string" || typeof refusal === "string") {
      this.task = null;
      this.#say(String(refusal), "");
      this.cards = models.map((model, i) => new AnswerCard(model, model.card?.labels ?? [], i));
      this.#place();
      return;
    }
    this.task = task;
    this.cards = models.map((model, i) => new AnswerCard(model, model.card?.labels ?? task.labels, i));
    this.#place();
    const size = `${task.columns}×${task.rows}`;
    byId("seen-size", HTMLElement).textContent = size;
    this.seen.setAttribute("aria-label", `The ${size} image that the networks see`);
    byId("preparation", HTMLElement).textContent = task.preprocessing;
    this.invitation = `Draw ${whatToDraw(task.labels)}`;
    this.hint.textContent = this.invitation;
    this.#empty();
    paintGrey(this.seen, null, task.rows, task.columns);
    await this.strip.open((models.find((model) => model.samples) ?? models[0]).name, task);
  }

  #place() {
    byId("answers", HTMLElement).replaceChildren(...this.cards.map((card) => card.element));
  }

  #drawn() {
    const { task } = this;
    if (task === null) return;
    const image = this.pad.blank ? null : prepare(this.pad.grey(), task.rows, task.columns);
    this.hint.hidden = image !== null;
    paintGrey(this.seen, image, task.rows, task.columns);
    if (image === null) {
      this.question = null;
      this.#empty();
      return;
    }
    const [low, high] = task.range;
    this.#pose({ values: Array.from(image, (v) => low + v * (high - low)), truth: null });
  }

  /** @param {import("./samples.js").Sample} sample */
  #pick(sample) {
    const { task } = this;
    if (task === null) return;
    this.hint.hidden = true;
    this.pad.show(sample.image);
    const [low, high] = task.range;
    paintGrey(this.seen, sample.values.map((v) => (v - low) / (high - low)), task.rows, task.columns);
    this.#pose({ values: sample.values, truth: sample.label });
  }

  /** @param {Question} question */
  #pose(question) {
    this.question = question;
    this.ask(undefined);
  }

  async #predict() {
    const { question } = this;
    if (question === null || this.models.length === 0) return;
    try {
      const prediction = await api.predict(this.models.map(({ name }) => name), [question.values]);
      // The pad may have been cleared meanwhile; a stroke that went on is answered by the next request.
      if (this.question !== null) this.#show(prediction, question);
    } catch (error) {
      if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
      for (const card of this.cards) card.setStale();
      this.#say(`No answer: ${error.message}`, "failed");
      if (error instanceof api.Unreachable) this.connection.lost(error.message);
    }
  }

  /** The service is back: what is on the pad still waits for its answer. */
  #again() {
    if (this.question !== null) this.ask(undefined);
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
    const said = [];
    for (const card of this.cards) {
      const result = prediction.results.find(({ model }) => model === card.name);
      if (result === undefined) continue;
      card.show(result, truth);
      said.push({ who: roleName(this.models.find(({ name }) => name === card.name)?.card?.role), label: result.outputs[0].label });
    }
    const label = said[0]?.label ?? "";
    const agree = said.every((each) => each.label === label);
    const right = truth === null ? "" : agree && label === truth ? ", and that is right" : `; it is labelled ${truth}`;
    if (said.length < 2) this.#say(`It reads ${label}${right}.`, "agree");
    else if (agree) this.#say(`${said.length === 2 ? "Both" : "All"} read ${label}${right}.`, "agree");
    else this.#say(`They disagree: ${said.map((each) => `${each.who} reads ${each.label}`).join(", ")}${right}.`, "differ");
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
