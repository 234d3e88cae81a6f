/* SPDX-License-Identifier: Apache-2.0
 * Fetch: the program and its stream from card memory. A process of its own: it goes through the program by itself, since a
 * descriptor says all about its part of the stream, and runs ahead of the units until the FIFO of weights is full. That
 * FIFO is the second weight buffer: it fills with the next chunk, or the next pass's, while the units use the first (pass.h).
 *
 * Only checked descriptors leave it without an error, and nothing leaves it behind an error or the section's end. */
#ifndef XN_HLS_FETCH_H
#define XN_HLS_FETCH_H

#include "hls/src/types.h"

namespace xn
{
constexpr uint32_t DESCRIPTOR_BEATS = XN_ISA_DESCRIPTOR_BYTES / XN_ISA_BEAT_BYTES;
/** A group's post parameters travel in the FIFO of weights, before them. */
constexpr uint32_t POST_WORDS = XN_ISA_POST_BYTES / XN_ISA_WEIGHT_BYTES;

/** From 32 words; field by field, since no HLS tool takes a struct for an array. */
inline descriptor unpack_descriptor(const uint32_t w[XN_ISA_DESCRIPTOR_BYTES / 4])
{
    descriptor d;
    d.op = w[0], d.flags = w[1], d.source = w[2], d.height = w[3], d.width = w[4], d.base = w[5], d.pitch = w[6];
    d.words = w[7], d.channels_in = w[8], d.kernel_h = w[9], d.kernel_w = w[10], d.stride_h = w[11], d.stride_w = w[12];
    d.pad_top = w[13], d.pad_left = w[14], d.out_h = w[15], d.out_w = w[16], d.channels = w[17], d.chunk = w[18];
    d.shift = w[19], d.stream_base = w[20], d.stream_pitch = w[21], d.residual_base = w[22], d.residual_pitch = w[23];
    d.dest_base = w[24], d.dest_pitch = w[25], d.dest_group = w[26], d.source_group = w[27], d.input_row_bytes = w[28];
    d.dest_width = w[29], d.dest_step = w[30], d.reserved = w[31];
    return d;
}

inline descriptor read_descriptor(in_port<beat> program, uint32_t index)
{
    uint32_t w[XN_ISA_DESCRIPTOR_BYTES / 4];
#pragma HLS array_partition variable = w complete
    for (uint32_t i = 0; i < DESCRIPTOR_BEATS; i++) {
#pragma HLS pipeline II = 1
        const beat b = program[index * DESCRIPTOR_BEATS + i];
        for (uint32_t j = 0; j < 4; j++) {
            w[8 * i + 2 * j] = (uint32_t)b.word[j];
            w[8 * i + 2 * j + 1] = (uint32_t)(b.word[j] >> 32);
        }
    }
    return unpack_descriptor(w);
}

/** `n` weight words from beat `at` on. */
inline void fetch_words(in_port<beat> stream, uint64_t at, uint32_t n, hls::stream<weight_word> &words)
{
    weight_word word;
    for (uint64_t i = 0; i < (uint64_t)n * XN_ISA_WEIGHT_BEATS; i++) {
#pragma HLS pipeline II = 1
        const beat b = stream[at + i];
        const uint32_t part = i % XN_ISA_WEIGHT_BEATS;
        for (uint32_t j = 0; j < 4; j++)
            word.lane[4 * part + j] = b.word[j];
        if (part == XN_ISA_WEIGHT_BEATS - 1)
            words.write(word);
    }
}

/** The process. A section of the program (engine.h): commands from descriptor `first` to the END, TURN or wrong one, and the weights of
 *  all but a wrong one, from beat `first_beat` of the stream on. turn_image: place in its turn of the image. */
inline void fetch(in_port<beat> program, in_port<beat> stream, const geometry &g, uint32_t input_bytes,
                  uint32_t output_words, uint32_t first, uint64_t first_beat, uint32_t turn_image,
                  hls::stream<command> &commands, hls::stream<weight_word> &words, uint64_t &ret_beat)
{
    uint64_t at = first_beat;
    bool more = true;
    for (uint32_t i = first; more; i++) {
        command c = {};
        c.index = i;
        if (i == XN_ISA_DESCRIPTORS_MAX) {
            c.error = XN_ISA_ERROR_LENGTH;
        } else {
            c.d = read_descriptor(program, i);
            c.error = xn_isa_check(&c.d, &g, input_bytes, output_words, turn_image);
        }
        commands.write(c);
        more = c.error == XN_ISA_OK && !ends_section(c.d);
        if (more && xn_isa_has_stream(&c.d)) {
            const uint32_t n = groups_of(c.d) * (POST_WORDS + (xn_isa_has_weights(&c.d) ? steps_of(c.d) : 0));
            fetch_words(stream, at, n, words);
            at += (uint64_t)n * XN_ISA_WEIGHT_BEATS;
        }
    }
    ret_beat = at;
}
} // namespace xn

#endif
