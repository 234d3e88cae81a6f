/* SPDX-License-Identifier: Apache-2.0
 * Depthwise convolutions: each channel by itself, so that what is parallel is channels and pixels. Bits are counted bit by bit: counters of
 * 64 channels stand upright in a few words, plane i holding bit i of each.
 *
 * Two ways. With sums (depthwise_bits): planes become int32 for any chain. Sliced (depthwise_sliced), for a chain that is one threshold: words
 * of pixels that lie one after another go eight at a time, counted by adders, and are compared with the limit bit by bit; they never
 * become numbers.
 */
#include "accel/cpu/kernels/lanes.h"
#include "accel/cpu/kernels/level.h"

/* ---- sums ------------------------------------------------------------------------------------------------------------- */

#if defined(__AVX512BW__)

/** A byte counts each of 64 channels, a word of bits being the mask of those to add to. The sums come out in the level's order, which is that of
 *  unpacking (kernels/pairs512.h). */
static void depthwise_pixel(const struct xn_cpu_tile *tile, uint32_t p)
{
    const uint64_t *weights = tile->weights;
    const __m512i one = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    int32_t *acc = acc_of(tile, p);
    __m512i counts = zero;

    for (uint32_t row = 0; row < tile->rows; row++) {
        const uint8_t *x = (const uint8_t *)tile->pixels[p] + row * tile->row_bytes;
        for (uint32_t k = 0; k < tile->run; k++, x += tile->tap_bytes) {
            uint64_t word;
            memcpy(&word, x, sizeof(word));
            counts = _mm512_mask_add_epi8(counts, map_word(word) ^ *weights++, counts, one);
        }
    }
    const __m512i half[2] = {_mm512_cvtepu8_epi16(_mm512_castsi512_si256(counts)),
                             _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(counts, 1))};
    for (uint32_t h = 0; h < 2; h++) {
        _mm512_storeu_si512(acc + 32 * h, _mm512_unpacklo_epi16(half[h], zero));
        _mm512_storeu_si512(acc + 32 * h + 16, _mm512_unpackhi_epi16(half[h], zero));
    }
}

#elif defined(__AVX2__)

/** A byte counts each of 64 channels, 32 a vector: the bytes of a word go to the channels that they hold, which look at their bit. The sums come
 *  out in the level's order, which is that of unpacking (kernels/pairs256.h). */
static void depthwise_pixel(const struct xn_cpu_tile *tile, uint32_t p)
{
    const uint64_t *weights = tile->weights;
    const __m256i bit = _mm256_set1_epi64x((long long)UINT64_C(0x8040201008040201)), zero = _mm256_setzero_si256();
    const __m256i low = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i high =
        _mm256_setr_epi64x(0x0404040404040404, 0x0505050505050505, 0x0606060606060606, 0x0707070707070707);
    int32_t *acc = acc_of(tile, p);
    __m256i counts[2] = {zero, zero};

    for (uint32_t row = 0; row < tile->rows; row++) {
        const uint8_t *x = (const uint8_t *)tile->pixels[p] + row * tile->row_bytes;
        for (uint32_t k = 0; k < tile->run; k++, x += tile->tap_bytes) {
            uint64_t word;
            memcpy(&word, x, sizeof(word));
            const __m256i all = _mm256_set1_epi64x((long long)(word ^ *weights++));
            const __m256i a = _mm256_and_si256(_mm256_shuffle_epi8(all, low), bit);
            const __m256i b = _mm256_and_si256(_mm256_shuffle_epi8(all, high), bit);
            counts[0] = _mm256_sub_epi8(counts[0], _mm256_cmpeq_epi8(a, bit));
            counts[1] = _mm256_sub_epi8(counts[1], _mm256_cmpeq_epi8(b, bit));
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        const __m128i bytes =
            i % 2 ? _mm256_extracti128_si256(counts[i / 2], 1) : _mm256_castsi256_si128(counts[i / 2]);
        const __m256i half = _mm256_cvtepu8_epi16(bytes);
        _mm256_storeu_si256((__m256i *)(void *)(acc + 16 * i), _mm256_unpacklo_epi16(half, zero));
        _mm256_storeu_si256((__m256i *)(void *)(acc + 16 * i + 8), _mm256_unpackhi_epi16(half, zero));
    }
}

#else

/** Each byte of the result: bit j of the byte `bits`, as 0 or 1, in byte j. */
XN_INLINE uint64_t spread_byte(uint64_t bits)
{
    uint64_t t = (bits * UINT64_C(0x0101010101010101)) & UINT64_C(0x8040201008040201);
    return ((t + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7) & UINT64_C(0x0101010101010101);
}

/** 64 channels at a time: their counters stand upright in six words, plane i holding bit i of each, and a tap is added by
 *  half adders. Six planes hold the 49 taps of the largest kernel. */
static void depthwise_pixel(const struct xn_cpu_tile *tile, uint32_t p)
{
    const uint64_t *weights = tile->weights;
    int32_t *acc = acc_of(tile, p);
    uint64_t plane[6] = {0};

    for (uint32_t row = 0; row < tile->rows; row++) {
        const uint8_t *x = (const uint8_t *)tile->pixels[p] + row * tile->row_bytes;
        for (uint32_t k = 0; k < tile->run; k++, x += tile->tap_bytes) {
            uint64_t carry;
            memcpy(&carry, x, sizeof(carry));
            carry = map_word(carry) ^ *weights++;
            for (uint32_t i = 0; i < 6; i++) {
                uint64_t both = plane[i] & carry;
                plane[i] ^= carry;
                carry = both;
            }
        }
    }
    for (uint32_t byte = 0; byte < 8; byte++) {
        uint64_t counts = 0;
        for (uint32_t i = 0; i < 6; i++)
            counts |= spread_byte(plane[i] >> (8 * byte) & 0xff) << i;
        for (uint32_t i = 0; i < 8; i++)
            acc[8 * byte + i] = (int32_t)(counts >> (8 * i) & 0xff);
    }
}

#endif

static void depthwise_bits(const struct xn_cpu_tile *tile)
{
    for (uint32_t p = 0; p < tile->n; p++)
        depthwise_pixel(tile, p);
}

const struct xn_cpu_conv_kernel XN_LEVEL(depthwise_bits) = {.run = depthwise_bits, .tile = XN_CPU_TILE_MAX};

#if defined(__AVX2__)

/* Two taps of a channel, side by side, are multiplied and added by one instruction. */

#if defined(__AVX512BW__)
#define I16_LANES 32u
#define I16_GROUP 8u /* pixels whose sums stay in registers */
typedef __m512i i16s;

XN_INLINE i16s i16_load(const int16_t *from)
{
    return _mm512_loadu_si512(from);
}
XN_INLINE i16s i16_low(i16s a, i16s b)
{
    return _mm512_unpacklo_epi16(a, b);
}
XN_INLINE i16s i16_high(i16s a, i16s b)
{
    return _mm512_unpackhi_epi16(a, b);
}
XN_INLINE i16s i16_sum(i16s sum, i16s x, i16s w)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
}
/** Sums of what i16_low and i16_high gave, in the order of channels. */
XN_INLINE void i16_store(int32_t *acc, i16s low, i16s high)
{
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(acc, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(acc + 16, _mm512_permutex2var_epi64(low, second, high));
}
#else
#define I16_LANES 16u
#define I16_GROUP 4u
typedef __m256i i16s;

XN_INLINE i16s i16_load(const int16_t *from)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)from);
}
XN_INLINE i16s i16_low(i16s a, i16s b)
{
    return _mm256_unpacklo_epi16(a, b);
}
XN_INLINE i16s i16_high(i16s a, i16s b)
{
    return _mm256_unpackhi_epi16(a, b);
}
XN_INLINE i16s i16_sum(i16s sum, i16s x, i16s w)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
}
XN_INLINE void i16_store(int32_t *acc, i16s low, i16s high)
{
    _mm256_storeu_si256((__m256i *)(void *)acc, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(acc + 8), _mm256_permute2x128_si256(low, high, 0x31));
}
#endif

/** Where tap `tap` is. */
XN_INLINE size_t place_of_tap(const struct xn_cpu_tile *tile, uint32_t tap)
{
    return tap / tile->run * tile->row_bytes + tap % tile->run * tile->tap_bytes;
}

/** The same from a table: divisions take longer than what 256-bit vectors do with a tap. */
#if defined(__AVX512BW__)
#define I16_PLACES        0u
#define I16_PLACE_OF(tap) place_of_tap(tile, tap)
#else
#define I16_PLACES        64u
#define I16_PLACE_OF(tap) places[tap]
#endif

/** Channels c.. of pixels first..first+n-1. */
XN_INLINE void i16_group(const struct xn_cpu_tile *tile, const size_t *places, uint32_t first, uint32_t c,
                         const uint32_t n)
{
    const uint32_t taps = tile->rows * tile->run;
    const int16_t *weights = (const int16_t *)tile->weights + c;
    (void)places; /* not of every level */
    const i16s none = i16_load(weights) ^ i16_load(weights);
    i16s low[I16_GROUP], high[I16_GROUP];

    for (uint32_t p = 0; p < n; p++)
        low[p] = high[p] = none;
    for (uint32_t tap = 0; tap < taps; tap += 2) {
        const uint32_t next = XN_MIN(tap + 1, taps - 1); /* the last one may be alone */
        const size_t at = I16_PLACE_OF(tap), at_next = I16_PLACE_OF(next);
        const i16s w = i16_load(weights + tap * XN_CPU_CHUNK);
        const i16s w_next = next > tap ? i16_load(weights + next * XN_CPU_CHUNK) : none;
        const i16s w_low = i16_low(w, w_next), w_high = i16_high(w, w_next);
        for (uint32_t p = 0; p < n; p++) {
            const uint8_t *pixel = (const uint8_t *)tile->pixels[first + p] + c * sizeof(int16_t);
            const i16s x = i16_load((const int16_t *)(const void *)(pixel + at));
            const i16s x_next = i16_load((const int16_t *)(const void *)(pixel + at_next));
            low[p] = i16_sum(low[p], i16_low(x, x_next), w_low);
            high[p] = i16_sum(high[p], i16_high(x, x_next), w_high);
        }
    }
    for (uint32_t p = 0; p < n; p++)
        i16_store(acc_of(tile, first + p) + c, low[p], high[p]);
}

#define I16_CASE(k)                                                                                                    \
    case k:                                                                                                            \
        i16_group(tile, places, p, c, XN_MIN(k, I16_GROUP));                                                           \
        break;

static void depthwise_i16(const struct xn_cpu_tile *tile)
{
    size_t places[I16_PLACES + 1];

    for (uint32_t tap = 0; I16_PLACES && tap < tile->rows * tile->run; tap++)
        places[tap] = place_of_tap(tile, tap);
    for (uint32_t c = 0; c < XN_CPU_CHUNK; c += I16_LANES)
        for (uint32_t p = 0; p < tile->n; p += I16_GROUP)
            switch (XN_MIN(tile->n - p, I16_GROUP)) {
                I16_CASE(1)
                I16_CASE(2)
                I16_CASE(3)
                I16_CASE(4)
                I16_CASE(5)
                I16_CASE(6)
                I16_CASE(7)
                I16_CASE(8)
            }
}

#else

static void depthwise_i16(const struct xn_cpu_tile *tile)
{
    for (uint32_t p = 0; p < tile->n; p++) {
        const int16_t *restrict weights = tile->weights;
        int32_t sum[XN_CPU_CHUNK] = {0};
        for (uint32_t row = 0; row < tile->rows; row++) {
            const uint8_t *tap = (const uint8_t *)tile->pixels[p] + row * tile->row_bytes;
            for (uint32_t k = 0; k < tile->run; k++, tap += tile->tap_bytes, weights += XN_CPU_CHUNK) {
                const int16_t *restrict x = (const int16_t *)(const void *)tap;
                for (uint32_t i = 0; i < XN_CPU_CHUNK; i++)
                    sum[i] += x[i] * weights[i];
            }
        }
        memcpy(acc_of(tile, p), sum, sizeof(sum));
    }
}

#endif

const struct xn_cpu_conv_kernel XN_LEVEL(depthwise_i16) = {.run = depthwise_i16, .tile = XN_CPU_TILE_MAX};

/* ---- sliced ----------------------------------------------------------------------------------------------------------- */

#define WORDS  XN_CPU_SLICE_WORDS
#define PLANES XN_CPU_SLICE_PLANES
/* Words of a vector: not more than the machine has, or the compiler keeps them in memory. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define LANES 4u
#else
#define LANES WORDS
#endif
typedef uint64_t slice __attribute__((vector_size(8 * LANES)));

/** a + b + c, bit by bit. */
XN_INLINE void full_add(const slice *a, const slice *b, const slice *c, slice *sum, slice *carry)
{
#if defined(__AVX512F__)
    const __m512i x = (__m512i)*a, y = (__m512i)*b, z = (__m512i)*c;
    *sum = (slice)_mm512_ternarylogic_epi64(x, y, z, 0x96);
    *carry = (slice)_mm512_ternarylogic_epi64(x, y, z, 0xe8);
#else
    const slice either = *a ^ *b;
    *carry = (*a & *b) | (either & *c);
    *sum = either ^ *c;
#endif
}

/** Words of tap `tap` xor weights. */
XN_INLINE void load_tap(const struct xn_cpu_slices *s, const uint64_t *in, const uint64_t *weights, uint32_t tap,
                        const uint32_t run, slice *x)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    /* One load each: copies in halves would be waited for. */
    *x = (slice)_mm256_loadu_si256(
        (const __m256i *)(const void *)(in + tap / run * s->row_words + tap % run * s->words));
    *x ^= (slice)_mm256_loadu_si256((const __m256i *)(const void *)(weights + tap * WORDS));
#else
    slice w;
    memcpy(x, in + tap / run * s->row_words + tap % run * s->words, sizeof(*x));
    memcpy(&w, weights + tap * WORDS, sizeof(w));
    *x ^= LANES_ENCODED ? *x << 32 ^ w : w;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)

/** Three taps of a row. */
XN_INLINE void count_row(const struct xn_cpu_slices *s, const uint64_t *in, const uint64_t *weights, uint32_t row,
                         slice *sum, slice *carry)
{
    slice a, b, c;
    load_tap(s, in, weights, 3 * row, 3, &a);
    load_tap(s, in, weights, 3 * row + 1, 3, &b);
    load_tap(s, in, weights, 3 * row + 2, 3, &c);
    full_add(&a, &b, &c, sum, carry);
}

/** Nine taps: four planes, by three rows of three; without arrays, which the compiler keeps in memory. */
XN_INLINE void count_3x3(const struct xn_cpu_slices *s, const uint64_t *in, const uint64_t *weights, slice *plane)
{
    slice sum0, sum1, sum2, carry0, carry1, carry2, twos, from_ones, fours;

    count_row(s, in, weights, 0, &sum0, &carry0);
    count_row(s, in, weights, 1, &sum1, &carry1);
    count_row(s, in, weights, 2, &sum2, &carry2);
    full_add(&sum0, &sum1, &sum2, &plane[0], &from_ones);
    full_add(&carry0, &carry1, &carry2, &twos, &fours);
    plane[1] = twos ^ from_ones;
    plane[2] = fours ^ (twos & from_ones);
    plane[3] = fours & twos & from_ones;
}

#else

/** Nine taps: four planes, by three rows of three. */
XN_INLINE void count_3x3(const struct xn_cpu_slices *s, const uint64_t *in, const uint64_t *weights, slice *plane)
{
    slice x[3], sum[3], carry[3], twos, from_ones, fours;

    for (uint32_t row = 0; row < 3; row++) {
        for (uint32_t k = 0; k < 3; k++)
            load_tap(s, in, weights, 3 * row + k, 3, &x[k]);
        full_add(&x[0], &x[1], &x[2], &sum[row], &carry[row]);
    }
    full_add(&sum[0], &sum[1], &sum[2], &plane[0], &from_ones);
    full_add(&carry[0], &carry[1], &carry[2], &twos, &fours);
    plane[1] = twos ^ from_ones;
    plane[2] = fours ^ (twos & from_ones);
    plane[3] = fours & twos & from_ones;
}

#endif

/** Any window, tap by tap. */
XN_INLINE void count_any(const struct xn_cpu_slices *s, const uint64_t *in, const uint64_t *weights, slice *plane)
{
    for (uint32_t tap = 0; tap < s->rows * s->run; tap++) {
        slice carry;
        load_tap(s, in, weights, tap, s->run, &carry);
        for (uint32_t i = 0; i < PLANES; i++) {
            const slice both = plane[i] & carry;
            plane[i] ^= carry;
            carry = both;
        }
    }
}

/** Bits where count <= limit. */
XN_INLINE void compare(const slice *plane, const uint64_t *limits, const uint32_t planes, slice *bits)
{
    slice at_most, limit;
    memcpy(&at_most, limits + PLANES * WORDS, sizeof(at_most)); /* where the limit is not below 0 */
    for (uint32_t i = 0; i < planes; i++) {
        memcpy(&limit, limits + i * WORDS, sizeof(limit));
        const slice differ = plane[i] ^ limit;
        at_most = (at_most & ~differ) | (limit & differ);
    }
    *bits = at_most;
}

/** Words i..i+LANES-1, as far as there are any. `block` and `lane` say where they are in the pattern of weights and limits. */
XN_INLINE void run_slice(const struct xn_cpu_slices *s, uint32_t i, uint32_t block, uint32_t lane, const bool is_3x3)
{
    const uint64_t *weights = s->weights + (size_t)block * s->rows * s->run * WORDS + lane;
    slice plane[PLANES] = {0}, bits;

    if (is_3x3)
        count_3x3(s, s->in + i, weights, plane);
    else
        count_any(s, s->in + i, weights, plane);
    compare(plane, s->limits + (size_t)block * (PLANES + 1) * WORDS + lane, is_3x3 ? 4 : PLANES, &bits);
    if (LANES_ENCODED)
        bits ^= bits << 32;
    if (i + LANES <= s->n)
        memcpy(s->out + i, &bits, sizeof(bits));
    else
        memcpy(s->out + i, &bits, (s->n - i) * sizeof(uint64_t));
}

XN_INLINE void run_slices(const struct xn_cpu_slices *s, const bool is_3x3)
{
    uint32_t block = 0; /* which words of a pixel: the pattern of weights and limits returns every s->words blocks */

    for (uint32_t i = 0; i < s->n; i += WORDS) {
        for (uint32_t lane = 0; lane < WORDS && i + lane < s->n; lane += LANES)
            run_slice(s, i + lane, block, lane, is_3x3);
        if (++block == s->words)
            block = 0;
    }
}

/** The words written are behind us by a map's row or so: vectors may read them. */
static void count_pixels(const struct xn_cpu_slices *s)
{
    const uint64_t *restrict out = s->out;
    int32_t *restrict counts = s->counts;

    if (s->words == 1) {
        for (uint32_t i = 0; i < s->n; i++)
            counts[i] += (int32_t)map_pair_count(out[i]);
        return;
    }
    for (uint32_t p = 0; p < s->n / s->words; p++, out += s->words) {
        int32_t count = 0;
        for (uint32_t i = 0; i < s->words; i++)
            count += (int32_t)map_pair_count(out[i]);
        counts[p] += count;
    }
}

void XN_LEVEL(depthwise_sliced)(const struct xn_cpu_slices *s)
{
    if (s->rows == 3 && s->run == 3)
        run_slices(s, true);
    else
        run_slices(s, false);
    if (s->counts)
        count_pixels(s);
}
