/** Asks for an API key, in a dialog: the page behind it waits. */

import { h } from "./dom.js";

/**
 * @param {string} why in a sentence
 * @param {boolean} known whether there is a key that may be forgotten
 * @param {(text: string) => boolean} valid
 * @returns {Promise<string | null | undefined>} the key; null: forget it; undefined: the reader has none
 */
export function askForKey(why, known, valid) {
  const input = h("input", { type: "password", id: "key-input", autocomplete: "off", spellcheck: "false", "aria-describedby": "key-why key-message" });
  const message = h("p", { class: "message failed", id: "key-message", role: "alert" });
  const forget = known && h("button", { type: "button", class: "button" }, "Forget the key");
  const cancel = h("button", { type: "button", class: "button" }, "Cancel");
  const form = h(
    "form",
    { novalidate: true },
    h("h2", { id: "key-title" }, "API key"),
    h("p", { id: "key-why" }, why),
    h("label", { class: "field", for: "key-input" }, h("span", {}, known ? "Another key" : "Key"), input),
    message,
    h("p", { class: "muted" }, "It stays in this tab until you forget it or close the tab, and is sent to this service only, never in an address."),
    h("p", { class: "actions" }, h("button", { type: "submit", class: "button primary" }, "Use this key"), forget, cancel),
  );
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": "key-title" }, form);
  return new Promise((resolve) => {
    /** @param {string | null | undefined} answer */
    const end = (answer) => {
      resolve(answer);
      dialog.close();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = input.value.trim().replace(/^Bearer\s+/i, "");
      if (valid(key)) {
        end(key);
        return;
      }
      message.textContent = key === "" ? "Enter a key, or cancel." : "That is no key: expected one word of letters, digits and signs, as “kronserve key” prints it.";
      input.setAttribute("aria-invalid", "true");
      input.focus();
    });
    cancel.addEventListener("click", () => end(undefined));
    if (forget) forget.addEventListener("click", () => end(null));
    dialog.addEventListener("close", () => {
      resolve(undefined); // by the Escape key; after an answer this changes nothing
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
