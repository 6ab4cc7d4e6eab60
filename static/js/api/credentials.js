/**
 * The API key of this tab, where the service asks for one. Kept in the tab's session storage and sent as a header; never
 * part of an address.
 */

import { recall, remember } from "../ui/store.js";

const KEPT_AS = "key";
/** What may stand in a header after "Bearer". */
export const KEY_PATTERN = /^[\x21-\x7e]{1,500}$/;

class Credentials extends EventTarget {
  /** Dispatches "change" when there is another key, or when one is wanted. */
  constructor() {
    super();
    const kept = recall(KEPT_AS);
    /** @type {string | null} */
    this.key = typeof kept === "string" && KEY_PATTERN.test(kept) ? kept : null;
    /** Whether the service has asked for a key in vain. */
    this.wanted = false;
  }

  /** @returns {Record<string, string>} that every request has */
  get headers() {
    return this.key === null ? {} : { Authorization: `Bearer ${this.key}` };
  }

  /** @param {string | null} key null: none from now on */
  use(key) {
    this.key = key;
    remember(KEPT_AS, key ?? undefined);
    this.dispatchEvent(new Event("change"));
  }

  /** The reader has none, or not the right one. */
  decline() {
    this.wanted = true;
    this.dispatchEvent(new Event("change"));
  }
}

export const credentials = new Credentials();
