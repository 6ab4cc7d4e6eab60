/** The form that starts a job, and the list of earlier jobs of its kind. */

import { ApiError, NetworkError } from "../../api/client.js";
import * as api from "../../api/jobs.js";
import { href } from "../../shell/router.js";
import { h } from "../../ui/dom.js";
import { dateTime, keepUnits } from "../../ui/text.js";
import { sendKey } from "./download.js";

/**
 * @import { JobKind } from "../../api/jobs.js"
 * @import { JobSummary } from "../../api/types.js"
 * @import { App } from "../../shell/types.js"
 * @import { JobViewOptions } from "./types.js"
 */

const LISTED = 20;
/** @type {Record<JobKind, string>} the view that shows each kind */
const VIEWS = { comparisons: "compare", sweeps: "sweep", trainings: "train" };

export class JobHome {
  /**
   * @param {App} app
   * @param {JobViewOptions} options
   */
  constructor({ connection, catalog }, options) {
    this.connection = connection;
    this.catalog = catalog;
    this.options = options;
    this.run = h("button", { type: "submit", class: "button primary" }, options.button);
    this.message = h("p", { class: "message", role: "alert" });
    this.list = h("ul", { class: "job-list" });
    this.more = h("button", { type: "button", class: "button quiet", hidden: true }, "Show more");
    const form = h("form", { class: "control", novalidate: true }, options.form.element, this.message, this.run);
    this.element = h(
      "div",
      { class: "job-home" },
      h("h1", {}, options.title),
      h("p", { class: "lead muted" }, options.lead),
      h(
        "div",
        { class: "band" },
        form,
        h(
          "div",
          { class: "beside" },
          options.form.aside,
          h("section", { class: "earlier", "aria-labelledby": `earlier-${options.view}` }, h("h2", { id: `earlier-${options.view}` }, `Earlier ${options.word}s`), this.list, this.more),
        ),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.more.addEventListener("click", () => void this.#list(this.list.childElementCount));
  }

  /** @param {URLSearchParams} query */
  async open(query) {
    this.message.textContent = "";
    this.run.disabled = true; // until the form knows what can be chosen
    try {
      await this.catalog.load();
      await this.options.form.open(query);
      this.run.hidden = this.options.form.blocked ?? false;
    } catch (error) {
      this.#explain(error, this.message, "No models");
      return;
    } finally {
      this.run.disabled = false;
    }
    await this.#list(0);
  }

  /**
   * @param {unknown} error
   * @param {HTMLElement} place
   * @param {string} failure
   */
  #explain(error, place, failure) {
    place.textContent = `${failure}: ${this.connection.explain(error)}`;
    place.classList.add("failed");
  }

  /** @param {number} offset */
  async #list(offset) {
    try {
      const { total, jobs } = await api.jobs(this.options.kind, offset, LISTED);
      const items = jobs.map((job) => this.#item(job));
      if (offset === 0) this.list.replaceChildren(...items);
      else this.list.append(...items);
      if (total === 0) this.list.replaceChildren(h("li", { class: "muted none" }, `None yet. Each ${this.options.word} is kept here and has its own address.`));
      this.more.hidden = this.list.childElementCount >= total;
    } catch (error) {
      const place = h("li", {});
      this.#explain(error, place, `No earlier ${this.options.word}s`);
      this.list.replaceChildren(place);
    }
  }

  /** @param {JobSummary} job */
  #item({ id, status, created, title, headline, error, progress }) {
    const done = progress && progress.total > 0 ? `${progress.done} of ${progress.total}` : "";
    const date = dateTime(created) ?? created;
    const summary = status === "running" ? `running ${done}` : (error ?? headline ?? "");
    return h(
      "li",
      { class: status },
      h("a", { href: href(this.options.view, id) }, title),
      h("span", { class: "muted" }, date),
      summary && h("p", {}, keepUnits(summary)),
      status === "done" && this.#download(id, `JSON of ${title}, ${date}`),
    );
  }

  /** Adds a link to the running job, which keeps another one from starting. */
  async #linkRunning() {
    void this.#list(0); // the running job may be of this kind
    try {
      const found = await api.running();
      if (found === null) return;
      this.message.append(" ", h("a", { href: href(VIEWS[found.kind], found.job.id) }, `Running: ${found.job.title}`));
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof NetworkError)) throw error; // without a link
    }
  }

  /**
   * @param {string} id
   * @param {string} label
   */
  #download(id, label) {
    const link = h("a", { class: "muted", href: api.downloadAddress(this.options.kind, id), download: true, "aria-label": label }, "JSON");
    sendKey(link, (error) => this.#explain(error, this.message, "No download"));
    return link;
  }

  async #start() {
    const read = this.options.form.read();
    this.message.classList.toggle("failed", typeof read === "string");
    this.message.textContent = typeof read === "string" ? read : "";
    if (typeof read === "string") return;
    this.run.disabled = true;
    try {
      const { id } = await api.start(this.options.kind, read.request, read.files);
      location.hash = href(this.options.view, id);
    } catch (error) {
      this.#explain(error, this.message, `No ${this.options.word}`);
      if (error instanceof ApiError && error.status === 409) await this.#linkRunning();
    } finally {
      this.run.disabled = false;
    }
  }
}
