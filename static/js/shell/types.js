/**
 * Types of views, routes and the state that views share.
 *
 * @import { Catalog } from "../model/catalog.js"
 * @import { Connection } from "./connection.js"
 */

/**
 * @typedef {object} App shared by all views
 * @property {Connection} connection
 * @property {Catalog} catalog
 *
 * @typedef {object} Route
 * @property {string} view
 * @property {string | null} argument
 * @property {URLSearchParams} query
 *
 * @typedef {object} View
 * @property {HTMLElement} element with one h1
 * @property {(route: Route) => string} title
 * @property {(route: Route) => void} show called when the view appears or its route changes
 * @property {() => void} hide
 *
 * @typedef {{ load: () => Promise<{ makeView: (app: App) => View }>, styles: string[] }} ViewSource
 */

export {};
