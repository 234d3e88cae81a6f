/* SPDX-License-Identifier: Apache-2.0
 * From tensors as the file holds them to what kernels read (struct xn_cpu_tile, struct xn_cpu_stage).
 *
 * Which kernel. Bits with bits go to popcounts. All other pairs go to BYTES where the level has it, else to int16 multiply-adds: maps are
 * copied with their border, as uint8 (int8 and bits with 128 added) or widened to int16, and bits among weights become +1 and -1 here.
 * Depthwise layers (one input channel and one output channel a group) have kernels that run across channels; other groups run the plain
 * kernels once a group, on a map that was split by groups.
 *
 * Padding of bits. The halo holds -1, as 0 bits. For minus-one padding that is the answer. For zero padding a tap outside must
 * count nothing: it counted popcount(w) and one of K a channel, so with `outside` the popcount of the weights on such taps,
 *
 *     s = K_inside - 2 * (X - outside) = (K_inside + 2 * outside) - 2 * X
 *
 * and the bracket is a constant of the channel and of which taps are outside: a bias row a border class, 9 classes for a 3x3
 * kernel. Kernels see no padding at all.
 *
 * Pairs (struct xn_cpu_bits_kernel). A level with pairs gives count = (X + V - U % 2) / 2, so that
 *
 *     s = bias - 2 * X = (bias + 2 * V - 2 * (U % 2)) - 4 * count
 *
 * and there are two bias rows a class, by the parity of U.
 */
#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"
#include "common/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** What a CONV or DENSE layer multiplies, with DENSE as one window of the size of the map. */
struct shape {
    const struct xn_tensor *weights;
    uint32_t kernel_h, kernel_w;
    uint32_t c, oc; /* a group's */
    uint32_t groups;
    uint32_t words; /* of a tap: ceil(c / 64) */
    bool depthwise;
    size_t row_words; /* of a row of the tensor, where its weights are bits */
};

static struct shape shape_of(const struct xn_network *network, uint32_t i)
{
    const struct xn_layer *layer = &network->layers[i];
    const struct xn_value *in = xn_layer_input(network, i, 0), *out = xn_layer_output(network, i);
    const bool dense = layer->op == XN_OP_DENSE;
    struct shape s = {
        .weights = layer->tensors[0],
        .kernel_h = dense ? in->h : layer->kernel_h,
        .kernel_w = dense ? in->w : layer->kernel_w,
        .groups = dense ? 1 : layer->groups,
    };
    s.c = in->c / s.groups;
    s.oc = out->c / s.groups;
    s.words = (uint32_t)xn_div_up(s.c, 64);
    s.depthwise = s.groups > 1 && s.c == 1 && s.oc == 1;
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

static const struct xn_cpu_conv_kernel *kernel_of(const struct xn_cpu_plan *plan, enum xn_cpu_conv_kind kind)
{
    return plan->kernels->conv[kind];
}

/** Unit `unit` of row `ky` of the taps of channel `o`, as struct xn_cpu_conv_kernel's pack wants it. */
static uint64_t raw_unit(const struct shape *s, enum xn_cpu_conv_kind kind, uint32_t o, uint32_t ky, uint32_t unit)
{
    if (kind == XN_CPU_CONV_BITS)
        return tap_word(s, o, ky * s->kernel_w + unit / s->words, unit % s->words);
    const uint32_t per_unit = kind == XN_CPU_CONV_BYTES ? 4 : 2, bits = 32 / per_unit;
    const size_t row = (size_t)s->kernel_w * s->c;
    uint64_t raw = 0;
    for (uint32_t i = 0; i < per_unit && (size_t)unit * per_unit + i < row; i++) {
        const int16_t w = weight_at(s, o, ky * row + (size_t)unit * per_unit + i);
        raw |= ((uint64_t)(uint16_t)w & xn_bits_mask(bits)) << (i * bits);
    }
    return raw;
}

/** Weights of all groups, each [blocks][rows][run] units. */
static int pack_blocks(struct xn_cpu_plan *plan, const struct shape *s, struct xn_cpu_conv *conv)
{
    const struct xn_cpu_conv_kernel *kernel = kernel_of(plan, conv->kind);
    const size_t row_units = (size_t)conv->rows * conv->run;
    const uint32_t blocks = (uint32_t)xn_div_up(s->oc, kernel->block);
    size_t block_bytes;

    if (!xn_mul_size(row_units, kernel->unit_bytes, &block_bytes) ||
        !xn_mul_size(block_bytes, blocks, &conv->group_weight_bytes))
        return -ENOMEM;
    uint8_t *unit = xn_cpu_plan_memory(plan, conv->groups, conv->group_weight_bytes);
    if (!unit)
        return -ENOMEM;
    conv->weights = unit;
    conv->chunk_weight_bytes = block_bytes * (XN_CPU_CHUNK / kernel->block);
    for (uint32_t g = 0; g < conv->groups; g++)
        for (uint32_t o = 0; o < s->oc; o += kernel->block)
            for (uint32_t k = 0; k < row_units; k++, unit += kernel->unit_bytes)
                for (uint32_t lane = 0; lane < kernel->block && o + lane < s->oc; lane++)
                    kernel->pack(unit, lane,
                                 raw_unit(s, conv->kind, g * s->oc + o + lane, k / conv->run, k % conv->run));
    return 0;
}

/** [chunk][tap] of words, or of XN_CPU_CHUNK int16. */
static int pack_depthwise(struct xn_cpu_plan *plan, const struct shape *s, struct xn_cpu_conv *conv)
{
    const bool bits = conv->kind == XN_CPU_CONV_DW_BITS;
    const uint32_t taps = s->kernel_h * s->kernel_w;
    conv->chunk_weight_bytes = taps * (bits ? sizeof(uint64_t) : XN_CPU_CHUNK * sizeof(int16_t));
    uint8_t *weights = xn_cpu_plan_memory(plan, xn_div_up(s->groups, XN_CPU_CHUNK), conv->chunk_weight_bytes);
    if (!weights)
        return -ENOMEM;
    conv->weights = weights;
    for (uint32_t o = 0; o < s->groups; o++) {
        void *chunk = weights + o / XN_CPU_CHUNK * conv->chunk_weight_bytes;
        for (uint32_t tap = 0; tap < taps; tap++)
            if (bits)
                xn_bits_or((uint64_t *)chunk + tap, o % XN_CPU_CHUNK, tap_word(s, o, tap, 0), 1);
            else
                ((int16_t *)chunk)[tap * XN_CPU_CHUNK + o % XN_CPU_CHUNK] = weight_at(s, o, tap);
    }
    return 0;
}

/** BYTES: what is 128 too large in every byte of a map of int8 or bits. */
static int pack_start(struct xn_cpu_plan *plan, const struct shape *s, struct xn_cpu_conv *conv, enum xn_dtype dtype)
{
    const size_t elements = (size_t)s->kernel_h * s->kernel_w * s->c;
    const uint32_t oc = s->oc * s->groups;
    int32_t *start = xn_cpu_plan_memory(plan, xn_align_up(oc, XN_CPU_CHUNK) + XN_CPU_CHUNK, sizeof(*start));
    if (!start)
        return -ENOMEM;
    conv->start = start;
    for (uint32_t o = 0; dtype != XN_DTYPE_U8 && o < oc; o++)
        for (size_t e = 0; e < elements; e++)
            start[o] -= 128 * weight_at(s, o, e);
    return 0;
}

static int pack_weights(struct xn_cpu_plan *plan, const struct shape *s, struct xn_cpu_conv *conv, enum xn_dtype dtype)
{
    if (s->depthwise)
        return pack_depthwise(plan, s, conv);
    const int r = pack_blocks(plan, s, conv);
    return r < 0 || conv->kind != XN_CPU_CONV_BYTES ? r : pack_start(plan, s, conv, dtype);
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

/** V: the popcount of low ^ high over all words of channel `o`'s weights. */
static int32_t pair_count(const struct shape *s, uint32_t o)
{
    int32_t count = 0;
    for (uint32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++)
        for (uint32_t word = 0; word < s->words; word++) {
            const uint64_t w = tap_word(s, o, tap, word);
            count += __builtin_popcount((uint32_t)w ^ (uint32_t)(w >> 32));
        }
    return count;
}

static int pack_classes(struct xn_cpu_plan *plan, uint32_t i, const struct shape *s, struct axis *y, struct axis *x)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *in = xn_layer_input(plan->network, i, 0), *out = xn_layer_output(plan->network, i);

    if (layer->op == XN_OP_CONV && layer->pad == XN_PAD_ZERO) {
        int r = classify(plan, out->h, layer->stride_h, layer->pad_top, s->kernel_h, in->h, y);
        return r < 0 ? r : classify(plan, out->w, layer->stride_w, layer->pad_left, s->kernel_w, in->w, x);
    }
    y->class_of = xn_cpu_plan_memory(plan, out->h, 1);
    x->class_of = xn_cpu_plan_memory(plan, out->w, 1);
    return y->class_of && x->class_of ? 0 : -ENOMEM;
}

static int pack_bias(struct xn_cpu_plan *plan, uint32_t i, const struct shape *s, struct xn_cpu_conv *conv)
{
    const uint32_t oc = xn_layer_output(plan->network, i)->c;
    const size_t pitch = xn_align_up(oc, XN_CPU_CHUNK);
    const uint32_t parities = conv->pairs ? 2 : 1;
    struct axis y = {.n = 0}, x = {.n = 0};

    if (pack_classes(plan, i, s, &y, &x) < 0)
        return -ENOMEM;
    const bool zero = y.n > 0;
    const uint32_t rows = zero ? y.n : 1, columns = zero ? x.n : 1;
    conv->bias_rows = rows * columns * parities;
    int32_t *bias = xn_cpu_plan_memory(plan, conv->bias_rows, pitch * sizeof(*bias));
    if (!bias)
        return -ENOMEM;
    conv->bias = bias;
    conv->row_class = y.class_of;
    conv->column_class = x.class_of;
    conv->column_classes = columns;
    for (uint32_t o = 0; o < oc; o++) {
        const int32_t pairs = conv->pairs ? 2 * pair_count(s, o) : 0;
        for (uint32_t k = 0; k < conv->bias_rows; k++) {
            const uint32_t class = k / parities;
            const int32_t plain = zero ? bias_of(s, o, y.spans[class / columns], x.spans[class % columns])
                                       : (int32_t)(s->kernel_h * s->kernel_w * s->c);
            bias[k * pitch + o] = plain + pairs - 2 * (int32_t)(k % parities);
        }
    }
    return 0;
}

/* ---- geometry --------------------------------------------------------------------------------------------------------- */

enum xn_cpu_conv_kind xn_cpu_conv_kind_of(const struct xn_cpu_plan *plan, uint32_t i)
{
    const struct shape s = shape_of(plan->network, i);
    if (xn_layer_input(plan->network, i, 0)->dtype == XN_DTYPE_BITS && s.weights->dtype == XN_DTYPE_BITS)
        return s.depthwise ? XN_CPU_CONV_DW_BITS : XN_CPU_CONV_BITS;
    if (s.depthwise)
        return XN_CPU_CONV_DW_I16;
    return plan->kernels->conv[XN_CPU_CONV_BYTES] ? XN_CPU_CONV_BYTES : XN_CPU_CONV_I16;
}

static bool is_padded(const struct xn_layer *layer)
{
    return layer->op == XN_OP_CONV && (layer->pad_top || layer->pad_left || layer->pad_bottom || layer->pad_right);
}

/** Can the kernels read the value as it lies? Bits have their halo; bytes must need no other border, and lie in the arena, where there is
 *  something behind them. */
static bool reads_in_place(const struct xn_cpu_plan *plan, uint32_t i, enum xn_cpu_conv_kind kind,
                           const struct shape *s)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    if (kind == XN_CPU_CONV_DW_BITS || (kind == XN_CPU_CONV_BITS && s->groups == 1))
        return true;
    return kind == XN_CPU_CONV_BYTES && s->groups == 1 && !is_padded(layer) && layer->inputs[0] != 0 &&
           xn_layer_input(plan->network, i, 0)->dtype == XN_DTYPE_U8;
}

static uint8_t border_fill(enum xn_cpu_conv_kind kind, enum xn_dtype dtype, enum xn_pad pad)
{
    const int value = pad == XN_PAD_MINUS_ONE ? -1 : 0;
    if (kind == XN_CPU_CONV_BITS || (kind == XN_CPU_CONV_BYTES && dtype == XN_DTYPE_U8))
        return 0;
    return (uint8_t)(kind == XN_CPU_CONV_BYTES ? 128 + value : value);
}

static int lay_out_copy(const struct xn_cpu_plan *plan, uint32_t i, const struct shape *s, enum xn_cpu_conv_kind kind,
                        struct xn_cpu_copy *copy)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *in = xn_layer_input(plan->network, i, 0);
    const uint32_t c = s->depthwise ? in->c : s->c; /* channels that lie together */
    size_t counts_bytes = 0;

    *copy = (struct xn_cpu_copy){
        .kind = kind,
        .dtype = in->dtype,
        .in_h = in->h,
        .in_w = in->w,
        .in_c = in->c,
        .groups = s->depthwise ? 1 : s->groups,
        .h = in->h + (is_padded(layer) ? layer->pad_top + layer->pad_bottom : 0),
        .w = in->w + (is_padded(layer) ? layer->pad_left + layer->pad_right : 0),
        .top = is_padded(layer) ? layer->pad_top : 0,
        .left = is_padded(layer) ? layer->pad_left : 0,
        .fill = border_fill(kind, in->dtype, layer->pad),
        .pixel_bytes = kind == XN_CPU_CONV_BITS    ? s->words * sizeof(uint64_t)
                       : kind == XN_CPU_CONV_BYTES ? c
                                                   : 2 * c,
    };
    copy->row_bytes = copy->w * copy->pixel_bytes;
    if (kind == XN_CPU_CONV_BITS && plan->kernels->bits->pairs)
        counts_bytes = (size_t)copy->groups * copy->h * copy->w * sizeof(int32_t) + XN_CPU_MAP_TAIL;
    if (!xn_mul_size(copy->h, copy->row_bytes, &copy->group_bytes) ||
        !xn_mul_size(copy->group_bytes, copy->groups, &copy->bytes) ||
        !xn_add_size(copy->bytes, XN_CPU_MAP_TAIL, &copy->bytes))
        return -ENOMEM;
    copy->counts_offset = xn_align_up(copy->bytes, XN_CACHE_LINE);
    return xn_add_size(copy->counts_offset, counts_bytes, &copy->bytes) ? 0 : -ENOMEM;
}

/** Strides of a map of `pixel_bytes` and `row_bytes`, whose pixel (0, 0) `origin` is relative to. */
static void stride_over(struct xn_cpu_conv *conv, const struct xn_layer *layer, size_t pixel_bytes, size_t row_bytes)
{
    const bool dense = layer->op == XN_OP_DENSE;
    conv->row_bytes = row_bytes;
    conv->tap_bytes = pixel_bytes;
    conv->step_x_bytes = dense ? 0 : layer->stride_w * pixel_bytes;
    conv->step_y_bytes = dense ? 0 : layer->stride_h * row_bytes;
}

static void lay_out_taps(const struct xn_cpu_plan *plan, uint32_t i, const struct xn_cpu_bits_map *bits,
                         const struct xn_cpu_copy *copy, struct xn_cpu_conv *conv)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *in = xn_layer_input(plan->network, i, 0);
    const uint32_t top = is_padded(layer) ? layer->pad_top : 0, left = is_padded(layer) ? layer->pad_left : 0;

    if (copy->bytes) {
        conv->group_bytes = copy->group_bytes;
        conv->counts_pitch = copy->w;
        conv->counts_group = (size_t)copy->h * copy->w * sizeof(int32_t);
        stride_over(conv, layer, copy->pixel_bytes, copy->row_bytes);
        return;
    }
    const bool words = in->dtype == XN_DTYPE_BITS;
    const size_t pixel_bytes = words ? bits->words * sizeof(uint64_t) : in->c;
    const size_t pitch = words ? bits->pitch : in->w;
    stride_over(conv, layer, pixel_bytes, pitch * pixel_bytes);
    conv->origin = 0 - (top * conv->row_bytes + left * pixel_bytes);
    conv->counts_pitch = (uint32_t)pitch;
    conv->counts_origin = 0 - (top * pitch + left) * sizeof(int32_t);
}

/** How a row of taps divides into units. */
static uint32_t units_of_row(const struct shape *s, enum xn_cpu_conv_kind kind)
{
    const size_t elements = (size_t)s->kernel_w * s->c;
    switch (kind) {
    case XN_CPU_CONV_BITS:
        return s->kernel_w * s->words;
    case XN_CPU_CONV_BYTES:
        return (uint32_t)xn_div_up(elements, 4);
    case XN_CPU_CONV_I16:
        return (uint32_t)xn_div_up(elements, 2);
    default:
        return s->kernel_w;
    }
}

int xn_cpu_pack_conv(struct xn_cpu_plan *plan, uint32_t i, const struct xn_cpu_bits_map *in, struct xn_cpu_conv *conv,
                     struct xn_cpu_copy *copy)
{
    const struct xn_layer *layer = &plan->network->layers[i];
    const struct xn_value *out = xn_layer_output(plan->network, i);
    const struct shape s = shape_of(plan->network, i);
    const enum xn_cpu_conv_kind kind = xn_cpu_conv_kind_of(plan, i);
    const bool bits = kind == XN_CPU_CONV_BITS || kind == XN_CPU_CONV_DW_BITS;

    *copy = (struct xn_cpu_copy){.bytes = 0};
    *conv = (struct xn_cpu_conv){
        .kind = kind,
        .groups = s.depthwise ? 1 : s.groups,
        .out_h = out->h,
        .out_w = out->w,
        .out_c = s.depthwise ? out->c : s.oc,
        .rows = s.kernel_h,
        .run = units_of_row(&s, kind),
        .pairs = kind == XN_CPU_CONV_BITS && plan->kernels->bits->pairs,
        .whole = layer->op == XN_OP_DENSE,
        .counts_w = s.kernel_w,
        .stride_h = layer->op == XN_OP_DENSE ? 1 : layer->stride_h,
        .stride_w = layer->op == XN_OP_DENSE ? 1 : layer->stride_w,
    };
    int r = reads_in_place(plan, i, kind, &s) ? 0 : lay_out_copy(plan, i, &s, kind, copy);
    if (r < 0)
        return r;
    lay_out_taps(plan, i, in, copy, conv);
    r = pack_weights(plan, &s, conv, xn_layer_input(plan->network, i, 0)->dtype);
    return r < 0 || !bits ? r : pack_bias(plan, i, &s, conv);
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
