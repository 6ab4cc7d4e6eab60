/** The service, as functions. Everything that can go wrong becomes one of two errors with a sentence for people. */

import { serverSentEvents } from "./sse.js";

/**
 * @import { JobSummary, ModelList, Prediction, Samples, Shadow } from "./types.js"
 */

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

const WAIT_MS = 15_000;
const CUT = "The connection to the service was cut.";

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
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
async function send(path, init) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new Unreachable(`The service did not answer within ${WAIT_MS / 1000} seconds.`);
    }
    throw new Unreachable("The service cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/**
 * @param {unknown} body
 * @returns {RequestInit}
 */
function post(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<any>}
 */
async function json(path, init) {
  const response = await send(path, { signal: AbortSignal.timeout(WAIT_MS), ...init });
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

/** @returns {Promise<Shadow>} */
export const shadow = () => json("/api/shadow");

/** Longer than any metrics of ours: a page must not fill its memory with those of something else. */
const MAX_METRICS_CHARS = 8_000_000;

/** @returns {Promise<string>} in Prometheus' text format */
export async function metrics() {
  const response = await send("/metrics", { signal: AbortSignal.timeout(WAIT_MS) });
  try {
    return (await response.text()).slice(0, MAX_METRICS_CHARS);
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) throw new Unreachable(CUT);
    throw error;
  }
}

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

/** @typedef {"comparisons" | "sweeps"} JobKind */

/** @type {Record<JobKind, string>} where each kind is started */
const STARTED_AT = { comparisons: "/api/compare", sweeps: "/api/sweeps" };

/**
 * @param {ReadableStream<Uint8Array> | null} body
 * @returns {AsyncGenerator<{ event: string, data: any }>}
 */
async function* events(body) {
  if (body === null) throw new Unreachable(CUT);
  try {
    for await (const { event, data } of serverSentEvents(body)) yield { event, data: JSON.parse(data) };
  } catch (error) {
    if (error instanceof TypeError) throw new Unreachable(CUT); // what fetch streams throw when the other side goes
    if (error instanceof SyntaxError || error instanceof RangeError) throw new Refused("The service answered with something that cannot be read.", 200);
    throw error;
  }
}

/**
 * Starts a comparison or a sweep, which then runs whether anybody follows it or not.
 * @param {JobKind} kind
 * @param {object} request
 * @param {{ inputs?: File, labels?: File }} [files] own inputs
 * @returns {Promise<JobSummary>}
 */
export async function start(kind, request, files = {}) {
  const init = post(request);
  if (files.inputs) {
    const form = new FormData();
    form.set("inputs", files.inputs);
    if (files.labels) form.set("labels", files.labels);
    form.set("request", JSON.stringify(request));
    init.body = form;
    init.headers = {};
  }
  const response = await send(STARTED_AT[kind], { ...init, headers: { ...init.headers, Accept: "text/event-stream" } });
  for await (const { event, data } of events(response.body)) {
    if (event === "started") return data;
    if (event === "error") throw new Refused(data.error, response.status);
  }
  throw new Unreachable(CUT);
}

/**
 * Follows one from its beginning, or from its result if it is over.
 * @param {JobKind} kind
 * @param {string} id
 * @param {(event: string, data: any) => void} onEvent `started`, `progress`, `cells`, and at the end `report` or `error`
 * @param {AbortSignal} signal
 */
export async function follow(kind, id, onEvent, signal) {
  const response = await send(`/api/${kind}/${encodeURIComponent(id)}/events`, { signal });
  for await (const { event, data } of events(response.body)) {
    onEvent(event, data);
    if (event === "report" || event === "error") return;
  }
  throw new Unreachable(CUT);
}

/**
 * @param {JobKind} kind
 * @param {number} offset
 * @param {number} limit
 * @returns {Promise<{ total: number, jobs: JobSummary[] }>} newest first
 */
export async function jobs(kind, offset, limit) {
  const answer = await json(`/api/${kind}?offset=${offset}&limit=${limit}`);
  return { total: answer.total, jobs: answer[kind] };
}

/**
 * Ends a running one, deletes a finished one.
 * @param {JobKind} kind
 * @param {string} id
 */
export async function remove(kind, id) {
  await send(`/api/${kind}/${encodeURIComponent(id)}`, { method: "DELETE", signal: AbortSignal.timeout(WAIT_MS) });
}

/**
 * @param {JobKind} kind
 * @param {string} id
 */
export const downloadAddress = (kind, id) => `/api/${kind}/${encodeURIComponent(id)}?download=1`;
