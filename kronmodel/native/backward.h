/* Backward pass of a block of a few samples through all layers.
 *
 * With dY for the gradient of the loss with respect to Y, and the matrices of kernel.h, a left branch Z = inner(A X + C),
 * Y = Z B^T + ... has
 *     dZ = dY B * inner'    dC = dZ    dB = dY^T Z    dA = dZ X^T    dX = A^T dZ,
 * where dZ is with respect to Z before its activation, and a right branch Z = inner(X B^T + C), Y = A Z + ... has
 *     dZ = A^T dY * inner'  dC = dZ    dB = dZ^T X    dA = dY Z^T    dX = dZ B.
 * dA, dB and dC are summed over the samples, dX over the branches. The products' right matrices need padded rows, so X^T
 * or dY is transposed for dA (of a right branch, dA^T = Z dY^T is computed), and a column of the left matrix is read for
 * dY^T, dZ^T and A^T. */
#ifndef KRON_BACKWARD_H
#define KRON_BACKWARD_H

#include "forward.h"

enum { MAX_BLOCK = 16, BLOCK_BYTES = 384 << 10 /* of a block's values, to stay in the L2 cache */ };

/* Ask the caches for values that are read soon. Those that the forward pass kept are no longer in the L2 cache, and each
 * sample's are too few for the processor to foresee the next ones by itself. NULL: none. Always inline: gcc drops calls of
 * functions that have no effect on values. */
INLINE void prefetch(const float *values, int64_t count)
{
    if (values == NULL) return;
    for (int64_t i = 0; i < count; i += ALIGNMENT / (int64_t)sizeof(float)) __builtin_prefetch(values + i, 0, 2);
}

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

static inline float *at(struct matrices m, int64_t sample, int64_t offset)
{
    return m.first ? m.first + sample * m.distance + offset : NULL;
}

struct block {
    int64_t samples;
    struct matrices x;            /* the layer's input */
    struct matrices y_gradient;   /* with respect to the output before its activation */
    struct matrices x_gradient;   /* to compute, before the activation that gave x; first: NULL if not wanted */
    struct matrices hidden, slopes;
    int64_t x_activation;         /* that gave x */
    struct matrices x_slopes;     /* of that activation; first: NULL if it keeps none */
    float *x_total;               /* sum of x_gradient, before that activation; NULL: not wanted */
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

/* How the gradient with respect to x is finished, which the last branch completes. */
INLINE struct finish finish_x(const struct block *b, int64_t sample, int is_last)
{
    if (!is_last) return (struct finish){0};
    return (struct finish){.activation = b->x_activation, .values = at(b->x, sample, 0),
                           .slopes = at(b->x_slopes, sample, 0), .total = b->x_total};
}

static inline void backward_left(const struct layer *l, const struct block *b, const struct sums *sums)
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
                .right = second, .right_row = l->n2_padded, .out = z_gradient, .out_row = l->n2_padded,
                .finish = {.activation = l->inner, .values = hidden + s * b->hidden.distance,
                           .slopes = at(b->slopes, s, k * l->left_size),
                           .total = sums->left_bias ? sums->left_bias + k * l->left_size : NULL}});
        }
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
                .start = k ? x_gradient : NULL, .out = x_gradient, .out_row = l->n2_padded,
                .finish = finish_x(b, s, l->right == 0 && k + 1 == l->left)});
        }
    }
}

static inline void backward_right(const struct layer *l, const struct block *b, const struct sums *sums)
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
                .out = z_gradient, .out_row = l->m2_padded,
                .finish = {.activation = l->inner, .values = hidden + s * b->hidden.distance,
                           .slopes = at(b->slopes, s, offset),
                           .total = sums->right_bias ? sums->right_bias + k * l->right_size : NULL}});
        }
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
                .start = branch ? x_gradient : NULL, .out = x_gradient, .out_row = l->n2_padded,
                .finish = finish_x(b, s, k + 1 == l->right)});
        }
    }
}

/* Sums of all layers in memory that starts at `sums`; with NULL, only count floats. */
static inline int64_t lay_out_sums(const struct kron_network *network, float *memory, struct sums *sums)
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
static inline void write_gradients(const struct layer *l, const struct sums *sums, const kron_gradients *to)
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

static inline struct scratch plan(const struct kron_network *network, int recompute)
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
static inline void backward_block(const struct kron_network *network, const struct scratch *plan, int64_t samples,
                           const float *x, const float *y_gradient, const float *records, float *x_gradient,
                           const struct sums *sums, float *memory)
{
    float *forward = memory, *inputs = forward + plan->forward, *gradients = inputs + plan->block * plan->features;
    float *next = gradients + plan->block * plan->features, *hidden = next + plan->block * plan->features;
    float *transposed = hidden + plan->block * plan->hidden;
    float *recomputed = transposed + plan->block * plan->transposed; /* records, if none are given */
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    for (int64_t s = 0; s < samples; s++) {
        pad_rows(first->n1, first->n2, x + s * first->n1 * first->n2, inputs + s * plan->features);
        pad_rows(last->m1, last->m2, y_gradient + s * last->m1 * last->m2, gradients + s * plan->features);
        if (records == NULL)
            forward_sample(network, inputs + s * plan->features, recomputed + s * network->record, forward);
    }
    float *record = records ? (float *)records : recomputed; /* only read */
    for (int64_t s = 0; last->outer != KRON_NONE && s < samples; s++)
        differentiate(last->outer, last->y_size, gradients + s * plan->features,
                      record + last->output + s * network->record,
                      last->output_slopes < 0 ? NULL : record + last->output_slopes + s * network->record);
    if (last->bias) add(last->y_size, samples, gradients, plan->features, sums[network->count - 1].bias);
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
        if (i) {
            block.x = (struct matrices){record + l[-1].output, network->record};
            block.x_activation = l[-1].outer;
            block.x_total = sums[i - 1].bias;
        }
        if (i && l[-1].output_slopes >= 0)
            block.x_slopes = (struct matrices){record + l[-1].output_slopes, network->record};
        if (i > 1) {
            block.before = (struct matrices){record + l[-2].output, network->record};
            block.before_size = l[-1].x_size;
        }
        if (l->left) backward_left(l, &block, &sums[i]);
        if (l->right) backward_right(l, &block, &sums[i]);
        float *swap = gradients;
        gradients = next, next = swap;
    }
    for (int64_t s = 0; x_gradient && s < samples; s++)
        crop_rows(first->n1, first->n2, gradients + s * plan->features, x_gradient + s * first->n1 * first->n2);
}

#endif
