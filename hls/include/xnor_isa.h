/* SPDX-License-Identifier: Apache-2.0
 * The instruction set of the engine: what host, HLS C++, SystemVerilog and simulators agree on. C99 and C++11; this is
 * the one file of hls/ that hosts include. docs/engine.md is the specification, with a drawing; accel/engine/run.c runs
 * a program as its definition.
 *
 * A network is a *program*: descriptors of 128 bytes, each one pass over a feature map, run one after another. A pass
 *
 *     source memory -> unit: sum (or largest) over a window -> post lanes -> destinations
 *
 * makes XN_ISA_LANES output channels (a *group*) at a time, over all pixels, then the next group:
 *
 *     for each group of 16 output channels
 *       for each chunk of the window's steps                    weights of the chunk fetched, in order, as one stream
 *         for y, for x in tiles of some pixels                  P (BINARY), PI (INT8), 1 (VECTOR)
 *           for step in chunk                                   a cycle each (VECTOR: see xn_isa_step_cycles)
 *             16 sums of each pixel of the tile += one weight word
 *           after the last chunk: post, PR pixels of 16 channels a cycle
 *
 * So weights are read from card memory once an image, in the order in which they lie, and are used for all pixels. A pass
 * of several chunks has one tile only (fully connected layers).
 *
 * Images run through the program one after another, or in *turns* where it has a TURN: what stands before TURN, the head, runs for
 * each image of the turn, and what stands behind it, the tail, once for all of them:
 *
 *     for each turn: n = the images left, at most TURN's out_w
 *       for image 0 .. n-1 of the turn: descriptors 0 .. TURN-1, the stream from its beginning
 *       descriptors TURN+1 .. END, the stream where the head has left it
 *
 * LARGEST with BATCH puts each image's map beside those of the turn's other images into one wide map; passes with BATCH in the
 * tail then have an image a pixel, so that fully connected layers fill tiles and fetch their weights once a turn.
 *
 * On the card. AM, activation memory: 64-bit words, one word = 64 channels of bits or 8 channels of int8/uint8. It has
 * 2P banks; pixel x of a row lies in bank x mod 2P, so that P neighbours, and P with stride 2, are read at once. An
 * address is a row of all banks: pixel (y, x), word w of a map at `base`, `width` wide, `pitch` words a pixel:
 *
 *     bank x mod 2P, row base + (y * ceil(width / 2P) + x / 2P) * pitch + w
 *
 * RM, residual memory: int16, 16 channels a word, PR banks; pixel (y, x), group g of a map:
 *
 *     bank x mod PR, row base + (y * ceil(width / PR) + x / PR) * pitch + g
 *
 * Channels that a map has not (up to a whole group, for bits up to a whole word) are 0 in both: a lane beyond `channels` writes 0,
 * and SIGN to the first group of a word (group mod 4 = 0) writes the whole word, the other three groups 0. So the groups of a
 * map of bits, concatenated or not, are written in ascending order.
 *
 * Everything in card memory is little-endian. */
#ifndef XNOR_ISA_H
#define XNOR_ISA_H

#include <stdint.h>

#define XN_ISA_MAJOR 1u
#define XN_ISA_MINOR 1u

#define XN_ISA_LANES      16u /**< PE: output channels of a group; post lanes */
#define XN_ISA_WORD_BITS  64u /**< S: channels of bits in a word */
#define XN_ISA_WORD_BYTES 8u  /**< channels of int8 in a word */
#define XN_ISA_BEAT_BYTES 32u /**< of the memory port: 256 bits a cycle */
/** A weight word: 64 bits for each of the 16 lanes, lane 0 first. BINARY: 64 weights, bit i for channel i of the word read. INT8:
 *  8 weights. VECTOR: an int8 weight in the lowest byte (+1, -1 for bits), the rest 0. */
#define XN_ISA_WEIGHT_BYTES     128u
#define XN_ISA_WEIGHT_BEATS     (XN_ISA_WEIGHT_BYTES / XN_ISA_BEAT_BYTES)
#define XN_ISA_DESCRIPTOR_BYTES 128u
#define XN_ISA_DESCRIPTORS_MAX  4096u
#define XN_ISA_SIDE_MAX         4096u   /**< height and width of maps, and of windows */
#define XN_ISA_STEPS_MAX        262144u /**< of a window, all chunks */
#define XN_ISA_LINE_BYTES       16384u  /**< XN_ISA_INPUT: of one row of the input image */

/** What a build of the engine has. In the capability registers; every size that a program may use follows from it. */
struct xn_isa_geometry {
    uint32_t p;        /**< pixels at a time, BINARY: 1, 2, 4, 8 or 16 */
    uint32_t pi;       /**< pixels at a time, INT8: 1..p, a power of two; D = 128 * pi multiply-accumulates a cycle */
    uint32_t pr;       /**< pixels at a time, post lanes: 1..p, a power of two; R = 16 * pr lanes */
    uint32_t am_rows;  /**< rows of AM; its bytes are am_rows * 2p * 8 */
    uint32_t rm_rows;  /**< rows of RM; its bytes are rm_rows * pr * 32 */
    uint32_t wb_words; /**< weight words of one of the two weight buffers: the longest chunk */
};

enum xn_isa_op {
    XN_ISA_END = 0,    /**< ends the program */
    XN_ISA_INPUT = 1,  /**< input tensor from card memory to AM, see `input_*` */
    XN_ISA_BINARY = 2, /**< AM bits x bits: sum of x*w = valid channels - 2*popcount(x ^ w) */
    XN_ISA_INT8 = 3,   /**< AM int8, uint8 or bits (as +1 and -1) x int8 */
    XN_ISA_VECTOR = 4, /**< channel by channel, AM or RM: sum of x*w (depthwise, pools, copies) or the largest x */
    XN_ISA_LARGEST =
        5, /**< AM to AM, a word of P pixels a cycle, no stream: the largest elements of a window (of bits: OR; copies),
                         `words` words a pixel, to word dest_group / 4 on; dest_group mod 4 = 0. Order: word, y, tiles, ky, kx */
    XN_ISA_TURN = 6, /**< ends the head; out_w: images of a turn. In the tail it is an END */
};

/** What the elements of the source are. */
enum xn_isa_source {
    XN_ISA_BITS = 0, /**< AM */
    XN_ISA_U8 = 1,   /**< AM */
    XN_ISA_I8 = 2,   /**< AM */
    XN_ISA_I16 = 3,  /**< RM; VECTOR only */
};

/* flags. A tap outside the map contributes nothing (and is no candidate for MAX), but with PAD_MINUS_ONE reads -1 in
 * every channel (BINARY only). The post lanes do, in this order, what is set; v begins as the sum, 32 bits, exact:
 *
 *     SCALE      v = (M1*v + B1 + half1) >> n1            64 bits; half = n > 0 ? 2^(n-1) : 0; >> rounds down
 *     RESIDUAL   v = v + RM[residual]
 *     SATURATE   v = clamp(v, -32768, 32767)
 *     RPRELU     t = v + A; v = clamp((t >= 0 ? t : t >> K) + D, -32768, 32767)
 *     STORE      RM[stream] = v                           v fits int16
 *     SIGN       AM[dest] bits = v >= T
 *     QUANTIZE   AM[dest] = clamp((M2*v + B2 + half2) >> n2, to int8 or, with UNSIGNED, to uint8)
 *     LOGITS     output[channel] = ML*v + BL              32 bits; ML and BL in the places of T and B2
 *
 * SIGN, QUANTIZE and LOGITS exclude each other. A lane beyond `channels` writes 0. LOGITS: channel c of pixel i goes to
 * output[i * channels + c], of the image or, in the tail, from the turn's first image on. MAX of a window wholly outside the map is -32768.
 *
 * BATCH: out_w is at most the number of images of the turn (in the head: 1); out_h is 1, and LOGITS have an image's output a pixel. With
 * LARGEST instead: pixel (y, x) goes to pixel (y, i * dest_step + x) of a map `dest_width` wide, i counting the images of the turn (in
 * the tail: the last).
 *
 * Programs keep these ranges, which say how wide the lanes must be: without SCALE, v fits 32 bits; with SCALE, |B1| <= 2^47,
 * v is exact up to SATURATE, and fits 32 bits where SATURATE is not set; v fits 16 bits before RPRELU and STORE;
 * |B2| <= 2^47. */
#define XN_ISA_PAD_MINUS_ONE (1u << 0)
#define XN_ISA_MAX           (1u << 1) /**< VECTOR: the largest element instead of a sum; no weights */
#define XN_ISA_SCALE         (1u << 2)
#define XN_ISA_RESIDUAL      (1u << 3)
#define XN_ISA_SATURATE      (1u << 4)
#define XN_ISA_RPRELU        (1u << 5)
#define XN_ISA_STORE         (1u << 6)
#define XN_ISA_SIGN          (1u << 7)
#define XN_ISA_QUANTIZE      (1u << 8)
#define XN_ISA_UNSIGNED      (1u << 9)
#define XN_ISA_LOGITS        (1u << 10)
#define XN_ISA_BATCH         (1u << 11)
#define XN_ISA_ONES          (1u << 12) /**< VECTOR: all weights are 1, and none are in the stream */
#define XN_ISA_FLAGS         ((1u << 13) - 1)

/** One pass. 32 words of 32 bits. Fields that an operation does not name are 0. */
struct xn_isa_descriptor {
    /*  0 */ uint32_t op;            /**< enum xn_isa_op */
    /*  1 */ uint32_t flags;         /**< XN_ISA_* above */
    /*  2 */ uint32_t source;        /**< enum xn_isa_source */
    /*  3 */ uint32_t height, width; /**< of the source map */
    /*  5 */ uint32_t base;          /**< of the source, AM row or RM row */
    /*  6 */ uint32_t pitch;         /**< words a pixel of the source */
    /*  7 */ uint32_t
        words; /**< steps a tap. BINARY: words read, from the pixel's first. INT8: words of 8 channels (BITS: bytes of
                                   bits). VECTOR: 1; the channels read are those of the output group (+ source_group) */
    /*  8 */ uint32_t
        channels_in; /**< BINARY: channels of a tap, for the sum's constant; at most 64 * words. Unused ones are 0 in
                                         source and weights. INT8, VECTOR: 0 */
    /*  9 */ uint32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    /* 15 */ uint32_t out_h, out_w;
    /* 17 */ uint32_t channels; /**< of the output */
    /* 18 */ uint32_t
        chunk; /**< steps of a chunk, 1..wb_words; without weights not used; steps = kernel_h * kernel_w * words, in the order [ky][kx][word] */
    /* 19 */ uint32_t shift;                         /**< n1 | n2 << 8, each 0..30 */
    /* 20 */ uint32_t stream_base, stream_pitch;     /**< STORE: RM; the first group's word of pixel 0 */
    /* 22 */ uint32_t residual_base, residual_pitch; /**< RESIDUAL: RM, as above */
    /* 24 */ uint32_t dest_base, dest_pitch;         /**< SIGN, QUANTIZE: AM, a map of out_h x out_w */
    /* 26 */ uint32_t dest_group;            /**< the group of the destination that the first output group goes to */
    /* 27 */ uint32_t source_group;          /**< VECTOR: the group of the source that the first output group reads */
    /* 28 */ uint32_t input_row_bytes;       /**< INPUT: height x input_row_bytes bytes, dense. See xn_isa_input */
    /* 29 */ uint32_t dest_width, dest_step; /**< LARGEST with BATCH */
    /* 31 */ uint32_t reserved;
};

/* INPUT: the input tensor, [height][input_row_bytes] bytes, becomes a map of `height` x `out_w` in AM at dest_base, dest_pitch words
 * of 8 bytes a pixel: pixel x holds the `channels` bytes of the row from byte x * stride_w - pad_left on (0 outside the row),
 * then zeros. With stride_w = channels = c and pad_left = 0 that is the image itself. With stride_w = stride * c, pad_left = pad * c
 * and channels = kernel_w * c a narrow convolution's taps of a row lie packed in one pixel, and the pass that follows has kernel_w 1:
 * three channels of 7x7 take 3 words a row instead of 7. */

/** Post parameters of one channel, 32 bytes; a group's are 16 of them, lane 0 first. */
struct xn_isa_lane {
    int64_t b1;
    int64_t b2; /**< LOGITS: BL */
    int32_t t;  /**< SIGN: T; LOGITS: ML */
    int32_t m1; /**< -131072..131071 */
    int16_t m2;
    int16_t a, d;
    uint8_t k; /**< 0..15 */
    uint8_t zero;
};
#define XN_ISA_LANE_BYTES 32u
#define XN_ISA_POST_BYTES (XN_ISA_LANES * XN_ISA_LANE_BYTES)
#define XN_ISA_POST_BEATS (XN_ISA_POST_BYTES / XN_ISA_BEAT_BYTES)

/* The stream. All that the descriptors of a program that read it (xn_isa_has_stream) need, in order, without gaps: for each group its post
 * parameters (XN_ISA_POST_BYTES), then all its weight words, if it has weights (xn_isa_has_weights). */

/* Registers, AXI4-Lite, 32 bits each, offsets in bytes; those of Vitis' ap_ctrl_hs first. Addresses are of bytes, 64 bits (low word
 * first), multiples of 64 but for INPUT (of 1) and OUTPUT (of 4). */
#define XN_ISA_REG_CONTROL      0x00u /**< bit 0 start, bit 1 done (cleared by reading), bit 2 idle, bit 3 ready */
#define XN_ISA_REG_PROGRAM      0x10u /**< descriptors, ended by XN_ISA_END */
#define XN_ISA_REG_STREAM       0x1cu
#define XN_ISA_REG_INPUT        0x28u /**< images one behind another */
#define XN_ISA_REG_OUTPUT       0x34u /**< int32 [images][classes], one behind another */
#define XN_ISA_REG_IMAGES       0x40u
#define XN_ISA_REG_INPUT_BYTES  0x48u /**< of an image */
#define XN_ISA_REG_OUTPUT_WORDS 0x50u /**< of an image's output */
#define XN_ISA_REG_STATUS       0x58u /**< address of struct xn_isa_status in card memory, written at the end */

/** Why a program stopped. What is wrong is found before the pass in which it lies writes anything outside its memories. */
enum xn_isa_error {
    XN_ISA_OK = 0,
    XN_ISA_ERROR_OP = 1,     /**< unknown op, source or flags, or flags that exclude each other */
    XN_ISA_ERROR_SHAPE = 2,  /**< a zero or too large side, stride, step count or chunk */
    XN_ISA_ERROR_SOURCE = 3, /**< the source map does not lie in its memory */
    XN_ISA_ERROR_DEST = 4,   /**< a destination, or the residual, does not */
    XN_ISA_ERROR_LENGTH = 5, /**< no XN_ISA_END within XN_ISA_DESCRIPTORS_MAX */
    XN_ISA_ERROR_OUTPUT = 6, /**< LOGITS beyond XN_ISA_REG_OUTPUT_WORDS */
    XN_ISA_ERROR_INPUT = 7,  /**< INPUT beyond XN_ISA_REG_INPUT_BYTES */
};

struct xn_isa_status {
    uint32_t error;      /**< enum xn_isa_error */
    uint32_t descriptor; /**< index of the one that is wrong */
    uint32_t image;      /**< where it stopped (in a tail: the turn's last); the number of images where it did not */
    uint32_t version;    /**< XN_ISA_MAJOR << 16 | XN_ISA_MINOR */
    uint64_t cycles;     /**< from start to done; 0: this engine does not count */
    uint32_t p, pi, pr, am_rows, rm_rows, wb_words; /**< struct xn_isa_geometry */
    uint32_t reserved[4];
};

/** What every status of an engine of this geometry says; the rest of it is 0. */
static inline struct xn_isa_status xn_isa_status_of(const struct xn_isa_geometry *g)
{
    struct xn_isa_status status;
    unsigned i;

    status.error = status.descriptor = status.image = 0;
    status.cycles = 0;
    for (i = 0; i < sizeof(status.reserved) / sizeof(status.reserved[0]); i++)
        status.reserved[i] = 0;
    status.version = XN_ISA_MAJOR << 16 | XN_ISA_MINOR;
    status.p = g->p;
    status.pi = g->pi;
    status.pr = g->pr;
    status.am_rows = g->am_rows;
    status.rm_rows = g->rm_rows;
    status.wb_words = g->wb_words;
    return status;
}

/* ---- arithmetic that host and engine share ---------------------------------------------------------------------- */

static inline uint64_t xn_isa_ceil(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/** Steps of a pass's window, all chunks together. */
static inline uint64_t xn_isa_steps(const struct xn_isa_descriptor *d)
{
    return (uint64_t)d->kernel_h * d->kernel_w * d->words;
}

/** Rows of a memory of `banks` banks that a map takes: AM has 2P, RM has PR. */
static inline uint64_t xn_isa_map_rows(uint64_t height, uint64_t width, uint64_t pitch, uint64_t banks)
{
    return height * xn_isa_ceil(width, banks) * pitch;
}

/** Output pixels side by side that a pass makes at a time. */
static inline uint32_t xn_isa_tile(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    if (d->op == XN_ISA_LARGEST)
        return d->flags & XN_ISA_BATCH ? 1 : g->p;
    return d->op == XN_ISA_BINARY ? g->p : d->op == XN_ISA_INT8 ? g->pi : 1;
}

/** Does a pass read the stream? */
static inline int xn_isa_has_stream(const struct xn_isa_descriptor *d)
{
    return d->op == XN_ISA_BINARY || d->op == XN_ISA_INT8 || d->op == XN_ISA_VECTOR;
}

/** Of that, weights? A pass without makes its window in one go, however long. */
static inline int xn_isa_has_weights(const struct xn_isa_descriptor *d)
{
    return xn_isa_has_stream(d) && !(d->flags & (XN_ISA_MAX | XN_ISA_ONES));
}

/** Bytes of the stream for a group of 16 channels. */
static inline uint64_t xn_isa_group_bytes(const struct xn_isa_descriptor *d)
{
    if (!xn_isa_has_stream(d))
        return 0;
    return XN_ISA_POST_BYTES + (xn_isa_has_weights(d) ? xn_isa_steps(d) * XN_ISA_WEIGHT_BYTES : 0);
}

/** Width of the map in AM that a pass writes. */
static inline uint32_t xn_isa_dest_width(const struct xn_isa_descriptor *d)
{
    return d->op == XN_ISA_LARGEST && d->flags & XN_ISA_BATCH ? d->dest_width : d->out_w;
}

/** Output pixels side by side that a pass makes where `images` of the turn have come through (the head: 1). */
static inline uint32_t xn_isa_out_w(const struct xn_isa_descriptor *d, uint32_t images)
{
    return d->flags & XN_ISA_BATCH && d->op != XN_ISA_LARGEST && images < d->out_w ? images : d->out_w;
}

/** Cycles of a step: VECTOR reads 16 channels of int8 as two words. */
static inline uint32_t xn_isa_step_cycles(const struct xn_isa_descriptor *d)
{
    return d->op == XN_ISA_VECTOR && (d->source == XN_ISA_U8 || d->source == XN_ISA_I8) ? 2 : 1;
}

/** Cycles of the post lanes for up to PR pixels: QUANTIZE writes 16 channels as two words, LOGITS go one by one. */
static inline uint32_t xn_isa_post_cycles(const struct xn_isa_descriptor *d)
{
    return d->flags & XN_ISA_QUANTIZE ? 2 : d->flags & XN_ISA_LOGITS ? XN_ISA_LANES : 1;
}

static inline int xn_isa_bad_side(uint32_t v)
{
    return v < 1 || v > XN_ISA_SIDE_MAX;
}

static inline uint32_t xn_isa_check_input(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g,
                                          uint32_t input_bytes)
{
    if (d->flags || d->source)
        return XN_ISA_ERROR_OP;
    if (xn_isa_bad_side(d->height) || xn_isa_bad_side(d->out_w) || xn_isa_bad_side(d->dest_pitch) || d->channels < 1 ||
        d->channels > XN_ISA_WORD_BYTES * d->dest_pitch || d->input_row_bytes < 1 ||
        d->input_row_bytes > XN_ISA_LINE_BYTES || d->stride_w > XN_ISA_LINE_BYTES || d->pad_left > XN_ISA_LINE_BYTES)
        return XN_ISA_ERROR_SHAPE;
    if ((uint64_t)d->height * d->input_row_bytes > input_bytes)
        return XN_ISA_ERROR_INPUT;
    if (d->dest_base + xn_isa_map_rows(d->height, d->out_w, d->dest_pitch, 2 * g->p) > g->am_rows)
        return XN_ISA_ERROR_DEST;
    return XN_ISA_OK;
}

static inline uint32_t xn_isa_check_op(const struct xn_isa_descriptor *d)
{
    uint32_t f = d->flags;
    uint32_t outs = (f & XN_ISA_SIGN ? 1u : 0) + (f & XN_ISA_QUANTIZE ? 1u : 0) + (f & XN_ISA_LOGITS ? 1u : 0);

    if (d->op < XN_ISA_BINARY || d->op > XN_ISA_LARGEST || f & ~XN_ISA_FLAGS || outs > 1 || d->source > XN_ISA_I16)
        return XN_ISA_ERROR_OP;
    if (f & XN_ISA_PAD_MINUS_ONE && d->op != XN_ISA_BINARY)
        return XN_ISA_ERROR_OP;
    if (f & (XN_ISA_MAX | XN_ISA_ONES) && d->op != XN_ISA_VECTOR)
        return XN_ISA_ERROR_OP;
    if (d->op == XN_ISA_LARGEST && (f & ~XN_ISA_BATCH || d->source == XN_ISA_I16 || d->dest_group % 4))
        return XN_ISA_ERROR_OP;
    if ((d->op == XN_ISA_BINARY && d->source != XN_ISA_BITS) || (d->op == XN_ISA_INT8 && d->source == XN_ISA_I16))
        return XN_ISA_ERROR_OP;
    return XN_ISA_OK;
}

static inline uint32_t xn_isa_check_shape(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    uint64_t steps = xn_isa_steps(d);
    uint64_t tiles = d->out_h * xn_isa_ceil(d->out_w, xn_isa_tile(d, g));

    if (xn_isa_bad_side(d->height) || xn_isa_bad_side(d->width) || xn_isa_bad_side(d->out_h) ||
        xn_isa_bad_side(d->out_w) || xn_isa_bad_side(d->kernel_h) || xn_isa_bad_side(d->kernel_w) ||
        xn_isa_bad_side(d->stride_h) || xn_isa_bad_side(d->stride_w) || d->pad_top >= d->kernel_h ||
        d->pad_left >= d->kernel_w || d->words < 1 || d->words > 65536 || d->pitch < 1 || d->pitch > 65536 ||
        d->channels < 1 || d->channels > 65536)
        return XN_ISA_ERROR_SHAPE;
    if (steps > XN_ISA_STEPS_MAX)
        return XN_ISA_ERROR_SHAPE;
    if (xn_isa_has_weights(d) && (d->chunk < 1 || d->chunk > g->wb_words || (d->chunk < steps && tiles > 1)))
        return XN_ISA_ERROR_SHAPE;
    if ((d->shift & 0xff) > 30 || (d->shift >> 8) > 30 || d->channels_in > XN_ISA_WORD_BITS * d->words)
        return XN_ISA_ERROR_SHAPE;
    if ((d->op == XN_ISA_VECTOR && d->words != 1) ||
        (d->flags & XN_ISA_BATCH && d->op != XN_ISA_LARGEST && d->out_h != 1))
        return XN_ISA_ERROR_SHAPE;
    return XN_ISA_OK;
}

/** Whether the words read of a pixel are its own and the map lies in its memory. */
static inline uint32_t xn_isa_check_source(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    uint64_t groups = d->source_group + xn_isa_ceil(d->channels, XN_ISA_LANES), read;

    if (d->source_group > 65536)
        return XN_ISA_ERROR_SOURCE;
    if (d->op == XN_ISA_VECTOR)
        read = d->source == XN_ISA_I16 ? groups : d->source == XN_ISA_BITS ? xn_isa_ceil(groups, 4) : 2 * groups;
    else
        read = d->op == XN_ISA_INT8 && d->source == XN_ISA_BITS ? xn_isa_ceil(d->words, 8) : d->words;
    if (read > d->pitch)
        return XN_ISA_ERROR_SOURCE;
    if (d->source == XN_ISA_I16)
        return d->base + xn_isa_map_rows(d->height, d->width, d->pitch, g->pr) > g->rm_rows ? XN_ISA_ERROR_SOURCE
                                                                                            : XN_ISA_OK;
    return d->base + xn_isa_map_rows(d->height, d->width, d->pitch, 2 * g->p) > g->am_rows ? XN_ISA_ERROR_SOURCE
                                                                                           : XN_ISA_OK;
}

/** `base` may point to a group within a pixel of `pitch` groups, so that the last pixel's need not lie there whole. */
static inline int xn_isa_bad_stream(uint32_t base, uint32_t pitch, const struct xn_isa_descriptor *d,
                                    const struct xn_isa_geometry *g)
{
    uint64_t groups = xn_isa_ceil(d->channels, XN_ISA_LANES);
    return pitch < groups || pitch > 65536 ||
           base + xn_isa_map_rows(d->out_h, d->out_w, pitch, g->pr) - pitch + groups > g->rm_rows;
}

/** `turn_image`: the image's place in its turn. */
static inline uint32_t xn_isa_check_dest(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g,
                                         uint32_t output_words, uint32_t turn_image)
{
    uint64_t pixels = (uint64_t)d->out_h * d->out_w, groups = xn_isa_ceil(d->channels, XN_ISA_LANES);
    uint32_t batch = d->flags & XN_ISA_BATCH, dest_w = xn_isa_dest_width(d);

    if (d->flags & XN_ISA_STORE && xn_isa_bad_stream(d->stream_base, d->stream_pitch, d, g))
        return XN_ISA_ERROR_DEST;
    if (d->flags & XN_ISA_RESIDUAL && xn_isa_bad_stream(d->residual_base, d->residual_pitch, d, g))
        return XN_ISA_ERROR_DEST;
    if (d->flags & (XN_ISA_SIGN | XN_ISA_QUANTIZE) || d->op == XN_ISA_LARGEST) {
        uint64_t last = d->dest_group + (d->op == XN_ISA_LARGEST ? 4 * (uint64_t)d->words : groups);
        uint64_t words = d->flags & XN_ISA_QUANTIZE ? 2 * last : xn_isa_ceil(last, 4);
        if (d->dest_group > 65536 || d->dest_pitch > 65536 || words > d->dest_pitch ||
            d->dest_base + xn_isa_map_rows(d->out_h, dest_w, d->dest_pitch, 2 * g->p) > g->am_rows)
            return XN_ISA_ERROR_DEST;
    }
    if (batch && d->op == XN_ISA_LARGEST &&
        (xn_isa_bad_side(dest_w) || xn_isa_bad_side(d->dest_step) ||
         (uint64_t)turn_image * d->dest_step + d->out_w > dest_w))
        return XN_ISA_ERROR_DEST;
    if (d->flags & XN_ISA_LOGITS && (batch ? d->channels != output_words : pixels * d->channels > output_words))
        return XN_ISA_ERROR_OUTPUT;
    return XN_ISA_OK;
}

/** enum xn_isa_error: whether the engine may run this pass. The host asks before it loads a program; the engine asks before each
 *  pass. `turn_image`: the image's place in its turn (in a tail: the last's). A destination that overlaps the source is not an error,
 *  but what comes of it is not defined; no compiler makes one, but for a stream that replaces its own residual, which each lane
 *  reads before it writes. */
static inline uint32_t xn_isa_check(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g,
                                    uint32_t input_bytes, uint32_t output_words, uint32_t turn_image)
{
    uint32_t e;

    if (d->op == XN_ISA_END)
        return XN_ISA_OK;
    if (d->op == XN_ISA_TURN)
        return xn_isa_bad_side(d->out_w) ? XN_ISA_ERROR_SHAPE : XN_ISA_OK;
    if (d->op == XN_ISA_INPUT)
        return xn_isa_check_input(d, g, input_bytes);
    if ((e = xn_isa_check_op(d)) != 0 || (e = xn_isa_check_shape(d, g)) != 0 || (e = xn_isa_check_source(d, g)) != 0)
        return e;
    return xn_isa_check_dest(d, g, output_words, turn_image);
}

#endif
