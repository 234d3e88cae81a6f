/* SPDX-License-Identifier: Apache-2.0
 * LARGEST: the largest elements of a window, of bits (their OR) or bytes; copies. No sums, no post lanes, no stream: words of a
 * tile are read, compared and written.
 *
 * One loop, as in pass.h: a slot a cycle, in which the words that a tile's pixels have at one tap are read; the window's
 * last slot writes the tile. A tile's P words begin at a multiple of P and so go to one half of the banks; with BATCH a
 * tile is one pixel, which goes to any bank. */
#ifndef XN_HLS_LARGEST_H
#define XN_HLS_LARGEST_H

#include "hls/src/window.h"

namespace xn
{
/** Bytes, each by itself. */
inline uint64_t larger_bytes(uint64_t a, uint64_t b, bool is_signed)
{
#pragma HLS inline
    const uint8_t flip = is_signed ? 0x80 : 0; /* the order of int8 is that of uint8 with the sign turned */
    uint64_t word = 0;
    for (uint32_t i = 0; i < 64; i += 8) {
#pragma HLS unroll
        const uint8_t x = (uint8_t)(a >> i), y = (uint8_t)(b >> i);
        word |= (uint64_t)((uint8_t)(x ^ flip) > (uint8_t)(y ^ flip) ? x : y) << i;
    }
    return word;
}

inline uint64_t larger(uint64_t a, uint64_t b, uint32_t source)
{
#pragma HLS inline
    return source == XN_ISA_BITS ? a | b : larger_bytes(a, b, source == XN_ISA_I8);
}

/** A word of the least elements. */
inline uint64_t least_of(uint32_t source)
{
    return source == XN_ISA_I8 ? UINT64_C(0x8080808080808080) : 0;
}

/** Where the loop is: at.word, y, x (the tile's first pixel), at.ky, at.kx, at.round, innermost last. */
struct largest_at {
    uint32_t y, x;
    window at;
};

/** Whether a slot is its window's last. */
inline bool window_ends(const descriptor &d, const window &at, uint32_t rounds)
{
    return at.round == rounds - 1 && at.kx == d.kernel_w - 1 && at.ky == d.kernel_h - 1;
}

inline void largest_advance(const descriptor &d, uint32_t tile, uint32_t rounds, largest_at &k)
{
    if (++k.at.round < rounds)
        return;
    k.at.round = 0;
    if (++k.at.kx < d.kernel_w)
        return;
    k.at.kx = 0;
    if (++k.at.ky < d.kernel_h)
        return;
    k.at.ky = 0;
    k.x += tile;
    if (k.x < d.out_w)
        return;
    k.x = 0;
    if (++k.y < d.out_h)
        return;
    k.y = 0;
    k.at.word++;
}

/** A tile's words. column: where the first of the pass's pixels goes. */
template <unsigned P, unsigned AM_ROWS>
void largest_write(const descriptor &d, const largest_at &k, uint32_t column, const uint64_t best[P],
                   am_word am[2 * P][AM_ROWS])
{
#pragma HLS inline
    const bool one = d.flags & XN_ISA_BATCH;
    const uint32_t x = column + k.x, x0 = x / P * P, word = d.dest_group / 4 + k.at.word;
    uint64_t to[P];
    bool valid[P];
#pragma HLS array_partition variable = to complete
#pragma HLS array_partition variable = valid complete
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        to[i] = one ? best[0] : best[i];
        valid[i] = one ? x0 + i == x : x0 + i < d.out_w;
    }
    const uint32_t row = map_row<2 * P>(d.dest_base, xn_isa_dest_width(&d), d.dest_pitch, k.y, x0, word);
    am_write<P, P, AM_ROWS>(am, row, x0, valid, to, 0xf);
}

/** turn_image: place in its turn of the image whose map this is. */
template <unsigned P, unsigned AM_ROWS>
void largest_map(const descriptor &d, uint32_t turn_image, am_word am[2 * P][AM_ROWS])
{
    const geometry g = {P, 0, 0, 0, 0, 0};
    const uint32_t tile = xn_isa_tile(&d, &g), column = d.flags & XN_ISA_BATCH ? turn_image * d.dest_step : 0;
    const uint32_t log_pixels = log_pixels_of<P>(tile, d.stride_w), rounds = tile >> log_pixels;
    const uint64_t tiles = (uint64_t)d.out_h * ((d.out_w + tile - 1) / tile);
    const uint64_t slots = tiles * (steps_of(d) * rounds); /* steps count the words of a pixel too */
    uint64_t best[P];
#pragma HLS array_partition variable = best complete
    largest_at k = {};
    for (uint32_t i = 0; i < P; i++)
        best[i] = least_of(d.source);

    for (uint64_t slot = 0; slot < slots; slot++) {
#pragma HLS pipeline II = 1
/* What a slot writes, none of the next ones reads: another map, and other pixels. */
#pragma HLS dependence variable = am inter false
        const taps<P> t = taps_of<P>(d, k.at, k.y, k.x, tile, log_pixels);
        const bool last = window_ends(d, k.at, rounds);
        uint64_t read[P];
#pragma HLS array_partition variable = read complete
        am_read<P, AM_ROWS>(am, request_of<P>(d, t, k.at.word), read);
        for (uint32_t i = 0; i < P; i++)
            best[i] = t.inside[i] ? larger(best[i], read[i], d.source) : best[i];
        if (last)
            largest_write<P, AM_ROWS>(d, k, column, best, am);
        for (uint32_t i = 0; i < P; i++)
            best[i] = last ? least_of(d.source) : best[i];
        largest_advance(d, tile, rounds, k);
    }
}
} // namespace xn

#endif
