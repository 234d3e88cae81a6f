/* SPDX-License-Identifier: Apache-2.0
 * Threads round the scheduler. A push takes `sched_lock`, queues, asks which instances have a batch now, and wakes those that sleep. Workers
 * take batches themselves: nobody hands them one, so a decision is always made with the newest facts.
 *
 * A worker:
 *
 *     take a batch while fewer than inflight_max run -> submit -> ... -> wait for the oldest -> settle its items
 *        \__ room for one more: wait until shortly before the instance is free, and look again: the next batch begins without a gap
 *        \__ none to take and none runs: sleep on `wake`      (first expire what is due, so that no batch starts with an answered item)
 *     failed (-EIO, -ETIMEDOUT): quarantine: the instance is unhealthy; its items go to another instance once, where there is one; reset with
 *     back-off until it works or the daemon stops; then healthy again
 *
 * Results are written to buffers of the worker and copied to the items when the batch succeeded: a device that hangs may still write when
 * its items have been answered, or run elsewhere. For the same reason the requests of a batch that timed out are held (`held`) until the reset.
 *
 * The request of an item is alive here because the queue, the batch, or the timer (by a reference of its own, taken under the lock) holds it. */
#include "daemon/sched/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "common/clock.h"
#include "common/fault.h"

/* A run is given up after this many times its predicted time, and not before the minimum. */
#define RUN_PATIENCE      20
#define RUN_MIN_NS        XN_NS_PER_S
#define RUN_UNMEASURED_NS (10 * XN_NS_PER_S)
#define RESET_MIN_NS      (100 * XN_NS_PER_MS)
#define RESET_MAX_NS      (30 * XN_NS_PER_S)
#define TIMER_IDLE_NS     XN_NS_PER_S /* the timer shows that it is alive at least this often */
#define EXPIRE_CHUNK      64
#define ATTEMPTS_MAX      2
#define WAKE_MAX          16 /* workers woken at once */

struct flight { /* one submitted batch */
    struct xn_batch *batch;
    struct xn_accel_job job;
    const void **inputs;    /* [XN_ACCEL_BATCH_MAX] */
    int32_t **outputs;      /* [XN_ACCEL_BATCH_MAX], into `logits` */
    int32_t *logits;        /* grows to the largest batch of the largest model, and stays */
    size_t logits_capacity; /* elements */
    uint64_t submitted_ns;
    struct xn_energy energy; /* once it ended */
};

struct worker {
    struct xn_dispatch *dispatch;
    struct xn_accel *accel;
    const struct xn_accel_backend *backend;
    uint32_t index;
    pthread_t thread;
    bool started;
    pthread_cond_t wake;                          /* with sched_lock */
    bool asleep;                                  /* guarded by sched_lock: waits for `wake` */
    struct flight flights[XN_ACCEL_INFLIGHT_MAX]; /* a ring: oldest at `first` */
    uint32_t first, n_flights, inflight_max;
    struct xn_request **held; /* requests that a hung device may still touch */
    uint32_t n_held;
    uint64_t reset_pause_ns;          /* before the last reset; 0: a batch has run since */
    struct xn_instance_status status; /* guarded by sched_lock */
    _Atomic uint64_t heartbeat_ns;    /* relaxed; XN_NEVER_NS: asleep or inside a device call */
};

struct xn_dispatch {
    struct xn_sched *sched; /* guarded by sched_lock */
    pthread_mutex_t sched_lock;
    bool stop;    /* guarded by sched_lock */
    bool stopped; /* xn_dispatch_stop has been called; its caller's thread only */
    uint32_t
        settling; /* guarded by sched_lock: batches and handfuls of expired items that left `sched` and are being settled */
    struct xn_dispatch_hooks hooks;
    struct worker *workers; /* [n_workers] */
    uint32_t n_workers;
    pthread_t timer;
    bool timer_started;
    pthread_cond_t timer_wake;           /* with sched_lock */
    uint64_t timer_wake_ns;              /* guarded by sched_lock: when the timer will look by itself */
    pthread_cond_t drained;              /* with sched_lock */
    _Atomic uint64_t timer_heartbeat_ns; /* relaxed */
};

static void alive(struct worker *w, uint64_t ns)
{
    atomic_store_explicit(&w->heartbeat_ns, ns, memory_order_relaxed);
}

/* ---- waking ------------------------------------------------------------------------------------------------------- */

/* Whom to wake; decided under the lock, done after it, so that the woken do not run into it. */
struct wakeup {
    uint32_t workers[WAKE_MAX]; /* [n] indices */
    uint32_t n;
    bool timer;
};

/* Workers that sleep and have a batch to take (each wakes those that come after it), and the timer if something is due before it would look by itself. */
static struct wakeup decide_locked(struct xn_dispatch *d, uint64_t now_ns)
{
    struct wakeup wakeup = {.n = 0};
    uint32_t ready[WAKE_MAX], n = xn_sched_ready(d->sched, now_ns, ready, WAKE_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct worker *w = &d->workers[ready[i]];
        if (w->asleep) {
            w->asleep = false;
            wakeup.workers[wakeup.n++] = ready[i];
        }
    }
    uint64_t due_ns = xn_sched_wake_ns(d->sched, now_ns);
    if (due_ns < d->timer_wake_ns) {
        d->timer_wake_ns = due_ns;
        wakeup.timer = true;
    }
    return wakeup;
}

static void wake(struct xn_dispatch *d, struct wakeup wakeup)
{
    for (uint32_t i = 0; i < wakeup.n; i++)
        pthread_cond_signal(&d->workers[wakeup.workers[i]].wake);
    if (wakeup.timer)
        pthread_cond_signal(&d->timer_wake);
}

/* Sleep until woken or until `until_ns`; sched_lock is held on entry and exit. */
static void sleep_locked(struct worker *w, uint64_t until_ns)
{
    struct xn_dispatch *d = w->dispatch;
    struct timespec until = xn_clock_timespec(until_ns);

    w->asleep = true;
    alive(w, XN_NEVER_NS);
    while (w->asleep && !d->stop) {
        if (until_ns == XN_NEVER_NS)
            pthread_cond_wait(&w->wake, &d->sched_lock);
        else if (pthread_cond_clockwait(&w->wake, &d->sched_lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT)
            break;
    }
    w->asleep = false;
    alive(w, xn_clock_now_ns());
}

static bool empty_locked(struct xn_dispatch *d)
{
    return d->settling == 0 && xn_sched_is_empty(d->sched);
}

/* Facts have changed: let whoever can act on them do so. `settled`: what was being settled now is. */
static void reconsider(struct xn_dispatch *d, bool settled)
{
    pthread_mutex_lock(&d->sched_lock);
    d->settling -= settled;
    struct wakeup wakeup = decide_locked(d, xn_clock_now_ns());
    if (empty_locked(d))
        pthread_cond_broadcast(&d->drained);
    pthread_mutex_unlock(&d->sched_lock);
    wake(d, wakeup);
}

/* ---- what becomes of items ---------------------------------------------------------------------------------------- */

static void release(struct xn_item *item, int status, const struct xn_error *error)
{
    struct xn_request *request = item->request;

    xn_item_settle(item, status, error);
    xn_request_unref(request);
}

static void settle_success(struct flight *f, uint64_t end_ns)
{
    const struct xn_batch *batch = f->batch;
    size_t logits_bytes = batch->model->network->n_classes * sizeof(int32_t);

    for (uint32_t i = 0; i < batch->n; i++) {
        struct xn_item *item = batch->items[i];
        int status;
        /* One that expired while it ran has been answered already: nobody reads its results. */
        if (!xn_item_settled(item, &status)) {
            memcpy(item->logits, f->outputs[i], logits_bytes);
            item->execute_start_ns = f->submitted_ns;
            item->execute_end_ns = end_ns;
            item->exec_ns = f->job.exec_ns;
            item->energy = f->energy;
            item->energy.joules /= batch->n; /* what is not known stays negative */
            item->energy.active_j /= batch->n;
        }
        release(item, 0, NULL);
    }
}

/* Items of a failed batch: again on another instance where there is one, else an honest error. */
static void settle_failure(struct worker *w, struct xn_batch *batch, const struct xn_error *why)
{
    struct xn_dispatch *d = w->dispatch;
    struct xn_error text;

    xn_error_set(&text, -EIO, "instance %s failed: %s", xn_accel_info(w->accel)->name, why->text);
    /* From the last to the first: each goes to the front of the queue. */
    for (uint32_t i = batch->n; i-- > 0;) {
        struct xn_item *item = batch->items[i];
        int status;
        bool again = ++item->attempts < ATTEMPTS_MAX && !xn_item_settled(item, &status);
        again = again && item->request->deadline_ns > xn_clock_now_ns();
        pthread_mutex_lock(&d->sched_lock);
        again = again && !d->stop && xn_sched_can_run(d->sched, item->request->model);
        if (again)
            xn_sched_requeue(d->sched, item);
        w->status.retries += again;
        pthread_mutex_unlock(&d->sched_lock);
        if (!again)
            release(item, -EIO, &text);
    }
    reconsider(d, true);
}

/* Settle what has expired. An item in a batch keeps its worker's reference; ours was taken under the lock. */
static void settle_expired(const struct xn_expired *expired, uint32_t n)
{
    struct xn_error error;

    for (uint32_t i = 0; i < n; i++) {
        struct xn_item *item = expired[i].item;
        xn_error_set(&error, -ETIMEDOUT,
                     "the deadline passed %s model %s; ask for more time with timeout_ms, or try again later",
                     expired[i].running ? "while an instance was running" : "while waiting for",
                     item->request->model->name);
        release(item, -ETIMEDOUT, &error);
    }
}

/* Settle a handful of items whose deadline has passed; the lock is given up meanwhile. False: there was none, and the lock was kept. */
static bool expire_some_locked(struct xn_dispatch *d, uint64_t now_ns)
{
    struct xn_expired expired[EXPIRE_CHUNK];
    uint32_t n = xn_sched_expire(d->sched, now_ns, expired, EXPIRE_CHUNK);

    if (n == 0)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (expired[i].running)
            (void)xn_request_ref(expired[i].item->request);
    }
    d->settling++;
    pthread_mutex_unlock(&d->sched_lock);
    settle_expired(expired, n);
    pthread_mutex_lock(&d->sched_lock);
    d->settling--;
    if (empty_locked(d))
        pthread_cond_broadcast(&d->drained);
    return true;
}

/* ---- worker: running batches -------------------------------------------------------------------------------------- */

/* Room for the batch's results. Grows at the first batch of a larger model, then never again. */
static int prepare_outputs(struct flight *f)
{
    const struct xn_batch *batch = f->batch;
    size_t classes = batch->model->network->n_classes;
    size_t need = classes * batch->model->max_batch;

    if (need > f->logits_capacity) {
        int32_t *grown = xn_calloc_aligned(need, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        free(f->logits);
        f->logits = grown;
        f->logits_capacity = need;
    }
    for (uint32_t i = 0; i < batch->n; i++) {
        f->inputs[i] = batch->items[i]->input;
        f->outputs[i] = f->logits + i * classes;
    }
    return 0;
}

static int submit(struct worker *w, struct flight *f, struct xn_error *error)
{
    const struct xn_dispatch *d = w->dispatch;
    int r = prepare_outputs(f);

    if (r < 0)
        return xn_error_set(error, r, "no memory for results");
    f->job = (struct xn_accel_job){
        .model = f->batch->model->loaded[w->index], .batch = f->batch->n, .inputs = f->inputs, .outputs = f->outputs};
    f->submitted_ns = xn_clock_now_ns();
    if (d->hooks.busy && w->n_flights == 0)
        d->hooks.busy(d->hooks.user, w->index, true, f->submitted_ns);
    return w->backend->submit(w->accel, &f->job, error);
}

static uint64_t run_deadline_ns(const struct flight *f)
{
    uint64_t expected_ns = f->batch->expected_ns;

    if (expected_ns == 0)
        return f->submitted_ns + RUN_UNMEASURED_NS;
    return f->submitted_ns + XN_MAX(RUN_MIN_NS, expected_ns * RUN_PATIENCE);
}

/* Teach the scheduler what an instance draws. An estimate comes from what the configuration declares, which it has; what is over idle is not known of one that was
 * never idle. */
static void learn_energy_locked(struct worker *w, const struct flight *f)
{
    const struct xn_energy *e = &f->energy;

    if (e->is_typical && e->source != XN_ENERGY_ESTIMATE)
        xn_sched_energy(w->dispatch->sched, w->index, e->active_j >= 0 ? e->active_j : e->joules, f->job.exec_ns);
}

/* Account for a batch that ended, for better or worse. */
static void finish(struct worker *w, struct flight *f, int status, uint64_t end_ns)
{
    struct xn_dispatch *d = w->dispatch;
    struct xn_batch *batch = f->batch;

    f->energy = (struct xn_energy){.joules = -1, .active_j = -1};
    bool is_known = d->hooks.energy && d->hooks.energy(d->hooks.user, batch, end_ns, &f->energy);
    if (d->hooks.busy && w->n_flights == 0)
        d->hooks.busy(d->hooks.user, w->index, false, end_ns);
    if (d->hooks.batch_done)
        d->hooks.batch_done(d->hooks.user, batch, f->job.exec_ns, status);
    pthread_mutex_lock(&d->sched_lock);
    xn_sched_done(d->sched, batch, f->job.exec_ns, status, end_ns);
    if (is_known && status >= 0)
        learn_energy_locked(w, f);
    d->settling++;
    w->status.busy_ns += f->job.exec_ns;
    w->status.batches++;
    w->status.images += batch->n;
    w->status.failures += status < 0;
    pthread_mutex_unlock(&d->sched_lock);
}

/* ---- worker: failure and reset ------------------------------------------------------------------------------------ */

/* The device may touch these buffers until it is reset. */
static void hold_requests(struct worker *w, const struct xn_batch *batch)
{
    for (uint32_t i = 0; i < batch->n; i++)
        w->held[w->n_held++] = xn_request_ref(batch->items[i]->request);
}

static void release_held(struct worker *w)
{
    while (w->n_held > 0)
        xn_request_unref(w->held[--w->n_held]);
}

static void set_healthy(struct worker *w, bool healthy, const char *why)
{
    struct xn_dispatch *d = w->dispatch;

    pthread_mutex_lock(&d->sched_lock);
    xn_sched_set_healthy(d->sched, w->index, healthy);
    w->status.healthy = healthy;
    w->status.resets += healthy;
    w->status.quarantines += !healthy;
    pthread_mutex_unlock(&d->sched_lock);
    if (d->hooks.health)
        d->hooks.health(d->hooks.user, w->index, healthy, why);
}

/* Wait `ns`; false: the daemon stops. */
static bool pause_worker(struct worker *w, uint64_t ns)
{
    struct xn_dispatch *d = w->dispatch;

    pthread_mutex_lock(&d->sched_lock);
    if (!d->stop)
        sleep_locked(w, xn_clock_now_ns() + ns);
    bool go_on = !d->stop;
    pthread_mutex_unlock(&d->sched_lock);
    return go_on;
}

/* A reset failed. Why is told once, and again when it is another reason than `said`. */
static void count_reset_failure(struct worker *w, const struct xn_error *error, struct xn_error *said)
{
    struct xn_dispatch *d = w->dispatch;
    struct xn_error why;

    pthread_mutex_lock(&d->sched_lock);
    w->status.reset_failures++;
    pthread_mutex_unlock(&d->sched_lock);
    if (strcmp(error->text, said->text) == 0)
        return;
    *said = *error;
    (void)xn_error_set(&why, -EIO, "its reset failed: %s", error->text);
    if (d->hooks.health)
        d->hooks.health(d->hooks.user, w->index, false, why.text);
}

/* Try to reset until it works; false: the daemon stops first. A pause comes first, so that the failed items go elsewhere, and the pauses grow
 * until a batch has run: an instance that resets well and fails every batch must not take item after item down with it. */
static bool reset(struct worker *w)
{
    struct xn_error said = {{0}};

    for (;;) {
        struct xn_error error = {{0}};
        w->reset_pause_ns = XN_MIN(XN_MAX(2 * w->reset_pause_ns, RESET_MIN_NS), RESET_MAX_NS);
        if (!pause_worker(w, w->reset_pause_ns))
            return false;
        alive(w, XN_NEVER_NS);
        int r = w->backend->reset(w->accel, &error);
        alive(w, xn_clock_now_ns());
        if (r >= 0)
            return true;
        count_reset_failure(w, &error, &said);
    }
}

/* Everything in flight has failed, `status` with the text `why`; the instance goes out of service until it has been reset. */
static void quarantine(struct worker *w, int status, const struct xn_error *why)
{
    uint64_t now_ns = xn_clock_now_ns();

    set_healthy(w, false, why->text);
    while (w->n_flights > 0) {
        struct flight *f = &w->flights[w->first];
        w->first = (w->first + 1) % w->inflight_max;
        w->n_flights--;
        f->job.exec_ns = now_ns - f->submitted_ns;
        hold_requests(w, f->batch);
        finish(w, f, status, now_ns);
        settle_failure(w, f->batch, why);
    }
    if (reset(w)) {
        release_held(w);
        set_healthy(w, true, "");
        reconsider(w->dispatch, false);
    }
}

/* ---- worker: its loop --------------------------------------------------------------------------------------------- */

static void start_batch(struct worker *w, struct xn_batch *batch)
{
    struct flight *f = &w->flights[(w->first + w->n_flights) % w->inflight_max];
    struct xn_error error = {{0}};

    f->batch = batch;
    alive(w, XN_NEVER_NS);
    int r = submit(w, f, &error);
    alive(w, xn_clock_now_ns());
    w->n_flights++;
    if (r < 0)
        quarantine(w, r, &error);
}

static void await_oldest(struct worker *w)
{
    struct flight *f = &w->flights[w->first];
    struct xn_error error = {{0}};

    alive(w, XN_NEVER_NS);
    int r = w->backend->wait(w->accel, &f->job, run_deadline_ns(f), &error);
    uint64_t end_ns = xn_clock_now_ns();
    alive(w, end_ns);
    if (r < 0) {
        quarantine(w, r, &error);
        return;
    }
    w->first = (w->first + 1) % w->inflight_max;
    w->n_flights--;
    finish(w, f, 0, end_ns);
    w->reset_pause_ns = 0;
    settle_success(f, end_ns);
    reconsider(w->dispatch, true);
}

/* While there is room for one more batch the device is waited for until it is time to fetch that. True: it is, and the oldest still runs. */
static bool time_to_look(struct worker *w)
{
    struct xn_dispatch *d = w->dispatch;

    if (!w->backend->poll || w->n_flights == w->inflight_max)
        return false;
    pthread_mutex_lock(&d->sched_lock);
    uint64_t look_ns = d->stop ? 0 : xn_sched_look_ns(d->sched, w->index);
    pthread_mutex_unlock(&d->sched_lock);
    if (look_ns <= xn_clock_now_ns())
        return false;
    alive(w, XN_NEVER_NS);
    int r = w->backend->poll(w->accel, &w->flights[w->first].job, look_ns);
    alive(w, xn_clock_now_ns());
    if (r != -EAGAIN)
        return false;
    pthread_mutex_lock(&d->sched_lock);
    if (!d->stop && look_ns > xn_clock_now_ns())
        sleep_locked(w, look_ns);
    pthread_mutex_unlock(&d->sched_lock);
    return true;
}

/* The next batch to start, or NULL: first wait for what is in flight. Sleeps while there is neither; false: stop. */
static bool take_batch(struct worker *w, struct xn_batch **ret_batch)
{
    struct xn_dispatch *d = w->dispatch;
    struct wakeup wakeup = {0};
    struct xn_batch *batch = NULL;

    pthread_mutex_lock(&d->sched_lock);
    while (!d->stop) {
        uint64_t now_ns = xn_clock_now_ns();
        if (expire_some_locked(d, now_ns))
            continue;
        if (w->n_flights < w->inflight_max)
            batch = xn_sched_next(d->sched, w->index, now_ns);
        if (batch)
            wakeup = decide_locked(d, now_ns); /* with this instance taken, others may be next in the order */
        if (batch || w->n_flights > 0)
            break;
        sleep_locked(w, XN_NEVER_NS);
    }
    bool go_on = !d->stop || w->n_flights > 0 || batch;
    pthread_mutex_unlock(&d->sched_lock);
    wake(d, wakeup);
    *ret_batch = batch;
    return go_on;
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    struct xn_batch *batch;

    while (take_batch(w, &batch)) {
        if (batch)
            start_batch(w, batch);
        else if (!time_to_look(w))
            await_oldest(w);
    }
    alive(w, XN_NEVER_NS);
    return NULL;
}

/* ---- timer -------------------------------------------------------------------------------------------------------- */

static void *timer_main(void *argument)
{
    struct xn_dispatch *d = argument;

    pthread_mutex_lock(&d->sched_lock);
    while (!d->stop) {
        uint64_t now_ns = xn_clock_now_ns();
        atomic_store_explicit(&d->timer_heartbeat_ns, now_ns, memory_order_relaxed);
        if (expire_some_locked(d, now_ns))
            continue;
        d->timer_wake_ns = now_ns + TIMER_IDLE_NS;
        struct wakeup wakeup = decide_locked(d, now_ns);
        wakeup.timer = false; /* that is this thread */
        wake(d, wakeup);
        struct timespec until = xn_clock_timespec(d->timer_wake_ns);
        if (d->timer_wake_ns > now_ns)
            pthread_cond_clockwait(&d->timer_wake, &d->sched_lock, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&d->sched_lock);
    return NULL;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static int init_worker(struct xn_dispatch *d, uint32_t index, struct xn_accel *accel)
{
    struct worker *w = &d->workers[index];

    w->dispatch = d;
    w->accel = accel;
    w->backend = xn_accel_backend(accel);
    w->index = index;
    w->inflight_max = xn_accel_info(accel)->inflight_max;
    w->status.healthy = true;
    pthread_cond_init(&w->wake, NULL);
    alive(w, XN_NEVER_NS);
    for (uint32_t i = 0; i < w->inflight_max; i++) {
        w->flights[i].inputs = xn_calloc(XN_ACCEL_BATCH_MAX, sizeof(void *));
        w->flights[i].outputs = xn_calloc(XN_ACCEL_BATCH_MAX, sizeof(int32_t *));
        if (!w->flights[i].inputs || !w->flights[i].outputs)
            return -ENOMEM;
    }
    w->held = xn_calloc((size_t)w->inflight_max * XN_ACCEL_BATCH_MAX, sizeof(struct xn_request *));
    return w->held ? 0 : -ENOMEM;
}

static int start_threads(struct xn_dispatch *d)
{
    char name[16];
    int r = pthread_create(&d->timer, NULL, timer_main, d);

    if (r != 0)
        return -r;
    d->timer_started = true;
    pthread_setname_np(d->timer, "xn-timer");
    for (uint32_t i = 0; i < d->n_workers; i++) {
        r = pthread_create(&d->workers[i].thread, NULL, worker_main, &d->workers[i]);
        if (r != 0)
            return -r;
        d->workers[i].started = true;
        snprintf(name, sizeof(name), "xn-accel-%u", (unsigned)(i % 100));
        pthread_setname_np(d->workers[i].thread, name);
    }
    return 0;
}

/* Watts that an instance draws more while it runs, as declared; < 0: not declared. */
static double declared_watts(const struct xn_config_accelerator *config, const struct xn_instances *instances)
{
    uint32_t n = 0;

    if (!config || config->busy_watts < 0 || config->idle_watts < 0)
        return -1;
    for (uint32_t i = 0; i < instances->n; i++)
        n += instances->config[i] == config;
    return fmax(config->busy_watts - config->idle_watts, 0) / n;
}

static int new_sched(struct xn_dispatch *d, const struct xn_instances *instances, uint32_t queue_total,
                     const struct xn_config *config)
{
    struct xn_sched_instance *each = xn_calloc(instances->n, sizeof(*each));
    struct xn_sched_config sched = {.n_instances = instances->n, .instances = each, .queue_total = queue_total};

    if (!each)
        return -ENOMEM;
    if (config) {
        sched.watts_cap = fmax(config->eco.watts_cap, 0);
        sched.watts_budget = fmax(config->eco.watts_budget, 0);
        sched.eco_delay_us = config->eco.delay_us;
    }
    for (uint32_t i = 0; i < instances->n; i++)
        each[i] = (struct xn_sched_instance){.inflight = xn_accel_info(instances->accel[i])->inflight_max,
                                             .watts = declared_watts(instances->config[i], instances)};
    int r = xn_sched_new(&sched, &d->sched);
    free(each);
    return r;
}

static int init(struct xn_dispatch *d, struct xn_instances *instances, uint32_t queue_total,
                const struct xn_config *config)
{
    int r = new_sched(d, instances, queue_total, config);
    if (r < 0)
        return r;
    d->workers = xn_calloc(instances->n, sizeof(*d->workers));
    if (!d->workers)
        return -ENOMEM;
    for (d->n_workers = 0; r >= 0 && d->n_workers < instances->n; d->n_workers++)
        r = init_worker(d, d->n_workers, instances->accel[d->n_workers]);
    return r < 0 ? r : start_threads(d);
}

int xn_dispatch_new(struct xn_instances *instances, uint32_t queue_total, const struct xn_config *config,
                    const struct xn_dispatch_hooks *hooks, struct xn_dispatch **ret_dispatch, struct xn_error *error)
{
    struct xn_dispatch *d = xn_calloc(1, sizeof(*d));

    if (!d)
        return xn_error_set(error, -ENOMEM, "scheduler: no memory");
    pthread_mutex_init(&d->sched_lock, NULL);
    pthread_cond_init(&d->timer_wake, NULL);
    pthread_cond_init(&d->drained, NULL);
    if (hooks)
        d->hooks = *hooks;
    atomic_store_explicit(&d->timer_heartbeat_ns, xn_clock_now_ns(), memory_order_relaxed);
    int r = init(d, instances, queue_total, config);
    if (r < 0) {
        xn_dispatch_free(d);
        return xn_error_set(error, r, "scheduler for %u instances and %u waiting images: %s", instances->n, queue_total,
                            strerror(-r));
    }
    *ret_dispatch = d;
    return 0;
}

static void free_worker(struct worker *w)
{
    release_held(w);
    pthread_cond_destroy(&w->wake);
    free(w->held);
    for (uint32_t i = 0; i < w->inflight_max; i++) {
        free(w->flights[i].inputs);
        free(w->flights[i].outputs);
        free(w->flights[i].logits);
    }
}

static void stop_threads(struct xn_dispatch *d)
{
    pthread_mutex_lock(&d->sched_lock);
    d->stop = true;
    pthread_cond_broadcast(&d->timer_wake);
    for (uint32_t i = 0; i < d->n_workers; i++)
        pthread_cond_broadcast(&d->workers[i].wake);
    pthread_mutex_unlock(&d->sched_lock);
    for (uint32_t i = 0; i < d->n_workers; i++) {
        if (d->workers[i].started)
            pthread_join(d->workers[i].thread, NULL);
    }
    if (d->timer_started)
        pthread_join(d->timer, NULL);
}

void xn_dispatch_stop(struct xn_dispatch *dispatch)
{
    struct xn_error error;

    if (!dispatch || dispatch->stopped)
        return;
    dispatch->stopped = true;
    stop_threads(dispatch);
    xn_error_set(&error, -ECANCELED, "the server is stopping");
    for (;;) {
        pthread_mutex_lock(&dispatch->sched_lock);
        struct xn_item *item = dispatch->sched ? xn_sched_evict(dispatch->sched) : NULL;
        pthread_mutex_unlock(&dispatch->sched_lock);
        if (!item)
            break;
        release(item, -ECANCELED, &error);
    }
}

void xn_dispatch_free(struct xn_dispatch *dispatch)
{
    if (!dispatch)
        return;
    xn_dispatch_stop(dispatch);
    for (uint32_t i = 0; i < dispatch->n_workers; i++)
        free_worker(&dispatch->workers[i]);
    free(dispatch->workers);
    xn_sched_free(dispatch->sched);
    pthread_cond_destroy(&dispatch->drained);
    pthread_cond_destroy(&dispatch->timer_wake);
    pthread_mutex_destroy(&dispatch->sched_lock);
    free(dispatch);
}

/* ---- calls from other threads ------------------------------------------------------------------------------------- */

int xn_dispatch_admit(struct xn_dispatch *dispatch, const struct xn_sched_ask *ask, uint64_t *ret_retry_ns)
{
    uint64_t now_ns = xn_clock_now_ns();

    pthread_mutex_lock(&dispatch->sched_lock);
    int r = xn_sched_admit(dispatch->sched, ask, now_ns, ret_retry_ns);
    pthread_mutex_unlock(&dispatch->sched_lock);
    return r;
}

void xn_dispatch_retract(struct xn_dispatch *dispatch, const struct xn_model *model, uint32_t n)
{
    pthread_mutex_lock(&dispatch->sched_lock);
    xn_sched_retract(dispatch->sched, model, n);
    pthread_mutex_unlock(&dispatch->sched_lock);
    /* With fewer on their way a batch may have nothing left to wait for. */
    reconsider(dispatch, false);
}

/* What instance `w` predicts of `model`, for one image and a full batch: two points of the line. */
static void learn_instance(struct worker *w, const struct xn_model *model)
{
    const uint32_t sizes[] = {1, model->max_batch};
    struct xn_dispatch *d = w->dispatch;

    for (size_t i = 0; i < XN_ARRAY_LEN(sizes); i++) {
        uint64_t ns;
        if (w->backend->cost(w->accel, model->loaded[w->index], sizes[i], &ns) < 0 || ns == 0)
            continue;
        pthread_mutex_lock(&d->sched_lock);
        xn_sched_predict(d->sched, model, w->index, sizes[i], ns);
        pthread_mutex_unlock(&d->sched_lock);
    }
}

void xn_dispatch_learn(struct xn_dispatch *dispatch, const struct xn_model *model)
{
    for (uint32_t i = 0; i < dispatch->n_workers; i++) {
        struct worker *w = &dispatch->workers[i];
        if (w->backend->cost && model->loaded[i])
            learn_instance(w, model);
    }
}

int xn_dispatch_push(struct xn_dispatch *dispatch, struct xn_item *const *items, uint32_t n, uint32_t *ret_taken)
{
    struct wakeup wakeup = {0};
    uint64_t now_ns = xn_clock_now_ns();
    uint32_t taken = 0;

    pthread_mutex_lock(&dispatch->sched_lock);
    int r = dispatch->stop ? -ECANCELED : 0;
    while (r >= 0 && taken < n) {
        r = xn_sched_push(dispatch->sched, items[taken], now_ns);
        taken += r >= 0;
    }
    if (taken > 0)
        wakeup = decide_locked(dispatch, now_ns);
    pthread_mutex_unlock(&dispatch->sched_lock);
    wake(dispatch, wakeup);
    *ret_taken = taken;
    return r;
}

uint32_t xn_dispatch_depth(struct xn_dispatch *dispatch, uint32_t slot)
{
    pthread_mutex_lock(&dispatch->sched_lock);
    uint32_t depth = xn_sched_depth(dispatch->sched, slot);
    pthread_mutex_unlock(&dispatch->sched_lock);
    return depth;
}

void xn_dispatch_status(struct xn_dispatch *dispatch, uint32_t instance, struct xn_instance_status *ret_status)
{
    pthread_mutex_lock(&dispatch->sched_lock);
    *ret_status = dispatch->workers[instance].status;
    pthread_mutex_unlock(&dispatch->sched_lock);
}

bool xn_dispatch_serving(struct xn_dispatch *dispatch)
{
    bool serving = false;

    pthread_mutex_lock(&dispatch->sched_lock);
    for (uint32_t i = 0; i < dispatch->n_workers; i++)
        serving = serving || dispatch->workers[i].status.healthy;
    pthread_mutex_unlock(&dispatch->sched_lock);
    return serving;
}

uint64_t xn_dispatch_heartbeat_ns(struct xn_dispatch *dispatch)
{
    uint64_t oldest_ns = atomic_load_explicit(&dispatch->timer_heartbeat_ns, memory_order_relaxed);

    for (uint32_t i = 0; i < dispatch->n_workers; i++) {
        uint64_t ns = atomic_load_explicit(&dispatch->workers[i].heartbeat_ns, memory_order_relaxed);
        oldest_ns = XN_MIN(oldest_ns, ns);
    }
    return oldest_ns;
}

int xn_dispatch_drain(struct xn_dispatch *dispatch, uint64_t deadline_ns)
{
    struct timespec until = xn_clock_timespec(deadline_ns);
    int r = 0;

    pthread_mutex_lock(&dispatch->sched_lock);
    xn_sched_drain(dispatch->sched);
    struct wakeup wakeup = decide_locked(dispatch, xn_clock_now_ns());
    pthread_mutex_unlock(&dispatch->sched_lock);
    wake(dispatch, wakeup);
    pthread_mutex_lock(&dispatch->sched_lock);
    while (r == 0 && !empty_locked(dispatch))
        r = pthread_cond_clockwait(&dispatch->drained, &dispatch->sched_lock, CLOCK_MONOTONIC, &until);
    bool empty = empty_locked(dispatch);
    pthread_mutex_unlock(&dispatch->sched_lock);
    return empty ? 0 : -ETIMEDOUT;
}
