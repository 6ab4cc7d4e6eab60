/** Style sheets that only some visitors need, each fetched once. */

import { h } from "./dom.js";

/** @type {Map<string, Promise<void>>} */
const fetched = new Map();

/**
 * @param {"forms" | "views"} name
 * @returns {Promise<void>} once it applies; a TypeError, as of a module, where it cannot be fetched
 */
export function stylesheet(name) {
  const known = fetched.get(name);
  if (known !== undefined) return known;
  const coming = /** @type {Promise<void>} */ (new Promise((resolve, reject) => {
    const link = h("link", { rel: "stylesheet", href: `/static/css/${name}.css` });
    link.addEventListener("load", () => resolve());
    link.addEventListener("error", () => {
      link.remove();
      fetched.delete(name);
      reject(new TypeError(`${name}.css cannot be fetched`));
    });
    document.head.append(link);
  }));
  fetched.set(name, coming);
  return coming;
}
