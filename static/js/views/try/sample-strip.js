/** Strip of test samples as radio buttons, so that arrow keys move through them. */

import * as api from "../../api/client.js";
import { h } from "../../ui/dom.js";
import { digits } from "../../ui/format.js";
import { paint } from "../../model/image.js";

/**
 * @import { Task } from "../../model/types.js"
 * @import { Sample } from "./types.js"
 */

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
    more.addEventListener("click", () => void this.#nextPage());
  }

  /**
   * @param {string} model
   * @param {Task} task
   * @param {number} [number] of the sample to pick, counted from 1
   */
  async open(model, task, number = 0) {
    this.model = model;
    this.task = task;
    this.offset = number > 0 ? SHOWN * Math.floor((number - 1) / SHOWN) : 0;
    this.list.classList.toggle("rows", task.kind === "row");
    await this.#load();
    const input = number > 0 ? this.list.querySelectorAll("input")[number - 1 - this.offset] : undefined;
    input?.click();
  }

  clearChoice() {
    for (const input of this.list.querySelectorAll("input")) input.checked = false;
  }

  async #nextPage() {
    this.offset = this.offset + SHOWN >= this.total ? 0 : this.offset + SHOWN;
    await this.#load();
  }

  async #load() {
    const { model, task } = this;
    if (model === undefined || task === undefined) return;
    this.more.disabled = true;
    try {
      const answer = await api.samples(model, this.offset, SHOWN);
      if (task !== this.task) return; // the models have changed meanwhile
      this.total = answer.total;
      if (answer.inputs.length === 0) {
        this.#say("This model has no test samples.");
        return;
      }
      this.list.replaceChildren(
        ...answer.inputs.map((input, i) => {
          // Networks with convolutions take nested arrays, and those of a table's columns an object.
          const values = Array.isArray(input) ? /** @type {number[]} */ (input.flat(4)) : input;
          const image = task.kind === "image" ? h("canvas", { "aria-hidden": "true" }) : null;
          return this.#choice(task, { values, label: String(answer.labels[i]), number: answer.offset + i + 1, image });
        }),
      );
    } catch (error) {
      if (!(error instanceof api.ApiError || error instanceof api.NetworkError)) throw error;
      this.#say(`No samples: ${error.message}`);
    } finally {
      this.more.disabled = this.total <= SHOWN;
      this.more.hidden = this.more.disabled;
    }
  }

  /** @param {string} text */
  #say(text) {
    this.message.textContent = text;
    this.list.replaceChildren(this.message);
  }

  /**
   * @param {Task} task
   * @param {Sample} sample
   */
  #choice(task, sample) {
    if (task.kind === "image" && sample.image !== null) paint(sample.image, /** @type {number[]} */ (sample.values), task);
    const label = task.labels === null && sample.label !== "" ? digits(Number(sample.label)) : sample.label;
    const input = h("input", { type: "radio", name: "sample", "aria-label": `Test sample ${sample.number}, labelled ${label}` });
    input.addEventListener("change", () => this.onPick(sample));
    return h("label", { class: "sample" }, input, sample.image, h("span", { "aria-hidden": "true" }, label));
  }
}
