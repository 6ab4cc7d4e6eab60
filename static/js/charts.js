/** The report's charts. Plotly is 4.8 MB, so it is fetched only once there is something to draw. */

import { h } from "./dom.js";
import { BYTES, bytes, count, duration, unitFor } from "./format.js";
import { shortName, tone } from "./models.js";

/**
 * @import { Measured, Report } from "./types.js"
 */

/** @typedef {{ react: (element: HTMLElement, data: object[], layout: object, config: object) => Promise<unknown>, purge: (element: HTMLElement) => void }} Plotly */

const SOURCE = "/static/vendor/plotly.min.js";

/** @type {Promise<Plotly> | null} */
let loading = null;

/** @returns {Promise<Plotly>} */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: SOURCE });
    script.addEventListener("load", () => {
      const found = /** @type {{ Plotly?: Plotly }} */ (/** @type {unknown} */ (globalThis)).Plotly;
      if (found) resolve(found);
      else reject(new Error("the charts' library came without its name"));
    });
    script.addEventListener("error", () => {
      script.remove();
      loading = null; // so that the next comparison tries again
      reject(new Error("the charts' library could not be fetched"));
    });
    document.head.append(script);
  });
  return loading;
}

/** @param {string} name of a custom property */
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * @param {Measured} model
 * @param {number} index
 */
const colour = ({ role }, index) => css(`--tone-${tone(role, index)}`);

/** @param {string} title of the value axis */
function layout(title) {
  const line = css("--line");
  return {
    autosize: true,
    margin: { l: 8, r: 12, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--ink") },
    hoverlabel: { font: { family: getComputedStyle(document.body).fontFamily, size: 13 } },
    dragmode: false,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    value: { title: { text: title, font: { size: 13, color: css("--muted") } }, automargin: true, gridcolor: line, zerolinecolor: line, fixedrange: true, rangemode: "tozero" },
    category: { automargin: true, showgrid: false, zeroline: false, fixedrange: true, linecolor: line, showline: true, ticks: "" },
  };
}

const CONFIG = { displayModeBar: false, responsive: true, showLink: false };

/** @param {Report} report */
function latencyChart({ models }) {
  const all = models.flatMap(({ latency }) => latency.flatMap(({ p50_us, p95_us }) => [p50_us, p95_us]));
  const unit = unitFor(Math.min(...all), [{ name: "µs", size: 1 }, { name: "ms", size: 1e3 }]);
  const { value, category, ...rest } = layout(`time of one call, ${unit.name}`);
  const wide = Math.max(...all) / Math.min(...all) > 8;
  const decades = ticks(Math.min(...all) / unit.size, Math.max(...all) / unit.size);
  const data = models.map((model, i) => ({
    type: "scatter",
    mode: "markers",
    name: model.model,
    x: model.latency.map((_, k) => k + (i - (models.length - 1) / 2) * 0.16),
    y: model.latency.map(({ p50_us }) => p50_us / unit.size),
    error_y: {
      type: "data",
      symmetric: false,
      array: model.latency.map(({ p50_us, p95_us }) => (p95_us - p50_us) / unit.size),
      arrayminus: model.latency.map(() => 0),
      thickness: 2,
      width: 7,
      color: colour(model, i),
    },
    marker: { color: colour(model, i), size: 12, symbol: i % 2 === 0 ? "circle" : "square" },
    text: model.latency.map(({ p50_us, p95_us }) => `p50 ${duration(p50_us)}, p95 ${duration(p95_us)}`),
    hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
  }));
  const sizes = models[0].latency.map(({ batch_size }) => batch_size);
  return {
    data,
    layout: {
      ...rest,
      showlegend: false,
      xaxis: { ...category, range: [-0.5, sizes.length - 0.5], tickvals: sizes.map((_, k) => k), ticktext: sizes.map((size) => (size === 1 ? "1 sample" : `${size} samples`)) },
      yaxis: wide
        ? { ...value, type: "log", range: [Math.log10(decades[0]), Math.log10(decades[decades.length - 1])], tickvals: decades, ticktext: decades.map(digitsPlain) }
        : value,
    },
    alt: `Latency by batch size. ${models.map((m) => `${m.model}: ${m.latency.map((l) => `${l.batch_size} at a time, median ${duration(l.p50_us)}, 95th percentile ${duration(l.p95_us)}`).join("; ")}`).join(". ")}.`,
  };
}

/** @param {number} value */
const digitsPlain = (value) => (value >= 1 ? count(value) : String(value));

/**
 * 1, 3, 10, 30 ... around a range: a logarithmic axis that can be read.
 * @param {number} low
 * @param {number} high
 */
function ticks(low, high) {
  const found = [];
  for (let k = Math.floor(Math.log10(low)); found.length < 40; k++) {
    for (const step of [1, 3]) {
      const tick = Number((step * 10 ** k).toPrecision(1));
      if (tick * 3.4 > low) found.push(tick);
      if (tick >= high) return found;
    }
  }
  return found;
}

/** @param {Report} report */
function memoryChart({ models }) {
  const unit = unitFor(Math.max(...models.map(({ memory }) => memory.peak_rss_bytes)), BYTES);
  const { value, category, ...rest } = layout(`resident memory of a process, ${unit.name}`);
  const parts = models.map(({ memory: m }) => ({
    base: m.baseline_rss_bytes,
    model: Math.max(0, m.loaded_rss_bytes - m.baseline_rss_bytes),
    peak: Math.max(0, m.peak_rss_bytes - Math.max(m.loaded_rss_bytes, m.baseline_rss_bytes)),
  }));
  const neutral = css("--line-strong");
  /**
   * @param {string} name
   * @param {(part: { base: number, model: number, peak: number }) => number} get
   * @param {string[]} colours
   * @param {number} opacity
   */
  const bar = (name, get, colours, opacity) => ({
    type: "bar",
    orientation: "h",
    name,
    y: models.map((_, i) => shortName(models, i)),
    x: parts.map((part) => get(part) / unit.size),
    marker: { color: colours, opacity },
    hovertemplate: `%{x:.3~g} ${unit.name} ${name}<extra>%{y}</extra>`,
  });
  const colours = models.map(colour);
  return {
    data: [
      bar("runtime, before loading", (p) => p.base, models.map(() => neutral), 1),
      bar("added by loading", (p) => p.model, colours, 1),
      bar("more while running", (p) => p.peak, colours, 0.45),
    ],
    layout: { ...rest, barmode: "stack", bargap: 0.4, showlegend: false, xaxis: value, yaxis: { ...category, autorange: "reversed" } },
    alt: `Memory of a process. ${models.map((m, i) => `${m.model}: ${bytes(parts[i].base)} before loading, ${bytes(parts[i].model)} added by loading, ${bytes(parts[i].peak)} more at the peak`).join(". ")}.`,
  };
}

/** @param {Report} report */
function fileChart({ models }) {
  const unit = unitFor(Math.max(...models.map(({ file_bytes }) => file_bytes)), BYTES);
  const { value, category, ...rest } = layout(`size of the file, ${unit.name}`);
  return {
    data: [
      {
        type: "bar",
        orientation: "h",
        y: models.map((_, i) => shortName(models, i)),
        x: models.map(({ file_bytes }) => file_bytes / unit.size),
        marker: { color: models.map(colour) },
        text: models.map(({ file_bytes }) => bytes(file_bytes)),
        textposition: "auto",
        insidetextfont: { color: css("--surface") },
        hovertemplate: "%{text}<extra>%{y}</extra>",
      },
    ],
    layout: { ...rest, bargap: 0.4, showlegend: false, xaxis: value, yaxis: { ...category, autorange: "reversed" } },
    alt: `Size of the file. ${models.map((m) => `${m.model}: ${bytes(m.file_bytes)}`).join(", ")}.`,
  };
}

export class Charts {
  /** @param {HTMLElement} root with one child for each chart */
  constructor(root) {
    this.root = root;
    /** @type {Report | null} */
    this.report = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => void this.#draw());
  }

  /** @param {Report} report */
  async show(report) {
    this.report = report;
    await this.#draw();
  }

  async #draw() {
    const { report } = this;
    if (report === null) return;
    /** @type {[string, (report: Report) => { data: object[], layout: object, alt: string }][]} */
    const kinds = [["latency", latencyChart], ["memory", memoryChart], ["file", fileChart]];
    let library;
    try {
      library = await plotly();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.root.classList.add("failed");
      this.root.dataset.message = `No charts: ${error.message}. The table below has every figure.`;
      return;
    }
    this.root.classList.remove("failed");
    for (const [name, make] of kinds) {
      const place = this.root.querySelector(`[data-chart="${name}"]`);
      if (!(place instanceof HTMLElement)) continue;
      const chart = make(report);
      place.setAttribute("aria-label", chart.alt);
      await library.react(place, chart.data, chart.layout, CONFIG);
    }
  }
}
