/** Fetches the ONNX files of models. */

import { DISCONNECTED, NetworkError, attempt, errorOf } from "./client.js";

const TIMEOUT_MS = 60_000;

/**
 * Fetches the ONNX file of a model. Does not ask for an API key: without the file, the service answers.
 * @param {string} model
 * @param {string} version
 * @returns {Promise<Uint8Array>}
 */
export async function modelFile(model, version) {
  const path = `/api/models/${encodeURIComponent(model)}/file?version=${encodeURIComponent(version)}`;
  const response = await attempt(path, { cache: "default", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw await errorOf(response);
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new NetworkError(DISCONNECTED); // a TypeError, or a DOMException after the time
  }
}
