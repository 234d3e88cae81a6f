/* SPDX-License-Identifier: Apache-2.0
 * Sample networks; their weights are a fixed pattern. */
#include "tests/support/sample_networks.h"

struct xn_writer *xn_sample_tiny(void)
{
    const int32_t m[2] = {1, 1}, b[2] = {128, -128};
    struct xn_writer *w = xn_writer_new(1, 1, 1, XN_DTYPE_U8);
    xn_writer_meta(w, "{\"name\":\"tiny\",\"labels\":[\"dark\",\"light\"],\"input\":{\"image\":{\"color\":\"gray\"}}}");
    const uint32_t weights = xn_writer_tensor(w, XN_DTYPE_I8, 2, (const uint32_t[]){2, 1}, (const int8_t[]){-1, 1});
    const uint32_t sums = xn_writer_dense(w, 0, weights);
    xn_writer_name(w, "sums");
    xn_writer_logits(w, sums, m, b, 0.0078125f, 0.0f);
    xn_writer_name(w, "classes");
    return w;
}

static const struct xn_writer_window same_3x3 = {3, 3, 1, 1, 1, 1, 1, 1, XN_PAD_ZERO};
static const struct xn_writer_window half_2x2 = {2, 2, 2, 2, 0, 0, 0, 0, XN_PAD_NONE};

static void fill(int8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (int8_t)(i * 37 + 11);
}

/* The int16 part of the network, from the accumulators `s` of CONV. Returns the value of CONCAT. */
static uint32_t add_stream(struct xn_writer *w, uint32_t s)
{
    const int16_t m[8] = {100, -100, 1, 32767, -32768, 0, 7, 9}, a[8] = {-5, 5, 0, 1, 2, 3, 4, -32768};
    const int64_t b[8] = {1, -1, XN_SCALE_BIAS_MAX, -XN_SCALE_BIAS_MAX, 0, 0, 0, 0};
    const uint8_t k[8] = {0, 1, 2, 3, 4, 5, 6, 15};
    const uint32_t h = xn_writer_scale(w, s, XN_FORMAT_NONE, m, b, 4, XN_DTYPE_I16);
    const uint32_t r = xn_writer_scale(w, s, h, m, b, 30, XN_DTYPE_I16);
    const uint32_t sum = xn_writer_add(w, h, r);
    const uint32_t y = xn_writer_rprelu(w, sum, a, k, a);
    const uint32_t max = xn_writer_maxpool(w, y, &half_2x2), mean = xn_writer_avgpool(w, y, &half_2x2, 1, 2);
    return xn_writer_concat(w, (const uint32_t[]){max, mean}, 2);
}

struct xn_writer *xn_sample_every_op(void)
{
    int8_t data[8 * 27 + 5 * 256];
    int32_t t[16] = {0}, ones[5] = {1, 2, 3, 4, 5};
    struct xn_writer_window minus = same_3x3;
    minus.pad = XN_PAD_MINUS_ONE;
    fill(data, sizeof(data));
    struct xn_writer *w = xn_writer_new(8, 8, 3, XN_DTYPE_U8);
    xn_writer_meta(w, XN_SAMPLE_META);
    const uint32_t stem = xn_writer_tensor(w, XN_DTYPE_I8, 4, (const uint32_t[]){8, 3, 3, 3}, data);
    const uint32_t filters = xn_writer_bits(w, 8, 36, data);
    const uint32_t bits = xn_writer_threshold(w, xn_writer_conv(w, 0, stem, &same_3x3, 1), t);
    const uint32_t s = xn_writer_conv(w, bits, filters, &minus, 2);
    xn_writer_name(w, "grouped");
    const uint32_t stream = add_stream(w, s);
    const uint32_t flat = xn_writer_threshold(w, stream, t);
    xn_writer_global_avgpool(w, stream, 3, 1, XN_DTYPE_I32);
    const uint32_t z = xn_writer_dense(w, flat, xn_writer_bits(w, 5, 256, data));
    xn_writer_logits(w, z, ones, ones, 0.25f, 1.0f);
    xn_writer_name(w, "answer");
    return w;
}
