/** Loads style sheets on demand, each once. */

import { h } from "./dom.js";

/** Later layers override earlier ones, whatever the order of loading. */
const LAYERS = ["ui", "model", "charts", "shell", "views"];

/** @type {Map<string, Promise<void>>} */
const loaded = new Map();

/**
 * @param {...string} names paths under static/css without the suffix
 * @returns {Promise<unknown>} settled once all apply; rejects with a TypeError, like import(), if one cannot be fetched
 */
export function stylesheets(...names) {
  return Promise.all(names.map((name) => {
    const promise = loaded.get(name) ?? load(name);
    loaded.set(name, promise);
    return promise;
  }));
}

/** @param {string} href */
const layer = (href) => LAYERS.indexOf(href.split("/css/")[1].split("/")[0]);

/**
 * @param {string} name
 * @returns {Promise<void>}
 */
function load(name) {
  return new Promise((resolve, reject) => {
    const link = h("link", { rel: "stylesheet", href: `/static/css/${name}.css` });
    link.addEventListener("load", () => resolve());
    link.addEventListener("error", () => {
      link.remove();
      loaded.delete(name);
      reject(new TypeError(`cannot fetch ${name}.css`));
    });
    const links = /** @type {HTMLLinkElement[]} */ ([...document.head.querySelectorAll("link[rel=stylesheet]")]);
    const next = links.find(({ href }) => layer(href) > layer(link.href));
    document.head.insertBefore(link, next ?? null);
  });
}
