/** Comparisons, sweeps and trainings of the service, as functions. Errors are those of `api.js`. */

import { CUT, Refused, Unreachable, WAIT_MS, json, post, send } from "./client.js";
import { serverSentEvents } from "./server-sent-events.js";

/**
 * @import { JobSummary } from "./types.js"
 */

/** @typedef {"comparisons" | "sweeps" | "trainings"} JobKind */

/** @type {Record<JobKind, string>} where each kind is started */
const STARTED_AT = { comparisons: "/api/compare", sweeps: "/api/sweeps", trainings: "/api/trainings" };

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
 * Starts one, which then runs whether anybody follows it or not.
 * @param {JobKind} kind
 * @param {object} request
 * @param {Record<string, File | undefined>} [files] own inputs or data, by the name of their field
 * @returns {Promise<JobSummary>}
 */
export async function start(kind, request, files = {}) {
  const init = post(request);
  const own = Object.entries(files).filter(([, file]) => file !== undefined);
  if (own.length > 0) {
    const form = new FormData();
    for (const [name, file] of own) form.set(name, /** @type {File} */ (file));
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
 * @param {(event: string, data: any) => void} onEvent `started`, `progress`, what a kind has beside (`cells`, `plan`, `epoch`), and at
 *   the end `report` or `error`
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
 * The one that runs, of whatever kind: there is one at a time.
 * @returns {Promise<{ kind: JobKind, job: JobSummary } | null>}
 */
export async function running() {
  const kinds = /** @type {JobKind[]} */ (Object.keys(STARTED_AT));
  const newest = await Promise.all(kinds.map(async (kind) => ({ kind, job: (await jobs(kind, 0, 1)).jobs[0] })));
  return newest.find(({ job }) => job?.status === "running") ?? null;
}

/**
 * Ends a running one, deletes a finished one.
 * @param {JobKind} kind
 * @param {string} id
 */
export async function remove(kind, id) {
  await send(`/api/${kind}/${encodeURIComponent(id)}`, { method: "DELETE" }, WAIT_MS);
}

/**
 * @param {JobKind} kind
 * @param {string} id
 */
export const downloadAddress = (kind, id) => `/api/${kind}/${encodeURIComponent(id)}?download=1`;
