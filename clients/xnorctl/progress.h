/* SPDX-License-Identifier: Apache-2.0
 * A line of progress on standard error, only where that is a terminal and stays so. */
#ifndef XN_CLIENTS_XNORCTL_PROGRESS_H
#define XN_CLIENTS_XNORCTL_PROGRESS_H

#include "common/macros.h"

struct xn_progress {
    const char *what; /**< of what: "images" */
    uint64_t total;
    uint64_t start_ns, shown_ns;
    bool rate; /**< show `done` a second */
    bool on;
};

/** Begin. Nothing is shown in the first half second: what is quick needs no bar. */
void xn_progress_init(struct xn_progress *progress, const char *what, uint64_t total);
/** `done` of total; `note` (may be "") follows. Cheap: it draws at most ten times a second. */
void xn_progress_at(struct xn_progress *progress, uint64_t done, const char *note);
/** Wipe the line. */
void xn_progress_done(struct xn_progress *progress);

#endif
