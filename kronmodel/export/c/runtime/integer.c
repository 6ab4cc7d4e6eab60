/*== head ==*/
/* Real numbers are whole multiples of 2^-FRACTION, which fit 32 bits for any input. Weights have a scale for each row;
 * activations are bytes, which mean (byte - zero) times a scale. Shifts of negative numbers must keep the sign, as they
 * do in every compiler for these processors; else the next line does not compile. */
typedef char shifts_keep_the_sign[(-2 >> 1) == -1 ? 1 : -1];

enum activation { NONE, RELU, GELU, TANH };

/* Scale of bytes: x becomes zero + x * scale / 2^shift. */
struct bytes {
    int32_t scale;
    int shift, zero;
};

/* Weights of 8, 4 or 2 bits, low bits first; a sum of products with row r becomes sum * scale[r] / 2^shift. */
struct weights {
    const void *values;
    int bits;
    const uint16_t *scale;
    int shift;
};

/* Numbers of 16, 8, 4 or 2 bits times 2^shift or, with scales, those of branch k times scale[k] / 2^shift; or NULL. */
struct vector {
    const void *values;
/*@levels*/
    const uint16_t *scale;
/*@end*/
    uint8_t bits, shift;
};

/* A bias: a number for each value, one a line, and one a column. */
struct bias {
    struct vector full, line, column;
};

/*== interpolated ==*/
/* A function by its table, of 0, 1/32 .. 4 in units of 2^-15, with straight lines between. */
static int32_t interpolated(const uint16_t *table, int32_t x)
{
    const int32_t cell = x >> (FRACTION - 5), part = x - cell * ((int32_t)1 << (FRACTION - 5));
    if (cell >= 128) return (int32_t)((uint32_t)table[128] << FRACTION >> 15);
    const int32_t from = table[cell], rise = (table[cell + 1] - from) * part;
    return (int32_t)((uint32_t)(from + (rise >> (FRACTION - 5))) << FRACTION >> 15);
}

/*== gelu ==*/
static int32_t gelu(int32_t x)
{
    return x < 0 ? -interpolated(gelu_table, -x) : x - interpolated(gelu_table, x);
}

/*== tanh ==*/
static int32_t hyperbolic_tangent(int32_t x)
{
    return x < 0 ? -interpolated(tanh_table, -x) : interpolated(tanh_table, x);
}

/*== activate ==*/
static int32_t activate(enum activation activation, int32_t x)
{
    switch (activation) {
    case RELU: return x < 0 ? 0 : x;
/*@gelu*/
    case GELU: return gelu(x);
/*@end*/
/*@tanh*/
    case TANH: return hyperbolic_tangent(x);
/*@end*/
    default: return x;
    }
}

/*== scaled ==*/
/* sum * scale / 2^shift, rounded. */
static int32_t scaled(int32_t sum, int32_t scale, int shift)
{
    return (int32_t)((((int64_t)sum * scale * 2 >> shift) + 1) >> 1);
}

static uint8_t quantized(int32_t x, const struct bytes *to)
{
    const int32_t value = scaled(x, to->scale, to->shift) + to->zero;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/*== unpacked ==*/
/* `count` weights from number `at` on: where they are if they have 8 bits, else unpacked to `room`. */
static const int8_t *unpacked(const void *values, int bits, int at, int count, int8_t *room)
{
/*@packed*/
    if (bits < 8) {
        const uint8_t *bytes = values;
        const int shift = bits == 4 ? 1 : 2, last = (1 << shift) - 1, mask = (1 << bits) - 1, sign = 1 << (bits - 1);
        for (int i = 0; i < count; i++, at++)
            room[i] = (int8_t)((((bytes[at >> shift] >> ((at & last) * bits)) & mask) ^ sign) - sign);
        return room;
    }
/*@end*/
    (void)bits, (void)count, (void)room;
    return (const int8_t *)values + at;
}

/*== bias ==*/
static int32_t number_at(const struct vector *v, int at, int k)
{
    int8_t room;
    if (!v->values) return 0;
    const int32_t value = v->bits == 16 ? ((const int16_t *)v->values)[at] : *unpacked(v->values, v->bits, at, 1, &room);
/*@levels*/
    if (v->scale) return (value * v->scale[k] + ((int32_t)1 << v->shift >> 1)) >> v->shift;
/*@end*/
    (void)k;
    return value * ((int32_t)1 << v->shift);
}

static int32_t bias_at(const struct bias *b, int at, int line, int column, int k)
{
    return number_at(&b->full, at, k) + number_at(&b->line, line, k) + number_at(&b->column, column, k);
}

/*== dense ==*/
struct dense {
    int inputs, outputs, x_zero;
    enum activation activation;
    struct weights weight; /* (outputs, inputs) */
    struct bias bias;      /* a number a line */
    struct bytes result;
};

/* A dense layer: activation(weight x + bias), as bytes in y or, without y, as real numbers in z. `room` holds a row of
 * weights. */
static void dense(const struct dense *l, const uint8_t *x, uint8_t *y, int32_t *z, int8_t *room)
{
    for (int i = 0; i < l->outputs; i++) {
        const int8_t *weight = unpacked(l->weight.values, l->weight.bits, i * l->inputs, l->inputs, room);
        int32_t sum = 0;
        for (int j = 0; j < l->inputs; j++) sum += weight[j] * (x[j] - l->x_zero);
        sum = activate(l->activation, scaled(sum, l->weight.scale[i], l->weight.shift) + bias_at(&l->bias, i, i, 0, 0));
        if (y) y[i] = quantized(sum, &l->result);
        else z[i] = sum;
    }
}

/*== branches ==*/
/* Branches of a Kronecker layer: Y = outer(sum over k of inner(U_k X + C_k) V_k + D), one line of Y after the other, so
 * that only a line of each product is kept. In branches whose right factor comes first, lines are columns. */
struct branches {
    int count;                        /* of the branches k */
    int lines, depth, width, outputs; /* U_k is (lines, depth), a line of U_k X has `width` values, one of Y `outputs` */
    int x_depth, x_width;             /* distance of X's values along `depth` and `width` */
    int y_line, y_output;             /* distance of Y's values along `lines` and `outputs` */
    int x_zero;
    enum activation inner, outer;
    int adds;                         /* whether z holds a sum already, in the place of D */
    struct weights u, v;              /* (count, lines, depth), (count, outputs, width) */
    struct bias c, d;                 /* (count, lines, width); as Y */
    const struct bytes *hidden;       /* of each branch, between the factors */
    struct bytes result;
};

/* Y as bytes in y or, without y, as real numbers in z. `line`, `hidden` and `room` hold a line of Y, one of the first
 * product, and a row of weights. */
static void branches(const struct branches *l, const uint8_t *x, uint8_t *y, int32_t *z, int32_t *line,
                     int16_t *hidden, int8_t *room)
{
    for (int i = 0; i < l->lines; i++) {
        for (int j = 0; j < l->outputs; j++) {
            const int at = i * l->y_line + j * l->y_output;
            line[j] = l->adds ? z[at] : bias_at(&l->d, at, i, j, 0);
        }
        for (int k = 0; k < l->count; k++) {
            const int row = k * l->lines + i;
            const int8_t *u = unpacked(l->u.values, l->u.bits, row * l->depth, l->depth, room);
            for (int j = 0; j < l->width; j++) {
                const uint8_t *from = x + j * l->x_width;
                int32_t sum = 0;
                for (int d = 0; d < l->depth; d++, from += l->x_depth) sum += u[d] * (*from - l->x_zero);
                sum = scaled(sum, l->u.scale[row], l->u.shift) +
                      bias_at(&l->c, row * l->width + j, row, k * l->width + j, k);
                hidden[j] = (int16_t)(quantized(activate(l->inner, sum), &l->hidden[k]) - l->hidden[k].zero);
            }
            for (int j = 0; j < l->outputs; j++) {
                const int output = k * l->outputs + j;
                const int8_t *v = unpacked(l->v.values, l->v.bits, output * l->width, l->width, room);
                int32_t sum = 0;
                for (int d = 0; d < l->width; d++) sum += v[d] * hidden[d];
                line[j] += scaled(sum, l->v.scale[output], l->v.shift);
            }
        }
        for (int j = 0; j < l->outputs; j++) {
            const int at = i * l->y_line + j * l->y_output;
            const int32_t value = activate(l->outer, line[j]);
            if (y) y[at] = quantized(value, &l->result);
            else z[at] = value;
        }
    }
}

/*== convolution ==*/
struct convolution {
    int channels, height, width;              /* of the input */
    int filters, kernel_height, kernel_width, stride_down, stride_right, top, left;
    int pool_height, pool_width;              /* 1: no max-pooling */
    int out_height, out_width;                /* after the pooling */
    int y_filter, y_pixel;                    /* distance of the output's values from one filter or pixel to the next */
    int x_zero;
    enum activation activation;
    struct weights weight;                    /* (filters, channels, kernel_height, kernel_width) */
    struct bias bias;                         /* a number a line */
    struct bytes result;
};

/* The sum of a filter's products at a place of the input, zeros around it. */
static int32_t filtered(const struct convolution *l, const uint8_t *x, const int8_t *weight, int down, int right)
{
    int32_t sum = 0;
    for (int c = 0; c < l->channels; c++)
        for (int i = 0; i < l->kernel_height; i++)
            for (int j = 0; j < l->kernel_width; j++, weight++) {
                const int row = down + i, column = right + j;
                if (row >= 0 && row < l->height && column >= 0 && column < l->width)
                    sum += *weight * (x[(c * l->height + row) * l->width + column] - l->x_zero);
            }
    return sum;
}

/* A convolution with its max-pooling, one output after the other. The activation of the largest or of the smallest value
 * is the largest: each activation falls up to some value, if at all, and rises from there. `room` holds a filter. */
static void convolution(const struct convolution *l, const uint8_t *x, uint8_t *y, int8_t *room)
{
    const int size = l->channels * l->kernel_height * l->kernel_width;
    for (int f = 0; f < l->filters; f++) {
        const int8_t *weight = unpacked(l->weight.values, l->weight.bits, f * size, size, room);
        const int32_t bias = bias_at(&l->bias, f, f, 0, 0), scale = l->weight.scale[f];
        for (int row = 0; row < l->out_height; row++)
            for (int column = 0; column < l->out_width; column++) {
                int32_t most = 0, least = 0;
                for (int i = 0; i < l->pool_height; i++)
                    for (int j = 0; j < l->pool_width; j++) {
                        const int32_t z = filtered(l, x, weight, (row * l->pool_height + i) * l->stride_down - l->top,
                                                   (column * l->pool_width + j) * l->stride_right - l->left);
                        if (i + j == 0 || z > most) most = z;
                        if (i + j == 0 || z < least) least = z;
                    }
                most = scaled(most, scale, l->weight.shift) + bias;
                least = scaled(least, scale, l->weight.shift) + bias;
                const int32_t a = activate(l->activation, most), b = activate(l->activation, least);
                y[f * l->y_filter + (row * l->out_width + column) * l->y_pixel] = quantized(a > b ? a : b, &l->result);
            }
    }
}

/*== softmax ==*/
/* exp(-x) in units of 2^-16, as a power of 2: its whole part by a shift, the rest by a table of 1, 2^(-1/32) .. 1/2. */
static uint32_t exponential(int32_t x)
{
    const int64_t power = (int64_t)x * 94548 >> FRACTION; /* x / ln 2, in units of 2^-16 */
    if (power >= (int64_t)17 << 16) return 0;
    const uint32_t cell = (uint32_t)power >> 11 & 31, part = (uint32_t)power & 2047, from = power_table[cell];
    return (from - ((from - power_table[cell + 1]) * part >> 11)) >> (power >> 16);
}

/* Probabilities of the outputs z, in steps of 2^-15; returns the index of the largest, the first of equal ones. */
static int softmax(int count, const int32_t *z, float *out)
{
    int best = 0;
    uint32_t sum = 0;
    for (int i = 1; i < count; i++)
        if (z[i] > z[best]) best = i;
    for (int i = 0; i < count; i++) sum += exponential(z[best] - z[i]);
    for (int i = 0; i < count; i++) {
        uint32_t rest = exponential(z[best] - z[i]), part = 0; /* a division, for which small processors need a library */
        for (int bit = 0; bit < 15; bit++) {
            rest *= 2;
            part *= 2;
            if (rest >= sum) rest -= sum, part++;
        }
        out[i] = (float)(int32_t)(rest >= sum - rest ? part + 1 : part) * 3.05175781e-05f;
    }
    return best;
}

/*== quantize_input ==*/
/* A byte for an input in units of 2^-16 steps; returns -1 if that is not a number. The bits of floats are compared as
 * integers, which is shorter without a floating-point unit. */
static int quantize_input(float x, uint8_t *to)
{
    const union { float value; uint32_t bits; } number = {x};
    const uint32_t size = number.bits & 0x7fffffff;
    if (size > 0x7f800000) return -1;
    const int32_t value = size < 0x4e6e6b28 ? (int32_t)x : size == number.bits ? 1000000000 : -1000000000; /* 1e9 */
    const int32_t step = (value + INPUT_ZERO) >> 16;
    *to = (uint8_t)(step < 0 ? 0 : step > 255 ? 255 : step);
    return 0;
}
