/* SPDX-License-Identifier: Apache-2.0
 * The entry points of a simulated engine. accel/engine/run.c (the scalar definition), hls/ (C simulation) and rtl/ (Verilated)
 * each make a shared library with them, so that one test runs one program through all and compares every word of their memories. */
#ifndef XNOR_SIM_H
#define XNOR_SIM_H

#include <stddef.h>

#include "xnor_isa.h"

#ifdef __cplusplus
extern "C" {
#endif

struct xn_sim;

/** What a run is given, as the registers say. All memory is the caller's and outlives the run. */
struct xn_sim_job {
    const struct xn_isa_descriptor *program; /**< ended by XN_ISA_END; program_count of them, END included */
    size_t program_count;
    const void *stream;
    size_t stream_bytes;
    const void *input; /**< images * input_bytes bytes */
    uint32_t input_bytes, images, output_words;
    int32_t *output;     /**< [images][output_words] */
    uint32_t stall_seed; /**< RTL: 0 no stalls of the memory port; else seeded random ones. Others: ignored */
    uint64_t cycles_max; /**< RTL: give up (xn_sim_run returns -1) after so many cycles; 0 never */
};

/** An engine with cleared memories. NULL: no memory, or this library is built for another geometry (RTL; *ret_why says so, static). */
struct xn_sim *xn_sim_open(const struct xn_isa_geometry *geometry, const char **ret_why);
void xn_sim_close(struct xn_sim *sim);

/** Run a program to its end or its first error, which *ret_status tells. 0, or -1: it hung, or read or wrote outside the job's memory. */
int xn_sim_run(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status);

/** The memories as the last run left them; row and bank within the geometry. */
uint64_t xn_sim_am(const struct xn_sim *sim, uint32_t row, uint32_t bank);
void xn_sim_rm(const struct xn_sim *sim, uint32_t row, uint32_t bank, int16_t ret_channels[XN_ISA_LANES]);

#ifdef __cplusplus
}
#endif

#endif
