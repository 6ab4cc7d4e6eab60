/**
 * Whether the service is there. Whoever finds it gone says so with `lost`; from then on it is asked again, ever more
 * patiently, until it answers, and "back" is dispatched.
 */

import * as api from "../api/client.js";
import { h } from "../ui/dom.js";

const FIRST_WAIT_S = 2;
const LONGEST_WAIT_S = 15;

export class Connection extends EventTarget {
  /** @param {HTMLElement} banner */
  constructor(banner) {
    super();
    this.banner = banner;
    this.message = h("span", { role: "alert" });
    this.countdown = h("span", { class: "countdown" });
    this.button = h("button", { type: "button", class: "button" }, "Try now");
    this.button.addEventListener("click", () => void this.#ask());
    banner.append(this.message, this.countdown, this.button);
    this.gone = false;
    this.asking = false;
    this.wait = FIRST_WAIT_S;
    this.timer = 0;
  }

  /** @param {string} why */
  lost(why) {
    if (this.gone) return;
    this.gone = true;
    this.wait = FIRST_WAIT_S;
    this.message.textContent = why;
    this.banner.hidden = false;
    this.#tick(this.wait);
  }

  /**
   * What went wrong, in a sentence; that the service is gone is noted.
   * @param {unknown} error thrown on if it is no failure of the service
   */
  explain(error) {
    if (!(error instanceof api.Refused || error instanceof api.Unreachable)) throw error;
    if (error instanceof api.Unreachable) this.lost(error.message);
    return error.message;
  }

  /**
   * Modules that only some visitors need come later than the page, if the service is still there.
   * @param {() => Promise<void>} work
   * @returns {Promise<boolean>} whether they came
   */
  async fetched(work) {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // what a module that cannot be fetched throws
      this.lost(api.NOT_REACHED);
      return false;
    }
  }

  /** @param {number} seconds left */
  #tick(seconds) {
    clearTimeout(this.timer);
    if (seconds <= 0) {
      void this.#ask();
      return;
    }
    this.countdown.textContent = `Next try in ${seconds} s.`;
    this.timer = setTimeout(() => this.#tick(seconds - 1), 1000);
  }

  async #ask() {
    if (this.asking) return;
    clearTimeout(this.timer);
    this.asking = true;
    this.button.disabled = true;
    this.countdown.textContent = "Trying …";
    const there = await api.ready().finally(() => {
      this.asking = false;
      this.button.disabled = false;
    });
    if (there) {
      this.gone = false;
      this.banner.hidden = true;
      this.dispatchEvent(new Event("back"));
    } else {
      this.wait = Math.min(LONGEST_WAIT_S, 2 * this.wait);
      this.#tick(this.wait);
    }
  }
}
