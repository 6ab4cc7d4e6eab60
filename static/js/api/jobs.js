/** Client of the service's jobs: comparisons, sweeps and trainings. Throws the errors of client.js. */

import { ApiError, DISCONNECTED, NetworkError, TIMEOUT_MS, json, post, send } from "./client.js";
import { serverSentEvents } from "./server-sent-events.js";

/**
 * @import { Init } from "./client.js"
 * @import { JobSummary } from "./types.js"
 */

/** @typedef {"comparisons" | "sweeps" | "trainings"} JobKind */

/** @type {Record<JobKind, string>} the address that starts each kind */
const STARTED_AT = { comparisons: "/api/compare", sweeps: "/api/sweeps", trainings: "/api/trainings" };

/**
 * @param {ReadableStream<Uint8Array> | null} body
 * @returns {AsyncGenerator<{ event: string, data: any }>}
 */
async function* events(body) {
  if (body === null) throw new NetworkError(DISCONNECTED);
  try {
    for await (const { event, data } of serverSentEvents(body)) yield { event, data: JSON.parse(data) };
  } catch (error) {
    if (error instanceof TypeError) throw new NetworkError(DISCONNECTED); // a stream of fetch throws it when the connection is lost
    if (error instanceof SyntaxError || error instanceof RangeError) throw new ApiError("The service's events cannot be parsed.", 200);
    throw error;
  }
}

/**
 * @param {object} request
 * @param {Record<string, File | undefined>} files
 * @returns {Init}
 */
function upload(request, files) {
  const body = new FormData();
  for (const [name, file] of Object.entries(files)) if (file) body.set(name, file);
  body.set("request", JSON.stringify(request));
  return { method: "POST", body };
}

/**
 * Describes a file of training data, or the first part of it; nothing is kept.
 * @param {object} kinds of columns
 * @param {File} data
 * @returns {Promise<any>}
 */
export const describeData = (kinds, data) => json("/api/trainings/data", upload(kinds, { data }), 2 * TIMEOUT_MS);

/**
 * Starts a job. It runs on the service whether or not it is followed.
 * @param {JobKind} kind
 * @param {object} request
 * @param {Record<string, File | undefined>} [files] uploaded files by the name of their form field
 * @returns {Promise<JobSummary>}
 */
export async function start(kind, request, files = {}) {
  const init = Object.values(files).some((file) => file !== undefined) ? upload(request, files) : post(request);
  const response = await send(STARTED_AT[kind], { ...init, headers: { ...init.headers, Accept: "text/event-stream" } });
  for await (const { event, data } of events(response.body)) {
    if (event === "started") return data;
    if (event === "error") throw new ApiError(data.error, response.status);
  }
  throw new NetworkError(DISCONNECTED);
}

/**
 * Follows a job's events from the first one; a finished job sends its result only.
 * @param {JobKind} kind
 * @param {string} id
 * @param {(event: string, data: any) => void} onEvent receives `started`, `progress`, the events of a kind (`cells`, `plan`,
 *   `epoch`), and finally `report` or `error`
 * @param {AbortSignal} signal
 */
export async function follow(kind, id, onEvent, signal) {
  const response = await send(`/api/${kind}/${encodeURIComponent(id)}/events`, { signal });
  for await (const { event, data } of events(response.body)) {
    onEvent(event, data);
    if (event === "report" || event === "error") return;
  }
  throw new NetworkError(DISCONNECTED);
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
 * Returns the running job of any kind; there is at most one.
 * @returns {Promise<{ kind: JobKind, job: JobSummary } | null>}
 */
export async function running() {
  const kinds = /** @type {JobKind[]} */ (Object.keys(STARTED_AT));
  const newest = await Promise.all(kinds.map(async (kind) => ({ kind, job: (await jobs(kind, 0, 1)).jobs[0] })));
  return newest.find(({ job }) => job?.status === "running") ?? null;
}

/**
 * Cancels a running job, deletes a finished one.
 * @param {JobKind} kind
 * @param {string} id
 */
export async function remove(kind, id) {
  await send(`/api/${kind}/${encodeURIComponent(id)}`, { method: "DELETE" }, TIMEOUT_MS);
}

/**
 * @param {JobKind} kind
 * @param {string} id
 */
export const downloadAddress = (kind, id) => `/api/${kind}/${encodeURIComponent(id)}?download=1`;
