/** Decodes base64, in browsers and in Node.js. */

/** @param {string} text */
export const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
