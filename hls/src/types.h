/* SPDX-License-Identifier: Apache-2.0
 * What the engine's units hand to one another. All are integers of 8 to 64 bits and structs of them, so that a C++ compiler and an HLS
 * tool cannot differ about a width; bits are taken by shifts and masks. Sums are modulo 2^32 and post lanes modulo 2^64,
 * as accel/engine/run.c defines them.
 *
 * Names of template parameters, the same everywhere:
 *
 *     P         pixels side by side that BINARY makes; AM has 2P banks
 *     PI        pixels of INT8
 *     PR        pixels of the post lanes; RM has PR banks
 *     AM_ROWS   rows of a bank of AM
 *     RM_ROWS   rows of a bank of RM
 *     WB_WORDS  weight words of the buffer, and of the FIFO before it
 */
#ifndef XN_HLS_TYPES_H
#define XN_HLS_TYPES_H

#include <hls_stream.h>
#include <stdint.h>

#include "hls/include/xnor_isa.h"

/* A port of card memory. Vitis makes an AXI master of a pointer; the simulation has a pointer that knows its bounds. */
#ifdef XN_HLS_SIMULATION
#include "hls/sim/port.h"
#else
namespace xn
{
template <typename T> using in_port = const T *;
template <typename T> using out_port = T *;
} // namespace xn
#endif

namespace xn
{
typedef struct xn_isa_descriptor descriptor;
typedef struct xn_isa_geometry geometry;

constexpr uint32_t LANES = XN_ISA_LANES;

/** 256 bits of card memory. */
struct beat {
    uint64_t word[XN_ISA_BEAT_BYTES / 8];
};

/** 64 bits of weights for each lane. */
struct weight_word {
    uint64_t lane[LANES];
};

/** A pixel's 16 channels in RM. */
struct rm_word {
    int16_t channel[LANES];
};

/** Sums of a pixel's 16 channels. */
struct sums {
    int32_t lane[LANES];
};

/** AM: words of 64 bits as four quarters, each with a write enable of its own, so that SIGN writes one of them without reading
 *  the word. */
constexpr uint32_t QUARTERS = 4;
typedef uint16_t am_word[QUARTERS];

/** Post parameters of a group, unpacked. */
struct post_lanes {
    int64_t b1[LANES], b2[LANES];
    int32_t t[LANES], m1[LANES];
    int16_t m2[LANES], a[LANES], d[LANES];
    uint8_t k[LANES];
};

/** A descriptor on its way from fetch to the units. Everything in it has been checked where error is 0. */
struct command {
    descriptor d;
    uint32_t index;
    uint32_t error; /**< enum xn_isa_error */
};

/** A word of the output. */
struct logit {
    uint32_t index;
    int32_t value;
    bool last; /**< nothing more of this section; index and value mean nothing */
};

/** Of a power of two. */
constexpr uint32_t log2_of(uint32_t n)
{
    return n > 1 ? 1 + log2_of(n / 2) : 0;
}

/** END or TURN. */
inline bool ends_section(const descriptor &d)
{
    return d.op == XN_ISA_END || d.op == XN_ISA_TURN;
}

inline uint32_t groups_of(const descriptor &d)
{
    return (d.channels + LANES - 1) / LANES;
}

inline uint32_t steps_of(const descriptor &d)
{
    return (uint32_t)xn_isa_steps(&d);
}

inline int64_t clamp(int64_t v, int64_t least, int64_t most)
{
    return v < least ? least : v > most ? most : v;
}
} // namespace xn

#endif
