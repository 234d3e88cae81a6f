/* SPDX-License-Identifier: Apache-2.0
 * Antialiased bilinear resize in fixed point: the arithmetic of Pillow's BILINEAR, so that what the daemon feeds a network is what
 * training fed it, byte for byte. An output pixel at position c = (i + 1/2) * scale is the mean of the inputs within max(scale, 1) of c, weighted by a
 * triangle; the weights are computed in double, normalised, and rounded to 22 bits. Rows are resized horizontally as they come and kept while an output needs them, so
 * that memory is proportional to the output and to the scale, not to the picture. first[] and the last tap both grow with the output, so outputs are complete in
 * order. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "daemon/image/internal.h"

#define PRECISION_BITS 22
#define ROUND          (1 << (PRECISION_BITS - 1))
/* Scratch beyond this is given back after each picture. */
#define SCRATCH_KEEP_BYTES (UINT64_C(1) << 20)

void *xn_scratch_take(struct xn_scratch *scratch, size_t bytes)
{
    if (XN_FAULT("image.scratch"))
        return NULL;
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
    for (uint32_t i = 0; i < out; i++)
        fill_output(axis, i, scale, reach, line);
    return 0;
}

static uint32_t most_taps(const struct xn_axis *axis)
{
    uint32_t most = 1;

    for (uint32_t i = 0; i < axis->out; i++)
        most = XN_MAX(most, axis->taps[i]);
    return most;
}

int xn_resize_begin(struct xn_resize *resize, uint32_t in_w, uint32_t in_h, uint32_t out_w, uint32_t out_h,
                    uint32_t channels, uint8_t *out, size_t out_stride)
{
    size_t row_elements = (size_t)out_w * channels;
    int r = axis_begin(&resize->x, in_w, out_w);

    if (r >= 0)
        r = axis_begin(&resize->y, in_h, out_h);
    if (r < 0)
        return r;
    resize->channels = channels;
    resize->window = most_taps(&resize->y);
    resize->next_in = resize->next_out = 0;
    resize->out = out;
    resize->out_stride = out_stride;
    return xn_scratch_take(&resize->memory, row_elements * (sizeof(int32_t) + resize->window)) ? 0 : -ENOMEM;
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> PRECISION_BITS;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* `channels` is a constant where this is inlined. */
static inline void resize_line(const struct xn_axis *axis, const uint8_t *row, uint32_t channels, uint8_t *out)
{
    for (uint32_t i = 0; i < axis->out; i++) {
        const int32_t *weight = axis->weight + (size_t)i * axis->stride;
        const uint8_t *in = row + (size_t)axis->first[i] * channels;
        int32_t sum[3] = {ROUND, ROUND, ROUND};
        for (uint32_t k = 0; k < axis->taps[i]; k++) {
            for (uint32_t c = 0; c < channels; c++)
                sum[c] += *in++ * weight[k];
        }
        for (uint32_t c = 0; c < channels; c++)
            *out++ = clip(sum[c]);
    }
}

static uint8_t *held_row(const struct xn_resize *resize, uint32_t y)
{
    size_t row_elements = (size_t)resize->x.out * resize->channels;
    uint8_t *rows = (uint8_t *)((int32_t *)resize->memory.data + row_elements);

    return rows + (y % resize->window) * row_elements;
}

/* Output row `y` from the rows held. */
static void emit(struct xn_resize *resize, uint32_t y)
{
    const struct xn_axis *axis = &resize->y;
    const int32_t *weight = axis->weight + (size_t)y * axis->stride;
    size_t row_elements = (size_t)resize->x.out * resize->channels;
    int32_t *sum = resize->memory.data;
    uint8_t *out = resize->out + y * resize->out_stride;

    for (size_t i = 0; i < row_elements; i++)
        sum[i] = ROUND;
    for (uint32_t k = 0; k < axis->taps[y]; k++) {
        const uint8_t *row = held_row(resize, axis->first[y] + k);
        for (size_t i = 0; i < row_elements; i++)
            sum[i] += row[i] * weight[k];
    }
    for (size_t i = 0; i < row_elements; i++)
        out[i] = clip(sum[i]);
}

void xn_resize_row(struct xn_resize *resize, const uint8_t *row)
{
    uint8_t *held = held_row(resize, resize->next_in++);

    if (resize->x.in == resize->x.out)
        memcpy(held, row, (size_t)resize->x.in * resize->channels);
    else if (resize->channels == 1)
        resize_line(&resize->x, row, 1, held);
    else
        resize_line(&resize->x, row, 3, held);
    const struct xn_axis *y = &resize->y;
    while (resize->next_out < y->out && y->first[resize->next_out] + y->taps[resize->next_out] <= resize->next_in)
        emit(resize, resize->next_out++);
}
