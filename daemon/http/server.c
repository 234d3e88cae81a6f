/* SPDX-License-Identifier: Apache-2.0
 * The listening side: for each listener a few loops (loop.c), each with an MHD daemon and a thread of its own, and one thread that sweeps connections.
 *
 * MHD's own timeout restarts with every byte, so a client that sends one byte a second would hold its place for ever. The sweep bounds whole phases
 * instead (enum xn_phase). A connection over its limit gets 408 where it was in the middle of a request, and is shut down; MHD then sees the end and
 * cleans up on its own thread. Who ends a connection is decided by compare-and-swap on link->phase: its epoll thread by entering the next phase, or the
 * sweep by XN_LINK_SWEPT. links_lock keeps a descriptor from being closed and reused under the sweep: MHD tells us of the end (link_closed) before it
 * closes. The same thread lets connections linger (linger.c). */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/http/internal.h"

/* Headers and a window of the body. libmicrohttpd clears it for every request, which at 32 KiB took more time than reading the request did. */
#define CONNECTION_MEMORY_BYTES (16u * 1024)
#define THREADS_AUTOMATIC_MAX   4u
#define CODECS_TO_ANSWER        64u
#define SWEEP_MS                250
#define SWEEP_STOP              UINT64_MAX /* what the stop event carries; lingering connections carry their index */
#define BACKUP_TIMEOUT_S        10u        /* MHD's own timeout comes this much after the sweep's */
#define HEADERS_SLACK_MS        50         /* the kernel counts the time since the last byte in ticks */
#define SETTLED_NS              (XN_NS_PER_S / 2) /* younger phases are not looked at */
#define LONG_IDLE_NS                                                                                                   \
    (2 * XN_NS_PER_S) /* connections idle for longer are asked less often how they are: every 16th sweep */
#define LONG_IDLE_SWEEPS    16u
#define QUIESCED_HEADERS_NS (2 * XN_NS_PER_S) /* once the server stops, headers may take this long */
#define CUT_SHORT           "the connection was closed before the request was complete"

/* ---- connections -------------------------------------------------------------------------------------------------- */

static uint64_t phase_word(enum xn_phase phase, uint64_t now_ns)
{
    return now_ns << 2 | phase;
}

bool xn_link_enter(struct xn_link *link, enum xn_phase phase, uint64_t now_ns)
{
    if (!link)
        return true;
    uint64_t old = atomic_load_explicit(&link->phase, memory_order_relaxed);
    if (phase != XN_PHASE_IDLE)
        atomic_store_explicit(&link->fresh, false, memory_order_relaxed);
    do {
        if (old == XN_LINK_SWEPT)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&link->phase, &old, phase_word(phase, now_ns), memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

struct xn_link *xn_link_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

/* MHD asks before it accepts. Threads that are asked at the same moment may let in one more each. */
static enum MHD_Result may_connect(void *cls, const struct sockaddr *address, socklen_t bytes)
{
    struct xn_http *http = cls;
    uint32_t limit = http->config->http.connections_per_ip, n = 0;

    (void)bytes;
    if (limit == 0 || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return MHD_YES;
    uint64_t peer = xn_http_peer(http, -1, address);
    pthread_mutex_lock(&http->links_lock);
    for (const struct xn_link *link = http->first_link; link && n < limit; link = link->next)
        n += link->peer == peer;
    pthread_mutex_unlock(&http->links_lock);
    return n < limit ? MHD_YES : MHD_NO;
}

static void link_opened(const struct xn_door *door, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct xn_http *http = door->http;
    struct xn_link *link = xn_pool_take(http->links);

    *context = link;
    if (!link)
        return; /* not swept; MHD's own timeout still holds */
    link->fd = info ? info->connect_fd : -1;
    link->linger = false;
    link->door = door;
    const union MHD_ConnectionInfo *tls = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    link->tls = tls ? tls->tls_session : NULL;
    const union MHD_ConnectionInfo *peer = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    link->peer = xn_http_peer(http, link->fd, peer ? peer->client_addr : NULL);
    struct sockaddr_storage own = {.ss_family = AF_UNSPEC};
    socklen_t own_bytes = sizeof(own);
    (void)getsockname(link->fd, (struct sockaddr *)&own, &own_bytes);
    link->local = xn_http_is_local(peer ? peer->client_addr : NULL, (const struct sockaddr *)&own);
    atomic_store_explicit(&link->fresh, true, memory_order_relaxed);
    atomic_store_explicit(&link->phase, phase_word(XN_PHASE_IDLE, xn_clock_now_ns()), memory_order_relaxed);
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
    bool swept = atomic_load_explicit(&link->phase, memory_order_relaxed) == XN_LINK_SWEPT;
    pthread_mutex_lock(&http->links_lock);
    *(link->prev ? &link->prev->next : &http->first_link) = link->next;
    if (link->next)
        link->next->prev = link->prev;
    if (link->linger || swept)
        xn_linger_add_locked(&http->linger, link->fd, swept);
    pthread_mutex_unlock(&http->links_lock);
    xn_pool_give(http->links, link);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    const struct xn_door *door = cls;

    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        link_opened(door, connection, context);
    else
        link_closed(door->http, *context);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **call,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)code;
    (void)xn_link_enter(xn_link_of(connection), XN_PHASE_IDLE, xn_clock_now_ns());
    if (*call && *call != xn_http_reading)
        ((struct xn_exchange *)*call)->end(*call);
    *call = NULL;
}

/* ---- sweep -------------------------------------------------------------------------------------------------------- */

/* Have bytes come since the connection became idle, `age_ns` ago? Of a unix socket (`info` is all zero) the kernel does not tell. */
static bool headers_under_way(const struct xn_link *link, const struct tcp_info *info, uint64_t age_ns)
{
    if (info->tcpi_state == 0)
        return false;
    if (atomic_load_explicit(&link->fresh, memory_order_relaxed))
        return info->tcpi_bytes_received > 0;
    return info->tcpi_last_data_recv + HEADERS_SLACK_MS < age_ns / XN_NS_PER_MS;
}

/* The client has shut its side down, and all that it sent has been read. MHD misses that where the end comes together with the last bytes: its
 * epoll is edge-triggered, and a short read is taken for all there is. */
static bool peer_closed(const struct xn_link *link)
{
    struct pollfd look = {.fd = link->fd, .events = POLLRDHUP};
    int unread = 0;

    return poll(&look, 1, 0) > 0 && (look.revents & POLLRDHUP) && ioctl(link->fd, FIONREAD, &unread) == 0 &&
           unread == 0;
}

/* Why a connection is to be ended. */
struct verdict {
    bool end;
    int error;        /**< with text */
    const char *text; /**< NULL: the client waits for no answer */
};

/* A connection that is idle, or receives headers. */
static struct verdict judge_idle(const struct xn_http *http, const struct xn_link *link, const struct tcp_info *info,
                                 uint64_t age_ns)
{
    uint64_t idle_ns = http->config->http.idle_timeout_s * XN_NS_PER_S;
    uint64_t body_ns = http->config->http.body_timeout_s * XN_NS_PER_S;
    bool headers = headers_under_way(link, info, age_ns);

    if (http->sweep_quiesced_ns > 0) {
        /* A client that has just connected, or got an answer before we began to stop, may be about to send. */
        idle_ns = SETTLED_NS;
        body_ns = QUIESCED_HEADERS_NS;
        age_ns = XN_MIN(age_ns, http->sweep_quiesced_ns);
    }
    if (peer_closed(link))
        return (struct verdict){true, -EINVAL, headers ? CUT_SHORT : NULL};
    if (!headers)
        return (struct verdict){.end = age_ns >= idle_ns};
    return (struct verdict){age_ns >= idle_ns + body_ns, -ETIME,
                            "the request's headers did not arrive in time (http.idle_timeout_s, http.body_timeout_s)"};
}

static struct verdict judge(const struct xn_http *http, const struct xn_link *link, enum xn_phase phase,
                            uint64_t age_ns)
{
    uint64_t body_ns = http->config->http.body_timeout_s * XN_NS_PER_S;
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);

    if (phase == XN_PHASE_WORK || age_ns < SETTLED_NS)
        return (struct verdict){0};
    /* With many connections most are idle; whether their time is over needs no system call. */
    if (phase == XN_PHASE_IDLE && http->sweep_quiesced_ns == 0 && age_ns >= LONG_IDLE_NS &&
        age_ns < http->config->http.idle_timeout_s * XN_NS_PER_S && http->n_sweeps % LONG_IDLE_SWEEPS != 0)
        return (struct verdict){0};
    if (phase == XN_PHASE_SEND)
        return (struct verdict){.end = age_ns >= body_ns};
    (void)getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes); /* where it fails, nothing is known */
    if (phase == XN_PHASE_IDLE)
        return judge_idle(http, link, &info, age_ns);
    if (peer_closed(link))
        return (struct verdict){true, -EINVAL, CUT_SHORT};
    return (struct verdict){age_ns >= body_ns, -ETIME,
                            "the request's body did not arrive in time (http.body_timeout_s)"};
}

/* Nothing of ours is on the wire while a request comes in, so the error is the whole answer. */
static void sweep_link(struct xn_http *http, struct xn_link *link, uint64_t now_ns)
{
    uint64_t word = atomic_load_explicit(&link->phase, memory_order_relaxed), start_ns = word >> 2;

    if (word == XN_LINK_SWEPT || now_ns < start_ns)
        return;
    struct verdict verdict = judge(http, link, (enum xn_phase)(word & 3), now_ns - start_ns);
    if (!verdict.end || !atomic_compare_exchange_strong_explicit(&link->phase, &word, XN_LINK_SWEPT,
                                                                 memory_order_relaxed, memory_order_relaxed))
        return; /* in time, or it went on just now */
    if (verdict.text) {
        struct xn_status status = xn_status_of(verdict.error);
        if (!link->tls) /* only its own thread may encrypt */
            (void)xn_http_send_error(link, &status, verdict.text);
        xn_metrics_reject(http->next.metrics, status.reject);
    }
    (void)shutdown(link->fd, SHUT_RDWR);
}

static void sweep(struct xn_http *http, uint64_t now_ns)
{
    uint64_t quiesced_ns = atomic_load_explicit(&http->quiesced_ns, memory_order_relaxed);

    if (xn_http_active(http) > 0)
        http->sweep_active_ns = now_ns;
    quiesced_ns = XN_MAX(quiesced_ns, http->sweep_active_ns);
    http->sweep_quiesced_ns = quiesced_ns < now_ns ? now_ns - quiesced_ns : 0;
    pthread_mutex_lock(&http->links_lock);
    for (struct xn_link *link = http->first_link; link; link = link->next)
        sweep_link(http, link, now_ns);
    xn_linger_expire_locked(&http->linger, now_ns);
    http->n_sweeps++;
    pthread_mutex_unlock(&http->links_lock);
}

/* Events of lingering connections; true: the one that says stop. */
static bool handle_events(struct xn_http *http, const struct epoll_event *events, int n)
{
    bool stop = false;

    pthread_mutex_lock(&http->links_lock);
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 == SWEEP_STOP)
            stop = true;
        else
            xn_linger_event_locked(&http->linger, (uint32_t)events[i].data.u64);
    }
    pthread_mutex_unlock(&http->links_lock);
    return stop;
}

static void *sweep_main(void *argument)
{
    struct xn_http *http = argument;
    struct epoll_event events[16];
    uint64_t due_ns = xn_clock_now_ns() + SWEEP_MS * XN_NS_PER_MS;

    for (;;) {
        uint64_t now_ns = xn_clock_now_ns();
        if (now_ns >= due_ns) {
            sweep(http, now_ns);
            due_ns = now_ns + SWEEP_MS * XN_NS_PER_MS;
        }
        int n = epoll_wait(http->sweep_fd, events, XN_ARRAY_LEN(events), (int)((due_ns - now_ns) / XN_NS_PER_MS) + 1);
        if (n > 0 && handle_events(http, events, n))
            return NULL;
    }
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static uint32_t thread_count(const struct xn_config *config)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = config->http.threads ? config->http.threads
                       : cpus < 1           ? 1
                                            : XN_MIN((uint32_t)cpus, THREADS_AUTOMATIC_MAX);

    return XN_MIN(threads, config->http.connections);
}

/* The MHD daemon of loop `i`, with its share of the connections. */
static struct MHD_Daemon *start_daemon(struct xn_door *door, uint32_t i)
{
    const struct xn_config *config = door->http->config;
    unsigned connections = config->http.connections / door->n_loops + (i < config->http.connections % door->n_loops);
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)XN_TLS_PRIORITIES},
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(uintptr_t)xn_tls_retrieve},
        {MHD_OPTION_END, 0, NULL},
    };
    const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (door->tls ? MHD_USE_TLS : 0u), 0, may_connect,
                            door->http, xn_http_handle, door->http, MHD_OPTION_LISTEN_SOCKET, door->socket.fd,
                            MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_CONNECTION_LIMIT, connections,
                            MHD_OPTION_CONNECTION_TIMEOUT,
                            config->http.idle_timeout_s + config->http.body_timeout_s + BACKUP_TIMEOUT_S,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
                            MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, door, MHD_OPTION_ARRAY, door->tls ? tls : none, MHD_OPTION_END);
}

static int open_door(struct xn_door *door, const struct xn_config_listener *listener, uint32_t *n_threads,
                     struct xn_error *error)
{
    uint32_t n_loops = thread_count(door->http->config);
    char where[160], name[16];
    int r = 0;

    door->loops = xn_calloc(n_loops, sizeof(*door->loops));
    if (!door->loops)
        return xn_error_set(error, -ENOMEM, "no memory for the HTTP server");
    door->n_loops = n_loops;
    for (uint32_t i = 0; i < n_loops; i++)
        door->loops[i].epoll_fd = door->loops[i].event_fd = -1;
    for (uint32_t i = 0; r >= 0 && i < n_loops; i++) {
        struct MHD_Daemon *daemon = start_daemon(door, i);
        snprintf(name, sizeof(name), "xn-http-%u", (*n_threads)++);
        r = daemon ? xn_loop_start(&door->loops[i], &door->http->next, daemon, name) : -EIO;
    }
    return r < 0 ? xn_error_set(error, r, "the HTTP server for %s did not start (threads or descriptors: see ulimit)",
                                xn_listen_describe(listener, where, sizeof(where)))
                 : 0;
}

static int open_doors(struct xn_http *http, struct xn_error *error)
{
    struct xn_listening sockets[XN_CONFIG_LISTENERS_MAX];
    const struct xn_config *config = http->config;
    uint32_t n_threads = 0;

    int r = xn_listen_open(config, sockets, error);
    for (uint32_t i = 0; i < config->n_listeners; i++)
        http->doors[i].socket = sockets[i];
    for (uint32_t i = 0; r >= 0 && i < config->n_listeners; i++)
        r = open_door(&http->doors[i], &config->listeners[i], &n_threads, error);
    return r;
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

static int start_sweeper(struct xn_http *http, struct xn_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = SWEEP_STOP};

    http->sweep_fd = epoll_create1(EPOLL_CLOEXEC);
    http->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (http->sweep_fd < 0 || http->stop_fd < 0 || epoll_ctl(http->sweep_fd, EPOLL_CTL_ADD, http->stop_fd, &event) < 0)
        return xn_error_set(error, -errno, "the sweeper's descriptors: %s", strerror(errno));
    xn_linger_init(&http->linger, http->sweep_fd);
    int r = -pthread_create(&http->sweeper, NULL, sweep_main, http);
    if (r < 0)
        return xn_error_set(error, r, "thread xn-http-sweep: %s", strerror(-r));
    http->sweeping = true;
    pthread_setname_np(http->sweeper, "xn-http-sweep");
    return 0;
}

static int make_tables(struct xn_http *http, struct xn_error *error)
{
    const struct xn_config *config = http->config;
    size_t connections = (size_t)config->http.connections * config->n_listeners;

    int r = xn_pool_new(sizeof(struct xn_link), connections, &http->links);
    if (r >= 0)
        r = xn_pool_new(sizeof(struct xn_call), connections, &http->calls);
    if (r >= 0)
        r = xn_clients_new(config->limits.client_requests, config->limits.client_requests_per_s, &http->clients);
    if (r >= 0)
        r = xn_tokens_new(&http->tokens);
    for (uint32_t i = 0; r >= 0 && i < config->n_listeners; i++) {
        if (config->listeners[i].certificate)
            r = xn_tls_new(&http->doors[i].tls);
    }
    if (r >= 0) /* one for each body that comes in, and one for each thread's answer */
        r = xn_pool_new(xn_codec_bytes(), config->limits.requests + XN_POSTS_MAX + CODECS_TO_ANSWER, &http->codecs);
    if (r >= 0)
        r = xn_pool_new(sizeof(struct xn_post), XN_POSTS_MAX, &http->posts);
    if (r < 0)
        return xn_error_set(error, r, "no memory for %zu connections", connections);
    if (getrandom(&http->seed, sizeof(http->seed), 0) != (ssize_t)sizeof(http->seed))
        http->seed = xn_clock_now_ns(); /* the worst is that limits of two clients can be made one */
    return 0;
}

static int start(struct xn_http *http, struct xn_error *error)
{
    const struct xn_config *config = http->config;
    struct xn_http_secrets *secrets;

    int r = raise_descriptor_limit(config, error);
    if (r >= 0)
        r = make_tables(http, error);
    if (r >= 0)
        r = xn_http_secrets_read(config, config->tokens, &secrets, error);
    if (r < 0)
        return r;
    xn_http_secrets_take(http, secrets);
    xn_metrics_add_source(http->next.metrics,
                          &(struct xn_metrics_source){.user = http->tokens, .render = xn_tokens_render});
    r = start_sweeper(http, error);
    return r < 0 ? r : open_doors(http, error);
}

int xn_http_new(const struct xn_config *config, const struct xn_http_next *next, struct xn_http **ret_http,
                struct xn_error *error)
{
    struct xn_http *http = xn_calloc(1, sizeof(*http));

    if (!http)
        return xn_error_set(error, -ENOMEM, "no memory for the HTTP server");
    xn_body_init();
    http->config = config;
    http->next = *next;
    http->sweep_fd = http->stop_fd = -1;
    http->quiesced_ns = XN_NEVER_NS;
    for (uint32_t i = 0; i < XN_CONFIG_LISTENERS_MAX; i++)
        http->doors[i] = (struct xn_door){.http = http, .socket.fd = -1};
    if (getrandom(&http->span_seed, sizeof(http->span_seed), GRND_NONBLOCK) < 0)
        http->span_seed = xn_clock_now_ns();
    pthread_mutex_init(&http->links_lock, NULL);
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
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->doors[i].loops[0].daemon, MHD_DAEMON_INFO_BIND_PORT);

    return info ? info->port : 0;
}

/* The sockets are closed at the end: an epoll thread may be about to accept on one. What it accepts is served. */
void xn_http_quiesce(struct xn_http *http)
{
    if (atomic_load_explicit(&http->quiesced_ns, memory_order_relaxed) != XN_NEVER_NS)
        return;
    atomic_store_explicit(&http->quiesced_ns, xn_clock_now_ns(), memory_order_relaxed);
    for (uint32_t i = 0; i < http->config->n_listeners; i++) {
        struct xn_door *door = &http->doors[i];
        for (uint32_t k = 0; k < door->n_loops; k++)
            xn_loop_quiesce(&door->loops[k]);
        xn_listen_end(&door->socket, &http->config->listeners[i]);
    }
}

size_t xn_http_open(const struct xn_http *http)
{
    return xn_pool_used(http->links);
}

size_t xn_http_active(const struct xn_http *http)
{
    return xn_pool_used(http->calls) + xn_pool_used(http->posts);
}

static void stop_sweeper(struct xn_http *http)
{
    if (http->sweeping) {
        (void)eventfd_write(http->stop_fd, 1);
        pthread_join(http->sweeper, NULL);
    }
    if (http->sweep_fd >= 0)
        xn_linger_expire_locked(&http->linger, XN_NEVER_NS); /* nobody else is left */
    if (http->stop_fd >= 0)
        close(http->stop_fd);
    if (http->sweep_fd >= 0)
        close(http->sweep_fd);
}

void xn_http_free(struct xn_http *http)
{
    if (!http)
        return;
    xn_http_quiesce(http); /* so that the sockets are ours to close */
    for (uint32_t i = 0; i < http->config->n_listeners; i++) {
        struct xn_door *door = &http->doors[i];
        for (uint32_t k = 0; k < door->n_loops; k++)
            xn_loop_stop(&door->loops[k]);
        free(door->loops);
        xn_listen_close(&door->socket, &http->config->listeners[i]);
        xn_tls_free(door->tls);
    }
    stop_sweeper(http);
    xn_clients_free(http->clients);
    xn_tokens_free(http->tokens);
    xn_pool_free(http->calls);
    xn_pool_free(http->codecs);
    xn_pool_free(http->posts);
    xn_pool_free(http->links);
    pthread_mutex_destroy(&http->links_lock);
    free(http);
}
