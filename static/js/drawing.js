/** A picture as the question: drawn on the pad, uploaded, or a test sample that is shown there; and what the networks see of it. */

import { byId } from "./dom.js";
import { paint, toRow } from "./image.js";
import { Pad } from "./pad.js";
import { prepare } from "./prepare.js";

/**
 * @import { Connection } from "./connection.js"
 * @import { ImageTask } from "./task.js"
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
    this.message = byId("file-message", HTMLElement);
    /** @type {ImageTask | null} */
    this.task = null;
    /** As the network takes it; null where nothing is drawn. @type {number[] | null} */
    this.values = null;
    this.pad.addEventListener("start", () => this.dispatchEvent(new Event("start")));
    this.pad.addEventListener("change", () => this.#drawn());
    this.#listen();
  }

  #listen() {
    const file = byId("file", HTMLInputElement);
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen) void this.#upload(chosen);
      file.value = ""; // so that the same file may be chosen again
    });
    const box = byId("pad-box", HTMLElement);
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
  open(task, invitation) {
    const size = `${task.columns}×${task.rows}`;
    byId("seen-size", HTMLElement).textContent = size;
    this.seen.setAttribute("aria-label", `The ${size} image that the networks see`);
    this.hint.textContent = invitation;
    this.task = task;
    if (this.values === null) paint(this.seen, null, task);
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

  #drawn() {
    const { task, pad } = this;
    if (task === null) return;
    const image = pad.blank ? null : prepare(pad.grey(), task.rows, task.columns, task.framed);
    this.values = image && toRow([image], task);
    this.hint.hidden = image !== null;
    paint(this.seen, this.values, task);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {File} file */
  async #upload(file) {
    if (this.task === null) return;
    await this.connection.fetched(async () => {
      const { PictureError, readPicture } = await import("./picture.js");
      try {
        this.pad.place(await readPicture(file));
        this.message.textContent = "";
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        this.message.textContent = error.message;
      }
    });
  }
}
