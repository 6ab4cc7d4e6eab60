/**
 * View of one kind of job (comparison, sweep, training): a form to start one, the list of earlier ones, and a page for each.
 * The service runs the job and the address names it, so that the page survives a reload.
 */

import { h } from "../../ui/dom.js";
import { JobHome } from "./job-home.js";
import { JobPage } from "./job-page.js";

/**
 * @import { App, Route, View } from "../../shell/types.js"
 * @import { JobViewOptions } from "./types.js"
 */

/** @implements {View} */
export class JobView {
  /**
   * @param {App} app
   * @param {JobViewOptions} options
   */
  constructor(app, options) {
    this.options = options;
    this.home = new JobHome(app, options);
    this.page = new JobPage(app, options);
    this.element = h("section", { class: `view ${options.view}-view` });
    /** @type {string | null} id of the job shown; null for the form */
    this.id = null;
    this.query = new URLSearchParams();
    app.connection.addEventListener("back", () => {
      if (!this.element.hidden) this.#enter();
    });
  }

  /** @param {Route} route */
  title({ argument }) {
    return argument === null ? this.options.title : `${this.options.title}: ${this.page.title}`;
  }

  /** @param {Route} route */
  show({ argument, query }) {
    const changed = this.element.firstElementChild !== null && argument !== this.id;
    this.id = argument;
    this.query = query;
    this.element.replaceChildren(argument === null ? this.home.element : this.page.element);
    this.#enter();
    if (!changed) return;
    scrollTo(0, 0);
    const heading = this.element.querySelector("h1");
    if (heading) heading.tabIndex = -1;
    heading?.focus({ preventScroll: true });
  }

  hide() {
    this.page.leave();
  }

  #enter() {
    this.page.leave();
    if (this.id === null) void this.home.open(this.query);
    else void this.page.open(this.id);
  }
}
