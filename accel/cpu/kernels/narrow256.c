/* SPDX-License-Identifier: Apache-2.0
 * kernels/narrow.c for vectors of 256 bits: a chunk is four of them, of 16 channels each. What AVX2 has no masks for, rows that end within a
 * chunk, goes by a copy on the stack. */
#include "accel/cpu/kernels/level.h"

#if defined(__AVX2__) && !defined(__AVX512BW__)

#define TILE  XN_CPU_TILE_MAX
#define PARTS (XN_CPU_CHUNK / 16u)

/* Functions are made for 2 parts and for 4, of which a chunk of up to 32 channels needs 2. */

/** A chunk of the tile. */
struct lanes16 {
    __m256i x[TILE][PARTS]; /* once x is int16 */
    bool is_sum;
};

XN_INLINE const uint8_t *row_of(const struct xn_cpu_rows *rows, uint32_t p)
{
    return (const uint8_t *)rows->data + p * rows->pitch_bytes;
}

XN_INLINE __m256i load(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/** Part `i` of a table of 16-bit elements at the chunk's channels. */
XN_INLINE __m256i part_of(const int16_t *table, uint32_t c0, uint32_t i)
{
    return load(table + c0 + 16 * i);
}

/** Half `h` of part `i` of a table of 32-bit elements at the chunk's channels. */
XN_INLINE __m256i half_of(const int32_t *table, size_t c0, uint32_t i, uint32_t h)
{
    return load(table + c0 + 16 * i + 8 * h);
}

/** The same of pixel `p`'s sums, as a convolution left them. */
XN_INLINE __m256i sums(const struct xn_cpu_rows *rows, uint32_t p, uint32_t i, uint32_t h)
{
    return load(row_of(rows, p) + 64 * i + 32 * h);
}

/** Two vectors of int32 in the order of channels to one of int16, saturated. */
XN_INLINE __m256i pack(__m256i low, __m256i high)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
}

/** The sign bits of two vectors of 16-bit masks. */
XN_INLINE uint32_t signs(__m256i low, __m256i high)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8));
}

/** Table row of pixel p's border class. */
XN_INLINE size_t class_at(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint32_t p)
{
    return rows->class_row[p] * chain->row_pitch + rows->c0;
}

/** Channels of a row from a map, of `bytes` each: itself, or where it ends within `parts` a copy in `room`, zeros behind it. */
XN_INLINE const uint8_t *whole_row(const uint8_t *row, uint32_t c, size_t bytes, uint8_t *room, const uint32_t parts)
{
    if (c == 16 * parts)
        return row;
    memset(room, 0, 16 * parts * bytes);
    memcpy(room, row, c * bytes);
    return room;
}

/** 16 numbers of any type, the i-th part of a whole row, as int32. */
XN_INLINE void numbers(const uint8_t *row, enum xn_dtype dtype, uint32_t i, __m256i x[2])
{
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t at = 16 * i + 8 * h;
        switch (dtype) {
        case XN_DTYPE_U8:
            x[h] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(row + at)));
            break;
        case XN_DTYPE_I8:
            x[h] = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(row + at)));
            break;
        case XN_DTYPE_I16:
            x[h] = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(row + 2 * (size_t)at)));
            break;
        default:
            x[h] = load(row + 4 * (size_t)at);
            break;
        }
    }
}

/** Pixel `p` of a map of numbers. */
XN_INLINE const uint8_t *numbers_row(const struct xn_cpu_rows *rows, uint32_t p, uint8_t *room, const uint32_t parts)
{
    const size_t bytes = rows->dtype == XN_DTYPE_I32 ? 4 : rows->dtype == XN_DTYPE_I16 ? 2 : 1;
    return whole_row(row_of(rows, p), rows->c, bytes, room, parts);
}

/* ---- BITS ------------------------------------------------------------------------------------------------------------- */

/** Bits of two parts where a count is above its limit. */
XN_INLINE uint32_t above(const struct xn_cpu_rows *rows, const int16_t *limit, uint32_t p, uint32_t i)
{
    /* The order of sums is such that packing puts channels in order. */
    const __m256i low = _mm256_packs_epi32(sums(rows, p, i, 0), sums(rows, p, i, 1));
    const __m256i high = _mm256_packs_epi32(sums(rows, p, i + 1, 0), sums(rows, p, i + 1, 1));
    return signs(_mm256_cmpgt_epi16(low, part_of(limit, 0, i)), _mm256_cmpgt_epi16(high, part_of(limit, 0, i + 1)));
}

XN_INLINE uint64_t bits_of_counts(const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                                  const struct xn_cpu_rows *rows, uint32_t p, const uint32_t parts)
{
    const int16_t *limit = stage->limit + class_at(chain, rows, p);
    return ~(above(rows, limit, p, 0) | (parts > 2 ? (uint64_t)above(rows, limit, p, 2) << 32 : 0));
}

XN_INLINE uint64_t bits_of_int32(const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, uint32_t p,
                                 const uint32_t parts)
{
    XN_ALIGNED(32) uint8_t room[XN_CPU_CHUNK * sizeof(int32_t)];
    const uint8_t *row = numbers_row(rows, p, room, parts);
    __m256i below[PARTS];

    for (uint32_t i = 0; i < parts; i++) {
        __m256i x[2];
        numbers(row, rows->dtype, i, x);
        below[i] = pack(_mm256_cmpgt_epi32(half_of(stage->m, rows->c0, i, 0), x[0]),
                        _mm256_cmpgt_epi32(half_of(stage->m, rows->c0, i, 1), x[1]));
    }
    return ~(signs(below[0], below[1]) | (parts > 2 ? (uint64_t)signs(below[2], below[3]) << 32 : 0));
}

XN_INLINE uint64_t bits_of_int16(const struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t c0, uint32_t p,
                                 const uint32_t parts)
{
    __m256i m[PARTS];
    for (uint32_t i = 0; i < parts; i++)
        m[i] = _mm256_cmpgt_epi16(v->x[p][i], part_of(stage->limit, c0, i));
    return signs(m[0], m[1]) | (parts > 2 ? (uint64_t)signs(m[2], m[3]) << 32 : 0) | stage->always[c0 / XN_CPU_CHUNK];
}

XN_INLINE void bits(const struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                    const struct xn_cpu_rows *rows, uint8_t *arena, const uint32_t parts)
{
    const uint64_t mask = xn_bits_mask(rows->c);
    uint64_t plain[TILE];

    if (!v->is_sum)
        for (uint32_t p = 0; p < rows->n; p++)
            plain[p] = mask & bits_of_int16(v, stage, rows->c0, p, parts);
    else if (rows->kind != XN_CPU_ROWS_NUMBERS)
        for (uint32_t p = 0; p < rows->n; p++)
            plain[p] = mask & bits_of_counts(chain, stage, rows, p, parts);
    else
        for (uint32_t p = 0; p < rows->n; p++)
            plain[p] = mask & bits_of_int32(stage, rows, p, parts);
    write_words(&stage->bits, arena, rows, rows->c0 / XN_CPU_CHUNK, plain);
}

/* ---- SCALE ------------------------------------------------------------------------------------------------------------ */

XN_INLINE void scale_counts(struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                            const struct xn_cpu_rows *rows, const uint32_t parts)
{
    const __m128i shift = _mm_cvtsi32_si128((int)(stage->shift - (rows->kind == XN_CPU_ROWS_PAIRS ? 2 : 1)));
    for (uint32_t i = 0; i < parts; i++) {
        const __m256i f0 = half_of(stage->factor, rows->c0, i, 0), f1 = half_of(stage->factor, rows->c0, i, 1);
        for (uint32_t p = 0; p < rows->n; p++) {
            const size_t class = class_at(chain, rows, p);
            /* Counts have 16 bits: no more than one product a lane. */
            const __m256i x0 =
                _mm256_add_epi32(_mm256_madd_epi16(sums(rows, p, i, 0), f0), half_of(stage->origin, class, i, 0));
            const __m256i x1 =
                _mm256_add_epi32(_mm256_madd_epi16(sums(rows, p, i, 1), f1), half_of(stage->origin, class, i, 1));
            v->x[p][i] = _mm256_packs_epi32(_mm256_sra_epi32(x0, shift), _mm256_sra_epi32(x1, shift));
        }
    }
}

/** What 8 channels are multiplied by and what is added: of SCALE_64 those at even places, then those at odd ones. */
struct factors {
    __m256i m, b[2];
    __m256i m_odd;
};

XN_INLINE struct factors factors_of(const struct xn_cpu_stage *stage, uint32_t c0, uint32_t i, uint32_t h)
{
    struct factors f = {.m = half_of(stage->m, c0, i, h)};
    if (stage->op == XN_CPU_STAGE_SCALE) {
        f.b[0] = half_of(stage->b32, c0, i, h);
        return f;
    }
    const int64_t *b = stage->b64 + c0 + 16 * i + 8 * h;
    const __m256i low = load(b), high = load(b + 4);
    f.m_odd = _mm256_srli_epi64(f.m, 32);
    f.b[0] = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(low, high), 0xd8);
    f.b[1] = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(low, high), 0xd8);
    return f;
}

/** (m*x + b) >> shift: in 32 bits, or in 64 where the result fits 32: what a logical shift brings into the upper half is not looked at. */
XN_INLINE __m256i scaled_int32(const struct factors *f, __m256i x, __m128i shift, bool wide)
{
    if (!wide)
        return _mm256_sra_epi32(_mm256_add_epi32(_mm256_mullo_epi32(x, f->m), f->b[0]), shift);
    const __m256i even = _mm256_srl_epi64(_mm256_add_epi64(_mm256_mul_epi32(x, f->m), f->b[0]), shift);
    const __m256i x_odd = _mm256_srli_epi64(x, 32);
    const __m256i odd = _mm256_srl_epi64(_mm256_add_epi64(_mm256_mul_epi32(x_odd, f->m_odd), f->b[1]), shift);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

XN_INLINE void scale_numbers(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows,
                             const uint32_t parts)
{
    const bool wide = stage->op == XN_CPU_STAGE_SCALE_64;
    const __m128i shift = _mm_cvtsi32_si128((int)stage->shift);
    XN_ALIGNED(32) uint8_t room[TILE][XN_CPU_CHUNK * sizeof(int32_t)];
    const uint8_t *row[TILE];

    for (uint32_t p = 0; p < rows->n; p++)
        row[p] = numbers_row(rows, p, room[p], parts);
    for (uint32_t i = 0; i < parts; i++) {
        const struct factors low = factors_of(stage, rows->c0, i, 0), high = factors_of(stage, rows->c0, i, 1);
        for (uint32_t p = 0; p < rows->n; p++) {
            __m256i x[2];
            numbers(row[p], rows->dtype, i, x);
            v->x[p][i] = pack(scaled_int32(&low, x[0], shift, wide), scaled_int32(&high, x[1], shift, wide));
        }
    }
}

/** x is int16: products of 32 bits, in the order that unpacking leaves and packing undoes. */
XN_INLINE void scale_int16(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows,
                           const uint32_t parts)
{
    const __m128i shift = _mm_cvtsi32_si128((int)stage->shift);
    for (uint32_t i = 0; i < parts; i++) {
        const __m256i m = part_of(stage->m16, rows->c0, i);
        const __m256i b0 = half_of(stage->origin, rows->c0, i, 0), b1 = half_of(stage->origin, rows->c0, i, 1);
        for (uint32_t p = 0; p < rows->n; p++) {
            const __m256i low = _mm256_mullo_epi16(v->x[p][i], m), high = _mm256_mulhi_epi16(v->x[p][i], m);
            const __m256i x0 = _mm256_add_epi32(_mm256_unpacklo_epi16(low, high), b0);
            const __m256i x1 = _mm256_add_epi32(_mm256_unpackhi_epi16(low, high), b1);
            v->x[p][i] = _mm256_packs_epi32(_mm256_sra_epi32(x0, shift), _mm256_sra_epi32(x1, shift));
        }
    }
}

XN_INLINE void scale(struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                     const struct xn_cpu_rows *rows, const uint32_t parts)
{
    if (!v->is_sum)
        scale_int16(v, stage, rows, parts);
    else if (rows->kind == XN_CPU_ROWS_NUMBERS)
        scale_numbers(v, stage, rows, parts);
    else
        scale_counts(v, chain, stage, rows, parts);
    v->is_sum = false;
}

XN_INLINE void clamp(struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t n, const uint32_t parts)
{
    const __m256i min = _mm256_set1_epi16((short)stage->min), max = _mm256_set1_epi16((short)stage->max);
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < parts; i++)
            v->x[p][i] = _mm256_max_epi16(_mm256_min_epi16(v->x[p][i], max), min);
}

/* ---- ADD, RPRELU, STORE ----------------------------------------------------------------------------------------------- */

XN_INLINE void add(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, uint32_t c,
                   const uint8_t *arena, const uint32_t parts)
{
    XN_ALIGNED(32) uint8_t room[XN_CPU_CHUNK * sizeof(int16_t)];
    const uint8_t *r = arena + stage->residual_offset + ((size_t)rows->first * c + rows->c0) * sizeof(int16_t);

    for (uint32_t p = 0; p < rows->n; p++, r += c * sizeof(int16_t)) {
        const uint8_t *row = whole_row(r, rows->c, sizeof(int16_t), room, parts);
        for (uint32_t i = 0; i < parts; i++)
            v->x[p][i] = _mm256_adds_epi16(v->x[p][i], load(row + 32 * i));
    }
}

/** 2^(15 - slope) of each lane: bytes below 2^8 and above it from a table each. */
XN_INLINE __m256i power_of(__m256i slope)
{
    const __m256i above = _mm256_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4,
                                           2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i below = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                                           -128, 64, 32, 16, 8, 4, 2, 1);
    return _mm256_or_si256(_mm256_shuffle_epi8(below, slope), _mm256_slli_epi16(_mm256_shuffle_epi8(above, slope), 8));
}

/** 16-bit masks of 16 bits. */
XN_INLINE __m256i spread(uint64_t word, uint32_t i)
{
    const __m256i bit =
        _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, INT16_MIN);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)(word >> 16 * i)), bit), bit);
}

XN_INLINE void rprelu(struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t c0, uint32_t n,
                      const uint32_t parts)
{
    const __m256i sign = _mm256_set1_epi16(INT16_MIN), rest = _mm256_set1_epi16(INT16_MAX);
    const __m256i ones = _mm256_set1_epi16(-1);
    for (uint32_t i = 0; i < parts; i++) {
        const __m256i knee = part_of(stage->knee, c0, i), half = part_of(stage->half, c0, i);
        const __m256i sum = part_of(stage->sum, c0, i), b = part_of(stage->b16, c0, i);
        const __m256i power = power_of(part_of(stage->slope, c0, i));
        const __m256i bent = spread(stage->bent[c0 / XN_CPU_CHUNK], i);
        for (uint32_t p = 0; p < n; p++) {
            const __m256i x = v->x[p][i];
            const __m256i below = _mm256_and_si256(bent, _mm256_cmpgt_epi16(knee, x));
            /* Unsigned averages round up; `half` has one less. Where it counts, t is below 0, so that ~t has 15 bits: t >> k is
             * ~(~t >> k), and that shift a multiplication by 2^(16 - k), of which half is in ~t already. */
            const __m256i t_not = _mm256_xor_si256(_mm256_avg_epu16(_mm256_xor_si256(x, sign), half), rest);
            const __m256i t = _mm256_xor_si256(_mm256_mulhi_epu16(_mm256_add_epi16(t_not, t_not), power), ones);
            v->x[p][i] = _mm256_blendv_epi8(_mm256_adds_epi16(x, sum), _mm256_adds_epi16(t, b), below);
        }
    }
}

/** The low bytes of 16-bit lanes of two vectors. */
XN_INLINE __m256i bytes_of(__m256i low, __m256i high)
{
    const __m256i byte = _mm256_set1_epi16(255);
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(_mm256_and_si256(low, byte), _mm256_and_si256(high, byte)),
                                    0xd8);
}

XN_INLINE void store(const struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows,
                     uint32_t c, uint8_t *arena, const uint32_t parts)
{
    const size_t element = stage->dtype == XN_DTYPE_I16 ? 2 : 1;
    uint8_t *to = arena + stage->out_offset + ((size_t)rows->first * c + rows->c0) * element;
    XN_ALIGNED(32) uint8_t room[XN_CPU_CHUNK * sizeof(int16_t)];

    for (uint32_t p = 0; p < rows->n; p++, to += c * element) {
        uint8_t *row = rows->c == 16 * parts ? to : room;
        if (element == 2)
            for (uint32_t i = 0; i < parts; i++)
                _mm256_storeu_si256((__m256i *)(void *)(row + 32 * i), v->x[p][i]);
        else
            for (uint32_t i = 0; i < parts; i += 2)
                _mm256_storeu_si256((__m256i *)(void *)(row + 16 * i), bytes_of(v->x[p][i], v->x[p][i + 1]));
        if (row == room)
            memcpy(to, room, rows->c * element);
    }
}

XN_INLINE void load_int16(struct lanes16 *v, const struct xn_cpu_rows *rows, const uint32_t parts)
{
    XN_ALIGNED(32) uint8_t room[XN_CPU_CHUNK * sizeof(int16_t)];
    for (uint32_t p = 0; p < rows->n; p++) {
        const uint8_t *row = whole_row(row_of(rows, p), rows->c, sizeof(int16_t), room, parts);
        for (uint32_t i = 0; i < parts; i++)
            v->x[p][i] = load(row + 32 * i);
    }
}

XN_INLINE void run(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena,
                   const uint32_t parts)
{
    struct lanes16 v;

    v.is_sum = chain->narrow_sum;
    if (!v.is_sum)
        load_int16(&v, rows, parts);
    for (uint32_t s = 0; s < chain->n_stages; s++) {
        const struct xn_cpu_stage *stage = &chain->stages[s];
        switch (stage->op) {
        case XN_CPU_STAGE_BITS:
            bits(&v, chain, stage, rows, arena, parts);
            break;
        case XN_CPU_STAGE_SCALE:
        case XN_CPU_STAGE_SCALE_64:
            scale(&v, chain, stage, rows, parts);
            if (stage->residual)
                add(&v, stage, rows, chain->c, arena, parts);
            if (stage->min != INT16_MIN || stage->max != INT16_MAX)
                clamp(&v, stage, rows->n, parts);
            break;
        case XN_CPU_STAGE_ADD:
            add(&v, stage, rows, chain->c, arena, parts);
            break;
        case XN_CPU_STAGE_RPRELU:
            rprelu(&v, stage, rows->c0, rows->n, parts);
            break;
        case XN_CPU_STAGE_STORE:
            store(&v, stage, rows, chain->c, arena, parts);
            break;
        }
    }
}

void XN_LEVEL(narrow)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena)
{
    if (rows->c > XN_CPU_CHUNK / 2)
        run(chain, rows, arena, PARTS);
    else
        run(chain, rows, arena, PARTS / 2);
}

#endif
