/** Download links that send the API key, which a plain link's request would not. */

import { TIMEOUT_MS, send } from "../../api/client.js";
import { credentials } from "../../api/credentials.js";
import { h } from "../../ui/dom.js";

/**
 * Makes a link send the key, if there is one.
 * @param {HTMLAnchorElement} link
 * @param {(error: unknown) => void} onError
 */
export function sendKey(link, onError) {
  link.addEventListener("click", (event) => {
    if (credentials.key === null) return;
    event.preventDefault();
    save(link.href).catch(onError);
  });
}

/** @param {string} address */
async function save(address) {
  const response = await send(address, {}, TIMEOUT_MS);
  const name = /filename="([^"/\\]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
  const url = URL.createObjectURL(await response.blob());
  h("a", { href: url, download: name ?? "" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be writing the file
}
