/* SPDX-License-Identifier: Apache-2.0
 * What a step begins with: a window, and the unit that takes it, or a copy. */
#include "accel/engine/compile.h"

struct xn_engine_step xn_compiler_new_step(uint32_t op, uint32_t layer)
{
    const struct xn_engine_ref none = {XN_ENGINE_NONE, 0};
    return (struct xn_engine_step){.d = {.op = op},
                                   .first_layer = layer,
                                   .last_layer = layer,
                                   .head = XN_ENGINE_NONE,
                                   .scale = XN_ENGINE_NONE,
                                   .rprelu = XN_ENGINE_NONE,
                                   .end = XN_ENGINE_NONE,
                                   .residual_value = XN_ENGINE_NONE,
                                   .stream_value = XN_ENGINE_NONE,
                                   .end_value = XN_ENGINE_NONE,
                                   .source = none,
                                   .residual = none,
                                   .stream = none,
                                   .dest = none};
}

static uint32_t source_type(enum xn_dtype dtype)
{
    return dtype == XN_DTYPE_BITS ? XN_ISA_BITS
           : dtype == XN_DTYPE_U8 ? XN_ISA_U8
           : dtype == XN_DTYPE_I8 ? XN_ISA_I8
                                  : XN_ISA_I16;
}

/** A copy of value `v` for `layer`. */
struct xn_engine_step xn_compiler_begin_copy(const struct xn_compiler *c, uint32_t v, uint32_t layer)
{
    const struct xn_value *x = xn_compiler_value(c, v);
    struct xn_engine_step step = xn_compiler_new_step(XN_ISA_VECTOR, layer);

    step.value = v;
    step.tap_channels = xn_compiler_width(c, v);
    step.d.source = source_type(x->dtype);
    step.d.height = step.d.out_h = x->h;
    step.d.width = step.d.out_w = x->w;
    step.d.words = step.d.kernel_h = step.d.kernel_w = step.d.stride_h = step.d.stride_w = 1;
    step.d.flags = XN_ISA_ONES;
    return step;
}

void xn_compiler_make_largest(struct xn_engine_step *step)
{
    step->d.op = XN_ISA_LARGEST;
    step->d.flags = 0;
    step->d.words = step->d.source == XN_ISA_BITS ? (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_WORD_BITS)
                                                  : 2 * (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_LANES);
}

static void set_window(struct xn_isa_descriptor *d, const struct xn_layer *l, const struct xn_value *in,
                       const struct xn_value *out)
{
    const bool whole = l->op == XN_OP_DENSE || l->op == XN_OP_GLOBAL_AVGPOOL;

    d->kernel_h = whole ? in->h : l->kernel_h;
    d->kernel_w = whole ? in->w : l->kernel_w;
    d->stride_h = whole ? 1 : l->stride_h;
    d->stride_w = whole ? 1 : l->stride_w;
    d->pad_top = whole ? 0 : l->pad_top;
    d->pad_left = whole ? 0 : l->pad_left;
    d->out_h = out->h;
    d->out_w = out->w;
}

/** Depthwise convolutions of bytes: INT8 takes PI pixels at a time, in passes of 16 channels, where VECTOR takes one in as many cycles. */
static bool is_for_vector(const struct xn_compiler *c, const struct xn_engine_step *step)
{
    const struct xn_value *in = xn_compiler_value(c, step->value);

    return xn_compiler_is_depthwise(c->network, step->head) &&
           (in->dtype == XN_DTYPE_BITS || c->values[step->value].layout || in->c % XN_ISA_LANES ||
            c->geometry->pi == 1 || step->d.out_w == 1);
}

/** CONV and DENSE. Groups other than depthwise ones are a convolution of all channels with weights of 0, which int8 ones can be, if they cannot
 *  be split (count_slices). */
static void begin_weights(const struct xn_compiler *c, struct xn_engine_step *step)
{
    const struct xn_layer *l = &c->network->layers[step->head];
    const struct xn_value *in = xn_compiler_value(c, step->value);
    struct xn_isa_descriptor *d = &step->d;

    d->flags = 0;
    if (is_for_vector(c, step)) {
        d->op = XN_ISA_VECTOR;
    } else if (l->binary && (l->op == XN_OP_DENSE || l->groups == 1)) {
        d->op = XN_ISA_BINARY;
        d->words = (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_WORD_BITS);
        d->channels_in = in->c;
        d->flags |= l->pad == XN_PAD_MINUS_ONE ? XN_ISA_PAD_MINUS_ONE : 0;
    } else {
        d->op = XN_ISA_INT8;
        d->words = (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_WORD_BYTES);
    }
}

static void begin_pool(struct xn_engine_step *step, const struct xn_layer *l, const struct xn_value *in,
                       const struct xn_value *out)
{
    struct xn_isa_descriptor *d = &step->d;

    if (l->op == XN_OP_MAXPOOL) {
        if (in->dtype == XN_DTYPE_I16)
            d->flags = XN_ISA_MAX;
        else
            xn_compiler_make_largest(step);
        return;
    }
    if (l->multiplier != 1 || l->shift) {
        d->flags |= XN_ISA_SCALE;
        d->shift = l->shift;
        step->multiplier = l->multiplier;
    }
    if (out->dtype == XN_DTYPE_I16 && !xn_compiler_within_int16(out))
        d->flags |= XN_ISA_SATURATE;
}

struct xn_engine_step xn_compiler_begin_window(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const struct xn_value *in = xn_compiler_value(c, l->inputs[0]), *out = xn_compiler_value(c, i + 1);
    struct xn_engine_step step = xn_compiler_begin_copy(c, l->inputs[0], i);

    step.head = i;
    set_window(&step.d, l, in, out);
    if (l->op == XN_OP_CONV || l->op == XN_OP_DENSE)
        begin_weights(c, &step);
    else
        begin_pool(&step, l, in, out);
    return step;
}
