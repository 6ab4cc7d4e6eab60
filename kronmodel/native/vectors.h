/* Vector registers of any processor, by the compiler's vector extensions, and rows that are padded to whole vectors. */
#ifndef KRON_VECTORS_H
#define KRON_VECTORS_H

#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Floats of a vector register, and rows of a tile: with two sums a row, two vectors of the right matrix and a value that
 * is spread, a tile fills the 32 or 16 registers. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 14
#elif defined(__AVX__)
#define LANES 8
#define TILE_ROWS 6
#elif defined(__aarch64__)
#define LANES 4
#define TILE_ROWS 14
#else
#define LANES 4
#define TILE_ROWS 6
#endif
#define TILE_VECTORS 2

typedef float vector __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * LANES), may_alias));
typedef vector loose __attribute__((aligned(4))); /* in the caller's arrays, whose rows are not padded */

enum { ALIGNMENT = 64 };

#define INLINE static inline __attribute__((always_inline))

/* A vector of equal values. */
INLINE vector spread(float value) { return value - (vector){0}; }

/* Floats of a row with its padding. */
static inline int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
