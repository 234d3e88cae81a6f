/* SPDX-License-Identifier: Apache-2.0
 * The stream of a step: for each group of 16 lanes their post parameters, then the weight words in the order in which the window's
 * steps want them. Lanes without a channel are zeros all through, so that they make 0; only their thresholds are out of
 * reach, so that they make no bit. */
#include "accel/engine/compile.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

static_assert(sizeof(struct xn_isa_lane) == XN_ISA_LANE_BYTES, "as in card memory");
static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "lanes are written in place");

static uint32_t channel_of(const struct xn_engine_layout *layout, uint32_t lane)
{
    return layout ? layout->channels[lane] : lane;
}

bool xn_compiler_stream_bytes(const struct xn_engine_step *step, size_t *ret_bytes)
{
    return xn_mul_size(xn_isa_group_bytes(&step->d), xn_isa_ceil(step->d.channels, XN_ISA_LANES), ret_bytes);
}

/* ---- post parameters --------------------------------------------------------------------------------------------------- */

static void pack_end(const struct xn_layer *end, const struct xn_engine_step *step, uint32_t channel,
                     struct xn_isa_lane *lane)
{
    if (!end) { /* a copy or a pool of bits or bytes */
        lane->t = step->border ? 1 : 0;
        lane->m2 = step->d.flags & XN_ISA_QUANTIZE ? 1 : 0;
    } else if (end->op == XN_OP_THRESHOLD) {
        lane->t = ((const int32_t *)end->tensors[0]->data)[channel];
    } else if (end->op == XN_OP_SCALE) {
        lane->m2 = ((const int16_t *)end->tensors[0]->data)[channel];
        lane->b2 = ((const int64_t *)end->tensors[1]->data)[channel];
    } else {
        lane->t = ((const int32_t *)end->tensors[0]->data)[channel];
        lane->b2 = ((const int32_t *)end->tensors[1]->data)[channel];
    }
}

static void pack_lane(const struct xn_network *n, const struct xn_engine_step *step, uint32_t channel,
                      struct xn_isa_lane *lane)
{
    lane->m1 = step->multiplier;
    if (step->scale != XN_ENGINE_NONE) {
        const struct xn_layer *l = &n->layers[step->scale];
        lane->m1 = ((const int16_t *)l->tensors[0]->data)[step->scale_first + channel];
        lane->b1 = ((const int64_t *)l->tensors[1]->data)[step->scale_first + channel];
    }
    if (step->rprelu != XN_ENGINE_NONE) {
        const struct xn_layer *l = &n->layers[step->rprelu];
        lane->a = ((const int16_t *)l->tensors[0]->data)[step->rprelu_first + channel];
        lane->k = ((const uint8_t *)l->tensors[1]->data)[step->rprelu_first + channel];
        lane->d = ((const int16_t *)l->tensors[2]->data)[step->rprelu_first + channel];
    }
    pack_end(step->end == XN_ENGINE_NONE ? NULL : &n->layers[step->end], step, step->end_first + channel, lane);
}

/* ---- weights ----------------------------------------------------------------------------------------------------------- */

/** Element `e` of filter `oc`. */
static int8_t element(const struct xn_layer *l, uint32_t oc, size_t e)
{
    const struct xn_tensor *t = l->tensors[0];
    const size_t n = (size_t)t->dims[1] * t->dims[2] * t->dims[3];

    if (t->dtype == XN_DTYPE_I8)
        return ((const int8_t *)t->data)[oc * n + e];
    return ((const uint64_t *)t->data)[oc * xn_div_up(n, 64) + e / 64] >> e % 64 & 1 ? 1 : -1;
}

/** What a convolution's weights are told by. */
struct filters {
    const struct xn_layer *l; /**< NULL: ones */
    uint32_t in, out;         /**< channels of a tap and of all outputs, each group's */
    uint32_t map_channels;    /**< of the source */
};

/** Weight of filter `oc` at lane `lane` of tap `tap`; 0 where there is none. */
static int8_t weight_at(const struct filters *f, const struct xn_engine_step *step, uint32_t oc, size_t tap,
                        uint32_t lane)
{
    uint32_t channel;

    if (step->packed) { /* a tap is a row of the window */
        tap = tap * (step->tap_channels / f->map_channels) + lane / f->map_channels;
        channel = lane % f->map_channels;
    } else {
        channel = channel_of(step->in, step->first_in + lane);
    }
    if (channel == XN_ENGINE_NONE || channel / f->in != oc / f->out)
        return 0;
    return element(f->l, oc, tap * f->in + channel % f->in);
}

/** The 64 bits of a weight word for filter `oc`: those of word `word` of tap `tap`. */
static uint64_t pack_word(const struct filters *f, const struct xn_engine_step *step, uint32_t oc, size_t tap,
                          uint32_t word)
{
    const uint32_t per_word = step->d.op == XN_ISA_BINARY ? XN_ISA_WORD_BITS : XN_ISA_WORD_BYTES;
    uint64_t bits = 0;

    if (step->d.op == XN_ISA_VECTOR) {
        const int8_t w = f->l ? element(f->l, oc, tap) : tap == 0; /* a border's copy: the first tap */
        return (uint8_t)w;
    }
    for (uint32_t i = 0; i < per_word && word * per_word + i < step->tap_channels; i++) {
        const int8_t w = weight_at(f, step, oc, tap, word * per_word + i);
        bits |= step->d.op == XN_ISA_BINARY ? (uint64_t)(w > 0) << i : (uint64_t)(uint8_t)w << 8 * i;
    }
    return bits;
}

static struct filters filters_of(const struct xn_network *n, const struct xn_engine_step *step)
{
    struct filters f = {0};
    const struct xn_layer *l = step->head == XN_ENGINE_NONE ? NULL : &n->layers[step->head];

    if (!l || (l->op != XN_OP_CONV && l->op != XN_OP_DENSE))
        return f;
    const uint32_t groups = l->op == XN_OP_CONV ? l->groups : 1;
    f.l = l;
    f.map_channels = n->values[step->value].c;
    f.in = f.map_channels / groups;
    f.out = xn_layer_output(n, step->head)->c / groups;
    return f;
}

static void pack_group(const struct xn_network *n, const struct xn_engine_step *step, const struct filters *f,
                       uint32_t group, uint8_t *to)
{
    const size_t steps = xn_isa_has_weights(&step->d) ? xn_isa_steps(&step->d) : 0;

    for (uint32_t i = 0; i < XN_ISA_LANES && group * XN_ISA_LANES + i < step->d.channels; i++) {
        const uint32_t channel = channel_of(step->out, step->first_out + group * XN_ISA_LANES + i);
        struct xn_isa_lane lane = {0};
        if (channel == XN_ENGINE_NONE) {
            lane.t = INT32_MAX;
            memcpy(to + i * XN_ISA_LANE_BYTES, &lane, sizeof(lane));
            continue;
        }
        pack_lane(n, step, channel, &lane);
        memcpy(to + i * XN_ISA_LANE_BYTES, &lane, sizeof(lane));
        for (size_t s = 0; s < steps; s++) {
            const uint64_t word = pack_word(f, step, channel, s / step->d.words, (uint32_t)(s % step->d.words));
            memcpy(to + XN_ISA_POST_BYTES + s * XN_ISA_WEIGHT_BYTES + i * sizeof(word), &word, sizeof(word));
        }
    }
}

void xn_compiler_pack(const struct xn_compiler *c, const struct xn_engine_step *step, uint8_t *to)
{
    const struct filters f = filters_of(c->network, step);
    const size_t group_bytes = xn_isa_group_bytes(&step->d);

    if (!xn_isa_has_stream(&step->d))
        return;
    for (uint32_t group = 0; group < xn_isa_ceil(step->d.channels, XN_ISA_LANES); group++)
        pack_group(c->network, step, &f, group, to + group * group_bytes);
}
