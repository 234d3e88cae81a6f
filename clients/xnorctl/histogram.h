/* SPDX-License-Identifier: Apache-2.0
 * A histogram of durations with a relative error below 1 %, of fixed size: recording takes a few instructions and no memory. Pure. */
#ifndef XN_CLIENTS_XNORCTL_HISTOGRAM_H
#define XN_CLIENTS_XNORCTL_HISTOGRAM_H

#include "common/macros.h"

#define XN_HISTOGRAM_SUB_BITS 7u  /**< 2^7 buckets each power of two: 1/128 wide */
#define XN_HISTOGRAM_TOP_BITS 42u /**< values above 2^42 ns (73 min) go into the last bucket */
#define XN_HISTOGRAM_BUCKETS  ((XN_HISTOGRAM_TOP_BITS - XN_HISTOGRAM_SUB_BITS + 1) << XN_HISTOGRAM_SUB_BITS)

/** Embedded; begins as zeros. */
struct xn_histogram {
    uint64_t count, min, max;
    double sum;
    uint64_t buckets[XN_HISTOGRAM_BUCKETS];
};

void xn_histogram_add(struct xn_histogram *h, uint64_t value);

/** The smallest value that at least `part` (0..1) of those recorded do not exceed, up to the width of a bucket; never outside min..max.
 *  0 where nothing was recorded. */
uint64_t xn_histogram_quantile(const struct xn_histogram *h, double part);

/** Mean; 0 where nothing was recorded. */
double xn_histogram_mean(const struct xn_histogram *h);

#endif
