/* Inference of a whole network: standardisation, zeros behind the features, layers, scaling of outputs, softmax. */
#include "predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "int8.h"
#include "kernel.h"

enum { BLOCK = 64 /* samples between two parts, so that their features stay in the cache */ };

static void standardise(const kron_predictor *p, int64_t batch, const float *x, float *to)
{
    const int64_t width = p->parts[0].in_features;
    for (int64_t sample = 0; sample < batch; sample++, x += p->features, to += width) {
        if (p->mean)
            for (int64_t i = 0; i < p->features; i++) to[i] = (x[i] - p->mean[i]) * p->inverse[i];
        else
            memcpy(to, x, (size_t)p->features * sizeof(float));
        memset(to + p->features, 0, (size_t)(width - p->features) * sizeof(float));
    }
}

/* The softmax of each row; a row with NaN or infinity becomes NaN. */
static void softmax(int64_t batch, int64_t classes, const float *restrict x, float *restrict to)
{
    for (int64_t sample = 0; sample < batch; sample++, x += classes, to += classes) {
        float most = x[0], sum = 0;
        for (int64_t i = 1; i < classes; i++) most = x[i] > most ? x[i] : most;
        for (int64_t i = 0; i < classes; i++) sum += to[i] = expf(x[i] - most);
        const float inverse = 1 / sum;
        for (int64_t i = 0; i < classes; i++) to[i] *= inverse;
    }
}

static int run(const kron_part *part, int64_t batch, const float *x, float *y)
{
    return part->is_int8 ? kron_int8_forward(part->network, batch, x, y)
                         : kron_forward(part->network, batch, x, y, NULL, 1);
}

/* Compute the parts for a block of samples. */
static int forward(const kron_predictor *p, int64_t batch, const float *x, float *y, float *const buffers[2])
{
    if (p->mean || p->features < p->parts[0].in_features) {
        standardise(p, batch, x, buffers[1]);
        x = buffers[1];
    }
    for (int64_t i = 0; i < p->count; i++) {
        float *to = i + 1 < p->count ? buffers[i % 2] : y;
        if (run(&p->parts[i], batch, x, to)) return -1;
        x = to;
    }
    return 0;
}

int kron_predict(const kron_predictor *p, int64_t batch, const float *x, float *outputs)
{
    const int64_t classes = p->parts[p->count - 1].out_features;
    if (p->count == 1 && p->mean == NULL && p->features == p->parts[0].in_features) {
        if (run(&p->parts[0], batch, x, outputs)) return -1;
    } else {
        float *buffers[2];
        const int64_t size = (batch < BLOCK ? batch : BLOCK) * p->widest;
        buffers[0] = malloc((size_t)(2 * size + 1) * sizeof(float));
        if (buffers[0] == NULL) return -1;
        buffers[1] = buffers[0] + size;
        int failed = 0;
        for (int64_t at = 0; at < batch && !failed; at += BLOCK)
            failed = forward(p, batch - at < BLOCK ? batch - at : BLOCK, x + at * p->features, outputs + at * classes,
                             buffers);
        free(buffers[0]);
        if (failed) return -1;
    }
    if (p->scale)
        for (int64_t i = 0; i < batch * classes; i++)
            outputs[i] = outputs[i] * p->scale[i % classes] + p->offset[i % classes];
    if (p->softmax) softmax(batch, classes, outputs, outputs + batch * classes);
    return 0;
}

/* Fields of PyArrayObject_fields in numpy/ndarraytypes.h, which are part of numpy's binary interface. */
struct array {
    char *values;
    int axes;
    ptrdiff_t *shape, *strides;
    void *base, *type;
    int flags;
};
enum { CONTIGUOUS = 1, ALIGNED = 0x100 };

const void *kron_array_values(const void *array) { return ((const struct array *)array)->values; }

int kron_predict_arrays(const kron_predictor *p, const void *x, const void *outputs)
{
    const struct array *from = x, *to = outputs;
    if (from->axes != p->axes || (from->flags & (CONTIGUOUS | ALIGNED)) != (CONTIGUOUS | ALIGNED)) return 1;
    for (int64_t i = 1; i < p->axes; i++)
        if (from->shape[i] != p->shape[i - 1]) return 1;
    return kron_predict(p, from->shape[0], (const float *)from->values, (float *)to->values);
}
