/* SPDX-License-Identifier: Apache-2.0
 * The leaves of the CPU backend: what a kernel is given, and the table of kernels of one instruction set level. The same C
 * sources (accel/cpu/kernels/) are compiled once a level; xn_cpu_level_best fills the choice once, at open. A faster routine
 * for one level, in assembly too, replaces one entry of that level's table and nothing else.
 *
 * Rules of every kernel: pointers, sizes and pitches in, numbers out; no allocation, lock, log or failure. Levels give the
 * same integers (tests/checkasm). Inputs never overlap outputs, but where said.
 */
#ifndef XN_ACCEL_CPU_KERNELS_H
#define XN_ACCEL_CPU_KERNELS_H

#include "model/network.h"

#define XN_CPU_OCTET         8u  /**< output channels that one block of packed weights holds */
#define XN_CPU_TILE_MAX      8u  /**< most output pixels that a tile kernel computes at once */
#define XN_CPU_CHUNK         64u /**< channels that an epilogue handles at once: one word of bits */
#define XN_CPU_STAGES_MAX    16u
#define XN_CPU_CEILING_WORDS 24u

/** Some output pixels of a convolution, all output channels of one group.
 *
 *  kind        row unit              weights                                    acc
 *  BITS        64-bit word           u64 [blocks of 8 oc][rows][run][8]         popcounts of a ^ w
 *  I16         pair of int16         i16 [blocks of 8 oc][rows][run][8][2]      sums
 *  DW_BITS     tap (`blocks` words)  u64 [rows][run][blocks]                    popcounts of a ^ w; rows*run <= 63
 *  DW_I16      tap (`blocks` int16)  i16 [rows][run][blocks]                    sums
 */
struct xn_cpu_tile {
    const void
        *pixels[XN_CPU_TILE_MAX]; /**< first tap of each pixel: units of a row of taps are contiguous from there */
    uint32_t n;                   /**< pixels; the `many` kernels of BITS and I16 want exactly their tile */
    size_t row_bytes;             /**< from one row of taps to the next */
    uint32_t rows, run;           /**< rows of taps; units a row */
    uint32_t blocks;              /**< octets of output channels, or the units of one depthwise tap */
    const void *weights;
    int32_t *acc;     /**< [n][acc_pitch]; whole octets (DW_BITS: whole words) are written */
    size_t acc_pitch; /**< elements */
};
typedef void xn_cpu_tile_fn(const struct xn_cpu_tile *tile);

enum xn_cpu_conv_kind { XN_CPU_CONV_BITS, XN_CPU_CONV_I16, XN_CPU_CONV_DW_BITS, XN_CPU_CONV_DW_I16, XN_CPU_CONV_KINDS };

struct xn_cpu_conv_kernels {
    uint32_t tile;        /**< pixels that `many` computes, 1..XN_CPU_TILE_MAX */
    xn_cpu_tile_fn *one;  /**< one pixel */
    xn_cpu_tile_fn *many; /**< `tile` pixels, each weight loaded once for all */
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
};

struct xn_cpu_chain {
    uint32_t c;
    uint32_t n_stages;
    struct xn_cpu_stage stages[XN_CPU_STAGES_MAX];
};

/** The rows that a chain starts from. */
struct xn_cpu_rows {
    bool popcounts; /**< int32 popcounts: x = bias - 2*popcount; else numbers of `dtype` */
    enum xn_dtype dtype;
    const void *data;
    size_t pitch_bytes;
    const int32_t
        *bias[XN_CPU_TILE_MAX]; /**< popcounts: [c] for each row (n <= XN_CPU_TILE_MAX), padded to whole chunks */
    uint32_t first;             /**< pixel index of the first row, where it is written to and its r is found */
    uint32_t n;
};

struct xn_cpu_pool {
    const void *in; /**< [in_h][in_w][c] */
    void *out;      /**< [out_h][out_w][c] */
    enum xn_dtype dtype, out_dtype;
    uint32_t in_h, in_w, c, out_h, out_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int32_t multiplier;
    uint32_t shift;
    int32_t *sums; /**< averages: scratch, [c] rounded up to whole chunks */
};

struct xn_cpu_kernels {
    const char *level;
    struct xn_cpu_conv_kernels conv[XN_CPU_CONV_KINDS];
    /** Run `chain` on `rows`. */
    void (*epilogue)(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);
    /** dst[i] = src[i], `n` elements of U8 or I8. */
    void (*widen)(int16_t *dst, const void *src, enum xn_dtype dtype, size_t n);
    /** dst[i] = +1 or -1, bit first+i of src. */
    void (*widen_bits)(int16_t *dst, const uint64_t *src, size_t first, size_t n);
    void (*max_pool)(const struct xn_cpu_pool *pool);
    void (*average_pool)(const struct xn_cpu_pool *pool);
    /** xor, popcount and add alone, as `conv` does them, on operands in L1: `rounds` times `tile` x XN_CPU_CEILING_WORDS x 8
     *  words. What the level could reach if nothing else cost time; the benchmark's yardstick. */
    void (*ceiling)(const uint64_t words[XN_CPU_CEILING_WORDS * 8], uint32_t rounds, uint64_t sums[8]);
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
