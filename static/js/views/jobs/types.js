/**
 * Types of the parts of a job's view.
 *
 * @import { JobKind } from "../../api/jobs.js"
 * @import { Progress } from "../../api/types.js"
 */

/**
 * @typedef {object} Form
 * @property {HTMLElement} element
 * @property {HTMLElement} [aside] shown beside the form
 * @property {boolean} [blocked] whether no job can be started here; the form explains why
 * @property {() => { request: object, files?: Record<string, File | undefined> } | string} read the job to start, or what is wrong with the form
 * @property {(query: URLSearchParams) => void | Promise<void>} open called once the catalog is loaded
 *
 * @typedef {object} Presentation of a report, and of its parts while the job runs
 * @property {HTMLElement} element
 * @property {(report: any) => void} show
 * @property {(event: string, data: any) => void} [update] shows an event of the running job
 * @property {(progress: Progress) => string} [step] shows the progress itself and returns the name of the stage
 * @property {() => void} [stop] called when the job has ended
 *
 * @typedef {object} JobViewOptions
 * @property {JobKind} kind
 * @property {string} view name in addresses
 * @property {string} word such as "comparison"
 * @property {string} title
 * @property {string} lead a sentence that says what the job does
 * @property {string} button
 * @property {Form} form
 * @property {() => Promise<Presentation>} present
 */

export {};
