/** The shadow: a second model that scores requests of the first off the request path. Fetches and shows its statistics. */

import { json } from "../../api/client.js";
import { h } from "../../ui/dom.js";
import { count, digits, duration, percent } from "../../ui/format.js";

/**
 * @import { Shadow } from "../../api/types.js"
 */

/** @returns {Promise<Shadow>} */
export const fetchShadow = () => json("/api/shadow");

/**
 * @param {Shadow} shadow
 * @returns {HTMLElement[]} empty without a shadow
 */
export function shadowPanel(shadow) {
  if (shadow.primary === null || shadow.shadow === null) return [];
  const { disagreement_rate: rate, largest_probability_drift: drift, largest_difference: largest } = shadow;
  const { primary_p50_us: own, shadow_p50_us: other, difference_p50_us: difference } = shadow;
  /** @type {[string, string | null][]} */
  const facts = [
    ["requests scored", `${count(shadow.requests)} (${count(shadow.rows)} rows)`],
    ["disagreement rate", rate === null ? null : percent(rate)],
    ["largest probability drift", drift === null ? null : digits(drift)],
    ["largest difference", largest === null ? null : digits(largest)],
    [`median time of ${shadow.primary}`, own === null ? null : duration(own)],
    [`median time of ${shadow.shadow}`, other === null ? null : duration(other)],
    ["median difference", difference === null ? null : duration(difference)],
    ["dropped under load", shadow.dropped > 0 ? count(shadow.dropped) : null],
    ["failed", shadow.failed > 0 ? count(shadow.failed) : null],
  ];
  return [
    h("h2", {}, "Shadow"),
    h("p", { class: "muted" }, `${shadow.primary} answers. ${shadow.shadow} also scores ${percent(shadow.share, 0)} of its requests, off the request path.`),
    h("dl", { class: "facts large" }, ...facts.map(([name, value]) => value !== null && h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  ];
}
