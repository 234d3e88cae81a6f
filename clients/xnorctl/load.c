/* SPDX-License-Identifier: Apache-2.0
 * The load generator. Edge-triggered epoll, so that a connection is registered once; free connections wait in a ring and are used in turn, so that
 * none grows stale and the server's threads are used evenly. The next intended send is a timer in the same epoll set. */
#include "clients/xnorctl/load.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "clients/xnorctl/ctl.h"
#include "clients/xnorctl/http_parse.h"
#include "clients/xnorctl/wire.h"
#include "common/clock.h"

#define EVENTS      256
#define TICK_MS     100
#define CONNECT_NS  (5 * XN_NS_PER_S)
#define GONE_NS     (2 * XN_NS_PER_S) /* without one connection: the server is gone */
#define INPUT_BYTES 65536u
#define DESCRIPTORS 64u /* of the program itself: epoll, timer, standard streams, libcurl, files */

enum link_state { DOWN, CONNECTING, SHAKING, IDLE, BUSY };

struct link {
    struct xn_wire wire;
    enum link_state state;
    bool queued; /* in the ring of free connections */
    bool opened; /* ever */
    size_t sent;
    uint64_t since_ns; /* of the state CONNECTING, also of SHAKING; sent_ns of BUSY */
    struct xn_shot shot;
    struct xn_http_parser parser;
    char *body;
};

struct xn_load {
    struct xn_load_config config;
    struct sockaddr_storage address, source;
    socklen_t address_bytes, source_bytes; /* source_bytes 0: any */
    struct xn_trust *trust;
    char authority[256];
    int epoll_fd, timer_fd;
    uint32_t n_up, n_busy; /* IDLE or BUSY; BUSY */
    uint64_t up_ns;        /* last time that n_up was above 0 */
    uint64_t timer_ns;     /* what the timer is set to */
    uint64_t reconnects;
    int last_error;
    const struct xn_load_hooks *hooks;
    bool ended;
    uint32_t ring_at, ring_n;
    struct link **ring; /* [connections] */
    struct link *links; /* [connections] */
    char *bodies;       /* [connections][body_bytes] */
    char input[INPUT_BYTES];
};

/* ---- connections -------------------------------------------------------------------------------------------------- */

static void ring_put(struct xn_load *load, struct link *link)
{
    if (link->queued)
        return;
    link->queued = true;
    load->ring[(load->ring_at + load->ring_n++) % load->config.connections] = link;
}

/* A free connection, or NULL. Those that went down while they waited are left out. */
static struct link *ring_take(struct xn_load *load)
{
    while (load->ring_n > 0) {
        struct link *link = load->ring[load->ring_at];
        load->ring_at = (load->ring_at + 1) % load->config.connections;
        load->ring_n--;
        link->queued = false;
        if (link->state == IDLE)
            return link;
    }
    return NULL;
}

static void link_up(struct xn_load *load, struct link *link)
{
    link->state = IDLE;
    load->n_up++;
    load->reconnects += link->opened;
    link->opened = true;
    ring_put(load, link);
}

static void link_down(struct xn_load *load, struct link *link)
{
    if (link->state == DOWN)
        return;
    bool was_up = link->state == IDLE || link->state == BUSY;
    load->n_up -= was_up;
    load->n_busy -= link->state == BUSY;
    if (was_up && load->n_up == 0)
        load->up_ns = xn_clock_now_ns();
    link->state = DOWN;
    xn_wire_close(&link->wire);
}

/* The port is left open until connect: as many connections are possible as without a source. */
static int bind_source(const struct xn_load *load, int fd)
{
    const int on = 1;

    if (load->source_bytes == 0)
        return 0;
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    return bind(fd, (const struct sockaddr *)&load->source, load->source_bytes) == 0 ? 0 : -errno;
}

static int link_connect(struct xn_load *load, struct link *link)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = link};
    const int on = 1;

    int fd = socket(load->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return load->last_error = -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    link->state = CONNECTING;
    link->since_ns = xn_clock_now_ns();
    int r = xn_wire_begin(&link->wire, load->trust, fd);
    if (r == 0)
        r = bind_source(load, fd);
    if (r == 0)
        r = connect(fd, (const struct sockaddr *)&load->address, load->address_bytes) == 0 ? 0 : -errno;
    if (r == 0 || r == -EINPROGRESS)
        r = epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
    if (r < 0) {
        load->last_error = r;
        link_down(load, link);
    }
    return r;
}

/* The request on the connection is over. The connection goes on where `keep`. */
static void finish(struct xn_load *load, struct link *link, int status, bool keep)
{
    struct xn_load_result result = {.shot = &link->shot,
                                    .sent_ns = link->since_ns,
                                    .done_ns = xn_clock_now_ns(),
                                    .status = status,
                                    .retry_after = link->parser.retry_after,
                                    .body = link->body,
                                    .body_bytes = link->parser.body_bytes,
                                    .body_cut = link->parser.body_cut};

    if (keep) {
        link->state = IDLE;
        load->n_busy--;
        ring_put(load, link);
    } else {
        link_down(load, link);
    }
    load->hooks->done(load->hooks->user, &result);
}

static void fail(struct xn_load *load, struct link *link, int code)
{
    load->last_error = code;
    if (link->state == BUSY)
        finish(load, link, code, false);
    else
        link_down(load, link);
}

static void write_request(struct xn_load *load, struct link *link)
{
    while (link->sent < link->shot.length) {
        ssize_t n = xn_wire_send(&link->wire, link->shot.bytes + link->sent, link->shot.length - link->sent);
        if (n == -EAGAIN)
            return;
        if (n < 0 && n != -EINTR) {
            /* The server may have answered and closed before it had all: what it said is read first. */
            if (n != -EPIPE && n != -ECONNRESET)
                fail(load, link, (int)n);
            return;
        }
        link->sent += n > 0 ? (size_t)n : 0;
    }
}

static void start(struct xn_load *load, struct link *link, const struct xn_shot *shot, uint64_t now_ns)
{
    link->shot = *shot;
    link->state = BUSY;
    link->since_ns = now_ns;
    link->sent = 0;
    load->n_busy++;
    xn_http_parser_init(&link->parser, link->body, load->config.body_bytes);
    write_request(load, link);
}

/* `n` bytes have come. */
static void take_input(struct xn_load *load, struct link *link, size_t n)
{
    size_t used = 0;

    if (link->state != BUSY) { /* nobody asked */
        fail(load, link, -EBADMSG);
        return;
    }
    int r = xn_http_parser_feed(&link->parser, load->input, n, &used);
    if (r < 0)
        fail(load, link, r);
    else if (r > 0)
        finish(load, link, link->parser.status, !link->parser.close && used == n && link->sent == link->shot.length);
}

static void take_end(struct xn_load *load, struct link *link)
{
    if (link->state == BUSY && xn_http_parser_end(&link->parser) > 0)
        finish(load, link, link->parser.status, false);
    else
        fail(load, link, -ECONNRESET);
}

static void read_answers(struct xn_load *load, struct link *link)
{
    while (link->state == IDLE || link->state == BUSY) {
        ssize_t n = xn_wire_recv(&link->wire, load->input, sizeof(load->input));
        if (n > 0) {
            take_input(load, link, (size_t)n);
            /* Less than there was room for: the socket is empty, and more bytes are a new edge. TLS comes record by record. */
            if (!link->wire.session && (size_t)n < sizeof(load->input))
                return;
        } else if (n == 0) {
            take_end(load, link);
        } else if (n == -EAGAIN) {
            return;
        } else if (n != -EINTR) {
            fail(load, link, (int)n);
        }
    }
}

static void shake(struct xn_load *load, struct link *link)
{
    int r = xn_wire_shake(&link->wire, load->trust);

    if (r == 0)
        link_up(load, link);
    else if (r != -EAGAIN)
        fail(load, link, r);
}

static void connected(struct xn_load *load, struct link *link)
{
    int code = 0;
    socklen_t bytes = sizeof(code);

    if (getsockopt(link->wire.fd, SOL_SOCKET, SO_ERROR, &code, &bytes) < 0)
        code = errno;
    if (code) {
        fail(load, link, -code);
        return;
    }
    link->state = SHAKING;
}

static void handle(struct xn_load *load, struct link *link, uint32_t events)
{
    if (link->state == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        connected(load, link);
    if (link->state == SHAKING)
        shake(load, link);
    if (link->state == BUSY && (events & EPOLLOUT) && link->sent < link->shot.length)
        write_request(load, link);
    if ((link->state == IDLE || link->state == BUSY) && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        read_answers(load, link);
    /* All that came before the end has been read with less than a full buffer. */
    if ((link->state == IDLE || link->state == BUSY) && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        read_answers(load, link);
}

/* ---- run ---------------------------------------------------------------------------------------------------------- */

static void set_timer(struct xn_load *load, uint64_t at_ns)
{
    struct itimerspec when = {.it_value = xn_clock_timespec(at_ns)};

    if (at_ns == load->timer_ns)
        return;
    load->timer_ns = at_ns;
    timerfd_settime(load->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Send on free connections all that is due. */
static void send_due(struct xn_load *load)
{
    struct link *link;

    while (!load->ended && (link = ring_take(load))) {
        struct xn_shot shot = {0};
        uint64_t now_ns = xn_clock_now_ns();
        enum xn_load_next next = load->hooks->next(load->hooks->user, now_ns, &shot);
        if (next == XN_LOAD_SEND) {
            start(load, link, &shot, now_ns);
            continue;
        }
        ring_put(load, link);
        load->ended = next == XN_LOAD_END;
        if (next == XN_LOAD_LATER && shot.intended_ns != XN_NEVER_NS)
            set_timer(load, shot.intended_ns);
        return;
    }
}

/* Ten times a second: requests and connections that take too long, connections that are down. */
static void tick(struct xn_load *load, uint64_t now_ns)
{
    for (uint32_t i = 0; i < load->config.connections; i++) {
        struct link *link = &load->links[i];
        if ((link->state == BUSY && now_ns - link->since_ns > load->config.timeout_ns) ||
            ((link->state == CONNECTING || link->state == SHAKING) && now_ns - link->since_ns > CONNECT_NS))
            fail(load, link, -ETIMEDOUT);
        if (link->state == DOWN && !load->ended)
            (void)link_connect(load, link); /* tried again at the next tick */
    }
}

static int wait_events(struct xn_load *load, struct xn_error *error)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(load->epoll_fd, events, EVENTS, TICK_MS);

    if (n < 0 && errno != EINTR)
        return xn_error_set(error, -EIO, "epoll: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            handle(load, events[i].data.ptr, events[i].events);
    }
    return 0;
}

/* Why there is no connection. */
static const char *why_not(const struct xn_load *load, int code)
{
    return code == -EPROTO ? xn_trust_why(load->trust) : strerror(-code);
}

static int gone(struct xn_load *load, struct xn_error *error)
{
    int code = load->last_error < 0 ? load->last_error : -ECONNREFUSED;

    return xn_error_set(error, -ECONNREFUSED, "no connection to %s any more: %s; has the server stopped?",
                        load->authority, why_not(load, code));
}

int xn_load_run(struct xn_load *load, const struct xn_load_hooks *hooks, struct xn_error *error)
{
    uint64_t tick_ns = 0;

    load->hooks = hooks;
    load->ended = false;
    load->up_ns = xn_clock_now_ns();
    for (;;) {
        send_due(load);
        if (load->ended && load->n_busy == 0)
            return 0;
        int r = wait_events(load, error);
        if (r < 0)
            return r;
        uint64_t now_ns = xn_clock_now_ns();
        if (now_ns - tick_ns >= TICK_MS * XN_NS_PER_MS) {
            tick(load, now_ns);
            tick_ns = now_ns;
        }
        if (load->n_up > 0)
            load->up_ns = now_ns;
        else if (now_ns > load->up_ns && now_ns - load->up_ns > GONE_NS)
            return gone(load, error);
    }
}

uint64_t xn_load_reconnects(const struct xn_load *load)
{
    return load->reconnects;
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

static int resolve_unix(struct xn_load *load, const char *path, struct xn_error *error)
{
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)&load->address;

    if (strlen(path) >= sizeof(address->sun_path))
        return xn_error_set(error, -ENAMETOOLONG, "unix:%s: the path is too long", path);
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, path);
    load->address_bytes = sizeof(*address);
    return 0;
}

static int resolve(struct xn_load *load, const struct xn_target *target, struct xn_error *error)
{
    if (target->unix_path)
        return resolve_unix(load, target->unix_path, error);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found = NULL;
    int r = getaddrinfo(target->host, target->port, &hints, &found);

    if (r != 0)
        return xn_error_set(error, -EHOSTUNREACH, "%s: %s; check --url or $XNORD_URL", target->authority,
                            gai_strerror(r));
    memcpy(&load->address, found->ai_addr, found->ai_addrlen);
    load->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int resolve_source(struct xn_load *load, struct xn_error *error)
{
    struct addrinfo hints = {.ai_family = load->address.ss_family,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST},
                    *found = NULL;

    if (!load->config.source)
        return 0;
    int r = getaddrinfo(load->config.source, NULL, &hints, &found);
    if (r != 0)
        return xn_error_set(error, -EADDRNOTAVAIL, "source %s: %s", load->config.source, gai_strerror(r));
    memcpy(&load->source, found->ai_addr, found->ai_addrlen);
    load->source_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* As many descriptors as the connections need, where the hard limit allows them. */
static int raise_limit(uint32_t connections, struct xn_error *error)
{
    struct rlimit limit;
    rlim_t need = connections + DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return 0;
    if (limit.rlim_max < need)
        return xn_error_set(error, -EMFILE,
                            "%u connections need %u file descriptors, and %u are allowed; see ulimit -n", connections,
                            (unsigned)need, (unsigned)limit.rlim_max);
    limit.rlim_cur = need;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? xn_error_set(error, -EMFILE, "ulimit -n: %s", strerror(errno)) : 0;
}

/* All connections, at once; the first failure ends it. */
static int connect_all(struct xn_load *load, struct xn_error *error)
{
    uint64_t end_ns = xn_clock_now_ns() + CONNECT_NS;

    for (uint32_t i = 0; i < load->config.connections; i++) {
        int r = link_connect(load, &load->links[i]);
        if (r < 0)
            return xn_error_set(error, r, "nothing answers at %s: %s; is xnord running?", load->authority,
                                strerror(-r));
    }
    while (load->n_up < load->config.connections) {
        int r = wait_events(load, error);
        if (r < 0)
            return r;
        if (load->last_error < 0)
            return xn_error_set(error, load->last_error, "nothing answers at %s: %s; is xnord running?",
                                load->authority, why_not(load, load->last_error));
        if (xn_clock_now_ns() > end_ns)
            return xn_error_set(error, -ETIMEDOUT, "%s: %u of %u connections were accepted in time", load->authority,
                                load->n_up, load->config.connections);
    }
    return 0;
}

static int open_epoll(struct xn_load *load, struct xn_error *error)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET}; /* data.ptr NULL: the timer */

    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (load->epoll_fd < 0 || load->timer_fd < 0 ||
        epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, load->timer_fd, &event) < 0)
        return xn_error_set(error, -errno, "epoll: %s", strerror(errno));
    return 0;
}

int xn_load_new(const struct xn_target *target, const struct xn_load_config *config, struct xn_load **ret_load,
                struct xn_error *error)
{
    uint32_t n = config->connections;
    int r = raise_limit(n, error);
    if (r < 0)
        return r;
    struct xn_load *load = xn_ctl_alloc(1, sizeof(*load));
    load->config = *config;
    load->epoll_fd = load->timer_fd = -1;
    load->ring = xn_ctl_alloc(n, sizeof(struct link *));
    load->links = xn_ctl_alloc(n, sizeof(*load->links));
    load->bodies = xn_ctl_alloc(n, config->body_bytes + 1);
    for (uint32_t i = 0; i < n; i++) {
        load->links[i].wire.fd = -1;
        load->links[i].body = load->bodies + i * config->body_bytes;
    }
    snprintf(load->authority, sizeof(load->authority), "%s", target->authority);
    r = xn_trust_new(target, &load->trust, error);
    if (r >= 0)
        r = resolve(load, target, error);
    if (r >= 0)
        r = resolve_source(load, error);
    if (r >= 0)
        r = open_epoll(load, error);
    if (r >= 0)
        r = connect_all(load, error);
    if (r < 0) {
        xn_load_free(load);
        return r;
    }
    *ret_load = load;
    return 0;
}

void xn_load_free(struct xn_load *load)
{
    if (!load)
        return;
    for (uint32_t i = 0; i < load->config.connections; i++)
        xn_wire_close(&load->links[i].wire);
    xn_trust_free(load->trust);
    if (load->epoll_fd >= 0)
        close(load->epoll_fd);
    if (load->timer_fd >= 0)
        close(load->timer_fd);
    free(load->ring);
    free(load->links);
    free(load->bodies);
    free(load);
}

uint8_t *xn_load_post(const struct xn_target *target, const char *path, const char *content_type, const void *body,
                      size_t bytes, size_t *ret_length)
{
    static const char format[] = "POST %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: xnorctl/" XN_VERSION
                                 "\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s%s\r\n";
    const char *token = target->token ? target->token : "";
    size_t room = sizeof(format) + strlen(target->prefix) + strlen(path) + strlen(target->authority) +
                  strlen(content_type) + strlen(token) + 64;
    uint8_t *all = xn_ctl_alloc(room + bytes, 1);
    int n = snprintf((char *)all, room, format, target->prefix, path, target->authority, content_type, bytes,
                     *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");

    if (bytes > 0)
        memcpy(all + n, body, bytes);
    *ret_length = (size_t)n + bytes;
    return all;
}
