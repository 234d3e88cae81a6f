/* SPDX-License-Identifier: Apache-2.0
 * How peers batch and schedule, from their documentation and sources, in this simulator's terms. What they share: a queue for each model with a limit, no admission by deadline, no notice
 * of a client's deadline once a batch runs, and whichever instance is free takes the next batch (the first of them; of several models that which waits longest).
 *
 * Triton (dynamic batcher). In order of priority, then arrival. A free instance takes a batch as soon as max_batch (or preferred) requests wait, or the oldest has waited max_queue_delay; it
 * takes as many as there are. A request whose queue time-out has passed is rejected, but only when an instance comes for a batch.
 *
 * Clipper. In order of the end of the latency objective, which counts from arrival; what has passed that is dropped when a replica comes for a batch. A replica takes up to its own batch size at
 * once (or after a batch delay): that grows by a step with each batch of that size that ran no longer than the objective, and shrinks by a tenth with each that did (AIMD).
 *
 * AMD (soft batcher). In order of arrival, cut into batches whether an instance is free or not: a batch closes with its size or a time after its first request.
 * Batches wait in order for a worker. Nothing times out. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

enum kind { TRITON, CLIPPER, AMD };

struct queue {
    struct xn_heap items,
        arrivals; /* in order of service; by arrival, for the oldest (both by nodes that daemon/sched does not use here) */
    const struct xn_model *model; /* of what came last */
    uint32_t depth, announced;
    uint64_t group;    /* AMD: the batch that is being gathered */
    uint32_t group_n;  /* items in it */
    uint64_t group_ns; /* when its first item came */
};

struct replica {
    uint32_t running;
    bool healthy;
    struct xn_batch *batches; /* [inflight + 1] */
    uint32_t next_batch;
    double limit[SIM_MODELS_MAX]; /* Clipper: batch size */
};

struct peer {
    enum kind kind;
    const struct sim_scenario *scenario;
    struct sim_knobs knobs;
    struct queue queues[SIM_MODELS_MAX];
    struct replica *replicas;
    uint32_t total, announced_total;
    struct sim_item *expired; /* dropped by a take, to be named by the next expire */
};

/* ---- life --------------------------------------------------------------------------------------------------------- */

static void destroy(void *state)
{
    struct peer *p = state;

    for (uint32_t i = 0; p && p->replicas && i < p->scenario->n_instances; i++)
        free(p->replicas[i].batches);
    if (p)
        free(p->replicas);
    free(p);
}

static int create(enum kind kind, const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state)
{
    struct peer *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (struct peer){.kind = kind, .scenario = scenario, .knobs = *knobs};
    p->replicas = calloc(scenario->n_instances, sizeof(*p->replicas));
    for (uint32_t i = 0; p->replicas && i < scenario->n_instances; i++) {
        struct replica *replica = &p->replicas[i];
        replica->healthy = true;
        replica->batches = calloc(scenario->devices[i].inflight + 1, sizeof(*replica->batches));
        for (uint32_t m = 0; m < SIM_MODELS_MAX; m++)
            replica->limit[m] = 1;
        if (!replica->batches)
            break;
    }
    if (!p->replicas || !p->replicas[scenario->n_instances - 1].batches) {
        destroy(p);
        return -ENOMEM;
    }
    *ret_state = p;
    return 0;
}

static int create_triton(const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state)
{
    return create(TRITON, scenario, knobs, ret_state);
}

static int create_clipper(const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state)
{
    return create(CLIPPER, scenario, knobs, ret_state);
}

static int create_amd(const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state)
{
    return create(AMD, scenario, knobs, ret_state);
}

/* ---- queues ------------------------------------------------------------------------------------------------------- */

static uint32_t limit_of(const struct peer *p, const struct xn_model *model)
{
    return p->knobs.queue_limit > 0 ? XN_MIN(p->knobs.queue_limit, model->queue_limit) : model->queue_limit;
}

static int admit(void *state, const struct xn_sched_ask *ask, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    struct peer *p = state;
    struct queue *q = &p->queues[ask->model->slot];
    (void)now_ns;

    *ret_retry_ns = XN_NS_PER_S;
    if (q->depth + q->announced + ask->n > limit_of(p, ask->model) ||
        p->total + p->announced_total + ask->n > p->scenario->queue_total)
        return -ENOBUFS;
    q->announced += ask->n;
    p->announced_total += ask->n;
    return 0;
}

static void retract(void *state, const struct xn_model *model, uint32_t n)
{
    struct peer *p = state;

    p->queues[model->slot].announced -= n;
    p->announced_total -= n;
}

static struct sim_item *item_in(struct xn_heap_node *node)
{
    return sim_item_of(XN_CONTAINER_OF(node, struct xn_item, sched.due));
}

static struct sim_item *oldest_in(const struct queue *q)
{
    return sim_item_of(XN_CONTAINER_OF(q->arrivals.root, struct xn_item, sched.expiry));
}

static void insert(struct peer *p, struct sim_item *item, bool again)
{
    static const uint64_t rank[XN_PRIORITY_COUNT] = {
        [XN_PRIORITY_HIGH] = 0, [XN_PRIORITY_NORMAL] = 1, [XN_PRIORITY_LOW] = 2};
    struct queue *q = &p->queues[item->request.model->slot];
    uint64_t major = p->kind == TRITON ? rank[item->request.priority] : 0, minor = item->item.queued_ns;

    if (p->kind == CLIPPER && p->knobs.timeout_share > 0)
        minor = item->group; /* the end of its objective */
    else if (p->kind == AMD)
        minor = item->group;
    xn_heap_insert(&q->items, &item->item.sched.due, major, minor, again);
    xn_heap_insert(&q->arrivals, &item->item.sched.expiry, item->item.queued_ns, 0, again);
    q->model = item->request.model;
    q->depth++;
    p->total++;
}

static void take_out(struct peer *p, struct sim_item *item)
{
    struct queue *q = &p->queues[item->request.model->slot];

    xn_heap_remove(&q->items, &item->item.sched.due);
    xn_heap_remove(&q->arrivals, &item->item.sched.expiry);
    q->depth--;
    p->total--;
}

static uint32_t max_batch(const struct peer *p, const struct xn_model *model)
{
    return p->knobs.max_batch > 0 ? XN_MIN(p->knobs.max_batch, model->max_batch) : model->max_batch;
}

/* When a queue time-out or latency objective ends, which is a share of the time that the request has. */
static uint64_t timeout_ns(const struct peer *p, const struct sim_item *item)
{
    uint64_t from_ns = item->item.queued_ns;

    if (p->knobs.timeout_share <= 0 || item->request.deadline_ns == XN_NEVER_NS)
        return XN_NEVER_NS;
    return from_ns + (uint64_t)(p->knobs.timeout_share * (double)(item->request.deadline_ns -
                                                                  XN_MIN(item->request.deadline_ns, item->arrived_ns)));
}

/* AMD: the batch that an item joins. */
static uint64_t group_of(struct peer *p, struct queue *q, const struct xn_model *model, uint64_t now_ns)
{
    if (q->group_n == 0 || q->group_n >= max_batch(p, model) || now_ns >= q->group_ns + (uint64_t)p->knobs.delay_ns) {
        q->group++;
        q->group_n = 0;
        q->group_ns = now_ns;
    }
    q->group_n++;
    return q->group;
}

static int push(void *state, struct xn_item *xn_item, uint64_t now_ns)
{
    struct peer *p = state;
    struct sim_item *item = sim_item_of(xn_item);
    struct queue *q = &p->queues[item->request.model->slot];

    q->announced--;
    p->announced_total--;
    xn_item->queued_ns = now_ns;
    if (p->kind == AMD)
        item->group = group_of(p, q, item->request.model, now_ns);
    else if (p->kind == CLIPPER)
        item->group = timeout_ns(p, item);
    insert(p, item, false);
    return 0;
}

static void requeue(void *state, struct xn_item *item)
{
    insert(state, sim_item_of(item), true);
}

/* ---- batches ------------------------------------------------------------------------------------------------------ */

/* When the next batch of a queue may go to a free instance if nothing more comes; 0: now. */
static uint64_t close_ns(const struct peer *p, const struct queue *q)
{
    uint64_t delay_ns = (uint64_t)p->knobs.delay_ns;

    if (q->depth == 0)
        return XN_NEVER_NS;
    uint32_t full = max_batch(p, q->model);
    if (p->kind == AMD)
        return item_in(q->items.root)->group < q->group || q->group_n >= full ? 0 : q->group_ns + delay_ns;
    if (q->depth >= full ||
        (p->kind == TRITON && q->model->preferred_batch > 0 && q->depth >= q->model->preferred_batch))
        return 0;
    return oldest_in(q)->item.queued_ns + delay_ns;
}

static bool has_room(const struct peer *p, uint32_t index)
{
    return p->replicas[index].healthy && p->replicas[index].running < p->scenario->devices[index].inflight;
}

/* The queue whose batch a free instance takes: of those that may go that with the oldest item. */
static struct queue *choose(struct peer *p, uint32_t index, uint64_t now_ns)
{
    struct queue *best = NULL;

    for (uint32_t m = 0; m < p->scenario->n_models; m++) {
        struct queue *q = &p->queues[m];
        if (q->depth == 0 || !q->model->loaded[index] || close_ns(p, q) > now_ns)
            continue;
        if (!best || oldest_in(q)->item.queued_ns < oldest_in(best)->item.queued_ns)
            best = q;
    }
    return best;
}

/* Drop what has timed out: only now, as an instance comes. */
static void drop(struct peer *p, struct queue *q, uint64_t now_ns)
{
    while (q->depth > 0 && timeout_ns(p, item_in(q->items.root)) <= now_ns) {
        struct sim_item *item = item_in(q->items.root);
        take_out(p, item);
        item->next_free = p->expired;
        p->expired = item;
    }
}

static void fill(struct peer *p, struct queue *q, struct xn_batch *batch, uint64_t now_ns)
{
    uint32_t limit = max_batch(p, q->model);

    if (p->kind == CLIPPER)
        limit = XN_MIN(limit, (uint32_t)p->replicas[batch->instance].limit[q->model->slot]);
    for (batch->n = 0; batch->n < limit; batch->n++) {
        drop(p, q, now_ns);
        if (q->depth == 0)
            break;
        struct sim_item *item = item_in(q->items.root);
        if (batch->n > 0 && (item->request.model != batch->model ||
                             (p->kind == AMD && item->group != sim_item_of(batch->items[0])->group)))
            break;
        batch->model = item->request.model;
        batch->items[batch->n] = &item->item;
        take_out(p, item);
    }
}

static struct xn_batch *next(void *state, uint32_t instance, uint64_t now_ns)
{
    struct peer *p = state;
    struct replica *replica = &p->replicas[instance];
    struct queue *q;

    while (has_room(p, instance) && (q = choose(p, instance, now_ns)) != NULL) {
        struct xn_batch *batch = &replica->batches[replica->next_batch % (p->scenario->devices[instance].inflight + 1)];
        batch->instance = instance;
        batch->reason = XN_CLOSE_IDLE;
        batch->started_ns = now_ns;
        batch->expected_ns = batch->cost_ns = 0;
        fill(p, q, batch, now_ns);
        if (batch->n == 0)
            continue; /* all of it had timed out */
        replica->next_batch++;
        replica->running++;
        return batch;
    }
    return NULL;
}

/* Clipper: did the batch take no longer than the objective of the tightest of its items? */
static bool kept(const struct peer *p, const struct xn_batch *batch, uint64_t now_ns)
{
    for (uint32_t i = 0; i < batch->n; i++) {
        const struct sim_item *item = sim_item_of(batch->items[i]);
        double relative_ns = (double)(item->request.deadline_ns - XN_MIN(item->arrived_ns, item->request.deadline_ns));
        if (item->request.deadline_ns != XN_NEVER_NS &&
            (double)(now_ns - batch->started_ns) > p->knobs.objective_share * relative_ns)
            return false;
    }
    return true;
}

static void done(void *state, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns)
{
    struct peer *p = state;
    struct replica *replica = &p->replicas[batch->instance];
    double *limit = &replica->limit[batch->model->slot];

    (void)exec_ns;

    replica->running--;
    if (p->kind != CLIPPER || status < 0)
        return;
    if (!kept(p, batch, now_ns))
        *limit = fmax(1, *limit * 0.9);
    else if (batch->n >= (uint32_t)*limit)
        *limit = fmin(*limit + p->knobs.step, max_batch(p, batch->model));
}

static void observe(void *state, const struct xn_model *model, uint32_t instance, uint32_t n, uint64_t exec_ns)
{
    (void)state, (void)model, (void)instance, (void)n, (void)exec_ns;
}

static uint32_t expire(void *state, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    struct peer *p = state;
    uint32_t n = 0;
    (void)now_ns;

    for (; n < max && p->expired; n++) {
        ret_expired[n] = (struct xn_expired){.item = &p->expired->item};
        p->expired = p->expired->next_free;
    }
    return n;
}

static uint32_t ready(void *state, uint64_t now_ns, uint32_t *ret_instances, uint32_t max)
{
    struct peer *p = state;

    if (p->total == 0 || max == 0)
        return 0;
    for (int idle = 1; idle >= 0; idle--)
        for (uint32_t i = 0; i < p->scenario->n_instances; i++)
            if (has_room(p, i) && (p->replicas[i].running == 0) == idle && choose(p, i, now_ns)) {
                ret_instances[0] = i;
                return 1;
            }
    return 0;
}

static uint64_t wake(void *state, uint64_t now_ns)
{
    struct peer *p = state;
    uint64_t wake_ns = p->expired ? now_ns + 1 : XN_NEVER_NS;

    for (uint32_t m = 0; m < p->scenario->n_models; m++) {
        uint64_t ns = close_ns(p, &p->queues[m]);
        if (ns > now_ns)
            wake_ns = XN_MIN(wake_ns, ns);
    }
    return wake_ns;
}

static void set_healthy(void *state, uint32_t instance, bool healthy)
{
    struct peer *p = state;

    p->replicas[instance].healthy = healthy;
}

static bool can_run(void *state, const struct xn_model *model)
{
    struct peer *p = state;

    for (uint32_t i = 0; i < p->scenario->n_instances; i++)
        if (p->replicas[i].healthy && model->loaded[i])
            return true;
    return false;
}

static uint32_t depth(void *state, uint32_t slot)
{
    struct peer *p = state;

    return p->queues[slot].depth;
}

#define PEER(peer_name, create_peer)                                                                                   \
    {                                                                                                                  \
        .name = (peer_name), .create = (create_peer), .destroy = destroy, .admit = admit, .retract = retract,          \
        .push = push, .requeue = requeue, .next = next, .done = done, .observe = observe, .expire = expire,            \
        .ready = ready, .wake = wake, .set_healthy = set_healthy, .can_run = can_run, .depth = depth                   \
    }

const struct sim_policy sim_triton = PEER("triton", create_triton);
const struct sim_policy sim_clipper = PEER("clipper", create_clipper);
const struct sim_policy sim_amd = PEER("amd", create_amd);
