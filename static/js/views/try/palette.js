/** The colours of the pen, as radio buttons: the Tab key stops once, arrow keys change the colour. */

import { h } from "../../ui/dom.js";

/** @import { Pad } from "./pad.js" */

/** Common colours of objects in photographs. @type {[string, string][]} */
const COLOURS = [
  ["black", "#16181b"],
  ["white", "#ffffff"],
  ["grey", "#8a8f94"],
  ["brown", "#7a4b28"],
  ["red", "#d7263d"],
  ["orange", "#f18f01"],
  ["yellow", "#f6d02f"],
  ["green", "#2e9e4f"],
  ["light blue", "#8fd0f5"],
  ["blue", "#1f5fd6"],
];
const [[, FIRST]] = COLOURS;

export class Palette {
  /** @param {Pad} pad */
  constructor(pad) {
    this.pad = pad;
    this.colour = FIRST;
    const fill = h("button", { type: "button", class: "button" }, "Fill");
    fill.addEventListener("click", () => this.#fill());
    this.element = h(
      "fieldset",
      { class: "palette" },
      h("legend", { class: "sr-only" }, "Pen colour"),
      ...COLOURS.map(([name, colour]) => this.#choice(name, colour)),
      fill,
    );
  }

  #fill() {
    this.pad.replace((context) => {
      context.fillStyle = this.colour;
      context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    });
  }

  /**
   * @param {string} name
   * @param {string} colour
   */
  #choice(name, colour) {
    const input = h("input", { type: "radio", name: "ink", value: colour, checked: colour === FIRST, "aria-label": name });
    input.addEventListener("change", () => {
      this.colour = colour;
      this.pad.ink = colour;
    });
    const dot = h("span", { class: "dot" });
    dot.style.background = colour;
    return h("label", { class: "colour", title: name }, input, dot);
  }
}
