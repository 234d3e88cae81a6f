/* SPDX-License-Identifier: Apache-2.0
 * One run. Time goes from event to event: arrivals (in order, from the trace), what the heap holds, and the policy's own wake time. After each event the world settles: what is late
 * expires, and each instance that is ready starts a batch, until nothing more can start. This is what dispatch.c does with threads.
 *
 * An instance runs its batches one after the other, in the order in which it got them. A hung one ends nothing more: after the time that dispatch.c would wait, all that
 * it has fails, each item is tried once more elsewhere, and the instance comes back after a pause that grows until a batch has run. */
#include "tests/sim/engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* As in daemon/sched/dispatch.c. */
#define RUN_PATIENCE      20
#define RUN_MIN_NS        XN_NS_PER_S
#define RUN_UNMEASURED_NS (10 * XN_NS_PER_S)
#define RESET_MIN_NS      (100 * XN_NS_PER_MS)
#define RESET_MAX_NS      (30 * XN_NS_PER_S)
#define ATTEMPTS_MAX      2

#define EXPIRE_CHUNK 16
#define READY_CHUNK  64
#define AFTER_NS     (600 * XN_NS_PER_S) /* of the last arrival: what is not answered then never will be */
#define START_NS     XN_NS_PER_S         /* time 0 of a trace: the clock does not begin at 0 */

/* ---- log ---------------------------------------------------------------------------------------------------------- */

enum entry {
    LOG_ADMIT,
    LOG_REFUSE,
    LOG_PUSH,
    LOG_LEAVE,
    LOG_START,
    LOG_END,
    LOG_ANSWER,
    LOG_HUNG,
    LOG_RESET,
    LOG_RELOAD,
    LOG_JUMP
};

static const char *const log_formats[] = {
    [LOG_ADMIT] = "admit    client %lld model %lld items %lld deadline in %lld us",
    [LOG_REFUSE] = "refuse   client %lld model %lld items %lld: errno %lld",
    [LOG_PUSH] = "push     item %lld model %lld client %lld, waiting %lld",
    [LOG_LEAVE] = "leave    client gone, model %lld, items %lld (%lld %lld)",
    [LOG_START] = "start    instance %lld model %lld n %lld (close reason %lld)",
    [LOG_END] = "end      instance %lld model %lld n %lld, took %lld us",
    [LOG_ANSWER] = "answer   item %lld outcome %lld after %lld us (late by %lld us)",
    [LOG_HUNG] = "hung     instance %lld, batches lost %lld (%lld %lld)",
    [LOG_RESET] = "reset    instance %lld (%lld %lld %lld)",
    [LOG_RELOAD] = "reload   model %lld generation %lld (%lld %lld)",
    [LOG_JUMP] = "jump     by %lld us, stall %lld (%lld %lld)",
};

static void note(struct sim *sim, enum entry entry, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t words[] = {(int64_t)sim->now_ns, (int64_t)entry, a, b, c, d};
    uint64_t hash = sim->result->hash;

    for (size_t i = 0; i < XN_ARRAY_LEN(words); i++)
        hash = (hash ^ (uint64_t)words[i]) * UINT64_C(0x9e3779b97f4a7c15) ^ hash >> 29;
    sim->result->hash = hash;
    if (!sim->options->log)
        return;
    fprintf(sim->options->log, "%12.3f ms  ", (double)(sim->now_ns - START_NS) / 1e6);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    fprintf(sim->options->log, log_formats[entry], (long long)a, (long long)b, (long long)c, (long long)d);
#pragma GCC diagnostic pop
    fputc('\n', sim->options->log);
}

void sim_violate(struct sim *sim, const char *format, ...)
{
    va_list args;

    if (sim_violated(sim))
        return;
    va_start(args, format);
    int used = snprintf(sim->result->violation, sizeof(sim->result->violation),
                        "at %.6f ms: ", (double)(sim->now_ns - START_NS) / 1e6);
    (void)vsnprintf(sim->result->violation + used, sizeof(sim->result->violation) - (size_t)used, format, args);
    va_end(args);
}

const char *sim_outcome_name(enum sim_outcome outcome)
{
    static const char *const names[] = {"done", "late", "expired", "refused", "failed", "gone"};

    return outcome < SIM_OUTCOMES ? names[outcome] : "unknown";
}

/* ---- events ------------------------------------------------------------------------------------------------------- */

static bool sooner(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static int schedule(struct sim *sim, struct sim_event event)
{
    if (sim->n_events == sim->events_capacity) {
        size_t capacity = sim->events_capacity ? 2 * sim->events_capacity : 256;
        struct sim_event *grown = realloc(sim->events, capacity * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        sim->events = grown;
        sim->events_capacity = capacity;
    }
    event.order = sim->event_order++;
    size_t i = sim->n_events++;
    for (; i > 0 && sooner(&event, &sim->events[(i - 1) / 2]); i = (i - 1) / 2)
        sim->events[i] = sim->events[(i - 1) / 2];
    sim->events[i] = event;
    return 0;
}

static struct sim_event take_event(struct sim *sim)
{
    struct sim_event first = sim->events[0], last = sim->events[--sim->n_events];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < sim->n_events; i = child) {
        if (child + 1 < sim->n_events && sooner(&sim->events[child + 1], &sim->events[child]))
            child++;
        if (!sooner(&sim->events[child], &last))
            break;
        sim->events[i] = sim->events[child];
    }
    sim->events[i] = last;
    return first;
}

/* ---- items -------------------------------------------------------------------------------------------------------- */

static struct sim_item *item_new(struct sim *sim, struct xn_model *model, const struct sim_arrival *a,
                                 uint64_t deadline_ns)
{
    struct sim_item *item = sim->free_items;

    if (item)
        sim->free_items = item->next_free;
    else if (sim->fresh < sim->n_items)
        item = &sim->items[sim->fresh++];
    else
        return NULL;
    item->request.model = model;
    item->request.deadline_ns = deadline_ns;
    item->request.client = a->client;
    item->request.priority = a->priority;
    item->item.request = &item->request;
    item->item.attempts = 0;
    item->arrived_ns = sim->now_ns;
    item->number = sim->numbers++;
    item->model = a->model;
    item->state = SIM_ANNOUNCED;
    item->answered = false;
    return item;
}

static void item_free(struct sim *sim, struct sim_item *item)
{
    item->state = SIM_FREE;
    item->next_free = sim->free_items;
    sim->free_items = item;
    sim->open--;
}

static uint32_t latency_bucket(uint64_t ns)
{
    if (ns < 64)
        return (uint32_t)ns;
    uint32_t exponent = 63 - (uint32_t)__builtin_clzll(ns);
    uint32_t bucket = (exponent - 5) * 64 + (uint32_t)(ns >> (exponent - 6)) - 64;
    return XN_MIN(bucket, SIM_LATENCY_BUCKETS - 1);
}

double sim_latency_ns(const struct sim_result *result, double share)
{
    uint64_t all = result->outcomes[SIM_DONE] + result->outcomes[SIM_LATE], below = 0;

    for (uint32_t i = 0; i < SIM_LATENCY_BUCKETS; i++) {
        below += result->latency[i];
        if (all > 0 && (double)below >= share * (double)all)
            return i < 64 ? i : ldexp(64 + i % 64 + 0.5, (int)(i / 64) - 1);
    }
    return 0;
}

static int keep_record(struct sim *sim, const struct sim_item *item, enum sim_outcome outcome)
{
    if (sim->n_records == sim->records_capacity) {
        size_t capacity = sim->records_capacity ? 2 * sim->records_capacity : 1024;
        struct sim_record *grown = realloc(sim->records, capacity * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        sim->records = grown;
        sim->records_capacity = capacity;
    }
    sim->records[sim->n_records++] = (struct sim_record){.pushed_ns = item->item.queued_ns,
                                                         .due_ns = item->item.sched.due_ns,
                                                         .deadline_ns = item->request.deadline_ns,
                                                         .answered_ns = sim->now_ns,
                                                         .model = item->model,
                                                         .outcome = (uint8_t)outcome,
                                                         .retried = item->item.attempts > 0};
    return 0;
}

static int answer(struct sim *sim, struct sim_item *item, enum sim_outcome outcome)
{
    struct sim_result *result = sim->result;
    int64_t late_ns = item->request.deadline_ns == XN_NEVER_NS ? 0 : (int64_t)(sim->now_ns - item->request.deadline_ns);

    if (item->answered)
        sim_violate(sim, "item %llu is answered twice", (unsigned long long)item->number);
    item->answered = true;
    result->outcomes[outcome]++;
    if (outcome == SIM_DONE) {
        result->client_done[item->request.client]++;
        result->model_done[item->model]++;
    }
    if (outcome == SIM_DONE || outcome == SIM_LATE)
        result->latency[latency_bucket(sim->now_ns - item->arrived_ns)]++;
    note(sim, LOG_ANSWER, (int64_t)item->number, outcome, (int64_t)(sim->now_ns - item->arrived_ns) / 1000,
         late_ns / 1000);
    if (!sim->options->check)
        return 0;
    sim_check_answer(sim, item, outcome);
    return keep_record(sim, item, outcome);
}

static int push(struct sim *sim, struct sim_item *item)
{
    uint32_t slot = item->model;
    int r = sim->policy->push(sim->state, &item->item, sim->now_ns);

    sim->announced[slot]--;
    sim->announced_total--;
    if (r < 0) {
        sim_violate(sim, "item %llu was admitted, and there is no room for it", (unsigned long long)item->number);
        return 0;
    }
    item->state = SIM_WAITING;
    sim->waiting[slot]++;
    sim->waiting_total++;
    sim->deepest = XN_MAX(sim->deepest, sim->waiting_total);
    note(sim, LOG_PUSH, (int64_t)item->number, slot, item->request.client, sim->waiting[slot]);
    return 0;
}

static void unwait(struct sim *sim, struct sim_item *item, enum sim_state state)
{
    if (item->state != SIM_WAITING)
        sim_violate(sim, "item %llu is taken from the queue and was not in it", (unsigned long long)item->number);
    item->state = (uint8_t)state;
    sim->waiting[item->model]--;
    sim->waiting_total--;
}

/* ---- arrivals ----------------------------------------------------------------------------------------------------- */

static void refuse(struct sim *sim, const struct sim_arrival *a, int r)
{
    struct sim_result *result = sim->result;

    result->outcomes[SIM_REFUSED] += a->n;
    result->refused_full += r == -ENOBUFS ? a->n : 0;
    result->refused_time += r == -EBUSY ? a->n : 0;
    result->refused_share += r == -EDQUOT ? a->n : 0;
    note(sim, LOG_REFUSE, a->client, a->model, a->n, -r);
}

/* The items of an admitted request: at once, or each a while after the other; or the client goes. */
static int bring(struct sim *sim, const struct sim_arrival *a, struct xn_model *model, uint64_t deadline_ns)
{
    int r = 0;

    if (a->gone)
        return schedule(
            sim,
            (struct sim_event){.at_ns = sim->now_ns + a->decode_ns, .kind = SIM_LEAVE, .index = a->n, .model = model});
    for (uint32_t i = 0; r == 0 && i < a->n; i++) {
        struct sim_item *item = item_new(sim, model, a, deadline_ns);
        if (!item)
            return -ENOMEM;
        sim->open++;
        r = a->decode_ns == 0
                ? push(sim, item)
                : schedule(sim, (struct sim_event){
                                    .at_ns = sim->now_ns + (i + 1) * a->decode_ns, .kind = SIM_PUSH, .item = item});
    }
    return r;
}

static int arrive(struct sim *sim, const struct sim_arrival *a)
{
    struct xn_model *model = sim->current[a->model];
    uint64_t deadline_ns = a->relative_ns == XN_NEVER_NS ? XN_NEVER_NS : sim->now_ns + a->relative_ns;
    struct xn_sched_ask ask = {
        .model = model, .n = a->n, .deadline_ns = deadline_ns, .client = a->client, .priority = a->priority};
    uint64_t retry_ns = 0;

    sim->result->items += a->n;
    sim->result->client_items[a->client] += a->n;
    int r = sim->policy->admit(sim->state, &ask, sim->now_ns, &retry_ns);
    if (r < 0) {
        if (retry_ns == 0)
            sim_violate(sim, "refused, and nothing said of when to try again");
        refuse(sim, a, r);
        return 0;
    }
    sim->announced[a->model] += a->n;
    sim->announced_total += a->n;
    note(sim, LOG_ADMIT, a->client, a->model, a->n, deadline_ns == XN_NEVER_NS ? -1 : (int64_t)a->relative_ns / 1000);
    return bring(sim, a, model, deadline_ns);
}

static int leave(struct sim *sim, const struct sim_event *event)
{
    sim->policy->retract(sim->state, event->model, event->index);
    sim->announced[event->model->slot] -= event->index;
    sim->announced_total -= event->index;
    sim->result->outcomes[SIM_GONE] += event->index;
    note(sim, LOG_LEAVE, event->model->slot, event->index, 0, 0);
    return 0;
}

/* ---- instances ---------------------------------------------------------------------------------------------------- */

static uint64_t real_ns(struct sim *sim, uint32_t index, const struct xn_batch *batch)
{
    const struct sim_scenario *s = sim->scenario;
    struct sim_random *random = &sim->instances[index].random;
    double ns = sim_cost_ns(s, index, batch->model->slot, sim_object_of(batch->model)->factor, batch->n);

    if (s->noise > 0)
        ns *= fmax(0.2, 1 + s->noise * sim_normal(random));
    if (s->stall_share > 0 && sim_chance(random, s->stall_share))
        ns *= s->stall_factor;
    return (uint64_t)ns + 1;
}

static void account_start(struct sim *sim, uint32_t index, const struct xn_batch *batch, uint64_t exec_ns)
{
    struct sim_instance *in = &sim->instances[index];
    double watts = sim->scenario->devices[index].watts;

    sim->result->batches++;
    sim->result->images += batch->n;
    sim->result->joules += watts * (double)exec_ns / 1e9;
    sim->joules_expected += watts * (double)batch->cost_ns / 1e9;
    sim->joules_largest = fmax(sim->joules_largest, watts * (double)XN_MAX(exec_ns, batch->cost_ns) / 1e9);
    in->expected_free_ns = XN_MAX(in->expected_free_ns, sim->now_ns) + batch->cost_ns;
    in->expected_left_ns += batch->cost_ns;
    if (in->n_flights == 0) {
        sim->running_instances++;
        sim->running_watts += watts;
    }
}

static void account_idle(struct sim *sim, uint32_t index)
{
    sim->running_instances--;
    sim->running_watts -= sim->scenario->devices[index].watts;
}

static int start(struct sim *sim, uint32_t index, struct xn_batch *batch)
{
    struct sim_instance *in = &sim->instances[index];
    uint64_t limit_ns =
        batch->expected_ns == 0 ? RUN_UNMEASURED_NS : XN_MAX(RUN_MIN_NS, batch->expected_ns * RUN_PATIENCE);
    uint64_t exec_ns = real_ns(sim, index, batch);
    bool stuck = in->n_flights > 0 && in->busy_until_ns == XN_NEVER_NS;
    bool hung = stuck || (sim->scenario->hang_share > 0 && sim_chance(&in->random, sim->scenario->hang_share));

    sim_check_batch(sim, batch);
    if (sim_violated(sim))
        return 0;
    for (uint32_t i = 0; i < batch->n; i++)
        unwait(sim, sim_item_of(batch->items[i]), SIM_RUNNING);
    note(sim, LOG_START, index, batch->model->slot, batch->n, batch->reason);
    account_start(sim, index, batch, exec_ns);
    in->flights[(in->first + in->n_flights++) % XN_ACCEL_INFLIGHT_MAX] =
        (struct sim_flight){.batch = batch, .submitted_ns = sim->now_ns, .exec_ns = exec_ns, .hung = hung};
    if (stuck)
        return 0; /* whoever comes behind one that hangs goes with it */
    uint64_t begin_ns = XN_MAX(in->busy_until_ns, sim->now_ns);
    in->busy_until_ns = hung ? XN_NEVER_NS : begin_ns + exec_ns;
    return schedule(sim, (struct sim_event){.at_ns = hung ? begin_ns + limit_ns : begin_ns + exec_ns,
                                            .kind = hung ? SIM_HUNG : SIM_END,
                                            .index = index,
                                            .epoch = in->epoch});
}

static struct sim_flight take_flight(struct sim *sim, uint32_t index)
{
    struct sim_instance *in = &sim->instances[index];
    struct sim_flight flight = in->flights[in->first];

    in->first = (in->first + 1) % XN_ACCEL_INFLIGHT_MAX;
    in->expected_left_ns -= flight.batch->cost_ns;
    in->expected_free_ns = sim->now_ns + in->expected_left_ns;
    if (--in->n_flights == 0)
        account_idle(sim, index);
    return flight;
}

static int end_batch(struct sim *sim, uint32_t index)
{
    struct sim_flight flight = take_flight(sim, index);
    struct xn_batch *batch = flight.batch;
    int r = 0;

    sim->instances[index].reset_pause_ns = 0;
    note(sim, LOG_END, index, batch->model->slot, batch->n, (int64_t)flight.exec_ns / 1000);
    sim->policy->done(sim->state, batch, flight.exec_ns, 0, sim->now_ns);
    for (uint32_t i = 0; r == 0 && i < batch->n; i++) {
        struct sim_item *item = sim_item_of(batch->items[i]);
        if (!item->answered)
            r = answer(sim, item, item->request.deadline_ns < sim->now_ns ? SIM_LATE : SIM_DONE);
        item_free(sim, item);
    }
    return r;
}

static int fail_batch(struct sim *sim, struct sim_flight flight)
{
    struct xn_batch *batch = flight.batch;
    int r = 0;

    sim->policy->done(sim->state, batch, sim->now_ns - flight.submitted_ns, -EIO, sim->now_ns);
    for (uint32_t i = batch->n; r == 0 && i-- > 0;) {
        struct sim_item *item = sim_item_of(batch->items[i]);
        bool again = ++item->item.attempts < ATTEMPTS_MAX && !item->answered &&
                     item->request.deadline_ns > sim->now_ns && sim->policy->can_run(sim->state, item->request.model);
        if (again) {
            sim->policy->requeue(sim->state, &item->item);
            item->state = SIM_WAITING;
            sim->waiting[item->model]++;
            sim->waiting_total++;
            continue;
        }
        if (!item->answered)
            r = answer(sim, item, SIM_FAILED);
        item_free(sim, item);
    }
    return r;
}

static int quarantine(struct sim *sim, uint32_t index)
{
    struct sim_instance *in = &sim->instances[index];
    int r = 0;

    note(sim, LOG_HUNG, index, in->n_flights, 0, 0);
    in->healthy = false;
    in->epoch++;
    sim->policy->set_healthy(sim->state, index, false);
    while (r == 0 && in->n_flights > 0)
        r = fail_batch(sim, take_flight(sim, index));
    in->busy_until_ns = 0;
    in->reset_pause_ns = XN_MIN(XN_MAX(2 * in->reset_pause_ns, RESET_MIN_NS), RESET_MAX_NS);
    if (r < 0)
        return r;
    return schedule(
        sim, (struct sim_event){
                 .at_ns = sim->now_ns + in->reset_pause_ns, .kind = SIM_RESET, .index = index, .epoch = in->epoch});
}

static int repair(struct sim *sim, uint32_t index)
{
    sim->instances[index].healthy = true;
    sim->policy->set_healthy(sim->state, index, true);
    note(sim, LOG_RESET, index, 0, 0, 0);
    return 0;
}

/* ---- the world ---------------------------------------------------------------------------------------------------- */

/* A new object for `slot`: as at start, or a reload. */
static void publish(struct sim *sim, uint32_t slot, double factor)
{
    static char mark; /* only whether there is an address counts */
    const struct sim_model *m = &sim->scenario->models[slot];
    struct sim_object *object = &sim->objects[sim->n_objects++];

    object->factor = factor;
    object->model = (struct xn_model){.name = "model",
                                      .max_batch = m->max_batch,
                                      .max_delay_us = m->max_delay_us,
                                      .queue_limit = m->queue_limit,
                                      .preferred_batch = m->preferred,
                                      .slot = slot,
                                      .generation = sim->n_objects};
    for (uint32_t i = 0; i < sim->scenario->n_instances; i++)
        if (sim_has(sim->scenario, i, slot))
            object->model.loaded[i] = (struct xn_accel_model *)(void *)&mark;
    sim->current[slot] = &object->model;
    for (uint32_t i = 0; sim->scenario->warm && i < sim->scenario->n_instances; i++) {
        for (uint32_t n = 1; object->model.loaded[i] && n <= m->max_batch; n = n < m->max_batch ? m->max_batch : n + 1)
            sim->policy->observe(sim->state, &object->model, i, n,
                                 (uint64_t)sim_cost_ns(sim->scenario, i, slot, factor, n) + 1);
    }
}

static int reload(struct sim *sim, uint32_t index)
{
    uint32_t slot = sim->scenario->reloads[index].model;

    publish(sim, slot, sim->scenario->reloads[index].factor);
    note(sim, LOG_RELOAD, slot, (int64_t)sim->current[slot]->generation, 0, 0);
    return 0;
}

static int jump(struct sim *sim, uint32_t index)
{
    const struct sim_jump *j = &sim->scenario->jumps[index];

    note(sim, LOG_JUMP, (int64_t)j->by_ns / 1000, j->stall, 0, 0);
    if (j->stall) {
        sim->stalled_until_ns = sim->now_ns + j->by_ns;
        return 0;
    }
    /* All that was to come comes as much later; what the policy knows of times does not move. */
    sim->shift_ns += j->by_ns;
    for (size_t i = 0; i < sim->n_events; i++)
        sim->events[i].at_ns += j->by_ns;
    for (uint32_t i = 0; i < sim->scenario->n_instances; i++) {
        struct sim_instance *in = &sim->instances[i];
        in->busy_until_ns += in->busy_until_ns == XN_NEVER_NS || in->busy_until_ns == 0 ? 0 : j->by_ns;
    }
    sim->now_ns += j->by_ns;
    return 0;
}

static int happen(struct sim *sim, const struct sim_event *event)
{
    bool of_instance = event->kind == SIM_END || event->kind == SIM_HUNG || event->kind == SIM_RESET;

    if (of_instance && event->epoch != sim->instances[event->index].epoch)
        return 0;
    switch (event->kind) {
    case SIM_PUSH:
        return push(sim, event->item);
    case SIM_LEAVE:
        return leave(sim, event);
    case SIM_END:
        return end_batch(sim, event->index);
    case SIM_HUNG:
        return quarantine(sim, event->index);
    case SIM_RESET:
        return repair(sim, event->index);
    case SIM_RELOAD:
        return reload(sim, event->index);
    case SIM_JUMP:
        return jump(sim, event->index);
    }
    return 0;
}

/* ---- settling ----------------------------------------------------------------------------------------------------- */

static int expire(struct sim *sim, uint64_t *ret_acts)
{
    struct xn_expired expired[EXPIRE_CHUNK];
    uint32_t n;
    int r = 0;

    while (r == 0 && (n = sim->policy->expire(sim->state, sim->now_ns, expired, EXPIRE_CHUNK)) > 0) {
        *ret_acts += n;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            struct sim_item *item = sim_item_of(expired[i].item);
            if (expired[i].running != (item->state == SIM_RUNNING))
                sim_violate(sim, "item %llu expires in the wrong place", (unsigned long long)item->number);
            if (!expired[i].running)
                unwait(sim, item, SIM_ANNOUNCED);
            r = answer(sim, item, SIM_EXPIRED);
            if (!expired[i].running)
                item_free(sim, item);
        }
    }
    return r;
}

static int start_one(struct sim *sim, uint32_t index, uint64_t *ret_acts, bool *ret_started)
{
    struct xn_batch *batch = sim->policy->next(sim->state, index, sim->now_ns);

    *ret_started = batch != NULL;
    *ret_acts += batch != NULL;
    return batch ? start(sim, index, batch) : 0;
}

/* Until nothing more can happen now. *ret_acts: what did. */
static int settle(struct sim *sim, uint32_t ended, uint64_t *ret_acts)
{
    uint32_t ready[READY_CHUNK], n;
    bool started = ended < sim->scenario->n_instances && sim->scenario->eager;
    int r = expire(sim, ret_acts);

    while (r == 0 && started && !sim_violated(sim))
        r = start_one(sim, ended, ret_acts, &started);
    r = r < 0 ? r : expire(sim, ret_acts); /* a batch may have given some up */
    while (r == 0 && !sim_violated(sim) && (n = sim->policy->ready(sim->state, sim->now_ns, ready, READY_CHUNK)) > 0) {
        for (uint32_t i = 0; r == 0 && i < n && !sim_violated(sim); i++) {
            r = start_one(sim, ready[i], ret_acts, &started);
            if (i == 0 && !started &&
                sim->policy->is_xnord) /* a peer drops what has timed out when an instance comes */
                sim_violate(sim, "instance %u is ready, and has nothing to start", ready[i]);
        }
        r = r < 0 ? r : expire(sim, ret_acts);
    }
    if (r < 0 || sim_violated(sim))
        return r;
    sim->wake_ns = sim->policy->wake(sim->state, sim->now_ns);
    if (sim->wake_ns <= sim->now_ns)
        sim_violate(sim, "wakes at once and has nothing to do");
    if (sim->options->check)
        sim_check_settled(sim);
    return 0;
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

static uint64_t arrival_ns(const struct sim *sim)
{
    if (sim->next_arrival >= sim->trace->n)
        return XN_NEVER_NS;
    return START_NS + sim->trace->arrivals[sim->next_arrival].at_ns + sim->shift_ns;
}

/* Many wakes in a row at which nothing happens, or some that follow at once, say that the policy does not know when it will act. */
static void count_wake(struct sim *sim, uint64_t acts)
{
    bool at_once = sim->wake_ns <= sim->now_ns + 1;

    sim->result->wakes++;
    sim->result->idle_wakes += acts == 0;
    sim->useless_wakes = acts == 0 ? sim->useless_wakes + 1 : 0;
    sim->hasty_wakes = acts == 0 && at_once ? sim->hasty_wakes + 1 : 0;
    if (sim->useless_wakes > 10000)
        sim_violate(sim, "ten thousand wakes in a row, and nothing happened");
    if (sim->hasty_wakes > 4)
        sim_violate(sim, "wakes at once, again and again, and nothing happens");
}

static int step(struct sim *sim)
{
    uint64_t event_ns = sim->n_events > 0 ? sim->events[0].at_ns : XN_NEVER_NS;
    uint64_t at_ns = XN_MIN(XN_MIN(event_ns, arrival_ns(sim)), sim->wake_ns), acts = 0;
    uint32_t ended = UINT32_MAX;
    bool wakes = false;
    int r = 0;

    sim->now_ns = XN_MAX(sim->now_ns, XN_MAX(at_ns, sim->stalled_until_ns));
    if (event_ns == at_ns) {
        struct sim_event event = take_event(sim);
        ended = event.kind == SIM_END ? event.index : UINT32_MAX;
        sim->useless_wakes = sim->hasty_wakes = 0;
        r = happen(sim, &event);
    } else if (arrival_ns(sim) == at_ns) {
        sim->useless_wakes = sim->hasty_wakes = 0;
        r = arrive(sim, &sim->trace->arrivals[sim->next_arrival++]);
    } else {
        wakes = true;
    }
    sim->result->steps++;
    if (r == 0 && !sim_violated(sim))
        r = settle(sim, ended, &acts);
    if (wakes)
        count_wake(sim, acts);
    return r;
}

static int init(struct sim *sim)
{
    const struct sim_scenario *s = sim->scenario;
    size_t in_flight = 0;
    uint32_t widest = 0;
    int r = 0;

    for (uint32_t i = 0; i < s->n_models; i++)
        widest = XN_MAX(widest, s->models[i].max_batch);
    for (uint32_t i = 0; i < s->n_instances; i++)
        in_flight += (s->devices[i].inflight + 1) * widest;
    sim->n_items = 2 * (size_t)s->queue_total + in_flight + 64;
    sim->items = calloc(sim->n_items, sizeof(*sim->items));
    sim->instances = calloc(s->n_instances, sizeof(*sim->instances));
    sim->objects = calloc(s->n_models + s->n_reloads, sizeof(*sim->objects));
    if (!sim->items || !sim->instances || !sim->objects)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_instances; i++)
        sim->instances[i] = (struct sim_instance){.random = sim_random_of(s->seed, 10000 + i), .healthy = true};
    for (uint32_t i = 0; i < s->n_models; i++)
        publish(sim, i, 1);
    for (uint32_t i = 0; r == 0 && i < s->n_reloads; i++)
        r = schedule(sim, (struct sim_event){.at_ns = START_NS + s->reloads[i].at_ns, .kind = SIM_RELOAD, .index = i});
    for (uint32_t i = 0; r == 0 && i < s->n_jumps; i++)
        r = schedule(sim, (struct sim_event){.at_ns = START_NS + s->jumps[i].at_ns, .kind = SIM_JUMP, .index = i});
    return r;
}

static int run(struct sim *sim)
{
    int r = 0;

    while (r == 0 && !sim_violated(sim) &&
           (sim->next_arrival < sim->trace->n || sim->open > 0 || sim->announced_total > 0)) {
        if (sim->n_events == 0 && sim->next_arrival >= sim->trace->n && sim->wake_ns == XN_NEVER_NS)
            sim_violate(sim, "%llu items wait, and nothing will ever happen", (unsigned long long)sim->open);
        else
            r = step(sim);
        if (sim->now_ns > START_NS + sim->scenario->duration_ns + sim->shift_ns + AFTER_NS)
            sim_violate(sim, "%llu items are not answered after ten minutes", (unsigned long long)sim->open);
    }
    sim->result->end_ns = sim->now_ns - START_NS;
    if (r == 0 && sim->options->check && !sim_violated(sim))
        r = sim_check_end(sim);
    return r;
}

int sim_run(const struct sim_scenario *scenario, const struct sim_trace *trace, const struct sim_policy *policy,
            const struct sim_knobs *knobs, const struct sim_options *options, struct sim_result *ret_result)
{
    struct sim sim = {.scenario = scenario,
                      .trace = trace,
                      .policy = policy,
                      .options = options,
                      .result = ret_result,
                      .now_ns = START_NS,
                      .wake_ns = XN_NEVER_NS};

    *ret_result = (struct sim_result){.hash = UINT64_C(0xcbf29ce484222325)};
    int r = policy->create(scenario, knobs, &sim.state);
    if (r < 0)
        return r;
    r = init(&sim);
    if (r == 0)
        r = run(&sim);
    policy->destroy(sim.state);
    free(sim.items);
    free(sim.instances);
    free(sim.objects);
    free(sim.events);
    free(sim.records);
    return r;
}
