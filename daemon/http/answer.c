/* SPDX-License-Identifier: Apache-2.0
 * Answers: headers that all of them carry, and errors as JSON. */
#include "daemon/http/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"

static void add_number(struct MHD_Response *response, const char *header, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    MHD_add_response_header(response, header, text);
}

static void add_headers(const struct xn_http *http, struct MHD_Response *response, const struct xn_answer *answer)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_SERVER, "xnord/" XN_VERSION);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                            answer->content_type ? answer->content_type : "application/json");
    if (answer->no_store)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (answer->retry_after_s)
        add_number(response, MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after_s);
    if (answer->code == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"xnord\"");
    if (answer->allow)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, answer->allow);
    if (answer->request_id && answer->request_id[0])
        MHD_add_response_header(response, "X-Request-Id", answer->request_id);
    if (answer->traceparent && answer->traceparent[0])
        MHD_add_response_header(response, "traceparent", answer->traceparent);
    if (answer->tracestate)
        MHD_add_response_header(response, "tracestate", answer->tracestate);
    if (answer->coding != XN_CODING_IDENTITY)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, xn_coding_name(answer->coding));
    if (answer->may_compress)
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    if (answer->says_what_it_takes)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCEPT_ENCODING, XN_CODINGS);
    if (answer->header_bytes)
        add_number(response, "Inference-Header-Content-Length", (uint64_t)answer->header_bytes);
    if (atomic_load_explicit(&http->quiesced_ns, memory_order_relaxed) != XN_NEVER_NS)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
}

/* An owned body, as the client takes it: *data and *bytes become the compressed ones where that is shorter. */
static enum xn_coding compress_owned(struct xn_http *http, struct MHD_Connection *connection, void **data,
                                     size_t *bytes)
{
    enum xn_coding coding =
        xn_coding_choose(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT_ENCODING));
    struct xn_codec *codec = coding == XN_CODING_IDENTITY ? NULL : xn_pool_take(http->codecs);
    void *shorter = codec ? malloc(*bytes) : NULL;
    size_t n = shorter ? xn_deflate(codec, coding, *data, *bytes, shorter, *bytes) : 0;

    xn_pool_give(http->codecs, codec);
    if (n == 0) {
        free(shorter);
        return XN_CODING_IDENTITY;
    }
    free(*data);
    *data = shorter;
    *bytes = n;
    return coding;
}

enum MHD_Result xn_http_answer(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                               uint64_t start_ns, const struct xn_answer *answer, const void *body, size_t bytes,
                               enum xn_body_life life)
{
    static const enum MHD_ResponseMemoryMode modes[] = {[XN_BODY_COPY] = MHD_RESPMEM_MUST_COPY,
                                                        [XN_BODY_OWNED] = MHD_RESPMEM_MUST_FREE,
                                                        [XN_BODY_STAYS] = MHD_RESPMEM_PERSISTENT};
    void *data = (void *)(uintptr_t)body; /* MHD takes it as not const; it only reads it */
    struct xn_answer whole = *answer;

    whole.may_compress = whole.may_compress && (bytes >= XN_CODING_BYTES_MIN || whole.coding != XN_CODING_IDENTITY);
    if (whole.may_compress && life == XN_BODY_OWNED)
        whole.coding = compress_owned(http, connection, &data, &bytes);
    struct MHD_Response *response = MHD_create_response_from_buffer(bytes, data, modes[life]);

    if (!response) {
        if (life == XN_BODY_OWNED)
            free(data);
        return MHD_NO;
    }
    add_headers(http, response, &whole);
    enum MHD_Result r = MHD_queue_response(connection, answer->code, response);
    MHD_destroy_response(response);
    xn_metrics_http(http->next.metrics, route, answer->code, xn_clock_now_ns() - start_ns);
    return r;
}

enum MHD_Result xn_http_answer_json(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                    uint64_t start_ns, unsigned code, json_t *value)
{
    struct xn_answer answer = {.code = code, .no_store = true, .may_compress = true};
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

    json_decref(value);
    if (!text)
        return MHD_NO;
    return xn_http_answer(http, connection, route, start_ns, &answer, text, strlen(text), XN_BODY_OWNED);
}

/* ---- errors ------------------------------------------------------------------------------------------------------- */

#define ERROR_BODY_BYTES (XN_ERROR_TEXT_BYTES * 6 + 32) /* each byte may become \u00XX */

static void write_error(struct xn_text *text, const char *what)
{
    xn_text_put(text, "{\"error\":");
    xn_text_string(text, what[0] ? what : "no reason was given");
    xn_text_put(text, "}\n");
}

enum MHD_Result xn_http_answer_error(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                     uint64_t start_ns, int error_code, const struct xn_error *error,
                                     const struct xn_answer *more)
{
    struct xn_status status = xn_status_configured(http->config, error_code);
    struct xn_answer answer = more ? *more : (struct xn_answer){0};
    char body[ERROR_BODY_BYTES];
    struct xn_text text;

    answer.code = status.code;
    answer.says_what_it_takes = error_code == -EOPNOTSUPP;
    if (answer.retry_after_s == 0)
        answer.retry_after_s = status.retry_after_s;
    xn_text_init(&text, body, sizeof(body));
    write_error(&text, error->text);
    xn_metrics_reject(http->next.metrics, status.reject);
    return xn_http_answer(http, connection, route, start_ns, &answer, text.data, text.bytes, XN_BODY_COPY);
}

bool xn_http_send_error(const struct xn_link *link, const struct xn_status *status, const char *text)
{
    char body[ERROR_BODY_BYTES], message[ERROR_BODY_BYTES + 512];
    struct xn_text to;

    xn_text_init(&to, body, sizeof(body));
    write_error(&to, text);
    int n = snprintf(message, sizeof(message),
                     "HTTP/1.1 %u %s\r\nServer: xnord/" XN_VERSION "\r\nContent-Type: application/json\r\n"
                     "Connection: close\r\nContent-Length: %zu\r\n",
                     status->code, MHD_get_reason_phrase_for(status->code), to.bytes);
    if (status->retry_after_s)
        n += snprintf(message + n, sizeof(message) - (size_t)n, "Retry-After: %u\r\n", status->retry_after_s);
    n += snprintf(message + n, sizeof(message) - (size_t)n, "\r\n%.*s", (int)to.bytes, to.data);
    if (link->tls)
        return gnutls_record_send(link->tls, message, (size_t)n) == n;
    return send(link->fd, message, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n;
}

void xn_http_answer_cut(struct xn_http *http, struct xn_link *link, enum xn_route route, uint64_t start_ns,
                        int error_code, const struct xn_error *error)
{
    struct xn_status status = xn_status_configured(http->config, error_code);

    xn_metrics_reject(http->next.metrics, status.reject);
    xn_metrics_http(http->next.metrics, route, status.code, xn_clock_now_ns() - start_ns);
    if (!link || !xn_link_enter(link, XN_PHASE_SEND, xn_clock_now_ns()))
        return;
    link->linger = true;
    (void)xn_http_send_error(link, &status, error->text);
}
