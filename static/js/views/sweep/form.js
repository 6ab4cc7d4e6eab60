/** Which synthetic networks to measure. It remembers itself across a reload. */

import { h } from "../../ui/dom.js";
import { DeviceField, FieldError, field, optionalNumber, textInput, wholeNumbers } from "../jobs/fields.js";
import { recall, remember } from "../../ui/store.js";

/**
 * @import { Catalog } from "../../model/catalog.js"
 * @import { Form } from "../jobs/job-view.js"
 */

const KEPT_AS = "sweep.form";

/** @implements {Form} */
export class SweepForm {
  /** @param {Catalog} catalog */
  constructor(catalog) {
    this.catalog = catalog;
    this.device = new DeviceField();
    this.widths = textInput("64, 256, 784, 1024, 2304");
    this.ranks = textInput("1, 2");
    this.batches = textInput("1, 32");
    this.threads = textInput("1");
    this.seconds = textInput("30");
    this.texts = [this.widths, this.ranks, this.batches, this.threads, this.seconds];
    this.element = h(
      "div",
      { class: "form" },
      field("Widths: squares, from 16 to 8,100", this.widths),
      h("div", { class: "fields four" }, field("Ranks", this.ranks), field("Batch sizes", this.batches), field("Threads", this.threads), field("Seconds", this.seconds), this.device.element),
    );
    const kept = recall(KEPT_AS);
    if (Array.isArray(kept)) {
      this.texts.forEach((input, i) => {
        if (typeof kept[i] === "string") input.value = kept[i];
      });
    }
    this.element.addEventListener("change", () => remember(KEPT_AS, this.texts.map(({ value }) => value)));
  }

  open() {
    this.device.offer(this.catalog.devices);
  }

  read() {
    try {
      const widths = wholeNumbers("Widths", this.widths.value, { low: 16, high: 8100, most: 12 });
      const odd = widths.find((width) => !Number.isInteger(Math.sqrt(width)));
      if (odd !== undefined) return `Widths: got ${odd}, expected squares: their roots are the sizes of the factors. ${Math.round(Math.sqrt(odd)) ** 2} is near.`;
      return {
        request: {
          widths,
          ranks: wholeNumbers("Ranks", this.ranks.value, { low: 1, high: 1024, most: 6 }),
          batch_sizes: wholeNumbers("Batch sizes", this.batches.value, { low: 1, high: 1024, most: 6 }),
          threads: wholeNumbers("Threads", this.threads.value, { low: 1, high: this.catalog.cpus, most: 4 }),
          device: this.device.value,
          seconds: optionalNumber("Seconds", this.seconds.value, { low: 1, high: 3600 }),
        },
      };
    } catch (error) {
      if (error instanceof FieldError) return error.message;
      throw error;
    }
  }
}
