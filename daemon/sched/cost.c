/* SPDX-License-Identifier: Apache-2.0
 * Online fit of a line to batch times. All sums decay by 1/16 a batch. While batches have one size the two parts cannot be told apart: then they keep the proportion that
 * they had. At first all is put on the image, which makes the scheduler believe that batching gains nothing, close early, and so see other sizes. */
#include "daemon/sched/cost.h"

#define DECAY      (15.0 / 16.0)
#define OUTLIER    4.0
#define OUTLIER_NS 1000.0 /* never an outlier: so that a fit of nearly nothing can grow again */
#define SETTLED    4.0    /* sum of weights from which on outliers are cut */
#define MIN_SPREAD 0.05   /* variance of n below which the slope is not trusted */

static void fit(struct xn_cost *c)
{
    double mean_n = c->n / c->weight, mean_t = c->t / c->weight;
    double variance = c->nn / c->weight - mean_n * mean_n;
    double slope = mean_t / mean_n;

    if (variance > MIN_SPREAD)
        slope = (c->nt / c->weight - mean_n * mean_t) / variance;
    else if (c->fixed_ns > 0)
        slope = c->per_image_ns * mean_t / (c->fixed_ns + c->per_image_ns * mean_n);
    /* Neither part can be negative: noise is put on the other one. */
    if (slope < 0)
        slope = 0;
    double fixed = mean_t - slope * mean_n;
    if (fixed < 0) {
        fixed = 0;
        slope = mean_t / mean_n;
    }
    c->fixed_ns = fixed;
    c->per_image_ns = slope;
}

void xn_cost_observe(struct xn_cost *cost, uint32_t n, uint64_t exec_ns)
{
    double t = (double)exec_ns, size = n;

    if (cost->weight >= SETTLED) {
        double limit = OUTLIER * (cost->fixed_ns + size * cost->per_image_ns);
        limit = limit < OUTLIER_NS ? OUTLIER_NS : limit;
        t = t > limit ? limit : t;
    }
    cost->weight = cost->weight * DECAY + 1;
    cost->n = cost->n * DECAY + size;
    cost->nn = cost->nn * DECAY + size * size;
    cost->t = cost->t * DECAY + t;
    cost->nt = cost->nt * DECAY + size * t;
    fit(cost);
}

uint64_t xn_cost_predict(const struct xn_cost *cost, uint32_t n)
{
    if (cost->weight <= 0)
        return 0;
    uint64_t ns = (uint64_t)(cost->fixed_ns + (double)n * cost->per_image_ns);
    return ns > 0 ? ns : 1; /* 0 would say: not measured */
}
