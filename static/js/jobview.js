/**
 * What comparisons, sweeps and trainings have in common: a form to start one, the list of earlier ones, and a page for each, which
 * follows it while it runs and survives a reload, for the service runs it and the address names it.
 */

import { Refused, Unreachable } from "./api.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import * as api from "./jobapi.js";
import { href } from "./router.js";

/**
 * @import { JobKind } from "./jobapi.js"
 * @import { App, Route, View } from "./router.js"
 * @import { JobSummary, Progress } from "./types.js"
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

const LISTED = 20;
/** @type {Record<JobKind, string>} the view of each kind */
const VIEWS = { comparisons: "compare", sweeps: "sweep", trainings: "train" };

/** @param {string} created */
export function when(created) {
  const date = new Date(created);
  return Number.isNaN(date.getTime()) ? created : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** @implements {View} */
export class JobView {
  /**
   * @param {App} app
   * @param {Kind} kind
   */
  constructor({ connection, catalog }, kind) {
    this.connection = connection;
    this.catalog = catalog;
    this.kind = kind;
    this.element = h("section", { class: `view ${kind.view}-view` });
    /** @type {string | null} the one that is shown */
    this.id = null;
    /** @type {AbortController | null} */
    this.following = null;
    /** @type {Presentation | null} */
    this.presentation = null;

    this.run = h("button", { type: "submit", class: "button primary" }, kind.button);
    this.formMessage = h("p", { class: "message", role: "alert" });
    this.list = h("ul", { class: "job-list" });
    this.more = h("button", { type: "button", class: "button quiet", hidden: true }, "Show more");
    const form = h("form", { class: "control", novalidate: true }, kind.form.element, this.formMessage, this.run);
    this.home = h(
      "div",
      { class: "job-home" },
      h("h1", {}, kind.title),
      h("p", { class: "lead muted" }, kind.lead),
      h(
        "div",
        { class: "band" },
        form,
        h(
          "div",
          { class: "beside" },
          kind.form.aside,
          h("section", { class: "earlier", "aria-labelledby": `earlier-${kind.view}` }, h("h2", { id: `earlier-${kind.view}` }, `Earlier ${kind.word}s`), this.list, this.more),
        ),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.more.addEventListener("click", () => void this.#list(this.list.childElementCount));

    this.heading = h("h1", {});
    this.stage = h("label", { for: `progress-${kind.view}`, class: "stage" });
    this.progress = h("progress", { id: `progress-${kind.view}` });
    this.cancel = h("button", { type: "button", class: "button" }, "Cancel");
    this.running = h("div", { class: "running", hidden: true }, this.stage, this.progress, this.cancel);
    this.message = h("p", { class: "message", role: "status" });
    this.place = h("div", { class: "presented" });
    this.download = h("a", { class: "button", download: true }, "Download JSON");
    this.delete = h("button", { type: "button", class: "button" }, "Delete");
    this.actions = h("p", { class: "actions", hidden: true }, this.download, this.delete);
    this.page = h(
      "div",
      { class: "job-page" },
      h("p", { class: "crumb" }, h("a", { href: href(kind.view) }, `New ${kind.word}`)),
      this.heading,
      this.message,
      this.running,
      this.place,
      this.actions,
    );
    this.cancel.addEventListener("click", () => void this.#remove("Cancelling …"));
    this.delete.addEventListener("click", () => void this.#remove("Deleting …"));
    connection.addEventListener("back", () => {
      if (!this.element.hidden) this.#enter();
    });
  }

  /** @param {Route} route */
  title({ argument }) {
    return argument === null ? this.kind.title : `${this.kind.title}: ${this.heading.textContent || "one report"}`;
  }

  /** @param {Route} route */
  show({ argument, query }) {
    const changed = this.element.firstElementChild !== null && argument !== this.id;
    this.id = argument;
    this.element.replaceChildren(argument === null ? this.home : this.page);
    this.query = query;
    this.#enter();
    if (!changed) return;
    scrollTo(0, 0);
    const heading = this.element.querySelector("h1");
    if (heading) heading.tabIndex = -1;
    heading?.focus({ preventScroll: true });
  }

  hide() {
    this.following?.abort();
  }

  #enter() {
    this.following?.abort();
    if (this.id === null) void this.#open();
    else void this.#follow(this.id);
  }

  /**
   * @param {unknown} error
   * @param {HTMLElement} place
   * @param {string} what
   */
  #explain(error, place, what) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    place.textContent = `${what}: ${error.message}`;
    place.classList.add("failed");
    if (error instanceof Unreachable) this.connection.lost(error.message);
  }

  async #open() {
    this.formMessage.textContent = "";
    try {
      await this.catalog.load();
      await this.kind.form.open(this.query ?? new URLSearchParams());
      this.run.hidden = this.kind.form.blocked ?? false;
    } catch (error) {
      this.#explain(error, this.formMessage, "No models");
      return;
    }
    await this.#list(0);
  }

  /** @param {number} offset */
  async #list(offset) {
    try {
      const { total, jobs } = await api.jobs(this.kind.kind, offset, LISTED);
      const items = jobs.map((job) => this.#item(job));
      if (offset === 0) this.list.replaceChildren(...items);
      else this.list.append(...items);
      if (total === 0) this.list.replaceChildren(h("li", { class: "muted none" }, `None yet. Each ${this.kind.word} is kept here, under an address of its own.`));
      this.more.hidden = this.list.childElementCount >= total;
    } catch (error) {
      const place = h("li", {});
      this.#explain(error, place, `No earlier ${this.kind.word}s`);
      this.list.replaceChildren(place);
    }
  }

  /** @param {JobSummary} job */
  #item({ id, status, created, title, headline, error, progress }) {
    const share = progress && progress.total > 0 ? `${progress.done} of ${progress.total}` : "";
    const told = status === "running" ? `running ${share}` : (error ?? headline ?? "");
    return h(
      "li",
      { class: status },
      h("a", { href: href(this.kind.view, id) }, title),
      h("span", { class: "muted" }, when(created)),
      told && h("p", {}, told),
      status === "done" && h("a", { class: "muted", href: api.downloadAddress(this.kind.kind, id), download: true, "aria-label": `JSON of ${title}, ${when(created)}` }, "JSON"),
    );
  }

  async #start() {
    const wanted = this.kind.form.read();
    this.formMessage.classList.toggle("failed", typeof wanted === "string");
    this.formMessage.textContent = typeof wanted === "string" ? wanted : "";
    if (typeof wanted === "string") return;
    this.run.disabled = true;
    try {
      const { id } = await api.start(this.kind.kind, wanted.request, wanted.files);
      location.hash = href(this.kind.view, id);
    } catch (error) {
      this.#explain(error, this.formMessage, `No ${this.kind.word}`);
      if (error instanceof Refused && error.status === 409) await this.#link();
    } finally {
      this.run.disabled = false;
    }
  }

  /** Leads to what runs instead. */
  async #link() {
    void this.#list(0); // it may be in it
    try {
      const found = await api.running();
      if (found === null) return;
      this.formMessage.append(" ", h("a", { href: href(VIEWS[found.kind], found.job.id) }, `See what runs: ${found.job.title}`));
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error; // then there is no link
    }
  }

  /** @param {string} id */
  async #follow(id) {
    const following = (this.following = new AbortController());
    this.#clear();
    try {
      this.presentation = await this.kind.present();
      if (following.signal.aborted) return;
      await api.follow(this.kind.kind, id, (event, data) => this.#event(event, data), following.signal);
    } catch (error) {
      if (following.signal.aborted) return;
      this.#end();
      if (error instanceof Refused && error.status === 404) {
        this.heading.textContent = `No such ${this.kind.word}`;
        this.#say("There is none under this address. It may have been deleted.", true);
        return;
      }
      this.#explain(error instanceof TypeError ? new Unreachable("The service cannot be reached.") : error, this.message, `No ${this.kind.word}`);
    }
  }

  #clear() {
    this.heading.textContent = `One ${this.kind.word}`;
    this.#say("");
    this.running.hidden = true;
    this.actions.hidden = true;
    this.presentation = null;
    this.place.replaceChildren();
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  #event(event, data) {
    if (event === "started") {
      this.heading.textContent = data.title;
      document.title = `${this.title({ view: "", argument: data.id, query: new URLSearchParams() })} · kronmodel`;
      this.running.hidden = data.status !== "running";
      this.#step(data.progress ?? { stage: "starting", done: 0, total: 0 });
    } else if (event === "progress") {
      this.#step(data);
    } else if (event === "error") {
      this.#end();
      this.#say(`No report: ${data.error}.`.replace(/\.\.$/, "."), true);
    } else {
      this.#present(event, data);
    }
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  #present(event, data) {
    const { presentation, id } = this;
    if (presentation === null || id === null) return;
    if (presentation.element.parentElement !== this.place) this.place.replaceChildren(presentation.element);
    if (event === "report") {
      this.#end();
      this.download.href = api.downloadAddress(this.kind.kind, id);
      this.actions.hidden = false;
      presentation.show(data);
    } else {
      presentation.grow?.(event, data);
    }
  }

  #end() {
    const focused = document.activeElement === this.cancel;
    this.running.hidden = true;
    this.presentation?.stop?.();
    if (focused) this.heading.focus({ preventScroll: true });
  }

  /** @param {string} wait */
  async #remove(wait) {
    const { id } = this;
    if (id === null) return;
    this.cancel.disabled = this.delete.disabled = true;
    this.#say(wait);
    try {
      this.following?.abort();
      await api.remove(this.kind.kind, id);
      location.hash = href(this.kind.view);
    } catch (error) {
      if (error instanceof Refused && error.status === 404) location.hash = href(this.kind.view);
      else this.#explain(error, this.message, "It is still there");
    } finally {
      this.cancel.disabled = this.delete.disabled = false;
    }
  }

  /**
   * @param {string} text
   * @param {boolean} [failed]
   */
  #say(text, failed = false) {
    this.message.textContent = text;
    this.message.classList.toggle("failed", failed);
  }

  /** @param {Progress} progress */
  #step({ stage, done, total }) {
    const told = this.presentation?.step?.({ stage, done, total });
    this.progress.hidden = told !== undefined;
    if (total > 0) {
      this.progress.max = total;
      this.progress.value = done;
    } else {
      this.progress.removeAttribute("value");
    }
    this.stage.textContent = told ?? (total > 0 ? `${stage} (${count(done)} of ${count(total)})` : `${stage} …`);
  }
}
