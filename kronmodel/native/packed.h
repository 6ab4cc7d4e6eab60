/* Weights of consecutive layers in the layout of the kernel. */
#ifndef KRON_PACKED_H
#define KRON_PACKED_H

#include <string.h>

#include "kernel.h"
#include "matrices.h"

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

/* Reserve an aligned part of memory that has been reserved up to `offset`; with memory NULL, only count. */
static inline void *reserve(char *memory, size_t *offset, int64_t size)
{
    void *part = memory ? memory + *offset : NULL;
    *offset += ((size_t)size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return part;
}

static inline float *reserve_floats(char *memory, size_t *offset, int64_t count)
{
    return reserve(memory, offset, count * (int64_t)sizeof(float));
}

static inline void pack_layer(const kron_layer *from, struct layer *to, char *memory, size_t *offset)
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

static inline int64_t hidden_size(const struct layer *l) { return l->left * l->left_size + l->right * l->right_size; }

/* Pack all layers, or with memory NULL only count bytes and the floats that are kept of a sample. */
static inline size_t pack(const kron_layer *layers, int64_t count, char *memory, int64_t *record)
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

#endif
