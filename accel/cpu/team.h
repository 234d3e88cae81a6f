/* SPDX-License-Identifier: Apache-2.0
 * The threads of one CPU instance: the caller and its helpers share out the images of a batch. */
#ifndef XN_ACCEL_CPU_TEAM_H
#define XN_ACCEL_CPU_TEAM_H

#include "common/error.h"

struct xn_cpu_team;

/** Image `i` of the batch, on thread `thread` (0: the caller of finish; 1..helpers). */
typedef void xn_cpu_team_fn(void *context, uint32_t thread, uint32_t i);

/** Start `helpers` threads (0 is legal) called "xn-cpu<instance>-<1..>". Errors: -ENOMEM, -EAGAIN (no more threads). */
XN_MUST_CHECK int xn_cpu_team_new(uint32_t instance, uint32_t helpers, struct xn_cpu_team **ret_team,
                                  struct xn_error *error);
/** Ends the helpers; no batch is open. NULL is legal. */
void xn_cpu_team_free(struct xn_cpu_team *team);

/** Open a batch: call fn(context, thread, i) once for each i < n. Helpers begin now, the caller in finish. Never blocks for long. */
void xn_cpu_team_begin(struct xn_cpu_team *team, xn_cpu_team_fn *fn, void *context, uint32_t n);

/** Take part until the batch is done or `deadline_ns` has passed, which is looked at between images. When it returns, no thread
 *  touches the batch. Returns 0, or -ETIMEDOUT: some images were not begun. */
XN_MUST_CHECK int xn_cpu_team_finish(struct xn_cpu_team *team, uint64_t deadline_ns);

#endif
