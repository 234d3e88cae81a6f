/* SPDX-License-Identifier: Apache-2.0
 * FPGA cards and fabrics behind the Xilinx Runtime: the backend "xrt", and what its parts share. An instance is one compute unit.
 *
 *     xrt.c      accel.h's slots: what runs, for how long, what a failed run means
 *     model.c    a network on an instance: its program, its buffers in card memory, whether they are there
 *     card.c     a card that instances share: opened once, reset once for all of them
 *     module.c   finds xnor-xrt.so, and says what is missing where it is not
 *     shim.cpp   XRT itself, behind api.h */
#ifndef XN_ACCEL_XRT_XRT_H
#define XN_ACCEL_XRT_XRT_H

#include <pthread.h>

#include "accel/accel.h"
#include "accel/engine/engine.h"
#include "accel/xrt/api.h"

#define XN_XRT_KERNEL   "xnor_engine"
#define XN_XRT_INFLIGHT 2u  /**< jobs of an instance: the next one's tensors travel while one runs */
#define XN_XRT_COSTS    11u /**< a model's costs are known for batches of 2^0 .. 2^10 images */

/** Arguments of the kernel, in the order of its registers (xnor_isa.h). */
enum xn_xrt_argument {
    XN_XRT_PROGRAM,
    XN_XRT_STREAM,
    XN_XRT_INPUT,
    XN_XRT_OUTPUT,
    XN_XRT_IMAGES,
    XN_XRT_INPUT_BYTES,
    XN_XRT_OUTPUT_WORDS,
    XN_XRT_STATUS,
};

extern const struct xn_accel_backend xn_accel_xrt;

/** XRT, loaded at the first call and never unloaded. Errors: -ENODEV (the module or a library of XRT's is missing; the text says which and
 *  what to install). */
XN_MUST_CHECK int xn_xrt_module(const struct xn_xrt_api **ret_api, struct xn_error *error);
/** Put `api` in its place: tests. NULL: back to the real one. */
void xn_xrt_module_replace(const struct xn_xrt_api *api);

/* ---- cards ------------------------------------------------------------------------------------------------------------------ */

/** A card with one image loaded, shared by the instances on it. */
struct xn_xrt_card;

/** Open card `device` with file `path` (checked against the image that was read from it), or share it. Errors: -ENODEV, -EBUSY, -EINVAL (open
 *  here with another file), -EIO, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_card_get(const struct xn_xrt_api *api, const char *device, const char *path,
                                  struct xn_xrt_card **ret_card, struct xn_error *error);
void xn_xrt_card_put(struct xn_xrt_card *card);
const struct xn_xrt_device_info *xn_xrt_card_info(const struct xn_xrt_card *card);
/** Counts resets: what was made of a card before one is of no use after it. Threads: any. */
uint32_t xn_xrt_card_generation(struct xn_xrt_card *card);
/** Reset the card, unless another instance has done so since `generation`, and load its file again. Errors: -EIO, -ENODEV. */
XN_MUST_CHECK int xn_xrt_card_reset(struct xn_xrt_card *card, uint32_t generation, struct xn_error *error);
/** Open unit `name`. *ret_generation: of the card then. Errors: -EBUSY, -EIO. */
XN_MUST_CHECK int xn_xrt_card_unit(struct xn_xrt_card *card, const char *name, struct xn_xrt_unit **ret_unit,
                                   uint32_t *ret_generation, struct xn_error *error);

/* ---- models ----------------------------------------------------------------------------------------------------------------- */

/** Where a job's tensors are. A model has as many as an instance takes jobs. */
struct xn_xrt_slot {
    struct xn_xrt_buffer *input, *output, *status;
    uint8_t *input_host;
    int32_t *output_host;
    struct xn_isa_status *status_host;
    struct xn_xrt_run *run;
    bool busy;
};

struct xn_accel_model {
    struct xn_accel_model *next; /**< of the instance */
    const struct xn_network *network;
    struct xn_engine_program *program;
    uint32_t max_batch;
    struct xn_xrt_slot slots[XN_XRT_INFLIGHT];
    struct xn_xrt_buffer *program_buffer, *stream_buffer;
    bool resident;     /**< all buffers are there and hold what they should */
    uint32_t inflight; /**< jobs; such a model is not evicted */
    uint64_t used;     /**< when it last ran, by the instance's count of runs */
    uint64_t cycles[XN_XRT_COSTS];
};

/** Compile `network` for `geometry`. Nothing of it is on the card yet. Errors: -ENOTSUP, -ENOSPC, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_model_new(const struct xn_network *network, const struct xn_isa_geometry *geometry,
                                   uint32_t max_batch, struct xn_accel_model **ret_model, struct xn_error *error);
void xn_xrt_model_free(const struct xn_xrt_api *api, struct xn_accel_model *model);
/** Take its memory on the card of `unit` and fill it. On failure nothing is held. Errors: -ENOSPC, -EIO. */
XN_MUST_CHECK int xn_xrt_model_settle(const struct xn_xrt_api *api, struct xn_accel_model *model,
                                      struct xn_xrt_unit *unit, struct xn_error *error);
/** Give back what settle took. */
void xn_xrt_model_evict(const struct xn_xrt_api *api, struct xn_accel_model *model);
/** Engine cycles of a batch, by the cycle model; between the batches that were computed, on a line. */
uint64_t xn_xrt_model_cycles(const struct xn_accel_model *model, uint32_t batch);

#endif
