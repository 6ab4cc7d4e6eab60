/** GELU, exact and by its approximation with tanh. */

/**
 * Returns the error function to within 4e-8 by a rational function fitted on [0, 3.9], beyond which it is 1 in float32.
 * @param {number} x
 */
export function erf(x) {
  if (x >= 3.9) return 1;
  if (x <= -3.9) return -1;
  const u = x * x;
  const above = 1.12837903 + u * (0.191938201 + u * (0.0529665512 + u * (0.00383675392 + u * (0.000287454093 + u * 2.05040486e-6))));
  const below = 1 + u * (0.503432582 + u * (0.114757043 + u * (0.0151089643 + u * (0.0011817038 + u * 3.82307558e-5))));
  return (x * above) / below;
}

/** @param {number} x */
export const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

/** @param {number} x */
export const geluTanh = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
