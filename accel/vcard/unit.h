/* SPDX-License-Identifier: Apache-2.0
 * A compute unit: the registers of a HLS kernel (ap_ctrl_hs) before an engine, and a thread that is the engine.
 *
 *     idle --start--> running --the thread has run it--> idle, done, interrupt
 *                       `- reset: idle; what the thread still does counts for nothing
 *
 * The registers are guarded by the card's lock. A simulator cannot be interrupted: a reset while it computes leaves the thread to itself,
 * which ends when it has come back, and gives the unit another thread with another simulator. */
#ifndef XN_ACCEL_VCARD_UNIT_H
#define XN_ACCEL_VCARD_UNIT_H

#include <pthread.h>

#include "accel/vcard/fault.h"
#include "accel/vcard/job.h"
#include "accel/vcard/stats.h"

/** What units of a card have in common. */
struct xn_vcard_hardware {
    const struct xn_vcard_options *options;
    struct xn_vcard_memory memory;
    struct xn_vcard_fault_state faults;
    pthread_mutex_t lock;
    bool quits;
    uint32_t orphans; /**< threads that resets have left to themselves */
    /** The line of a unit rose; the lock is held, and it does not block. */
    void (*on_interrupt_locked)(void *context, uint32_t unit);
    void *context;
};

#define XN_VCARD_REGISTERS 32u /**< words */

struct xn_vcard_unit;

/** The thread of a unit and its simulator. */
struct xn_vcard_hand {
    struct xn_vcard_unit *unit;
    struct xn_vcard_worker worker;
    pthread_t thread;
    bool computes, is_orphan;
};

struct xn_vcard_unit {
    struct xn_vcard_hardware *hardware;
    struct xn_vcard_unit_stats *stats;
    struct xn_vcard_hand *hand;
    uint32_t index;
    pthread_cond_t changed;

    uint32_t registers[XN_VCARD_REGISTERS]; /**< arguments, by offset / 4 */
    bool is_running, is_done, is_ready;
    uint32_t gie, ier, isr;
    bool line;
    bool is_started; /**< the thread has not taken it yet */
    uint64_t epoch;  /**< counts resets: of a run that is of an epoch before, nothing counts */
    uint64_t start_ns;
    uint64_t end_ns; /**< of the run before; 0: there was none */
};

/** Errors: -ENOENT (engine), -ENOMEM, -EAGAIN. Starts the thread. */
XN_MUST_CHECK int xn_vcard_unit_init(struct xn_vcard_unit *unit, struct xn_vcard_hardware *hardware, uint32_t index,
                                     struct xn_vcard_unit_stats *stats, struct xn_error *error);
/** hardware->quits is set. Waits for the thread, not for orphans: while hardware->orphans is not 0 the process must end without giving back
 *  what they use. */
void xn_vcard_unit_done(struct xn_vcard_unit *unit);

void xn_vcard_unit_write_locked(struct xn_vcard_unit *unit, uint32_t offset, uint32_t value);
uint32_t xn_vcard_unit_read_locked(struct xn_vcard_unit *unit, uint32_t offset);
void xn_vcard_unit_reset_locked(struct xn_vcard_unit *unit);

#endif
