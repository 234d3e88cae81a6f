/* SPDX-License-Identifier: Apache-2.0
 * The demand tree beside a list that is looked through: random work comes and goes while time passes, over several windows. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/clock.h"
#include "daemon/sched/demand.h"
#include "tests/support/random_network.h"

#define MS    XN_NS_PER_MS
#define ITEMS 200u
#define STEPS 20000u

static struct xn_random chance;

static uint64_t random_below(uint64_t n)
{
    return xn_random_next(&chance) % n;
}

struct entry {
    bool waits;
    uint64_t due_ns, deadline_ns, work_ns, place;
};

static uint64_t brute_before(const struct entry *entries, uint64_t due_ns)
{
    uint64_t work_ns = 0;

    for (uint32_t i = 0; i < ITEMS; i++)
        if (entries[i].waits && entries[i].due_ns <= due_ns)
            work_ns += entries[i].work_ns;
    return work_ns;
}

/* As the list has it, where `ms` are added to what comes before each item: the tree keeps times to a millisecond. */
static int64_t brute_slack(const struct entry *entries, uint64_t due_ns, uint64_t start_ns, int64_t ms)
{
    int64_t slack = INT64_MAX;

    for (uint32_t i = 0; i < ITEMS; i++) {
        const struct entry *e = &entries[i];
        if (!e->waits || (int64_t)e->due_ns < (int64_t)due_ns - ms * (int64_t)MS || e->deadline_ns == XN_NEVER_NS)
            continue;
        int64_t end =
            (int64_t)start_ns + (int64_t)brute_before(entries, (uint64_t)((int64_t)e->due_ns + ms * (int64_t)MS));
        slack = XN_MIN(slack, (int64_t)e->deadline_ns - end);
    }
    return slack;
}

static void check(const struct xn_demand *demand, const struct entry *entries, uint64_t now_ns)
{
    uint64_t due_ns = now_ns + random_below(3000) * MS, total_ns = brute_before(entries, UINT64_MAX);

    assert_int_equal(xn_demand_total_ns(demand), total_ns);
    assert_in_range(xn_demand_before_ns(demand, due_ns), brute_before(entries, due_ns - MS),
                    brute_before(entries, due_ns + MS));
    int64_t slack = xn_demand_slack_ns(demand, due_ns, now_ns);
    /* Never more than is there; a leaf may remember a deadline that has gone, so less is possible where leaves are shared. */
    assert_true(slack <= brute_slack(entries, due_ns, now_ns, -1));
}

static void test_beside_a_list(void **state)
{
    struct entry entries[ITEMS] = {{0}};
    struct xn_demand *demand;
    uint64_t now_ns = 12345 * MS;
    (void)state;

    chance.state = xn_random_seed(1);
    assert_int_equal(xn_demand_new(&demand), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        struct entry *e = &entries[random_below(ITEMS)];
        if (e->waits) {
            xn_demand_remove(demand, e->place, e->work_ns);
            e->waits = false;
        } else {
            *e = (struct entry){
                .waits = true, .due_ns = now_ns + random_below(2000 * MS), .work_ns = random_below(3 * MS)};
            e->deadline_ns = random_below(4) == 0 ? XN_NEVER_NS : e->due_ns + random_below(100 * MS);
            e->place = xn_demand_add(demand, e->work_ns, e->due_ns, e->deadline_ns, now_ns);
        }
        now_ns += random_below(2 * MS);
        if (step % 8 == 0)
            check(demand, entries, now_ns);
    }
    xn_demand_free(demand);
}

/** Exact, where every item has its millisecond to itself. */
static void test_slack_by_hand(void **state)
{
    struct xn_demand *demand;
    uint64_t t = 1000 * MS;
    (void)state;

    assert_int_equal(xn_demand_new(&demand), 0);
    assert_int_equal(xn_demand_slack_ns(demand, t, t), INT64_MAX);
    uint64_t a = xn_demand_add(demand, 4 * MS, t + 10 * MS, t + 10 * MS, t);
    uint64_t b = xn_demand_add(demand, 5 * MS, t + 20 * MS, t + 20 * MS, t);
    (void)xn_demand_add(demand, 7 * MS, t + 30 * MS, XN_NEVER_NS, t);
    assert_int_equal(xn_demand_before_ns(demand, t + 15 * MS), 4 * MS);
    assert_int_equal(xn_demand_before_ns(demand, t + 30 * MS), 16 * MS);
    assert_int_equal(xn_demand_slack_ns(demand, t, t), 6 * MS);            /* a: 10 - 4 */
    assert_int_equal(xn_demand_slack_ns(demand, t + 15 * MS, t), 11 * MS); /* b: 20 - 9 */
    assert_int_equal(xn_demand_slack_ns(demand, t + 15 * MS, t + 3 * MS), 8 * MS);
    assert_int_equal(xn_demand_slack_ns(demand, t + 25 * MS, t), INT64_MAX);
    xn_demand_remove(demand, a, 4 * MS);
    assert_int_equal(xn_demand_slack_ns(demand, t, t), 15 * MS);
    xn_demand_remove(demand, b, 5 * MS);
    assert_int_equal(xn_demand_slack_ns(demand, t, t), INT64_MAX);
    /* Beyond the window there is no deadline to protect, but the work counts. */
    (void)xn_demand_add(demand, MS, t + 100000 * MS, t + 100000 * MS, t);
    assert_int_equal(xn_demand_slack_ns(demand, t, t), INT64_MAX);
    assert_int_equal(xn_demand_total_ns(demand), 8 * MS);
    xn_demand_free(demand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beside_a_list),
        cmocka_unit_test(test_slack_by_hand),
    };

    return cmocka_run_group_tests_name("demand", tests, NULL, NULL);
}
