/* SPDX-License-Identifier: Apache-2.0
 * Batcher and scheduler as one pure state machine: no threads, no clock, no I/O; time comes in as an argument, and every event is a call.
 * dispatch.h wraps it in threads; tests and simulators drive it directly.
 *
 * Per model slot there is a queue of items in order of arrival, bounded by the model's queue_limit. A batch closes, and says why, when
 *
 *   full      it holds max_batch items;
 *   drain     the daemon is stopping;
 *   delay     its first item has waited max_delay_us;
 *   deadline  waiting longer would make an item of it miss its deadline;
 *   idle      waiting gains nothing: the asking instance is free, and either nothing more is on its way to this model (announced: being
 *             received or decoded) or the cost model says that one image more would be no cheaper in this batch than alone.
 *
 * It goes to the instance with the least expected completion, max(now, when it is free) + cost(model, n), over all healthy instances that have the
 * model; of equals to the first. While a busy instance is expected to finish it sooner than the idle one that asks, it stays queued (and may grow). Costs are
 * measured at run time, for each (model, instance): cost(n) = fixed + n * per_image. What a backend predicts counts as two
 * measurements, once there is one. A model reloaded under its name is measured anew.
 *
 * Threads: the caller serialises all calls (dispatch.c holds its lock). No allocation after xn_sched_new. */
#ifndef XN_DAEMON_SCHED_SCHED_H
#define XN_DAEMON_SCHED_SCHED_H

#include "daemon/request.h"

struct xn_sched;

enum xn_close_reason {
    XN_CLOSE_FULL,
    XN_CLOSE_DELAY,
    XN_CLOSE_IDLE,
    XN_CLOSE_DEADLINE,
    XN_CLOSE_DRAIN,
    XN_CLOSE_COUNT
};

/** "full", "delay", "idle", "deadline", "drain". */
const char *xn_close_reason_name(enum xn_close_reason reason);

struct xn_batch {
    struct xn_model *model; /**< borrowed from its items' requests: valid while the caller holds one of them */
    uint32_t instance;
    uint32_t n; /**< items, 1..max_batch */
    enum xn_close_reason reason;
    uint64_t started_ns;  /**< when xn_sched_next gave it out */
    uint64_t expected_ns; /**< predicted execution time; 0: nothing measured yet */
    struct xn_item *items[XN_ACCEL_BATCH_MAX];
};

struct xn_sched_config {
    uint32_t n_instances;                /**< 1..XN_INSTANCES_MAX */
    uint32_t queue_total;                /**< items waiting over all models, >= 1 */
    uint32_t inflight[XN_INSTANCES_MAX]; /**< batches an instance takes at once, 1..XN_ACCEL_INFLIGHT_MAX */
};

/** Errors: -EINVAL (configuration out of range), -ENOMEM. */
XN_MUST_CHECK int xn_sched_new(const struct xn_sched_config *config, struct xn_sched **ret_sched);
void xn_sched_free(struct xn_sched *sched);

/** `count` more (or, negative, fewer) items are on their way to `model`: admitted, not yet pushed. */
void xn_sched_announce(struct xn_sched *sched, const struct xn_model *model, int count);

/** Would `n` more items for `model` be accepted now, with all that are announced? For refusal before a body is read. */
bool xn_sched_has_room(const struct xn_sched *sched, const struct xn_model *model, uint32_t n);

/** Queue `item`; the request's reference that the caller holds for it goes with it, and one announcement is taken back. Errors: -ENOBUFS
 *  (the model's queue or the total is full; nothing is taken, the announcement stands). */
XN_MUST_CHECK int xn_sched_push(struct xn_sched *sched, struct xn_item *item, uint64_t now_ns);

/** Queue an item again, at the front, after its batch failed. Always room: it was admitted. */
void xn_sched_requeue(struct xn_sched *sched, struct xn_item *item);

/** The batch that `instance` should start now, or NULL. Call xn_sched_expire with the same time first: then no batch holds an item whose deadline
 *  has passed. Other instances may be ready after it (see xn_sched_ready_instances). The batch belongs to `instance` until xn_sched_done, and stays readable until that
 *  instance's next xn_sched_next. */
struct xn_batch *xn_sched_next(struct xn_sched *sched, uint32_t instance, uint64_t now_ns);

/** `batch` ended after `exec_ns` on its instance. status 0: costs are updated. Its items are now the caller's to settle and release (and not
 *  earlier: until here xn_sched_expire may name them). */
void xn_sched_done(struct xn_sched *sched, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns);

/** An item whose deadline has passed. */
struct xn_expired {
    struct xn_item *item;
    bool
        running; /**< true: it stays in its batch, whose worker releases it; false: it left the queue, and its reference is the caller's */
};

/** Take note of up to `max` items whose deadline is now or earlier. Each is named once. Returns how many. */
uint32_t xn_sched_expire(struct xn_sched *sched, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max);

/** Take any one item out of the queues, or NULL: they are empty. Its reference is the caller's. For shutdown. */
struct xn_item *xn_sched_evict(struct xn_sched *sched);

/** When something will be due (a deadline, a delay, another look at a busy instance) if no event comes before: XN_NEVER_NS for nothing. */
uint64_t xn_sched_wake_ns(const struct xn_sched *sched, uint64_t now_ns);

/** Bit i: xn_sched_next(i) would now give a batch. */
uint64_t xn_sched_ready_instances(const struct xn_sched *sched, uint64_t now_ns);

/** Instance goes out of service (quarantine) or comes back (reset). */
void xn_sched_set_healthy(struct xn_sched *sched, uint32_t instance, bool healthy);
/** Is there a healthy instance that has `model`? */
bool xn_sched_can_run(const struct xn_sched *sched, const struct xn_model *model);

/** Close batches at once from now on. */
void xn_sched_drain(struct xn_sched *sched);
/** Nothing waits and nothing runs. */
bool xn_sched_is_empty(const struct xn_sched *sched);
/** Items waiting for models of slot `slot`. */
uint32_t xn_sched_depth(const struct xn_sched *sched, uint32_t slot);
/** Predicted time of `n` images of the newest model of slot `slot` that ran on `instance`, ns; 0: nothing measured yet. */
uint64_t xn_sched_cost_ns(const struct xn_sched *sched, uint32_t slot, uint32_t instance, uint32_t n);

#endif
