/** The strip of real test samples: radio buttons, so that the arrow keys walk through them. */

import * as api from "./api.js";
import { h, paintGrey } from "./dom.js";

/**
 * @import { ImageTask } from "./models.js"
 */

/** @typedef {{ values: number[], label: string, number: number, image: HTMLCanvasElement }} Sample */

const SHOWN = 10;

export class SampleStrip {
  /**
   * @param {HTMLElement} list
   * @param {HTMLButtonElement} more
   * @param {(sample: Sample) => void} onPick
   */
  constructor(list, more, onPick) {
    this.list = list;
    this.more = more;
    this.onPick = onPick;
    this.offset = 0;
    this.total = 0;
    this.message = h("p", { class: "muted strip-message" });
    more.addEventListener("click", () => void this.#turn());
  }

  /**
   * @param {string} model
   * @param {ImageTask} task
   */
  async open(model, task) {
    this.model = model;
    this.task = task;
    this.offset = 0;
    await this.#load();
  }

  clearChoice() {
    for (const input of this.list.querySelectorAll("input")) input.checked = false;
  }

  async #turn() {
    this.offset = this.offset + SHOWN >= this.total ? 0 : this.offset + SHOWN;
    await this.#load();
  }

  async #load() {
    const { model, task } = this;
    if (model === undefined || task === undefined) return;
    this.more.disabled = true;
    try {
      const answer = await api.samples(model, this.offset, SHOWN);
      this.total = answer.total;
      if (answer.inputs.length === 0) return this.#say("This model was published without test samples.");
      this.list.replaceChildren(
        ...answer.inputs.map((input, i) => {
          const values = /** @type {number[]} */ (input.flat(3)); // a graph with convolutions takes channels of rows
          const number = answer.offset + i + 1;
          return this.#choice(task, { values, label: answer.labels[i], number, image: h("canvas", { "aria-hidden": "true" }) });
        }),
      );
    } catch (error) {
      if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
      this.#say(`No samples: ${error.message}`);
    } finally {
      this.more.disabled = this.total <= SHOWN;
    }
  }

  /** @param {string} text */
  #say(text) {
    this.message.textContent = text;
    this.list.replaceChildren(this.message);
  }

  /**
   * @param {ImageTask} task
   * @param {Sample} sample
   */
  #choice({ rows, columns, range: [low, high] }, sample) {
    paintGrey(sample.image, sample.values.map((value) => (value - low) / (high - low)), rows, columns);
    const input = h("input", { type: "radio", name: "sample", "aria-label": `Test sample ${sample.number}, labelled ${sample.label}` });
    input.addEventListener("change", () => this.onPick(sample));
    return h("label", { class: "sample" }, input, sample.image, h("span", { "aria-hidden": "true" }, sample.label));
  }
}
