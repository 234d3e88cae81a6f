/* SPDX-License-Identifier: Apache-2.0
 * What one instruction set level does differently: an octet of 64-bit lanes and its popcount, an octet of 32-bit lanes and its
 * int16 multiply-add, and packing of flags to bits. All else is the same C at every level.
 *
 * Where the machine counts bits of whole lanes, counts are added at once. Where it counts bytes (a table of nibbles, or shifts
 * and masks), bytes are added up for LANES_FLUSH rounds, 8 a round at most, before they overflow, and then folded into lanes.
 */
#ifndef XN_ACCEL_CPU_KERNELS_LANES_H
#define XN_ACCEL_CPU_KERNELS_LANES_H

#include "accel/cpu/bits.h"
#include "accel/cpu/kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef XN_CPU_LEVEL
#error "compile kernels with -DXN_CPU_LEVEL=<level>, as accel/cpu/cpu.mk does"
#endif
#define XN_LEVEL_JOIN_(name, level) xn_cpu_##name##_##level
#define XN_LEVEL_JOIN(name, level)  XN_LEVEL_JOIN_(name, level)
/** The symbol of kernel `name` at the level being compiled. */
#define XN_LEVEL(name) XN_LEVEL_JOIN(name, XN_CPU_LEVEL)

#define XN_INLINE static inline __attribute__((always_inline))

/** Words of bits in maps are encoded at this level. */
#if defined(__AVX512BW__) || defined(LANES_NEON)
#define LANES_ENCODED true
#else
#define LANES_ENCODED false
#endif

/** A word of a map as plain bits, and back. */
XN_INLINE uint64_t map_word(uint64_t word)
{
    return LANES_ENCODED ? xn_bits_encode(word) : word;
}

/** Popcount of low ^ high of a word of a map. */
XN_INLINE uint32_t map_pair_count(uint64_t word)
{
    return (uint32_t)__builtin_popcount((uint32_t)(word >> 32) ^ (LANES_ENCODED ? 0 : (uint32_t)word));
}

/** Popcount of low ^ high of a plain word. */
XN_INLINE uint32_t pair_count(uint64_t word)
{
    return (uint32_t)__builtin_popcount((uint32_t)word ^ (uint32_t)(word >> 32));
}

/* ---- popcounts: `lanes` is a vector of 64-bit lanes, LANES_VECTORS of them an octet ------------------------------------- */

#if defined(__AVX512BW__)

typedef __m512i lanes;
#define LANES_VECTORS 1
#define LANES_TILE    8
#define LANES_FLUSH   31u

XN_INLINE lanes lanes_splat(uint64_t x)
{
    return _mm512_set1_epi64((long long)x);
}
XN_INLINE lanes lanes_count(lanes sum, lanes x)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
    __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
    return _mm512_add_epi8(sum, _mm512_add_epi8(low, high));
}
XN_INLINE lanes lanes_fold(lanes sum)
{
    return _mm512_sad_epu8(sum, _mm512_setzero_si512());
}

#elif defined(__AVX2__)

typedef __m256i lanes;
#define LANES_VECTORS 2
#define LANES_TILE    4
#define LANES_FLUSH   31u

XN_INLINE lanes lanes_splat(uint64_t x)
{
    return _mm256_set1_epi64x((long long)x);
}
XN_INLINE lanes lanes_count(lanes sum, lanes x)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
    return _mm256_add_epi8(sum, _mm256_add_epi8(low, high));
}
XN_INLINE lanes lanes_fold(lanes sum)
{
    return _mm256_sad_epu8(sum, _mm256_setzero_si256());
}

#elif defined(__POPCNT__)

typedef uint64_t lanes;
#define LANES_VECTORS 8
#define LANES_TILE    1
#define LANES_FLUSH   UINT32_MAX

XN_INLINE lanes lanes_splat(uint64_t x)
{
    return x;
}
XN_INLINE lanes lanes_count(lanes sum, lanes x)
{
    return sum + (uint64_t)__builtin_popcountll(x);
}
XN_INLINE lanes lanes_fold(lanes sum)
{
    return sum;
}

#elif defined(LANES_NEON)

typedef uint64_t lanes __attribute__((vector_size(16)));
#define LANES_VECTORS 4
#define LANES_TILE    4
#define LANES_FLUSH   31u

XN_INLINE lanes lanes_splat(uint64_t x)
{
    return (lanes){x, x};
}
XN_INLINE lanes lanes_count(lanes sum, lanes x)
{
    return (lanes)vaddq_u8((uint8x16_t)sum, vcntq_u8((uint8x16_t)x));
}
XN_INLINE lanes lanes_fold(lanes sum)
{
    return (lanes)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8((uint8x16_t)sum)));
}

#else

typedef uint64_t lanes __attribute__((vector_size(16)));
#define LANES_VECTORS 4
#define LANES_TILE    2
#define LANES_FLUSH   31u

XN_INLINE lanes lanes_splat(uint64_t x)
{
    return (lanes){x, x};
}
XN_INLINE lanes lanes_count(lanes sum, lanes x)
{
    const lanes ones = lanes_splat(UINT64_C(0x5555555555555555));
    const lanes twos = lanes_splat(UINT64_C(0x3333333333333333));
    const lanes fours = lanes_splat(UINT64_C(0x0f0f0f0f0f0f0f0f));
    x -= (x >> 1) & ones;
    x = (x & twos) + ((x >> 2) & twos);
    return sum + ((x + (x >> 4)) & fours);
}
XN_INLINE lanes lanes_fold(lanes sum)
{
    const lanes even = lanes_splat(UINT64_C(0x00ff00ff00ff00ff));
    sum = (sum & even) + ((sum >> 8) & even);
    sum += sum >> 16;
    sum += sum >> 32;
    return sum & lanes_splat(0xffff);
}

#endif

XN_INLINE lanes lanes_load(const uint64_t *words)
{
    lanes x;
    memcpy(&x, words, sizeof(x));
    return x;
}

/* ---- int16 multiply-add: an octet of int32 sums ----------------------------------------------------------------------- */

#if defined(__AVX2__)

typedef __m256i octet;
#define OCTET_TILE 8

/** sums[i] += a0 * w[i][0] + a1 * w[i][1], with `pair` = {a0, a1}. */
XN_INLINE octet octet_madd(octet sum, int32_t pair, const int16_t *w)
{
    __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_set1_epi32(pair), weights));
}

#elif defined(__x86_64__)

typedef struct {
    __m128i low, high;
} octet;
#define OCTET_TILE 4

XN_INLINE octet octet_madd(octet sum, int32_t pair, const int16_t *w)
{
    const __m128i *weights = (const __m128i *)(const void *)w;
    __m128i a = _mm_set1_epi32(pair);
    return (octet){_mm_add_epi32(sum.low, _mm_madd_epi16(a, _mm_loadu_si128(weights))),
                   _mm_add_epi32(sum.high, _mm_madd_epi16(a, _mm_loadu_si128(weights + 1)))};
}

#else

typedef struct {
    int32_t lane[8];
} octet;
#define OCTET_TILE 2

XN_INLINE octet octet_madd(octet sum, int32_t pair, const int16_t *w)
{
    int32_t a0 = (int16_t)(pair & 0xffff), a1 = pair >> 16;
    for (int i = 0; i < 8; i++)
        sum.lane[i] += a0 * w[2 * i] + a1 * w[2 * i + 1];
    return sum;
}

#endif

/* ---- flags to bits ---------------------------------------------------------------------------------------------------- */

/** Bit i of the result: flags[i] is not 0. Flags are 0 or 1. */
XN_INLINE uint64_t pack_flags(const uint8_t flags[64])
{
#if defined(__AVX2__)
    const __m256i *f = (const __m256i *)(const void *)flags;
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(_mm256_loadu_si256(f), 7));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(_mm256_loadu_si256(f + 1), 7));
    return (uint64_t)high << 32 | low;
#else
    /* Eight flags a step: the multiplication puts flag j at bit 56 + j, and no two terms meet. */
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t eight;
        memcpy(&eight, flags + 8 * i, 8);
        bits |= (eight * UINT64_C(0x0102040810204080)) >> 56 << (8 * i);
    }
    return bits;
#endif
}

/** Write word `word` of pixel `pixel` of a map of bits, its plain bits given, and count it. Words of a pixel are written in order. */
XN_INLINE void write_word(const struct xn_cpu_bits_map *map, uint8_t *arena, size_t pixel, uint32_t word,
                          uint64_t plain)
{
    uint64_t *words = (uint64_t *)(void *)(arena + map->offset) + pixel * map->words;
    words[word] = map_word(plain);
    if (map->counts) {
        int32_t *count = (int32_t *)(void *)(arena + map->counts_offset) + pixel;
        *count = (word ? *count : 0) + (int32_t)pair_count(plain);
    }
}

/** Keeps `x` a scalar: a loop over what was just written piece by piece must not become vectors, whose loads would wait for the pieces to
 *  reach the cache. */
#define SCALAR(x) __asm__("" : "+r"(x))

/** The same for word `word` of all pixels of a tile. */
XN_INLINE void write_words(const struct xn_cpu_bits_map *map, uint8_t *arena, const struct xn_cpu_rows *rows,
                           uint32_t word, const uint64_t plain[XN_CPU_TILE_MAX])
{
    size_t row = (size_t)rows->y * map->pitch;
    uint32_t x = rows->x;

    for (uint32_t p = 0; p < rows->n; x = 0, row += map->pitch) {
        const uint32_t end = XN_MIN(rows->n, p + rows->w - x);
        uint64_t *words = (uint64_t *)(void *)(arena + map->offset) + (row + x) * map->words + word;
        int32_t *counts = (int32_t *)(void *)(arena + map->counts_offset) + row + x;
        for (; p < end; p++, words += map->words, counts++) {
            uint64_t bits = plain[p];
            SCALAR(bits);
            *words = map_word(bits);
            if (map->counts)
                *counts = (word ? *counts : 0) + (int32_t)pair_count(bits);
        }
    }
}

/** Sums of pixel `p` of a tile. */
XN_INLINE int32_t *acc_of(const struct xn_cpu_tile *tile, uint32_t p)
{
    return (int32_t *)(void *)((uint8_t *)tile->acc + p * tile->acc_bytes);
}

#endif
