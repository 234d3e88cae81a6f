/* SPDX-License-Identifier: Apache-2.0
 * Structured log of the daemon and its tools. Libraries (model, accel) do not log: they return errors, and the
 * daemon logs each failure once. Goes to journald when stderr is connected to the journal, else to stderr as
 * "LEVEL message KEY=value". Client errors are counted by metrics and logged at debug at most. Never log image
 * data. */
#ifndef XN_COMMON_LOG_H
#define XN_COMMON_LOG_H

#include "common/macros.h"

enum xn_log_level { XN_LOG_ERROR, XN_LOG_WARNING, XN_LOG_INFO, XN_LOG_DEBUG };

enum xn_log_target {
    XN_LOG_AUTO, /**< journald when $JOURNAL_STREAM names our stderr, else stderr */
    XN_LOG_STDERR,
    XN_LOG_JOURNAL,
};

/** Set level and target. Threads: call before others log, or again at any time to change the level. */
void xn_log_init(enum xn_log_level level, enum xn_log_target target);
void xn_log_set_level(enum xn_log_level level);
enum xn_log_level xn_log_level(void);

/** Parse "error", "warning", "info" or "debug". Returns 0 or -EINVAL. */
XN_MUST_CHECK int xn_log_level_parse(const char *text, enum xn_log_level *ret_level);
const char *xn_log_level_name(enum xn_log_level level);

/** One key of a structured line, e.g. {"MODEL", "fashion-mnist"}. Keys are journald field names: [A-Z0-9_], not
 *  starting with '_'. Values may hold anything; control characters are escaped on stderr. */
struct xn_log_field {
    const char *key;
    const char *value;
};

/** Log one line. `fields` has `n_fields` entries (0..8); may be NULL with 0. Threads: any. Never fails, never
 *  blocks on a lock of ours; at most one write. */
void xn_log_fields(enum xn_log_level level, const struct xn_log_field *fields, size_t n_fields, const char *format, ...)
    XN_PRINTF(4, 5);

#define xn_log_error(...)   xn_log_fields(XN_LOG_ERROR, NULL, 0, __VA_ARGS__)
#define xn_log_warning(...) xn_log_fields(XN_LOG_WARNING, NULL, 0, __VA_ARGS__)
#define xn_log_info(...)    xn_log_fields(XN_LOG_INFO, NULL, 0, __VA_ARGS__)
#define xn_log_debug(...)   xn_log_fields(XN_LOG_DEBUG, NULL, 0, __VA_ARGS__)

#endif
