/** The page of one training: both twins racing while they are trained, and then what came out. */

import { Race } from "../../charts/learning-curves.js";
import { h } from "../../ui/dom.js";
import { digits, percent } from "../../ui/format.js";
import { Lane } from "./lane.js";
import { href } from "../../shell/router.js";
import { lossWord, metricWord, score } from "./score.js";
import { recall, remember } from "../../ui/store.js";
import { epochTable, sideBySide } from "./tables.js";

/**
 * @import { Presentation } from "../jobs/job-view.js"
 * @import { EpochResult, Plan, Role, TrainingReport } from "./types.js"
 * @import { Progress } from "../../api/types.js"
 */

const KEPT_AS = "train.axis";
/** @type {Role[]} */
const ROLES = ["kronecker", "dense"];
const AXES = /** @type {const} */ ({ seconds: "seconds of training", epoch: "epoch" });

/** @implements {Presentation} */
export class TrainingPage {
  constructor() {
    this.metric = "accuracy";
    this.epochs = 0;
    this.lanes = ROLES.map((role) => new Lane(role));
    /** @type {keyof typeof AXES} */
    this.axis = recall(KEPT_AS) === "epoch" ? "epoch" : "seconds";
    this.told = h("p", { class: "sr-only", "aria-live": "polite" });
    this.result = h("div", { class: "report", hidden: true });
    this.track = h("ul", { class: "lanes" }, ...this.lanes.map(({ element }) => element));
    this.scoreName = h("figcaption", {});
    const [score, loss] = [h("div", { class: "chart" }), h("div", { class: "chart" })];
    this.table = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "All epochs" });
    this.element = h(
      "div",
      { class: "report training" },
      this.told,
      this.result,
      h(
        "section",
        { class: "panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "The race"), this.#choice()),
        this.track,
        h("div", { class: "depths" }, h("figure", {}, this.scoreName, score), h("figure", {}, h("figcaption", {}, "Training loss"), loss)),
      ),
      h("details", { class: "panel" }, h("summary", {}, h("h2", {}, "All epochs")), this.table),
    );
    this.score = new Race(score);
    this.loss = new Race(loss);
    this.drawing = 0;
    this.#draw();
  }

  #choice() {
    const options = /** @type {(keyof typeof AXES)[]} */ (Object.keys(AXES)).map((axis) => {
      const input = h("input", { type: "radio", name: "race-axis", value: axis, checked: axis === this.axis });
      input.addEventListener("change", () => {
        this.axis = axis;
        remember(KEPT_AS, axis);
        this.#draw();
      });
      return h("label", { class: "choice" }, input, h("span", {}, axis === "epoch" ? "by epoch" : "by seconds"));
    });
    return h("fieldset", { class: "choices" }, h("legend", { class: "sr-only" }, "What goes to the right in the charts"), ...options);
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  grow(event, data) {
    if (event === "plan") this.#plan(data);
    if (event === "epoch") this.#epoch(data);
  }

  /** @param {Plan} plan */
  #plan({ members, epochs, metric }) {
    this.metric = metric;
    this.epochs = epochs;
    this.#members(members.map(({ role }) => role));
    for (const member of members) this.#lane(member.role)?.plan(member, epochs, metric);
    this.#later();
  }

  /** @param {EpochResult & { role: Role }} epoch */
  #epoch(epoch) {
    const lane = this.#lane(epoch.role);
    if (lane === undefined) return;
    lane.add(epoch);
    if (lane.done) this.told.textContent = `The ${lane.name} network is trained: ${lane.words.textContent}`;
    this.#later();
  }

  /** @param {Role[]} roles of those that are trained: one of the twins may be alone */
  #members(roles) {
    this.lanes = this.lanes.filter(({ role }) => roles.includes(role));
    this.track.replaceChildren(...this.lanes.map(({ element }) => element));
  }

  /** @param {string} role */
  #lane(role) {
    return this.lanes.find((lane) => lane.role === role);
  }

  /** @param {Progress} progress */
  step(progress) {
    const lane = this.#lane(progress.stage);
    if (lane === undefined) return progress.stage === "exporting" ? "Exporting to ONNX and comparing with what was trained …" : `${progress.stage.replace(/^./, (first) => first.toUpperCase())} …`;
    lane.step(progress);
    return `Training the ${lane.name} network …`;
  }

  stop() {
    for (const lane of this.lanes) lane.stop();
  }

  /** @param {TrainingReport} report */
  show({ members, headline, metric, seconds, not_served }) {
    this.metric = metric;
    this.#members(members.map(({ role }) => role));
    this.epochs = Math.max(...members.map(({ epochs }) => epochs.length));
    for (const member of members) {
      this.#lane(member.role)?.plan(member, member.epochs.length, metric);
      this.#lane(member.role)?.finish(member.epochs);
    }
    this.told.textContent = "";
    const names = members.map(({ name }) => name).join(",");
    this.result.replaceChildren(
      h("p", { class: "headline", role: "status" }, headline),
      not_served ? h("p", { class: "failed" }, `They are not served yet: ${not_served}.`.replace(/\.\.$/, ".")) : "",
      h(
        "p",
        { class: "actions" },
        h("a", { class: "button primary", href: href("try", null, { models: names }) }, members.length > 1 ? "Try them" : "Try it"),
        members.length > 1 && h("a", { class: "button", href: href("compare", null, { models: names }) }, "Compare them"),
        ...members.map(({ name, version }) => h("a", { class: "button", href: href("models", name) }, `${name}, version ${version}`)),
      ),
      h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Both networks side by side" }, sideBySide(members)),
      h("p", { class: "muted" }, `All in ${digits(seconds)} s, the export and its checks included. The times are of training on the service’s machine, which served meanwhile.`),
    );
    this.result.hidden = false;
    this.#later();
  }

  /** Many epochs may be told at once, to whoever comes late. */
  #later() {
    if (this.drawing !== 0) return;
    this.drawing = setTimeout(() => {
      this.drawing = 0;
      this.#draw();
    }, 50);
  }

  #draw() {
    const { axis, metric: name, lanes } = this;
    const word = metricWord(name);
    this.scoreName.textContent = `Test ${word}${name === "accuracy" ? "" : ", less is better"}`;
    const far = axis === "epoch" ? this.epochs : 0;
    /** @param {"test" | "loss"} value */
    const runners = (value) => lanes.map(({ tone, epochs }) => ({ tone, points: epochs.flatMap(({ [axis]: x, [value]: y }) => (y === null ? [] : [{ x, y }])) }));
    /**
     * @param {string} what
     * @param {(epoch: EpochResult) => string} value
     */
    const words = (what, value) =>
      `${what} by ${AXES[axis]}. ${lanes.map(({ name: network, epochs }) => {
        const last = epochs.at(-1);
        return `${network}: ${last === undefined ? "no epoch yet" : `${value(last)} after ${last.epoch} ${last.epoch === 1 ? "epoch" : "epochs"}, ${digits(last.seconds)} s`}`;
      }).join(". ")}.`;
    const short = (/** @type {number} */ value) => String(Number(value.toPrecision(2)));
    this.score.show(runners("test"), {
      axis: AXES[axis],
      far,
      alternative: words(`Test ${word}`, ({ test }) => score(name, test)),
      ...(name === "accuracy" ? { best: 1, format: (value) => percent(value, 1), tick: (value) => percent(value, 0) } : { format: digits, tick: short }),
    });
    this.loss.show(runners("loss"), { axis: AXES[axis], far, format: short, tick: short, alternative: words("Training loss", ({ loss }) => lossWord(loss)) });
    this.table.replaceChildren(epochTable(lanes, name));
  }
}
