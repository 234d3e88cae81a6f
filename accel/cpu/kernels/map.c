/* SPDX-License-Identifier: Apache-2.0
 * Whole maps: pooling, and widening of bytes and bits to the int16 that the integer convolutions read. Channels are innermost, so
 * every loop over them is long and without branches.
 */
#include "accel/cpu/kernels/level.h"

void XN_LEVEL(widen)(int16_t *restrict dst, const void *src, enum xn_dtype dtype, size_t n)
{
    if (dtype == XN_DTYPE_U8) {
        const uint8_t *restrict s = src;
        for (size_t i = 0; i < n; i++)
            dst[i] = s[i];
    } else {
        const int8_t *restrict s = src;
        for (size_t i = 0; i < n; i++)
            dst[i] = s[i];
    }
}

void XN_LEVEL(widen_bits)(int16_t *restrict dst, const uint64_t *src, size_t first, size_t n)
{
    for (size_t done = 0; done < n; done += 64) {
        uint32_t some = (uint32_t)XN_MIN(n - done, 64);
        uint64_t word = xn_bits_get(src, first + done, some);
        for (uint32_t i = 0; i < some; i++)
            dst[done + i] = (int16_t)(2 * (int)(word >> i & 1) - 1);
    }
}

/** The part of one pool's window that lies on the map. */
struct window {
    uint32_t y0, y1, x0, x1;
};

static struct window window_at(const struct xn_cpu_pool *pool, uint32_t oy, uint32_t ox)
{
    int64_t y = (int64_t)oy * pool->stride_h - pool->pad_top, x = (int64_t)ox * pool->stride_w - pool->pad_left;
    return (struct window){(uint32_t)XN_MAX(y, 0), (uint32_t)XN_MIN(y + pool->kernel_h, (int64_t)pool->in_h),
                           (uint32_t)XN_MAX(x, 0), (uint32_t)XN_MIN(x + pool->kernel_w, (int64_t)pool->in_w)};
}

/** One output pixel of a max pool: the first tap copied, the others merged with `MERGE(a, b)`. `n` elements of `type` a pixel. */
#define MAX_PIXEL(name, type, MERGE)                                                                                   \
    static void name(type *restrict out, const type *in, const struct window *w, uint32_t in_w, size_t n)              \
    {                                                                                                                  \
        memcpy(out, in + ((size_t)w->y0 * in_w + w->x0) * n, n * sizeof(type));                                        \
        for (uint32_t y = w->y0; y < w->y1; y++)                                                                       \
            for (uint32_t x = w->x0; x < w->x1; x++) {                                                                 \
                const type *restrict tap = in + ((size_t)y * in_w + x) * n;                                            \
                for (size_t i = 0; i < n; i++)                                                                         \
                    out[i] = MERGE(out[i], tap[i]);                                                                    \
            }                                                                                                          \
    }
#define OR(a, b) ((a) | (b))
MAX_PIXEL(max_bits, uint64_t, OR)
MAX_PIXEL(max_u8, uint8_t, XN_MAX)
MAX_PIXEL(max_i8, int8_t, XN_MAX)
MAX_PIXEL(max_i16, int16_t, XN_MAX)

void XN_LEVEL(max_pool)(const struct xn_cpu_pool *pool)
{
    const size_t words = xn_div_up(pool->c, 64), c = pool->c;
    size_t pixel = 0;

    for (uint32_t oy = 0; oy < pool->out_h; oy++)
        for (uint32_t ox = 0; ox < pool->out_w; ox++, pixel++) {
            struct window w = window_at(pool, oy, ox);
            switch (pool->dtype) {
            case XN_DTYPE_BITS:
                max_bits((uint64_t *)pool->out + pixel * words, pool->in, &w, pool->in_w, words);
                break;
            case XN_DTYPE_U8:
                max_u8((uint8_t *)pool->out + pixel * c, pool->in, &w, pool->in_w, c);
                break;
            case XN_DTYPE_I8:
                max_i8((int8_t *)pool->out + pixel * c, pool->in, &w, pool->in_w, c);
                break;
            default:
                max_i16((int16_t *)pool->out + pixel * c, pool->in, &w, pool->in_w, c);
                break;
            }
        }
}

#define SUM_TAP(name, type)                                                                                            \
    static void name(int32_t *restrict sums, const void *in, size_t pixel, uint32_t c)                                 \
    {                                                                                                                  \
        const type *restrict tap = (const type *)in + pixel * c;                                                       \
        for (uint32_t i = 0; i < c; i++)                                                                               \
            sums[i] += tap[i];                                                                                         \
    }
SUM_TAP(sum_u8, uint8_t)
SUM_TAP(sum_i8, int8_t)
SUM_TAP(sum_i16, int16_t)

/** Adds +1 or -1; unused bits of the last word count in lanes that nobody reads. */
static void sum_bits(int32_t *restrict sums, const void *in, size_t pixel, uint32_t c)
{
    const size_t words = xn_div_up(c, 64);
    const uint64_t *tap = (const uint64_t *)in + pixel * words;
    for (size_t w = 0; w < words; w++)
        for (uint32_t i = 0; i < 64; i++)
            sums[64 * w + i] += 2 * (int32_t)(tap[w] >> i & 1) - 1;
}

static void average_store(const struct xn_cpu_pool *pool, size_t pixel)
{
    const int64_t multiplier = pool->multiplier;
    const int64_t half = pool->shift ? INT64_C(1) << (pool->shift - 1) : 0;

    for (uint32_t i = 0; i < pool->c; i++) {
        int64_t x = (pool->sums[i] * multiplier + half) >> pool->shift;
        if (pool->out_dtype == XN_DTYPE_I16)
            ((int16_t *)pool->out)[pixel * pool->c + i] = (int16_t)XN_MAX(XN_MIN(x, INT16_MAX), INT16_MIN);
        else
            ((int32_t *)pool->out)[pixel * pool->c + i] = (int32_t)XN_MAX(XN_MIN(x, INT32_MAX), INT32_MIN);
    }
}

void XN_LEVEL(average_pool)(const struct xn_cpu_pool *pool)
{
    void (*sum)(int32_t *, const void *, size_t, uint32_t) = pool->dtype == XN_DTYPE_BITS ? sum_bits
                                                             : pool->dtype == XN_DTYPE_U8 ? sum_u8
                                                             : pool->dtype == XN_DTYPE_I8 ? sum_i8
                                                                                          : sum_i16;
    size_t pixel = 0;

    for (uint32_t oy = 0; oy < pool->out_h; oy++)
        for (uint32_t ox = 0; ox < pool->out_w; ox++, pixel++) {
            struct window w = window_at(pool, oy, ox);
            memset(pool->sums, 0, xn_align_up(pool->c, XN_CPU_CHUNK) * sizeof(*pool->sums));
            for (uint32_t y = w.y0; y < w.y1; y++)
                for (uint32_t x = w.x0; x < w.x1; x++)
                    sum(pool->sums, pool->in, (size_t)y * pool->in_w + x, pool->c);
            average_store(pool, pixel);
        }
}
