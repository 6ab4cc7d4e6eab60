/** What survives a reload of this tab: small values under a name. Whoever reads one has to check it: it may be anything. */

const PREFIX = "kronmodel.";

/**
 * @param {string} name
 * @returns {unknown} undefined where there is none
 */
export function recall(name) {
  try {
    const text = sessionStorage.getItem(PREFIX + name);
    return text === null ? undefined : JSON.parse(text);
  } catch (error) {
    // Storage that the reader has switched off, or a value that is not ours.
    if (error instanceof DOMException || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * @param {string} name
 * @param {unknown} value undefined forgets it
 */
export function remember(name, value) {
  try {
    if (value === undefined) sessionStorage.removeItem(PREFIX + name);
    else sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // switched off or full: then it does not survive
  }
}

/**
 * @param {string} name
 * @returns {string[]} empty where there is no such list
 */
export function recallNames(name) {
  const value = recall(name);
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}
