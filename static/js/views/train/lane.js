/** One of the twins while it is trained: how far it is, how good by now, and how long it will take. */

import { h } from "../../ui/dom.js";
import { count, digits, short } from "../../ui/format.js";
import { roleName } from "../../model/display.js";
import { Pace, leftWords } from "./pace.js";
import { scoreWords } from "./score.js";

/**
 * @import { EpochResult, Planned, Role } from "./types.js"
 * @import { Progress } from "../../api/types.js"
 */

export class Lane {
  /** @param {Role} role */
  constructor(role) {
    this.role = role;
    this.tone = `tone-${role}`;
    this.name = roleName(role);
    /** @type {EpochResult[]} */
    this.epochs = [];
    this.planned = 0;
    this.metric = "";
    this.over = false;
    this.pace = new Pace();
    this.size = h("span", { class: "muted" });
    this.bar = h("progress", { max: 1, value: 0, "aria-label": `Training of the ${this.name} network` });
    this.words = h("p", { class: "lane-words" }, "waits");
    this.element = h("li", { class: `lane ${this.tone}` }, h("p", { class: "lane-name" }, h("span", { class: "swatch" }), h("strong", {}, `${this.name} `), this.size), this.bar, this.words);
  }

  /**
   * @param {Pick<Planned, "parameters" | "macs_per_sample">} member
   * @param {number} epochs
   * @param {string} metric
   */
  plan({ parameters, macs_per_sample: macs }, epochs, metric) {
    this.planned = epochs;
    this.metric = metric;
    this.size.textContent = `${count(parameters)} weights, ${short(macs)} multiply-adds`;
    this.#tell(null);
  }

  /** @param {EpochResult} epoch */
  add(epoch) {
    if (this.epochs.some((known) => known.epoch === epoch.epoch)) return; // told again to whoever comes back
    this.epochs.push(epoch);
    if (this.planned > 0) this.bar.value = Math.max(this.bar.value, epoch.epoch / this.planned);
    this.#tell(null);
  }

  /** @param {Progress} progress */
  step({ done, total }) {
    if (total > 0) this.bar.value = done / total;
    this.#tell(total > 0 ? this.pace.left(done, total, performance.now()) : null);
  }

  /** It is trained, or never will be. */
  stop() {
    this.over = true;
    this.#tell(null);
  }

  /** @param {EpochResult[]} epochs all of them, out of a report */
  finish(epochs) {
    this.epochs = epochs;
    this.bar.value = 1;
    this.stop();
  }

  /** Whether every epoch that was planned is over. */
  get done() {
    return this.planned > 0 && this.epochs.length >= this.planned;
  }

  /** @param {number | null} seconds left */
  #tell(seconds) {
    const last = this.epochs.at(-1);
    const mean = last && this.planned > 0 ? ((this.planned - last.epoch) * last.seconds) / last.epoch : null;
    const left = this.over || this.done ? null : (seconds ?? (this.bar.value > 0 ? mean : null));
    const words = [
      last ? `epoch ${last.epoch}${this.planned > 0 ? ` of ${this.planned}` : ""}` : this.over ? "not trained" : this.bar.value > 0 ? "first epoch" : "waits",
      last && scoreWords(this.metric, last.test),
      last && `${digits(last.seconds)} s`,
      left !== null && leftWords(left),
    ].filter(Boolean);
    this.words.textContent = words.join(" · ");
  }
}
