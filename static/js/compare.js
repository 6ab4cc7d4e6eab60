/** The lower half of the page: run a comparison, watch it, cancel it, read it. */

import * as api from "./api.js";
import { byId } from "./dom.js";

/**
 * @import { Charts } from "./charts.js"
 * @import { Connection } from "./connection.js"
 * @import { ModelInfo, Progress, Report } from "./types.js"
 */

/** The modules that show a report: fetched with the first one, not with the page. */
async function presentation() {
  try {
    return { ...(await import("./charts.js")), ...(await import("./report.js")) };
  } catch (error) {
    if (error instanceof TypeError) throw new api.Unreachable("The service cannot be reached.");
    throw error;
  }
}

export class CompareView {
  /** @param {Connection} connection */
  constructor(connection) {
    this.connection = connection;
    this.run = byId("run", HTMLButtonElement);
    this.cancel = byId("cancel", HTMLButtonElement);
    this.progress = byId("progress", HTMLProgressElement);
    this.stage = byId("stage", HTMLElement);
    this.running = byId("running", HTMLElement);
    this.message = byId("compare-message", HTMLElement);
    this.report = byId("report", HTMLElement);
    /** @type {Charts | null} */
    this.charts = null;
    /** @type {AbortController | null} */
    this.abort = null;
    /** @type {string[]} */
    this.models = [];
    this.run.addEventListener("click", () => void this.#start());
    this.cancel.addEventListener("click", () => this.abort?.abort());
  }

  /** @param {ModelInfo[]} models to be compared */
  open(models) {
    this.models = models.map(({ name }) => name);
    this.run.disabled = models.length < 2;
    this.#say(models.length < 2 ? "A comparison takes two models to show, and there are not that many." : "");
  }

  async #start() {
    if (this.abort !== null) return;
    const abort = (this.abort = new AbortController());
    this.#busy(true);
    this.#say("");
    this.#step({ stage: "starting", done: 0, total: 0 });
    try {
      const [report, shown] = await Promise.all([
        api.compare({ models: this.models }, (progress) => this.#step(progress), abort.signal),
        presentation(),
      ]);
      this.#show(report, shown);
    } catch (error) {
      if (abort.signal.aborted) this.#say("Cancelled.");
      else if (error instanceof api.Refused || error instanceof api.Unreachable) {
        this.#say(`No comparison: ${error.message}`, true);
        if (error instanceof api.Unreachable) this.connection.lost(error.message);
      } else throw error;
    } finally {
      this.abort = null;
      this.#busy(false);
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

  /** @param {boolean} busy */
  #busy(busy) {
    const focused = document.activeElement;
    this.running.hidden = !busy;
    this.run.hidden = busy;
    // The button that had the focus is gone; the one in its place takes it.
    if (busy && focused === this.run) this.cancel.focus();
    if (!busy && focused === this.cancel) this.run.focus();
  }

  /** @param {Progress} progress */
  #step({ stage, done, total }) {
    if (total > 0) {
      this.progress.max = total;
      this.progress.value = done;
    } else {
      this.progress.removeAttribute("value");
    }
    this.stage.textContent = total > 0 ? `${stage} (${done} of ${total})` : `${stage} …`;
  }

  /**
   * @param {Report} report
   * @param {Awaited<ReturnType<typeof presentation>>} shown
   */
  #show(report, { Charts, findings, headline, ranOn, reportTable }) {
    byId("headline", HTMLElement).textContent = headline(report);
    byId("findings", HTMLElement).replaceChildren(...findings(report));
    byId("table", HTMLElement).replaceChildren(reportTable(report));
    byId("ran-on", HTMLElement).replaceChildren(ranOn(report));
    byId("report-empty", HTMLElement).hidden = true;
    this.report.hidden = false;
    this.run.textContent = "Run it again";
    this.charts ??= new Charts(byId("charts", HTMLElement));
    void this.charts.show(report);
  }
}
