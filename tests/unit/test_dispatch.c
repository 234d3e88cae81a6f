/* SPDX-License-Identifier: Apache-2.0
 * Threads round the scheduler, over accelerators that do as they are told: answers, retry, quarantine and reset, deadlines while a device
 * hangs, drain, and shutdown with work left. Waits end by events; nothing is timed. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "daemon/sched/dispatch.h"
#include "tests/support/fake_accel.h"

#define REQUESTS 512u

/* Everything between a request and a fake accelerator. */
struct bed {
    struct xn_instances instances;
    struct xn_network network;
    struct xn_model model, reloaded;
    struct xn_requests *pool;
    struct xn_dispatch *dispatch;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_done, n_ok, n_unhealthy, n_healthy; /* guarded by lock */
    struct xn_request *requests[REQUESTS];
    uint32_t n_requests;
};

static struct bed bed;

static void on_done(struct xn_request *request)
{
    int status = 1;

    assert_true(xn_item_settled(&request->items[0], &status));
    pthread_mutex_lock(&bed.lock);
    bed.n_done++;
    bed.n_ok += status == 0;
    pthread_cond_broadcast(&bed.changed);
    pthread_mutex_unlock(&bed.lock);
}

static void on_health(void *user, uint32_t instance, bool healthy, const char *why)
{
    (void)user;
    (void)instance;
    (void)why;
    pthread_mutex_lock(&bed.lock);
    *(healthy ? &bed.n_healthy : &bed.n_unhealthy) += 1;
    pthread_cond_broadcast(&bed.changed);
    pthread_mutex_unlock(&bed.lock);
}

static bool on_energy(void *user, const struct xn_batch *batch, uint64_t end_ns, struct xn_energy *ret_energy)
{
    (void)user;
    assert_true(batch->n > 0 && end_ns > 0);
    *ret_energy = (struct xn_energy){.joules = 2.0, .active_j = 1.0, .source = XN_ENERGY_ESTIMATE};
    return true;
}

static void await_count(const uint32_t *count, uint32_t n)
{
    pthread_mutex_lock(&bed.lock);
    while (*count < n)
        pthread_cond_wait(&bed.changed, &bed.lock);
    pthread_mutex_unlock(&bed.lock);
}

static void bed_init(uint32_t n_instances, uint32_t inflight, uint32_t max_batch)
{
    static struct xn_config config;
    const struct xn_dispatch_hooks hooks = {.health = on_health, .energy = on_energy};
    char name[16];

    memset(&bed, 0, sizeof(bed));
    pthread_mutex_init(&bed.lock, NULL);
    pthread_cond_init(&bed.changed, NULL);
    config.limits.requests = REQUESTS;
    config.limits.images_per_request = 1;
    config.limits.body_bytes = 65536;
    config.limits.json_bytes = 65536;
    config.limits.buffer_bytes = 16u << 20;
    assert_int_equal(xn_requests_new(&config, &bed.pool), 0);
    bed.instances.n = n_instances;
    for (uint32_t i = 0; i < n_instances; i++) {
        snprintf(name, sizeof(name), "fake%u", (unsigned)i);
        bed.instances.accel[i] = fake_accel_new(name, inflight);
    }
    fake_model_init(&bed.model, &bed.network, &bed.instances, 0, max_batch, 0);
    fake_model_init(&bed.reloaded, &bed.network, &bed.instances, 0, max_batch, 0);
    assert_int_equal(xn_dispatch_new(&bed.instances, REQUESTS, NULL, &hooks, &bed.dispatch, NULL), 0);
}

static int push_item(struct xn_item *item)
{
    uint32_t taken = 2;
    int r = xn_dispatch_push(bed.dispatch, &item, 1, &taken);

    assert_int_equal(taken, r == 0);
    return r;
}

/* The item of a request of one, whose input is its number, with the queue's reference. */
static struct xn_item *new_item(struct xn_model *model, uint64_t deadline_ns)
{
    struct xn_request *request = xn_request_new(bed.pool);

    assert_non_null(request);
    bed.requests[bed.n_requests] = request;
    request->model = xn_model_ref(model);
    request->deadline_ns = deadline_ns;
    request->done = on_done;
    assert_int_equal(xn_request_items_init(request, 1), 0);
    *(uint8_t *)request->items[0].input = (uint8_t)bed.n_requests++;
    return &xn_request_ref(request)->items[0];
}

static void push(struct xn_model *model, uint64_t deadline_ns)
{
    assert_int_equal(push_item(new_item(model, deadline_ns)), 0);
}

static int status_of(uint32_t i)
{
    int status = 1;

    assert_true(xn_item_settled(&bed.requests[i]->items[0], &status));
    return status;
}

static void check_answer(uint32_t i)
{
    const struct xn_item *item = &bed.requests[i]->items[0];

    assert_int_equal(status_of(i), 0);
    for (uint32_t k = 0; k < FAKE_CLASSES; k++)
        assert_int_equal(item->logits[k], (uint8_t)i + k);
    assert_in_range(item->batch_size, 1, bed.model.max_batch);
    assert_true(item->queued_ns <= item->execute_start_ns && item->execute_start_ns <= item->execute_end_ns);
    assert_int_equal(item->exec_ns, 1000);
    assert_true(item->energy.joules * item->batch_size == 2.0 && item->energy.active_j * item->batch_size == 1.0 &&
                item->energy.source == XN_ENERGY_ESTIMATE);
}

/* Everything is given back: our references are the last. */
static void bed_done(void)
{
    xn_dispatch_free(bed.dispatch);
    assert_int_equal(bed.n_done, bed.n_requests);
    for (uint32_t i = 0; i < bed.n_requests; i++)
        xn_request_unref(bed.requests[i]);
    assert_int_equal(xn_requests_active(bed.pool), 0);
    assert_int_equal(atomic_load(&bed.model.refs), 1);
    xn_requests_free(bed.pool);
    for (uint32_t i = 0; i < bed.instances.n; i++)
        fake_accel_free(bed.instances.accel[i]);
    pthread_cond_destroy(&bed.changed);
    pthread_mutex_destroy(&bed.lock);
}

static void test_every_item_is_answered(void **state)
{
    struct xn_instance_status a, b;
    (void)state;

    bed_init(2, 2, 8);
    for (uint32_t i = 0; i < REQUESTS; i++)
        push(i < REQUESTS / 2 ? &bed.model : &bed.reloaded, XN_NEVER_NS); /* a reload while busy */
    await_count(&bed.n_done, REQUESTS);
    for (uint32_t i = 0; i < REQUESTS; i++)
        check_answer(i);
    assert_int_equal(xn_dispatch_drain(bed.dispatch, XN_NEVER_NS), 0);
    xn_dispatch_status(bed.dispatch, 0, &a);
    xn_dispatch_status(bed.dispatch, 1, &b);
    assert_int_equal(a.images + b.images, REQUESTS);
    assert_int_equal(a.busy_ns + b.busy_ns, 1000 * (a.batches + b.batches));
    bed_done();
}

static void test_a_failed_batch_runs_elsewhere(void **state)
{
    (void)state;

    bed_init(2, 1, 8);
    fake_accel_fail(bed.instances.accel[0], 1, -EIO);
    fake_accel_fail_resets(bed.instances.accel[0], FAKE_FOREVER);
    push(&bed.model, XN_NEVER_NS);
    await_count(&bed.n_done, 1);
    fake_accel_fail_resets(bed.instances.accel[0], 0);
    await_count(&bed.n_healthy, 1);
    check_answer(0);
    assert_int_equal(bed.requests[0]->items[0].attempts, 1);
    assert_int_equal(bed.requests[0]->items[0].instance, 1);
    assert_true(xn_dispatch_serving(bed.dispatch));
    struct xn_instance_status status;
    xn_dispatch_status(bed.dispatch, 0, &status);
    assert_int_equal(status.retries, 1);
    bed_done();
}

static void test_the_only_instance_fails_resets_and_serves_again(void **state)
{
    struct xn_instance_status status;
    (void)state;

    bed_init(1, 1, 8);
    fake_accel_fail(bed.instances.accel[0], 1, -ETIMEDOUT);
    fake_accel_fail_resets(bed.instances.accel[0], 1);
    push(&bed.model, XN_NEVER_NS);
    await_count(&bed.n_done, 1);
    assert_int_equal(status_of(0), -EIO);
    assert_non_null(strstr(bed.requests[0]->items[0].error.text, "fake0"));
    push(&bed.model, XN_NEVER_NS); /* waits for the reset */
    await_count(&bed.n_done, 2);
    check_answer(1);
    xn_dispatch_status(bed.dispatch, 0, &status);
    assert_true(status.healthy);
    assert_int_equal(status.failures, 1);
    assert_int_equal(status.retries, 0); /* there was nowhere else */
    assert_int_equal(status.quarantines, 1);
    assert_int_equal(status.resets, 1);
    assert_int_equal(status.reset_failures, 1);
    bed_done();
}

static void test_deadlines_hold_while_a_device_hangs(void **state)
{
    (void)state;

    bed_init(1, 1, 1);
    fake_accel_hold(bed.instances.accel[0]);
    push(&bed.model, xn_clock_now_ns() + 20 * XN_NS_PER_MS);
    fake_accel_await_submitted(bed.instances.accel[0], 1);
    push(&bed.model, xn_clock_now_ns() + 10 * XN_NS_PER_MS);
    await_count(&bed.n_done, 2); /* both, though the device has not moved */
    assert_int_equal(status_of(0), -ETIMEDOUT);
    assert_int_equal(status_of(1), -ETIMEDOUT);
    fake_accel_permit(bed.instances.accel[0], FAKE_FOREVER);
    assert_int_equal(xn_dispatch_drain(bed.dispatch, XN_NEVER_NS), 0);
    assert_int_equal(fake_accel_submitted(bed.instances.accel[0]), 1); /* the waiting one never started */
    bed_done();
}

static void test_drain_gives_up_at_its_deadline(void **state)
{
    (void)state;

    bed_init(1, 1, 1);
    fake_accel_hold(bed.instances.accel[0]);
    push(&bed.model, XN_NEVER_NS);
    fake_accel_await_submitted(bed.instances.accel[0], 1);
    assert_int_equal(xn_dispatch_drain(bed.dispatch, xn_clock_now_ns() + XN_NS_PER_MS), -ETIMEDOUT);
    fake_accel_permit(bed.instances.accel[0], FAKE_FOREVER);
    assert_int_equal(xn_dispatch_drain(bed.dispatch, XN_NEVER_NS), 0);
    check_answer(0);
    bed_done();
}

static void test_free_with_work_left(void **state)
{
    (void)state;

    bed_init(1, 1, 1);
    fake_accel_fail(bed.instances.accel[0], 1, -EIO);
    fake_accel_fail_resets(bed.instances.accel[0], FAKE_FOREVER);
    push(&bed.model, XN_NEVER_NS);
    await_count(&bed.n_done, 1);
    fake_accel_await_resets(bed.instances.accel[0], 2);
    assert_false(xn_dispatch_serving(bed.dispatch));
    push(&bed.model, XN_NEVER_NS);
    xn_dispatch_free(bed.dispatch);
    bed.dispatch = NULL;
    assert_int_equal(status_of(1), -ECANCELED);
    bed_done();
}

/* What a hung device may still write to stays until the dispatcher is freed, which is after the device was closed. */
static void test_a_hung_device_keeps_its_requests(void **state)
{
    (void)state;

    bed_init(1, 1, 1);
    fake_accel_fail(bed.instances.accel[0], 1, -ETIMEDOUT);
    fake_accel_fail_resets(bed.instances.accel[0], FAKE_FOREVER);
    push(&bed.model, XN_NEVER_NS);
    await_count(&bed.n_done, 1);
    assert_int_equal(status_of(0), -EIO);
    xn_dispatch_stop(bed.dispatch);
    xn_request_unref(bed.requests[0]); /* answered, and nobody's but the device's */
    assert_int_equal(xn_requests_active(bed.pool), 1);
    struct xn_request *late = xn_request_new(bed.pool);
    late->model = xn_model_ref(&bed.model);
    late->done = on_done;
    assert_int_equal(xn_request_items_init(late, 1), 0);
    assert_int_equal(push_item(&late->items[0]), -ECANCELED);
    assert_false(xn_dispatch_serving(bed.dispatch)); /* calls stay legal */
    xn_request_unref(late);
    xn_dispatch_free(bed.dispatch);
    bed.dispatch = NULL;
    assert_int_equal(xn_requests_active(bed.pool), 0);
    bed.n_requests = 0;
    bed.n_done = 0;
    bed_done();
}

/* The worker that waits for a batch starts the next one before that has ended, though it is not full: shortly before it should end. */
static void test_the_next_batch_starts_before_the_first_ends(void **state)
{
    (void)state;

    bed_init(1, 2, 8);
    fake_accel_predict(bed.instances.accel[0], 20 * XN_NS_PER_MS);
    xn_dispatch_learn(bed.dispatch, &bed.model);
    fake_accel_hold(bed.instances.accel[0]);
    push(&bed.model, XN_NEVER_NS);
    fake_accel_await_submitted(bed.instances.accel[0], 1);
    push(&bed.model, XN_NEVER_NS);
    fake_accel_await_submitted(bed.instances.accel[0], 2);
    assert_int_equal(bed.n_done, 0);
    fake_accel_permit(bed.instances.accel[0], FAKE_FOREVER);
    await_count(&bed.n_done, 2);
    check_answer(0);
    check_answer(1);
    bed_done();
}

/* What is pushed at once runs as one batch, though the instance was idle; what the queue has no room for stays the caller's. */
static void test_items_pushed_at_once(void **state)
{
    struct xn_item *items[5];
    struct xn_instance_status status;
    uint32_t taken = 0;
    (void)state;

    bed_init(1, 1, 8);
    bed.model.queue_limit = 3;
    for (size_t i = 0; i < XN_ARRAY_LEN(items); i++)
        items[i] = new_item(&bed.model, XN_NEVER_NS);
    assert_int_equal(xn_dispatch_push(bed.dispatch, items, XN_ARRAY_LEN(items), &taken), -ENOBUFS);
    assert_int_equal(taken, 3);
    await_count(&bed.n_done, 3);
    assert_int_equal(bed.n_ok, 3);
    for (uint32_t i = 0; i < 3; i++)
        check_answer(i);
    for (uint32_t i = 3; i < XN_ARRAY_LEN(items); i++) {
        xn_item_settle(items[i], -ENOBUFS, NULL);
        xn_request_unref(items[i]->request);
    }
    assert_int_equal(xn_dispatch_drain(bed.dispatch, XN_NEVER_NS), 0);
    xn_dispatch_status(bed.dispatch, 0, &status);
    assert_int_equal(status.batches, 1);
    bed_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_is_answered),
        cmocka_unit_test(test_a_failed_batch_runs_elsewhere),
        cmocka_unit_test(test_the_only_instance_fails_resets_and_serves_again),
        cmocka_unit_test(test_deadlines_hold_while_a_device_hangs),
        cmocka_unit_test(test_drain_gives_up_at_its_deadline),
        cmocka_unit_test(test_free_with_work_left),
        cmocka_unit_test(test_a_hung_device_keeps_its_requests),
        cmocka_unit_test(test_the_next_batch_starts_before_the_first_ends),
        cmocka_unit_test(test_items_pushed_at_once),
    };

    return cmocka_run_group_tests_name("dispatch", tests, NULL, NULL);
}
