/**
 * Types of the Try view's inputs and texts.
 *
 * @typedef {import("../../api/types.js").Row} Row
 *
 * @typedef {{ values: number[] | Row, truth: string | null }} Input a row, and its true label if known
 *
 * @typedef {{ values: number[] | Row, label: string, number: number, image: HTMLCanvasElement | null }} Sample a test sample
 *
 * @typedef {{ sample?: number, drawing?: string, row?: number[] | Row }} Stored a test sample's number, a drawing's data URL, or a row
 *
 * @typedef {object} Grey a grey image
 * @property {ArrayLike<number>} values row by row, 0 is background
 * @property {number} width
 * @property {number} height
 *
 * @typedef {object} Material of the drawing pad
 * @property {number} ratio width over height
 * @property {string} paper colour
 * @property {string} ink colour
 * @property {number} pen width as a fraction of the longer side
 *
 * @typedef {{ x: number, y: number }} Point
 *
 * @typedef {{ lead: string, legend: string, prompt: string }} Texts
 *
 * @typedef {object} Answered
 * @property {string} name of the model
 * @property {string} text its answer
 * @property {string | null} [label] null for regression
 * @property {boolean | null} [unlike] whether the image is unlike the training images
 *
 * @typedef {{ text: string, kind: "agree" | "differ" | "unsure" }} Verdict
 */

export {};
