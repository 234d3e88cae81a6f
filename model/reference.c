/* SPDX-License-Identifier: Apache-2.0
 * The arithmetic specification as C. One function for each operation, each saying with loops what the operation
 * is; every accelerator gives these integers.
 *
 * To stay that simple, every value is widened: an array of int32 [h][w][c], in which bits are +1 and -1. Packing,
 * popcounts and fusing are what accelerators do; they change no integer, since for bits
 *
 *     sum over K taps of x*w  =  K - 2*popcount(x ^ w)
 *
 * A convolution reads its input from a copy of the map with its border around it (-1 or 0, as the padding says),
 * so that padding is data and not a case: a tap on a 0 contributes nothing, exactly. That copy and the weights are
 * int16, which holds every bit, uint8 and int8; a dot product over the window's contiguous channels is then a loop
 * that compilers vectorise, and the reference runs whole test sets. Sums are int32: the loader has proven that no
 * partial sum leaves it. */
#include "model/reference.h"

#include <errno.h>
#include <stdlib.h>

#include "common/fault.h"
#include "model/arithmetic.h"

/* The one loop that everything waits for; gcc does not vectorise it at -O2. */
#if defined(__GNUC__) && !defined(__clang__)
#define VECTORISE __attribute__((optimize("O3")))
#else
#define VECTORISE
#endif

struct xn_reference {
    const struct xn_network *network;
    int32_t **values;  /* [n_values] of [h][w][c] */
    int16_t **weights; /* [n_layers] of [oc][elements]; NULL where the layer has none */
    int16_t *padded;   /* a map with its border, for the largest convolution */
};

/* What an operation works on. */
struct job {
    const struct xn_layer *layer;
    const struct xn_value *in, *out; /* shapes of the first input and of the output */
    const int32_t *x, *r;            /* elements of the first and, where there is one, the second input */
    int32_t *y;                      /* elements of the output */
};

static size_t pixels(const struct xn_value *v)
{
    return (size_t)v->h * v->w;
}

static size_t elements(const struct xn_value *v)
{
    return pixels(v) * v->c;
}

VECTORISE static int32_t dot(const int16_t *a, const int16_t *b, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- CONV, DENSE ----------------------------------------------------------------------------------------------- */

static size_t padded_width(const struct job *job)
{
    return job->in->w + job->layer->pad_left + job->layer->pad_right;
}

/* The input map with its border, [h + pads][w + pads][c]. */
static void pad_map(const struct job *job, int16_t *padded)
{
    const struct xn_layer *l = job->layer;
    const size_t row = padded_width(job) * job->in->c, width = (size_t)job->in->w * job->in->c;
    const int16_t border = l->pad == XN_PAD_MINUS_ONE ? -1 : 0;
    const size_t rows = job->in->h + l->pad_top + l->pad_bottom;
    for (size_t i = 0; i < rows * row; i++)
        padded[i] = border;
    for (size_t y = 0; y < job->in->h; y++)
        for (size_t i = 0; i < width; i++)
            padded[(y + l->pad_top) * row + l->pad_left * job->in->c + i] = (int16_t)job->x[y * width + i];
}

/* One accumulator: filter `w` [kh][kw][c/groups] at the window whose first element is `window`. */
static int32_t convolve_at(const struct job *job, const int16_t *window, const int16_t *w)
{
    const struct xn_layer *l = job->layer;
    const size_t row = padded_width(job) * job->in->c, channels = job->in->c / l->groups;
    int32_t s = 0;
    for (size_t ky = 0; ky < l->kernel_h; ky++) {
        if (l->groups == 1) { /* the taps of a row of the window lie one after another */
            s += dot(window + ky * row, w + ky * l->kernel_w * channels, l->kernel_w * channels);
            continue;
        }
        for (size_t kx = 0; kx < l->kernel_w; kx++)
            s += dot(window + ky * row + kx * job->in->c, w + (ky * l->kernel_w + kx) * channels, channels);
    }
    return s;
}

static void run_conv(const struct job *job, const int16_t *weights, int16_t *padded)
{
    const struct xn_layer *l = job->layer;
    const size_t oc = job->out->c, row = padded_width(job) * job->in->c;
    const size_t channels = job->in->c / l->groups, filters = oc / l->groups; /* of a group */
    const size_t filter_elements = (size_t)l->kernel_h * l->kernel_w * channels;
    pad_map(job, padded);
    for (size_t y = 0; y < job->out->h; y++) {
        for (size_t x = 0; x < job->out->w; x++) {
            const int16_t *window = padded + y * l->stride_h * row + x * l->stride_w * job->in->c;
            for (size_t o = 0; o < oc; o++)
                job->y[(y * job->out->w + x) * oc + o] =
                    convolve_at(job, window + o / filters * channels, weights + o * filter_elements);
        }
    }
}

static void run_dense(const struct job *job, const int16_t *weights, int16_t *flat)
{
    const size_t n = elements(job->in);
    for (size_t i = 0; i < n; i++)
        flat[i] = (int16_t)job->x[i];
    for (size_t o = 0; o < job->out->c; o++)
        job->y[o] = dot(flat, weights + o * n, n);
}

/* ---- element by element ---------------------------------------------------------------------------------------- */

static void run_threshold(const struct job *job)
{
    const int32_t *t = job->layer->tensors[0]->data;
    const size_t c = job->in->c;
    for (size_t p = 0; p < pixels(job->in); p++)
        for (size_t i = 0; i < c; i++)
            job->y[p * c + i] = job->x[p * c + i] >= t[i] ? 1 : -1;
}

static int32_t clamp_to_dtype(int64_t v, enum xn_dtype dtype)
{
    switch (dtype) {
    case XN_DTYPE_U8:
        return (int32_t)xn_clamp(v, 0, UINT8_MAX);
    case XN_DTYPE_I8:
        return (int32_t)xn_clamp(v, INT8_MIN, INT8_MAX);
    default:
        return xn_sat16(v);
    }
}

static void run_scale(const struct job *job)
{
    const int16_t *m = job->layer->tensors[0]->data;
    const int64_t *b = job->layer->tensors[1]->data;
    const size_t c = job->in->c;
    for (size_t p = 0; p < pixels(job->in); p++) {
        for (size_t i = 0; i < c; i++) {
            const int64_t r = job->r ? job->r[p * c + i] : 0;
            const int64_t v = r + xn_scale(job->x[p * c + i], m[i], b[i], job->layer->shift);
            job->y[p * c + i] = clamp_to_dtype(v, job->out->dtype);
        }
    }
}

static void run_add(const struct job *job)
{
    for (size_t i = 0; i < elements(job->in); i++)
        job->y[i] = xn_sat16(job->x[i] + job->r[i]);
}

static void run_rprelu(const struct job *job)
{
    const int16_t *a = job->layer->tensors[0]->data, *b = job->layer->tensors[2]->data;
    const uint8_t *k = job->layer->tensors[1]->data;
    const size_t c = job->in->c;
    for (size_t p = 0; p < pixels(job->in); p++)
        for (size_t i = 0; i < c; i++)
            job->y[p * c + i] = xn_rprelu(job->x[p * c + i], a[i], k[i], b[i]);
}

static void run_logits(const struct job *job)
{
    const int32_t *m = job->layer->tensors[0]->data, *b = job->layer->tensors[1]->data;
    for (size_t i = 0; i < job->in->c; i++)
        job->y[i] = (int32_t)((int64_t)m[i] * job->x[i] + b[i]);
}

/* ---- pools ----------------------------------------------------------------------------------------------------- */

/* The part of a window that lies on the map: rows y0..y1-1, columns x0..x1-1. Never empty. */
struct window {
    size_t y0, y1, x0, x1;
};

static void clip_axis(size_t output, size_t stride, size_t kernel, size_t before, size_t n, size_t *ret_0,
                      size_t *ret_1)
{
    const size_t start = output * stride,
                 end = start + kernel; /* on the padded axis, where the map begins at `before` */
    *ret_0 = start > before ? start - before : 0;
    *ret_1 = XN_MIN(end - before, n); /* end > before: paddings are less than the kernel */
}

static struct window window_at(const struct job *job, size_t y, size_t x)
{
    const struct xn_layer *l = job->layer;
    struct window w;
    clip_axis(y, l->stride_h, l->kernel_h, l->pad_top, job->in->h, &w.y0, &w.y1);
    clip_axis(x, l->stride_w, l->kernel_w, l->pad_left, job->in->w, &w.x0, &w.x1);
    return w;
}

static int32_t max_of(const struct job *job, struct window w, size_t channel)
{
    int32_t best = INT32_MIN;
    for (size_t y = w.y0; y < w.y1; y++)
        for (size_t x = w.x0; x < w.x1; x++)
            best = XN_MAX(best, job->x[(y * job->in->w + x) * job->in->c + channel]);
    return best;
}

static int32_t mean_of(const struct job *job, struct window w, size_t channel)
{
    int32_t sum = 0;
    for (size_t y = w.y0; y < w.y1; y++)
        for (size_t x = w.x0; x < w.x1; x++)
            sum += job->x[(y * job->in->w + x) * job->in->c + channel];
    const int64_t mean = xn_round_shift((int64_t)sum * job->layer->multiplier, job->layer->shift);
    return job->out->dtype == XN_DTYPE_I16 ? xn_sat16(mean) : (int32_t)mean;
}

static void run_pool(const struct job *job, int32_t (*reduce)(const struct job *, struct window, size_t))
{
    const size_t c = job->out->c;
    for (size_t y = 0; y < job->out->h; y++)
        for (size_t x = 0; x < job->out->w; x++)
            for (size_t i = 0; i < c; i++)
                job->y[(y * job->out->w + x) * c + i] = reduce(job, window_at(job, y, x), i);
}

static void run_global_avgpool(const struct job *job)
{
    const struct window all = {0, job->in->h, 0, job->in->w};
    for (size_t i = 0; i < job->out->c; i++)
        job->y[i] = mean_of(job, all, i);
}

/* ---- CONCAT ---------------------------------------------------------------------------------------------------- */

static void run_concat(const struct xn_reference *reference, const struct job *job)
{
    size_t first = 0; /* channel of the output where this input's begin */
    for (uint32_t k = 0; k < job->layer->n_inputs; k++) {
        const uint32_t id = job->layer->inputs[k];
        const size_t c = reference->network->values[id].c;
        for (size_t p = 0; p < pixels(job->out); p++)
            for (size_t i = 0; i < c; i++)
                job->y[p * job->out->c + first + i] = reference->values[id][p * c + i];
        first += c;
    }
}

/* ---- running --------------------------------------------------------------------------------------------------- */

static void run_layer(struct xn_reference *reference, uint32_t index)
{
    const struct xn_layer *layer = &reference->network->layers[index];
    const struct job job = {.layer = layer,
                            .in = xn_layer_input(reference->network, index, 0),
                            .out = xn_layer_output(reference->network, index),
                            .x = reference->values[layer->inputs[0]],
                            .r = layer->n_inputs > 1 ? reference->values[layer->inputs[1]] : NULL,
                            .y = reference->values[index + 1]};
    switch (layer->op) {
    case XN_OP_CONV:
        run_conv(&job, reference->weights[index], reference->padded);
        break;
    case XN_OP_DENSE:
        run_dense(&job, reference->weights[index], reference->padded);
        break;
    case XN_OP_THRESHOLD:
        run_threshold(&job);
        break;
    case XN_OP_SCALE:
        run_scale(&job);
        break;
    case XN_OP_ADD:
        run_add(&job);
        break;
    case XN_OP_RPRELU:
        run_rprelu(&job);
        break;
    case XN_OP_MAXPOOL:
        run_pool(&job, max_of);
        break;
    case XN_OP_AVGPOOL:
        run_pool(&job, mean_of);
        break;
    case XN_OP_GLOBAL_AVGPOOL:
        run_global_avgpool(&job);
        break;
    case XN_OP_CONCAT:
        run_concat(reference, &job);
        break;
    case XN_OP_LOGITS:
        run_logits(&job);
        break;
    }
}

void xn_reference_run(struct xn_reference *reference, const void *input, int32_t *ret_logits)
{
    const struct xn_network *network = reference->network;
    const bool is_signed = network->values[0].dtype == XN_DTYPE_I8;
    for (size_t i = 0; i < network->input_bytes; i++)
        reference->values[0][i] = is_signed ? ((const int8_t *)input)[i] : ((const uint8_t *)input)[i];
    for (uint32_t i = 0; i < network->n_layers; i++)
        run_layer(reference, i);
    for (uint32_t i = 0; i < network->n_classes; i++)
        ret_logits[i] = reference->values[network->n_layers][i];
}

const int32_t *xn_reference_value(const struct xn_reference *reference, uint32_t id)
{
    return reference->values[id];
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Elements of a filter: what one output channel is made of. */
static size_t filter_elements(const struct xn_tensor *weights)
{
    return (size_t)weights->dims[1] * weights->dims[2] * weights->dims[3];
}

static int widen_weights(const struct xn_layer *layer, int16_t **ret_weights)
{
    const struct xn_tensor *tensor = layer->tensors[0];
    const size_t n = filter_elements(tensor), words = xn_div_up(n, 64);
    int16_t *weights = xn_calloc(tensor->dims[0], n * sizeof(*weights));
    if (!weights)
        return -ENOMEM;
    for (size_t o = 0; o < tensor->dims[0]; o++) {
        for (size_t e = 0; e < n; e++) {
            if (tensor->dtype == XN_DTYPE_BITS)
                weights[o * n + e] = ((const uint64_t *)tensor->data)[o * words + e / 64] >> (e % 64) & 1 ? 1 : -1;
            else
                weights[o * n + e] = ((const int8_t *)tensor->data)[o * n + e];
        }
    }
    *ret_weights = weights;
    return 0;
}

/* Elements of the int16 copy of its input that a layer needs. */
static size_t padded_elements(const struct xn_network *network, uint32_t index)
{
    const struct xn_layer *l = &network->layers[index];
    const struct xn_value *x = xn_layer_input(network, index, 0);
    if (l->op != XN_OP_CONV && l->op != XN_OP_DENSE)
        return 0;
    const size_t rows = x->h + l->pad_top + l->pad_bottom, columns = x->w + l->pad_left + l->pad_right;
    return rows * columns * x->c;
}

static int fill(struct xn_reference *reference)
{
    const struct xn_network *network = reference->network;
    size_t padded = 0;
    reference->values = xn_calloc(network->n_values, sizeof(*reference->values));
    reference->weights = xn_calloc(network->n_layers, sizeof(*reference->weights));
    if (!reference->values || !reference->weights)
        return -ENOMEM;
    for (uint32_t i = 0; i < network->n_values; i++) {
        reference->values[i] = xn_calloc(elements(&network->values[i]), sizeof(**reference->values));
        if (!reference->values[i])
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < network->n_layers; i++) {
        padded = XN_MAX(padded, padded_elements(network, i));
        if (padded_elements(network, i) == 0)
            continue;
        const int r = widen_weights(&network->layers[i], &reference->weights[i]);
        if (r < 0)
            return r;
    }
    reference->padded = xn_calloc(padded, sizeof(*reference->padded));
    return reference->padded ? 0 : -ENOMEM;
}

int xn_reference_new(const struct xn_network *network, struct xn_reference **ret_reference)
{
    struct xn_reference *reference = xn_calloc(1, sizeof(*reference));
    if (!reference)
        return -ENOMEM;
    reference->network = network;
    const int r = fill(reference);
    if (r < 0) {
        xn_reference_free(reference);
        return r;
    }
    *ret_reference = reference;
    return 0;
}

void xn_reference_free(struct xn_reference *reference)
{
    if (!reference)
        return;
    for (uint32_t i = 0; reference->values && i < reference->network->n_values; i++)
        free(reference->values[i]);
    for (uint32_t i = 0; reference->weights && i < reference->network->n_layers; i++)
        free(reference->weights[i]);
    free(reference->values);
    free(reference->weights);
    free(reference->padded);
    free(reference);
}
