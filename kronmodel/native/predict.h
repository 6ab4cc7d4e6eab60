/* Entry point of predict.c: a whole network with its preprocessing and postprocessing. */
#ifndef KRON_PREDICT_H
#define KRON_PREDICT_H

#include <stdint.h>

/* Consecutive layers of one kind: a kron_network (kernel.h), or a kron_int8_network (int8.h). */
typedef struct {
    int64_t is_int8;
    const void *network;
    int64_t in_features, out_features;
} kron_part;

/* A network. Every field has 8 bytes. */
typedef struct {
    int64_t features;           /* of a sample */
    const float *mean, *inverse; /* (features): x becomes (x - mean) * inverse; NULL: unchanged */
    int64_t count;
    const kron_part *parts; /* the first may take more than `features`: zeros */
    int64_t widest;         /* most features that a part takes or gives */
    const float *scale, *offset; /* of the outputs; or NULL */
} kron_predictor;

/* Compute outputs (batch, out_features of the last part) and, unless NULL, their softmax.
 * Returns 0, or -1 if there is not enough memory. */
int kron_predict(const kron_predictor *predictor, int64_t batch, const float *x, float *outputs, float *probabilities);

#endif
