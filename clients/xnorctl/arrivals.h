/* SPDX-License-Identifier: Apache-2.0
 * When the requests of an open loop are meant to be sent, decided by rate and seed alone and never by how the server does. Pure. */
#ifndef XN_CLIENTS_XNORCTL_ARRIVALS_H
#define XN_CLIENTS_XNORCTL_ARRIVALS_H

#include "common/macros.h"

struct xn_arrivals {
    double mean_gap_ns;
    double at_ns; /**< of the next one, after the start */
    bool poisson;
    uint64_t random;
};

/** `rate` a second, > 0. Poisson arrivals have gaps of an exponential distribution, uniform ones all the same. */
void xn_arrivals_init(struct xn_arrivals *arrivals, double rate, bool poisson, uint64_t seed);
/** When the next one is due, ns after the start. */
uint64_t xn_arrivals_due_ns(const struct xn_arrivals *arrivals);
/** It has been sent: on to the one after. */
void xn_arrivals_advance(struct xn_arrivals *arrivals);

/** A stream of random numbers (splitmix64) over `state`. */
uint64_t xn_ctl_random(uint64_t *state);
/** A seed from the kernel, below 2^32 so that it is easily typed. */
uint64_t xn_ctl_random_seed(void);

#endif
