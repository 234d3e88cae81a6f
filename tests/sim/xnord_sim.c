/* SPDX-License-Identifier: Apache-2.0
 * The simulator for a person: run seeds with all checks, show one run event by event, compare the policies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define LOADS_MAX 16u

static const char usage[] =
    "usage: xnord-sim check  [--seed N] [--seeds COUNT] [--trace]   random scenarios under daemon/sched, all "
    "invariants\n"
    "       xnord-sim run SCENARIO [--load L] [--seconds S] [--seed N] [--trace]   one trace of the comparison\n"
    "       xnord-sim compare [SCENARIO] [--policy P] [--by items | work | least] [--load L,...] [--seconds S] [--seed "
    "N] [--json | --csv]\n"
    "       xnord-sim sustain [SCENARIO] [--policy P] [--seconds S] [--seed N] [--json | --csv]\n"
    "       xnord-sim saving  [SCENARIO] [--load L,...] [--seconds S] [--seed N] [--json | --csv]\n"
    "scenarios: ";

struct arguments {
    struct sim_comparison comparison;
    double loads[LOADS_MAX];
    uint64_t seeds;
    bool trace;
};

static int fail_usage(void)
{
    fputs(usage, stderr);
    for (uint32_t i = 0; sim_scenario_names[i]; i++)
        fprintf(stderr, "%s%s", i ? ", " : "", sim_scenario_names[i]);
    fputc('\n', stderr);
    return 2;
}

static bool parse_loads(struct arguments *a, char *text)
{
    char *save = NULL;

    a->comparison.n_loads = 0;
    for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (a->comparison.n_loads == LOADS_MAX || !(atof(word) > 0))
            return false;
        a->loads[a->comparison.n_loads++] = atof(word);
    }
    return a->comparison.n_loads > 0;
}

static bool parse_measure(const char *text, enum sim_measure *ret_measure)
{
    static const char *const names[] = {[SIM_ITEMS] = "items", [SIM_WORK] = "work", [SIM_LEAST] = "least"};

    for (size_t i = 0; i < XN_ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *ret_measure = (enum sim_measure)i;
            return true;
        }
    return false;
}

/* An option with a value. */
static bool parse_value(struct arguments *a, const char *name, char *value)
{
    if (strcmp(name, "--seed") == 0)
        a->comparison.seed = strtoull(value, NULL, 10);
    else if (strcmp(name, "--seeds") == 0)
        a->seeds = strtoull(value, NULL, 10);
    else if (strcmp(name, "--seconds") == 0)
        a->comparison.seconds = atof(value);
    else if (strcmp(name, "--policy") == 0)
        a->comparison.policy = value;
    else if (strcmp(name, "--by") == 0)
        return parse_measure(value, &a->comparison.measure);
    else if (strcmp(name, "--load") == 0)
        return parse_loads(a, value);
    else
        return false;
    return true;
}

static bool parse(struct arguments *a, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            a->trace = true;
        else if (strcmp(argv[i], "--json") == 0)
            a->comparison.format = SIM_JSON;
        else if (strcmp(argv[i], "--csv") == 0)
            a->comparison.format = SIM_CSV;
        else if (argv[i][0] != '-')
            a->comparison.scenario = argv[i];
        else if (i + 1 >= argc || !parse_value(a, argv[i], argv[i + 1]))
            return false;
        else
            i++;
    }
    return true;
}

/* ---- modes -------------------------------------------------------------------------------------------------------- */

static void print_result(const struct sim_result *r)
{
    printf("%llu items:", (unsigned long long)r->items);
    for (uint32_t i = 0; i < SIM_OUTCOMES; i++)
        printf("%s %llu %s", i > 0 ? "," : "", (unsigned long long)r->outcomes[i], sim_outcome_name(i));
    printf("; %llu batches; %llu events, of them %llu wakes, %llu for nothing; hash %016llx\n",
           (unsigned long long)r->batches, (unsigned long long)r->steps, (unsigned long long)r->wakes,
           (unsigned long long)r->idle_wakes, (unsigned long long)r->hash);
}

/* What each client got in time. */
static void print_clients(const struct sim_result *r)
{
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++)
        if (r->client_items[i] > 0)
            printf("client %u: %llu of %llu in time, %.1f %%, which are %.1f %% of all\n", i,
                   (unsigned long long)r->client_done[i], (unsigned long long)r->client_items[i],
                   100 * (double)r->client_done[i] / (double)r->client_items[i],
                   100 * (double)r->client_done[i] / (double)XN_MAX(r->outcomes[SIM_DONE], 1));
}

static int check(const struct arguments *a)
{
    struct sim_result result;
    uint64_t items = 0, violated = 0, first = a->comparison.seed;
    double starved = 0;
    int r = 0;

    for (uint64_t seed = first; r == 0 && seed < first + a->seeds; seed++) {
        r = sim_check_seed(seed, &sim_xnord, a->trace ? stdout : NULL, &result);
        items += result.items;
        starved = fmax(starved, result.starved);
        violated += result.violation[0] != '\0';
        if (result.violation[0] != '\0')
            printf("seed %llu: %s\n", (unsigned long long)seed, result.violation);
        if (a->seeds == 1)
            print_result(&result);
    }
    printf(
        "%llu seeds, %llu items, %llu violations; the longest wait of an item without deadline was %.2f of its bound\n",
        (unsigned long long)a->seeds, (unsigned long long)items, (unsigned long long)violated, starved);
    return r < 0 || violated > 0;
}

static int run(const struct arguments *a)
{
    const struct sim_knobs knobs = {0};
    const struct sim_options options = {.log = a->trace ? stdout : NULL, .check = true};
    struct sim_scenario scenario;
    struct sim_trace trace;
    struct sim_result result;

    if (!a->comparison.scenario ||
        sim_scenario_named(a->comparison.scenario, a->loads[0], a->comparison.seed, &scenario) < 0)
        return fail_usage();
    scenario.duration_ns = (uint64_t)(a->comparison.seconds * 1e9);
    int r = sim_trace_new(&scenario, &trace);
    if (r == 0)
        r = sim_run(&scenario, &trace, &sim_xnord, &knobs, &options, &result);
    if (r == 0) {
        print_result(&result);
        print_clients(&result);
        puts(result.violation);
    }
    sim_trace_done(&trace);
    sim_scenario_done(&scenario);
    return r < 0 || result.violation[0] != '\0';
}

int main(int argc, char **argv)
{
    static struct arguments a = {
        .comparison = {.seconds = 5, .seed = 7, .n_loads = 2}, .loads = {0.7, 1.5}, .seeds = 1};

    a.comparison.loads = a.loads;
    if (argc < 2 || !parse(&a, argc, argv))
        return fail_usage();
    if (strcmp(argv[1], "check") == 0)
        return check(&a);
    if (strcmp(argv[1], "run") == 0)
        return run(&a);
    int r = strcmp(argv[1], "compare") == 0   ? sim_compare(&a.comparison)
            : strcmp(argv[1], "sustain") == 0 ? sim_compare_sustained(&a.comparison)
            : strcmp(argv[1], "saving") == 0  ? sim_compare_saving(&a.comparison)
                                              : -ENOENT;
    return r == -ENOENT ? fail_usage() : r < 0;
}
