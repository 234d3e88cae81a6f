/* SPDX-License-Identifier: Apache-2.0
 * JSON text written straight into a buffer of fixed size: what answers are made of. */
#ifndef XN_DAEMON_HTTP_TEXT_H
#define XN_DAEMON_HTTP_TEXT_H

#include "common/macros.h"

/** Text under construction. Once something did not fit, `overflow` is set and nothing more is written. */
struct xn_text {
    char *data;
    size_t bytes, capacity;
    bool overflow;
};

void xn_text_init(struct xn_text *text, void *data, size_t capacity);
void xn_text_raw(struct xn_text *text, const char *bytes, size_t n);
/** A literal or other NUL-terminated text that needs no escaping. */
void xn_text_put(struct xn_text *text, const char *s);
/** The inside of a JSON string, escaped. */
void xn_text_escaped(struct xn_text *text, const char *s);
/** A JSON string with its quotes, escaped. */
void xn_text_string(struct xn_text *text, const char *s);
void xn_text_u64(struct xn_text *text, uint64_t value);
void xn_text_i64(struct xn_text *text, int64_t value);
/** A JSON number with up to `digits` (1..17) significant digits; not finite: null. */
void xn_text_double(struct xn_text *text, double value, int digits);

#endif
