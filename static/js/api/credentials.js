/** The API key: stored in the tab's session storage, sent as a header, never part of an address. */

import { recall, remember } from "../ui/store.js";

/** @import { ApiError } from "./client.js" */

const STORED_AS = "key";
/** Characters allowed after "Bearer" in a header. */
export const KEY_PATTERN = /^[\x21-\x7e]{1,500}$/;

class Credentials extends EventTarget {
  /** Dispatches "change" when the key changes or the user declines to enter one. */
  constructor() {
    super();
    const stored = recall(STORED_AS);
    /** @type {string | null} */
    this.key = typeof stored === "string" && KEY_PATTERN.test(stored) ? stored : null;
    /** Whether the user has declined to enter a key. */
    this.declined = false;
    /**
     * Asks the user for another key after a request was denied; throws if there is none. main.js sets it.
     * @type {(sent: string | null, error: ApiError) => Promise<void>}
     */
    this.renew = (_, error) => Promise.reject(error);
  }

  /** @returns {Record<string, string>} for every request */
  get headers() {
    return this.key === null ? {} : { Authorization: `Bearer ${this.key}` };
  }

  /** @param {string | null} key null removes it */
  use(key) {
    this.key = key;
    remember(STORED_AS, key ?? undefined);
    this.dispatchEvent(new Event("change"));
  }

  decline() {
    this.declined = true;
    this.dispatchEvent(new Event("change"));
  }
}

export const credentials = new Credentials();
