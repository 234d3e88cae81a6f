/* SPDX-License-Identifier: Apache-2.0
 * The daemon's own batcher and scheduler as a policy: nothing but its calls. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

static int create(const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state)
{
    struct xn_sched_instance *instances = calloc(scenario->n_instances, sizeof(*instances));
    struct xn_sched_config config = {.n_instances = scenario->n_instances,
                                     .instances = instances,
                                     .queue_total = scenario->queue_total,
                                     .watts_cap = scenario->watts_cap,
                                     .watts_budget = scenario->watts_budget,
                                     .eco_delay_us = scenario->eco_delay_us};
    struct xn_sched *sched = NULL;
    (void)knobs;

    if (!instances)
        return -ENOMEM;
    for (uint32_t i = 0; i < scenario->n_instances; i++)
        instances[i] =
            (struct xn_sched_instance){.inflight = scenario->devices[i].inflight, .watts = scenario->devices[i].watts};
    int r = xn_sched_new(&config, &sched);
    free(instances);
    *ret_state = sched;
    return r;
}

static void destroy(void *state)
{
    xn_sched_free(state);
}

static int admit(void *state, const struct xn_sched_ask *ask, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    return xn_sched_admit(state, ask, now_ns, ret_retry_ns);
}

static void retract(void *state, const struct xn_model *model, uint32_t n)
{
    xn_sched_retract(state, model, n);
}

static int push(void *state, struct xn_item *item, uint64_t now_ns)
{
    return xn_sched_push(state, item, now_ns);
}

static void requeue(void *state, struct xn_item *item)
{
    xn_sched_requeue(state, item);
}

static struct xn_batch *next(void *state, uint32_t instance, uint64_t now_ns)
{
    return xn_sched_next(state, instance, now_ns);
}

static void done(void *state, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns)
{
    xn_sched_done(state, batch, exec_ns, status, now_ns);
}

static void observe(void *state, const struct xn_model *model, uint32_t instance, uint32_t n, uint64_t exec_ns)
{
    xn_sched_predict(state, model, instance, n, exec_ns);
}

static uint32_t expire(void *state, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    return xn_sched_expire(state, now_ns, ret_expired, max);
}

static uint32_t ready(void *state, uint64_t now_ns, uint32_t *ret_instances, uint32_t max)
{
    return xn_sched_ready(state, now_ns, ret_instances, max);
}

static uint64_t wake(void *state, uint64_t now_ns)
{
    return xn_sched_wake_ns(state, now_ns);
}

static void set_healthy(void *state, uint32_t instance, bool healthy)
{
    xn_sched_set_healthy(state, instance, healthy);
}

static bool can_run(void *state, const struct xn_model *model)
{
    return xn_sched_can_run(state, model);
}

static uint32_t depth(void *state, uint32_t slot)
{
    return xn_sched_depth(state, slot);
}

uint64_t sim_xnord_expects_ns(void *state, uint32_t slot, uint32_t instance, uint32_t n)
{
    return xn_sched_cost_ns(state, slot, instance, n);
}

const struct sim_policy sim_xnord = {.name = "xnord",
                                     .is_xnord = true,
                                     .create = create,
                                     .destroy = destroy,
                                     .admit = admit,
                                     .retract = retract,
                                     .push = push,
                                     .requeue = requeue,
                                     .next = next,
                                     .done = done,
                                     .observe = observe,
                                     .expire = expire,
                                     .ready = ready,
                                     .wake = wake,
                                     .set_healthy = set_healthy,
                                     .can_run = can_run,
                                     .depth = depth};
