/* SPDX-License-Identifier: Apache-2.0
 * Post lanes: from sums to what the destinations take, PR pixels x 16 channels at a time, and the writers to AM, RM and output.
 *
 * Lane j belongs to bank j of RM: it works on the pixel of the tile whose column is j modulo PR. So RM needs no crossbar. */
#ifndef XN_HLS_POST_H
#define XN_HLS_POST_H

#include "hls/src/memory.h"

namespace xn
{
/** From POST_WORDS weight words. */
inline void unpack_lanes(const weight_word w[XN_ISA_POST_BYTES / XN_ISA_WEIGHT_BYTES], post_lanes &ret_lanes)
{
    for (uint32_t l = 0; l < LANES; l++) {
#pragma HLS unroll
        const uint64_t *q = &w[l / 4].lane[l % 4 * 4];
        ret_lanes.b1[l] = (int64_t)q[0];
        ret_lanes.b2[l] = (int64_t)q[1];
        ret_lanes.t[l] = (int32_t)q[2];
        ret_lanes.m1[l] = (int32_t)(q[2] >> 32);
        ret_lanes.m2[l] = (int16_t)q[3];
        ret_lanes.a[l] = (int16_t)(q[3] >> 16);
        ret_lanes.d[l] = (int16_t)(q[3] >> 32);
        ret_lanes.k[l] = q[3] >> 48 & 15;
    }
}

/** (m * v + b + half) >> shift, modulo 2^64. */
inline int64_t multiply_shift(int64_t m, int64_t v, int64_t b, uint32_t shift)
{
#pragma HLS inline
    const uint64_t half = shift > 0 ? (uint64_t)1 << (shift - 1) : 0;
    return (int64_t)((uint64_t)m * (uint64_t)v + (uint64_t)b + half) >> shift;
}

/** The chain of a lane up to RPRELU: from a sum and a residual (0 without RESIDUAL). */
inline int64_t post_value(const descriptor &d, const post_lanes &p, uint32_t l, int32_t sum, int16_t residual)
{
#pragma HLS inline
    int64_t v = sum;
    if (d.flags & XN_ISA_SCALE)
        v = multiply_shift(p.m1[l], v, p.b1[l], d.shift & 0xff);
    v = (int64_t)((uint64_t)v + (uint64_t)(int64_t)residual);
    if (d.flags & XN_ISA_SATURATE)
        v = clamp(v, INT16_MIN, INT16_MAX);
    if (d.flags & XN_ISA_RPRELU) {
        const int64_t t = (int64_t)((uint64_t)v + (uint64_t)(int64_t)p.a[l]);
        const int64_t bent = t >= 0 ? t : t >> p.k[l];
        v = clamp((int64_t)((uint64_t)bent + (uint64_t)(int64_t)p.d[l]), INT16_MIN, INT16_MAX);
    }
    return v;
}

/** QUANTIZE: a byte. */
inline uint8_t quantized(const descriptor &d, const post_lanes &p, uint32_t l, int64_t v)
{
#pragma HLS inline
    const int64_t q = multiply_shift(p.m2[l], v, p.b2[l], d.shift >> 8);
    return (uint8_t)(d.flags & XN_ISA_UNSIGNED ? clamp(q, 0, UINT8_MAX) : clamp(q, INT8_MIN, INT8_MAX));
}

/** Cycles of a tile in the lanes: QUANTIZE writes 16 channels as two words, LOGITS go one by one. */
template <unsigned PR> uint32_t post_parts(const descriptor &d, uint32_t tile)
{
    if (d.flags & XN_ISA_LOGITS)
        return tile * LANES;
    return (tile + PR - 1) / PR * (d.flags & XN_ISA_QUANTIZE ? 2 : 1);
}

/** Where a tile's sums belong. */
struct tile_at {
    uint32_t group, y, x;
};

/** LOGITS: channel `c` of pixel (y, x). */
inline logit logit_of(const descriptor &d, const post_lanes &p, uint32_t y, uint32_t x, uint32_t c, int64_t v)
{
#pragma HLS inline
    logit z;
    z.index = (y * d.out_w + x) * d.channels + c;
    z.value = (int32_t)multiply_shift(p.t[c % LANES], v, p.b2[c % LANES], 0);
    z.last = false;
    return z;
}

/** The word that a pixel writes to AM. `part`: the quarter of SIGN, or the half of QUANTIZE. */
inline uint64_t post_word(const descriptor &d, const post_lanes &p, const int64_t v[LANES], uint32_t lanes,
                          uint32_t part)
{
#pragma HLS inline
    uint64_t bits = 0, bytes = 0;
    for (uint32_t l = 0; l < LANES; l++) {
#pragma HLS unroll
        const uint64_t bit = l < lanes && v[l] >= p.t[l] ? 1 : 0;
        bits |= bit << l;
        if (l < lanes && l / 8 == part)
            bytes |= (uint64_t)quantized(d, p, l, v[l]) << 8 * (l % 8);
    }
    return d.flags & XN_ISA_QUANTIZE ? bytes : bits << 16 * part;
}

/** Part `part` of a tile's post, PR pixels. tile: pixels of the tile, whose sums are `held`. */
template <unsigned P, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS>
void post_part(const descriptor &d, const post_lanes &p, const tile_at &at, uint32_t tile, uint32_t part,
               const sums held[P], am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS], hls::stream<logit> &logits)
{
#pragma HLS inline
    const bool quantize = d.flags & XN_ISA_QUANTIZE, one = d.flags & XN_ISA_LOGITS;
    const uint32_t half = quantize ? part % 2 : 0;
    const uint32_t first = at.x + (one ? part / LANES : (quantize ? part / 2 : part) * PR), x0 = first / PR * PR;
    const uint32_t left = d.channels - at.group * LANES, lanes = left < LANES ? left : LANES;
    const uint32_t group = d.dest_group + at.group, quarter = group % 4;
    const uint32_t residual_row = map_row<PR>(d.residual_base, d.out_w, d.residual_pitch, at.y, x0, at.group);
    const uint32_t stream_row = map_row<PR>(d.stream_base, d.out_w, d.stream_pitch, at.y, x0, at.group);
    bool valid[PR];
    uint64_t word[PR];
#pragma HLS array_partition variable = valid complete
#pragma HLS array_partition variable = word complete

    for (uint32_t j = 0; j < PR; j++) {
#pragma HLS unroll
        const uint32_t x = x0 + j, i = x - at.x; /* below the tile: wraps to beyond it */
        const sums &s = held[i % P];
        rm_word residual = {}, stream = {};
        int64_t v[LANES] = {};
#pragma HLS array_partition variable = v complete
        valid[j] = i < tile && x < d.out_w && (!one || x == first);
        if (valid[j] && d.flags & XN_ISA_RESIDUAL)
            residual = rm[j][residual_row];
        for (uint32_t l = 0; l < LANES; l++) {
            v[l] = l < lanes ? post_value(d, p, l, s.lane[l], residual.channel[l]) : 0;
            stream.channel[l] = (int16_t)v[l];
        }
        if (valid[j] && one && part % LANES < lanes)
            logits.write(logit_of(d, p, at.y, x, at.group * LANES + part % LANES, v[part % LANES]));
        word[j] = post_word(d, p, v, lanes, quantize ? half : quarter);
        /* with the last part of a pixel: the stream may take its residual's place */
        if (valid[j] && d.flags & XN_ISA_STORE && (quantize ? half == 1 : !one || part % LANES == LANES - 1))
            rm[j][stream_row] = stream;
    }
    if (d.flags & (XN_ISA_QUANTIZE | XN_ISA_SIGN)) {
        const uint32_t am_word_at = quantize ? 2 * group + half : group / 4;
        const uint32_t row = map_row<2 * P>(d.dest_base, d.out_w, d.dest_pitch, at.y, x0, am_word_at);
        am_write<P, PR, AM_ROWS>(am, row, x0, valid, word, quantize || quarter == 0 ? 0xf : 1u << quarter);
    }
}
} // namespace xn

#endif
