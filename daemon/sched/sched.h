/* SPDX-License-Identifier: Apache-2.0
 * Batcher and scheduler as one pure state machine: no threads, no clock, no I/O; time comes in as an argument, and every event is a call.
 * dispatch.h wraps it in threads; tests and the simulator (tests/sim) drive it directly.
 *
 * Order. Each waiting item is *due* at some time, and what is due first goes first, over all models: earliest deadline first. An item is due at its deadline, or
 * sooner: when it came, plus a patience that its priority gives, plus the time in which its flow's share of the machine gets through what the flow has waiting already.
 * (A flow is what one client asks of one model.) So items of far deadlines are served in the order of their arrival, one who floods the queue stands behind one who
 * does not, and nobody waits for ever: what is due does not move, and everything that comes later is due later than some time from now.
 *
 * A batch that is not full lets a full one of another model go first while it can still be done when it is due; and an instance that runs gets its next batch shortly before it is free where something may
 * come that is due sooner.
 *
 * Batches. What is due first in a model's queue makes a batch. It closes, and says why, when
 *
 *   full      it holds max_batch items, or a multiple of preferred_batch;
 *   drain     the daemon is stopping;
 *   delay     its oldest item has waited max_delay_us;
 *   deadline  waiting longer would make an item of it miss its deadline;
 *   idle      waiting gains nothing: the asking instance is free, and either nothing more is on its way to this model (announced: being
 *             received or decoded) or the cost model says that one image more would be no cheaper in this batch than alone.
 *
 * It holds as many items as an instance can do before the earliest deadline among them (less the time that its answer takes: xn_request_aim_ns). It goes to the instance with the least expected completion,
 * max(now, when it is free) + cost(model, n), over all healthy instances that have the model; of equals to the first. While busy instances are expected to finish all that
 * waits sooner than the idle one that asks, it stays queued (and may grow).
 *
 * Costs are known for each (model, instance): cost(n) = fixed + n * per_image, given by xn_sched_predict before the first batch and corrected with every
 * batch. A model reloaded under its name is measured anew.
 *
 * Admission. Where costs are known, work is refused that could not be done before its deadline, or that would make work admitted before miss one: earliest deadline first over what
 * the healthy instances can do together, with the batches that they run. Of the room there is a flow gets as much as it leaves to others,
 * times a factor that the priority gives, and that is larger while no other waits. An item that nobody can do in time any more (an instance failed, costs grew) is given up before its deadline, and costs no run.
 *
 * Saving (eco). With watts_cap no batch starts while those that run would draw more together; with watts_budget joules are spent no faster than that on average.
 * Under either, the instance with the fewest joules an image is chosen of those that keep the deadlines, and a batch waits for others, up to
 * eco_delay_us, where the images share joules.
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
    uint64_t cost_ns;     /**< predicted execution time; 0: nothing is known */
    uint64_t expected_ns; /**< execution time as measured so far; 0: nothing measured yet */
    struct xn_item *items[XN_ACCEL_BATCH_MAX];
};

/** What an instance is to the scheduler. */
struct xn_sched_instance {
    uint32_t inflight; /**< batches it takes at once, 1..XN_ACCEL_INFLIGHT_MAX */
    double
        watts; /**< that it draws more while it runs than while it is idle; < 0: not known (it is learned from xn_sched_energy) */
};

struct xn_sched_config {
    uint32_t n_instances;                      /**< 1..XN_INSTANCES_MAX */
    const struct xn_sched_instance *instances; /**< [n_instances], the caller's, read by xn_sched_new only */
    uint32_t queue_total;                      /**< items waiting over all models, >= 1 */
    double watts_cap;      /**< of all running instances together; 0: none. One batch runs in any case */
    double watts_budget;   /**< joules a second on average; 0: none */
    uint32_t eco_delay_us; /**< how long a batch may wait for others to save joules */
};

/** Errors: -EINVAL (configuration out of range), -ENOMEM. */
XN_MUST_CHECK int xn_sched_new(const struct xn_sched_config *config, struct xn_sched **ret_sched);
void xn_sched_free(struct xn_sched *sched);

/** Work that somebody wants done. */
struct xn_sched_ask {
    const struct xn_model *model;
    uint32_t n;           /**< items, >= 1 */
    uint64_t deadline_ns; /**< when all of them have to be done, as xn_request_aim_ns; XN_NEVER_NS: none */
    uint32_t client;      /**< as xn_request.client */
    uint8_t priority;     /**< as xn_request.priority */
};

/** May `ask` come? 0: yes, and its items are announced: on their way, not yet pushed. Errors, where nothing is announced and *ret_retry_ns is after what time the same might be
 *  taken (> 0; an estimate): -ENOBUFS (the model's queue or the total is full), -EBUSY (it could not be done before its deadline, or only at the cost of
 *  others), -EDQUOT (its flow has its share of what waits). */
XN_MUST_CHECK int xn_sched_admit(struct xn_sched *sched, const struct xn_sched_ask *ask, uint64_t now_ns,
                                 uint64_t *ret_retry_ns);

/** `n` announced items will not come. */
void xn_sched_retract(struct xn_sched *sched, const struct xn_model *model, uint32_t n);

/** Queue `item`; the request's reference that the caller holds for it goes with it, and one announcement, where there is one, is taken back. Errors: -ENOBUFS
 *  (the model's queue or the total is full; nothing is taken, the announcement stands). */
XN_MUST_CHECK int xn_sched_push(struct xn_sched *sched, struct xn_item *item, uint64_t now_ns);

/** Queue an item again, due when it was, after its batch failed. Always room: it was admitted. */
void xn_sched_requeue(struct xn_sched *sched, struct xn_item *item);

/** The batch that `instance` should start now, or NULL. Call xn_sched_expire with the same time first: then no batch holds an item whose deadline
 *  has passed. Other instances may be ready after it (see xn_sched_ready). The batch belongs to `instance` until xn_sched_done, and stays readable until that
 *  instance's next xn_sched_next. */
struct xn_batch *xn_sched_next(struct xn_sched *sched, uint32_t instance, uint64_t now_ns);

/** `batch` ended after `exec_ns` on its instance. status 0: costs are updated. Its items are now the caller's to settle and release (and not
 *  earlier: until here xn_sched_expire may name them). */
void xn_sched_done(struct xn_sched *sched, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns);

/** A batch of `n` images of `model` would take `exec_ns` on `instance`, by that instance's own word: known before the first batch, and as good as one measured, unless the first one
 *  takes many times as long. */
void xn_sched_predict(struct xn_sched *sched, const struct xn_model *model, uint32_t instance, uint32_t n,
                      uint64_t exec_ns);

/** `instance` spent `joules` over idle in `exec_ns` of a batch. Teaches watts that the configuration does not say. */
void xn_sched_energy(struct xn_sched *sched, uint32_t instance, double joules, uint64_t exec_ns);

/** Until when the worker of `instance`, which runs, may wait for it before it looks for the next batch (xn_sched_next): shortly before the instance is expected to be free. */
uint64_t xn_sched_look_ns(const struct xn_sched *sched, uint32_t instance);

/** An item that will not be done in time. */
struct xn_expired {
    struct xn_item *item;
    bool
        running; /**< true: it stays in its batch, whose worker releases it; false: it left the queue, and its reference is the caller's */
};

/** Take note of up to `max` items whose deadline is now or earlier, or which wait and which no instance can do before it. Each is named once. Returns how many. */
uint32_t xn_sched_expire(struct xn_sched *sched, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max);

/** Take any one item out of the queues, or NULL: they are empty. Its reference is the caller's. For shutdown. */
struct xn_item *xn_sched_evict(struct xn_sched *sched);

/** When something will be due (a deadline, a delay, another look at a busy instance) if no event comes before: XN_NEVER_NS for nothing. */
uint64_t xn_sched_wake_ns(struct xn_sched *sched, uint64_t now_ns);

/** Up to `max` instances for which xn_sched_next would now give a batch; each once. At least one where there is any; others may be ready when these have theirs. Returns how many. */
uint32_t xn_sched_ready(struct xn_sched *sched, uint64_t now_ns, uint32_t *ret_instances, uint32_t max);

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
