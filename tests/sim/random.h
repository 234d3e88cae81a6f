/* SPDX-License-Identifier: Apache-2.0
 * Random numbers of the simulator: splitmix64, the same on every machine. */
#ifndef XN_TESTS_SIM_RANDOM_H
#define XN_TESTS_SIM_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_next(struct sim_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A stream of its own for each purpose, so that one more draw here changes nothing there. */
static inline struct sim_random sim_random_of(uint64_t seed, uint64_t purpose)
{
    struct sim_random r = {.state = seed * UINT64_C(0xd1342543de82ef95) + purpose};

    r.state = sim_next(&r);
    return r;
}

/* 0..1, without 1 */
static inline double sim_uniform(struct sim_random *r)
{
    return (double)(sim_next(r) >> 11) * 0x1p-53;
}

static inline double sim_between(struct sim_random *r, double low, double high)
{
    return low + sim_uniform(r) * (high - low);
}

/* low..high, evenly in the logarithm */
static inline double sim_log_between(struct sim_random *r, double low, double high)
{
    return low * exp(sim_uniform(r) * log(high / low));
}

static inline uint32_t sim_below(struct sim_random *r, uint32_t n)
{
    return (uint32_t)(((sim_next(r) >> 32) * n) >> 32);
}

static inline bool sim_chance(struct sim_random *r, double p)
{
    return sim_uniform(r) < p;
}

static inline double sim_exponential(struct sim_random *r, double mean)
{
    return -log(1 - sim_uniform(r)) * mean;
}

/* Mean 0, variance 1, within +-3.46: a sum of uniform ones. */
static inline double sim_normal(struct sim_random *r)
{
    double sum = 0;

    for (int i = 0; i < 4; i++)
        sum += sim_uniform(r);
    return (sum - 2) * 1.7320508075688772;
}

#endif
