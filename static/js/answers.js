/** One model's card on the page: what it says, how sure it is, how long it took, and what it costs. */

import { h } from "./dom.js";
import { bytes, count, duration, metric, probability, short } from "./format.js";
import { roleName, tone } from "./models.js";

/**
 * @import { ModelInfo, Result } from "./types.js"
 */

const NOTHING = "–";
/** Bars that fit a card; of more labels the likeliest are shown. */
const MAX_BARS = 12;

/**
 * @param {string} name
 * @param {string} value
 * @param {string} [title]
 */
function fact(name, value, title) {
  return h("div", {}, h("dt", {}, name), h("dd", { title }, value));
}

export class AnswerCard {
  /**
   * @param {ModelInfo} model
   * @param {string[]} labels
   * @param {number} index
   */
  constructor(model, labels, index) {
    const { card } = model;
    this.name = model.name;
    this.labels = labels;
    this.label = h("output", { class: "label" }, NOTHING);
    this.sure = h("span", { class: "sure" }, NOTHING);
    this.time = h("span", { class: "time" }, NOTHING);
    this.truth = h("span", { class: "truth" });
    this.rows = Array.from({ length: Math.min(labels.length, MAX_BARS) }, (_, i) => {
      const name = h("span", { class: "bar-name" }, labels[i]);
      const fill = h("span", { class: "bar-fill" });
      const value = h("span", { class: "bar-value" }, "");
      const row = h("li", {}, name, h("span", { class: "bar" }, fill), value);
      return { row, name, fill, value };
    });
    const weights = model.parameters ?? card?.parameters;
    const macs = card?.macs_per_sample;
    const quality = card?.test_metric;
    this.element = h(
      "article",
      { class: `card tone-${tone(card?.role, index)}`, "aria-label": model.name, "data-model": model.name },
      h(
        "header",
        {},
        h("h2", {}, model.name),
        h("span", { class: "muted" }, `${roleName(card?.role)}, version ${model.version}`),
      ),
      h(
        "div",
        { class: "said" },
        this.label,
        h(
          "dl",
          {},
          h("div", {}, h("dt", {}, "sure"), h("dd", {}, this.sure)),
          h("div", {}, h("dt", {}, "computed in"), h("dd", {}, this.time)),
          h("div", { class: "judged" }, h("dt", {}, "that is"), h("dd", {}, this.truth)),
        ),
      ),
      h("ul", { class: "bars", "aria-label": "Probability of each label" }, ...this.rows.map(({ row }) => row)),
      h(
        "dl",
        { class: "facts" },
        fact("weights", weights ? count(weights) : NOTHING),
        fact("multiply-adds", macs ? short(macs) : NOTHING, macs ? `${count(macs)} for one sample` : undefined),
        fact("file", bytes(model.file_bytes)),
        fact(
          quality ? `test ${quality.name}` : "test",
          metric(quality),
          quality?.samples ? `on ${count(quality.samples)} samples` : undefined,
        ),
      ),
    );
    this.clear();
  }

  clear() {
    this.element.classList.add("empty");
    this.element.classList.remove("stale");
    this.label.textContent = NOTHING;
    this.sure.textContent = this.time.textContent = NOTHING;
    this.truth.textContent = "";
    for (const { row, fill, value } of this.rows) {
      row.classList.remove("top");
      fill.style.width = "0";
      value.textContent = "";
    }
  }

  /** What stands here no longer answers what is on the pad. */
  setStale() {
    this.element.classList.add("stale");
  }

  /**
   * @param {Result} result for one sample
   * @param {string | null} truth the sample's label, where it is known
   */
  show(result, truth) {
    const { label, probabilities } = result.outputs[0];
    this.element.classList.remove("empty", "stale");
    this.label.textContent = label;
    this.label.classList.toggle("long", label.length > 2);
    this.sure.textContent = probability(Math.max(...probabilities));
    this.time.textContent = duration(result.compute_us);
    this.truth.textContent = truth === null ? "" : truth === label ? "right" : "wrong";
    this.truth.classList.toggle("wrong", truth !== null && truth !== label);
    const order = probabilities.map((_, i) => i);
    if (order.length > MAX_BARS) order.sort((a, b) => probabilities[b] - probabilities[a]);
    this.rows.forEach(({ row, name, fill, value }, k) => {
      const i = order[k];
      name.textContent = this.labels[i];
      row.classList.toggle("top", this.labels[i] === label);
      fill.style.width = `${(100 * probabilities[i]).toFixed(1)}%`;
      value.textContent = probability(probabilities[i]);
    });
  }
}
