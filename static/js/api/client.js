/** The service, as functions. Everything that can go wrong becomes one of two errors with a sentence for people. */

import { credentials } from "./credentials.js";

/**
 * @import { ModelList, Prediction, Samples } from "./types.js"
 */

/** @typedef {Omit<RequestInit, "headers"> & { headers?: Record<string, string> }} Init */

/** The service answered, and said no. */
export class Refused extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.name = "Refused";
    this.status = status;
  }
}

/** The service cannot be reached, or does not answer in time. */
export class Unreachable extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "Unreachable";
  }
}

export const WAIT_MS = 15_000;
export const NOT_REACHED = "The service cannot be reached.";
export const CUT = "The connection to the service was cut.";

/**
 * @param {Response} response
 * @returns {Promise<Error>}
 */
async function refusal(response) {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text);
    if (typeof body?.error === "string") return new Refused(body.error, response.status);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  // Without our error body it was something in between that answered, such as a proxy whose service is gone.
  if (response.status >= 502 && response.status <= 504) return new Unreachable(`The service is not there (${response.status}).`);
  return new Refused(`The service answered ${response.status} ${response.statusText}`.trim() + ".", response.status);
}

/**
 * @param {string} path
 * @param {Init} init
 * @returns {Promise<Response>} whatever its status
 */
async function attempt(path, init) {
  try {
    return await fetch(path, { cache: "no-store", ...init, headers: { ...init.headers, ...credentials.headers } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new Unreachable(`The service did not answer within ${WAIT_MS / 1000} seconds.`);
    }
    throw new Unreachable(NOT_REACHED);
  }
}

/**
 * Sends a request with the API key, if there is one. Where it takes another key, the reader is asked for it first.
 * @param {string} path
 * @param {Init} [init]
 * @param {number} [wait] milliseconds for the whole answer
 * @returns {Promise<Response>}
 */
export async function send(path, init = {}, wait) {
  for (;;) {
    const sent = credentials.key;
    const signals = [init.signal, wait === undefined ? null : AbortSignal.timeout(wait)].filter((signal) => signal != null);
    const response = await attempt(path, { ...init, signal: AbortSignal.any(signals) });
    if (response.ok) return response;
    const error = await refusal(response);
    const keyed = error instanceof Refused && (error.status === 401 || (error.status === 403 && sent !== null));
    if (!keyed) throw error;
    try {
      const { anotherKey } = await import("../shell/key-dialog.js");
      await anotherKey(sent, error);
    } catch (problem) {
      throw problem instanceof TypeError ? new Unreachable(NOT_REACHED) : problem; // it cannot be fetched
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
 * @returns {Promise<any>}
 */
export async function json(path, init) {
  const response = await send(path, init, WAIT_MS);
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw new Refused("The service answered with something other than JSON.", response.status);
    throw new Unreachable(CUT);
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
 * @param {number[][]} inputs
 * @returns {Promise<Prediction>}
 */
export const predict = (models, inputs) => json("/api/predict", post({ models, inputs }));

/** Whether the service is there and has loaded its models. */
export async function ready() {
  try {
    await models();
    return true;
  } catch (error) {
    if (error instanceof Unreachable) return false;
    if (error instanceof Refused) return error.status !== 503;
    throw error;
  }
}
