/* SPDX-License-Identifier: Apache-2.0
 * Antialiased bilinear resize in fixed point: the arithmetic of Pillow's BILINEAR, so that what the daemon feeds a network is what
 * training fed it, byte for byte. An output pixel at position c = (i + 1/2) * scale is the mean of the inputs within max(scale, 1) of c, weighted by a
 * triangle; the weights are computed in double, normalised, and rounded to 22 bits. Rows are resized horizontally as they come, so that a large picture is
 * never held as a whole. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/image/internal.h"

#define PRECISION_BITS 22
/* Scratch beyond this is given back after each picture. */
#define SCRATCH_KEEP_BYTES (UINT64_C(1) << 20)

void *xn_scratch_take(struct xn_scratch *scratch, size_t bytes)
{
    if (bytes > scratch->bytes) {
        free(scratch->data);
        scratch->data = malloc(bytes);
        scratch->bytes = scratch->data ? bytes : 0;
    }
    return scratch->data;
}

void xn_scratch_trim(struct xn_scratch *scratch, bool all)
{
    if (!all && scratch->bytes <= SCRATCH_KEEP_BYTES)
        return;
    free(scratch->data);
    *scratch = (struct xn_scratch){0};
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* First input, number of inputs, and normalised weights of output `i`. */
static void fill_output(struct xn_axis *axis, uint32_t i, double scale, double reach, double *weights)
{
    double centre = (i + 0.5) * scale, sum = 0.0;
    double low = centre - reach + 0.5, high = centre + reach + 0.5;
    uint32_t first = low > 0 ? (uint32_t)low : 0;
    uint32_t end = high < axis->in ? (uint32_t)high : axis->in;

    for (uint32_t k = 0; k < end - first; k++) {
        weights[k] = triangle((k + first - centre + 0.5) * (1.0 / reach));
        sum += weights[k];
    }
    axis->first[i] = first;
    axis->taps[i] = end - first;
    for (uint32_t k = 0; k < end - first; k++) {
        double w = sum != 0.0 ? weights[k] / sum : weights[k];
        axis->weight[(size_t)i * axis->stride + k] = (int32_t)(0.5 + w * (1 << PRECISION_BITS));
    }
}

static int axis_begin(struct xn_axis *axis, uint32_t in, uint32_t out)
{
    double scale = (double)in / out, reach = scale < 1.0 ? 1.0 : scale;
    uint32_t stride = (uint32_t)ceil(reach) * 2 + 1;
    size_t weights = (size_t)out * stride;
    uint8_t *memory = xn_scratch_take(&axis->memory,
                                      stride * sizeof(double) + 2 * out * sizeof(uint32_t) + weights * sizeof(int32_t));

    if (!memory)
        return -ENOMEM;
    double *line = (double *)(void *)memory;
    axis->first = (uint32_t *)(void *)(line + stride);
    axis->taps = axis->first + out;
    axis->weight = (int32_t *)(void *)(axis->taps + out);
    axis->in = in;
    axis->out = out;
    axis->stride = stride;
    for (uint32_t i = 0; i < out && in != out; i++)
        fill_output(axis, i, scale, reach, line);
    return 0;
}

int xn_resize_begin(struct xn_resize *resize, uint32_t in_w, uint32_t in_h, uint32_t out_w, uint32_t out_h,
                    uint32_t channels)
{
    int r = axis_begin(&resize->x, in_w, out_w);

    if (r >= 0)
        r = axis_begin(&resize->y, in_h, out_h);
    if (r < 0)
        return r;
    resize->channels = channels;
    return xn_scratch_take(&resize->memory, (size_t)in_h * out_w * channels) ? 0 : -ENOMEM;
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> PRECISION_BITS;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

void xn_resize_row(struct xn_resize *resize, uint32_t y, const uint8_t *row)
{
    const struct xn_axis *axis = &resize->x;
    uint32_t channels = resize->channels;
    uint8_t *out = (uint8_t *)resize->memory.data + (size_t)y * axis->out * channels;

    if (axis->in == axis->out) {
        memcpy(out, row, (size_t)axis->in * channels);
        return;
    }
    for (uint32_t i = 0; i < axis->out; i++) {
        const int32_t *weight = axis->weight + (size_t)i * axis->stride;
        for (uint32_t c = 0; c < channels; c++) {
            const uint8_t *in = row + (size_t)axis->first[i] * channels + c;
            int32_t sum = 1 << (PRECISION_BITS - 1);
            for (uint32_t k = 0; k < axis->taps[i]; k++)
                sum += in[(size_t)k * channels] * weight[k];
            *out++ = clip(sum);
        }
    }
}

void xn_resize_result(const struct xn_resize *resize, uint32_t y, uint8_t *ret_row)
{
    const struct xn_axis *axis = &resize->y;
    size_t row_bytes = (size_t)resize->x.out * resize->channels;
    const uint8_t *rows = resize->memory.data;

    if (axis->in == axis->out) {
        memcpy(ret_row, rows + y * row_bytes, row_bytes);
        return;
    }
    const int32_t *weight = axis->weight + (size_t)y * axis->stride;
    const uint8_t *first = rows + axis->first[y] * row_bytes;
    for (size_t i = 0; i < row_bytes; i++) {
        int32_t sum = 1 << (PRECISION_BITS - 1);
        for (uint32_t k = 0; k < axis->taps[y]; k++)
            sum += first[k * row_bytes + i] * weight[k];
        ret_row[i] = clip(sum);
    }
}
