/* SPDX-License-Identifier: Apache-2.0
 * The kernels of the level being compiled, for its table. */
#ifndef XN_ACCEL_CPU_KERNELS_LEVEL_H
#define XN_ACCEL_CPU_KERNELS_LEVEL_H

#include "accel/cpu/kernels/lanes.h"

void XN_LEVEL(bits_one)(const struct xn_cpu_tile *tile);
void XN_LEVEL(bits_many)(const struct xn_cpu_tile *tile);
void XN_LEVEL(i16_one)(const struct xn_cpu_tile *tile);
void XN_LEVEL(i16_many)(const struct xn_cpu_tile *tile);
void XN_LEVEL(depthwise_bits)(const struct xn_cpu_tile *tile);
void XN_LEVEL(depthwise_i16)(const struct xn_cpu_tile *tile);
void XN_LEVEL(ceiling)(const uint64_t words[XN_CPU_CEILING_WORDS * 8], uint32_t rounds, uint64_t sums[8]);
void XN_LEVEL(epilogue)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
void XN_LEVEL(widen)(int16_t *dst, const void *src, enum xn_dtype dtype, size_t n);
void XN_LEVEL(widen_bits)(int16_t *dst, const uint64_t *src, size_t first, size_t n);
void XN_LEVEL(max_pool)(const struct xn_cpu_pool *pool);
void XN_LEVEL(average_pool)(const struct xn_cpu_pool *pool);

extern const struct xn_cpu_kernels XN_LEVEL(kernels);

#endif
