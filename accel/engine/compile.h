/* SPDX-License-Identifier: Apache-2.0
 * What the parts of the compiler share: compile.c makes a program of what compile_plan.c (layers to steps, with the help of
 * compile_layout.c, compile_begin.c and compile_emit.c), compile_batch.c (the steps that all images of a turn share), compile_place.c (steps to addresses) and compile_pack.c (steps to the stream) give. */
#ifndef XN_ACCEL_ENGINE_COMPILE_H
#define XN_ACCEL_ENGINE_COMPILE_H

#include "accel/engine/engine.h"

#define XN_ENGINE_NONE UINT32_MAX

/** Which channel lies in which lane of a value, counted from its first group. Values without one (NULL): channel c in lane c. */
struct xn_engine_layout {
    struct xn_engine_layout *next; /**< of all in a program */
    uint32_t width;                /**< lanes */
    uint32_t channels[];           /**< [width], XN_ENGINE_NONE: none, and the lane is 0 (a bit: -1) */
};

/** A piece of AM or RM: a value, values side by side (CONCAT), or what one step needs for itself. */
struct xn_engine_map {
    bool stream; /**< in RM, int16; else in AM */
    bool kept;   /**< from the program's beginning on, all images of a turn long */
    uint32_t h, w, pitch;
    uint32_t
        slack; /**< rows behind it: a source that begins within a pixel is checked as if its last pixel were whole */
    uint32_t layer;       /**< that makes it, for messages */
    uint32_t first, last; /**< steps that touch it */
    uint32_t same;        /**< the map in whose place it lies (a residual that ends where it begins), itself mostly */
    uint32_t base;
};

struct xn_engine_ref {
    uint32_t map, group;
};

/** A descriptor to be. */
struct xn_engine_step {
    struct xn_isa_descriptor d; /**< all but addresses, pitches and chunk */
    uint32_t first_layer, last_layer;
    uint32_t head; /**< layer whose window it is; NONE: a copy */
    uint32_t scale, rprelu,
        end;            /**< layers whose parameters the post lanes take (end: THRESHOLD, QUANTIZE, LOGITS); or NONE */
    int32_t multiplier; /**< of a pool, where SCALE is its own */
    uint32_t tap_channels;            /**< lanes of the source that a tap takes */
    bool packed;                      /**< a tap is a row of the window, see XN_ISA_INPUT */
    bool border;                      /**< a copy that moves the map: only the window's first tap counts */
    uint32_t value, residual_value;   /**< source and residual */
    uint32_t stream_value, end_value; /**< what it makes; NONE */
    uint32_t slices;                  /**< passes that its convolution of groups is split into */
    uint32_t first_in, first_out;     /**< of its slice: lanes of the source and of the output */
    uint32_t part_first, part_lanes;  /**< of a CONCAT: what of the value it makes; lanes 0: all */
    uint32_t scale_first, rprelu_first, end_first, residual_group; /**< what part_first was for their layers */
    uint32_t together; /**< first of so many steps in a row that make a value together */
    uint64_t macs;
    const struct xn_engine_layout *in, *out;
    struct xn_engine_ref source, residual, stream, dest; /**< map NONE: has none */
};

/** Steps that make one value together: one, or one for each input of a CONCAT that nothing stores. */
struct xn_engine_chain {
    uint32_t n;
    struct xn_engine_step steps[XN_LAYER_INPUTS_MAX];
};

/** What the compiler knows of a value. */
struct xn_engine_value {
    const struct xn_engine_layout *layout;
    uint32_t home,
        home_group; /**< the CONCAT that it is written straight into, and where; NONE: it has a map of its own */
    bool ran;       /**< a step has made it, if only to go on with it */
    bool open;      /**< lies nowhere: what reads it goes on with its step, `chain` */
    struct xn_engine_ref at;
    uint32_t made_by; /**< step */
    struct xn_engine_chain chain;
};

struct xn_compiler {
    const struct xn_network *network;
    const struct xn_isa_geometry *geometry;
    struct xn_error *error;
    struct xn_engine_value *values; /**< [n_values] */
    bool *needed, *done;            /**< [n_layers]: reaches the logits; is in some step */
    uint32_t *first_reader;         /**< [n_values + 1] into readers: needed layers, in order, once an input */
    uint32_t *readers;
    struct xn_engine_layout *layouts;
    struct xn_engine_step *steps; /**< [XN_ISA_DESCRIPTORS_MAX - 1] */
    struct xn_engine_map *maps;   /**< [2 * XN_ISA_DESCRIPTORS_MAX] */
    uint32_t n_steps, n_maps;
};

static inline const struct xn_value *xn_compiler_value(const struct xn_compiler *c, uint32_t v)
{
    return &c->network->values[v];
}

/** Does no element reach the ends of int16? Then clamping it did nothing. */
static inline bool xn_compiler_within_int16(const struct xn_value *v)
{
    return v->min > INT16_MIN && v->max < INT16_MAX;
}

/** Lanes that value `v` takes. */
static inline uint32_t xn_compiler_width(const struct xn_compiler *c, uint32_t v)
{
    const struct xn_engine_layout *l = c->values[v].layout;
    return l ? l->width : c->network->values[v].c;
}

static inline uint32_t xn_compiler_groups(const struct xn_compiler *c, uint32_t v)
{
    return (uint32_t)xn_isa_ceil(xn_compiler_width(c, v), XN_ISA_LANES);
}

/** Every layer's channels apart: groups = c = oc. */
static inline bool xn_compiler_is_depthwise(const struct xn_network *n, uint32_t layer)
{
    const struct xn_layer *l = &n->layers[layer];
    return l->op == XN_OP_CONV && l->groups > 1 && l->groups == xn_layer_input(n, layer, 0)->c &&
           l->groups == xn_layer_output(n, layer)->c;
}

/** "layer 3 (conv "stem"): TEXT", and `code`. */
int xn_compiler_refuse(const struct xn_compiler *c, uint32_t layer, int code, const char *format, ...) XN_PRINTF(4, 5);

/** Where channels lie, and which values are written straight into a CONCAT. Returns 0, -ENOMEM, -ENOTSUP. */
XN_MUST_CHECK int xn_compiler_lay_out(struct xn_compiler *c);
bool xn_engine_same_layout(const struct xn_engine_layout *a, const struct xn_engine_layout *b);

/** Fill steps and maps. Returns 0, -ENOTSUP. */
XN_MUST_CHECK int xn_compiler_plan(struct xn_compiler *c);

/** A step for `layer` with nothing in it yet. */
struct xn_engine_step xn_compiler_new_step(uint32_t op, uint32_t layer);
/** A copy of stored value `v` for `layer`. */
struct xn_engine_step xn_compiler_begin_copy(const struct xn_compiler *c, uint32_t v, uint32_t layer);
/** The step of bits or bytes is LARGEST: its words are all that a pixel has. */
void xn_compiler_make_largest(struct xn_engine_step *step);
/** The window of `layer`: CONV, DENSE or a pool. */
struct xn_engine_step xn_compiler_begin_window(const struct xn_compiler *c, uint32_t layer);

/** Append a step, or all of a chain, with what they need. Returns 0, -ENOTSUP. */
XN_MUST_CHECK int xn_compiler_emit_step(struct xn_compiler *c, struct xn_engine_step *step);
XN_MUST_CHECK int xn_compiler_emit(struct xn_compiler *c, struct xn_engine_chain *chain);

#define XN_ENGINE_TAIL_MAPS_MAX 8u /**< that the tail reads and the head makes */
/** Have the last steps run once for `turn` images, if they can. Returns how many a turn has: `turn`, fewer, or 1: no tail. */
uint32_t xn_compiler_batch(struct xn_compiler *c, uint32_t turn);

/** Give every map its base. Returns 0, -ENOSPC, -ENOMEM. */
XN_MUST_CHECK int xn_compiler_place(struct xn_compiler *c, uint32_t *ret_am_rows, uint32_t *ret_rm_rows);

/** Bytes of the stream that a step takes, perhaps 0. False: more than size_t has. */
XN_MUST_CHECK bool xn_compiler_stream_bytes(const struct xn_engine_step *step, size_t *ret_bytes);
/** Write them. `to` is zeroed. */
void xn_compiler_pack(const struct xn_compiler *c, const struct xn_engine_step *step, uint8_t *to);

#endif
