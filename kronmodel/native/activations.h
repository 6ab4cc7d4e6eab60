/* Activations and their derivatives, of values that are padded to whole vectors. */
#ifndef KRON_ACTIVATIONS_H
#define KRON_ACTIVATIONS_H

#include <stddef.h>

#include "kernel.h"
#include "vectors.h"

INLINE vector choose(mask condition, vector a, vector b)
{
    return (vector)((condition & (mask)a) | (~condition & (mask)b));
}

/* The larger or the smaller of `limit` and x; NaN stays NaN. Compilers do not find these instructions in comparisons. */
INLINE vector at_least(float limit, vector x)
{
#if defined(__AVX512F__)
    return (vector)_mm512_max_ps((__m512)spread(limit), (__m512)x);
#elif defined(__AVX__)
    return (vector)_mm256_max_ps((__m256)spread(limit), (__m256)x);
#elif defined(__SSE2__)
    return (vector)_mm_max_ps((__m128)spread(limit), (__m128)x);
#else
    return choose(x < spread(limit), spread(limit), x);
#endif
}

INLINE vector at_most(float limit, vector x)
{
#if defined(__AVX512F__)
    return (vector)_mm512_min_ps((__m512)spread(limit), (__m512)x);
#elif defined(__AVX__)
    return (vector)_mm256_min_ps((__m256)spread(limit), (__m256)x);
#elif defined(__SSE2__)
    return (vector)_mm_min_ps((__m128)spread(limit), (__m128)x);
#else
    return choose(x > spread(limit), spread(limit), x);
#endif
}

/* Limit values to [-limit, limit]; NaN stays NaN. */
INLINE vector limited(vector x, float limit) { return at_least(-limit, at_most(limit, x)); }

/* The density of the normal distribution, given z * z <= 31.4, with an error below 1e-7: 2^n by the exponent's
 * bits, times a polynomial. */
INLINE vector normal_density(vector square)
{
    const float rounding = 12582912; /* 1.5 * 2^23: adding it rounds to a whole number, in the lowest bits */
    const vector scaled = square * -0.72134752f, shifted = scaled + rounding, f = scaled - (shifted - rounding);
    vector power = 0.000529654582f * f + 0.00385998252f;
    power = power * f + 0.0221441421f;
    power = power * f + 0.0958343921f;
    power = power * f + 0.276525632f;
    power = power * f + 0.398942308f;
    return (vector)((mask)power + ((mask)shifted << 23));
}

/* The tail of the normal distribution ÷ its density, for z >= 0: by formula 26.2.17 of Abramowitz and Stegun, with an error
 * below 3e-7 of the tail. */
INLINE vector normal_tail(vector z)
{
    const vector t = 1 / (0.2316419f * z + 1);
    vector sum = 1.330274429f * t - 1.821255978f;
    sum = sum * t + 1.781477937f;
    sum = sum * t - 0.356563782f;
    sum = sum * t + 0.31938153f;
    return sum * t;
}

/* The normal distribution's probability of values between 0 and z, negative for negative z, with an error below 2e-7, for
 * |z| <= 5.6: a rational function that was fitted to it. Faster than the tail where the density is not needed. */
INLINE vector normal_area(vector z)
{
    const vector square = z * z;
    vector p = 2.1781373e-08f * square + 6.48642744e-06f, q = 1.17927594e-06f * square + 7.86826743e-05f;
    p = p * square + 0.000183999748f, q = q * square + 0.00196979035f;
    p = p * square + 0.00476902295f, q = q * square + 0.0294854063f;
    p = p * square + 0.0353070706f, q = q * square + 0.255166148f;
    p = p * square + 0.398942109f, q = q * square + 1;
    return z * p / q;
}

/* tanh with a relative error below 3e-7, for |z| <= 9: a rational function that was fitted to it. */
INLINE vector hyperbolic_tangent(vector z)
{
    const vector square = z * z;
    vector p = 1.33543198e-08f * square + 2.06088278e-05f, q = 7.77641583e-07f * square + 0.000328560932f;
    p = p * square + 0.00349557249f, q = q * square + 0.0258769227f;
    p = p * square + 0.133810125f, q = q * square + 0.467143281f;
    p = p * square + 0.999999979f, q = q * square + 1;
    return limited(z * p / q, 1);
}

/* Apply an activation in place, and write its derivatives to `slopes` unless that is NULL: for GELU only, since those of
 * the others follow from their values. `count` is a multiple of LANES. */
static inline void activate(int64_t activation, int64_t count, float *values, float *slopes)
{
    vector *v = (vector *)values, *s = (vector *)slopes;
    count /= LANES;
    if (activation == KRON_RELU)
        for (int64_t i = 0; i < count; i++) v[i] = at_least(0, v[i]);
    else if (activation == KRON_TANH)
        for (int64_t i = 0; i < count; i++) v[i] = hyperbolic_tangent(limited(v[i], 9));
    else if (activation == KRON_GELU && slopes == NULL)
        for (int64_t i = 0; i < count; i++) {
            const vector z = limited(v[i], 5.6f);
            v[i] = at_least(-5.6f, v[i]) * (normal_area(z) + 0.5f);
        }
    else if (activation == KRON_GELU)
        for (int64_t i = 0; i < count; i++) {
            const vector z = limited(v[i], 5.6f), density = normal_density(z * z);
            const vector tail = density * normal_tail((vector)((mask)z & INT32_MAX));
            const vector probability = choose(z < spread(0), tail, 1 - tail);
            v[i] = at_least(-5.6f, v[i]) * probability;
            s[i] = z * density + probability;
        }
}

/* Multiply gradients by the derivatives of an activation, given what `activate` wrote. */
static inline void differentiate(int64_t activation, int64_t count, float *gradients, const float *values, const float *slopes)
{
    vector *g = (vector *)gradients;
    const vector *v = (const vector *)values, *s = (const vector *)slopes;
    count /= LANES;
    if (activation == KRON_RELU)
        for (int64_t i = 0; i < count; i++) g[i] = choose(v[i] <= spread(0), spread(0), g[i]);
    else if (activation == KRON_TANH)
        for (int64_t i = 0; i < count; i++) g[i] *= 1 - v[i] * v[i];
    else if (activation == KRON_GELU)
        for (int64_t i = 0; i < count; i++) g[i] *= s[i];
}

#endif
