/* SPDX-License-Identifier: Apache-2.0
 * The monotonic clock. All durations and deadlines in xnord are nanoseconds on this clock. */
#ifndef XN_COMMON_CLOCK_H
#define XN_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

#define XN_NS_PER_US UINT64_C(1000)
#define XN_NS_PER_MS UINT64_C(1000000)
#define XN_NS_PER_S  UINT64_C(1000000000)

/** A deadline that never comes. */
#define XN_NEVER_NS UINT64_MAX

/** CLOCK_MONOTONIC now, in ns. Threads: any. */
uint64_t xn_clock_now_ns(void);

/** CPU time that the calling thread has used, in ns. Threads: any. */
uint64_t xn_clock_thread_cpu_ns(void);

/** `ns` on CLOCK_MONOTONIC as the timespec that pthread_cond_clockwait and friends take. */
struct timespec xn_clock_timespec(uint64_t ns);

#endif
