/** A picture as the question: drawn on the pad, uploaded, or a test sample that is shown there; and what the networks see of it. */

import { byId } from "../../ui/dom.js";
import { paint, toRow } from "./image.js";
import { CHALK, Pad } from "./pad.js";
import { stylesheet } from "../../ui/stylesheet.js";

/**
 * @import { Connection } from "../../shell/connection.js"
 * @import { ImageTask } from "../../model/task.js"
 */

export class Drawing extends EventTarget {
  /**
   * Dispatches "start" when the reader begins a new picture, and "change" whenever that is another one.
   * @param {Connection} connection
   */
  constructor(connection) {
    super();
    this.connection = connection;
    this.pad = new Pad(byId("pad", HTMLCanvasElement), byId("pad-cursor", HTMLElement));
    this.seen = byId("seen", HTMLCanvasElement);
    this.hint = byId("pad-hint", HTMLElement);
    this.box = byId("pad-box", HTMLElement);
    this.message = byId("file-message", HTMLElement);
    /** Fetched with the first network that sees colours. @type {import("./palette.js").Palette | null} */
    this.palette = null;
    /** Fetched with the first stroke; from then on nothing has to be waited for. @type {typeof import("./preprocessing.js").prepared | null} */
    this.prepared = null;
    /** @type {ImageTask | null} */
    this.task = null;
    /** How often the picture has changed: what prepares the first one is fetched meanwhile. */
    this.changes = 0;
    /** As the network takes it; null where nothing is drawn. @type {number[] | null} */
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
      file.value = ""; // so that the same file may be chosen again
    });
    const { box } = this;
    // Who comes near the pad is about to draw.
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
   * @param {string} invitation
   */
  async open(task, invitation) {
    const size = `${task.columns}×${task.rows}`;
    byId("seen-size", HTMLElement).textContent = size;
    this.seen.setAttribute("aria-label", `The ${size} image that the networks see`);
    this.hint.textContent = invitation;
    const another = JSON.stringify(task) !== JSON.stringify(this.task);
    this.task = task;
    const coloured = task.channels === 3;
    if (coloured) await this.#offerColours();
    byId("palette", HTMLElement).hidden = !coloured;
    this.box.classList.toggle("white", coloured);
    if (!another) return;
    const ratio = Math.max(0.5, Math.min(2, task.columns / task.rows));
    this.box.style.aspectRatio = String(ratio);
    this.pad.take(this.palette !== null && coloured ? { ratio, paper: "#fff", ink: this.palette.colour, pen: 1 / 14 } : { ...CHALK, ratio });
    this.values = null;
    paint(this.seen, null, task);
  }

  async #offerColours() {
    if (this.palette !== null) return;
    const [{ Palette }] = await Promise.all([import("./palette.js"), stylesheet("forms")]);
    this.palette = new Palette(this.pad);
    byId("palette", HTMLElement).replaceChildren(this.palette.element);
  }

  clear() {
    this.message.textContent = "";
    this.pad.clear();
  }

  /**
   * Shows a test sample; no "change" follows.
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
    paint(this.seen, values, this.task);
  }

  /** @param {string} address what `toAddress` gave */
  restore(address) {
    void this.pad.restore(address);
  }

  /** @returns {string} the drawing, for `restore` */
  toAddress() {
    return this.pad.toAddress();
  }

  async #drawn() {
    const { task, pad, connection } = this;
    const change = ++this.changes;
    if (task === null) return;
    const fetch = async () => {
      this.prepared = (await import("./preprocessing.js")).prepared;
    };
    if (!pad.blank && !this.prepared && !(await connection.fetched(fetch))) return;
    if (change !== this.changes) return; // another picture has taken its place
    const planes = pad.blank || !this.prepared ? null : this.prepared(pad.channels(task.channels), task);
    this.values = planes && toRow(planes, task);
    this.hint.hidden = planes !== null;
    paint(this.seen, this.values, task);
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
