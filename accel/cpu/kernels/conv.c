/* SPDX-License-Identifier: Apache-2.0
 * Convolutions. A tile is a few output pixels by a block of output channels: the sums stay in registers, each weight is loaded once
 * for all pixels, each activation once for all channels. There is no branch a pixel: maps have a border where the convolution pads, so
 * every tap can be read.
 *
 * Bits x bits is plain at the levels whose popcounts are scalar, and by pairs (struct xn_cpu_bits_kernel) where a popcount is what a vector
 * waits for. Level avx512 has generated assembly instead: kernels/gen/avx512.py.
 */
#include "accel/cpu/kernels/lanes.h"
#include "accel/cpu/kernels/level.h"

#define OCTET 8u /* output channels of a block in C */

/** Call `body`, an always-inline function, with the number of pixels as a constant. */
#define TILE_CASE(body, most, k)                                                                                       \
    case k:                                                                                                            \
        body(tile, (k) <= (most) ? (k) : 1);                                                                           \
        break;
#define TILE_SWITCH(body, most)                                                                                        \
    switch (tile->n) {                                                                                                 \
        TILE_CASE(body, most, 1)                                                                                       \
        TILE_CASE(body, most, 2)                                                                                       \
        TILE_CASE(body, most, 3)                                                                                       \
        TILE_CASE(body, most, 4)                                                                                       \
        TILE_CASE(body, most, 5)                                                                                       \
        TILE_CASE(body, most, 6)                                                                                       \
        TILE_CASE(body, most, 7)                                                                                       \
        TILE_CASE(body, most, 8)                                                                                       \
    }

/* ---- bits x bits ------------------------------------------------------------------------------------------------------ */

#if defined(__AVX512VPOPCNTDQ__)

/* kernels/avx512.c */

#elif defined(__AVX512BW__)

/* No popcount of vectors: 7 instructions a vector. Eight vectors are brought to one by full adders first, bit by bit. */

#include "accel/cpu/kernels/pairs512.h"

#define PAIR_TILE   4u
#define PAIR_ROUNDS 31u /* a byte counts 8 bits a round */

/** Bytes of popcounts, each of 8 bits. */
XN_INLINE __m512i add_counts(__m512i sum, __m512i x)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
    const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
    return _mm512_add_epi8(sum, _mm512_add_epi8(low, high));
}

/** Bytes added up in each 32-bit lane. */
XN_INLINE __m512i fold_counts(__m512i sum)
{
    return _mm512_madd_epi16(_mm512_maddubs_epi16(sum, _mm512_set1_epi8(1)), _mm512_set1_epi16(1));
}

/** a + b + *c, bit by bit: *c becomes the sums, the carries are returned. */
XN_INLINE __m512i full_add(__m512i *c, __m512i a, __m512i b)
{
    const __m512i carry = _mm512_ternarylogic_epi32(a, b, *c, 0xe8);
    *c = _mm512_ternarylogic_epi32(a, b, *c, 0x96);
    return carry;
}

/** G of one word: A == W ? a0 ^ w0 : W. */
XN_INLINE __m512i pair_of(const uint8_t *weights, const uint8_t *word)
{
    const __m512i a0 = _mm512_set1_epi32(_mm_cvtsi128_si32(_mm_loadu_si32(word)));
    const __m512i a = _mm512_set1_epi32(_mm_cvtsi128_si32(_mm_loadu_si32(word + 4)));
    const __m512i t = _mm512_xor_si512(a0, _mm512_load_si512(weights));
    return _mm512_ternarylogic_epi32(t, _mm512_load_si512(weights + 64), a, 0xd4);
}

/** Counters of one pixel that stand upright: bit i of each vector of bits counts 1, 2, 4; what overflows goes to bytes, which count 8. */
struct counters {
    __m512i ones, twos, fours, eights;
};

/** Two words, counted in ones: what overflows, which counts 2. */
XN_INLINE __m512i add_two(struct counters *c, const uint8_t *weights, const uint8_t *x, const uint32_t *at)
{
    return full_add(&c->ones, pair_of(weights, x + at[0]), pair_of(weights + PAIR_UNIT, x + at[1]));
}

/** Eight words. */
XN_INLINE void add_eight(struct counters *c, const uint8_t *weights, const uint8_t *x, const uint32_t *at)
{
    __m512i fours[2];
    for (uint32_t i = 0; i < 2; i++, weights += 4 * (size_t)PAIR_UNIT, at += 4) {
        const __m512i a = add_two(c, weights, x, at);
        fours[i] = full_add(&c->twos, a, add_two(c, weights + 2 * (size_t)PAIR_UNIT, x, at + 2));
    }
    c->eights = add_counts(c->eights, full_add(&c->fours, fours[0], fours[1]));
}

/** The first words, 0..7 of them, into counters that are 0: nothing overflows. */
XN_INLINE void add_first(struct counters *c, const uint8_t *weights, const uint8_t *x, const uint32_t *at,
                         uint32_t count)
{
    c->ones = c->twos = c->fours = c->eights = _mm512_setzero_si512();
    if (count % 2) {
        c->ones = pair_of(weights, x + at[0]);
        weights += PAIR_UNIT;
        at++;
    }
    for (uint32_t k = 0; k + 2 <= count; k += 2, weights += 2 * (size_t)PAIR_UNIT, at += 2) {
        const __m512i a = add_two(c, weights, x, at);
        c->fours = _mm512_or_si512(c->fours, _mm512_and_si512(c->twos, a));
        c->twos = _mm512_xor_si512(c->twos, a);
    }
}

/** 1 for each bit of ones, 2 of twos, 4 of fours, 8 of each in eights, added up in each 32-bit lane. */
XN_INLINE __m512i sum_of(const struct counters *c)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i fours = add_counts(zero, c->fours); /* bytes: 4 * 8 + 2 * 8 + 8 at most */
    const __m512i twos = add_counts(_mm512_add_epi8(fours, fours), c->twos);
    const __m512i ones = add_counts(_mm512_add_epi8(twos, twos), c->ones);
    return _mm512_add_epi32(fold_counts(ones), _mm512_slli_epi32(fold_counts(c->eights), 3));
}

/** Words at places `at` of n pixels for half a block: 16 channels. */
XN_INLINE void pair_words(const struct xn_cpu_tile *tile, const uint8_t *weights, const uint32_t *at, uint32_t count,
                          __m512i *total, const uint32_t n)
{
    const uint32_t first = count % 8;
    struct counters c[PAIR_TILE];

    for (uint32_t p = 0; p < n; p++)
        add_first(&c[p], weights, tile->pixels[p], at, first);
    weights += first * (size_t)PAIR_UNIT;
    for (uint32_t k = first; k < count; k += 8, weights += 8 * (size_t)PAIR_UNIT)
        for (uint32_t p = 0; p < n; p++)
            add_eight(&c[p], weights, tile->pixels[p], at + k);
    for (uint32_t p = 0; p < n; p++)
        total[p] = _mm512_add_epi32(total[p], sum_of(&c[p]));
}

/** Places of words first..first+count-1 of the window, in bytes from its first. */
static void place_words(const struct xn_cpu_tile *tile, size_t first, uint32_t count, uint32_t *at)
{
    size_t row = first / tile->run, k = first % tile->run;
    for (uint32_t i = 0; i < count; i++) {
        at[i] = (uint32_t)(row * tile->row_bytes + k * sizeof(uint64_t));
        if (++k == tile->run) {
            k = 0;
            row++;
        }
    }
}

XN_INLINE void pair_tile(const struct xn_cpu_tile *tile, const uint32_t n)
{
    const size_t words = (size_t)tile->rows * tile->run, block_bytes = words * PAIR_UNIT;
    __m512i total[XN_CPU_CHUNK / 16][PAIR_TILE];
    uint32_t at[8 * PAIR_ROUNDS];

    for (uint32_t h = 0; h < 2 * tile->blocks; h++)
        for (uint32_t p = 0; p < n; p++)
            total[h][p] = _mm512_set1_epi32(tile->init[p]);
    for (size_t first = 0; first < words; first += XN_ARRAY_LEN(at)) {
        const uint32_t count = (uint32_t)XN_MIN(words - first, XN_ARRAY_LEN(at));
        place_words(tile, first, count, at);
        for (uint32_t h = 0; h < 2 * tile->blocks; h++)
            pair_words(tile, (const uint8_t *)tile->weights + h / 2 * block_bytes + first * PAIR_UNIT + h % 2 * 128, at,
                       count, total[h], n);
    }
    for (uint32_t h = 0; h < 2 * tile->blocks; h++)
        for (uint32_t p = 0; p < n; p++)
            _mm512_storeu_si512(acc_of(tile, p) + 16 * h, total[h][p]);
}

static void bits(const struct xn_cpu_tile *tile)
{
    TILE_SWITCH(pair_tile, PAIR_TILE)
}

const struct xn_cpu_bits_kernel XN_LEVEL(bits) = {
    .conv = {.run = bits, .tile = PAIR_TILE, .block = PAIR_BLOCK, .unit_bytes = PAIR_UNIT, .pack = pair_pack},
    .pairs = true,
    .encoded = true,
    .order = pair_order};

#elif defined(LANES_NEON)

/* A block is 8 channels in two vectors, a unit of weights w0 of both, then w0 ^ w1 of both; words of maps are encoded. Five instructions
 * for two vectors of +-1: two xor, select, popcount of bytes, add; plain binary convolution needs six. */

#define PAIR_TILE   4u
#define PAIR_ROUNDS 31u /* a byte counts 8 bits a round */

XN_INLINE uint8x16_t pair_of(uint32x4_t a0, uint32x4_t a, uint32x4_t w0, uint32x4_t w)
{
    /* Where A and W differ W, else a0 ^ w0. */
    return vcntq_u8(vreinterpretq_u8_u32(vbslq_u32(veorq_u32(a, w), w, veorq_u32(a0, w0))));
}

/** One block: sums of n pixels, [n][2] vectors of 4 channels. */
XN_INLINE void pair_octet(const struct xn_cpu_tile *tile, const uint32_t *weights, uint32x4_t total[][2],
                          const uint32_t n)
{
    uint8x16_t sum[PAIR_TILE][2];
    uint32_t room = PAIR_ROUNDS;

    for (uint32_t p = 0; p < n; p++) {
        total[p][0] = total[p][1] = vdupq_n_u32((uint32_t)tile->init[p]);
        sum[p][0] = sum[p][1] = vdupq_n_u8(0);
    }
    for (uint32_t row = 0; row < tile->rows; row++)
        for (uint32_t k = 0; k < tile->run; k++, weights += 16) {
            const size_t at = row * tile->row_bytes + k * sizeof(uint64_t);
            const uint32x4_t w0[2] = {vld1q_u32(weights), vld1q_u32(weights + 4)};
            const uint32x4_t w[2] = {vld1q_u32(weights + 8), vld1q_u32(weights + 12)};
            for (uint32_t p = 0; p < n; p++) {
                const uint32_t *word = (const uint32_t *)(const void *)((const uint8_t *)tile->pixels[p] + at);
                const uint32x4_t a0 = vld1q_dup_u32(word), a = vld1q_dup_u32(word + 1);
                for (uint32_t i = 0; i < 2; i++)
                    sum[p][i] = vaddq_u8(sum[p][i], pair_of(a0, a, w0[i], w[i]));
            }
            if (--room > 0)
                continue;
            room = PAIR_ROUNDS;
            for (uint32_t p = 0; p < n; p++)
                for (uint32_t i = 0; i < 2; i++) {
                    total[p][i] = vpadalq_u16(total[p][i], vpaddlq_u8(sum[p][i]));
                    sum[p][i] = vdupq_n_u8(0);
                }
        }
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < 2; i++)
            total[p][i] = vpadalq_u16(total[p][i], vpaddlq_u8(sum[p][i]));
}

XN_INLINE void pair_tile(const struct xn_cpu_tile *tile, const uint32_t n)
{
    const size_t block_words = (size_t)tile->rows * tile->run * 16;
    const uint32_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++, weights += block_words) {
        uint32x4_t total[PAIR_TILE][2];
        pair_octet(tile, weights, total, n);
        for (uint32_t p = 0; p < n; p++)
            for (uint32_t i = 0; i < 2; i++)
                vst1q_s32(acc_of(tile, p) + b * OCTET + 4 * i, vreinterpretq_s32_u32(total[p][i]));
    }
}

static void bits(const struct xn_cpu_tile *tile)
{
    TILE_SWITCH(pair_tile, PAIR_TILE)
}

static void bits_pack(void *unit, uint32_t lane, uint64_t raw)
{
    const uint64_t word = xn_bits_encode(raw);
    uint32_t *w = (uint32_t *)unit + lane;
    w[0] = (uint32_t)word;
    w[OCTET] = (uint32_t)(word >> 32);
}

const struct xn_cpu_bits_kernel XN_LEVEL(bits) = {
    .conv = {.run = bits, .tile = PAIR_TILE, .block = OCTET, .unit_bytes = 64, .pack = bits_pack},
    .pairs = true,
    .encoded = true};

#elif defined(__AVX2__)

/** Bytes of popcounts, one of each of 8 channels' 32 bits. */
XN_INLINE __m256i add_counts(__m256i sum, __m256i x)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
    return _mm256_add_epi8(sum, _mm256_add_epi8(low, high));
}

/** Bytes added up in each 32-bit lane. */
XN_INLINE __m256i fold_counts(__m256i sum)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(sum, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

/** Four bytes of memory to all lanes, in one load. */
XN_INLINE __m256i broadcast(const void *from)
{
    return _mm256_broadcastd_epi32(_mm_loadu_si32(from));
}

#include "accel/cpu/kernels/pairs256.h"

#define PAIR_ROUNDS 31u /* a byte counts 8 bits a round */
#define PAIR_GROUP  2u  /* pixels whose sums stay in registers */

/** G of one word for one half of a block, ((a1 ^ w0) & (a0 ^ w1)) ^ W, counted. */
XN_INLINE __m256i add_pair(__m256i sum, const uint8_t *weights, __m256i a0, __m256i a1)
{
    const __m256i *w = (const __m256i *)(const void *)weights;
    const __m256i x = _mm256_xor_si256(a0, w[0]), y = _mm256_xor_si256(a1, w[1]);
    return add_counts(sum, _mm256_xor_si256(_mm256_and_si256(x, y), w[2]));
}

/** Places of the next `count` words of the window, whose next one is word *k of row *row, in bytes from its first. */
static void place_words(const struct xn_cpu_tile *tile, uint32_t *row, uint32_t *k, uint32_t count, uint32_t *at)
{
    for (uint32_t i = 0; i < count; i++) {
        at[i] = (uint32_t)(*row * tile->row_bytes + *k * sizeof(uint64_t));
        if (++*k == tile->run) {
            *k = 0;
            ++*row;
        }
    }
}

/** A block of pixels first..first+n-1, words at places `at`: `more` of them are added to sums that there are already. */
XN_INLINE void pair_group(const struct xn_cpu_tile *tile, uint32_t first, const uint8_t *weights, uint32_t lane,
                          const uint32_t *at, uint32_t count, bool more, const uint32_t n)
{
    const uint8_t *pixels[PAIR_GROUP];
    __m256i sum[PAIR_GROUP][2];

    for (uint32_t p = 0; p < n; p++) {
        pixels[p] = tile->pixels[first + p];
        sum[p][0] = sum[p][1] = _mm256_setzero_si256();
    }
    for (uint32_t k = 0; k < count; k++, weights += PAIR_UNIT)
        for (uint32_t p = 0; p < n; p++) {
            const uint8_t *a = pixels[p] + at[k];
            const __m256i a0 = broadcast(a), a1 = broadcast(a + 4);
            sum[p][0] = add_pair(sum[p][0], weights, a0, a1);
            sum[p][1] = add_pair(sum[p][1], weights + PAIR_UNIT / 2, a0, a1);
        }
    for (uint32_t p = 0; p < n; p++) {
        __m256i *acc = (__m256i *)(void *)(acc_of(tile, first + p) + lane);
        const __m256i init = _mm256_set1_epi32(tile->init[first + p]);
        for (uint32_t h = 0; h < 2; h++)
            _mm256_storeu_si256(acc + h,
                                _mm256_add_epi32(more ? _mm256_loadu_si256(acc + h) : init, fold_counts(sum[p][h])));
    }
}

/** A block of all pixels, while its weights are in L1. */
static void pair_block(const struct xn_cpu_tile *tile, const uint8_t *weights, uint32_t lane, const uint32_t *at,
                       uint32_t count, bool more)
{
    uint32_t p = 0;

    for (; p + PAIR_GROUP <= tile->n; p += PAIR_GROUP)
        pair_group(tile, p, weights, lane, at, count, more, PAIR_GROUP);
    if (p < tile->n)
        pair_group(tile, p, weights, lane, at, count, more, 1);
}

static void bits(const struct xn_cpu_tile *tile)
{
    const size_t words = (size_t)tile->rows * tile->run;
    uint32_t row = 0, k = 0, at[PAIR_ROUNDS];

    for (size_t done = 0; done < words; done += PAIR_ROUNDS) {
        const uint32_t count = (uint32_t)XN_MIN(words - done, PAIR_ROUNDS);
        const uint8_t *weights = (const uint8_t *)tile->weights + done * PAIR_UNIT;
        place_words(tile, &row, &k, count, at);
        for (uint32_t b = 0; b < tile->blocks; b++, weights += words * PAIR_UNIT)
            pair_block(tile, weights, b * PAIR_BLOCK, at, count, done > 0);
    }
}

const struct xn_cpu_bits_kernel XN_LEVEL(bits) = {
    .conv = {.run = bits, .tile = XN_CPU_TILE_MAX, .block = PAIR_BLOCK, .unit_bytes = PAIR_UNIT, .pack = pair_pack},
    .pairs = true,
    .order = pair_order};

#else

/** Sums of one octet of channels over `n` pixels. Counts go to bytes first where LANES_FLUSH says so. */
XN_INLINE void bits_octet(const struct xn_cpu_tile *tile, const uint64_t *weights, lanes total[][LANES_VECTORS],
                          const uint32_t n)
{
    lanes sum[LANES_TILE][LANES_VECTORS] = {0};
    const uint64_t *x[LANES_TILE];
    uint32_t room = LANES_FLUSH;

    for (uint32_t row = 0; row < tile->rows; row++) {
        for (uint32_t p = 0; p < n; p++)
            x[p] = (const uint64_t *)(const void *)((const uint8_t *)tile->pixels[p] + row * tile->row_bytes);
        for (uint32_t done = 0; done < tile->run;) {
            uint32_t words = XN_MIN(tile->run - done, room);
            for (size_t k = done; k < done + words; k++, weights += OCTET)
                for (uint32_t p = 0; p < n; p++) {
                    lanes a = lanes_splat(x[p][k]);
                    for (uint32_t v = 0; v < LANES_VECTORS; v++)
                        sum[p][v] = lanes_count(sum[p][v], a ^ lanes_load(weights + v * (8 / LANES_VECTORS)));
                }
            done += words;
            if (LANES_FLUSH != UINT32_MAX && (room -= words) == 0) {
                for (uint32_t p = 0; p < n; p++)
                    for (uint32_t v = 0; v < LANES_VECTORS; v++) {
                        total[p][v] += lanes_fold(sum[p][v]);
                        sum[p][v] ^= sum[p][v];
                    }
                room = LANES_FLUSH;
            }
        }
    }
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t v = 0; v < LANES_VECTORS; v++)
            total[p][v] += lanes_fold(sum[p][v]);
}

XN_INLINE void bits_tile(const struct xn_cpu_tile *tile, const uint32_t n)
{
    const size_t block_words = (size_t)tile->rows * tile->run * OCTET;
    const uint64_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++, weights += block_words) {
        lanes total[LANES_TILE][LANES_VECTORS] = {0};
        bits_octet(tile, weights, total, n);
        for (uint32_t p = 0; p < n; p++) {
            uint64_t counts[OCTET];
            int32_t *acc = acc_of(tile, p) + b * OCTET;
            memcpy(counts, total[p], sizeof(counts));
            for (uint32_t i = 0; i < OCTET; i++)
                acc[i] = (int32_t)counts[i];
        }
    }
}

static void bits(const struct xn_cpu_tile *tile)
{
    TILE_SWITCH(bits_tile, LANES_TILE)
}

static void bits_pack(void *unit, uint32_t lane, uint64_t raw)
{
    ((uint64_t *)unit)[lane] = raw;
}

const struct xn_cpu_bits_kernel XN_LEVEL(bits) = {
    .conv = {.run = bits, .tile = LANES_TILE, .block = OCTET, .unit_bytes = 8 * OCTET, .pack = bits_pack}};

#endif

#if !defined(__AVX512VPOPCNTDQ__) /* kernels/avx512.c */
double XN_LEVEL(ceiling)(uint64_t rounds)
{
    XN_ALIGNED(64) static uint64_t words[XN_CPU_CEILING_WORDS * OCTET] = {UINT64_C(0x0123456789abcdef)};
    lanes total[LANES_VECTORS] = {0};
    for (uint64_t r = 0; r < rounds; r++) {
        lanes sum[LANES_TILE][LANES_VECTORS] = {0};
        for (uint32_t k = 0; k < XN_CPU_CEILING_WORDS; k++)
            for (uint32_t p = 0; p < LANES_TILE; p++) {
                lanes a = lanes_splat(words[k * OCTET + p]);
                for (uint32_t v = 0; v < LANES_VECTORS; v++)
                    sum[p][v] = lanes_count(sum[p][v], a ^ lanes_load(words + k * OCTET + v * (8 / LANES_VECTORS)));
            }
        for (uint32_t p = 0; p < LANES_TILE; p++)
            for (uint32_t v = 0; v < LANES_VECTORS; v++)
                total[v] += lanes_fold(sum[p][v]);
        __asm__ volatile("" ::: "memory"); /* the next round loads and counts again */
    }
    __asm__ volatile("" : : "r"(total) : "memory");
    return 64.0 * OCTET * XN_CPU_CEILING_WORDS * LANES_TILE * (double)rounds;
}
_Static_assert(XN_CPU_CEILING_WORDS <= LANES_FLUSH, "the ceiling folds once a round");
#endif

/* ---- int16 x int16 ---------------------------------------------------------------------------------------------------- */

#if defined(__AVX2__) && !defined(__AVX512F__)

#define I16_BLOCK (2 * OCTET)
#define I16_TILE  XN_CPU_TILE_MAX
#define I16_GROUP 4u /* pixels whose sums stay in registers */

/** A block of pixels first..first+n-1: two vectors of channels share what is broadcast of a pixel. */
XN_INLINE void i16_group(const struct xn_cpu_tile *tile, uint32_t first, const uint8_t *weights, uint32_t lane,
                         const uint32_t n)
{
    __m256i sum[I16_GROUP][2];

    for (uint32_t p = 0; p < n; p++)
        sum[p][0] = sum[p][1] = _mm256_setzero_si256();
    for (uint32_t row = 0; row < tile->rows; row++) {
        const size_t start = row * tile->row_bytes;
        for (size_t at = start; at < start + 4 * (size_t)tile->run; at += 4, weights += 4 * I16_BLOCK) {
            const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)weights);
            const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(weights + 32));
            for (uint32_t p = 0; p < n; p++) {
                const __m256i x = broadcast((const uint8_t *)tile->pixels[first + p] + at);
                sum[p][0] = _mm256_add_epi32(sum[p][0], _mm256_madd_epi16(x, w0));
                sum[p][1] = _mm256_add_epi32(sum[p][1], _mm256_madd_epi16(x, w1));
            }
        }
    }
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc_of(tile, first + p) + lane + h * OCTET), sum[p][h]);
}

#define I16_CASE(k)                                                                                                    \
    case k:                                                                                                            \
        i16_group(tile, p, weights, b *I16_BLOCK, k);                                                                  \
        break;

static void i16(const struct xn_cpu_tile *tile)
{
    const size_t block_bytes = (size_t)tile->rows * tile->run * 4 * I16_BLOCK;
    const uint8_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++, weights += block_bytes) {
        uint32_t p = 0, n;
        for (uint32_t groups = (tile->n + I16_GROUP - 1) / I16_GROUP; groups > 0; groups--, p += n) {
            n = (tile->n - p) / groups;
            switch (n) {
                I16_CASE(1)
                I16_CASE(2)
                I16_CASE(3)
                I16_CASE(4)
            }
        }
    }
}

#else

#define I16_BLOCK OCTET
#define I16_TILE  OCTET_TILE

XN_INLINE void i16_tile(const struct xn_cpu_tile *tile, const uint32_t n)
{
    const int16_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++) {
        octet sum[OCTET_TILE];
        memset(sum, 0, sizeof(sum));
        for (uint32_t row = 0; row < tile->rows; row++)
            for (size_t k = 0; k < tile->run; k++, weights += 2 * OCTET)
                for (uint32_t p = 0; p < n; p++) {
                    int32_t pair;
                    memcpy(&pair, (const uint8_t *)tile->pixels[p] + row * tile->row_bytes + 4 * k, 4);
                    sum[p] = octet_madd(sum[p], pair, weights);
                }
        for (uint32_t p = 0; p < n; p++)
            memcpy(acc_of(tile, p) + b * OCTET, &sum[p], sizeof(octet));
    }
}

static void i16(const struct xn_cpu_tile *tile)
{
    TILE_SWITCH(i16_tile, OCTET_TILE)
}

#endif

static void i16_pack(void *unit, uint32_t lane, uint64_t raw)
{
    ((uint32_t *)unit)[lane] = (uint32_t)raw;
}

const struct xn_cpu_conv_kernel XN_LEVEL(i16) = {
    .run = i16, .tile = I16_TILE, .block = I16_BLOCK, .unit_bytes = 4 * I16_BLOCK, .pack = i16_pack};
