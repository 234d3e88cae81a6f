/* SPDX-License-Identifier: Apache-2.0
 * From layers to steps, in the order of the layers. A step begins with a window (CONV, DENSE, pools) or a copy of what is stored, and
 * takes up what follows as the post lanes have it: SCALE, a residual, saturation, RPRELU, a store, and one of THRESHOLD, SCALE to
 * bytes, LOGITS.
 *
 * A value is *open* where nothing stores it and each layer that reads it goes on with its step: sums of 32 bits always (with two
 * readers the convolution runs twice, or they fit 16 bits and are stored), the others where one layer reads them and the
 * post lanes can do that. A value that is not open closes its step: it is stored, and the first threshold, quantizer or logits that
 * read it come with it. Every input of a layer is made by a layer before it, and whatever a step makes is made after whatever it
 * reads, so a step can stand where the layer does that closes it. */
#include "accel/engine/compile.h"

#include <errno.h>

static const struct xn_value *value_of(const struct xn_compiler *c, uint32_t v)
{
    return &c->network->values[v];
}

static bool fits_int16(const struct xn_value *v)
{
    return v->min >= INT16_MIN && v->max <= INT16_MAX;
}

/** Does no element reach the ends of int16? Then clamping it did nothing. */
static bool within_int16(const struct xn_value *v)
{
    return v->min > INT16_MIN && v->max < INT16_MAX;
}

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
    const struct xn_value *shape = value_of(c, owner);
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

static struct xn_engine_step new_step(uint32_t op, uint32_t layer)
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

/** The input tensor to AM at `to`; packed (`tap` bytes a pixel) as step `for_step` wants it, or as it is (NULL). */
static int append_input(struct xn_compiler *c, uint32_t layer, struct xn_engine_ref to,
                        const struct xn_engine_step *for_step)
{
    const struct xn_value *in = value_of(c, 0);
    struct xn_engine_step step = new_step(XN_ISA_INPUT, layer);
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
    const struct xn_value *in = value_of(c, 0);
    const uint64_t packed = xn_isa_ceil((uint64_t)step->d.kernel_w * in->c, XN_ISA_WORD_BYTES);

    return step->value == 0 && step->d.op == XN_ISA_INT8 && packed < (uint64_t)step->d.kernel_w * step->d.words &&
           packed <= XN_ISA_SIDE_MAX && (uint64_t)step->d.stride_w * in->c <= XN_ISA_LINE_BYTES &&
           (uint64_t)step->d.pad_left * in->c <= XN_ISA_LINE_BYTES;
}

static int pack_input(struct xn_compiler *c, struct xn_engine_step *step)
{
    struct xn_isa_descriptor *d = &step->d;

    step->packed = true;
    step->tap_channels = d->kernel_w * value_of(c, 0)->c;
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
    struct xn_engine_step copy = new_step(XN_ISA_VECTOR, step->head);
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

/** The next `steps` steps make value `v`. */
static void make(struct xn_compiler *c, uint32_t v, uint32_t steps, struct xn_engine_ref *to)
{
    const uint32_t home = c->values[v].home;

    *to = ref_of(c, v);
    c->values[v].made_by = c->n_steps + steps - 1;
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
    const uint32_t in = value_of(c, step->value)->c / l->groups, out = value_of(c, step->head + 1)->c / l->groups;
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
    const bool keeps = step->d.op == XN_ISA_VECTOR || step->d.op == XN_ISA_OR;

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
static int emit(struct xn_compiler *c, struct xn_engine_step *step)
{
    const uint32_t made = step->stream_value != XN_ENGINE_NONE ? step->stream_value : step->end_value;
    int r;

    step->in = c->values[step->value].layout;
    step->out = c->values[made].layout;
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
    step->d.channels = xn_compiler_width(c, made);
    if (step->residual_value != XN_ENGINE_NONE)
        step->residual = ref_of(c, step->residual_value);
    if (step->stream_value != XN_ENGINE_NONE)
        make(c, step->stream_value, step->slices, &step->stream);
    if (step->end_value != XN_ENGINE_NONE && !(step->d.flags & XN_ISA_LOGITS))
        make(c, step->end_value, step->slices, &step->dest);
    return step->slices > 1 ? append_slices(c, step) : append(c, step);
}

/* ---- what a step begins with ------------------------------------------------------------------------------------------ */

static uint32_t source_type(enum xn_dtype dtype)
{
    return dtype == XN_DTYPE_BITS ? XN_ISA_BITS
           : dtype == XN_DTYPE_U8 ? XN_ISA_U8
           : dtype == XN_DTYPE_I8 ? XN_ISA_I8
                                  : XN_ISA_I16;
}

/** A copy of value `v` for `layer`. */
static struct xn_engine_step begin_copy(const struct xn_compiler *c, uint32_t v, uint32_t layer)
{
    const struct xn_value *x = value_of(c, v);
    struct xn_engine_step step = new_step(XN_ISA_VECTOR, layer);

    step.value = v;
    step.tap_channels = xn_compiler_width(c, v);
    step.d.source = source_type(x->dtype);
    step.d.height = step.d.out_h = x->h;
    step.d.width = step.d.out_w = x->w;
    step.d.words = step.d.kernel_h = step.d.kernel_w = step.d.stride_h = step.d.stride_w = 1;
    return step;
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

/** CONV and DENSE. Groups other than depthwise ones are a convolution of all channels with weights of 0, which int8 ones can be, if they cannot
 *  be split (count_slices). */
static void begin_weights(const struct xn_compiler *c, struct xn_engine_step *step)
{
    const struct xn_layer *l = &c->network->layers[step->head];
    const struct xn_value *in = value_of(c, step->value);
    struct xn_isa_descriptor *d = &step->d;

    if (xn_compiler_is_depthwise(c->network, step->head)) {
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
        if (in->dtype == XN_DTYPE_BITS) {
            d->op = XN_ISA_OR;
            d->words = (uint32_t)xn_isa_ceil(step->tap_channels, XN_ISA_WORD_BITS);
        } else {
            d->flags |= XN_ISA_MAX;
        }
        return;
    }
    if (l->multiplier != 1 || l->shift) {
        d->flags |= XN_ISA_SCALE;
        d->shift = l->shift;
        step->multiplier = l->multiplier;
    }
    if (out->dtype == XN_DTYPE_I16 && !within_int16(out))
        d->flags |= XN_ISA_SATURATE;
}

static struct xn_engine_step begin_window(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const struct xn_value *in = value_of(c, l->inputs[0]), *out = value_of(c, i + 1);
    struct xn_engine_step step = begin_copy(c, l->inputs[0], i);

    step.head = i;
    set_window(&step.d, l, in, out);
    if (l->op == XN_OP_CONV || l->op == XN_OP_DENSE)
        begin_weights(c, &step);
    else
        begin_pool(&step, l, in, out);
    return step;
}

/* ---- what it takes up ------------------------------------------------------------------------------------------------- */

/** Can layer `i` go on with `step`, whose lanes hold value `v`? */
static bool can_extend(const struct xn_compiler *c, const struct xn_engine_step *step, uint32_t v, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const uint32_t f = step->d.flags, other = l->inputs[l->inputs[0] == v];

    switch (l->op) {
    case XN_OP_THRESHOLD:
    case XN_OP_LOGITS:
        return true;
    case XN_OP_RPRELU:
        return !(f & XN_ISA_RPRELU);
    case XN_OP_SCALE:
        if (value_of(c, i + 1)->dtype != XN_DTYPE_I16)
            return true;
        return !(f & (XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_RPRELU)) && l->inputs[0] == v &&
               (l->n_inputs == 1 || l->inputs[1] != v);
    case XN_OP_ADD: /* the residual comes before the clamp: one that did something cannot be left out */
        return l->inputs[0] != l->inputs[1] && !c->values[other].open && !(f & (XN_ISA_RESIDUAL | XN_ISA_RPRELU)) &&
               (!(f & XN_ISA_SATURATE) || within_int16(value_of(c, v)));
    default:
        return false;
    }
}

static void extend(const struct xn_compiler *c, struct xn_engine_step *step, uint32_t v, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const enum xn_dtype out = value_of(c, i + 1)->dtype;

    step->last_layer = i;
    switch (l->op) {
    case XN_OP_ADD:
        step->d.flags |= XN_ISA_RESIDUAL | XN_ISA_SATURATE;
        step->residual_value = l->inputs[l->inputs[0] == v];
        return;
    case XN_OP_RPRELU:
        step->d.flags |= XN_ISA_RPRELU;
        step->rprelu = i;
        return;
    case XN_OP_SCALE:
        if (out == XN_DTYPE_I16) {
            step->d.flags |= XN_ISA_SCALE | XN_ISA_SATURATE | (l->n_inputs > 1 ? XN_ISA_RESIDUAL : 0);
            step->d.shift |= l->shift;
            step->scale = i;
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
    step->end_value = i + 1;
}

static bool ends(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    return l->op == XN_OP_THRESHOLD || l->op == XN_OP_LOGITS ||
           (l->op == XN_OP_SCALE && value_of(c, i + 1)->dtype != XN_DTYPE_I16);
}

/** May value `v` stay in the lanes of `step`? */
static bool stays_open(const struct xn_compiler *c, const struct xn_engine_step *step, uint32_t v)
{
    const uint32_t first = c->first_reader[v], n = c->first_reader[v + 1] - first;
    const bool sums = value_of(c, v)->dtype == XN_DTYPE_I32;

    if (n > 1 && (!sums || fits_int16(value_of(c, v))))
        return false;
    for (uint32_t k = 0; k < n; k++)
        if (!can_extend(c, step, v, c->readers[first + k]))
            return false;
    return true;
}

/** `step` holds value `v`, which has to be stored. */
static int close_step(struct xn_compiler *c, struct xn_engine_step *step, uint32_t v)
{
    const struct xn_value *x = value_of(c, v);

    if (x->dtype == XN_DTYPE_U8 || x->dtype == XN_DTYPE_I8) {
        step->d.flags |= XN_ISA_QUANTIZE | (x->dtype == XN_DTYPE_U8 ? XN_ISA_UNSIGNED : 0);
        step->end_value = v;
        return emit(c, step);
    }
    if (x->dtype == XN_DTYPE_I32 && !fits_int16(x))
        return xn_compiler_refuse(
            c, v - 1, -ENOTSUP, "sums to %lld and a second multiply-shift behind them do not go through the post lanes",
            (long long)XN_MAX(x->max, -x->min));
    step->d.flags |= XN_ISA_STORE;
    step->stream_value = v;
    for (uint32_t k = c->first_reader[v]; k < c->first_reader[v + 1]; k++) {
        const uint32_t reader = c->readers[k];
        if (ends(c, reader) && step->end == XN_ENGINE_NONE) {
            extend(c, step, v, reader);
            c->done[reader] = true;
        }
    }
    return emit(c, step);
}

/* ---- layers ----------------------------------------------------------------------------------------------------------- */

/** Input `v` of CONCAT `i` to its lanes from group `group` on. */
static int copy_into(struct xn_compiler *c, uint32_t v, uint32_t i, uint32_t group)
{
    struct xn_engine_step step = begin_copy(c, v, i);
    struct xn_engine_ref to;
    int r;

    step.in = step.out = c->values[v].layout;
    r = find_source(c, &step);
    if (r < 0)
        return r;
    to = ref_of(c, i + 1);
    to.group += group;
    step.d.channels = step.tap_channels;
    if (step.d.source == XN_ISA_I16) {
        step.d.flags = XN_ISA_STORE;
        step.stream = to;
    } else {
        step.dest = to;
        if (step.d.source != XN_ISA_BITS) {
            step.d.flags = XN_ISA_QUANTIZE | (step.d.source == XN_ISA_U8 ? XN_ISA_UNSIGNED : 0);
        } else if (group % 4 == 0) {
            step.d.op = XN_ISA_OR;
            step.d.words = (uint32_t)xn_isa_ceil(step.tap_channels, XN_ISA_WORD_BITS);
        } else {
            step.d.flags = XN_ISA_SIGN;
        }
    }
    c->values[i + 1].made_by = c->n_steps;
    return append(c, &step);
}

static int plan_concat(struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    uint32_t group = 0;

    for (uint32_t k = 0; k < l->n_inputs; k++) {
        const struct xn_engine_value *in = &c->values[l->inputs[k]];
        if (in->home != i + 1 || in->home_group != group) {
            const int r = copy_into(c, l->inputs[k], i, group);
            if (r < 0)
                return r;
        }
        group += xn_compiler_groups(c, l->inputs[k]);
    }
    return 0;
}

static struct xn_engine_step begin(const struct xn_compiler *c, uint32_t i)
{
    const struct xn_layer *l = &c->network->layers[i];
    const uint32_t v = l->op == XN_OP_ADD && c->values[l->inputs[1]].open ? l->inputs[1] : l->inputs[0];
    struct xn_engine_step step;

    if (l->op == XN_OP_CONV || l->op == XN_OP_DENSE || l->op == XN_OP_MAXPOOL || l->op == XN_OP_AVGPOOL ||
        l->op == XN_OP_GLOBAL_AVGPOOL)
        return begin_window(c, i);
    step = c->values[v].open ? c->values[v].chain : begin_copy(c, v, i);
    extend(c, &step, v, i);
    return step;
}

static int plan_layer(struct xn_compiler *c, uint32_t i)
{
    struct xn_engine_step step;

    if (c->network->layers[i].op == XN_OP_CONCAT)
        return plan_concat(c, i);
    step = begin(c, i);
    if (step.d.op == XN_ISA_OR)
        step.end_value = i + 1;
    if (step.end_value != XN_ENGINE_NONE)
        return emit(c, &step);
    if (!stays_open(c, &step, i + 1))
        return close_step(c, &step, i + 1);
    c->values[i + 1].open = true;
    c->values[i + 1].chain = step;
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
