/** HTTP client of the service: requests with the API key. Failures are an ApiError or a NetworkError, whose messages can be shown. */

import { credentials } from "./credentials.js";

/**
 * @import { ModelList, Prediction, Row, Samples } from "./types.js"
 */

/** @typedef {Omit<RequestInit, "headers"> & { headers?: Record<string, string> }} Init */

/** The service answered with an error status. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** The service cannot be reached or does not answer in time. */
export class NetworkError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "NetworkError";
  }
}

/** Whether a service answers: not in a page that was exported with its models. @type {boolean} */
export const SERVED = true;
export const TIMEOUT_MS = 15_000;
export const UNREACHABLE = "The service cannot be reached.";
export const DISCONNECTED = "The connection to the service was lost.";

/**
 * @param {Response} response
 * @returns {Promise<Error>}
 */
export async function errorOf(response) {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text);
    if (typeof body?.error === "string") return new ApiError(body.error, response.status);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  // Without the service's error body, a reverse proxy has answered instead of it.
  if (response.status >= 502 && response.status <= 504) return new NetworkError(`The service is not available (${response.status}).`);
  return new ApiError(`The service answered ${response.status} ${response.statusText}`.trim() + ".", response.status);
}

/**
 * @param {string} path
 * @param {Init} init
 * @returns {Promise<Response>} with any status
 */
export async function attempt(path, init) {
  try {
    return await fetch(path, { cache: "no-store", ...init, headers: { ...init.headers, ...credentials.headers } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new NetworkError("The service did not answer in time.");
    }
    throw new NetworkError(UNREACHABLE);
  }
}

/**
 * Sends a request with the API key, if there is one. If the service requires another key, asks the user and tries again.
 * @param {string} path
 * @param {Init} [init]
 * @param {number} [timeout] milliseconds for the whole answer
 * @returns {Promise<Response>}
 */
export async function send(path, init = {}, timeout) {
  for (;;) {
    const sent = credentials.key;
    const signals = [init.signal, timeout === undefined ? null : AbortSignal.timeout(timeout)].filter((signal) => signal != null);
    const response = await attempt(path, { ...init, signal: AbortSignal.any(signals) });
    if (response.ok) return response;
    const error = await errorOf(response);
    const denied = error instanceof ApiError && (error.status === 401 || (error.status === 403 && sent !== null));
    if (!denied) throw error;
    try {
      await credentials.renew(sent, error);
    } catch (problem) {
      throw problem instanceof TypeError ? new NetworkError(UNREACHABLE) : problem; // the dialog's module cannot be fetched
    }
  }
}

/**
 * @param {unknown} body
 * @returns {Init}
 */
export function post(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/**
 * @param {string} path
 * @param {Init} [init]
 * @param {number} [timeout] milliseconds
 * @returns {Promise<any>}
 */
export async function json(path, init, timeout = TIMEOUT_MS) {
  const response = await send(path, init, timeout);
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw new ApiError("The service's answer is not JSON.", response.status);
    throw new NetworkError(DISCONNECTED);
  }
}

/** @returns {Promise<ModelList>} */
export const models = () => json("/api/models");

/**
 * @param {string} model
 * @param {number} offset
 * @param {number} limit
 * @returns {Promise<Samples>}
 */
export const samples = (model, offset, limit) =>
  json(`/api/models/${encodeURIComponent(model)}/samples?offset=${offset}&limit=${limit}`);

/**
 * @param {string[]} models
 * @param {number[] | Row} input numbers, or the columns' values by their names
 * @returns {Promise<Prediction>}
 */
export const predict = (models, input) => json("/api/predict", post({ models, novelty: true, [Array.isArray(input) ? "inputs" : "rows"]: [input] }));

/** Checks whether the service can be reached and has loaded its models. */
export async function ready() {
  try {
    await models();
    return true;
  } catch (error) {
    if (error instanceof NetworkError) return false;
    if (error instanceof ApiError) return error.status !== 503;
    throw error;
  }
}
