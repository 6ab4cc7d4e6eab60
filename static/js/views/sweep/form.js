/** The form of a sweep: widths, ranks, batch sizes and threads. Its values survive a reload. */

import { h } from "../../ui/dom.js";
import { recall, remember } from "../../ui/store.js";
import { DeviceField, FieldError, field, optionalNumber, textInput, wholeNumbers } from "../jobs/fields.js";

/**
 * @import { Catalog } from "../../model/catalog.js"
 * @import { Form } from "../jobs/types.js"
 */

const STORED_AS = "sweep.form";

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
      field("Widths: square numbers from 16 to 8,100", this.widths),
      h("div", { class: "fields four" }, field("Ranks", this.ranks), field("Batch sizes", this.batches), field("Threads", this.threads), field("Seconds", this.seconds), this.device.element),
    );
    const stored = recall(STORED_AS);
    if (Array.isArray(stored)) {
      this.texts.forEach((input, i) => {
        if (typeof stored[i] === "string") input.value = stored[i];
      });
    }
    this.element.addEventListener("change", () => remember(STORED_AS, this.texts.map(({ value }) => value)));
  }

  open() {
    this.device.offer(this.catalog.devices);
  }

  read() {
    try {
      const widths = wholeNumbers("Widths", this.widths.value, { low: 16, high: 8100, most: 12 });
      const other = widths.find((width) => !Number.isInteger(Math.sqrt(width)));
      if (other !== undefined) return `Widths: got ${other}, expected square numbers, whose roots are the factor sizes, such as ${Math.round(Math.sqrt(other)) ** 2}.`;
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
