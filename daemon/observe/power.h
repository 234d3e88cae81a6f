/* SPDX-License-Identifier: Apache-2.0
 * Power and energy. One thread (xn-power) samples each sensor every sample_ms and integrates joules itself
 * (trapezoid over measured intervals; RAPL counters are differenced with their wrap). A domain with a sensor is
 * measured; one without, where its accelerator declares idle and busy watts, is estimated and labelled so; others
 * have no figure at all. Sources and board tables: docs/metrics.md, "Power". */
#ifndef XN_DAEMON_OBSERVE_POWER_H
#define XN_DAEMON_OBSERVE_POWER_H

#include "daemon/models.h"
#include "daemon/observe/metrics.h"

struct xn_power;

/** Find sensors under config's roots for the power domains of `instances` and start sampling. Sensors that vanish or
 *  fail later report up 0 and are looked for again. `config` and `instances` must outlive it. Returns 0 or -ENOMEM,
 *  -EAGAIN (thread). */
XN_MUST_CHECK int xn_power_new(const struct xn_config *config, const struct xn_instances *instances,
                               struct xn_power **ret_power, struct xn_error *error);
void xn_power_free(struct xn_power *power);

/** Instance `instance` starts or ends a batch: busy time is what a domain's energy is attributed by, and what an
 *  estimate is made of. Threads: any; lock-free. */
void xn_power_busy(struct xn_power *power, uint32_t instance, bool busy, uint64_t now_ns);

/** Joules attributed to the last batch of `instance`, which ran from start to end: mean power of its domain over
 *  that time (last sample where shorter than a sample), divided by how many instances were busy in the domain (mean
 *  of its first and last moment). Call once a batch, in the order of their ends and before the instance's next
 *  xn_power_busy(true): where batches of one instance overlap, the time in common is the earlier one's. Returns
 *  false: the domain has neither sensor nor estimate. Threads: one at a time for one instance; lock-free. */
bool xn_power_batch_energy(struct xn_power *power, uint32_t instance, uint64_t start_ns, uint64_t end_ns,
                           double *ret_joules, enum xn_energy_source *ret_source);

/** xnord_energy_joules_total, xnord_power_watts, xnord_power_sensor_up, each with domain, sensor and source.
 *  Threads: any. */
void xn_power_render(struct xn_power *power, struct xn_metrics_text *text);

#endif
