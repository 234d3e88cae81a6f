/* SPDX-License-Identifier: Apache-2.0
 * How the level with 256-bit vectors holds weights and sums of pairs: a block is 16 channels in two vectors of 32-bit lanes. */
#ifndef XN_ACCEL_CPU_KERNELS_PAIRS256_H
#define XN_ACCEL_CPU_KERNELS_PAIRS256_H

#include "accel/cpu/kernels.h"

#define PAIR_BLOCK 16u
#define PAIR_UNIT  192u /* bytes */

/** Where channel `lane` of a block lies among its sums: so that packing the two vectors of int32 to one of int16, which works within
 *  128-bit halves, gives channels in order. */
static inline uint32_t place_of(uint32_t lane)
{
    return lane % 8 / 4 * 8 + lane / 8 * 4 + lane % 4;
}

/** [half of the block][w1, w0, w0 ^ w1][8] */
static inline void pair_pack(void *unit, uint32_t lane, uint64_t raw)
{
    uint32_t *w = (uint32_t *)unit + place_of(lane) / 8 * 24 + place_of(lane) % 8;
    w[0] = (uint32_t)(raw >> 32);
    w[8] = (uint32_t)raw;
    w[16] = (uint32_t)raw ^ (uint32_t)(raw >> 32);
}

static const uint8_t pair_order[XN_CPU_CHUNK] = {
    0,  1,  2,  3,  8,  9,  10, 11, 4,  5,  6,  7,  12, 13, 14, 15, 16, 17, 18, 19, 24, 25,
    26, 27, 20, 21, 22, 23, 28, 29, 30, 31, 32, 33, 34, 35, 40, 41, 42, 43, 36, 37, 38, 39,
    44, 45, 46, 47, 48, 49, 50, 51, 56, 57, 58, 59, 52, 53, 54, 55, 60, 61, 62, 63,
};

#endif
