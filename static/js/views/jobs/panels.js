/** Panels of a report: pictures, tables that can be opened, and the machine that the report was measured on. */

import { h } from "../../ui/dom.js";
import { digits } from "../../ui/format.js";
import { dateTime } from "../../ui/text.js";

/**
 * @import { Environment } from "../../api/types.js"
 * @import { Child } from "../../ui/dom.js"
 */

/**
 * @param {string} title
 * @param {string} note
 * @param {...Child} children
 */
export const panel = (title, note, ...children) => h("section", { class: "panel" }, h("h2", {}, title), note && h("p", { class: "muted" }, note), ...children);

/**
 * @param {string} title
 * @param {...Child} children
 */
export const closedPanel = (title, ...children) => h("details", { class: "panel" }, h("summary", {}, h("h2", {}, title)), ...children);

/**
 * Makes a region in which a wide table scrolls, by keyboard too.
 * @param {string} name
 * @param {...Child} children
 */
export const tableRegion = (name, ...children) => h("div", { class: "table", tabindex: 0, role: "region", "aria-label": name }, ...children);

/**
 * Makes a region for a table of two models whose rows without a difference can be hidden.
 * @param {string} name
 * @param {HTMLTableElement} table
 */
export function comparedRegion(name, table) {
  const region = tableRegion(name, table);
  const box = h("input", { type: "checkbox" });
  box.addEventListener("change", () => region.classList.toggle("differences", box.checked));
  if (table.querySelector(".same")) region.prepend(h("label", { class: "choice" }, box, "Show differences only"));
  return region;
}

/** @param {{ environment: Environment, seconds: number, created: string }} report */
export function environmentPanel({ environment: e, seconds, created }) {
  const threads = e.threads === undefined ? null : `${e.threads} ${e.threads === 1 ? "thread" : "threads"}`;
  const cores = e.cores === undefined ? null : `${e.cores} ${e.cores === 1 ? "core" : "cores"}`;
  const date = dateTime(created);
  /** @type {[string, string | null | undefined][]} */
  const facts = [
    ["Processor", [e.cpu, cores].filter(Boolean).join(", ")],
    ["Provider", [e.provider, threads].filter(Boolean).join(", ")],
    ["System", e.platform],
    ["Versions", [e.onnxruntime && `onnxruntime ${e.onnxruntime}`, e.python && `Python ${e.python}`].filter(Boolean).join(", ")],
    ["Measured", `${date === null ? "" : `${date}, `}in ${digits(seconds)} s`],
  ];
  return panel("Environment", "", h("dl", { class: "environment" }, ...facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}
