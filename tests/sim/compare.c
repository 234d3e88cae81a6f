/* SPDX-License-Identifier: Apache-2.0
 * The policies beside one another on the same traces and fleets. daemon/sched runs as it comes, without a setting; each peer runs with every combination of its settings below, and what counts is the
 * one with the most goodput on that very trace: an operator who knows the future. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SETTINGS_MAX 512u

struct line {
    const char *policy;
    char setting[160];
    struct sim_result result;
};

static double goodput(const struct sim_scenario *s, const struct sim_result *r)
{
    return (double)r->outcomes[SIM_DONE] / ((double)s->duration_ns / 1e9);
}

/* What was done in time, as a share of what the whole fleet can do in full batches. */
static double work(const struct sim_scenario *s, const struct sim_result *r)
{
    double ns = 0;

    for (uint32_t i = 0; i < s->n_models; i++)
        ns += (double)r->model_done[i] * sim_image_ns(s, i);
    return ns / (double)s->duration_ns;
}

/* The least that a client got in time of what it asked. */
static double least(const struct sim_result *r)
{
    double least = 1;

    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++)
        if (r->client_items[i] > 0)
            least = fmin(least, (double)r->client_done[i] / (double)r->client_items[i]);
    return least;
}

static double measured(enum sim_measure measure, const struct sim_scenario *s, const struct sim_result *r)
{
    return measure == SIM_ITEMS ? goodput(s, r) : measure == SIM_WORK ? work(s, r) : least(r);
}

/* ---- settings of peers -------------------------------------------------------------------------------------------- */

static const uint32_t batches[] = {4, 8, 16, 32}, limits[] = {16, 64, 256, 0};

static uint32_t triton_settings(struct sim_knobs *ret)
{
    static const double delays[] = {0, 1e6, 5e6}, timeouts[] = {0, 0.5, 0.75, 1};
    uint32_t n = 0;

    for (size_t a = 0; a < XN_ARRAY_LEN(delays); a++)
        for (size_t b = 0; b < XN_ARRAY_LEN(timeouts); b++)
            for (size_t c = 0; c < XN_ARRAY_LEN(batches); c++)
                for (size_t d = 0; d < XN_ARRAY_LEN(limits); d++)
                    ret[n++] = (struct sim_knobs){.delay_ns = delays[a],
                                                  .timeout_share = timeouts[b],
                                                  .max_batch = batches[c],
                                                  .queue_limit = limits[d]};
    return n;
}

static uint32_t clipper_settings(struct sim_knobs *ret)
{
    static const double delays[] = {0, 2e6}, steps[] = {1, 4}, objectives[] = {0.25, 0.5, 1}, drops[] = {0.5, 0.75, 1};
    uint32_t n = 0;

    for (size_t a = 0; a < XN_ARRAY_LEN(delays); a++)
        for (size_t b = 0; b < XN_ARRAY_LEN(steps); b++)
            for (size_t c = 0; c < XN_ARRAY_LEN(objectives); c++)
                for (size_t d = 0; d < XN_ARRAY_LEN(drops); d++)
                    for (size_t e = 0; e < XN_ARRAY_LEN(limits); e++)
                        ret[n++] = (struct sim_knobs){.delay_ns = delays[a],
                                                      .step = steps[b],
                                                      .objective_share = objectives[c],
                                                      .timeout_share = drops[d],
                                                      .queue_limit = limits[e]};
    return n;
}

static uint32_t amd_settings(struct sim_knobs *ret)
{
    static const double delays[] = {1e6, 2e6, 5e6, 10e6, 100e6};
    uint32_t n = 0;

    for (size_t a = 0; a < XN_ARRAY_LEN(delays); a++)
        for (size_t b = 0; b < XN_ARRAY_LEN(batches); b++)
            for (size_t c = 0; c < XN_ARRAY_LEN(limits); c++)
                ret[n++] = (struct sim_knobs){.delay_ns = delays[a], .max_batch = batches[b], .queue_limit = limits[c]};
    return n;
}

static void describe(const struct sim_policy *policy, const struct sim_knobs *k, char *ret, size_t bytes)
{
    char limit[24] = "none";

    if (k->queue_limit > 0)
        snprintf(limit, sizeof(limit), "%u", k->queue_limit);
    if (policy == &sim_triton)
        snprintf(ret, bytes, "delay %g ms, time-out %g of deadline, batch %u, queue %s", k->delay_ns / 1e6,
                 k->timeout_share, k->max_batch, limit);
    else if (policy == &sim_clipper)
        snprintf(ret, bytes, "delay %g ms, step %g, objective %g, drop %g, queue %s", k->delay_ns / 1e6, k->step,
                 k->objective_share, k->timeout_share, limit);
    else if (policy == &sim_amd)
        snprintf(ret, bytes, "time-out %g ms, batch %u, queue %s", k->delay_ns / 1e6, k->max_batch, limit);
    else
        snprintf(ret, bytes, "none");
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

static int best_of(const struct sim_scenario *s, const struct sim_trace *trace, const struct sim_policy *policy,
                   enum sim_measure measure, const struct sim_knobs *knobs, uint32_t n, double *ret_reached,
                   struct line *ret_line)
{
    struct sim_options options = {0};
    struct sim_result result;
    int r = 0;

    *ret_line = (struct line){.policy = policy->name};
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        r = sim_run(s, trace, policy, &knobs[i], &options, &result);
        if (r == 0 && result.violation[0] != '\0') {
            fprintf(stderr, "%s, %s: %s\n", s->name, policy->name, result.violation);
            r = -EPROTO;
        }
        ret_reached[i] = measured(measure, s, &result);
        if (r == 0 && (i == 0 || ret_reached[i] > measured(measure, s, &ret_line->result))) {
            ret_line->result = result;
            describe(policy, &knobs[i], ret_line->setting, sizeof(ret_line->setting));
        }
    }
    return r;
}

static uint32_t no_settings(struct sim_knobs *ret)
{
    ret[0] = (struct sim_knobs){0};
    return 1;
}

static const struct contender {
    const struct sim_policy *policy;
    uint32_t (*settings)(struct sim_knobs *ret);
} contenders[] = {
    {&sim_xnord, no_settings},
    {&sim_triton, triton_settings},
    {&sim_clipper, clipper_settings},
    {&sim_amd, amd_settings},
};

#define CONTENDERS XN_ARRAY_LEN(contenders)

/* What each setting reached (of items: of the clairvoyant's): summed over the traces of a comparison, for the setting that is best when one has to do for all of them. */
struct sums {
    uint32_t traces;
    double reached[CONTENDERS][SETTINGS_MAX];
};

/* The one who knows the future, as a line of the table. */
static int clairvoyant(const struct sim_scenario *s, const struct sim_trace *trace, struct line *ret_line)
{
    *ret_line = (struct line){.policy = "clairvoyant", .setting = "none"};
    ret_line->result.items = trace->items;
    return sim_clairvoyant(s, trace, &ret_line->result.outcomes[SIM_DONE]);
}

/* ---- printing ----------------------------------------------------------------------------------------------------- */

static double share(const struct sim_result *r, enum sim_outcome outcome)
{
    return r->items > 0 ? (double)r->outcomes[outcome] / (double)r->items : 0;
}

static void print_line(enum sim_format format, const struct sim_scenario *s, double load, const struct line *line)
{
    static const char *const formats[] = {
        [SIM_TABLE] = "| %s | %.2f | %s | %.0f | %.1f %% | %.1f %% | %.2f | %.2f | %.1f %% | %.1f %% | %.1f %% | %.1f "
                      "| %.1f | %s |\n",
        [SIM_JSON] = "  {\"scenario\": \"%s\", \"load\": %.2f, \"policy\": \"%s\", \"goodput\": %.0f, "
                     "\"work_percent\": %.1f, \"least_percent\": %.1f, \"p50_ms\": "
                     "%.2f, \"p99_ms\": %.2f, \"refused_percent\": %.1f, "
                     "\"expired_percent\": %.1f, \"late_percent\": %.1f, \"mean_batch\": %.1f, \"mj_per_inference\": "
                     "%.1f, \"setting\": \"%s\"},\n",
        [SIM_CSV] = "%s,%.2f,%s,%.0f,%.1f,%.1f,%.2f,%.2f,%.1f,%.1f,%.1f,%.1f,%.1f,\"%s\"\n"};
    const struct sim_result *r = &line->result;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(formats[format], s->name, load, line->policy, goodput(s, r), 100 * work(s, r), 100 * least(r),
           sim_latency_ns(r, 0.5) / 1e6, sim_latency_ns(r, 0.99) / 1e6, 100 * share(r, SIM_REFUSED),
           100 * share(r, SIM_EXPIRED), 100 * share(r, SIM_LATE),
           r->batches > 0 ? (double)r->images / (double)r->batches : 0,
           r->images > 0 ? r->joules * 1e3 / (double)r->images : 0, line->setting);
#pragma GCC diagnostic pop
    fflush(stdout);
}

static void print_head(enum sim_format format)
{
    if (format == SIM_TABLE)
        printf("| trace | load | policy | goodput/s | work | least client | p50 ms | p99 ms | refused | expired | late "
               "| batch | "
               "mJ/inference | best setting |\n"
               "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n");
    else if (format == SIM_CSV)
        printf("scenario,load,policy,goodput,work_percent,least_percent,p50_ms,p99_ms,refused_percent,expired_percent,"
               "late_percent,mean_batch,mj_"
               "per_inference,setting\n");
    else
        printf("[\n");
}

static void print_foot(enum sim_format format)
{
    if (format == SIM_JSON)
        printf("  null\n]\n"); /* each line before ends in a comma */
}

/* ---- the comparison ----------------------------------------------------------------------------------------------- */

static bool wanted(const char *only, const char *name)
{
    return !only || strcmp(only, name) == 0;
}

static int compare_trace(const struct sim_comparison *c, const struct sim_scenario *s, const struct sim_trace *trace,
                         double load, struct sums *sums)
{
    static struct sim_knobs knobs[SETTINGS_MAX];
    static double reached[SETTINGS_MAX];
    struct line bound, line;
    int r = clairvoyant(s, trace, &bound);

    for (size_t i = 0; r == 0 && i < CONTENDERS; i++) {
        if (!wanted(c->policy, contenders[i].policy->name))
            continue;
        uint32_t n = contenders[i].settings(knobs);
        r = best_of(s, trace, contenders[i].policy, c->measure, knobs, n, reached, &line);
        for (uint32_t k = 0; k < n; k++)
            sums->reached[i][k] += c->measure == SIM_ITEMS ? reached[k] / goodput(s, &bound.result) : reached[k];
        if (r == 0)
            print_line(c->format, s, load, &line);
    }
    if (r == 0 && c->measure == SIM_ITEMS && c->format == SIM_TABLE) /* the clairvoyant says no more */
        printf("| %s | %.2f | clairvoyant | %.0f | | | | | | | | | | |\n", s->name, load, goodput(s, &bound.result));
    else if (r == 0 && c->measure == SIM_ITEMS)
        print_line(c->format, s, load, &bound);
    sums->traces++;
    return r;
}

/* One setting for all traces: the best of each policy, by what it reaches of the clairvoyant on average. */
static void print_sums(const struct sim_comparison *c, const struct sums *sums)
{
    static struct sim_knobs knobs[SETTINGS_MAX];

    static const char *const heads[] = {[SIM_ITEMS] = "of the clairvoyant's items",
                                        [SIM_WORK] = "of the fleet's work",
                                        [SIM_LEAST] = "the least that a client got"};

    printf("\n| policy | %s, mean of %u traces | the one setting for all of them |\n| --- | ---: | --- |\n",
           heads[c->measure], sums->traces);
    for (size_t i = 0; i < CONTENDERS; i++) {
        uint32_t n = contenders[i].settings(knobs), best = 0;
        char setting[160];
        for (uint32_t k = 1; k < n; k++)
            best = sums->reached[i][k] > sums->reached[i][best] ? k : best;
        describe(contenders[i].policy, &knobs[best], setting, sizeof(setting));
        if (wanted(c->policy, contenders[i].policy->name))
            printf("| %s | %.1f %% | %s |\n", contenders[i].policy->name, 100 * sums->reached[i][best] / sums->traces,
                   setting);
    }
}

static int compare_one(const struct sim_comparison *c, const char *name, double load, struct sums *sums)
{
    struct sim_scenario scenario;
    struct sim_trace trace;
    int r = sim_scenario_named(name, load, c->seed, &scenario);

    if (r < 0)
        return r;
    scenario.duration_ns = (uint64_t)(c->seconds * 1e9);
    r = sim_trace_new(&scenario, &trace);
    if (r == 0)
        r = compare_trace(c, &scenario, &trace, load, sums);
    sim_trace_done(&trace);
    sim_scenario_done(&scenario);
    return r;
}

int sim_compare(const struct sim_comparison *comparison)
{
    static struct sums sums;
    int r = 0;
    bool any = false;

    print_head(comparison->format);
    for (uint32_t i = 0; sim_scenario_names[i]; i++)
        for (size_t k = 0; r == 0 && k < comparison->n_loads; k++)
            if (wanted(comparison->scenario, sim_scenario_names[i])) {
                any = true;
                r = compare_one(comparison, sim_scenario_names[i], comparison->loads[k], &sums);
            }
    print_foot(comparison->format);
    if (r == 0 && comparison->format == SIM_TABLE && sums.traces > 1)
        print_sums(comparison, &sums);
    return r < 0 || any ? r : -ENOENT;
}

/* ---- what is sustained -------------------------------------------------------------------------------------------- */

#define SUSTAINED_SHARE 0.99
#define LOAD_STEP       0.01
#define LOAD_STEPS      150

/* One of `n` settings with which every client gets nearly all of what it asks; n: there is none. `first` is tried first. */
static int sustaining(const struct sim_scenario *s, const struct sim_trace *trace, const struct sim_policy *policy,
                      const struct sim_knobs *knobs, uint32_t n, uint32_t first, uint32_t *ret_index)
{
    struct sim_options options = {0};
    struct sim_result result;

    *ret_index = n;
    for (uint32_t i = 0; i < n && *ret_index == n; i++) {
        uint32_t k = (first + i) % n;
        int r = sim_run(s, trace, policy, &knobs[k], &options, &result);
        if (r < 0)
            return r;
        if (least(&result) >= SUSTAINED_SHARE)
            *ret_index = k;
    }
    return 0;
}

struct search {
    const struct sim_comparison *comparison;
    const char *scenario;
    const struct contender *contender; /* NULL: the clairvoyant */
    uint32_t setting;                  /* of the highest load so far that was sustained */
};

static int sustains(struct search *search, double load, bool *ret_yes)
{
    static struct sim_knobs knobs[SETTINGS_MAX];
    struct sim_scenario s;
    struct sim_trace trace;
    uint32_t n = search->contender ? search->contender->settings(knobs) : 0, index = n;
    uint64_t done = 0;
    int r = sim_scenario_named(search->scenario, load, search->comparison->seed, &s);

    if (r < 0)
        return r;
    s.duration_ns = (uint64_t)(search->comparison->seconds * 1e9);
    r = sim_trace_new(&s, &trace);
    if (r == 0 && search->contender)
        r = sustaining(&s, &trace, search->contender->policy, knobs, n, search->setting, &index);
    else if (r == 0)
        r = sim_clairvoyant(&s, &trace, &done);
    *ret_yes = search->contender ? index < n : (double)done >= SUSTAINED_SHARE * (double)trace.items;
    if (index < n)
        search->setting = index;
    sim_trace_done(&trace);
    sim_scenario_done(&s);
    return r;
}

/* By halving: taken for granted that who sustains a load sustains less, too. */
static int search_load(struct search *search, double *ret_load)
{
    uint32_t low = 0, high = LOAD_STEPS + 1; /* in steps: sustained; not */
    int r = 0;

    while (r == 0 && high - low > 1) {
        uint32_t middle = (low + high) / 2;
        bool yes;
        r = sustains(search, middle * LOAD_STEP, &yes);
        *(yes ? &low : &high) = middle;
    }
    *ret_load = low * LOAD_STEP;
    return r;
}

static int sustain_one(const struct sim_comparison *c, const char *scenario, const struct contender *contender)
{
    static struct sim_knobs knobs[SETTINGS_MAX];
    struct search search = {.comparison = c, .scenario = scenario, .contender = contender};
    const char *policy = contender ? contender->policy->name : "clairvoyant";
    char setting[160] = "none";
    double load;

    if (contender && !wanted(c->policy, policy))
        return 0;
    int r = search_load(&search, &load);
    if (r < 0)
        return r;
    if (contender && load > 0) {
        (void)contender->settings(knobs);
        describe(contender->policy, &knobs[search.setting], setting, sizeof(setting));
    }
    if (c->format == SIM_TABLE)
        printf("| %s | %s | %.2f | %s |\n", scenario, policy, load, setting);
    else if (c->format == SIM_JSON)
        printf("  {\"scenario\": \"%s\", \"policy\": \"%s\", \"load\": %.2f, \"setting\": \"%s\"},\n", scenario, policy,
               load, setting);
    else
        printf("%s,%s,%.2f,\"%s\"\n", scenario, policy, load, setting);
    fflush(stdout);
    return 0;
}

int sim_compare_sustained(const struct sim_comparison *comparison)
{
    int r = 0;
    bool any = false;

    fputs(comparison->format == SIM_TABLE
              ? "| trace | policy | load | a setting that does it |\n| --- | --- | ---: | --- |\n"
          : comparison->format == SIM_JSON ? "[\n"
                                           : "scenario,policy,load,setting\n",
          stdout);
    for (uint32_t i = 0; r == 0 && sim_scenario_names[i]; i++) {
        if (!wanted(comparison->scenario, sim_scenario_names[i]))
            continue;
        any = true;
        for (size_t k = 0; r == 0 && k < CONTENDERS; k++)
            r = sustain_one(comparison, sim_scenario_names[i], &contenders[k]);
        if (r == 0)
            r = sustain_one(comparison, sim_scenario_names[i], NULL);
    }
    print_foot(comparison->format);
    return r < 0 || any ? r : -ENOENT;
}

/* ---- saving ------------------------------------------------------------------------------------------------------- */

/* Three ways to run: for speed; with a cap that lets all run at once, so that only the choice of instances and batches changes; and with a budget of half of what the fleet may draw. */
static const struct {
    const char *name;
    double cap_share, budget_share;
    uint32_t delay_us;
} savings[] = {{"speed", 0, 0, 0}, {"eco", 1, 0, 10000}, {"eco-half", 0.5, 0, 10000}};

static int save_one(const struct sim_comparison *c, double load, size_t how)
{
    struct sim_scenario s;
    struct sim_trace trace;
    struct line line;
    struct sim_knobs knobs = {0};
    double watts = 0, reached;
    int r = sim_scenario_named(c->scenario ? c->scenario : "poisson", load, c->seed, &s);

    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s.n_instances; i++)
        watts += s.devices[i].watts;
    s.duration_ns = (uint64_t)(c->seconds * 1e9);
    s.watts_cap = savings[how].cap_share * watts;
    s.watts_budget = savings[how].budget_share * watts;
    s.eco_delay_us = savings[how].delay_us;
    r = sim_trace_new(&s, &trace);
    if (r == 0)
        r = best_of(&s, &trace, &sim_xnord, SIM_ITEMS, &knobs, 1, &reached, &line);
    if (r == 0) {
        line.policy = savings[how].name;
        print_line(c->format, &s, load, &line);
    }
    sim_trace_done(&trace);
    sim_scenario_done(&s);
    return r;
}

int sim_compare_saving(const struct sim_comparison *comparison)
{
    int r = 0;

    print_head(comparison->format);
    for (size_t k = 0; r == 0 && k < comparison->n_loads; k++)
        for (size_t how = 0; r == 0 && how < XN_ARRAY_LEN(savings); how++)
            r = save_one(comparison, comparison->loads[k], how);
    print_foot(comparison->format);
    return r;
}
