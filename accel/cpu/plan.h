/* SPDX-License-Identifier: Apache-2.0
 * A network as the CPU runs it: steps in order, packed weights, and a place in one arena for every value and scratch area.
 * A plan does not depend on the instruction set level or on the batch: images run one by one, each thread in an arena of its own.
 */
#ifndef XN_ACCEL_CPU_PLAN_H
#define XN_ACCEL_CPU_PLAN_H

#include "accel/cpu/kernels.h"

/** Where a step reads a value: the arena, or for value 0 the caller's input. */
struct xn_cpu_source {
    uint32_t value;
    size_t offset;
};

/** A convolution or a fully connected layer: its map, where its taps lie, its packed weights. */
struct xn_cpu_conv {
    enum xn_cpu_conv_kind kind;
    struct xn_cpu_source in;
    enum xn_dtype dtype;
    uint32_t in_h, in_w, in_c, groups;
    uint32_t out_w, pixels; /**< of output: width, and how many in all */
    uint32_t out_group_c;   /**< output channels a group */
    uint32_t pad_top, pad_left;
    bool bordered; /**< taps are read from a copy with a border, [groups][border_h][border_w] */
    uint32_t border_h, border_w;
    int fill;                           /**< every byte of the border: 0, or -1 where integers of -1 stand there */
    size_t border_offset, border_bytes; /**< scratch */
    size_t group_bytes;                 /**< from one group's map to the next */
    size_t step_x_bytes, step_y_bytes;  /**< from one output pixel's first tap to the next one's */
    size_t row_bytes;                   /**< from one row of taps to the next */
    uint32_t rows, run, blocks;         /**< as struct xn_cpu_tile */
    const void *weights;
    size_t group_weight_bytes;
    size_t acc_offset, acc_pitch; /**< scratch, XN_CPU_TILE_MAX rows */
    const int32_t *bias;          /**< bits: [row class][column class][acc_pitch] */
    const uint8_t *row_class, *column_class;
    uint32_t column_classes;
};

struct xn_cpu_map_pool {
    struct xn_cpu_source in;
    size_t out_offset, sums_offset;
    struct xn_cpu_pool pool; /**< all but the pointers */
};

struct xn_cpu_concat {
    struct xn_cpu_source in[XN_LAYER_INPUTS_MAX];
    uint32_t c[XN_LAYER_INPUTS_MAX];
    uint32_t n, pixels, out_c;
    enum xn_dtype dtype;
    size_t out_offset;
};

struct xn_cpu_logits {
    struct xn_cpu_source in;
    enum xn_dtype dtype;
    uint32_t n;
    const int32_t *m, *b;
};

enum xn_cpu_step_kind {
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
    union {
        struct xn_cpu_conv conv;
        struct xn_cpu_map_pool map_pool;
        struct xn_cpu_concat concat;
        struct xn_cpu_logits logits;
        struct {
            struct xn_cpu_source in;
            enum xn_dtype dtype;
            uint32_t pixels;
        } rows;
    };
    struct xn_cpu_chain chain; /**< CONV, CHAIN */
};

struct xn_cpu_blob;

struct xn_cpu_plan {
    const struct xn_network *network;
    struct xn_cpu_step *steps;
    uint32_t n_steps;
    size_t arena_bytes;
    struct xn_cpu_blob *blobs; /**< packed parameters */
};

/** Plan `network`, which must outlive the plan. Errors: -ENOMEM, -ENOTSUP (an operation that this file does not know). */
XN_MUST_CHECK int xn_cpu_plan_new(const struct xn_network *network, struct xn_cpu_plan **ret_plan,
                                  struct xn_error *error);
void xn_cpu_plan_free(struct xn_cpu_plan *plan);

/** Run one image. `arena`: plan->arena_bytes, 64-byte aligned, one user at a time; its contents need not survive between
 *  images. Cannot fail. Threads: any number, each with its arena. */
void xn_cpu_plan_run(const struct xn_cpu_plan *plan, const struct xn_cpu_kernels *kernels, uint8_t *arena,
                     const void *input, int32_t *logits);

/** Zeroed, 64-byte aligned memory that lives as long as the plan; NULL: none left, or the product overflows. */
void *xn_cpu_plan_memory(struct xn_cpu_plan *plan, size_t count, size_t bytes);

/** accel/cpu/pack.c: fill geometry, packed weights and biases of `conv` from layer `i`. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_pack_conv(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_conv *conv);
/** Fill the parameters of an element-wise layer. Returns 0 or -ENOMEM. */
XN_MUST_CHECK int xn_cpu_pack_stage(struct xn_cpu_plan *plan, uint32_t i, struct xn_cpu_stage *stage);

/** Something that needs `bytes` of the arena from step `first` to step `last`. */
struct xn_cpu_slot {
    size_t bytes;
    uint32_t first, last;
    size_t offset; /**< out: a multiple of 64 */
};

/** accel/cpu/arena.c: place slots so that none shares a byte with another that lives at the same step. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_cpu_arena_place(struct xn_cpu_slot *slots, uint32_t n, size_t *ret_bytes);

#endif
