/* SPDX-License-Identifier: Apache-2.0
 * Convolutions. A tile is a few output pixels by eight output channels: the sums stay in registers, each weight is loaded once
 * for all pixels, each activation once for eight channels. There is no branch a pixel: the runner has put a border round the
 * map where the convolution pads (accel/cpu/run.c), so every tap can be read.
 */
#include "accel/cpu/kernels/lanes.h"
#include "accel/cpu/kernels/level.h"

/* ---- bits x bits ------------------------------------------------------------------------------------------------------ */

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
            for (size_t k = done; k < done + words; k++, weights += XN_CPU_OCTET)
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
    const size_t block_words = (size_t)tile->rows * tile->run * XN_CPU_OCTET;
    const uint64_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++, weights += block_words) {
        lanes total[LANES_TILE][LANES_VECTORS] = {0};
        bits_octet(tile, weights, total, n);
        for (uint32_t p = 0; p < n; p++) {
            uint64_t counts[XN_CPU_OCTET];
            int32_t *acc = tile->acc + p * tile->acc_pitch + b * XN_CPU_OCTET;
            memcpy(counts, total[p], sizeof(counts));
            for (uint32_t i = 0; i < XN_CPU_OCTET; i++)
                acc[i] = (int32_t)counts[i];
        }
    }
}

void XN_LEVEL(bits_one)(const struct xn_cpu_tile *tile)
{
    bits_tile(tile, 1);
}

void XN_LEVEL(bits_many)(const struct xn_cpu_tile *tile)
{
    bits_tile(tile, LANES_TILE);
}

void XN_LEVEL(ceiling)(const uint64_t words[XN_CPU_CEILING_WORDS * 8], uint32_t rounds, uint64_t sums[8])
{
    lanes total[LANES_VECTORS] = {0};
    for (uint32_t r = 0; r < rounds; r++) {
        lanes sum[LANES_TILE][LANES_VECTORS] = {0};
        for (uint32_t k = 0; k < XN_CPU_CEILING_WORDS; k++)
            for (uint32_t p = 0; p < LANES_TILE; p++) {
                lanes a = lanes_splat(words[k * 8 + p]);
                for (uint32_t v = 0; v < LANES_VECTORS; v++)
                    sum[p][v] = lanes_count(sum[p][v], a ^ lanes_load(words + k * 8 + v * (8 / LANES_VECTORS)));
            }
        for (uint32_t p = 0; p < LANES_TILE; p++)
            for (uint32_t v = 0; v < LANES_VECTORS; v++)
                total[v] += lanes_fold(sum[p][v]);
        __asm__ volatile("" ::: "memory"); /* the next round loads and counts again */
    }
    memcpy(sums, total, sizeof(total));
}
_Static_assert(XN_CPU_CEILING_WORDS <= LANES_FLUSH, "the ceiling folds once a round");

/* ---- int16 x int16 ---------------------------------------------------------------------------------------------------- */

XN_INLINE void i16_tile(const struct xn_cpu_tile *tile, const uint32_t n)
{
    const int16_t *weights = tile->weights;

    for (uint32_t b = 0; b < tile->blocks; b++) {
        octet sum[OCTET_TILE];
        memset(sum, 0, sizeof(sum));
        for (uint32_t row = 0; row < tile->rows; row++)
            for (size_t k = 0; k < tile->run; k++, weights += 2 * XN_CPU_OCTET)
                for (uint32_t p = 0; p < n; p++) {
                    int32_t pair;
                    memcpy(&pair, (const uint8_t *)tile->pixels[p] + row * tile->row_bytes + 4 * k, 4);
                    sum[p] = octet_madd(sum[p], pair, weights);
                }
        for (uint32_t p = 0; p < n; p++)
            memcpy(tile->acc + p * tile->acc_pitch + b * XN_CPU_OCTET, &sum[p], sizeof(octet));
    }
}

void XN_LEVEL(i16_one)(const struct xn_cpu_tile *tile)
{
    i16_tile(tile, 1);
}

void XN_LEVEL(i16_many)(const struct xn_cpu_tile *tile)
{
    i16_tile(tile, OCTET_TILE);
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------- */

/** Each byte of the result: bit j of the byte `bits`, as 0 or 1, in byte j. */
XN_INLINE uint64_t spread_byte(uint64_t bits)
{
    uint64_t t = (bits * UINT64_C(0x0101010101010101)) & UINT64_C(0x8040201008040201);
    return ((t + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7) & UINT64_C(0x0101010101010101);
}

/** 64 channels at a time: their counters stand upright in six words, plane i holding bit i of each, and a tap is added by
 *  half adders. Six planes hold the 49 taps of the largest kernel. */
XN_INLINE void depthwise_bits_word(const struct xn_cpu_tile *tile, const uint8_t *pixel, uint32_t word, int32_t *acc)
{
    const uint64_t *weights = (const uint64_t *)tile->weights + word;
    uint64_t plane[6] = {0};

    for (uint32_t row = 0; row < tile->rows; row++) {
        const uint64_t *x = (const uint64_t *)(const void *)(pixel + row * tile->row_bytes) + word;
        for (uint32_t k = 0; k < tile->run; k++, x += tile->blocks, weights += tile->blocks) {
            uint64_t carry = *x ^ *weights;
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

void XN_LEVEL(depthwise_bits)(const struct xn_cpu_tile *tile)
{
    for (uint32_t p = 0; p < tile->n; p++)
        for (uint32_t word = 0; word < tile->blocks; word++)
            depthwise_bits_word(tile, tile->pixels[p], word, tile->acc + p * tile->acc_pitch + 64 * word);
}

void XN_LEVEL(depthwise_i16)(const struct xn_cpu_tile *tile)
{
    const uint32_t c = tile->blocks;

    for (uint32_t p = 0; p < tile->n; p++) {
        const int16_t *restrict weights = tile->weights;
        int32_t *restrict acc = tile->acc + p * tile->acc_pitch;
        memset(acc, 0, c * sizeof(*acc));
        for (uint32_t row = 0; row < tile->rows; row++) {
            const int16_t *restrict x =
                (const int16_t *)(const void *)((const uint8_t *)tile->pixels[p] + row * tile->row_bytes);
            for (uint32_t k = 0; k < tile->run; k++, x += c, weights += c)
                for (uint32_t i = 0; i < c; i++)
                    acc[i] += x[i] * weights[i];
        }
    }
}
