/* Entry points of kernel.c: forward and backward of consecutive Kronecker layers, float32. */
#ifndef KRON_KERNEL_H
#define KRON_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum { KRON_NONE = 0, KRON_RELU = 1, KRON_GELU = 2, KRON_TANH = 3 };

/* One layer, Y = outer(sum over the branches + bias), where a branch is inner(A_k X + C_k) B_k^T in the order "left",
 * and A_k inner(X B_k^T + C_k) in the order "right". A layer that is a plain sum of Kronecker products has the inner
 * activation KRON_NONE and no inner biases. X is (n1, n2), Y is (m1, m2). All arrays are contiguous; a bias may be NULL.
 * Every field has 8 bytes, so that callers may pass an array of 64-bit integers. */
typedef struct {
    int64_t n1, n2, m1, m2;
    int64_t rank;
    int64_t inner, outer;     /* activations */
    const uint8_t *right;     /* (rank): 1 for a branch in the order "right", else 0; NULL if all are "left" */
    const float *first;       /* A: (rank, m1, n1) */
    const float *second;      /* B: (rank, m2, n2) */
    const float *left_bias;   /* C of the left branches in sequence: (left branches, m1, n2) */
    const float *right_bias;  /* C of the right branches in sequence: (right branches, n1, m2) */
    const float *bias;        /* (m1 * m2) */
} kron_layer;

/* Gradients of one layer's parameters, in the same shapes; they are overwritten. NULL where a parameter is NULL. */
typedef struct {
    float *first, *second, *left_bias, *right_bias, *bias;
} kron_gradients;

/* Packed weights of consecutive layers; they hold copies, not pointers to the caller's arrays. */
typedef struct kron_network kron_network;

/* Bytes that kron_pack writes. */
size_t kron_packed_size(const kron_layer *layers, int64_t count);

/* Pack weights in the layout of the kernel. `memory` has kron_packed_size bytes, aligned to 64; it may not be moved.
 * Returns `memory`. */
kron_network *kron_pack(const kron_layer *layers, int64_t count, void *memory);

/* Bytes that kron_forward keeps for kron_backward. */
size_t kron_kept_size(const kron_layer *layers, int64_t count, int64_t batch);

/* Compute y (batch, m1 * m2) of x (batch, n1 * n2), both contiguous.
 * kept: NULL, or kron_kept_size bytes, aligned to 64, for kron_backward.
 * threads: number of parts into which the samples are divided, each computed by a thread of its own.
 * Returns 0, or -1 if there is not enough memory. */
int kron_forward(const kron_network *network, int64_t batch, const float *x, float *y, void *kept, int64_t threads);

/* Compute the gradients of a loss from its gradient with respect to y.
 * kept: what kron_forward kept, or NULL to compute it again.
 * gradients: one for each layer. x_gradient: (batch, n1 * n2), or NULL if not wanted.
 * The result depends on `threads`, by which sums are divided, but not on the sequence in which threads finish.
 * Returns 0, or -1 if there is not enough memory. */
int kron_backward(const kron_network *network, int64_t batch, const float *x, const float *y_gradient, const void *kept,
                  float *x_gradient, const kron_gradients *gradients, int64_t threads);

/* Let the threads of an OpenMP runtime that is already loaded do the work: its function GOMP_parallel. By default, and
 * with NULL, each call starts threads of its own. */
void kron_use_openmp(void (*parallel)(void (*task)(void *), void *data, unsigned threads, unsigned flags));

#endif
