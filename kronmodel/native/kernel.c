/* Forward and backward of consecutive Kronecker layers on a CPU, float32.
 *
 * A layer's matrices are small (28 x 28 in a layer of 784 features), and so a step costs more for moving values through
 * memory than for multiplying them, if every product, bias and activation is an operation of its own. Here one sample
 * passes all layers while its values lie in the cache next to the core. Its features are a matrix, whose rows are padded
 * to whole vector registers: 28 floats to 32. The padding stays zero, or holds values that nothing reads.
 *
 * Nearly all the time goes into one loop, `multiply_tile`: it adds up a tile of 14 x 32 values of a product in registers
 * (with AVX-512: 28 of 32 registers), and in each step multiplies 14 values of the left matrix, each spread over a
 * register, by two registers of the right matrix. A value that is loaded is thus used 2 or 14 times, and the loop runs at
 * the speed of the multipliers. The left matrix may have any strides, so that no transposed copies of it are needed. The
 * right matrix must have padded rows: of the factors, `kron_pack` makes such copies once for a batch, and of the
 * features, the backward pass makes a transposed one for the gradient of the first factor.
 *
 * One call may add up several products, whose matrices follow each other at a fixed distance ("panels"): the branches of
 * a layer, or in the gradient of a factor the samples of a block, so that the sum stays in registers meanwhile.
 *
 * The backward pass works on blocks of a few samples. The values between the factors and their activations' slopes are
 * either kept by the forward pass, or computed again for each block, which costs a third more arithmetic but no memory.
 * Threads take ranges of samples and add up gradients by themselves; at the end these are summed in a fixed sequence.
 */
#include "kernel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

enum { ALIGNMENT = 64, STACK_FLOATS = 12 << 10, MAX_BLOCK = 16, BLOCK_BYTES = 384 << 10 /* of a block's values, to stay in the L2 cache */ };

/* A layer with its packed weights. Branches in the order "left" come first. A hidden matrix, between the two factors of
 * a branch, is (m1, n2) in the order "left" and (n1, m2) in the order "right". */
struct layer {
    int64_t n1, n2, m1, m2, left, right, inner, outer;
    int64_t n2_padded, m2_padded;
    int64_t x_size, y_size, left_size, right_size;  /* floats of padded matrices: X, Y, hidden ones by order */
    int64_t hidden, slopes, output, output_slopes;  /* offsets of what is kept of a sample; -1: not kept */
    const float *first;              /* (branches, m1, n1) */
    const float *second;             /* (branches, m2, n2_padded) */
    const float *second_transposed;  /* (branches, n2, m2_padded) */
    const float *left_bias, *right_bias, *bias; /* padded; or NULL */
    const int64_t *branches;         /* index of each branch in the caller's arrays */
};

struct kron_network {
    int64_t count;
    int64_t record;   /* floats that are kept of a sample */
    int64_t features; /* the largest padded input or output */
    int64_t hidden;   /* the largest hidden part: all branches of a layer */
    struct layer layers[];
};

static int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- Products ---------------------------------------------------------------------------------------------------- */

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
};

#define INLINE static inline __attribute__((always_inline))

/* Compute the tile at (row, column) of a product, of `rows` x `vectors * LANES` values. Both are constants in each
 * caller, so that the loops over them are unrolled, and the sums are registers. */
INLINE void multiply_tile(const struct product *p, int64_t row, int64_t column, const int rows, const int vectors)
{
    vector sum[TILE_ROWS][TILE_VECTORS];
    const float *left = p->left + row * p->left_row, *right = p->right + column;
    const int64_t left_row = p->left_row, left_column = p->left_column, right_row = p->right_row, depth = p->depth;
    if (p->start) {
        const float *start = p->start + row * p->out_row + column;
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] = *(const vector *)(start + i * p->out_row + j * LANES);
    } else {
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] = (vector){0};
    }
    for (int64_t panel = 0; panel < p->panels; panel++, left += p->left_panel, right += p->right_panel) {
        const float *l = left, *r = right;
        for (int64_t k = 0; k < depth; k++, l += left_column, r += right_row) {
            vector across[TILE_VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) across[j] = *(const vector *)(r + j * LANES);
#pragma GCC unroll 14
            for (int i = 0; i < rows; i++) {
                const vector spread = l[i * left_row] - (vector){0};
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) sum[i][j] += spread * across[j];
            }
        }
    }
    float *out = p->out + row * p->out_row + column;
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) *(vector *)(out + i * p->out_row + j * LANES) = sum[i][j];
}

#define TILE(rows)                                                                                                      \
    case rows:                                                                                                          \
        if (vectors == 2)                                                                                               \
            multiply_tile(p, row, column, rows, 2);                                                                     \
        else                                                                                                            \
            multiply_tile(p, row, column, rows, 1);                                                                     \
        break;

static void multiply_rows(const struct product *p, int64_t row, int64_t column, int64_t rows, int vectors)
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
static void multiply(const struct product *p)
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

/* ---- Activations ------------------------------------------------------------------------------------------------- */

INLINE vector choose(mask condition, vector a, vector b)
{
    return (vector)((condition & (mask)a) | (~condition & (mask)b));
}

INLINE vector spread(float value) { return value - (vector){0}; }

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

/* exp(x) for -87 < x <= 0, with a relative error below 2e-7: 2^n by the exponent's bits, times a polynomial. */
INLINE vector exponential(vector x)
{
    const float rounding = 12582912; /* 1.5 * 2^23: adding it rounds to a whole number, in the lowest bits */
    const vector scaled = x * 1.44269504f, shifted = scaled + rounding, f = scaled - (shifted - rounding);
    vector power = 0.00132764715f * f + 0.00967554133f;
    power = power * f + 0.0555071327f;
    power = power * f + 0.240221197f;
    power = power * f + 0.693146967f;
    power = power * f + 1.00000007f;
    return (vector)((mask)power + ((mask)shifted << 23));
}

/* The normal distribution function minus 1/2, with an error below 2e-7, for |z| <= 5.6: a rational function that was
 * fitted to it. `square` is z * z. */
INLINE vector normal(vector z, vector square)
{
    vector p = 2.1781373e-08f * square + 6.48642744e-06f, q = 1.17927594e-06f * square + 7.86826743e-05f;
    p = p * square + 0.000183999748f, q = q * square + 0.00196979035f;
    p = p * square + 0.00476902295f, q = q * square + 0.0294854063f;
    p = p * square + 0.0353070706f, q = q * square + 0.255166148f;
    p = p * square + 0.398942109f, q = q * square + 1;
    return z * p / q;
}

/* tanh with a relative error below 3e-7, for |z| <= 9: a rational function that was fitted to it. */
INLINE vector hyperbolic(vector z)
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
static void activate(int64_t activation, int64_t count, float *values, float *slopes)
{
    vector *v = (vector *)values, *s = (vector *)slopes;
    count /= LANES;
    if (activation == KRON_RELU)
        for (int64_t i = 0; i < count; i++) v[i] = at_least(0, v[i]);
    else if (activation == KRON_TANH)
        for (int64_t i = 0; i < count; i++) v[i] = hyperbolic(limited(v[i], 9));
    else if (activation == KRON_GELU && slopes == NULL)
        for (int64_t i = 0; i < count; i++) {
            const vector z = limited(v[i], 5.6f);
            v[i] = at_least(-5.6f, v[i]) * (normal(z, z * z) + 0.5f);
        }
    else if (activation == KRON_GELU)
        for (int64_t i = 0; i < count; i++) {
            const vector z = limited(v[i], 5.6f), square = z * z, probability = normal(z, square) + 0.5f;
            v[i] = at_least(-5.6f, v[i]) * probability;
            s[i] = z * 0.398942280f * exponential(-0.5f * square) + probability;
        }
}

/* Multiply gradients by the derivatives of an activation, given what `activate` wrote. */
static void differentiate(int64_t activation, int64_t count, float *gradients, const float *values, const float *slopes)
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

/* ---- Matrices ---------------------------------------------------------------------------------------------------- */

/* Copy a matrix to rows that are padded with zeros. */
static void pad_rows(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
{
    const int64_t whole = columns / LANES * LANES, width = padded(columns);
    for (int64_t row = 0; row < rows; row++, from += columns, to += width) {
        for (int64_t i = 0; i < whole; i += LANES) *(vector *)(to + i) = *(const loose *)(from + i);
        for (int64_t i = whole; i < width; i++) to[i] = i < columns ? from[i] : 0;
    }
}

/* Copy a matrix with padded rows to rows without padding. */
static void crop_rows(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
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
static void transpose(int64_t rows, int64_t columns, const float *restrict from, float *restrict to)
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
static void add(int64_t size, int64_t samples, const float *restrict from, int64_t distance, float *restrict to)
{
    for (int64_t i = 0; i < size; i += LANES) {
        vector sum = *(vector *)(to + i);
        for (int64_t sample = 0; sample < samples; sample++) sum += *(const vector *)(from + i + sample * distance);
        *(vector *)(to + i) = sum;
    }
}

/* ---- Packed weights ---------------------------------------------------------------------------------------------- */

/* Reserve an aligned part of memory that has been reserved up to `offset`; with memory NULL, only count. */
static void *reserve(char *memory, size_t *offset, int64_t size)
{
    void *part = memory ? memory + *offset : NULL;
    *offset += ((size_t)size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return part;
}

static float *reserve_floats(char *memory, size_t *offset, int64_t count)
{
    return reserve(memory, offset, count * (int64_t)sizeof(float));
}

static void pack_layer(const kron_layer *from, struct layer *to, char *memory, size_t *offset)
{
    const int64_t rank = from->rank, m1 = from->m1, m2 = from->m2, n1 = from->n1, n2 = from->n2;
    struct layer l = {.n1 = n1, .n2 = n2, .m1 = m1, .m2 = m2, .inner = from->inner, .outer = from->outer};
    l.n2_padded = padded(n2), l.m2_padded = padded(m2);
    l.x_size = n1 * l.n2_padded, l.y_size = m1 * l.m2_padded;
    l.left_size = m1 * l.n2_padded, l.right_size = n1 * l.m2_padded;
    for (int64_t k = 0; k < rank; k++) l.right += from->right && from->right[k];
    l.left = rank - l.right;

    float *first = reserve_floats(memory, offset, rank * m1 * n1);
    float *second = reserve_floats(memory, offset, rank * m2 * l.n2_padded);
    float *transposed = reserve_floats(memory, offset, rank * n2 * l.m2_padded);
    float *left_bias = from->left_bias ? reserve_floats(memory, offset, l.left * l.left_size) : NULL;
    float *right_bias = from->right_bias ? reserve_floats(memory, offset, l.right * l.right_size) : NULL;
    float *bias = from->bias ? reserve_floats(memory, offset, l.y_size) : NULL;
    int64_t *branches = reserve(memory, offset, rank * (int64_t)sizeof(int64_t));
    if (memory == NULL) {
        *to = l;
        return;
    }
    for (int64_t k = 0, left = 0, right = l.left; k < rank; k++)
        branches[from->right && from->right[k] ? right++ : left++] = k;
    for (int64_t k = 0; k < rank; k++) {
        const float *a = from->first + branches[k] * m1 * n1, *b = from->second + branches[k] * m2 * n2;
        memcpy(first + k * m1 * n1, a, (size_t)(m1 * n1) * sizeof(float));
        pad_rows(m2, n2, b, second + k * m2 * l.n2_padded);
        transpose(m2, n2, second + k * m2 * l.n2_padded, transposed + k * n2 * l.m2_padded);
    }
    if (left_bias) pad_rows(l.left * m1, n2, from->left_bias, left_bias);
    if (right_bias) pad_rows(l.right * n1, m2, from->right_bias, right_bias);
    if (bias) pad_rows(m1, m2, from->bias, bias);
    l.first = first, l.second = second, l.second_transposed = transposed, l.branches = branches;
    l.left_bias = left_bias, l.right_bias = right_bias, l.bias = bias;
    *to = l;
}

static int64_t hidden_size(const struct layer *l) { return l->left * l->left_size + l->right * l->right_size; }

/* Pack all layers, or with memory NULL only count bytes and the floats that are kept of a sample. */
static size_t pack(const kron_layer *layers, int64_t count, char *memory, int64_t *record)
{
    size_t offset = 0;
    struct kron_network *network =
        reserve(memory, &offset, (int64_t)(sizeof(struct kron_network) + (size_t)count * sizeof(struct layer)));
    struct kron_network total = {.count = count};
    for (int64_t i = 0; i < count; i++) {
        struct layer l;
        pack_layer(&layers[i], &l, memory, &offset);
        total.features = larger(total.features, larger(l.x_size, l.y_size));
        total.hidden = larger(total.hidden, hidden_size(&l));
        l.hidden = total.record, total.record += hidden_size(&l);
        l.slopes = l.inner == KRON_GELU ? total.record : -1;
        total.record += l.slopes < 0 ? 0 : hidden_size(&l);
        l.output = i + 1 < count || l.outer != KRON_NONE ? total.record : -1; /* else nothing depends on it */
        total.record += l.output < 0 ? 0 : l.y_size;
        l.output_slopes = l.outer == KRON_GELU ? total.record : -1;
        total.record += l.output_slopes < 0 ? 0 : l.y_size;
        if (memory) network->layers[i] = l;
    }
    if (memory) network->count = count, network->record = total.record, network->features = total.features,
                network->hidden = total.hidden;
    *record = total.record;
    return offset;
}

size_t kron_packed_size(const kron_layer *layers, int64_t count)
{
    int64_t record;
    return pack(layers, count, NULL, &record);
}

kron_network *kron_pack(const kron_layer *layers, int64_t count, void *memory)
{
    int64_t record;
    pack(layers, count, memory, &record);
    return memory;
}

size_t kron_kept_size(const kron_layer *layers, int64_t count, int64_t batch)
{
    int64_t record;
    pack(layers, count, NULL, &record);
    return (size_t)batch * (size_t)record * sizeof(float);
}

/* ---- Forward, one sample ----------------------------------------------------------------------------------------- */

/* Compute a layer: hidden matrices of all branches, the output, and the activations' slopes (NULL if not wanted). */
static void forward_layer(const struct layer *l, const float *x, float *hidden, float *slopes, float *y,
                          float *y_slopes)
{
    for (int64_t k = 0; k < l->left; k++) /* A_k X + C_k */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->n2_padded, .depth = l->n1, .panels = 1,
            .left = l->first + k * l->m1 * l->n1, .left_row = l->n1, .left_column = 1,
            .right = x, .right_row = l->n2_padded,
            .start = l->left_bias ? l->left_bias + k * l->left_size : NULL,
            .out = hidden + k * l->left_size, .out_row = l->n2_padded});
    float *hidden_right = hidden + l->left * l->left_size;
    for (int64_t k = 0; k < l->right; k++) /* X B_k^T + C_k */
        multiply(&(struct product){
            .rows = l->n1, .columns = l->m2_padded, .depth = l->n2, .panels = 1,
            .left = x, .left_row = l->n2_padded, .left_column = 1,
            .right = l->second_transposed + (l->left + k) * l->n2 * l->m2_padded, .right_row = l->m2_padded,
            .start = l->right_bias ? l->right_bias + k * l->right_size : NULL,
            .out = hidden_right + k * l->right_size, .out_row = l->m2_padded});
    activate(l->inner, hidden_size(l), hidden, slopes);
    if (l->left) /* sum of Z_k B_k^T, and the bias */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->m2_padded, .depth = l->n2, .panels = l->left,
            .left = hidden, .left_row = l->n2_padded, .left_column = 1, .left_panel = l->left_size,
            .right = l->second_transposed, .right_row = l->m2_padded, .right_panel = l->n2 * l->m2_padded,
            .start = l->bias, .out = y, .out_row = l->m2_padded});
    if (l->right) /* sum of A_k Z_k, and the bias or the sum above */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->m2_padded, .depth = l->n1, .panels = l->right,
            .left = l->first + l->left * l->m1 * l->n1, .left_row = l->n1, .left_column = 1,
            .left_panel = l->m1 * l->n1,
            .right = hidden_right, .right_row = l->m2_padded, .right_panel = l->right_size,
            .start = l->left ? y : l->bias, .out = y, .out_row = l->m2_padded});
    activate(l->outer, l->y_size, y, y_slopes);
}

/* Compute all layers.
 * x: padded. record: memory for what is kept of this sample, or NULL. scratch: 2 * features + hidden floats.
 * Returns the padded output, in the scratch memory or in the record. */
static const float *forward_sample(const struct kron_network *network, const float *x, float *record, float *scratch)
{
    float *outputs[2] = {scratch, scratch + network->features}, *hidden = scratch + 2 * network->features;
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        float *y = record && l->output >= 0 ? record + l->output : outputs[i % 2];
        forward_layer(l, x, record ? record + l->hidden : hidden, record && l->slopes >= 0 ? record + l->slopes : NULL,
                      y, record && l->output_slopes >= 0 ? record + l->output_slopes : NULL);
        x = y;
    }
    return x;
}

/* Ask the caches for values that are read soon. Those that the forward pass kept are no longer in the L2 cache, and each
 * sample's are too few for the processor to foresee the next ones by itself. NULL: none. Always inline: gcc drops calls of
 * functions that have no effect on values. */
INLINE void prefetch(const float *values, int64_t count)
{
    if (values == NULL) return;
    for (int64_t i = 0; i < count; i += ALIGNMENT / (int64_t)sizeof(float)) __builtin_prefetch(values + i, 0, 2);
}

/* ---- Backward, a block of samples -------------------------------------------------------------------------------- */

/* Sums of gradients over samples, of one layer; padded as the packed weights, in the same sequence of branches. */
struct sums {
    float *first;  /* (m1, n1_padded) of each left branch, then the transposes (n1, m1_padded) of the right ones */
    float *second; /* (branches, m2, n2_padded) */
    float *left_bias, *right_bias, *bias;
};

/* Matrices of each sample of a block: the first one's, and the distance to the next. */
struct matrices {
    float *first;
    int64_t distance;
};

static float *at(struct matrices m, int64_t sample, int64_t offset)
{
    return m.first ? m.first + sample * m.distance + offset : NULL;
}

struct block {
    int64_t samples;
    struct matrices x;            /* the layer's input */
    struct matrices y_gradient;   /* with respect to the output before its activation */
    struct matrices x_gradient;   /* to compute; first: NULL if not wanted */
    struct matrices hidden, slopes;
    struct matrices x_slopes;     /* of the activation that gave x; first: NULL if it keeps none */
    struct matrices before;       /* input of the layer before, which is read next; first: NULL without one */
    int64_t before_size;
    struct matrices z_gradient;   /* scratch: with respect to a branch's hidden matrix before its activation */
    struct matrices transposed;   /* scratch: of x or y_gradient */
};

/* Prefetch what the computation of a branch's gradients reads: its hidden matrix of a sample, and the slopes of the next
 * sample, or of the next branch's first one. `next`: offset of the next branch, or -1. */
INLINE void prefetch_branch(const struct block *b, int64_t sample, int64_t offset, int64_t size, int64_t next)
{
    prefetch(at(b->hidden, sample, offset), size);
    if (sample + 1 < b->samples)
        prefetch(at(b->slopes, sample + 1, offset), size);
    else if (next >= 0)
        prefetch(at(b->slopes, 0, next), size);
}

/* Prefetch what the layer before reads of a sample first. */
INLINE void prefetch_before(const struct layer *l, const struct block *b, int64_t sample)
{
    prefetch(at(b->before, sample, 0), b->before_size);
    prefetch(at(b->x_slopes, sample, 0), l->x_size);
}

static void backward_left(const struct layer *l, const struct block *b, const struct sums *sums)
{
    const int64_t n1_padded = padded(l->n1);
    for (int64_t s = 0; s < b->samples; s++)
        transpose(l->n1, l->n2, at(b->x, s, 0), at(b->transposed, s, 0));
    for (int64_t k = 0; k < l->left; k++) {
        const float *first = l->first + k * l->m1 * l->n1, *second = l->second + k * l->m2 * l->n2_padded;
        float *hidden = b->hidden.first + k * l->left_size;
        for (int64_t s = 0; s < b->samples; s++) { /* the gradient of Z_k: dY B_k */
            float *z_gradient = at(b->z_gradient, s, 0);
            prefetch_branch(b, s, k * l->left_size, l->left_size, k + 1 < l->left ? (k + 1) * l->left_size : -1);
            multiply(&(struct product){
                .rows = l->m1, .columns = l->n2_padded, .depth = l->m2, .panels = 1,
                .left = at(b->y_gradient, s, 0), .left_row = l->m2_padded, .left_column = 1,
                .right = second, .right_row = l->n2_padded, .out = z_gradient, .out_row = l->n2_padded});
            differentiate(l->inner, l->left_size, z_gradient, hidden + s * b->hidden.distance,
                          at(b->slopes, s, k * l->left_size));
        }
        if (sums->left_bias)
            add(l->left_size, b->samples, b->z_gradient.first, b->z_gradient.distance,
                sums->left_bias + k * l->left_size);
        float *second_sum = sums->second + k * l->m2 * l->n2_padded, *first_sum = sums->first + k * l->m1 * n1_padded;
        multiply(&(struct product){ /* dB_k: sum of dY^T Z_k */
            .rows = l->m2, .columns = l->n2_padded, .depth = l->m1, .panels = b->samples,
            .left = b->y_gradient.first, .left_row = 1, .left_column = l->m2_padded,
            .left_panel = b->y_gradient.distance,
            .right = hidden, .right_row = l->n2_padded, .right_panel = b->hidden.distance,
            .start = second_sum, .out = second_sum, .out_row = l->n2_padded});
        multiply(&(struct product){ /* dA_k: sum of dZ_k X^T */
            .rows = l->m1, .columns = n1_padded, .depth = l->n2, .panels = b->samples,
            .left = b->z_gradient.first, .left_row = l->n2_padded, .left_column = 1,
            .left_panel = b->z_gradient.distance,
            .right = b->transposed.first, .right_row = n1_padded, .right_panel = b->transposed.distance,
            .start = first_sum, .out = first_sum, .out_row = n1_padded});
        for (int64_t s = 0; b->x_gradient.first && s < b->samples; s++) { /* dX: sum of A_k^T dZ_k */
            float *x_gradient = at(b->x_gradient, s, 0);
            if (k + 1 == l->left) prefetch_before(l, b, s);
            multiply(&(struct product){
                .rows = l->n1, .columns = l->n2_padded, .depth = l->m1, .panels = 1,
                .left = first, .left_row = 1, .left_column = l->n1,
                .right = at(b->z_gradient, s, 0), .right_row = l->n2_padded,
                .start = k ? x_gradient : NULL, .out = x_gradient, .out_row = l->n2_padded});
        }
    }
}

static void backward_right(const struct layer *l, const struct block *b, const struct sums *sums)
{
    const int64_t m1_padded = padded(l->m1);
    for (int64_t s = 0; s < b->samples; s++)
        transpose(l->m1, l->m2, at(b->y_gradient, s, 0), at(b->transposed, s, 0));
    for (int64_t k = 0; k < l->right; k++) {
        const int64_t branch = l->left + k, offset = l->left * l->left_size + k * l->right_size;
        const float *first = l->first + branch * l->m1 * l->n1, *second = l->second + branch * l->m2 * l->n2_padded;
        float *hidden = b->hidden.first + offset;
        for (int64_t s = 0; s < b->samples; s++) { /* the gradient of Z_k: A_k^T dY */
            float *z_gradient = at(b->z_gradient, s, 0);
            prefetch_branch(b, s, offset, l->right_size, k + 1 < l->right ? offset + l->right_size : -1);
            multiply(&(struct product){
                .rows = l->n1, .columns = l->m2_padded, .depth = l->m1, .panels = 1,
                .left = first, .left_row = 1, .left_column = l->n1,
                .right = at(b->y_gradient, s, 0), .right_row = l->m2_padded,
                .out = z_gradient, .out_row = l->m2_padded});
            differentiate(l->inner, l->right_size, z_gradient, hidden + s * b->hidden.distance,
                          at(b->slopes, s, offset));
        }
        if (sums->right_bias)
            add(l->right_size, b->samples, b->z_gradient.first, b->z_gradient.distance,
                sums->right_bias + k * l->right_size);
        float *second_sum = sums->second + branch * l->m2 * l->n2_padded;
        float *first_sum = sums->first + l->left * l->m1 * padded(l->n1) + k * l->n1 * m1_padded;
        multiply(&(struct product){ /* dB_k: sum of dZ_k^T X */
            .rows = l->m2, .columns = l->n2_padded, .depth = l->n1, .panels = b->samples,
            .left = b->z_gradient.first, .left_row = 1, .left_column = l->m2_padded,
            .left_panel = b->z_gradient.distance,
            .right = b->x.first, .right_row = l->n2_padded, .right_panel = b->x.distance,
            .start = second_sum, .out = second_sum, .out_row = l->n2_padded});
        multiply(&(struct product){ /* dA_k^T: sum of Z_k dY^T */
            .rows = l->n1, .columns = m1_padded, .depth = l->m2, .panels = b->samples,
            .left = hidden, .left_row = l->m2_padded, .left_column = 1, .left_panel = b->hidden.distance,
            .right = b->transposed.first, .right_row = m1_padded, .right_panel = b->transposed.distance,
            .start = first_sum, .out = first_sum, .out_row = m1_padded});
        for (int64_t s = 0; b->x_gradient.first && s < b->samples; s++) { /* dX: sum of dZ_k B_k */
            float *x_gradient = at(b->x_gradient, s, 0);
            if (k + 1 == l->right) prefetch_before(l, b, s);
            multiply(&(struct product){
                .rows = l->n1, .columns = l->n2_padded, .depth = l->m2, .panels = 1,
                .left = at(b->z_gradient, s, 0), .left_row = l->m2_padded, .left_column = 1,
                .right = second, .right_row = l->n2_padded,
                .start = branch ? x_gradient : NULL, .out = x_gradient, .out_row = l->n2_padded});
        }
    }
}

/* Sums of all layers in memory that starts at `sums`; with NULL, only count floats. */
static int64_t lay_out_sums(const struct kron_network *network, float *memory, struct sums *sums)
{
    size_t offset = 0;
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        const int64_t rank = l->left + l->right;
        struct sums s;
        s.first = reserve_floats((char *)memory, &offset,
                                 l->left * l->m1 * padded(l->n1) + l->right * l->n1 * padded(l->m1));
        s.second = reserve_floats((char *)memory, &offset, rank * l->m2 * l->n2_padded);
        s.left_bias = l->left_bias ? reserve_floats((char *)memory, &offset, l->left * l->left_size) : NULL;
        s.right_bias = l->right_bias ? reserve_floats((char *)memory, &offset, l->right * l->right_size) : NULL;
        s.bias = l->bias ? reserve_floats((char *)memory, &offset, l->y_size) : NULL;
        if (sums) sums[i] = s;
    }
    return (int64_t)(offset / sizeof(float));
}

/* Write the sums of one layer to the caller's arrays. */
static void write_gradients(const struct layer *l, const struct sums *sums, const kron_gradients *to)
{
    for (int64_t k = 0; k < l->left + l->right; k++) {
        const int64_t branch = l->branches[k], right = k - l->left;
        float *first = to->first + branch * l->m1 * l->n1;
        if (right < 0)
            crop_rows(l->m1, l->n1, sums->first + k * l->m1 * padded(l->n1), first);
        else
            for (int64_t i = 0; i < l->m1; i++)
                for (int64_t j = 0; j < l->n1; j++)
                    first[i * l->n1 + j] =
                        sums->first[l->left * l->m1 * padded(l->n1) + (right * l->n1 + j) * padded(l->m1) + i];
        crop_rows(l->m2, l->n2, sums->second + k * l->m2 * l->n2_padded, to->second + branch * l->m2 * l->n2);
    }
    if (l->left_bias) crop_rows(l->left * l->m1, l->n2, sums->left_bias, to->left_bias);
    if (l->right_bias) crop_rows(l->right * l->n1, l->m2, sums->right_bias, to->right_bias);
    if (l->bias) crop_rows(l->m1, l->m2, sums->bias, to->bias);
}

/* Scratch memory of one part of a backward pass, in floats. */
struct scratch {
    int64_t forward, record, features, hidden, transposed; /* of a sample, and of the forward pass */
    int64_t block;                                         /* samples */
    int64_t sums, total;
};

static struct scratch plan(const struct kron_network *network, int recompute)
{
    struct scratch plan = {.forward = 2 * network->features + network->hidden};
    plan.record = recompute ? network->record : 0;
    plan.features = network->features;
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        plan.hidden = larger(plan.hidden, larger(l->left ? l->left_size : 0, l->right ? l->right_size : 0));
        plan.transposed = larger(plan.transposed, l->left ? l->n2 * padded(l->n1) : 0);
        plan.transposed = larger(plan.transposed, l->right ? l->m2 * padded(l->m1) : 0);
    }
    const int64_t sample = plan.record + 3 * plan.features + plan.hidden + plan.transposed;
    plan.block = BLOCK_BYTES / (sample * (int64_t)sizeof(float));
    plan.block = plan.block < 1 ? 1 : plan.block > MAX_BLOCK ? MAX_BLOCK : plan.block;
    plan.sums = lay_out_sums(network, NULL, NULL);
    plan.total = plan.sums + plan.forward + plan.block * sample;
    return plan;
}

/* Compute gradients of a block of samples, and add those of the parameters to sums.
 * x, y_gradient, x_gradient: of the first sample of the block. records: of the first sample, or NULL. */
static void backward_block(const struct kron_network *network, const struct scratch *plan, int64_t samples,
                           const float *x, const float *y_gradient, const float *records, float *x_gradient,
                           const struct sums *sums, float *memory)
{
    float *forward = memory, *inputs = forward + plan->forward, *gradients = inputs + plan->block * plan->features;
    float *next = gradients + plan->block * plan->features, *hidden = next + plan->block * plan->features;
    float *transposed = hidden + plan->block * plan->hidden, *own = transposed + plan->block * plan->transposed;
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    for (int64_t s = 0; s < samples; s++) {
        pad_rows(first->n1, first->n2, x + s * first->n1 * first->n2, inputs + s * plan->features);
        pad_rows(last->m1, last->m2, y_gradient + s * last->m1 * last->m2, gradients + s * plan->features);
        if (records == NULL) forward_sample(network, inputs + s * plan->features, own + s * network->record, forward);
    }
    float *record = records ? (float *)records : own; /* only read */
    for (int64_t i = network->count - 1; i >= 0; i--) {
        const struct layer *l = &network->layers[i];
        struct block block = {
            .samples = samples,
            .x = {inputs, plan->features},
            .y_gradient = {gradients, plan->features},
            .x_gradient = {i || x_gradient ? next : NULL, plan->features},
            .hidden = {record + l->hidden, network->record},
            .slopes = {l->slopes < 0 ? NULL : record + l->slopes, network->record},
            .z_gradient = {hidden, plan->hidden},
            .transposed = {transposed, plan->transposed},
        };
        if (i) block.x = (struct matrices){record + l[-1].output, network->record};
        if (i && l[-1].output_slopes >= 0)
            block.x_slopes = (struct matrices){record + l[-1].output_slopes, network->record};
        if (i > 1) {
            block.before = (struct matrices){record + l[-2].output, network->record};
            block.before_size = l[-1].x_size;
        }
        for (int64_t s = 0; l->outer != KRON_NONE && s < samples; s++)
            differentiate(l->outer, l->y_size, gradients + s * plan->features,
                          record + l->output + s * network->record,
                          l->output_slopes < 0 ? NULL : record + l->output_slopes + s * network->record);
        if (l->bias) add(l->y_size, samples, gradients, plan->features, sums[i].bias);
        if (l->left) backward_left(l, &block, &sums[i]);
        if (l->right) backward_right(l, &block, &sums[i]);
        float *swap = gradients;
        gradients = next, next = swap;
    }
    for (int64_t s = 0; x_gradient && s < samples; s++)
        crop_rows(first->n1, first->n2, gradients + s * plan->features, x_gradient + s * first->n1 * first->n2);
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

typedef void openmp_parallel(void (*task)(void *), void *data, unsigned threads, unsigned flags);

static openmp_parallel *openmp;

void kron_use_openmp(openmp_parallel *parallel) { openmp = parallel; }

/* A pass over samples that are divided into parts. */
struct job {
    const struct kron_network *network;
    const float *x, *y_gradient;
    float *y, *x_gradient, *kept;
    struct scratch plan;
    float *memory;     /* `plan.total` floats for each part */
    struct sums *sums; /* of each part, of each layer */
    int64_t batch, parts, taken;
    void (*run)(const struct job *job, int64_t part, int64_t begin, int64_t end);
};

/* Run parts until none is left: the task of each thread. */
static void run_parts(void *data)
{
    struct job *job = data;
    for (;;) {
        const int64_t part = __atomic_fetch_add(&job->taken, 1, __ATOMIC_RELAXED);
        if (part >= job->parts) return;
        job->run(job, part, job->batch * part / job->parts, job->batch * (part + 1) / job->parts);
    }
}

static void *run_thread(void *data)
{
    run_parts(data);
    return NULL;
}

/* Run all parts, by threads of OpenMP or of its own. Threads that can't be started leave their parts to the others. */
static void run(struct job *job)
{
    enum { MOST = 64 };
    pthread_t threads[MOST];
    int64_t started = 0;
    if (job->parts > 1 && openmp) {
        openmp(run_parts, job, (unsigned)job->parts, 0);
        return;
    }
    while (started < job->parts - 1 && started < MOST && !pthread_create(&threads[started], NULL, run_thread, job))
        started++;
    run_parts(job);
    while (started > 0) pthread_join(threads[--started], NULL);
}

static int64_t count_parts(int64_t batch, int64_t threads)
{
    return threads > batch ? larger(batch, 1) : larger(threads, 1);
}

static int allocate(struct job *job)
{
    void *memory = NULL;
    const int64_t floats = job->parts * job->plan.total;
    if (posix_memalign(&memory, ALIGNMENT, (size_t)floats * sizeof(float))) return -1;
    job->memory = memory;
    return 0;
}

static void forward_part(const struct job *job, int64_t part, int64_t begin, int64_t end)
{
    const struct kron_network *network = job->network;
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    float *input = job->memory + part * job->plan.total, *scratch = input + network->features;
    for (int64_t s = begin; s < end; s++) {
        pad_rows(first->n1, first->n2, job->x + s * first->n1 * first->n2, input);
        const float *y = forward_sample(network, input, job->kept ? job->kept + s * network->record : NULL, scratch);
        crop_rows(last->m1, last->m2, y, job->y + s * last->m1 * last->m2);
    }
}

int kron_forward(const kron_network *network, int64_t batch, const float *x, float *y, void *kept, int64_t threads)
{
    struct job job = {.network = network, .x = x, .y = y, .kept = kept, .batch = batch, .run = forward_part};
    job.parts = count_parts(batch, threads);
    job.plan.total = 3 * network->features + network->hidden;
    /* Little memory is on the stack: at the end of the heap, malloc and free may ask the system for it each time. */
    float little[STACK_FLOATS] __attribute__((aligned(ALIGNMENT)));
    if (job.parts == 1 && job.plan.total <= STACK_FLOATS) {
        job.memory = little;
        run(&job);
        return 0;
    }
    if (allocate(&job)) return -1;
    run(&job);
    free(job.memory);
    return 0;
}

static void backward_part(const struct job *job, int64_t part, int64_t begin, int64_t end)
{
    const struct kron_network *network = job->network;
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    const int64_t x_size = first->n1 * first->n2, y_size = last->m1 * last->m2;
    float *memory = job->memory + part * job->plan.total;
    struct sums *sums = job->sums + part * network->count;
    lay_out_sums(network, memory, sums);
    memset(memory, 0, (size_t)job->plan.sums * sizeof(float));
    for (int64_t s = begin; s < end; s += job->plan.block) {
        const int64_t samples = end - s < job->plan.block ? end - s : job->plan.block;
        backward_block(network, &job->plan, samples, job->x + s * x_size, job->y_gradient + s * y_size,
                       job->kept ? job->kept + s * network->record : NULL,
                       job->x_gradient ? job->x_gradient + s * x_size : NULL, sums, memory + job->plan.sums);
    }
}

int kron_backward(const kron_network *network, int64_t batch, const float *x, const float *y_gradient, const void *kept,
                  float *x_gradient, const kron_gradients *gradients, int64_t threads)
{
    struct job job = {.network = network, .x = x, .y_gradient = y_gradient, .kept = (float *)kept, /* only read */
                      .x_gradient = x_gradient, .batch = batch, .run = backward_part};
    job.parts = count_parts(batch, threads);
    job.plan = plan(network, kept == NULL);
    job.sums = malloc((size_t)(job.parts * network->count) * sizeof(struct sums));
    if (job.sums == NULL) return -1;
    if (allocate(&job)) {
        free(job.sums);
        return -1;
    }
    run(&job);
    add(job.plan.sums, job.parts - 1, job.memory + job.plan.total, job.plan.total, job.memory);
    for (int64_t i = 0; i < network->count; i++)
        write_gradients(&network->layers[i], &job.sums[i], &gradients[i]);
    free(job.sums);
    free(job.memory);
    return 0;
}
