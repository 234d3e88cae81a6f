/* SPDX-License-Identifier: Apache-2.0
 * What follows a convolution, and every chain of element-wise layers: rows of numbers, 64 channels at a time, go through the
 * stages of a chain. The 64 numbers stay in L1 in one aligned array; each stage is one loop of known length over it, which the
 * compiler vectorises. Intermediate values never reach memory, but where a STORE or BITS stage says so.
 *
 * Parameters are padded to whole chunks, so that the loops have no tail; what comes from and goes to maps ([pixel][c], packed) is
 * exactly c long. Lanes past c start as 0.
 */
#include "accel/cpu/kernels/level.h"

#define CHUNK XN_CPU_CHUNK

XN_INLINE int32_t clamp(int32_t x, int32_t min, int32_t max)
{
    return x < min ? min : x > max ? max : x;
}

/** v[i] = src[i] for i < n, 0 for the rest of the chunk. */
#define WIDEN_CHUNK(v, src, n)                                                                                         \
    do {                                                                                                               \
        if ((n) == CHUNK)                                                                                              \
            for (uint32_t i_ = 0; i_ < CHUNK; i_++)                                                                    \
                (v)[i_] = (src)[i_];                                                                                   \
        else                                                                                                           \
            for (uint32_t i_ = 0; i_ < CHUNK; i_++)                                                                    \
                (v)[i_] = i_ < (n) ? (src)[i_] : 0;                                                                    \
    } while (0)

#define NARROW_CHUNK(dst, type, v, n)                                                                                  \
    do {                                                                                                               \
        if ((n) == CHUNK)                                                                                              \
            for (uint32_t i_ = 0; i_ < CHUNK; i_++)                                                                    \
                (dst)[i_] = (type)(v)[i_];                                                                             \
        else                                                                                                           \
            for (uint32_t i_ = 0; i_ < (n); i_++)                                                                      \
                (dst)[i_] = (type)(v)[i_];                                                                             \
    } while (0)

/** Counts of a chunk, channels in order. */
static void load_counts(int32_t *restrict v, const int32_t *restrict counts, uint32_t n)
{
#if defined(__AVX512BW__)
    /* The order of kernels/pairs512.h: quarters of 4 channels alternate between the two vectors of a block. */
    for (uint32_t half = 0; half < CHUNK; half += 32)
        for (uint32_t j = 0; j < 32; j++)
            v[half + j] = half + j < n ? counts[half + j % 8 / 4 * 16 + j / 8 * 4 + j % 4] : 0;
#elif defined(__AVX2__)
    /* The order of kernels/pairs256.h: quarters of 4 channels alternate between the two vectors of a block. */
    for (uint32_t i = 0; i < CHUNK; i += 16) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(counts + i));
        const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(counts + i + 8));
        _mm256_store_si256((__m256i *)(void *)(v + i), _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_store_si256((__m256i *)(void *)(v + i + 8), _mm256_permute2x128_si256(low, high, 0x31));
    }
    if (n < CHUNK)
        memset(v + n, 0, (CHUNK - n) * sizeof(*v));
#else
    WIDEN_CHUNK(v, counts, n);
#endif
}

static void load_sums(int32_t *restrict v, const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows,
                      uint32_t row)
{
    const uint8_t *data = (const uint8_t *)rows->data + row * rows->pitch_bytes;
    const int32_t *restrict counts = (const int32_t *)(const void *)data;
    const int32_t *restrict bias = rows->bias + rows->class_row[row] * chain->row_pitch + rows->c0;

    const int32_t factor = rows->kind == XN_CPU_ROWS_PAIRS ? 4 : 2;

    load_counts(v, counts, rows->c);
    for (uint32_t i = 0; i < CHUNK; i++)
        v[i] = bias[i] - factor * v[i];
}

/** Row `row` as numbers. */
static void load(int32_t *restrict v, const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint32_t row)
{
    const uint8_t *data = (const uint8_t *)rows->data + row * rows->pitch_bytes;
    const uint32_t n = rows->c;

    if (rows->kind != XN_CPU_ROWS_NUMBERS) {
        load_sums(v, chain, rows, row);
        return;
    }
    switch (rows->dtype) {
    case XN_DTYPE_U8:
        WIDEN_CHUNK(v, data, n);
        break;
    case XN_DTYPE_I8:
        WIDEN_CHUNK(v, (const int8_t *)data, n);
        break;
    case XN_DTYPE_I16:
        WIDEN_CHUNK(v, (const int16_t *)(const void *)data, n);
        break;
    default:
        WIDEN_CHUNK(v, (const int32_t *)(const void *)data, n);
        break;
    }
}

static void store(void *dst, enum xn_dtype dtype, const int32_t *restrict v, size_t at, uint32_t n)
{
    switch (dtype) {
    case XN_DTYPE_U8: {
        uint8_t *restrict d = (uint8_t *)dst + at;
        NARROW_CHUNK(d, uint8_t, v, n);
        break;
    }
    case XN_DTYPE_I8: {
        int8_t *restrict d = (int8_t *)dst + at;
        NARROW_CHUNK(d, int8_t, v, n);
        break;
    }
    case XN_DTYPE_I16: {
        int16_t *restrict d = (int16_t *)dst + at;
        NARROW_CHUNK(d, int16_t, v, n);
        break;
    }
    default: {
        int32_t *restrict d = (int32_t *)dst + at;
        NARROW_CHUNK(d, int32_t, v, n);
        break;
    }
    }
}

static void scale(int32_t *restrict v, const struct xn_cpu_stage *stage, const int32_t *restrict r, uint32_t c0)
{
    const int32_t *restrict m = stage->m + c0, *restrict b = stage->b32 + c0;
    const uint32_t shift = stage->shift;
    const int32_t min = stage->min, max = stage->max;

    for (uint32_t i = 0; i < CHUNK; i++)
        v[i] = clamp(r[i] + ((v[i] * m[i] + b[i]) >> shift), min, max);
}

static void scale_64(int32_t *restrict v, const struct xn_cpu_stage *stage, const int32_t *restrict r, uint32_t c0)
{
    const int32_t *restrict m = stage->m + c0;
    const int64_t *restrict b = stage->b64 + c0;
    const uint32_t shift = stage->shift;
    const int64_t min = stage->min, max = stage->max;

    for (uint32_t i = 0; i < CHUNK; i++) {
        int64_t x = r[i] + (((int64_t)v[i] * m[i] + b[i]) >> shift);
        v[i] = (int32_t)(x < min ? min : x > max ? max : x);
    }
}

static void add(int32_t *restrict v, const struct xn_cpu_stage *stage, const int32_t *restrict r)
{
    const int32_t min = stage->min, max = stage->max;

    for (uint32_t i = 0; i < CHUNK; i++)
        v[i] = clamp(v[i] + r[i], min, max);
}

static void rprelu(int32_t *restrict v, const struct xn_cpu_stage *stage, uint32_t c0)
{
    const int32_t *restrict a = stage->m + c0, *restrict b = stage->b32 + c0, *restrict k = stage->k + c0;
    const int32_t min = stage->min, max = stage->max;

    for (uint32_t i = 0; i < CHUNK; i++) {
        int32_t t = v[i] + a[i];
        /* Without a choice: a right shift of the negative part and none of the rest. */
        int32_t negative = t >> 31;
        v[i] = clamp((t >> (k[i] & negative)) + b[i], min, max);
    }
}

static uint64_t threshold(const int32_t *restrict v, const struct xn_cpu_stage *stage, uint32_t c0, uint32_t n)
{
    const int32_t *restrict t = stage->m + c0;
    XN_ALIGNED(64) uint8_t flags[CHUNK];

    for (uint32_t i = 0; i < CHUNK; i++)
        flags[i] = v[i] >= t[i];
    return pack_flags(flags) & xn_bits_mask(n);
}

/** One chunk through all stages. `at`: index of its first element in [pixel][c]; y, x: the pixel. */
static void run_chunk(int32_t *restrict v, const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows,
                      uint8_t *arena, size_t at, uint32_t y, uint32_t x)
{
    const uint32_t c0 = rows->c0, n = rows->c;
    static const int32_t zeros[CHUNK];
    XN_ALIGNED(64) int32_t buffer[CHUNK];

    for (uint32_t s = 0; s < chain->n_stages; s++) {
        const struct xn_cpu_stage *stage = &chain->stages[s];
        const int32_t *r = zeros;
        if (stage->op == XN_CPU_STAGE_ADD || stage->residual) {
            const int16_t *from = (const int16_t *)(const void *)(arena + stage->residual_offset) + at;
            WIDEN_CHUNK(buffer, from, n);
            r = buffer;
        }
        switch (stage->op) {
        case XN_CPU_STAGE_SCALE:
            scale(v, stage, r, c0);
            break;
        case XN_CPU_STAGE_SCALE_64:
            scale_64(v, stage, r, c0);
            break;
        case XN_CPU_STAGE_ADD:
            add(v, stage, r);
            break;
        case XN_CPU_STAGE_RPRELU:
            rprelu(v, stage, c0);
            break;
        case XN_CPU_STAGE_STORE:
            store(arena + stage->out_offset, stage->dtype, v, at, n);
            break;
        case XN_CPU_STAGE_BITS:
            write_word(&stage->bits, arena, (size_t)y * stage->bits.pitch + x, c0 / CHUNK, threshold(v, stage, c0, n));
            break;
        }
    }
}

void XN_LEVEL(epilogue)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena)
{
    XN_ALIGNED(64) int32_t v[CHUNK];
    uint32_t y = rows->y, x = rows->x;

    for (uint32_t row = 0; row < rows->n; row++) {
        load(v, chain, rows, row);
        run_chunk(v, chain, rows, arena, (size_t)(rows->first + row) * chain->c + rows->c0, y, x);
        if (++x == rows->w) {
            x = 0;
            y++;
        }
    }
}
