/**
 * The drawing pad, for mouse, touch, pen and arrow keys. It also shows a test sample; drawing on one starts a new drawing.
 */

/** @import { Grey, Material, Point } from "./types.js" */

/** Pixels along the longer side of the canvas, independent of its size on the screen. */
const SIDE = 448;
/** Distance of one press of an arrow key. */
const STEP = SIDE / 28;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** White on black like MNIST, with a pen as wide as MNIST's after preprocessing. @type {Material} */
export const CHALK = { ratio: 1, paper: "#000", ink: "#fff", pen: 1 / 12 };

export class Pad extends EventTarget {
  /**
   * Dispatches "start" when a new drawing begins, and "change" when the ink changes.
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} cursor position of the keyboard's pen
   */
  constructor(canvas, cursor) {
    super();
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("this browser does not support a 2-d canvas");
    this.canvas = canvas;
    this.cursor = cursor;
    this.context = context;
    this.material = CHALK;
    /** Whether the ink was drawn by the user; otherwise the pad shows a test sample. */
    this.drawn = false;
    this.blank = true;
    /** @type {Point | null} */
    this.last = null;
    /** @type {Point | null} */
    this.middle = null;
    /** @type {Point} */
    this.pen = { x: 0, y: 0 };
    this.penDown = false;
    this.setMaterial(CHALK);
    this.#listen();
  }

  /**
   * Changes paper, ink and pen, and clears the pad without dispatching "change".
   * @param {Material} material
   */
  setMaterial(material) {
    const { canvas, context } = this;
    this.material = material;
    [canvas.width, canvas.height] = material.ratio < 1 ? [Math.round(SIDE * material.ratio), SIDE] : [SIDE, Math.round(SIDE / material.ratio)];
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = SIDE * material.pen;
    context.strokeStyle = material.ink;
    this.pen = { x: canvas.width / 2, y: canvas.height / 2 };
    this.cursor.style.width = `${(100 * context.lineWidth) / canvas.width}%`;
    this.#reset();
  }

  /** The colour of the next strokes. */
  get ink() {
    return String(this.context.strokeStyle);
  }

  set ink(colour) {
    this.context.strokeStyle = colour;
  }

  clear() {
    this.#reset();
    this.dispatchEvent(new Event("change"));
  }

  #reset() {
    this.#paintBackground();
    this.drawn = false;
    this.blank = true;
    this.last = this.middle = null;
    this.#setPenDown(false);
  }

  /**
   * Shows an image instead of a drawing, without dispatching "change".
   * @param {HTMLCanvasElement} image
   */
  show(image) {
    this.#paintBackground();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
    this.drawn = false;
    this.blank = false;
    this.#setPenDown(false);
  }

  /**
   * Replaces the drawing by a picture, on which the user can draw.
   * @param {(context: CanvasRenderingContext2D) => void} paint
   */
  replace(paint) {
    this.#paintBackground();
    this.context.imageSmoothingEnabled = true;
    this.context.imageSmoothingQuality = "high";
    paint(this.context);
    this.drawn = true;
    this.blank = false;
    this.#setPenDown(false);
    this.dispatchEvent(new Event("start"));
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {string} the drawing as a data URL, for `restore` */
  toDataUrl() {
    return this.canvas.toDataURL("image/png");
  }

  /**
   * @param {string} url of an earlier drawing; an invalid one is ignored
   */
  async restore(url) {
    const image = new Image();
    image.src = url;
    try {
      await image.decode();
    } catch (error) {
      if (error instanceof DOMException) return;
      throw error;
    }
    if (this.drawn) return; // the user has begun to draw meanwhile
    this.replace((context) => context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height));
  }

  /**
   * @param {number} count of channels: 1 for grey, 3 for colours
   * @returns {Grey[]} values from 0 to 1
   */
  channels(count) {
    const { width, height } = this.canvas;
    const { data } = this.context.getImageData(0, 0, width, height);
    return Array.from({ length: count }, (_, channel) => {
      const values = new Float32Array(width * height);
      for (let i = 0; i < values.length; i++) values[i] = data[4 * i + channel] / 255;
      return { values, width, height };
    });
  }

  #paintBackground() {
    this.context.fillStyle = this.material.paper;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
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
      const { width, height } = this.canvas;
      const edge = this.context.lineWidth / 2;
      const inside = (/** @type {number} */ v, /** @type {number} */ side) => Math.max(edge, Math.min(side - edge, v));
      this.pen = { x: inside(this.pen.x + arrow[0], width), y: inside(this.pen.y + arrow[1], height) };
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
    this.cursor.style.left = `${(100 * this.pen.x) / this.canvas.width}%`;
    this.cursor.style.top = `${(100 * this.pen.y) / this.canvas.height}%`;
    this.cursor.classList.toggle("down", this.penDown);
  }

  /**
   * @param {PointerEvent} event
   * @returns {Point}
   */
  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.canvas;
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
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
    this.context.arc(point.x, point.y, this.context.lineWidth / 2, 0, 2 * Math.PI);
    this.context.fillStyle = this.ink;
    this.context.fill();
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Draws a curve through the midpoints of the moves, so that fast strokes have no corners.
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
