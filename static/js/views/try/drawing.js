/** Image input: drawn on the pad, uploaded, or a test sample; shows the preprocessed image that the networks receive. */

import { byId } from "../../ui/dom.js";
import { stylesheets } from "../../ui/stylesheet.js";
import { paint, toRow } from "../../model/image.js";
import { CHALK, Pad } from "./pad.js";

/**
 * @import { ImageTask } from "../../model/types.js"
 * @import { Connection } from "../../shell/connection.js"
 */

export class Drawing extends EventTarget {
  /**
   * Dispatches "start" when a new drawing begins, and "change" when the image has changed.
   * @param {Connection} connection
   */
  constructor(connection) {
    super();
    this.connection = connection;
    this.pad = new Pad(byId("pad", HTMLCanvasElement), byId("pad-cursor"));
    this.inputImage = byId("input-image", HTMLCanvasElement);
    this.hint = byId("pad-hint");
    this.box = byId("pad-box");
    this.message = byId("file-message");
    /** Colours of the pen; fetched for the first network with colour input. @type {import("./palette.js").Palette | null} */
    this.palette = null;
    /** The preprocessing function; fetched with the first stroke. @type {typeof import("./preprocessing.js").preprocess | null} */
    this.preprocess = null;
    /** @type {ImageTask | null} */
    this.task = null;
    /** Number of changes, to detect one while the preprocessing is being fetched. */
    this.changes = 0;
    /** The network's input; null if nothing is drawn. @type {number[] | null} */
    this.values = null;
    this.pad.addEventListener("start", () => this.dispatchEvent(new Event("start")));
    this.pad.addEventListener("change", () => void this.#drawn());
    connection.addEventListener("back", () => {
      if (!this.pad.blank && this.values === null) void this.#drawn();
    });
    this.#listen();
  }

  #listen() {
    const file = byId("file", HTMLInputElement);
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen) void this.#upload(chosen);
      file.value = ""; // so that the same file can be chosen again
    });
    const { box } = this;
    // Fetch the preprocessing before the first stroke.
    for (const near of ["pointerenter", "focusin"]) box.addEventListener(near, () => void import("./preprocessing.js").catch(() => {}), { once: true });
    box.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.add("over");
    });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("over");
      const [dropped] = event.dataTransfer?.files ?? [];
      if (dropped) void this.#upload(dropped);
    });
  }

  /**
   * @param {ImageTask} task
   * @param {string} prompt
   */
  async open(task, prompt) {
    const size = `${task.columns}×${task.rows}`;
    byId("input-size").textContent = size;
    this.inputImage.setAttribute("aria-label", `The ${size} image that the networks get`);
    this.hint.textContent = prompt;
    const changed = JSON.stringify(task) !== JSON.stringify(this.task);
    this.task = task;
    const colour = task.channels === 3;
    if (colour) await this.#showPalette();
    byId("palette").hidden = !colour;
    this.box.classList.toggle("white", colour);
    if (!changed) return;
    const ratio = Math.max(0.5, Math.min(2, task.columns / task.rows));
    this.box.style.aspectRatio = String(ratio);
    this.pad.setMaterial(this.palette !== null && colour ? { ratio, paper: "#fff", ink: this.palette.colour, pen: 1 / 14 } : { ...CHALK, ratio });
    this.values = null;
    paint(this.inputImage, null, task);
  }

  async #showPalette() {
    if (this.palette !== null) return;
    const [{ Palette }] = await Promise.all([import("./palette.js"), stylesheets("views/try/palette")]);
    this.palette = new Palette(this.pad);
    byId("palette").replaceChildren(this.palette.element);
  }

  clear() {
    this.message.textContent = "";
    this.pad.clear();
  }

  /**
   * Shows a test sample without dispatching "change".
   * @param {number[]} values
   * @param {HTMLCanvasElement | null} image
   */
  show(values, image) {
    if (this.task === null) return;
    this.changes++;
    this.hint.hidden = true;
    this.message.textContent = "";
    this.values = values;
    if (image) this.pad.show(image);
    paint(this.inputImage, values, this.task);
  }

  /** @param {string} url from `toDataUrl` */
  restore(url) {
    void this.pad.restore(url);
  }

  /** @returns {string} the drawing, for `restore` */
  toDataUrl() {
    return this.pad.toDataUrl();
  }

  async #drawn() {
    const { task, pad, connection } = this;
    const change = ++this.changes;
    if (task === null) return;
    const fetch = async () => {
      this.preprocess = (await import("./preprocessing.js")).preprocess;
    };
    if (!pad.blank && !this.preprocess && !(await connection.fetched(fetch))) return;
    if (change !== this.changes) return; // the image has changed again
    const planes = pad.blank || !this.preprocess ? null : this.preprocess(pad.channels(task.channels), task);
    this.values = planes && toRow(planes, task);
    this.hint.hidden = planes !== null;
    paint(this.inputImage, this.values, task);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {File} file */
  async #upload(file) {
    const { task } = this;
    if (task === null) return;
    await this.connection.fetched(async () => {
      const { PictureError, readInk, readPicture } = await import("./picture.js");
      try {
        this.pad.replace(await (task.channels === 3 ? readPicture(file) : readInk(file)));
        this.message.textContent = "";
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        this.message.textContent = error.message;
      }
    });
  }
}
