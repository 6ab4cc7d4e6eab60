/** The button over the page that asks for another API key, or forgets the one that there is. */

import { credentials } from "../api/credentials.js";
import { byId } from "../ui/dom.js";
import { ASKS, askForKey } from "./key-dialog.js";

/** @import { Connection } from "./connection.js" */

/**
 * @param {Connection} connection that is "back" with a key
 */
export function showKeyButton(connection) {
  const button = byId("key", HTMLButtonElement);
  button.hidden = credentials.key === null && !credentials.wanted;
  button.textContent = credentials.key === null ? "Enter API key" : "API key";
  button.onclick = async () => {
    if (await askForKey(credentials.key === null ? ASKS : "A key is in use in this tab.")) connection.dispatchEvent(new Event("back"));
  };
}
