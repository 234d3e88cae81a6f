/* SPDX-License-Identifier: Apache-2.0
 * The listening side: one MHD daemon for each listener, each with a pool of epoll threads, and one thread that sweeps connections.
 *
 * MHD's own timeout restarts with every byte, so a client that sends one byte a second would hold its place for ever. The sweep bounds
 * whole phases instead: a body has body_timeout_s, anything else (headers, or nothing between two requests) idle_timeout_s more. A connection over
 * its limit is answered 408 if it was sending a body, and shut down; MHD then sees the end and cleans up on its own thread. While a request is being worked on
 * the limit is off: its deadline is the scheduler's. links_lock keeps a descriptor from being closed and reused under the sweep: MHD tells us of the end (link_closed)
 * before it closes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/http/internal.h"

#define CONNECTION_MEMORY_BYTES (32u * 1024) /* headers and a window of the body; large values make MHD slow */
#define THREADS_AUTOMATIC_MAX   4u
#define SWEEP_NS                (XN_NS_PER_S / 2)

/* ---- connections -------------------------------------------------------------------------------------------------- */

static void link_opened(struct xn_http *http, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct xn_link *link = xn_pool_take(http->links);
    uint64_t idle_ns = (http->config->http.idle_timeout_s + http->config->http.body_timeout_s) * XN_NS_PER_S;

    *context = link;
    if (!link)
        return; /* not swept; MHD's own timeout still holds */
    link->fd = info ? info->connect_fd : -1;
    link->swept = false;
    atomic_store_explicit(&link->limit_ns, xn_clock_now_ns() + idle_ns, memory_order_relaxed);
    atomic_store_explicit(&link->in_body, false, memory_order_relaxed);
    pthread_mutex_lock(&http->links_lock);
    link->prev = NULL;
    link->next = http->first_link;
    if (link->next)
        link->next->prev = link;
    http->first_link = link;
    pthread_mutex_unlock(&http->links_lock);
}

static void link_closed(struct xn_http *http, struct xn_link *link)
{
    if (!link)
        return;
    pthread_mutex_lock(&http->links_lock);
    *(link->prev ? &link->prev->next : &http->first_link) = link->next;
    if (link->next)
        link->next->prev = link->prev;
    pthread_mutex_unlock(&http->links_lock);
    xn_pool_give(http->links, link);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        link_opened(cls, connection, context);
    else
        link_closed(cls, *context);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **call,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    if (*call)
        xn_call_end(*call);
    *call = NULL;
}

static void end_slow(struct xn_http *http, struct xn_link *link)
{
    static const char text[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: "
                               "application/json\r\nContent-Length: 57\r\n\r\n"
                               "{\"error\":\"the body did not arrive within body_timeout_s\"}\n";

    /* Nothing of ours is on the wire while a body comes in, so this is the whole answer. */
    if (atomic_load_explicit(&link->in_body, memory_order_relaxed))
        (void)!send(link->fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(link->fd, SHUT_RDWR);
    link->swept = true;
    xn_metrics_reject(http->next.metrics, XN_REJECT_SLOW_CLIENT);
}

static void *sweep_main(void *argument)
{
    struct xn_http *http = argument;

    pthread_mutex_lock(&http->links_lock);
    while (!http->stop) {
        uint64_t now_ns = xn_clock_now_ns();
        for (struct xn_link *link = http->first_link; link; link = link->next) {
            if (!link->swept && atomic_load_explicit(&link->limit_ns, memory_order_relaxed) <= now_ns)
                end_slow(http, link);
        }
        struct timespec until = xn_clock_timespec(now_ns + SWEEP_NS);
        pthread_cond_clockwait(&http->sweep_wake, &http->links_lock, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&http->links_lock);
    return NULL;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static int parse_address(const struct xn_config_listener *listener, struct sockaddr_storage *ret, socklen_t *ret_bytes,
                         struct xn_error *error)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret;

    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, listener->address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(listener->port);
        *ret_bytes = sizeof(*v4);
    } else if (inet_pton(AF_INET6, listener->address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(listener->port);
        *ret_bytes = sizeof(*v6);
    } else {
        return xn_error_set(error, -EINVAL, "listen: \"%s\" is not an IPv4 or IPv6 address", listener->address);
    }
    return 0;
}

/* Our own socket, so that an address in use is told by name and errno. */
static int open_socket(const struct xn_config_listener *listener, struct xn_error *error)
{
    struct sockaddr_storage address;
    socklen_t bytes = 0;
    int on = 1;

    int r = parse_address(listener, &address, &bytes, error);
    if (r < 0)
        return r;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return xn_error_set(error, -errno, "socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (address.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, (const struct sockaddr *)&address, bytes) < 0 || listen(fd, 1024) < 0) {
        r = -errno;
        close(fd);
        return xn_error_set(error, r, "cannot listen on %s port %u: %s", listener->address, listener->port,
                            strerror(-r));
    }
    return fd;
}

static uint32_t thread_count(const struct xn_config *config)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (config->http.threads)
        return config->http.threads;
    return cpus < 1 ? 1 : XN_MIN((uint32_t)cpus, THREADS_AUTOMATIC_MAX);
}

static int start_daemon(struct xn_http *http, uint32_t i, struct xn_error *error)
{
    const struct xn_config *config = http->config;
    int fd = open_socket(&config->listeners[i], error);

    if (fd < 0)
        return fd;
    uint32_t threads = XN_MIN(thread_count(config), config->http.connections);
    http->daemons[i] = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0, NULL, NULL, xn_http_handle, http,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, threads > 1 ? threads : 0,
        MHD_OPTION_CONNECTION_LIMIT, config->http.connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        config->http.connections_per_ip, MHD_OPTION_CONNECTION_TIMEOUT, config->http.idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    if (!http->daemons[i]) {
        close(fd);
        return xn_error_set(error, -EIO,
                            "the HTTP server for %s port %u did not start (threads or descriptors: see ulimit)",
                            config->listeners[i].address, config->listeners[i].port);
    }
    http->n_daemons++;
    return 0;
}

/* MHD does not fail gracefully when it runs out of descriptors: a limit too low for the configured connections is an error at start. */
static int raise_descriptor_limit(const struct xn_config *config, struct xn_error *error)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)config->http.connections * config->n_listeners + 256;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return 0;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? need : XN_MIN(need, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < need)
        return xn_error_set(
            error, -EMFILE,
            "http.connections = %u needs %llu file descriptors, the limit is %llu (ulimit -n, LimitNOFILE=)",
            config->http.connections, (unsigned long long)need, (unsigned long long)limit.rlim_cur);
    return 0;
}

static int start(struct xn_http *http, struct xn_error *error)
{
    const struct xn_config *config = http->config;
    size_t connections = (size_t)config->http.connections * config->n_listeners;

    int r = raise_descriptor_limit(config, error);
    if (r < 0)
        return r;
    r = xn_pool_new(sizeof(struct xn_link), connections, &http->links);
    if (r >= 0)
        r = xn_pool_new(sizeof(struct xn_call), connections, &http->calls);
    if (r < 0)
        return xn_error_set(error, r, "no memory for %zu connections", connections);
    r = -pthread_create(&http->sweeper, NULL, sweep_main, http);
    if (r < 0)
        return xn_error_set(error, r, "thread xn-http-sweep: %s", strerror(-r));
    http->sweeping = true;
    pthread_setname_np(http->sweeper, "xn-http-sweep");
    for (uint32_t i = 0; r >= 0 && i < config->n_listeners; i++)
        r = start_daemon(http, i, error);
    return r;
}

int xn_http_new(const struct xn_config *config, const struct xn_http_next *next, struct xn_http **ret_http,
                struct xn_error *error)
{
    struct xn_http *http = xn_calloc(1, sizeof(*http));

    if (!http)
        return xn_error_set(error, -ENOMEM, "no memory for the HTTP server");
    http->config = config;
    http->next = *next;
    pthread_mutex_init(&http->links_lock, NULL);
    pthread_cond_init(&http->sweep_wake, NULL);
    int r = start(http, error);
    if (r < 0) {
        xn_http_free(http);
        return r;
    }
    *ret_http = http;
    return 0;
}

uint16_t xn_http_port(const struct xn_http *http, uint32_t i)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemons[i], MHD_DAEMON_INFO_BIND_PORT);

    return info ? info->port : 0;
}

void xn_http_quiesce(struct xn_http *http)
{
    atomic_store_explicit(&http->quiesced, true, memory_order_relaxed);
    for (uint32_t i = 0; i < http->n_daemons; i++) {
        int fd = MHD_quiesce_daemon(http->daemons[i]);
        if (fd >= 0)
            close(fd);
    }
}

void xn_http_free(struct xn_http *http)
{
    if (!http)
        return;
    for (uint32_t i = 0; i < http->n_daemons; i++)
        MHD_stop_daemon(http->daemons[i]);
    if (http->sweeping) {
        pthread_mutex_lock(&http->links_lock);
        http->stop = true;
        pthread_cond_signal(&http->sweep_wake);
        pthread_mutex_unlock(&http->links_lock);
        pthread_join(http->sweeper, NULL);
    }
    xn_pool_free(http->calls);
    xn_pool_free(http->links);
    pthread_cond_destroy(&http->sweep_wake);
    pthread_mutex_destroy(&http->links_lock);
    free(http);
}
