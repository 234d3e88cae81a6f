/* SPDX-License-Identifier: Apache-2.0
 * FPGA cards and fabrics behind the Xilinx Runtime: the backend "xrt", and what its parts share. An instance is one compute unit.
 *
 *     xrt.c      accel.h's slots: what runs, for how long, what a failed run means
 *     model.c    a network on an instance: its program, its buffers for tensors, whether they are on the card
 *     store.c    what lies in a card's memory: weights, once for all units that can reach them, and who leaves where it is short
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
struct xn_xrt_store;

/** Open card `device` with file `path`, which `image` was read from, or share it. Errors: -ENODEV, -EBUSY (also where the card has another UUID loaded
 *  afterwards), -EINVAL (open here with another file), -EIO, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_card_get(const struct xn_xrt_api *api, const char *device, const char *path,
                                  const struct xn_xrt_image *image, struct xn_xrt_card **ret_card,
                                  struct xn_error *error);
void xn_xrt_card_put(struct xn_xrt_card *card);
const struct xn_xrt_device_info *xn_xrt_card_info(const struct xn_xrt_card *card);
/** What lies in its memory. Owner: the card. */
struct xn_xrt_store *xn_xrt_card_store(struct xn_xrt_card *card);
/** Counts resets: what was made of a card before one is of no use after it. Threads: any. */
uint32_t xn_xrt_card_generation(struct xn_xrt_card *card);
/** Reset the card, unless another instance has done so since `generation`, and load its file again. Errors: -EIO, -ENODEV. */
XN_MUST_CHECK int xn_xrt_card_reset(struct xn_xrt_card *card, uint32_t generation, struct xn_error *error);
/** Open unit `name`. *ret_generation: of the card then. Errors: -EBUSY, -EIO. */
XN_MUST_CHECK int xn_xrt_card_unit(struct xn_xrt_card *card, const char *name, struct xn_xrt_unit **ret_unit,
                                   uint32_t *ret_generation, struct xn_error *error);

/* ---- what lies in a card's memory ------------------------------------------------------------------------------------------- */

/** Where a model settles: a unit, opened when its card had this generation. */
struct xn_xrt_place {
    const struct xn_xrt_api *api;
    struct xn_xrt_unit *unit;
    uint32_t generation;
    bool is_own_memory; /**< card memory is this processor's (Zynq) */
};

/** A program and its stream on a card: one copy for all units that run the same one and reach the same banks. It comes with the first model that
 *  settles on it and goes with the last that leaves. */
struct xn_xrt_weights {
    struct xn_xrt_weights *next; /**< of the store */
    uint32_t generation;         /**< of the card when they came; a reset card has them anew */
    uint32_t users;              /**< models settled on it */
    uint32_t banks[2];           /**< of the program, of the stream */
    struct xn_xrt_buffer *program_buffer, *stream_buffer;
    const void *program_host, *stream_host; /**< the buffers' host side: what is compared */
    size_t program_bytes, stream_bytes;
};

/** Of one card. `lock` guards all of it, and of each model in it whether it is settled and whether it is at work. */
struct xn_xrt_store {
    pthread_mutex_t lock; /**< a leaf; held while weights travel, and submits of the card's other units then wait */
    struct xn_accel_model *models; /**< of all instances of the card */
    struct xn_xrt_weights *weights;
    uint64_t runs; /**< a clock, of models' use */
};

/** The weights of `program` on the card of `place`, shared where they are there already. Errors: -ENOSPC, -EIO, -ENOMEM (the
 *  host's). */
XN_MUST_CHECK int xn_xrt_weights_get_locked(struct xn_xrt_store *store, const struct xn_xrt_place *place,
                                            const struct xn_engine_program *program,
                                            struct xn_xrt_weights **ret_weights, struct xn_xrt_why *why);
void xn_xrt_weights_put_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store,
                               struct xn_xrt_weights *weights);
/** Settle `model` at `place`, and where the card is full have the models leave that have not run for longest, of whatever unit, but none that is
 *  at work. Errors: -ENOSPC, -EIO, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_store_settle_locked(struct xn_xrt_store *store, struct xn_accel_model *model,
                                             const struct xn_xrt_place *place, struct xn_error *error);
/** Models of units that have not come back from the reset that began `generation` leave, where they are not at work: nothing of them is
 *  of use any more. */
void xn_xrt_store_forget_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store, uint32_t generation);

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
    struct xn_accel_model *next; /**< of the store */
    const struct xn_accel *owner;
    const struct xn_network *network;
    struct xn_engine_program *program;
    uint32_t max_batch;
    struct xn_xrt_slot slots[XN_XRT_INFLIGHT];
    struct xn_xrt_weights *weights; /**< NULL: not on the card, and no buffer is */
    uint32_t inflight;              /**< jobs; such a model is not evicted */
    uint64_t used;                  /**< when it last ran, by the store's count of runs */
    uint64_t cycles[XN_XRT_COSTS];
};

/** Compile `network` for `geometry`. Nothing of it is on the card yet. Errors: -ENOTSUP, -ENOSPC, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_model_new(const struct xn_network *network, const struct xn_isa_geometry *geometry,
                                   uint32_t max_batch, struct xn_accel_model **ret_model, struct xn_error *error);
/** One that is not settled. */
void xn_xrt_model_free(struct xn_accel_model *model);
/** Take its memory on the card of `place` and fill it. On failure nothing is held. Errors: -ENOSPC, -EIO, -ENOMEM. */
XN_MUST_CHECK int xn_xrt_model_settle_locked(struct xn_xrt_store *store, struct xn_accel_model *model,
                                             const struct xn_xrt_place *place, struct xn_error *error);
/** Give back what settle took, if it did. */
void xn_xrt_model_evict_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store, struct xn_accel_model *model);
/** Engine cycles of a batch, by the cycle model; between the batches that were computed, on a line. */
uint64_t xn_xrt_model_cycles(const struct xn_accel_model *model, uint32_t batch);

#endif
