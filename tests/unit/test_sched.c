/* SPDX-License-Identifier: Apache-2.0
 * The scheduler in virtual time: each rule by itself, then random fleets, models, arrivals and faults under invariants. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "daemon/sched/cost.h"
#include "daemon/sched/sched.h"
#include "tests/support/random_network.h"

#define MS XN_NS_PER_MS
#define US XN_NS_PER_US
#define T0 (1000 * MS) /* any time that is not 0 */

#define ITEMS 64

/* Only its address counts: loaded or not. */
static int loaded_mark;

static struct xn_model model_of(uint32_t slot, uint32_t max_batch, uint32_t max_delay_us)
{
    static uint64_t generation;
    struct xn_model model = {.slot = slot,
                             .max_batch = max_batch,
                             .max_delay_us = max_delay_us,
                             .queue_limit = ITEMS,
                             .generation = ++generation};

    for (uint32_t i = 0; i < XN_INSTANCES_MAX; i++)
        model.loaded[i] = (struct xn_accel_model *)(void *)&loaded_mark;
    return model;
}

struct bed {
    struct xn_sched *sched;
    struct xn_request requests[ITEMS];
    struct xn_item items[ITEMS];
    uint32_t n_items;
};

static void bed_init_with(struct bed *bed, struct xn_sched_config config, uint32_t inflight)
{
    struct xn_sched_instance instances[8];

    memset(bed, 0, sizeof(*bed));
    for (uint32_t i = 0; i < config.n_instances; i++)
        instances[i] = config.instances ? config.instances[i] : (struct xn_sched_instance){.watts = -1};
    for (uint32_t i = 0; i < config.n_instances; i++)
        instances[i].inflight = inflight;
    config.instances = instances;
    config.queue_total = ITEMS;
    assert_int_equal(xn_sched_new(&config, &bed->sched), 0);
}

static void bed_init(struct bed *bed, uint32_t n_instances, uint32_t inflight)
{
    bed_init_with(bed, (struct xn_sched_config){.n_instances = n_instances}, inflight);
}

/* Instances for which a batch is ready, bit by bit, and which are ready as soon as these have theirs: without taking any. */
static uint64_t ready_mask(struct xn_sched *sched, uint64_t now_ns)
{
    uint32_t list[XN_INSTANCES_MAX];
    uint64_t mask = 0;

    for (uint32_t n = xn_sched_ready(sched, now_ns, list, XN_INSTANCES_MAX); n > 0; n--)
        mask |= UINT64_C(1) << list[n - 1];
    return mask;
}

static void announce(struct bed *bed, struct xn_model *model, uint32_t n)
{
    struct xn_sched_ask ask = {.model = model, .n = n, .deadline_ns = XN_NEVER_NS};
    uint64_t retry_ns;

    assert_int_equal(xn_sched_admit(bed->sched, &ask, T0, &retry_ns), 0);
}

static struct xn_item *make(struct bed *bed, struct xn_model *model, uint64_t deadline_ns)
{
    uint32_t i = bed->n_items++;

    assert_true(i < ITEMS);
    bed->requests[i].model = model;
    bed->requests[i].deadline_ns = deadline_ns;
    bed->items[i].request = &bed->requests[i];
    return &bed->items[i];
}

static struct xn_item *push(struct bed *bed, struct xn_model *model, uint64_t deadline_ns, uint64_t now_ns)
{
    struct xn_item *item = make(bed, model, deadline_ns);

    assert_int_equal(xn_sched_push(bed->sched, item, now_ns), 0);
    return item;
}

/* Let `instance` measure: a batch of n images of `model` took `exec_ns`. */
static void measure(struct bed *bed, struct xn_model *model, uint32_t instance, uint32_t n, uint64_t exec_ns)
{
    xn_sched_predict(bed->sched, model, instance, n, exec_ns);
}

/* ---- rules -------------------------------------------------------------------------------------------------------- */

static void test_idle_instance_takes_a_lone_item(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 2000);
    (void)state;

    bed_init(&bed, 1, 1);
    struct xn_item *item = push(&bed, &model, XN_NEVER_NS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 1);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_IDLE);
    assert_int_equal(batch->n, 1);
    assert_ptr_equal(batch->items[0], item);
    assert_int_equal(item->instance, 0);
    assert_false(xn_sched_is_empty(bed.sched));
    xn_sched_done(bed.sched, batch, MS, 0, T0 + MS);
    assert_true(xn_sched_is_empty(bed.sched));
    assert_int_equal(xn_sched_cost_ns(bed.sched, 0, 0, 1), MS);
    xn_sched_free(bed.sched);
}

/* With more on its way, and a fixed cost to share, a batch waits: for its delay, for being full, for its earliest deadline, or for a drain. */
static void waiting_bed(struct bed *bed, struct xn_model *model)
{
    bed_init(bed, 1, 1);
    measure(bed, model, 0, 1, 1010 * US);
    measure(bed, model, 0, 2, 1020 * US);
    announce(bed, model, 10);
    (void)push(bed, model, XN_NEVER_NS, T0);
    assert_null(xn_sched_next(bed->sched, 0, T0));
}

static void test_closes_by_delay(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 2000);
    (void)state;

    waiting_bed(&bed, &model);
    assert_int_equal(xn_sched_wake_ns(bed.sched, T0), T0 + 2 * MS);
    assert_null(xn_sched_next(bed.sched, 0, T0 + 2 * MS - 1));
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + 2 * MS);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_DELAY);
    xn_sched_free(bed.sched);
}

static void test_closes_when_full(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 2000);
    struct xn_batch *batch;
    (void)state;

    waiting_bed(&bed, &model);
    for (uint32_t i = 0; i < 4; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0 + 1);
    batch = xn_sched_next(bed.sched, 0, T0 + 1);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_FULL);
    assert_int_equal(batch->n, 4);
    assert_int_equal(xn_sched_depth(bed.sched, 0), 1);
    xn_sched_free(bed.sched);
}

static void test_closes_for_a_deadline(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 20000);
    (void)state;

    waiting_bed(&bed, &model);
    (void)push(&bed, &model, T0 + 10 * MS, T0);
    uint64_t wake_ns = xn_sched_wake_ns(bed.sched, T0);
    assert_true(wake_ns > T0 && wake_ns < T0 + 9 * MS);
    assert_null(xn_sched_next(bed.sched, 0, wake_ns - 1));
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, wake_ns);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_DEADLINE);
    assert_int_equal(batch->n, 2);
    xn_sched_free(bed.sched);
}

static void test_closes_when_nothing_more_is_announced(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 2000);
    (void)state;

    waiting_bed(&bed, &model);
    xn_sched_retract(bed.sched, &model, 9);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_IDLE);
    xn_sched_free(bed.sched);
}

static void test_closes_when_batching_saves_nothing(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 2000);
    (void)state;

    bed_init(&bed, 1, 1);
    measure(&bed, &model, 0, 1, 1000 * US);
    measure(&bed, &model, 0, 2, 2000 * US);
    announce(&bed, &model, 10);
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_IDLE);
    xn_sched_free(bed.sched);
}

static void test_closes_for_drain(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 4, 2000);
    (void)state;

    waiting_bed(&bed, &model);
    xn_sched_drain(bed.sched);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(batch);
    assert_int_equal(batch->reason, XN_CLOSE_DRAIN);
    xn_sched_free(bed.sched);
}

static void test_old_and_new_object_of_a_slot_do_not_mix(void **state)
{
    struct bed bed;
    struct xn_model old = model_of(3, 8, 0), new = model_of(3, 8, 0);
    (void)state;

    bed_init(&bed, 1, 2);
    for (uint32_t i = 0; i < 3; i++)
        (void)push(&bed, &old, XN_NEVER_NS, T0);
    for (uint32_t i = 0; i < 2; i++)
        (void)push(&bed, &new, XN_NEVER_NS, T0);
    struct xn_batch *first = xn_sched_next(bed.sched, 0, T0), *second = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(first);
    assert_non_null(second);
    assert_ptr_equal(first->model, &old);
    assert_int_equal(first->n, 3);
    assert_ptr_equal(second->model, &new);
    assert_int_equal(second->n, 2);
    xn_sched_free(bed.sched);
}

static void test_oldest_model_first(void **state)
{
    struct bed bed;
    struct xn_model a = model_of(0, 8, 0), b = model_of(1, 8, 0);
    (void)state;

    bed_init(&bed, 1, 2);
    (void)push(&bed, &b, XN_NEVER_NS, T0);
    (void)push(&bed, &a, XN_NEVER_NS, T0 + 1);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + 1);
    assert_non_null(batch);
    assert_ptr_equal(batch->model, &b);
    xn_sched_free(bed.sched);
}

static void test_fast_busy_instance_is_preferred_until_it_is_late(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 2, 1);
    measure(&bed, &model, 0, 1, MS);
    measure(&bed, &model, 1, 1, 10 * MS);
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 1); /* not the slow one */
    assert_null(xn_sched_next(bed.sched, 1, T0));
    struct xn_batch *running = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(running);
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 0);
    /* It hangs: within a few looks the slow one takes over, and no look is at once. */
    uint64_t now_ns = T0;
    uint32_t looks = 0;
    while (ready_mask(bed.sched, now_ns) == 0) {
        uint64_t wake_ns = xn_sched_wake_ns(bed.sched, now_ns);
        assert_true(wake_ns > now_ns);
        now_ns = wake_ns;
        assert_true(++looks < 64);
    }
    assert_int_equal(ready_mask(bed.sched, now_ns), 2);
    assert_in_range(now_ns, T0 + 9 * MS, T0 + 40 * MS);
    xn_sched_free(bed.sched);
}

/** Of equal idle instances the first one is asked, and when it has its batch the next one. */
static void test_equal_instances_are_asked_a_batch_each(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 4, 1);
    for (uint32_t i = 0; i < 4; i++) {
        (void)push(&bed, &model, XN_NEVER_NS, T0);
        assert_int_equal(ready_mask(bed.sched, T0), 1);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(ready_mask(bed.sched, T0), UINT64_C(1) << i);
        assert_non_null(xn_sched_next(bed.sched, i, T0));
    }
    xn_sched_free(bed.sched);
}

/** An instance that is asked while another would be sooner takes a batch all the same where the other one will have enough to do. */
static void test_a_backlog_is_for_all(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_batch *batch[2];
    (void)state;

    for (uint32_t waiting = 1; waiting <= 2; waiting++) {
        bed_init(&bed, 2, 2);
        for (uint32_t i = 0; i < 2; i++)
            (void)push(&bed, &model, XN_NEVER_NS, T0);
        for (uint32_t i = 0; i < 2; i++)
            batch[i] = xn_sched_next(bed.sched, i, T0);
        for (uint32_t i = 0; i < 2; i++)
            xn_sched_done(bed.sched, batch[i], 1000000, 0, T0 + 1000000);
        const uint64_t now_ns = T0 + 2000000;
        for (uint32_t i = 0; i < 2 + waiting; i++)
            (void)push(&bed, &model, XN_NEVER_NS, now_ns);
        assert_non_null(xn_sched_next(bed.sched, 0, now_ns));
        assert_non_null(xn_sched_next(bed.sched, 1, now_ns + 500000));
        /* The first one will be free sooner, but is waiting for its device. */
        assert_int_equal(xn_sched_next(bed.sched, 1, now_ns + 500000) != NULL, waiting == 2);
        assert_non_null(xn_sched_next(bed.sched, 0, now_ns + 500000));
        xn_sched_free(bed.sched);
    }
}

/** An instance whose first batch, of one image, stalled still gets full ones, of which its backend has said what they take. */
static void test_a_stalled_first_image_is_not_held_against_full_batches(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 2000);
    (void)state;

    bed_init(&bed, 2, 1);
    for (uint32_t i = 0; i < 2; i++) {
        measure(&bed, &model, i, 1, 500 * US);
        measure(&bed, &model, i, 8, 2200 * US);
    }
    measure(&bed, &model, 1, 1, 7 * MS);
    for (uint32_t i = 0; i < 4 * 8; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    assert_non_null(xn_sched_next(bed.sched, 1, T0));
    xn_sched_free(bed.sched);
}

static void test_quarantine_and_models_not_everywhere(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 2, 1);
    model.loaded[1] = NULL;
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_null(xn_sched_next(bed.sched, 1, T0));
    xn_sched_set_healthy(bed.sched, 0, false);
    assert_false(xn_sched_can_run(bed.sched, &model));
    assert_null(xn_sched_next(bed.sched, 0, T0));
    xn_sched_set_healthy(bed.sched, 0, true);
    assert_true(xn_sched_can_run(bed.sched, &model));
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    xn_sched_free(bed.sched);
}

static void test_expiry_waiting_and_running(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_expired expired[4];
    (void)state;

    bed_init(&bed, 1, 1);
    struct xn_item *running = push(&bed, &model, T0 + 20 * MS, T0);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    struct xn_item *waiting = push(&bed, &model, T0 + 10 * MS, T0);
    assert_true(xn_sched_wake_ns(bed.sched, T0) <= T0 + 10 * MS);
    assert_int_equal(xn_sched_expire(bed.sched, T0 + 10 * MS - 1, expired, 4), 0);
    assert_int_equal(xn_sched_expire(bed.sched, T0 + 10 * MS, expired, 4), 1);
    assert_ptr_equal(expired[0].item, waiting);
    assert_false(expired[0].running);
    assert_int_equal(xn_sched_depth(bed.sched, 0), 0);
    assert_int_equal(xn_sched_expire(bed.sched, T0 + 20 * MS, expired, 4), 1);
    assert_ptr_equal(expired[0].item, running);
    assert_true(expired[0].running);
    assert_int_equal(xn_sched_expire(bed.sched, T0 + 30 * MS, expired, 4), 0); /* each is named once */
    xn_sched_done(bed.sched, batch, MS, -EIO, T0 + 30 * MS);
    assert_true(xn_sched_is_empty(bed.sched));
    xn_sched_free(bed.sched);
}

static void test_bounds_and_announcements(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 1000);
    struct xn_sched_ask ask = {.model = &model, .n = 4, .deadline_ns = XN_NEVER_NS};
    uint64_t retry_ns = 0;
    (void)state;

    bed_init(&bed, 1, 1);
    model.queue_limit = 3;
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), -ENOBUFS);
    assert_true(retry_ns > 0);
    announce(&bed, &model, 2);
    ask.n = 2;
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), -ENOBUFS);
    for (uint32_t i = 0; i < 3; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    struct xn_item *refused = make(&bed, &model, XN_NEVER_NS);
    assert_int_equal(xn_sched_push(bed.sched, refused, T0), -ENOBUFS);
    refused->sched.due_ns = T0;
    xn_sched_requeue(bed.sched, refused);                 /* one that was admitted once has room */
    assert_ptr_equal(xn_sched_evict(bed.sched), refused); /* and is where it was due */
    for (uint32_t i = 0; i < 3; i++)
        assert_non_null(xn_sched_evict(bed.sched));
    assert_null(xn_sched_evict(bed.sched));
    xn_sched_free(bed.sched);
}

static void test_configuration_is_checked(void **state)
{
    struct xn_sched *sched = NULL;
    struct xn_sched_instance one = {.inflight = 1};
    struct xn_sched_config config = {.n_instances = 0, .instances = &one, .queue_total = 1};
    (void)state;

    assert_int_equal(xn_sched_new(&config, &sched), -EINVAL);
    config.n_instances = XN_INSTANCES_MAX + 1;
    assert_int_equal(xn_sched_new(&config, &sched), -EINVAL);
    config.n_instances = 1;
    config.watts_cap = -1;
    assert_int_equal(xn_sched_new(&config, &sched), -EINVAL);
    config.watts_cap = 0;
    one.inflight = XN_ACCEL_INFLIGHT_MAX + 1;
    assert_int_equal(xn_sched_new(&config, &sched), -EINVAL);
    assert_null(sched);
    xn_sched_free(NULL);
}

/* What was measured with a model says nothing of the one that replaces it in its slot: least of all how long a run may take before it counts as hung. */
static void test_a_reloaded_model_is_measured_anew(void **state)
{
    struct bed bed;
    struct xn_model old = model_of(0, 8, 2000), now = model_of(0, 8, 2000);
    (void)state;

    bed_init(&bed, 1, 2);
    for (uint32_t i = 0; i < 8; i++) {
        (void)push(&bed, &old, XN_NEVER_NS, T0);
        xn_sched_done(bed.sched, xn_sched_next(bed.sched, 0, T0), 10 * US, 0, T0);
    }
    (void)push(&bed, &old, XN_NEVER_NS, T0);
    struct xn_batch *straggler = xn_sched_next(bed.sched, 0, T0);
    assert_int_equal(straggler->expected_ns, 10 * US);
    xn_sched_drain(bed.sched);
    (void)push(&bed, &now, XN_NEVER_NS, T0);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_int_equal(batch->expected_ns, 0);
    xn_sched_done(bed.sched, batch, XN_NS_PER_S, 0, T0 + XN_NS_PER_S); /* 100,000 times as long, and no outlier */
    assert_int_equal(xn_sched_cost_ns(bed.sched, 0, 0, 1), XN_NS_PER_S);
    xn_sched_done(bed.sched, straggler, 10 * US, 0, T0 + 2 * XN_NS_PER_S);
    assert_int_equal(xn_sched_cost_ns(bed.sched, 0, 0, 1), XN_NS_PER_S);
    xn_sched_free(bed.sched);
}

/** A prediction is as good as a measurement, but says nothing of when a run counts as hung; one that the first batch shows to be wrong altogether is forgotten. */
static void test_predictions(void **state)
{
    const uint64_t took_ns[] = {3 * MS, 300 * MS},
                   then_ns[] = {4500 * US, 600 * MS}; /* of a first batch of one; then of two */
    (void)state;

    for (uint32_t i = 0; i < 2; i++) {
        struct bed bed;
        struct xn_model model = model_of(0, 8, 2000);
        bed_init(&bed, 1, 1);
        xn_sched_predict(bed.sched, &model, 0, 1, 2 * MS);
        xn_sched_predict(bed.sched, &model, 0, 8, 16 * MS);
        assert_in_range(xn_sched_cost_ns(bed.sched, 0, 0, 4), 8 * MS - US, 8 * MS + US);
        (void)push(&bed, &model, XN_NEVER_NS, T0);
        struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
        assert_int_equal(batch->expected_ns, 0);
        xn_sched_done(bed.sched, batch, took_ns[i], 0, T0 + took_ns[i]);
        assert_in_range(xn_sched_cost_ns(bed.sched, 0, 0, 2), then_ns[i] * 9 / 10, then_ns[i] * 11 / 10);
        xn_sched_free(bed.sched);
    }
}

/* ---- order -------------------------------------------------------------------------------------------------------- */

/* A batch of one on the only instance, ended at once; the item that was in it. */
static const struct xn_item *serve_one(struct bed *bed, uint64_t now_ns)
{
    struct xn_batch *batch = xn_sched_next(bed->sched, 0, now_ns);

    assert_non_null(batch);
    const struct xn_item *item = batch->items[0];
    xn_sched_done(bed->sched, batch, MS, 0, now_ns);
    return item;
}

static struct xn_item *push_as(struct bed *bed, struct xn_model *model, uint32_t client, uint8_t priority,
                               uint64_t deadline_ns, uint64_t now_ns)
{
    struct xn_item *item = make(bed, model, deadline_ns);

    item->request->client = client;
    item->request->priority = priority;
    assert_int_equal(xn_sched_push(bed->sched, item, now_ns), 0);
    return item;
}

static void test_earliest_deadline_first_over_models(void **state)
{
    struct bed bed;
    struct xn_model a = model_of(0, 1, 0), b = model_of(1, 1, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    measure(&bed, &a, 0, 1, MS);
    measure(&bed, &b, 0, 1, MS);
    const struct xn_item *loose = push(&bed, &a, T0 + 30 * MS, T0), *never = push(&bed, &b, XN_NEVER_NS, T0);
    const struct xn_item *tight = push(&bed, &b, T0 + 10 * MS, T0), *middle = push(&bed, &a, T0 + 20 * MS, T0);
    assert_ptr_equal(serve_one(&bed, T0), tight);
    assert_ptr_equal(serve_one(&bed, T0), middle);
    assert_ptr_equal(serve_one(&bed, T0), loose);
    assert_ptr_equal(serve_one(&bed, T0), never);
    xn_sched_free(bed.sched);
}

static void test_priority_goes_first_but_not_for_ever(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    const struct xn_item *low = push_as(&bed, &model, 1, XN_PRIORITY_LOW, XN_NEVER_NS, T0);
    const struct xn_item *normal = push_as(&bed, &model, 2, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0);
    const struct xn_item *high = push_as(&bed, &model, 3, XN_PRIORITY_HIGH, XN_NEVER_NS, T0 + MS);
    (void)push_as(&bed, &model, 3, XN_PRIORITY_HIGH, XN_NEVER_NS, T0 + XN_NS_PER_S);
    assert_ptr_equal(serve_one(&bed, T0 + MS), high);
    assert_ptr_equal(serve_one(&bed, T0 + MS), normal);
    assert_ptr_equal(serve_one(&bed, T0 + XN_NS_PER_S), low);
    xn_sched_free(bed.sched);
}

static void test_a_flood_stands_behind_who_asks_for_little(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    measure(&bed, &model, 0, 1, 10 * MS);
    for (uint32_t i = 0; i < 40; i++)
        (void)push_as(&bed, &model, 1, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0);
    const struct xn_item *little[2];
    for (uint32_t i = 0; i < 2; i++)
        little[i] = push_as(&bed, &model, 2, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0 + MS);
    uint32_t served = 0, at = 0;
    while (served < 2) {
        const struct xn_item *item = serve_one(&bed, T0 + MS);
        at++;
        served += item == little[0] || item == little[1];
    }
    assert_true(at <= 5); /* of 42: one of the flood before each, and a millisecond of head start */
    xn_sched_free(bed.sched);
}

/* ---- admission ---------------------------------------------------------------------------------------------------- */

static int admit(struct bed *bed, struct xn_model *model, uint32_t n, uint64_t deadline_ns, uint64_t now_ns)
{
    struct xn_sched_ask ask = {.model = model, .n = n, .deadline_ns = deadline_ns, .client = 7};
    uint64_t retry_ns = 0;
    int r = xn_sched_admit(bed->sched, &ask, now_ns, &retry_ns);

    assert_true(r == 0 || retry_ns > 0);
    if (r == 0)
        xn_sched_retract(bed->sched, model, n);
    return r;
}

static void test_what_cannot_be_done_in_time_is_refused(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    assert_int_equal(admit(&bed, &model, 1, T0 + 1, T0), 0); /* nothing is known of its cost */
    measure(&bed, &model, 0, 1, 10 * MS);
    assert_int_equal(admit(&bed, &model, 1, T0 + 9 * MS, T0), -EBUSY);
    assert_int_equal(admit(&bed, &model, 1, T0 + 12 * MS, T0), 0);
    assert_int_equal(admit(&bed, &model, 3, T0 + 25 * MS, T0), -EBUSY);
    assert_int_equal(admit(&bed, &model, 3, T0 + 50 * MS, T0), 0);
    /* One runs, three wait: a fifth is done after 20 ms, as it is due first, or after 50 ms. */
    for (uint32_t i = 0; i < 4; i++)
        (void)push(&bed, &model, T0 + 60 * MS, T0);
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    assert_int_equal(admit(&bed, &model, 1, T0 + 15 * MS, T0), -EBUSY);
    assert_int_equal(admit(&bed, &model, 1, T0 + 25 * MS, T0), 0);
    assert_int_equal(admit(&bed, &model, 1, T0 + 90 * MS, T0), 0);
    /* One that is due before them would make the last of them late. */
    for (uint32_t i = 0; i < 2; i++)
        (void)push(&bed, &model, T0 + 62 * MS, T0);
    assert_int_equal(admit(&bed, &model, 1, T0 + 30 * MS, T0), -EBUSY);
    xn_sched_free(bed.sched);
}

static void test_room_is_left_for_others(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_ask ask = {.model = &model, .n = 1, .deadline_ns = XN_NEVER_NS, .client = 1};
    uint64_t retry_ns;
    uint32_t n = 0;
    (void)state;

    bed_init(&bed, 1, 1);
    while (xn_sched_admit(bed.sched, &ask, T0, &retry_ns) == 0) {
        (void)push_as(&bed, &model, 1, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0);
        n++;
    }
    assert_in_range(n, ITEMS / 2, ITEMS - 2);
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), -EDQUOT);
    ask.client = 2;
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), 0);
    xn_sched_free(bed.sched);
}

/** Two who ask for all they can have a third each; the last third is left to whoever comes. */
static void test_two_flows_have_a_third_each(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_ask ask = {.model = &model, .n = 1, .deadline_ns = XN_NEVER_NS};
    uint64_t retry_ns;
    uint32_t n[2] = {0, 0};
    (void)state;

    bed_init(&bed, 1, 1);
    for (uint32_t i = 0; i < ITEMS; i++) {
        ask.client = 1 + i % 2;
        if (xn_sched_admit(bed.sched, &ask, T0, &retry_ns) < 0)
            continue;
        (void)push_as(&bed, &model, ask.client, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0);
        n[i % 2]++;
    }
    for (uint32_t i = 0; i < 2; i++)
        assert_in_range(n[i], ITEMS / 3 - 1, ITEMS / 3 + 1);
    xn_sched_free(bed.sched);
}

static void test_low_priority_is_refused_first(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_ask ask = {.model = &model, .n = 1, .deadline_ns = XN_NEVER_NS, .client = 1};
    uint64_t retry_ns;
    (void)state;

    bed_init(&bed, 1, 1);
    for (uint32_t i = 0; i < ITEMS * 3 / 4; i++)
        (void)push_as(&bed, &model, 1, XN_PRIORITY_NORMAL, XN_NEVER_NS, T0);
    ask.priority = XN_PRIORITY_LOW;
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), -EDQUOT);
    ask.priority = XN_PRIORITY_NORMAL;
    assert_int_equal(xn_sched_admit(bed.sched, &ask, T0, &retry_ns), 0);
    xn_sched_free(bed.sched);
}

/** An item that nobody can do in time any more costs no run. */
static void test_what_is_too_late_is_given_up(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_expired expired[4];
    (void)state;

    bed_init(&bed, 2, 1);
    measure(&bed, &model, 0, 1, 20 * MS);
    measure(&bed, &model, 1, 1, MS);
    struct xn_item *item = push(&bed, &model, T0 + 12 * MS, T0);
    assert_int_equal(xn_sched_expire(bed.sched, T0, expired, 4), 0);
    xn_sched_set_healthy(bed.sched, 1, false);
    assert_int_equal(xn_sched_expire(bed.sched, T0, expired, 4), 1);
    assert_ptr_equal(expired[0].item, item);
    assert_false(expired[0].running);
    assert_true(xn_sched_is_empty(bed.sched));
    xn_sched_free(bed.sched);
}

/** A batch is no larger than its earliest deadline allows, and a tight deadline gets small batches from the start. */
static void test_batches_keep_the_deadlines_in_them(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 32, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    measure(&bed, &model, 0, 1, 2 * MS);
    measure(&bed, &model, 0, 11, 12 * MS); /* 1 ms + 1 ms an image */
    for (uint32_t i = 0; i < 30; i++)
        (void)push(&bed, &model, T0 + 20 * MS, T0);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + 8 * MS);
    assert_non_null(batch);
    assert_in_range(batch->n, 5, 9); /* half of 20 ms: a batch waits for one, and runs */
    xn_sched_done(bed.sched, batch, 10 * MS, 0, T0 + 17 * MS);
    batch = xn_sched_next(bed.sched, 0, T0 + 17 * MS);
    assert_non_null(batch);
    assert_in_range(batch->n, 1, 2); /* 3 ms are left */
    xn_sched_free(bed.sched);
}

/** What a flow has waiting falls by a whole batch when one starts: who comes after that does not overtake. */
static void test_a_flow_is_served_in_its_order(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 0);
    (void)state;

    bed_init(&bed, 1, 2);
    measure(&bed, &model, 0, 8, 8 * MS);
    for (uint32_t i = 0; i < 16; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0 + i * US);
    assert_int_equal(xn_sched_next(bed.sched, 0, T0 + MS)->n, 8);
    const struct xn_item *last = push(&bed, &model, XN_NEVER_NS, T0 + MS);
    const struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + MS);
    assert_non_null(batch);
    assert_int_equal(batch->n, 8);
    for (uint32_t i = 0; i < 8; i++)
        assert_ptr_not_equal(batch->items[i], last);
    xn_sched_free(bed.sched);
}

/* Twenty items wait, the first of which leaves `left_ns` for a batch that could take 17 ms; the batch that starts then. */
static uint32_t batch_with_a_tight_one(uint64_t left_ns, uint32_t *ret_given_up)
{
    struct bed bed;
    struct xn_model model = model_of(0, 16, 0);
    struct xn_expired expired[ITEMS];

    bed_init(&bed, 1, 1);
    measure(&bed, &model, 0, 1, 2 * MS);
    measure(&bed, &model, 0, 11, 12 * MS); /* 1 ms + 1 ms an image */
    (void)push(&bed, &model, T0 + 40 * MS, T0);
    for (uint32_t i = 1; i < 20; i++)
        (void)push(&bed, &model, T0 + 200 * MS, T0);
    const struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + 40 * MS - left_ns);
    assert_non_null(batch);
    uint32_t n = batch->n;
    *ret_given_up = xn_sched_expire(bed.sched, T0 + 40 * MS - left_ns, expired, ITEMS);
    xn_sched_free(bed.sched);
    return n;
}

/** One that was admitted is given up where it would make a batch much smaller, not where it costs others next to nothing. */
static void test_a_tight_one_is_not_given_up_for_little(void **state)
{
    uint32_t given_up;
    (void)state;

    assert_int_equal(batch_with_a_tight_one(16500 * US, &given_up), 15);
    assert_int_equal(given_up, 0);
    assert_int_equal(batch_with_a_tight_one(3500 * US, &given_up), 16);
    assert_int_equal(given_up, 1);
}

/** Batches end so much before the deadlines as the answer takes. */
static void test_time_is_left_for_the_answer(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 32, 0);
    (void)state;

    for (uint32_t answer_ms = 0; answer_ms <= 2; answer_ms += 2) {
        bed_init(&bed, 1, 1);
        measure(&bed, &model, 0, 1, 2 * MS);
        measure(&bed, &model, 0, 11, 12 * MS); /* 1 ms + 1 ms an image */
        for (uint32_t i = 0; i < 30; i++) {
            struct xn_item *item = make(&bed, &model, T0 + 40 * MS);
            item->request->answer_ns = answer_ms * MS;
            assert_int_equal(xn_sched_push(bed.sched, item, T0), 0);
        }
        const struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0 + 34900 * US); /* 5.1 ms are left */
        assert_non_null(batch);
        assert_int_equal(batch->n, 4 - answer_ms);
        xn_sched_free(bed.sched);
    }
}

/** Whoever waits for a busy instance is told when to fetch the next batch: then there is one, also where it is not full, and not before. */
static void test_the_next_batch_is_fetched_shortly_before(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 0);
    (void)state;

    bed_init(&bed, 1, 2);
    measure(&bed, &model, 0, 1, 10 * MS);
    assert_int_equal(xn_sched_look_ns(bed.sched, 0), 0);
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    uint64_t look_ns = xn_sched_look_ns(bed.sched, 0);
    assert_in_range(look_ns, T0 + 5 * MS, T0 + 10 * MS - 1);
    (void)push(&bed, &model, XN_NEVER_NS, T0 + MS);
    assert_null(xn_sched_next(bed.sched, 0, look_ns - 1));
    assert_non_null(xn_sched_next(bed.sched, 0, look_ns));
    xn_sched_free(bed.sched);
}

/* One instance, which takes 10 ms for eight of `heavy`, and 2 ms for eight of `light`. */
static void two_models_init(struct bed *bed, struct xn_model *heavy, struct xn_model *light, uint32_t inflight)
{
    *heavy = model_of(0, 8, 0);
    *light = model_of(1, 8, 0);
    bed_init(bed, 1, inflight);
    measure(bed, heavy, 0, 8, 10 * MS);
    measure(bed, light, 0, 8, 2 * MS);
}

/** What is bound to an instance goes before all that comes later. So a full batch that is due long from now is bound to one that runs only shortly before that is free, where tight work has come lately;
 *  and at once, where none has. */
static void test_long_work_is_not_bound_before_tight_work(void **state)
{
    struct bed bed;
    (void)state;

    for (int tight = 0; tight <= 1; tight++) {
        struct xn_model heavy, light;
        two_models_init(&bed, &heavy, &light, 2);
        (void)push_as(&bed, &light, 1, XN_PRIORITY_NORMAL, T0 + (tight ? 15 : 400) * MS, T0);
        xn_sched_done(bed.sched, xn_sched_next(bed.sched, 0, T0), 2 * MS, 0, T0 + 2 * MS);
        const uint64_t now_ns = T0 + 2 * MS;
        for (uint32_t i = 0; i < 16; i++)
            (void)push_as(&bed, &heavy, 2, XN_PRIORITY_NORMAL, now_ns + 400 * MS, now_ns);
        assert_ptr_equal(xn_sched_next(bed.sched, 0, now_ns)->model, &heavy);
        uint64_t look_ns = xn_sched_look_ns(bed.sched, 0);
        assert_int_equal(xn_sched_next(bed.sched, 0, now_ns) != NULL, !tight);
        if (tight) {
            assert_int_equal(xn_sched_wake_ns(bed.sched, now_ns), look_ns);
            (void)push_as(&bed, &light, 1, XN_PRIORITY_NORMAL, now_ns + 16 * MS, now_ns + MS);
            assert_ptr_equal(xn_sched_next(bed.sched, 0, look_ns)->model, &light);
        }
        xn_sched_free(bed.sched);
    }
}

/** What is due first and can still grow lets a full batch of another model go first, as long as it has time. */
static void test_a_full_batch_goes_before_one_that_has_time(void **state)
{
    struct bed bed;
    (void)state;

    for (int hurry = 0; hurry <= 1; hurry++) {
        struct xn_model heavy, light;
        two_models_init(&bed, &heavy, &light, 1);
        for (uint32_t i = 0; i < 8; i++)
            (void)push_as(&bed, &heavy, 2, XN_PRIORITY_NORMAL, T0 + 400 * MS, T0);
        (void)push_as(&bed, &light, 1, XN_PRIORITY_NORMAL, T0 + (hurry ? 15 : 40) * MS, T0);
        const struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
        assert_non_null(batch);
        assert_ptr_equal(batch->model, hurry ? &light : &heavy);
        xn_sched_free(bed.sched);
    }
}

/** Images that cost next to nothing ride along, however tight the first one is. */
static void test_riders(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 32, 0);
    (void)state;

    bed_init(&bed, 1, 1);
    measure(&bed, &model, 0, 1, 4020 * US);
    measure(&bed, &model, 0, 32, 4640 * US); /* 4 ms + 20 us an image */
    (void)push(&bed, &model, T0 + 6 * MS, T0);
    for (uint32_t i = 1; i < 20; i++)
        (void)push(&bed, &model, T0 + 200 * MS, T0);
    assert_in_range(xn_sched_next(bed.sched, 0, T0)->n, 20, 20);
    xn_sched_free(bed.sched);
}

static void test_preferred_sizes(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 16, 20000);
    (void)state;

    model.preferred_batch = 4;
    waiting_bed(&bed, &model);
    for (uint32_t i = 0; i < 5; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    struct xn_batch *batch = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(batch);
    assert_int_equal(batch->n, 4);
    assert_int_equal(batch->reason, XN_CLOSE_FULL);
    xn_sched_free(bed.sched);
}

/* ---- saving ------------------------------------------------------------------------------------------------------- */

static void test_the_cap_bounds_what_runs(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_instance instances[3] = {{.watts = 6}, {.watts = 6}, {.watts = 3}};
    (void)state;

    bed_init_with(&bed, (struct xn_sched_config){.n_instances = 3, .instances = instances, .watts_cap = 10}, 1);
    for (uint32_t i = 0; i < 3; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    struct xn_batch *first = xn_sched_next(bed.sched, 0, T0);
    assert_non_null(first);
    assert_null(xn_sched_next(bed.sched, 1, T0));     /* 12 W */
    assert_non_null(xn_sched_next(bed.sched, 2, T0)); /* 9 W */
    xn_sched_done(bed.sched, first, MS, 0, T0 + MS);
    assert_non_null(xn_sched_next(bed.sched, 1, T0 + MS));
    xn_sched_free(bed.sched);
}

static void test_the_budget_paces(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_instance instance = {.watts = 10};
    uint64_t now_ns = T0;
    uint32_t batches = 0;
    (void)state;

    bed_init_with(&bed, (struct xn_sched_config){.n_instances = 1, .instances = &instance, .watts_budget = 1}, 1);
    measure(&bed, &model, 0, 1, 100 * MS); /* a joule each: one a second */
    for (uint32_t i = 0; i < 8; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    while (now_ns < T0 + 5 * XN_NS_PER_S) {
        struct xn_batch *batch = xn_sched_next(bed.sched, 0, now_ns);
        batches += batch != NULL;
        if (batch)
            xn_sched_done(bed.sched, batch, 100 * MS, 0, now_ns + 100 * MS);
        uint64_t wake_ns = xn_sched_wake_ns(bed.sched, now_ns);
        now_ns = batch ? now_ns + 100 * MS : wake_ns;
    }
    assert_in_range(batches, 5, 7); /* one second's worth is there at the start, and one may be owed */
    xn_sched_free(bed.sched);
}

/** With joules to save, the slow and thrifty instance serves what it can in time, and the fast one what it cannot. */
static void test_thrift_within_deadlines(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    struct xn_sched_instance instances[2] = {{.watts = 50}, {.watts = 1}};
    (void)state;

    bed_init_with(
        &bed,
        (struct xn_sched_config){.n_instances = 2, .instances = instances, .watts_cap = 1000, .eco_delay_us = 1000}, 1);
    measure(&bed, &model, 0, 1, MS);
    measure(&bed, &model, 1, 1, 10 * MS);
    (void)push(&bed, &model, T0 + 40 * MS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 2);
    assert_null(xn_sched_next(bed.sched, 0, T0));
    assert_non_null(xn_sched_next(bed.sched, 1, T0));
    (void)push(&bed, &model, T0 + 5 * MS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 1);
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    xn_sched_free(bed.sched);
}

/** The instance with the fewest joules is that for the batch as it would start, of a preferred size, not for all that waits: else each leaves it to the other. */
static void test_thrift_with_preferred_sizes(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 8, 0);
    struct xn_sched_instance instances[2] = {{.watts = 10}, {.watts = 10}};
    (void)state;

    model.preferred_batch = 4;
    bed_init_with(
        &bed,
        (struct xn_sched_config){.n_instances = 2, .instances = instances, .watts_cap = 1000, .eco_delay_us = 1000}, 1);
    measure(&bed, &model, 0, 1, 3100 * US);
    measure(&bed, &model, 0, 8, 3800 * US); /* the better one from 5 images on */
    measure(&bed, &model, 1, 1, 1000 * US);
    measure(&bed, &model, 1, 8, 5200 * US);
    for (uint32_t i = 0; i < 6; i++)
        (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 2);
    const struct xn_batch *batch = xn_sched_next(bed.sched, 1, T0);
    assert_non_null(batch);
    assert_int_equal(batch->n, 4);
    xn_sched_free(bed.sched);
}

static void test_watts_are_learned_where_none_are_declared(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init_with(&bed, (struct xn_sched_config){.n_instances = 2, .watts_cap = 10}, 1);
    for (uint32_t i = 0; i < 50; i++)
        for (uint32_t k = 0; k < 2; k++)
            xn_sched_energy(bed.sched, k, 0.006, MS); /* 6 W */
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    (void)push(&bed, &model, XN_NEVER_NS, T0);
    assert_non_null(xn_sched_next(bed.sched, 0, T0));
    assert_null(xn_sched_next(bed.sched, 1, T0));
    xn_sched_free(bed.sched);
}

/** With joules to save, an instance whose watts are not known yet is tried, or they would never be: the other one keeps every deadline. */
static void test_unknown_watts_are_found_out(void **state)
{
    struct bed bed;
    struct xn_model model = model_of(0, 1, 0);
    (void)state;

    bed_init_with(&bed, (struct xn_sched_config){.n_instances = 2, .watts_cap = 1000, .eco_delay_us = 1000}, 1);
    measure(&bed, &model, 0, 1, MS);
    measure(&bed, &model, 1, 1, MS);
    xn_sched_energy(bed.sched, 0, 0.006, MS);
    (void)push(&bed, &model, T0 + 40 * MS, T0);
    assert_int_equal(ready_mask(bed.sched, T0), 2);
    xn_sched_energy(bed.sched, 1, 0.012, MS); /* and is not, once they are known to be more */
    assert_int_equal(ready_mask(bed.sched, T0), 1);
    xn_sched_free(bed.sched);
}

/* ---- cost model --------------------------------------------------------------------------------------------------- */

static void test_cost_learns_the_line_and_shrugs_at_a_stall(void **state)
{
    struct xn_cost cost = {0};
    (void)state;

    assert_int_equal(xn_cost_predict(&cost, 1), 0);
    for (uint32_t i = 0; i < 200; i++)
        xn_cost_observe(&cost, 1 + i % 16, 50 * US + (1 + i % 16) * 10 * US);
    assert_in_range(xn_cost_predict(&cost, 1), 59 * US, 61 * US);
    assert_in_range(xn_cost_predict(&cost, 32), 360 * US, 380 * US);
    xn_cost_observe(&cost, 8, XN_NS_PER_S);
    assert_true(xn_cost_predict(&cost, 8) < 2 * 130 * US);
}

/* After a warm-up with two sizes single images come for a while: what is known of the fixed part stays, and follows a change in proportion. */
static void test_cost_keeps_its_parts_while_sizes_are_one(void **state)
{
    struct xn_cost cost = {0};
    (void)state;

    xn_cost_observe(&cost, 1, 1010 * US);
    xn_cost_observe(&cost, 16, 1160 * US);
    for (int i = 0; i < 200; i++)
        xn_cost_observe(&cost, 1, 1010 * US);
    assert_in_range(xn_cost_predict(&cost, 16), 1100 * US, 1200 * US);
    for (int i = 0; i < 200; i++)
        xn_cost_observe(&cost, 1, 2020 * US);
    assert_in_range(xn_cost_predict(&cost, 16), 2200 * US, 2400 * US);
}

static void test_cost_follows_a_change_even_from_nothing(void **state)
{
    struct xn_cost cost = {0};
    (void)state;

    for (uint32_t i = 0; i < 50; i++)
        xn_cost_observe(&cost, 4, 0);
    assert_int_equal(xn_cost_predict(&cost, 4), 1); /* measured, and next to nothing */
    for (uint32_t i = 0; i < 300; i++)
        xn_cost_observe(&cost, 4, MS);
    assert_in_range(xn_cost_predict(&cost, 4), 900 * US, 1000 * US);
}

/* ---- simulation --------------------------------------------------------------------------------------------------- */

#define SIM_ITEMS     4000u
#define SIM_MODELS    5u /* objects; slots are shared by pairs, as after a reload */
#define SIM_INSTANCES 4u

enum sim_state { SIM_NEW, SIM_WAITING, SIM_RUNNING, SIM_RUNNING_EXPIRED, SIM_SETTLED, SIM_REFUSED };

struct sim_instance {
    uint32_t inflight, n_running;
    struct { /* a ring, oldest first */
        struct xn_batch *batch;
        uint64_t exec_ns;
        bool fails;
    } running[XN_ACCEL_INFLIGHT_MAX];
    uint64_t end_ns;    /* of the oldest */
    uint64_t repair_ns; /* 0: healthy */
    uint64_t fixed_ns, per_image_ns;
};

struct sim {
    struct xn_sched *sched;
    struct xn_model models[SIM_MODELS];
    struct sim_instance instances[SIM_INSTANCES];
    uint32_t n_instances;
    struct xn_request *requests;
    struct xn_item *items;
    enum sim_state *states;
    uint32_t n_pushed, n_settled, n_refused, n_batches, n_failed;
    uint64_t now_ns, arrival_ns, fault_permille;
    bool saves; /* watts or joules are short */
};

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static void sim_settle(struct sim *s, uint32_t i)
{
    s->states[i] = SIM_SETTLED;
    s->n_settled++;
}

static void sim_expire(struct sim *s)
{
    struct xn_expired expired[3]; /* few, so that a handful is not all */
    uint32_t n;

    while ((n = xn_sched_expire(s->sched, s->now_ns, expired, 3)) > 0) {
        for (uint32_t k = 0; k < n; k++) {
            uint32_t i = (uint32_t)(expired[k].item - s->items);
            assert_true(s->now_ns <= s->requests[i].deadline_ns);
            assert_true(!expired[k].running || s->now_ns == s->requests[i].deadline_ns);
            assert_int_equal(s->states[i], expired[k].running ? SIM_RUNNING : SIM_WAITING);
            if (expired[k].running)
                s->states[i] = SIM_RUNNING_EXPIRED;
            else
                sim_settle(s, i);
        }
    }
}

static uint64_t sim_exec_ns(const struct sim_instance *instance, uint32_t n)
{
    uint64_t ns = instance->fixed_ns + n * instance->per_image_ns;

    return ns * (90 + random_below(20)) / 100 * (random_below(50) == 0 ? 8 : 1) + 1;
}

static void sim_start(struct sim *s, uint32_t index)
{
    struct sim_instance *instance = &s->instances[index];
    struct xn_batch *batch = xn_sched_next(s->sched, index, s->now_ns);

    assert_non_null(batch);
    assert_true(instance->repair_ns == 0 && instance->n_running < instance->inflight);
    assert_in_range(batch->n, 1, batch->model->max_batch);
    assert_non_null(batch->model->loaded[index]);
    for (uint32_t k = 0; k < batch->n; k++) {
        uint32_t i = (uint32_t)(batch->items[k] - s->items);
        assert_int_equal(s->states[i], SIM_WAITING);
        assert_ptr_equal(s->requests[i].model, batch->model);
        assert_true(s->requests[i].deadline_ns > s->now_ns);
        s->states[i] = SIM_RUNNING;
    }
    uint32_t at = instance->n_running++;
    instance->running[at].batch = batch;
    instance->running[at].fails = random_below(1000) < s->fault_permille;
    instance->running[at].exec_ns = instance->running[at].fails ? XN_NS_PER_S : sim_exec_ns(instance, batch->n);
    if (at == 0)
        instance->end_ns = s->now_ns + instance->running[0].exec_ns;
    s->n_batches++;
}

/* The oldest batch of `instance` ends: its items settle, or go again. */
static void sim_end_one(struct sim *s, struct sim_instance *instance, int status)
{
    struct xn_batch *batch = instance->running[0].batch;

    xn_sched_done(s->sched, batch, instance->running[0].exec_ns, status, s->now_ns);
    instance->n_running--;
    memmove(instance->running, instance->running + 1, instance->n_running * sizeof(instance->running[0]));
    if (instance->n_running > 0)
        instance->end_ns = s->now_ns + instance->running[0].exec_ns;
    for (uint32_t k = batch->n; k-- > 0;) {
        uint32_t i = (uint32_t)(batch->items[k] - s->items);
        assert_true(s->states[i] == SIM_RUNNING || s->states[i] == SIM_RUNNING_EXPIRED);
        if (status == 0 || s->states[i] == SIM_RUNNING_EXPIRED || ++batch->items[k]->attempts > 1) {
            sim_settle(s, i);
        } else {
            s->states[i] = SIM_WAITING;
            xn_sched_requeue(s->sched, batch->items[k]);
        }
    }
}

static void sim_end(struct sim *s, uint32_t index)
{
    struct sim_instance *instance = &s->instances[index];

    if (!instance->running[0].fails) {
        sim_end_one(s, instance, 0);
        return;
    }
    s->n_failed++;
    xn_sched_set_healthy(s->sched, index, false);
    instance->repair_ns = s->now_ns + 100 * MS;
    while (instance->n_running > 0)
        sim_end_one(s, instance, -ETIMEDOUT);
}

static void sim_arrive(struct sim *s)
{
    uint32_t i = s->n_pushed++;
    struct xn_model *model = &s->models[random_below(SIM_MODELS)];

    s->requests[i].model = model;
    s->requests[i].client = (uint32_t)random_below(3);
    s->requests[i].priority = (uint8_t)random_below(XN_PRIORITY_COUNT);
    s->requests[i].deadline_ns =
        random_below(3) == 0 ? XN_NEVER_NS : s->now_ns + 1 + random_below(random_below(2) ? 20 * MS : 500 * MS);
    s->items[i].request = &s->requests[i];
    bool room = xn_sched_depth(s->sched, model->slot) < model->queue_limit;
    int r = xn_sched_push(s->sched, &s->items[i], s->now_ns);
    assert_true(r == 0 || r == -ENOBUFS);
    assert_true(r < 0 || room);
    s->states[i] = r == 0 ? SIM_WAITING : SIM_REFUSED;
    s->n_refused += r < 0;
    if (random_below(4) == 0) { /* something more is on its way; the next push of this slot takes it back */
        struct xn_sched_ask ask = {.model = model, .n = 1, .deadline_ns = XN_NEVER_NS};
        uint64_t retry_ns;
        (void)!xn_sched_admit(s->sched, &ask, s->now_ns, &retry_ns);
    }
    /* Bursts: most arrive at once, some after a pause. */
    s->arrival_ns = s->now_ns + (random_below(8) ? random_below(200 * US) : random_below(20 * MS));
}

/* Does an item of another object wait in the queue of `model`, perhaps before it? */
static bool sim_slot_is_shared(const struct sim *s, const struct xn_model *model)
{
    for (uint32_t i = 0; i < s->n_pushed; i++) {
        if (s->states[i] == SIM_WAITING && s->requests[i].model != model && s->requests[i].model->slot == model->slot)
            return true;
    }
    return false;
}

/* No batch whose delay is over waits while all instances that could run it are idle. */
static void sim_check_delays(const struct sim *s)
{
    for (uint32_t i = 0; i < s->n_pushed; i++) {
        const struct xn_model *model = s->requests[i].model;
        bool all_idle = true, any = false;
        if (s->states[i] != SIM_WAITING || s->items[i].queued_ns + model->max_delay_us * US > s->now_ns)
            continue;
        for (uint32_t k = 0; k < s->n_instances; k++) {
            if (!model->loaded[k] || s->instances[k].repair_ns != 0)
                continue;
            any = true;
            all_idle = all_idle && s->instances[k].n_running == 0;
        }
        assert_false(any && all_idle && !sim_slot_is_shared(s, model));
    }
}

static void sim_pump(struct sim *s)
{
    uint32_t ready[SIM_INSTANCES];

    sim_expire(s);
    while (xn_sched_ready(s->sched, s->now_ns, ready, SIM_INSTANCES) > 0)
        sim_start(s, ready[0]);
    if (s->now_ns % 16 == 0 && !s->saves)
        sim_check_delays(s);
}

/* Run everything that is due now; false: nothing was. */
static bool sim_events(struct sim *s)
{
    bool any = false;

    for (uint32_t k = 0; k < s->n_instances; k++) {
        struct sim_instance *instance = &s->instances[k];
        if (instance->n_running > 0 && instance->end_ns <= s->now_ns) {
            sim_end(s, k);
            any = true;
        }
        if (instance->repair_ns != 0 && instance->repair_ns <= s->now_ns) {
            instance->repair_ns = 0;
            xn_sched_set_healthy(s->sched, k, true);
            any = true;
        }
    }
    if (s->n_pushed < SIM_ITEMS && s->arrival_ns <= s->now_ns) {
        sim_arrive(s);
        any = true;
    }
    return any;
}

static uint64_t sim_next_ns(const struct sim *s)
{
    uint64_t next_ns = xn_sched_wake_ns(s->sched, s->now_ns);

    assert_true(next_ns > s->now_ns); /* no live-lock */
    if (s->n_pushed < SIM_ITEMS)
        next_ns = XN_MIN(next_ns, s->arrival_ns);
    for (uint32_t k = 0; k < s->n_instances; k++) {
        if (s->instances[k].n_running > 0)
            next_ns = XN_MIN(next_ns, s->instances[k].end_ns);
        if (s->instances[k].repair_ns != 0)
            next_ns = XN_MIN(next_ns, s->instances[k].repair_ns);
    }
    return next_ns;
}

static void sim_init(struct sim *s)
{
    struct xn_sched_instance instances[SIM_INSTANCES];
    struct xn_sched_config config = {.n_instances = s->n_instances, .instances = instances, .queue_total = 300};

    s->saves = random_below(3) == 0;
    if (s->saves) {
        config.watts_cap = (double)(1 + random_below(30));
        config.watts_budget = (double)(1 + random_below(30));
        config.eco_delay_us = (uint32_t)random_below(5000);
    }
    for (uint32_t m = 0; m < SIM_MODELS; m++) {
        s->models[m] = model_of(m / 2, 1 + (uint32_t)random_below(32), (uint32_t)random_below(5000));
        s->models[m].queue_limit = 1 + (uint32_t)random_below(200);
        for (uint32_t k = 1; k < s->n_instances; k++) {
            if (random_below(4) == 0)
                s->models[m].loaded[k] = NULL;
        }
    }
    for (uint32_t k = 0; k < s->n_instances; k++) {
        s->instances[k].inflight = 1 + (uint32_t)random_below(3);
        instances[k] =
            (struct xn_sched_instance){.inflight = s->instances[k].inflight, .watts = (double)random_below(20)};
        s->instances[k].fixed_ns = 1 + random_below(MS);
        s->instances[k].per_image_ns = 1 + random_below(MS);
    }
    assert_int_equal(xn_sched_new(&config, &s->sched), 0);
    s->requests = calloc(SIM_ITEMS, sizeof(*s->requests));
    s->items = calloc(SIM_ITEMS, sizeof(*s->items));
    s->states = calloc(SIM_ITEMS, sizeof(*s->states));
    s->now_ns = s->arrival_ns = T0;
}

static void simulate(uint64_t seed)
{
    struct sim s = {.n_instances = 0};
    uint64_t steps = 0;

    random_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    s.n_instances = 1 + (uint32_t)random_below(SIM_INSTANCES);
    s.fault_permille = random_below(2) ? random_below(50) : 0;
    sim_init(&s);
    while (s.n_settled + s.n_refused < SIM_ITEMS) {
        assert_true(++steps < 100 * SIM_ITEMS);
        while (sim_events(&s))
            sim_pump(&s);
        sim_pump(&s);
        if (s.n_settled + s.n_refused == SIM_ITEMS)
            break;
        s.now_ns = sim_next_ns(&s);
        assert_true(s.now_ns != XN_NEVER_NS); /* something waits, so something will happen */
    }
    assert_true(xn_sched_is_empty(s.sched));
    assert_true(s.n_batches > 0);
    for (uint32_t i = 0; i < SIM_ITEMS; i++)
        assert_true(s.states[i] == SIM_SETTLED || s.states[i] == SIM_REFUSED);
    xn_sched_free(s.sched);
    free(s.requests);
    free(s.items);
    free(s.states);
}

static void test_simulation(void **state)
{
    uint64_t seed = xn_random_seed(1);
    (void)state;

    for (uint64_t i = 0; i < 20; i++) {
        printf("# simulation %" PRIu64 "\n", seed + i);
        simulate(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_instance_takes_a_lone_item),
        cmocka_unit_test(test_closes_by_delay),
        cmocka_unit_test(test_closes_when_full),
        cmocka_unit_test(test_closes_for_a_deadline),
        cmocka_unit_test(test_closes_when_nothing_more_is_announced),
        cmocka_unit_test(test_closes_when_batching_saves_nothing),
        cmocka_unit_test(test_closes_for_drain),
        cmocka_unit_test(test_old_and_new_object_of_a_slot_do_not_mix),
        cmocka_unit_test(test_oldest_model_first),
        cmocka_unit_test(test_fast_busy_instance_is_preferred_until_it_is_late),
        cmocka_unit_test(test_equal_instances_are_asked_a_batch_each),
        cmocka_unit_test(test_a_backlog_is_for_all),
        cmocka_unit_test(test_a_stalled_first_image_is_not_held_against_full_batches),
        cmocka_unit_test(test_quarantine_and_models_not_everywhere),
        cmocka_unit_test(test_expiry_waiting_and_running),
        cmocka_unit_test(test_bounds_and_announcements),
        cmocka_unit_test(test_configuration_is_checked),
        cmocka_unit_test(test_a_reloaded_model_is_measured_anew),
        cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_earliest_deadline_first_over_models),
        cmocka_unit_test(test_priority_goes_first_but_not_for_ever),
        cmocka_unit_test(test_a_flood_stands_behind_who_asks_for_little),
        cmocka_unit_test(test_what_cannot_be_done_in_time_is_refused),
        cmocka_unit_test(test_room_is_left_for_others),
        cmocka_unit_test(test_two_flows_have_a_third_each),
        cmocka_unit_test(test_low_priority_is_refused_first),
        cmocka_unit_test(test_what_is_too_late_is_given_up),
        cmocka_unit_test(test_batches_keep_the_deadlines_in_them),
        cmocka_unit_test(test_a_flow_is_served_in_its_order),
        cmocka_unit_test(test_a_tight_one_is_not_given_up_for_little),
        cmocka_unit_test(test_time_is_left_for_the_answer),
        cmocka_unit_test(test_the_next_batch_is_fetched_shortly_before),
        cmocka_unit_test(test_long_work_is_not_bound_before_tight_work),
        cmocka_unit_test(test_a_full_batch_goes_before_one_that_has_time),
        cmocka_unit_test(test_riders),
        cmocka_unit_test(test_preferred_sizes),
        cmocka_unit_test(test_the_cap_bounds_what_runs),
        cmocka_unit_test(test_the_budget_paces),
        cmocka_unit_test(test_thrift_within_deadlines),
        cmocka_unit_test(test_thrift_with_preferred_sizes),
        cmocka_unit_test(test_watts_are_learned_where_none_are_declared),
        cmocka_unit_test(test_unknown_watts_are_found_out),
        cmocka_unit_test(test_cost_learns_the_line_and_shrugs_at_a_stall),
        cmocka_unit_test(test_cost_keeps_its_parts_while_sizes_are_one),
        cmocka_unit_test(test_cost_follows_a_change_even_from_nothing),
        cmocka_unit_test(test_simulation),
    };

    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
