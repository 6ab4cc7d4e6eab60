/* Forward pass of one sample through all layers; of several at once if these are dense. */
#ifndef KRON_FORWARD_H
#define KRON_FORWARD_H

#include "activations.h"
#include "packed.h"
#include "product.h"

/* ReLU costs nothing while values are in registers; the other activations need registers of their own. */
INLINE struct finish relu_of(int64_t activation)
{
    return (struct finish){.activation = activation == KRON_RELU ? KRON_RELU : KRON_NONE};
}

/* Compute a layer: hidden matrices of all branches, the output, and the activations' slopes (NULL if not wanted). */
static inline void forward_layer(const struct layer *l, const float *x, float *hidden, float *slopes, float *y,
                          float *y_slopes)
{
    for (int64_t k = 0; k < l->left; k++) /* A_k X + C_k */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->n2_padded, .depth = l->n1, .panels = 1,
            .left = l->first + k * l->m1 * l->n1, .left_row = l->n1, .left_column = 1,
            .right = x, .right_row = l->n2_padded,
            .start = l->left_bias ? l->left_bias + k * l->left_size : NULL,
            .out = hidden + k * l->left_size, .out_row = l->n2_padded, .finish = relu_of(l->inner)});
    float *hidden_right = hidden + l->left * l->left_size;
    for (int64_t k = 0; k < l->right; k++) /* X B_k^T + C_k */
        multiply(&(struct product){
            .rows = l->n1, .columns = l->m2_padded, .depth = l->n2, .panels = 1,
            .left = x, .left_row = l->n2_padded, .left_column = 1,
            .right = l->second_transposed + (l->left + k) * l->n2 * l->m2_padded, .right_row = l->m2_padded,
            .start = l->right_bias ? l->right_bias + k * l->right_size : NULL,
            .out = hidden_right + k * l->right_size, .out_row = l->m2_padded, .finish = relu_of(l->inner)});
    if (l->inner != KRON_RELU) activate(l->inner, hidden_size(l), hidden, slopes);
    const struct finish outer = relu_of(l->outer);
    if (l->left) /* sum of Z_k B_k^T, and the bias */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->m2_padded, .depth = l->n2, .panels = l->left,
            .left = hidden, .left_row = l->n2_padded, .left_column = 1, .left_panel = l->left_size,
            .right = l->second_transposed, .right_row = l->m2_padded, .right_panel = l->n2 * l->m2_padded,
            .start = l->bias, .out = y, .out_row = l->m2_padded, .finish = l->right ? (struct finish){0} : outer});
    if (l->right) /* sum of A_k Z_k, and the bias or the sum above */
        multiply(&(struct product){
            .rows = l->m1, .columns = l->m2_padded, .depth = l->n1, .panels = l->right,
            .left = l->first + l->left * l->m1 * l->n1, .left_row = l->n1, .left_column = 1,
            .left_panel = l->m1 * l->n1,
            .right = hidden_right, .right_row = l->m2_padded, .right_panel = l->right_size,
            .start = l->left ? y : l->bias, .out = y, .out_row = l->m2_padded, .finish = outer});
    if (l->outer != KRON_RELU) activate(l->outer, l->y_size, y, y_slopes);
}

/* Compute all layers.
 * x: padded. record: memory for what is kept of this sample, or NULL. scratch: 2 * features + hidden floats.
 * Returns the padded output, in the scratch memory or in the record. */
static inline const float *forward_sample(const struct kron_network *network, const float *x, float *record, float *scratch)
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

enum { DENSE_ROWS = 8 * TILE_ROWS /* samples of dense layers that are computed at once */ };

/* Tell whether all layers are dense ones: with the first factor a number, and one branch in the order "right". */
static inline int is_dense(const struct kron_network *network)
{
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        if (l->n1 != 1 || l->m1 != 1 || l->left != 0 || l->right != 1) return 0;
    }
    return 1;
}

/* Compute dense layers of several samples, which are the rows of a matrix: a weight that is loaded serves a whole tile.
 * The values are those of forward_sample to the bit.
 * x: without padding. scratch: 2 * samples * features floats. Returns the padded output, in the scratch memory. */
static inline const float *forward_dense(const struct kron_network *network, int64_t samples, const float *x,
                                         float *scratch)
{
    float *outputs[2] = {scratch, scratch + samples * network->features};
    int64_t x_row = network->layers[0].n2;
    for (int64_t i = 0; i < network->count; i++) {
        const struct layer *l = &network->layers[i];
        const int64_t width = l->m2_padded;
        float *y = outputs[i % 2];
        for (int64_t s = 0; l->right_bias && s < samples; s++)
            memcpy(y + s * width, l->right_bias, (size_t)width * sizeof(float));
        multiply(&(struct product){
            .rows = samples, .columns = width, .depth = l->n2, .panels = 1,
            .left = x, .left_row = x_row, .left_column = 1,
            .right = l->second_transposed, .right_row = width,
            .start = l->right_bias ? y : NULL, .out = y, .out_row = width});
        activate(l->inner, samples * width, y, NULL);
        for (int64_t s = 0; s < samples; s++)
            for (int64_t j = 0; j < width; j += LANES) {
                vector *value = (vector *)(y + s * width + j);
                *value = (l->bias ? *(const vector *)(l->bias + j) : (vector){0}) + *value * spread(l->first[0]);
            }
        activate(l->outer, samples * width, y, NULL);
        x = y, x_row = width;
    }
    return x;
}

#endif
