/** What a shadow has shown so far: another model is asked, off the request path, what the first one has answered. */

import { h } from "../../ui/dom.js";
import { count, digits, duration, percent } from "../../ui/format.js";

/**
 * @import { Shadow } from "../../api/types.js"
 */

/**
 * @param {Shadow} shadow
 * @returns {HTMLElement[]} none where there is no shadow
 */
export function shadowPanel(shadow) {
  if (shadow.primary === null || shadow.shadow === null) return [];
  const { disagreement_rate: rate, largest_probability_drift: drift, largest_difference: apart } = shadow;
  const { primary_p50_us: own, shadow_p50_us: other, difference_p50_us: difference } = shadow;
  /** @type {[string, string | null][]} */
  const facts = [
    ["requests scored", `${count(shadow.requests)} (${count(shadow.rows)} rows)`],
    ["answered otherwise", rate === null ? null : percent(rate)],
    ["largest probability drift", drift === null ? null : digits(drift)],
    ["largest difference", apart === null ? null : digits(apart)],
    [`median time of ${shadow.primary}`, own === null ? null : duration(own)],
    [`median time of ${shadow.shadow}`, other === null ? null : duration(other)],
    ["median difference", difference === null ? null : duration(difference)],
    ["left out, for want of time", shadow.dropped > 0 ? count(shadow.dropped) : null],
    ["failed", shadow.failed > 0 ? count(shadow.failed) : null],
  ];
  return [
    h("h2", {}, "Shadow"),
    h("p", { class: "muted" }, `${shadow.primary} answers; of ${percent(shadow.share, 0)} of its requests ${shadow.shadow} is asked, too, off the request path.`),
    h("dl", { class: "facts large" }, ...facts.map(([name, value]) => value !== null && h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  ];
}
