/* SPDX-License-Identifier: Apache-2.0
 * A planned step as it is to run: maps for what it reads and makes, and the steps that have to come before it (the input tensor, a border of -1)
 * or instead of it (slices of a convolution in groups). */
#include "accel/engine/compile.h"

#include <errno.h>

/* ---- maps ------------------------------------------------------------------------------------------------------------- */

static struct xn_engine_ref add_map(struct xn_compiler *c, uint32_t layer, bool stream, uint32_t h, uint32_t w,
                                    uint32_t pitch)
{
    c->maps[c->n_maps] = (struct xn_engine_map){
        .stream = stream, .h = h, .w = w, .pitch = pitch, .layer = layer, .first = XN_ENGINE_NONE, .same = c->n_maps};
    return (struct xn_engine_ref){c->n_maps++, 0};
}

/** Where value `v` lies, or will. */
static struct xn_engine_ref ref_of(struct xn_compiler *c, uint32_t v)
{
    const uint32_t home = c->values[v].home, owner = home == XN_ENGINE_NONE ? v : home;
    struct xn_engine_value *value = &c->values[owner];
    const struct xn_value *shape = xn_compiler_value(c, owner);
    const uint32_t groups = xn_compiler_groups(c, owner);

    if (value->at.map == XN_ENGINE_NONE) {
        const bool stream = shape->dtype == XN_DTYPE_I16 || shape->dtype == XN_DTYPE_I32;
        const uint32_t pitch = stream                          ? groups
                               : shape->dtype == XN_DTYPE_BITS ? (uint32_t)xn_isa_ceil(groups, 4)
                                                               : 2 * groups;
        value->at = add_map(c, owner ? owner - 1 : 0, stream, shape->h, shape->w, pitch);
    }
    if (home != XN_ENGINE_NONE)
        c->values[v].at = (struct xn_engine_ref){value->at.map, c->values[v].home_group};
    return c->values[v].at;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

static void touch(struct xn_compiler *c, uint32_t map, uint32_t step)
{
    if (map == XN_ENGINE_NONE)
        return;
    if (c->maps[map].first == XN_ENGINE_NONE)
        c->maps[map].first = step;
    c->maps[map].last = step;
}

static int append(struct xn_compiler *c, const struct xn_engine_step *step)
{
    const uint32_t index = c->n_steps;

    if (index == XN_ISA_DESCRIPTORS_MAX - 1)
        return xn_compiler_refuse(c, step->first_layer, -ENOTSUP, "the program has more than %u passes", index);
    touch(c, step->source.map, index);
    touch(c, step->residual.map, index);
    touch(c, step->stream.map, index);
    touch(c, step->dest.map, index);
    c->steps[c->n_steps++] = *step;
    return 0;
}

/** The input tensor to AM at `to`; packed (`tap` bytes a pixel) as step `for_step` wants it, or as it is (NULL). */
static int append_input(struct xn_compiler *c, uint32_t layer, struct xn_engine_ref to,
                        const struct xn_engine_step *for_step)
{
    const struct xn_value *in = xn_compiler_value(c, 0);
    struct xn_engine_step step = xn_compiler_new_step(XN_ISA_INPUT, layer);
    struct xn_isa_descriptor *d = &step.d;

    d->height = in->h;
    d->input_row_bytes = in->w * in->c;
    d->out_w = for_step ? for_step->d.out_w : in->w;
    d->channels = for_step ? for_step->tap_channels : in->c;
    d->stride_w = (for_step ? c->network->layers[layer].stride_w : 1) * in->c;
    d->pad_left = for_step ? c->network->layers[layer].pad_left * in->c : 0;
    if (d->input_row_bytes > XN_ISA_LINE_BYTES)
        return xn_compiler_refuse(c, layer, -ENOTSUP, "a row of the input has %u bytes, the engine reads at most %u",
                                  d->input_row_bytes, XN_ISA_LINE_BYTES);
    if (c->maps[to.map].pitch > XN_ISA_SIDE_MAX)
        return xn_compiler_refuse(c, layer, -ENOTSUP, "a pixel of the input has %u bytes, the engine reads at most %u",
                                  d->channels, XN_ISA_SIDE_MAX * XN_ISA_WORD_BYTES);
    step.dest = to;
    return append(c, &step);
}

/** Would a row of the window, packed into one pixel, take fewer words than its taps? */
static bool is_better_packed(const struct xn_compiler *c, const struct xn_engine_step *step)
{
    const struct xn_value *in = xn_compiler_value(c, 0);
    const uint64_t packed = xn_isa_ceil((uint64_t)step->d.kernel_w * in->c, XN_ISA_WORD_BYTES);

    return step->value == 0 && step->d.op == XN_ISA_INT8 && packed < (uint64_t)step->d.kernel_w * step->d.words &&
           packed <= XN_ISA_SIDE_MAX && (uint64_t)step->d.stride_w * in->c <= XN_ISA_LINE_BYTES &&
           (uint64_t)step->d.pad_left * in->c <= XN_ISA_LINE_BYTES;
}

static int pack_input(struct xn_compiler *c, struct xn_engine_step *step)
{
    struct xn_isa_descriptor *d = &step->d;

    step->packed = true;
    step->tap_channels = d->kernel_w * xn_compiler_value(c, 0)->c;
    d->words = (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_WORD_BYTES);
    step->source = add_map(c, step->head, false, d->height, d->out_w, d->words);
    d->width = d->out_w;
    d->kernel_w = d->stride_w = 1;
    d->pad_left = 0;
    return append_input(c, step->head, step->source, step);
}

/** A map of bits with its border of -1 round it, for units that have no such padding: a window's first tap moves it. */
static int add_border(struct xn_compiler *c, struct xn_engine_step *step)
{
    const struct xn_layer *l = &c->network->layers[step->head];
    struct xn_engine_step copy = xn_compiler_new_step(XN_ISA_VECTOR, step->head);
    struct xn_isa_descriptor *d = &copy.d;

    *d = step->d;
    d->op = XN_ISA_VECTOR;
    d->flags = XN_ISA_SIGN;
    d->shift = 0;
    d->words = d->stride_h = d->stride_w = 1;
    d->kernel_h = l->pad_top + 1;
    d->kernel_w = l->pad_left + 1;
    d->out_h = d->height + l->pad_top + l->pad_bottom;
    d->out_w = d->width + l->pad_left + l->pad_right;
    copy.border = true;
    copy.in = copy.out = step->in;
    d->channels = xn_compiler_width(c, step->value);
    if (d->out_h > XN_ISA_SIDE_MAX || d->out_w > XN_ISA_SIDE_MAX)
        return xn_compiler_refuse(c, step->head, -ENOTSUP, "its padded map is %ux%u, the engine has at most %u a side",
                                  d->out_h, d->out_w, XN_ISA_SIDE_MAX);
    copy.source = step->source;
    step->source = copy.dest = add_map(c, step->head, false, d->out_h, d->out_w, c->maps[copy.source.map].pitch);
    step->d.height = d->out_h;
    step->d.width = d->out_w;
    step->d.pad_top = step->d.pad_left = 0;
    return append(c, &copy);
}

static bool wants_border(const struct xn_compiler *c, const struct xn_engine_step *step)
{
    const struct xn_layer *l = &c->network->layers[step->head];

    return step->d.op != XN_ISA_BINARY && l->pad == XN_PAD_MINUS_ONE &&
           (l->pad_top || l->pad_left || l->pad_bottom || l->pad_right);
}

static int find_source(struct xn_compiler *c, struct xn_engine_step *step)
{
    const bool is_new = step->value == 0 && c->values[0].at.map == XN_ENGINE_NONE;

    if (is_better_packed(c, step))
        return pack_input(c, step);
    step->source = ref_of(c, step->value);
    if (is_new) {
        const int r = append_input(c, step->first_layer, step->source, NULL);
        if (r < 0)
            return r;
        c->values[0].made_by = c->n_steps - 1;
    }
    return step->head != XN_ENGINE_NONE && wants_border(c, step) ? add_border(c, step) : 0;
}

/** `step`, or its slices, make value `v` from lane `first` on. */
static void make(struct xn_compiler *c, uint32_t v, const struct xn_engine_step *step, uint32_t first,
                 struct xn_engine_ref *to)
{
    const uint32_t home = c->values[v].home;

    *to = ref_of(c, v);
    to->group += first / XN_ISA_LANES;
    c->values[v].made_by = c->n_steps + step->slices - 1;
    if (home != XN_ENGINE_NONE)
        c->values[home].made_by = c->values[v].made_by;
}

/** Passes that a convolution of groups is split into: runs of groups that begin and end at whole words and whole groups of lanes. */
static uint32_t count_slices(const struct xn_compiler *c, const struct xn_engine_step *step)
{
    const struct xn_layer *l = step->head == XN_ENGINE_NONE ? NULL : &c->network->layers[step->head];

    if (!l || l->op != XN_OP_CONV || l->groups == 1 || step->d.op == XN_ISA_VECTOR || step->in || step->out ||
        step->d.flags & XN_ISA_LOGITS)
        return 1;
    const uint32_t in = xn_compiler_value(c, step->value)->c / l->groups,
                   out = xn_compiler_value(c, step->head + 1)->c / l->groups;
    const uint32_t unit = step->d.source == XN_ISA_BITS ? XN_ISA_WORD_BITS : XN_ISA_WORD_BYTES;
    for (uint32_t run = 1; run < l->groups; run++)
        if (l->groups % run == 0 && run * in % unit == 0 && run * out % XN_ISA_LANES == 0)
            return l->groups / run;
    return 1;
}

/** The unit and the words of one slice. One group of bits can be BINARY. */
static void narrow(const struct xn_compiler *c, struct xn_engine_step *step)
{
    const struct xn_layer *l = &c->network->layers[step->head];

    step->tap_channels /= step->slices;
    step->d.words /= step->slices;
    if (l->binary && step->slices == l->groups) {
        step->d.op = XN_ISA_BINARY;
        step->d.words = step->tap_channels / XN_ISA_WORD_BITS;
        step->d.channels_in = step->tap_channels;
        step->d.flags |= l->pad == XN_PAD_MINUS_ONE ? XN_ISA_PAD_MINUS_ONE : 0;
    }
}

static int append_slices(struct xn_compiler *c, struct xn_engine_step *step)
{
    const uint32_t groups = step->d.channels / step->slices / XN_ISA_LANES;

    step->d.channels /= step->slices;
    c->maps[step->source.map].slack = c->maps[step->source.map].pitch;
    for (uint32_t i = 0; i < step->slices; i++) {
        const int r = append(c, step);
        if (r < 0)
            return r;
        step->first_in += step->tap_channels;
        step->first_out += step->d.channels;
        step->residual.group += groups;
        step->stream.group += groups;
        step->dest.group += groups;
    }
    return 0;
}

static int check_layouts(const struct xn_compiler *c, const struct xn_engine_step *step)
{
    const bool keeps = step->d.op == XN_ISA_VECTOR || step->d.op == XN_ISA_LARGEST;

    if ((!keeps || xn_engine_same_layout(step->in, step->out)) &&
        (step->residual_value == XN_ENGINE_NONE ||
         xn_engine_same_layout(c->values[step->residual_value].layout, step->out)) &&
        (!(step->d.flags & XN_ISA_LOGITS) || !step->out))
        return 0;
    return xn_compiler_refuse(c, step->last_layer, -ENOTSUP,
                              "channels of its inputs lie in different lanes (a concat of other than 16 channels)");
}

static void count_macs(struct xn_compiler *c, struct xn_engine_step *step)
{
    if (step->head == XN_ENGINE_NONE || c->values[step->head + 1].ran)
        return;
    c->values[step->head + 1].ran = true;
    step->macs = c->network->layers[step->head].macs / step->slices;
}

/** A step as it is to run, with all that it reads and makes. */
int xn_compiler_emit_step(struct xn_compiler *c, struct xn_engine_step *step)
{
    const uint32_t made = step->stream_value != XN_ENGINE_NONE ? step->stream_value : step->end_value;
    int r;

    step->in = c->values[step->value].layout;
    step->out = step->part_lanes && step->head == XN_ENGINE_NONE ? step->in : c->values[made].layout;
    r = check_layouts(c, step);
    if (r < 0)
        return r;
    step->slices = count_slices(c, step);
    if (step->slices > 1)
        narrow(c, step);
    count_macs(c, step);
    r = find_source(c, step);
    if (r < 0)
        return r;
    step->d.channels = step->part_lanes ? step->part_lanes : xn_compiler_width(c, made);
    if (step->residual_value != XN_ENGINE_NONE)
        step->residual = ref_of(c, step->residual_value);
    step->residual.group += step->residual_group;
    if (step->stream_value != XN_ENGINE_NONE)
        make(c, step->stream_value, step, step->part_first, &step->stream);
    if (step->end_value != XN_ENGINE_NONE && !(step->d.flags & XN_ISA_LOGITS))
        make(c, step->end_value, step, step->end_first, &step->dest);
    return step->slices > 1 ? append_slices(c, step) : append(c, step);
}

int xn_compiler_emit(struct xn_compiler *c, struct xn_engine_chain *chain)
{
    const uint32_t first = c->n_steps;

    for (uint32_t k = 0; k < chain->n; k++) {
        const int r = xn_compiler_emit_step(c, &chain->steps[k]);
        if (r < 0)
            return r;
    }
    c->steps[first].together = c->n_steps - first;
    return 0;
}
