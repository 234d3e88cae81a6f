/* SPDX-License-Identifier: Apache-2.0
 * From a network to a program of the engine (hls/include/xnor_isa.h), and what a program costs: the compiler, its listing, the
 * cycle model. accel/xrt and accel/vcard load what it makes; `xnorctl inspect --engine` and `xnorctl estimate` show it. */
#ifndef XN_ACCEL_ENGINE_ENGINE_H
#define XN_ACCEL_ENGINE_ENGINE_H

#include <stdio.h>

#include "common/error.h"
#include "common/macros.h"
#include "hls/include/xnor_isa.h"
#include "model/network.h"

/** Where a value of the network lies while the program runs. Its memory may be used again after the value's last use. */
struct xn_engine_place {
    enum { XN_PLACE_NONE, XN_PLACE_AM, XN_PLACE_RM } memory; /**< NONE: only inside of a pass, or nowhere */
    uint32_t base, pitch;                                    /**< rows, words a pixel */
    uint32_t width;           /**< of its map: the value's; in a tail images lie side by side, at one pixel each */
    uint32_t group;           /**< the first group of 16 channels within the pixel */
    uint32_t made_by;         /**< descriptor after which it is there */
    uint32_t lanes;           /**< that it takes from there on */
    const uint32_t *channels; /**< [lanes] the channel of each lane, UINT32_MAX: none; NULL: channel c in lane c */
};

/** What a descriptor is for. */
struct xn_engine_pass {
    uint32_t first_layer, last_layer; /**< of the network, inclusive; INPUT and copies: the layer that needs it */
    uint64_t macs; /**< multiply-accumulates of the network's layers, an image; each layer counts once */
    bool binary;   /**< both operands bits */
    uint64_t stream_bytes;
};

struct xn_engine_program {
    const struct xn_network *network; /**< outlives the program */
    struct xn_isa_geometry geometry;
    struct xn_isa_descriptor *descriptors; /**< [n], the last is XN_ISA_END */
    struct xn_engine_pass *passes;         /**< [n] */
    uint32_t n;
    uint32_t turn;   /**< images of a turn; 1: the program has no TURN */
    uint8_t *stream; /**< [stream_bytes], 64-byte aligned */
    size_t stream_bytes;
    uint32_t input_bytes, output_words;
    uint32_t am_rows_used, rm_rows_used;
    struct xn_engine_place *places;   /**< [network->n_values] */
    struct xn_engine_layout *layouts; /**< what places[].channels point into */
};

/** A geometry by name ("1T", "2T", "4T") or as "P8,PI8,PR4,AM12288,RM4096,WB1024". Errors: -EINVAL. */
XN_MUST_CHECK int xn_engine_geometry_parse(const char *text, struct xn_isa_geometry *ret_geometry,
                                           struct xn_error *error);
/** Errors: -EINVAL. */
XN_MUST_CHECK int xn_engine_geometry_check(const struct xn_isa_geometry *geometry, struct xn_error *error);
/** "P8 PE16 S64 PI8 PR4, AM 12288 rows (1536 KiB), ..." */
void xn_engine_geometry_print(const struct xn_isa_geometry *geometry, char *ret_text, size_t bytes);

/** Compile. Images run in turns of at most `turn` (1: no tail; XN_ENGINE_TURN as a rule), or fewer where their maps do not fit beside one
 *  another. Errors: -ENOTSUP (a layer or a shape that the engine has not; the text names the layer and why), -ENOSPC (does not fit this
 *  geometry: which memory, how much it takes and has, at which layer), -EINVAL (geometry), -ENOMEM. Owner: caller. */
#define XN_ENGINE_TURN 64u
XN_MUST_CHECK int xn_engine_compile(const struct xn_network *network, const struct xn_isa_geometry *geometry,
                                    uint32_t turn, struct xn_engine_program **ret_program, struct xn_error *error);
void xn_engine_program_free(struct xn_engine_program *program);

/** A listing for people: a line a descriptor. */
void xn_engine_disassemble(const struct xn_engine_program *program, FILE *out);

/** What bounds a pass. */
enum xn_engine_bound { XN_BOUND_ARRAY, XN_BOUND_POST, XN_BOUND_MEMORY, XN_BOUND_INPUT };

struct xn_engine_cost {
    uint64_t cycles;              /**< of this pass, what it waits for included */
    uint64_t array, post, memory; /**< what each would take alone */
    enum xn_engine_bound bound;
};

/** Cycles of `images` images, the first at a beat's address, from start to done with a memory that never stalls: exactly those of
 *  the RTL. `ret_costs` [n] of one full turn within a batch, all images of it, or NULL. */
uint64_t xn_engine_cycles(const struct xn_engine_program *program, uint32_t images, struct xn_engine_cost *ret_costs);

#endif
