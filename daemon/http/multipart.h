/* SPDX-License-Identifier: Apache-2.0
 * multipart/form-data (RFC 7578) over a body that is in memory as a whole: parts are found in place, nothing is copied. */
#ifndef XN_DAEMON_HTTP_MULTIPART_H
#define XN_DAEMON_HTTP_MULTIPART_H

#include "common/error.h"

#define XN_MULTIPART_BOUNDARY_MAX 70u /**< RFC 2046, section 5.1.1 */

struct xn_multipart {
    const char *body, *end, *at;                   /**< whole body; where the next boundary is expected */
    char delimiter[XN_MULTIPART_BOUNDARY_MAX + 4]; /**< CR LF "--" boundary */
    size_t delimiter_bytes;
};

/** A part's content, in the body. */
struct xn_part {
    const void *data;
    size_t bytes;
};

/** Start on `body` as `content_type` describes it. Errors: -EINVAL (no or malformed boundary, body does not begin with it). */
XN_MUST_CHECK int xn_multipart_init(struct xn_multipart *m, const char *content_type, const void *body, size_t bytes,
                                    struct xn_error *error);
/** 1: *ret_part is the next part; 0: the closing boundary has been reached. Errors: -EINVAL (malformed, cut short). */
XN_MUST_CHECK int xn_multipart_next(struct xn_multipart *m, struct xn_part *ret_part, struct xn_error *error);

#endif
