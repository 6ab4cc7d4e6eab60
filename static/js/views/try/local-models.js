/** The models that the browser computes, each loaded once; the service answers for all others. */

import { NetworkError } from "../../api/client.js";
import { modelFile } from "../../api/model-file.js";
import { LocalModel, ParityError } from "../../model/local-model.js";

/**
 * @import { ModelInfo, Result } from "../../api/types.js"
 */

/** @param {ModelInfo} model */
const keyOf = ({ name, version }) => `${name} ${version}`;

export class LocalModels {
  constructor() {
    /** Loaded models, or why the service answers instead. @type {Map<string, LocalModel | string>} */
    this.found = new Map();
    /** Models that are being loaded. @type {Map<string, Promise<void>>} */
    this.loading = new Map();
  }

  /**
   * Loads models that are not loaded yet. A model that cannot be computed here is no error.
   * @param {ModelInfo[]} models
   */
  async load(models) {
    await Promise.all(models.map((model) => {
      const key = keyOf(model);
      if (this.found.has(key)) return undefined;
      const loading = this.loading.get(key) ?? this.#load(model).finally(() => this.loading.delete(key));
      this.loading.set(key, loading);
      return loading;
    }));
  }

  /** @param {ModelInfo} model */
  async #load(model) {
    const key = keyOf(model);
    if (model.card?.input?.columns) {
      this.found.set(key, "the model takes the columns of a table");
      return;
    }
    if (!model.downloadable) {
      this.found.set(key, "the service does not hand out its file");
      return;
    }
    try {
      this.found.set(key, new LocalModel(model, await modelFile(model.name, model.version)));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (error instanceof NetworkError) return; // `load` tries again
      this.found.set(key, error.message); // whatever is wrong with the file: the service has loaded it
    }
  }

  /** Makes `load` try again to load what could not be loaded. */
  retry() {
    for (const [key, found] of this.found) if (typeof found === "string") this.found.delete(key);
  }

  /** @param {ModelInfo} model @returns {string | null} why the service answers; null if the browser does */
  reason(model) {
    const found = this.found.get(keyOf(model));
    return typeof found === "string" ? found : null;
  }

  /**
   * @param {ModelInfo[]} models
   * @returns {LocalModel[] | null} null unless all of them are loaded
   */
  ready(models) {
    const found = models.map((model) => this.found.get(keyOf(model)));
    return found.length > 0 && found.every((each) => each instanceof LocalModel) ? /** @type {LocalModel[]} */ (found) : null;
  }

  /**
   * Compares a model's answer with the service's; if they differ, the service answers from now on.
   * @param {ModelInfo} model
   * @param {number[]} row
   * @param {Result} result of the service
   * @returns {boolean} whether they are equal
   */
  check(model, row, { outputs }) {
    const found = this.found.get(keyOf(model));
    if (!(found instanceof LocalModel)) return false;
    try {
      found.check(row, outputs[0]);
      return true;
    } catch (error) {
      if (!(error instanceof ParityError || error instanceof RangeError)) throw error;
      this.found.set(keyOf(model), error.message);
      return false;
    }
  }
}
