/* SPDX-License-Identifier: Apache-2.0
 * What an item costs on its way through batcher, scheduler and worker, over an accelerator that takes no time: CPU time of all threads and wall
 * time for each item, at several numbers of items in flight. Prints one JSON object. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include "common/clock.h"
#include "daemon/sched/dispatch.h"
#include "tests/support/fake_accel.h"

#define ROUNDS_ITEMS 100000u
#define WINDOW_MAX   256u

static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_changed = PTHREAD_COND_INITIALIZER;
static uint32_t n_done; /* guarded by done_lock */

static void on_done(struct xn_request *request)
{
    (void)request;
    pthread_mutex_lock(&done_lock);
    n_done++;
    pthread_cond_signal(&done_changed);
    pthread_mutex_unlock(&done_lock);
}

static uint64_t process_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * XN_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void push(struct xn_dispatch *dispatch, struct xn_requests *pool, struct xn_model *model)
{
    struct xn_request *request = xn_request_new(pool);
    uint32_t taken;

    if (!request)
        abort();
    request->model = xn_model_ref(model);
    request->done = on_done;
    request->deadline_ns = xn_clock_now_ns() + 10 * XN_NS_PER_S;
    /* Our reference passes to the queue: nobody reads the answer. */
    if (xn_request_items_init(request, 1) < 0)
        abort();
    struct xn_item *item = &request->items[0];
    if (xn_dispatch_push(dispatch, &item, 1, &taken) < 0)
        abort();
}

/* Push `items` with up to `window` of them not yet answered. */
static void run(struct xn_dispatch *dispatch, struct xn_requests *pool, struct xn_model *model, uint32_t items,
                uint32_t window)
{
    n_done = 0; /* nothing is in flight */
    for (uint32_t i = 0; i <= items; i += window) {
        for (uint32_t k = i; k < XN_MIN(i + window, items); k++)
            push(dispatch, pool, model);
        pthread_mutex_lock(&done_lock);
        while (n_done < XN_MIN(i + window, items))
            pthread_cond_wait(&done_changed, &done_lock);
        pthread_mutex_unlock(&done_lock);
    }
}

static void measure(struct xn_dispatch *dispatch, struct xn_requests *pool, struct xn_model *model, uint32_t window,
                    const char *separator)
{
    run(dispatch, pool, model, ROUNDS_ITEMS / 10, window);
    uint64_t cpu_ns = process_cpu_ns(), wall_ns = xn_clock_now_ns();
    run(dispatch, pool, model, ROUNDS_ITEMS, window);
    cpu_ns = process_cpu_ns() - cpu_ns;
    wall_ns = xn_clock_now_ns() - wall_ns;
    printf("%s\"%u\": {\"cpu_ns_per_item\": %.0f, \"wall_ns_per_item\": %.0f}", separator, (unsigned)window,
           (double)cpu_ns / ROUNDS_ITEMS, (double)wall_ns / ROUNDS_ITEMS);
}

int main(void)
{
    static struct xn_config config;
    static struct xn_instances instances = {.n = 1};
    static struct xn_network network;
    static struct xn_model model;
    struct xn_requests *pool;
    struct xn_dispatch *dispatch;

    config.limits.requests = 4 * WINDOW_MAX;
    config.limits.images_per_request = 1;
    config.limits.body_bytes = config.limits.json_bytes = 65536;
    config.limits.buffer_bytes = 16u << 20;
    instances.accel[0] = fake_accel_new("fake0", 2);
    fake_model_init(&model, &network, &instances, 0, 64, 1000);
    if (xn_requests_new(&config, &pool) < 0 || xn_dispatch_new(&instances, 4096, NULL, NULL, &dispatch, NULL) < 0)
        return 1;
    printf("{\"items\": %u, \"in_flight\": {", ROUNDS_ITEMS);
    measure(dispatch, pool, &model, 1, "");
    measure(dispatch, pool, &model, 16, ", ");
    measure(dispatch, pool, &model, WINDOW_MAX, ", ");
    printf("}}\n");
    xn_dispatch_free(dispatch);
    xn_requests_free(pool);
    fake_accel_free(instances.accel[0]);
    return 0;
}
