/* SPDX-License-Identifier: Apache-2.0
 * Batcher and scheduler as one pure state machine: no threads, no clock, no I/O; time comes in as an argument, and every event is a call. dispatch.h
 * wraps it in threads; tests and (later) the simulator drive it directly.
 *
 * Per model a queue of items in order of arrival, bounded by the model's queue_limit. A batch closes, and says why, when
 *   full      it holds max_batch items;
 *   delay     its first item has waited max_delay_us;
 *   idle      waiting gains nothing: an instance is free and nothing more is on its way to this model (xn_sched_announce counts what is being received or decoded),
 *             or the cost model says that a batch of n+1 is no cheaper per image than two batches;
 *   deadline  waiting longer would make its earliest item miss its deadline;
 *   drain     the daemon is stopping.
 * It goes to the instance with the least expected completion: max(now, when it is free) + cost(model, n) over all healthy instances that have the model, and
 * if that instance is busy it waits in the queue (and may still grow) until the instance can take it. Costs are measured at run time: a running mean for each (model, instance) of
 * a fixed and a per-image part.
 *
 * Threads: the caller serialises all calls (dispatch.c holds its lock). No allocation after xn_sched_new. */
#ifndef XN_DAEMON_SCHED_SCHED_H
#define XN_DAEMON_SCHED_SCHED_H

#include "daemon/request.h"

struct xn_sched;

enum xn_close_reason { XN_CLOSE_FULL, XN_CLOSE_DELAY, XN_CLOSE_IDLE, XN_CLOSE_DEADLINE, XN_CLOSE_DRAIN, XN_CLOSE_COUNT };
const char *xn_close_reason_name(enum xn_close_reason reason); /**< "full", "delay", ... */

struct xn_batch {
    struct xn_model *model;            /**< a reference, released by xn_sched_done */
    uint32_t instance;
    uint32_t n;                        /**< items, 1..max_batch */
    enum xn_close_reason reason;
    uint64_t formed_ns, started_ns, expected_ns; /**< expected_ns: predicted execution time */
    struct xn_item *items[XN_ACCEL_BATCH_MAX];
};

struct xn_sched_config {
    uint32_t n_instances;
    uint32_t queue_total;              /**< items waiting over all models */
    uint32_t inflight[XN_INSTANCES_MAX]; /**< batches an instance takes at once, from xn_accel_info.inflight_max */
};

XN_MUST_CHECK int xn_sched_new(const struct xn_sched_config *config, struct xn_sched **ret_sched);
void xn_sched_free(struct xn_sched *sched);

/** `count` more (or, negative, fewer) items are on their way to `model`: admitted, not yet pushed. */
void xn_sched_announce(struct xn_sched *sched, const struct xn_model *model, int count);

/** Queue `item` (its request's reference comes with it; one announced item is taken back). Errors: -ENOBUFS (model's queue or total full; nothing taken). */
XN_MUST_CHECK int xn_sched_push(struct xn_sched *sched, struct xn_item *item, uint64_t now_ns);

/** Would a push of `n` items for `model` be accepted now? For refusal before the body is read. */
bool xn_sched_has_room(const struct xn_sched *sched, const struct xn_model *model, uint32_t n);

/** The next batch that `instance` should start now, or NULL. Fills a batch from the instance's own set. */
struct xn_batch *xn_sched_next(struct xn_sched *sched, uint32_t instance, uint64_t now_ns);

/** `batch` ended after `exec_ns` on its instance, with `status`; its items have been settled and released by the caller. Updates costs. */
void xn_sched_done(struct xn_sched *sched, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns);

/** Take out items whose deadline has passed: up to `max` into ret_items, to be settled and released by the caller. Returns how many. Items in running batches are
 *  included in the answer once (they stay in their batch; the caller only settles them): *ret_running tells which, by bit i of ret_running[i/64]. */
uint32_t xn_sched_expire(struct xn_sched *sched, uint64_t now_ns, struct xn_item **ret_items, uint64_t *ret_running, uint32_t max);

/** When something will be due next (a delay, a deadline) if no event comes before: XN_NEVER_NS for nothing. */
uint64_t xn_sched_wake_ns(const struct xn_sched *sched, uint64_t now_ns);

/** Bit i: instance i has a batch waiting for xn_sched_next now. */
uint64_t xn_sched_ready_instances(const struct xn_sched *sched, uint64_t now_ns);

/** Instance goes out of or comes back into service (quarantine, reset). */
void xn_sched_set_healthy(struct xn_sched *sched, uint32_t instance, bool healthy);
/** Close batches at once from now on. */
void xn_sched_drain(struct xn_sched *sched);
/** Items waiting for the model of slot `slot`. */
uint32_t xn_sched_depth(const struct xn_sched *sched, uint32_t slot);

#endif
