/* SPDX-License-Identifier: Apache-2.0
 * The threads of one CPU instance: the caller and its helpers share out the pieces of a batch, whole images or parts of steps. */
#ifndef XN_ACCEL_CPU_TEAM_H
#define XN_ACCEL_CPU_TEAM_H

#include "common/error.h"
#include "common/macros.h"

#include <stdatomic.h>

struct xn_cpu_team;

/** Piece `i` of the batch, on thread `thread` (0: the caller of finish; 1..helpers). */
typedef void xn_cpu_team_fn(void *context, uint32_t thread, uint32_t i);

/** Start `helpers` threads (0 is legal) called "xn-cpu<instance>-<1..>". Errors: -ENOMEM, -EAGAIN (no more threads). */
XN_MUST_CHECK int xn_cpu_team_new(uint32_t instance, uint32_t helpers, struct xn_cpu_team **ret_team,
                                  struct xn_error *error);
/** Ends the helpers; no batch is open. NULL is legal. */
void xn_cpu_team_free(struct xn_cpu_team *team);

/** Open a batch: call fn(context, thread, i) once for each i < n. Helpers begin now, the caller in finish. Never blocks for long. */
void xn_cpu_team_begin(struct xn_cpu_team *team, xn_cpu_team_fn *fn, void *context, uint32_t n);

/** Take part until the batch is done or `deadline_ns` has passed, which is looked at between pieces. When it returns, no thread
 *  touches the batch. Returns 0, or -ETIMEDOUT: some pieces were not begun. */
XN_MUST_CHECK int xn_cpu_team_finish(struct xn_cpu_team *team, uint64_t deadline_ns);

/** Counts pieces that are done, for those that may begin only when earlier ones are. Pieces are taken in order, so whoever waits for
 *  earlier ones waits for threads that work on them: nobody waits for a thread that has not come yet. */
struct xn_cpu_gate {
    XN_ALIGNED(XN_CACHE_LINE) _Atomic uint32_t done;
    _Atomic uint32_t sleepers;
};

/** Wait until `count` pieces are done: spins for a while, then parks. What they wrote is visible then. */
void xn_cpu_gate_wait(struct xn_cpu_gate *gate, uint32_t count);
/** One piece is done. */
void xn_cpu_gate_pass(struct xn_cpu_gate *gate);

#endif
