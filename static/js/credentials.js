/**
 * The API key of this tab, where the service asks for one. Kept in the tab's session storage and sent as a header; never
 * part of an address.
 */

import { recall, remember } from "./store.js";

const KEPT_AS = "key";
/** What may stand in a header after "Bearer". */
const KEY = /^[\x21-\x7e]{1,500}$/;

class Credentials extends EventTarget {
  /** Dispatches "change" when there is another key, or when one is wanted. */
  constructor() {
    super();
    const kept = recall(KEPT_AS);
    /** @type {string | null} */
    this.key = typeof kept === "string" && KEY.test(kept) ? kept : null;
    /** Whether the service has asked for a key that it was not given. */
    this.wanted = false;
    /** What the reader has been asked for and did not give: not asked again by itself. @type {Set<string>} */
    this.declined = new Set();
    /** @type {Promise<boolean> | null} */
    this.asking = null;
  }

  /** @returns {Record<string, string>} */
  get headers() {
    return this.key === null ? {} : { Authorization: `Bearer ${this.key}` };
  }

  /**
   * A request was refused for its key, or for want of one.
   * @param {string | null} sent the key that it had
   * @param {string} why in a sentence
   * @returns {Promise<boolean>} whether there is another key now
   */
  async refused(sent, why) {
    if (sent !== this.key) return true;
    if (this.declined.has(why)) return false;
    return this.ask(why);
  }

  /**
   * Asks the reader; whoever asks meanwhile gets the same answer.
   * @param {string} why
   * @returns {Promise<boolean>} whether there is another key now
   */
  ask(why) {
    this.asking ??= this.#ask(why).finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  /** @param {string} why */
  async #ask(why) {
    const { askForKey } = await import("./keydialog.js");
    const key = await askForKey(why, this.key !== null, (text) => KEY.test(text));
    if (key === undefined) {
      this.declined.add(why);
      this.wanted = true;
      this.dispatchEvent(new Event("change"));
      return false;
    }
    this.#set(key);
    return key !== null;
  }

  /** The service does not know it. */
  drop() {
    this.#set(null);
  }

  /** @param {string | null} key */
  #set(key) {
    this.key = key;
    this.wanted = key === null;
    this.declined.clear();
    remember(KEPT_AS, key ?? undefined);
    this.dispatchEvent(new Event("change"));
  }
}

export const credentials = new Credentials();
