/**
 * Gets the models' answers to the current input.
 *
 * The browser computes them if it can compute all of the models, at each change of the input; the service answers the input that
 * is left unchanged for a moment, and the browser's answers and times are compared with it. Otherwise, and until the models' files
 * are loaded, the service answers each input.
 */

import * as api from "../../api/client.js";
import { credentials } from "../../api/credentials.js";
import { duration } from "../../ui/format.js";
import { throttle } from "./throttle.js";

/**
 * @import { Answer, ModelInfo, Prediction } from "../../api/types.js"
 * @import { Connection } from "../../shell/connection.js"
 * @import { AnswerCard } from "./answer-card.js"
 * @import { LocalModels } from "./local-models.js"
 * @import { Input } from "./types.js"
 */

/** Minimum time between predictions of the service. */
const GAP_MS = 70;
/** Milliseconds without a change after which the browser's answer is compared with the service's. */
const REST_MS = 300;

/**
 * @typedef {object} Receiver
 * @property {(answers: Answer[], input: Input) => void} answered the answers are in the order of the models
 * @property {(why: string) => void} failed
 * @property {() => void} outdated the service has a new version of a model
 */

export class Predictor {
  /**
   * @param {Connection} connection
   * @param {Receiver} receiver
   */
  constructor(connection, receiver) {
    this.connection = connection;
    this.receiver = receiver;
    /** @type {ModelInfo[]} */
    this.models = [];
    /** Cards of the models, which show the times. @type {AnswerCard[]} */
    this.cards = [];
    /** Current input of the models; null without one. @type {Input | null} */
    this.input = null;
    /** Models that the browser computes; fetched with the first input. @type {LocalModels | null} */
    this.local = null;
    this.frame = 0;
    this.resting = 0;
    this.request = throttle(() => this.#request(), GAP_MS);
    connection.addEventListener("back", () => this.local?.retry());
    credentials.addEventListener("change", () => this.local?.retry());
  }

  /**
   * @param {ModelInfo[]} models none if the page cannot provide their input
   * @param {AnswerCard[]} cards
   */
  use(models, cards) {
    this.#cancel();
    this.models = models;
    this.cards = cards;
  }

  /** Loads the models' files, and answers the current input by them. */
  async load() {
    const { models } = this;
    try {
      this.local ??= new (await import("./local-models.js")).LocalModels();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return; // the module cannot be fetched: with the next input, again
    }
    if (this.local.ready(models)) return;
    await this.local.load(models);
    if (models !== this.models) return;
    this.#explain();
    if (this.local.ready(models)) this.ask(this.input);
    else if (!api.SERVED) this.receiver.failed(models.map((model) => this.local?.reason(model)).find((reason) => reason != null) ?? "");
  }

  /**
   * Answers an input: in the browser, at most once for each frame on the screen, or by the service.
   * @param {Input | null} input null for none
   */
  ask(input) {
    this.#cancel();
    this.input = input;
    if (input === null || this.models.length === 0) return;
    if (this.local?.ready(this.models)) {
      this.frame = requestAnimationFrame(() => this.#compute(input));
      return;
    }
    if (api.SERVED) this.request();
    if (!this.connection.gone) void this.load();
  }

  #cancel() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.resting);
  }

  /** @param {Input} input */
  #compute(input) {
    const models = this.local?.ready(this.models);
    if (!models) return;
    const values = /** @type {number[]} */ (input.values); // the service answers rows of columns
    try {
      this.receiver.answered(models.map((model) => model.answer(values)), input);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.receiver.failed(error.message); // no finite answer to this input
      return;
    }
    this.resting = setTimeout(() => {
      for (const [i, model] of models.entries()) this.cards[i].browserTime.textContent = duration(model.measure(values));
      if (api.SERVED && !this.connection.gone) this.request();
    }, REST_MS);
  }

  async #request() {
    const { input, models } = this;
    if (input === null || models.length === 0) return;
    try {
      const prediction = await api.predict(models.map(({ name }) => name), input.values);
      // The input may have been cleared meanwhile; a changed one is answered by the next request.
      if (this.input !== null && models === this.models) this.#served(prediction, input);
    } catch (error) {
      const why = this.connection.explain(error);
      if (!this.local?.ready(models)) this.receiver.failed(why); // else the browser has answered
    }
  }

  /**
   * Shows the service's times, and its answers unless the browser has answered.
   * @param {Prediction} prediction
   * @param {Input} input
   */
  #served(prediction, input) {
    const { local, models, cards } = this;
    const results = models.map(({ name }) => prediction.results.find(({ model }) => model === name));
    if (!results.every((result) => result !== undefined)) return;
    if (results.some(({ version }, i) => version !== models[i].version)) this.receiver.outdated();
    for (const [i, card] of cards.entries()) card.serviceTime.textContent = duration(results[i].compute_us);
    if (local?.ready(models)) {
      const equal = results.map((result, i) => local.check(models[i], /** @type {number[]} */ (input.values), result));
      if (equal.every(Boolean)) {
        // Only the service tells images apart that are unlike the training images.
        if (results.some(({ outputs }) => outputs[0].unlike) && input === this.input) this.receiver.answered(results.map(({ outputs }) => outputs[0]), input);
        return;
      }
      this.#explain();
    }
    this.receiver.answered(results.map(({ outputs }) => outputs[0]), input);
  }

  /** Says on the cards why the service answers instead of the browser. */
  #explain() {
    for (const [i, { browserTime }] of this.cards.entries()) {
      const reason = this.local?.reason(this.models[i]) ?? null;
      browserTime.title = reason === null ? "" : `The service answers: ${reason}.`;
      if (reason !== null) browserTime.textContent = "–";
    }
  }
}
