/** What the service does right now: its metrics, read each second while somebody looks. */

import { Refused } from "../../api/client.js";
import { Timeline } from "../../charts/timeline.js";
import { h } from "../../ui/dom.js";
import { TIME, count, digits, duration } from "../../ui/format.js";
import { metrics, shadow as askShadow } from "../../api/live.js";
import { MEMORY as BYTES, memory as mebibytes } from "../../ui/memory.js";
import { ANSWERED, COMPUTE, CPU, FAILURES, MEMORY, QUEUE, REQUEST, STARTED } from "./metric-names.js";
import { Snapshot, parseMetrics, percentile, rate } from "./metrics.js";
import { tone } from "../../model/display.js";
import { shadowPanel } from "./shadow.js";
import { when } from "../../ui/when.js";

/**
 * @import { App, View } from "../../shell/router.js"
 */

const EVERY_MS = 1000;
const KEPT = 121;
/** Latencies are told over this many seconds: of a single one there are too few. */
const WINDOW = 10;
const NOTHING = "–";
/** Columns that a phone has no room for. */
const SPARE = new Set(["a second", "p99"]);

/** @param {number | null} seconds */
const microseconds = (seconds) => (seconds === null ? null : seconds * 1e6);
/** @param {number | null} value microseconds */
const time = (value) => (value === null ? NOTHING : duration(value));
/** A share of one core. @type {import("../../ui/format.js").Unit[]} */
const CORES = [{ name: "%", size: 0.01 }];
/** @type {import("../../ui/format.js").Unit[]} */
const PLAIN = [{ name: "", size: 1 }];
/** @param {number} share */
const cores = (share) => `${Math.round(1000 * share) / 10}\u202f%`;
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
    this.timeline = new Timeline(this.place, KEPT, units, layered);
    this.format = format;
  }

  /**
   * @param {string} text
   * @param {import("../../charts/timeline.js").Line[]} lines
   * @param {(number | null)[]} [values] that the words tell of
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
    /** @type {(Snapshot | null)[]} null where the service was away */
    this.history = [];
    this.timer = 0;
    this.looking = false;
    this.asking = false;
    this.locked = false;
    this.rate = new Tile("Predictions a second", "A request that two models answer counts twice.", digits, PLAIN, true);
    this.latency = new Tile("Time to answer", `From the parsed request to its answer: median and 95th percentile of the last ${WINDOW} seconds, to within a bucket of the histogram.`, duration, TIME);
    this.memory = new Tile("Memory", "Resident memory of the service.", mebibytes, BYTES);
    this.cpu = new Tile("Processor", "100 % is one core, busy all the time.", cores, CORES);
    this.state = h("p", { class: "message", role: "status" }, "Asking the service …");
    this.table = h("div", { class: "table" });
    this.failures = h("div", { class: "table" });
    this.shadow = h("section", { class: "panel", hidden: true });
    this.shadowed = true;
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
    this.looking = this.shadowed = true;
    this.locked = false;
    for (const tile of [this.rate, this.latency, this.memory, this.cpu]) tile.show(NOTHING, []);
    this.#run();
  }

  hide() {
    this.looking = false;
    clearTimeout(this.timer);
  }

  /** Goes on while somebody looks and the service is there. */
  #run() {
    clearTimeout(this.timer);
    if (this.looking && document.visibilityState === "visible" && !this.asking && !this.locked && !this.connection.gone) void this.#ask();
  }

  async #ask() {
    this.asking = true;
    const began = performance.now();
    try {
      if (this.catalog.models.length === 0) await this.catalog.load();
      const snapshot = new Snapshot(parseMetrics(await metrics()), performance.now() / 1000);
      if (this.shadowed) await this.#askShadow();
      const last = this.history.findLast((each) => each !== null);
      // Nobody looked for a while: the line has a gap there.
      if (last && snapshot.at - last.at > 3) this.#keep(null);
      this.#keep(snapshot);
      this.#show();
    } catch (error) {
      this.state.textContent = `No news: ${this.connection.explain(error)}`;
      // Without a key there is nothing to be had until somebody enters one.
      this.locked = error instanceof Refused && (error.status === 401 || error.status === 403);
      this.state.classList.add("failed");
      this.#keep(null);
    } finally {
      this.asking = false;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#run(), Math.max(0, EVERY_MS - (performance.now() - began)));
    }
  }

  /** A service without a shadow is not asked again: it takes a restart to have one. */
  async #askShadow() {
    const shadow = await askShadow();
    this.shadowed = shadow.primary !== null;
    this.shadow.hidden = !this.shadowed;
    this.shadow.replaceChildren(...shadowPanel(shadow));
  }

  /** @param {Snapshot | null} snapshot */
  #keep(snapshot) {
    this.history.push(snapshot);
    if (this.history.length > KEPT) this.history.shift();
  }

  /**
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
    const models = now.values(ANSWERED, "model").sort((a, b) => order(a) - order(b));
    const tones = this.#tones(models);
    const rates = models.map((model) => this.#changes((a, b, s) => rate(a.sum(ANSWERED, { model }), b.sum(ANSWERED, { model }), s)));
    const all = this.#changes((a, b, s) => rate(a.sum(ANSWERED), b.sum(ANSWERED), s));
    /** @param {(number | null)[]} values */
    const last = (values) => values[values.length - 1] ?? null;
    this.rate.show(number(last(all)), rates.map((values, i) => ({ tone: tones[i], values })), all);

    /** @param {number} share */
    const times = (share) => this.#changes((a, b) => microseconds(percentile(a.buckets(REQUEST), b.buckets(REQUEST), share)), WINDOW);
    const [p50, p95] = [times(0.5), times(0.95)];
    this.latency.show(last(p50) === null ? NOTHING : `${time(last(p50))} / ${time(last(p95))}`, [{ tone: "neutral", values: p50 }, { tone: "neutral pale", values: p95 }]);
    // Of several processes none tells for all.
    this.memory.element.hidden = now.sum(MEMORY) === null;
    this.cpu.element.hidden = now.sum(CPU) === null;
    const memory = this.history.map((each) => each?.sum(MEMORY) ?? null);
    this.memory.show(last(memory) === null ? NOTHING : mebibytes(last(memory) ?? 0), [{ tone: "neutral", values: memory }]);
    const cpu = this.#changes((a, b, s) => rate(a.sum(CPU), b.sum(CPU), s));
    this.cpu.show(last(cpu) === null ? NOTHING : cores(last(cpu) ?? 0), [{ tone: "neutral", values: cpu }]);

    this.#words(now);
    this.#tables(now, models, tones, rates.map(last));
  }

  /** @param {string[]} models */
  #tones(models) {
    const known = models.map((name) => ({ role: this.catalog.find(name)?.card?.role }));
    return models.map((_, i) => tone(known, i));
  }

  /** @param {Snapshot} now */
  #words(now) {
    const started = now.sum(STARTED);
    const answered = now.sum(ANSWERED) ?? 0;
    const failed = now.sum(FAILURES) ?? 0;
    const since = started === null ? "" : ` since ${when(started * 1000)}`;
    const text = `${count(answered)} predictions and ${count(failed)} failures${since}.`;
    this.state.classList.remove("failed");
    this.state.removeAttribute("role"); // it changes each second: nobody wants to hear that
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
    /** @type {(name: string, where: Record<string, string> | undefined, share: number) => string} */
    const at = (name, where, share) => time(microseconds(percentile(before.buckets(name, where), now.buckets(name, where), share)));
    const shares = [0.5, 0.95, 0.99];
    this.table.replaceChildren(
      h(
        "table",
        {},
        h("caption", {}, "By model ", h("span", { class: "muted" }, `compute times of the last ${WINDOW} seconds`)),
        h("thead", {}, h("tr", {}, ...["Model", "Predictions", "a second", "p50", "p95", "p99"].map((name) => h("th", { scope: "col", class: SPARE.has(name) && "spare" }, name)))),
        h(
          "tbody",
          {},
          ...models.map((model, i) =>
            h(
              "tr",
              { class: tones[i] },
              h("th", { scope: "row" }, h("span", { class: "swatch" }), model),
              h("td", {}, count(now.sum(ANSWERED, { model }) ?? 0)),
              h("td", { class: "spare" }, number(rates[i])),
              ...shares.map((share) => h("td", { class: share === 0.99 && "spare" }, at(COMPUTE, { model }, share))),
            ),
          ),
          ...[["waiting for a thread", QUEUE], ["from request to answer", REQUEST]].map(([words, name]) =>
            h("tr", {}, h("th", { scope: "row" }, words), h("td", {}), h("td", { class: "spare" }), ...shares.map((share) => h("td", { class: share === 0.99 && "spare" }, at(name, undefined, share)))),
          ),
        ),
      ),
    );
    const reasons = now.of(FAILURES).filter(({ value }) => value > 0).sort((a, b) => b.value - a.value);
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
