/* SPDX-License-Identifier: Apache-2.0
 * An image whose steps are shared out gives the integers of one that a single thread runs: at every level, for different numbers of parts,
 * on threads that take pieces as they come. The accelerator chooses this way by measured times; here nothing is left to choice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/cpu/plan.h"
#include "accel/cpu/team.h"
#include "common/clock.h"
#include "tests/support/random_network.h"

#define NETWORKS 60u
#define HELPERS  2u

static uint64_t seed;
static struct xn_cpu_team *team;

struct shared {
    const struct xn_cpu_plan *plan;
    struct xn_cpu_image image;
    uint32_t parts;
};

static void run_part(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    const struct shared *s = context;
    (void)thread;
    xn_cpu_plan_step(s->plan, stage, &s->image, i, s->parts);
}

static void check(const struct xn_cpu_kernels *kernels, const struct xn_network *network, uint64_t network_seed,
                  uint32_t parts)
{
    struct xn_random random = {network_seed};
    struct xn_cpu_plan *plan;
    struct xn_error error;

    if (xn_cpu_plan_new(network, kernels, &plan, &error) < 0)
        fail_msg("%s", error.text);
    uint8_t *input = malloc(network->input_bytes);
    uint8_t *arena = aligned_alloc(64, xn_align_up(plan->arena_bytes, 64));
    int32_t *want = calloc(network->n_classes, sizeof(*want)), *got = calloc(network->n_classes, sizeof(*got));
    assert_true(input && arena && want && got);
    xn_random_bytes(&random, input, network->input_bytes);
    memset(arena, 0xa5, plan->arena_bytes); /* what an image leaves behind is nothing to build on */
    xn_cpu_plan_run(plan, &(struct xn_cpu_image){arena, input, want});
    memset(arena, 0x5a, plan->arena_bytes);
    struct shared s = {.plan = plan, .image = {arena, input, got}, .parts = parts};
    xn_cpu_team_begin(team, &(struct xn_cpu_batch){run_part, &s, &parts, 1, plan->n_steps});
    assert_int_equal(xn_cpu_team_finish(team, XN_NEVER_NS), 0);
    if (memcmp(want, got, network->n_classes * sizeof(*want)) != 0)
        fail_msg("network %" PRIu64 " in %u parts; repeat with XN_SEED=%" PRIu64, network_seed, parts, network_seed);
    free(input);
    free(arena);
    free(want);
    free(got);
    xn_cpu_plan_free(plan);
}

static void shared_images(void **state)
{
    const size_t level = *(const size_t *)*state;
    if (!xn_cpu_level_runs(level)) {
        print_message("# skipped %s: this processor does not have the instructions\n", xn_cpu_level_at(level)->level);
        skip();
    }
    for (uint64_t i = 0; i < NETWORKS; i++) {
        struct xn_network *network = xn_random_network(seed + i);
        check(xn_cpu_level_at(level), network, seed + i, 2 + (uint32_t)(i % 4));
        xn_network_free(network);
    }
    struct xn_network *network = xn_random_slow(seed);
    check(xn_cpu_level_at(level), network, seed, HELPERS + 1);
    xn_network_free(network);
}

int main(void)
{
    static struct CMUnitTest tests[16];
    static size_t levels[16];
    struct xn_error error;

    seed = xn_random_seed(20261125);
    if (xn_cpu_team_new(0, HELPERS, &team, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (size_t i = 0; i < xn_cpu_levels(); i++) {
        char *name = NULL; /* lives as long as the program */
        levels[i] = i;
        if (asprintf(&name, "shared_images [%s]", xn_cpu_level_at(i)->level) < 0)
            abort();
        tests[i] = (struct CMUnitTest){.name = name, .test_func = shared_images, .initial_state = &levels[i]};
    }
    const int failed =
        _cmocka_run_group_tests("parts of steps make the same image", tests, xn_cpu_levels(), NULL, NULL);
    xn_cpu_team_free(team);
    return failed;
}
