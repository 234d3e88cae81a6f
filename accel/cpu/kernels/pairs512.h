/* SPDX-License-Identifier: Apache-2.0
 * How the levels with 512-bit vectors hold weights and sums of pairs: a block is 32 channels in two vectors of 32-bit lanes. */
#ifndef XN_ACCEL_CPU_KERNELS_PAIRS512_H
#define XN_ACCEL_CPU_KERNELS_PAIRS512_H

#include "accel/cpu/bits.h"
#include "accel/cpu/kernels.h"

#define PAIR_BLOCK 32u
#define PAIR_UNIT  256u /* bytes */

/** Where channel `lane` of a block lies among its sums: so that packing the two vectors of int32 to one of int16, which works within
 *  128-bit quarters, gives channels in order. */
static inline uint32_t place_of(uint32_t lane)
{
    return lane % 8 / 4 * 16 + lane / 8 * 4 + lane % 4;
}

/** [half of the block][w0, then w0 ^ w1][16] */
static inline void pair_pack(void *unit, uint32_t lane, uint64_t raw)
{
    const uint64_t word = xn_bits_encode(raw);
    uint32_t *w = (uint32_t *)unit + place_of(lane) / 16 * 32 + place_of(lane) % 16;
    w[0] = (uint32_t)word;
    w[16] = (uint32_t)(word >> 32);
}

static const uint8_t pair_order[XN_CPU_CHUNK] = {
    0,  1,  2,  3,  16, 17, 18, 19, 4,  5,  6,  7,  20, 21, 22, 23, 8,  9,  10, 11, 24, 25,
    26, 27, 12, 13, 14, 15, 28, 29, 30, 31, 32, 33, 34, 35, 48, 49, 50, 51, 36, 37, 38, 39,
    52, 53, 54, 55, 40, 41, 42, 43, 56, 57, 58, 59, 44, 45, 46, 47, 60, 61, 62, 63,
};

#endif
