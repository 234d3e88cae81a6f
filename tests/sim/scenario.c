/* SPDX-License-Identifier: Apache-2.0
 * Scenarios: those of the comparison by name, and random ones. Rates are given as shares of what the fleet can do in full batches. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define US           1e3
#define MS           1e6
#define RANDOM_ITEMS 2500.0 /* about so many in a random scenario */

/* ---- what a fleet can do ------------------------------------------------------------------------------------------ */

bool sim_has(const struct sim_scenario *scenario, uint32_t index, uint32_t model)
{
    return index % scenario->models[model].every == 0;
}

double sim_cost_ns(const struct sim_scenario *scenario, uint32_t index, uint32_t model, double factor, uint32_t n)
{
    const struct sim_device *d = &scenario->devices[index];

    return d->fixed_ns + n * d->image_ns * scenario->models[model].work * factor;
}

double sim_image_ns(const struct sim_scenario *scenario, uint32_t model)
{
    uint32_t n = scenario->models[model].max_batch;
    double images_per_ns = 0;

    for (uint32_t i = 0; i < scenario->n_instances; i++)
        if (sim_has(scenario, i, model))
            images_per_ns += n / sim_cost_ns(scenario, i, model, 1, n);
    return 1 / images_per_ns;
}

/* Images a second of a stream, on average. */
static double images_of(const struct sim_stream *s)
{
    double requests = s->process == SIM_VOLLEY ? s->volley * 1e9 / (double)s->period_ns : s->rate;

    return requests * (1 + s->items_max) / 2;
}

double sim_capacity(const struct sim_scenario *scenario)
{
    double images = 0, work = 0;

    for (uint32_t i = 0; i < scenario->n_streams; i++) {
        const struct sim_stream *s = &scenario->streams[i];
        images += images_of(s);
        work += images_of(s) * sim_image_ns(scenario, s->model);
    }
    return images / work * 1e9;
}

/* Let all streams together ask for `load` times what the fleet can do, in the proportions that they have. */
static void scale(struct sim_scenario *s, double load)
{
    double asked = 0;

    for (uint32_t i = 0; i < s->n_streams; i++)
        asked += images_of(&s->streams[i]);
    double factor = load * sim_capacity(s) / asked;
    for (uint32_t i = 0; i < s->n_streams; i++) {
        s->streams[i].rate *= factor;
        if (s->streams[i].process == SIM_VOLLEY)
            s->streams[i].period_ns = (uint64_t)fmax(1, (double)s->streams[i].period_ns / factor);
    }
}

static int init(struct sim_scenario *s, uint64_t seed, uint32_t n_instances)
{
    *s = (struct sim_scenario){.seed = seed, .n_instances = n_instances, .warm = true, .queue_total = 4096};
    s->devices = calloc(n_instances, sizeof(*s->devices));
    return s->devices ? 0 : -ENOMEM;
}

void sim_scenario_done(struct sim_scenario *scenario)
{
    free(scenario->devices);
    scenario->devices = NULL;
}

/* ---- at random ---------------------------------------------------------------------------------------------------- */

static uint32_t random_instances(struct sim_random *r)
{
    uint32_t kind = sim_below(r, 100);

    if (kind < 2)
        return 200 + sim_below(r, 801);
    if (kind < 10)
        return 8 + sim_below(r, 57);
    return 1 + sim_below(r, kind < 40 ? 1 : 7);
}

static void random_devices(struct sim_random *r, struct sim_scenario *s)
{
    bool alike = sim_chance(r, 0.4);

    for (uint32_t i = 0; i < s->n_instances; i++) {
        struct sim_device *d = &s->devices[i];
        bool fpga = sim_chance(r, 0.5);
        *d = (struct sim_device){
            .fixed_ns = fpga ? sim_log_between(r, 200 * US, 4 * MS) : sim_log_between(r, 5 * US, 100 * US),
            .image_ns = fpga ? sim_log_between(r, 10 * US, 200 * US) : sim_log_between(r, 200 * US, 3 * MS),
            .inflight = fpga ? 1 + sim_below(r, 2) : 1,
            .watts = fpga ? sim_between(r, 2, 25) : sim_between(r, 8, 60)};
        if (alike && i > 0)
            *d = s->devices[0];
    }
}

static void random_models(struct sim_random *r, struct sim_scenario *s)
{
    s->n_models = 1 + sim_below(r, sim_chance(r, 0.5) ? 1 : 5);
    for (uint32_t i = 0; i < s->n_models; i++) {
        uint32_t max_batch = 1u << sim_below(r, 7);
        s->models[i] = (struct sim_model){.max_batch = max_batch,
                                          .max_delay_us = sim_chance(r, 0.7) ? 2000 : sim_below(r, 20000),
                                          .queue_limit = 16u << sim_below(r, 7),
                                          .preferred = max_batch > 2 && sim_chance(r, 0.2) ? max_batch / 2 : 0,
                                          .work = sim_log_between(r, 0.3, 5),
                                          .every = s->n_instances > 1 && sim_chance(r, 0.3) ? 1 + sim_below(r, 3) : 1};
        if (s->models[i].every > s->n_instances)
            s->models[i].every = 1;
    }
}

/* Time that a request of `model` needs at least, about: one image alone on the first instance, which has every model. */
static uint64_t random_relative(struct sim_random *r, const struct sim_scenario *s, uint32_t model)
{
    double one_ns = sim_cost_ns(s, 0, model, 1, 1);

    switch (sim_below(r, 5)) {
    case 0:
        return XN_NEVER_NS;
    case 1:
        return (uint64_t)(one_ns * sim_between(r, 0.9, 1.6)); /* just feasible, or just not */
    case 2:
        return (uint64_t)(one_ns * sim_log_between(r, 2, 20));
    default:
        return (uint64_t)sim_log_between(r, 5 * MS, 2000 * MS);
    }
}

static struct sim_stream random_stream(struct sim_random *r, const struct sim_scenario *s)
{
    uint32_t model = sim_below(r, s->n_models);
    uint64_t relative_ns = random_relative(r, s, model);
    struct sim_stream stream = {.process = (enum sim_process)sim_below(r, 4),
                                .rate = sim_log_between(r, 1, 30),
                                .on_ns = sim_log_between(r, 2 * MS, 200 * MS),
                                .on_share = sim_between(r, 0.05, 0.6),
                                .period_ns = (uint64_t)sim_log_between(r, 20 * MS, 500 * MS),
                                .volley = 1 + sim_below(r, 40),
                                .client = sim_below(r, SIM_CLIENTS_MAX),
                                .model = model,
                                .priority = (uint8_t)(sim_chance(r, 0.6) ? 0 : sim_below(r, XN_PRIORITY_COUNT)),
                                .items_max = sim_chance(r, 0.8) ? 1 : 1 + sim_below(r, 12),
                                .relative_ns = relative_ns,
                                .spread = sim_chance(r, 0.5) ? sim_between(r, 0, 3) : 0,
                                .decode_ns = sim_chance(r, 0.3) ? sim_log_between(r, 50 * US, 3 * MS) : 0,
                                .gone_share = sim_chance(r, 0.2) ? 0.1 : 0};

    if (stream.process == SIM_VOLLEY)
        stream.phase_ns = sim_below(r, 20) * 1000000ull;
    return stream;
}

/* All at once just when a long batch has begun, with deadlines that leave no time for that: two volleys beside what there is. */
static void add_ambush(struct sim_random *r, struct sim_scenario *s)
{
    uint32_t model = sim_below(r, s->n_models);
    uint64_t period_ns = (uint64_t)sim_log_between(r, 30 * MS, 300 * MS);
    uint64_t long_ns = (uint64_t)sim_cost_ns(s, 0, model, 1, s->models[model].max_batch);
    struct sim_stream bait = {.process = SIM_VOLLEY,
                              .period_ns = period_ns,
                              .volley = s->models[model].max_batch,
                              .client = sim_below(r, SIM_CLIENTS_MAX),
                              .model = model,
                              .items_max = 1,
                              .relative_ns = 2000 * XN_NS_PER_MS};
    struct sim_stream ambush = bait;

    ambush.model = sim_below(r, s->n_models);
    ambush.phase_ns = 1 + sim_below(r, 100000);
    ambush.relative_ns = long_ns + (uint64_t)(sim_cost_ns(s, 0, ambush.model, 1, s->models[ambush.model].max_batch) *
                                              sim_between(r, 0.8, 1.5));
    ambush.client = sim_below(r, SIM_CLIENTS_MAX);
    s->streams[s->n_streams++] = bait;
    s->streams[s->n_streams++] = ambush;
}

static void random_streams(struct sim_random *r, struct sim_scenario *s)
{
    uint32_t n = 1 + sim_below(r, 8);

    for (uint32_t i = 0; i < n; i++)
        s->streams[s->n_streams++] = random_stream(r, s);
    if (sim_chance(r, 0.3))
        add_ambush(r, s);
    if (sim_chance(r, 0.2)) {
        s->streams[s->n_streams] = s->streams[0]; /* one client floods */
        s->streams[s->n_streams].rate *= 10;
        s->streams[s->n_streams++].client = sim_below(r, SIM_CLIENTS_MAX);
    }
}

static void random_troubles(struct sim_random *r, struct sim_scenario *s)
{
    double duration_ns = (double)s->duration_ns;

    s->noise = sim_chance(r, 0.5) ? sim_between(r, 0, 0.1) : 0;
    if (sim_chance(r, 0.2)) {
        s->stall_share = sim_between(r, 0, 0.05);
        s->stall_factor = sim_between(r, 2, 20);
    }
    if (sim_chance(r, 0.15))
        s->hang_share = sim_log_between(r, 0.0005, 0.02);
    if (sim_chance(r, 0.1))
        s->n_jumps = 1 + sim_below(r, SIM_JUMPS_MAX);
    for (uint32_t i = 0; i < s->n_jumps; i++)
        s->jumps[i] = (struct sim_jump){.at_ns = (uint64_t)(sim_uniform(r) * duration_ns),
                                        .by_ns = (uint64_t)sim_log_between(r, 10 * MS, 20000 * MS),
                                        .stall = sim_chance(r, 0.5)};
    if (sim_chance(r, 0.15))
        s->n_reloads = 1 + sim_below(r, SIM_RELOADS_MAX);
    for (uint32_t i = 0; i < s->n_reloads; i++) {
        s->reloads[i].at_ns = (uint64_t)(sim_uniform(r) * duration_ns);
        s->reloads[i].model = sim_below(r, s->n_models);
        s->reloads[i].factor = sim_log_between(r, 0.3, 3);
    }
}

static void random_saving(struct sim_random *r, struct sim_scenario *s)
{
    double watts = 0;

    for (uint32_t i = 0; i < s->n_instances; i++)
        watts += s->devices[i].watts;
    s->eco_delay_us = sim_below(r, 50000);
    if (sim_chance(r, 0.6))
        s->watts_cap = watts * sim_between(r, 0.05, 1);
    else
        s->watts_budget = watts * sim_between(r, 0.05, 0.8);
}

int sim_scenario_random(uint64_t seed, struct sim_scenario *ret_scenario)
{
    struct sim_random random = sim_random_of(seed, 1), *r = &random;
    struct sim_scenario *s = ret_scenario;
    int result = init(s, seed, random_instances(r));

    if (result < 0)
        return result;
    snprintf(s->name, sizeof(s->name), "random %llu", (unsigned long long)seed);
    s->queue_total = 32u << sim_below(r, 8);
    random_devices(r, s);
    random_models(r, s);
    random_streams(r, s);
    double load = sim_chance(r, 0.1) ? sim_log_between(r, 3, 20) : sim_log_between(r, 0.1, 3);
    scale(s, load);
    double items = s->n_instances > 64 ? RANDOM_ITEMS / 4 : RANDOM_ITEMS;
    s->duration_ns = (uint64_t)(items / (load * sim_capacity(s)) * 1e9);
    s->warm = sim_chance(r, 0.8);
    s->eager = sim_chance(r, 0.5);
    random_troubles(r, s);
    if (sim_chance(r, 0.2))
        random_saving(r, s);
    return 0;
}

/* ---- by name ------------------------------------------------------------------------------------------------------ */

/* An FPGA card (time a batch, little an image), and a CPU (time an image). */
static const struct sim_device fpga = {.fixed_ns = 1.5 * MS, .image_ns = 60 * US, .inflight = 2, .watts = 12};
static const struct sim_device cpu = {.fixed_ns = 30 * US, .image_ns = 800 * US, .inflight = 1, .watts = 35};

static const struct sim_model light = {
    .max_batch = 32, .max_delay_us = 2000, .queue_limit = 1024, .work = 1, .every = 1};
static const struct sim_model heavy = {
    .max_batch = 32, .max_delay_us = 2000, .queue_limit = 1024, .work = 4, .every = 1};

/* A stream that is one of several alike but for client and deadline. */
static void add_stream(struct sim_scenario *s, enum sim_process process, double share, uint32_t model,
                       double deadline_ns)
{
    s->streams[s->n_streams] = (struct sim_stream){.process = process,
                                                   .rate = share,
                                                   .on_ns = 100 * MS,
                                                   .on_share = 0.2,
                                                   .period_ns = 2000 * XN_NS_PER_MS,
                                                   .client = s->n_streams,
                                                   .model = model,
                                                   .items_max = 1,
                                                   .relative_ns = (uint64_t)deadline_ns};
    s->n_streams++;
}

/* Two cards and a CPU, two models, as a camera gateway has them: tight and loose deadlines. */
static void gateway(struct sim_scenario *s, enum sim_process process)
{
    s->devices[0] = s->devices[1] = fpga;
    s->devices[2] = cpu;
    s->n_models = 2;
    s->models[0] = light;
    s->models[1] = heavy;
    for (uint32_t i = 0; i < 4; i++) {
        add_stream(s, process, 3, 0, 20 * MS);
        add_stream(s, process, 1, 0, 200 * MS);
        add_stream(s, process, 1, 1, 50 * MS);
    }
}

static void one_card(struct sim_scenario *s, enum sim_process process)
{
    s->devices[0] = fpga;
    s->n_models = 1;
    s->models[0] = light;
    for (uint32_t i = 0; i < 4; i++)
        add_stream(s, process, 1, 0, 20 * MS);
}

static void flooded(struct sim_scenario *s)
{
    one_card(s, SIM_POISSON);
    s->streams[0].rate = 20;
}

/* Loose work in batches as long as they get, and tight work that comes just behind it. */
static void ambush(struct sim_scenario *s)
{
    s->devices[0] = s->devices[1] = fpga;
    s->n_models = 2;
    s->models[0] = light;
    s->models[1] = heavy;
    for (uint32_t i = 0; i < 2; i++) {
        add_stream(s, SIM_VOLLEY, 1, 1, 400 * MS);
        add_stream(s, SIM_VOLLEY, 1, 0, 15 * MS);
    }
    for (uint32_t i = 0; i < s->n_streams; i++) {
        s->streams[i].volley = i % 2 == 0 ? 64 : 24;
        s->streams[i].phase_ns = i % 2 == 0 ? 0 : 50000;
        s->streams[i].period_ns = 40 * XN_NS_PER_MS;
    }
}

/* Eight cards of two makes and eight processors. */
static void mixed_fleet(struct sim_scenario *s)
{
    for (uint32_t i = 0; i < s->n_instances; i++) {
        s->devices[i] = i % 2 ? cpu : fpga;
        if (i % 4 == 0)
            s->devices[i] = (struct sim_device){.fixed_ns = 4 * MS, .image_ns = 25 * US, .inflight = 2, .watts = 20};
    }
    s->n_models = 2;
    s->models[0] = light;
    s->models[1] = heavy;
    for (uint32_t i = 0; i < 6; i++) {
        add_stream(s, SIM_BURSTY, 2, 0, i % 2 ? 15 * MS : 60 * MS);
        add_stream(s, SIM_BURSTY, 1, 1, i % 2 ? 40 * MS : 250 * MS);
    }
}

const char *const sim_scenario_names[] = {"poisson", "bursty-one-card", "bursty-gateway", "bursty-fleet",
                                          "diurnal", "ambush",          "flood",          NULL};

int sim_scenario_named(const char *name, double load, uint64_t seed, struct sim_scenario *ret_scenario)
{
    static const uint32_t instances[] = {3, 1, 3, 16, 3, 2, 1};
    uint32_t k = 0;

    while (sim_scenario_names[k] && strcmp(sim_scenario_names[k], name) != 0)
        k++;
    if (!sim_scenario_names[k])
        return -ENOENT;
    struct sim_scenario *s = ret_scenario;
    int r = init(s, seed, instances[k]);
    if (r < 0)
        return r;
    snprintf(s->name, sizeof(s->name), "%s", name);
    s->noise = 0.02;
    s->duration_ns = 10 * XN_NS_PER_S;
    switch (k) {
    case 0:
        gateway(s, SIM_POISSON);
        break;
    case 1:
        one_card(s, SIM_BURSTY);
        break;
    case 2:
        gateway(s, SIM_BURSTY);
        break;
    case 3:
        mixed_fleet(s);
        break;
    case 4:
        gateway(s, SIM_DIURNAL);
        break;
    case 5:
        ambush(s);
        break;
    default:
        flooded(s);
    }
    scale(s, load);
    return 0;
}
