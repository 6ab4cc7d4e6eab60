/** Check boxes to choose models, grouped by task: only models of one task can be chosen together. */

import { h } from "../ui/dom.js";
import { metric, short } from "../ui/format.js";
import { roles, tone, weights } from "./display.js";
import { taskKey, taskOf } from "./task.js";

/**
 * @import { ModelInfo } from "../api/types.js"
 */

const MAX_NAMED = 4;

/** @param {ModelInfo} model */
function groupName(model) {
  const task = taskOf(model);
  const data = model.card?.data?.name;
  const words =
    typeof task === "string"
      ? inputNames(model)
      : `${task.kind === "image" ? `${task.channels === 3 ? "colour" : "grey"} images ${task.columns}×${task.rows}` : `${task.width} ${task.width === 1 ? "number" : "numbers"}`}${
          task.labels ? `, ${task.labels.length} labels` : model.card?.task === "regression" ? ", predicts a number" : ""
        }`;
  return data ? `${data}: ${words}` : words;
}

/**
 * Names the inputs of a model that takes neither an image nor a row.
 * @param {ModelInfo} model
 */
function inputNames({ inputs }) {
  const named = inputs.slice(0, MAX_NAMED).map(({ name, datatype }) => `${name} ${datatype}`);
  return `takes ${named.join(", ")}${inputs.length > MAX_NAMED ? " …" : ""}`;
}

/** @param {ModelInfo} model */
function facts(model) {
  const count = weights(model);
  return [count === null ? null : `${short(count)} weights`, model.card?.test_metric && metric(model.card.test_metric)].filter(Boolean).join(", ");
}

export class ModelPicker extends EventTarget {
  /**
   * Dispatches "change" when the choice changes.
   * @param {string} legend
   * @param {number} most maximum of chosen models
   */
  constructor(legend, most) {
    super();
    this.most = most;
    this.groups = h("div", { class: "picker-groups" });
    this.element = h("fieldset", { class: "picker" }, h("legend", {}, legend), this.groups);
    /** @type {{ model: ModelInfo, key: string, input: HTMLInputElement }[]} */
    this.options = [];
  }

  /** @returns {string[]} names, in the order shown */
  get chosen() {
    return this.options.filter(({ input }) => input.checked).map(({ model }) => model.name);
  }

  /**
   * @param {ModelInfo[]} models
   * @param {string[]} chosen
   */
  set(models, chosen) {
    /** @type {Map<string, ModelInfo[]>} */
    const byKey = new Map();
    for (const model of models) byKey.set(taskKey(model), [...(byKey.get(taskKey(model)) ?? []), model]);
    this.options = [];
    const multiple = byKey.size > 1;
    this.groups.replaceChildren(
      ...[...byKey].map(([key, group]) =>
        h(
          "div",
          { class: "picker-group", role: "group", "aria-label": groupName(group[0]) },
          multiple && h("p", { class: "muted" }, groupName(group[0])),
          ...group.map((model, i) => this.#option(model, key, tone(roles(group), i), chosen.includes(model.name))),
        ),
      ),
    );
    this.#limit();
  }

  /**
   * @param {ModelInfo} model
   * @param {string} key
   * @param {string} colour
   * @param {boolean} checked
   */
  #option(model, key, colour, checked) {
    const input = h("input", { type: "checkbox", value: model.name, checked });
    input.addEventListener("change", () => {
      if (input.checked) {
        for (const other of this.options) if (other.key !== key) other.input.checked = false;
      }
      this.#limit();
      this.dispatchEvent(new Event("change"));
    });
    this.options.push({ model, key, input });
    return h(
      "label",
      { class: `pick ${colour}` },
      input,
      h("span", { class: "swatch" }),
      h("span", { class: "pick-words" }, h("span", { class: "pick-name" }, model.name), " ", h("span", { class: "muted" }, facts(model))),
    );
  }

  #limit() {
    const full = this.chosen.length >= this.most;
    const key = this.options.find(({ input }) => input.checked)?.key;
    for (const option of this.options) option.input.disabled = full && !option.input.checked && option.key === key;
  }
}
