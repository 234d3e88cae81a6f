/* SPDX-License-Identifier: Apache-2.0
 * The rules of every layer but those on magnitudes (bounds.c): types, shapes, tensors, windows, and that fields
 * which an operation does not use are 0. A table says for each operation what it takes; the few rules a table
 * cannot say have a function of their own. After this a layer's record has no field that was not looked at. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/fault.h"
#include "model/internal.h"

#define BIT(dtype) (1u << (dtype))
#define BITS       BIT(XN_DTYPE_BITS)
#define BYTES      (BIT(XN_DTYPE_U8) | BIT(XN_DTYPE_I8))
#define I16        BIT(XN_DTYPE_I16)
#define I32        BIT(XN_DTYPE_I32)

/* What an operation takes and makes; sets of types as bits. */
static const struct op_rule {
    unsigned in, second, out; /* types of inputs[0], of inputs[1] (0: none), of the output (0: that of inputs[0]) */
    uint8_t inputs_min, inputs_max;
    uint8_t tensors;                       /* how many roles, all needed */
    uint8_t stride_max;                    /* 0: no window */
    bool shift, multiplier, groups, scale; /* which fields it uses */
} op_rules[] = {
    [XN_OP_CONV] = {.in = BITS | BYTES,
                    .out = I32,
                    .inputs_min = 1,
                    .inputs_max = 1,
                    .tensors = 1,
                    .stride_max = 2,
                    .groups = true},
    [XN_OP_DENSE] = {.in = BITS | BYTES, .out = I32, .inputs_min = 1, .inputs_max = 1, .tensors = 1},
    [XN_OP_THRESHOLD] = {.in = BYTES | I16 | I32, .out = BITS, .inputs_min = 1, .inputs_max = 1, .tensors = 1},
    [XN_OP_SCALE] = {.in = BYTES | I16 | I32,
                     .second = I16,
                     .out = BYTES | I16,
                     .inputs_min = 1,
                     .inputs_max = 2,
                     .tensors = 2,
                     .shift = true},
    [XN_OP_ADD] = {.in = I16, .second = I16, .out = I16, .inputs_min = 2, .inputs_max = 2},
    [XN_OP_RPRELU] = {.in = I16, .out = I16, .inputs_min = 1, .inputs_max = 1, .tensors = 3},
    [XN_OP_MAXPOOL] = {.in = BITS | BYTES | I16, .inputs_min = 1, .inputs_max = 1, .stride_max = 7},
    [XN_OP_AVGPOOL] = {.in = BITS | BYTES | I16,
                       .out = I16,
                       .inputs_min = 1,
                       .inputs_max = 1,
                       .stride_max = 7,
                       .shift = true,
                       .multiplier = true},
    [XN_OP_GLOBAL_AVGPOOL] = {.in = BITS | BYTES | I16,
                              .out = I16 | I32,
                              .inputs_min = 1,
                              .inputs_max = 1,
                              .shift = true,
                              .multiplier = true},
    [XN_OP_CONCAT] = {.in = BITS | BYTES | I16, .inputs_min = 2, .inputs_max = XN_LAYER_INPUTS_MAX},
    [XN_OP_LOGITS] = {.in = I16 | I32, .out = I32, .inputs_min = 1, .inputs_max = 1, .tensors = 2, .scale = true},
};

int xn_layer_error(const struct xn_layer_check *check, int code, const char *format, ...)
{
    char text[XN_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return xn_error_set(check->error, code, "layer %u \"%s\" (%s): %s", check->index, check->layer->name,
                        xn_op_name(check->layer->op), text);
}

static const struct op_rule *rule_of(const struct xn_layer_check *check)
{
    return &op_rules[check->layer->op];
}

static int check_field(const struct xn_layer_check *check, const char *field, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        return xn_layer_error(check, -EINVAL, "%s is %" PRId64 ", must be %" PRId64 "..%" PRId64, field, value, low,
                              high);
    return 0;
}

static int check_unused(const struct xn_layer_check *check, const char *field, bool is_zero)
{
    if (!is_zero)
        return xn_layer_error(check, -EPROTONOSUPPORT, "%s is in use, must be 0 for this operation in version 1.0",
                              field);
    return 0;
}

/* NUL-padded, ends within the field. Its text is made safe where it is printed. */
static int check_name(const struct xn_layer_check *check)
{
    const char *name = check->record->name;
    const size_t length = strnlen(name, sizeof(check->record->name));
    for (size_t i = length; i < sizeof(check->record->name); i++)
        if (name[i])
            return xn_layer_error(check, -EINVAL, "name has bytes behind its end, must be padded with NUL");
    if (length == sizeof(check->record->name))
        return xn_layer_error(check, -EINVAL, "name has no end, must have 31 bytes at most");
    if (!xn_text_is_safe(name))
        return xn_layer_error(check, -EINVAL, "name must be UTF-8 without control characters");
    return 0;
}

static int check_op(struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    memcpy(check->layer->name, r->name, sizeof(check->layer->name) - 1);
    check->layer->op = (enum xn_op)r->op;
    if (r->op < XN_OP_CONV || r->op > XN_OP_LOGITS)
        return xn_layer_error(check, -EPROTONOSUPPORT, "op is %u, this reader knows %d..%d", r->op, XN_OP_CONV,
                              XN_OP_LOGITS);
    if (r->out_dtype < XN_DTYPE_BITS || r->out_dtype > XN_DTYPE_I64)
        return xn_layer_error(check, -EPROTONOSUPPORT, "out_dtype is %u, this reader knows %d..%d", r->out_dtype,
                              XN_DTYPE_BITS, XN_DTYPE_I64);
    if (r->pad_mode > XN_PAD_ZERO)
        return xn_layer_error(check, -EPROTONOSUPPORT, "pad_mode is %u, this reader knows %d..%d", r->pad_mode,
                              XN_PAD_NONE, XN_PAD_ZERO);
    const bool last = check->index + 1 == check->storage->header.layer_count;
    if ((r->op == XN_OP_LOGITS) != last)
        return xn_layer_error(check, -EINVAL,
                              last ? "is the last layer, which must be logits"
                                   : "is not the last layer: only that may be logits");
    return check_name(check);
}

/* Fields that this operation does not use. */
static int check_unused_fields(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct op_rule *rule = rule_of(check);
    int e = check_unused(check, "reserved0", r->reserved0 == 0);
    if (e == 0)
        e = check_unused(check, "reserved1", r->reserved1 == 0);
    if (e == 0 && rule->stride_max == 0)
        e = check_unused(check, "kernel, stride or pad",
                         (r->kernel_h | r->kernel_w | r->stride_h | r->stride_w | r->pad_top | r->pad_left |
                          r->pad_bottom | r->pad_right | r->pad_mode) == 0);
    if (e == 0 && !rule->groups)
        e = check_unused(check, "groups", r->groups == 0);
    if (e == 0 && !rule->shift)
        e = check_unused(check, "shift", r->shift == 0);
    if (e == 0 && !rule->multiplier)
        e = check_unused(check, "multiplier", r->multiplier == 0);
    if (e == 0 && !rule->scale) {
        const float zeros[2] = {0.0f, 0.0f}, used[2] = {r->scale, r->offset};
        e = check_unused(check, "scale or offset", memcmp(used, zeros, sizeof(zeros)) == 0);
    }
    return e;
}

static int check_inputs(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct op_rule *rule = rule_of(check);
    struct xn_layer *layer = check->layer;
    const int e = check_field(check, "input_count", r->input_count, rule->inputs_min, rule->inputs_max);
    if (e < 0)
        return e;
    for (uint32_t k = 0; k < XN_LAYER_INPUTS_MAX; k++) {
        layer->inputs[k] = r->inputs[k];
        if (k >= r->input_count && r->inputs[k] != XN_FORMAT_NONE)
            return xn_layer_error(check, -EINVAL, "inputs[%u] is %u, must be unused: input_count is %u", k,
                                  r->inputs[k], r->input_count);
        if (k < r->input_count && r->inputs[k] > check->index)
            return xn_layer_error(check, -EINVAL, "inputs[%u] is %u, must be a value made before: 0..%u", k,
                                  r->inputs[k], check->index);
    }
    layer->n_inputs = r->input_count;
    for (uint32_t k = 0; k < layer->n_inputs; k++) {
        const struct xn_value *x = xn_check_input(check, k);
        const unsigned allowed = k == 1 && rule->second ? rule->second : rule->in;
        if (!(allowed & BIT(x->dtype)))
            return xn_layer_error(check, -EINVAL, "inputs[%u] is value %u of type %s, which %s does not take", k,
                                  layer->inputs[k], xn_dtype_name(x->dtype), xn_op_name(layer->op));
        check->storage->values[layer->inputs[k]].last_use = check->index;
    }
    return 0;
}

/* Inputs of one type and map; of the same channels too unless they are to be concatenated. */
static int check_same_shape(const struct xn_layer_check *check)
{
    const struct xn_value *a = xn_check_input(check, 0);
    const bool concat = check->layer->op == XN_OP_CONCAT;
    for (uint32_t k = 1; k < check->layer->n_inputs; k++) {
        const struct xn_value *b = xn_check_input(check, k);
        if (concat && a->dtype != b->dtype)
            return xn_layer_error(check, -EINVAL, "inputs[%u] is %s, must be %s as inputs[0]", k,
                                  xn_dtype_name(b->dtype), xn_dtype_name(a->dtype));
        if (a->h != b->h || a->w != b->w || (!concat && a->c != b->c))
            return xn_layer_error(check, -EINVAL, "inputs[%u] is %ux%ux%u, does not go with %ux%ux%u of inputs[0]", k,
                                  b->h, b->w, b->c, a->h, a->w, a->c);
    }
    return 0;
}

static int check_tensor_ids(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct op_rule *rule = rule_of(check);
    for (uint32_t k = 0; k < XN_LAYER_TENSORS_MAX; k++) {
        if (k >= rule->tensors && r->tensors[k] != XN_FORMAT_NONE)
            return xn_layer_error(check, -EINVAL, "tensors[%u] is %u, must be unused for this operation", k,
                                  r->tensors[k]);
        if (k >= rule->tensors)
            continue;
        if (r->tensors[k] >= check->storage->network.n_tensors)
            return xn_layer_error(check, -EINVAL, "tensors[%u] is %u, must be a tensor: the file has %u", k,
                                  r->tensors[k], check->storage->network.n_tensors);
        check->layer->tensors[k] = &check->storage->tensors[r->tensors[k]];
    }
    return 0;
}

/* One axis of a window: kernel, stride and paddings in range, and how many outputs they give. */
static int check_axis(const struct xn_layer_check *check, char axis, uint32_t n, uint32_t kernel, uint32_t stride,
                      uint32_t before, uint32_t after, uint32_t *ret_n)
{
    if (kernel < 1 || kernel > 7)
        return xn_layer_error(check, -EINVAL, "kernel_%c is %u, must be 1..7", axis, kernel);
    if (stride < 1 || stride > rule_of(check)->stride_max)
        return xn_layer_error(check, -EINVAL, "stride_%c is %u, must be 1..%u", axis, stride,
                              rule_of(check)->stride_max);
    if (before >= kernel || after >= kernel)
        return xn_layer_error(check, -EINVAL, "paddings %u and %u of axis %c, must be less than kernel_%c, which is %u",
                              before, after, axis, axis, kernel);
    if (n + before + after < kernel)
        return xn_layer_error(check, -EINVAL, "kernel_%c is %u, must fit the map of %u with its padding", axis, kernel,
                              n);
    *ret_n = (n + before + after - kernel) / stride + 1;
    return 0;
}

static int check_window(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct xn_value *x = xn_check_input(check, 0);
    struct xn_layer *layer = check->layer;
    const bool padded = r->pad_top || r->pad_left || r->pad_bottom || r->pad_right;
    int e = check_axis(check, 'h', x->h, r->kernel_h, r->stride_h, r->pad_top, r->pad_bottom, &check->out->h);
    if (e == 0)
        e = check_axis(check, 'w', x->w, r->kernel_w, r->stride_w, r->pad_left, r->pad_right, &check->out->w);
    if (e < 0)
        return e;
    if (r->pad_mode == XN_PAD_NONE && padded)
        return xn_layer_error(check, -EINVAL, "pad_mode is none, all paddings must be 0");
    if (r->pad_mode == XN_PAD_MINUS_ONE && (layer->op != XN_OP_CONV || x->dtype != XN_DTYPE_BITS))
        return xn_layer_error(check, -EINVAL, "pad_mode is minus_one, must be none or zero but for a conv of bits");
    layer->pad = (enum xn_pad)r->pad_mode;
    layer->kernel_h = r->kernel_h;
    layer->kernel_w = r->kernel_w;
    layer->stride_h = r->stride_h;
    layer->stride_w = r->stride_w;
    layer->pad_top = r->pad_top;
    layer->pad_left = r->pad_left;
    layer->pad_bottom = r->pad_bottom;
    layer->pad_right = r->pad_right;
    return 0;
}

static int check_tensor(const struct xn_layer_check *check, uint32_t role, enum xn_dtype dtype, uint32_t rank,
                        uint64_t d0, uint64_t d1, uint64_t d2, uint64_t d3)
{
    const struct xn_tensor *t = check->layer->tensors[role];
    const uint64_t want[4] = {d0, d1, d2, d3};
    if (t->dtype != dtype || t->rank != rank)
        return xn_layer_error(check, -EINVAL, "tensors[%u] is %s of rank %u, must be %s of rank %u", role,
                              xn_dtype_name(t->dtype), t->rank, xn_dtype_name(dtype), rank);
    for (uint32_t d = 0; d < rank; d++)
        if (t->dims[d] != want[d])
            return xn_layer_error(check, -EINVAL, "tensors[%u] has dims[%u] %u, must be %" PRIu64, role, d, t->dims[d],
                                  want[d]);
    return 0;
}

static int check_vector(const struct xn_layer_check *check, uint32_t role, enum xn_dtype dtype, uint32_t channels)
{
    return check_tensor(check, role, dtype, 1, channels, 1, 1, 1);
}

/* Weights of CONV and DENSE: bits or int8. */
static int check_weights_type(const struct xn_layer_check *check)
{
    const enum xn_dtype dtype = check->layer->tensors[0]->dtype;
    if (dtype != XN_DTYPE_BITS && dtype != XN_DTYPE_I8)
        return xn_layer_error(check, -EINVAL, "tensors[0] is %s, weights must be bits or int8", xn_dtype_name(dtype));
    return 0;
}

static int check_conv(const struct xn_layer_check *check)
{
    const struct xn_value *x = xn_check_input(check, 0);
    const uint32_t groups = check->record->groups, oc = check->out->c;
    struct xn_layer *layer = check->layer;
    int e = check_window(check);
    if (e == 0)
        e = check_field(check, "groups", groups, 1, x->c);
    if (e == 0 && (x->c % groups || oc % groups))
        e = xn_layer_error(check, -EINVAL, "groups is %u, must divide the %u channels in and the %u out", groups, x->c,
                           oc);
    if (e == 0)
        e = check_weights_type(check);
    if (e < 0)
        return e;
    layer->groups = groups;
    const uint64_t taps = (uint64_t)layer->kernel_h * layer->kernel_w, channels = x->c / groups;
    layer->macs = (uint64_t)check->out->h * check->out->w * oc * taps * channels;
    if (layer->tensors[0]->dtype == XN_DTYPE_BITS)
        return check_tensor(check, 0, XN_DTYPE_BITS, 2, oc, taps * channels, 1, 1);
    return check_tensor(check, 0, XN_DTYPE_I8, 4, oc, layer->kernel_h, layer->kernel_w, channels);
}

static int check_dense(const struct xn_layer_check *check)
{
    const struct xn_value *x = xn_check_input(check, 0);
    const uint64_t elements = (uint64_t)x->h * x->w * x->c;
    const int e = check_weights_type(check);
    if (e < 0)
        return e;
    check->out->h = check->out->w = 1;
    check->layer->macs = elements * check->out->c;
    return check_tensor(check, 0, check->layer->tensors[0]->dtype, 2, check->out->c, elements, 1, 1);
}

static int check_scale(const struct xn_layer_check *check)
{
    if (check->layer->n_inputs == 2 && check->out->dtype != XN_DTYPE_I16)
        return xn_layer_error(check, -EINVAL, "out_dtype is %s, must be int16 with a second input",
                              xn_dtype_name(check->out->dtype));
    int e = check_same_shape(check);
    if (e == 0)
        e = check_vector(check, 0, XN_DTYPE_I16, check->out->c);
    if (e == 0)
        e = check_vector(check, 1, XN_DTYPE_I64, check->out->c);
    return e;
}

static int check_rprelu(const struct xn_layer_check *check)
{
    int e = check_vector(check, 0, XN_DTYPE_I16, check->out->c);
    if (e == 0)
        e = check_vector(check, 1, XN_DTYPE_U8, check->out->c);
    if (e == 0)
        e = check_vector(check, 2, XN_DTYPE_I16, check->out->c);
    return e;
}

static int check_concat(const struct xn_layer_check *check)
{
    check->out->c = 0;
    for (uint32_t k = 0; k < check->layer->n_inputs; k++)
        check->out->c += xn_check_input(check, k)->c;
    return check_same_shape(check);
}

static int check_logits(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct xn_value *x = xn_check_input(check, 0);
    if (x->h != 1 || x->w != 1)
        return xn_layer_error(check, -EINVAL, "inputs[0] is %ux%ux%u, must be 1x1", x->h, x->w, x->c);
    if (!isfinite(r->scale) || !isfinite(r->offset) || r->scale <= 0.0f)
        return xn_layer_error(check, -EINVAL, "scale is %g and offset %g, must be finite, scale more than 0",
                              (double)r->scale, (double)r->offset);
    check->layer->scale = r->scale;
    check->layer->offset = r->offset;
    const int e = check_vector(check, 0, XN_DTYPE_I32, x->c);
    return e < 0 ? e : check_vector(check, 1, XN_DTYPE_I32, x->c);
}

/* What is special to each operation: its shape, into check->out, which has the input's shape before (CONV and
 * DENSE: out_c of the record), and its tensors. */
static int check_by_op(const struct xn_layer_check *check)
{
    switch (check->layer->op) {
    case XN_OP_CONV:
        return check_conv(check);
    case XN_OP_DENSE:
        return check_dense(check);
    case XN_OP_THRESHOLD:
        return check_vector(check, 0, XN_DTYPE_I32, check->out->c);
    case XN_OP_SCALE:
        return check_scale(check);
    case XN_OP_ADD:
        return check_same_shape(check);
    case XN_OP_RPRELU:
        return check_rprelu(check);
    case XN_OP_MAXPOOL:
    case XN_OP_AVGPOOL:
        return check_window(check);
    case XN_OP_GLOBAL_AVGPOOL:
        check->out->h = check->out->w = 1;
        return 0;
    case XN_OP_CONCAT:
        return check_concat(check);
    case XN_OP_LOGITS:
        return check_logits(check);
    }
    return xn_layer_error(check, -EPROTONOSUPPORT, "unknown operation");
}

static int check_out_dtype(const struct xn_layer_check *check)
{
    const enum xn_dtype dtype = (enum xn_dtype)check->record->out_dtype;
    const unsigned allowed = rule_of(check)->out ? rule_of(check)->out : BIT(xn_check_input(check, 0)->dtype);
    if (!(allowed & BIT(dtype)))
        return xn_layer_error(check, -EINVAL, "out_dtype is %s, which %s does not make%s", xn_dtype_name(dtype),
                              xn_op_name(check->layer->op), rule_of(check)->out ? "" : " from its input");
    check->out->dtype = dtype;
    return 0;
}

static int check_shift_and_multiplier(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    int e = rule_of(check)->shift ? check_field(check, "shift", r->shift, 0, 30) : 0;
    if (e == 0 && rule_of(check)->multiplier)
        e = check_field(check, "multiplier", r->multiplier, 1, 65536);
    check->layer->shift = r->shift;
    check->layer->multiplier = r->multiplier;
    return e;
}

/* Limits of a value, and that the record says what was computed. */
static int check_out_shape(const struct xn_layer_check *check)
{
    const struct xn_format_layer *r = check->record;
    const struct xn_value *out = check->out;
    if (r->out_h != out->h || r->out_w != out->w || r->out_c != out->c)
        return xn_layer_error(check, -EINVAL, "out is %ux%ux%u, must be %ux%ux%u", r->out_h, r->out_w, r->out_c, out->h,
                              out->w, out->c);
    int e = check_field(check, "out_h", out->h, 1, XN_SIDE_MAX);
    if (e == 0)
        e = check_field(check, "out_w", out->w, 1, XN_SIDE_MAX);
    if (e == 0)
        e = check_field(check, "out_c", out->c, 1, XN_CHANNELS_MAX);
    if (e == 0 && (uint64_t)out->h * out->w * out->c > XN_VALUE_ELEMENTS_MAX)
        e = xn_layer_error(check, -EINVAL, "out is %ux%ux%u, must have %u elements at most", out->h, out->w, out->c,
                           XN_VALUE_ELEMENTS_MAX);
    return e;
}

static int count_macs(const struct xn_layer_check *check)
{
    struct xn_network *network = &check->storage->network;
    struct xn_layer *layer = check->layer;
    layer->binary =
        layer->macs && xn_check_input(check, 0)->dtype == XN_DTYPE_BITS && layer->tensors[0]->dtype == XN_DTYPE_BITS;
    if (layer->macs > XN_MACS_MAX - network->binary_macs - network->int8_macs)
        return xn_layer_error(check, -EINVAL,
                              "has %" PRIu64 " multiply-accumulates, the network must have %llu at most", layer->macs,
                              XN_MACS_MAX);
    *(layer->binary ? &network->binary_macs : &network->int8_macs) += layer->macs;
    return 0;
}

static int validate_layer(struct xn_layer_check *check)
{
    int e = check_op(check);
    if (e == 0)
        e = check_unused_fields(check);
    if (e == 0)
        e = check_inputs(check);
    if (e == 0)
        e = check_tensor_ids(check);
    if (e == 0)
        e = check_out_dtype(check);
    if (e == 0)
        e = check_shift_and_multiplier(check);
    if (e < 0)
        return e;
    const struct xn_value *x = xn_check_input(check, 0);
    const bool makes_channels = check->layer->op == XN_OP_CONV || check->layer->op == XN_OP_DENSE;
    check->out->h = x->h;
    check->out->w = x->w;
    check->out->c = makes_channels ? check->record->out_c : x->c;
    check->out->last_use = check->index;
    e = check_field(check, "out_c", check->record->out_c, 1, XN_CHANNELS_MAX);
    if (e == 0)
        e = check_by_op(check);
    if (e == 0)
        e = check_out_shape(check);
    if (e == 0)
        e = count_macs(check);
    return e < 0 ? e : xn_bound_layer(check);
}

static int validate_input(struct xn_network_storage *storage, struct xn_error *error)
{
    const struct xn_format_header *h = &storage->header;
    struct xn_value *input = &storage->values[0];
    if (h->input_dtype != XN_DTYPE_U8 && h->input_dtype != XN_DTYPE_I8)
        return xn_error_set(error, -EINVAL, "header: input_dtype is %u, must be %d (uint8) or %d (int8)",
                            h->input_dtype, XN_DTYPE_U8, XN_DTYPE_I8);
    if (h->input_h < 1 || h->input_h > XN_SIDE_MAX || h->input_w < 1 || h->input_w > XN_SIDE_MAX || h->input_c < 1 ||
        h->input_c > XN_CHANNELS_MAX || (uint64_t)h->input_h * h->input_w * h->input_c > XN_VALUE_ELEMENTS_MAX)
        return xn_error_set(
            error, -EINVAL, "header: input is %ux%ux%u, must be 1..%u x 1..%u x 1..%u with %u elements at most",
            h->input_h, h->input_w, h->input_c, XN_SIDE_MAX, XN_SIDE_MAX, XN_CHANNELS_MAX, XN_VALUE_ELEMENTS_MAX);
    const enum xn_dtype dtype = (enum xn_dtype)h->input_dtype;
    *input = (struct xn_value){.dtype = dtype,
                               .h = h->input_h,
                               .w = h->input_w,
                               .c = h->input_c,
                               .min = xn_dtype_min(dtype),
                               .max = xn_dtype_max(dtype)};
    storage->network.input_bytes = (size_t)h->input_h * h->input_w * h->input_c;
    return 0;
}

int xn_validate_layers(struct xn_network_storage *storage, struct xn_error *error)
{
    const uint32_t n = storage->header.layer_count;
    storage->layers = xn_calloc(n, sizeof(*storage->layers));
    storage->values = xn_calloc((size_t)n + 1, sizeof(*storage->values));
    if (!storage->layers || !storage->values)
        return xn_error_set(error, -ENOMEM, "no memory for %u layers", n);
    int e = validate_input(storage, error);
    for (uint32_t i = 0; e == 0 && i < n; i++) {
        struct xn_layer_check check = {.storage = storage,
                                       .index = i,
                                       .record = &storage->records[i],
                                       .layer = &storage->layers[i],
                                       .out = &storage->values[i + 1],
                                       .error = error};
        e = validate_layer(&check);
    }
    if (e < 0)
        return e;
    storage->network.layers = storage->layers;
    storage->network.values = storage->values;
    storage->network.n_layers = n;
    storage->network.n_values = n + 1;
    storage->network.n_classes = storage->values[n].c;
    return 0;
}
