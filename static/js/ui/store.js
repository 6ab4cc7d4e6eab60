/** Small values that survive a reload, in this tab's session storage. Callers check what they read: it may be anything. */

const PREFIX = "kronmodel.";

/**
 * @param {string} name
 * @returns {unknown} undefined if there is none
 */
export function recall(name) {
  try {
    const text = sessionStorage.getItem(PREFIX + name);
    return text === null ? undefined : JSON.parse(text);
  } catch (error) {
    // Storage is switched off, or the value was not written by this page.
    if (error instanceof DOMException || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * @param {string} name
 * @param {unknown} value undefined removes it
 */
export function remember(name, value) {
  try {
    if (value === undefined) sessionStorage.removeItem(PREFIX + name);
    else sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // storage is switched off or full: the value is not kept
  }
}

/**
 * @param {string} name
 * @returns {string[]} empty if there is no such list
 */
export function recallNames(name) {
  const value = recall(name);
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}
