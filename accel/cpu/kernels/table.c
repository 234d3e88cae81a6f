/* SPDX-License-Identifier: Apache-2.0
 * The table of one level. */
#include "accel/cpu/kernels/level.h"

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

const struct xn_cpu_kernels XN_LEVEL(kernels) = {
    .level = STRING(XN_CPU_LEVEL),
    .bits = &XN_LEVEL(bits),
    .conv =
        {
            [XN_CPU_CONV_BITS] = &XN_LEVEL(bits).conv,
#if defined(__AVX512VNNI__)
            [XN_CPU_CONV_BYTES] = &XN_LEVEL(bytes),
#endif
            [XN_CPU_CONV_I16] = &XN_LEVEL(i16),
            [XN_CPU_CONV_DW_BITS] = &XN_LEVEL(depthwise_bits),
            [XN_CPU_CONV_DW_I16] = &XN_LEVEL(depthwise_i16),
        },
    .depthwise_sliced = XN_LEVEL(depthwise_sliced),
    .epilogue = XN_LEVEL(epilogue),
#if defined(__AVX2__)
    .narrow = XN_LEVEL(narrow),
#endif
#if defined(__AVX512VPOPCNTDQ__)
    .fuse = XN_LEVEL(fuse),
#endif
    .widen = XN_LEVEL(widen),
    .widen_bits = XN_LEVEL(widen_bits),
    .offset = XN_LEVEL(offset),
    .count_pairs = XN_LEVEL(count_pairs),
    .start_pairs = XN_LEVEL(start_pairs),
    .max_pool = XN_LEVEL(max_pool),
    .average_pool = XN_LEVEL(average_pool),
    .ceiling = XN_LEVEL(ceiling),
};
