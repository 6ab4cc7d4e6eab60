/** The list of the service's models, loaded again when a view is entered. */

import * as api from "../api/client.js";

/**
 * @import { Device, ModelInfo } from "../api/types.js"
 */

export class Catalog {
  /** @type {ModelInfo[]} */
  models = []; // twins side by side, the Kronecker network first
  /** @type {string[]} names of the default models */
  defaults = [];
  /** @type {Device[]} that can measure models */
  devices = [];
  /** The maximum of threads in a measurement. */
  cpus = 1;

  /** Fetches the list; throws the errors of api/client.js. */
  async load() {
    const list = await api.models();
    const key = (/** @type {ModelInfo} */ { name, card }) => `${card?.twin ?? name} ${card?.role === "kronecker" ? 0 : 1} ${name}`;
    this.models = [...list.models].sort((a, b) => key(a).localeCompare(key(b), "en", { numeric: true }));
    this.defaults = list.default;
    this.devices = list.devices;
    this.cpus = list.cpus;
  }

  /** @param {string} name */
  find(name) {
    return this.models.find((model) => model.name === name);
  }

  /**
   * @param {string[]} names
   * @returns {ModelInfo[]} in the order of the names, without those that are not served
   */
  pick(names) {
    return names.map((name) => this.find(name)).filter((model) => model !== undefined);
  }
}
