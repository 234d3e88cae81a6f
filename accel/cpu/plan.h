/* SPDX-License-Identifier: Apache-2.0
 * A network as the CPU runs it: steps in order, packed weights, and a place in one arena for every value and scratch area.
 * A plan is made for the kernels of one instruction set level. An image runs step by step, on one thread or with the rows of each
 * step shared out; several images run side by side, each in an arena of its own.
 *
 * Values of bits carry the halo that the convolutions which read them pad with (struct xn_cpu_bits_map), so that one step's output
 * is the next one's input as it lies. All other values are packed, [h][w][c].
 */
#ifndef XN_ACCEL_CPU_PLAN_H
#define XN_ACCEL_CPU_PLAN_H

#include "accel/cpu/kernels.h"

#define XN_CPU_SCRATCH UINT32_MAX /**< as struct xn_cpu_source's value: scratch that the step before has filled */

/** Where a step reads a value: the arena, or for value 0 the caller's input. */
struct xn_cpu_source {
    uint32_t value;
    size_t offset;
    struct xn_cpu_bits_map bits; /**< where the value is bits */
};

/** A copy of a map with a border, split by groups, [groups][h][w]: for convolutions that cannot read the value as it lies. */
struct xn_cpu_copy {
    enum xn_cpu_conv_kind kind; /**< what copies become: words of bits, bytes or int16 */
    struct xn_cpu_source in;
    enum xn_dtype dtype;
    uint32_t in_h, in_w, in_c, groups;
    uint32_t h, w, top, left; /**< of the copy, and where the map begins in it */
    uint8_t fill;             /**< every byte of the border */
    size_t pixel_bytes, row_bytes, group_bytes;
    size_t offset, bytes;
    size_t counts_offset; /**< pairs: popcounts of low ^ high, int32 [groups][h][w] */
};

/** A convolution or a fully connected layer: where its taps lie, its packed weights. */
struct xn_cpu_conv {
    enum xn_cpu_conv_kind kind;
    struct xn_cpu_source in; /**< of the first tap of output pixel (0, 0); XN_CPU_SCRATCH: in a copy */
    size_t
        origin; /**< from pixel (0, 0) to the first tap of output pixel (0, 0), bytes, modulo 2^64: `in` has it in it */
    uint32_t groups;
    uint32_t out_h, out_w, out_c;      /**< out_c of a group */
    size_t group_bytes;                /**< from one group's map to the next */
    size_t step_x_bytes, step_y_bytes; /**< from one output pixel's first tap to the next one's */
    size_t row_bytes, tap_bytes;       /**< as struct xn_cpu_tile */
    uint32_t rows, run;
    const uint8_t *weights;
    size_t chunk_weight_bytes, group_weight_bytes;
    const int32_t *start; /**< BYTES: [out_c in whole chunks] */
    size_t acc_offset;    /**< groups: scratch, [XN_CPU_TILE_MAX][row_pitch of the chain] */
    /* DW_BITS whose chain is one threshold; NULL: it goes by sums. accel/cpu/slice.c */
    const uint64_t *slice_weights, *slice_limits; /**< as struct xn_cpu_slices; limits: [bias_rows] of that */
    /* BITS, DW_BITS */
    const int32_t *bias; /**< [row class][column class][parity, where pairs][row_pitch of the chain] */
    const uint8_t *row_class, *column_class;
    uint32_t column_classes, bias_rows;
    /* Pairs: U, the sums of popcounts over the taps of each output pixel. */
    bool pairs, whole;    /**< whole: one window sees the whole map (DENSE), and counts its words itself */
    size_t counts_origin; /**< arena offset of the first tap's count of output pixel (0, 0), modulo 2^64 */
    uint32_t counts_pitch, counts_w, stride_h, stride_w; /**< counts_w: taps in a row of the window */
    size_t counts_group;                                 /**< bytes from one group's counts to the next */
    size_t init_offset;                                  /**< scratch: int32 [groups][out_h][out_w] */
    size_t class_offset; /**< scratch, where there is a bias: uint32 [groups][out_h][out_w], its rows */
};

struct xn_cpu_map_pool {
    struct xn_cpu_source in;
    size_t out_offset;
    struct xn_cpu_bits_map out_bits;
    struct xn_cpu_pool pool; /**< all but pointers and rows */
};

struct xn_cpu_concat {
    struct xn_cpu_source in[XN_LAYER_INPUTS_MAX];
    uint32_t c[XN_LAYER_INPUTS_MAX];
    uint32_t n, h, w, out_c;
    enum xn_dtype dtype;
    size_t out_offset;
    struct xn_cpu_bits_map out_bits;
};

struct xn_cpu_logits {
    struct xn_cpu_source in;
    enum xn_dtype dtype;
    uint32_t n;
    const int32_t *m, *b;
};

enum xn_cpu_step_kind {
    XN_CPU_STEP_COPY,
    XN_CPU_STEP_CONV,  /**< conv, then chain on its sums while they are in L1 */
    XN_CPU_STEP_CHAIN, /**< element-wise layers from memory to memory */
    XN_CPU_STEP_MAX_POOL,
    XN_CPU_STEP_AVERAGE_POOL,
    XN_CPU_STEP_CONCAT,
    XN_CPU_STEP_LOGITS,
};

struct xn_cpu_step {
    enum xn_cpu_step_kind kind;
    uint32_t layer; /**< the first layer that it runs */
    uint32_t h;     /**< rows that can be shared out among threads */
    bool by_chunk;  /**< CONV of one row: chunks of channels are shared out instead */
    union {
        struct xn_cpu_copy copy;
        struct xn_cpu_conv conv;
        struct xn_cpu_map_pool map_pool;
        struct xn_cpu_concat concat;
        struct xn_cpu_logits logits;
        struct {
            struct xn_cpu_source in;
            enum xn_dtype dtype;
            uint32_t w;
        } rows;
    };
    struct xn_cpu_chain chain; /**< CONV, CHAIN */
};

struct xn_cpu_blob;

struct xn_cpu_plan {
    const struct xn_network *network;
    const struct xn_cpu_kernels *kernels;
    struct xn_cpu_step *steps;
    uint32_t n_steps;
    size_t arena_bytes;
    struct xn_cpu_blob *blobs; /**< packed parameters */
};

/** Plan `network`, which must outlive the plan, for `kernels`. Errors: -ENOMEM, -ENOTSUP (an operation that this file does not know). */
XN_MUST_CHECK int xn_cpu_plan_new(const struct xn_network *network, const struct xn_cpu_kernels *kernels,
                                  struct xn_cpu_plan **ret_plan, struct xn_error *error);
void xn_cpu_plan_free(struct xn_cpu_plan *plan);

/** One image in one arena. */
struct xn_cpu_image {
    uint8_t *arena; /**< plan->arena_bytes, 64-byte aligned; its contents need not survive between images */
    const void *input;
    int32_t *logits;
};

/** Part `part` of `parts` of step `step`. All parts of a step must be done before any of the next one begins; different parts of
 *  one step may run at the same time. Cannot fail. */
void xn_cpu_plan_step(const struct xn_cpu_plan *plan, uint32_t step, const struct xn_cpu_image *image, uint32_t part,
                      uint32_t parts);
/** Parts of step `step` that have something to do, at most: how often it can be cut. 1..; more are legal, and some of them empty. */
uint32_t xn_cpu_plan_parts(const struct xn_cpu_plan *plan, uint32_t step);
/** All steps, whole. */
void xn_cpu_plan_run(const struct xn_cpu_plan *plan, const struct xn_cpu_image *image);

/** Zeroed, 64-byte aligned memory that lives as long as the plan; NULL: none left, or the product overflows. */
void *xn_cpu_plan_memory(struct xn_cpu_plan *plan, size_t count, size_t bytes);

/** Free one piece of plan->blobs; returns the rest. */
struct xn_cpu_blob *xn_cpu_blob_free(struct xn_cpu_blob *blob);

/** accel/cpu/pack.c: fill geometry, packed weights and biases of `conv` from layer `i`, which reads a value of bits as `in` says. *copy: what
 *  it needs copied; copy->bytes 0: nothing. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_pack_conv(struct xn_cpu_plan *plan, uint32_t i, const struct xn_cpu_bits_map *in,
                                   struct xn_cpu_conv *conv, struct xn_cpu_copy *copy);
/** Which kernels layer `i`, CONV or DENSE, runs on. */
enum xn_cpu_conv_kind xn_cpu_conv_kind_of(const struct xn_cpu_plan *plan, uint32_t i);
/** Fill the parameters of an element-wise layer. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_pack_stage(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_stage *stage);

/** accel/cpu/narrow.c: decide whether `chain`, which starts from rows of `kind` (NUMBERS: of `dtype`) with elements in min..max, can run
 *  in 16-bit lanes, and prepare its parameters. `conv`: COUNTS, PAIRS. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_narrow(struct xn_cpu_plan *plan, struct xn_cpu_chain *chain, enum xn_cpu_rows_kind kind,
                                enum xn_dtype dtype, int64_t min, int64_t max, const struct xn_cpu_conv *conv);

/** accel/cpu/slice.c: decide whether `conv` with `chain` can go sliced, and prepare that. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_slice(struct xn_cpu_plan *plan, const struct xn_cpu_chain *chain, uint32_t stride_h,
                               uint32_t stride_w, struct xn_cpu_conv *conv);

/** Something that needs `bytes` of the arena from step `first` to step `last`. */
struct xn_cpu_slot {
    size_t bytes;
    uint32_t first, last;
    size_t offset; /**< out: a multiple of 64 */
};

/** accel/cpu/arena.c: place slots so that none shares a byte with another that lives at the same step. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_cpu_arena_place(struct xn_cpu_slot *slots, uint32_t n, size_t *ret_bytes);

#endif
