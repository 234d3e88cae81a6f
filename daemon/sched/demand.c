/* SPDX-License-Identifier: Apache-2.0
 * A segment tree over the milliseconds from `base` on. A leaf has the work that is due in its millisecond, and the earliest deadline of that work. A node has
 *
 *     work   of its leaves together
 *     slack  the least, over its leaves, of deadline - work of the node's leaves up to and with that one
 *
 * so that slack(node) = min(slack(left), slack(right) - work(left)). Deadlines are ns from `base`.
 *
 * When half of the window is past, everything moves by that half: once in four seconds, and what is past gathers in the first leaf. The deadline of a leaf is forgotten
 * only when its last work goes: until then it may be earlier than that of what is left, which errs on the side of refusing. */
#include "daemon/sched/demand.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault.h"

#define LEAVES    8192u
#define BUCKET_NS XN_NS_PER_MS
#define NO_SLACK  INT64_MAX /* no deadline */

struct node {
    int64_t work, slack;
};

struct leaf {
    uint32_t entries;
    int64_t deadline; /* NO_SLACK: none */
};

struct xn_demand {
    uint64_t base; /* the bucket of the first leaf: ns / BUCKET_NS */
    uint32_t entries;
    struct leaf leaves[LEAVES];
    struct node nodes[2 * LEAVES]; /* 1 is the root, LEAVES + i leaf i */
};

static int64_t less(int64_t slack, int64_t work)
{
    return slack == NO_SLACK ? NO_SLACK : slack - work;
}

static void set_leaf(struct xn_demand *d, uint32_t i)
{
    struct node *node = &d->nodes[LEAVES + i];

    node->slack = less(d->leaves[i].deadline, node->work);
}

static void combine(struct xn_demand *d, uint32_t i)
{
    const struct node *left = &d->nodes[2 * i], *right = &d->nodes[2 * i + 1];

    d->nodes[i].work = left->work + right->work;
    d->nodes[i].slack = XN_MIN(left->slack, less(right->slack, left->work));
}

static void update(struct xn_demand *d, uint32_t leaf)
{
    set_leaf(d, leaf);
    for (uint32_t i = (LEAVES + leaf) / 2; i > 0; i /= 2)
        combine(d, i);
}

int xn_demand_new(struct xn_demand **ret_demand)
{
    struct xn_demand *d = xn_calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    for (uint32_t i = 0; i < LEAVES; i++)
        d->leaves[i].deadline = NO_SLACK;
    for (uint32_t i = 1; i < 2 * LEAVES; i++)
        d->nodes[i].slack = NO_SLACK;
    *ret_demand = d;
    return 0;
}

void xn_demand_free(struct xn_demand *demand)
{
    free(demand);
}

static uint32_t leaf_of(const struct xn_demand *d, uint64_t bucket)
{
    if (bucket <= d->base)
        return 0;
    return (uint32_t)XN_MIN(bucket - d->base, LEAVES - 1);
}

static void merge_leaf(struct xn_demand *d, uint32_t to, uint32_t from)
{
    d->leaves[to].entries += d->leaves[from].entries;
    d->leaves[to].deadline = XN_MIN(d->leaves[to].deadline, d->leaves[from].deadline);
    d->nodes[LEAVES + to].work += d->nodes[LEAVES + from].work;
    d->leaves[from] = (struct leaf){.deadline = NO_SLACK};
    d->nodes[LEAVES + from].work = 0;
}

/* Let the window begin at `base`, which is later than it does. */
static void shift(struct xn_demand *d, uint64_t base)
{
    uint64_t by = base - d->base;
    int64_t by_ns = (int64_t)(by * BUCKET_NS);

    for (uint32_t i = 1; i < LEAVES; i++)
        merge_leaf(d, i > by ? (uint32_t)(i - by) : 0, i);
    for (uint32_t i = 0; i < LEAVES; i++) {
        if (d->leaves[i].deadline != NO_SLACK)
            d->leaves[i].deadline -= by_ns;
        set_leaf(d, i);
    }
    for (uint32_t i = LEAVES - 1; i > 0; i--)
        combine(d, i);
    d->base = base;
}

static void advance(struct xn_demand *d, uint64_t now_ns)
{
    uint64_t bucket = now_ns / BUCKET_NS;

    if (bucket < d->base + LEAVES / 2)
        return;
    if (d->entries == 0)
        d->base = bucket; /* nothing to move */
    else
        shift(d, bucket);
}

uint64_t xn_demand_add(struct xn_demand *demand, uint64_t work_ns, uint64_t due_ns, uint64_t deadline_ns,
                       uint64_t now_ns)
{
    advance(demand, now_ns);
    uint64_t bucket = XN_MIN(due_ns / BUCKET_NS, demand->base + LEAVES - 1);
    uint32_t i = leaf_of(demand, bucket);
    uint64_t base_ns = demand->base * BUCKET_NS;

    demand->entries++;
    demand->leaves[i].entries++;
    demand->nodes[LEAVES + i].work += (int64_t)work_ns;
    if (i < LEAVES - 1 && deadline_ns != XN_NEVER_NS)
        demand->leaves[i].deadline =
            XN_MIN(demand->leaves[i].deadline, (int64_t)(deadline_ns - XN_MIN(deadline_ns, base_ns)));
    update(demand, i);
    return bucket;
}

void xn_demand_remove(struct xn_demand *demand, uint64_t place, uint64_t work_ns)
{
    uint32_t i = leaf_of(demand, place);

    demand->entries--;
    demand->nodes[LEAVES + i].work -= (int64_t)work_ns;
    if (--demand->leaves[i].entries == 0)
        demand->leaves[i].deadline = NO_SLACK;
    update(demand, i);
}

uint64_t xn_demand_total_ns(const struct xn_demand *demand)
{
    return (uint64_t)demand->nodes[1].work;
}

uint64_t xn_demand_before_ns(const struct xn_demand *demand, uint64_t due_ns)
{
    uint32_t i = LEAVES + leaf_of(demand, due_ns / BUCKET_NS);
    int64_t work = demand->nodes[i].work;

    for (; i > 1; i /= 2)
        work += i % 2 ? demand->nodes[i - 1].work : 0;
    return (uint64_t)work;
}

int64_t xn_demand_slack_ns(const struct xn_demand *demand, uint64_t due_ns, uint64_t start_ns)
{
    uint32_t leaf = leaf_of(demand, due_ns / BUCKET_NS), i = LEAVES + leaf;
    int64_t before =
        (int64_t)xn_demand_before_ns(demand, due_ns) - demand->nodes[i].work; /* of leaves before this one */
    int64_t slack = demand->nodes[i].slack, work = demand->nodes[i].work;     /* of leaves from this one on */

    for (; i > 1; i /= 2) {
        if (i % 2)
            continue;
        slack = XN_MIN(slack, less(demand->nodes[i + 1].slack, work));
        work += demand->nodes[i + 1].work;
    }
    if (slack == NO_SLACK)
        return NO_SLACK;
    return slack - before - (int64_t)(start_ns - XN_MIN(start_ns, demand->base * BUCKET_NS));
}
