/** Memory, which comes in powers of two. */

import { withUnit } from "./format.js";

/** @import { Unit } from "./format.js" */

/** @type {Unit[]} */
export const MEMORY = [{ name: "B", size: 1 }, { name: "KiB", size: 2 ** 10 }, { name: "MiB", size: 2 ** 20 }, { name: "GiB", size: 2 ** 30 }];

/** @param {number} bytes */
export const memory = (bytes) => withUnit(bytes, MEMORY);
