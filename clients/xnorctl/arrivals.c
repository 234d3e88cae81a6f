/* SPDX-License-Identifier: Apache-2.0
 * Intended send times. A backlog needs no memory: arrivals are a function of seed and index, so one that waits is simply not drawn yet. */
#include "clients/xnorctl/arrivals.h"

#include <math.h>
#include <sys/random.h>

#include "common/clock.h"

uint64_t xn_ctl_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t xn_ctl_random_seed(void)
{
    uint32_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint32_t)xn_clock_now_ns();
    return seed;
}

static double gap_ns(struct xn_arrivals *arrivals)
{
    if (!arrivals->poisson)
        return arrivals->mean_gap_ns;
    double u = (double)((xn_ctl_random(&arrivals->random) >> 11) + 1) * 0x1p-53; /* (0, 1] */
    return -log(u) * arrivals->mean_gap_ns;
}

void xn_arrivals_init(struct xn_arrivals *arrivals, double rate, bool poisson, uint64_t seed)
{
    *arrivals = (struct xn_arrivals){.mean_gap_ns = (double)XN_NS_PER_S / rate, .poisson = poisson, .random = seed};
    if (poisson)
        arrivals->at_ns = gap_ns(arrivals);
}

uint64_t xn_arrivals_due_ns(const struct xn_arrivals *arrivals)
{
    return (uint64_t)arrivals->at_ns;
}

void xn_arrivals_advance(struct xn_arrivals *arrivals)
{
    arrivals->at_ns += gap_ns(arrivals);
}
