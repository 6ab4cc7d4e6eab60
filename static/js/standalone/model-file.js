/** Stands in for api/model-file.js in an exported page. */

import { decode } from "./base64.js";
import { position } from "./client.js";
import { MODELS } from "./data.js";

/**
 * @param {string} model
 * @returns {Promise<Uint8Array>}
 */
export const modelFile = async (model) => decode(MODELS[position(model)].file);
