/** Sentences of the service, as the page sets them. */

/**
 * A sentence of the service, whose figures keep their units at the end of a line.
 * @param {string} sentence
 */
export const unbroken = (sentence) => sentence.replace(/(\d) (?=(?:µs|ms|s|MiB|kB|MB|%|times|points)\b|%)/g, "$1\u00a0");
