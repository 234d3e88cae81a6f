/* SPDX-License-Identifier: Apache-2.0
 * What may come. The fleet is taken for one machine that does what waits in the order in which it is due: work W before an item is done W later, where work is counted in ns of
 * the whole fleet in full batches (struct rate). To that comes what a fleet of batches does not do as one machine would: what runs has to end, and an item is done when its batch is.
 *
 * One flow gets of the room that is left at most a multiple of what it leaves (Choudhury, Hahne: Dynamic queue length thresholds for shared-memory packet switches, 1998): as much as it leaves, where
 * others wait, too, eight times that, where it is alone. So whoever comes second finds room, and k flows that ask for all they can have 1 / (1 + k) of it each. */
#include <errno.h>
#include <math.h>

#include "daemon/sched/internal.h"

#define FLOW_ALONE        8                  /* times its share a flow may have that waits alone */
#define SOONEST_WINDOW_NS (10 * XN_NS_PER_S) /* urgent work that comes less often is a surprise */
#define RETRY_MIN_NS      XN_NS_PER_MS
#define RETRY_UNKNOWN_NS  XN_NS_PER_S /* nothing is measured */

/* By priority: how much earlier others may have come and yet go later, and how large a share one flow may have. */
static const struct {
    uint64_t patience_ns;
    double flow_share;
} priorities[XN_PRIORITY_COUNT] = {
    [XN_PRIORITY_NORMAL] = {.patience_ns = 50 * XN_NS_PER_MS, .flow_share = 1},
    [XN_PRIORITY_HIGH] = {.patience_ns = 0, .flow_share = 8},
    [XN_PRIORITY_LOW] = {.patience_ns = 500 * XN_NS_PER_MS, .flow_share = 0.125},
};

static uint32_t flow_of(uint32_t client, const struct xn_model *model)
{
    return (client * 0x9e3779b1u + model->slot * 0x85ebca6bu) >> 22; /* of 1024 */
}

_Static_assert(XN_SCHED_FLOWS == 1024, "flow_of has ten bits");

/* What an image is that has relative_ns until its deadline: the tighter, the smaller are its batches. All 0: not known. */
struct work {
    double image_ns; /* the time of the whole fleet that it takes */
    double
        lump_ns; /* how much later its batch is done, as a whole and on one instance, than a machine that does image after image is with it */
};

/* From now until `deadline_ns`; XN_NEVER_NS: there is none. */
static uint64_t until_ns(uint64_t deadline_ns, uint64_t now_ns)
{
    return deadline_ns == XN_NEVER_NS ? XN_NEVER_NS : deadline_ns - XN_MIN(now_ns, deadline_ns);
}

static struct work work_of(struct xn_sched *s, const struct xn_model *model, uint64_t relative_ns)
{
    const struct rate *rate = xn_sched_rate(s, model);

    if (rate->best == XN_SCHED_NOWHERE)
        return (struct work){0};
    const struct instance *best = &s->instances[rate->best];
    const struct xn_cost *cost = xn_sched_cost_of(best, model);
    uint32_t n = xn_sched_batch_limit(best, model, rate->usable, relative_ns);
    double batch_ns = (double)xn_cost_predict(cost, n);
    double full_image_ns = (double)xn_cost_predict(cost, model->max_batch) / model->max_batch;
    double image_ns = rate->image_ns * (batch_ns / n) / full_image_ns;
    return (struct work){.image_ns = image_ns, .lump_ns = fmax(batch_ns - image_ns * n, 0)};
}

/* When something is due that comes now and has `flow` before it. What a flow has waiting falls by a batch at a time: who comes after that is not due before who came sooner. */
static uint64_t due_ns(const struct xn_sched *s, const struct flow *flow, uint8_t priority, uint64_t deadline_ns,
                       uint64_t now_ns)
{
    uint32_t flows = s->flows_waiting + (flow->items == 0);
    uint64_t fair_ns = now_ns + priorities[priority].patience_ns + flow->work_ns * flows;

    if (flow->items > 0)
        fair_ns = XN_MAX(fair_ns, flow->last_due_ns[priority]);
    return XN_MIN(deadline_ns, fair_ns);
}

/* Something comes that is due relative_ns later. */
static void note_soonest(struct soonest *soonest, uint64_t relative_ns, uint64_t now_ns)
{
    if (now_ns - soonest->since_ns >= SOONEST_WINDOW_NS) {
        /* What both windows had becomes what the last one had, unless that is over, too. */
        soonest->ns = now_ns - soonest->since_ns < 2 * SOONEST_WINDOW_NS ? soonest->window_ns : XN_NEVER_NS;
        soonest->window_ns = XN_NEVER_NS;
        soonest->since_ns = now_ns;
    }
    soonest->window_ns = XN_MIN(soonest->window_ns, relative_ns);
    soonest->ns = XN_MIN(soonest->ns, relative_ns);
}

void xn_sched_place(struct xn_sched *s, struct xn_item *item, uint64_t now_ns)
{
    const struct xn_request *request = item->request;
    uint64_t deadline_ns = xn_request_aim_ns(request);

    struct work work = work_of(s, request->model, until_ns(deadline_ns, now_ns));

    item->sched.flow = flow_of(request->client, request->model);
    item->sched.work_ns = (uint64_t)work.image_ns;
    item->sched.lump_ns = (uint64_t)work.lump_ns;
    struct flow *flow = &s->flows[item->sched.flow];
    uint64_t *last_ns = &flow->last_due_ns[request->priority];
    item->sched.due_ns = due_ns(s, flow, request->priority, deadline_ns, now_ns);
    note_soonest(&s->soonest, until_ns(item->sched.due_ns, now_ns), now_ns);
    *last_ns = flow->items > 0 ? XN_MAX(*last_ns, item->sched.due_ns) : item->sched.due_ns;
}

void xn_sched_account(struct xn_sched *s, struct xn_item *item)
{
    struct flow *flow = &s->flows[item->sched.flow];
    uint64_t aim_ns = xn_request_aim_ns(item->request);
    uint64_t done_by_ns = aim_ns == XN_NEVER_NS ? aim_ns : aim_ns - XN_MIN(aim_ns, item->sched.lump_ns);

    s->flows_waiting += flow->items++ == 0;
    flow->work_ns += item->sched.work_ns;
    item->sched.place = xn_demand_add(s->demand, item->sched.work_ns, item->sched.due_ns, done_by_ns, item->queued_ns);
}

void xn_sched_discount(struct xn_sched *s, struct xn_item *item)
{
    struct flow *flow = &s->flows[item->sched.flow];

    s->flows_waiting -= --flow->items == 0;
    flow->work_ns -= item->sched.work_ns;
    xn_demand_remove(s->demand, item->sched.place, item->sched.work_ns);
}

/* One flow alone may have more: what it leaves is for the first that comes beside it. */
static double flow_share(const struct xn_sched *s, const struct flow *flow, uint8_t priority)
{
    bool alone = s->flows_waiting == (flow->items > 0);

    return priorities[priority].flow_share * (alone ? FLOW_ALONE : 1);
}

/* ---- admission ---------------------------------------------------------------------------------------------------- */

/* Refuse with `r`: the same might be taken `retry_ns` later. */
static int refuse(int r, double retry_ns, uint64_t *ret_retry_ns)
{
    *ret_retry_ns = retry_ns > 0 ? XN_MAX((uint64_t)retry_ns, RETRY_MIN_NS) : RETRY_UNKNOWN_NS;
    return r;
}

/* Is there room in the queues, by number? */
static int admit_number(const struct xn_sched *s, const struct xn_sched_ask *ask, double work_ns,
                        uint64_t *ret_retry_ns)
{
    const struct queue *q = &s->queues[ask->model->slot];
    const struct flow *flow = &s->flows[flow_of(ask->client, ask->model)];
    uint64_t taken = (uint64_t)q->depth + q->announced;
    uint64_t all = (uint64_t)s->total + s->announced_total;

    if (taken + ask->n > ask->model->queue_limit || all + ask->n > s->queue_total)
        return refuse(-ENOBUFS, work_ns * ask->n, ret_retry_ns);
    double room = (double)(ask->model->queue_limit - taken);
    if (flow->items + ask->n > room * flow_share(s, flow, ask->priority))
        return refuse(-EDQUOT, work_ns * ask->n, ret_retry_ns);
    return 0;
}

/* When the fleet will have ended what runs, on average of all instances. */
static uint64_t start_ns(const struct xn_sched *s, uint64_t now_ns)
{
    uint64_t sum_ns = 0;
    uint32_t healthy = 0;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        if (!s->instances[i].healthy)
            continue;
        healthy++;
        sum_ns += xn_sched_free_ns(&s->instances[i], now_ns) - now_ns;
    }
    return healthy > 0 ? now_ns + sum_ns / healthy : now_ns;
}

/* How much more work than `ask`, of `work_ns` an item and due at `due`, could come: so that its own deadline is kept, and those of what is due after it. Negative: not
 * even that; HUGE_VAL: no deadline is concerned. */
static double room_ns(struct xn_sched *s, const struct xn_sched_ask *ask, double work_ns, uint64_t due, uint64_t now_ns)
{
    const struct rate *rate = xn_sched_rate(s, ask->model);
    const struct instance *best = &s->instances[rate->best];
    uint32_t limit = xn_sched_batch_limit(best, ask->model, rate->usable, until_ns(ask->deadline_ns, now_ns));
    uint32_t waiting = s->queues[ask->model->slot].depth + ask->n;
    uint64_t start = start_ns(s, now_ns);
    double runs_ns = (double)(start - now_ns), own_ns = work_ns * ask->n, full_ns = work_ns * limit;
    double batch_ns = (double)xn_cost_predict(xn_sched_cost_of(best, ask->model), XN_MIN(limit, waiting));
    double before_ns = (double)xn_demand_before_ns(s->demand, due) + work_ns * s->announced_total;
    double reserve_ns = (runs_ns + before_ns) * XN_SCHED_RESERVE;
    double room = HUGE_VAL;

    if (ask->deadline_ns != XN_NEVER_NS) {
        /* Items of a batch are done together: of what comes before, whole batches count, then ours. */
        double waits_ns = fmax(before_ns - fmod(before_ns, full_ns), before_ns + own_ns - full_ns);
        room = (double)(ask->deadline_ns - now_ns) - runs_ns - waits_ns - batch_ns - reserve_ns;
    }
    int64_t slack = xn_demand_slack_ns(s->demand, due, start);
    if (slack != INT64_MAX)
        room = fmin(room, (double)slack - own_ns - reserve_ns);
    return room;
}

/* Is there room by time? `work_ns`: of one item. */
static int admit_time(struct xn_sched *s, const struct xn_sched_ask *ask, double work_ns, uint64_t now_ns,
                      uint64_t *ret_retry_ns)
{
    const struct flow *flow = &s->flows[flow_of(ask->client, ask->model)];
    uint64_t due = due_ns(s, flow, ask->priority, ask->deadline_ns, now_ns);
    double room = room_ns(s, ask, work_ns, due, now_ns), own_ns = work_ns * ask->n;

    if (room < 0)
        return refuse(-EBUSY, -room, ret_retry_ns);
    if ((double)flow->work_ns + own_ns > flow_share(s, flow, ask->priority) * (room + own_ns))
        return refuse(-EDQUOT, own_ns, ret_retry_ns);
    return 0;
}

int xn_sched_admit(struct xn_sched *sched, const struct xn_sched_ask *ask, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    double work_ns = work_of(sched, ask->model, until_ns(ask->deadline_ns, now_ns)).image_ns;
    int r = admit_number(sched, ask, work_ns, ret_retry_ns);

    if (r == 0 && until_ns(ask->deadline_ns, now_ns) == 0)
        r = refuse(-EBUSY, 0, ret_retry_ns);
    if (r == 0 && work_ns > 0)
        r = admit_time(sched, ask, work_ns, now_ns, ret_retry_ns);
    if (r < 0)
        return r;
    sched->queues[ask->model->slot].announced += ask->n;
    sched->announced_total += ask->n;
    return 0;
}
