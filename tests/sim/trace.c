/* SPDX-License-Identifier: Apache-2.0
 * Arrivals of a scenario: each stream by itself from a random sequence of its own, then all by time. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

#define ARRIVALS_MAX (1u << 26)

struct builder {
    struct sim_trace *trace;
    size_t capacity;
    const struct sim_stream *stream;
    struct sim_random random, bursts; /* bursts come at the same times whatever the rate is */
};

static int grow(struct builder *b)
{
    size_t capacity = b->capacity ? 2 * b->capacity : 1024;
    struct sim_arrival *grown;

    if (capacity > ARRIVALS_MAX)
        return -ENOMEM;
    grown = realloc(b->trace->arrivals, capacity * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    b->trace->arrivals = grown;
    b->capacity = capacity;
    return 0;
}

static int add(struct builder *b, double at_ns)
{
    const struct sim_stream *s = b->stream;
    int r = b->trace->n == b->capacity ? grow(b) : 0;

    if (r < 0)
        return r;
    struct sim_arrival *a = &b->trace->arrivals[b->trace->n];
    *a = (struct sim_arrival){.at_ns = (uint64_t)at_ns,
                              .relative_ns = s->relative_ns,
                              .client = s->client,
                              .n = 1 + (s->items_max > 1 ? sim_below(&b->random, s->items_max) : 0),
                              .order = (uint32_t)b->trace->n,
                              .model = (uint8_t)s->model,
                              .priority = s->priority};
    if (s->relative_ns != XN_NEVER_NS && s->spread > 0)
        a->relative_ns += (uint64_t)(s->spread * sim_uniform(&b->random) * (double)s->relative_ns);
    if (s->decode_ns > 0)
        a->decode_ns = (uint32_t)fmin(sim_exponential(&b->random, s->decode_ns), 1e9);
    a->gone = s->gone_share > 0 && sim_chance(&b->random, s->gone_share);
    b->trace->items += a->n;
    b->trace->n++;
    return 0;
}

static int add_poisson(struct builder *b, double duration_ns, bool diurnal)
{
    const struct sim_stream *s = b->stream;
    double gap_ns = 1e9 / (diurnal ? 2 * s->rate : s->rate);
    int r = 0;

    for (double t = sim_exponential(&b->random, gap_ns); r == 0 && t < duration_ns;
         t += sim_exponential(&b->random, gap_ns)) {
        double phase = 2 * 3.14159265358979 * (t - (double)s->phase_ns) / (double)s->period_ns;
        if (!diurnal || sim_chance(&b->random, (1 + sin(phase)) / 2))
            r = add(b, t);
    }
    return r;
}

static int add_bursty(struct builder *b, double duration_ns)
{
    const struct sim_stream *s = b->stream;
    double gap_ns = 1e9 * s->on_share / s->rate, off_ns = s->on_ns * (1 - s->on_share) / s->on_share, t = 0;
    int r = 0;

    while (r == 0 && t < duration_ns) {
        t += sim_exponential(&b->bursts, off_ns);
        double end = fmin(t + sim_exponential(&b->bursts, s->on_ns), duration_ns);
        for (t += sim_exponential(&b->random, gap_ns); r == 0 && t < end; t += sim_exponential(&b->random, gap_ns))
            r = add(b, t);
        t = end;
    }
    return r;
}

static int add_volleys(struct builder *b, double duration_ns)
{
    const struct sim_stream *s = b->stream;
    int r = 0;

    for (double t = (double)s->phase_ns; r == 0 && t < duration_ns; t += (double)s->period_ns)
        for (uint32_t i = 0; r == 0 && i < s->volley; i++)
            r = add(b, t);
    return r;
}

static int compare_arrivals(const void *a, const void *b)
{
    const struct sim_arrival *x = a, *y = b;

    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

int sim_trace_new(const struct sim_scenario *scenario, struct sim_trace *ret_trace)
{
    struct builder b = {.trace = ret_trace};
    double duration_ns = (double)scenario->duration_ns;
    int r = 0;

    *ret_trace = (struct sim_trace){0};
    for (uint32_t i = 0; r == 0 && i < scenario->n_streams; i++) {
        b.stream = &scenario->streams[i];
        b.random = sim_random_of(scenario->seed, 1000 + i);
        b.bursts = sim_random_of(scenario->seed, 2000 + i);
        if (b.stream->process == SIM_VOLLEY)
            r = add_volleys(&b, duration_ns);
        else if (b.stream->process == SIM_BURSTY)
            r = add_bursty(&b, duration_ns);
        else
            r = add_poisson(&b, duration_ns, b.stream->process == SIM_DIURNAL);
    }
    if (r < 0) {
        sim_trace_done(ret_trace);
        return r;
    }
    if (ret_trace->n > 0)
        qsort(ret_trace->arrivals, ret_trace->n, sizeof(*ret_trace->arrivals), compare_arrivals);
    return 0;
}

void sim_trace_done(struct sim_trace *trace)
{
    free(trace->arrivals);
    *trace = (struct sim_trace){0};
}
