/* SPDX-License-Identifier: Apache-2.0
 * What the files of the scheduler share: sched.c keeps the state, choose.c decides what runs where and when, admit.c what may come. Private to sched/. */
#ifndef XN_DAEMON_SCHED_INTERNAL_H
#define XN_DAEMON_SCHED_INTERNAL_H

#include "common/clock.h"
#include "daemon/sched/cost.h"
#include "daemon/sched/demand.h"
#include "daemon/sched/sched.h"

#define XN_SCHED_NOWHERE UINT32_MAX
#define XN_SCHED_FLOWS   1024u /* clients share one where their hashes do */

/* Items of one slot that wait. */
struct queue {
    struct xn_heap due;    /* major: the model's generation, so that an old object's items go first; minor: due_ns */
    struct xn_heap expiry; /* by deadline, those that have one */
    struct xn_item *oldest, *newest; /* all, in the order in which they came */
    uint32_t depth;
    uint32_t announced; /* items on their way */
};

/* What the fleet can do for the model of a slot; derived from costs and health when it is needed and `stale`. */
struct rate {
    bool stale;
    uint64_t generation; /* of the model that it was derived for */
    uint32_t usable;     /* healthy instances that have the model */
    uint32_t best;       /* the one that does a full batch in the least time; XN_SCHED_NOWHERE: none */
    uint64_t least_ns;   /* the least time for one image; 0: not known */
    double image_ns;     /* of the whole fleet's time, in full batches; 0: not known */
};

struct instance {
    bool healthy;
    uint32_t inflight, running;
    uint64_t free_ns;         /* when all that runs is expected to have ended */
    uint64_t left_ns;         /* predicted time of all batches that run */
    uint64_t lead_ns;         /* how long before free_ns the next batch is fetched */
    double watts;             /* above idle while it runs; 0: not known */
    bool watts_declared;      /* by the configuration: not to be learned */
    double drawn_watts;       /* its part of running_watts, since it runs */
    struct xn_batch *batches; /* [inflight + 1]: one may still be read after done */
    uint32_t next_batch;
    struct xn_cost *cost;                      /* [XN_CONFIG_MODELS_MAX] */
    uint64_t generation[XN_CONFIG_MODELS_MAX]; /* of the model that `cost` is of */
    bool measured[XN_CONFIG_MODELS_MAX];       /* `cost` has batches that ran; false: predictions alone */
};

/* Part of the time of what comes before that admission keeps in reserve: predictions err, and one that errs makes the next batch small. */
#define XN_SCHED_RESERVE 0.2

/* What one client has waiting of one model. */
struct flow {
    uint32_t items;
    uint64_t work_ns;
    uint64_t last_due_ns[XN_PRIORITY_COUNT]; /* the latest of what it has been given, while items > 0 */
};

/* The least time from coming to being due of what came in the last SOONEST_WINDOW_NS or twice that; XN_NEVER_NS: nothing came. */
struct soonest {
    uint64_t ns;        /* of both windows */
    uint64_t window_ns; /* of the one that began at since_ns */
    uint64_t since_ns;
};

struct xn_sched {
    struct instance *instances;
    uint32_t n_instances;
    uint32_t queue_total, total, announced_total, running_total;
    uint64_t busy_slots; /* bit s: queue s is not empty */
    bool draining;
    struct queue queues[XN_CONFIG_MODELS_MAX];
    struct rate rates[XN_CONFIG_MODELS_MAX];
    struct xn_heap running;   /* by deadline: items in batches that have one, and have not been named by expire */
    struct xn_item *given_up; /* left their batch for the sake of others; expire names them. Linked by `next` */
    struct xn_demand *demand;
    struct flow flows[XN_SCHED_FLOWS];
    uint32_t flows_waiting; /* flows that have items */
    struct soonest soonest;
    /* Saving. */
    double watts_cap, watts_budget; /* 0: none */
    double joules;                  /* that may be spent now; negative: some are owed. At most one second's budget */
    uint64_t joules_ns;             /* when `joules` was reckoned */
    double running_watts;           /* of instances that run */
    double least_watts;             /* of the instances whose are known; 0: of none */
    uint64_t eco_delay_ns;
};

static inline struct xn_item *xn_sched_due_item(const struct xn_heap_node *node)
{
    return (struct xn_item *)(void *)((char *)(uintptr_t)node - offsetof(struct xn_item, sched.due));
}

static inline struct xn_item *xn_sched_expiry_item(const struct xn_heap_node *node)
{
    return (struct xn_item *)(void *)((char *)(uintptr_t)node - offsetof(struct xn_item, sched.expiry));
}

/* The item that is due first in `q`, which is not empty. */
static inline struct xn_item *xn_sched_first(const struct queue *q)
{
    return xn_sched_due_item(q->due.root);
}

/* ---- choose.c ---- */

/* What was measured with `model` on `instance`; a model that was reloaded is another one, however it is called. */
const struct xn_cost *xn_sched_cost_of(const struct instance *instance, const struct xn_model *model);

/* Is `index` healthy, and has it `model`? */
bool xn_sched_usable(const struct xn_sched *s, uint32_t index, const struct xn_model *model);

/* When the instance is expected to have ended what it runs. */
uint64_t xn_sched_free_ns(const struct instance *instance, uint64_t now_ns);

/* The rate of `model`, brought up to date. */
const struct rate *xn_sched_rate(struct xn_sched *s, const struct xn_model *model);

/* How many images a batch of `model` on `instance` may hold, so that work with `relative_ns` from arrival to deadline can be served steadily: 1..max_batch. A batch waits for
 * one that runs on one of `usable` instances, then runs itself: both together must not take longer. As many as cost next to nothing beside its fixed part it may hold in any case. */
uint32_t xn_sched_batch_limit(const struct instance *instance, const struct xn_model *model, uint32_t usable,
                              uint64_t relative_ns);

struct choice {
    uint32_t slot, n;
    enum xn_close_reason reason;
};

/* What `index` should start now: of all batches that close and that are for it, the one that is due first. False: nothing. */
bool xn_sched_choose(struct xn_sched *s, uint32_t index, uint64_t now_ns, struct choice *ret_choice);

/* By when a batch of another model than that of `slot`, which `index` alone can run, has to start on it; XN_NEVER_NS: none. */
uint64_t xn_sched_others_ns(struct xn_sched *s, uint32_t index, uint32_t slot, uint64_t now_ns);

/* ---- sched.c ---- */

/* When the item of `slot` whose deadline is first is given up, as nobody could do it in time any more; XN_NEVER_NS: there is none. ret_item may be NULL. */
uint64_t xn_sched_late_ns(struct xn_sched *s, uint32_t slot, struct xn_item **ret_item);

/* ---- admit.c ---- */

/* Say of an item that comes now when it is due, what work it is, and whose. */
void xn_sched_place(struct xn_sched *s, struct xn_item *item, uint64_t now_ns);

/* A placed item waits, or waits no more: what its flow has, and the demand. */
void xn_sched_account(struct xn_sched *s, struct xn_item *item);
void xn_sched_discount(struct xn_sched *s, struct xn_item *item);

/* ---- energy.c ---- */

/* From when on `index` may start a batch as far as watts and joules go: now_ns or earlier: now; XN_NEVER_NS: not before another has ended. */
uint64_t xn_sched_affordable_ns(const struct xn_sched *s, uint32_t index, uint64_t now_ns);

/* `instance` starts a batch of `batch_ns`. */
void xn_sched_spend(struct xn_sched *s, const struct instance *instance, uint64_t batch_ns, uint64_t now_ns);

/* Watts to choose `index` by. Where they are to be learned and are not known yet, a little less than the thriftiest instance's whose are: so it is tried where it is as fast, and they become known. 0: none are. */
double xn_sched_watts(const struct xn_sched *s, uint32_t index);
/* After the watts of an instance have changed. */
void xn_sched_find_least_watts(struct xn_sched *s);

/* Slow `rate` down to what watts and joules allow. */
void xn_sched_limit_rate(const struct xn_sched *s, const struct xn_model *model, struct rate *rate);

#endif
