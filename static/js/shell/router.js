/**
 * Hash router: `#/view/argument?key=value`. A view's module and styles are fetched on its first visit; its element is kept
 * with its state when another view is shown.
 */

import { UNREACHABLE } from "../api/client.js";
import { h } from "../ui/dom.js";
import { stylesheets } from "../ui/stylesheet.js";

/** @import { App, Route, View, ViewSource } from "./types.js" */

const HOME = "try";

/**
 * @param {string} hash
 * @returns {Route}
 */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, argument] = path.split("/", 2);
  return { view: view || HOME, argument: argument ? decode(argument) : null, query: new URLSearchParams(query) };
}

/** @param {string} text untrusted */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return text;
    throw error;
  }
}

/**
 * @param {string} view
 * @param {string | null} [argument]
 * @param {Record<string, string>} [query]
 */
export function href(view, argument = null, query = {}) {
  const search = new URLSearchParams(query).toString();
  return `#/${view}${argument === null ? "" : `/${encodeURIComponent(argument)}`}${search && `?${search}`}`;
}

export class Router {
  /**
   * @param {App} app
   * @param {HTMLElement} main
   * @param {HTMLElement} navigation
   * @param {Record<string, ViewSource>} sources
   */
  constructor(app, main, navigation, sources) {
    this.app = app;
    this.main = main;
    this.links = [...navigation.querySelectorAll("a")];
    this.sources = sources;
    /** @type {Map<string, View>} */
    this.made = new Map();
    /** @type {View | null} */
    this.current = null;
    this.failure = h("p", { class: "failed", role: "alert", hidden: true });
    main.prepend(this.failure);
    addEventListener("hashchange", () => void this.go());
    app.connection.addEventListener("back", () => {
      if (this.current === null) void this.go();
    });
  }

  /** Shows the view that the address names. */
  async go() {
    const route = parseRoute(location.hash);
    const source = Object.hasOwn(this.sources, route.view) ? this.sources[route.view] : undefined;
    if (source === undefined) {
      location.replace(href(HOME));
      return;
    }
    for (const link of this.links) {
      if (parseRoute(link.hash).view === route.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const hash = location.hash;
    let view = this.made.get(route.view);
    if (view === undefined) {
      try {
        const [{ makeView }] = await Promise.all([source.load(), stylesheets(...source.styles)]);
        view = this.made.get(route.view) ?? makeView(this.app);
        this.made.set(route.view, view);
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // a module or style sheet cannot be fetched
        if (hash === location.hash) this.#fail();
        return;
      }
    }
    if (hash === location.hash) this.#swap(view, route);
  }

  #fail() {
    this.#leave();
    this.failure.textContent = `This view cannot be shown: ${UNREACHABLE}`;
    this.failure.hidden = false;
    this.app.connection.lost(UNREACHABLE);
  }

  #leave() {
    if (this.current === null) return;
    this.current.hide();
    this.current.element.hidden = true;
    this.current = null;
  }

  /**
   * @param {View} view
   * @param {Route} route
   */
  #swap(view, route) {
    const first = this.current === null && this.made.size === 1;
    const other = this.current !== view;
    this.failure.hidden = true;
    if (other) this.#leave();
    this.current = view;
    if (view.element.parentElement !== this.main) this.main.append(view.element);
    view.element.hidden = false;
    this.retitle();
    view.show(route);
    if (other && !first) {
      scrollTo(0, 0);
      this.focus();
    }
  }

  /** Sets the document's title from the current view. */
  retitle() {
    document.title = `${this.current?.title(parseRoute(location.hash)) ?? ""} · kronmodel`;
  }

  /** Moves the focus to the view's heading. */
  focus() {
    const heading = this.current?.element.querySelector("h1");
    if (!heading) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}
