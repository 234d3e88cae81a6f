/* SPDX-License-Identifier: Apache-2.0
 * Work that waits, by the time at which it is due: how much comes before a given time, and how much more could without a deadline being missed.
 *
 * Work is counted in ns of the whole fleet: what all instances together need for it at their best. Times are kept to a millisecond, for 8 s from now; what is due later is
 * kept as due at the end, with no deadline to protect.
 *
 * Threads: the caller serialises. No allocation after xn_demand_new. */
#ifndef XN_DAEMON_SCHED_DEMAND_H
#define XN_DAEMON_SCHED_DEMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/macros.h"

struct xn_demand;

/** Errors: -ENOMEM. */
XN_MUST_CHECK int xn_demand_new(struct xn_demand **ret_demand);
void xn_demand_free(struct xn_demand *demand);

/** `work_ns` more waits, due at due_ns, to be done before deadline_ns >= due_ns (XN_NEVER_NS: none). Returns the place where it is kept. */
uint64_t xn_demand_add(struct xn_demand *demand, uint64_t work_ns, uint64_t due_ns, uint64_t deadline_ns,
                       uint64_t now_ns);
/** The `work_ns` that were put at `place` do not wait any more. */
void xn_demand_remove(struct xn_demand *demand, uint64_t place, uint64_t work_ns);

/** All work that waits. */
uint64_t xn_demand_total_ns(const struct xn_demand *demand);

/** Work that is due at `due_ns` or before it, a millisecond more or less. */
uint64_t xn_demand_before_ns(const struct xn_demand *demand, uint64_t due_ns);

/** How much work, put in at `due_ns`, would leave all deadlines behind it kept if the fleet does what waits in order, from `start_ns` on. May be negative: one
 *  will be missed as it is; INT64_MAX: no deadline is behind it. */
int64_t xn_demand_slack_ns(const struct xn_demand *demand, uint64_t due_ns, uint64_t start_ns);

#endif
