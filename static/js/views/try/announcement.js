/** A sentence that is seen at once, and heard once it has stood for a while. */

import { h } from "../../ui/dom.js";

/** A screen reader hears an answer once the hand has rested this long. */
const REST_MS = 700;

export class Announcement {
  /**
   * @param {HTMLElement} shown
   * @param {HTMLElement} spoken
   */
  constructor(shown, spoken) {
    this.shown = shown;
    this.spoken = spoken;
    this.timer = 0;
  }

  /**
   * @param {string} text
   * @param {"" | "agree" | "differ" | "failed"} kind
   */
  say(text, kind) {
    this.shown.replaceChildren(h("span", {}, text));
    this.shown.className = `verdict ${kind}`;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.spoken.textContent = text;
    }, REST_MS);
  }
}
