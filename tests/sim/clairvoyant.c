/* SPDX-License-Identifier: Apache-2.0
 * References that know the future. The fleet is one machine that does image after image, each at the speed of full batches on all instances together: no batch has to be gathered, none
 * blocks, and one image is never slower than thirty-two. What this machine keeps with time to spare a good scheduler should keep; what it gets done in all is more than a fleet
 * can. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

struct job {
    struct xn_heap_node node;
    uint64_t at_ns, due_ns, deadline_ns;
    double work_ns;
    double end_ns; /* when it was done; INFINITY: it was dropped */
};

enum order { BY_DUE, BY_WORK };

static struct job *job_of(struct xn_heap_node *node)
{
    return XN_CONTAINER_OF(node, struct job, node);
}

/* The next one to work on at `t`; NULL: none that can be done in time (where `drop` says that the others are dropped). */
static struct job *pick(struct xn_heap *heap, double t, bool drop)
{
    while (heap->root) {
        struct job *job = job_of(heap->root);
        xn_heap_remove(heap, &job->node);
        if (!drop || job->deadline_ns == XN_NEVER_NS || t + job->work_ns <= (double)job->deadline_ns)
            return job;
    }
    return NULL;
}

/* `jobs` by at_ns. What has begun is finished: no work is lost on what is dropped later. */
static void fluid(struct job *jobs, size_t n, enum order order, bool drop)
{
    struct xn_heap heap = {0};
    double t = 0;

    for (size_t i = 0; i < n || heap.root;) {
        if (!heap.root && i < n)
            t = fmax(t, (double)jobs[i].at_ns);
        for (; i < n && (double)jobs[i].at_ns <= t; i++) {
            jobs[i].end_ns = INFINITY;
            xn_heap_insert(&heap, &jobs[i].node, order == BY_WORK ? (uint64_t)jobs[i].work_ns : jobs[i].due_ns,
                           jobs[i].deadline_ns, false);
        }
        struct job *job = pick(&heap, t, drop);
        if (job)
            job->end_ns = t += job->work_ns;
    }
}

/* How much faster than sim_image_ns says the fleet can be at best, as each instance may do what it is relatively good at: work that all instances do in a ns if each does only the
 * model of which it does most. No mixture of models gets more done. */
static double specialised(const struct sim_scenario *s)
{
    double work = 0;

    for (uint32_t i = 0; i < s->n_instances; i++) {
        double most = 0;
        for (uint32_t m = 0; m < s->n_models; m++)
            if (sim_has(s, i, m))
                most = fmax(most, s->models[m].max_batch / sim_cost_ns(s, i, m, 1, s->models[m].max_batch) *
                                      sim_image_ns(s, m));
        work += most;
    }
    return work;
}

static uint64_t count_done(const struct sim_scenario *s, const struct sim_trace *trace, struct job *jobs,
                           enum order order)
{
    double speed = specialised(s);
    uint64_t done = 0;
    size_t n = 0;

    for (size_t i = 0; i < trace->n; i++) {
        const struct sim_arrival *a = &trace->arrivals[i];
        uint64_t deadline_ns = a->relative_ns == XN_NEVER_NS ? XN_NEVER_NS : a->at_ns + a->relative_ns;
        for (uint32_t k = 0; k < a->n && !a->gone; k++)
            jobs[n++] = (struct job){.at_ns = a->at_ns,
                                     .due_ns = deadline_ns,
                                     .deadline_ns = deadline_ns,
                                     .work_ns = sim_image_ns(s, a->model) / speed};
    }
    fluid(jobs, n, order, true);
    for (size_t i = 0; i < n; i++)
        done += jobs[i].end_ns < INFINITY;
    return done;
}

int sim_clairvoyant(const struct sim_scenario *scenario, const struct sim_trace *trace, uint64_t *ret_done)
{
    struct job *jobs = calloc(trace->items + 1, sizeof(*jobs));

    if (!jobs)
        return -ENOMEM;
    uint64_t by_deadline = count_done(scenario, trace, jobs, BY_DUE);
    uint64_t by_work = count_done(scenario, trace, jobs, BY_WORK);
    *ret_done = XN_MAX(by_deadline, by_work);
    free(jobs);
    return 0;
}

static int by_pushed(const void *a, const void *b)
{
    const struct sim_record *x = *(const struct sim_record *const *)a, *y = *(const struct sim_record *const *)b;

    if (x->pushed_ns != y->pushed_ns)
        return x->pushed_ns < y->pushed_ns ? -1 : 1;
    return x < y ? -1 : 1;
}

int sim_missed(const struct sim_scenario *scenario, const struct sim_record *records, size_t n, double speed,
               double bound_ns, size_t *ret_index)
{
    const struct sim_record **order = calloc(n + 1, sizeof(const struct sim_record *));
    struct job *jobs = calloc(n + 1, sizeof(*jobs));
    int r = order && jobs ? 0 : -ENOMEM;

    *ret_index = n;
    for (size_t i = 0; r == 0 && i < n; i++)
        order[i] = &records[i];
    if (r == 0)
        qsort(order, n, sizeof(const struct sim_record *), by_pushed);
    for (size_t i = 0; r == 0 && i < n; i++)
        jobs[i] = (struct job){.at_ns = order[i]->pushed_ns,
                               .due_ns = order[i]->due_ns,
                               .deadline_ns = order[i]->deadline_ns,
                               .work_ns = sim_image_ns(scenario, order[i]->model) / speed};
    if (r == 0)
        fluid(jobs, n, BY_DUE, false);
    for (size_t i = 0; r == 0 && i < n && *ret_index == n; i++)
        if (order[i]->outcome == SIM_EXPIRED && jobs[i].end_ns + bound_ns <= (double)jobs[i].deadline_ns)
            *ret_index = (size_t)(order[i] - records);
    free(order);
    free(jobs);
    return r;
}
