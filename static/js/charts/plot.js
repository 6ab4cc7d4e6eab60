/** SVG plots that are redrawn when the width of their container changes. Colours come from charts/plot.css. */

import { s } from "../ui/dom.js";

/** Minimum distance of labels at the ends of lines, in pixels. */
const LABEL_DISTANCE = 15;

export class Plot {
  /**
   * @param {HTMLElement} place
   * @param {(width: number) => SVGElement} paint
   */
  constructor(place, paint) {
    this.place = place;
    this.paint = paint;
    this.width = 0;
    new ResizeObserver(() => {
      if (Math.abs(this.place.clientWidth - this.width) >= 1) this.draw();
    }).observe(place);
  }

  draw() {
    this.width = this.place.clientWidth;
    if (this.width > 0) this.place.replaceChildren(this.paint(this.width));
  }
}

/**
 * @param {number} width
 * @param {number} height
 * @param {string} alternative text for screen readers
 * @param {...import("../ui/dom.js").Child} children
 */
export function canvas(width, height, alternative, ...children) {
  return s("svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alternative }, ...children);
}

/**
 * Draws a mark whose shape shows the role as its colour does: disc, square or diamond.
 * @param {number} x
 * @param {number} y
 * @param {string} tone
 */
export function mark(x, y, tone) {
  if (tone.startsWith("tone-dense")) return s("rect", { class: "mark", x: x - 5, y: y - 5, width: 10, height: 10 });
  if (tone.startsWith("tone-other")) return s("path", { class: "mark", d: `M${x - 6.5} ${y}l6.5-6.5l6.5 6.5l-6.5 6.5z` });
  return s("circle", { class: "mark", cx: x, cy: y, r: 5.5 });
}

/**
 * Shortens a text in the middle: names often differ at their beginning or end. A title has the whole text.
 * @param {string} text
 * @param {number} width pixels
 */
export function fit(text, width) {
  const most = Math.max(3, Math.floor(width / 7.2));
  return text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(text.length - Math.floor(most / 2))}` : text;
}

/**
 * Moves labels apart that would overlap.
 * @param {number[]} places vertical positions in ascending order
 */
export function apart(places) {
  const found = [...places];
  for (let i = 1; i < found.length; i++) found[i] = Math.max(found[i], found[i - 1] + LABEL_DISTANCE);
  return found;
}
