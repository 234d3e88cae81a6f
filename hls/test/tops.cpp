/* SPDX-License-Identifier: Apache-2.0 */
#include "hls/test/tops.h"

void top_fetch(xn::in_port<xn::beat> program, xn::in_port<xn::beat> stream, uint32_t input_bytes, uint32_t output_words,
               uint32_t first, uint64_t first_beat, uint32_t turn_image, hls::stream<xn::command> &commands,
               hls::stream<xn::weight_word> &words, uint64_t &ret_beat)
{
#pragma HLS interface mode = m_axi port = program bundle = fetch offset = slave
#pragma HLS interface mode = m_axi port = stream bundle = fetch offset = slave
    const xn::geometry g = {XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS};
    xn::fetch(program, stream, g, input_bytes, output_words, first, first_beat, turn_image, commands, words, ret_beat);
}

void top_input(const xn::descriptor &d, xn::in_port<xn::beat> input, uint64_t first_byte, am_memory &am)
{
#pragma HLS interface mode = m_axi port = input bundle = input offset = slave
    xn::input_rows<XN_P, XN_AM_ROWS>(d, input, first_byte, am);
}

void top_window(const xn::descriptor &d, const xn::window &at, uint32_t y, uint32_t x, uint32_t tile, uint32_t word,
                const am_memory &am, bool ret_served[XN_P], bool ret_inside[XN_P], uint64_t ret_word[XN_P])
{
#pragma HLS pipeline II = 1
    const xn::taps<XN_P> t = xn::taps_of<XN_P>(d, at, y, x, tile, xn::log_pixels_of<XN_P>(tile, d.stride_w));
    xn::am_read<XN_P, XN_AM_ROWS>(am, xn::request_of<XN_P>(d, t, word), ret_word);
    for (uint32_t i = 0; i < XN_P; i++) {
        ret_served[i] = t.served[i];
        ret_inside[i] = t.inside[i];
    }
}

void top_binary(const uint64_t x[XN_P], const bool used[XN_P], uint32_t channels, const xn::weight_word &w,
                xn::sums s[XN_P])
{
#pragma HLS pipeline II = 1
    xn::binary_step<XN_P>(x, used, channels, w, s);
}

void top_int8(const uint64_t x[XN_PI], const bool used[XN_PI], uint32_t source, const xn::weight_word &w,
              xn::sums s[XN_PI])
{
#pragma HLS pipeline II = 1
    xn::int8_step<XN_PI>(x, used, source, w, s);
}

void top_vector(uint64_t x, const xn::rm_word &r, uint32_t source, uint32_t part, bool largest,
                const xn::weight_word &w, xn::sums &s)
{
#pragma HLS pipeline II = 1
    xn::vector_step(x, r, source, part, largest, w, s);
}

void top_largest(const xn::descriptor &d, uint32_t turn_image, am_memory &am)
{
    xn::largest_map<XN_P, XN_AM_ROWS>(d, turn_image, am);
}

void top_post(const xn::descriptor &d, const xn::weight_word lanes[xn::POST_WORDS], const xn::tile_at &at,
              uint32_t tile, uint32_t part, const xn::sums held[XN_P], am_memory &am, rm_memory &rm,
              hls::stream<xn::logit> &logits)
{
#pragma HLS pipeline II = 1
    xn::post_lanes p;
    xn::unpack_lanes(lanes, p);
    xn::post_part<XN_P, XN_PR, XN_AM_ROWS, XN_RM_ROWS>(d, p, at, tile, part, held, am, rm, logits);
}
