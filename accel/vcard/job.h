/* SPDX-License-Identifier: Apache-2.0
 * What a unit does between start and done: from its registers, whose addresses are not to be trusted, to a simulator's run. */
#ifndef XN_ACCEL_VCARD_JOB_H
#define XN_ACCEL_VCARD_JOB_H

#include "accel/vcard/engine.h"
#include "accel/vcard/memory.h"
#include "accel/vcard/options.h"

/** Arguments, as the registers of xnor_isa.h. */
struct xn_vcard_arguments {
    uint64_t program, stream, input, output, status;
    uint32_t images, input_bytes, output_words;
};

/** Programs whose cycles are remembered. */
#define XN_VCARD_CYCLES_KEPT 128u

struct xn_vcard_cycles {
    struct xn_isa_descriptor *program;
    uint32_t n, images, input_bytes;
    uint64_t cycles;
};

/** A simulator with its buffers. One thread uses it. */
struct xn_vcard_worker {
    const struct xn_vcard_options *options;
    const struct xn_vcard_memory *memory;
    struct xn_vcard_engine engine;
    struct xn_isa_descriptor *program; /**< [XN_ISA_DESCRIPTORS_MAX] copied: the host may change it meanwhile */
    uint32_t n;                        /**< of the last run */
    int32_t *output;                   /**< [output_room] of a run, until it is known to count */
    size_t output_room;
    struct xn_vcard_cycles kept[XN_VCARD_CYCLES_KEPT];
    uint32_t next_kept;
};

/** Errors: -ENOENT (no engine of this kind and geometry), -ENOMEM. */
XN_MUST_CHECK int xn_vcard_worker_init(struct xn_vcard_worker *worker, const struct xn_vcard_options *options,
                                       const struct xn_vcard_memory *memory, struct xn_error *error);
void xn_vcard_worker_done(struct xn_vcard_worker *worker);

/** How a run ended. Outputs are not in card memory yet. */
struct xn_vcard_result {
    struct xn_isa_status
        status; /**< error: enum xn_isa_error or enum xn_vcard_error; cycles: of the model, or the simulator's own */
    int32_t *output;     /**< the worker's */
    size_t output_words; /**< 0: nothing to write */
};

/** Run it. An address outside of memory ends it with XN_VCARD_ERROR_BUS. */
void xn_vcard_job_run(struct xn_vcard_worker *worker, const struct xn_vcard_arguments *arguments,
                      struct xn_vcard_result *ret_result);

/** Into card memory: what the run has written, then its status. */
void xn_vcard_job_publish(const struct xn_vcard_memory *memory, const struct xn_vcard_arguments *arguments,
                          const struct xn_vcard_result *result);

#endif
