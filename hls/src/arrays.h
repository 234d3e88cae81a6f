/* SPDX-License-Identifier: Apache-2.0
 * One step of each unit that sums: a weight word against the words of a tile. Pure functions of registers; the units of an
 * overlay are these and nothing else. */
#ifndef XN_HLS_ARRAYS_H
#define XN_HLS_ARRAYS_H

#include "hls/src/types.h"

namespace xn
{
/** Ones in 64 bits: a tree of adders. */
inline uint32_t ones_in(uint64_t v)
{
#pragma HLS inline
#ifdef XN_HLS_SIMULATION
    return (uint32_t)__builtin_popcountll(v); /* the same, at the speed of the machine */
#else
    uint32_t n = 0;
    for (uint32_t i = 0; i < 64; i++) {
#pragma HLS unroll
        n += v >> i & 1 ? 1 : 0;
    }
    return n;
#endif
}

/** Modulo 2^32: programs that overflow are defined too. */
inline int32_t add(int32_t sum, int32_t v)
{
#pragma HLS inline
    return (int32_t)((uint32_t)sum + (uint32_t)v);
}

/** P x 16 x 64 products of bits: sum += channels - 2 * popcount(x ^ w), for the pixels that are used.
 *  channels: valid ones of the tap, with the first of its words; else 0. */
template <unsigned P>
void binary_step(const uint64_t x[P], const bool used[P], uint32_t channels, const weight_word &w, sums s[P])
{
#pragma HLS inline
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        if (!used[i])
            continue;
        for (uint32_t l = 0; l < LANES; l++)
            s[i].lane[l] = add(s[i].lane[l], (int32_t)(channels - 2 * ones_in(x[i] ^ w.lane[l])));
    }
}

/** Byte i of a word as an element of type `source`; of XN_ISA_BITS, bit i as +1 or -1. */
inline int32_t element_of(uint64_t word, uint32_t i, uint32_t source)
{
#pragma HLS inline
    if (source == XN_ISA_BITS)
        return word >> i & 1 ? 1 : -1;
    const uint8_t byte = (uint8_t)(word >> 8 * i);
    return source == XN_ISA_I8 ? (int8_t)byte : byte;
}

/** PI x 16 x 8 products of 9 and 8 bits, for the pixels that are used. XN_ISA_BITS: x holds 8 bits. */
template <unsigned PI>
void int8_step(const uint64_t x[PI], const bool used[PI], uint32_t source, const weight_word &w, sums s[PI])
{
#pragma HLS inline
    for (uint32_t i = 0; i < PI; i++) {
#pragma HLS unroll
        if (!used[i])
            continue;
        int16_t e[8];
#pragma HLS array_partition variable = e complete
        for (uint32_t j = 0; j < 8; j++)
            e[j] = (int16_t)element_of(x[i], j, source);
        for (uint32_t l = 0; l < LANES; l++) {
            int32_t dot = 0;
            for (uint32_t j = 0; j < 8; j++)
                dot += e[j] * (int8_t)(w.lane[l] >> 8 * j);
            s[i].lane[l] = add(s[i].lane[l], dot);
        }
    }
}

/** A pixel's 16 channels, each by itself: sum += x * w, or with `largest` the larger one.
 *  XN_ISA_BITS: quarter `part` of x; bytes: x is half `part` of the channels, and the other half's sums stay; XN_ISA_I16: r. */
inline void vector_step(uint64_t x, const rm_word &r, uint32_t source, uint32_t part, bool largest,
                        const weight_word &w, sums &s)
{
#pragma HLS inline
    const uint64_t bits = x >> 16 * part;
    for (uint32_t l = 0; l < LANES; l++) {
#pragma HLS unroll
        const int32_t e = source == XN_ISA_I16    ? r.channel[l]
                          : source == XN_ISA_BITS ? element_of(bits, l, source)
                                                  : element_of(x, l % 8, source);
        if ((source == XN_ISA_U8 || source == XN_ISA_I8) && l / 8 != part)
            continue;
        if (!largest)
            s.lane[l] = add(s.lane[l], e * (int8_t)w.lane[l]);
        else if (e > s.lane[l])
            s.lane[l] = e;
    }
}
} // namespace xn

#endif
