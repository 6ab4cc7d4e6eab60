/** Detects that the service cannot be reached, shows a banner, and retries with growing delays until it answers. */

import * as api from "../api/client.js";
import { h } from "../ui/dom.js";

const FIRST_DELAY_S = 2;
const MAX_DELAY_S = 15;

export class Connection extends EventTarget {
  /**
   * Dispatches "back" when the service answers again.
   * @param {HTMLElement} banner
   */
  constructor(banner) {
    super();
    this.banner = banner;
    this.message = h("span", { role: "alert" });
    this.countdown = h("span", { class: "countdown" });
    this.button = h("button", { type: "button", class: "button" }, "Try now");
    this.button.addEventListener("click", () => void this.#retry());
    banner.append(this.message, this.countdown, this.button);
    this.gone = false;
    this.retrying = false;
    this.delay = FIRST_DELAY_S;
    this.timer = 0;
  }

  /**
   * Shows the banner and starts to retry.
   * @param {string} why
   */
  lost(why) {
    if (this.gone) return;
    this.gone = true;
    this.delay = FIRST_DELAY_S;
    this.message.textContent = why;
    this.banner.hidden = false;
    this.#tick(this.delay);
  }

  /**
   * Returns the error's message; a network error also starts to retry.
   * @param {unknown} error thrown again if it is not an error of the service
   */
  explain(error) {
    if (!(error instanceof api.ApiError || error instanceof api.NetworkError)) throw error;
    if (error instanceof api.NetworkError) this.lost(error.message);
    return error.message;
  }

  /**
   * Runs code that imports modules on demand.
   * @param {() => Promise<void>} work
   * @returns {Promise<boolean>} false if a module cannot be fetched
   */
  async fetched(work) {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // import() rejects with a TypeError
      this.lost(api.UNREACHABLE);
      return false;
    }
  }

  /** @param {number} seconds until the next attempt */
  #tick(seconds) {
    clearTimeout(this.timer);
    if (seconds <= 0) {
      void this.#retry();
      return;
    }
    this.countdown.textContent = `Next try in ${seconds} s.`;
    this.timer = setTimeout(() => this.#tick(seconds - 1), 1000);
  }

  async #retry() {
    if (this.retrying) return;
    clearTimeout(this.timer);
    this.retrying = true;
    this.button.disabled = true;
    this.countdown.textContent = "Trying …";
    const ready = await api.ready().finally(() => {
      this.retrying = false;
      this.button.disabled = false;
    });
    if (ready) {
      this.gone = false;
      this.banner.hidden = true;
      this.dispatchEvent(new Event("back"));
    } else {
      this.delay = Math.min(MAX_DELAY_S, 2 * this.delay);
      this.#tick(this.delay);
    }
  }
}
