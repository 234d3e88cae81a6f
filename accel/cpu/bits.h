/* SPDX-License-Identifier: Apache-2.0
 * Runs of bits at any offset of little-endian words. */
#ifndef XN_ACCEL_CPU_BITS_H
#define XN_ACCEL_CPU_BITS_H

#include "common/macros.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of bits are little-endian, in files and here");

/** The low `n` bits set, n 0..64. */
static inline uint64_t xn_bits_mask(uint32_t n)
{
    return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

/** A word as maps of encoded bits hold it, and back: the high half becomes low ^ high. */
static inline uint64_t xn_bits_encode(uint64_t word)
{
    return word ^ word << 32;
}

/** Bits first..first+n-1 of `words`, n 1..64. Reads no word that holds none of them. */
static inline uint64_t xn_bits_get(const uint64_t *words, size_t first, uint32_t n)
{
    const uint64_t *w = words + first / 64;
    uint32_t shift = (uint32_t)(first % 64);
    uint64_t bits = w[0] >> shift;
    if (shift + n > 64)
        bits |= w[1] << (64 - shift);
    return bits & xn_bits_mask(n);
}

/** OR the low `n` bits of `bits` (all others 0) into `words` at `first`, n 1..64. */
static inline void xn_bits_or(uint64_t *words, size_t first, uint64_t bits, uint32_t n)
{
    uint64_t *w = words + first / 64;
    uint32_t shift = (uint32_t)(first % 64);
    w[0] |= bits << shift;
    if (shift + n > 64)
        w[1] |= bits >> (64 - shift);
}

#endif
