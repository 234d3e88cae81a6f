/* SPDX-License-Identifier: Apache-2.0
 * Chains in 16-bit lanes (accel/cpu/narrow.c proves which ones): a chunk is two vectors of 32 channels, and each stage goes over all
 * pixels of the tile with its parameters in registers.
 */
#include "accel/cpu/kernels/level.h"

#if defined(__AVX512BW__)

#define TILE XN_CPU_TILE_MAX

/** A chunk of the tile. */
struct lanes16 {
    __m512i x[TILE][2]; /* once x is int16 */
    __mmask32 mask[2];  /* channels that there are */
    bool is_sum;
};

XN_INLINE const uint8_t *row_of(const struct xn_cpu_rows *rows, uint32_t p)
{
    return (const uint8_t *)rows->data + p * rows->pitch_bytes;
}

/** 16 sums of pixel `p`, the i-th quarter of the chunk, as a convolution left them. */
XN_INLINE __m512i sums(const struct xn_cpu_rows *rows, uint32_t p, uint32_t i)
{
    return _mm512_loadu_si512(row_of(rows, p) + 64 * i);
}

/** The same of any type, from a map: nothing behind the chunk's channels is read. */
XN_INLINE __m512i numbers(const struct xn_cpu_rows *rows, uint32_t p, uint32_t i)
{
    const __mmask16 mask = (__mmask16)(xn_bits_mask(rows->c) >> 16 * i);
    const uint8_t *row = row_of(rows, p);
    switch (rows->dtype) {
    case XN_DTYPE_U8:
        return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, row + 16 * i));
    case XN_DTYPE_I8:
        return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, row + 16 * i));
    case XN_DTYPE_I16:
        return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, row + 32 * i));
    default:
        return _mm512_maskz_loadu_epi32(mask, row + 64 * i);
    }
}

/** Half `h` of a table of 16-bit elements at the chunk's channels. */
XN_INLINE __m512i half_of(const int16_t *table, uint32_t c0, uint32_t h)
{
    return _mm512_loadu_si512(table + c0 + 32 * h);
}

/** Two vectors of int32 in the order of channels to one of int16, saturated. */
XN_INLINE __m512i pack(__m512i low, __m512i high)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), _mm512_packs_epi32(low, high));
}

/** x >> n, n in every lane: a count in a scalar register would cost one instruction more. */
XN_INLINE __m512i shifted(__m512i x, __m512i n)
{
    return _mm512_srav_epi32(x, n);
}

/** Table row of pixel p's border class. */
XN_INLINE size_t class_at(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint32_t p)
{
    return rows->class_row[p] * chain->row_pitch + rows->c0;
}

/* ---- BITS ------------------------------------------------------------------------------------------------------------- */

XN_INLINE uint64_t bits_of_counts(const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                                  const struct xn_cpu_rows *rows, uint32_t p)
{
    const int16_t *limit = stage->limit + class_at(chain, rows, p);
    /* The order of sums is such that packing puts channels in order. */
    const __m512i low = _mm512_packs_epi32(sums(rows, p, 0), sums(rows, p, 1));
    const __m512i high = _mm512_packs_epi32(sums(rows, p, 2), sums(rows, p, 3));
    return _mm512_cmple_epi16_mask(low, half_of(limit, 0, 0)) |
           (uint64_t)_mm512_cmple_epi16_mask(high, half_of(limit, 0, 1)) << 32;
}

XN_INLINE uint64_t bits_of_int32(const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, uint32_t p)
{
    uint64_t word = 0;
    for (uint32_t i = 0; i < 4; i++)
        word |= (uint64_t)_mm512_cmpge_epi32_mask(numbers(rows, p, i), _mm512_loadu_si512(stage->m + rows->c0 + 16 * i))
                << 16 * i;
    return word;
}

XN_INLINE uint64_t bits_of_int16(const struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t c0, uint32_t p)
{
    return (_mm512_cmpgt_epi16_mask(v->x[p][0], half_of(stage->limit, c0, 0)) |
            (uint64_t)_mm512_cmpgt_epi16_mask(v->x[p][1], half_of(stage->limit, c0, 1)) << 32) |
           stage->always[c0 / XN_CPU_CHUNK];
}

static void bits(const struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                 const struct xn_cpu_rows *rows, uint8_t *arena)
{
    const uint64_t mask = v->mask[0] | (uint64_t)v->mask[1] << 32;
    uint64_t plain[TILE];

    for (uint32_t p = 0; p < rows->n; p++)
        plain[p] = mask & (!v->is_sum                          ? bits_of_int16(v, stage, rows->c0, p)
                           : rows->kind != XN_CPU_ROWS_NUMBERS ? bits_of_counts(chain, stage, rows, p)
                                                               : bits_of_int32(stage, rows, p));
    write_words(&stage->bits, arena, rows, rows->c0 / XN_CPU_CHUNK, plain);
}

/* ---- SCALE ------------------------------------------------------------------------------------------------------------ */

XN_INLINE __m512i scaled_counts(const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, size_t class,
                                uint32_t p, uint32_t i, uint32_t shift)
{
    const __m512i factor = _mm512_loadu_si512(stage->factor + rows->c0 + 16 * i);
    const __m512i product =
        _mm512_madd_epi16(sums(rows, p, i), factor); /* counts have 16 bits: no more than one product */
    const __m512i sum = _mm512_add_epi32(product, _mm512_loadu_si512(stage->origin + class + 16 * i));
    return shifted(sum, _mm512_set1_epi32((int)shift));
}

static void scale_counts(struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                         const struct xn_cpu_rows *rows)
{
    const uint32_t shift = stage->shift - (rows->kind == XN_CPU_ROWS_PAIRS ? 2 : 1);
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t p = 0; p < rows->n; p++) {
            const size_t class = class_at(chain, rows, p);
            v->x[p][h] = _mm512_packs_epi32(scaled_counts(stage, rows, class, p, 2 * h, shift),
                                            scaled_counts(stage, rows, class, p, 2 * h + 1, shift));
        }
}

/** What 16 channels are multiplied by and what is added: of SCALE_64 those at even places, then those at odd ones. */
struct factors {
    __m512i m, b[2];
    __m512i m_odd;
};

XN_INLINE struct factors factors_of(const struct xn_cpu_stage *stage, uint32_t c0, uint32_t i)
{
    struct factors f = {.m = _mm512_loadu_si512(stage->m + c0 + 16 * i)};
    if (stage->op == XN_CPU_STAGE_SCALE) {
        f.b[0] = _mm512_loadu_si512(stage->b32 + c0 + 16 * i);
        return f;
    }
    const __m512i low = _mm512_loadu_si512(stage->b64 + c0 + 16 * i);
    const __m512i high = _mm512_loadu_si512(stage->b64 + c0 + 16 * i + 8);
    f.m_odd = _mm512_srli_epi64(f.m, 32);
    f.b[0] = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), high);
    f.b[1] = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), high);
    return f;
}

/** (m*x + b) >> shift: in 32 bits, or in 64 where the result fits 32. */
XN_INLINE __m512i scaled_int32(const struct factors *f, __m512i x, uint32_t shift, bool wide)
{
    if (!wide)
        return shifted(_mm512_add_epi32(_mm512_mullo_epi32(x, f->m), f->b[0]), _mm512_set1_epi32((int)shift));
    const __m512i n = _mm512_set1_epi64((long long)shift);
    const __m512i even = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(x, f->m), f->b[0]), n);
    const __m512i x_odd = _mm512_srli_epi64(x, 32);
    const __m512i odd = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(x_odd, f->m_odd), f->b[1]), n);
    return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

static void scale_numbers(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows)
{
    const bool wide = stage->op == XN_CPU_STAGE_SCALE_64;
    for (uint32_t h = 0; h < 2; h++) {
        const struct factors low = factors_of(stage, rows->c0, 2 * h), high = factors_of(stage, rows->c0, 2 * h + 1);
        for (uint32_t p = 0; p < rows->n; p++)
            v->x[p][h] = pack(scaled_int32(&low, numbers(rows, p, 2 * h), stage->shift, wide),
                              scaled_int32(&high, numbers(rows, p, 2 * h + 1), stage->shift, wide));
    }
}

/** x is int16: products of 32 bits, in the order that unpacking leaves and packing undoes. */
static void scale_int16(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows)
{
    const __m512i n = _mm512_set1_epi32((int)stage->shift);
    for (uint32_t h = 0; h < 2; h++) {
        const __m512i m = half_of(stage->m16, rows->c0, h);
        const __m512i b0 = _mm512_loadu_si512(stage->origin + rows->c0 + 32 * h);
        const __m512i b1 = _mm512_loadu_si512(stage->origin + rows->c0 + 32 * h + 16);
        for (uint32_t p = 0; p < rows->n; p++) {
            const __m512i low = _mm512_mullo_epi16(v->x[p][h], m), high = _mm512_mulhi_epi16(v->x[p][h], m);
            const __m512i x0 = _mm512_add_epi32(_mm512_unpacklo_epi16(low, high), b0);
            const __m512i x1 = _mm512_add_epi32(_mm512_unpackhi_epi16(low, high), b1);
            v->x[p][h] = _mm512_packs_epi32(shifted(x0, n), shifted(x1, n));
        }
    }
}

static void scale(struct lanes16 *v, const struct xn_cpu_chain *chain, const struct xn_cpu_stage *stage,
                  const struct xn_cpu_rows *rows)
{
    if (!v->is_sum)
        scale_int16(v, stage, rows);
    else if (rows->kind == XN_CPU_ROWS_NUMBERS)
        scale_numbers(v, stage, rows);
    else
        scale_counts(v, chain, stage, rows);
    v->is_sum = false;
}

static void clamp(struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t n)
{
    const __m512i min = _mm512_set1_epi16((short)stage->min), max = _mm512_set1_epi16((short)stage->max);
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t h = 0; h < 2; h++)
            v->x[p][h] = _mm512_max_epi16(_mm512_min_epi16(v->x[p][h], max), min);
}

/* ---- ADD, RPRELU, STORE ----------------------------------------------------------------------------------------------- */

static void add(struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, uint32_t c,
                const uint8_t *arena)
{
    const int16_t *r =
        (const int16_t *)(const void *)(arena + stage->residual_offset) + (size_t)rows->first * c + rows->c0;
    for (uint32_t p = 0; p < rows->n; p++, r += c)
        for (uint32_t h = 0; h < 2; h++)
            v->x[p][h] = _mm512_adds_epi16(v->x[p][h], _mm512_maskz_loadu_epi16(v->mask[h], r + 32 * h));
}

static void rprelu(struct lanes16 *v, const struct xn_cpu_stage *stage, uint32_t c0, uint32_t n)
{
    const __m512i sign = _mm512_set1_epi16(INT16_MIN);
    for (uint32_t h = 0; h < 2; h++) {
        const __m512i knee = half_of(stage->knee, c0, h), half = half_of(stage->half, c0, h);
        const __m512i slope = half_of(stage->slope, c0, h), sum = half_of(stage->sum, c0, h);
        const __m512i b = half_of(stage->b16, c0, h);
        const __mmask32 bent = (__mmask32)(stage->bent[c0 / XN_CPU_CHUNK] >> 32 * h);
        for (uint32_t p = 0; p < n; p++) {
            const __m512i x = v->x[p][h];
            const __mmask32 below = _mm512_mask_cmplt_epi16_mask(bent, x, knee);
            /* Unsigned averages round up; `half` has one less. */
            const __m512i t = _mm512_xor_si512(_mm512_avg_epu16(_mm512_xor_si512(x, sign), half), sign);
            v->x[p][h] = _mm512_mask_adds_epi16(_mm512_adds_epi16(x, sum), below, _mm512_srav_epi16(t, slope), b);
        }
    }
}

static void store(const struct lanes16 *v, const struct xn_cpu_stage *stage, const struct xn_cpu_rows *rows, uint32_t c,
                  uint8_t *arena)
{
    const size_t element = stage->dtype == XN_DTYPE_I16 ? 2 : 1;
    uint8_t *to = arena + stage->out_offset + ((size_t)rows->first * c + rows->c0) * element;
    for (uint32_t p = 0; p < rows->n; p++, to += c * element)
        for (uint32_t h = 0; h < 2; h++)
            if (element == 2)
                _mm512_mask_storeu_epi16(to + 64 * h, v->mask[h], v->x[p][h]);
            else
                _mm256_mask_storeu_epi8(to + 32 * h, v->mask[h], _mm512_cvtepi16_epi8(v->x[p][h]));
}

static void load(struct lanes16 *v, const struct xn_cpu_rows *rows)
{
    for (uint32_t p = 0; p < rows->n; p++)
        for (uint32_t h = 0; h < 2; h++)
            v->x[p][h] = _mm512_maskz_loadu_epi16(v->mask[h], row_of(rows, p) + 64 * h);
}

void XN_LEVEL(narrow)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena)
{
    const uint64_t mask = xn_bits_mask(rows->c);
    struct lanes16 v;

    v.mask[0] = (__mmask32)mask;
    v.mask[1] = (__mmask32)(mask >> 32);
    v.is_sum = chain->narrow_sum;
    if (!v.is_sum)
        load(&v, rows);
    for (uint32_t s = 0; s < chain->n_stages; s++) {
        const struct xn_cpu_stage *stage = &chain->stages[s];
        switch (stage->op) {
        case XN_CPU_STAGE_BITS:
            bits(&v, chain, stage, rows, arena);
            break;
        case XN_CPU_STAGE_SCALE:
        case XN_CPU_STAGE_SCALE_64:
            scale(&v, chain, stage, rows);
            if (stage->residual)
                add(&v, stage, rows, chain->c, arena);
            if (stage->min != INT16_MIN || stage->max != INT16_MAX)
                clamp(&v, stage, rows->n);
            break;
        case XN_CPU_STAGE_ADD:
            add(&v, stage, rows, chain->c, arena);
            break;
        case XN_CPU_STAGE_RPRELU:
            rprelu(&v, stage, rows->c0, rows->n);
            break;
        case XN_CPU_STAGE_STORE:
            store(&v, stage, rows, chain->c, arena);
            break;
        }
    }
}

#endif
