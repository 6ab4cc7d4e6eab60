/** Stacked bars as HTML elements, whose text wraps and is accessible. */

import { h } from "../ui/dom.js";

/**
 * @typedef {object} Bar
 * @property {string} name
 * @property {string} tone classes
 * @property {{ value: number, kind: "base" | "own" | "more" }[]} parts
 * @property {string} text of the figure
 *
 * @param {Bar[]} bars
 * @param {string} label accessible name
 */
export function barList(bars, label) {
  const most = Math.max(...bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0)), 1e-9);
  return h(
    "ul",
    { class: "bar-list", "aria-label": label },
    ...bars.map(({ name, tone, parts, text }) =>
      h(
        "li",
        { class: tone },
        h("span", { class: "bar-list-name" }, name),
        h(
          "span",
          { class: "bar-track", "aria-hidden": "true" },
          ...parts.map(({ value, kind }) => {
            const part = h("span", { class: `part ${kind}` });
            part.style.width = `${(100 * value) / most}%`;
            return part;
          }),
        ),
        h("span", { class: "bar-list-text" }, text),
      ),
    ),
  );
}
