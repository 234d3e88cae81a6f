/* SPDX-License-Identifier: Apache-2.0
 * What must hold at every step of a run of daemon/sched, and over the whole of it. Each check has its reason where it stands; docs/scheduling.md has the list.
 *
 * The checks keep their own books (states of items, who runs what, what waits): they ask the scheduler nothing but what it expects of a batch's time, as an idle instance
 * is right or wrong only by what was known then. */
#include <stdlib.h>

#include "tests/sim/engine.h"

#define WORK_CONSERVING_ALWAYS 32u /* instances up to which every step is checked; of larger fleets every 64th */

/* Of the machine that misses are held against: see check_missed. */
#define CLAIRVOYANT_SPEED 0.5

/* ---- batches ------------------------------------------------------------------------------------------------------ */

static void check_items(struct sim *sim, const struct xn_batch *batch)
{
    for (uint32_t i = 0; i < batch->n; i++) {
        const struct sim_item *item = sim_item_of(batch->items[i]);
        if (item->state != SIM_WAITING)
            sim_violate(sim, "item %llu is in a batch and did not wait", (unsigned long long)item->number);
        if (item->request.model != batch->model)
            sim_violate(sim, "item %llu is in a batch of another model", (unsigned long long)item->number);
        if (sim->policy->is_xnord && item->request.deadline_ns <= sim->now_ns)
            sim_violate(sim, "item %llu starts after its deadline", (unsigned long long)item->number);
        for (uint32_t k = i + 1; k < batch->n; k++)
            if (batch->items[k] == batch->items[i])
                sim_violate(sim, "item %llu is twice in a batch", (unsigned long long)item->number);
    }
}

/* The cap holds for all that runs, save for one instance alone. The budget is a bucket of one second's joules which each batch empties by what it is expected to
 * need, and which the last one may overdraw. */
static void check_energy(struct sim *sim, uint32_t index)
{
    const struct sim_scenario *s = sim->scenario;
    const struct sim_instance *in = &sim->instances[index];
    double watts = sim->running_watts + (in->n_flights == 0 ? s->devices[index].watts : 0);
    double seconds = (double)(sim->now_ns - XN_NS_PER_S) / 1e9;

    if (s->watts_cap > 0 && watts > s->watts_cap * (1 + 1e-9) && sim->running_instances > (in->n_flights > 0 ? 1u : 0u))
        sim_violate(sim, "%.1f W run under a cap of %.1f W", watts, s->watts_cap);
    if (s->watts_budget > 0 && sim->joules_expected > s->watts_budget * (seconds + 1) + sim->joules_largest + 1e-6)
        sim_violate(sim, "%.3f J are spent after %.3f s of a budget of %.1f W", sim->joules_expected, seconds,
                    s->watts_budget);
}

void sim_check_batch(struct sim *sim, const struct xn_batch *batch)
{
    const struct sim_instance *in = &sim->instances[batch->instance];

    if (batch->n < 1 || batch->n > batch->model->max_batch)
        sim_violate(sim, "a batch of %u of at most %u", batch->n, batch->model->max_batch);
    else if (!batch->model->loaded[batch->instance])
        sim_violate(sim, "instance %u has not got model %u", batch->instance, batch->model->slot);
    else if (!in->healthy)
        sim_violate(sim, "instance %u is out of service and gets a batch", batch->instance);
    else if (in->n_flights >= sim->scenario->devices[batch->instance].inflight)
        sim_violate(sim, "instance %u has %u batches already", batch->instance, in->n_flights);
    else if (sim->options->check) {
        check_items(sim, batch);
        if (sim->policy->is_xnord)
            check_energy(sim, batch->instance);
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

/* A timed item has its answer by its deadline, whatever happens (by the end of a stall of the whole process, where nobody can act). One without a deadline may wait after it is
 * due only for what was due before: see sim_check_end. */
void sim_check_answer(struct sim *sim, const struct sim_item *item, enum sim_outcome outcome)
{
    uint64_t deadline_ns = item->request.deadline_ns;

    if (!sim->policy->is_xnord)
        return;
    if (deadline_ns != XN_NEVER_NS) {
        uint64_t pushed_ns = item->item.queued_ns; /* it may have come when its time was over */
        uint64_t latest_ns = XN_MAX(XN_MAX(deadline_ns, sim->stalled_until_ns), pushed_ns);
        if (sim->now_ns > latest_ns && sim->shift_ns == 0)
            sim_violate(sim, "item %llu is answered %llu ns after its deadline", (unsigned long long)item->number,
                        (unsigned long long)(sim->now_ns - deadline_ns));
        return;
    }
    if (outcome == SIM_DONE && sim->now_ns > item->item.sched.due_ns)
        sim->starved_ns = fmax(sim->starved_ns, (double)(sim->now_ns - item->item.sched.due_ns));
}

/* ---- idle instances ----------------------------------------------------------------------------------------------- */

/* Images of `slot` that others than `index` can be expected to have done by `by_ns`, at the very most. */
static double others_do(struct sim *sim, uint32_t index, uint32_t slot, uint64_t by_ns)
{
    const struct xn_model *model = sim->current[slot];
    double images = 0;

    for (uint32_t i = 0; i < sim->scenario->n_instances; i++) {
        const struct sim_instance *in = &sim->instances[i];
        if (i == index || !in->healthy || !model->loaded[i])
            continue;
        uint64_t free_ns = XN_MAX(in->n_flights > 0 ? in->expected_free_ns : 0, sim->now_ns);
        double time_ns = by_ns >= free_ns ? (double)(by_ns - free_ns) : 0;
        double one_ns = (double)sim_xnord_expects_ns(sim->state, slot, i, 1);
        double full_ns = (double)sim_xnord_expects_ns(sim->state, slot, i, model->max_batch);
        if (one_ns == 0 && by_ns >= free_ns)
            return INFINITY;
        if (time_ns >= one_ns)
            images += fmax(1, time_ns * model->max_batch / full_ns);
    }
    return images;
}

/* Work conserving: an instance idles beside an item that it could run only while more items of the model are on their way, or while other instances are expected to
 * have done all that waits before this one would end a batch. */
static void check_idle(struct sim *sim, uint32_t index)
{
    for (uint32_t slot = 0; slot < sim->scenario->n_models; slot++) {
        uint32_t waiting = sim->waiting[slot];
        const struct xn_model *model = sim->current[slot];
        if (waiting == 0 || sim->announced[slot] > 0 || !model->loaded[index])
            continue;
        uint64_t own_ns = sim_xnord_expects_ns(sim->state, slot, index, XN_MIN(waiting, model->max_batch));
        if (others_do(sim, index, slot, sim->now_ns + own_ns) < waiting)
            sim_violate(sim, "instance %u is idle while %u items of model %u wait, and no other will do them sooner",
                        index, waiting, slot);
    }
}

void sim_check_settled(struct sim *sim)
{
    const struct sim_scenario *s = sim->scenario;

    for (uint32_t slot = 0; slot < s->n_models; slot++)
        if (sim->waiting[slot] > s->models[slot].queue_limit &&
            s->hang_share == 0) /* items of a failed batch come on top */
            sim_violate(sim, "%u items wait in a queue of %u", sim->waiting[slot], s->models[slot].queue_limit);
        else if (sim->waiting[slot] != sim->policy->depth(sim->state, slot))
            sim_violate(sim, "%u items of model %u wait, and it says %u", sim->waiting[slot], slot,
                        sim->policy->depth(sim->state, slot));
    if (sim->waiting_total > s->queue_total && s->hang_share == 0)
        sim_violate(sim, "%u items wait where %u may", sim->waiting_total, s->queue_total);
    bool saves = s->watts_cap > 0 || s->watts_budget > 0;
    if (!sim->policy->is_xnord || saves || sim->waiting_total == 0 ||
        (s->n_instances > WORK_CONSERVING_ALWAYS && sim->checks++ % 64 != 0))
        return;
    for (uint32_t i = 0; i < s->n_instances; i++)
        if (sim->instances[i].healthy && sim->instances[i].n_flights == 0)
            check_idle(sim, i);
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

static uint64_t answered(const struct sim_result *result)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < SIM_OUTCOMES; i++)
        sum += result->outcomes[i];
    return sum;
}

/* How much longer than it should a batch may take. */
static double slowest(const struct sim_scenario *s)
{
    return (1 + 3.5 * s->noise) * (s->stall_share > 0 ? s->stall_factor : 1);
}

static void longest_ns(const struct sim_scenario *s, double *ret_full, double *ret_one)
{
    *ret_full = *ret_one = 0;
    for (uint32_t i = 0; i < s->n_instances; i++)
        for (uint32_t m = 0; m < s->n_models; m++) {
            if (!sim_has(s, i, m))
                continue;
            *ret_full = fmax(*ret_full, sim_cost_ns(s, i, m, 1, s->models[m].max_batch));
            *ret_one = fmax(*ret_one, sim_cost_ns(s, i, m, 1, 1));
        }
    for (uint32_t i = 0; i < s->n_reloads; i++) {
        *ret_full *= fmax(1, s->reloads[i].factor);
        *ret_one *= fmax(1, s->reloads[i].factor);
    }
}

/* What is due never moves, and whatever comes after an item is due is due later than it. So after that time it waits for no more than what waited then (at most the deepest that the
 * queues ever were), done one by one by the slowest instance, behind the batches that run; a batch may wait for its model's delay. */
static void check_starvation(struct sim *sim)
{
    const struct sim_scenario *s = sim->scenario;
    double full_ns, one_ns, delay_ns = 0;

    if (s->hang_share > 0 || s->n_jumps > 0 || s->watts_cap > 0 || s->watts_budget > 0)
        return;
    longest_ns(s, &full_ns, &one_ns);
    for (uint32_t i = 0; i < s->n_models; i++)
        delay_ns = fmax(delay_ns, s->models[i].max_delay_us * 1e3);
    double bound_ns = slowest(s) * (sim->deepest * one_ns + 3 * full_ns) + delay_ns;
    sim->result->starved = sim->starved_ns / bound_ns;
    if (sim->starved_ns > bound_ns)
        sim_violate(sim, "an item waited %.3f ms after it was due, where %.3f ms would be the most",
                    sim->starved_ns / 1e6, bound_ns / 1e6);
}

/* Where the fluid machine says something of this fleet: each model everywhere, costs known from the start, nothing failed or jumped or saved. */
static bool comparable(const struct sim_scenario *s)
{
    for (uint32_t i = 0; i < s->n_models; i++)
        if (s->models[i].every != 1)
            return false;
    return s->warm && s->hang_share == 0 && s->stall_share == 0 && s->n_jumps == 0 && s->n_reloads == 0 &&
           s->watts_cap == 0 && s->watts_budget == 0;
}

/* An admitted item that was missed although the clairvoyant machine, slower than the fleet at its best, would have had it done with time to spare. Slower, as batches that are cut short for a deadline lose
 * what an even flow does not, and that adds up under overload. The time to spare a real fleet needs for batches that cannot be stopped: one that runs, one of its own, and one more that was
 * let go first; longer by the noise. */
static int check_missed(struct sim *sim)
{
    double full_ns, one_ns;
    size_t index;

    if (!comparable(sim->scenario))
        return 0;
    longest_ns(sim->scenario, &full_ns, &one_ns);
    double bound_ns = 3 * slowest(sim->scenario) * full_ns + 2e6;
    int r = sim_missed(sim->scenario, sim->records, sim->n_records, CLAIRVOYANT_SPEED, bound_ns, &index);
    if (r < 0 || index == sim->n_records)
        return r;
    const struct sim_record *record = &sim->records[index];
    sim_violate(sim,
                "an admitted item of model %u, pushed at %.3f ms with %.3f ms of time, was missed; a fluid machine has "
                "it done %.3f ms before",
                record->model, (double)(record->pushed_ns - XN_NS_PER_S) / 1e6,
                (double)(record->deadline_ns - record->pushed_ns) / 1e6, bound_ns / 1e6);
    return 0;
}

/* The budget in joules that were really spent: what a batch needs more than was expected is noise, and has no mean. */
static void check_budget(struct sim *sim)
{
    const struct sim_scenario *s = sim->scenario;
    double may = s->watts_budget * ((double)sim->result->end_ns / 1e9 + 1) * 1.1 + 2 * sim->joules_largest;

    if (s->watts_budget > 0 && s->stall_share == 0 && s->warm && s->n_reloads == 0 && s->hang_share == 0 &&
        sim->result->joules > may)
        sim_violate(sim, "%.3f J were spent where %.3f J might", sim->result->joules, may);
}

int sim_check_end(struct sim *sim)
{
    struct sim_result *result = sim->result;

    if (answered(result) != result->items)
        sim_violate(sim, "%llu items came, %llu were answered", (unsigned long long)result->items,
                    (unsigned long long)answered(result));
    if (sim->waiting_total > 0 || sim->announced_total > 0)
        sim_violate(sim, "%u wait and %u are announced at the end", sim->waiting_total, sim->announced_total);
    if (!sim->policy->is_xnord)
        return 0;
    check_starvation(sim);
    check_budget(sim);
    return check_missed(sim);
}

int sim_check_seed(uint64_t seed, const struct sim_policy *policy, FILE *log, struct sim_result *ret_result)
{
    struct sim_scenario scenario;
    struct sim_trace trace;
    const struct sim_knobs knobs = {0};
    const struct sim_options options = {.log = log, .check = true};
    int r = sim_scenario_random(seed, &scenario);

    if (r < 0)
        return r;
    r = sim_trace_new(&scenario, &trace);
    if (r == 0)
        r = sim_run(&scenario, &trace, policy, &knobs, &options, ret_result);
    sim_trace_done(&trace);
    sim_scenario_done(&scenario);
    return r;
}
