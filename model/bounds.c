/* SPDX-License-Identifier: Apache-2.0
 * Interval analysis: from the bounds of a layer's inputs and the contents of its tensors, the bounds of its
 * output, and the proof that no accumulator leaves its range whatever the image. One interval a value, over all
 * its channels.
 *
 * Accumulators are proven by the sum of magnitudes, which bounds every partial sum in any order of adding; the
 * interval itself is narrower. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "model/arithmetic.h"
#include "model/internal.h"

struct interval {
    int64_t min, max;
};

/* Smallest interval that holds both. */
static struct interval join(struct interval a, struct interval b)
{
    return (struct interval){XN_MIN(a.min, b.min), XN_MAX(a.max, b.max)};
}

static struct interval clamp_to(struct interval a, enum xn_dtype dtype)
{
    const int64_t low = xn_dtype_min(dtype), high = xn_dtype_max(dtype);
    return (struct interval){xn_clamp(a.min, low, high), xn_clamp(a.max, low, high)};
}

static struct interval input_interval(const struct xn_layer_check *check, uint32_t k)
{
    const struct xn_value *x = xn_check_input(check, k);
    return (struct interval){x->min, x->max};
}

static int64_t magnitude(struct interval a)
{
    return XN_MAX(llabs(a.min), llabs(a.max));
}

static bool is_padded(const struct xn_layer *layer)
{
    return layer->pad_top || layer->pad_left || layer->pad_bottom || layer->pad_right;
}

/* What one tap of a window may contribute: an element, or 0 where zero padding is. -1 is within the bounds of bits. */
static struct interval tap_interval(const struct xn_layer_check *check)
{
    const struct interval x = input_interval(check, 0);
    const bool zeros = is_padded(check->layer) && check->layer->pad == XN_PAD_ZERO;
    return zeros ? join(x, (struct interval){0, 0}) : x;
}

/* A filter as its sums: of the positive weights, and of the magnitudes of the negative ones. */
struct filter_sums {
    int64_t positive, negative;
};

static struct filter_sums sum_bits(const uint64_t *row, uint64_t elements)
{
    int64_t ones = 0;
    for (uint64_t word = 0; word < xn_div_up(elements, 64); word++)
        ones += __builtin_popcountll(row[word]);
    return (struct filter_sums){ones, (int64_t)elements - ones};
}

static struct filter_sums sum_int8(const int8_t *row, uint64_t elements)
{
    struct filter_sums sums = {0, 0};
    for (uint64_t i = 0; i < elements; i++) {
        sums.positive += row[i] > 0 ? row[i] : 0;
        sums.negative -= row[i] < 0 ? row[i] : 0;
    }
    return sums;
}

static struct filter_sums sum_filter(const struct xn_tensor *weights, uint32_t filter)
{
    const uint64_t elements = (uint64_t)weights->dims[1] * weights->dims[2] * weights->dims[3];
    if (weights->dtype == XN_DTYPE_BITS)
        return sum_bits((const uint64_t *)weights->data + filter * xn_div_up(elements, 64), elements);
    return sum_int8((const int8_t *)weights->data + filter * elements, elements);
}

static int check_accumulator(const struct xn_layer_check *check, const char *what, uint32_t index, int64_t largest)
{
    if (largest > XN_ACCUMULATOR_MAX)
        return xn_layer_error(check, -EINVAL, "%s %u: its sum may reach a magnitude of %" PRId64 ", must be %d at most",
                              what, index, largest, XN_ACCUMULATOR_MAX);
    return 0;
}

static int bound_weighted(const struct xn_layer_check *check, struct interval *ret)
{
    const struct xn_tensor *weights = check->layer->tensors[0];
    const struct interval x = tap_interval(check);
    for (uint32_t filter = 0; filter < weights->dims[0]; filter++) {
        const struct filter_sums w = sum_filter(weights, filter);
        const int e = check_accumulator(check, "filter", filter, (w.positive + w.negative) * magnitude(x));
        if (e < 0)
            return e;
        const struct interval s = {w.positive * x.min - w.negative * x.max, w.positive * x.max - w.negative * x.min};
        *ret = filter ? join(*ret, s) : s;
    }
    return 0;
}

static int bound_scale(const struct xn_layer_check *check, struct interval *ret)
{
    const struct xn_layer *layer = check->layer;
    const int16_t *m = layer->tensors[0]->data;
    const int64_t *b = layer->tensors[1]->data;
    const struct interval x = input_interval(check, 0);
    const struct interval r = layer->n_inputs == 2 ? input_interval(check, 1) : (struct interval){0, 0};
    for (uint32_t c = 0; c < check->out->c; c++) {
        if (b[c] > XN_SCALE_BIAS_MAX || b[c] < -XN_SCALE_BIAS_MAX)
            return xn_layer_error(check, -EINVAL,
                                  "tensors[1] has %" PRId64 " for channel %u, must be within +-%" PRId64, b[c], c,
                                  XN_SCALE_BIAS_MAX);
        const int64_t at_min = xn_scale(x.min, m[c], b[c], layer->shift);
        const int64_t at_max = xn_scale(x.max, m[c], b[c], layer->shift);
        const struct interval v = {XN_MIN(at_min, at_max) + r.min, XN_MAX(at_min, at_max) + r.max};
        *ret = c ? join(*ret, v) : v;
    }
    *ret = clamp_to(*ret, check->out->dtype);
    return 0;
}

static int bound_rprelu(const struct xn_layer_check *check, struct interval *ret)
{
    const struct xn_layer *layer = check->layer;
    const int16_t *a = layer->tensors[0]->data, *b = layer->tensors[2]->data;
    const uint8_t *k = layer->tensors[1]->data;
    const struct interval x = input_interval(check, 0);
    for (uint32_t c = 0; c < check->out->c; c++) {
        if (k[c] > 15)
            return xn_layer_error(check, -EINVAL, "tensors[1] has %u for channel %u, must be 0..15", k[c], c);
        const struct interval v = {xn_rprelu((int32_t)x.min, a[c], k[c], b[c]),
                                   xn_rprelu((int32_t)x.max, a[c], k[c], b[c])}; /* never falls with x */
        *ret = c ? join(*ret, v) : v;
    }
    return 0;
}

/* Mean of `taps` elements. */
static int bound_average(const struct xn_layer_check *check, int64_t taps, struct interval *ret)
{
    const struct xn_layer *layer = check->layer;
    const struct interval x = tap_interval(check);
    const int e = check_accumulator(check, "channel", 0, taps * magnitude(x));
    if (e < 0)
        return e;
    *ret = (struct interval){xn_round_shift(taps * x.min * layer->multiplier, layer->shift),
                             xn_round_shift(taps * x.max * layer->multiplier, layer->shift)};
    if (check->out->dtype == XN_DTYPE_I16) {
        *ret = clamp_to(*ret, XN_DTYPE_I16);
        return 0;
    }
    if (magnitude(*ret) > XN_ACCUMULATOR_MAX)
        return xn_layer_error(check, -EINVAL,
                              "may give %" PRId64 "..%" PRId64
                              ", must be within +-%d: a smaller multiplier or a larger shift",
                              ret->min, ret->max, XN_ACCUMULATOR_MAX);
    return 0;
}

static int bound_logits(const struct xn_layer_check *check, struct interval *ret)
{
    const int32_t *m = check->layer->tensors[0]->data, *b = check->layer->tensors[1]->data;
    const struct interval x = input_interval(check, 0);
    for (uint32_t c = 0; c < check->out->c; c++) {
        const int64_t at_min = m[c] * x.min + b[c], at_max = m[c] * x.max + b[c];
        const struct interval z = {XN_MIN(at_min, at_max), XN_MAX(at_min, at_max)};
        if (z.min < INT32_MIN || z.max > INT32_MAX)
            return xn_layer_error(check, -EINVAL,
                                  "the logit of class %u may be %" PRId64 "..%" PRId64 ", must fit 32 bits", c, z.min,
                                  z.max);
        *ret = c ? join(*ret, z) : z;
    }
    return 0;
}

static struct interval bound_add(const struct xn_layer_check *check)
{
    const struct interval x = input_interval(check, 0), r = input_interval(check, 1);
    return clamp_to((struct interval){x.min + r.min, x.max + r.max}, XN_DTYPE_I16);
}

static struct interval bound_concat(const struct xn_layer_check *check)
{
    struct interval all = input_interval(check, 0);
    for (uint32_t k = 1; k < check->layer->n_inputs; k++)
        all = join(all, input_interval(check, k));
    return all;
}

static int bound_by_op(const struct xn_layer_check *check, struct interval *ret)
{
    const struct xn_layer *layer = check->layer;
    const struct xn_value *x = xn_check_input(check, 0);
    switch (layer->op) {
    case XN_OP_CONV:
    case XN_OP_DENSE:
        return bound_weighted(check, ret);
    case XN_OP_THRESHOLD:
        *ret = (struct interval){-1, 1};
        return 0;
    case XN_OP_SCALE:
        return bound_scale(check, ret);
    case XN_OP_ADD:
        *ret = bound_add(check);
        return 0;
    case XN_OP_RPRELU:
        return bound_rprelu(check, ret);
    case XN_OP_MAXPOOL:
        *ret = input_interval(check, 0);
        return 0;
    case XN_OP_AVGPOOL:
        return bound_average(check, (int64_t)layer->kernel_h * layer->kernel_w, ret);
    case XN_OP_GLOBAL_AVGPOOL:
        return bound_average(check, (int64_t)x->h * x->w, ret);
    case XN_OP_CONCAT:
        *ret = bound_concat(check);
        return 0;
    case XN_OP_LOGITS:
        return bound_logits(check, ret);
    }
    return xn_layer_error(check, -EPROTONOSUPPORT, "unknown operation");
}

int xn_bound_layer(const struct xn_layer_check *check)
{
    struct interval out = {0, 0};
    const int e = bound_by_op(check, &out);
    if (e < 0)
        return e;
    check->out->min = out.min;
    check->out->max = out.max;
    return 0;
}
