/* SPDX-License-Identifier: Apache-2.0
 * The scheduler at work: one worker thread for each instance (xn-accel-N) that submits batches through accel.h and settles their items, and one
 * timer thread (xn-timer) that expires deadlines and closes batches whose delay is over. One lock, `sched_lock`, guards the xn_sched; it is never
 * held across a callback, a device call or a log line. */
#ifndef XN_DAEMON_SCHED_DISPATCH_H
#define XN_DAEMON_SCHED_DISPATCH_H

#include "daemon/request.h"
#include "daemon/sched/sched.h"

struct xn_dispatch;

/** What others want to know of the path; all optional, called without locks, must not block. */
struct xn_dispatch_hooks {
    void *user;
    /** `instance` starts to work (busy), or has nothing more to do: for power attribution. */
    void (*busy)(void *user, uint32_t instance, bool busy, uint64_t now_ns);
    /** A batch has run: for metrics. Before its items settle. */
    void (*batch_done)(void *user, const struct xn_batch *batch, uint64_t exec_ns, int status);
    /** What `batch` took, which just ended, well or not. Before `busy` says that its instance has nothing more to do. Returns false: not measured. */
    bool (*energy)(void *user, const struct xn_batch *batch, uint64_t end_ns, struct xn_energy *ret_energy);
    /** Instance health changed (quarantined: false); also false where a reset failed for another reason than the one before. */
    void (*health)(void *user, uint32_t instance, bool healthy, const char *why);
};

struct xn_instance_status {
    bool healthy;
    uint64_t busy_ns;                             /**< total time with a batch running */
    uint64_t batches, images, failures;           /**< run; batches that failed */
    uint64_t retries;                             /**< images of failed batches that were queued again */
    uint64_t quarantines, resets, reset_failures; /**< out of service; back in it; tried, and still out */
};

/** Start a worker for each instance, and the timer. `queue_total`: items waiting over all models. `config` (read here only) says what may be spent; NULL: all. Errors:
 *  -ENOMEM, -EAGAIN (threads). */
XN_MUST_CHECK int xn_dispatch_new(struct xn_instances *instances, uint32_t queue_total, const struct xn_config *config,
                                  const struct xn_dispatch_hooks *hooks, struct xn_dispatch **ret_dispatch,
                                  struct xn_error *error);

/** As the xn_sched calls of the same names, locked. Threads: any. */
XN_MUST_CHECK int xn_dispatch_admit(struct xn_dispatch *dispatch, const struct xn_sched_ask *ask,
                                    uint64_t *ret_retry_ns);
void xn_dispatch_retract(struct xn_dispatch *dispatch, const struct xn_model *model, uint32_t n);
/** Queue items[n] at once, so that whoever sleeps is woken once for all. *ret_taken: those before the first that was refused; n where this returns 0. Errors: of xn_sched_push, -ECANCELED (stopped).
 *  Threads: any. */
XN_MUST_CHECK int xn_dispatch_push(struct xn_dispatch *dispatch, struct xn_item *const *items, uint32_t n,
                                   uint32_t *ret_taken);
uint32_t xn_dispatch_depth(struct xn_dispatch *dispatch, uint32_t slot);

/** Tell the scheduler what the instances predict of `model`, which is loaded and warm. Threads: any. */
void xn_dispatch_learn(struct xn_dispatch *dispatch, const struct xn_model *model);

void xn_dispatch_status(struct xn_dispatch *dispatch, uint32_t instance, struct xn_instance_status *ret_status);

/** True while at least one instance is healthy. */
bool xn_dispatch_serving(struct xn_dispatch *dispatch);

/** Oldest sign of life of the timer thread and of all workers that are neither waiting for work nor inside a device call; for the watchdog. */
uint64_t xn_dispatch_heartbeat_ns(struct xn_dispatch *dispatch);

/** Close batches at once from now on; returns when nothing waits or runs (0), or at deadline_ns (-ETIMEDOUT). */
int xn_dispatch_drain(struct xn_dispatch *dispatch, uint64_t deadline_ns);

/** Stop threads; whatever still waits is settled with -ECANCELED, and a push from now on is refused with it. Blocks until the jobs in flight have ended or
 *  timed out. All other calls stay legal until xn_dispatch_free, for those who cannot be stopped before. Once; NULL is legal. */
void xn_dispatch_stop(struct xn_dispatch *dispatch);

/** Stop if that was not done, and free. NULL is legal. Until then the jobs and requests that a hung instance may still touch are kept: close the instances
 *  between xn_dispatch_stop and this. */
void xn_dispatch_free(struct xn_dispatch *dispatch);

#endif
