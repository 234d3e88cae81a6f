/* SPDX-License-Identifier: Apache-2.0
 * What runs where, and when.
 *
 * An instance that asks for work is offered the batch at the front of each queue. It takes one that closes, and that is *for it*: were all that waits in the queue given, batch by
 * batch, to whoever would complete the next one first, it would get one. Where several are, the one that is due first; but one that is not full lets a full one go before it while it has time.
 *
 * An instance that runs gets its next batch early only where that can hurt nobody (bind_ns), else shortly before it is free (xn_sched_look_ns): what is bound to it goes before all that comes later, however
 * soon that is due.
 *
 * Is a batch for instance i? Count, for each other instance, the batches that it would complete before i would complete one; if they are as many as wait, no. Of two that would complete at
 * the same time the one of lower index counts as sooner: so of equal idle instances exactly one is first, a batch wakes one of them, and no two wait for one another. One that is
 * late falls back in the order by itself.
 *
 * While joules are to be saved, "before i" becomes "before the deadline" for instances that need fewer joules an image than i, and those that need more count only where i would be too late. */
#include <assert.h>
#include <math.h>

#include "daemon/sched/internal.h"

/* Waiting for one more image is worth it while the fixed part of a batch's cost is more than 1/16 of the whole. */
#define GAIN_SHARE 16.0
/* Images that take less than 1/8 of a batch's fixed part ride along, however tight the others are. */
#define RIDE_SHARE 8
/* Safety margin for "waiting longer would miss the deadline": a quarter of the predicted time and this. */
#define MARGIN_NS (500 * XN_NS_PER_US)
/* Work without a deadline, where joules are saved: in what time it should be done all the same. */
#define ECO_HORIZON_NS XN_NS_PER_S

/* ---- facts -------------------------------------------------------------------------------------------------------- */

bool xn_sched_usable(const struct xn_sched *s, uint32_t index, const struct xn_model *model)
{
    return s->instances[index].healthy && model->loaded[index];
}

/* One that is late is believed to need as long again as it is late already. */
uint64_t xn_sched_free_ns(const struct instance *instance, uint64_t now_ns)
{
    if (instance->running == 0)
        return now_ns;
    if (instance->free_ns > now_ns)
        return instance->free_ns;
    return now_ns + (now_ns - instance->free_ns) + 1; /* never now: an idle one comes first */
}

const struct xn_cost *xn_sched_cost_of(const struct instance *instance, const struct xn_model *model)
{
    static const struct xn_cost unmeasured;

    return instance->generation[model->slot] == model->generation ? &instance->cost[model->slot] : &unmeasured;
}

static uint64_t cost_ns(const struct xn_sched *s, uint32_t index, const struct xn_model *model, uint32_t n)
{
    return xn_cost_predict(xn_sched_cost_of(&s->instances[index], model), n);
}

static void derive_rate(const struct xn_sched *s, const struct xn_model *model, struct rate *rate)
{
    uint64_t best_ns = XN_NEVER_NS;
    double images_per_ns = 0;

    *rate = (struct rate){.generation = model->generation, .best = XN_SCHED_NOWHERE};
    for (uint32_t i = 0; i < s->n_instances; i++) {
        if (!xn_sched_usable(s, i, model))
            continue;
        rate->usable++;
        uint64_t one_ns = cost_ns(s, i, model, 1), full_ns = cost_ns(s, i, model, model->max_batch);
        if (full_ns == 0)
            continue;
        images_per_ns += model->max_batch / (double)full_ns;
        rate->least_ns = rate->least_ns == 0 ? one_ns : XN_MIN(rate->least_ns, one_ns);
        if (full_ns < best_ns) {
            best_ns = full_ns;
            rate->best = i;
        }
    }
    rate->image_ns = images_per_ns > 0 ? 1 / images_per_ns : 0;
}

const struct rate *xn_sched_rate(struct xn_sched *s, const struct xn_model *model)
{
    struct rate *rate = &s->rates[model->slot];

    if (rate->stale || rate->usable == 0 || rate->generation != model->generation) {
        derive_rate(s, model, rate);
        xn_sched_limit_rate(s, model, rate);
    }
    return rate;
}

uint32_t xn_sched_batch_limit(const struct instance *instance, const struct xn_model *model, uint32_t usable,
                              uint64_t relative_ns)
{
    const struct xn_cost *cost = xn_sched_cost_of(instance, model);
    double time_ns = (double)relative_ns * usable / (usable + 1.0) - cost->fixed_ns;

    time_ns = fmax(time_ns, cost->fixed_ns / RIDE_SHARE);
    if (relative_ns == XN_NEVER_NS || time_ns >= model->max_batch * cost->per_image_ns)
        return model->max_batch;
    return time_ns > cost->per_image_ns ? (uint32_t)(time_ns / cost->per_image_ns) : 1;
}

/* ---- does a batch close? ------------------------------------------------------------------------------------------ */

/* The batch at the front of a queue, as one instance sees it. */
struct offer {
    const struct queue *q;
    const struct xn_model *model;
    uint32_t slot, index;
    uint32_t full;        /* as many as it may hold */
    uint32_t n;           /* as it holds now, 1..full */
    uint64_t earliest_ns; /* deadline in the queue; XN_NEVER_NS: none */
    const struct rate *rate;
};

static struct offer make_offer(struct xn_sched *s, uint32_t slot, uint32_t index)
{
    const struct queue *q = &s->queues[slot];
    const struct xn_model *model = xn_sched_first(q)->request->model;
    struct offer o = {.q = q,
                      .model = model,
                      .slot = slot,
                      .index = index,
                      .full = model->max_batch,
                      .earliest_ns = XN_NEVER_NS,
                      .rate = xn_sched_rate(s, model)};

    if (q->expiry.root) {
        const struct xn_item *first = xn_sched_expiry_item(q->expiry.root);
        o.earliest_ns = xn_request_aim_ns(first->request);
        o.full = xn_sched_batch_limit(&s->instances[index], model, o.rate->usable,
                                      o.earliest_ns - XN_MIN(first->queued_ns, o.earliest_ns));
    }
    o.n = XN_MIN(model->waiting, o.full);
    return o;
}

/* The largest preferred size that `o` has reached; 0: none. */
static uint32_t preferred(const struct offer *o)
{
    uint32_t multiple = o->model->preferred_batch;

    return multiple > 0 ? o->n / multiple * multiple : 0;
}

static bool images_share(const struct xn_cost *cost, uint32_t n)
{
    return cost->fixed_ns * GAIN_SHARE > cost->fixed_ns + n * cost->per_image_ns;
}

/* From when on a busy instance may fetch a batch that is not full: shortly before it is free, so that it finds the next one ready and that one could grow until then. */
uint64_t xn_sched_look_ns(const struct xn_sched *sched, uint32_t instance_index)
{
    const struct instance *instance = &sched->instances[instance_index];

    if (instance->running == 0)
        return 0;
    return instance->free_ns - XN_MIN(instance->lead_ns, instance->free_ns);
}

static uint64_t delay_end_ns(const struct xn_sched *s, const struct offer *o)
{
    uint64_t delay_ns = XN_MAX(o->model->max_delay_us * XN_NS_PER_US, s->eco_delay_ns);

    return XN_MAX(o->q->oldest->queued_ns + delay_ns, xn_sched_look_ns(s, o->index));
}

static uint64_t with_margin_ns(uint64_t batch_ns)
{
    return batch_ns + batch_ns / 4 + MARGIN_NS;
}

/* The last moment to start `o` with the earliest deadline kept. XN_NEVER_NS: there is none. */
static uint64_t latest_start_ns(const struct xn_sched *s, const struct offer *o)
{
    uint64_t need_ns = with_margin_ns(cost_ns(s, o->index, o->model, o->n));

    if (o->earliest_ns == XN_NEVER_NS)
        return XN_NEVER_NS;
    return o->earliest_ns > need_ns ? o->earliest_ns - need_ns : 0;
}

/* Does it gain anything to wait for more? */
static bool waiting_gains(const struct xn_sched *s, const struct offer *o)
{
    const struct xn_cost *cost = xn_sched_cost_of(&s->instances[o->index], o->model);

    return (o->q->announced > 0 || s->eco_delay_ns > 0) && images_share(cost, o->n);
}

/* From when on nothing is lost by binding a full `o` to an instance that still runs. Until then something may come that is due sooner than `o`, and too soon to wait for both batches: what comes is
 * due no sooner than what came lately was. A moment before the instance is free it is time in any case. */
static uint64_t bind_ns(const struct xn_sched *s, const struct offer *o)
{
    uint64_t behind_ns = s->instances[o->index].free_ns + 2 * cost_ns(s, o->index, o->model, o->n);
    uint64_t harmless_ns = XN_MIN(xn_sched_first(o->q)->sched.due_ns, behind_ns);

    return XN_MIN(xn_sched_look_ns(s, o->index), harmless_ns - XN_MIN(s->soonest.ns, harmless_ns));
}

/* Would `o` close now? May make it smaller, to a preferred size. */
static bool closes(const struct xn_sched *s, struct offer *o, uint64_t now_ns, enum xn_close_reason *ret_reason)
{
    const struct instance *instance = &s->instances[o->index];
    bool bound = s->draining || now_ns >= bind_ns(s, o);
    uint32_t size = preferred(o);

    if (o->n == o->full && bound)
        *ret_reason = XN_CLOSE_FULL;
    else if (s->draining)
        *ret_reason = XN_CLOSE_DRAIN;
    /* An instance that is still busy prefetches only what has to go anyway: until it is free a batch may grow at no cost. */
    else if (instance->running == 0 && !waiting_gains(s, o))
        *ret_reason = XN_CLOSE_IDLE;
    else if (now_ns >= delay_end_ns(s, o))
        *ret_reason = XN_CLOSE_DELAY;
    else if (now_ns >= latest_start_ns(s, o))
        *ret_reason = XN_CLOSE_DEADLINE;
    else if (size > 0 && bound) {
        o->n = size;
        *ret_reason = XN_CLOSE_FULL;
    } else
        return false;
    return true;
}

/* ---- is it for this instance? ------------------------------------------------------------------------------------- */

/* Batches of `o` that `other` would complete by `by_ns`, up to `max`. `wins_ties`: also one at by_ns. */
static uint32_t batches_before(const struct xn_sched *s, const struct offer *o, uint32_t other, uint64_t by_ns,
                               bool wins_ties, uint64_t now_ns, uint32_t max)
{
    uint64_t batch_ns = cost_ns(s, other, o->model, o->n);
    uint64_t first_ns = xn_sched_free_ns(&s->instances[other], now_ns) + batch_ns;
    uint64_t end_ns = wins_ties ? by_ns : by_ns - 1; /* by_ns > 0: it is not before now */

    /* One that runs and of which nothing is known must not hold the work back. */
    if (first_ns > end_ns || (batch_ns == 0 && s->instances[other].running > 0))
        return 0;
    uint64_t more = (end_ns - first_ns) / XN_MAX(batch_ns, 1);
    return (uint32_t)XN_MIN(more, max - 1) + 1;
}

/* Of the batch on `index`, times 1e9. */
static double joules_of(const struct xn_sched *s, uint32_t index, const struct offer *o)
{
    return xn_sched_watts(s, index) * (double)cost_ns(s, index, o->model, o->n);
}

/* By when `o` has to be completed where joules are saved. */
static uint64_t latest_end_ns(const struct offer *o, uint64_t now_ns)
{
    uint64_t deadline_ns = XN_MIN(o->earliest_ns, now_ns + ECO_HORIZON_NS);

    return deadline_ns - XN_MIN(MARGIN_NS, deadline_ns);
}

/* By when `other` has to complete a batch to take it from o->index, which would complete it at own_ns. 0: it never does. */
static uint64_t horizon_ns(const struct xn_sched *s, const struct offer *o, uint32_t other, uint64_t own_ns,
                           uint64_t now_ns)
{
    if (s->eco_delay_ns == 0 || xn_sched_watts(s, other) <= 0 || xn_sched_watts(s, o->index) <= 0)
        return own_ns;
    double own_j = joules_of(s, o->index, o), other_j = joules_of(s, other, o);
    uint64_t latest_ns = latest_end_ns(o, now_ns);
    if (other_j < own_j)
        return XN_MAX(own_ns, latest_ns);
    return other_j > own_j && own_ns <= latest_ns ? 0 : own_ns;
}

static bool is_for(const struct xn_sched *s, const struct offer *o, uint64_t now_ns)
{
    uint32_t batches = (o->q->depth + o->n - 1) / o->n;
    uint64_t own_ns = xn_sched_free_ns(&s->instances[o->index], now_ns) + cost_ns(s, o->index, o->model, o->n);

    for (uint32_t i = 0; i < s->n_instances && batches > 0; i++) {
        if (i == o->index || !xn_sched_usable(s, i, o->model))
            continue;
        uint64_t by_ns = horizon_ns(s, o, i, own_ns, now_ns);
        if (by_ns > 0)
            batches -= batches_before(s, o, i, by_ns, i < o->index, now_ns, batches);
    }
    return batches > 0;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------- */

static bool has_room(const struct instance *instance)
{
    return instance->healthy && instance->running < instance->inflight;
}

/* What is due first of all that closes and is for `index`; full_by_ns > 0: of full batches alone that it would have ended by then. */
static bool first_of(struct xn_sched *s, uint32_t index, uint64_t full_by_ns, uint64_t now_ns, struct offer *ret_offer,
                     enum xn_close_reason *ret_reason)
{
    const struct instance *instance = &s->instances[index];
    uint64_t first_ns = XN_NEVER_NS, free_ns = xn_sched_free_ns(instance, now_ns);
    bool found = false;

    for (uint64_t slots = s->busy_slots; slots; slots &= slots - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(slots);
        const struct xn_item *first = xn_sched_first(&s->queues[slot]);
        enum xn_close_reason reason = XN_CLOSE_COUNT;
        if (!first->request->model->loaded[index] || first->sched.due_ns >= first_ns)
            continue;
        struct offer o = make_offer(s, slot, index);
        bool starts = closes(s, &o, now_ns, &reason);
        if (full_by_ns > 0 && (!starts || o.n < o.full || free_ns + cost_ns(s, index, o.model, o.n) > full_by_ns))
            continue;
        /* What does not close only because the instance still runs keeps its place before what is due later: a model whose batches are always full would else always have been fetched already. */
        if ((!starts && instance->running == 0) || !is_for(s, &o, now_ns))
            continue;
        found = starts;
        first_ns = first->sched.due_ns;
        *ret_offer = o;
        *ret_reason = reason;
    }
    return found;
}

/* Until when others may have instance o->index, though `o` is due first: half of the time that is left until `o`, grown full, would have to start. Not all of it: more may come that is due before `o`. */
static uint64_t spare_end_ns(const struct xn_sched *s, const struct offer *o, uint64_t now_ns)
{
    uint64_t free_ns = xn_sched_free_ns(&s->instances[o->index], now_ns);
    uint64_t due_ns = XN_MIN(o->earliest_ns, xn_sched_first(o->q)->sched.due_ns);
    uint64_t need_ns = free_ns + with_margin_ns(cost_ns(s, o->index, o->model, o->full));

    return due_ns > need_ns ? free_ns + (due_ns - need_ns) / 2 : 0;
}

bool xn_sched_choose(struct xn_sched *s, uint32_t index, uint64_t now_ns, struct choice *ret_choice)
{
    enum xn_close_reason reason, full_reason;
    struct offer o, full;

    if (!has_room(&s->instances[index]) || xn_sched_affordable_ns(s, index, now_ns) > now_ns ||
        !first_of(s, index, 0, now_ns, &o, &reason))
        return false;
    /* One that can still grow lets a full one of another model go first while there is time: it loses nothing, and the fleet does more. */
    uint64_t spare_ns = o.n < o.full && !s->draining ? spare_end_ns(s, &o, now_ns) : 0;
    if (spare_ns > 0 && first_of(s, index, spare_ns, now_ns, &full, &full_reason)) {
        o = full;
        reason = full_reason;
    }
    *ret_choice = (struct choice){.slot = o.slot, .n = o.n, .reason = reason};
    return true;
}

uint64_t xn_sched_others_ns(struct xn_sched *s, uint32_t index, uint32_t slot, uint64_t now_ns)
{
    uint64_t until_ns = XN_NEVER_NS;

    for (uint64_t slots = s->busy_slots & ~(UINT64_C(1) << slot); slots; slots &= slots - 1) {
        uint32_t other = (uint32_t)__builtin_ctzll(slots);
        const struct xn_model *model = xn_sched_first(&s->queues[other])->request->model;
        if (!model->loaded[index] || xn_sched_rate(s, model)->usable != 1)
            continue;
        struct offer o = make_offer(s, other, index);
        uint64_t latest_ns = latest_start_ns(s, &o);
        if (latest_ns > now_ns) /* else it is too late for that one in any case */
            until_ns = XN_MIN(until_ns, latest_ns);
    }
    return until_ns;
}

/* How good instance `index` is for the batch of a queue, least first: when it would complete it; or, saving, of those that keep the deadline the joules. */
struct rank {
    bool late;
    double key;
};

static struct rank rank_of(struct xn_sched *s, uint32_t slot, uint32_t index, uint64_t now_ns)
{
    struct offer o = make_offer(s, slot, index);
    enum xn_close_reason reason;

    (void)closes(s, &o, now_ns, &reason); /* as it would start: a preferred size may be smaller */
    uint64_t end_ns = xn_sched_free_ns(&s->instances[index], now_ns) + cost_ns(s, index, o.model, o.n);
    bool saves = s->eco_delay_ns > 0 && xn_sched_watts(s, index) > 0;

    if (saves && end_ns <= latest_end_ns(&o, now_ns))
        return (struct rank){.late = false, .key = joules_of(s, index, &o)};
    return (struct rank){.late = saves, .key = (double)end_ns};
}

/* Could `index` take a batch of `model`, being idle, or (`idle` false) prefetching while it runs? */
static bool could_take(const struct xn_sched *s, uint32_t index, const struct xn_model *model, bool idle)
{
    const struct instance *instance = &s->instances[index];

    return has_room(instance) && model->loaded[index] && (instance->running == 0) == idle;
}

/* Of the instances that could take the batch of `slot` the best one, of those whose batch would hold `n` (0: any). XN_SCHED_NOWHERE: there is none. Where it does not take it none does
 * whose batch would hold as many. */
static uint32_t front_runner(struct xn_sched *s, uint32_t slot, bool idle, uint32_t n, uint64_t now_ns)
{
    const struct xn_model *model = xn_sched_first(&s->queues[slot])->request->model;
    uint32_t best = XN_SCHED_NOWHERE;
    struct rank best_rank = {0};

    for (uint32_t i = 0; i < s->n_instances; i++) {
        if (!could_take(s, i, model, idle) || (n > 0 && make_offer(s, slot, i).n != n))
            continue;
        struct rank rank = rank_of(s, slot, i, now_ns);
        if (best == XN_SCHED_NOWHERE || rank.late < best_rank.late ||
            (rank.late == best_rank.late && rank.key < best_rank.key)) {
            best_rank = rank;
            best = i;
        }
    }
    return best;
}

/* The least number over `n` that the batch of an instance which could take that of `slot` would hold; 0: there is none. */
static uint32_t next_size(struct xn_sched *s, uint32_t slot, bool idle, uint32_t n)
{
    const struct xn_model *model = xn_sched_first(&s->queues[slot])->request->model;
    uint32_t least = 0;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        uint32_t size = could_take(s, i, model, idle) ? make_offer(s, slot, i).n : 0;
        if (size > n && (least == 0 || size < least))
            least = size;
    }
    return least;
}

/* The instance that takes the batch of `slot` now; XN_SCHED_NOWHERE: none. */
static uint32_t taker(struct xn_sched *s, uint32_t slot, bool idle, uint64_t now_ns)
{
    uint32_t index = front_runner(s, slot, idle, 0, now_ns);
    enum xn_close_reason reason;
    struct choice choice;

    if (index == XN_SCHED_NOWHERE || xn_sched_choose(s, index, now_ns, &choice))
        return index;
    struct offer o = make_offer(s, slot, index);
    if (!closes(s, &o, now_ns, &reason))
        return XN_SCHED_NOWHERE;
    /* It leaves the batch to others, of its size; then one with another size may be the first of its own. */
    for (uint32_t n = next_size(s, slot, idle, 0); n > 0; n = next_size(s, slot, idle, n)) {
        index = front_runner(s, slot, idle, n, now_ns);
        if (xn_sched_choose(s, index, now_ns, &choice))
            return index;
    }
    return XN_SCHED_NOWHERE;
}

static uint32_t add_once(uint32_t *list, uint32_t n, uint32_t index)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == index)
            return n;
    list[n] = index;
    return n + 1;
}

uint32_t xn_sched_ready(struct xn_sched *sched, uint64_t now_ns, uint32_t *ret_instances, uint32_t max)
{
    uint32_t n = 0;

    for (uint64_t slots = sched->busy_slots; slots; slots &= slots - 1) {
        for (int idle = 0; idle <= 1 && n < max; idle++) {
            uint32_t index = taker(sched, (uint32_t)__builtin_ctzll(slots), idle, now_ns);
            if (index != XN_SCHED_NOWHERE)
                n = add_once(ret_instances, n, index);
        }
    }
    return n;
}

/* ---- waking ------------------------------------------------------------------------------------------------------- */

/* When the first busy instance that has the model should be free, which may make it another instance's batch. */
static uint64_t first_free_ns(const struct xn_sched *s, const struct xn_model *model, uint64_t now_ns)
{
    uint64_t free_ns = XN_NEVER_NS;

    for (uint32_t i = 0; i < s->n_instances; i++)
        if (s->instances[i].running > 0 && xn_sched_usable(s, i, model))
            free_ns = XN_MIN(free_ns, xn_sched_free_ns(&s->instances[i], now_ns) + 1);
    return free_ns;
}

/* When `o`, which does not close, may do so. */
static uint64_t change_ns(const struct xn_sched *s, const struct offer *o)
{
    bool has_size = o->n == o->full || preferred(o) > 0;

    return has_size ? XN_MIN(bind_ns(s, o), delay_end_ns(s, o)) : delay_end_ns(s, o);
}

/* When the decision about the queue of `slot` may change by time alone. */
static uint64_t queue_wake_ns(struct xn_sched *s, uint32_t slot, uint64_t now_ns)
{
    uint64_t wake_ns = XN_NEVER_NS;

    for (int idle = 0; idle <= 1; idle++) {
        uint32_t index = front_runner(s, slot, idle, 0, now_ns);
        enum xn_close_reason reason;
        if (index == XN_SCHED_NOWHERE)
            continue;
        struct offer o = make_offer(s, slot, index);
        uint64_t afford_ns = xn_sched_affordable_ns(s, index, now_ns);
        if (afford_ns > now_ns)
            wake_ns = XN_MIN(wake_ns, afford_ns);
        else if (!closes(s, &o, now_ns, &reason))
            wake_ns = XN_MIN(wake_ns, XN_MIN(change_ns(s, &o), latest_start_ns(s, &o)));
        else if (!is_for(s, &o, now_ns))
            wake_ns = XN_MIN(wake_ns, first_free_ns(s, o.model, now_ns));
    }
    return wake_ns;
}

uint64_t xn_sched_wake_ns(struct xn_sched *sched, uint64_t now_ns)
{
    uint64_t wake_ns = sched->running.root ? sched->running.root->major : XN_NEVER_NS;

    if (sched->given_up)
        return now_ns + 1;
    for (uint64_t slots = sched->busy_slots; slots; slots &= slots - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(slots);
        wake_ns = XN_MIN(wake_ns, xn_sched_late_ns(sched, slot, NULL));
        wake_ns = XN_MIN(wake_ns, queue_wake_ns(sched, slot, now_ns));
    }
    /* What waits behind an item of another object may be late as soon as that one has gone: then the next look is at once. */
    return XN_MAX(wake_ns, now_ns + 1);
}

bool xn_sched_can_run(const struct xn_sched *sched, const struct xn_model *model)
{
    for (uint32_t i = 0; i < sched->n_instances; i++) {
        if (xn_sched_usable(sched, i, model))
            return true;
    }
    return false;
}
