/* SPDX-License-Identifier: Apache-2.0
 * See multipart.h. The body is dash-boundary, part, (delimiter, part)*, closing delimiter; a part is header lines, an empty line, content. Header
 * lines are passed over: what a part holds is told by its own magic bytes, not by what the client says. */
#include "daemon/http/multipart.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* The boundary parameter of a Content-Type, quoted or not. Returns its length, 0: none or too long. */
static size_t find_boundary(const char *content_type, const char **ret_boundary)
{
    for (const char *p = strchr(content_type, ';'); p; p = strchr(p, ';')) {
        p += 1 + strspn(p + 1, " \t");
        if (strncasecmp(p, "boundary=", 9) != 0)
            continue;
        p += 9;
        bool quoted = *p == '"';
        *ret_boundary = p + quoted;
        size_t n = strcspn(p + quoted, quoted ? "\"" : "; \t");
        return n <= XN_MULTIPART_BOUNDARY_MAX ? n : 0;
    }
    return 0;
}

int xn_multipart_init(struct xn_multipart *m, const char *content_type, const void *body, size_t bytes,
                      struct xn_error *error)
{
    const char *boundary;
    size_t n = find_boundary(content_type, &boundary);

    if (n == 0)
        return xn_error_set(error, -EINVAL,
                            "Content-Type multipart/form-data needs a boundary parameter of 1 to %u characters",
                            XN_MULTIPART_BOUNDARY_MAX);
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, n);
    m->delimiter_bytes = n + 4;
    m->body = body;
    m->end = m->body + bytes;
    /* A preamble is allowed, and empty in practice. The first delimiter may lack its CR LF. */
    if (bytes >= n + 2 && memcmp(body, m->delimiter + 2, n + 2) == 0) {
        m->at = m->body + n + 2;
        return 0;
    }
    const char *first = memmem(body, bytes, m->delimiter, m->delimiter_bytes);
    if (!first)
        return xn_error_set(error, -EINVAL,
                            "multipart body: the boundary that Content-Type names does not occur in it");
    m->at = first + m->delimiter_bytes;
    return 0;
}

int xn_multipart_next(struct xn_multipart *m, struct xn_part *ret_part, struct xn_error *error)
{
    size_t left = (size_t)(m->end - m->at);

    if (left >= 2 && memcmp(m->at, "--", 2) == 0)
        return 0;
    const char *headers = memchr(m->at, '\n', left); /* transport padding may follow the boundary */
    if (!headers)
        return xn_error_set(error, -EINVAL, "multipart body: cut short after a boundary");
    /* Headers end at an empty line; there may be none, then it follows at once. */
    const char *content = NULL;
    if (m->end - headers >= 3 && memcmp(headers + 1, "\r\n", 2) == 0)
        content = headers + 3;
    else if ((content = memmem(headers, (size_t)(m->end - headers), "\r\n\r\n", 4)))
        content += 4;
    if (!content)
        return xn_error_set(error, -EINVAL, "multipart body: a part's headers do not end with an empty line");
    /* The delimiter of an empty part begins with the CR LF that ended the headers. */
    const char *close = memmem(content - 2, (size_t)(m->end - content) + 2, m->delimiter, m->delimiter_bytes);
    if (!close)
        return xn_error_set(error, -EINVAL, "multipart body: cut short, the closing boundary is missing");
    ret_part->data = content;
    ret_part->bytes = close > content ? (size_t)(close - content) : 0;
    m->at = close + m->delimiter_bytes;
    return 1;
}
