/* SPDX-License-Identifier: Apache-2.0
 * The table of one level. A routine in assembly replaces its entry here, under the level's own #if. */
#include "accel/cpu/kernels/level.h"

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

const struct xn_cpu_kernels XN_LEVEL(kernels) = {
    .level = STRING(XN_CPU_LEVEL),
    .conv =
        {
            [XN_CPU_CONV_BITS] = {LANES_TILE, XN_LEVEL(bits_one), XN_LEVEL(bits_many)},
            [XN_CPU_CONV_I16] = {OCTET_TILE, XN_LEVEL(i16_one), XN_LEVEL(i16_many)},
            [XN_CPU_CONV_DW_BITS] = {XN_CPU_TILE_MAX, XN_LEVEL(depthwise_bits), XN_LEVEL(depthwise_bits)},
            [XN_CPU_CONV_DW_I16] = {XN_CPU_TILE_MAX, XN_LEVEL(depthwise_i16), XN_LEVEL(depthwise_i16)},
        },
    .epilogue = XN_LEVEL(epilogue),
    .widen = XN_LEVEL(widen),
    .widen_bits = XN_LEVEL(widen_bits),
    .max_pool = XN_LEVEL(max_pool),
    .average_pool = XN_LEVEL(average_pool),
    .ceiling = XN_LEVEL(ceiling),
};
