/* Sums of products of small matrices with padded rows, in tiles that stay in registers: see kernel.c. */
#ifndef KRON_PRODUCT_H
#define KRON_PRODUCT_H

#include <stddef.h>

#include "activations.h"
#include "vectors.h"

/* What becomes of a product's values before they leave the registers. All arrays are laid out as `out`. */
struct finish {
    int64_t activation;  /* with `values`: the one that gave them, by whose derivative gradients are multiplied */
    const float *values; /* NULL: ReLU is applied, or nothing is */
    const float *slopes; /* of GELU */
    float *total;        /* to which the results are added, or NULL */
};

/* out[i][j] = start[i][j] + sum over panels p and k of left[p][i][k] * right[p][k][j], for i < rows and j < columns. */
struct product {
    int64_t rows, columns, depth, panels; /* columns: padded */
    const float *left;
    int64_t left_row, left_column, left_panel; /* strides in floats */
    const float *right;
    int64_t right_row, right_panel; /* a row is contiguous and padded */
    const float *start;             /* laid out as out, which it may be; NULL: zeros */
    float *out;
    int64_t out_row;
    struct finish finish;
};

/* Repeat a statement for each row i and each vector j of a tile, unrolled. */
#define EACH                                                                                                            \
    _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++)

/* Finish a tile whose first value is `first` floats from the beginning of the output. */
INLINE void finish_tile(const struct product *p, int64_t first, vector (*sum)[TILE_VECTORS], const int rows,
                        const int vectors)
{
#define AT(array) *(vector *)((array) + first + i * p->out_row + j * LANES)
#define GIVEN(array) *(const vector *)((array) + first + i * p->out_row + j * LANES)
    const struct finish *f = &p->finish;
    if (f->values == NULL) {
        if (f->activation == KRON_RELU)
            EACH sum[i][j] = at_least(0, sum[i][j]);
    } else if (f->activation == KRON_GELU) {
        EACH sum[i][j] *= GIVEN(f->slopes);
    } else if (f->activation == KRON_RELU) {
        EACH sum[i][j] = choose(GIVEN(f->values) <= spread(0), spread(0), sum[i][j]);
    } else if (f->activation == KRON_TANH) {
        EACH sum[i][j] *= 1 - GIVEN(f->values) * GIVEN(f->values);
    }
    EACH AT(p->out) = sum[i][j];
    if (f->total) EACH AT(f->total) += sum[i][j];
#undef AT
#undef GIVEN
}

/* Compute the tile at (row, column) of a product, of `rows` x `vectors * LANES` values. Both are constants in each
 * caller, so that the loops over them are unrolled, and the sums are registers. */
INLINE void multiply_tile(const struct product *p, int64_t row, int64_t column, const int rows, const int vectors)
{
    vector sum[TILE_ROWS][TILE_VECTORS];
    const float *left = p->left + row * p->left_row, *right = p->right + column;
    const int64_t left_row = p->left_row, left_column = p->left_column, right_row = p->right_row, depth = p->depth;
    if (p->start) {
        const float *start = p->start + row * p->out_row + column;
        EACH sum[i][j] = *(const vector *)(start + i * p->out_row + j * LANES);
    } else {
        EACH sum[i][j] = (vector){0};
    }
    for (int64_t panel = 0; panel < p->panels; panel++, left += p->left_panel, right += p->right_panel) {
        const float *l = left, *r = right;
        for (int64_t k = 0; k < depth; k++, l += left_column, r += right_row) {
            vector across[TILE_VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) across[j] = *(const vector *)(r + j * LANES);
            EACH sum[i][j] += spread(l[i * left_row]) * across[j];
        }
    }
    finish_tile(p, row * p->out_row + column, sum, rows, vectors);
}

#define TILE(rows)                                                                                                      \
    case rows:                                                                                                          \
        if (vectors == 2)                                                                                               \
            multiply_tile(p, row, column, rows, 2);                                                                     \
        else                                                                                                            \
            multiply_tile(p, row, column, rows, 1);                                                                     \
        break;

static inline void multiply_rows(const struct product *p, int64_t row, int64_t column, int64_t rows, int vectors)
{
    switch (rows) {
        TILE(1) TILE(2) TILE(3) TILE(4) TILE(5)
        TILE(6)
#if TILE_ROWS > 6
        TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#endif
    }
}

/* Compute a product in tiles of nearly equal heights. */
static inline void multiply(const struct product *p)
{
    const int64_t tiles = (p->rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t column = 0; column < p->columns; column += TILE_VECTORS * LANES) {
        const int vectors = p->columns - column > LANES ? 2 : 1;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t row = p->rows * tile / tiles;
            multiply_rows(p, row, column, p->rows * (tile + 1) / tiles - row, vectors);
        }
    }
}

#endif
