/**
 * Views behind `#/name/argument?key=value`. A view's module is fetched when it is first asked for; leaving a view keeps
 * its element, so that coming back finds it as it was.
 */

import { NOT_REACHED } from "../api/client.js";
import { h } from "../ui/dom.js";
import { stylesheet } from "../ui/stylesheet.js";

/**
 * @import { Connection } from "./connection.js"
 * @import { Catalog } from "../model/catalog.js"
 */

/**
 * @typedef {object} App what every view may use
 * @property {Connection} connection
 * @property {Catalog} catalog
 *
 * @typedef {object} Route
 * @property {string} view
 * @property {string | null} argument
 * @property {URLSearchParams} query
 *
 * @typedef {object} View
 * @property {HTMLElement} element with one h1
 * @property {(route: Route) => string} title
 * @property {(route: Route) => void} show the view is on the page, or its argument has changed
 * @property {() => void} hide
 *
 * @typedef {(app: App) => View} MakeView
 */

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

/** @param {string} text from an address that anybody may have written */
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
   * @param {Record<string, () => Promise<{ makeView: MakeView }>>} modules
   */
  constructor(app, main, navigation, modules) {
    this.app = app;
    this.main = main;
    this.links = [...navigation.querySelectorAll("a")];
    this.modules = modules;
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

  /** Shows what the address says. */
  async go() {
    const route = parseRoute(location.hash);
    const load = Object.hasOwn(this.modules, route.view) ? this.modules[route.view] : undefined;
    if (load === undefined) {
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
        const [{ makeView }] = await Promise.all([load(), ...(route.view === HOME ? [] : [stylesheet("forms"), stylesheet("views")])]);
        view = this.made.get(route.view) ?? makeView(this.app);
        this.made.set(route.view, view);
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // what a module that cannot be fetched throws
        if (hash === location.hash) this.#fail();
        return;
      }
    }
    if (hash === location.hash) this.#swap(view, route);
  }

  #fail() {
    this.#leave();
    this.failure.textContent = `This view is not here yet: ${NOT_REACHED}`;
    this.failure.hidden = false;
    this.app.connection.lost(NOT_REACHED);
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

  /** The title may depend on what a view has fetched meanwhile. */
  retitle() {
    document.title = `${this.current?.title(parseRoute(location.hash)) ?? ""} · kronmodel`;
  }

  /** Puts the reading position on the view's heading. */
  focus() {
    const heading = this.current?.element.querySelector("h1");
    if (!heading) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}
