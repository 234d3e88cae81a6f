/* SPDX-License-Identifier: Apache-2.0
 * What is counted of a model for /v2/models/{model}/stats, in the terms of the protocol's statistics extension. Relaxed atomics: nothing is ordered
 * by them, and a reader may miss the latest. */
#ifndef XN_DAEMON_MODEL_STATS_H
#define XN_DAEMON_MODEL_STATS_H

#include <stdatomic.h>

#include "daemon/config.h"

struct xn_request;

/** Requests (or batches) and the time that they took together. */
struct xn_count {
    atomic_uint_fast64_t count, ns;
};

struct xn_model_stats {
    atomic_uint_fast64_t inference_count;   /**< images in batches that succeeded */
    atomic_uint_fast64_t execution_count;   /**< batches that succeeded */
    atomic_uint_fast64_t last_inference_ms; /**< of the wall clock, since 1970; 0: none yet */
    struct xn_count success, fail;          /**< requests, from their first header to the answer */
    /** Successful requests: preparing the input (JSON, pictures), waiting, running, writing the answer. Of several images the one that took longest. */
    struct xn_count compute_input, queue, compute_infer, compute_output;
    struct xn_count batch[XN_CONFIG_BATCH_MAX + 1]; /**< runs on an accelerator, by images */
};

/** Forget everything. */
void xn_model_stats_reset(struct xn_model_stats *stats);
/** All items of `request` have settled with 0, and its answer is written. */
void xn_model_stats_success(struct xn_model_stats *stats, const struct xn_request *request, uint64_t now_ns);
/** A request that began at `start_ns` was answered with an error. */
void xn_model_stats_fail(struct xn_model_stats *stats, uint64_t start_ns, uint64_t now_ns);
/** A batch of `n` images has run. */
void xn_model_stats_batch(struct xn_model_stats *stats, uint32_t n, uint64_t exec_ns);

#endif
