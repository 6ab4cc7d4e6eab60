/** What a card says about a model, asked in the page's words. */

/**
 * @import { Drawn } from "../api/types.js"
 */

/** @typedef {{ role?: string | null }} WithRole */

/**
 * The classes that colour a model: its role decides the colour, everywhere; a second model of the same role is paler.
 * @param {WithRole[]} models
 * @param {number} index
 */
export function tone(models, index) {
  const { role } = models[index];
  const known = role === "kronecker" || role === "dense";
  const earlier = models.slice(0, index).filter((other) => (known ? other.role === role : other.role !== "kronecker" && other.role !== "dense")).length;
  if (known) return `tone-${role}${earlier > 0 ? ` shade-${Math.min(earlier, 3)}` : ""}`;
  return `tone-other-${earlier % 3}${earlier > 2 ? " shade-1" : ""}`;
}

/** @param {Drawn[]} models */
export const roles = (models) => models.map(({ card }) => ({ role: card?.role }));

/** @param {string | null | undefined} role */
export function roleName(role) {
  return role === "kronecker" ? "Kronecker" : role === "dense" ? "Dense" : "ONNX";
}

/**
 * The role where roles tell the models apart, the name otherwise.
 * @param {{ model: string, role?: string | null }[]} models
 * @param {number} index
 */
export function shortName(models, index) {
  const { model, role } = models[index];
  const telling = models.every((each) => each.role) && new Set(models.map((each) => each.role)).size === models.length;
  return telling ? roleName(role) : model;
}

/** @param {Drawn} model */
export const weights = (model) => model.parameters ?? model.card?.parameters ?? null;

/** @param {string[]} names */
export function listed(names) {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
