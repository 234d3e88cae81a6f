/* SPDX-License-Identifier: Apache-2.0
 * The engine: three processes for each section of a program, FIFOs between them.
 *
 *     fetch --commands, weights--> execute --logits--> write_output
 *
 * A section is the head, which runs once for each image, or the tail, once for each turn. One follows another, so the
 * first pass's weights of each are fetched when it begins, which costs what they are long. */
#ifndef XN_HLS_ENGINE_H
#define XN_HLS_ENGINE_H

#include "hls/src/input.h"
#include "hls/src/largest.h"
#include "hls/src/pass.h"

namespace xn
{
/** The registers; addresses of card memory are ports. */
struct registers {
    uint32_t images, input_bytes, output_words;
};

/** What runs next. All 0: the first image's head. */
struct section {
    uint32_t image;      /**< of the run; in a tail the turn's last */
    uint32_t turn_image; /**< its place in its turn */
    bool is_tail;
    uint32_t first;      /**< descriptor */
    uint64_t first_beat; /**< of the stream */
};

/** Where a section stopped: at an error, an END or a TURN. */
struct stop {
    uint32_t error, descriptor;
    uint32_t turn; /**< images of a turn; 0: there is no TURN */
};

/** The process that runs commands to the last one. images: that passes with BATCH work for. */
template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void execute(hls::stream<command> &commands, hls::stream<weight_word> &words, in_port<beat> input, uint64_t first_byte,
             uint32_t images, uint32_t turn_image, am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS],
             weight_word wb[WB_WORDS], hls::stream<logit> &logits, stop &ret_stop)
{
    command c = commands.read();
    for (; c.error == XN_ISA_OK && !ends_section(c.d); c = commands.read()) {
        c.d.out_w = xn_isa_out_w(&c.d, images);
        if (c.d.op == XN_ISA_INPUT)
            input_rows<P, AM_ROWS>(c.d, input, first_byte, am);
        else if (c.d.op == XN_ISA_LARGEST)
            largest_map<P, AM_ROWS>(c.d, turn_image, am);
        else
            pass<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(c.d, words, am, rm, wb, logits);
    }
    logit last = {};
    last.last = true;
    logits.write(last);
    ret_stop.error = c.error;
    ret_stop.descriptor = c.index;
    ret_stop.turn = c.error == XN_ISA_OK && c.d.op == XN_ISA_TURN ? c.d.out_w : 0;
}

/** The process that writes LOGITS. first: of this section's. */
inline void write_output(hls::stream<logit> &logits, out_port<int32_t> output, uint64_t first)
{
    for (logit z = logits.read(); !z.last; z = logits.read()) {
#pragma HLS pipeline II = 1
        output[first + z.index] = z.value;
    }
}

/** ret_beat: the first of the stream that the section has not read. */
template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void run_section(in_port<beat> program, in_port<beat> stream, in_port<beat> input, out_port<int32_t> output,
                 const registers &r, const section &s, am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS],
                 weight_word wb[WB_WORDS], stop &ret_stop, uint64_t &ret_beat)
{
#pragma HLS dataflow
    hls::stream<command> commands;
    hls::stream<weight_word> words;
    hls::stream<logit> logits;
#pragma HLS stream variable = commands depth = 16
#pragma HLS stream variable = words depth = WB_WORDS
#pragma HLS stream variable = logits depth = 64
    const geometry g = {P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS};
    fetch(program, stream, g, r.input_bytes, r.output_words, s.first, s.first_beat, s.turn_image, commands, words,
          ret_beat);
    execute<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(commands, words, input, (uint64_t)s.image * r.input_bytes,
                                                   s.is_tail ? s.turn_image + 1 : 1, s.turn_image, am, rm, wb, logits,
                                                   ret_stop);
    write_output(logits, output, (uint64_t)(s.image - (s.is_tail ? s.turn_image : 0)) * r.output_words);
}

/** What runs behind a section that ended well, image `images` where nothing does. */
inline section section_behind(const section &s, const stop &e, uint64_t next_beat, uint32_t images)
{
    const bool in_turn = !s.is_tail && e.turn > 0;
    const bool turn_ends = s.turn_image + 1 == e.turn || s.image + 1 == images;
    section n = {};
    if (in_turn && turn_ends) {
        n = s;
        n.is_tail = true;
        n.first = e.descriptor + 1;
        n.first_beat = next_beat;
    } else {
        n.image = s.image + 1;
        n.turn_image = in_turn ? s.turn_image + 1 : 0;
    }
    return n;
}

/** struct xn_isa_status as 16 words. This engine does not count its cycles. */
template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void write_status(out_port<int32_t> status, const stop &s, uint32_t image)
{
    const uint32_t words[sizeof(struct xn_isa_status) / 4] = {
        s.error, s.descriptor, image, XN_ISA_MAJOR << 16 | XN_ISA_MINOR, 0, 0, P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS};
    for (uint32_t i = 0; i < sizeof(struct xn_isa_status) / 4; i++)
        status[i] = (int32_t)words[i];
}

template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void run_images(in_port<beat> program, in_port<beat> stream, in_port<beat> input, out_port<int32_t> output,
                const registers &r, out_port<int32_t> status, am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS],
                weight_word wb[WB_WORDS])
{
    section s = {};
    stop e = {};
    uint64_t next_beat = 0;
    while (s.image < r.images && e.error == XN_ISA_OK) {
        run_section<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(program, stream, input, output, r, s, am, rm, wb, e,
                                                           next_beat);
        if (e.error == XN_ISA_OK)
            s = section_behind(s, e, next_beat, r.images);
    }
    write_status<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(status, e, s.image);
}
} // namespace xn

#endif
