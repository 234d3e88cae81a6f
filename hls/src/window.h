/* SPDX-License-Identifier: Apache-2.0
 * Address generation: the window's counters (ky, kx, word, round), innermost last, and what each pixel of a tile reads at a step: implicit im2col, without
 * a line buffer.
 *
 * A step has several rounds where one cycle cannot read all that it needs: VECTOR reads 16 channels of bytes as two
 * words; and pixels of a stride of 4, 8 ... lie on few banks, so that 2^log_pixels of them are served in a round. */
#ifndef XN_HLS_WINDOW_H
#define XN_HLS_WINDOW_H

#include "hls/src/memory.h"

namespace xn
{
struct window {
    uint32_t ky, kx, word, round;
};

/** The next round; from the last one to the first of the next tile. */
inline void window_advance(window &at, const descriptor &d, uint32_t rounds)
{
    if (++at.round < rounds)
        return;
    at.round = 0;
    if (++at.word < d.words)
        return;
    at.word = 0;
    if (++at.kx < d.kernel_w)
        return;
    at.kx = 0;
    if (++at.ky == d.kernel_h)
        at.ky = 0;
}

/** log2 of the pixels of a tile that lie on different banks of 2P. */
template <unsigned P> uint32_t log_pixels_of(uint32_t tile, uint32_t stride)
{
    uint32_t n = 2 * P;
    for (uint32_t i = 0; i < log2_of(2 * P); i++) {
#pragma HLS unroll
        if (stride % (2u << i) == 0)
            n /= 2;
    }
    uint32_t log = 0;
    for (uint32_t i = 1; i <= log2_of(P); i++) {
#pragma HLS unroll
        if (n >> i && tile >> i)
            log = i;
    }
    return log;
}

/** Where the tap of a step lies for pixels (y, x0), (y, x0 + 1) ... */
template <unsigned P> struct taps {
    int32_t y, x[P];
    bool served[P]; /**< in this round */
    bool inside[P]; /**< served, and on the map */
};

template <unsigned P>
taps<P> taps_of(const descriptor &d, const window &at, uint32_t y, uint32_t x0, uint32_t tile, uint32_t log_pixels)
{
#pragma HLS inline
    taps<P> t;
    t.y = (int32_t)(y * d.stride_h + at.ky) - (int32_t)d.pad_top;
    const bool row_inside = t.y >= 0 && t.y < (int32_t)d.height;
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        t.x[i] = (int32_t)((x0 + i) * d.stride_w + at.kx) - (int32_t)d.pad_left;
        t.served[i] = i < tile && (d.op == XN_ISA_VECTOR || i >> log_pixels == at.round);
        t.inside[i] = t.served[i] && row_inside && t.x[i] >= 0 && t.x[i] < (int32_t)d.width;
    }
    return t;
}

/** Word `word` of the taps' pixels. */
template <unsigned P> am_request<P> request_of(const descriptor &d, const taps<P> &t, uint32_t word)
{
#pragma HLS inline
    am_request<P> r;
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        r.row[i] = map_row<2 * P>(d.base, d.width, d.pitch, (uint32_t)t.y, (uint32_t)t.x[i], word);
        r.bank[i] = (uint32_t)t.x[i] % (2 * P);
        r.valid[i] = t.inside[i];
    }
    return r;
}
} // namespace xn

#endif
