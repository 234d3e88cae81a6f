/* SPDX-License-Identifier: Apache-2.0
 * Lines are gathered in the parser, so that they may come in any pieces; bodies are passed on or over as they are. */
#include "clients/xnorctl/http_parse.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

void xn_http_parser_init(struct xn_http_parser *p, char *body, size_t capacity)
{
    /* All but the line, which line_bytes covers. */
    memset(p, 0, offsetof(struct xn_http_parser, line));
    p->body = body;
    p->body_capacity = capacity;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int read_status(struct xn_http_parser *p)
{
    const char *s = p->line;

    /* "HTTP/1.1 200 OK"; the reason may be missing. */
    if (p->line_bytes < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') || s[8] != ' ')
        return -EBADMSG;
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -EBADMSG;
        status = 10 * status + s[i] - '0';
    }
    if (status < 100 || (p->line_bytes > 12 && s[12] != ' '))
        return -EBADMSG;
    p->status = status;
    p->close = s[7] == '0';
    p->state = XN_HTTP_HEADER;
    return 0;
}

/* Digits only, no overflow. */
static int read_number(const char *s, size_t n, unsigned base, uint64_t *ret)
{
    uint64_t value = 0;

    if (n == 0)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++) {
        unsigned digit = s[i] >= '0' && s[i] <= '9'                 ? (unsigned)(s[i] - '0')
                         : (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f' ? (unsigned)((s[i] | 32) - 'a') + 10
                                                                    : base;
        if (digit >= base || value > (UINT64_MAX - digit) / base)
            return -EBADMSG;
        value = value * base + digit;
    }
    *ret = value;
    return 0;
}

static int read_length(struct xn_http_parser *p, const char *value, size_t n)
{
    uint64_t length;

    if (p->line_cut || read_number(value, n, 10, &length) < 0 || (p->has_length && length != p->left))
        return -EBADMSG;
    p->has_length = true;
    p->left = length;
    return 0;
}

/* Is `word` one of the comma-separated words of a value? */
static bool has_word(const char *value, size_t n, const char *word)
{
    size_t length = strlen(word), at = 0;

    while (at < n) {
        while (at < n && (is_blank(value[at]) || value[at] == ','))
            at++;
        size_t end = at;
        while (end < n && value[end] != ',' && !is_blank(value[end]))
            end++;
        if (end - at == length && strncasecmp(value + at, word, length) == 0)
            return true;
        at = end;
    }
    return false;
}

static int read_header(struct xn_http_parser *p)
{
    const char *colon = memchr(p->line, ':', p->line_bytes);

    if (!colon || colon == p->line)
        return -EBADMSG;
    size_t name = (size_t)(colon - p->line), n = p->line_bytes - name - 1;
    const char *value = colon + 1;
    while (n > 0 && is_blank(*value))
        value++, n--;
    while (n > 0 && is_blank(value[n - 1]))
        n--;
    if (name == 14 && strncasecmp(p->line, "Content-Length", name) == 0)
        return read_length(p, value, n);
    if (name == 17 && strncasecmp(p->line, "Transfer-Encoding", name) == 0) {
        if (n != 7 || strncasecmp(value, "chunked", 7) != 0)
            return -EBADMSG; /* another coding, or two of them */
        p->chunked = true;
    }
    if (name == 11 && strncasecmp(p->line, "Retry-After", name) == 0)
        p->retry_after = true;
    if (name == 10 && strncasecmp(p->line, "Connection", name) == 0) {
        p->close = p->close || has_word(value, n, "close");
        if (has_word(value, n, "keep-alive"))
            p->close = false;
    }
    return 0;
}

/* The empty line: what comes now? */
static int begin_body(struct xn_http_parser *p)
{
    char *body = p->body;
    size_t capacity = p->body_capacity;

    if (p->status == 101)
        return -EBADMSG;
    if (p->status < 200) {
        xn_http_parser_init(p, body, capacity);
        return 0;
    }
    if (p->chunked && p->has_length)
        return -EBADMSG;
    if (p->status == 204 || p->status == 304 || (p->has_length && p->left == 0)) {
        p->state = XN_HTTP_DONE;
    } else if (p->chunked) {
        p->state = XN_HTTP_SIZE;
    } else if (p->has_length) {
        p->state = XN_HTTP_LENGTH;
    } else {
        p->close = true;
        p->state = XN_HTTP_CLOSE;
    }
    return 0;
}

static int read_size(struct xn_http_parser *p)
{
    const char *extension = memchr(p->line, ';', p->line_bytes);
    size_t n = extension ? (size_t)(extension - p->line) : p->line_bytes;

    while (n > 0 && is_blank(p->line[n - 1]))
        n--;
    if (read_number(p->line, n, 16, &p->left) < 0)
        return -EBADMSG;
    p->state = p->left > 0 ? XN_HTTP_CHUNK : XN_HTTP_TRAILER;
    return 0;
}

/* A line is complete in p->line, without its end. */
static int read_line(struct xn_http_parser *p)
{
    switch (p->state) {
    case XN_HTTP_STATUS:
        return read_status(p);
    case XN_HTTP_HEADER:
        return p->line_bytes > 0 ? read_header(p) : begin_body(p);
    case XN_HTTP_SIZE:
        return p->line_cut ? -EBADMSG : read_size(p);
    case XN_HTTP_CHUNK_END:
        p->state = XN_HTTP_SIZE;
        return p->line_bytes > 0 ? -EBADMSG : 0;
    default:
        if (p->line_bytes == 0)
            p->state = XN_HTTP_DONE;
        return 0;
    }
}

static int feed_line(struct xn_http_parser *p, const char *data, size_t bytes, size_t *used)
{
    const char *end = memchr(data, '\n', bytes);
    size_t n = end ? (size_t)(end - data) : bytes, room = sizeof(p->line) - p->line_bytes;

    *used += n + (end != NULL);
    p->header_bytes += n + 1;
    if (p->header_bytes > XN_HTTP_HEADER_BYTES)
        return -EMSGSIZE;
    p->line_cut = p->line_cut || n > room;
    memcpy(p->line + p->line_bytes, data, XN_MIN(n, room));
    p->line_bytes += (uint32_t)XN_MIN(n, room);
    if (!end)
        return 0;
    if (p->line_bytes > 0 && p->line[p->line_bytes - 1] == '\r')
        p->line_bytes--;
    int r = read_line(p);
    p->line_bytes = 0;
    p->line_cut = false;
    return r;
}

static void feed_body(struct xn_http_parser *p, const char *data, size_t bytes, size_t *used)
{
    size_t n = p->state == XN_HTTP_CLOSE ? bytes : (size_t)XN_MIN((uint64_t)bytes, p->left);
    size_t kept = XN_MIN(n, p->body_capacity - p->body_bytes);

    if (kept > 0)
        memcpy(p->body + p->body_bytes, data, kept);
    p->body_bytes += kept;
    p->body_cut = p->body_cut || kept < n;
    *used += n;
    if (p->state == XN_HTTP_CLOSE)
        return;
    p->left -= n;
    if (p->left == 0) {
        p->state = p->state == XN_HTTP_LENGTH ? XN_HTTP_DONE : XN_HTTP_CHUNK_END;
        p->header_bytes = 0; /* the limit is of a run of lines, and a long body has many chunks */
    }
}

int xn_http_parser_feed(struct xn_http_parser *p, const char *data, size_t bytes, size_t *ret_used)
{
    size_t used = 0;
    int r = 0;

    while (r >= 0 && used < bytes && p->state != XN_HTTP_DONE) {
        if (p->state == XN_HTTP_LENGTH || p->state == XN_HTTP_CHUNK || p->state == XN_HTTP_CLOSE)
            feed_body(p, data + used, bytes - used, &used);
        else
            r = feed_line(p, data + used, bytes - used, &used);
    }
    *ret_used = used;
    return r < 0 ? r : p->state == XN_HTTP_DONE;
}

int xn_http_parser_end(struct xn_http_parser *p)
{
    if (p->state != XN_HTTP_CLOSE && p->state != XN_HTTP_DONE)
        return -ECONNRESET;
    p->state = XN_HTTP_DONE;
    return 1;
}
