/* SPDX-License-Identifier: Apache-2.0
 * Who gets the joules. A meter tells the joules of some instances together, by sensors or by an estimate; a share is an instance on a meter. Pure: time
 * and joules are arguments, and the caller has a lock. Private to observe/; what the words mean: docs/metrics.md, "Attribution". */
#ifndef XN_DAEMON_OBSERVE_METER_H
#define XN_DAEMON_OBSERVE_METER_H

#include "daemon/models.h"
#include "daemon/observe/metrics.h"

struct xn_meter {
    enum xn_energy_source source;
    double idle_watts; /**< while none of its instances works; NaN: not known */
    bool is_declared;  /**< idle_watts is: not to be learned */
    uint64_t lag_ns;   /**< what the sensor tells may be so old; 0: it tells just what was */
    double watts;      /**< at the last sample; NaN: not known */
    double idle_j;     /**< given to no inference */
    /* private */
    uint32_t depth;                       /* of its instances that work */
    uint64_t since_ns;                    /* they do */
    uint64_t busy_ns;                     /* that any did, since the last sample */
    uint64_t worked_ns;                   /* when the last one ended; 0: none yet */
    double batch_s;                       /* time of all instances since the last sample, added up */
    double learned_s;                     /* of idle time that idle_watts is the mean of */
    double debt_j, debt_s;                /* below idle while working, in all, and for how long */
    double seen_s;                        /* of samples with work, in all */
    double rate_s, rate_j, rate_active_j; /* what instances took lately while they worked, and how long they did */
};

struct xn_share {
    struct xn_meter *meter; /**< NULL: nothing measures the instance. Set by xn_share_set_meter */
    /* private */
    uint32_t instance, depth;
    uint64_t timed_ns;                             /* its time until here is in the figures below */
    double running_s, running_j, running_active_j; /* of the batch under way: time and joules, up to the last sample */
    double ended_s;                                /* sum of model_s */
    double model_s
        [XN_CONFIG_MODELS_MAX]; /* by slot: time of batches that ended since the last sample; older ones fade with the lag */
};

/** A meter without figures. `idle_watts` NaN: to be learned. */
void xn_meter_init(struct xn_meter *meter, enum xn_energy_source source, double idle_watts);
/** The meter of one instance or more that are declared to draw `active_watts` over idle each: that is known before they work. */
void xn_meter_expect(struct xn_meter *meter, double active_watts);

/** From now on the instance is on `meter` (NULL: none). */
void xn_share_set_meter(struct xn_share *share, struct xn_meter *meter, uint64_t now_ns);
/** The instance starts to work, or has nothing more to do. */
void xn_share_busy(struct xn_share *share, bool busy, uint64_t now_ns);
/** The oldest batch under way of the instance ends, a batch of the model in `slot`. *ret_energy is what it took: measured up to the last sample, and from there to its end what a
 *  second of work took lately. Its measured part is counted in `metrics`, the rest will be with the next sample. Call before xn_share_busy(false). Returns false: not measured. */
bool xn_share_batch(struct xn_share *share, uint32_t slot, uint64_t end_ns, struct xn_energy *ret_energy,
                    struct xn_metrics *metrics);

/** Count the time of the instance's batch under way. For all instances before meters are read. */
void xn_share_count(struct xn_share *share, uint64_t now_ns);
/** The meter's instances took `joules` in the `seconds` until now_ns; <= 0 seconds: nobody knows what they took. Joules go to batches, to those under way and in `metrics` to those that
 *  ended, and to idle_j: all of them, and each once. */
void xn_meter_sample(struct xn_meter *meter, struct xn_share *shares, uint32_t n_shares, double joules, double seconds,
                     uint64_t now_ns, struct xn_metrics *metrics);

#endif
