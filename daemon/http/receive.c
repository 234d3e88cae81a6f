/* SPDX-License-Identifier: Apache-2.0
 * A body on its way into a buffer: as it comes, or inflated piece by piece. The limit is on what arrives in the buffer, so a small body that inflates to a large one is refused as
 * soon as it has, and before memory for it is taken. One mechanism (struct xn_intake) for the bodies of inference, whose buffers grow, and the small ones of management. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/number.h"
#include "daemon/http/internal.h"

#define FIRST_BYTES 4096u /* of the buffer of a body of unknown length */

/* ---- any body ----------------------------------------------------------------------------------------------------- */

int xn_intake_coding(const char *content_encoding, enum xn_coding *ret_coding, struct xn_error *error)
{
    if (xn_coding_parse(content_encoding, ret_coding) < 0)
        return xn_error_set(error, -EOPNOTSUPP, "Content-Encoding %.32s is not supported; these are: " XN_CODINGS,
                            content_encoding);
    return 0;
}

int xn_intake_length(const char *content_length, uint64_t limit_bytes, uint64_t *ret_bytes, struct xn_error *error)
{
    /* MHD has checked the header's form; a number beyond 64 bits does not get here. */
    if (content_length && !xn_number_u64(content_length, 0, UINT64_MAX, ret_bytes))
        return xn_error_set(error, -EINVAL, "Content-Length: not a number");
    if (*ret_bytes > limit_bytes)
        return xn_error_set(error, -EFBIG, "a body of %" PRIu64 " bytes is larger than the limit of %" PRIu64,
                            *ret_bytes, limit_bytes);
    return 0;
}

int xn_intake_begin(struct xn_intake *intake)
{
    if (intake->coding == XN_CODING_IDENTITY)
        return 0;
    intake->codec = xn_pool_take(intake->codecs);
    if (!intake->codec)
        return xn_error_set(intake->error, -EAGAIN, "too many compressed bodies are under way; try again later");
    int r = xn_inflate_begin(intake->codec, intake->coding);
    return r < 0 ? xn_error_set(intake->error, r, "no memory to inflate a body") : 0;
}

static size_t room_of(const struct xn_intake *intake)
{
    return XN_MIN(intake->into->capacity_bytes, intake->limit_bytes) - *intake->bytes;
}

static int append(struct xn_intake *intake, const void *data, size_t bytes)
{
    if (bytes > intake->limit_bytes - *intake->bytes)
        return xn_error_set(intake->error, -EFBIG, "the body is larger than the limit of %" PRIu64 " bytes",
                            intake->limit_bytes);
    int r = bytes > room_of(intake) ? intake->grow(intake, *intake->bytes + bytes) : 0;
    if (r < 0)
        return r;
    memcpy(intake->into->data + *intake->bytes, data, bytes);
    *intake->bytes += bytes;
    return 0;
}

/* Straight into the body's buffer. Where that is full, first aside: whether more comes at all decides whether it has to grow, or is over the limit. */
static int inflate_some(struct xn_intake *intake, const uint8_t **in, size_t *in_bytes, bool *ret_more)
{
    size_t room = room_of(intake);
    uint8_t aside[512];
    size_t out_bytes = room ? room : sizeof(aside);

    ssize_t n = xn_inflate(intake->codec, in, in_bytes, room ? intake->into->data + *intake->bytes : aside, out_bytes);
    if (n < 0)
        return xn_error_set(intake->error, (int)n, "the body is not valid %s, or goes on after its end",
                            xn_coding_name(intake->coding));
    *ret_more = (size_t)n == out_bytes || *in_bytes > 0;
    if (room)
        *intake->bytes += (size_t)n;
    return room ? 0 : append(intake, aside, (size_t)n);
}

int xn_intake_receive(struct xn_intake *intake, const void *data, size_t bytes)
{
    const uint8_t *in = data;
    bool more = true;
    int r = 0;

    if (!intake->codec)
        return append(intake, data, bytes);
    while (r >= 0 && more)
        r = inflate_some(intake, &in, &bytes, &more);
    return r;
}

int xn_intake_end(struct xn_intake *intake)
{
    bool complete = !intake->codec || xn_inflate_complete(intake->codec);

    xn_intake_done(intake);
    return complete ? 0
                    : xn_error_set(intake->error, -EINVAL, "the %s body is cut short", xn_coding_name(intake->coding));
}

void xn_intake_done(struct xn_intake *intake)
{
    if (intake->codec)
        xn_pool_give(intake->codecs, intake->codec);
    intake->codec = NULL;
}

/* ---- that of a call ----------------------------------------------------------------------------------------------- */

/* A body of unknown length has outgrown its buffer: move to the next size. */
static int grow_body(struct xn_intake *intake, size_t need)
{
    struct xn_request *request = XN_CONTAINER_OF(intake, struct xn_call, intake)->request;
    struct xn_buf old = request->body, larger;

    int r = xn_request_buf_take(request, XN_MIN(XN_MAX(need, 4 * old.capacity_bytes), intake->limit_bytes), &larger);
    if (r < 0)
        return xn_error_set(intake->error, -EAGAIN, "no buffer for a body of %zu bytes is free; try again later", need);
    memcpy(larger.data, old.data, request->body_bytes);
    request->body = larger;
    xn_request_buf_give(request, &old);
    return 0;
}

int xn_body_begin(struct xn_call *call)
{
    struct xn_intake *intake = &call->intake;
    uint64_t bytes = XN_MIN(FIRST_BYTES, intake->limit_bytes);

    int r = xn_intake_length(call->headers.content_length, intake->limit_bytes, &bytes, &call->error);
    if (r < 0)
        return r;
    intake->codecs = call->http->codecs;
    intake->into = &call->request->body;
    intake->bytes = &call->request->body_bytes;
    intake->grow = grow_body;
    intake->error = &call->error;
    r = xn_intake_begin(intake);
    if (r < 0)
        return r;
    if (intake->codec) /* how large it will be is not known */
        bytes = XN_MIN(XN_MAX(4 * bytes, FIRST_BYTES), intake->limit_bytes);
    r = xn_request_buf_take(call->request, bytes > 0 ? bytes : 1, &call->request->body);
    if (r == -ENOBUFS)
        return xn_error_set(&call->error, -EAGAIN, "no buffer for a body of %" PRIu64 " bytes is free; try again later",
                            bytes);
    return r < 0 ? xn_error_set(&call->error, r, "a body of %" PRIu64 " bytes does not fit any buffer", bytes) : 0;
}
