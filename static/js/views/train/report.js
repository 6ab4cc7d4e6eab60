/** The report of a training: progress and learning curves of both networks while they are trained, then the result. */

import { LearningCurves } from "../../charts/learning-curves.js";
import { href } from "../../shell/router.js";
import { h } from "../../ui/dom.js";
import { digits, percent } from "../../ui/format.js";
import { recall, remember } from "../../ui/store.js";
import { capitalized, sentence } from "../../ui/text.js";
import { closedPanel, comparedRegion, tableRegion } from "../jobs/panels.js";
import { lossText, metricName, metricValue } from "./format.js";
import { MemberProgress } from "./member-progress.js";
import { epochTable, resultTable } from "./tables.js";

/**
 * @import { Progress } from "../../api/types.js"
 * @import { Presentation } from "../jobs/types.js"
 * @import { EpochResult, Plan, Role, TrainingReport } from "./types.js"
 */

const STORED_AS = "train.axis";
/** @type {Role[]} */
const ROLES = ["kronecker", "dense"];
const AXES = /** @type {const} */ ({ seconds: "training time in seconds", epoch: "epoch" });

/** @implements {Presentation} */
export class TrainingPresentation {
  constructor() {
    this.metric = "accuracy";
    this.epochs = 0;
    this.members = ROLES.map((role) => new MemberProgress(role));
    /** @type {keyof typeof AXES} */
    this.axis = recall(STORED_AS) === "epoch" ? "epoch" : "seconds";
    this.announcement = h("p", { class: "sr-only", "aria-live": "polite" });
    this.result = h("div", { class: "report", hidden: true });
    this.list = h("ul", { class: "members" }, ...this.members.map(({ element }) => element));
    this.metricCaption = h("figcaption", {});
    const [metricPlace, lossPlace] = [h("div", { class: "chart" }), h("div", { class: "chart" })];
    this.table = tableRegion("All epochs");
    this.element = h(
      "div",
      { class: "report training" },
      this.announcement,
      this.result,
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "Progress"), this.#choice()),
        this.list,
        h("div", { class: "chart-grid" }, h("figure", {}, this.metricCaption, metricPlace), h("figure", {}, h("figcaption", {}, "Training loss"), lossPlace)),
      ),
      closedPanel("All epochs", this.table),
    );
    this.metricChart = new LearningCurves(metricPlace);
    this.lossChart = new LearningCurves(lossPlace);
    this.drawing = 0;
    this.#draw();
  }

  #choice() {
    const options = /** @type {(keyof typeof AXES)[]} */ (Object.keys(AXES)).map((axis) => {
      const input = h("input", { type: "radio", name: "training-axis", value: axis, checked: axis === this.axis });
      input.addEventListener("change", () => {
        this.axis = axis;
        remember(STORED_AS, axis);
        this.#draw();
      });
      return h("label", { class: "choice" }, input, h("span", {}, axis === "epoch" ? "by epoch" : "by time"));
    });
    return h("fieldset", { class: "choices" }, h("legend", { class: "sr-only" }, "Horizontal axis of the charts"), ...options);
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  update(event, data) {
    if (event === "plan") this.#plan(data);
    if (event === "epoch") this.#epoch(data);
  }

  /** @param {Plan} plan */
  #plan({ members, epochs, metric }) {
    this.metric = metric;
    this.epochs = epochs;
    this.#keepRoles(members.map(({ role }) => role));
    for (const member of members) this.#member(member.role)?.plan(member, epochs, metric);
    this.#scheduleDraw();
  }

  /** @param {EpochResult & { role: Role }} epoch */
  #epoch(epoch) {
    const member = this.#member(epoch.role);
    if (member === undefined) return;
    member.add(epoch);
    if (member.done) this.announcement.textContent = `The ${member.name} network is trained: ${member.status.textContent}`;
    this.#scheduleDraw();
  }

  /** @param {Role[]} roles of the networks that are trained */
  #keepRoles(roles) {
    this.members = this.members.filter(({ role }) => roles.includes(role));
    this.list.replaceChildren(...this.members.map(({ element }) => element));
  }

  /** @param {string} role */
  #member(role) {
    return this.members.find((member) => member.role === role);
  }

  /** @param {Progress} progress */
  step(progress) {
    const member = this.#member(progress.stage);
    if (member === undefined) return progress.stage === "exporting" ? "Exporting to ONNX and checking the exported models …" : `${capitalized(progress.stage)} …`;
    member.step(progress);
    return `Training the ${member.name} network …`;
  }

  stop() {
    for (const member of this.members) member.stop();
  }

  /** @param {TrainingReport} report */
  show({ members, headline, metric, seconds, not_served }) {
    this.metric = metric;
    this.#keepRoles(members.map(({ role }) => role));
    this.epochs = Math.max(...members.map(({ epochs }) => epochs.length));
    for (const member of members) {
      this.#member(member.role)?.plan(member, member.epochs.length, metric);
      this.#member(member.role)?.finish(member.epochs);
    }
    this.announcement.textContent = "";
    const names = members.map(({ name }) => name).join(",");
    this.result.replaceChildren(
      h("p", { class: "headline", role: "status" }, headline),
      not_served ? h("p", { class: "failed" }, `The models are not served yet: ${sentence(not_served)}`) : "",
      h(
        "p",
        { class: "actions" },
        h("a", { class: "button primary", href: href("try", null, { models: names }) }, members.length > 1 ? "Try both models" : "Try the model"),
        members.length > 1 && h("a", { class: "button", href: href("compare", null, { models: names }) }, "Compare both models"),
        ...members.map(({ name, version }) => h("a", { class: "button", href: href("models", name) }, `${name}, version ${version}`)),
      ),
      comparedRegion("Both networks side by side", resultTable(members)),
      h("p", { class: "muted" }, `${digits(seconds)} s in total, including export and checks. Measured on the service’s machine while it was serving.`),
    );
    this.result.hidden = false;
    this.#scheduleDraw();
  }

  /** Draws once for many events: a page that is opened late receives all epochs at once. */
  #scheduleDraw() {
    if (this.drawing !== 0) return;
    this.drawing = setTimeout(() => {
      this.drawing = 0;
      this.#draw();
    }, 50);
  }

  #draw() {
    const { axis, metric: name, members } = this;
    const title = metricName(name);
    this.metricCaption.textContent = `Test ${title}${name === "accuracy" ? "" : ", lower is better"}`;
    const minEnd = axis === "epoch" ? this.epochs : 0;
    /** @param {"test" | "loss"} value */
    const curves = (value) => members.map(({ tone, epochs }) => ({ tone, points: epochs.flatMap(({ [axis]: x, [value]: y }) => (y === null ? [] : [{ x, y }])) }));
    /**
     * @param {string} quantity
     * @param {(epoch: EpochResult) => string} value
     */
    const alternative = (quantity, value) =>
      `${quantity} by ${AXES[axis]}. ${members.map(({ name: network, epochs }) => {
        const last = epochs.at(-1);
        return `${network}: ${last === undefined ? "no epoch yet" : `${value(last)} after ${last.epoch} ${last.epoch === 1 ? "epoch" : "epochs"}, ${digits(last.seconds)} s`}`;
      }).join(". ")}.`;
    const short = (/** @type {number} */ value) => String(Number(value.toPrecision(2)));
    this.metricChart.show(curves("test"), {
      axis: AXES[axis],
      minEnd,
      alternative: alternative(`Test ${title}`, ({ test }) => metricValue(name, test)),
      ...(name === "accuracy" ? { best: 1, format: (value) => percent(value, 1), tick: (value) => percent(value, 0) } : { format: digits, tick: short }),
    });
    this.lossChart.show(curves("loss"), { axis: AXES[axis], minEnd, format: short, tick: short, alternative: alternative("Training loss", ({ loss }) => lossText(loss)) });
    this.table.replaceChildren(epochTable(members, name));
  }
}
