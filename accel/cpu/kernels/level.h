/* SPDX-License-Identifier: Apache-2.0
 * The kernels of the level being compiled, for its table. */
#ifndef XN_ACCEL_CPU_KERNELS_LEVEL_H
#define XN_ACCEL_CPU_KERNELS_LEVEL_H

#include "accel/cpu/kernels/lanes.h"

extern const struct xn_cpu_bits_kernel XN_LEVEL(bits);
extern const struct xn_cpu_conv_kernel XN_LEVEL(bytes), XN_LEVEL(i16), XN_LEVEL(depthwise_bits),
    XN_LEVEL(depthwise_i16);

void XN_LEVEL(depthwise_sliced)(const struct xn_cpu_slices *slices);
double XN_LEVEL(ceiling)(uint64_t rounds);
void XN_LEVEL(epilogue)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
void XN_LEVEL(narrow)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
void XN_LEVEL(fuse)(struct xn_cpu_fused *fused, const struct xn_cpu_chain *chain, uint32_t c0, uint8_t *arena);
void XN_LEVEL(widen)(int16_t *dst, const void *src, enum xn_dtype dtype, size_t n);
void XN_LEVEL(widen_bits)(int16_t *dst, const uint64_t *src, size_t first, size_t n);
void XN_LEVEL(offset)(uint8_t *dst, const void *src, enum xn_dtype dtype, size_t n);
uint32_t XN_LEVEL(count_pairs)(const uint64_t *words, size_t n);
void XN_LEVEL(start_pairs)(const struct xn_cpu_pairs *row);
void XN_LEVEL(max_pool)(const struct xn_cpu_pool *pool);
void XN_LEVEL(average_pool)(const struct xn_cpu_pool *pool);

extern const struct xn_cpu_kernels XN_LEVEL(kernels);

#endif
