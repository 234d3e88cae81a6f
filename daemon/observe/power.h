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
 *  fail later report up 0 and are looked for again. What inferences take is counted in `metrics` (NULL: nowhere).
 *  `config`, `instances` and `metrics` must outlive it. Returns 0 or -ENOMEM, -EAGAIN (thread). */
XN_MUST_CHECK int xn_power_new(const struct xn_config *config, const struct xn_instances *instances,
                               struct xn_metrics *metrics, struct xn_power **ret_power, struct xn_error *error);
void xn_power_free(struct xn_power *power);

/** Instance `instance` starts to work, or has nothing more to do: what a domain's energy is attributed by, and what an
 *  estimate is made of. Threads: any; takes a leaf lock. */
void xn_power_busy(struct xn_power *power, uint32_t instance, bool busy, uint64_t now_ns);

/** The oldest batch under way of `instance`, of the model in `slot`, ended. Its time began where the one before ended, or with xn_power_busy(true). *ret_energy: what it took, as far
 *  as is known now (docs/metrics.md, "Attribution"). Call for each batch, in the order of their ends, failed ones too, and before xn_power_busy(false). Returns false: nothing
 *  measures the instance. Threads: one at a time for one instance; takes a leaf lock. */
bool xn_power_batch_energy(struct xn_power *power, uint32_t instance, uint32_t slot, uint64_t end_ns,
                           struct xn_energy *ret_energy);

/** xnord_energy_joules_total, xnord_idle_energy_joules_total, xnord_idle_power_watts, xnord_power_watts, xnord_power_sensor_up, each with domain, sensor and source.
 *  Threads: any. */
void xn_power_render(struct xn_power *power, struct xn_metrics_text *text);

#endif
