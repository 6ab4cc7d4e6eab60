/* Inference with 8-bit weights and activations: products of small matrices of integers, each finished in registers.
 *
 * Processors multiply bytes in groups: an instruction adds up four products of bytes in each 32-bit lane (VNNI, NEON's
 * dot products), or two of 16-bit numbers elsewhere. So a word of 32 bits holds GROUP consecutive numbers of the axis
 * that is summed over. The left matrix of a product keeps its rows as they are ("rows"), and a word of it is spread over
 * a register. The right matrix interleaves GROUP rows, so that a word holds numbers of one column ("interleaved").
 *
 * A tile of sums stays in registers until it is finished: scaled to real values, with the bias, the activation and the
 * quantization for the next product, in the order that this product needs. Interleaving costs a shift and an OR, since
 * the rows that it joins are rows of the same tile. The activations are approximations, with an error far below the
 * quantization's. Ranges of activations were measured on samples beforehand, so that nothing is passed over twice.
 */
#include "int8.h"

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include <immintrin.h>
#define LANES 16
#define GROUP 4
#define DOT(sum, activations, weights) (integers)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(activations), (__m512i)(weights))
#elif defined(__AVXVNNI__)
#include <immintrin.h>
#define LANES 8
#define GROUP 4
#define DOT(sum, activations, weights) (integers)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(activations), (__m256i)(weights))
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
#define DOT(sum, activations, weights) (integers)vdotq_s32((int32x4_t)(sum), (int8x16_t)(activations), (int8x16_t)(weights))
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
    STACK_BYTES = 32 << 10,
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

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

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
#define LARGER(a, b) (floats)(((a) > (b) & (integers)(a)) | (~((a) > (b)) & (integers)(b)))
#define SMALLER(a, b) (floats)(((a) < (b) & (integers)(a)) | (~((a) < (b)) & (integers)(b)))
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

INLINE floats hyperbolic(floats x) /* error below 3.4e-3 */
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
            const floats scale = f->row_scales ? spread(f->row_scales[row + i]) : *(const floats *)(f->column_scales + at);
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

/* ---- Packed weights ---------------------------------------------------------------------------------------------- */

/* A layer with packed weights. Rows of left matrices and columns of right ones are padded; see `pack_layer`. */
struct layer {
    int64_t n1, n2, m1, m2, left, right, inner, outer;
    int64_t rows_in, rows_out;       /* n1 and m1, rounded up to whole tiles; 1 for a dense layer */
    int64_t columns_in, columns_out; /* n2 and m2, padded */
    int64_t depth1, depth2;          /* n1 and n2, in whole words */
    const number *left_first;        /* (left, rows_out, depth1) */
    const number *left_second;       /* (left, depth2 / GROUP, columns_out, GROUP) */
    const number *right_second;      /* the same of right branches, or of a dense layer */
    const number *right_first;       /* (right, rows_out, depth1) */
    const float *first_scale, *left_scale, *second_scale, *right_scale;
    const float *left_bias, *right_bias, *bias;
    const float *hidden_inverse, *hidden_zero;
    float output_inverse, output_zero;
    int direct; /* whether the next layer takes the output matrix as it is */
};

struct kron_int8_network {
    int64_t count;
    float inverse, zero;
    int64_t rows, interleaved, floats, hidden, partial; /* elements of a sample's buffers, see `forward_block` */
    struct layer layers[];
};

static void *reserve(char *memory, size_t *offset, int64_t size)
{
    void *part = memory ? memory + *offset : NULL;
    *offset += (size_t)round_up(size, ALIGNMENT);
    return part;
}

/* Copy arrays (count, rows, columns) to padded ones, filled up with zeros. */
static float *pack_floats(char *memory, size_t *offset, const float *from, int64_t count, int64_t rows, int64_t columns,
                          int64_t to_rows, int64_t to_columns)
{
    float *to = reserve(memory, offset, count * to_rows * to_columns * (int64_t)sizeof(float));
    for (int64_t k = 0; to && k < count; k++)
        for (int64_t i = 0; i < to_rows; i++)
            for (int64_t j = 0; j < to_columns; j++)
                to[(k * to_rows + i) * to_columns + j] =
                    from && i < rows && j < columns ? from[(k * rows + i) * columns + j] : 0;
    return to;
}

/* Pack matrices (count, rows, columns) as left ones of a product. */
static number *pack_rows(char *memory, size_t *offset, const int8_t *from, int64_t count, int64_t rows, int64_t columns,
                         int64_t to_rows)
{
    const int64_t width = round_up(columns, GROUP);
    number *to = reserve(memory, offset, count * to_rows * width * (int64_t)sizeof(number));
    for (int64_t k = 0; to && k < count; k++)
        for (int64_t i = 0; i < to_rows; i++)
            for (int64_t j = 0; j < width; j++)
                to[(k * to_rows + i) * width + j] =
                    i < rows && j < columns ? (number)from[(k * rows + i) * columns + j] : 0;
    return to;
}

/* Pack the transposes of matrices (count, columns, rows) as right ones of a product. */
static number *pack_interleaved(char *memory, size_t *offset, const int8_t *from, int64_t count, int64_t columns,
                                int64_t rows)
{
    const int64_t height = round_up(rows, GROUP), width = padded(columns);
    number *to = reserve(memory, offset, count * height * width * (int64_t)sizeof(number));
    for (int64_t k = 0; to && k < count; k++)
        for (int64_t i = 0; i < height; i++)
            for (int64_t j = 0; j < width; j++)
                to[k * height * width + (i / GROUP * width + j) * GROUP + i % GROUP] =
                    i < rows && j < columns ? (number)from[(k * columns + j) * rows + i] : 0;
    return to;
}

static int is_dense(const kron_int8_layer *l) { return l->left + l->right == 0; }

static struct layer pack_layer(const kron_int8_layer *from, char *memory, size_t *offset)
{
    const int64_t n1 = from->n1, n2 = from->n2, m1 = from->m1, m2 = from->m2, left = from->left;
    const int64_t right = is_dense(from) ? 1 : from->right, rank = left + right;
    struct layer l = {.n1 = n1, .n2 = n2, .m1 = m1, .m2 = m2, .left = left, .right = from->right,
                      .inner = from->inner, .outer = from->outer,
                      .output_inverse = (float)from->output_inverse, .output_zero = (float)from->output_zero};
    l.rows_in = is_dense(from) ? 1 : round_up(n1, 4), l.rows_out = is_dense(from) ? 1 : round_up(m1, 4);
    l.columns_in = padded(n2), l.columns_out = padded(m2);
    l.depth1 = round_up(n1, GROUP), l.depth2 = round_up(n2, GROUP);
    l.left_second = pack_interleaved(memory, offset, from->second, left, m2, n2);
    l.right_second = pack_interleaved(memory, offset, from->second ? from->second + left * m2 * n2 : NULL, right, m2, n2);
    l.second_scale = pack_floats(memory, offset, from->second_scale, right, 1, m2, 1, l.columns_out);
    l.bias = pack_floats(memory, offset, from->bias, 1, m1, m2, l.rows_out, l.columns_out);
    if (is_dense(from)) return l;
    l.left_first = pack_rows(memory, offset, from->first, left, m1, n1, l.rows_out);
    l.right_first = pack_rows(memory, offset, from->first ? from->first + left * m1 * n1 : NULL, right, m1, n1, l.rows_out);
    l.first_scale = pack_floats(memory, offset, from->first_scale, left, 1, m1, 1, l.rows_out);
    l.left_scale = pack_floats(memory, offset, from->left_scale, 1, 1, m2, 1, l.columns_out);
    l.right_scale = pack_floats(memory, offset, from->right_scale, 1, 1, m1, 1, l.rows_out);
    l.left_bias = pack_floats(memory, offset, from->left_bias, left, m1, n2, l.rows_out, l.columns_in);
    l.right_bias = pack_floats(memory, offset, from->right_bias, right, n1, m2, l.rows_in, l.columns_out);
    l.hidden_inverse = pack_floats(memory, offset, from->hidden_inverse, 1, 1, rank, 1, rank);
    l.hidden_zero = pack_floats(memory, offset, from->hidden_zero, 1, 1, rank, 1, rank);
    return l;
}

static size_t pack(const kron_int8_layer *layers, int64_t count, struct kron_int8_network *total, char *memory)
{
    size_t offset = 0;
    struct kron_int8_network *network =
        reserve(memory, &offset, (int64_t)(sizeof(struct kron_int8_network) + (size_t)count * sizeof(struct layer)));
    for (int64_t i = 0; i < count; i++) {
        struct layer l = pack_layer(&layers[i], memory, &offset);
        const kron_int8_layer *next = &layers[i + 1];
        l.direct = i + 1 < count && is_dense(next) == is_dense(&layers[i]) && next->n1 == l.m1 && next->n2 == l.m2;
        const int64_t hidden = l.left * l.rows_out * l.columns_in + l.right * l.rows_in * l.columns_out;
        total->rows = larger(total->rows, l.rows_in * l.columns_in);
        total->interleaved = larger(total->interleaved, round_up(l.rows_in, GROUP) * l.columns_in);
        total->floats = larger(total->floats, larger(l.m1 * l.m2, l.n1 * l.n2));
        total->partial = larger(total->partial, l.rows_out * l.columns_out);
        total->hidden = larger(total->hidden, hidden);
        if (memory) network->layers[i] = l;
    }
    total->count = count;
    total->rows = round_up(total->rows, ALIGNMENT), total->interleaved = round_up(total->interleaved, ALIGNMENT);
    total->floats = round_up(total->floats, ALIGNMENT), total->partial = round_up(total->partial, ALIGNMENT);
    total->hidden = round_up(total->hidden, ALIGNMENT);
    if (memory) memcpy(network, total, sizeof *total);
    return offset;
}

int64_t kron_int8_offset(void) { return OFFSET; }

size_t kron_int8_packed_size(const kron_int8_layer *layers, int64_t count)
{
    struct kron_int8_network total = {0};
    return pack(layers, count, &total, NULL);
}

kron_int8_network *kron_int8_pack(const kron_int8_layer *layers, int64_t count, double inverse, double zero,
                                  void *memory)
{
    struct kron_int8_network total = {.inverse = (float)inverse, .zero = (float)zero};
    pack(layers, count, &total, memory);
    return memory;
}

/* ---- Inference --------------------------------------------------------------------------------------------------- */

/* Buffers of one sample. A layer's input is quantized in `rows`, `interleaved`, or both, as its branches need. */
struct buffers {
    number *rows, *interleaved; /* the input */
    number *next_rows, *next_interleaved;
    number *hidden;
    float *partial; /* sum of the left branches, or the last output: padded */
    float *floats;  /* features without padding, between layers of different shapes */
};

/* Quantize features without padding as a layer's input. `size` floats may be read. */
static void quantize_input(const struct layer *l, const float *x, float inverse, float zero, const struct buffers *b)
{
    const int64_t size = l->n1 * l->n2;
    const int needs_rows = l->right > 0 || l->left == 0;
    for (int64_t row = 0; row < l->n1; row += GROUP)
        for (int64_t column = 0; column < l->columns_in; column += LANES) {
            integers together[GROUP];
            const int count = l->n1 - row < GROUP ? (int)(l->n1 - row) : GROUP;
            for (int i = 0; i < GROUP; i++) {
                const int64_t at = (row + i) * l->n2 + column;
                floats values = {0};
                if (i < count && at + LANES <= size)
                    values = *(const loose_floats *)(x + at);
                else if (i < count)
                    memcpy(&values, x + at, (size_t)(size - at) * sizeof(float));
                together[i] = quantized(values, spread(inverse), spread(zero));
                if (needs_rows && i < count)
                    *(numbers *)(b->rows + (row + i) * l->columns_in + column) =
                        __builtin_convertvector(together[i], numbers);
            }
            if (l->left)
                *(integers *)(b->interleaved + (row / GROUP * l->columns_in + column) * GROUP) = joined(together, GROUP);
        }
}

/* Compute a layer of one sample; a dense one too. */
static void forward_layer(const struct layer *l, const struct layer *next, const struct buffers *b)
{
    struct finish output = {.start = l->bias, .start_row = l->columns_out, .activation = l->outer,
                            .inverse = l->output_inverse, .zero = l->output_zero,
                            .rows_row = l->columns_out, .floats_row = l->columns_out};
    if (l->direct) {
        output.rows = next->right > 0 || next->left == 0 ? b->next_rows : NULL;
        output.interleaved = next->left > 0 ? b->next_interleaved : NULL;
    } else {
        output.floats = b->partial;
    }
    if (l->left + l->right == 0) {
        output.column_scales = l->second_scale;
        multiply(&(struct product){.rows = 1, .columns = l->columns_out, .words = l->depth2 / GROUP, .panels = 1,
                                   .left = b->rows, .left_row = l->columns_in, .right = l->right_second,
                                   .left_activations = 1, .finish = output});
        return;
    }
    const int64_t left_size = l->rows_out * l->columns_in, right_size = l->rows_in * l->columns_out;
    number *hidden_right = b->hidden + l->left * left_size;
    for (int64_t k = 0; k < l->left; k++) /* A_k X + C_k */
        multiply(&(struct product){
            .rows = l->rows_out, .columns = l->columns_in, .words = l->depth1 / GROUP, .panels = 1,
            .left = l->left_first + k * l->rows_out * l->depth1, .left_row = l->depth1, .right = b->interleaved,
            .finish = {.row_scales = l->first_scale + k * l->rows_out, .start = l->left_bias + k * left_size,
                       .start_row = l->columns_in, .activation = l->inner, .inverse = l->hidden_inverse[k],
                       .zero = l->hidden_zero[k], .rows = b->hidden + k * left_size, .rows_row = l->columns_in}});
    for (int64_t k = 0; k < l->right; k++) /* X B_k^T + C_k */
        multiply(&(struct product){
            .rows = l->rows_in, .columns = l->columns_out, .words = l->depth2 / GROUP, .panels = 1,
            .left = b->rows, .left_row = l->columns_in,
            .right = l->right_second + k * l->depth2 * l->columns_out, .left_activations = 1,
            .finish = {.column_scales = l->second_scale + k * l->columns_out, .start = l->right_bias + k * right_size,
                       .start_row = l->columns_out, .activation = l->inner, .inverse = l->hidden_inverse[l->left + k],
                       .zero = l->hidden_zero[l->left + k], .interleaved = hidden_right + k * right_size}});
    if (l->left) { /* sum of Z_k B_k^T, and the bias */
        struct finish finish = output;
        if (l->right) finish = (struct finish){.start = l->bias, .start_row = l->columns_out, .floats = b->partial,
                                               .floats_row = l->columns_out};
        finish.column_scales = l->left_scale;
        multiply(&(struct product){
            .rows = l->rows_out, .columns = l->columns_out, .words = l->depth2 / GROUP, .panels = l->left,
            .left = b->hidden, .left_row = l->columns_in, .left_panel = left_size, .right = l->left_second,
            .right_panel = l->depth2 * l->columns_out, .left_activations = 1, .finish = finish});
    }
    if (l->right) { /* sum of A_k Z_k, and the bias or the sum above */
        output.row_scales = l->right_scale;
        if (l->left) output.start = b->partial;
        multiply(&(struct product){
            .rows = l->rows_out, .columns = l->columns_out, .words = l->depth1 / GROUP, .panels = l->right,
            .left = l->right_first, .left_row = l->depth1, .left_panel = l->rows_out * l->depth1,
            .right = hidden_right, .right_panel = right_size, .finish = output});
    }
}

static void swap(number **a, number **b)
{
    number *was = *a;
    *a = *b, *b = was;
}

/* Compute all layers of one sample. */
static void forward_sample(const struct kron_int8_network *network, const float *x, float *y, struct buffers b)
{
    quantize_input(&network->layers[0], x, network->inverse, network->zero, &b);
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        forward_layer(l, l + 1, &b);
        if (!l->direct) {
            float *to = i + 1 < network->count ? b.floats : y;
            for (int64_t row = 0; row < l->m1; row++)
                memcpy(to + row * l->m2, b.partial + row * l->columns_out, (size_t)l->m2 * sizeof(float));
            if (i + 1 < network->count) quantize_input(l + 1, to, l->output_inverse, l->output_zero, &b);
        } else {
            swap(&b.rows, &b.next_rows);
            swap(&b.interleaved, &b.next_interleaved);
        }
    }
}

int kron_int8_forward(const kron_int8_network *network, int64_t batch, const float *x, float *y)
{
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    const size_t numbers_count = (size_t)(2 * network->rows + 2 * network->interleaved + network->hidden);
    const size_t size = numbers_count * sizeof(number) + (size_t)(network->partial + network->floats) * sizeof(float);
    /* From the stack if it is little: at the end of the heap, malloc and free may ask the system for memory each time. */
    char little[STACK_BYTES] __attribute__((aligned(ALIGNMENT)));
    void *memory = little;
    if (size > STACK_BYTES && posix_memalign(&memory, ALIGNMENT, size)) return -1;
    number *n = memory;
    struct buffers b = {.rows = n, .next_rows = n + network->rows};
    b.interleaved = n + 2 * network->rows, b.next_interleaved = b.interleaved + network->interleaved;
    b.hidden = b.next_interleaved + network->interleaved;
    b.partial = (float *)(b.hidden + network->hidden), b.floats = b.partial + network->partial;
    for (int64_t sample = 0; sample < batch; sample++)
        forward_sample(network, x + sample * first->n1 * first->n2, y + sample * last->m1 * last->m2, b);
    if (memory != little) free(memory);
    return 0;
}
