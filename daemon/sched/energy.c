/* SPDX-License-Identifier: Apache-2.0
 * What may be spent. The cap bounds the watts of all that runs; the budget fills a bucket of joules, of at most one second's worth, from which each batch takes what it is expected to need. A batch
 * starts while the bucket is not empty, and may leave it in debt: so the largest one runs too, and the average holds. */
#include <math.h>

#include "daemon/sched/internal.h"

#define LEARNED_SHARE 0.125 /* of an instance's watts, a batch */
#define GUESSED_SHARE 0.9   /* of the thriftiest one's, while they are not known */

static double joules_now(const struct xn_sched *s, uint64_t now_ns)
{
    double since_s = (double)(now_ns - XN_MIN(s->joules_ns, now_ns)) / 1e9;

    return fmin(s->joules + since_s * s->watts_budget, s->watts_budget);
}

uint64_t xn_sched_affordable_ns(const struct xn_sched *s, uint32_t index, uint64_t now_ns)
{
    const struct instance *instance = &s->instances[index];

    if (s->watts_cap > 0 && s->running_total > 0 && instance->running == 0 &&
        s->running_watts + instance->watts > s->watts_cap)
        return XN_NEVER_NS;
    if (s->watts_budget <= 0)
        return now_ns;
    double owed_j = -joules_now(s, now_ns);
    return owed_j > 0 ? now_ns + (uint64_t)(owed_j / s->watts_budget * 1e9) + 1 : now_ns;
}

void xn_sched_spend(struct xn_sched *s, const struct instance *instance, uint64_t batch_ns, uint64_t now_ns)
{
    if (s->watts_budget <= 0)
        return;
    s->joules = joules_now(s, now_ns) - instance->watts * (double)batch_ns / 1e9;
    s->joules_ns = now_ns;
}

void xn_sched_energy(struct xn_sched *sched, uint32_t index, double joules, uint64_t exec_ns)
{
    struct instance *instance = &sched->instances[index];

    if (instance->watts_declared || exec_ns == 0 || !(joules >= 0))
        return;
    double watts = joules * 1e9 / (double)exec_ns;
    instance->watts += instance->watts > 0 ? LEARNED_SHARE * (watts - instance->watts) : watts;
    xn_sched_find_least_watts(sched);
}

void xn_sched_find_least_watts(struct xn_sched *s)
{
    s->least_watts = 0;
    for (uint32_t i = 0; i < s->n_instances; i++) {
        double watts = s->instances[i].watts;
        if (watts > 0 && (s->least_watts <= 0 || watts < s->least_watts))
            s->least_watts = watts;
    }
}

double xn_sched_watts(const struct xn_sched *s, uint32_t index)
{
    const struct instance *instance = &s->instances[index];
    bool is_known = instance->watts_declared || instance->watts > 0;

    return is_known ? instance->watts : GUESSED_SHARE * s->least_watts;
}

/* Images a joule in full batches, the best of all instances; 0: not known. `above`: of those that are worse than this. */
static uint32_t most_efficient(const struct xn_sched *s, const struct xn_model *model, double above, double *ret_joules)
{
    uint32_t best = XN_SCHED_NOWHERE;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        const struct instance *instance = &s->instances[i];
        uint64_t full_ns = xn_cost_predict(xn_sched_cost_of(instance, model), model->max_batch);
        double joules = instance->watts * (double)full_ns / 1e9 / model->max_batch;
        if (!xn_sched_usable(s, i, model) || joules <= above)
            continue;
        if (best == XN_SCHED_NOWHERE || joules < *ret_joules) {
            best = i;
            *ret_joules = joules;
        }
    }
    return best;
}

/* Images a ns under the cap: the most efficient instances first, while their watts fit; the first one in any case. */
static double capped_images_per_ns(const struct xn_sched *s, const struct xn_model *model)
{
    double images_per_ns = 0, watts = 0, above = 0, joules = 0;
    uint32_t i;

    while ((i = most_efficient(s, model, above, &joules)) != XN_SCHED_NOWHERE) {
        const struct instance *instance = &s->instances[i];
        above = joules;
        if (images_per_ns > 0 && watts + instance->watts > s->watts_cap)
            continue;
        watts += instance->watts;
        images_per_ns +=
            model->max_batch / (double)xn_cost_predict(xn_sched_cost_of(instance, model), model->max_batch);
    }
    return images_per_ns;
}

void xn_sched_limit_rate(const struct xn_sched *s, const struct xn_model *model, struct rate *rate)
{
    double joules = 0;

    if (s->watts_cap > 0) {
        double images_per_ns = capped_images_per_ns(s, model);
        if (images_per_ns > 0)
            rate->image_ns = fmax(rate->image_ns, 1 / images_per_ns);
    }
    if (s->watts_budget > 0 && most_efficient(s, model, 0, &joules) != XN_SCHED_NOWHERE)
        rate->image_ns = fmax(rate->image_ns, joules / s->watts_budget * 1e9);
}
