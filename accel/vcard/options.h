/* SPDX-License-Identifier: Apache-2.0
 * What the command line of xnor-vcard says. */
#ifndef XN_ACCEL_VCARD_OPTIONS_H
#define XN_ACCEL_VCARD_OPTIONS_H

#include "accel/vcard/protocol.h"
#include "common/error.h"
#include "hls/include/xnor_isa.h"

/** Injected faults, each of a run but REFUSE, which is of a load. */
enum xn_vcard_fault {
    XN_VCARD_HANG,    /**< never done */
    XN_VCARD_CRASH,   /**< the process of the card is killed */
    XN_VCARD_SLOW,    /**< slow_ms longer */
    XN_VCARD_CORRUPT, /**< a word of the output is wrong, the status says so */
    XN_VCARD_LOST,    /**< done, and no interrupt */
    XN_VCARD_REFUSE,  /**< the xclbin does not load */
    XN_VCARD_FAULTS,
};
extern const char *const xn_vcard_fault_names[XN_VCARD_FAULTS];

/** Of a card, and with all its units busy. */
struct xn_vcard_watts {
    double idle, busy;
};

struct xn_vcard_options {
    uint32_t cards, units, banks;
    struct xn_isa_geometry geometry;
    uint64_t memory_bytes;
    uint32_t clock_mhz;
    bool is_timed;         /**< a run lasts at least its cycles of the clock */
    bool skips_compute;    /**< outputs are not written */
    bool hangs_on_bus;     /**< an address outside of memory hangs the unit; else its status says so */
    uint64_t link_bytes_s; /**< 0: no limit */
    const char *engine;    /**< "auto", "hls", "scalar" or a path */
    struct xn_vcard_watts watts[XN_VCARD_CARDS_MAX];
    uint32_t fault_every[XN_VCARD_FAULTS]; /**< 0: never */
    uint64_t seed;                         /**< of the faults; 0: exactly every so many */
    uint32_t slow_ms;
    uint32_t revive_ms;
    const char *stats; /**< file, or NULL */
};

/** The options in front of the other arguments. Returns 0, the index of the first other argument in *ret_rest; -EINVAL: *error says what is
 *  wrong; 1: help was asked for. */
XN_MUST_CHECK int xn_vcard_options_parse(int argc, char **argv, struct xn_vcard_options *ret_options, int *ret_rest,
                                         struct xn_error *error);

/** What --help says of the options. */
const char *xn_vcard_options_help(void);

#endif
