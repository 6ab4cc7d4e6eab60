/** Presentation of a model: its name, its colour, its number of weights. */

/**
 * @import { Drawn } from "../api/types.js"
 */

/** @typedef {{ role?: string | null }} WithRole */

/** @type {Record<string, string>} */
const ROLES = { kronecker: "Kronecker", dense: "Dense", compressed: "Compressed", original: "Original" };

/**
 * Returns the CSS classes of a model's colour: one colour per role, paler for further models of the same role.
 * @param {WithRole[]} models
 * @param {number} index
 */
export function tone(models, index) {
  const hue = models.map(({ role }) => (role === "kronecker" || role === "dense" ? role : "other"));
  const earlier = hue.slice(0, index).filter((other) => other === hue[index]).length;
  if (hue[index] !== "other") return `tone-${hue[index]}${earlier > 0 ? ` shade-${Math.min(earlier, 3)}` : ""}`;
  return `tone-other-${earlier % 3}${earlier > 2 ? " shade-1" : ""}`;
}

/** @param {Drawn[]} models */
export const roles = (models) => models.map(({ card }) => ({ role: card?.role }));

/** @param {string | null | undefined} role */
export function roleName(role) {
  return ROLES[role ?? ""] ?? "ONNX";
}

/**
 * Returns the model's role if all roles differ, else its name.
 * @param {{ model: string, role?: string | null }[]} models
 * @param {number} index
 */
export function shortName(models, index) {
  const { model, role } = models[index];
  const distinct = models.every((each) => each.role) && new Set(models.map((each) => each.role)).size === models.length;
  return distinct ? roleName(role) : model;
}

/** @param {Drawn} model */
export const weights = (model) => model.parameters ?? model.card?.parameters ?? null;
