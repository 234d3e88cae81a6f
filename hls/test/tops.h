/* SPDX-License-Identifier: Apache-2.0
 * Each unit as a design of its own: what `v++` or vitis_hls takes as a top to look at one unit's schedule and area, and
 * what its test bench calls. The geometry is that of the macros XN_P ... */
#ifndef XN_HLS_TEST_TOPS_H
#define XN_HLS_TEST_TOPS_H

#include "hls/src/engine.h"

typedef xn::am_word am_memory[2 * XN_P][XN_AM_ROWS];
typedef xn::rm_word rm_memory[XN_PR][XN_RM_ROWS];

/** fetch.h */
void top_fetch(xn::in_port<xn::beat> program, xn::in_port<xn::beat> stream, uint32_t input_bytes, uint32_t output_words,
               uint32_t first, uint64_t first_beat, uint32_t turn_image, hls::stream<xn::command> &commands,
               hls::stream<xn::weight_word> &words, uint64_t &ret_beat);
/** input.h */
void top_input(const xn::descriptor &d, xn::in_port<xn::beat> input, uint64_t first_byte, am_memory &am);
/** window.h and memory.h: what the pixels of a tile read in a round, and whether they are served and inside. */
void top_window(const xn::descriptor &d, const xn::window &at, uint32_t y, uint32_t x, uint32_t tile, uint32_t word,
                const am_memory &am, bool ret_served[XN_P], bool ret_inside[XN_P], uint64_t ret_word[XN_P]);
/** arrays.h */
void top_binary(const uint64_t x[XN_P], const bool used[XN_P], uint32_t channels, const xn::weight_word &w,
                xn::sums s[XN_P]);
void top_int8(const uint64_t x[XN_PI], const bool used[XN_PI], uint32_t source, const xn::weight_word &w,
              xn::sums s[XN_PI]);
void top_vector(uint64_t x, const xn::rm_word &r, uint32_t source, uint32_t part, bool largest,
                const xn::weight_word &w, xn::sums &s);
/** largest.h */
void top_largest(const xn::descriptor &d, uint32_t turn_image, am_memory &am);
/** post.h */
void top_post(const xn::descriptor &d, const xn::weight_word lanes[xn::POST_WORDS], const xn::tile_at &at,
              uint32_t tile, uint32_t part, const xn::sums held[XN_P], am_memory &am, rm_memory &rm,
              hls::stream<xn::logit> &logits);

#endif
