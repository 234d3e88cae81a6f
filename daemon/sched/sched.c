/* SPDX-License-Identifier: Apache-2.0
 * The scheduler's state; sched.h says what it decides, choose.c and admit.c do.
 *
 * An item here is WAITING (in the queue of its model's slot, item->instance = NOWHERE) or RUNNING (in a batch). It enters by push or requeue, and leaves
 * by expire or evict (from WAITING) or by done (from RUNNING). WAITING, it is in its queue's heap by the time at which it is due, and, if it has a deadline, in
 * the queue's heap of deadlines; RUNNING, in the heap of deadlines of all that runs. expire takes it out of that, once.
 *
 * A queue may hold items of several model objects (an old one and its successor after a reload): a batch takes items of the oldest alone, which model->waiting counts.
 *
 * Invariants: total = sum of queue depths; bit s of `busy_slots` is set exactly when queue s is not empty; an instance's running <= inflight; the demand, and the flows
 * together, have the work of exactly the items that wait.
 *
 * There is no state for "this batch is closed": whether a batch closes, and on which instance it would start, is decided anew each time an instance asks. So a
 * batch goes on growing for as long as it waits, and every new fact (an instance freed, failed, slower than expected) counts at once. */
#include "daemon/sched/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/fault.h"

/* How long before an instance is free the next batch is fetched, besides what a batch costs before its first image; half of what runs at most. */
#define PREFETCH_NS (500 * XN_NS_PER_US)
/* A prediction is believed that is wrong by less than this factor. */
#define PREDICTION_MAX 16

_Static_assert(XN_CONFIG_MODELS_MAX <= 64, "busy_slots has a bit a slot");

const char *xn_close_reason_name(enum xn_close_reason reason)
{
    static const char *const names[] = {[XN_CLOSE_FULL] = "full",
                                        [XN_CLOSE_DELAY] = "delay",
                                        [XN_CLOSE_IDLE] = "idle",
                                        [XN_CLOSE_DEADLINE] = "deadline",
                                        [XN_CLOSE_DRAIN] = "drain"};

    return reason < XN_CLOSE_COUNT ? names[reason] : "unknown";
}

/* ---- queues ------------------------------------------------------------------------------------------------------- */

/* An item that comes again is the oldest: items that fail together come from the last to the first. */
static void list_insert(struct queue *q, struct xn_item *item, bool again)
{
    item->prev = again ? NULL : q->newest;
    item->next = again ? q->oldest : NULL;
    *(item->prev ? &item->prev->next : &q->oldest) = item;
    *(item->next ? &item->next->prev : &q->newest) = item;
}

static void list_remove(struct queue *q, struct xn_item *item)
{
    *(item->prev ? &item->prev->next : &q->oldest) = item->next;
    *(item->next ? &item->next->prev : &q->newest) = item->prev;
    item->next = item->prev = NULL;
}

static void queue_insert(struct xn_sched *s, struct xn_item *item, bool again)
{
    struct xn_model *model = item->request->model;
    struct queue *q = &s->queues[model->slot];

    item->instance = XN_SCHED_NOWHERE;
    xn_heap_insert(&q->due, &item->sched.due, model->generation, item->sched.due_ns, again);
    if (item->request->deadline_ns != XN_NEVER_NS)
        xn_heap_insert(&q->expiry, &item->sched.expiry, item->request->deadline_ns, 0, false);
    list_insert(q, item, again);
    q->depth++;
    model->waiting++;
    s->total++;
    s->busy_slots |= UINT64_C(1) << model->slot;
}

static void queue_remove(struct xn_sched *s, struct xn_item *item)
{
    struct xn_model *model = item->request->model;
    struct queue *q = &s->queues[model->slot];

    xn_heap_remove(&q->due, &item->sched.due);
    xn_heap_remove(&q->expiry, &item->sched.expiry);
    list_remove(q, item);
    xn_sched_discount(s, item);
    assert(q->depth > 0 && model->waiting > 0);
    model->waiting--;
    s->total--;
    if (--q->depth == 0)
        s->busy_slots &= ~(UINT64_C(1) << model->slot);
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static int init_instance(struct instance *instance, const struct xn_sched_instance *config)
{
    if (config->inflight < 1 || config->inflight > XN_ACCEL_INFLIGHT_MAX)
        return -EINVAL;
    instance->healthy = true;
    instance->inflight = config->inflight;
    instance->watts_declared = config->watts >= 0;
    instance->watts = instance->watts_declared ? config->watts : 0;
    instance->batches = xn_calloc(instance->inflight + 1, sizeof(*instance->batches));
    instance->cost = xn_calloc(XN_CONFIG_MODELS_MAX, sizeof(*instance->cost));
    return instance->batches && instance->cost ? 0 : -ENOMEM;
}

static int init(struct xn_sched *s, const struct xn_sched_config *config)
{
    s->n_instances = config->n_instances;
    s->soonest = (struct soonest){.ns = XN_NEVER_NS, .window_ns = XN_NEVER_NS, .since_ns = 0};
    s->queue_total = config->queue_total;
    s->watts_cap = config->watts_cap;
    s->watts_budget = s->joules = config->watts_budget;
    s->eco_delay_ns = config->watts_cap > 0 || config->watts_budget > 0 ? config->eco_delay_us * XN_NS_PER_US : 0;
    s->instances = xn_calloc(config->n_instances, sizeof(*s->instances));
    int r = s->instances ? xn_demand_new(&s->demand) : -ENOMEM;
    for (uint32_t i = 0; r >= 0 && i < config->n_instances; i++)
        r = init_instance(&s->instances[i], &config->instances[i]);
    if (r >= 0)
        xn_sched_find_least_watts(s);
    return r;
}

int xn_sched_new(const struct xn_sched_config *config, struct xn_sched **ret_sched)
{
    if (config->n_instances < 1 || config->n_instances > XN_INSTANCES_MAX || config->queue_total < 1 ||
        !(config->watts_cap >= 0) || !(config->watts_budget >= 0))
        return -EINVAL;
    struct xn_sched *s = xn_calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    int r = init(s, config);
    if (r < 0) {
        xn_sched_free(s);
        return r;
    }
    *ret_sched = s;
    return 0;
}

void xn_sched_free(struct xn_sched *sched)
{
    if (!sched)
        return;
    for (uint32_t i = 0; sched->instances && i < sched->n_instances; i++) {
        free(sched->instances[i].batches);
        free(sched->instances[i].cost);
    }
    free(sched->instances);
    xn_demand_free(sched->demand);
    free(sched);
}

/* ---- items come and go -------------------------------------------------------------------------------------------- */

static void retract(struct xn_sched *s, struct queue *q, uint32_t n)
{
    assert(q->announced >= n && s->announced_total >= n);
    q->announced -= n;
    s->announced_total -= n;
}

int xn_sched_push(struct xn_sched *sched, struct xn_item *item, uint64_t now_ns)
{
    const struct xn_model *model = item->request->model;
    struct queue *q = &sched->queues[model->slot];

    if (q->depth >= model->queue_limit || sched->total >= sched->queue_total)
        return -ENOBUFS;
    if (q->announced > 0)
        retract(sched, q, 1);
    item->queued_ns = now_ns;
    xn_sched_place(sched, item, now_ns);
    xn_sched_account(sched, item);
    queue_insert(sched, item, false);
    return 0;
}

void xn_sched_retract(struct xn_sched *sched, const struct xn_model *model, uint32_t n)
{
    retract(sched, &sched->queues[model->slot], n);
}

void xn_sched_requeue(struct xn_sched *sched, struct xn_item *item)
{
    xn_sched_account(sched, item);
    queue_insert(sched, item, true);
}

/* One image on the fastest instance is the least that an item takes; what is known of that is believed to three quarters. */
uint64_t xn_sched_late_ns(struct xn_sched *s, uint32_t slot, struct xn_item **ret_item)
{
    const struct queue *q = &s->queues[slot];

    if (!q->expiry.root)
        return XN_NEVER_NS;
    struct xn_item *item = xn_sched_expiry_item(q->expiry.root);
    uint64_t needs_ns = xn_sched_rate(s, item->request->model)->least_ns * 3 / 4;
    if (ret_item)
        *ret_item = item;
    return item->request->deadline_ns - XN_MIN(needs_ns, item->request->deadline_ns);
}

static struct xn_item *take_given_up(struct xn_sched *s)
{
    struct xn_item *item = s->given_up;

    s->given_up = item->next;
    item->next = NULL;
    return item;
}

static uint32_t expire_waiting(struct xn_sched *s, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    uint32_t n = 0;

    for (uint64_t slots = s->busy_slots; slots; slots &= slots - 1) {
        struct xn_item *item = NULL;
        while (n < max && xn_sched_late_ns(s, (uint32_t)__builtin_ctzll(slots), &item) <= now_ns) {
            queue_remove(s, item);
            ret_expired[n++] = (struct xn_expired){.item = item, .running = false};
        }
    }
    return n;
}

uint32_t xn_sched_expire(struct xn_sched *sched, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    uint32_t n = 0;

    while (n < max && sched->given_up)
        ret_expired[n++] = (struct xn_expired){.item = take_given_up(sched), .running = false};
    n += expire_waiting(sched, now_ns, ret_expired + n, max - n);
    while (n < max && sched->running.root && sched->running.root->major <= now_ns) {
        struct xn_item *item = xn_sched_expiry_item(sched->running.root);
        xn_heap_remove(&sched->running, &item->sched.expiry);
        ret_expired[n++] = (struct xn_expired){.item = item, .running = true};
    }
    return n;
}

struct xn_item *xn_sched_evict(struct xn_sched *sched)
{
    if (sched->given_up)
        return take_given_up(sched);
    if (!sched->busy_slots)
        return NULL;
    struct xn_item *item = xn_sched_first(&sched->queues[__builtin_ctzll(sched->busy_slots)]);
    queue_remove(sched, item);
    return item;
}

/* ---- batches ------------------------------------------------------------------------------------------------------ */

struct times {
    uint64_t start_ns;
    uint64_t until_ns; /* when it must have ended: the earliest deadline of its items, and what other models need */
};

/* Is there time for one more item in `batch`, and for the batch with it? The first one always goes. */
static bool fits(const struct xn_batch *batch, const struct xn_cost *cost, struct times *times, uint64_t deadline_ns)
{
    uint64_t until_ns = XN_MIN(times->until_ns, deadline_ns);

    if (batch->n > 0 && times->start_ns + xn_cost_predict(cost, batch->n + 1) > until_ns)
        return false;
    times->until_ns = until_ns;
    return true;
}

static void take_item(struct xn_sched *s, struct xn_batch *batch, struct xn_item *item)
{
    queue_remove(s, item);
    item->instance = batch->instance;
    batch->items[batch->n++] = item;
    if (item->request->deadline_ns != XN_NEVER_NS)
        xn_heap_insert(&s->running, &item->sched.expiry, item->request->deadline_ns, 0, false);
}

/* The last item of `batch` leaves it. */
static struct xn_item *untake_item(struct xn_sched *s, struct xn_batch *batch)
{
    struct xn_item *item = batch->items[--batch->n];

    xn_heap_remove(&s->running, &item->sched.expiry);
    item->instance = XN_SCHED_NOWHERE;
    return item;
}

static void put_back(struct xn_sched *s, struct xn_batch *batch)
{
    while (batch->n > 0)
        xn_sched_requeue(s, untake_item(s, batch));
}

/* Move what is due first into `batch`, up to `n` items, as long as all of them can be done in time. */
static void fill_in_time(struct xn_sched *s, struct xn_batch *batch, uint32_t n, struct times times)
{
    const struct xn_cost *cost = xn_sched_cost_of(&s->instances[batch->instance], batch->model);

    while (batch->n < n && batch->model->waiting > 0) {
        struct xn_item *item = xn_sched_first(&s->queues[batch->model->slot]);
        if (!fits(batch, cost, &times, xn_request_aim_ns(item->request)))
            break;
        take_item(s, batch, item);
    }
}

/* Move what is due first into `batch`, up to `n` items, but those that are to be done before end_ns: up to n of these are left out, linked by `next`, and returned. */
static struct xn_item *fill_without_tight(struct xn_sched *s, struct xn_batch *batch, uint32_t n, uint64_t end_ns)
{
    struct xn_item *tight = NULL;

    for (uint32_t n_tight = 0; batch->n < n && n_tight < n && batch->model->waiting > 0;) {
        struct xn_item *item = xn_sched_first(&s->queues[batch->model->slot]);
        take_item(s, batch, item);
        if (xn_request_aim_ns(item->request) >= end_ns)
            continue;
        (void)untake_item(s, batch);
        item->next = tight;
        tight = item;
        n_tight++;
    }
    return tight;
}

/* Images a ns. */
static double speed(const struct xn_cost *cost, uint32_t n)
{
    return n / (double)XN_MAX(xn_cost_predict(cost, n), 1);
}

/* `batch` holds fewer items than the `n` that it could, as there is no time for more before the earliest deadline among them. Where many wait a small batch costs those behind more than the
 * tight ones are worth, who make it small: without them the queue would go faster. Where that is more than admission has reserved they are given up. But not where less than a full batch waits and all are done in time all the same. */
static void give_up_tight(struct xn_sched *s, struct xn_batch *batch, uint32_t n, struct times times)
{
    const struct xn_cost *cost = xn_sched_cost_of(&s->instances[batch->instance], batch->model);
    double small_speed = speed(cost, batch->n);
    uint64_t small_ns = xn_cost_predict(cost, batch->n), end_ns = times.start_ns + xn_cost_predict(cost, n);

    if (n < batch->model->max_batch && xn_demand_slack_ns(s->demand, 0, times.start_ns + small_ns) >= 0)
        return;
    put_back(s, batch);
    struct xn_item *tight = fill_without_tight(s, batch, n, end_ns), *last = tight;
    if (batch->n == 0 || speed(cost, batch->n) <= small_speed * (1 + XN_SCHED_RESERVE)) {
        put_back(s, batch);
        for (struct xn_item *item = tight; item; item = tight) {
            tight = item->next;
            item->next = NULL;
            xn_sched_requeue(s, item);
        }
        fill_in_time(s, batch, n, times);
        return;
    }
    while (last && last->next)
        last = last->next;
    if (last) {
        last->next = s->given_up;
        s->given_up = tight;
    }
}

static void fill(struct xn_sched *s, struct xn_batch *batch, uint32_t n, struct times times)
{
    batch->n = 0;
    fill_in_time(s, batch, n, times);
    if (batch->n < n && batch->model->waiting > 0)
        give_up_tight(s, batch, XN_MIN(n, batch->n + batch->model->waiting), times);
    for (uint32_t i = 0; i < batch->n; i++)
        batch->items[i]->batch_size = batch->n;
}

struct xn_batch *xn_sched_next(struct xn_sched *sched, uint32_t instance_index, uint64_t now_ns)
{
    struct instance *instance = &sched->instances[instance_index];
    struct choice choice;

    if (!xn_sched_choose(sched, instance_index, now_ns, &choice))
        return NULL;
    struct xn_batch *batch = &instance->batches[instance->next_batch++ % (instance->inflight + 1)];
    batch->model = xn_sched_first(&sched->queues[choice.slot])->request->model;
    batch->instance = instance_index;
    batch->reason = choice.reason;
    batch->started_ns = now_ns;
    struct times times = {.start_ns = xn_sched_free_ns(instance, now_ns),
                          .until_ns = xn_sched_others_ns(sched, instance_index, choice.slot, now_ns)};
    fill(sched, batch, choice.n, times);
    batch->cost_ns = xn_cost_predict(xn_sched_cost_of(instance, batch->model), batch->n);
    batch->expected_ns = instance->measured[choice.slot] ? batch->cost_ns : 0;
    instance->free_ns = times.start_ns + batch->cost_ns;
    instance->left_ns += batch->cost_ns;
    instance->lead_ns =
        XN_MIN(PREFETCH_NS + (uint64_t)xn_sched_cost_of(instance, batch->model)->fixed_ns, batch->cost_ns / 2);
    xn_sched_spend(sched, instance, batch->cost_ns, now_ns);
    if (instance->running++ == 0)
        sched->running_watts += instance->drawn_watts = instance->watts;
    sched->running_total++;
    return batch;
}

/* The cost of `model` on `instance`, begun anew where it was of its predecessor; NULL: of its successor already, this is one of the last batches of a model that has been replaced. */
static struct xn_cost *own_cost(struct instance *instance, const struct xn_model *model)
{
    uint32_t slot = model->slot;

    if (model->generation < instance->generation[slot])
        return NULL;
    if (model->generation > instance->generation[slot]) {
        instance->generation[slot] = model->generation;
        instance->cost[slot] = (struct xn_cost){0};
        instance->measured[slot] = false;
    }
    return &instance->cost[slot];
}

void xn_sched_predict(struct xn_sched *sched, const struct xn_model *model, uint32_t instance, uint32_t n,
                      uint64_t exec_ns)
{
    struct xn_cost *cost = own_cost(&sched->instances[instance], model);

    if (cost)
        xn_cost_observe(cost, n, exec_ns);
    sched->rates[model->slot].stale = true;
}

/* The first batch may say that what was predicted is wrong altogether (simulations are slow): then it counts alone. */
static void measure(struct xn_sched *s, const struct xn_batch *batch, uint64_t exec_ns)
{
    struct instance *instance = &s->instances[batch->instance];
    uint32_t slot = batch->model->slot;
    struct xn_cost *cost = own_cost(instance, batch->model);

    if (!cost)
        return;
    if (!instance->measured[slot] && exec_ns / PREDICTION_MAX >= xn_cost_predict(cost, batch->n))
        *cost = (struct xn_cost){0};
    instance->measured[slot] = true;
    xn_cost_observe(cost, batch->n, exec_ns);
    s->rates[slot].stale = true;
}

void xn_sched_done(struct xn_sched *sched, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns)
{
    struct instance *instance = &sched->instances[batch->instance];

    assert(instance->running > 0);
    for (uint32_t i = 0; i < batch->n; i++)
        xn_heap_remove(&sched->running, &batch->items[i]->sched.expiry);
    instance->running--;
    sched->running_total--;
    /* What was believed of the one that ended is forgotten with it. */
    instance->left_ns -= batch->cost_ns;
    instance->free_ns = now_ns + instance->left_ns;
    if (instance->running == 0) {
        sched->running_watts -= instance->drawn_watts;
    }
    if (status >= 0)
        measure(sched, batch, exec_ns);
}

void xn_sched_set_healthy(struct xn_sched *sched, uint32_t instance, bool healthy)
{
    sched->instances[instance].healthy = healthy;
    for (uint32_t slot = 0; slot < XN_CONFIG_MODELS_MAX; slot++)
        sched->rates[slot].stale = true;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

void xn_sched_drain(struct xn_sched *sched)
{
    sched->draining = true;
}

bool xn_sched_is_empty(const struct xn_sched *sched)
{
    return sched->total == 0 && sched->running_total == 0 && !sched->given_up;
}

uint32_t xn_sched_depth(const struct xn_sched *sched, uint32_t slot)
{
    return sched->queues[slot].depth;
}

uint64_t xn_sched_cost_ns(const struct xn_sched *sched, uint32_t slot, uint32_t instance, uint32_t n)
{
    return xn_cost_predict(&sched->instances[instance].cost[slot], n);
}
