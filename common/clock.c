/* SPDX-License-Identifier: Apache-2.0
 * The monotonic clock: a vDSO read, no state. */
#include "common/clock.h"

static uint64_t read_clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t); /* cannot fail for the two clocks used here */
    return (uint64_t)t.tv_sec * XN_NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t xn_clock_now_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t xn_clock_thread_cpu_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

struct timespec xn_clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / XN_NS_PER_S), .tv_nsec = (long)(ns % XN_NS_PER_S)};
}
