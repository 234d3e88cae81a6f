/* SPDX-License-Identifier: Apache-2.0
 * One lock and one condition: every change is broadcast, every wait is a predicate loop, and nothing depends on time. */
#include "tests/support/fake_accel.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_accel {
    struct xn_accel_base base;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t submitted, in_flight, resets; /* guarded by lock, as all below */
    uint32_t loaded;
    uint32_t permits;                  /* jobs that may end; FAKE_FOREVER: all */
    uint32_t failures, reset_failures; /* to come */
    int failure_status;
    uint64_t predicted_ns;
    bool quarantined;
};

static struct fake_accel *fake_of(struct xn_accel *accel)
{
    return (struct fake_accel *)(void *)accel;
}

static int fake_load(struct xn_accel *accel, const struct xn_network *network, uint32_t max_batch,
                     struct xn_accel_model **ret_model, struct xn_error *error)
{
    struct fake_accel *fake = fake_of(accel);

    (void)max_batch;
    (void)error;
    pthread_mutex_lock(&fake->lock);
    fake->loaded++;
    pthread_mutex_unlock(&fake->lock);
    *ret_model = (struct xn_accel_model *)(uintptr_t)network; /* only that it is not NULL counts */
    return 0;
}

static void fake_unload(struct xn_accel *accel, struct xn_accel_model *model)
{
    struct fake_accel *fake = fake_of(accel);

    (void)model;
    pthread_mutex_lock(&fake->lock);
    fake->loaded--;
    pthread_mutex_unlock(&fake->lock);
}

static int fake_submit(struct xn_accel *accel, struct xn_accel_job *job, struct xn_error *error)
{
    struct fake_accel *fake = fake_of(accel);
    int r = 0;

    (void)job;
    pthread_mutex_lock(&fake->lock);
    if (fake->quarantined)
        r = -ESTALE;
    else if (fake->in_flight == fake->base.info.inflight_max)
        r = -EBUSY;
    else
        fake->in_flight++;
    fake->submitted += r == 0;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
    return r < 0 ? xn_error_set(error, r, "fake: cannot submit") : 0;
}

static void answer(struct xn_accel_job *job)
{
    for (uint32_t i = 0; i < job->batch; i++) {
        for (uint32_t k = 0; k < FAKE_CLASSES; k++)
            job->outputs[i][k] = *(const uint8_t *)job->inputs[i] + (int32_t)k;
    }
    job->exec_ns = 1000;
}

static int fake_wait(struct xn_accel *accel, struct xn_accel_job *job, uint64_t deadline_ns, struct xn_error *error)
{
    struct fake_accel *fake = fake_of(accel);
    int r = 0;

    (void)deadline_ns;
    pthread_mutex_lock(&fake->lock);
    while (fake->permits == 0)
        pthread_cond_wait(&fake->changed, &fake->lock);
    if (fake->permits != FAKE_FOREVER)
        fake->permits--;
    if (fake->failures > 0) {
        fake->failures -= fake->failures != FAKE_FOREVER;
        fake->quarantined = true;
        r = fake->failure_status;
    } else {
        fake->in_flight--;
    }
    pthread_mutex_unlock(&fake->lock);
    if (r < 0)
        return xn_error_set(error, r, "fake: failed as it was told");
    answer(job);
    return 0;
}

static int fake_poll(struct xn_accel *accel, struct xn_accel_job *job, uint64_t until_ns)
{
    struct fake_accel *fake = fake_of(accel);

    (void)job;
    (void)until_ns;
    pthread_mutex_lock(&fake->lock);
    int r = fake->permits == 0 ? -EAGAIN : 0;
    pthread_mutex_unlock(&fake->lock);
    return r;
}

static int fake_cost(struct xn_accel *accel, const struct xn_accel_model *model, uint32_t batch, uint64_t *ret_ns)
{
    struct fake_accel *fake = fake_of(accel);

    (void)model;
    (void)batch;
    pthread_mutex_lock(&fake->lock);
    *ret_ns = fake->predicted_ns;
    pthread_mutex_unlock(&fake->lock);
    return *ret_ns > 0 ? 0 : -ENODATA;
}

static int fake_reset(struct xn_accel *accel, struct xn_error *error)
{
    struct fake_accel *fake = fake_of(accel);
    int r = 0;

    pthread_mutex_lock(&fake->lock);
    fake->resets++;
    if (fake->reset_failures > 0) {
        fake->reset_failures -= fake->reset_failures != FAKE_FOREVER;
        r = -ETIMEDOUT;
    } else {
        fake->quarantined = false;
        fake->in_flight = 0;
    }
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
    return r < 0 ? xn_error_set(error, r, "fake: reset fails as it was told") : 0;
}

static const struct xn_accel_backend backend = {.kind = "fake",
                                                .load = fake_load,
                                                .unload = fake_unload,
                                                .submit = fake_submit,
                                                .wait = fake_wait,
                                                .poll = fake_poll,
                                                .cost = fake_cost,
                                                .reset = fake_reset};

struct xn_accel *fake_accel_new(const char *name, uint32_t inflight_max)
{
    struct fake_accel *fake = calloc(1, sizeof(*fake));

    if (!fake)
        abort();
    fake->base.backend = &backend;
    snprintf(fake->base.info.name, sizeof(fake->base.info.name), "%s", name);
    fake->base.info.inflight_max = inflight_max;
    fake->permits = FAKE_FOREVER;
    pthread_mutex_init(&fake->lock, NULL);
    pthread_cond_init(&fake->changed, NULL);
    return (struct xn_accel *)(void *)fake;
}

void fake_accel_free(struct xn_accel *accel)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_cond_destroy(&fake->changed);
    pthread_mutex_destroy(&fake->lock);
    free(fake);
}

void fake_accel_fail(struct xn_accel *accel, uint32_t n, int status)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    fake->failures = n;
    fake->failure_status = status;
    pthread_mutex_unlock(&fake->lock);
}

void fake_accel_fail_resets(struct xn_accel *accel, uint32_t n)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    fake->reset_failures = n;
    pthread_mutex_unlock(&fake->lock);
}

void fake_accel_predict(struct xn_accel *accel, uint64_t ns)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    fake->predicted_ns = ns;
    pthread_mutex_unlock(&fake->lock);
}

void fake_accel_hold(struct xn_accel *accel)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    fake->permits = 0;
    pthread_mutex_unlock(&fake->lock);
}

void fake_accel_permit(struct xn_accel *accel, uint32_t n)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    fake->permits = n == FAKE_FOREVER ? n : fake->permits + n;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}

static void await(struct fake_accel *fake, const uint32_t *count, uint32_t n)
{
    pthread_mutex_lock(&fake->lock);
    while (*count < n)
        pthread_cond_wait(&fake->changed, &fake->lock);
    pthread_mutex_unlock(&fake->lock);
}

void fake_accel_await_submitted(struct xn_accel *accel, uint32_t n)
{
    await(fake_of(accel), &fake_of(accel)->submitted, n);
}

void fake_accel_await_resets(struct xn_accel *accel, uint32_t n)
{
    await(fake_of(accel), &fake_of(accel)->resets, n);
}

uint32_t fake_accel_submitted(struct xn_accel *accel)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    uint32_t n = fake->submitted;
    pthread_mutex_unlock(&fake->lock);
    return n;
}

uint32_t fake_accel_loaded(struct xn_accel *accel)
{
    struct fake_accel *fake = fake_of(accel);

    pthread_mutex_lock(&fake->lock);
    uint32_t n = fake->loaded;
    pthread_mutex_unlock(&fake->lock);
    return n;
}

void fake_model_init(struct xn_model *model, struct xn_network *network, struct xn_instances *instances, uint32_t slot,
                     uint32_t max_batch, uint32_t max_delay_us)
{
    memset(network, 0, sizeof(*network));
    network->input_bytes = 1;
    network->n_classes = FAKE_CLASSES;
    memset(model, 0, sizeof(*model));
    atomic_init(&model->refs, 1); /* the caller's: never the last to go */
    model->name = "fake";
    model->network = network;
    model->instances = instances;
    model->slot = slot;
    model->max_batch = max_batch;
    model->max_delay_us = max_delay_us;
    model->queue_limit = 4096;
    for (uint32_t i = 0; i < instances->n; i++)
        model->loaded[i] = (struct xn_accel_model *)(void *)network; /* only that it is not NULL counts */
}
