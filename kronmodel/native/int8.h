/* Entry points of int8.c: inference of networks with 8-bit weights and activations. */
#ifndef KRON_INT8_H
#define KRON_INT8_H

#include <stddef.h>
#include <stdint.h>

/* One layer with quantized weights; see kron_layer in kernel.h for the arithmetic of a Kronecker layer. A dense layer has
 * no branches, n1 = m1 = 1, and its weight (out, in) as `second`. All arrays are contiguous. Every field has 8 bytes.
 *
 * A real value is scale * (q - zero point). The scales of inputs are part of those of the weights, and zero points of
 * inputs, less kron_int8_offset(), part of the biases; so what remains is weights, scales and biases of each product, and
 * how its results are quantized: q = round(value * inverse + zero), limited to 0 .. 255. */
typedef struct {
    int64_t n1, n2, m1, m2, left, right;
    int64_t inner, outer;         /* activations: KRON_NONE, ... */
    const int8_t *first;          /* A: (left + right, m1, n1), the left branches first */
    const int8_t *second;         /* B: (left + right, m2, n2) */
    const float *first_scale;     /* of A X in left branches: (left, m1) */
    const float *left_scale;      /* of the sum of the left branches: (m2) */
    const float *second_scale;    /* of X B^T in right branches, or of a dense layer: (right, m2) */
    const float *right_scale;     /* of the sum of the right branches: (m1) */
    const float *left_bias;       /* (left, m1, n2) */
    const float *right_bias;      /* (right, n1, m2) */
    const float *bias;            /* (m1, m2) */
    const float *hidden_inverse, *hidden_zero;   /* (left + right) */
    double output_inverse, output_zero;          /* of the next layer's input; not used in the last one */
} kron_int8_layer;

typedef struct kron_int8_network kron_int8_network;

/* Number that is subtracted from quantized activations before products: 128 on processors that multiply signed bytes. */
int64_t kron_int8_offset(void);

/* Bytes that kron_int8_pack writes. */
size_t kron_int8_packed_size(const kron_int8_layer *layers, int64_t count);

/* Pack weights in the layout of the products. `memory` has kron_int8_packed_size bytes, aligned to 64; it may not be
 * moved. inverse, zero: quantization of the first layer's input. Returns `memory`. */
kron_int8_network *kron_int8_pack(const kron_int8_layer *layers, int64_t count, double inverse, double zero,
                                  void *memory);

/* Compute the last layer's outputs y (batch, m1 * m2) of x (batch, n1 * n2). Returns 0, or -1 without memory. */
int kron_int8_forward(const kron_int8_network *network, int64_t batch, const float *x, float *y);

#endif
