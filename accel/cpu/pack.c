/* SPDX-License-Identifier: Apache-2.0
 * From tensors as the file holds them to what kernels read (struct xn_cpu_tile, struct xn_cpu_stage).
 *
 * Which kernel. Bits with bits go to popcounts. All other pairs go to int16 multiply-adds: bytes and bits of the map are widened
 * when its border is put on, bits among weights become +1 and -1 here. Depthwise layers (one input channel and one output
 * channel a group) have kernels that run across channels; other groups run the plain kernels once a group, on a map that was
 * split by groups.
 *
 * Padding of bits. The border holds -1, as 0 bits. For minus-one padding that is the answer. For zero padding a tap outside must
 * count nothing: it counted popcount(w) and one of K a channel, so with `outside` the popcount of the weights on such taps,
 *
 *     s = K_inside - 2 * (popcount - outside) = (K_inside + 2 * outside) - 2 * popcount
 *
 * and the bracket is a constant of the channel and of which taps are outside: a bias row a border class, 9 classes for a 3x3
 * kernel. Kernels see no padding at all.
 */
#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"
#include "common/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** What a CONV or DENSE layer multiplies, with DENSE as one row of h*w taps. */
struct shape {
    const struct xn_tensor *weights;
    uint32_t kernel_h, kernel_w;
    uint32_t c, oc; /* a group's */
    uint32_t groups;
    uint32_t words;   /* of a tap: ceil(c / 64) */
    size_t row_words; /* of a row of the tensor, where its weights are bits */
};

static struct shape shape_of(const struct xn_network *network, uint32_t i)
{
    const struct xn_layer *layer = &network->layers[i];
    const struct xn_value *in = xn_layer_input(network, i, 0), *out = xn_layer_output(network, i);
    const bool dense = layer->op == XN_OP_DENSE;
    struct shape s = {
        .weights = layer->tensors[0],
        .kernel_h = dense ? 1 : layer->kernel_h,
        .kernel_w = dense ? in->h * in->w : layer->kernel_w,
        .groups = dense ? 1 : layer->groups,
    };
    s.c = in->c / s.groups;
    s.oc = out->c / s.groups;
    s.words = (uint32_t)xn_div_up(s.c, 64);
    s.row_words = xn_div_up((size_t)s.kernel_h * s.kernel_w * s.c, 64);
    return s;
}

/** Word `word` of tap `tap` of output channel `o` (of all groups). */
static uint64_t tap_word(const struct shape *s, uint32_t o, uint32_t tap, uint32_t word)
{
    const uint64_t *row = (const uint64_t *)s->weights->data + o * s->row_words;
    return xn_bits_get(row, (size_t)tap * s->c + 64 * word, XN_MIN(s->c - 64 * word, 64));
}

/** Element `e` ([kh][kw][c]) of output channel `o`. */
static int16_t weight_at(const struct shape *s, uint32_t o, size_t e)
{
    if (s->weights->dtype == XN_DTYPE_I8)
        return ((const int8_t *)s->weights->data)[(size_t)o * s->kernel_h * s->kernel_w * s->c + e];
    return xn_bits_get((const uint64_t *)s->weights->data + o * s->row_words, e, 1) ? 1 : -1;
}

static void pack_bits(const struct shape *s, struct xn_cpu_conv *conv, uint64_t *to)
{
    for (uint32_t g = 0; g < s->groups; g++)
        for (uint32_t block = 0; block < conv->blocks; block++)
            for (uint32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++)
                for (uint32_t word = 0; word < s->words; word++)
                    for (uint32_t lane = 0; lane < XN_CPU_OCTET; lane++, to++)
                        if (block * XN_CPU_OCTET + lane < s->oc)
                            *to = tap_word(s, g * s->oc + block * XN_CPU_OCTET + lane, tap, word);
}

static void pack_i16(const struct shape *s, struct xn_cpu_conv *conv, int16_t *to)
{
    const size_t row = (size_t)s->kernel_w * s->c;

    for (uint32_t g = 0; g < s->groups; g++)
        for (uint32_t block = 0; block < conv->blocks; block++)
            for (uint32_t ky = 0; ky < s->kernel_h; ky++)
                for (size_t pair = 0; pair < conv->run; pair++)
                    for (uint32_t lane = 0; lane < XN_CPU_OCTET; lane++, to += 2) {
                        uint32_t o = block * XN_CPU_OCTET + lane;
                        if (o >= s->oc)
                            continue;
                        to[0] = weight_at(s, g * s->oc + o, ky * row + 2 * pair);
                        if (2 * pair + 1 < row)
                            to[1] = weight_at(s, g * s->oc + o, ky * row + 2 * pair + 1);
                    }
}

static void pack_depthwise_bits(const struct shape *s, struct xn_cpu_conv *conv, uint64_t *to)
{
    for (uint32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++, to += conv->blocks)
        for (uint32_t o = 0; o < s->groups; o++)
            xn_bits_or(to, o, tap_word(s, o, tap, 0), 1);
}

static void pack_depthwise_i16(const struct shape *s, struct xn_cpu_conv *conv, int16_t *to)
{
    for (uint32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++, to += conv->blocks)
        for (uint32_t o = 0; o < s->groups; o++)
            to[o] = weight_at(s, o, tap);
}

static int pack_weights(struct xn_cpu_plan *plan, const struct shape *s, struct xn_cpu_conv *conv)
{
    const bool bits = conv->kind == XN_CPU_CONV_BITS || conv->kind == XN_CPU_CONV_DW_BITS;
    const bool depthwise = conv->kind == XN_CPU_CONV_DW_BITS || conv->kind == XN_CPU_CONV_DW_I16;
    const size_t lanes = depthwise ? 1 : bits ? XN_CPU_OCTET : 2 * XN_CPU_OCTET;
    const size_t units = (size_t)conv->rows * conv->run * conv->blocks;
    size_t bytes;

    if (!xn_mul_size(units, lanes * (bits ? sizeof(uint64_t) : sizeof(int16_t)), &bytes))
        return -ENOMEM;
    void *weights = xn_cpu_plan_memory(plan, depthwise ? 1 : s->groups, bytes);
    if (!weights)
        return -ENOMEM;
    switch (conv->kind) {
    case XN_CPU_CONV_BITS:
        pack_bits(s, conv, weights);
        break;
    case XN_CPU_CONV_I16:
        pack_i16(s, conv, weights);
        break;
    case XN_CPU_CONV_DW_BITS:
        pack_depthwise_bits(s, conv, weights);
        break;
    default:
        pack_depthwise_i16(s, conv, weights);
        break;
    }
    conv->weights = weights;
    conv->group_weight_bytes = bytes;
    return 0;
}

/* ---- border classes --------------------------------------------------------------------------------------------------- */

/** Taps from..to-1 of one axis are on the map. */
struct span {
    uint8_t from, to;
};

/** Which spans occur along an axis. */
struct axis {
    struct span spans[64]; /* a kernel of 7 has 28 spans at most; DENSE has one */
    uint32_t n;
    uint8_t *class_of; /* [outputs] */
};

static int classify(struct xn_cpu_plan *plan, uint32_t outputs, uint32_t stride, uint32_t pad, uint32_t kernel,
                    uint32_t in, struct axis *axis)
{
    axis->class_of = xn_cpu_plan_memory(plan, outputs, 1);
    if (!axis->class_of)
        return -ENOMEM;
    for (uint32_t o = 0; o < outputs; o++) {
        int64_t first = (int64_t)o * stride - pad;
        struct span span = {(uint8_t)XN_MAX(-first, 0), (uint8_t)XN_MIN((int64_t)kernel, (int64_t)in - first)};
        uint32_t k = 0;
        while (k < axis->n && (axis->spans[k].from != span.from || axis->spans[k].to != span.to))
            k++;
        if (k == axis->n)
            axis->spans[axis->n++] = span;
        axis->class_of[o] = (uint8_t)k;
    }
    return 0;
}

/** s = bias - 2 * popcount on pixels whose taps on the map are rows x columns. */
static int32_t bias_of(const struct shape *s, uint32_t o, struct span rows, struct span columns)
{
    uint32_t inside = 0, outside = 0;

    for (uint32_t ky = 0; ky < s->kernel_h; ky++)
        for (uint32_t kx = 0; kx < s->kernel_w; kx++) {
            if (ky >= rows.from && ky < rows.to && kx >= columns.from && kx < columns.to) {
                inside += s->c;
                continue;
            }
            for (uint32_t word = 0; word < s->words; word++)
                outside += (uint32_t)__builtin_popcountll(tap_word(s, o, ky * s->kernel_w + kx, word));
        }
    return (int32_t)(inside + 2 * outside);
}

static int pack_bias(struct xn_cpu_plan *plan, uint32_t i, const struct shape *s, struct xn_cpu_conv *conv)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *in = xn_layer_input(plan->network, i, 0), *out = xn_layer_output(plan->network, i);
    struct axis y = {.n = 0}, x = {.n = 0};

    if (layer->op == XN_OP_CONV && layer->pad == XN_PAD_ZERO) {
        if (classify(plan, out->h, layer->stride_h, layer->pad_top, s->kernel_h, in->h, &y) < 0 ||
            classify(plan, out->w, layer->stride_w, layer->pad_left, s->kernel_w, in->w, &x) < 0)
            return -ENOMEM;
    } else {
        y.class_of = xn_cpu_plan_memory(plan, out->h, 1);
        x.class_of = xn_cpu_plan_memory(plan, out->w, 1);
        if (!y.class_of || !x.class_of)
            return -ENOMEM;
    }
    const bool zero = y.n > 0;
    const uint32_t rows = zero ? y.n : 1, columns = zero ? x.n : 1;
    int32_t *bias = xn_cpu_plan_memory(plan, (size_t)rows * columns, conv->acc_pitch * sizeof(*bias));
    if (!bias)
        return -ENOMEM;
    for (uint32_t k = 0; k < rows * columns; k++)
        for (uint32_t o = 0; o < out->c; o++)
            bias[k * conv->acc_pitch + o] = zero ? bias_of(s, o, y.spans[k / columns], x.spans[k % columns])
                                                 : (int32_t)(s->kernel_h * s->kernel_w * s->c);
    conv->bias = bias;
    conv->row_class = y.class_of;
    conv->column_class = x.class_of;
    conv->column_classes = columns;
    return 0;
}

/* ---- geometry --------------------------------------------------------------------------------------------------------- */

static enum xn_cpu_conv_kind kind_of(const struct shape *s, enum xn_dtype dtype)
{
    const bool depthwise = s->groups > 1 && s->c == 1 && s->oc == 1;
    if (dtype == XN_DTYPE_BITS && s->weights->dtype == XN_DTYPE_BITS)
        return depthwise ? XN_CPU_CONV_DW_BITS : XN_CPU_CONV_BITS;
    return depthwise ? XN_CPU_CONV_DW_I16 : XN_CPU_CONV_I16;
}

/** Where taps lie: the map itself, or its copy with a border. */
static int lay_out(const struct xn_layer *layer, const struct xn_value *in, const struct shape *s,
                   struct xn_cpu_conv *conv)
{
    const bool dense = layer->op == XN_OP_DENSE;
    const bool depthwise = conv->kind == XN_CPU_CONV_DW_BITS || conv->kind == XN_CPU_CONV_DW_I16;
    const bool bits = conv->kind == XN_CPU_CONV_BITS || conv->kind == XN_CPU_CONV_DW_BITS;
    const uint32_t tap_c = depthwise ? in->c : s->c; /* channels that lie together */
    const size_t pixel_bytes = bits ? xn_div_up(tap_c, 64) * 8 : tap_c * sizeof(int16_t);
    const bool padded = !dense && (layer->pad_top || layer->pad_left || layer->pad_bottom || layer->pad_right);
    const uint32_t maps = depthwise ? 1 : s->groups;

    conv->bordered = !bits || padded || maps > 1;
    conv->border_h = in->h + (padded ? layer->pad_top + layer->pad_bottom : 0);
    conv->border_w = in->w + (padded ? layer->pad_left + layer->pad_right : 0);
    conv->pad_top = padded ? layer->pad_top : 0;
    conv->pad_left = padded ? layer->pad_left : 0;
    conv->fill = !bits && layer->pad == XN_PAD_MINUS_ONE ? -1 : 0;
    conv->row_bytes = conv->border_w * pixel_bytes;
    conv->step_x_bytes = dense ? 0 : layer->stride_w * pixel_bytes;
    conv->step_y_bytes = dense ? 0 : layer->stride_h * conv->row_bytes;
    if (!xn_mul_size((size_t)conv->border_h * conv->border_w, pixel_bytes, &conv->group_bytes))
        return -ENOMEM;
    /* The last pair of an odd row of taps reads one int16 more than the row has; its weight is 0. */
    if (conv->bordered && (!xn_mul_size(conv->group_bytes, maps, &conv->border_bytes) ||
                           !xn_add_size(conv->border_bytes, 8, &conv->border_bytes)))
        return -ENOMEM;
    conv->groups = maps;
    conv->rows = s->kernel_h;
    conv->run = (uint32_t)(depthwise ? s->kernel_w
                           : bits    ? (size_t)s->kernel_w * s->words
                                     : xn_div_up((size_t)s->kernel_w * s->c, 2));
    conv->blocks = (uint32_t)(!depthwise ? xn_div_up(s->oc, XN_CPU_OCTET) : bits ? xn_div_up(in->c, 64) : in->c);
    return 0;
}

int xn_cpu_pack_conv(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_conv *conv)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *in = xn_layer_input(plan->network, i, 0), *out = xn_layer_output(plan->network, i);
    const struct shape s = shape_of(plan->network, i);

    *conv = (struct xn_cpu_conv){
        .kind = kind_of(&s, in->dtype),
        .in = {.value = layer->inputs[0]},
        .dtype = in->dtype,
        .in_h = in->h,
        .in_w = in->w,
        .in_c = in->c,
        .out_w = out->w,
        .pixels = out->h * out->w,
        .out_group_c = s.oc,
        /* Whole chunks for the epilogue, and room for the idle lanes of the last group's last octet. */
        .acc_pitch = xn_align_up((size_t)out->c + XN_CPU_OCTET, XN_CPU_CHUNK),
    };
    int r = lay_out(layer, in, &s, conv);
    if (r == 0)
        r = pack_weights(plan, &s, conv);
    if (r == 0 && (conv->kind == XN_CPU_CONV_BITS || conv->kind == XN_CPU_CONV_DW_BITS))
        r = pack_bias(plan, i, &s, conv);
    return r;
}

/* ---- element-wise layers ---------------------------------------------------------------------------------------------- */

/** A vector of a layer as int32, padded with zeros to whole chunks. */
static const int32_t *widen_vector(struct xn_cpu_plan *plan, const struct xn_tensor *tensor, uint32_t c)
{
    int32_t *v = xn_cpu_plan_memory(plan, xn_align_up(c, XN_CPU_CHUNK), sizeof(*v));
    for (uint32_t i = 0; v && i < c; i++)
        switch (tensor->dtype) {
        case XN_DTYPE_U8:
            v[i] = ((const uint8_t *)tensor->data)[i];
            break;
        case XN_DTYPE_I16:
            v[i] = ((const int16_t *)tensor->data)[i];
            break;
        default:
            v[i] = ((const int32_t *)tensor->data)[i];
            break;
        }
    return v;
}

/** Can every intermediate of channel `i` be an int32, for x in [min, max] and any int16 r? */
static bool scale_fits_32(int64_t m, int64_t b, const struct xn_value *x)
{
    const int64_t limit = INT32_MAX - 32768;
    const int64_t low = XN_MIN(m * x->min, m * x->max), high = XN_MAX(m * x->min, m * x->max);
    return low >= -limit && high <= limit && b >= -limit && b <= limit && low + b >= -limit && high + b <= limit;
}

static int pack_scale(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_stage *stage)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *x = xn_layer_input(plan->network, i, 0);
    const int64_t half = layer->shift ? INT64_C(1) << (layer->shift - 1) : 0;
    const int64_t *b = layer->tensors[1]->data;
    int32_t *b32 = xn_cpu_plan_memory(plan, xn_align_up(x->c, XN_CPU_CHUNK), sizeof(*b32));
    int64_t *b64 = xn_cpu_plan_memory(plan, xn_align_up(x->c, XN_CPU_CHUNK), sizeof(*b64));

    stage->m = widen_vector(plan, layer->tensors[0], x->c);
    if (!stage->m || !b32 || !b64)
        return -ENOMEM;
    stage->op = XN_CPU_STAGE_SCALE;
    for (uint32_t c = 0; c < x->c; c++) {
        b64[c] = b[c] + half;
        b32[c] = (int32_t)b64[c]; /* used only where it fits */
        if (!scale_fits_32(stage->m[c], b64[c], x))
            stage->op = XN_CPU_STAGE_SCALE_64;
    }
    stage->b32 = b32;
    stage->b64 = b64;
    stage->shift = layer->shift;
    stage->residual = layer->n_inputs == 2;
    return 0;
}

int xn_cpu_pack_stage(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_stage *stage)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *out = xn_layer_output(plan->network, i);

    *stage = (struct xn_cpu_stage){.min = INT16_MIN, .max = INT16_MAX};
    switch (layer->op) {
    case XN_OP_THRESHOLD:
        stage->op = XN_CPU_STAGE_BITS;
        stage->m = widen_vector(plan, layer->tensors[0], out->c);
        return stage->m ? 0 : -ENOMEM;
    case XN_OP_SCALE:
        if (out->dtype != XN_DTYPE_I16) {
            stage->min = out->dtype == XN_DTYPE_U8 ? 0 : INT8_MIN;
            stage->max = out->dtype == XN_DTYPE_U8 ? UINT8_MAX : INT8_MAX;
        }
        return pack_scale(plan, i, stage);
    case XN_OP_RPRELU:
        stage->op = XN_CPU_STAGE_RPRELU;
        stage->m = widen_vector(plan, layer->tensors[0], out->c);
        stage->k = widen_vector(plan, layer->tensors[1], out->c);
        stage->b32 = widen_vector(plan, layer->tensors[2], out->c);
        return stage->m && stage->k && stage->b32 ? 0 : -ENOMEM;
    default:
        stage->op = XN_CPU_STAGE_ADD;
        return 0;
    }
}
