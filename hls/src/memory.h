/* SPDX-License-Identifier: Apache-2.0
 * Addresses and the crossbars between pixels and banks. A bank has one reader and one writer a cycle: a unit's pixels are sent to their
 * banks, every bank is accessed at one row, and what the banks read goes back to the pixels. Pixels that
 * fall on one bank (a stride of 4 or more) would get one another's words; the rounds of window.h keep them apart. */
#ifndef XN_HLS_MEMORY_H
#define XN_HLS_MEMORY_H

#include "hls/src/types.h"

namespace xn
{
/** Row, in every bank, of word `word` of pixel (y, x). BANKS: of the memory, a power of two. */
template <unsigned BANKS>
uint32_t map_row(uint32_t base, uint32_t width, uint32_t pitch, uint32_t y, uint32_t x, uint32_t word)
{
    return base + (y * ((width + BANKS - 1) / BANKS) + x / BANKS) * pitch + word;
}

/** Words that some pixels ask AM for. */
template <unsigned P> struct am_request {
    uint32_t row[P], bank[P];
    bool valid[P];
};

inline uint64_t am_load(const am_word &w)
{
    return (uint64_t)w[0] | (uint64_t)w[1] << 16 | (uint64_t)w[2] << 32 | (uint64_t)w[3] << 48;
}

/** Read for P pixels on different banks; 0 where not valid. */
template <unsigned P, unsigned AM_ROWS>
void am_read(const am_word am[2 * P][AM_ROWS], const am_request<P> &request, uint64_t ret_word[P])
{
#pragma HLS inline
    uint64_t bank_word[2 * P];
#pragma HLS array_partition variable = bank_word complete
    for (uint32_t b = 0; b < 2 * P; b++) {
#pragma HLS unroll
        uint32_t row = 0;
        for (uint32_t i = 0; i < P; i++)
            row |= request.valid[i] && request.bank[i] == b ? request.row[i] : 0;
        bank_word[b] = am_load(am[b][row]);
    }
    for (uint32_t i = 0; i < P; i++) {
#pragma HLS unroll
        ret_word[i] = request.valid[i] ? bank_word[request.bank[i]] : 0;
    }
}

/** Write quarters `quarters` (bit q: quarter q) of N neighbours' words, the first at column `x`, a multiple of N, all at `row`. N: pixels, a power of two up
 *  to 2P. */
template <unsigned P, unsigned N, unsigned AM_ROWS>
void am_write(am_word am[2 * P][AM_ROWS], uint32_t row, uint32_t x, const bool valid[N], const uint64_t word[N],
              uint32_t quarters)
{
#pragma HLS inline
    for (uint32_t b = 0; b < 2 * P; b++) {
#pragma HLS unroll
        if (!valid[b % N] || b / N != x % (2 * P) / N)
            continue;
        for (uint32_t q = 0; q < QUARTERS; q++)
            if (quarters >> q & 1)
                am[b][row][q] = (uint16_t)(word[b % N] >> 16 * q);
    }
}
} // namespace xn

#endif
