/* SPDX-License-Identifier: Apache-2.0
 * Requests with a small body that ask for no inference: they manage the server. Each is read whole into its own buffer, and its handler answers, or suspends the connection until
 * another thread has done the work. */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

static enum MHD_Result receive(struct xn_post *post, const char *upload, size_t bytes)
{
    int r = xn_intake_receive(&post->intake, upload, bytes);

    if (r >= 0)
        return MHD_YES;
    xn_http_answer_cut(post->http, post->link, post->route, post->start_ns, r, &post->error);
    return MHD_NO;
}

static enum MHD_Result complete(struct xn_post *post)
{
    int r = xn_intake_end(&post->intake);

    return r < 0 ? xn_post_fail(post, r) : post->handle(post);
}

static enum MHD_Result post_go(struct xn_exchange *exchange, const char *upload, size_t *upload_bytes)
{
    struct xn_post *post = XN_CONTAINER_OF(exchange, struct xn_post, exchange);
    enum MHD_Result result = MHD_NO;

    if (*upload_bytes > 0) {
        result = receive(post, upload, *upload_bytes);
        *upload_bytes = 0;
    } else if (xn_link_enter(post->link, XN_PHASE_SEND, xn_clock_now_ns())) {
        result = post->answer ? post->answer(post) : complete(post);
    }
    return result;
}

static void post_end(struct xn_exchange *exchange)
{
    struct xn_post *post = XN_CONTAINER_OF(exchange, struct xn_post, exchange);

    xn_intake_done(&post->intake);
    xn_pool_give(post->http->posts, post);
}

/* Before the body is read; MHD ends the connection after the answer. */
static enum MHD_Result refuse(const struct xn_get *get, int code, const struct xn_error *error)
{
    if (get->link)
        get->link->linger = true;
    return xn_http_answer_error(get->http, get->connection, get->route, xn_clock_now_ns(), code, error, NULL);
}

static int check_headers(const struct xn_get *get, enum xn_coding *ret_coding, struct xn_error *error)
{
    uint64_t bytes = 0;
    int r =
        xn_intake_length(MHD_lookup_connection_value(get->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH),
                         XN_POST_BYTES_MAX, &bytes, error);

    if (r < 0)
        return r;
    return xn_intake_coding(
        MHD_lookup_connection_value(get->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_ENCODING), ret_coding,
        error);
}

static int begin_intake(struct xn_post *post, enum xn_coding coding)
{
    post->into = (struct xn_buf){.data = (uint8_t *)post->body, .capacity_bytes = sizeof(post->body)};
    post->intake = (struct xn_intake){.coding = coding,
                                      .limit_bytes = XN_POST_BYTES_MAX,
                                      .codecs = post->http->codecs,
                                      .into = &post->into,
                                      .bytes = &post->bytes,
                                      .error = &post->error};
    return xn_intake_begin(&post->intake);
}

enum MHD_Result xn_post_begin(const struct xn_get *get, enum MHD_Result (*handle)(struct xn_post *post),
                              void **ret_call)
{
    struct xn_error error;
    struct xn_post *post;
    enum xn_coding coding;
    int r = check_headers(get, &coding, &error);

    if (r < 0)
        return refuse(get, r, &error);
    post = xn_pool_take(get->http->posts);
    if (!post) {
        xn_error_set(&error, -EAGAIN, "%u requests to the server's management are under way; try again later",
                     XN_POSTS_MAX);
        return refuse(get, -EAGAIN, &error);
    }
    memset(post, 0, offsetof(struct xn_post, body));
    post->exchange = (struct xn_exchange){.go = post_go, .end = post_end, .connection = get->connection};
    post->http = get->http;
    post->link = get->link;
    post->route = get->route;
    post->handle = handle;
    post->start_ns = xn_clock_now_ns();
    memcpy(post->segments, get->segments, sizeof(post->segments));
    r = begin_intake(post, coding);
    if (r < 0) {
        error = post->error;
        post_end(&post->exchange);
        return refuse(get, r, &error);
    }
    *ret_call = &post->exchange;
    return xn_link_enter(get->link, XN_PHASE_BODY, post->start_ns) ? MHD_YES : MHD_NO;
}

/* ---- for handlers ------------------------------------------------------------------------------------------------- */

int xn_post_json(struct xn_post *post, json_t **ret_object)
{
    static const char empty[] = "{}";

    if (post->bytes == 0)
        return xn_body_load_json(empty, sizeof(empty) - 1, NULL, ret_object, &post->error);
    return xn_body_load_json(post->body, post->bytes, NULL, ret_object, &post->error);
}

int xn_post_allowed(struct xn_post *post)
{
    if (atomic_load_explicit(&post->http->quiesced_ns, memory_order_relaxed) != XN_NEVER_NS)
        return xn_error_set(&post->error, -ESHUTDOWN, "the server is stopping");
    if (post->http->config->repository.control == XN_CONTROL_EXPLICIT)
        return 0;
    return xn_error_set(&post->error, -EPERM,
                        "this server is not changed over HTTP; to allow it set repository.control to \"explicit\"");
}

enum MHD_Result xn_post_answer(struct xn_post *post, unsigned code, json_t *value)
{
    return xn_http_answer_json(post->http, post->exchange.connection, post->route, post->start_ns, code, value);
}

enum MHD_Result xn_post_answer_empty(struct xn_post *post)
{
    struct xn_answer answer = {.code = 200, .no_store = true};

    return xn_http_answer(post->http, post->exchange.connection, post->route, post->start_ns, &answer, "", 0,
                          XN_BODY_STAYS);
}

enum MHD_Result xn_post_fail(struct xn_post *post, int code)
{
    return xn_http_answer_error(post->http, post->exchange.connection, post->route, post->start_ns, code, &post->error,
                                NULL);
}

/* Suspended first: the work may end, and resume it, before the one who handed it on returns. */
void xn_post_suspend(struct xn_post *post, enum MHD_Result (*answer)(struct xn_post *post))
{
    post->answer = answer;
    (void)xn_link_enter(post->link, XN_PHASE_WORK, xn_clock_now_ns()); /* swept meanwhile: it ends after the work */
    xn_loop_suspend(&post->exchange, NULL);
}

/* Must not touch the request after the resumption, it may be answered and gone. */
void xn_post_resume(struct xn_post *post, int status, const struct xn_error *error)
{
    post->status = status;
    if (status < 0)
        post->error = *error;
    xn_loop_resume(&post->exchange);
}
