/** Asks for an API key when the service does, in a dialog: the requests that were refused wait for it. */

import { Refused } from "../api/client.js";
import { KEY_PATTERN, credentials } from "../api/credentials.js";
import { h } from "../ui/dom.js";
import { stylesheet } from "../ui/stylesheet.js";

export const ASKS = "This service asks for an API key.";
/** What was asked for in vain: it is not asked for again until there is another key. @type {Set<string>} */
const declined = new Set();

/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * A request was refused for its key, or for want of one; throws that in words for the page, unless there is another key now.
 * @param {string | null} sent the key that it had
 * @param {Refused} refusal
 */
export async function anotherKey(sent, { status, message }) {
  const unknown = sent === null ? ASKS : "The service does not know this API key.";
  const why = status === 401 ? unknown : `The API key does not allow this: ${message}.`;
  if (asking === null && sent !== credentials.key) return;
  if (asking === null && declined.has(why)) throw new Refused(why, status);
  if (!(await askForKey(why))) throw new Refused(why, status);
}

/**
 * @param {string} why in a sentence
 * @returns {Promise<boolean>} whether there is another key now
 */
export function askForKey(why) {
  asking ??= ask(why).finally(() => {
    asking = null;
  });
  return asking;
}

/** @param {string} why */
async function ask(why) {
  await stylesheet("forms");
  const key = await answer(why);
  if (key === null) {
    declined.add(why);
    credentials.decline();
  } else {
    declined.clear();
    credentials.use(key);
  }
  return key !== null;
}

/**
 * @param {string} why
 * @returns {Promise<string | null>} a key, or null where the reader has none
 */
function answer(why) {
  const known = credentials.key !== null;
  const input = h("input", { type: "password", id: "key-input", autocomplete: "off", spellcheck: "false", "aria-describedby": "key-why key-message" });
  const message = h("p", { class: "message failed", id: "key-message", role: "alert" });
  const forget = h("button", { type: "button", class: "button", hidden: !known }, "Forget the key");
  const cancel = h("button", { type: "button", class: "button" }, "Cancel");
  const form = h(
    "form",
    { novalidate: true },
    h("h2", { id: "key-title" }, "API key"),
    h("p", { id: "key-why" }, why),
    h("label", { class: "field", for: "key-input" }, h("span", {}, known ? "Another key" : "Key"), input),
    message,
    h("p", { class: "muted" }, "It stays in this tab until you forget it or close the tab, and goes to this service only, never into an address."),
    h("p", { class: "actions" }, h("button", { type: "submit", class: "button primary" }, "Use this key"), forget, cancel),
  );
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "key-title" }, form);
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = input.value.trim().replace(/^Bearer\s+/i, "");
      if (KEY_PATTERN.test(key)) {
        resolve(key);
        dialog.close();
        return;
      }
      message.textContent = key === "" ? "Enter a key, or cancel." : "That is no key: expected one word of letters, digits and signs, as “kronserve key” prints it.";
      input.setAttribute("aria-invalid", "true");
      input.focus();
    });
    forget.addEventListener("click", () => {
      credentials.use(null);
      location.reload(); // what was fetched with it is forgotten, too
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      resolve(null); // by the Escape key, too; after an answer this changes nothing
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
