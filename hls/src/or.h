/* SPDX-License-Identifier: Apache-2.0
 * OR: the OR of a window's words, a word read a cycle: the largest of bits, and copies. */
#ifndef XN_HLS_OR_H
#define XN_HLS_OR_H

#include "hls/src/window.h"

namespace xn
{
/** One word of one output pixel. */
template <unsigned P, unsigned AM_ROWS>
void or_window(const descriptor &d, uint32_t y, uint32_t x, uint32_t word, am_word am[2 * P][AM_ROWS])
{
    const bool valid[1] = {true};
    const uint32_t row = map_row<2 * P>(d.dest_base, d.out_w, d.dest_pitch, y, x, d.dest_group / 4 + word);
    uint64_t all[1] = {0};
    for (uint32_t ky = 0; ky < d.kernel_h; ky++) {
        for (uint32_t kx = 0; kx < d.kernel_w; kx++) {
#pragma HLS pipeline II = 1
            const window at = {ky, kx, 0, 0};
            uint64_t read[P];
            am_read<P, AM_ROWS>(am, request_of<P>(d, taps_of<P>(d, at, y, x, 1, 0), word), read);
            all[0] |= read[0];
        }
    }
    am_write<P, 1, AM_ROWS>(am, row, x, valid, all, 0xf);
}

template <unsigned P, unsigned AM_ROWS> void or_map(const descriptor &d, am_word am[2 * P][AM_ROWS])
{
    for (uint32_t y = 0; y < d.out_h; y++)
        for (uint32_t x = 0; x < d.out_w; x++)
            for (uint32_t word = 0; word < d.words; word++)
                or_window<P, AM_ROWS>(d, y, x, word, am);
}
} // namespace xn

#endif
