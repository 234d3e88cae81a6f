/* SPDX-License-Identifier: Apache-2.0
 * The text that goes with a negative errno: what failed, on what, why, and what happens next. */
#ifndef XN_COMMON_ERROR_H
#define XN_COMMON_ERROR_H

#include "common/macros.h"

#define XN_ERROR_TEXT_BYTES 512u

/** A human-readable failure. Owner: the caller, usually on its stack. Functions that take a `struct xn_error *`
 *  accept NULL (text not wanted), and write it only when they fail. */
struct xn_error {
    char text[XN_ERROR_TEXT_BYTES]; /**< NUL-terminated UTF-8, one line, no trailing full stop; cut when too long. */
};

/** Format `e->text` and return `code` (a negative errno), so that a failure is one statement:
 *  `return xn_error_set(e, -EINVAL, "layer %u: ...", i);`. Bytes from outside are to be passed through %s only after
 *  xn_error_set's own escaping: control characters in the result are replaced by '?'. `e` may be NULL. */
int xn_error_set(struct xn_error *e, int code, const char *format, ...) XN_PRINTF(3, 4);

/** Put "prefix: " before the text of `e` and return `code`; for adding the file or the key as an error travels up. */
int xn_error_prefix(struct xn_error *e, int code, const char *format, ...) XN_PRINTF(3, 4);

/** True where `text` may be shown and logged as it is: one line of valid UTF-8 without control characters. */
bool xn_text_is_safe(const char *text);

#endif
