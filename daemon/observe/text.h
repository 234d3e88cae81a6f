/* SPDX-License-Identifier: Apache-2.0
 * The Prometheus text format (0.0.4) as it grows: private to observe/. */
#ifndef XN_DAEMON_OBSERVE_TEXT_H
#define XN_DAEMON_OBSERVE_TEXT_H

#include "common/macros.h"
#include "daemon/observe/metrics.h"

/** Once memory runs out, `failed` is set and whatever follows is dropped. Owner of data: whoever declared it;
 *  free(). */
struct xn_metrics_text {
    char *data;
    size_t length, capacity;
    bool failed;
};

/** One histogram of family `name` with `labels`: counts[i] observations in (bounds[i-1], bounds[i]], counts[n] above
 *  the last. Bounds and sum are multiplied by `unit`. */
void xn_metrics_text_histogram(struct xn_metrics_text *text, const char *name, const char *labels,
                               const uint64_t *bounds, const uint64_t *counts, size_t n, uint64_t sum, double unit);

/** process_*: CPU time, memory, open files, start time (seconds since the epoch), from /proc/self. */
void xn_metrics_text_process(struct xn_metrics_text *text, double start_time_s);

#endif
