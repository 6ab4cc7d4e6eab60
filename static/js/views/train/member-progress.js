/** Progress of one network of a training: its epoch, its metric, the time left. */

import { roleName } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { count, digits, short } from "../../ui/format.js";
import { TimeEstimate, metricText, timeLeft } from "./format.js";

/**
 * @import { Progress } from "../../api/types.js"
 * @import { EpochResult, PlannedMember, Role } from "./types.js"
 */

export class MemberProgress {
  /** @param {Role} role */
  constructor(role) {
    this.role = role;
    this.tone = `tone-${role}`;
    this.name = roleName(role);
    /** @type {EpochResult[]} */
    this.epochs = [];
    this.planned = 0;
    this.metric = "";
    this.stopped = false;
    this.estimate = new TimeEstimate();
    this.size = h("span", { class: "muted" });
    this.bar = h("progress", { max: 1, value: 0, "aria-label": `Training of the ${this.name} network` });
    this.status = h("p", { class: "member-status" }, "waiting");
    this.element = h("li", { class: `member ${this.tone}` }, h("p", { class: "member-name" }, h("span", { class: "swatch" }), h("strong", {}, `${this.name} `), this.size), this.bar, this.status);
  }

  /**
   * @param {Pick<PlannedMember, "parameters" | "weight_bytes" | "macs_per_sample">} member
   * @param {number} epochs
   * @param {string} metric
   */
  plan({ parameters, weight_bytes: bytes, macs_per_sample: macs }, epochs, metric) {
    this.planned = epochs;
    this.metric = metric;
    this.size.textContent = `${count(parameters)} weights${bytes ? ` in ${count(bytes)} bytes` : ""}, ${short(macs)} multiply-adds`;
    this.#update(null);
  }

  /** @param {EpochResult} epoch */
  add(epoch) {
    if (this.epochs.some((known) => known.epoch === epoch.epoch)) return; // repeated after a reconnection
    this.epochs.push(epoch);
    if (this.planned > 0) this.bar.value = Math.max(this.bar.value, epoch.epoch / this.planned);
    this.#update(null);
  }

  /** @param {Progress} progress */
  step({ done, total }) {
    if (total > 0) this.bar.value = done / total;
    this.#update(total > 0 ? this.estimate.left(done, total, performance.now()) : null);
  }

  /** Ends the progress: the network is trained, or its training failed. */
  stop() {
    this.stopped = true;
    this.#update(null);
  }

  /** @param {EpochResult[]} epochs all, from the report */
  finish(epochs) {
    this.epochs = epochs;
    this.bar.value = 1;
    this.stop();
  }

  /** Whether all planned epochs are done. */
  get done() {
    return this.planned > 0 && this.epochs.length >= this.planned;
  }

  /** @param {number | null} seconds left */
  #update(seconds) {
    const last = this.epochs.at(-1);
    const extrapolated = last && this.planned > 0 ? ((this.planned - last.epoch) * last.seconds) / last.epoch : null;
    const left = this.stopped || this.done ? null : (seconds ?? (this.bar.value > 0 ? extrapolated : null));
    const parts = [
      last ? `epoch ${last.epoch}${this.planned > 0 ? ` of ${this.planned}` : ""}` : this.stopped ? "not trained" : this.bar.value > 0 ? "first epoch" : "waiting",
      last && metricText(this.metric, last.test),
      last && `${digits(last.seconds)} s`,
      left !== null && timeLeft(left),
    ].filter(Boolean);
    this.status.textContent = parts.join(" · ");
  }
}
