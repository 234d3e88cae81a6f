/* SPDX-License-Identifier: Apache-2.0
 * The threads of one CPU instance: the caller and its helpers share out the pieces of a batch, whole images or parts of steps.
 * A batch takes no lock, allocates nothing, and never waits for a thread that holds none of its pieces. */
#ifndef XN_ACCEL_CPU_TEAM_H
#define XN_ACCEL_CPU_TEAM_H

#include "common/error.h"
#include "common/macros.h"

struct xn_cpu_team;

/** Piece `i` of stage `stage`, on thread `thread` (0: the caller of finish; 1..helpers). */
typedef void xn_cpu_team_fn(void *context, uint32_t thread, uint32_t stage, uint32_t i);

/** Stages one after another: a stage begins when all pieces of the one before it are done, and what they wrote is visible then. */
struct xn_cpu_batch {
    xn_cpu_team_fn *fn;
    void *context;
    const uint32_t *pieces; /**< [period] each 1..65535, until finish returns: stage s has pieces[s % period] */
    uint32_t period, stages;
};

/** Start `helpers` threads (0 is legal) called "xn-cpu<instance>-<1..>". Errors: -ENOMEM, -EAGAIN (no more threads). */
XN_MUST_CHECK int xn_cpu_team_new(uint32_t instance, uint32_t helpers, struct xn_cpu_team **ret_team,
                                  struct xn_error *error);
/** Ends the helpers; no batch is open. NULL is legal. */
void xn_cpu_team_free(struct xn_cpu_team *team);

/** Open a batch: call fn once for each piece of each stage. Helpers begin now, all but the first piece, which is the caller's: the caller begins
 *  in finish. Never blocks. */
void xn_cpu_team_begin(struct xn_cpu_team *team, const struct xn_cpu_batch *batch);

/** Take part until the batch is done or `deadline_ns` has passed, which is looked at between pieces. When it returns, no thread
 *  touches the batch. Returns 0, or -ETIMEDOUT: some pieces were not begun. */
XN_MUST_CHECK int xn_cpu_team_finish(struct xn_cpu_team *team, uint64_t deadline_ns);

#endif
