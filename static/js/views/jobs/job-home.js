/** The form that starts a comparison, a sweep or the like, and the list of the earlier ones. */

import { Refused, Unreachable } from "../../api/client.js";
import { h } from "../../ui/dom.js";
import { sendKey } from "./download.js";
import * as api from "../../api/jobs.js";
import { href } from "../../shell/router.js";
import { when } from "../../ui/when.js";
import { unbroken } from "../../ui/sentence.js";

/**
 * @import { JobKind } from "../../api/jobs.js"
 * @import { Kind } from "./job-view.js"
 * @import { App } from "../../shell/router.js"
 * @import { JobSummary } from "../../api/types.js"
 */

const LISTED = 20;
/** @type {Record<JobKind, string>} the view of each kind */
const VIEWS = { comparisons: "compare", sweeps: "sweep", trainings: "train" };

export class JobHome {
  /**
   * @param {App} app
   * @param {Kind} kind
   */
  constructor({ connection, catalog }, kind) {
    this.connection = connection;
    this.catalog = catalog;
    this.kind = kind;
    this.run = h("button", { type: "submit", class: "button primary" }, kind.button);
    this.message = h("p", { class: "message", role: "alert" });
    this.list = h("ul", { class: "job-list" });
    this.more = h("button", { type: "button", class: "button quiet", hidden: true }, "Show more");
    const form = h("form", { class: "control", novalidate: true }, kind.form.element, this.message, this.run);
    this.element = h(
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
  }

  /** @param {URLSearchParams} query */
  async open(query) {
    this.message.textContent = "";
    this.run.disabled = true; // the form does not know yet what there is to choose
    try {
      await this.catalog.load();
      await this.kind.form.open(query);
      this.run.hidden = this.kind.form.blocked ?? false;
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
   * @param {string} what
   */
  #explain(error, place, what) {
    place.textContent = `${what}: ${this.connection.explain(error)}`;
    place.classList.add("failed");
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
    const date = when(created) ?? created;
    const told = status === "running" ? `running ${share}` : (error ?? headline ?? "");
    return h(
      "li",
      { class: status },
      h("a", { href: href(this.kind.view, id) }, title),
      h("span", { class: "muted" }, date),
      told && h("p", {}, unbroken(told)),
      status === "done" && this.#download(id, `JSON of ${title}, ${date}`),
    );
  }

  /** Leads to what runs instead. */
  async #link() {
    void this.#list(0); // it may be in it
    try {
      const found = await api.running();
      if (found === null) return;
      this.message.append(" ", h("a", { href: href(VIEWS[found.kind], found.job.id) }, `See what runs: ${found.job.title}`));
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error; // then there is no link
    }
  }

  /**
   * @param {string} id
   * @param {string} label
   */
  #download(id, label) {
    const link = h("a", { class: "muted", href: api.downloadAddress(this.kind.kind, id), download: true, "aria-label": label }, "JSON");
    sendKey(link, (error) => this.#explain(error, this.message, "No download"));
    return link;
  }

  async #start() {
    const wanted = this.kind.form.read();
    this.message.classList.toggle("failed", typeof wanted === "string");
    this.message.textContent = typeof wanted === "string" ? wanted : "";
    if (typeof wanted === "string") return;
    this.run.disabled = true;
    try {
      const { id } = await api.start(this.kind.kind, wanted.request, wanted.files);
      location.hash = href(this.kind.view, id);
    } catch (error) {
      this.#explain(error, this.message, `No ${this.kind.word}`);
      if (error instanceof Refused && error.status === 409) await this.#link();
    } finally {
      this.run.disabled = false;
    }
  }
}
