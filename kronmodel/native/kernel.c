/* Forward and backward of consecutive Kronecker layers on a CPU, float32.
 *
 * A layer's matrices are small (28 x 28 in a layer of 784 features), and so a step costs more for moving values through
 * memory than for multiplying them, if every product, bias and activation is an operation of its own. Here one sample
 * passes all layers while its values lie in the cache next to the core. Its features are a matrix, whose rows are padded
 * to whole vector registers: 28 floats to 32. The padding stays zero, or holds values that nothing reads.
 *
 * Nearly all the time goes into one loop, `multiply_tile`: it adds up a tile of 14 x 32 values of a product in registers
 * (with AVX-512: 28 of 32 registers), and in each step multiplies 14 values of the left matrix, each spread over a
 * register, by two registers of the right matrix. A value that is loaded is thus used 2 or 14 times, and the loop runs at
 * the speed of the multipliers. The left matrix may have any strides, so that no transposed copies of it are needed. The
 * right matrix must have padded rows: of the factors, `kron_pack` makes such copies once for a batch, and of the
 * features, the backward pass makes a transposed one for the gradient of the first factor.
 *
 * A tile is finished before it is stored: ReLU and all derivatives of activations are applied, and gradients of biases
 * added up, while the values are in registers. GELU and tanh need too many registers of their own.
 *
 * One call may add up several products, whose matrices follow each other at a fixed distance ("panels"): the branches of
 * a layer, or in the gradient of a factor the samples of a block, so that the sum stays in registers meanwhile.
 *
 * The backward pass works on blocks of a few samples. The values between the factors and their activations' slopes are
 * either kept by the forward pass, or computed again for each block, which costs a third more arithmetic but no memory.
 * Threads take ranges of samples and add up gradients by themselves; at the end these are summed in a fixed sequence.
 *
 * The parts, each on top of those before: vectors.h, activations.h, product.h (the tile), matrices.h, packed.h (weights),
 * forward.h, backward.h, and here threads and the entry points.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backward.h"
#include "forward.h"
#include "kernel.h"
#include "packed.h"

enum { STACK_FLOATS = 12 << 10 };

size_t kron_packed_size(const kron_layer *layers, int64_t count)
{
    int64_t record;
    return pack(layers, count, NULL, &record);
}

kron_network *kron_pack(const kron_layer *layers, int64_t count, void *memory)
{
    int64_t record;
    pack(layers, count, memory, &record);
    return memory;
}

size_t kron_kept_size(const kron_layer *layers, int64_t count, int64_t batch)
{
    int64_t record;
    pack(layers, count, NULL, &record);
    return (size_t)batch * (size_t)record * sizeof(float);
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

typedef void openmp_parallel(void (*task)(void *), void *data, unsigned threads, unsigned flags);

static openmp_parallel *openmp;

void kron_use_openmp(openmp_parallel *parallel) { openmp = parallel; }

/* A pass over samples that are divided into parts. */
struct job {
    const struct kron_network *network;
    const float *x, *y_gradient;
    float *y, *x_gradient, *kept;
    struct scratch plan;
    float *memory;     /* `plan.total` floats for each part */
    struct sums *sums; /* of each part, of each layer */
    int64_t batch, parts, taken;
    void (*run)(const struct job *job, int64_t part, int64_t begin, int64_t end);
};

/* Run parts until none is left: the task of each thread. */
static void run_parts(void *data)
{
    struct job *job = data;
    for (;;) {
        const int64_t part = __atomic_fetch_add(&job->taken, 1, __ATOMIC_RELAXED);
        if (part >= job->parts) return;
        job->run(job, part, job->batch * part / job->parts, job->batch * (part + 1) / job->parts);
    }
}

static void *run_thread(void *data)
{
    run_parts(data);
    return NULL;
}

/* Run all parts, by threads of OpenMP or of its own. Threads that can't be started leave their parts to the others. */
static void run(struct job *job)
{
    enum { MOST = 64 };
    pthread_t threads[MOST];
    int64_t started = 0;
    if (job->parts > 1 && openmp) {
        openmp(run_parts, job, (unsigned)job->parts, 0);
        return;
    }
    while (started < job->parts - 1 && started < MOST && !pthread_create(&threads[started], NULL, run_thread, job))
        started++;
    run_parts(job);
    while (started > 0) pthread_join(threads[--started], NULL);
}

static int64_t count_parts(int64_t batch, int64_t threads)
{
    return threads > batch ? larger(batch, 1) : larger(threads, 1);
}

static int allocate(struct job *job)
{
    void *memory = NULL;
    const int64_t floats = job->parts * job->plan.total;
    if (posix_memalign(&memory, ALIGNMENT, (size_t)floats * sizeof(float))) return -1;
    job->memory = memory;
    return 0;
}

static void forward_part(const struct job *job, int64_t part, int64_t begin, int64_t end)
{
    const struct kron_network *network = job->network;
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    float *input = job->memory + part * job->plan.total, *scratch = input + network->features;
    for (int64_t s = begin; s < end; s++) {
        pad_rows(first->n1, first->n2, job->x + s * first->n1 * first->n2, input);
        const float *y = forward_sample(network, input, job->kept ? job->kept + s * network->record : NULL, scratch);
        crop_rows(last->m1, last->m2, y, job->y + s * last->m1 * last->m2);
    }
}

static void forward_dense_part(const struct job *job, int64_t part, int64_t begin, int64_t end)
{
    const struct kron_network *network = job->network;
    const int64_t n = network->layers[0].n2, m = network->layers[network->count - 1].m2;
    for (int64_t s = begin; s < end; s += DENSE_ROWS) {
        const int64_t samples = end - s < DENSE_ROWS ? end - s : DENSE_ROWS;
        const float *y = forward_dense(network, samples, job->x + s * n, job->memory + part * job->plan.total);
        crop_rows(samples, m, y, job->y + s * m);
    }
}

int kron_forward(const kron_network *network, int64_t batch, const float *x, float *y, void *kept, int64_t threads)
{
    struct job job = {.network = network, .x = x, .y = y, .kept = kept, .batch = batch, .run = forward_part};
    job.parts = count_parts(batch, threads);
    job.plan.total = 3 * network->features + network->hidden;
    if (batch > 1 && kept == NULL && is_dense(network)) {
        job.run = forward_dense_part;
        job.plan.total = 2 * (batch < DENSE_ROWS ? batch : DENSE_ROWS) * network->features;
    }
    /* Little memory is on the stack: at the end of the heap, malloc and free may ask the system for it each time. */
    float little[STACK_FLOATS] __attribute__((aligned(ALIGNMENT)));
    if (job.parts == 1 && job.plan.total <= STACK_FLOATS) {
        job.memory = little;
        run(&job);
        return 0;
    }
    if (allocate(&job)) return -1;
    run(&job);
    free(job.memory);
    return 0;
}

static void backward_part(const struct job *job, int64_t part, int64_t begin, int64_t end)
{
    const struct kron_network *network = job->network;
    const struct layer *first = &network->layers[0], *last = &network->layers[network->count - 1];
    const int64_t x_size = first->n1 * first->n2, y_size = last->m1 * last->m2;
    float *memory = job->memory + part * job->plan.total;
    struct sums *sums = job->sums + part * network->count;
    lay_out_sums(network, memory, sums);
    memset(memory, 0, (size_t)job->plan.sums * sizeof(float));
    for (int64_t s = begin; s < end; s += job->plan.block) {
        const int64_t samples = end - s < job->plan.block ? end - s : job->plan.block;
        backward_block(network, &job->plan, samples, job->x + s * x_size, job->y_gradient + s * y_size,
                       job->kept ? job->kept + s * network->record : NULL,
                       job->x_gradient ? job->x_gradient + s * x_size : NULL, sums, memory + job->plan.sums);
    }
}

int kron_backward(const kron_network *network, int64_t batch, const float *x, const float *y_gradient, const void *kept,
                  float *x_gradient, const kron_gradients *gradients, int64_t threads)
{
    struct job job = {.network = network, .x = x, .y_gradient = y_gradient, .kept = (float *)kept, /* only read */
                      .x_gradient = x_gradient, .batch = batch, .run = backward_part};
    job.parts = count_parts(batch, threads);
    job.plan = plan(network, kept == NULL);
    job.sums = malloc((size_t)(job.parts * network->count) * sizeof(struct sums));
    if (job.sums == NULL) return -1;
    if (allocate(&job)) {
        free(job.sums);
        return -1;
    }
    run(&job);
    add(job.plan.sums, job.parts - 1, job.memory + job.plan.total, job.plan.total, job.memory);
    for (int64_t i = 0; i < network->count; i++)
        write_gradients(&network->layers[i], &job.sums[i], &gradients[i]);
    free(job.sums);
    free(job.memory);
    return 0;
}
