/* SPDX-License-Identifier: Apache-2.0
 * Each operation of the reference against values computed by hand, at its extremes, and convolutions of every
 * type, padding, stride and group against a second, plainer formula (no padded copy: each tap asks whether it is
 * on the map). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/reference.h"
#include "tests/support/random_network.h"
#include "tests/support/xnor_writer.h"

/* A network under test: layers are added to `writer`, then run() ends it with a dense layer over the input and
 * logits, which every network needs and these tests do not look at. */
struct fixture {
    struct xn_writer *writer;
    struct xn_network *network;
    struct xn_reference *reference;
};

static struct fixture begin(uint32_t h, uint32_t w, uint32_t c, enum xn_dtype dtype)
{
    return (struct fixture){.writer = xn_writer_new(h, w, c, dtype)};
}

static void load(struct fixture *f)
{
    struct xn_error error;
    size_t bytes;
    uint8_t *file = xn_writer_finish(f->writer, &bytes);
    const int r = xn_network_load_memory(file, bytes, &f->network, &error);
    free(file);
    if (r < 0)
        fail_msg("%s", error.text);
    assert_int_equal(xn_reference_new(f->network, &f->reference), 0);
}

static void run(struct fixture *f, const void *input)
{
    const struct xn_value x = xn_writer_value(f->writer, 0);
    const uint32_t n = x.h * x.w * x.c;
    int8_t *ones = calloc(n, 1); /* >= 0: all +1 */
    int32_t logit, m = 1, b = 0;
    const uint32_t sum = xn_writer_dense(f->writer, 0, xn_writer_bits(f->writer, 1, n, ones));
    xn_writer_logits(f->writer, sum, &m, &b, 1.0f, 0.0f);
    free(ones);
    load(f);
    xn_reference_run(f->reference, input, &logit);
    int32_t want = 0;
    for (uint32_t i = 0; i < n; i++)
        want += x.dtype == XN_DTYPE_U8 ? ((const uint8_t *)input)[i] : ((const int8_t *)input)[i];
    assert_int_equal(logit, want);
}

static void end(struct fixture *f)
{
    xn_reference_free(f->reference);
    xn_network_free(f->network);
    xn_writer_free(f->writer);
}

static void expect(const struct fixture *f, uint32_t id, const int32_t *want, size_t n)
{
    const int32_t *got = xn_reference_value(f->reference, id);
    const struct xn_value *value = &f->network->values[id];
    assert_int_equal(n, (size_t)value->h * value->w * value->c);
    for (size_t i = 0; i < n; i++) {
        if (got[i] != want[i])
            fail_msg("value %u, element %zu: got %d, want %d", id, i, got[i], want[i]);
        assert_in_range(got[i] - value->min, 0, value->max - value->min);
    }
}
#define EXPECT(f, id, ...)                                                                                             \
    expect(f, id, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* int16 from an int8 input: x * m. */
static uint32_t to_int16(struct fixture *f, int16_t m)
{
    const struct xn_value x = xn_writer_value(f->writer, 0);
    int16_t ms[16];
    int64_t bs[16] = {0};
    assert_in_range(x.c, 1, 16);
    for (uint32_t i = 0; i < x.c; i++)
        ms[i] = m;
    return xn_writer_scale(f->writer, 0, XN_FORMAT_NONE, ms, bs, 0, XN_DTYPE_I16);
}

/* bits from an int8 input: x >= 0. */
static uint32_t to_bits(struct fixture *f)
{
    static const int32_t zeros[512];
    return xn_writer_threshold(f->writer, 0, zeros);
}

static const struct xn_writer_window same_3x3 = {3, 3, 1, 1, 1, 1, 1, 1, XN_PAD_ZERO};

static void test_conv_bits_with_both_paddings(void **state)
{
    (void)state;
    const int8_t input[9] = {0}, ones[9] = {0}; /* all +1 */
    struct fixture f = begin(3, 3, 1, XN_DTYPE_I8);
    struct xn_writer_window minus = same_3x3, none = {3, 3, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    minus.pad = XN_PAD_MINUS_ONE;
    const uint32_t x = to_bits(&f), w = xn_writer_bits(f.writer, 1, 9, ones);
    const uint32_t a = xn_writer_conv(f.writer, x, w, &minus, 1);
    const uint32_t b = xn_writer_conv(f.writer, x, w, &same_3x3, 1);
    const uint32_t c = xn_writer_conv(f.writer, x, w, &none, 1);
    run(&f, input);
    EXPECT(&f, a, -1, 3, -1, 3, 9, 3, -1, 3, -1); /* a corner sees 4 taps of +1 and 5 of -1 */
    EXPECT(&f, b, 4, 6, 4, 6, 9, 6, 4, 6, 4);
    EXPECT(&f, c, 9);
    end(&f);
}

static void test_conv_is_not_flipped(void **state)
{
    (void)state;
    const uint8_t input[6] = {1, 2, 3, 4, 5, 255};
    const int8_t w[4] = {1, 10, 100, -128};
    struct fixture f = begin(2, 3, 1, XN_DTYPE_U8);
    const struct xn_writer_window window = {2, 2, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    const uint32_t t = xn_writer_tensor(f.writer, XN_DTYPE_I8, 4, (const uint32_t[]){1, 2, 2, 1}, w);
    const uint32_t y = xn_writer_conv(f.writer, 0, t, &window, 1);
    run(&f, input);
    EXPECT(&f, y, 1 + 20 + 400 - 640, 2 + 30 + 500 - 128 * 255);
    end(&f);
}

static void test_conv_depthwise_keeps_channels_apart(void **state)
{
    (void)state;
    const int8_t input[4] = {-128, 127, 3, -4}; /* 1x2 pixels of 2 channels */
    const int8_t w[4] = {2, 3, -5, 7};          /* [2][1][2][1] */
    struct fixture f = begin(1, 2, 2, XN_DTYPE_I8);
    const struct xn_writer_window window = {1, 2, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    const uint32_t t = xn_writer_tensor(f.writer, XN_DTYPE_I8, 4, (const uint32_t[]){2, 1, 2, 1}, w);
    const uint32_t y = xn_writer_conv(f.writer, 0, t, &window, 2);
    run(&f, input);
    EXPECT(&f, y, -256 + 9, -635 - 28);
    end(&f);
}

static void test_dense_flattens_rows_first(void **state)
{
    (void)state;
    const uint8_t input[4] = {1, 20, 3, 255}; /* 2x1x2 */
    const int8_t w[8] = {1, 2, 3, 4, -128, 0, 0, 127};
    const int8_t signs[8] = {1, -1, 1, -1, -1, -1, -1, -1};
    struct fixture f = begin(2, 1, 2, XN_DTYPE_U8);
    const uint32_t t = xn_writer_tensor(f.writer, XN_DTYPE_I8, 2, (const uint32_t[]){2, 4}, w);
    const uint32_t a = xn_writer_dense(f.writer, 0, t);
    const uint32_t b = xn_writer_dense(f.writer, 0, xn_writer_bits(f.writer, 2, 4, signs));
    run(&f, input);
    EXPECT(&f, a, 1 + 40 + 9 + 1020, -128 + 127 * 255);
    EXPECT(&f, b, 1 - 20 + 3 - 255, -1 - 20 - 3 - 255);
    end(&f);
}

static void test_threshold_is_greater_or_equal(void **state)
{
    (void)state;
    const int8_t input[5] = {-1, 0, 1, 5, 5};
    const int32_t t[5] = {0, 0, 0, INT32_MAX, INT32_MIN};
    struct fixture f = begin(1, 1, 5, XN_DTYPE_I8);
    const uint32_t a = xn_writer_threshold(f.writer, 0, t);
    const uint32_t b = xn_writer_threshold(f.writer, to_int16(&f, 256), (const int32_t[]){-256, 1, 257, 1280, 1281});
    run(&f, input);
    EXPECT(&f, a, -1, 1, 1, -1, 1);
    EXPECT(&f, b, 1, -1, -1, 1, -1);
    end(&f);
}

static void test_scale_rounds_to_nearest_ties_up(void **state)
{
    (void)state;
    const int8_t input[8] = {-3, -2, -1, 0, 1, 2, 3, 127};
    const int16_t m[8] = {1, 1, 1, 1, 1, 1, 1, INT16_MIN};
    const int64_t b[8] = {0};
    struct fixture f = begin(1, 1, 8, XN_DTYPE_I8);
    const uint32_t half = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 1, XN_DTYPE_I16);
    const uint32_t quarter = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 2, XN_DTYPE_I16);
    const uint32_t whole = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 0, XN_DTYPE_I16);
    run(&f, input);
    EXPECT(&f, half, -1, -1, 0, 0, 1, 1, 2, -32768);
    EXPECT(&f, quarter, -1, 0, 0, 0, 0, 1, 1, -32768);
    EXPECT(&f, whole, -3, -2, -1, 0, 1, 2, 3, -32768);
    end(&f);
}

static void test_scale_clamps_to_its_output(void **state)
{
    (void)state;
    const int8_t input[4] = {-128, 127, 1, -1};
    const int16_t m[4] = {2, 2, 1, 1};
    const int64_t b[4] = {0, 0, XN_SCALE_BIAS_MAX, -XN_SCALE_BIAS_MAX};
    struct fixture f = begin(1, 1, 4, XN_DTYPE_I8);
    const uint32_t u8 = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 0, XN_DTYPE_U8);
    const uint32_t i8 = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 0, XN_DTYPE_I8);
    const uint32_t i16 = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 0, XN_DTYPE_I16);
    const uint32_t deep = xn_writer_scale(f.writer, 0, XN_FORMAT_NONE, m, b, 30, XN_DTYPE_I16);
    run(&f, input);
    EXPECT(&f, u8, 0, 254, 255, 0);
    EXPECT(&f, i8, -128, 127, 127, -128);
    EXPECT(&f, i16, -256, 254, 32767, -32768);
    EXPECT(&f, deep, 0, 0, 32767, -32768); /* 2^46 >> 30 = 65536 */
    end(&f);
}

static void test_scale_adds_its_second_input_before_the_clamp(void **state)
{
    (void)state;
    const int8_t input[3] = {127, -128, 10};
    const int16_t m[3] = {300, 300, 3};
    const int64_t b[3] = {-30000, 0, 1};
    struct fixture f = begin(1, 1, 3, XN_DTYPE_I8);
    const uint32_t r = to_int16(&f, -256);
    const uint32_t y = xn_writer_scale(f.writer, 0, r, m, b, 1, XN_DTYPE_I16);
    run(&f, input);
    EXPECT(&f, r, -32512, 32767, -2560); /* 32768 does not fit */
    EXPECT(&f, y, -32512 + 4050, 32767 - 19200, -2560 + 16);
    end(&f);
}

static void test_scale_takes_accumulators_at_their_limit(void **state)
{
    (void)state;
    enum { ROWS = 4, N = 32 * 1024 }; /* 255 * 127 * 32768 is just below 2^30 */
    uint8_t *input = malloc(N);
    int8_t *w = malloc(ROWS * N);
    memset(input, 255, N);
    for (size_t i = 0; i < ROWS * N; i++)
        w[i] = i < 2 * N ? 127 : -127;
    const int16_t m[ROWS] = {INT16_MAX, INT16_MIN, INT16_MAX, INT16_MIN};
    const int64_t b[ROWS] = {XN_SCALE_BIAS_MAX, -XN_SCALE_BIAS_MAX, -XN_SCALE_BIAS_MAX, XN_SCALE_BIAS_MAX};
    struct fixture f = begin(32, 1024, 1, XN_DTYPE_U8);
    const uint32_t t = xn_writer_tensor(f.writer, XN_DTYPE_I8, 2, (const uint32_t[]){ROWS, N}, w);
    const uint32_t s = xn_writer_dense(f.writer, 0, t);
    const uint32_t y = xn_writer_scale(f.writer, s, XN_FORMAT_NONE, m, b, 30, XN_DTYPE_I16);
    const uint32_t z = xn_writer_scale(f.writer, s, XN_FORMAT_NONE, m, (const int64_t[ROWS]){0}, 30, XN_DTYPE_I16);
    run(&f, input);
    EXPECT(&f, s, 1061191680, 1061191680, -1061191680, -1061191680);
    EXPECT(&f, y, 32767, -32768, -32768, 32767);
    /* 1061191680 * 32767 / 2^30 = 32384.01..., * 32768 = 32385 exactly */
    EXPECT(&f, z, 32384, -32385, -32384, 32385);
    end(&f);
    free(input);
    free(w);
}

static void test_add_saturates(void **state)
{
    (void)state;
    const int8_t input[4] = {127, -128, 100, -1};
    struct fixture f = begin(1, 1, 4, XN_DTYPE_I8);
    const uint32_t x = to_int16(&f, 200), r = to_int16(&f, -200);
    const uint32_t twice = xn_writer_add(f.writer, x, x), zero = xn_writer_add(f.writer, x, r);
    run(&f, input);
    EXPECT(&f, twice, 32767, -32768, 32767, -400);
    EXPECT(&f, zero, 0, 0, 0, 0);
    end(&f);
}

static void test_rprelu(void **state)
{
    (void)state;
    const int8_t input[6] = {-128, -1, 0, 1, 127, -128};
    const int16_t a[6] = {INT16_MIN, 0, -3, -1, INT16_MAX, 0}, b[6] = {0, 0, 10, 7, INT16_MAX, INT16_MIN};
    const uint8_t k[6] = {15, 1, 2, 3, 0, 0};
    struct fixture f = begin(1, 1, 6, XN_DTYPE_I8);
    const uint32_t y = xn_writer_rprelu(f.writer, to_int16(&f, 256), a, k, b);
    run(&f, input);
    /* (-65536 >> 15), (-256 >> 1), (-3 >> 2) + 10, 255 + 7, saturated, saturated */
    EXPECT(&f, y, -2, -128, 9, 262, 32767, -32768);
    end(&f);
}

static void test_maxpool_leaves_out_what_is_outside(void **state)
{
    (void)state;
    const int8_t input[9] = {-9, -8, -7, -6, -5, -4, -3, -2, -1};
    struct fixture f = begin(3, 3, 1, XN_DTYPE_I8);
    const struct xn_writer_window top_left = {2, 2, 2, 2, 1, 1, 0, 0, XN_PAD_ZERO};
    const struct xn_writer_window all_round = {3, 3, 3, 3, 2, 2, 2, 2, XN_PAD_ZERO};
    const struct xn_writer_window subsample = {1, 1, 2, 2, 0, 0, 0, 0, XN_PAD_NONE};
    const uint32_t a = xn_writer_maxpool(f.writer, 0, &top_left), b = xn_writer_maxpool(f.writer, 0, &all_round);
    const uint32_t c = xn_writer_maxpool(f.writer, 0, &subsample);
    const uint32_t bits = to_bits(&f);
    const uint32_t d = xn_writer_maxpool(f.writer, bits, &top_left);
    const uint32_t e = xn_writer_maxpool(f.writer, to_int16(&f, 256), &top_left);
    run(&f, input);
    EXPECT(&f, a, -9, -7, -3, -1);
    EXPECT(&f, b, -9, -7, -3, -1);
    EXPECT(&f, c, -9, -7, -3, -1);
    EXPECT(&f, d, -1, -1, -1, -1);
    EXPECT(&f, e, -9 * 256, -7 * 256, -3 * 256, -256);
    end(&f);
}

static void test_maxpool_of_bits_is_an_or(void **state)
{
    (void)state;
    const int8_t input[8] = {-1, 1, -1, -1, -1, -1, 1, -1}; /* 2x2 pixels of 2 channels */
    const struct xn_writer_window window = {2, 2, 2, 2, 0, 0, 0, 0, XN_PAD_NONE};
    struct fixture f = begin(2, 2, 2, XN_DTYPE_I8);
    const uint32_t y = xn_writer_maxpool(f.writer, to_bits(&f), &window);
    run(&f, input);
    EXPECT(&f, y, 1, 1);
    end(&f);
}

static void test_avgpool_rounds_and_counts_padding_as_zero(void **state)
{
    (void)state;
    const int8_t input[4] = {-3, -3, -2, -2};
    const struct xn_writer_window mean = {2, 2, 2, 2, 0, 0, 0, 0, XN_PAD_NONE};
    const struct xn_writer_window padded = {2, 2, 1, 1, 1, 0, 0, 1, XN_PAD_ZERO};
    struct fixture f = begin(2, 2, 1, XN_DTYPE_I8);
    const uint32_t a = xn_writer_avgpool(f.writer, 0, &mean, 1, 2);
    const uint32_t b = xn_writer_avgpool(f.writer, 0, &padded, 1, 0);
    const uint32_t c = xn_writer_avgpool(f.writer, 0, &mean, 65536, 0);
    const uint32_t d = xn_writer_avgpool(f.writer, 0, &mean, 65536, 30);
    const uint32_t e = xn_writer_avgpool(f.writer, to_bits(&f), &mean, 3, 1);
    run(&f, input);
    EXPECT(&f, a, -2); /* -10/4 = -2.5, the tie goes up */
    EXPECT(&f, b, -6, -3, -10, -5);
    EXPECT(&f, c, -32768);
    EXPECT(&f, d, 0);
    EXPECT(&f, e, -6);
    end(&f);
}

static void test_global_avgpool(void **state)
{
    (void)state;
    const int8_t input[6] = {127, -128, 127, -128, 126, -127}; /* 3x1 pixels of 2 channels */
    struct fixture f = begin(3, 1, 2, XN_DTYPE_I8);
    const uint32_t x = to_int16(&f, 256);
    const uint32_t a = xn_writer_global_avgpool(f.writer, x, 1, 0, XN_DTYPE_I32);
    const uint32_t b = xn_writer_global_avgpool(f.writer, x, 1, 0, XN_DTYPE_I16);
    const uint32_t c = xn_writer_global_avgpool(f.writer, x, 10923, 15, XN_DTYPE_I16); /* a third */
    run(&f, input);
    EXPECT(&f, a, 380 * 256, -383 * 256);
    EXPECT(&f, b, 32767, -32768);
    EXPECT(&f, c, 32428, -32684);
    end(&f);
}

static void test_concat_puts_channels_side_by_side(void **state)
{
    (void)state;
    const int8_t input[4] = {1, -2, 3, -4}; /* 2 pixels of 2 channels */
    const struct xn_writer_window one = {1, 1, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    const int8_t w[2] = {10, 1};
    struct fixture f = begin(1, 2, 2, XN_DTYPE_I8);
    const uint32_t t = xn_writer_tensor(f.writer, XN_DTYPE_I8, 4, (const uint32_t[]){1, 1, 1, 2}, w);
    const uint32_t s = xn_writer_conv(f.writer, 0, t, &one, 1);
    const uint32_t n =
        xn_writer_scale(f.writer, s, XN_FORMAT_NONE, (const int16_t[]){1}, (const int64_t[]){0}, 0, XN_DTYPE_I8);
    const uint32_t y = xn_writer_concat(f.writer, (const uint32_t[]){0, n, 0}, 3);
    const uint32_t bits = to_bits(&f);
    const uint32_t z = xn_writer_concat(f.writer, (const uint32_t[]){bits, bits}, 2);
    run(&f, input);
    EXPECT(&f, y, 1, -2, 8, 1, -2, 3, -4, 26, 3, -4);
    EXPECT(&f, z, 1, -1, 1, -1, 1, -1, 1, -1);
    end(&f);
}

static void test_logits_at_the_limits_of_32_bits(void **state)
{
    (void)state;
    const int8_t input[4] = {-128, 127, 1, 0};
    const int32_t m[4] = {1 << 24, 1 << 24, 5, 0}, b[4] = {0, (1 << 24) - 1, -7, INT32_MIN};
    int32_t logits[4];
    struct fixture f = begin(1, 1, 4, XN_DTYPE_I8);
    xn_writer_logits(f.writer, to_int16(&f, 1), m, b, 0.5f, -1.0f);
    load(&f);
    xn_reference_run(f.reference, input, logits);
    assert_int_equal(logits[0], INT32_MIN);
    assert_int_equal(logits[1], INT32_MAX);
    assert_int_equal(logits[2], -2);
    assert_int_equal(logits[3], INT32_MIN);
    assert_int_equal(f.network->n_classes, 4);
    end(&f);
}

static void test_argmax_takes_the_lowest_of_ties(void **state)
{
    (void)state;
    assert_int_equal(xn_argmax((const int32_t[]){INT32_MIN}, 1), 0);
    assert_int_equal(xn_argmax((const int32_t[]){INT32_MIN, INT32_MIN}, 2), 0);
    assert_int_equal(xn_argmax((const int32_t[]){1, 7, 7, -3}, 4), 1);
    assert_int_equal(xn_argmax((const int32_t[]){-1, 0, INT32_MAX}, 3), 2);
}

/* ---- convolutions against a plainer formula -------------------------------------------------------------------- */

static uint32_t draw(struct xn_random *r, uint32_t low, uint32_t high)
{
    return (uint32_t)xn_random_between(r, low, high);
}

struct conv_case {
    uint32_t h, w, c, oc, groups;
    enum xn_dtype in, weights;
    struct xn_writer_window window;
    int8_t input[4096], filter[65536]; /* filter [oc][kh][kw][c/groups]; for bits >= 0 is +1 */
};

static struct xn_writer_window draw_window(struct xn_random *r, struct conv_case *t)
{
    struct xn_writer_window v = {.pad = (enum xn_pad)draw(r, XN_PAD_NONE, XN_PAD_ZERO)};
    if (v.pad == XN_PAD_MINUS_ONE && t->in != XN_DTYPE_BITS)
        v.pad = XN_PAD_ZERO;
    v.kernel_h = (uint8_t)draw(r, 1, 7);
    v.kernel_w = (uint8_t)draw(r, 1, 7);
    v.stride_h = (uint8_t)draw(r, 1, 2);
    v.stride_w = (uint8_t)draw(r, 1, 2);
    if (v.pad != XN_PAD_NONE) {
        v.pad_top = (uint8_t)draw(r, 0, v.kernel_h - 1u);
        v.pad_bottom = (uint8_t)draw(r, 0, v.kernel_h - 1u);
        v.pad_left = (uint8_t)draw(r, 0, v.kernel_w - 1u);
        v.pad_right = (uint8_t)draw(r, 0, v.kernel_w - 1u);
    }
    t->h = draw(r, (uint32_t)XN_MAX(1, v.kernel_h - v.pad_top - v.pad_bottom), 9);
    t->w = draw(r, (uint32_t)XN_MAX(1, v.kernel_w - v.pad_left - v.pad_right), 9);
    return v;
}

static void draw_case(struct xn_random *r, struct conv_case *t)
{
    static const enum xn_dtype inputs[] = {XN_DTYPE_BITS, XN_DTYPE_U8, XN_DTYPE_I8};
    t->in = inputs[draw(r, 0, 2)];
    t->weights = draw(r, 0, 1) ? XN_DTYPE_BITS : XN_DTYPE_I8;
    t->window = draw_window(r, t);
    const uint32_t per_group = draw(r, 1, 5);
    t->groups = draw(r, 0, 1) ? 1 : draw(r, 1, 6);
    t->c = per_group * t->groups;
    t->oc = draw(r, 1, 3) * t->groups;
    for (size_t i = 0; i < sizeof(t->input); i++)
        t->input[i] = (int8_t)draw(r, 0, 255);
    for (size_t i = 0; i < sizeof(t->filter); i++)
        t->filter[i] = (int8_t)draw(r, 0, 255);
}

static int32_t element(const struct conv_case *t, uint32_t y, uint32_t x, uint32_t c)
{
    const int8_t v = t->input[(y * t->w + x) * t->c + c];
    return t->in == XN_DTYPE_U8 ? (uint8_t)v : t->in == XN_DTYPE_I8 ? v : v >= 0 ? 1 : -1;
}

static int32_t plain_conv(const struct conv_case *t, uint32_t oy, uint32_t ox, uint32_t o)
{
    const struct xn_writer_window *v = &t->window;
    const uint32_t channels = t->c / t->groups, group = o / (t->oc / t->groups);
    int32_t s = 0;
    for (uint32_t ky = 0; ky < v->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < v->kernel_w; kx++) {
            const int32_t y = (int32_t)(oy * v->stride_h + ky) - v->pad_top,
                          x = (int32_t)(ox * v->stride_w + kx) - v->pad_left;
            const bool on_map = y >= 0 && y < (int32_t)t->h && x >= 0 && x < (int32_t)t->w;
            for (uint32_t i = 0; i < channels; i++) {
                const int8_t f = t->filter[((o * v->kernel_h + ky) * v->kernel_w + kx) * channels + i];
                const int32_t w = t->weights == XN_DTYPE_I8 ? f : f >= 0 ? 1 : -1;
                if (on_map)
                    s += w * element(t, (uint32_t)y, (uint32_t)x, group * channels + i);
                else if (v->pad == XN_PAD_MINUS_ONE)
                    s -= w;
            }
        }
    }
    return s;
}

static uint32_t add_filter(struct fixture *f, const struct conv_case *t)
{
    const uint32_t kh = t->window.kernel_h, kw = t->window.kernel_w, channels = t->c / t->groups;
    if (t->weights == XN_DTYPE_BITS)
        return xn_writer_bits(f->writer, t->oc, kh * kw * channels, t->filter);
    return xn_writer_tensor(f->writer, XN_DTYPE_I8, 4, (const uint32_t[]){t->oc, kh, kw, channels}, t->filter);
}

static void check_case(const struct conv_case *t)
{
    struct fixture f = begin(t->h, t->w, t->c, t->in == XN_DTYPE_U8 ? XN_DTYPE_U8 : XN_DTYPE_I8);
    const uint32_t x = t->in == XN_DTYPE_BITS ? to_bits(&f) : 0;
    const uint32_t id = xn_writer_conv(f.writer, x, add_filter(&f, t), &t->window, t->groups);
    run(&f, t->input);
    const struct xn_value *y = &f.network->values[id];
    const int32_t *got = xn_reference_value(f.reference, id);
    for (uint32_t oy = 0; oy < y->h; oy++)
        for (uint32_t ox = 0; ox < y->w; ox++)
            for (uint32_t o = 0; o < y->c; o++) {
                const int32_t s = got[(oy * y->w + ox) * y->c + o];
                assert_int_equal(s, plain_conv(t, oy, ox, o));
                assert_true(s >= y->min && s <= y->max);
            }
    end(&f);
}

static void test_random_convolutions(void **state)
{
    (void)state;
    struct xn_random r = {xn_random_seed((uint64_t)time(NULL))};
    struct conv_case *t = malloc(sizeof(*t));
    assert_non_null(t);
    for (int i = 0; i < 300; i++) {
        draw_case(&r, t);
        check_case(t);
    }
    free(t);
}

/* ---- the loader's proofs against what happens -------------------------------------------------------------------- */

static void check_bounds(const struct xn_network *network, const struct xn_reference *reference, uint64_t network_seed)
{
    for (uint32_t id = 0; id < network->n_values; id++) {
        const struct xn_value *v = &network->values[id];
        const int32_t *e = xn_reference_value(reference, id);
        for (size_t i = 0; i < (size_t)v->h * v->w * v->c; i++)
            if (e[i] < v->min || e[i] > v->max)
                fail_msg("network %llu, value %u: %d is not within %lld..%lld", (unsigned long long)network_seed, id,
                         e[i], (long long)v->min, (long long)v->max);
    }
}

static void test_random_networks_keep_their_bounds(void **state)
{
    (void)state;
    struct xn_random r = {xn_random_seed((uint64_t)time(NULL))};
    for (int i = 0; i < 60; i++) {
        const uint64_t network_seed = xn_random_next(&r);
        struct xn_network *network = xn_random_network(network_seed);
        struct xn_reference *reference = NULL;
        uint8_t *input = malloc(network->input_bytes);
        int32_t *logits = malloc(network->n_classes * sizeof(*logits));
        assert_true(input && logits && xn_reference_new(network, &reference) == 0);
        xn_random_bytes(&r, input, network->input_bytes);
        xn_reference_run(reference, input, logits);
        check_bounds(network, reference, network_seed);
        memset(input, 0x80, network->input_bytes); /* the lowest int8 */
        xn_reference_run(reference, input, logits);
        check_bounds(network, reference, network_seed);
        free(input);
        free(logits);
        xn_reference_free(reference);
        xn_network_free(network);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_bits_with_both_paddings),
        cmocka_unit_test(test_conv_is_not_flipped),
        cmocka_unit_test(test_conv_depthwise_keeps_channels_apart),
        cmocka_unit_test(test_dense_flattens_rows_first),
        cmocka_unit_test(test_threshold_is_greater_or_equal),
        cmocka_unit_test(test_scale_rounds_to_nearest_ties_up),
        cmocka_unit_test(test_scale_clamps_to_its_output),
        cmocka_unit_test(test_scale_adds_its_second_input_before_the_clamp),
        cmocka_unit_test(test_scale_takes_accumulators_at_their_limit),
        cmocka_unit_test(test_add_saturates),
        cmocka_unit_test(test_rprelu),
        cmocka_unit_test(test_maxpool_leaves_out_what_is_outside),
        cmocka_unit_test(test_maxpool_of_bits_is_an_or),
        cmocka_unit_test(test_avgpool_rounds_and_counts_padding_as_zero),
        cmocka_unit_test(test_global_avgpool),
        cmocka_unit_test(test_concat_puts_channels_side_by_side),
        cmocka_unit_test(test_logits_at_the_limits_of_32_bits),
        cmocka_unit_test(test_argmax_takes_the_lowest_of_ties),
        cmocka_unit_test(test_random_convolutions),
        cmocka_unit_test(test_random_networks_keep_their_bounds),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
