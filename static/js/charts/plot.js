/** An SVG as wide as its place, drawn anew when the place changes. Colours come from the style sheet. */

import { s } from "../ui/dom.js";

/** Labels at the end of a line keep this distance. */
const LABEL = 15;

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
 * @param {string} alternative what the chart shows, in words
 * @param {...import("../ui/dom.js").Child} children
 */
export function canvas(width, height, alternative, ...children) {
  return s("svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alternative }, ...children);
}

/**
 * A mark whose form tells a role as its colour does: a disc, a square, a diamond.
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
 * As much of a text as fits, its beginning and its end: names often differ there. The whole is told by a title.
 * @param {string} text
 * @param {number} width pixels
 */
export function fit(text, width) {
  const most = Math.max(3, Math.floor(width / 7.2));
  return text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(text.length - Math.floor(most / 2))}` : text;
}

/**
 * Moves labels apart that would lie on each other.
 * @param {number[]} places sorted downwards
 */
export function apart(places) {
  const found = [...places];
  for (let i = 1; i < found.length; i++) found[i] = Math.max(found[i], found[i - 1] + LABEL);
  return found;
}
