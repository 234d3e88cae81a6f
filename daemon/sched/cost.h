/* SPDX-License-Identifier: Apache-2.0
 * What a batch costs on an instance: cost(n) = fixed + n * per_image, fitted online. */
#ifndef XN_DAEMON_SCHED_COST_H
#define XN_DAEMON_SCHED_COST_H

#include <stdint.h>

/** Decayed sums of a least-squares line through (n, ns). Zeroed: nothing measured. */
struct xn_cost {
    double weight, n, nn, t, nt;
    double fixed_ns, per_image_ns; /**< the fit */
};

/** A batch of `n` images took `exec_ns`. An outlier counts as at most four times what was expected, so that one stall does not mislead; a real change is followed within a few batches. */
void xn_cost_observe(struct xn_cost *cost, uint32_t n, uint64_t exec_ns);

/** Predicted time of `n` images, ns; 0: nothing measured yet. */
uint64_t xn_cost_predict(const struct xn_cost *cost, uint32_t n);

#endif
