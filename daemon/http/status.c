/* SPDX-License-Identifier: Apache-2.0
 * See status.h. docs/http-api.md has the same table for people. */
#include "daemon/http/status.h"

#include <errno.h>

static const struct {
    int error;
    struct xn_status status;
} table[] = {
    {-EINVAL, {400, XN_REJECT_BAD_REQUEST, 0}},            /* malformed request or tensor */
    {-EBADMSG, {400, XN_REJECT_BAD_IMAGE, 0}},             /* truncated or corrupt image */
    {-EACCES, {401, XN_REJECT_UNAUTHORIZED, 0}},           /* no token, or one that is not known */
    {-EPERM, {403, XN_REJECT_FORBIDDEN, 0}},               /* the token's roles are not enough, or not here */
    {-ENOENT, {404, XN_REJECT_UNKNOWN_MODEL, 0}},          /* no such model */
    {-ENXIO, {404, XN_REJECT_NOT_FOUND, 0}},               /* no such route */
    {-ENOTTY, {405, XN_REJECT_METHOD, 0}},                 /* a route, but not with this method */
    {-ETIME, {408, XN_REJECT_SLOW_CLIENT, 0}},             /* the body took too long to arrive */
    {-EFBIG, {413, XN_REJECT_TOO_LARGE, 0}},               /* body or picture over its limit */
    {-E2BIG, {413, XN_REJECT_TOO_LARGE, 0}},               /* more images than allowed */
    {-EMSGSIZE, {413, XN_REJECT_TOO_LARGE, 0}},            /* no buffer is that large */
    {-EMEDIUMTYPE, {415, XN_REJECT_UNSUPPORTED_MEDIA, 0}}, /* neither JPEG nor PNG, CMYK ... */
    {-EOPNOTSUPP, {501, XN_REJECT_BAD_REQUEST, 0}},        /* an encoding or extension that is not there */
    {-EDQUOT, {429, XN_REJECT_SHARE, 1}},                  /* this client has its share of what waits */
    {-EUSERS, {429, XN_REJECT_CLIENT_LIMIT, 1}},           /* this client has reached a limit of its own */
    {-ENOBUFS, {503, XN_REJECT_QUEUE_FULL, 1}},            /* queue full */
    {-EBUSY, {503, XN_REJECT_DEADLINE, 1}},                /* it could not be done before its deadline */
    {-EAGAIN, {503, XN_REJECT_NO_BUFFER, 1}},              /* no request or buffer free */
    {-ENOMEM, {503, XN_REJECT_NO_BUFFER, 1}},
    {-ETIMEDOUT, {503, XN_REJECT_TIMEOUT, 0}}, /* the request's deadline passed */
    {-ESHUTDOWN, {503, XN_REJECT_SHUTDOWN, 0}},
    {-ECANCELED, {503, XN_REJECT_SHUTDOWN, 0}},
    {-EIO, {503, XN_REJECT_ACCELERATOR, 1}}, /* the accelerator failed, twice */
};

struct xn_status xn_status_of(int error)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(table); i++) {
        if (table[i].error == error)
            return table[i].status;
    }
    return (struct xn_status){500, XN_REJECT_INTERNAL, 0};
}

struct xn_status xn_status_configured(const struct xn_config *config, int error)
{
    struct xn_status status = xn_status_of(error);

    if (error == -ENOBUFS && config->http.queue_full_status == XN_QUEUE_FULL_429)
        status.code = 429;
    return status;
}
