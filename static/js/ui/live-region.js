/** Announces text to screen readers once it has stopped changing. */

import { h } from "./dom.js";

const DELAY_MS = 700;

export class LiveRegion {
  /** @param {HTMLElement} [element] a polite live region on the page; created if omitted */
  constructor(element = h("p", { class: "sr-only", "aria-live": "polite" })) {
    this.element = element;
    this.timer = 0;
  }

  /** @param {string} text */
  say(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.element.textContent !== text) this.element.textContent = text;
    }, DELAY_MS);
  }
}
