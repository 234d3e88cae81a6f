/* SPDX-License-Identifier: Apache-2.0
 * Power without its thread: tests give it the time. Private to observe/. */
#ifndef XN_DAEMON_OBSERVE_POWER_INTERNAL_H
#define XN_DAEMON_OBSERVE_POWER_INTERNAL_H

#include "daemon/observe/power.h"

/** As xn_power_new, without the thread: the caller samples. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_power_prepare(const struct xn_config *config, const struct xn_instances *instances,
                                   struct xn_metrics *metrics, struct xn_power **ret_power, struct xn_error *error);
/** One sample of everything at `now_ns`. Threads: one at a time. */
void xn_power_sample(struct xn_power *power, uint64_t now_ns);

/** After this long, sensors that are down or missing are looked for again. */
#define XN_POWER_RESCAN_NS (30 * XN_NS_PER_S)

#endif
