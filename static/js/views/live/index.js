/** The Live view: the service's metrics, fetched each second while the page is visible. */

import { ApiError } from "../../api/client.js";
import { Timeline } from "../../charts/timeline.js";
import { tone } from "../../model/display.js";
import { h } from "../../ui/dom.js";
import { TIME_UNITS, count, digits, duration } from "../../ui/format.js";
import { MEMORY_UNITS, dateTime, memorySize } from "../../ui/text.js";
import { METRICS, Snapshot, fetchMetrics, parseMetrics, percentile, rate } from "./metrics.js";
import { fetchShadow, shadowPanel } from "./shadow.js";

/**
 * @import { App, View } from "../../shell/types.js"
 */

const INTERVAL_MS = 1000;
/** Number of snapshots to keep: two minutes. */
const HISTORY = 121;
/** Seconds over which latencies are computed: a single second has too few requests. */
const WINDOW = 10;
const NOTHING = "–";
/** Columns hidden on narrow screens. */
const OPTIONAL = new Set(["per second", "p99"]);

/** @param {number | null} seconds */
const microseconds = (seconds) => (seconds === null ? null : seconds * 1e6);
/** @param {number | null} value microseconds */
const time = (value) => (value === null ? NOTHING : duration(value));
/** Fractions of one core. @type {import("../../ui/format.js").Unit[]} */
const CORES = [{ name: "%", size: 0.01 }];
/** @type {import("../../ui/format.js").Unit[]} */
const NO_UNITS = [{ name: "", size: 1 }];
/** @param {number} value */
const cores = (value) => `${Math.round(1000 * value) / 10}\u202f%`;
/** @param {number | null} value */
const number = (value) => (value === null ? NOTHING : digits(value));

class Tile {
  /**
   * @param {string} title
   * @param {string} note
   * @param {(value: number) => string} format
   * @param {import("../../ui/format.js").Unit[]} units
   * @param {boolean} [layered]
   */
  constructor(title, note, format, units, layered) {
    this.title = title;
    this.value = h("p", { class: "figure-number" }, NOTHING);
    this.place = h("div", { class: "timeline" });
    this.element = h("section", { class: "panel tile" }, h("h2", {}, title), this.value, this.place, h("p", { class: "muted" }, note));
    this.timeline = new Timeline(this.place, HISTORY, units, layered);
    this.format = format;
  }

  /**
   * @param {string} text
   * @param {import("../../charts/timeline.js").Line[]} lines
   * @param {(number | null)[]} [values] whose maximum the text alternative states
   */
  show(text, lines, values = lines[0]?.values ?? []) {
    this.value.textContent = text;
    const known = values.filter((value) => value !== null);
    const highest = known.length > 0 ? `; highest in the last two minutes ${this.format(Math.max(...known))}` : "";
    this.timeline.show(lines, `${this.title}: now ${text}${highest}.`);
  }
}

/** @implements {View} */
class LiveView {
  /** @param {App} app */
  constructor({ connection, catalog }) {
    this.connection = connection;
    this.catalog = catalog;
    /** @type {(Snapshot | null)[]} null while the service was unreachable */
    this.history = [];
    this.timer = 0;
    this.visible = false;
    this.fetching = false;
    this.locked = false;
    this.rate = new Tile("Predictions per second", "A request to two models counts twice.", digits, NO_UNITS, true);
    this.latency = new Tile("Latency", `From the parsed request to its answer: median and 95th percentile of the last ${WINDOW} seconds, interpolated within buckets of the histogram.`, duration, TIME_UNITS);
    this.memory = new Tile("Memory", "Resident memory of the service.", memorySize, MEMORY_UNITS);
    this.cpu = new Tile("Processor", "100 % is one fully used core.", cores, CORES);
    this.state = h("p", { class: "message", role: "status" }, "Loading …");
    this.table = h("div", { class: "table" });
    this.failures = h("div", { class: "table" });
    this.shadow = h("section", { class: "panel", hidden: true });
    this.hasShadow = true;
    this.element = h(
      "section",
      { class: "view live-view" },
      h("h1", {}, "Live"),
      this.state,
      h("div", { class: "tiles" }, this.rate.element, this.latency.element, this.memory.element, this.cpu.element),
      this.table,
      this.shadow,
      this.failures,
    );
    document.addEventListener("visibilitychange", () => this.#run());
    connection.addEventListener("back", () => {
      this.locked = false;
      this.#run();
    });
  }

  title() {
    return "Live";
  }

  show() {
    this.visible = this.hasShadow = true;
    this.locked = false;
    for (const tile of [this.rate, this.latency, this.memory, this.cpu]) tile.show(NOTHING, []);
    this.#run();
  }

  hide() {
    this.visible = false;
    clearTimeout(this.timer);
  }

  /** Fetches while the view is visible and the service can be reached. */
  #run() {
    clearTimeout(this.timer);
    if (this.visible && document.visibilityState === "visible" && !this.fetching && !this.locked && !this.connection.gone) void this.#fetch();
  }

  async #fetch() {
    this.fetching = true;
    const began = performance.now();
    try {
      if (this.catalog.models.length === 0) await this.catalog.load();
      const snapshot = new Snapshot(parseMetrics(await fetchMetrics()), performance.now() / 1000);
      if (this.hasShadow) await this.#fetchShadow();
      const last = this.history.findLast((each) => each !== null);
      // The page was hidden meanwhile: the line has a gap.
      if (last && snapshot.at - last.at > 3) this.#keep(null);
      this.#keep(snapshot);
      this.#show();
    } catch (error) {
      this.state.textContent = `No metrics: ${this.connection.explain(error)}`;
      // Wait until the user enters a key.
      this.locked = error instanceof ApiError && (error.status === 401 || error.status === 403);
      this.state.classList.add("failed");
      this.#keep(null);
    } finally {
      this.fetching = false;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#run(), Math.max(0, INTERVAL_MS - (performance.now() - began)));
    }
  }

  /** Fetches the shadow statistics; without a shadow only once, since one is added by a restart of the service. */
  async #fetchShadow() {
    const shadow = await fetchShadow();
    this.hasShadow = shadow.primary !== null;
    this.shadow.hidden = !this.hasShadow;
    this.shadow.replaceChildren(...shadowPanel(shadow));
  }

  /** @param {Snapshot | null} snapshot */
  #keep(snapshot) {
    this.history.push(snapshot);
    if (this.history.length > HISTORY) this.history.shift();
  }

  /**
   * Compares each snapshot with an earlier one.
   * @template T
   * @param {(before: Snapshot, after: Snapshot, seconds: number) => T} compare
   * @param {number} [back] snapshots
   * @returns {(T | null)[]} one for each snapshot after the first
   */
  #changes(compare, back = 1) {
    return this.history.slice(1).map((after, i) => {
      const before = this.history.slice(Math.max(0, i + 1 - back), i + 1).find((each) => each !== null);
      return before && after && this.history[i] !== null ? compare(before, after, after.at - before.at) : null;
    });
  }

  #show() {
    const now = this.history[this.history.length - 1];
    if (!now) return;
    const order = (/** @type {string} */ name) => this.catalog.models.findIndex((model) => model.name === name);
    const models = now.values(METRICS.success, "model").sort((a, b) => order(a) - order(b));
    const tones = this.#tones(models);
    const rates = models.map((model) => this.#changes((a, b, s) => rate(a.sum(METRICS.success, { model }), b.sum(METRICS.success, { model }), s)));
    const all = this.#changes((a, b, s) => rate(a.sum(METRICS.success), b.sum(METRICS.success), s));
    /** @param {(number | null)[]} values */
    const last = (values) => values[values.length - 1] ?? null;
    this.rate.show(number(last(all)), rates.map((values, i) => ({ tone: tones[i], values })), all);

    /** @param {number} fraction */
    const times = (fraction) => this.#changes((a, b) => microseconds(percentile(a.buckets(METRICS.request), b.buckets(METRICS.request), fraction)), WINDOW);
    const [p50, p95] = [times(0.5), times(0.95)];
    this.latency.show(last(p50) === null ? NOTHING : `${time(last(p50))} / ${time(last(p95))}`, [{ tone: "neutral", values: p50 }, { tone: "neutral pale", values: p95 }]);
    // With several worker processes, these metrics are not available.
    this.memory.element.hidden = now.sum(METRICS.memory) === null;
    this.cpu.element.hidden = now.sum(METRICS.cpu) === null;
    const memory = this.history.map((each) => each?.sum(METRICS.memory) ?? null);
    this.memory.show(last(memory) === null ? NOTHING : memorySize(last(memory) ?? 0), [{ tone: "neutral", values: memory }]);
    const cpu = this.#changes((a, b, s) => rate(a.sum(METRICS.cpu), b.sum(METRICS.cpu), s));
    this.cpu.show(last(cpu) === null ? NOTHING : cores(last(cpu) ?? 0), [{ tone: "neutral", values: cpu }]);

    this.#summary(now);
    this.#tables(now, models, tones, rates.map(last));
  }

  /** @param {string[]} models */
  #tones(models) {
    const known = models.map((name) => ({ role: this.catalog.find(name)?.card?.role }));
    return models.map((_, i) => tone(known, i));
  }

  /** @param {Snapshot} now */
  #summary(now) {
    const started = now.sum(METRICS.start);
    const answered = now.sum(METRICS.success) ?? 0;
    const failed = now.sum(METRICS.failures) ?? 0;
    const since = started === null ? "" : ` since ${dateTime(started * 1000)}`;
    const text = `${count(answered)} predictions and ${count(failed)} failures${since}.`;
    this.state.classList.remove("failed");
    this.state.removeAttribute("role"); // it changes each second, which screen readers should not announce
    this.state.textContent = text;
  }

  /**
   * @param {Snapshot} now
   * @param {string[]} models
   * @param {string[]} tones
   * @param {(number | null)[]} rates
   */
  #tables(now, models, tones, rates) {
    const before = this.history.slice(-1 - WINDOW).find((each) => each !== null) ?? now;
    /** @type {(name: string, where: Record<string, string> | undefined, fraction: number) => string} */
    const at = (name, where, fraction) => time(microseconds(percentile(before.buckets(name, where), now.buckets(name, where), fraction)));
    const fractions = [0.5, 0.95, 0.99];
    this.table.replaceChildren(
      h(
        "table",
        {},
        h("caption", {}, "Models ", h("span", { class: "muted" }, `compute times of the last ${WINDOW} seconds`)),
        h("thead", {}, h("tr", {}, ...["Model", "Predictions", "per second", "p50", "p95", "p99"].map((name) => h("th", { scope: "col", class: OPTIONAL.has(name) && "optional" }, name)))),
        h(
          "tbody",
          {},
          ...models.map((model, i) =>
            h(
              "tr",
              { class: tones[i] },
              h("th", { scope: "row" }, h("span", { class: "swatch" }), model),
              h("td", {}, count(now.sum(METRICS.success, { model }) ?? 0)),
              h("td", { class: "optional" }, number(rates[i])),
              ...fractions.map((fraction) => h("td", { class: fraction === 0.99 && "optional" }, at(METRICS.compute, { model }, fraction))),
            ),
          ),
          ...[["waiting for a thread", METRICS.queue], ["from request to answer", METRICS.request]].map(([title, name]) =>
            h("tr", {}, h("th", { scope: "row" }, title), h("td", {}), h("td", { class: "optional" }), ...fractions.map((fraction) => h("td", { class: fraction === 0.99 && "optional" }, at(name, undefined, fraction)))),
          ),
        ),
      ),
    );
    const reasons = now.of(METRICS.failures).filter(({ value }) => value > 0).sort((a, b) => b.value - a.value);
    this.failures.hidden = reasons.length === 0;
    this.failures.replaceChildren(
      h(
        "table",
        {},
        h("caption", {}, "Failures since the start"),
        h("tbody", {}, ...reasons.slice(0, 20).map(({ labels, value }) => h("tr", {}, h("th", { scope: "row" }, Object.values(labels).join(", ")), h("td", {}, count(value))))),
      ),
    );
  }
}

/** @param {App} app */
export const makeView = (app) => new LiveView(app);
