/* SPDX-License-Identifier: Apache-2.0
 * Answers of HTTP/1.1, read as the bytes come: just what a load generator needs, and strict about it. Pure; holds no pointer
 * into what it was fed.
 *
 *     STATUS -> HEADER -+-> LENGTH --------------------------------+-> DONE
 *       ^               +-> SIZE -> CHUNK -> CHUNK_END -> SIZE ... |
 *       |               |    +-> TRAILER --------------------------+
 *       |               +-> CLOSE (until the connection ends) -----+
 *       +--- 1xx -------+
 */
#ifndef XN_CLIENTS_XNORCTL_HTTP_PARSE_H
#define XN_CLIENTS_XNORCTL_HTTP_PARSE_H

#include "common/macros.h"

#define XN_HTTP_LINE_BYTES   256u   /**< of a line as it is kept; the rest of a longer header is passed over */
#define XN_HTTP_HEADER_BYTES 65536u /**< of all header lines of an answer; more is an error */

enum xn_http_state {
    XN_HTTP_STATUS,
    XN_HTTP_HEADER,
    XN_HTTP_LENGTH,
    XN_HTTP_SIZE,
    XN_HTTP_CHUNK,
    XN_HTTP_CHUNK_END,
    XN_HTTP_TRAILER,
    XN_HTTP_CLOSE,
    XN_HTTP_DONE,
};

/** One answer. Embedded. */
struct xn_http_parser {
    enum xn_http_state state;
    int status;          /**< of the final answer, once HEADER is past */
    bool close;          /**< the connection ends with this answer */
    bool has_length;     /**< Content-Length was there */
    bool chunked;        /**< Transfer-Encoding: chunked was there */
    bool retry_after;    /**< Retry-After was there */
    uint32_t line_bytes; /**< of `line` */
    bool line_cut;
    uint64_t left; /**< of the body, or of the chunk */
    uint64_t header_bytes;
    char *body; /**< where the body goes; NULL: nowhere */
    size_t body_capacity, body_bytes;
    bool body_cut; /**< it was longer than body_capacity */
    char line[XN_HTTP_LINE_BYTES];
};

/** Expect an answer; its body goes to `body` (may be NULL with 0), which stays the caller's. */
void xn_http_parser_init(struct xn_http_parser *p, char *body, size_t capacity);

/** Take up to `bytes` at `data`; *ret_used is how many belonged to this answer. Returns 1 when it is complete, 0 when more is needed.
 *  Errors: -EBADMSG (not an answer of HTTP/1.x, or lengths that contradict each other), -EMSGSIZE (headers too long). */
XN_MUST_CHECK int xn_http_parser_feed(struct xn_http_parser *p, const char *data, size_t bytes, size_t *ret_used);

/** The peer has closed. Returns 1 where that completes the answer. Errors: -ECONNRESET (it was not complete). */
XN_MUST_CHECK int xn_http_parser_end(struct xn_http_parser *p);

/** Has a byte of the answer come? */
static inline bool xn_http_parser_begun(const struct xn_http_parser *p)
{
    return p->state != XN_HTTP_STATUS || p->line_bytes > 0;
}

#endif
