/**
 * The drawing pad: white ink on black, by mouse, touch, pen, or arrow keys. It also shows a ready-made image; drawing
 * over one starts afresh.
 */

import { greyLayout, paint } from "./image.js";
import { boundingBox } from "./prepare.js";

/** @import { Grey } from "./prepare.js" */

/** Pixels along one side of the drawing, whatever its size on the screen. */
const SIDE = 448;
/** A pen about as wide as MNIST's, once the drawing is fitted into 20 × 20. */
const PEN = SIDE / 12;
/** One press of an arrow key. */
const STEP = SIDE / 28;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** @typedef {{ x: number, y: number }} Point */

export class Pad extends EventTarget {
  /**
   * Dispatches "change" whenever the ink changes and "start" when the first stroke of a new drawing begins.
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} cursor shows where the keyboard's pen is
   */
  constructor(canvas, cursor) {
    super();
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("this browser has no 2-d canvas");
    this.canvas = canvas;
    this.cursor = cursor;
    this.context = context;
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.lineWidth = PEN;
    /** Whether the ink is the reader's own, not a sample's. */
    this.drawn = false;
    this.blank = true;
    /** @type {Point | null} */
    this.last = null;
    /** @type {Point | null} */
    this.middle = null;
    /** @type {Point} */
    this.pen = { x: SIDE / 2, y: SIDE / 2 };
    this.penDown = false;
    this.#paintBackground();
    this.#listen();
  }

  clear() {
    this.#paintBackground();
    this.drawn = false;
    this.blank = true;
    this.last = this.middle = null;
    this.#setPenDown(false);
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Shows an image instead of a drawing. No "change" follows: whoever shows it knows what it is.
   * @param {HTMLCanvasElement} image
   */
  show(image) {
    this.#paintBackground();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(image, 0, 0, SIDE, SIDE);
    this.drawn = false;
    this.blank = false;
    this.#setPenDown(false);
  }

  /**
   * Takes ink from elsewhere as a drawing, fitted into the middle.
   * @param {Grey} grey
   */
  place({ values, width, height }) {
    const small = document.createElement("canvas");
    paint(small, values, greyLayout({ values, width, height }));
    const box = boundingBox({ values, width, height });
    if (box === null) return;
    const scale = (SIDE * 0.72) / Math.max(box.width, box.height);
    this.#paintBackground();
    this.context.imageSmoothingEnabled = true;
    const [w, h] = [box.width * scale, box.height * scale];
    this.context.drawImage(small, box.left, box.top, box.width, box.height, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
    this.#taken();
  }

  /** @returns {string} the drawing as an address, for `restore` */
  toAddress() {
    return this.canvas.toDataURL("image/png");
  }

  /**
   * @param {string} address of an earlier drawing
   * @returns {Promise<void>} once it is on the pad, or turned out to be none
   */
  async restore(address) {
    const image = new Image();
    image.src = address;
    try {
      await image.decode();
    } catch (error) {
      if (error instanceof DOMException) return;
      throw error;
    }
    if (this.drawn) return; // the hand was faster
    this.context.drawImage(image, 0, 0, SIDE, SIDE);
    this.#taken();
  }

  #taken() {
    this.drawn = true;
    this.blank = boundingBox(this.grey()) === null;
    this.#setPenDown(false);
    this.dispatchEvent(new Event("start"));
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {Grey} the ink, 0..1 */
  grey() {
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    const values = new Float32Array(SIDE * SIDE);
    for (let i = 0; i < values.length; i++) values[i] = data[4 * i] / 255;
    return { values, width: SIDE, height: SIDE };
  }

  #paintBackground() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.context.fillStyle = this.context.strokeStyle = "#fff";
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#setPenDown(false);
      this.#begin(this.#place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!event.isPrimary || this.last === null || !canvas.hasPointerCapture(event.pointerId)) return;
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const move of moves.length > 0 ? moves : [event]) this.#lineTo(this.#place(move));
      this.dispatchEvent(new Event("change"));
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, () => this.#end());
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#showCursor());
    canvas.addEventListener("blur", () => this.#setPenDown(false));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const inside = (/** @type {number} */ v) => Math.max(PEN / 2, Math.min(SIDE - PEN / 2, v));
      this.pen = { x: inside(this.pen.x + arrow[0]), y: inside(this.pen.y + arrow[1]) };
      if (this.penDown) {
        this.#lineTo(this.pen);
        this.dispatchEvent(new Event("change"));
      }
      this.#showCursor();
    } else if (event.key === " " || event.key === "Enter") {
      this.#setPenDown(!this.penDown);
      if (this.penDown) this.#begin(this.pen);
      else this.#end();
    } else if (event.key === "Delete" || event.key === "Backspace" || event.key === "Escape") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {boolean} down */
  #setPenDown(down) {
    this.penDown = down;
    this.#showCursor();
  }

  #showCursor() {
    this.cursor.style.left = `${(100 * this.pen.x) / SIDE}%`;
    this.cursor.style.top = `${(100 * this.pen.y) / SIDE}%`;
    this.cursor.classList.toggle("down", this.penDown);
  }

  /**
   * @param {PointerEvent} event
   * @returns {Point}
   */
  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
  }

  /** @param {Point} point */
  #begin(point) {
    if (!this.drawn) {
      this.#paintBackground();
      this.dispatchEvent(new Event("start"));
    }
    this.drawn = true;
    this.blank = false;
    this.last = this.middle = point;
    this.context.beginPath();
    this.context.arc(point.x, point.y, PEN / 2, 0, 2 * Math.PI);
    this.context.fill();
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Curves through the midpoints of the moves, so that a fast hand does not draw corners.
   * @param {Point} point
   */
  #lineTo(point) {
    if (this.last === null || this.middle === null) return;
    const middle = { x: (this.last.x + point.x) / 2, y: (this.last.y + point.y) / 2 };
    this.context.beginPath();
    this.context.moveTo(this.middle.x, this.middle.y);
    this.context.quadraticCurveTo(this.last.x, this.last.y, middle.x, middle.y);
    this.context.stroke();
    this.last = point;
    this.middle = middle;
  }

  #end() {
    if (this.last === null || this.middle === null) return;
    this.context.beginPath();
    this.context.moveTo(this.middle.x, this.middle.y);
    this.context.lineTo(this.last.x, this.last.y);
    this.context.stroke();
    this.last = this.middle = null;
    this.dispatchEvent(new Event("change"));
  }
}
