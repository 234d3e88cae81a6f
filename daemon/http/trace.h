/* SPDX-License-Identifier: Apache-2.0
 * W3C trace context (https://www.w3.org/TR/trace-context/): who a request belongs to, for answers and log lines. Pure. */
#ifndef XN_DAEMON_HTTP_TRACE_H
#define XN_DAEMON_HTTP_TRACE_H

#include "common/macros.h"

#define XN_TRACEPARENT_BYTES    56u /**< version 00, with NUL */
#define XN_TRACE_ID_AT          3u  /**< in it, 32 digits */
#define XN_TRACE_ID_DIGITS      32u
#define XN_TRACESTATE_BYTES_MAX 512u /**< what must be passed on; longer is dropped */

/** From a traceparent to the one that this server answers with: same trace, same flags, `span` as its own. ret[0] = '\0' where `traceparent` is NULL or not
 *  valid. Returns whether it is. */
bool xn_trace_continue(const char *traceparent, uint64_t span, char ret[XN_TRACEPARENT_BYTES]);

/** A number that looks random and does not repeat, not 0, for the n-th request of a process that chose `seed`. */
uint64_t xn_trace_span(uint64_t seed, uint64_t n);

#endif
