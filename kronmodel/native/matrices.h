/* Copies, transposes and sums of matrices with padded rows. */
#ifndef KRON_MATRICES_H
#define KRON_MATRICES_H

#include "vectors.h"

/* Copy a matrix to rows that are padded with zeros. */
static inline void pad_rows(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
{
    const int64_t whole = columns / LANES * LANES, width = padded(columns);
    for (int64_t row = 0; row < rows; row++, from += columns, to += width) {
        for (int64_t i = 0; i < whole; i += LANES) *(vector *)(to + i) = *(const loose *)(from + i);
        for (int64_t i = whole; i < width; i++) to[i] = i < columns ? from[i] : 0;
    }
}

/* Copy a matrix with padded rows to rows without padding. */
static inline void crop_rows(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
{
    const int64_t whole = columns / LANES * LANES, width = padded(columns);
    for (int64_t row = 0; row < rows; row++, from += width, to += columns) {
        for (int64_t i = 0; i < whole; i += LANES) *(loose *)(to + i) = *(const vector *)(from + i);
        for (int64_t i = whole; i < columns; i++) to[i] = from[i];
    }
}

#if LANES == 16
#define LOWER_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOWER_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOWER_HALVES 0, 4, 1, 5
#define UPPER_HALVES 2, 6, 3, 7
#endif

/* Transpose a square of LANES vectors: interleaving each vector of its first half with that of its second half, as often
 * as the number of lanes can be halved. */
INLINE void transpose_square(vector square[LANES])
{
#pragma GCC unroll 4
    for (int halves = 1; halves < LANES; halves *= 2) {
        vector next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = __builtin_shufflevector(square[i], square[i + LANES / 2], LOWER_HALVES);
            next[2 * i + 1] = __builtin_shufflevector(square[i], square[i + LANES / 2], UPPER_HALVES);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) square[i] = next[i];
    }
}

/* Transpose a matrix with padded rows to one with padded rows. */
static inline void transpose(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
{
    const int64_t width = padded(columns), height = padded(rows);
    for (int64_t row = 0; row < rows; row += LANES)
        for (int64_t column = 0; column < columns; column += LANES) {
            vector square[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                square[i] = row + i < rows ? *(const vector *)(from + (row + i) * width + column) : (vector){0};
            transpose_square(square);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                if (column + i < columns) *(vector *)(to + (column + i) * height + row) = square[i];
        }
}

/* Add padded matrices, which follow each other at a distance, to one. */
static inline void add(int64_t size, int64_t samples, const float *restrict from, int64_t distance, float *restrict to)
{
    for (int64_t i = 0; i < size; i += LANES) {
        vector sum = *(vector *)(to + i);
        for (int64_t sample = 0; sample < samples; sample++) sum += *(const vector *)(from + i + sample * distance);
        *(vector *)(to + i) = sum;
    }
}

#endif
