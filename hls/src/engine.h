/* SPDX-License-Identifier: Apache-2.0
 * The engine: three processes for each image, FIFOs between them.
 *
 *     fetch --commands, weights--> execute --logits--> write_output
 *
 * Images run one after another: the first pass's weights are fetched again for each, which costs what they are long. */
#ifndef XN_HLS_ENGINE_H
#define XN_HLS_ENGINE_H

#include "hls/src/input.h"
#include "hls/src/or.h"
#include "hls/src/pass.h"

namespace xn
{
/** The registers; addresses of card memory are ports. */
struct registers {
    uint32_t images, input_bytes, output_words;
};

/** Where an image's program stopped. */
struct stop {
    uint32_t error, descriptor;
};

/** The process that runs commands to the last one. */
template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void execute(hls::stream<command> &commands, hls::stream<weight_word> &words, in_port<beat> input, uint64_t first_byte,
             am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS], weight_word wb[WB_WORDS], hls::stream<logit> &logits,
             stop &ret_stop)
{
    command c = commands.read();
    for (; c.error == XN_ISA_OK && c.d.op != XN_ISA_END; c = commands.read()) {
        if (c.d.op == XN_ISA_INPUT)
            input_rows<P, AM_ROWS>(c.d, input, first_byte, am);
        else if (c.d.op == XN_ISA_OR)
            or_map<P, AM_ROWS>(c.d, am);
        else
            pass<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(c.d, words, am, rm, wb, logits);
    }
    logit last = {};
    last.last = true;
    logits.write(last);
    ret_stop.error = c.error;
    ret_stop.descriptor = c.index;
}

/** The process that writes LOGITS. first: of this image. */
inline void write_output(hls::stream<logit> &logits, out_port<int32_t> output, uint64_t first)
{
    for (logit z = logits.read(); !z.last; z = logits.read()) {
#pragma HLS pipeline II = 1
        output[first + z.index] = z.value;
    }
}

template <unsigned P, unsigned PI, unsigned PR, unsigned AM_ROWS, unsigned RM_ROWS, unsigned WB_WORDS>
void run_image(in_port<beat> program, in_port<beat> stream, in_port<beat> input, out_port<int32_t> output,
               const registers &r, uint32_t image, am_word am[2 * P][AM_ROWS], rm_word rm[PR][RM_ROWS],
               weight_word wb[WB_WORDS], stop &ret_stop)
{
#pragma HLS dataflow
    hls::stream<command> commands;
    hls::stream<weight_word> words;
    hls::stream<logit> logits;
#pragma HLS stream variable = commands depth = 16
#pragma HLS stream variable = words depth = WB_WORDS
#pragma HLS stream variable = logits depth = 64
    const geometry g = {P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS};
    fetch(program, stream, g, r.input_bytes, r.output_words, commands, words);
    execute<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(commands, words, input, (uint64_t)image * r.input_bytes, am, rm, wb,
                                                   logits, ret_stop);
    write_output(logits, output, (uint64_t)image * r.output_words);
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
    stop s = {XN_ISA_OK, 0};
    uint32_t image = 0;
    while (image < r.images && s.error == XN_ISA_OK) {
        run_image<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(program, stream, input, output, r, image, am, rm, wb, s);
        image += s.error == XN_ISA_OK ? 1 : 0;
    }
    write_status<P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS>(status, s, image);
}
} // namespace xn

#endif
