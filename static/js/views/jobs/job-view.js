/**
 * What comparisons, sweeps and trainings have in common: a form to start one, the list of earlier ones, and a page for each, which
 * follows it while it runs and survives a reload, for the service runs it and the address names it.
 */

import { h } from "../../ui/dom.js";
import { JobHome } from "./job-home.js";
import { JobPage } from "./job-page.js";

/**
 * @import { JobKind } from "../../api/jobs.js"
 * @import { App, Route, View } from "../../shell/router.js"
 * @import { Progress } from "../../api/types.js"
 */

/**
 * @typedef {object} Form
 * @property {HTMLElement} element
 * @property {HTMLElement} [aside] what stands beside it
 * @property {boolean} [blocked] nothing can be started here, as the form itself explains
 * @property {() => { request: object, files?: Record<string, File | undefined> } | string} read what to start, or why not
 * @property {(query: URLSearchParams) => void | Promise<void>} open the models are known by now
 *
 * @typedef {object} Presentation of one report, and of what there is of it while it is made
 * @property {HTMLElement} element
 * @property {(report: any) => void} show
 * @property {(event: string, data: any) => void} [grow]
 * @property {(progress: Progress) => string} [step] shows how far it is by itself; what to call the stage
 * @property {() => void} [stop] it goes on no longer
 *
 * @typedef {object} Kind
 * @property {JobKind} kind
 * @property {string} view its address
 * @property {string} word "comparison"
 * @property {string} title of its page
 * @property {string} lead what it does, in a sentence
 * @property {string} button
 * @property {Form} form
 * @property {() => Promise<Presentation>} present
 */

/** @implements {View} */
export class JobView {
  /**
   * @param {App} app
   * @param {Kind} kind
   */
  constructor(app, kind) {
    this.kind = kind;
    this.home = new JobHome(app, kind);
    this.page = new JobPage(app, kind);
    this.element = h("section", { class: `view ${kind.view}-view` });
    /** @type {string | null} the one that is shown; null: the form */
    this.id = null;
    this.query = new URLSearchParams();
    app.connection.addEventListener("back", () => {
      if (!this.element.hidden) this.#enter();
    });
  }

  /** @param {Route} route */
  title({ argument }) {
    return argument === null ? this.kind.title : `${this.kind.title}: ${this.page.title}`;
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
