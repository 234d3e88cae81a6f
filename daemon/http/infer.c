/* SPDX-License-Identifier: Apache-2.0
 * A POST that asks for inference, from its first header to its answer. Runs on the epoll thread of its connection; only request_done runs
 * elsewhere. See struct xn_call for the states.
 *
 * Everything that can be told from the headers is refused on the first callback, before MHD has read the body; that ends the connection. Where only room or time is wanting and the
 * body is small, the answer waits for the body instead, and the connection stays: overload must not cost the clients their connections. Once a body is being received MHD takes
 * no answer until it is complete; what fails then (only a body of unknown length can) is answered by hand, and the connection ends. */
#include "daemon/http/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/number.h"

#define ANSWER_SHARE 4 /* of a request's time the answer is never expected to take more than a quarter */
/* The body of a request that is refused for want of room is read and dropped up to this size: it costs less than the connection that its client would have to open instead. */
#define DROP_BYTES_MAX 65536u

static const char *argument(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
}

/* Does Content-Type name `type`, with or without parameters? */
static bool is_type(const char *content_type, const char *type)
{
    size_t n = strlen(type);

    return content_type && strncasecmp(content_type, type, n) == 0 && strchr("; \t", content_type[n]);
}

/* ---- headers ------------------------------------------------------------------------------------------------------ */

/* MHD calls this for each header: one pass instead of a look-up for each name. */
static enum MHD_Result collect_header(void *user, enum MHD_ValueKind kind, const char *name, const char *value)
{
    static const struct {
        const char *name;
        size_t at;
    } wanted[] = {{"Content-Type", offsetof(struct xn_headers, content_type)},
                  {"Content-Length", offsetof(struct xn_headers, content_length)},
                  {"Content-Encoding", offsetof(struct xn_headers, content_encoding)},
                  {"Transfer-Encoding", offsetof(struct xn_headers, transfer_encoding)},
                  {"Accept-Encoding", offsetof(struct xn_headers, accept_encoding)},
                  {"X-Request-Id", offsetof(struct xn_headers, request_id)},
                  {"traceparent", offsetof(struct xn_headers, traceparent)},
                  {"tracestate", offsetof(struct xn_headers, tracestate)},
                  {"Inference-Header-Content-Length", offsetof(struct xn_headers, header_length)}};
    struct xn_headers *headers = user;

    (void)kind;
    for (size_t i = 0; i < XN_ARRAY_LEN(wanted); i++) {
        if (strcasecmp(name, wanted[i].name) != 0)
            continue;
        const char **slot = (const char **)(void *)((char *)headers + wanted[i].at);
        if (*slot && value && strcmp(*slot, value) != 0)
            headers->repeated = true;
        *slot = value;
        break;
    }
    return MHD_YES;
}

/* Where two readers could disagree about the length of a body, one of them may be fooled; so nothing here is guessed. */
static int read_headers(struct xn_call *call)
{
    struct xn_headers *h = &call->headers;

    MHD_get_connection_values(call->exchange.connection, MHD_HEADER_KIND, collect_header, h);
    if (h->repeated)
        return xn_error_set(&call->error, -EINVAL, "a header that may come once came twice, with different values");
    if (h->transfer_encoding && strcasecmp(h->transfer_encoding, "chunked") != 0)
        return xn_error_set(&call->error, -EOPNOTSUPP, "Transfer-Encoding %.32s is not supported; send it chunked",
                            h->transfer_encoding);
    if (h->transfer_encoding && h->content_length)
        return xn_error_set(&call->error, -EINVAL, "Content-Length and Transfer-Encoding in one request");
    return xn_intake_coding(h->content_encoding, &call->intake.coding, &call->error);
}

/* ---- begin -------------------------------------------------------------------------------------------------------- */

/* X-Request-Id is echoed where it is short and plain; anything else is ignored. */
static void copy_request_id(struct xn_call *call)
{
    const char *id = call->headers.request_id;
    size_t n = id ? strlen(id) : 0;

    call->request_id[0] = '\0';
    if (n == 0 || n >= sizeof(call->request_id))
        return;
    for (size_t i = 0; i < n; i++) {
        if (id[i] <= ' ' || id[i] > '~')
            return;
    }
    memcpy(call->request_id, id, n + 1);
}

/* Of two traceparents neither counts, and a tracestate says something only of the trace that it came with. */
static void follow_trace(struct xn_call *call)
{
    struct xn_http *http = call->http;
    struct xn_headers *h = &call->headers;
    uint64_t n = h->traceparent ? atomic_fetch_add_explicit(&http->spans, 1, memory_order_relaxed) : 0;

    if (!xn_trace_continue(h->traceparent, xn_trace_span(http->span_seed, n), call->traceparent) ||
        (h->tracestate && strlen(h->tracestate) > XN_TRACESTATE_BYTES_MAX))
        h->tracestate = NULL;
}

static int read_arguments(struct xn_call *call)
{
    const char *top_k = argument(call->exchange.connection, "top_k"),
               *timeout = argument(call->exchange.connection, "timeout_ms");
    const char *priority = argument(call->exchange.connection, "priority");
    const char *length = call->headers.header_length;
    uint64_t value;

    call->ask.top_k = 1;
    call->header_bytes = -1;
    if (top_k && !xn_number_u64(top_k, 1, XN_TOP_K_MAX, &value))
        return xn_error_set(&call->error, -EINVAL, "top_k: must be 1 to %u", XN_TOP_K_MAX);
    if (top_k)
        call->ask.top_k = (uint32_t)value;
    if (timeout && !xn_number_u64(timeout, 1, XN_TIMEOUT_MS_MAX, &value))
        return xn_error_set(&call->error, -EINVAL, "timeout_ms: must be 1 to %u", XN_TIMEOUT_MS_MAX);
    if (timeout)
        call->ask.timeout_ns = value * XN_NS_PER_MS;
    if (priority && !xn_number_u64(priority, 0, UINT32_MAX, &value))
        return xn_error_set(&call->error, -EINVAL, "priority: must be 1 (high), 2 (normal) or 3 (low)");
    if (priority)
        call->ask.priority = xn_ask_priority(value);
    if (length && call->route == XN_ROUTE_V2_INFER) {
        if (!xn_number_u64(length, 0, UINT32_MAX, &value))
            return xn_error_set(&call->error, -EINVAL, "Inference-Header-Content-Length: must be a number of bytes");
        call->header_bytes = (int64_t)value;
    }
    return 0;
}

/* The body's limit: smaller where it has to become a tree of JSON. */
static int set_limit(struct xn_call *call)
{
    const struct xn_config *config = call->http->config;
    bool v2 = call->route == XN_ROUTE_V2_INFER;
    bool json = v2 ? call->header_bytes < 0 : is_type(call->headers.content_type, "application/json");

    call->intake.limit_bytes = json ? config->limits.json_bytes : config->limits.body_bytes;
    if (call->header_bytes > (int64_t)config->limits.json_bytes)
        return xn_error_set(&call->error, -EFBIG,
                            "Inference-Header-Content-Length: %" PRId64
                            " bytes of JSON are larger than the limit of %" PRIu64 " (limits.json_bytes)",
                            call->header_bytes, config->limits.json_bytes);
    return 0;
}

/* From the end of a batch to the answer, with a margin that most do not exceed: as TCP estimates the time after which it need not wait for an acknowledgement any more (RFC 6298). */
static uint64_t answer_ns(const struct xn_http *http)
{
    return atomic_load_explicit(&http->answer_ns, memory_order_relaxed) +
           4 * atomic_load_explicit(&http->answer_deviation_ns, memory_order_relaxed);
}

static void learn_answer(struct xn_http *http, uint64_t ns)
{
    int64_t mean = (int64_t)atomic_load_explicit(&http->answer_ns, memory_order_relaxed);
    int64_t deviation = (int64_t)atomic_load_explicit(&http->answer_deviation_ns, memory_order_relaxed);
    int64_t error = (int64_t)ns - mean;

    deviation += ((error < 0 ? -error : error) - deviation) / 4;
    atomic_store_explicit(&http->answer_ns, (uint64_t)(mean + error / 8), memory_order_relaxed);
    atomic_store_explicit(&http->answer_deviation_ns, (uint64_t)deviation, memory_order_relaxed);
}

/* Deadline and priority, as far as they are known: the body may say more. */
static void set_urgency(struct xn_call *call)
{
    struct xn_request *request = call->request;
    uint64_t timeout_ns = call->ask.timeout_ns ? call->ask.timeout_ns : request->model->timeout_ms * XN_NS_PER_MS;

    request->answer_ns = XN_MIN(answer_ns(call->http), timeout_ns / ANSWER_SHARE);

    request->deadline_ns = request->start_ns + timeout_ns;
    request->priority = (uint8_t)call->ask.priority;
}

/* Why the request was not admitted; returns `r`. */
static int explain_refusal(struct xn_call *call, int r, uint64_t retry_ns)
{
    const struct xn_request *request = call->request;
    uint64_t retry_ms = (retry_ns + XN_NS_PER_MS - 1) / XN_NS_PER_MS;
    uint32_t n = XN_MAX(request->n_items, 1);
    const char *name = request->model->name, *images = n > 1 ? "images" : "image";

    if (r == -ESHUTDOWN)
        return xn_error_set(&call->error, r, "the server is stopping");
    call->retry_after_s = (unsigned)XN_MIN((retry_ns + XN_NS_PER_S - 1) / XN_NS_PER_S, 3600);
    if (r == -EBUSY)
        return xn_error_set(&call->error, r,
                            "model %s: %u %s could not be done within %" PRIu64
                            " ms with what waits already; try again in %" PRIu64
                            " ms, or ask for more time with timeout_ms",
                            name, n, images, (request->deadline_ns - request->start_ns) / XN_NS_PER_MS, retry_ms);
    if (r == -EDQUOT)
        return xn_error_set(&call->error, r,
                            "model %s: this client has its share of what may wait; try again in %" PRIu64 " ms", name,
                            retry_ms);
    return xn_error_set(&call->error, r, "model %s: no room for %u %s in its queue; try again in %" PRIu64 " ms", name,
                        n, images, retry_ms);
}

static int announce(struct xn_call *call, uint32_t n)
{
    const struct xn_http *http = call->http;
    uint64_t retry_ns = 0;
    int r = http->next.admit(http->next.user, call->request, n, &retry_ns);

    if (r < 0)
        return explain_refusal(call, r, retry_ns);
    call->announced += n;
    return 0;
}

static int admit(struct xn_call *call, const char *model_name, const char *version)
{
    struct xn_http *http = call->http;
    struct xn_model *model = NULL;
    int r = xn_http_model(http, model_name, version, &model, &call->error);

    if (r < 0)
        return r;
    call->request = xn_request_new(http->next.requests);
    if (!call->request) {
        xn_model_unref(model);
        return xn_error_set(&call->error, -EAGAIN,
                            "as many requests as limits.requests allows are under way; try again later");
    }
    call->request->model = model;
    call->request->user = call;
    call->request->start_ns = call->start_ns;
    call->request->client = (uint32_t)(call->who.key >> 32);
    set_urgency(call);
    return announce(call, 1);
}

static int begin(struct xn_call *call, const char *model_name, const char *version)
{
    int r = read_headers(call);

    copy_request_id(call);
    follow_trace(call);
    if (r >= 0)
        r = read_arguments(call);
    if (r >= 0)
        r = set_limit(call);
    if (r >= 0)
        r = admit(call, model_name ? model_name : argument(call->exchange.connection, "model"), version);
    return r < 0 ? r : xn_body_begin(call);
}

/* What every answer of `call` carries. */
static struct xn_answer answer_of(const struct xn_call *call)
{
    return (struct xn_answer){.request_id = call->request_id,
                              .retry_after_s = call->retry_after_s,
                              .traceparent = call->traceparent,
                              .tracestate = call->headers.tracestate};
}

static void retract(struct xn_call *call)
{
    if (call->announced > 0)
        call->http->next.retract(call->http->next.user, call->request->model, call->announced);
    call->announced = 0;
}

/* Let go of all that others may want. */
static void release(struct xn_call *call)
{
    retract(call);
    xn_request_unref(call->request);
    call->request = NULL;
}

/* Refused with `r`: is the body to be dropped, so that the connection can go on? Not where the client asks before it sends it. */
static bool drops_body(const struct xn_call *call, int r)
{
    const char *expect =
        MHD_lookup_connection_value(call->exchange.connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);
    const char *length = call->headers.content_length;
    uint64_t bytes;

    return xn_status_of(r).retry_after_s > 0 && (!expect || !expect[0]) && length &&
           xn_number_u64(length, 0, DROP_BYTES_MAX, &bytes);
}

/* In the model's statistics, where it got as far as a model. */
static void count_failure(const struct xn_call *call)
{
    const struct xn_request *request = call->request;

    if (request)
        xn_model_stats_fail(request->model->stats, request->start_ns, xn_clock_now_ns());
}

/* Refused: MHD ends the connection after the answer, as it has not read the body. */
static enum MHD_Result refuse(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              struct xn_link *link, uint64_t start_ns, int code, const struct xn_error *error,
                              const struct xn_answer *more)
{
    if (link)
        link->linger = true;
    return xn_http_answer_error(http, connection, route, start_ns, code, error, more);
}

static enum MHD_Result call_go(struct xn_exchange *exchange, const char *upload, size_t *upload_bytes);

static void call_end(struct xn_exchange *exchange)
{
    xn_call_end(XN_CONTAINER_OF(exchange, struct xn_call, exchange));
}

enum MHD_Result xn_call_begin(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              struct xn_link *link, const struct xn_who *who, const char *model_name,
                              const char *version, void **ret_call)
{
    uint64_t start_ns = xn_clock_now_ns();
    struct xn_call *call = xn_pool_take(http->calls);
    struct xn_error error;

    if (!call) {
        xn_http_left(&(struct xn_who){.slot = who->slot});
        xn_error_set(&error, -EAGAIN, "too many requests are under way; try again later");
        return refuse(http, connection, route, link, start_ns, -EAGAIN, &error, NULL);
    }
    memset(call, 0, sizeof(*call));
    call->exchange = (struct xn_exchange){.go = call_go, .end = call_end, .connection = connection};
    call->http = http;
    call->link = link;
    call->who = *who;
    call->route = route;
    call->start_ns = start_ns;
    int r = begin(call, model_name, version);
    if (r < 0 && drops_body(call, r)) {
        count_failure(call);
        release(call);
        call->refused = r;
    } else if (r < 0) {
        count_failure(call);
        struct xn_answer more = answer_of(call);
        enum MHD_Result queued = refuse(http, connection, route, link, start_ns, r, &call->error, &more);
        xn_call_end(call);
        return queued;
    }
    *ret_call = &call->exchange;
    return xn_link_enter(link, XN_PHASE_BODY, start_ns) ? MHD_YES : MHD_NO;
}

void xn_call_end(struct xn_call *call)
{
    release(call);
    xn_http_left(&call->who);
    xn_intake_done(&call->intake);
    xn_pool_give(call->http->calls, call);
}

/* ---- receive ------------------------------------------------------------------------------------------------------ */

static enum MHD_Result receive(struct xn_call *call, const char *upload, size_t bytes)
{
    int r = xn_intake_receive(&call->intake, upload, bytes);

    if (r >= 0)
        return MHD_YES;
    xn_http_answer_cut(call->http, call->link, call->route, call->request->start_ns, r, &call->error);
    return MHD_NO;
}

/* ---- work --------------------------------------------------------------------------------------------------------- */

static int parse_body(struct xn_call *call)
{
    const char *content_type = call->headers.content_type;

    if (call->route == XN_ROUTE_V2_INFER)
        return xn_body_parse_v2(call->request, call->header_bytes, call->http->next.regions, &call->ask, &call->error);
    if (is_type(content_type, "application/json"))
        return xn_body_parse_json(call->request, &call->ask, &call->error);
    if (is_type(content_type, "multipart/form-data"))
        return xn_body_parse_multipart(call->request, content_type, &call->error);
    return xn_body_parse_plain(call->request, content_type, &call->error);
}

/* One item was admitted at the first header; the others, if there are more, now; and all anew if the body leaves less time. */
static int admit_rest(struct xn_call *call)
{
    const struct xn_request *request = call->request;
    uint64_t deadline_ns = request->deadline_ns;

    if (request->n_items > request->model->queue_limit)
        return xn_error_set(&call->error, -E2BIG, "model %s: %u images in a request, where its queue holds %u",
                            request->model->name, request->n_items, request->model->queue_limit);
    set_urgency(call);
    if (request->deadline_ns < deadline_ns)
        retract(call);
    uint32_t more = request->n_items - call->announced;
    return more == 0 ? 0 : announce(call, more);
}

/* The last item has settled: back to the epoll thread. Any thread; must not touch the call afterwards, it may be answered and gone. */
static void request_done(struct xn_request *request)
{
    struct xn_call *call = request->user;

    xn_loop_resume(&call->exchange);
}

static enum MHD_Result answer_failure(struct xn_call *call, int code, const struct xn_error *error)
{
    struct xn_answer more = answer_of(call);

    (void)xn_link_enter(call->link, XN_PHASE_SEND, xn_clock_now_ns());
    count_failure(call);
    if (call->request)
        xn_slow_log(call, code, error);
    return xn_http_answer_error(call->http, call->exchange.connection, call->route, call->start_ns, code, error, &more);
}

/* An answer that no buffer can hold is refused before anything runs. */
static int check_answer(struct xn_call *call)
{
    const struct xn_config *config = call->http->config;
    size_t largest = XN_MAX(config->limits.body_bytes, config->limits.json_bytes), need = xn_results_capacity(call);

    if (need <= largest)
        return 0;
    return xn_error_set(
        &call->error, -E2BIG,
        "the answer could take %zu bytes, more than limits.body_bytes = %zu allows; ask for fewer images, a "
        "smaller top_k or binary outputs",
        need, largest);
}

static enum MHD_Result start_work(struct xn_call *call)
{
    struct xn_http *http = call->http;
    struct xn_request *request = call->request;

    request->received_ns = xn_clock_now_ns();
    if (!xn_link_enter(call->link, XN_PHASE_WORK, request->received_ns))
        return MHD_NO;
    int r = xn_intake_end(&call->intake);
    if (r >= 0)
        r = parse_body(call);
    if (r >= 0 && request->n_regions > 0)
        r = xn_http_may_share(http->config, call->link, &call->error);
    if (r >= 0)
        r = admit_rest(call);
    if (r >= 0)
        r = check_answer(call);
    if (r < 0)
        return answer_failure(call, r, &call->error);
    request->done = request_done;
    xn_metrics_stage(http->next.metrics, request->model->slot, XN_STAGE_RECEIVE,
                     request->received_ns - request->start_ns);
    call->working = true;
    call->announced = 0; /* they are submit's now */
    xn_loop_suspend(&call->exchange, request);
    return MHD_YES;
}

/* ---- answer ------------------------------------------------------------------------------------------------------- */

/* The first item that failed decides; with several, the error names it. */
static int first_failure(const struct xn_call *call, struct xn_error *error)
{
    const struct xn_request *request = call->request;

    for (uint32_t i = 0; i < request->n_items; i++) {
        int status = 0;
        if (xn_item_settled(&request->items[i], &status) && status < 0) {
            *error = request->items[i].error;
            return request->n_items > 1 ? xn_error_prefix(error, status, "image %u", i) : status;
        }
    }
    return 0;
}

/* What was read from a region that is cut short was not what the client sent. */
static int check_regions(const struct xn_call *call, struct xn_error *error)
{
    const struct xn_request *request = call->request;

    for (uint32_t i = 0; i < request->n_regions; i++) {
        if (xn_region_lost(request->regions[i]))
            return xn_error_set(
                error, -EINVAL,
                "shared memory region \"%.64s\" is no longer as large as it was registered; register it anew",
                request->regions[i]->name);
    }
    return 0;
}

static void observe_stages(const struct xn_call *call)
{
    struct xn_metrics *metrics = call->http->next.metrics;
    const struct xn_request *request = call->request;
    uint32_t slot = request->model->slot;

    for (uint32_t i = 0; i < request->n_items; i++) {
        const struct xn_item *item = &request->items[i];
        if (item->decode_start_ns)
            xn_metrics_stage(metrics, slot, XN_STAGE_DECODE, item->queued_ns - item->decode_start_ns);
        xn_metrics_stage(metrics, slot, XN_STAGE_QUEUE, item->execute_start_ns - item->queued_ns);
        xn_metrics_stage(metrics, slot, XN_STAGE_EXECUTE, item->execute_end_ns - item->execute_start_ns);
    }
    uint64_t now_ns = xn_clock_now_ns();
    uint64_t respond_ns = now_ns - request->items[request->n_items - 1].execute_end_ns;
    xn_metrics_stage(metrics, slot, XN_STAGE_RESPOND, respond_ns);
    learn_answer(call->http, respond_ns);
    xn_model_stats_success(request->model->stats, request, now_ns);
}

/* The answer is written into the body's buffer where it fits: its pictures and tensors have done their work. */
static int take_answer_buffer(struct xn_call *call, struct xn_error *error)
{
    struct xn_request *request = call->request;
    size_t capacity = xn_results_capacity(call);
    struct xn_buf larger;

    if (capacity <= request->body.capacity_bytes)
        return 0;
    if (xn_request_buf_take(request, capacity, &larger) < 0)
        return xn_error_set(error, -EAGAIN, "no buffer for the answer is free; try again later");
    xn_request_buf_give(request, &request->body);
    request->body = larger;
    return 0;
}

/* Shorter, where the client takes that, no buffer is missing and it gets shorter at all: the answer moves into a buffer of its own. */
static void compress_answer(struct xn_call *call, struct xn_answer *answer, struct xn_text *text)
{
    struct xn_request *request = call->request;
    enum xn_coding coding =
        text->bytes < XN_CODING_BYTES_MIN ? XN_CODING_IDENTITY : xn_coding_choose(call->headers.accept_encoding);
    struct xn_codec *codec = coding == XN_CODING_IDENTITY ? NULL : xn_pool_take(call->http->codecs);
    struct xn_buf shorter = {0};

    if (!codec)
        return;
    size_t n = xn_request_buf_take(request, text->bytes, &shorter) < 0
                   ? 0
                   : xn_deflate(codec, coding, text->data, text->bytes, shorter.data, text->bytes);
    xn_pool_give(call->http->codecs, codec);
    if (n > 0) {
        xn_request_buf_give(request, &request->body);
        request->body = shorter;
        *text = (struct xn_text){.data = (char *)shorter.data, .bytes = n};
        answer->coding = coding;
    } else {
        xn_request_buf_give(request, &shorter);
    }
}

static enum MHD_Result answer_results(struct xn_call *call)
{
    struct xn_request *request = call->request;
    struct xn_answer answer = answer_of(call);
    struct xn_error error;
    struct xn_text text;

    int r = take_answer_buffer(call, &error);
    if (r < 0)
        return answer_failure(call, r, &error);
    answer.code = 200;
    answer.may_compress = true;
    xn_text_init(&text, request->body.data, request->body.capacity_bytes);
    if (call->route == XN_ROUTE_V2_INFER) {
        answer.header_bytes = (int64_t)xn_results_write_v2(call, &text);
        answer.content_type = answer.header_bytes ? "application/octet-stream" : "application/json";
    } else {
        xn_results_write_infer(call, &text);
    }
    assert(!text.overflow); /* xn_results_capacity says so */
    compress_answer(call, &answer, &text);
    observe_stages(call);
    xn_slow_log(call, 0, NULL);
    (void)xn_link_enter(call->link, XN_PHASE_SEND, xn_clock_now_ns());
    return xn_http_answer(call->http, call->exchange.connection, call->route, request->start_ns, &answer, text.data,
                          text.bytes, XN_BODY_STAYS);
}

static enum MHD_Result answer(struct xn_call *call)
{
    struct xn_error error = {{0}};
    int r = first_failure(call, &error);

    if (r >= 0)
        r = check_regions(call, &error);
    return r < 0 ? answer_failure(call, r, &error) : answer_results(call);
}

static enum MHD_Result call_go(struct xn_exchange *exchange, const char *upload, size_t *upload_bytes)
{
    struct xn_call *call = XN_CONTAINER_OF(exchange, struct xn_call, exchange);

    if (*upload_bytes > 0 && call->refused) {
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        enum MHD_Result r = receive(call, upload, *upload_bytes);
        *upload_bytes = 0;
        return r;
    }
    if (call->refused)
        return answer_failure(call, call->refused, &call->error);
    return call->working ? answer(call) : start_work(call);
}
