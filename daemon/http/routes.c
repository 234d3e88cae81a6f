/* SPDX-License-Identifier: Apache-2.0
 * The table of routes. A pattern's {} matches one path segment, percent-decoded by MHD. */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

enum kind { READ, INFER };

static const struct route {
    const char *pattern;
    enum kind kind;
    enum xn_route route;
    enum MHD_Result (*page)(struct xn_get *get); /* READ */
} routes[] = {
    {"/infer", INFER, XN_ROUTE_INFER, NULL},
    {"/v2/models/{}/infer", INFER, XN_ROUTE_V2_INFER, NULL},
    {"/v2/models/{}/versions/{}/infer", INFER, XN_ROUTE_V2_INFER, NULL},
    {"/", READ, XN_ROUTE_INDEX, xn_page_index},
    {"/healthz", READ, XN_ROUTE_HEALTH, xn_page_healthz},
    {"/readyz", READ, XN_ROUTE_HEALTH, xn_page_readyz},
    {"/metrics", READ, XN_ROUTE_METRICS, xn_page_metrics},
    {"/v1/status", READ, XN_ROUTE_INDEX, xn_page_status},
    {"/v2", READ, XN_ROUTE_V2, xn_page_v2},
    {"/v2/health/live", READ, XN_ROUTE_V2, xn_page_v2_live},
    {"/v2/health/ready", READ, XN_ROUTE_V2, xn_page_v2_ready},
    {"/v2/models/{}", READ, XN_ROUTE_V2, xn_page_v2_model},
    {"/v2/models/{}/ready", READ, XN_ROUTE_V2, xn_page_v2_model_ready},
    {"/v2/models/{}/versions/{}", READ, XN_ROUTE_V2, xn_page_v2_model},
    {"/v2/models/{}/versions/{}/ready", READ, XN_ROUTE_V2, xn_page_v2_model_ready},
};

/* Does `url` match? Segments go to ret; one that is too long for any model's name matches as "", which no model is called. */
static bool match(const char *pattern, const char *url, char (*ret)[XN_MODEL_NAME_BYTES])
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
        if (length < XN_MODEL_NAME_BYTES)
            memcpy(ret[n], url, length);
        else
            ret[n][0] = '?';
        n++;
        url += length;
        pattern += 2;
    }
    return *url == '\0' || strcmp(url, "/") == 0;
}

static const struct route *find_route(const char *url, char (*ret)[XN_MODEL_NAME_BYTES])
{
    for (size_t i = 0; i < XN_ARRAY_LEN(routes); i++) {
        memset(ret, 0, 4 * XN_MODEL_NAME_BYTES);
        if (match(routes[i].pattern, url, ret))
            return &routes[i];
    }
    return NULL;
}

static enum MHD_Result refuse(struct xn_http *http, struct MHD_Connection *connection, int code, const char *url,
                              const char *method, const char *allow)
{
    uint64_t now_ns = xn_clock_now_ns();
    struct xn_error error;

    if (code == -ENXIO)
        xn_error_set(&error, code, "nothing is served at %.128s; GET / says what is", url);
    else
        xn_error_set(&error, code, "%.128s does not take %.16s; it takes %s", url, method, allow);
    return xn_http_answer_error(http, connection, XN_ROUTE_OTHER, now_ns, code, &error, NULL, allow);
}

enum MHD_Result xn_http_handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *upload, size_t *upload_bytes, void **call)
{
    struct xn_http *http = cls;
    struct xn_get get = {.http = http, .connection = connection};

    (void)version;
    if (*call)
        return xn_call_continue(*call, upload, upload_bytes);
    const struct route *route = find_route(url, get.segments);
    if (!route)
        return refuse(http, connection, -ENXIO, url, method, NULL);
    if (route->kind == INFER) {
        if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
            return refuse(http, connection, -ENOTTY, url, method, "POST");
        return xn_call_begin(http, connection, route->route, route->route == XN_ROUTE_V2_INFER ? get.segments[0] : NULL,
                             get.segments[1][0] ? get.segments[1] : NULL, call);
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return refuse(http, connection, -ENOTTY, url, method, "GET, HEAD");
    get.route = route->route;
    get.start_ns = xn_clock_now_ns();
    return route->page(&get);
}
