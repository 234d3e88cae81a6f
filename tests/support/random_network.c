/* SPDX-License-Identifier: Apache-2.0
 * A network grows from its input, one operation at a time, each chosen among those that take the type of the value at the end.
 * Values made on the way stay candidates for residuals and concatenations.
 *
 * Parameters are sensible mostly, so that information gets through and a wrong integer reaches the logits, and extreme now and
 * then. Sensible means: by `spread`, the magnitude that a value's elements have as a rule. `reach` bounds it, as the loader's
 * own analysis does, and keeps sums and logits in range. */
#include "tests/support/random_network.h"
#include "tests/support/xnor_writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 96u
#define MACS_MAX   400000u /* of one layer: the reference runs every network */

struct growth {
    struct xn_random random;
    struct xn_writer *writer;
    uint32_t n_values;
    int64_t reach[VALUES_MAX], spread[VALUES_MAX];
    uint32_t at; /* the value that grows on */
};

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

uint64_t xn_random_next(struct xn_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t xn_random_below(struct xn_random *random, uint32_t n)
{
    return (uint32_t)((xn_random_next(random) >> 32) * n >> 32);
}

int64_t xn_random_between(struct xn_random *random, int64_t low, int64_t high)
{
    return low + (int64_t)(xn_random_next(random) % ((uint64_t)(high - low) + 1));
}

void xn_random_bytes(struct xn_random *random, void *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t x = xn_random_next(random);
        memcpy((uint8_t *)to + i, &x, XN_MIN(bytes - i, 8));
    }
}

uint64_t xn_random_seed(uint64_t otherwise)
{
    const char *text = getenv("XN_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : otherwise;
    printf("# XN_SEED=%" PRIu64 "\n", seed);
    fflush(stdout);
    return seed;
}

static bool one_in(struct growth *g, uint32_t n)
{
    return xn_random_below(&g->random, n) == 0;
}

static void *must_calloc(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    if (!memory)
        abort();
    return memory;
}

/* ---- bookkeeping ------------------------------------------------------------------------------------------------------ */

static struct xn_value value(const struct growth *g, uint32_t id)
{
    return xn_writer_value(g->writer, id);
}

static uint32_t made(struct growth *g, uint32_t id, int64_t reach, int64_t spread)
{
    if (id >= VALUES_MAX)
        abort();
    g->n_values = id + 1;
    g->reach[id] = reach;
    g->spread[id] = XN_MAX(XN_MIN(spread, reach), 1);
    g->at = id;
    return id;
}

static int64_t reach_of_type(enum xn_dtype dtype)
{
    switch (dtype) {
    case XN_DTYPE_BITS:
        return 1;
    case XN_DTYPE_U8:
        return 255;
    case XN_DTYPE_I8:
        return 128;
    default:
        return 32768;
    }
}

static struct growth growth_new(uint64_t seed, uint32_t h, uint32_t w, uint32_t c, enum xn_dtype dtype)
{
    struct growth g = {.random = {seed}, .writer = xn_writer_new(h, w, c, dtype), .n_values = 1};
    g.reach[0] = reach_of_type(dtype);
    g.spread[0] = dtype == XN_DTYPE_U8 ? 147 : 74;
    return g;
}

/* ---- layers with weights ---------------------------------------------------------------------------------------------- */

static uint32_t bit_weights(struct growth *g, uint32_t rows, uint32_t columns)
{
    const size_t words = xn_div_up(columns, 64);
    uint64_t *data = must_calloc(rows * words, 8);
    xn_random_bytes(&g->random, data, rows * words * 8);
    for (size_t r = 0; r < rows && columns % 64; r++)
        data[r * words + words - 1] &= (UINT64_C(1) << (columns % 64)) - 1;
    const uint32_t dims[4] = {rows, columns, 1, 1};
    const uint32_t id = xn_writer_tensor(g->writer, XN_DTYPE_BITS, 2, dims, data);
    free(data);
    return id;
}

static uint32_t int8_weights(struct growth *g, uint32_t rank, const uint32_t dims[4])
{
    const size_t n = (size_t)dims[0] * dims[1] * dims[2] * dims[3];
    int8_t *data = must_calloc(n, 1);
    xn_random_bytes(&g->random, data, n);
    if (one_in(g, 16))
        memset(data, one_in(g, 2) ? -128 : 127, n);
    const uint32_t id = xn_writer_tensor(g->writer, XN_DTYPE_I8, rank, dims, data);
    free(data);
    return id;
}

/** Of `k` elements of x times random weights. */
static int64_t sum_spread(const struct growth *g, uint32_t x, uint32_t k, bool binary)
{
    return (int64_t)(sqrt(k) * (double)g->spread[x] * (binary ? 1 : 74));
}

/** A convolution of `x` with everything given. */
static uint32_t conv(struct growth *g, uint32_t x, uint32_t oc, const struct xn_writer_window *window, uint32_t groups,
                     bool binary)
{
    const uint32_t c = value(g, x).c / groups;
    const uint32_t dims[4] = {oc, window->kernel_h, window->kernel_w, c};
    const uint32_t k = c * window->kernel_h * window->kernel_w;
    const uint32_t weights = binary ? bit_weights(g, oc, k) : int8_weights(g, 4, dims);
    const int64_t reach = g->reach[x] * k * (binary ? 1 : 128);
    return made(g, xn_writer_conv(g->writer, x, weights, window, groups), reach, sum_spread(g, x, k, binary));
}

static uint32_t dense(struct growth *g, uint32_t x, uint32_t oc, bool binary)
{
    const struct xn_value v = value(g, x);
    const uint32_t k = v.h * v.w * v.c;
    const uint32_t dims[4] = {oc, k, 1, 1};
    const uint32_t weights = binary ? bit_weights(g, oc, k) : int8_weights(g, 2, dims);
    return made(g, xn_writer_dense(g->writer, x, weights), g->reach[x] * k * (binary ? 1 : 128),
                sum_spread(g, x, k, binary));
}

static void random_axis(struct growth *g, uint32_t side, bool padded, uint32_t stride_max, uint8_t *kernel,
                        uint8_t *stride, uint8_t *before, uint8_t *after)
{
    do {
        *kernel = (uint8_t)(one_in(g, 3) ? 1 + xn_random_below(&g->random, 7) : one_in(g, 3) ? 1 : 3);
        *before = (uint8_t)(padded ? xn_random_below(&g->random, *kernel) : 0);
        *after = (uint8_t)(padded ? xn_random_below(&g->random, *kernel) : 0);
    } while (side + *before + *after < *kernel);
    *stride = (uint8_t)(1 + (one_in(g, 3) ? xn_random_below(&g->random, stride_max) : 0));
}

static struct xn_writer_window random_window(struct growth *g, uint32_t x, enum xn_pad pad, uint32_t stride_max)
{
    const struct xn_value v = value(g, x);
    struct xn_writer_window w = {.pad = pad};
    random_axis(g, v.h, pad != XN_PAD_NONE, stride_max, &w.kernel_h, &w.stride_h, &w.pad_top, &w.pad_bottom);
    random_axis(g, v.w, pad != XN_PAD_NONE, stride_max, &w.kernel_w, &w.stride_w, &w.pad_left, &w.pad_right);
    return w;
}

static uint32_t random_channels(struct growth *g)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 8, 9, 16, 31, 32, 63, 64, 65, 96, 127, 128, 130};
    return counts[xn_random_below(&g->random, XN_ARRAY_LEN(counts))];
}

/** A divisor of c; 1 mostly, c often. */
static uint32_t random_groups(struct growth *g, uint32_t c)
{
    if (!one_in(g, 2))
        return 1;
    if (one_in(g, 2))
        return c;
    for (uint32_t tries = 0; tries < 8; tries++) {
        const uint32_t d = 1 + xn_random_below(&g->random, c);
        if (c % d == 0)
            return d;
    }
    return 1;
}

static void grow_conv(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    const enum xn_pad pad = (enum xn_pad)xn_random_below(&g->random, v.dtype == XN_DTYPE_BITS ? 3 : 2);
    const struct xn_writer_window window = random_window(g, x, v.dtype != XN_DTYPE_BITS && pad ? XN_PAD_ZERO : pad, 2);
    const uint32_t groups = random_groups(g, v.c);
    uint32_t oc = groups == 1 ? random_channels(g) : groups * (1 + xn_random_below(&g->random, 3) / 2);
    const uint64_t work = (uint64_t)v.h * v.w * window.kernel_h * window.kernel_w * (v.c / groups);
    while (oc > groups && work * oc > MACS_MAX)
        oc = groups == 1 ? oc / 2 : groups;
    conv(g, x, oc, &window, groups, one_in(g, 4) ? v.dtype != XN_DTYPE_BITS : v.dtype == XN_DTYPE_BITS);
}

/* ---- element-wise layers ---------------------------------------------------------------------------------------------- */

static void grow_threshold(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    int32_t *t = must_calloc(v.c, sizeof(*t));
    for (uint32_t c = 0; c < v.c; c++) {
        const int64_t far = one_in(g, 8) ? g->reach[x] : g->spread[x];
        t[c] = (int32_t)xn_random_between(&g->random, -far, far);
        if (one_in(g, 64))
            t[c] = one_in(g, 2) ? INT32_MIN : INT32_MAX;
    }
    made(g, xn_writer_threshold(g->writer, x, t), 1, 1);
    free(t);
}

/** A value of type `dtype` and the shape of `x` made so far, perhaps x itself; XN_FORMAT_NONE: none. */
static uint32_t find_like(struct growth *g, uint32_t x, enum xn_dtype dtype, bool any_channels)
{
    const struct xn_value like = value(g, x);
    uint32_t found = XN_FORMAT_NONE, n = 0;
    for (uint32_t id = 0; id < g->n_values; id++) {
        const struct xn_value v = value(g, id);
        if (v.dtype == dtype && v.h == like.h && v.w == like.w && (any_channels || v.c == like.c) && one_in(g, ++n))
            found = id;
    }
    return found;
}

/** What elements of a type look like where nothing saturates. */
static int64_t usual_spread(enum xn_dtype dtype)
{
    return dtype == XN_DTYPE_I16 ? 2000 : dtype == XN_DTYPE_BITS ? 1 : 60;
}

/** Multipliers of 100 to 300 bring `spread` to what is usual, or as near as a shift can. */
static uint8_t fitting_shift(int64_t spread, enum xn_dtype out)
{
    uint8_t shift = 0;
    while (shift < 30 && (spread * 200) >> shift > usual_spread(out))
        shift++;
    return shift;
}

static void grow_scale(struct growth *g, uint32_t x)
{
    static const enum xn_dtype types[] = {XN_DTYPE_I16, XN_DTYPE_I16, XN_DTYPE_I16, XN_DTYPE_I8, XN_DTYPE_U8};
    const struct xn_value v = value(g, x);
    const enum xn_dtype out = types[xn_random_below(&g->random, XN_ARRAY_LEN(types))];
    const uint32_t r = out == XN_DTYPE_I16 && one_in(g, 2) ? find_like(g, x, XN_DTYPE_I16, false) : XN_FORMAT_NONE;
    const bool wild = one_in(g, 6);
    const uint8_t shift = wild ? (uint8_t)xn_random_below(&g->random, 31) : fitting_shift(g->spread[x], out);
    int16_t *m = must_calloc(v.c, sizeof(*m));
    int64_t *b = must_calloc(v.c, sizeof(*b));
    for (uint32_t c = 0; c < v.c; c++) {
        const int64_t b_max = usual_spread(out) << shift;
        m[c] = (int16_t)((one_in(g, 2) ? 1 : -1) * xn_random_between(&g->random, 100, 300));
        b[c] = xn_random_between(&g->random, -b_max, b_max) + (out == XN_DTYPE_U8 ? b_max : 0);
        if (wild && one_in(g, 2)) {
            m[c] = one_in(g, 4) ? INT16_MIN : (int16_t)xn_random_between(&g->random, INT16_MIN, INT16_MAX);
            b[c] = one_in(g, 4) ? (one_in(g, 2) ? INT64_C(1) << 46 : -(INT64_C(1) << 46))
                                : xn_random_between(&g->random, -g->spread[x] * 32768, g->spread[x] * 32768);
        }
    }
    made(g, xn_writer_scale(g->writer, x, r, m, b, shift, out), reach_of_type(out), usual_spread(out));
    free(m);
    free(b);
}

static void grow_add(struct growth *g, uint32_t x)
{
    const uint32_t r = find_like(g, x, XN_DTYPE_I16, false);
    made(g, one_in(g, 2) ? xn_writer_add(g->writer, x, r) : xn_writer_add(g->writer, r, x), 32768,
         g->spread[x] + g->spread[r]);
}

static void grow_rprelu(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    const int64_t reach = one_in(g, 8) ? 32767 : XN_MIN(g->spread[x], 32767);
    int16_t *a = must_calloc(v.c, sizeof(*a)), *b = must_calloc(v.c, sizeof(*b));
    uint8_t *k = must_calloc(v.c, 1);
    for (uint32_t c = 0; c < v.c; c++) {
        a[c] = (int16_t)xn_random_between(&g->random, -reach - 1, reach);
        b[c] = (int16_t)xn_random_between(&g->random, -reach - 1, reach);
        k[c] = (uint8_t)xn_random_below(&g->random, one_in(g, 2) ? 16 : 3);
    }
    made(g, xn_writer_rprelu(g->writer, x, a, k, b), 32768, g->spread[x]);
    free(a);
    free(b);
    free(k);
}

/* ---- pools, concatenation --------------------------------------------------------------------------------------------- */

static void grow_pool(struct growth *g, uint32_t x)
{
    const struct xn_writer_window w = random_window(g, x, one_in(g, 2) ? XN_PAD_NONE : XN_PAD_ZERO, 7);
    if (one_in(g, 2)) {
        made(g, xn_writer_maxpool(g->writer, x, &w), g->reach[x], g->spread[x]);
        return;
    }
    const bool wild = one_in(g, 6);
    const int64_t sum = g->spread[x] * w.kernel_h * w.kernel_w;
    const int32_t multiplier =
        wild ? (int32_t)xn_random_between(&g->random, 1, 65536) : 1 + (int32_t)xn_random_below(&g->random, 60);
    uint8_t shift = (uint8_t)(wild ? xn_random_below(&g->random, 31) : 0);
    while (!wild && (sum * multiplier) >> shift > 2000)
        shift++;
    made(g, xn_writer_avgpool(g->writer, x, &w, multiplier, shift), 32768, (sum * multiplier) >> shift);
}

static void grow_global_pool(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    const enum xn_dtype out = one_in(g, 2) ? XN_DTYPE_I16 : XN_DTYPE_I32;
    const int32_t multiplier = one_in(g, 2) ? 1 : (int32_t)xn_random_between(&g->random, 1, 4096);
    uint8_t shift = 0;
    while (one_in(g, 8) || (out == XN_DTYPE_I16 && ((int64_t)v.h * v.w * g->spread[x] * multiplier) >> shift > 4000))
        shift++;
    const int64_t sum = (int64_t)v.h * v.w * g->reach[x];
    const int64_t reach = (sum * multiplier >> shift) + 1;
    if (out == XN_DTYPE_I32 && reach > XN_ACCUMULATOR_MAX)
        made(g, xn_writer_global_avgpool(g->writer, x, 1, 0, out), sum, sum);
    else
        made(g, xn_writer_global_avgpool(g->writer, x, multiplier, shift, out), out == XN_DTYPE_I32 ? reach : 32768,
             reach);
}

static void grow_concat(struct growth *g, uint32_t x)
{
    uint32_t inputs[XN_LAYER_INPUTS_MAX] = {x}, c = value(g, x).c;
    uint8_t n = 1;
    const uint32_t want = 2 + (one_in(g, 3) ? xn_random_below(&g->random, XN_LAYER_INPUTS_MAX - 1) : 0);
    while (n < want) {
        inputs[n] = find_like(g, x, value(g, x).dtype, true);
        c += value(g, inputs[n++]).c;
        if (c > 400 && n >= 2)
            break;
    }
    if (one_in(g, 2)) {
        const uint32_t first = inputs[0];
        inputs[0] = inputs[n - 1];
        inputs[n - 1] = first;
    }
    made(g, xn_writer_concat(g->writer, inputs, n), reach_of_type(value(g, x).dtype), g->spread[x]);
}

/* ---- growing ---------------------------------------------------------------------------------------------------------- */

/** Stream x (int16): bits, convolution of the same shape, scale; the stream is added inside the scale or after it. */
static void grow_residual_block(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    const struct xn_writer_window same = {3, 3, 1, 1, 1, 1, 1, 1, one_in(g, 2) ? XN_PAD_ZERO : XN_PAD_MINUS_ONE};
    int16_t *m = must_calloc(v.c, sizeof(*m));
    int64_t *b = must_calloc(v.c, sizeof(*b));

    grow_threshold(g, x);
    conv(g, g->at, v.c, &same, one_in(g, 4) ? v.c : 1, true);
    const uint8_t shift = (uint8_t)xn_random_below(&g->random, 8);
    for (uint32_t c = 0; c < v.c; c++) {
        m[c] = (int16_t)xn_random_between(&g->random, -300, 300);
        b[c] = xn_random_between(&g->random, -9000, 9000);
    }
    if (one_in(g, 2)) {
        made(g, xn_writer_scale(g->writer, g->at, x, m, b, shift, XN_DTYPE_I16), 32768, 3000);
    } else {
        const uint32_t s = xn_writer_scale(g->writer, g->at, XN_FORMAT_NONE, m, b, shift, XN_DTYPE_I16);
        made(g, s, 32768, 2000);
        made(g, one_in(g, 2) ? xn_writer_add(g->writer, s, x) : xn_writer_add(g->writer, x, s), 32768, 3000);
    }
    free(m);
    free(b);
    if (one_in(g, 2))
        grow_rprelu(g, g->at);
}

static void grow_bits(struct growth *g, uint32_t x)
{
    switch (xn_random_below(&g->random, 8)) {
    case 0:
        grow_pool(g, x);
        break;
    case 1:
        grow_concat(g, x);
        break;
    default:
        grow_conv(g, x);
        break;
    }
}

static void grow_bytes(struct growth *g, uint32_t x)
{
    switch (xn_random_below(&g->random, 8)) {
    case 0:
        grow_pool(g, x);
        break;
    case 1:
        grow_concat(g, x);
        break;
    case 2:
        grow_threshold(g, x);
        break;
    case 3:
        grow_scale(g, x);
        break;
    default:
        grow_conv(g, x);
        break;
    }
}

static void grow_stream(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    switch (xn_random_below(&g->random, 9)) {
    case 0:
        grow_pool(g, x);
        break;
    case 1:
        grow_concat(g, x);
        break;
    case 2:
        grow_scale(g, x);
        break;
    case 3:
        grow_add(g, x);
        break;
    case 4:
        grow_rprelu(g, x);
        break;
    case 5:
        grow_threshold(g, x);
        break;
    default:
        if ((uint64_t)v.h * v.w * v.c * v.c * 9 <= 2 * MACS_MAX)
            grow_residual_block(g, x);
        else
            grow_threshold(g, x);
        break;
    }
}

static void grow(struct growth *g)
{
    switch (value(g, g->at).dtype) {
    case XN_DTYPE_BITS:
        grow_bits(g, g->at);
        break;
    case XN_DTYPE_U8:
    case XN_DTYPE_I8:
        grow_bytes(g, g->at);
        break;
    case XN_DTYPE_I16:
        grow_stream(g, g->at);
        break;
    default:
        if (one_in(g, 2))
            grow_threshold(g, g->at);
        else
            grow_scale(g, g->at);
        break;
    }
}

/** Logits of value x, which is [1][1][c] and int16 or int32. */
static void finish(struct growth *g, uint32_t x)
{
    const struct xn_value v = value(g, x);
    const int64_t m_max = XN_MAX((INT64_C(1) << 30) / XN_MAX(g->reach[x], 1), 1);
    int32_t *m = must_calloc(v.c, sizeof(*m)), *b = must_calloc(v.c, sizeof(*b));
    for (uint32_t c = 0; c < v.c; c++) {
        m[c] = (int32_t)xn_random_between(&g->random, 1, m_max);
        b[c] = (int32_t)xn_random_between(&g->random, -(1 << 29), 1 << 29);
    }
    xn_writer_logits(g->writer, x, m, b, 1.0f, 0.0f);
    free(m);
    free(b);
}

/** To the end: whatever is there, down to a row of int16 or int32. */
static void grow_head(struct growth *g)
{
    if (value(g, g->at).dtype == XN_DTYPE_I32)
        grow(g);
    if (one_in(g, 4)) {
        grow_global_pool(g, g->at);
    } else {
        const struct xn_value v = value(g, g->at);
        if (v.dtype == XN_DTYPE_I16)
            grow_threshold(g, g->at);
        const uint32_t elements = v.h * v.w * v.c;
        dense(g, g->at, 1 + xn_random_below(&g->random, 24), elements > 20000 || !one_in(g, 3));
    }
    finish(g, g->at);
}

static struct xn_writer *grow_network(uint64_t seed)
{
    static const uint32_t input_channels[] = {1, 3, 3, 4, 8, 64, 65};
    struct xn_random start = {seed * UINT64_C(0x2545f4914f6cdd1d) + 1};
    const uint32_t h = 1 + xn_random_below(&start, 12), w = 1 + xn_random_below(&start, 12);
    const uint32_t c = input_channels[xn_random_below(&start, XN_ARRAY_LEN(input_channels))];
    struct growth g =
        growth_new(xn_random_next(&start), h, w, c, xn_random_below(&start, 2) ? XN_DTYPE_U8 : XN_DTYPE_I8);
    const uint32_t layers = 2 + xn_random_below(&g.random, 16);

    while (g.n_values < layers)
        grow(&g);
    grow_head(&g);
    return g.writer;
}

uint8_t *xn_random_network_file(uint64_t seed, size_t *ret_bytes)
{
    struct xn_writer *writer = grow_network(seed);
    uint8_t *file = xn_writer_finish(writer, ret_bytes);
    xn_writer_free(writer);
    return file;
}

static struct xn_network *load(struct xn_writer *writer, uint64_t seed)
{
    struct xn_network *network;
    struct xn_error error;
    size_t bytes;
    uint8_t *file = xn_writer_finish(writer, &bytes);
    if (xn_network_load_memory(file, bytes, &network, &error) < 0) {
        fprintf(stderr, "random network %" PRIu64 " is refused: %s\n", seed, error.text);
        abort();
    }
    free(file);
    xn_writer_free(writer);
    return network;
}

struct xn_network *xn_random_network(uint64_t seed)
{
    return load(grow_network(seed), seed);
}

/* ---- well-known shapes ------------------------------------------------------------------------------------------------ */

#define ONE_PIXEL_VALUES 8u

static const struct xn_writer_window conv_3x3 = {3, 3, 1, 1, 1, 1, 1, 1, XN_PAD_ZERO};
static const struct xn_writer_window window_2x2 = {2, 2, 2, 2, 0, 0, 0, 0, XN_PAD_NONE};

/** Thresholds about zero, where the signs are. */
static void near_threshold(struct growth *g, uint32_t x, int32_t reach)
{
    const uint32_t n = value(g, x).c;
    int32_t *t = must_calloc(n, sizeof(*t));
    for (uint32_t c = 0; c < n; c++)
        t[c] = (int32_t)xn_random_between(&g->random, -reach, reach);
    made(g, xn_writer_threshold(g->writer, x, t), 1, 1);
    free(t);
}

struct xn_network *xn_random_one_pixel(uint64_t seed)
{
    static const struct xn_writer_window conv_1x1 = {1, 1, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    struct growth g = growth_new(seed, 1, 1, 256, XN_DTYPE_U8);
    uint32_t kept[ONE_PIXEL_VALUES], n_kept = 0;

    xn_writer_meta(g.writer, "{\"name\":\"one-pixel\"}");
    conv(&g, g.at, 128, &conv_1x1, 1, false);
    near_threshold(&g, g.at, 5000);
    for (uint32_t i = 0; i < ONE_PIXEL_VALUES; i++) {
        /* Every other value makes room for a later one, between two that stay. */
        if (xn_random_below(&g.random, 2))
            conv(&g, g.at, 128, &conv_1x1, 1, true);
        else
            dense(&g, g.at, 128, true);
        near_threshold(&g, g.at, 20);
        if (i % 2 == 0)
            kept[n_kept++] = g.at;
    }
    made(&g, xn_writer_concat(g.writer, kept, (uint8_t)n_kept), 1, 1);
    dense(&g, g.at, 10, true);
    finish(&g, g.at);
    return load(g.writer, seed);
}

static struct xn_writer *grow_vgg_small(uint64_t seed)
{
    static const uint32_t channels[] = {128, 128, 256, 256, 512, 512};
    struct growth g = growth_new(seed, 32, 32, 3, XN_DTYPE_U8);

    xn_writer_meta(g.writer, "{\"name\":\"vgg-small\"}");
    for (uint32_t i = 0; i < XN_ARRAY_LEN(channels); i++) {
        conv(&g, g.at, channels[i], &conv_3x3, 1, i > 0);
        if (i % 2 == 0) {
            near_threshold(&g, g.at, i == 0 ? 5000 : 40);
            continue;
        }
        near_threshold(&g, g.at, 40);
        made(&g, xn_writer_maxpool(g.writer, g.at, &window_2x2), 1, 1);
    }
    for (uint32_t i = 0; i < 2; i++) {
        dense(&g, g.at, 1024, true);
        near_threshold(&g, g.at, 40);
    }
    dense(&g, g.at, 10, true);
    finish(&g, g.at);
    return g.writer;
}

/** Scale the sums g->at, add them to `stream`. */
static void add_to_stream(struct growth *g, uint32_t stream)
{
    const uint32_t n = value(g, g->at).c;
    int16_t *m = must_calloc(n, sizeof(*m));
    int64_t *b = must_calloc(n, sizeof(*b));

    for (uint32_t c = 0; c < n; c++) {
        m[c] = (int16_t)xn_random_between(&g->random, -200, 200);
        b[c] = xn_random_between(&g->random, -20000, 20000);
    }
    made(g, xn_writer_scale(g->writer, g->at, stream, m, b, 7, XN_DTYPE_I16), 32768, 300);
    free(m);
    free(b);
}

static void gentle_rprelu(struct growth *g)
{
    const uint32_t n = value(g, g->at).c;
    int16_t *a = must_calloc(n, sizeof(*a)), *b = must_calloc(n, sizeof(*b));
    uint8_t *k = must_calloc(n, 1);

    for (uint32_t c = 0; c < n; c++) {
        a[c] = (int16_t)xn_random_between(&g->random, -100, 100);
        b[c] = (int16_t)xn_random_between(&g->random, -100, 100);
        k[c] = (uint8_t)xn_random_below(&g->random, 5);
    }
    made(g, xn_writer_rprelu(g->writer, g->at, a, k, b), 32768, 300);
    free(a);
    free(b);
    free(k);
}

/** The stream at g->at, its convolution added: the unit of a residual binary network. */
static void residual_conv(struct growth *g)
{
    const uint32_t stream = g->at;

    near_threshold(g, stream, 300);
    conv(g, g->at, value(g, stream).c, &conv_3x3, 1, true);
    add_to_stream(g, stream);
    gentle_rprelu(g);
}

static void plain_scale(struct growth *g, int16_t multiplier, uint8_t shift, enum xn_dtype out)
{
    const uint32_t n = value(g, g->at).c;
    int16_t *m = must_calloc(n, sizeof(*m));
    int64_t *b = must_calloc(n, sizeof(*b));
    for (uint32_t c = 0; c < n; c++)
        m[c] = multiplier;
    made(g, xn_writer_scale(g->writer, g->at, XN_FORMAT_NONE, m, b, shift, out), reach_of_type(out),
         reach_of_type(out));
    free(m);
    free(b);
}

/** The convolution `sums` as a part of the stream. */
static uint32_t stream_of(struct growth *g, uint32_t sums)
{
    g->at = sums;
    plain_scale(g, 3, 2, XN_DTYPE_I16);
    return g->at;
}

struct xn_network *xn_random_shortcuts(uint64_t seed)
{
    struct growth g = growth_new(seed, 9, 9, 3, XN_DTYPE_U8);

    xn_writer_meta(g.writer, "{\"name\":\"shortcuts\"}");
    conv(&g, g.at, 64, &conv_3x3, 1, false);
    uint32_t stream = stream_of(&g, g.at);
    for (uint32_t i = 0; i < 4; i++) {
        near_threshold(&g, stream, 300);
        const uint32_t bits = g.at;
        conv(&g, bits, 64, &conv_3x3, 1, true);
        const uint32_t main = g.at;
        conv(&g, bits, 64, &conv_3x3, 1, true);
        const uint32_t other = g.at;
        if (i % 2 == 0) { /* each convolution is the other's shortcut */
            const uint32_t a = stream_of(&g, main), b = stream_of(&g, other);
            made(&g, i ? xn_writer_add(g.writer, b, a) : xn_writer_add(g.writer, a, b), 32768, 300);
        } else { /* what is added is made of the other, and stands behind both */
            g.at = stream_of(&g, other);
            gentle_rprelu(&g);
            const uint32_t shortcut = g.at;
            g.at = main;
            add_to_stream(&g, shortcut);
        }
        stream = g.at;
    }
    made(&g, xn_writer_global_avgpool(g.writer, stream, 1, 4, XN_DTYPE_I16), 32768, 300);
    plain_scale(&g, 1, 5, XN_DTYPE_I8);
    dense(&g, g.at, 10, false);
    finish(&g, g.at);
    return load(g.writer, seed);
}

static struct xn_writer *grow_resnet18(uint64_t seed)
{
    struct growth g = growth_new(seed, 32, 32, 3, XN_DTYPE_U8);

    xn_writer_meta(g.writer, "{\"name\":\"resnet18-cifar\"}");
    conv(&g, 0, 64, &conv_3x3, 1, false);
    plain_scale(&g, 1, 6, XN_DTYPE_I16);
    for (uint32_t stage = 0; stage < 4; stage++) {
        if (stage > 0) {
            made(&g, xn_writer_avgpool(g.writer, g.at, &window_2x2, 1, 2), 32768, 300);
            const uint32_t twice[2] = {g.at, g.at};
            made(&g, xn_writer_concat(g.writer, twice, 2), 32768, 300);
        }
        for (uint32_t i = 0; i < 4; i++)
            residual_conv(&g);
    }
    made(&g, xn_writer_global_avgpool(g.writer, g.at, 1, 4, XN_DTYPE_I16), 32768, 300);
    plain_scale(&g, 1, 5, XN_DTYPE_I8);
    dense(&g, g.at, 10, false);
    finish(&g, g.at);
    return g.writer;
}

/** Down-sample the stream at g->at: means of 2x2 pixels, as bytes, through a 1x1 convolution of int8 to twice the channels; and from the
 *  stream's bits a binary convolution of stride 2, added to that. */
static void halve_stream(struct growth *g)
{
    static const struct xn_writer_window conv_1x1 = {1, 1, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    static const struct xn_writer_window conv_3x3_half = {3, 3, 2, 2, 1, 1, 1, 1, XN_PAD_ZERO};
    const uint32_t stream = g->at, c = value(g, stream).c;

    made(g, xn_writer_avgpool(g->writer, stream, &window_2x2, 1, 2), 32768, 300);
    plain_scale(g, 1, 3, XN_DTYPE_U8);
    conv(g, g->at, 2 * c, &conv_1x1, 1, false);
    plain_scale(g, 1, 8, XN_DTYPE_I16);
    const uint32_t shortcut = g->at;
    near_threshold(g, stream, 300);
    conv(g, g->at, 2 * c, &conv_3x3_half, 1, true);
    add_to_stream(g, shortcut);
    gentle_rprelu(g);
}

static struct xn_writer *grow_resnet18_imagenet(uint64_t seed)
{
    static const struct xn_writer_window stem = {7, 7, 2, 2, 3, 3, 3, 3, XN_PAD_ZERO};
    static const struct xn_writer_window pool = {3, 3, 2, 2, 1, 1, 1, 1, XN_PAD_ZERO};
    struct growth g = growth_new(seed, 224, 224, 3, XN_DTYPE_U8);

    xn_writer_meta(g.writer, "{\"name\":\"resnet18\"}");
    conv(&g, 0, 64, &stem, 1, false);
    plain_scale(&g, 1, 10, XN_DTYPE_U8);
    made(&g, xn_writer_maxpool(g.writer, g.at, &pool), 255, 60);
    plain_scale(&g, 8, 0, XN_DTYPE_I16);
    for (uint32_t stage = 0; stage < 4; stage++) {
        if (stage > 0)
            halve_stream(&g);
        for (uint32_t i = stage > 0; i < 4; i++)
            residual_conv(&g);
    }
    made(&g, xn_writer_global_avgpool(g.writer, g.at, 1, 6, XN_DTYPE_I16), 32768, 300);
    plain_scale(&g, 1, 5, XN_DTYPE_I8);
    dense(&g, g.at, 1000, false);
    finish(&g, g.at);
    return g.writer;
}

static const struct {
    const char *name;
    struct xn_writer *(*grow)(uint64_t seed);
} known[] = {
    {"vgg-small", grow_vgg_small},
    {"resnet18-cifar", grow_resnet18},
    {"resnet18", grow_resnet18_imagenet},
};

struct xn_network *xn_random_vgg_small(uint64_t seed)
{
    return load(grow_vgg_small(seed), seed);
}

struct xn_network *xn_random_resnet18(uint64_t seed)
{
    return load(grow_resnet18(seed), seed);
}

struct xn_network *xn_random_resnet18_imagenet(uint64_t seed)
{
    return load(grow_resnet18_imagenet(seed), seed);
}

uint8_t *xn_random_known_file(uint32_t index, uint64_t seed, const char **ret_name, size_t *ret_bytes)
{
    if (index >= XN_ARRAY_LEN(known))
        return NULL;
    struct xn_writer *writer = known[index].grow(seed);
    uint8_t *file = xn_writer_finish(writer, ret_bytes);
    xn_writer_free(writer);
    *ret_name = known[index].name;
    return file;
}

struct xn_network *xn_random_layer(uint64_t seed, const struct xn_random_layer *layer)
{
    const uint8_t k = (uint8_t)layer->kernel, s = (uint8_t)layer->stride;
    const uint8_t pad = (uint8_t)(layer->pad == XN_PAD_NONE ? 0 : layer->kernel / 2);
    const struct xn_writer_window window = {k, k, s, s, pad, pad, pad, pad, layer->pad};
    const uint32_t out_side = (layer->side + 2 * pad - k) / s + 1;
    struct growth g = growth_new(seed, layer->side, layer->side, layer->c, XN_DTYPE_U8);

    if (!layer->bytes)
        near_threshold(&g, 0, 128);
    const uint32_t x = g.at;
    if (layer->finish == XN_RANDOM_BITS) {
        conv(&g, x, layer->oc, &window, layer->depthwise ? layer->c : 1, !layer->bytes);
        near_threshold(&g, g.at, layer->bytes ? 5000 : 40);
    } else {
        /* Any stream of the output's shape: the first value of a convolution that nobody measures. */
        const struct xn_writer_window point = {1, 1, s, s, 0, 0, 0, 0, XN_PAD_NONE};
        conv(&g, x, layer->oc, &point, 1, !layer->bytes);
        plain_scale(&g, 1, 0, XN_DTYPE_I16);
        const uint32_t stream = g.at;
        if (value(&g, stream).h != out_side)
            abort();
        conv(&g, x, layer->oc, &window, 1, !layer->bytes);
        add_to_stream(&g, stream);
        if (layer->finish == XN_RANDOM_RPRELU)
            gentle_rprelu(&g);
        const uint32_t sum = g.at;
        near_threshold(&g, sum, 300);
        conv(&g, g.at, 8, &conv_3x3, 1, true); /* somebody reads the bits, and below the stream too */
        g.at = sum;
    }
    made(&g, xn_writer_global_avgpool(g.writer, g.at, 1, 0, XN_DTYPE_I32),
         (int64_t)out_side * out_side * reach_of_type(value(&g, g.at).dtype), 300);
    finish(&g, g.at);
    return load(g.writer, seed);
}

struct xn_network *xn_random_slow(uint64_t seed)
{
    struct growth g = growth_new(seed, 32, 32, 8, XN_DTYPE_U8);
    for (uint32_t i = 0; i < 3; i++) {
        conv(&g, g.at, 64, &conv_3x3, 1, i > 0);
        near_threshold(&g, g.at, 40);
    }
    made(&g, xn_writer_maxpool(g.writer, g.at, &window_2x2), 1, 1);
    dense(&g, g.at, 10, true);
    finish(&g, g.at);
    return load(g.writer, seed);
}
