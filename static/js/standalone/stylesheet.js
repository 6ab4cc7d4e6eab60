/** Stands in for ui/stylesheet.js in an exported page, which has all of its styles. */

/** @param {...string} names */
export const stylesheets = (...names) => Promise.resolve(names);
