/* Products of small matrices of integers with 8 bits, each finished in registers.
 *
 * Processors multiply bytes in groups: an instruction adds up four products of bytes in each 32-bit lane (VNNI, NEON's
 * dot products), or two of 16-bit numbers elsewhere. So a word of 32 bits holds GROUP consecutive numbers of the axis
 * that is summed over. The left matrix of a product keeps its rows as they are ("rows"), and a word of it is spread over
 * a register. The right matrix interleaves GROUP rows, so that a word holds numbers of one column ("interleaved").
 *
 * A tile of sums stays in registers until it is finished: scaled to real values, with the bias, the activation and the
 * quantization for the next product, in the order that this product needs. Interleaving costs a shift and an OR, since
 * the rows that it joins are rows of the same tile. The activations are approximations, with an error far below the
 * quantization's. Integers are added up exactly, so that all processors compute the same up to the rounding of scales.
 */
#ifndef KRON_INT8_PRODUCT_H
#define KRON_INT8_PRODUCT_H

#include <stdint.h>

#include "kernel.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include <immintrin.h>
#define LANES 16
#define GROUP 4
#define DOT(sum, activations, weights) \
    (integers)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(activations), (__m512i)(weights))
#elif defined(__AVXVNNI__)
#include <immintrin.h>
#define LANES 8
#define GROUP 4
#define DOT(sum, activations, weights) \
    (integers)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(activations), (__m256i)(weights))
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#define GROUP 2
#define DOT(sum, activations, weights) ((sum) + (integers)_mm256_madd_epi16((__m256i)(activations), (__m256i)(weights)))
#elif defined(__SSE2__)
#include <emmintrin.h>
#define LANES 4
#define GROUP 2
#define DOT(sum, activations, weights) ((sum) + (integers)_mm_madd_epi16((__m128i)(activations), (__m128i)(weights)))
#elif defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_BIG_ENDIAN)
#include <arm_neon.h>
#define LANES 4
#define GROUP 4
#define OFFSET 128
#define DOT(sum, activations, weights) \
    (integers)vdotq_s32((int32x4_t)(sum), (int8x16_t)(activations), (int8x16_t)(weights))
#else
#define LANES 4
#define GROUP 2
#define DOT(sum, activations, weights) \
    ((sum) + ((activations) << 16 >> 16) * ((weights) << 16 >> 16) + ((activations) >> 16) * ((weights) >> 16))
#endif
#ifndef OFFSET
#define OFFSET 0 /* activations are 0 .. 255 */
#endif

#if GROUP == 4
typedef uint8_t number;
#else
typedef int16_t number;
#endif
enum {
    ALIGNMENT = 64,
    BITS = 32 / GROUP, /* of a number in a word */
    VECTORS = 2,       /* columns of a tile, in registers */
#if defined(__AVX512F__) || defined(__aarch64__)
    ROWS = 8 /* of a tile */
#else
    ROWS = 4
#endif
};
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * LANES), may_alias));
typedef floats loose_floats __attribute__((aligned(4)));
typedef number numbers __attribute__((vector_size(sizeof(number) * LANES), may_alias));
typedef int32_t word __attribute__((may_alias));

/* How sums become values, and where these go. Strides are in elements; rows are counted from the product's first. */
struct finish {
    const float *row_scales;    /* of each row; or NULL: */
    const float *column_scales; /* of each column */
    const float *start;         /* added: bias, or values so far; padded rows */
    int64_t start_row;
    int64_t activation;
    float inverse, zero;      /* quantization */
    number *rows;             /* destination as a left matrix, or NULL */
    number *interleaved;      /* destination as a right matrix, or NULL */
    float *floats;            /* destination as they are, or NULL */
    int64_t rows_row, floats_row; /* a row; that of `interleaved` is GROUP times the padded columns */
};

/* Sum over panels p and words k of left[p][i][k] and right[p][k][j], for i < rows and j < columns. */
struct product {
    int64_t rows, columns, words, panels; /* rows: a multiple of 4, or 1; columns: padded */
    const number *left;
    int64_t left_row, left_panel;
    const number *right;
    int64_t right_panel;
    int left_activations; /* whether the left matrix holds the activations, else the weights */
    struct finish finish;
};

static int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

static int64_t padded(int64_t columns) { return round_up(columns, LANES); }

/* ---- Finishing a tile -------------------------------------------------------------------------------------------- */

INLINE floats spread(float value) { return value - (floats){0}; }

#if defined(__AVX512F__)
#define LARGER(a, b) (floats)_mm512_max_ps((__m512)(a), (__m512)(b))
#define SMALLER(a, b) (floats)_mm512_min_ps((__m512)(a), (__m512)(b))
#elif LANES == 8
#define LARGER(a, b) (floats)_mm256_max_ps((__m256)(a), (__m256)(b))
#define SMALLER(a, b) (floats)_mm256_min_ps((__m256)(a), (__m256)(b))
#elif defined(__SSE2__)
#define LARGER(a, b) (floats)_mm_max_ps((__m128)(a), (__m128)(b))
#define SMALLER(a, b) (floats)_mm_min_ps((__m128)(a), (__m128)(b))
#else /* compilers do not find these instructions in comparisons of vectors */
#define LARGER(a, b) choose((a) > (b), a, b)
#define SMALLER(a, b) choose((a) < (b), a, b)

INLINE floats choose(integers condition, floats a, floats b)
{
    return (floats)((condition & (integers)a) | (~condition & (integers)b));
}
#endif

INLINE floats limited(floats x, float low, float high)
{
    x = LARGER(x, spread(low)); /* NaN becomes low */
    return SMALLER(x, spread(high));
}

INLINE floats gelu(floats x) /* error below 1.2e-3 */
{
    const floats z = limited(x, -3.4f, 3.4f), square = z * z;
    floats p = 1.08763031e-05f * square - 4.24638793e-04f;
    p = p * square + 6.81134195e-03f;
    p = p * square - 6.02333985e-02f;
    p = p * square + 3.94888284e-01f;
    return x * (p * z + 0.5f);
}

INLINE floats hyperbolic(floats x) /* error below 3.5e-3 */
{
    const floats z = limited(x, -3.2f, 3.2f), square = z * z;
    floats p = -1.65935947e-05f * square + 5.94288451e-04f;
    p = p * square - 8.45639903e-03f;
    p = p * square + 6.24294021e-02f;
    p = p * square - 2.73814032e-01f;
    p = p * square + 9.84189489e-01f;
    return p * z;
}

INLINE integers quantized(floats value, floats inverse, floats zero)
{
    /* The conversion cuts off, hence the half. */
    const floats scaled = limited(value * inverse + (zero + 0.5f), 0, 255.5f);
    return __builtin_convertvector(scaled, integers) - OFFSET;
}

INLINE integers joined(const integers *rows, const int count) /* numbers of several rows in the words of one */
{
    const int32_t bits = GROUP == 4 ? 0xff : 0xffff;
    integers words = rows[0] & bits;
#pragma GCC unroll 4
    for (int i = 1; i < count; i++) words |= (rows[i] & bits) << (BITS * i);
    return words;
}

INLINE void finish_tile(const struct finish *f, int64_t columns, int64_t row, int64_t column, integers (*sums)[VECTORS],
                        const int rows, const int vectors)
{
    floats values[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            const int64_t at = column + j * LANES;
            const floats scale =
                f->row_scales ? spread(f->row_scales[row + i]) : *(const floats *)(f->column_scales + at);
            values[i][j] = __builtin_convertvector(sums[i][j], floats) * scale +
                           *(const floats *)(f->start + (row + i) * f->start_row + at);
        }
#define EACH(expression)                                                                                                \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)                                                              \
        _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++) values[i][j] = expression;
    if (f->activation == KRON_GELU) {
        EACH(gelu(values[i][j]))
    } else if (f->activation == KRON_RELU) {
        EACH(LARGER(values[i][j], spread(0)))
    } else if (f->activation == KRON_TANH) {
        EACH(hyperbolic(values[i][j]))
    }
    if (f->floats) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                *(floats *)(f->floats + (row + i) * f->floats_row + column + j * LANES) = values[i][j];
        return;
    }
    const floats inverse = spread(f->inverse), zero = spread(f->zero);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sums[i][j] = quantized(values[i][j], inverse, zero);
    if (f->rows)
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                *(numbers *)(f->rows + (row + i) * f->rows_row + column + j * LANES) =
                    __builtin_convertvector(sums[i][j], numbers);
    if (f->interleaved)
#pragma GCC unroll 4
        for (int i = 0; i < rows; i += GROUP)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) {
                integers together[GROUP];
                const int count = rows - i < GROUP ? rows - i : GROUP;
#pragma GCC unroll 4
                for (int k = 0; k < count; k++) together[k] = sums[i + k][j];
                *(integers *)(f->interleaved + ((row + i) / GROUP * columns + column + j * LANES) * GROUP) =
                    joined(together, count);
            }
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

INLINE void multiply_tile(const struct product *p, int64_t row, int64_t column, const int rows, const int vectors,
                          const int left_activations)
{
    integers sums[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sums[i][j] = (integers){0};
    const number *left = p->left + row * p->left_row, *right = p->right + column * GROUP;
    const int64_t left_row = p->left_row, right_row = p->columns * GROUP, words = p->words;
    for (int64_t panel = 0; panel < p->panels; panel++, left += p->left_panel, right += p->right_panel) {
        const number *l = left, *r = right;
        for (int64_t k = 0; k < words; k++, l += GROUP, r += right_row) {
            integers across[VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) across[j] = *(const integers *)(r + j * LANES * GROUP);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                const integers down = *(const word *)(l + i * left_row) - (integers){0};
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++)
                    sums[i][j] = left_activations ? DOT(sums[i][j], down, across[j]) : DOT(sums[i][j], across[j], down);
            }
        }
    }
    finish_tile(&p->finish, p->columns, row, column, sums, rows, vectors);
}

INLINE void multiply_tiles(const struct product *p, const int left_activations)
{
    for (int64_t column = 0; column < p->columns; column += VECTORS * LANES) {
        const int two = p->columns - column > LANES;
        int64_t row = 0;
#if defined(__AVX512F__) || defined(__aarch64__)
        for (; row + 8 <= p->rows; row += 8)
            if (two)
                multiply_tile(p, row, column, 8, 2, left_activations);
            else
                multiply_tile(p, row, column, 8, 1, left_activations);
#endif
        for (; row + 4 <= p->rows; row += 4)
            if (two)
                multiply_tile(p, row, column, 4, 2, left_activations);
            else
                multiply_tile(p, row, column, 4, 1, left_activations);
        for (; row < p->rows; row++)
            if (two)
                multiply_tile(p, row, column, 1, 2, left_activations);
            else
                multiply_tile(p, row, column, 1, 1, left_activations);
    }
}

static __attribute__((noinline)) void multiply_activations(const struct product *p) { multiply_tiles(p, 1); }

static __attribute__((noinline)) void multiply_weights(const struct product *p) { multiply_tiles(p, 0); }

static void multiply(const struct product *p)
{
    if (p->left_activations)
        multiply_activations(p);
    else
        multiply_weights(p);
}

#endif
