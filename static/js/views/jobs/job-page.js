/** The page of one job: shows its progress while it runs, then its report; cancels or deletes it. */

import { ApiError, NetworkError, UNREACHABLE } from "../../api/client.js";
import * as api from "../../api/jobs.js";
import { href } from "../../shell/router.js";
import { h } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { capitalized, sentence } from "../../ui/text.js";
import { sendKey } from "./download.js";

/**
 * @import { Progress } from "../../api/types.js"
 * @import { App } from "../../shell/types.js"
 * @import { JobViewOptions, Presentation } from "./types.js"
 */

export class JobPage {
  /**
   * @param {App} app
   * @param {JobViewOptions} options
   */
  constructor({ connection }, options) {
    this.connection = connection;
    this.options = options;
    /** @type {string | null} id of the job shown */
    this.id = null;
    /** @type {AbortController | null} */
    this.following = null;
    /** @type {Presentation | null} */
    this.presentation = null;
    this.heading = h("h1", {});
    this.stage = h("label", { for: `progress-${options.view}`, class: "stage" });
    this.progress = h("progress", { id: `progress-${options.view}` });
    this.cancel = h("button", { type: "button", class: "button" }, "Cancel");
    this.running = h("div", { class: "running", hidden: true }, this.stage, this.progress, this.cancel);
    this.message = h("p", { class: "message", role: "status" });
    this.place = h("div", { class: "presented" });
    this.download = h("a", { class: "button", download: true }, "Download JSON");
    this.delete = h("button", { type: "button", class: "button" }, "Delete");
    this.actions = h("p", { class: "actions", hidden: true }, this.download, this.delete);
    this.element = h(
      "div",
      { class: "job-page" },
      h("p", { class: "crumb" }, h("a", { href: href(options.view) }, `New ${options.word}`)),
      this.heading,
      this.message,
      this.running,
      this.place,
      this.actions,
    );
    sendKey(this.download, (error) => this.#explain(error, "No download"));
    this.cancel.addEventListener("click", () => void this.#remove("Cancelling …"));
    this.delete.addEventListener("click", () => void this.#remove("Deleting …"));
  }

  /** The job's title, or the kind of job until it is loaded. */
  get title() {
    return this.heading.textContent || this.options.word;
  }

  /** Stops following the job, which goes on at the service. */
  leave() {
    this.following?.abort();
  }

  /** @param {string} id */
  async open(id) {
    this.leave();
    const following = (this.following = new AbortController());
    this.id = id;
    this.#clear();
    try {
      this.presentation = await this.options.present();
      if (following.signal.aborted) return;
      await api.follow(this.options.kind, id, (event, data) => this.#event(event, data), following.signal);
    } catch (error) {
      if (following.signal.aborted) return;
      this.#end();
      if (error instanceof ApiError && error.status === 404) {
        this.heading.textContent = `No such ${this.options.word}`;
        this.#say("No job has this address. It may have been deleted.", true);
        return;
      }
      this.#explain(error instanceof TypeError ? new NetworkError(UNREACHABLE) : error, `No ${this.options.word}`);
    }
  }

  /**
   * @param {unknown} error
   * @param {string} failure
   */
  #explain(error, failure) {
    this.#say(`${failure}: ${this.connection.explain(error)}`, true);
  }

  #clear() {
    this.heading.textContent = capitalized(this.options.word);
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
      document.title = `${this.options.title}: ${this.title} · kronmodel`;
      this.running.hidden = data.status !== "running";
      this.#step(data.progress ?? { stage: "starting", done: 0, total: 0 });
    } else if (event === "progress") {
      this.#step(data);
    } else if (event === "error") {
      this.#end();
      this.#offer(false);
      this.#say(`No report: ${sentence(data.error)}`, true);
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
      this.download.href = api.downloadAddress(this.options.kind, id);
      this.#offer(true);
      presentation.show(data);
    } else {
      presentation.update?.(event, data);
    }
  }

  /** @param {boolean} report whether there is one to download; a failed job can only be deleted */
  #offer(report) {
    this.download.hidden = !report;
    this.actions.hidden = false;
  }

  #end() {
    const focused = document.activeElement === this.cancel;
    this.running.hidden = true;
    this.presentation?.stop?.();
    if (focused) this.heading.focus({ preventScroll: true });
  }

  /** @param {string} message shown meanwhile */
  async #remove(message) {
    const { id } = this;
    if (id === null) return;
    this.cancel.disabled = this.delete.disabled = true;
    this.#say(message);
    try {
      this.leave();
      await api.remove(this.options.kind, id);
      location.hash = href(this.options.view);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) location.hash = href(this.options.view);
      else this.#explain(error, "Not deleted");
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
    const name = this.presentation?.step?.({ stage, done, total });
    this.progress.hidden = name !== undefined;
    if (total > 0) {
      this.progress.max = total;
      this.progress.value = done;
    } else {
      this.progress.removeAttribute("value");
    }
    this.stage.textContent = name ?? (total > 0 ? `${stage} (${count(done)} of ${count(total)})` : `${stage} …`);
  }
}
