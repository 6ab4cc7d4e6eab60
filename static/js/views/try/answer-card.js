/** A model's card: its answer, probabilities and time, and its size. */

import { SERVED } from "../../api/client.js";
import { roleName, weights } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { bytes, count, digits, metric, probability, short } from "../../ui/format.js";

/**
 * @import { Answer, ModelInfo } from "../../api/types.js"
 */

const NOTHING = "–";
/** Maximum number of bars; of more labels, the most probable ones are shown. */
const MAX_BARS = 12;

/**
 * @param {string} name
 * @param {string | Element} value
 * @param {{ title?: string, class?: string }} [attributes]
 */
function fact(name, value, attributes = {}) {
  return h("div", attributes, h("dt", {}, name), h("dd", {}, value));
}

/**
 * Returns an answer as text short enough for a sentence.
 * @param {Answer} answer
 */
export function answerText({ label, value }) {
  if (label != null) return label;
  const values = [value ?? []].flat();
  return `${values.slice(0, 3).map(digits).join(", ")}${values.length > 3 ? " …" : ""}` || NOTHING;
}

export class AnswerCard {
  /**
   * @param {ModelInfo} model
   * @param {string[]} labels empty for regression
   * @param {string} tone CSS classes of the colour
   */
  constructor(model, labels, tone) {
    const { card } = model;
    this.name = model.name;
    this.labels = labels;
    this.label = h("output", { class: "label" }, NOTHING);
    this.certainty = h("span", {}, NOTHING);
    this.browserTime = h("span", { class: "browser-time" }, NOTHING);
    this.serviceTime = h("span", { class: "time" }, NOTHING);
    this.truth = h("span", { class: "truth" });
    this.rows = Array.from({ length: Math.min(labels.length, MAX_BARS) }, (_, i) => {
      const name = h("span", { class: "bar-name" }, labels[i]);
      const fill = h("span", { class: "bar-fill" });
      const value = h("span", { class: "bar-value" }, "");
      const row = h("li", {}, name, h("span", { class: "bar" }, fill), value);
      return { row, name, fill, value };
    });
    const stored = weights(model);
    const { macs_per_sample: macs, test_metric: quality, weight_bytes: size } = card ?? {};
    this.element = h(
      "article",
      { class: `card ${tone}${labels.length === 0 ? " value" : ""}`, "aria-label": model.name, "data-model": model.name },
      h(
        "header",
        {},
        h("h2", {}, model.name),
        h("span", { class: "muted" }, `${roleName(card?.role)}, version ${model.version}`),
      ),
      h(
        "div",
        { class: "prediction" },
        this.label,
        h(
          "dl",
          {},
          labels.length > 0 && fact("confidence", this.certainty),
          fact("browser", this.browserTime, { class: "timed" }),
          SERVED && fact("service", this.serviceTime, { class: "timed" }),
          fact("result", this.truth, { class: "result" }),
        ),
      ),
      labels.length > 0 && h("ul", { class: "bars", "aria-label": "Probability of each label" }, ...this.rows.map(({ row }) => row)),
      h(
        "dl",
        { class: "facts" },
        stored !== null && fact("weights", count(stored)),
        size && fact("bytes of weights", count(size)),
        macs && fact("multiply-adds", short(macs), { title: `${count(macs)} for one sample` }),
        fact("file", bytes(model.file_bytes)),
        quality && fact(`test ${quality.name}`, metric(quality), quality.samples ? { title: `on ${count(quality.samples)} samples` } : {}),
      ),
    );
    this.clear();
  }

  clear() {
    this.element.classList.add("empty");
    this.element.classList.remove("stale");
    this.label.textContent = NOTHING;
    this.certainty.textContent = NOTHING;
    this.truth.textContent = "";
    for (const { row, fill, value } of this.rows) {
      row.classList.remove("top");
      fill.style.width = "0";
      value.textContent = "";
    }
  }

  /** Marks the answer as outdated. */
  setStale() {
    this.element.classList.add("stale");
  }

  /**
   * @param {Answer} answer
   * @param {string | null} truth the sample's label, if it is known
   */
  show(answer, truth) {
    const { probabilities } = answer;
    const label = answerText(answer);
    this.element.classList.remove("empty", "stale");
    this.label.textContent = label;
    this.label.classList.toggle("long", label.length > 2);
    this.truth.textContent = truth === null ? "" : this.#judge(answer, truth);
    this.truth.classList.toggle("wrong", answer.label != null && truth !== null && truth !== label);
    if (!probabilities) return;
    this.certainty.textContent = answer.unlike ? "unsure" : probability(Math.max(...probabilities));
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
  /**
   * @param {Answer} answer
   * @param {string} truth
   */
  #judge({ label, value }, truth) {
    if (label != null) return label === truth ? "right" : "wrong";
    return typeof value === "number" ? `off by ${digits(Math.abs(value - Number(truth)))}` : "";
  }
}
