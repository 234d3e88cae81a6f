/* SPDX-License-Identifier: Apache-2.0
 * The batcher and scheduler; sched.h says what it decides.
 *
 * An item here is WAITING (in the queue of its model's slot, item->instance = NOWHERE) or RUNNING (in a batch). It enters by push or requeue, and leaves
 * by expire or evict (from WAITING) or by done (from RUNNING). Items with a deadline are also in one binary heap, by deadline, in both states, so
 * that the timer finds them wherever they are; expire takes them out of the heap, once.
 *
 * A queue may hold items of several model objects in a row (an old one and its successor after a reload): a batch takes a run of items of one object
 * from the front. `runs` counts the runs, so that the common case, one run, needs no scan.
 *
 * Invariants: total = sum of queue lengths; bit s of `busy_slots` is set exactly when queue s is not empty; an instance's running <= inflight.
 *
 * There is no state for "this batch is closed": whether a batch closes, and on which instance it would start, is decided anew by choose() each time an instance asks. So a
 * batch goes on growing for as long as it waits, and every new fact (an instance freed, failed, slower than expected) counts at once.
 *
 * Instances are ordered by expected completion, then by index: exactly one is first, and it alone does not decline. So a batch wakes one idle
 * instance and not all that are equal, and no two instances wait for one another. One that is late falls back in the order by itself. */
#include "daemon/sched/sched.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/sched/cost.h"

#define NOWHERE    UINT32_MAX
#define NOT_HEAPED UINT32_MAX

/* Safety margin for "waiting longer would miss the deadline": a quarter of the predicted time and this. */
#define DEADLINE_MARGIN_NS (500 * XN_NS_PER_US)
/* Waiting for one more image is worth it while the fixed part of a batch's cost is more than 1/16 of the whole. */
#define GAIN_SHARE 16.0
/* A prediction is believed that is wrong by less than this factor; a run is given up after a few times more (RUN_PATIENCE). */
#define PREDICTION_MAX 16

struct queue {
    struct xn_item *head, *tail;
    uint32_t depth;     /* items waiting */
    uint32_t runs;      /* consecutive runs of one model object */
    uint32_t announced; /* items on their way */
};

struct instance {
    bool healthy;
    uint32_t inflight, running;
    uint64_t free_ns;         /* when all that runs is expected to have ended */
    struct xn_batch *batches; /* [inflight + 1]: one may still be read after done */
    uint32_t next_batch;
    struct xn_cost cost[XN_CONFIG_MODELS_MAX];
    uint64_t generation[XN_CONFIG_MODELS_MAX]; /* of the model that `cost` was measured with */
};

struct xn_sched {
    struct instance *instances;
    uint32_t n_instances;
    uint32_t queue_total, total, announced_total, running_total;
    uint64_t busy_slots;
    bool draining;
    struct queue queues[XN_CONFIG_MODELS_MAX];
    struct xn_item **heap; /* [heap_capacity], by deadline */
    uint32_t heap_n, heap_capacity;
};

_Static_assert(XN_CONFIG_MODELS_MAX <= 64, "busy_slots has a bit a slot");
_Static_assert(XN_INSTANCES_MAX <= 64, "xn_sched_ready_instances has a bit an instance");

const char *xn_close_reason_name(enum xn_close_reason reason)
{
    static const char *const names[] = {[XN_CLOSE_FULL] = "full",
                                        [XN_CLOSE_DELAY] = "delay",
                                        [XN_CLOSE_IDLE] = "idle",
                                        [XN_CLOSE_DEADLINE] = "deadline",
                                        [XN_CLOSE_DRAIN] = "drain"};

    return reason < XN_CLOSE_COUNT ? names[reason] : "unknown";
}

/* ---- heap of deadlines -------------------------------------------------------------------------------------------- */

static void heap_put(struct xn_sched *s, uint32_t i, struct xn_item *item)
{
    s->heap[i] = item;
    item->heap_index = i;
}

static uint64_t heap_key(const struct xn_item *item)
{
    return item->request->deadline_ns;
}

static void heap_up(struct xn_sched *s, uint32_t i, struct xn_item *item)
{
    for (; i > 0 && heap_key(s->heap[(i - 1) / 2]) > heap_key(item); i = (i - 1) / 2)
        heap_put(s, i, s->heap[(i - 1) / 2]);
    heap_put(s, i, item);
}

static void heap_down(struct xn_sched *s, uint32_t i, struct xn_item *item)
{
    for (uint32_t child; (child = 2 * i + 1) < s->heap_n; i = child) {
        if (child + 1 < s->heap_n && heap_key(s->heap[child + 1]) < heap_key(s->heap[child]))
            child++;
        if (heap_key(s->heap[child]) >= heap_key(item))
            break;
        heap_put(s, i, s->heap[child]);
    }
    heap_put(s, i, item);
}

static void heap_add(struct xn_sched *s, struct xn_item *item)
{
    item->heap_index = NOT_HEAPED;
    if (item->request->deadline_ns == XN_NEVER_NS)
        return;
    assert(s->heap_n < s->heap_capacity);
    heap_up(s, s->heap_n++, item);
}

static void heap_remove(struct xn_sched *s, struct xn_item *item)
{
    uint32_t i = item->heap_index;

    if (i == NOT_HEAPED)
        return;
    struct xn_item *last = s->heap[--s->heap_n];
    item->heap_index = NOT_HEAPED;
    if (last == item)
        return;
    if (i > 0 && heap_key(s->heap[(i - 1) / 2]) > heap_key(last))
        heap_up(s, i, last);
    else
        heap_down(s, i, last);
}

/* ---- queues ------------------------------------------------------------------------------------------------------- */

static bool same_run(const struct xn_item *a, const struct xn_item *b)
{
    return a->request->model == b->request->model;
}

static void count_in(struct xn_sched *s, struct queue *q, struct xn_item *item)
{
    item->instance = NOWHERE;
    q->depth++;
    s->total++;
    s->busy_slots |= UINT64_C(1) << (q - s->queues);
}

static void queue_append(struct xn_sched *s, struct queue *q, struct xn_item *item)
{
    q->runs += !q->tail || !same_run(q->tail, item);
    item->next = NULL;
    item->prev = q->tail;
    *(q->tail ? &q->tail->next : &q->head) = item;
    q->tail = item;
    count_in(s, q, item);
}

static void queue_prepend(struct xn_sched *s, struct queue *q, struct xn_item *item)
{
    q->runs += !q->head || !same_run(q->head, item);
    item->prev = NULL;
    item->next = q->head;
    *(q->head ? &q->head->prev : &q->tail) = item;
    q->head = item;
    count_in(s, q, item);
}

/* Runs that end or merge when `item` goes. */
static uint32_t runs_lost(const struct xn_item *item)
{
    bool joins_prev = item->prev && same_run(item->prev, item);
    bool joins_next = item->next && same_run(item->next, item);

    if (joins_prev || joins_next)
        return 0;
    return item->prev && item->next && same_run(item->prev, item->next) ? 2 : 1;
}

static void queue_remove(struct xn_sched *s, struct xn_item *item)
{
    struct queue *q = &s->queues[item->request->model->slot];

    q->runs -= runs_lost(item);
    *(item->prev ? &item->prev->next : &q->head) = item->next;
    *(item->next ? &item->next->prev : &q->tail) = item->prev;
    item->next = item->prev = NULL;
    s->total--;
    if (--q->depth == 0)
        s->busy_slots &= ~(UINT64_C(1) << (q - s->queues));
}

/* Items that a batch from the front could hold now. */
static uint32_t batch_size(const struct queue *q)
{
    uint32_t max = q->head->request->model->max_batch, n = 0;

    if (q->runs == 1)
        return XN_MIN(q->depth, max);
    for (const struct xn_item *item = q->head; item && n < max && same_run(item, q->head); item = item->next)
        n++;
    return n;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static int init_instances(struct xn_sched *s, const struct xn_sched_config *config)
{
    uint32_t running_max = 0;

    for (uint32_t i = 0; i < config->n_instances; i++) {
        struct instance *instance = &s->instances[i];
        if (config->inflight[i] < 1 || config->inflight[i] > XN_ACCEL_INFLIGHT_MAX)
            return -EINVAL;
        instance->healthy = true;
        instance->inflight = config->inflight[i];
        instance->batches = xn_calloc(instance->inflight + 1, sizeof(*instance->batches));
        if (!instance->batches)
            return -ENOMEM;
        running_max += instance->inflight * XN_ACCEL_BATCH_MAX;
    }
    /* A requeue may exceed queue_total, a push may not: waiting and running items together never exceed this. */
    s->heap_capacity = config->queue_total + running_max;
    s->heap = xn_calloc(s->heap_capacity, sizeof(struct xn_item *));
    return s->heap ? 0 : -ENOMEM;
}

int xn_sched_new(const struct xn_sched_config *config, struct xn_sched **ret_sched)
{
    if (config->n_instances < 1 || config->n_instances > XN_INSTANCES_MAX || config->queue_total < 1)
        return -EINVAL;
    struct xn_sched *s = xn_calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->n_instances = config->n_instances;
    s->queue_total = config->queue_total;
    s->instances = xn_calloc(config->n_instances, sizeof(*s->instances));
    int r = s->instances ? init_instances(s, config) : -ENOMEM;
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
    for (uint32_t i = 0; sched->instances && i < sched->n_instances; i++)
        free(sched->instances[i].batches);
    free(sched->instances);
    free(sched->heap);
    free(sched);
}

/* ---- items come and go -------------------------------------------------------------------------------------------- */

void xn_sched_announce(struct xn_sched *sched, const struct xn_model *model, int count)
{
    struct queue *q = &sched->queues[model->slot];

    assert(count >= 0 || (q->announced >= (uint32_t)-count && sched->announced_total >= (uint32_t)-count));
    q->announced += (uint32_t)count; /* modular: a negative count takes back */
    sched->announced_total += (uint32_t)count;
}

bool xn_sched_has_room(const struct xn_sched *sched, const struct xn_model *model, uint32_t n)
{
    const struct queue *q = &sched->queues[model->slot];

    return (uint64_t)q->depth + q->announced + n <= model->queue_limit &&
           (uint64_t)sched->total + sched->announced_total + n <= sched->queue_total;
}

int xn_sched_push(struct xn_sched *sched, struct xn_item *item, uint64_t now_ns)
{
    const struct xn_model *model = item->request->model;
    struct queue *q = &sched->queues[model->slot];

    if (q->depth >= model->queue_limit || sched->total >= sched->queue_total)
        return -ENOBUFS;
    if (q->announced > 0)
        xn_sched_announce(sched, model, -1);
    item->queued_ns = now_ns;
    queue_append(sched, q, item);
    heap_add(sched, item);
    return 0;
}

void xn_sched_requeue(struct xn_sched *sched, struct xn_item *item)
{
    queue_prepend(sched, &sched->queues[item->request->model->slot], item);
    heap_add(sched, item);
}

uint32_t xn_sched_expire(struct xn_sched *sched, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    uint32_t n = 0;

    while (n < max && sched->heap_n > 0 && heap_key(sched->heap[0]) <= now_ns) {
        struct xn_item *item = sched->heap[0];
        bool running = item->instance != NOWHERE;
        heap_remove(sched, item);
        if (!running)
            queue_remove(sched, item);
        ret_expired[n++] = (struct xn_expired){.item = item, .running = running};
    }
    return n;
}

struct xn_item *xn_sched_evict(struct xn_sched *sched)
{
    if (!sched->busy_slots)
        return NULL;
    struct xn_item *item = sched->queues[__builtin_ctzll(sched->busy_slots)].head;
    heap_remove(sched, item);
    queue_remove(sched, item);
    return item;
}

/* ---- decisions ---------------------------------------------------------------------------------------------------- */

static bool usable(const struct instance *instance, uint32_t index, const struct xn_model *model)
{
    return instance->healthy && model->loaded[index];
}

/* When the instance is expected to have ended what it runs. One that is late is believed to need as long again as it is late already. */
static uint64_t expected_free_ns(const struct instance *instance, uint64_t now_ns)
{
    if (instance->running == 0)
        return now_ns;
    if (instance->free_ns > now_ns)
        return instance->free_ns;
    return now_ns + (now_ns - instance->free_ns) + 1; /* never now: an idle one comes first */
}

/* What was measured with this model; a model that was reloaded is another one, however it is called. */
static const struct xn_cost *cost_of(const struct instance *instance, const struct xn_model *model)
{
    static const struct xn_cost unmeasured;

    return instance->generation[model->slot] == model->generation ? &instance->cost[model->slot] : &unmeasured;
}

/* What the backend predicts is as good as two measurements: without it the first batch alone would say what others of any size cost, and where that is
 * too much by far the instance gets none of them any more, which would have told. Where the first batch took many times as long, it is the
 * prediction that is wrong (simulations are slow), and none. */
static struct xn_cost first_cost(const struct xn_batch *batch, uint64_t exec_ns)
{
    const struct xn_model_cost *predicted = &batch->model->cost[batch->instance];
    struct xn_cost cost = {0};

    if (predicted->full_ns) {
        xn_cost_observe(&cost, 1, predicted->one_ns);
        xn_cost_observe(&cost, batch->model->max_batch, predicted->full_ns);
    }
    return exec_ns / PREDICTION_MAX < xn_cost_predict(&cost, batch->n) ? cost : (struct xn_cost){0};
}

static void observe_cost(struct instance *instance, const struct xn_batch *batch, uint64_t exec_ns)
{
    uint32_t slot = batch->model->slot;

    if (batch->model->generation < instance->generation[slot])
        return; /* the last batches of a model that has been replaced */
    if (batch->model->generation > instance->generation[slot]) {
        instance->generation[slot] = batch->model->generation;
        instance->cost[slot] = first_cost(batch, exec_ns);
    }
    xn_cost_observe(&instance->cost[slot], batch->n, exec_ns);
}

static uint64_t completion_ns(const struct instance *instance, const struct xn_model *model, uint32_t n,
                              uint64_t now_ns)
{
    return expected_free_ns(instance, now_ns) + xn_cost_predict(cost_of(instance, model), n);
}

/* Another instance that comes before `index`: expected to complete sooner, or as soon and of a lower index. NOWHERE: there is none. */
static uint32_t better_instance(const struct xn_sched *s, uint32_t index, const struct xn_model *model, uint32_t n,
                                uint64_t now_ns)
{
    uint64_t best_ns = completion_ns(&s->instances[index], model, n, now_ns);
    uint32_t best = NOWHERE;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        const struct instance *other = &s->instances[i];
        if (i == index || !usable(other, i, model))
            continue;
        uint64_t other_ns = completion_ns(other, model, n, now_ns);
        if (other_ns < best_ns || (other_ns == best_ns && i < XN_MIN(index, best))) {
            best_ns = other_ns;
            best = i;
        }
    }
    return best;
}

#define BACKLOG_MAX 64u /* batches that are looked ahead */

/* Does `index` get one of the batches of `n` that wait in `q`, if each goes to the instance that would complete it first? Then it takes the front
 * one now, although another might be sooner with it: that one is about to have enough to do. With one batch this is better_instance. */
static bool gets_a_batch(const struct xn_sched *s, uint32_t index, const struct queue *q, uint32_t n, uint64_t now_ns)
{
    const struct xn_model *model = q->head->request->model;
    const uint32_t batches = XN_MIN((q->depth + n - 1) / n, BACKLOG_MAX);
    uint64_t cost_ns[XN_INSTANCES_MAX], end_ns[XN_INSTANCES_MAX]; /* of one more batch */

    for (uint32_t i = 0; i < s->n_instances; i++) {
        cost_ns[i] = xn_cost_predict(cost_of(&s->instances[i], model), n);
        end_ns[i] =
            usable(&s->instances[i], i, model) ? expected_free_ns(&s->instances[i], now_ns) + cost_ns[i] : XN_NEVER_NS;
    }
    for (uint32_t batch = 0; batch < batches; batch++) {
        uint32_t best = index;
        for (uint32_t i = 0; i < s->n_instances; i++)
            if (end_ns[i] < end_ns[best] || (end_ns[i] == end_ns[best] && i < best))
                best = i;
        if (best == index)
            return true;
        end_ns[best] += XN_MAX(cost_ns[best], 1);
    }
    return false;
}

/* The last moment to start `n` items from the front of `q` on `instance` with all deadlines kept, as far as it lies before `until_ns`; else
 * any later time. The earliest deadline of all items bounds it, so that the batch is mostly not looked through. */
static uint64_t latest_start_ns(const struct xn_sched *s, const struct queue *q, const struct instance *instance,
                                uint32_t n, uint64_t until_ns)
{
    uint64_t cost_ns = xn_cost_predict(cost_of(instance, q->head->request->model), n);
    uint64_t need_ns = cost_ns + cost_ns / 4 + DEADLINE_MARGIN_NS;
    uint64_t earliest_ns = XN_NEVER_NS;
    const struct xn_item *item = q->head;

    if (s->heap_n == 0 || heap_key(s->heap[0]) >= (need_ns < XN_NEVER_NS - until_ns ? until_ns + need_ns : XN_NEVER_NS))
        return XN_NEVER_NS;
    for (uint32_t i = 0; i < n; i++, item = item->next)
        earliest_ns = XN_MIN(earliest_ns, item->request->deadline_ns);
    if (earliest_ns == XN_NEVER_NS)
        return XN_NEVER_NS;
    return earliest_ns > need_ns ? earliest_ns - need_ns : 0;
}

static bool waiting_gains(const struct queue *q, const struct instance *instance, uint32_t n)
{
    const struct xn_cost *cost = cost_of(instance, q->head->request->model);

    return q->announced > 0 && cost->fixed_ns * GAIN_SHARE > cost->fixed_ns + n * cost->per_image_ns;
}

static uint64_t delay_end_ns(const struct queue *q)
{
    return q->head->queued_ns + q->head->request->model->max_delay_us * XN_NS_PER_US;
}

/* Would a batch of `n` from the front close now, asked by `instance`? */
static bool closes(const struct xn_sched *s, const struct queue *q, const struct instance *instance, uint32_t n,
                   uint64_t now_ns, enum xn_close_reason *ret_reason)
{
    if (n == q->head->request->model->max_batch)
        *ret_reason = XN_CLOSE_FULL;
    else if (s->draining)
        *ret_reason = XN_CLOSE_DRAIN;
    /* An instance that is still busy prefetches only what has to go anyway: until it is free a batch may grow at no cost. */
    else if (instance->running == 0 && !waiting_gains(q, instance, n))
        *ret_reason = XN_CLOSE_IDLE;
    else if (now_ns >= delay_end_ns(q))
        *ret_reason = XN_CLOSE_DELAY;
    else if (now_ns >= latest_start_ns(s, q, instance, n, now_ns + 1))
        *ret_reason = XN_CLOSE_DEADLINE;
    else
        return false;
    return true;
}

struct choice {
    uint32_t slot, n;
    enum xn_close_reason reason;
};

/* What `index` should start now: of all batches that close and that other instances would not complete sooner, the one whose first item is oldest. */
static bool choose(const struct xn_sched *s, uint32_t index, uint64_t now_ns, struct choice *ret_choice)
{
    const struct instance *instance = &s->instances[index];
    uint64_t oldest_ns = XN_NEVER_NS;

    if (!instance->healthy || instance->running == instance->inflight)
        return false;
    for (uint64_t slots = s->busy_slots; slots; slots &= slots - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(slots);
        const struct queue *q = &s->queues[slot];
        const struct xn_model *model = q->head->request->model;
        enum xn_close_reason reason;
        if (!model->loaded[index] || q->head->queued_ns >= oldest_ns)
            continue;
        uint32_t n = batch_size(q);
        if (!closes(s, q, instance, n, now_ns, &reason) || !gets_a_batch(s, index, q, n, now_ns))
            continue;
        oldest_ns = q->head->queued_ns;
        *ret_choice = (struct choice){.slot = slot, .n = n, .reason = reason};
    }
    return oldest_ns != XN_NEVER_NS;
}

struct xn_batch *xn_sched_next(struct xn_sched *sched, uint32_t instance_index, uint64_t now_ns)
{
    struct instance *instance = &sched->instances[instance_index];
    struct choice choice;

    if (!choose(sched, instance_index, now_ns, &choice))
        return NULL;
    struct queue *q = &sched->queues[choice.slot];
    struct xn_batch *batch = &instance->batches[instance->next_batch++ % (instance->inflight + 1)];
    batch->model = q->head->request->model;
    batch->instance = instance_index;
    batch->n = choice.n;
    batch->reason = choice.reason;
    batch->started_ns = now_ns;
    batch->expected_ns = xn_cost_predict(cost_of(instance, batch->model), choice.n);
    for (uint32_t i = 0; i < choice.n; i++) {
        struct xn_item *item = q->head;
        queue_remove(sched, item);
        item->instance = instance_index;
        item->batch_size = choice.n;
        batch->items[i] = item;
    }
    instance->free_ns = expected_free_ns(instance, now_ns) + batch->expected_ns;
    instance->running++;
    sched->running_total++;
    return batch;
}

void xn_sched_done(struct xn_sched *sched, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns)
{
    struct instance *instance = &sched->instances[batch->instance];

    assert(instance->running > 0);
    for (uint32_t i = 0; i < batch->n; i++)
        heap_remove(sched, batch->items[i]);
    instance->running--;
    sched->running_total--;
    if (instance->running == 0)
        instance->free_ns = now_ns;
    if (status >= 0)
        observe_cost(instance, batch, exec_ns);
}

uint64_t xn_sched_ready_instances(const struct xn_sched *sched, uint64_t now_ns)
{
    uint64_t ready = 0;
    struct choice choice;

    if (!sched->busy_slots)
        return 0;
    for (uint32_t i = 0; i < sched->n_instances; i++)
        ready |= (uint64_t)choose(sched, i, now_ns, &choice) << i;
    return ready;
}

/* When the decision about queue `q` may change by time alone. */
static uint64_t queue_wake_ns(const struct xn_sched *s, const struct queue *q, uint64_t now_ns)
{
    const struct xn_model *model = q->head->request->model;
    uint32_t n = batch_size(q);
    uint64_t wake_ns = XN_NEVER_NS;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        const struct instance *instance = &s->instances[i];
        enum xn_close_reason reason;
        if (!usable(instance, i, model) || instance->running == instance->inflight)
            continue;
        if (!closes(s, q, instance, n, now_ns, &reason)) {
            wake_ns = XN_MIN(wake_ns, delay_end_ns(q));
            wake_ns = XN_MIN(wake_ns, latest_start_ns(s, q, instance, n, wake_ns));
            continue;
        }
        if (gets_a_batch(s, i, q, n, now_ns))
            continue; /* it takes one now */
        /* It closes, but a busy instance is expected to be sooner: look again when that one should be free. (An idle one takes it now.) */
        uint32_t better = better_instance(s, i, model, n, now_ns);
        if (better != NOWHERE && s->instances[better].running > 0)
            wake_ns = XN_MIN(wake_ns, expected_free_ns(&s->instances[better], now_ns) + 1);
    }
    return wake_ns;
}

uint64_t xn_sched_wake_ns(const struct xn_sched *sched, uint64_t now_ns)
{
    uint64_t wake_ns = sched->heap_n > 0 ? heap_key(sched->heap[0]) : XN_NEVER_NS;

    for (uint64_t slots = sched->busy_slots; slots; slots &= slots - 1)
        wake_ns = XN_MIN(wake_ns, queue_wake_ns(sched, &sched->queues[__builtin_ctzll(slots)], now_ns));
    return wake_ns;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

void xn_sched_set_healthy(struct xn_sched *sched, uint32_t instance, bool healthy)
{
    sched->instances[instance].healthy = healthy;
}

bool xn_sched_can_run(const struct xn_sched *sched, const struct xn_model *model)
{
    for (uint32_t i = 0; i < sched->n_instances; i++) {
        if (usable(&sched->instances[i], i, model))
            return true;
    }
    return false;
}

void xn_sched_drain(struct xn_sched *sched)
{
    sched->draining = true;
}

bool xn_sched_is_empty(const struct xn_sched *sched)
{
    return sched->total == 0 && sched->running_total == 0;
}

uint32_t xn_sched_depth(const struct xn_sched *sched, uint32_t slot)
{
    return sched->queues[slot].depth;
}

uint64_t xn_sched_cost_ns(const struct xn_sched *sched, uint32_t slot, uint32_t instance, uint32_t n)
{
    return xn_cost_predict(&sched->instances[instance].cost[slot], n);
}
