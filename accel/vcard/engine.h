/* SPDX-License-Identifier: Apache-2.0
 * What computes in a unit: a simulator of the engine behind hls/include/xnor_sim.h. */
#ifndef XN_ACCEL_VCARD_ENGINE_H
#define XN_ACCEL_VCARD_ENGINE_H

#include "common/error.h"
#include "hls/include/xnor_sim.h"

struct xn_vcard_engine {
    char name[128];
    void *library; /**< NULL: linked in */
    void (*close)(struct xn_sim *sim);
    int (*run)(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status);
    struct xn_sim *sim;
};

/** `which`: "hls", a C simulation of this geometry beside the program (libxnor-sim-hls-*.so); "scalar", the definition; "auto", the first of the two
 *  that there is; else a library's path. Errors: -ENOENT, *error says what is missing. */
XN_MUST_CHECK int xn_vcard_engine_init(struct xn_vcard_engine *engine, const char *which,
                                       const struct xn_isa_geometry *geometry, struct xn_error *error);
void xn_vcard_engine_done(struct xn_vcard_engine *engine);

#endif
