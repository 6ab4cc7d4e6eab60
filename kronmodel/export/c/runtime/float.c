/*== activation.enum ==*/
enum activation { NONE, RELU, GELU, TANH };

/*== gelu ==*/
/* x times the normal distribution function, by a rational function with an error below 2e-7 for |x| <= 5.6. */
static float gelu(float x)
{
    const float z = x < -5.6f ? -5.6f : x > 5.6f ? 5.6f : x, s = z * z;
    const float p =
        (((2.1781373e-08f * s + 6.48642744e-06f) * s + 0.000183999748f) * s + 0.00476902295f) * s + 0.0353070706f;
    const float q =
        (((1.17927594e-06f * s + 7.86826743e-05f) * s + 0.00196979035f) * s + 0.0294854063f) * s + 0.255166148f;
    return (x < -5.6f ? -5.6f : x) * (z * (p * s + 0.398942109f) / (q * s + 1.0f) + 0.5f);
}

/*== tanh ==*/
/* tanh by a rational function with a relative error below 3e-7 for |x| <= 9. */
static float hyperbolic_tangent(float x)
{
    const float z = x < -9.0f ? -9.0f : x > 9.0f ? 9.0f : x, s = z * z;
    const float p = ((1.33543198e-08f * s + 2.06088278e-05f) * s + 0.00349557249f) * s + 0.133810125f;
    const float q = ((7.77641583e-07f * s + 0.000328560932f) * s + 0.0258769227f) * s + 0.467143281f;
    const float y = z * (p * s + 0.999999979f) / (q * s + 1.0f);
    return y < -1.0f ? -1.0f : y > 1.0f ? 1.0f : y;
}

/*== activate ==*/
static float activate(enum activation activation, float x)
{
    switch (activation) {
    case RELU: return x < 0.0f ? 0.0f : x;
/*@gelu*/
    case GELU: return gelu(x);
/*@end*/
/*@tanh*/
    case TANH: return hyperbolic_tangent(x);
/*@end*/
    default: return x;
    }
}

/*== dense ==*/
struct dense {
    int inputs, outputs;
    enum activation activation;
    const float *weight, *bias; /* (outputs, inputs), (outputs) */
};

/* A dense layer: y = activation(weight x + bias). */
static void dense(const struct dense *l, const float *x, float *y)
{
    const int whole = l->inputs / 4 * 4; /* of four sums, which processors compute at once */
    const float *weight = l->weight;
    for (int i = 0; i < l->outputs; i++, weight += l->inputs) {
        float sums[4] = {l->bias[i], 0, 0, 0};
        for (int j = 0; j < whole; j += 4)
            for (int part = 0; part < 4; part++) sums[part] += weight[j + part] * x[j + part];
        for (int j = whole; j < l->inputs; j++) sums[0] += weight[j] * x[j];
        y[i] = activate(l->activation, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

/*== branches ==*/
/* Branches of a Kronecker layer: Y = outer(sum over k of inner(U_k X + C_k) V_k + D), one line of Y after the other, so
 * that only a line of each product is kept. In branches whose right factor comes first, lines are columns. */
struct branches {
    int count;                      /* of the branches k */
    int lines, depth, width, outputs; /* U_k is (lines, depth), a line of U_k X has `width` values, one of Y `outputs` */
    int x_depth, x_width;           /* distance of X's values along `depth` and `width` */
    int y_line, y_output;           /* distance of Y's values along `lines` and `outputs` */
    enum activation inner, outer;
    int adds;                       /* whether Y holds a sum already, in the place of D */
    const float *u, *v;             /* (count, lines, depth), (count, width, outputs) */
    const float *c, *d;             /* (count, lines, width) or NULL; as Y, or NULL */
};

static void branches(const struct branches *l, const float *x, float *y, float *line)
{
    float *hidden = line + l->outputs;
    for (int i = 0; i < l->lines; i++) {
        const float *from = l->adds ? y : l->d;
        for (int j = 0; j < l->outputs; j++) line[j] = from ? from[i * l->y_line + j * l->y_output] : 0.0f;
        for (int k = 0; k < l->count; k++) {
            const float *u = l->u + (k * l->lines + i) * l->depth, *v = l->v + k * l->width * l->outputs;
            const float *c = l->c ? l->c + (k * l->lines + i) * l->width : NULL;
            for (int j = 0; j < l->width; j++) hidden[j] = c ? c[j] : 0.0f;
            for (int d = 0; d < l->depth; d++)
                for (int j = 0; j < l->width; j++) hidden[j] += u[d] * x[d * l->x_depth + j * l->x_width];
            for (int j = 0; j < l->width; j++, v += l->outputs) {
                const float h = activate(l->inner, hidden[j]);
                for (int o = 0; o < l->outputs; o++) line[o] += h * v[o];
            }
        }
        for (int j = 0; j < l->outputs; j++) y[i * l->y_line + j * l->y_output] = activate(l->outer, line[j]);
    }
}

/*== convolution ==*/
struct convolution {
    int channels, height, width;              /* of the input */
    int filters, kernel_height, kernel_width, stride_down, stride_right, top, left;
    int pool_height, pool_width;              /* 1: no max-pooling */
    int out_height, out_width;                /* after the pooling */
    int y_filter, y_pixel;                    /* distance of the output's values from one filter or pixel to the next */
    enum activation activation;
    const float *weight, *bias;               /* (filters, channels, kernel_height, kernel_width), (filters) */
};

/* The value of filter f at a place of the input, zeros around it. */
static float filtered(const struct convolution *l, const float *x, int f, int down, int right)
{
    const float *weight = l->weight + f * l->channels * l->kernel_height * l->kernel_width;
    float sum = l->bias[f];
    for (int c = 0; c < l->channels; c++)
        for (int i = 0; i < l->kernel_height; i++)
            for (int j = 0; j < l->kernel_width; j++, weight++) {
                const int row = down + i, column = right + j;
                if (row >= 0 && row < l->height && column >= 0 && column < l->width)
                    sum += *weight * x[(c * l->height + row) * l->width + column];
            }
    return sum;
}

/* A convolution with its max-pooling, one output after the other. The activation of the largest or of the smallest value
 * is the largest: each activation falls up to some value, if at all, and rises from there. */
static void convolution(const struct convolution *l, const float *x, float *y)
{
    for (int row = 0; row < l->out_height; row++)
        for (int column = 0; column < l->out_width; column++)
            for (int f = 0; f < l->filters; f++) {
                float most = 0.0f, least = 0.0f;
                for (int i = 0; i < l->pool_height; i++)
                    for (int j = 0; j < l->pool_width; j++) {
                        const float z = filtered(l, x, f, (row * l->pool_height + i) * l->stride_down - l->top,
                                                 (column * l->pool_width + j) * l->stride_right - l->left);
                        if (i + j == 0 || z > most) most = z;
                        if (i + j == 0 || z < least) least = z;
                    }
                const float a = activate(l->activation, most), b = activate(l->activation, least);
                y[f * l->y_filter + (row * l->out_width + column) * l->y_pixel] = a > b ? a : b;
            }
}

/*== exponential.libm ==*/
static float exponential(float x)
{
    return expf(x);
}

/*== exponential.rational ==*/
/* exp(x) for x <= 0: 2 to the power of a whole number by multiplications, times a polynomial. */
static float exponential(float x)
{
    if (!(x >= -87.0f)) return x < 0.0f ? 0.0f : x;
    const float scaled = x * 1.44269504f;
    const int whole = (int)(scaled - 0.5f);
    const float f = scaled - (float)whole;
    float power = ((((0.00132764715f * f + 0.00967554133f) * f + 0.0555071327f) * f + 0.240221197f) * f +
                   0.693146967f) * f + 1.00000007f;
    for (int i = whole; i < 0; i++) power *= 0.5f;
    return power;
}

/*== softmax ==*/
static void softmax(int count, float *x)
{
    float most = x[0], sum = 0.0f;
    for (int i = 1; i < count; i++) most = x[i] > most ? x[i] : most;
    for (int i = 0; i < count; i++) sum += x[i] = exponential(x[i] - most);
    for (int i = 0; i < count; i++) x[i] /= sum;
}

/*== largest ==*/
/* Index of the largest value, the first of equal ones; -1 if one is not a number. */
static int largest(int count, const float *x)
{
    int best = 0;
    for (int i = 0; i < count; i++) {
        if (x[i] != x[i]) return -1;
        if (x[i] > x[best]) best = i;
    }
    return best;
}

/*== checked ==*/
/* -1 if a value is not a number, else 0. */
static int checked(int count, const float *x)
{
    for (int i = 0; i < count; i++)
        if (x[i] != x[i]) return -1;
    return 0;
}
