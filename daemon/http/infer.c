/* SPDX-License-Identifier: Apache-2.0
 * A POST that asks for inference, from its first header to its answer. Runs on the epoll thread of its connection; only request_done runs
 * elsewhere. See struct xn_call for the states.
 *
 * Everything that can be told from the headers is refused on the first callback, before MHD has read the body. Once a body is being received MHD takes
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

#define CHUNKED_FIRST 4096u /* first buffer of a body of unknown length */

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
                  {"X-Request-Id", offsetof(struct xn_headers, request_id)},
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

    MHD_get_connection_values(call->connection, MHD_HEADER_KIND, collect_header, h);
    if (h->repeated)
        return xn_error_set(&call->error, -EINVAL, "a header that may come once came twice, with different values");
    if (h->transfer_encoding && strcasecmp(h->transfer_encoding, "chunked") != 0)
        return xn_error_set(&call->error, -EOPNOTSUPP, "Transfer-Encoding %.32s is not supported; send it chunked",
                            h->transfer_encoding);
    if (h->transfer_encoding && h->content_length)
        return xn_error_set(&call->error, -EINVAL, "Content-Length and Transfer-Encoding in one request");
    if (h->content_encoding && strcasecmp(h->content_encoding, "identity") != 0)
        return xn_error_set(&call->error, -EOPNOTSUPP, "Content-Encoding %.32s is not supported; send the body plain",
                            h->content_encoding);
    return 0;
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

static int read_arguments(struct xn_call *call)
{
    const char *top_k = argument(call->connection, "top_k"), *timeout = argument(call->connection, "timeout_ms");
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

    call->limit_bytes = json ? config->limits.json_bytes : config->limits.body_bytes;
    if (call->header_bytes > (int64_t)config->limits.json_bytes)
        return xn_error_set(&call->error, -EFBIG,
                            "Inference-Header-Content-Length: %" PRId64
                            " bytes of JSON are larger than the limit of %" PRIu64 " (limits.json_bytes)",
                            call->header_bytes, config->limits.json_bytes);
    return 0;
}

static int take_body_buffer(struct xn_call *call)
{
    const char *length = call->headers.content_length;
    uint64_t bytes = XN_MIN(CHUNKED_FIRST, call->limit_bytes);

    /* MHD has checked the header's form; a number beyond 64 bits does not get here. */
    if (length && !xn_number_u64(length, 0, UINT64_MAX, &bytes))
        return xn_error_set(&call->error, -EINVAL, "Content-Length: not a number");
    if (bytes > call->limit_bytes)
        return xn_error_set(&call->error, -EFBIG, "a body of %" PRIu64 " bytes is larger than the limit of %" PRIu64,
                            bytes, call->limit_bytes);
    int r = xn_request_buf_take(call->request, bytes > 0 ? bytes : 1, &call->request->body);
    if (r == -ENOBUFS)
        return xn_error_set(&call->error, -EAGAIN, "no buffer for a body of %" PRIu64 " bytes is free; try again later",
                            bytes);
    return r < 0 ? xn_error_set(&call->error, r, "a body of %" PRIu64 " bytes does not fit any buffer", bytes) : 0;
}

static int admit(struct xn_call *call, const char *model_name, const char *version)
{
    struct xn_http *http = call->http;
    struct xn_model *model = xn_models_get(http->next.models, model_name);

    if (!model)
        return xn_error_set(&call->error, -ENOENT, "no model is called \"%.64s\"; GET / lists those there are",
                            model_name ? model_name : "");
    if (version && strcmp(version, model->network->version) != 0) {
        xn_error_set(&call->error, -ENOENT, "model %s has version %s, not %.16s", model->name, model->network->version,
                     version);
        xn_model_unref(model);
        return -ENOENT;
    }
    call->request = xn_request_new(http->next.requests);
    if (!call->request) {
        xn_model_unref(model);
        return xn_error_set(&call->error, -EAGAIN,
                            "as many requests as limits.requests allows are under way; try again later");
    }
    call->request->model = model;
    call->request->user = call;
    call->request->start_ns = xn_clock_now_ns();
    int r = http->next.admit(http->next.user, model, 1);
    if (r == -ESHUTDOWN)
        return xn_error_set(&call->error, r, "the server is stopping");
    if (r < 0)
        return xn_error_set(&call->error, r, "model %s: its queue is full; try again later", model->name);
    call->announced = 1;
    return 0;
}

static int begin(struct xn_call *call, const char *model_name, const char *version)
{
    int r = read_headers(call);

    copy_request_id(call);
    if (r >= 0)
        r = read_arguments(call);
    if (r >= 0)
        r = set_limit(call);
    if (r >= 0)
        r = admit(call, model_name ? model_name : argument(call->connection, "model"), version);
    return r < 0 ? r : take_body_buffer(call);
}

/* Refused: MHD ends the connection after the answer, as it has not read the body. */
static enum MHD_Result refuse(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              struct xn_link *link, uint64_t start_ns, int code, const struct xn_error *error,
                              const char *request_id)
{
    if (link)
        link->linger = true;
    return xn_http_answer_error(http, connection, route, start_ns, code, error, request_id, NULL);
}

enum MHD_Result xn_call_begin(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              struct xn_link *link, const char *model_name, const char *version, void **ret_call)
{
    uint64_t start_ns = xn_clock_now_ns();
    struct xn_call *call = xn_pool_take(http->calls);
    struct xn_error error;

    if (!call) {
        xn_error_set(&error, -EAGAIN, "too many requests are under way; try again later");
        return refuse(http, connection, route, link, start_ns, -EAGAIN, &error, NULL);
    }
    memset(call, 0, sizeof(*call));
    call->http = http;
    call->connection = connection;
    call->link = link;
    call->route = route;
    int r = begin(call, model_name, version);
    if (r < 0) {
        enum MHD_Result queued = refuse(http, connection, route, link, start_ns, r, &call->error, call->request_id);
        xn_call_end(call);
        return queued;
    }
    *ret_call = call;
    return xn_link_enter(link, XN_PHASE_BODY, start_ns) ? MHD_YES : MHD_NO;
}

void xn_call_end(struct xn_call *call)
{
    struct xn_http *http = call->http;

    if (call->announced > 0)
        http->next.retract(http->next.user, call->request->model, call->announced);
    xn_request_unref(call->request);
    xn_pool_give(http->calls, call);
}

/* ---- receive ------------------------------------------------------------------------------------------------------ */

/* A body of unknown length has outgrown its buffer: move to the next size. */
static int grow_body(struct xn_call *call, size_t need)
{
    struct xn_request *request = call->request;
    struct xn_buf old = request->body, larger;

    if (need > call->limit_bytes)
        return xn_error_set(&call->error, -EFBIG, "the body is larger than the limit of %" PRIu64 " bytes",
                            call->limit_bytes);
    int r = xn_request_buf_take(request, XN_MIN(XN_MAX(need, 4 * old.capacity_bytes), call->limit_bytes), &larger);
    if (r < 0)
        return xn_error_set(&call->error, -EAGAIN, "no buffer for a body of %zu bytes is free; try again later", need);
    memcpy(larger.data, old.data, request->body_bytes);
    request->body = larger;
    xn_request_buf_give(request, &old);
    return 0;
}

static enum MHD_Result receive(struct xn_call *call, const char *upload, size_t bytes)
{
    struct xn_request *request = call->request;

    if (bytes > request->body.capacity_bytes - request->body_bytes || bytes > call->limit_bytes - request->body_bytes) {
        int r = grow_body(call, request->body_bytes + bytes);
        if (r < 0) {
            xn_http_answer_cut(call->http, call->link, call->route, request->start_ns, r, &call->error);
            return MHD_NO;
        }
    }
    memcpy(request->body.data + request->body_bytes, upload, bytes);
    request->body_bytes += bytes;
    return MHD_YES;
}

/* ---- work --------------------------------------------------------------------------------------------------------- */

static int parse_body(struct xn_call *call)
{
    const char *content_type = call->headers.content_type;

    if (call->route == XN_ROUTE_V2_INFER)
        return xn_body_parse_v2(call->request, call->header_bytes, &call->ask, &call->error);
    if (is_type(content_type, "application/json"))
        return xn_body_parse_json(call->request, &call->ask, &call->error);
    if (is_type(content_type, "multipart/form-data"))
        return xn_body_parse_multipart(call->request, content_type, &call->error);
    return xn_body_parse_plain(call->request, content_type, &call->error);
}

/* One item was admitted at the first header; the others, if there are more, now. */
static int admit_rest(struct xn_call *call)
{
    struct xn_http *http = call->http;
    const struct xn_model *model = call->request->model;
    uint32_t more = call->request->n_items - 1;

    if (more == 0)
        return 0;
    int r = http->next.admit(http->next.user, model, more);
    if (r < 0)
        return xn_error_set(&call->error, r,
                            r == -ESHUTDOWN ? "the server is stopping"
                                            : "model %s: no room for %u images in its queue; try again later",
                            model->name, more + 1);
    call->announced += more;
    return 0;
}

/* The last item has settled: back to the epoll thread. Any thread; must not touch the call afterwards, it may be answered and gone. */
static void request_done(struct xn_request *request)
{
    struct xn_call *call = request->user;

    MHD_resume_connection(call->connection);
}

static enum MHD_Result answer_failure(struct xn_call *call, int code, const struct xn_error *error)
{
    (void)xn_link_enter(call->link, XN_PHASE_SEND, xn_clock_now_ns());
    return xn_http_answer_error(call->http, call->connection, call->route, call->request->start_ns, code, error,
                                call->request_id, NULL);
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
    int r = parse_body(call);
    if (r >= 0)
        r = admit_rest(call);
    if (r >= 0)
        r = check_answer(call);
    if (r < 0)
        return answer_failure(call, r, &call->error);
    uint64_t timeout_ns = call->ask.timeout_ns ? call->ask.timeout_ns : request->model->timeout_ms * XN_NS_PER_MS;
    request->deadline_ns = request->start_ns + timeout_ns;
    request->done = request_done;
    xn_metrics_stage(http->next.metrics, request->model->slot, XN_STAGE_RECEIVE,
                     request->received_ns - request->start_ns);
    call->working = true;
    call->announced = 0; /* they are submit's now */
    /* Suspended first: the items may settle, and resume it, before submit returns. */
    MHD_suspend_connection(call->connection);
    http->next.submit(http->next.user, request);
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
    xn_metrics_stage(metrics, slot, XN_STAGE_RESPOND,
                     xn_clock_now_ns() - request->items[request->n_items - 1].execute_end_ns);
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

static enum MHD_Result answer_results(struct xn_call *call)
{
    struct xn_request *request = call->request;
    struct xn_answer answer = {.code = 200, .request_id = call->request_id};
    struct xn_error error;
    struct xn_text text;

    int r = take_answer_buffer(call, &error);
    if (r < 0)
        return answer_failure(call, r, &error);
    xn_text_init(&text, request->body.data, request->body.capacity_bytes);
    if (call->route == XN_ROUTE_V2_INFER) {
        answer.header_bytes = (int64_t)xn_results_write_v2(call, &text);
        answer.content_type = answer.header_bytes ? "application/octet-stream" : "application/json";
    } else {
        xn_results_write_infer(call, &text);
    }
    assert(!text.overflow); /* xn_results_capacity says so */
    observe_stages(call);
    (void)xn_link_enter(call->link, XN_PHASE_SEND, xn_clock_now_ns());
    return xn_http_answer(call->http, call->connection, call->route, request->start_ns, &answer, text.data, text.bytes,
                          XN_BODY_STAYS);
}

static enum MHD_Result answer(struct xn_call *call)
{
    struct xn_error error = {{0}};
    int r = first_failure(call, &error);

    return r < 0 ? answer_failure(call, r, &error) : answer_results(call);
}

enum MHD_Result xn_call_continue(struct xn_call *call, const char *upload, size_t *upload_bytes)
{
    if (*upload_bytes > 0) {
        enum MHD_Result r = receive(call, upload, *upload_bytes);
        *upload_bytes = 0;
        return r;
    }
    return call->working ? answer(call) : start_work(call);
}
