/* SPDX-License-Identifier: Apache-2.0
 * Counters of all cards, in memory that the process that looks after them shares with theirs, so that they outlive a card's crash.
 * Cards write, relaxed: each counter is a figure of its own. */
#ifndef XN_ACCEL_VCARD_STATS_H
#define XN_ACCEL_VCARD_STATS_H

#include <stdatomic.h>

#include "accel/vcard/options.h"

typedef _Atomic uint64_t xn_vcard_counter;

struct xn_vcard_unit_stats {
    xn_vcard_counter runs;     /**< that ended by themselves */
    xn_vcard_counter images;   /**< of these */
    xn_vcard_counter errors;   /**< of these, with an error in their status */
    xn_vcard_counter stopped;  /**< runs that a reset, or the end of their connection, ended */
    xn_vcard_counter busy_ns;  /**< from start to done */
    xn_vcard_counter idle_ns;  /**< from the end of a run to the start of the next one; counted at that start */
    xn_vcard_counter model_ns; /**< cycles / clock of these */
    xn_vcard_counter cycles;
    xn_vcard_counter started_ns; /**< of the run that is on its way; 0: none */
    xn_vcard_counter faults[XN_VCARD_FAULTS];
};

struct xn_vcard_card_stats {
    xn_vcard_counter process; /**< its id; 0: dead */
    xn_vcard_counter deaths;
    xn_vcard_counter opens, loads, refused_loads, resets;
    xn_vcard_counter energy_uj; /**< by the power model, while it was up */
    xn_vcard_counter up_ns;     /**< since when it is up */
    struct xn_vcard_unit_stats units[XN_VCARD_UNITS_MAX];
};

struct xn_vcard_stats {
    uint64_t start_ns;
    struct xn_vcard_card_stats cards[XN_VCARD_CARDS_MAX];
};

static inline void xn_vcard_count(xn_vcard_counter *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t xn_vcard_counted(const xn_vcard_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void xn_vcard_set(xn_vcard_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

/** Replace `path` by the counters as JSON. Errors: -errno. */
XN_MUST_CHECK int xn_vcard_stats_write(const struct xn_vcard_stats *stats, const struct xn_vcard_options *options,
                                       const char *path);

/** Busy time of a card's units, runs on their way included, in ns: for its power. */
uint64_t xn_vcard_stats_busy_ns(const struct xn_vcard_card_stats *card, uint32_t units, uint64_t now_ns);

#endif
