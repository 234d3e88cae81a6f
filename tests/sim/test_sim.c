/* SPDX-License-Identifier: Apache-2.0
 * The simulator as a suite: a seed replays, thousands of random scenarios keep the invariants, a broken scheduler is found out, and what the scheduler promises of overload, shares and watts.
 *
 * Seeds run one after the other from 1 for SECONDS of processor time, and at least SEEDS_LEAST of them; XN_SIM_SEEDS=N runs exactly N. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/sim/sim.h"

#define SECONDS     14.0
#define SEEDS_LEAST 200u

static struct sim_result run_seed(uint64_t seed, const struct sim_policy *policy)
{
    struct sim_result result;

    assert_int_equal(sim_check_seed(seed, policy, NULL, &result), 0);
    return result;
}

static struct sim_result run_named(const char *name, double load, double seconds, void (*change)(struct sim_scenario *))
{
    const struct sim_knobs knobs = {0};
    const struct sim_options options = {.check = true};
    struct sim_scenario scenario;
    struct sim_trace trace;
    struct sim_result result;

    assert_int_equal(sim_scenario_named(name, load, 7, &scenario), 0);
    scenario.duration_ns = (uint64_t)(seconds * 1e9);
    if (change)
        change(&scenario);
    assert_int_equal(sim_trace_new(&scenario, &trace), 0);
    assert_int_equal(sim_run(&scenario, &trace, &sim_xnord, &knobs, &options, &result), 0);
    assert_string_equal(result.violation, "");
    sim_trace_done(&trace);
    sim_scenario_done(&scenario);
    return result;
}

/* ---- the simulator itself ----------------------------------------------------------------------------------------- */

static void test_a_seed_replays(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_result one = run_seed(seed, &sim_xnord), two = run_seed(seed, &sim_xnord);
        assert_memory_equal(&one, &two, sizeof(one));
        assert_int_not_equal(one.hash, run_seed(seed + 1, &sim_xnord).hash);
    }
}

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void test_random_scenarios_keep_the_invariants(void **state)
{
    const char *wanted = getenv("XN_SIM_SEEDS");
    uint64_t exactly = wanted ? strtoull(wanted, NULL, 10) : 0, items = 0, seed = 1, violated = 0;
    double end = cpu_seconds() + SECONDS;
    (void)state;

    for (; exactly ? seed <= exactly : seed <= SEEDS_LEAST || cpu_seconds() < end; seed++) {
        struct sim_result result = run_seed(seed, &sim_xnord);
        items += result.items;
        violated += result.violation[0] != '\0';
        if (result.violation[0] != '\0')
            print_message("# seed %" PRIu64 ": %s\n", seed, result.violation);
    }
    print_message("# %" PRIu64 " seeds, %" PRIu64 " items\n", seed - 1, items);
    assert_int_equal(violated, 0);
}

static void test_peers_answer_every_item_once(void **state)
{
    static const struct sim_policy *const peers[] = {&sim_triton, &sim_clipper, &sim_amd};
    (void)state;

    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct sim_result result = run_seed(seed, peers[seed % 3]);
        if (result.violation[0] != '\0')
            fail_msg("seed %" PRIu64 ": %s", seed, result.violation);
    }
}

/* ---- broken schedulers are found out ------------------------------------------------------------------------------ */

/* Runs seeds under a scheduler with one fault: at least one must be found to be wrong, and say `what`. */
static void expect_violation(const struct sim_policy *broken, const char *what)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        if (strstr(run_seed(seed, broken).violation, what))
            return;
    fail_msg("no seed of 60 says \"%s\"", what);
}

static uint32_t ready_never_the_first(void *state, uint64_t now_ns, uint32_t *ret_instances, uint32_t max)
{
    uint32_t n = sim_xnord.ready(state, now_ns, ret_instances, max);

    return n > 0 && ret_instances[0] == 0 ? 0 : n;
}

static void test_an_idle_instance_is_found_out(void **state)
{
    struct sim_policy broken = sim_xnord;
    (void)state;

    broken.ready = ready_never_the_first;
    expect_violation(&broken, "is idle while");
}

static uint64_t wake_never(void *state, uint64_t now_ns)
{
    (void)state, (void)now_ns;
    return XN_NEVER_NS;
}

static void test_a_missing_wake_is_found_out(void **state)
{
    struct sim_policy broken = sim_xnord;
    (void)state;

    broken.wake = wake_never;
    expect_violation(&broken, "after its deadline");
}

static uint32_t expire_as_running(void *state, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max)
{
    uint32_t n = sim_xnord.expire(state, now_ns, ret_expired, max);

    for (uint32_t i = 0; i < n; i++)
        ret_expired[i].running = true;
    return n;
}

static void test_a_wrong_owner_is_found_out(void **state)
{
    struct sim_policy broken = sim_xnord;
    (void)state;

    broken.expire = expire_as_running;
    expect_violation(&broken, "in the wrong place");
}

static int admit_anything(void *state, const struct xn_sched_ask *ask, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    struct xn_sched_ask patient = *ask;

    patient.deadline_ns = XN_NEVER_NS; /* what is asked is not what comes */
    return sim_xnord.admit(state, &patient, now_ns, ret_retry_ns);
}

/* Without admission by deadline nothing is wrong as such, but what was promised is not kept: more expires. */
static void test_admission_by_deadline_matters(void **state)
{
    struct sim_policy blind = sim_xnord;
    uint64_t expired = 0, expired_blind = 0;
    (void)state;

    blind.admit = admit_anything;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        expired += run_seed(seed, &sim_xnord).outcomes[SIM_EXPIRED];
        expired_blind += run_seed(seed, &blind).outcomes[SIM_EXPIRED];
    }
    assert_true(expired_blind > 2 * expired);
}

/* ---- what is promised --------------------------------------------------------------------------------------------- */

/* At three times its capacity a card does at least 95 % of what it can, and who is admitted is done in time. */
static void test_overload(void **state)
{
    struct sim_result result = run_named("flood", 3, 4, NULL);
    struct sim_scenario scenario;
    (void)state;

    assert_int_equal(sim_scenario_named("flood", 3, 7, &scenario), 0);
    double capacity = sim_capacity(&scenario) * (double)result.end_ns / 1e9;
    sim_scenario_done(&scenario);
    assert_true((double)result.outcomes[SIM_DONE] >= 0.95 * capacity);
    assert_true((double)result.outcomes[SIM_EXPIRED] <= 0.005 * (double)result.items);
}

/* At nine tenths of it nearly nothing is missed. */
static void test_heavy_load(void **state)
{
    struct sim_result result = run_named("flood", 0.9, 10, NULL);
    (void)state;

    assert_true((double)result.outcomes[SIM_DONE] >= 0.999 * (double)result.items);
}

static void level(struct sim_scenario *s)
{
    s->streams[0].rate = s->streams[1].rate;
}

static void expect_shares(const struct sim_result *result, uint32_t first, double least, double most)
{
    for (uint32_t client = first; client < 4; client++) {
        double share = (double)result->client_done[client] / (double)result->outcomes[SIM_DONE];
        if (share < least / 4 || share > most / 4)
            fail_msg("client %u has %.3f of what was done", client, share);
    }
}

/* Four clients who each ask for twice their quarter get between 0.8 and 1.25 of it. */
static void test_equal_shares(void **state)
{
    struct sim_result result = run_named("flood", 12, 4, level);
    (void)state;

    expect_shares(&result, 0, 0.8, 1.25);
}

/* Where one of them asks for twenty times as much, the others keep nine tenths of their quarter and more. */
static void test_a_flood_leaves_shares(void **state)
{
    struct sim_result result = run_named("flood", 12, 4, NULL);
    (void)state;

    expect_shares(&result, 1, 0.9, 1.25);
}

/* With two models and three kinds of deadlines at one and a half times what the fleet can do it does at least 95 % of that, by work; and what was admitted is done in time, but for a fiftieth. */
static void test_overload_of_a_mixture(void **state)
{
    struct sim_result result = run_named("poisson", 1.5, 4, NULL);
    struct sim_scenario scenario;
    double work_ns = 0;
    (void)state;

    assert_int_equal(sim_scenario_named("poisson", 1.5, 7, &scenario), 0);
    for (uint32_t i = 0; i < scenario.n_models; i++)
        work_ns += (double)result.model_done[i] * sim_image_ns(&scenario, i);
    sim_scenario_done(&scenario);
    assert_true(work_ns >= 0.95 * 4e9);
    uint64_t admitted = result.items - result.outcomes[SIM_REFUSED];
    assert_true((double)result.outcomes[SIM_EXPIRED] <= 0.02 * (double)admitted);
}

/* Tight work that comes just behind long batches is done in time, as these are not bound to an instance before it is free. */
static void test_an_ambush(void **state)
{
    struct sim_result result = run_named("ambush", 0.7, 4, NULL);
    (void)state;

    assert_true((double)result.outcomes[SIM_DONE] >= 0.99 * (double)result.items);
}

static void save(struct sim_scenario *s)
{
    s->watts_cap = 60; /* of 59 that all draw together: only the choice of instances and batches saves */
    s->eco_delay_us = 10000;
}

static void cap(struct sim_scenario *s)
{
    s->watts_cap = 30; /* the cards alone */
    s->eco_delay_us = 10000;
}

static void test_saving_saves(void **state)
{
    struct sim_result fast = run_named("poisson", 0.4, 4, NULL), eco = run_named("poisson", 0.4, 4, save);
    struct sim_result capped = run_named("poisson", 0.4, 4, cap);
    (void)state;

    assert_true(eco.joules / (double)eco.images < 0.8 * fast.joules / (double)fast.images);
    assert_true((double)eco.outcomes[SIM_DONE] >= 0.99 * (double)eco.items);
    assert_true((double)capped.outcomes[SIM_DONE] >= 0.99 * (double)capped.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_seed_replays),
        cmocka_unit_test(test_random_scenarios_keep_the_invariants),
        cmocka_unit_test(test_peers_answer_every_item_once),
        cmocka_unit_test(test_an_idle_instance_is_found_out),
        cmocka_unit_test(test_a_missing_wake_is_found_out),
        cmocka_unit_test(test_a_wrong_owner_is_found_out),
        cmocka_unit_test(test_admission_by_deadline_matters),
        cmocka_unit_test(test_overload),
        cmocka_unit_test(test_heavy_load),
        cmocka_unit_test(test_equal_shares),
        cmocka_unit_test(test_a_flood_leaves_shares),
        cmocka_unit_test(test_overload_of_a_mixture),
        cmocka_unit_test(test_an_ambush),
        cmocka_unit_test(test_saving_saves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
