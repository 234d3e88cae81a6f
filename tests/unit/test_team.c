/* SPDX-License-Identifier: Apache-2.0
 * The CPU's team of threads: each piece once, stages in order, whatever they wrote visible to the next one; on fewer and on more threads than
 * there are processors, awake and asleep, cut short and freed. What pieces write is plain memory, so that ThreadSanitizer sees a missing order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "accel/cpu/team.h"
#include "common/clock.h"

#define THREADS_MAX 5u
#define STAGES_MAX  40u
#define PIECES_MAX  64u
#define BATCHES     200u

static struct xn_cpu_team *team_of(uint32_t threads)
{
    struct xn_cpu_team *team;
    struct xn_error error;
    if (xn_cpu_team_new(0, threads - 1, &team, &error) < 0)
        fail_msg("%s", error.text);
    return team;
}

static void pass_time(uint64_t ns)
{
    for (const uint64_t end_ns = xn_clock_now_ns() + ns; xn_clock_now_ns() < end_ns;)
        ;
}

/** Each piece adds up what the stage before wrote. */
struct table {
    const uint32_t *pieces;
    uint32_t period, threads;
    uint32_t sums[STAGES_MAX][PIECES_MAX], runs[STAGES_MAX][PIECES_MAX];
};

static void add_up(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    struct table *table = context;
    uint32_t sum = 1 + i;

    assert_true(thread < table->threads && stage < STAGES_MAX && i < table->pieces[stage % table->period]);
    for (uint32_t k = 0; stage > 0 && k < table->pieces[(stage - 1) % table->period]; k++)
        sum += 3 * table->sums[stage - 1][k];
    table->sums[stage][i] = sum;
    table->runs[stage][i]++;
}

static void check_table(struct table *table, uint32_t stages)
{
    static struct table want;

    want = (struct table){.pieces = table->pieces, .period = table->period, .threads = 1};
    for (uint32_t s = 0; s < stages; s++)
        for (uint32_t i = 0; i < want.pieces[s % want.period]; i++)
            add_up(&want, 0, s, i);
    assert_memory_equal(table->sums, want.sums, sizeof(want.sums));
    assert_memory_equal(table->runs, want.runs, sizeof(want.runs));
}

static const uint32_t one[] = {1}, some[] = {PIECES_MAX}, mixed[] = {2, 1, 5, 1, 1, 4, 64, 3}, pairs[] = {2};
static const struct {
    const uint32_t *pieces;
    uint32_t period, stages;
} shapes[] = {{one, 1, 1}, {some, 1, 1}, {pairs, 1, STAGES_MAX}, {mixed, 8, STAGES_MAX}, {mixed, 8, 11}, {one, 1, 9}};

static void each_piece_once_in_order(void **state)
{
    static struct table table;
    (void)state;

    for (uint32_t threads = 1; threads <= THREADS_MAX; threads++) {
        struct xn_cpu_team *team = team_of(threads);
        for (uint32_t b = 0; b < BATCHES; b++) {
            const size_t k = b % XN_ARRAY_LEN(shapes);
            table = (struct table){.pieces = shapes[k].pieces, .period = shapes[k].period, .threads = threads};
            if (b % 16 == 0)
                pass_time(500000); /* helpers have gone to sleep by now, or not: both are right */
            xn_cpu_team_begin(team,
                              &(struct xn_cpu_batch){add_up, &table, table.pieces, table.period, shapes[k].stages});
            assert_int_equal(xn_cpu_team_finish(team, XN_NEVER_NS), 0);
            check_table(&table, shapes[k].stages);
        }
        xn_cpu_team_free(team);
    }
}

/** Both pieces of a stage wait for each other: two threads, or nobody gets on. */
static void meet(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    _Atomic uint32_t *met = context;
    (void)thread;
    (void)i;
    if (i > 0)
        pass_time(stage % 4 * 50000); /* the other one may go to sleep at the end of its piece */
    for (atomic_fetch_add(met, 1); atomic_load(met) < 2 * (stage + 1);)
        ;
    if (i == 0)
        pass_time((stage + 2) % 4 * 50000);
}

static void helpers_come_when_called(void **state)
{
    struct xn_cpu_team *team = team_of(2);
    (void)state;

    for (uint32_t b = 0; b < 20; b++) {
        _Atomic uint32_t met = 0;
        pass_time(b % 2 * 1000000);
        xn_cpu_team_begin(team, &(struct xn_cpu_batch){meet, &met, pairs, 1, 8});
        assert_int_equal(xn_cpu_team_finish(team, XN_NEVER_NS), 0);
        assert_int_equal(met, 16);
    }
    xn_cpu_team_free(team);
}

static void note_thread(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    uint32_t *runs = context;
    (void)stage;
    (void)i;
    assert_int_equal(thread, 0);
    ++*runs;
}

static void single_piece_is_the_callers(void **state)
{
    struct xn_cpu_team *team = team_of(3);
    uint32_t runs = 0;
    (void)state;

    for (uint32_t b = 0; b < BATCHES; b++) {
        xn_cpu_team_begin(team, &(struct xn_cpu_batch){note_thread, &runs, one, 1, 1});
        assert_int_equal(runs, b); /* not before finish */
        assert_int_equal(xn_cpu_team_finish(team, XN_NEVER_NS), 0);
    }
    assert_int_equal(runs, BATCHES);
    xn_cpu_team_free(team);
}

struct cut {
    bool over; /* plain: a piece that ran after finish would be a race */
    _Atomic uint32_t runs;
};

static void take_long(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    struct cut *cut = context;
    (void)thread;
    (void)stage;
    (void)i;
    assert_false(cut->over);
    pass_time(2000);
    atomic_fetch_add_explicit(&cut->runs, 1, memory_order_relaxed);
}

static void deadline_cuts_a_batch_short(void **state)
{
    static struct table table;
    (void)state;

    for (uint32_t threads = 1; threads <= THREADS_MAX; threads++) {
        struct xn_cpu_team *team = team_of(threads);
        for (uint32_t b = 0; b < 40; b++) {
            struct cut cut = {.over = false};
            xn_cpu_team_begin(team, &(struct xn_cpu_batch){take_long, &cut, mixed, 8, 4000});
            const uint64_t deadline_ns = b % 2 ? xn_clock_now_ns() + 100000 : 0;
            assert_int_equal(xn_cpu_team_finish(team, deadline_ns), -ETIMEDOUT);
            cut.over = true;
            assert_true(cut.runs < 4000);
            table = (struct table){.pieces = mixed, .period = 8, .threads = threads};
            xn_cpu_team_begin(team, &(struct xn_cpu_batch){add_up, &table, mixed, 8, STAGES_MAX});
            assert_int_equal(xn_cpu_team_finish(team, xn_clock_now_ns() + UINT64_C(600000000000)), 0);
            check_table(&table, STAGES_MAX);
        }
        xn_cpu_team_free(team);
    }
}

static void teams_end_at_any_time(void **state)
{
    static struct table table;
    (void)state;

    xn_cpu_team_free(NULL);
    for (uint32_t b = 0; b < 100; b++) {
        struct xn_cpu_team *team = team_of(1 + b % THREADS_MAX);
        table = (struct table){.pieces = mixed, .period = 8, .threads = THREADS_MAX};
        if (b % 3 == 0)
            pass_time(200000);
        if (b % 3 > 0) {
            xn_cpu_team_begin(team, &(struct xn_cpu_batch){add_up, &table, mixed, 8, 11});
            assert_int_equal(xn_cpu_team_finish(team, XN_NEVER_NS), 0);
            check_table(&table, 11);
        }
        xn_cpu_team_free(team);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_piece_once_in_order),    cmocka_unit_test(helpers_come_when_called),
        cmocka_unit_test(single_piece_is_the_callers), cmocka_unit_test(deadline_cuts_a_batch_short),
        cmocka_unit_test(teams_end_at_any_time),
    };
    return cmocka_run_group_tests_name("the CPU's team of threads", tests, NULL, NULL);
}
