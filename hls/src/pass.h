/* SPDX-License-Identifier: Apache-2.0
 * A pass of BINARY, INT8 or VECTOR: group by group of 16 output channels, tile by tile, step by step.
 *
 * One loop, a slot a cycle. In a slot a unit does a step of tile t and the post lanes do a part of tile t - 1, whose sums are held
 * for them; so a tile takes the longer of the two. What overlaps:
 *
 *     fetch of the next weights   with everything, pass after pass (fetch.h)
 *     steps of a tile             with post of the tile before, but VECTOR over RM: its steps and the post lanes read the
 *                                 same memory and take turns
 *     output of LOGITS            with everything (engine.h)
 *
 * and what does not: the last post of a group with the next group's steps, and one pass with the next. Each costs as
 * many cycles as the pipeline is deep.
 *
 * Weights: tile 0 of a group takes its words from the FIFO and leaves them in the buffer, from which the others read. So there is no
 * time of filling, and a window longer than the buffer, which has one tile (xn_isa_check), never uses it: chunks need
 * no loop of their own. */
#ifndef XN_HLS_PASS_H
#define XN_HLS_PASS_H

#include "hls/src/arrays.h"
#include "hls/src/fetch.h"
#include "hls/src/post.h"
#include "hls/src/window.h"

namespace xn
{
/** What holds for all groups of a pass. */
struct plan {
    uint32_t tile, tiles, log_pixels, rounds;
    uint32_t array_slots, post_slots; /**< of a tile */
    bool turns;                       /**< steps and post take turns */
    bool weights;                     /**< are in the stream; else all are 1 */
    uint64_t slots;                   /**< of a group */
};

template <unsigned P, unsigned PI, unsigned PR> plan plan_of(const descriptor &d)
{
    const geometry g = {P, PI, PR, 0, 0, 0};
    plan n;
    n.tile = xn_isa_tile(&d, &g);
    n.tiles = d.out_h * ((d.out_w + n.tile - 1) / n.tile);
    n.log_pixels = log_pixels_of<P>(n.tile, d.stride_w);
    n.rounds = d.op == XN_ISA_VECTOR ? xn_isa_step_cycles(&d) : n.tile >> n.log_pixels;
    n.array_slots = steps_of(d) * n.rounds;
    n.post_slots = post_parts<PR>(d, n.tile);
    n.turns = d.source == XN_ISA_I16;
    n.weights = xn_isa_has_weights(&d);
    const uint32_t more = n.array_slots > n.post_slots ? n.array_slots : n.post_slots;
    const uint32_t between = n.turns ? n.array_slots + n.post_slots : more;
    n.slots = n.array_slots + (uint64_t)(n.tiles - 1) * between + n.post_slots;
    return n;
}

/** Where a group's loop is. */
struct progress {
    uint32_t tile, slot, step;
    tile_at now, before; /**< of the steps, of the post lanes */
    window at;
};

/** The weight word of a step: from the FIFO for the first tile, kept for its rounds and the other tiles. */
template <unsigned WB_WORDS>
void next_weights(const progress &k, hls::stream<weight_word> &words, weight_word wb[WB_WORDS], weight_word &w)
{
#pragma HLS inline
    if (k.at.round > 0)
        return;
    if (k.tile == 0)
        w = words.read();
    else
        w = wb[k.step];
    if (k.tile == 0 && k.step < WB_WORDS)
        wb[k.step] = w;
}

/** What the words read for a step are, for the unit of the pass. */
template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS>
void step(const descriptor &d, const plan &n, const progress &k, const weight_word &w, const am_word am[2 * P][AM_ROWS],
          const rm_word rm[PR][RM_ROWS], sums s[P])
{
#pragma HLS inline
    const bool bits = d.source == XN_ISA_BITS;
    const uint32_t group = d.source_group + k.now.group;
    const taps<P> t = taps_of<P>(d, k.at, k.now.y, k.now.x, n.tile, n.log_pixels);
    uint64_t x[P];
    bool used[P];
#pragma HLS array_partition variable = x complete
#pragma HLS array_partition variable = used complete

    uint32_t word = k.at.word;
    if (d.op == XN_ISA_INT8 && bits)
        word /= 8;
    if (d.op == XN_ISA_VECTOR)
        word = bits ? group / 4 : 2 * group + k.at.round;
    am_request<P> request = request_of<P>(d, t, word);
    for (uint32_t i = 0; i < P; i++)
        request.valid[i] = request.valid[i] && d.source != XN_ISA_I16;
    am_read<P, AM_ROWS>(am, request, x);

    if (d.op == XN_ISA_BINARY) {
        for (uint32_t i = 0; i < P; i++)
            used[i] = t.inside[i] || (t.served[i] && d.flags & XN_ISA_PAD_MINUS_ONE);
        binary_step<P>(x, used, k.at.word == 0 ? d.channels_in : 0, w, s);
    } else if (d.op == XN_ISA_INT8) {
        for (uint32_t i = 0; i < PI; i++)
            x[i] = bits ? x[i] >> 8 * (k.at.word % 8) : x[i];
        int8_step<PI>(x, t.inside, d.source, w, s);
    } else if (t.inside[0]) {
        const uint32_t row = map_row<PR>(d.base, d.width, d.pitch, (uint32_t)t.y, (uint32_t)t.x[0], group);
        const rm_word r = d.source == XN_ISA_I16 ? rm[(uint32_t)t.x[0] % PR][row] : rm_word();
        vector_step(x[0], r, d.source, bits ? group % 4 : k.at.round, d.flags & XN_ISA_MAX, w, s[0]);
    }
}

/** After a slot: the next one, or the next tile, whose sums begin anew while the lanes take the last one's. */
template <unsigned P> void advance(const descriptor &d, const plan &n, progress &k, sums s[P], sums held[P])
{
#pragma HLS inline
    const uint32_t array_slots = k.tile < n.tiles ? n.array_slots : 0, post_slots = k.tile > 0 ? n.post_slots : 0;
    const uint32_t longest = array_slots > post_slots ? array_slots : post_slots;
    if (++k.slot < (n.turns ? array_slots + post_slots : longest))
        return;
    k.slot = k.step = 0;
    k.tile++;
    k.before = k.now;
    k.now.x += n.tile;
    if (k.now.x >= d.out_w) {
        k.now.x = 0;
        k.now.y++;
    }
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        held[i] = s[i];
        for (uint32_t l = 0; l < LANES; l++)
            s[i].lane[l] = d.flags & XN_ISA_MAX ? INT16_MIN : 0;
    }
}

template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void pass_group(const descriptor &d, const plan &n, uint32_t group, hls::stream<weight_word> &words,
                am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS], weight_word wb[WB_WORDS],
                hls::stream<logit> &logits)
{
    weight_word post_words[POST_WORDS], w = {};
    post_lanes lanes;
    sums s[P], held[P];
#pragma HLS array_partition variable = s complete
#pragma HLS array_partition variable = held complete
    progress k = {};
    k.now.group = group;
    for (uint32_t i = 0; i < POST_WORDS; i++)
        post_words[i] = words.read();
    unpack_lanes(post_words, lanes);
    for (uint32_t l = 0; l < LANES; l++)
        w.lane[l] = 1;
    for (uint32_t i = 0; i < P; i++)
        for (uint32_t l = 0; l < LANES; l++)
            s[i].lane[l] = d.flags & XN_ISA_MAX ? INT16_MIN : 0;

    for (uint64_t i = 0; i < n.slots; i++) {
#pragma HLS pipeline II = 1
/* What a slot writes, none of the next ones reads before it is there: other pixels, another map, or RM in turns. */
#pragma HLS dependence variable = am inter false
#pragma HLS dependence variable = rm inter false
#pragma HLS dependence variable = wb inter false
        const uint32_t lead = n.turns && k.tile > 0 ? n.post_slots : 0;
        if (k.tile > 0 && k.slot < n.post_slots)
            post_part<P, PR, AM_ROWS, RM_ROWS>(d, lanes, k.before, n.tile, k.slot, held, am, rm, logits);
        if (k.tile < n.tiles && k.slot >= lead && k.slot < lead + n.array_slots) {
            if (n.weights)
                next_weights<WB_WORDS>(k, words, wb, w);
            step<P, PI, PR, AM_ROWS, RM_ROWS>(d, n, k, w, am, rm, s);
            k.step += k.at.round == n.rounds - 1 ? 1 : 0;
            window_advance(k.at, d, n.rounds);
        }
        advance<P>(d, n, k, s, held);
    }
}

template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void pass(const descriptor &d, hls::stream<weight_word> &words, am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS],
          weight_word wb[WB_WORDS], hls::stream<logit> &logits)
{
    const plan n = plan_of<P, PI, PR>(d);
    for (uint32_t group = 0; group < groups_of(d); group++)
        pass_group<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(d, n, group, words, am, rm, wb, logits);
}
} // namespace xn

#endif
