/* SPDX-License-Identifier: Apache-2.0
 * Answers: headers that all of them carry, and errors as JSON. */
#include "daemon/http/internal.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "daemon/http/status.h"

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
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (answer->retry_after_s)
        add_number(response, MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after_s);
    if (answer->allow)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, answer->allow);
    if (answer->request_id && answer->request_id[0])
        MHD_add_response_header(response, "X-Request-Id", answer->request_id);
    if (answer->header_bytes)
        add_number(response, "Inference-Header-Content-Length", (uint64_t)answer->header_bytes);
    if (answer->close || atomic_load_explicit(&http->quiesced, memory_order_relaxed))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
}

enum MHD_Result xn_http_answer(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                               uint64_t start_ns, const struct xn_answer *answer, const void *body, size_t bytes,
                               bool owned)
{
    /* MHD takes the body as not const; it only reads it. */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        bytes, (void *)(uintptr_t)body, owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    add_headers(http, response, answer);
    enum MHD_Result r = MHD_queue_response(connection, answer->code, response);
    MHD_destroy_response(response);
    xn_metrics_http(http->next.metrics, route, answer->code, xn_clock_now_ns() - start_ns);
    return r;
}

enum MHD_Result xn_http_answer_error(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                     uint64_t start_ns, int error_code, const struct xn_error *error,
                                     const char *request_id, const char *allow)
{
    struct xn_status status = xn_status_of(error_code);
    struct xn_answer answer = {
        .code = status.code, .retry_after_s = status.retry_after_s, .allow = allow, .request_id = request_id};
    char body[XN_ERROR_TEXT_BYTES * 6 + 32]; /* each byte may become \u00XX */
    struct xn_text text;

    xn_text_init(&text, body, sizeof(body));
    xn_text_put(&text, "{\"error\":");
    xn_text_string(&text, error->text[0] ? error->text : "no reason was given");
    xn_text_put(&text, "}\n");
    xn_metrics_reject(http->next.metrics, status.reject);
    return xn_http_answer(http, connection, route, start_ns, &answer, text.data, text.bytes, false);
}
