/* Inference with 8-bit weights and activations, one sample after the other. Ranges of activations were measured on
 * samples beforehand, so that each value is quantized where it is computed, and nothing is passed over twice. */
#include "int8.h"

#include <stdlib.h>
#include <string.h>

#include "int8_product.h"
#include "kernel.h"

enum { STACK_BYTES = 32 << 10 };

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

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
