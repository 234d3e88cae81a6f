/* SPDX-License-Identifier: Apache-2.0
 * Whole maps: pooling, what integer convolutions read instead of bytes and bits, and sums of popcounts. Channels are innermost, so
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

void XN_LEVEL(offset)(uint8_t *restrict dst, const void *src, enum xn_dtype dtype, size_t n)
{
    const uint8_t *restrict s = src;
    const uint8_t sign = dtype == XN_DTYPE_I8 ? 0x80 : 0;
    for (size_t i = 0; i < n; i++)
        dst[i] = s[i] ^ sign; /* which adds 128 */
}

uint32_t XN_LEVEL(count_pairs)(const uint64_t *words, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += map_pair_count(words[i]);
    return count;
}

/* Windows that go together: not more than what one vector holds where the compiler would keep two of them in memory. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define BLOCK 8u
#else
#define BLOCK 16u
#endif
typedef int32_t block __attribute__((vector_size(4 * BLOCK)));
typedef uint8_t block_bytes __attribute__((vector_size(BLOCK)));

/** Windows x..x+BLOCK-1 side by side. */
XN_INLINE void start_block(const struct xn_cpu_pairs *row, uint32_t x)
{
    const int32_t *counts = row->counts + x;
    block sums = {0}, classes, init;
    block_bytes bytes;

    for (uint32_t y = 0; y < row->rows; y++, counts += row->pitch)
        for (uint32_t k = 0; k < row->columns; k++) {
            block taps;
            memcpy(&taps, counts + k, sizeof(taps));
            sums += taps;
        }
    memcpy(&bytes, row->column_class + x, sizeof(bytes));
    classes = 2 * (__builtin_convertvector(bytes, block) + (int32_t)row->class) + (sums & 1);
    init = sums >> 1;
    memcpy(row->init + x, &init, sizeof(init));
    memcpy(row->class_row + x, &classes, sizeof(classes));
}

static void start_one(const struct xn_cpu_pairs *row, uint32_t x)
{
    const int32_t *counts = row->counts + (size_t)x * row->stride;
    int32_t sum = 0;

    for (uint32_t y = 0; y < row->rows; y++, counts += row->pitch)
        for (uint32_t k = 0; k < row->columns; k++)
            sum += counts[k];
    row->init[x] = sum >> 1;
    row->class_row[x] = 2 * (row->class + row->column_class[x]) + ((uint32_t)sum & 1);
}

void XN_LEVEL(start_pairs)(const struct xn_cpu_pairs *row)
{
    uint32_t x = 0;

    if (row->stride == 1 && row->n >= BLOCK) {
        for (; x + BLOCK <= row->n; x += BLOCK)
            start_block(row, x);
        start_block(row, row->n - BLOCK); /* some of them again */
        return;
    }
    for (; x < row->n; x++)
        start_one(row, x);
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

/** Elements from..from+n-1 of one output pixel of a max pool: the taps merged with `MERGE(a, b)`; `c` elements of `type` a pixel. Whole chunks
 *  stay in registers. */
#define MAX_PIXEL(name, type, LOAD, MERGE)                                                                             \
    XN_INLINE void name##_some(type *restrict out, const type *in, const struct window *w, uint32_t pitch, size_t c,   \
                               const size_t n)                                                                         \
    {                                                                                                                  \
        type best[CHUNK];                                                                                              \
        const type *restrict first = in + ((size_t)w->y0 * pitch + w->x0) * c;                                         \
        for (size_t i = 0; i < n; i++)                                                                                 \
            best[i] = LOAD(first[i]);                                                                                  \
        for (uint32_t y = w->y0; y < w->y1; y++)                                                                       \
            for (uint32_t x = w->x0; x < w->x1; x++) {                                                                 \
                const type *restrict tap = in + ((size_t)y * pitch + x) * c;                                           \
                for (size_t i = 0; i < n; i++)                                                                         \
                    best[i] = MERGE(best[i], LOAD(tap[i]));                                                            \
            }                                                                                                          \
        for (size_t i = 0; i < n; i++)                                                                                 \
            out[i] = best[i];                                                                                          \
    }                                                                                                                  \
    static void name(type *out, const type *in, const struct window *w, uint32_t pitch, size_t c)                      \
    {                                                                                                                  \
        size_t at = 0;                                                                                                 \
        for (; at + CHUNK <= c; at += CHUNK)                                                                           \
            name##_some(out + at, in + at, w, pitch, c, CHUNK);                                                        \
        if (at < c)                                                                                                    \
            name##_some(out + at, in + at, w, pitch, c, c - at);                                                       \
    }
#define CHUNK    XN_CPU_CHUNK
#define OR(a, b) ((a) | (b))
#define SAME(a)  (a)
MAX_PIXEL(or_bits, uint64_t, map_word, OR)
MAX_PIXEL(max_u8, uint8_t, SAME, XN_MAX)
MAX_PIXEL(max_i8, int8_t, SAME, XN_MAX)
MAX_PIXEL(max_i16, int16_t, SAME, XN_MAX)

static void max_bits(const struct xn_cpu_pool *pool, const struct window *w, size_t pixel)
{
    const size_t words = xn_div_up(pool->c, 64);
    uint64_t *out = (uint64_t *)pool->out + pixel * words;

    or_bits(out, pool->in, w, pool->in_pitch, words);
    if (pool->counts)
        pool->counts[pixel] = 0;
    for (size_t i = 0; i < words; i++) {
        if (pool->counts)
            pool->counts[pixel] += (int32_t)pair_count(out[i]);
        out[i] = map_word(out[i]);
    }
}

void XN_LEVEL(max_pool)(const struct xn_cpu_pool *pool)
{
    const size_t c = pool->c;

    for (uint32_t oy = pool->y0; oy < pool->y1; oy++)
        for (uint32_t ox = 0; ox < pool->out_w; ox++) {
            const struct window w = window_at(pool, oy, ox);
            const size_t pixel = (size_t)oy * pool->out_pitch + ox;
            switch (pool->dtype) {
            case XN_DTYPE_BITS:
                max_bits(pool, &w, pixel);
                break;
            case XN_DTYPE_U8:
                max_u8((uint8_t *)pool->out + pixel * c, pool->in, &w, pool->in_pitch, c);
                break;
            case XN_DTYPE_I8:
                max_i8((int8_t *)pool->out + pixel * c, pool->in, &w, pool->in_pitch, c);
                break;
            default:
                max_i16((int16_t *)pool->out + pixel * c, pool->in, &w, pool->in_pitch, c);
                break;
            }
        }
}

/* ---- averages, a chunk of channels at a time --------------------------------------------------------------------------- */

#define SUM_TAP(name, type)                                                                                            \
    XN_INLINE void name(int32_t *restrict sums, const void *in, size_t at, const uint32_t n)                           \
    {                                                                                                                  \
        const type *restrict tap = (const type *)in + at;                                                              \
        if (n == CHUNK)                                                                                                \
            for (uint32_t i = 0; i < CHUNK; i++)                                                                       \
                sums[i] += tap[i];                                                                                     \
        else                                                                                                           \
            for (uint32_t i = 0; i < n; i++)                                                                           \
                sums[i] += tap[i];                                                                                     \
    }
SUM_TAP(sum_u8, uint8_t)
SUM_TAP(sum_i8, int8_t)
SUM_TAP(sum_i16, int16_t)

/** Adds +1 or -1; unused bits of the last word count in lanes that nobody reads. */
static void sum_word(int32_t *restrict sums, uint64_t word)
{
    for (uint32_t i = 0; i < 64; i++)
        sums[i] += 2 * (int32_t)(word >> i & 1) - 1;
}

/** Channels c0..c0+n-1 of one tap. */
static void sum_tap(const struct xn_cpu_pool *pool, int32_t *sums, size_t pixel, uint32_t c0, uint32_t n)
{
    switch (pool->dtype) {
    case XN_DTYPE_BITS:
        sum_word(sums, map_word(((const uint64_t *)pool->in)[pixel * xn_div_up(pool->c, 64) + c0 / 64]));
        break;
    case XN_DTYPE_U8:
        sum_u8(sums, pool->in, pixel * pool->c + c0, n);
        break;
    case XN_DTYPE_I8:
        sum_i8(sums, pool->in, pixel * pool->c + c0, n);
        break;
    default:
        sum_i16(sums, pool->in, pixel * pool->c + c0, n);
        break;
    }
}

/** Do sum * multiplier + half stay within 32 bits, for every sum there can be? */
static bool fits_32(const struct xn_cpu_pool *pool)
{
    const int64_t sum = INT64_C(32768) * pool->kernel_h * pool->kernel_w;
    return sum * pool->multiplier + (INT64_C(1) << pool->shift) <= INT32_MAX;
}

static void average_store_16(const struct xn_cpu_pool *pool, const int32_t *restrict sums, size_t at, uint32_t n)
{
    const int32_t multiplier = pool->multiplier, half = pool->shift ? 1 << (pool->shift - 1) : 0;
    int16_t *restrict out = (int16_t *)pool->out + at;
    int16_t means[CHUNK];

    for (uint32_t i = 0; i < CHUNK; i++) {
        const int32_t x = (sums[i] * multiplier + half) >> pool->shift;
        means[i] = (int16_t)XN_MAX(XN_MIN(x, INT16_MAX), INT16_MIN);
    }
    memcpy(out, means, n * sizeof(*means));
}

static void average_store(const struct xn_cpu_pool *pool, const int32_t *restrict sums, size_t at, uint32_t n)
{
    const int64_t multiplier = pool->multiplier;
    const int64_t half = pool->shift ? INT64_C(1) << (pool->shift - 1) : 0;

    for (uint32_t i = 0; i < n; i++) {
        int64_t x = (sums[i] * multiplier + half) >> pool->shift;
        if (pool->out_dtype == XN_DTYPE_I16)
            ((int16_t *)pool->out)[at + i] = (int16_t)XN_MAX(XN_MIN(x, INT16_MAX), INT16_MIN);
        else
            ((int32_t *)pool->out)[at + i] = (int32_t)XN_MAX(XN_MIN(x, INT32_MAX), INT32_MIN);
    }
}

void XN_LEVEL(average_pool)(const struct xn_cpu_pool *pool)
{
    const bool narrow = pool->out_dtype == XN_DTYPE_I16 && fits_32(pool);

    for (uint32_t oy = pool->y0; oy < pool->y1; oy++)
        for (uint32_t ox = 0; ox < pool->out_w; ox++) {
            const struct window w = window_at(pool, oy, ox);
            for (uint32_t c0 = 0; c0 < pool->c; c0 += XN_CPU_CHUNK) {
                const uint32_t n = XN_MIN(pool->c - c0, XN_CPU_CHUNK);
                int32_t sums[XN_CPU_CHUNK] = {0};
                for (uint32_t y = w.y0; y < w.y1; y++)
                    for (uint32_t x = w.x0; x < w.x1; x++)
                        sum_tap(pool, sums, (size_t)y * pool->in_pitch + x, c0, n);
                (narrow ? average_store_16 : average_store)(pool, sums,
                                                            ((size_t)oy * pool->out_pitch + ox) * pool->c + c0, n);
            }
        }
}
