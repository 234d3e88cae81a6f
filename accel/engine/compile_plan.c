/* SPDX-License-Identifier: Apache-2.0
 * From layers to steps, in the order of the layers. A step begins with a window (CONV, DENSE, pools) or a copy of what is stored, and
 * takes up what follows as the post lanes have it: SCALE, a residual, saturation, RPRELU, a store, and one of THRESHOLD, SCALE to
 * bytes, LOGITS.
 *
 * A value is *open* where nothing stores it and each layer that reads it goes on with its step: sums of 32 bits always (with two
 * readers the convolution runs twice, or they fit 16 bits and are stored), the others where one layer reads them and the
 * post lanes can do that. A value that is not open closes its step: it is stored, and the first threshold, quantizer or logits that
 * read it come with it. A CONCAT of streams that one layer reads is open too, where that layer can go on with the steps of all its
 * inputs. Every input of a layer is made by a layer before it, and whatever a step makes is made after whatever it
 * reads, so a step can stand where the layer does that closes it. */
#include "accel/engine/compile.h"

#include <errno.h>

static bool fits_int16(const struct xn_value *v)
{
    return v->min >= INT16_MIN && v->max <= INT16_MAX;
}

/* ---- what it takes up ------------------------------------------------------------------------------------------------- */

/** May the steps of CONCAT `i`'s inputs go on with what follows it, each with its channels, so that nothing stores it? */
static bool is_sunk(const struct xn_compiler *c, uint32_t i)
{
    const uint32_t first = c->first_reader[i + 1];

    if (xn_compiler_value(c, i + 1)->dtype != XN_DTYPE_I16 || c->values[i + 1].layout ||
        c->first_reader[i + 2] - first != 1)
        return false;
    const enum xn_op next = c->network->layers[c->readers[first]].op;
    return next == XN_OP_ADD || next == XN_OP_RPRELU || next == XN_OP_SCALE || next == XN_OP_THRESHOLD;
}

/** Can layer `i` go on with `step`, whose lanes hold value `v`, or a part of it? */
static bool can_extend_step(const struct xn_compiler *c, const struct xn_engine_step *step, uint32_t v, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const uint32_t f = step->d.flags, other = l->inputs[l->inputs[0] == v];

    if (step->part_lanes && c->values[i + 1].layout)
        return false;
    switch (l->op) {
    case XN_OP_THRESHOLD:
        return true;
    case XN_OP_LOGITS:
        return !step->part_lanes;
    case XN_OP_CONCAT:
        return !step->part_lanes && is_sunk(c, i);
    case XN_OP_RPRELU:
        return !(f & XN_ISA_RPRELU);
    case XN_OP_SCALE:
        if (xn_compiler_value(c, i + 1)->dtype != XN_DTYPE_I16)
            return true;
        return !(f & (XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_RPRELU)) && l->inputs[0] == v &&
               (l->n_inputs == 1 || l->inputs[1] != v);
    case XN_OP_ADD: /* the residual comes before the clamp: one that did something cannot be left out */
        return l->inputs[0] != l->inputs[1] && !c->values[other].open && !(f & (XN_ISA_RESIDUAL | XN_ISA_RPRELU)) &&
               (!(f & XN_ISA_SATURATE) || xn_compiler_within_int16(xn_compiler_value(c, v)));
    default:
        return false;
    }
}

static void extend_step(const struct xn_compiler *c, struct xn_engine_step *step, uint32_t v, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const enum xn_dtype out = xn_compiler_value(c, i + 1)->dtype;

    step->last_layer = i;
    switch (l->op) {
    case XN_OP_ADD:
        step->d.flags |= XN_ISA_RESIDUAL | XN_ISA_SATURATE;
        step->residual_value = l->inputs[l->inputs[0] == v];
        step->residual_group = step->part_first / XN_ISA_LANES;
        return;
    case XN_OP_RPRELU:
        step->d.flags |= XN_ISA_RPRELU;
        step->rprelu = i;
        step->rprelu_first = step->part_first;
        return;
    case XN_OP_SCALE:
        if (out == XN_DTYPE_I16) {
            step->d.flags |= XN_ISA_SCALE | XN_ISA_SATURATE | (l->n_inputs > 1 ? XN_ISA_RESIDUAL : 0);
            step->d.shift |= l->shift;
            step->scale = i;
            step->scale_first = step->part_first;
            step->residual_group = step->part_first / XN_ISA_LANES;
            step->residual_value = l->n_inputs > 1 ? l->inputs[1] : XN_ENGINE_NONE;
            return;
        }
        step->d.flags |= XN_ISA_QUANTIZE | (out == XN_DTYPE_U8 ? XN_ISA_UNSIGNED : 0);
        step->d.shift |= l->shift << 8;
        break;
    default:
        step->d.flags |= l->op == XN_OP_LOGITS ? XN_ISA_LOGITS : XN_ISA_SIGN;
        break;
    }
    step->end = i;
    step->end_first = step->part_first;
    step->end_value = i + 1;
}

static bool can_extend(const struct xn_compiler *c, const struct xn_engine_chain *chain, uint32_t v, uint32_t i)
{
    for (uint32_t k = 0; k < chain->n; k++)
        if (!can_extend_step(c, &chain->steps[k], v, i))
            return false;
    return true;
}

static void extend(const struct xn_compiler *c, struct xn_engine_chain *chain, uint32_t v, uint32_t i)
{
    for (uint32_t k = 0; k < chain->n; k++)
        extend_step(c, &chain->steps[k], v, i);
}

static bool ends(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    return l->op == XN_OP_THRESHOLD || l->op == XN_OP_LOGITS ||
           (l->op == XN_OP_SCALE && xn_compiler_value(c, i + 1)->dtype != XN_DTYPE_I16);
}

/** May value `v` stay in the lanes of `chain`? */
static bool stays_open(const struct xn_compiler *c, const struct xn_engine_chain *chain, uint32_t v)
{
    const uint32_t first = c->first_reader[v], n = c->first_reader[v + 1] - first;
    const bool sums = xn_compiler_value(c, v)->dtype == XN_DTYPE_I32;

    if (n > 1 && (!sums || fits_int16(xn_compiler_value(c, v))))
        return false;
    for (uint32_t k = 0; k < n; k++)
        if (!can_extend(c, chain, v, c->readers[first + k]))
            return false;
    return true;
}

/** The threshold or quantizer of a stored CONCAT of streams (value `v`) that comes with the passes which make its parts; NONE. Bits are
 *  written 64 at a time, in any order, so no part may share a word. */
static uint32_t common_end(const struct xn_compiler *c, uint32_t v)
{
    const struct xn_layer *l = &c->network->layers[v - 1];
    uint32_t end = XN_ENGINE_NONE;

    if (xn_compiler_value(c, v)->dtype != XN_DTYPE_I16 || c->values[v].layout || is_sunk(c, v - 1))
        return XN_ENGINE_NONE;
    for (uint32_t k = c->first_reader[v + 1]; k-- > c->first_reader[v];)
        if (ends(c, c->readers[k]) && c->network->layers[c->readers[k]].op != XN_OP_LOGITS)
            end = c->readers[k];
    for (uint32_t k = 0; end != XN_ENGINE_NONE && k + 1 < l->n_inputs; k++)
        if (xn_compiler_value(c, l->inputs[k])->c % XN_ISA_WORD_BITS)
            return XN_ENGINE_NONE;
    return end;
}

/** `step` makes the lanes of value `v`, a CONCAT, from `first` on: its end too. */
static void extend_part(const struct xn_compiler *c, struct xn_engine_step *step, uint32_t v, uint32_t first)
{
    const uint32_t end = common_end(c, v);

    if (end == XN_ENGINE_NONE)
        return;
    extend_step(c, step, v, end);
    step->end_first = first;
}

/** `chain` holds value `v`, which has to be stored. */
static int close_chain(struct xn_compiler *c, struct xn_engine_chain *chain, uint32_t v)
{
    const struct xn_value *x = xn_compiler_value(c, v);
    const bool bytes = x->dtype == XN_DTYPE_U8 || x->dtype == XN_DTYPE_I8;

    if (x->dtype == XN_DTYPE_I32 && !fits_int16(x))
        return xn_compiler_refuse(
            c, v - 1, -ENOTSUP, "sums to %lld and a second multiply-shift behind them do not go through the post lanes",
            (long long)XN_MAX(x->max, -x->min));
    for (uint32_t k = 0; k < chain->n; k++) {
        struct xn_engine_step *step = &chain->steps[k];
        step->d.flags |= !bytes ? XN_ISA_STORE : XN_ISA_QUANTIZE | (x->dtype == XN_DTYPE_U8 ? XN_ISA_UNSIGNED : 0);
        *(bytes ? &step->end_value : &step->stream_value) = v;
        if (!bytes && c->values[v].home != XN_ENGINE_NONE)
            extend_part(c, step, c->values[v].home, c->values[v].home_group * XN_ISA_LANES + step->part_first);
    }
    for (uint32_t k = c->first_reader[v]; !bytes && k < c->first_reader[v + 1]; k++) {
        const uint32_t reader = c->readers[k];
        if (chain->steps[0].end == XN_ENGINE_NONE && ends(c, reader) && can_extend(c, chain, v, reader)) {
            extend(c, chain, v, reader);
            c->done[reader] = true;
        }
    }
    return xn_compiler_emit(c, chain);
}

/* ---- layers ----------------------------------------------------------------------------------------------------------- */

/** Input `v` of CONCAT `i` to its lanes from group `group` on. */
static int copy_part(struct xn_compiler *c, uint32_t v, uint32_t i, uint32_t group)
{
    struct xn_engine_step step = xn_compiler_begin_copy(c, v, i);

    step.part_first = step.end_first = group * XN_ISA_LANES;
    step.part_lanes = step.tap_channels;
    if (step.d.source == XN_ISA_I16) {
        step.d.flags |= XN_ISA_STORE;
        step.stream_value = i + 1;
        extend_part(c, &step, i + 1, step.part_first);
        return xn_compiler_emit_step(c, &step);
    }
    step.end_value = i + 1;
    if (step.d.source != XN_ISA_BITS || group % 4 == 0)
        xn_compiler_make_largest(&step);
    else
        step.d.flags |= XN_ISA_SIGN;
    return xn_compiler_emit_step(c, &step);
}

/** Input `k` of CONCAT `i`, whose channels begin at `first`, as a part of it. */
static struct xn_engine_step begin_part(const struct xn_compiler *c, uint32_t i, uint32_t k, uint32_t first)
{
    const uint32_t v = c->network->layers[i].inputs[k];
    struct xn_engine_step step = c->values[v].open ? c->values[v].chain.steps[0] : xn_compiler_begin_copy(c, v, i);

    step.part_first = first;
    step.part_lanes = xn_compiler_value(c, v)->c;
    return step;
}

static struct xn_engine_chain begin_parts(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    struct xn_engine_chain chain = {.n = l->n_inputs};
    uint32_t first = 0;

    for (uint32_t k = 0; k < l->n_inputs; k++) {
        chain.steps[k] = begin_part(c, i, k, first);
        first += chain.steps[k].part_lanes;
    }
    return chain;
}

/** Input `k` of CONCAT `i` to its lanes from group `group` on, if it is not there yet. */
static int store_part(struct xn_compiler *c, uint32_t i, uint32_t k, uint32_t group)
{
    const uint32_t v = c->network->layers[i].inputs[k];
    const struct xn_engine_value *in = &c->values[v];

    if (in->open) {
        struct xn_engine_step step = begin_part(c, i, k, group * XN_ISA_LANES);
        step.d.flags |= XN_ISA_STORE;
        step.stream_value = i + 1;
        return xn_compiler_emit_step(c, &step);
    }
    if (in->home == i + 1 && in->home_group == group)
        return 0;
    return copy_part(c, v, i, group);
}

static int plan_concat(struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    uint32_t group = 0;

    if (is_sunk(c, i)) {
        const struct xn_engine_chain parts = begin_parts(c, i);
        if (stays_open(c, &parts, i + 1)) {
            c->values[i + 1].open = true;
            c->values[i + 1].chain = parts;
            return 0;
        }
    }
    for (uint32_t k = 0; k < l->n_inputs; k++) {
        const int r = store_part(c, i, k, group);
        if (r < 0)
            return r;
        group += xn_compiler_groups(c, l->inputs[k]);
    }
    const uint32_t end = common_end(c, i + 1);
    if (end != XN_ENGINE_NONE)
        c->done[end] = true;
    return 0;
}

static struct xn_engine_chain begin(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const uint32_t v = l->op == XN_OP_ADD && c->values[l->inputs[1]].open ? l->inputs[1] : l->inputs[0];
    struct xn_engine_chain chain = {.n = 1};

    if (l->op == XN_OP_CONV || l->op == XN_OP_DENSE || l->op == XN_OP_MAXPOOL || l->op == XN_OP_AVGPOOL ||
        l->op == XN_OP_GLOBAL_AVGPOOL) {
        chain.steps[0] = xn_compiler_begin_window(c, i);
        return chain;
    }
    if (c->values[v].open)
        chain = c->values[v].chain;
    else
        chain.steps[0] = xn_compiler_begin_copy(c, v, i);
    extend(c, &chain, v, i);
    return chain;
}

static int plan_layer(struct xn_compiler *c, uint32_t i)
{
    struct xn_engine_chain chain;

    if (c->network->layers[i].op == XN_OP_CONCAT)
        return plan_concat(c, i);
    chain = begin(c, i);
    if (chain.steps[0].d.op == XN_ISA_LARGEST)
        chain.steps[0].end_value = i + 1;
    if (chain.steps[0].end_value != XN_ENGINE_NONE)
        return xn_compiler_emit(c, &chain);
    if (!stays_open(c, &chain, i + 1))
        return close_chain(c, &chain, i + 1);
    c->values[i + 1].open = true;
    c->values[i + 1].chain = chain;
    return 0;
}

int xn_compiler_plan(struct xn_compiler *c)
{
    for (uint32_t i = 0; i < c->network->n_layers; i++) {
        const int r = c->needed[i] && !c->done[i] ? plan_layer(c, i) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}
