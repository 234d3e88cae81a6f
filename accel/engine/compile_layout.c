/* SPDX-License-Identifier: Apache-2.0
 * Where channels lie. Post lanes cannot move a channel from one lane to another, so CONCAT puts each of its inputs at a whole group of
 * 16 lanes: where an input's channels are no multiple of 16, lanes stay empty behind them. What follows channel by channel keeps
 * such a layout; a convolution reads any (weights of empty lanes are nothing) and makes a dense one, or the one of its residual.
 *
 * Inputs of a CONCAT are written straight into it where that is possible: int16 always, the others where nobody else reads
 * them; bits, which are written 64 at a time, where they share no word with a neighbour. */
#include "accel/engine/compile.h"
#include "common/fault.h"

#include <errno.h>

bool xn_engine_same_layout(const struct xn_engine_layout *a, const struct xn_engine_layout *b)
{
    if (a == b)
        return true;
    if (!a || !b || a->width != b->width)
        return false;
    for (uint32_t i = 0; i < a->width; i++)
        if (a->channels[i] != b->channels[i])
            return false;
    return true;
}

static uint32_t padded_width(const struct xn_compiler *c, uint32_t v)
{
    return xn_compiler_groups(c, v) * XN_ISA_LANES;
}

/** The layout of CONCAT layer `i`; none where channels lie densely all the same. */
static int make_layout(struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    struct xn_engine_layout *layout;
    uint32_t width = 0, lane = 0, channel = 0;
    bool dense = true;

    for (uint32_t k = 0; k < l->n_inputs; k++) {
        const uint32_t v = l->inputs[k];
        width = lane + xn_compiler_width(c, v);
        lane += padded_width(c, v);
        dense = dense && !c->values[v].layout && (k + 1 == l->n_inputs || width == lane);
    }
    if (dense)
        return 0;
    if (width > XN_CHANNELS_MAX)
        return xn_compiler_refuse(c, i, -ENOTSUP, "takes %u lanes, the engine addresses %u", width, XN_CHANNELS_MAX);
    layout = xn_calloc(1, sizeof(*layout) + width * sizeof(layout->channels[0]));
    if (!layout)
        return -ENOMEM;
    layout->width = width;
    layout->next = c->layouts;
    c->layouts = layout;
    lane = 0;
    for (uint32_t k = 0; k < l->n_inputs; k++) {
        const struct xn_engine_layout *in = c->values[l->inputs[k]].layout;
        const uint32_t n = xn_compiler_width(c, l->inputs[k]), next = lane + padded_width(c, l->inputs[k]);
        for (uint32_t p = 0; lane + p < next && lane + p < width; p++) {
            const uint32_t from = p < n ? in ? in->channels[p] : p : XN_ENGINE_NONE;
            layout->channels[lane + p] = from == XN_ENGINE_NONE ? from : channel + from;
        }
        lane = next;
        channel += c->network->values[l->inputs[k]].c;
    }
    c->values[i + 1].layout = layout;
    return 0;
}

/** May value `v` be written straight to lanes from..to-1 of a CONCAT (`last`: its end)? */
static bool may_move_in(const struct xn_compiler *c, uint32_t v, uint32_t from, uint32_t to, bool last)
{
    const struct xn_value *value = &c->network->values[v];

    if (v == 0 || c->values[v].home != XN_ENGINE_NONE || c->network->layers[v - 1].op == XN_OP_CONCAT)
        return false;
    if (value->dtype == XN_DTYPE_I16)
        return true;
    if (c->first_reader[v + 1] - c->first_reader[v] > 1)
        return false;
    return value->dtype != XN_DTYPE_BITS || (from % XN_ISA_WORD_BITS == 0 && (last || to % XN_ISA_WORD_BITS == 0));
}

static void move_in(struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    uint32_t lane = 0;

    for (uint32_t k = 0; k < l->n_inputs; k++) {
        const uint32_t v = l->inputs[k], next = lane + padded_width(c, v);
        if (may_move_in(c, v, lane, next, k + 1 == l->n_inputs)) {
            c->values[v].home = i + 1;
            c->values[v].home_group = lane / XN_ISA_LANES;
        }
        lane = next;
    }
}

int xn_compiler_lay_out(struct xn_compiler *c)
{
    const struct xn_network *n = c->network;

    for (uint32_t i = 0; i < n->n_layers; i++) {
        const struct xn_layer *l = &n->layers[i];
        struct xn_engine_value *out = &c->values[i + 1];
        int r = 0;
        if (!c->needed[i])
            continue;
        if (l->op == XN_OP_CONCAT) {
            r = make_layout(c, i);
            move_in(c, i);
        } else if (l->op != XN_OP_DENSE && (l->op != XN_OP_CONV || xn_compiler_is_depthwise(n, i))) {
            out->layout = c->values[l->inputs[0]].layout;
            if (!out->layout && l->n_inputs > 1)
                out->layout = c->values[l->inputs[1]].layout;
        }
        if (r < 0)
            return r;
    }
    return 0;
}
