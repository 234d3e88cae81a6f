/* SPDX-License-Identifier: Apache-2.0
 * A body on its way into the buffer of its request: as it comes, or inflated piece by piece. The limit is on what arrives in the buffer, so a small body that inflates
 * to a large one is refused as soon as it has, and before memory for it is taken. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/number.h"
#include "daemon/http/internal.h"

#define FIRST_BYTES 4096u /* of the buffer of a body of unknown length */

/* A compressed body of `bytes`: how large it will be is not known, the state to inflate it is needed now. */
static int begin_inflating(struct xn_call *call, uint64_t *bytes)
{
    call->codec = xn_pool_take(call->http->codecs);
    if (!call->codec)
        return xn_error_set(&call->error, -EAGAIN, "too many compressed bodies are under way; try again later");
    *bytes = XN_MIN(XN_MAX(4 * *bytes, FIRST_BYTES), call->limit_bytes);
    int r = xn_inflate_begin(call->codec, call->coding);
    return r < 0 ? xn_error_set(&call->error, r, "no memory to inflate a body") : 0;
}

int xn_body_begin(struct xn_call *call)
{
    const char *length = call->headers.content_length;
    uint64_t bytes = XN_MIN(FIRST_BYTES, call->limit_bytes);

    /* MHD has checked the header's form; a number beyond 64 bits does not get here. */
    if (length && !xn_number_u64(length, 0, UINT64_MAX, &bytes))
        return xn_error_set(&call->error, -EINVAL, "Content-Length: not a number");
    if (bytes > call->limit_bytes)
        return xn_error_set(&call->error, -EFBIG, "a body of %" PRIu64 " bytes is larger than the limit of %" PRIu64,
                            bytes, call->limit_bytes);
    int r = call->coding == XN_CODING_IDENTITY ? 0 : begin_inflating(call, &bytes);
    if (r < 0)
        return r;
    r = xn_request_buf_take(call->request, bytes > 0 ? bytes : 1, &call->request->body);
    if (r == -ENOBUFS)
        return xn_error_set(&call->error, -EAGAIN, "no buffer for a body of %" PRIu64 " bytes is free; try again later",
                            bytes);
    return r < 0 ? xn_error_set(&call->error, r, "a body of %" PRIu64 " bytes does not fit any buffer", bytes) : 0;
}

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

static int append(struct xn_call *call, const void *data, size_t bytes)
{
    struct xn_request *request = call->request;
    size_t room = XN_MIN(request->body.capacity_bytes, call->limit_bytes) - request->body_bytes;
    int r = bytes > room ? grow_body(call, request->body_bytes + bytes) : 0;

    if (r < 0)
        return r;
    memcpy(request->body.data + request->body_bytes, data, bytes);
    request->body_bytes += bytes;
    return 0;
}

/* Straight into the body's buffer. Where that is full, first aside: whether more comes at all decides whether it has to grow, or is over the limit. */
static int inflate_some(struct xn_call *call, const uint8_t **in, size_t *in_bytes, bool *ret_more)
{
    struct xn_request *request = call->request;
    size_t room = XN_MIN(request->body.capacity_bytes, call->limit_bytes) - request->body_bytes;
    uint8_t aside[512];
    size_t out_bytes = room ? room : sizeof(aside);

    ssize_t n =
        xn_inflate(call->codec, in, in_bytes, room ? request->body.data + request->body_bytes : aside, out_bytes);
    if (n < 0)
        return xn_error_set(&call->error, (int)n, "the body is not valid %s, or goes on after its end",
                            xn_coding_name(call->coding));
    *ret_more = (size_t)n == out_bytes || *in_bytes > 0;
    if (room)
        request->body_bytes += (size_t)n;
    return room ? 0 : append(call, aside, (size_t)n);
}

static int append_inflated(struct xn_call *call, const uint8_t *in, size_t in_bytes)
{
    bool more = true;
    int r = 0;

    while (r >= 0 && more)
        r = inflate_some(call, &in, &in_bytes, &more);
    return r;
}

int xn_body_receive(struct xn_call *call, const void *data, size_t bytes)
{
    return call->codec ? append_inflated(call, data, bytes) : append(call, data, bytes);
}

/* The body is there as a whole; so must be what it was compressed from. */
int xn_body_end(struct xn_call *call)
{
    bool complete = !call->codec || xn_inflate_complete(call->codec);

    xn_pool_give(call->http->codecs, call->codec);
    call->codec = NULL;
    return complete ? 0 : xn_error_set(&call->error, -EINVAL, "the %s body is cut short", xn_coding_name(call->coding));
}
