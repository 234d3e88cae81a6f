/* SPDX-License-Identifier: Apache-2.0
 * INPUT: rows of an image from card memory become pixels in AM, each 8-byte word gathered from any byte of the row. Two
 * processes with a line between them, so that a row is read while the one before is written. */
#ifndef XN_HLS_INPUT_H
#define XN_HLS_INPUT_H

#include "hls/src/memory.h"

namespace xn
{
/** A row of any alignment: as many beats as it can touch. */
constexpr uint32_t LINE_BEATS = XN_ISA_LINE_BYTES / XN_ISA_BEAT_BYTES + 1;
constexpr uint32_t LINE_WORDS = LINE_BEATS * XN_ISA_BEAT_BYTES / 8;

inline void read_line(in_port<beat> input, uint64_t first_byte, uint32_t bytes, uint64_t line[LINE_WORDS])
{
    const uint64_t first = first_byte / XN_ISA_BEAT_BYTES, last = (first_byte + bytes - 1) / XN_ISA_BEAT_BYTES;
    for (uint32_t i = 0; i <= (uint32_t)(last - first); i++) {
#pragma HLS pipeline II = 1
        const beat b = input[first + i];
        for (uint32_t j = 0; j < 4; j++)
            line[4 * i + j] = b.word[j];
    }
}

/** Eight bytes of the row from byte `at` on, those of `n` that lie in it, else 0. skip: bytes of the line before the row. */
inline uint64_t gather(const uint64_t line[LINE_WORDS], uint32_t skip, uint32_t bytes, int32_t at, int32_t n)
{
#pragma HLS inline
    const int32_t byte = at + (int32_t)skip, word = byte >> 3;
    const uint32_t shift = 8 * (byte & 7);
    const uint64_t low = word >= 0 && word < (int32_t)LINE_WORDS ? line[word] : 0;
    const uint64_t high = word >= -1 && word + 1 < (int32_t)LINE_WORDS ? line[word + 1] : 0;
    const uint64_t v = shift ? low >> shift | high << (64 - shift) : low;
    uint64_t keep = 0;
    for (int32_t i = 0; i < 8; i++) {
#pragma HLS unroll
        keep |= (uint64_t)(i < n && at + i >= 0 && at + i < (int32_t)bytes ? 0xff : 0) << 8 * i;
    }
    return v & keep;
}

template <unsigned P, unsigned AM_ROWS>
void write_line(const descriptor &d, uint32_t y, uint32_t skip, const uint64_t line[LINE_WORDS],
                am_word am[2 * P][AM_ROWS])
{
    const bool valid[1] = {true};
    for (uint32_t x = 0; x < d.out_w; x++) {
        for (uint32_t w = 0; w < d.dest_pitch; w++) {
#pragma HLS pipeline II = 1
            const int32_t at = (int32_t)(x * d.stride_w + 8 * w) - (int32_t)d.pad_left;
            const uint64_t word[1] = {
                gather(line, skip, d.input_row_bytes, at, (int32_t)d.channels - (int32_t)(8 * w))};
            const uint32_t row = map_row<2 * P>(d.dest_base, d.out_w, d.dest_pitch, y, x, w);
            am_write<P, 1, AM_ROWS>(am, row, x, valid, word, 0xf);
        }
    }
}

/** first_byte: of this image. */
template <unsigned P, unsigned AM_ROWS>
void input_rows(const descriptor &d, in_port<beat> input, uint64_t first_byte, am_word am[2 * P][AM_ROWS])
{
    for (uint32_t y = 0; y < d.height; y++) {
#pragma HLS dataflow
        uint64_t line[LINE_WORDS];
#pragma HLS array_partition variable = line cyclic factor = 4
        const uint64_t at = first_byte + (uint64_t)y * d.input_row_bytes;
        read_line(input, at, d.input_row_bytes, line);
        write_line<P, AM_ROWS>(d, y, at % XN_ISA_BEAT_BYTES, line, am);
    }
}
} // namespace xn

#endif
