/* SPDX-License-Identifier: Apache-2.0
 * See model_stats.h. */
#include "daemon/model_stats.h"

#include <time.h>

#include "daemon/request.h"

static void add(struct xn_count *count, uint64_t ns)
{
    atomic_fetch_add_explicit(&count->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->ns, ns, memory_order_relaxed);
}

static void reset(struct xn_count *count)
{
    atomic_store_explicit(&count->count, 0, memory_order_relaxed);
    atomic_store_explicit(&count->ns, 0, memory_order_relaxed);
}

void xn_model_stats_reset(struct xn_model_stats *stats)
{
    struct xn_count *counts[] = {&stats->success, &stats->fail,          &stats->compute_input,
                                 &stats->queue,   &stats->compute_infer, &stats->compute_output};

    atomic_store_explicit(&stats->inference_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->execution_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->last_inference_ms, 0, memory_order_relaxed);
    for (size_t i = 0; i < XN_ARRAY_LEN(counts); i++)
        reset(counts[i]);
    for (size_t i = 0; i < XN_ARRAY_LEN(stats->batch); i++)
        reset(&stats->batch[i]);
}

static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
    return then_ns && now_ns > then_ns ? now_ns - then_ns : 0;
}

void xn_model_stats_success(struct xn_model_stats *stats, const struct xn_request *request, uint64_t now_ns)
{
    uint64_t input_ns = 0, queue_ns = 0, run_ns = 0, end_ns = 0;
    struct timespec wall;

    for (uint32_t i = 0; i < request->n_items; i++) {
        const struct xn_item *item = &request->items[i];
        input_ns = XN_MAX(input_ns, since(request->received_ns, item->queued_ns));
        queue_ns = XN_MAX(queue_ns, since(item->queued_ns, item->execute_start_ns));
        run_ns = XN_MAX(run_ns, since(item->execute_start_ns, item->execute_end_ns));
        end_ns = XN_MAX(end_ns, item->execute_end_ns);
    }
    add(&stats->success, since(request->start_ns, now_ns));
    add(&stats->compute_input, input_ns);
    add(&stats->queue, queue_ns);
    add(&stats->compute_infer, run_ns);
    add(&stats->compute_output, since(end_ns, now_ns));
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    atomic_store_explicit(&stats->last_inference_ms, (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000,
                          memory_order_relaxed);
}

void xn_model_stats_fail(struct xn_model_stats *stats, uint64_t start_ns, uint64_t now_ns)
{
    add(&stats->fail, since(start_ns, now_ns));
}

void xn_model_stats_batch(struct xn_model_stats *stats, uint32_t n, uint64_t exec_ns)
{
    atomic_fetch_add_explicit(&stats->execution_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&stats->inference_count, n, memory_order_relaxed);
    if (n <= XN_CONFIG_BATCH_MAX)
        add(&stats->batch[n], exec_ns);
}
