/* SPDX-License-Identifier: Apache-2.0
 * The leaves of the CPU backend: what a kernel is given, and the table of kernels of one instruction set level. The same C
 * sources (accel/cpu/kernels/) are compiled once a level; xn_cpu_level_best fills the choice once, at open. A faster routine
 * for one level, in assembly too, replaces one entry of that level's table and nothing else.
 *
 * Rules of every kernel: pointers, sizes and pitches in, numbers out; no allocation, lock, log or failure. Levels give the
 * same integers (tests/checkasm). Inputs never overlap outputs, but where said.
 *
 * Words of bits in the arena are *encoded* at levels that say so: the high 32 bits of a word hold low ^ high. xn_bits_encode
 * (accel/cpu/bits.h) goes both ways.
 */
#ifndef XN_ACCEL_CPU_KERNELS_H
#define XN_ACCEL_CPU_KERNELS_H

#include "model/network.h"

#define XN_CPU_TILE_MAX      8u  /**< most output pixels that a tile kernel computes at once */
#define XN_CPU_CHUNK         64u /**< channels that are computed and finished together: one word of bits */
#define XN_CPU_STAGES_MAX    16u
#define XN_CPU_MAP_TAIL      128u /**< bytes behind a map that kernels may read and ignore */
#define XN_CPU_CEILING_WORDS 24u

/* ---- convolutions ----------------------------------------------------------------------------------------------------- */

/** Some output pixels of a convolution, up to a chunk of output channels of one group.
 *
 *  kind      unit of a row of taps          weights                            sums
 *  BITS      word of 64 channels            level's own, `blocks` blocks       popcounts, see struct xn_cpu_bits_kernel
 *  BYTES     4 uint8 (x + 128 for int8)     level's own, `blocks` blocks       init + sum of x*w
 *  I16       2 int16                        i16 [blocks of 8][rows][run][8][2] sums of x*w
 *  DW_BITS   word of this chunk, a tap      u64 [rows][run]                    popcounts of a ^ w; rows*run <= 63
 *  DW_I16    64 int16 of this chunk, a tap  i16 [rows][run][64]                sums of x*w
 *
 *  The generated assembly reads this struct: kernels/gen/avx512.py. */
struct xn_cpu_tile {
    const void *pixels[XN_CPU_TILE_MAX]; /**< first tap of each: units of a row of taps are contiguous from there */
    const int32_t *init;                 /**< BITS of a level with pairs: [n] what each pixel's counts start from */
    const void *weights;
    int32_t *acc;                     /**< [n][acc_bytes]; whole blocks (DW: whole chunks) are written */
    size_t acc_bytes;                 /**< from one pixel's sums to the next one's */
    size_t row_bytes;                 /**< from one row of taps to the next */
    uint32_t rows;                    /**< of taps */
    uint32_t run;                     /**< units a row; DW: taps a row */
    uint32_t blocks;                  /**< of output channels; DW: 1 */
    uint32_t n;                       /**< pixels, 1 .. the kernel's tile */
    size_t tap_bytes;                 /**< DW: from one tap to the next */
    const int32_t *start;             /**< BYTES: [blocks * 32] what every pixel's sums start from */
    const struct xn_cpu_fused *fused; /**< of kernels->fused alone, and so are these: */
    const uint32_t *class_row;        /**< as struct xn_cpu_rows */
    size_t stream_offset;             /**< of the first pixel in fused->residual and fused->stream, bytes */
    uint32_t spots[XN_CPU_TILE_MAX];  /**< where pixels are in the map of bits: y * pitch + x */
};
typedef void xn_cpu_tile_fn(const struct xn_cpu_tile *tile);

enum xn_cpu_conv_kind {
    XN_CPU_CONV_BITS,
    XN_CPU_CONV_BYTES,
    XN_CPU_CONV_I16,
    XN_CPU_CONV_DW_BITS,
    XN_CPU_CONV_DW_I16,
    XN_CPU_CONV_KINDS
};

struct xn_cpu_conv_kernel {
    xn_cpu_tile_fn *run;
    uint32_t tile;     /**< most pixels, 1..XN_CPU_TILE_MAX */
    uint32_t block;    /**< output channels a block of weights holds: divides XN_CPU_CHUNK */
    size_t unit_bytes; /**< weights of one block for one unit of a row of taps */
    /** Put the weights of channel `lane` of a block into `unit`, zeroed before: `raw` is a word of bits (BITS), or four int8
     *  (BYTES) or two int16 (I16) in its low bytes. */
    void (*pack)(void *unit, uint32_t lane, uint64_t raw);
};

#define XN_CPU_SLICE_WORDS  8u
#define XN_CPU_SLICE_PLANES 6u /**< bits of a count of up to 49 taps */

/** A depthwise convolution of bits whose chain is one threshold, on words of output that lie one after another and have the same limits.
 *  Weights and limits are given for XN_CPU_SLICE_WORDS words at a time; their pattern returns every `words` such blocks. */
struct xn_cpu_slices {
    const uint64_t *in; /**< first tap of the first word; XN_CPU_MAP_TAIL bytes behind the last may be read */
    uint64_t *out;
    int32_t *counts;           /**< of the pixels: popcounts of low ^ high are added; NULL: not wanted */
    size_t row_words;          /**< from one row of taps to the next */
    uint32_t rows, run, words; /**< of taps; a pixel's words */
    uint32_t n;                /**< words of output: whole pixels */
    const uint64_t *weights;   /**< [words][rows * run][XN_CPU_SLICE_WORDS] */
    const uint64_t *limits; /**< [words][planes of the limit, then bits that can be set at all][XN_CPU_SLICE_WORDS] */
};

/** What a level's BITS kernel counts. Plain: the popcount X of a ^ w. Pairs: with U, V the popcounts of low ^ high over the words of the
 *  pixel's taps and of the weights, X = 2*count + U - V; sums start from U / 2, so that they come out as (X + V - U % 2) / 2. */
struct xn_cpu_bits_kernel {
    struct xn_cpu_conv_kernel conv;
    bool pairs;
    bool encoded; /**< words of bits in maps are encoded */
    /** Where in a chunk of sums channel i lies; NULL: at i. Of BITS and DW_BITS. */
    const uint8_t *order;
};

/** U of a row of output pixels, the sums of counts over their windows, and what follows from it. */
struct xn_cpu_pairs {
    const int32_t *counts; /**< popcounts of low ^ high, [rows][pitch], from the first window on */
    size_t pitch;
    uint32_t rows, columns, stride; /**< of the windows */
    uint32_t n;                     /**< windows, 1..XN_SIDE_MAX */
    uint32_t class;                 /**< border class of the row's first column class */
    const uint8_t *column_class;    /**< [n] */
    int32_t *init;                  /**< [n] out: U / 2 */
    uint32_t *class_row;            /**< [n] out: 2 * (class + column_class) + U % 2 */
};

/* ---- epilogues -------------------------------------------------------------------------------------------------------- */

/** Where a value of bits lies: [rows][pitch][words] with a halo of -1 round the map, and for levels with pairs the popcount of low ^ high
 *  of each pixel, int32 [rows][pitch], 0 in the halo. Offsets are of pixel (0, 0). */
struct xn_cpu_bits_map {
    size_t offset, counts_offset;
    bool counts;
    uint32_t pitch; /**< pixels from one row to the next */
    uint32_t words; /**< a pixel */
    uint32_t top, left, bottom, right;
};

/** What becomes of a row of numbers [c], in 32-bit lanes. Parameters are padded to whole chunks with zeros. */
enum xn_cpu_stage_op {
    XN_CPU_STAGE_SCALE,    /**< clamp(r + ((m*x + b) >> shift)); proven to stay within 32 bits; b32 */
    XN_CPU_STAGE_SCALE_64, /**< the same with 64-bit intermediates; b64 */
    XN_CPU_STAGE_ADD,      /**< clamp(x + r) */
    XN_CPU_STAGE_RPRELU,   /**< clamp((t >= 0 ? t : t >> k) + b32), t = x + m */
    XN_CPU_STAGE_BITS,     /**< write x >= m as bits; x stays */
    XN_CPU_STAGE_STORE,    /**< write x as `dtype`; x stays */
};

struct xn_cpu_stage {
    enum xn_cpu_stage_op op;
    enum xn_dtype dtype; /**< STORE: of the destination */
    uint32_t shift;
    int32_t min, max;   /**< clamp */
    const int32_t *m;   /**< multipliers, RPReLU's first shift of origin, or thresholds */
    const int32_t *b32; /**< biases, the rounding half already in them */
    const int64_t *b64;
    const int32_t *k;                   /**< RPReLU's slopes as right shifts */
    bool residual;                      /**< SCALE: there is an r */
    uint32_t value, residual_value;     /**< ids of what is written and of r; for the planner */
    size_t out_offset, residual_offset; /**< in the arena, [pixel][c]: what is written; r (int16). May be one place */
    struct xn_cpu_bits_map bits;        /**< BITS: where to */

    /* The same in 16-bit lanes: accel/cpu/narrow.c, used where chain->narrow. */
    const int16_t *limit;   /**< BITS: x > limit; on counts: count <= limit, a row a border class */
    const uint64_t *always; /**< BITS of int16: bits that are set whatever x is, [chunk]; NULL: none */
    const int32_t *factor;  /**< SCALE of counts: -m in the low half of each lane, in the order of sums */
    const int32_t *
        origin; /**< SCALE of counts: (m*bias + b) / what counts stand for, a row a border class; of int16: b; in the order of sums */
    const int16_t *m16;   /**< SCALE of int16: m */
    const int16_t *knee;  /**< RPRELU: -m, */
    const int16_t *half;  /**< m - 1 + 2^15, */
    const int16_t *slope; /**< k - 1, where k > 0, */
    const int16_t *sum;   /**< m + b, */
    const int16_t *b16;   /**< b */
    const uint64_t *bent; /**< k > 0, [chunk] */
};

/** Chains that a level may run on sums of pairs before they leave its registers. */
enum xn_cpu_fused_kind {
    XN_CPU_FUSED_NONE,
    XN_CPU_FUSED_BITS,   /**< BITS */
    XN_CPU_FUSED_STREAM, /**< SCALE with a residual; STORE as int16 and one BITS, in any order */
    XN_CPU_FUSED_RPRELU, /**< the same with RPRELU after SCALE */
};

struct xn_cpu_chain {
    uint32_t c;
    uint32_t n_stages;
    size_t row_pitch;             /**< elements of a row of a table that has a row a border class: whole chunks */
    enum xn_cpu_fused_kind fused; /**< for whole chunks; NONE where the level cannot */
    bool narrow;                  /**< 16-bit lanes give the same integers, and the level has a kernel for them */
    bool narrow_sum;              /**< and it starts from counts, or from numbers other than int16 */
    struct xn_cpu_stage stages[XN_CPU_STAGES_MAX];
};

enum xn_cpu_rows_kind {
    XN_CPU_ROWS_COUNTS,  /**< int32 popcounts, in the level's order: x = bias - 2*count */
    XN_CPU_ROWS_PAIRS,   /**< int32 sums of a level with pairs, in its order: x = bias - 4*count */
    XN_CPU_ROWS_NUMBERS, /**< of `dtype` */
};

/** One chunk of XN_CPU_CHUNK channels of such a chain. The generated assembly reads it. */
struct xn_cpu_fused {
    const void *table;  /**< BITS: limits, else origins, of the first border class */
    size_t table_pitch; /**< bytes from one class to the next */
    const int32_t *factor;
    const uint8_t *residual; /**< of pixel 0 */
    uint8_t *stream;         /**< of pixel 0 */
    size_t stream_pitch;     /**< bytes from one pixel to the next */
    const int16_t *limit, *knee, *half, *slope, *sum, *b16;
    const uint64_t *bent;
    uint8_t *words;     /**< of spot 0 */
    size_t words_pitch; /**< bytes from one spot to the next */
    int32_t *counts;    /**< of spot 0; counts are added to them */
    uint64_t always;    /**< bits that are set whatever x is */
    uint32_t shift;
    /** [tile->n - 1]: the BITS kernel with the chain behind it, tile->fused; tile->acc is not used. */
    xn_cpu_tile_fn *const *run;
};

/** A chunk of channels of some pixels, from which a chain starts. */
struct xn_cpu_rows {
    enum xn_cpu_rows_kind kind;
    enum xn_dtype dtype;
    const void *data; /**< the chunk's channel 0 of the first pixel */
    size_t pitch_bytes;
    const int32_t *bias;       /**< COUNTS, PAIRS: [row][row_pitch] */
    const uint32_t *class_row; /**< COUNTS, PAIRS: [n], row of each pixel in tables that have a row a border class */
    uint32_t n;                /**< pixels, 1..XN_CPU_TILE_MAX */
    uint32_t first;            /**< index of the first pixel in the map; the others follow */
    uint32_t y, x, w;          /**< its place, and the width of the map */
    uint32_t c0, c;            /**< first channel and how many, 1..XN_CPU_CHUNK */
};

/* ---- pools ------------------------------------------------------------------------------------------------------------ */

/** Rows y0..y1-1 of the output. */
struct xn_cpu_pool {
    const void *in;  /**< pixel (0, 0): [in_h][in_pitch][c] */
    void *out;       /**< pixel (0, 0): [out_h][out_pitch][c] */
    int32_t *counts; /**< max of bits: popcounts of low ^ high, [out_h][out_pitch]; NULL: not wanted */
    enum xn_dtype dtype, out_dtype;
    uint32_t in_h, in_w, c, out_h, out_w;
    uint32_t in_pitch, out_pitch; /**< pixels */
    uint32_t y0, y1;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int32_t multiplier;
    uint32_t shift;
};

struct xn_cpu_kernels {
    const char *level;
    const struct xn_cpu_bits_kernel *bits;
    const struct xn_cpu_conv_kernel *conv[XN_CPU_CONV_KINDS]; /**< BYTES may be NULL: the level uses I16 instead */
    void (*depthwise_sliced)(const struct xn_cpu_slices *slices);
    /** Run `chain` on `rows`. */
    void (*epilogue)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
    /** The same where chain->narrow; NULL: the level has none. */
    void (*narrow)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
    /** Prepare chunk c0 of `chain`, chain->fused. NULL: the level fuses nothing. */
    void (*fuse)(struct xn_cpu_fused *fused, const struct xn_cpu_chain *chain, uint32_t c0, uint8_t *arena);
    /** dst[i] = src[i], `n` elements of U8 or I8. */
    void (*widen)(int16_t *dst, const void *src, enum xn_dtype dtype, size_t n);
    /** dst[i] = +1 or -1, bit first+i of src, words not encoded. */
    void (*widen_bits)(int16_t *dst, const uint64_t *src, size_t first, size_t n);
    /** BYTES: dst[i] = src[i] for U8, src[i] + 128 for I8. */
    void (*offset)(uint8_t *dst, const void *src, enum xn_dtype dtype, size_t n);
    /** Popcount of low ^ high over `n` words as maps hold them. */
    uint32_t (*count_pairs)(const uint64_t *words, size_t n);
    /** Pairs: what a row of output pixels starts from. */
    void (*start_pairs)(const struct xn_cpu_pairs *row);
    void (*max_pool)(const struct xn_cpu_pool *pool);
    void (*average_pool)(const struct xn_cpu_pool *pool);
    /** xor, popcount and add alone, as `bits` would do them without pairs, on operands in registers or L1. Returns the multiply-accumulates
     *  that `rounds` rounds stand for. What the level could reach if nothing else cost time; the benchmark's yardstick. */
    double (*ceiling)(uint64_t rounds);
};

/** Number of levels built in, lowest first. */
size_t xn_cpu_levels(void);
/** Level `i` < xn_cpu_levels(). */
const struct xn_cpu_kernels *xn_cpu_level_at(size_t i);
/** Does this machine run level `i`? Level 0 always. */
bool xn_cpu_level_runs(size_t i);
/** The best level that this machine runs, not above the one called `mask` (NULL or "": no limit). Errors: -EINVAL (no such
 *  level; the text lists them). */
XN_MUST_CHECK int xn_cpu_level_best(const char *mask, const struct xn_cpu_kernels **ret_kernels,
                                    struct xn_error *error);

#endif
