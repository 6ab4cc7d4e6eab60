/** The API key: the dialog that asks for it, for which denied requests wait, and the button that changes it. */

import { ApiError } from "../api/client.js";
import { KEY_PATTERN, credentials } from "../api/credentials.js";
import { byId, h } from "../ui/dom.js";
import { stylesheets } from "../ui/stylesheet.js";

/** @import { Connection } from "./connection.js" */

const REQUIRED = "This service requires an API key.";
/** Reasons for which the user has closed the dialog: until the key changes, it does not open for them again. @type {Set<string>} */
const declined = new Set();

/** @type {Promise<boolean> | null} */
let open = null;

/**
 * Asks for another key after a request was denied. Throws an error with the reason if there is none.
 * @param {string | null} sent the key of the request
 * @param {ApiError} error the service's answer
 */
export async function renewKey(sent, { status, message }) {
  const unknown = sent === null ? REQUIRED : "The service does not know this API key.";
  const why = status === 401 ? unknown : `The API key does not allow this: ${message}.`;
  if (open === null && sent !== credentials.key) return;
  if (open === null && declined.has(why)) throw new ApiError(why, status);
  if (!(await askForKey(why))) throw new ApiError(why, status);
}

/**
 * Shows the button that changes the key, if there is a key or the service requires one.
 * @param {Connection} connection dispatches "back" once there is another key
 */
export function showKeyButton(connection) {
  const button = byId("key", HTMLButtonElement);
  button.hidden = credentials.key === null && !credentials.declined;
  button.textContent = credentials.key === null ? "Enter API key" : "API key";
  button.onclick = async () => {
    if (await askForKey(credentials.key === null ? REQUIRED : "This tab uses an API key.")) connection.dispatchEvent(new Event("back"));
  };
}

/**
 * @param {string} why a sentence
 * @returns {Promise<boolean>} whether the user entered a key
 */
function askForKey(why) {
  open ??= ask(why).finally(() => {
    open = null;
  });
  return open;
}

/** @param {string} why */
async function ask(why) {
  await stylesheets("ui/forms", "shell/key-dialog");
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
 * @returns {Promise<string | null>} the key, or null if the dialog was closed without one
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
    h("p", { class: "muted" }, "The key is kept in this tab until you forget it or close the tab. It is sent to this service only, and never as part of an address."),
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
      message.textContent = key === "" ? "Enter a key, or cancel." : "Not a valid key: expected one word of letters, digits and symbols, as “kronserve key” prints it.";
      input.setAttribute("aria-invalid", "true");
      input.focus();
    });
    forget.addEventListener("click", () => {
      credentials.use(null);
      location.reload(); // discards what was fetched with the key
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      resolve(null); // also after the Escape key; no effect after a key was entered
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
