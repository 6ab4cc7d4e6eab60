/** The report of a sweep: the crossover widths in words, charts that grow while it runs, a table of all figures. */

import { showCrossover } from "../../charts/crossover.js";
import { h } from "../../ui/dom.js";
import { count, duration, times } from "../../ui/format.js";
import { closedPanel, environmentPanel, tableRegion } from "../jobs/panels.js";

/**
 * @import { Cell, SweepReport } from "../../api/types.js"
 * @import { Presentation } from "../jobs/types.js"
 */

/** @param {number[]} values */
const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);

/**
 * @param {Cell[]} cells
 * @param {number} rank
 */
function tone(cells, rank) {
  const shade = distinct(cells.map((cell) => cell.rank)).indexOf(rank);
  return `tone-kronecker${shade > 0 ? ` shade-${Math.min(shade, 3)}` : ""}`;
}

/**
 * @param {number} batch
 * @param {number} threads
 */
const configuration = (batch, threads) => `${batch === 1 ? "1 sample" : `${count(batch)} samples`} at a time, ${threads === 1 ? "1 thread" : `${threads} threads`}`;

/**
 * @param {Cell[]} cells all cells, so that the charts share their scales
 * @param {number} batch
 * @param {number} threads
 */
function chart(cells, batch, threads) {
  const shown = cells.filter((cell) => cell.batch_size === batch && cell.threads === threads);
  const curves = distinct(shown.map(({ rank }) => rank)).map((rank) => ({
    name: `rank ${rank}`,
    tone: tone(cells, rank),
    points: shown
      .filter((cell) => cell.rank === rank)
      .sort((a, b) => a.width - b.width)
      .map(({ width, ratio, low, high, verdict }) => ({ x: width, y: ratio, low, high, clear: verdict !== "not distinguishable" })),
  }));
  const place = h("div", { class: "chart" });
  showCrossover(place, {
    curves,
    widths: distinct(cells.map(({ width }) => width)),
    range: [Math.min(0.5, ...cells.map(({ low }) => low)), Math.max(2, ...cells.map(({ high }) => high))],
    alternative: `Time of dense over time of Kronecker by width; ${configuration(batch, threads)}. ${curves.map(({ name, points }) => `${name}: ${points.map(({ x, y }) => `${count(x)} wide ${times(y)}`).join(", ")}`).join(". ")}.`,
  });
  return h("figure", {}, h("figcaption", {}, configuration(batch, threads)), place);
}

/** @param {Cell[]} cells */
function table(cells) {
  const columns = ["Width", "Rank", "Batch", "Threads", "Dense p50", "Kronecker p50", "Speed ratio", "95 % interval", "Multiply-adds ratio", "Kronecker is"];
  return h(
    "table",
    {},
    h("caption", { class: "sr-only" }, "All figures"),
    h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      ...cells.map((cell) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, count(cell.width)),
          ...[count(cell.rank), count(cell.batch_size), count(cell.threads), duration(cell.dense_p50_us), duration(cell.kronecker_p50_us)].map((text) => h("td", {}, text)),
          h("td", { class: "ratio" }, times(cell.ratio)),
          ...[`${cell.low.toPrecision(3)} to ${cell.high.toPrecision(3)}`, times(cell.macs_ratio), `${cell.verdict}${cell.unstable ? " (unstable)" : ""}`].map((text) => h("td", {}, text)),
        ),
      ),
    ),
  );
}

/** @implements {Presentation} */
export class SweepPresentation {
  constructor() {
    /** @type {Cell[]} */
    this.cells = [];
    this.words = h("ul", { class: "crossovers", "aria-live": "polite" });
    this.charts = h("div", { class: "chart-grid" });
    this.panel = h(
      "section",
      { class: "panel" },
      h("h2", {}, "Speed ratio by width"),
      h("p", { class: "muted" }, "Median time of the dense network over that of the Kronecker network. Above the dashed line, the Kronecker network is faster. Band: 95 % interval. Hollow: not distinguishable."),
      this.charts,
    );
    this.rest = h("div", { class: "report" });
    this.element = h("div", { class: "report" }, this.words, this.panel, this.rest);
  }

  /**
   * @param {string} event
   * @param {{ cells: Cell[] }} data
   */
  update(event, { cells }) {
    if (event !== "cells") return;
    const key = (/** @type {Cell} */ cell) => [cell.width, cell.rank, cell.batch_size, cell.threads].join();
    const known = new Set(this.cells.map(key));
    this.cells = [...this.cells, ...cells.filter((cell) => !known.has(key(cell)))];
    this.#draw();
  }

  /** @param {SweepReport} report */
  show(report) {
    this.cells = report.cells;
    this.words.replaceChildren(...report.crossovers.map(({ sentence }) => h("li", {}, sentence)));
    this.#draw();
    this.rest.replaceChildren(
      closedPanel("All figures", tableRegion("All figures", table(report.cells))),
      environmentPanel(report),
    );
  }

  #draw() {
    const { cells } = this;
    const configurations = distinct(cells.map(({ threads }) => threads)).flatMap((threads) => distinct(cells.map(({ batch_size }) => batch_size)).map((batch) => ({ batch, threads })));
    this.charts.replaceChildren(...configurations.map(({ batch, threads }) => chart(cells, batch, threads)));
  }
}
