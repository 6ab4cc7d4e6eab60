/** Form fields, and parsers of their values that explain what is wrong. */

import { h } from "../../ui/dom.js";

/** @import { Device } from "../../api/types.js" */

/**
 * @param {string} name
 * @param {HTMLElement} input
 * @param {string} [hint]
 */
export function field(name, input, hint) {
  return h("label", { class: "field" }, h("span", {}, name), input, hint && h("span", { class: "muted" }, hint));
}

/**
 * @param {string} value
 * @param {string} [placeholder]
 */
export const textInput = (value, placeholder) => h("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", value, placeholder });

/** @type {Record<Device, string>} */
const DEVICE_NAMES = { cpu: "CPU", cuda: "GPU (CUDA)" };

/** Choice of the device to measure on; shown only if there are several. */
export class DeviceField {
  constructor() {
    this.input = h("select", {}, h("option", { value: "" }, "as served"));
    this.element = field("Device", this.input);
    this.element.hidden = true;
  }

  /** @param {Device[]} devices available ones */
  offer(devices) {
    const chosen = this.input.value;
    this.input.replaceChildren(h("option", { value: "" }, "as served"), ...devices.map((device) => h("option", { value: device }, DEVICE_NAMES[device])));
    this.choose(chosen);
    this.element.hidden = devices.length < 2;
  }

  /** @param {string} device an unavailable one selects "as served" */
  choose(device) {
    this.input.value = [...this.input.options].some(({ value }) => value === device) ? device : "";
  }

  /** @returns {string | undefined} undefined: as served */
  get value() {
    return this.input.value || undefined;
  }
}

/** An invalid value of a field; the message is shown to the user. */
export class FieldError extends Error {}

/**
 * Parses whole numbers separated by commas, semicolons or blanks.
 * @param {string} name
 * @param {string} text
 * @param {{ low: number, high: number, most: number }} bounds
 * @returns {number[]} sorted, without duplicates
 */
export function wholeNumbers(name, text, { low, high, most }) {
  const parts = text.split(/[\s,;]+/).filter((part) => part !== "");
  const values = parts.map(Number);
  const wrong = values.findIndex((value) => !Number.isInteger(value) || value < low || value > high);
  if (wrong >= 0) throw new FieldError(`${name}: got “${parts[wrong].slice(0, 40)}”, expected whole numbers from ${low} to ${high}.`);
  const found = [...new Set(values)].sort((a, b) => a - b);
  if (found.length === 0 || found.length > most) throw new FieldError(`${name}: got ${found.length} numbers, expected 1 to ${most}.`);
  return found;
}

/**
 * Parses a number; an empty field is undefined.
 * @param {string} name
 * @param {string} text
 * @param {{ low: number, high: number, whole?: boolean }} bounds
 * @returns {number | undefined}
 */
export function optionalNumber(name, text, { low, high, whole = false }) {
  if (text.trim() === "") return undefined;
  const value = Number(text.trim().replace(",", "."));
  if (!Number.isFinite(value) || value < low || value > high || (whole && !Number.isInteger(value))) {
    throw new FieldError(`${name}: got “${text.slice(0, 40)}”, expected a ${whole ? "whole " : ""}number from ${low} to ${high}.`);
  }
  return value;
}
