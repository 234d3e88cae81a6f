/* SPDX-License-Identifier: Apache-2.0
 * XRT in the process, for tests of the backend: accel/xrt/api.h over the scalar engine, with what goes wrong on demand. Runs are done when they are
 * started, and said to be at the second look, so that a test decides what it sees. Card memory is apart from the host's: what is not synced is not there. */
#ifndef XN_TESTS_SUPPORT_FAKE_XRT_H
#define XN_TESTS_SUPPORT_FAKE_XRT_H

#include <stdbool.h>

#include "accel/xrt/api.h"
#include "hls/include/xnor_isa.h"

struct fake_xrt {
    uint32_t cards, units, banks;    /**< 0: 1; unit n reaches bank n mod banks */
    struct xn_isa_geometry geometry; /**< p = 0: a small one */
    uint64_t memory_bytes;           /**< of a card; 0: no end */
    uint32_t version;                /**< that the engine writes; 0: this one's */
    bool is_embedded;                /**< no PCI address: memory is the host's */
    const char *loaded;              /**< UUID that cards have loaded; NULL: the file's, "fake" */
    /* Faults; counted down, the one that comes to 0 strikes. */
    uint32_t hang_at, fail_at, silent_at,
        wrong_at;                    /**< runs: never done; ended by the driver; no status; an error in it */
    uint32_t open_fails, busy_units; /**< so many device opens fail; unit opens are refused */
    bool reset_fails;
    /* What was seen. */
    uint32_t opened, resets, runs, buffers; /**< devices ever; resets; runs started; buffers that are there now */
    uint64_t memory_used, memory_peak;
    uint32_t cached;       /**< buffers ever that asked for a cache */
    uint64_t weight_bytes; /**< ever brought to cards as programs and streams */
};

/** The table, of the state that the caller has: one at a time. Owner: `state` outlives its use. */
const struct xn_xrt_api *fake_xrt_api(struct fake_xrt *state);

#endif
