/* SPDX-License-Identifier: Apache-2.0
 * The kernel: one engine of the geometry XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS.
 *
 * Vitis gives the arguments the offsets XN_ISA_REG_* in their order: 12 bytes a pointer, 8 a scalar, from 0x10 on. Its pointers to 256 bits are multiples of
 * 32, so the input begins on such an address; images within it lie at any byte. */
#include "hls/src/engine.h"

extern "C" void xnor_engine(const xn::beat *program, const xn::beat *stream, const xn::beat *input, int32_t *output,
                            uint32_t images, uint32_t input_bytes, uint32_t output_words, int32_t *status)
{
#pragma HLS interface mode = m_axi port = program bundle = fetch offset = slave max_read_burst_length = 64
#pragma HLS interface mode = m_axi port = stream bundle = fetch offset = slave max_read_burst_length = 64
#pragma HLS interface mode = m_axi port = input bundle = input offset = slave max_read_burst_length = 64
#pragma HLS interface mode = m_axi port = output bundle = output offset = slave
#pragma HLS interface mode = m_axi port = status bundle = output offset = slave
#pragma HLS interface mode = s_axilite port = program
#pragma HLS interface mode = s_axilite port = stream
#pragma HLS interface mode = s_axilite port = input
#pragma HLS interface mode = s_axilite port = output
#pragma HLS interface mode = s_axilite port = images
#pragma HLS interface mode = s_axilite port = input_bytes
#pragma HLS interface mode = s_axilite port = output_words
#pragma HLS interface mode = s_axilite port = status
#pragma HLS interface mode = s_axilite port = return
    /* Kinds of memory are the board's: hls/boards/boards.json. */
    static xn::am_word am[2 * XN_P][XN_AM_ROWS];
    static xn::rm_word rm[XN_PR][XN_RM_ROWS];
    static xn::weight_word wb[XN_WB_WORDS];
#pragma HLS array_partition variable = am complete dim = 1
#pragma HLS array_reshape variable = am complete dim = 3
#pragma HLS array_partition variable = rm complete dim = 1
    const xn::registers r = {images, input_bytes, output_words};
    xn::run_images<XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS>(program, stream, input, output, r, status,
                                                                            am, rm, wb);
}
