/* SPDX-License-Identifier: Apache-2.0
 * The table of routes. A pattern's {} matches one path segment, percent-decoded by MHD.
 *
 * MHD ends a connection whose request is answered on the first callback. That is right where a body is refused; everything else is answered on the second, so that
 * clients who scrape or probe keep their connection. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

static char reading;
void *const xn_http_reading = &reading;

enum kind { READ, INFER };

static const struct route {
    const char *pattern;
    enum kind kind;
    enum xn_route route;
    unsigned roles; /* of a token, one of which is enough; where both methods are taken POST wants XN_ROLE_ADMIN */
    enum MHD_Result (*page)(struct xn_get *get);   /* READ: GET; NULL: not with it */
    enum MHD_Result (*post)(struct xn_post *post); /* READ: POST; NULL: not with it */
} routes[] = {
    {"/infer", INFER, XN_ROUTE_INFER, XN_ROLE_INFER, NULL, NULL},
    {"/v2/models/{}/infer", INFER, XN_ROUTE_V2_INFER, XN_ROLE_INFER, NULL, NULL},
    {"/v2/models/{}/versions/{}/infer", INFER, XN_ROUTE_V2_INFER, XN_ROLE_INFER, NULL, NULL},
    {"/", READ, XN_ROUTE_INDEX, XN_ROLE_ANY, xn_page_index, NULL},
    {"/healthz", READ, XN_ROUTE_HEALTH, XN_ROLE_ANYONE, xn_page_healthz, NULL},
    {"/readyz", READ, XN_ROUTE_HEALTH, XN_ROLE_ANYONE, xn_page_readyz, NULL},
    {"/metrics", READ, XN_ROUTE_METRICS, XN_ROLE_READ, xn_page_metrics, NULL},
    {"/v1/status", READ, XN_ROUTE_INDEX, XN_ROLE_READ, xn_page_status, NULL},
    {"/v2", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2, NULL},
    {"/v2/health/live", READ, XN_ROUTE_V2, XN_ROLE_ANYONE, xn_page_v2_live, NULL},
    {"/v2/health/ready", READ, XN_ROUTE_V2, XN_ROLE_ANYONE, xn_page_v2_ready, NULL},
    {"/v2/models/stats", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_v2_model_stats, NULL},
    {"/v2/models/{}", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model, NULL},
    {"/v2/models/{}/ready", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model_ready, NULL},
    {"/v2/models/{}/config", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model_config, NULL},
    {"/v2/models/{}/stats", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_v2_model_stats, NULL},
    {"/v2/models/{}/versions/{}", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model, NULL},
    {"/v2/models/{}/versions/{}/ready", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model_ready, NULL},
    {"/v2/models/{}/versions/{}/config", READ, XN_ROUTE_V2, XN_ROLE_ANY, xn_page_v2_model_config, NULL},
    {"/v2/models/{}/versions/{}/stats", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_v2_model_stats, NULL},
    {"/v2/repository/index", READ, XN_ROUTE_V2, XN_ROLE_READ, NULL, xn_post_index},
    {"/v2/repository/models/{}/load", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_load},
    {"/v2/repository/models/{}/unload", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_unload},
    {"/v2/trace/setting", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_trace, xn_post_trace},
    {"/v2/models/{}/trace/setting", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_trace, xn_post_trace},
    {"/v2/logging", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_logging, xn_post_logging},
    {"/v2/systemsharedmemory/status", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_shared_status, NULL},
    {"/v2/systemsharedmemory/unregister", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_shared_unregister},
    {"/v2/systemsharedmemory/region/{}/status", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_shared_status, NULL},
    {"/v2/systemsharedmemory/region/{}/register", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_shared_register},
    {"/v2/systemsharedmemory/region/{}/unregister", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_shared_unregister},
    {"/v2/cudasharedmemory/status", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_cuda_status, NULL},
    {"/v2/cudasharedmemory/unregister", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_cuda_unregister},
    {"/v2/cudasharedmemory/region/{}/status", READ, XN_ROUTE_V2, XN_ROLE_READ, xn_page_cuda_status, NULL},
    {"/v2/cudasharedmemory/region/{}/register", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_cuda_register},
    {"/v2/cudasharedmemory/region/{}/unregister", READ, XN_ROUTE_V2, XN_ROLE_ADMIN, NULL, xn_post_cuda_unregister},
};

/* Does `url` match? Segments go to ret; one that is too long for any name matches as "/", which nothing can be called. */
static bool match(const char *pattern, const char *url, char (*ret)[XN_SEGMENT_BYTES])
{
    size_t n = 0;

    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *url++)
                return false;
            continue;
        }
        size_t length = strcspn(url, "/");
        if (length == 0)
            return false;
        if (length < XN_SEGMENT_BYTES)
            memcpy(ret[n], url, length);
        else
            ret[n][0] = '/';
        n++;
        url += length;
        pattern += 2;
    }
    return *url == '\0' || strcmp(url, "/") == 0;
}

static const struct route *find_route(const char *url, char (*ret)[XN_SEGMENT_BYTES])
{
    for (size_t i = 0; i < XN_ARRAY_LEN(routes); i++) {
        memset(ret, 0, 4 * XN_SEGMENT_BYTES);
        if (match(routes[i].pattern, url, ret))
            return &routes[i];
    }
    return NULL;
}

/* No such route or method. Where a body comes with the request it is not read, and MHD ends the connection after the answer. */
static enum MHD_Result refuse(struct xn_get *get, int code, const char *url, const char *method, const char *allow)
{
    struct xn_error error;

    if (code == -ENXIO)
        xn_error_set(&error, code, "nothing is served at %.128s; GET / says what is", url);
    else
        xn_error_set(&error, code, "%.128s does not take %.16s; it takes %s", url, method, allow);
    return xn_http_answer_error(get->http, get->connection, XN_ROUTE_OTHER, get->start_ns, code, &error,
                                &(struct xn_answer){.allow = allow});
}

/* Does a body come with the request? */
static bool has_body(struct MHD_Connection *connection)
{
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return (length && strcmp(length, "0") != 0) ||
           MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING);
}

/* RFC 9112, 3.2.2: a server takes the absolute form of a target too. */
static const char *path_of(const char *url)
{
    if (strncasecmp(url, "http://", 7) != 0)
        return url;
    const char *path = strchr(url + 7, '/');
    return path ? path : "/";
}

/* An inference request that is not to be answered. Its body is not read, and MHD ends the connection after the answer. */
static enum MHD_Result turn_away(struct xn_get *get, const struct route *route, int code, const struct xn_error *error,
                                 unsigned retry_after_s)
{
    if (get->link)
        get->link->linger = true;
    return xn_http_answer_error(get->http, get->connection, route->route, get->start_ns, code, error,
                                &(struct xn_answer){.retry_after_s = retry_after_s});
}

static enum MHD_Result begin_call(struct xn_get *get, const struct route *route, void **call)
{
    const char *model = route->route == XN_ROUTE_V2_INFER ? get->segments[0] : NULL;
    const char *version = get->segments[1][0] ? get->segments[1] : NULL;
    struct xn_error error;
    struct xn_who who;
    unsigned retry_after_s;

    get->start_ns = xn_clock_now_ns();
    int r = xn_http_allowed(get->http, get->connection, get->link, route->roles, &who, &retry_after_s, &error);
    if (r < 0)
        return turn_away(get, route, r, &error, retry_after_s);
    return xn_call_begin(get->http, get->connection, route->route, get->link, &who, model, version, call);
}

static enum MHD_Result begin_post(struct xn_get *get, const struct route *route, void **call)
{
    unsigned roles = route->page ? XN_ROLE_ADMIN : route->roles, retry_after_s;
    struct xn_error error;
    struct xn_who who;

    get->start_ns = xn_clock_now_ns();
    get->route = route->route;
    int r = xn_http_allowed(get->http, get->connection, get->link, roles, &who, &retry_after_s, &error);
    if (r < 0)
        return turn_away(get, route, r, &error, retry_after_s);
    xn_http_left(&who);
    return xn_post_begin(get, route->post, call);
}

/* The page, where whoever asks may see it. */
static enum MHD_Result answer_page(struct xn_get *get, const struct route *route)
{
    struct xn_error error;
    struct xn_who who;
    unsigned retry_after_s;

    get->route = route->route;
    int r = xn_http_allowed(get->http, get->connection, get->link, route->roles, &who, &retry_after_s, &error);
    if (r < 0)
        return xn_http_answer_error(get->http, get->connection, route->route, get->start_ns, r, &error,
                                    &(struct xn_answer){.retry_after_s = retry_after_s});
    enum MHD_Result result = route->page(get);
    xn_http_left(&who);
    return result;
}

static enum MHD_Result answer_read(struct xn_get *get, const struct route *route, const char *url, const char *method)
{
    bool reads = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;

    get->start_ns = xn_clock_now_ns();
    if (!xn_link_enter(get->link, XN_PHASE_SEND, get->start_ns))
        return MHD_NO;
    if (!route)
        return refuse(get, -ENXIO, url, method, NULL);
    if (!route->page)
        return refuse(get, -ENOTTY, url, method, "POST");
    if (!reads)
        return refuse(get, -ENOTTY, url, method, route->post ? "GET, HEAD, POST" : "GET, HEAD");
    return answer_page(get, route);
}

enum MHD_Result xn_http_handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *upload, size_t *upload_bytes, void **call)
{
    struct xn_http *http = cls;
    struct xn_get get = {.http = http, .connection = connection};

    (void)version;
    if (*call && *call != xn_http_reading)
        return ((struct xn_exchange *)*call)->go(*call, upload, upload_bytes);
    url = path_of(url);
    const struct route *route = find_route(url, get.segments);
    get.link = xn_link_of(connection);
    if (route && route->kind == INFER && strcmp(method, MHD_HTTP_METHOD_POST) == 0)
        return begin_call(&get, route, call);
    if (route && route->post && strcmp(method, MHD_HTTP_METHOD_POST) == 0)
        return begin_post(&get, route, call);
    if (*call || has_body(connection)) {
        if (!*call && get.link)
            get.link->linger = true;
        return answer_read(&get, route, url, method);
    }
    *call = xn_http_reading;
    return MHD_YES;
}
