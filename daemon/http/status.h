/* SPDX-License-Identifier: Apache-2.0
 * The one place where errors become HTTP statuses and reasons of the rejection metric. */
#ifndef XN_DAEMON_HTTP_STATUS_H
#define XN_DAEMON_HTTP_STATUS_H

#include "daemon/config.h"
#include "daemon/observe/metrics.h"

struct xn_status {
    unsigned code;          /**< HTTP status */
    enum xn_reject reject;  /**< how it is counted */
    unsigned retry_after_s; /**< Retry-After; 0: none */
};

/** For a negative errno as the stages give it. */
struct xn_status xn_status_of(int error);
/** The same as `config` wants it (http.queue_full_status). */
struct xn_status xn_status_configured(const struct xn_config *config, int error);

#endif
