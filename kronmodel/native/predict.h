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
    int64_t softmax;        /* whether the softmax of the outputs is wanted, too */
    int64_t axes;           /* of a batch */
    const int64_t *shape;   /* (axes - 1): of a sample */
} kron_predictor;

/* Compute outputs (batch, out_features of the last part), with their softmax of the same size behind if it is wanted.
 * Returns 0, or -1 if there is not enough memory. */
int kron_predict(const kron_predictor *predictor, int64_t batch, const float *x, float *outputs);

/* The same with numpy's arrays, whose fields are read here since that takes 0.7 us less than in Python.
 * x, outputs: what follows the object's header, float32 and C-contiguous. Returns 1 if x is not contiguous or has another
 * shape than (batch, sample); the size of `outputs` is not checked. */
int kron_predict_arrays(const kron_predictor *predictor, const void *x, const void *outputs);

/* Address of the values of such an array, to compare with what numpy says. */
const void *kron_array_values(const void *array);

#endif
