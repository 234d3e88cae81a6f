/* SPDX-License-Identifier: Apache-2.0
 * Sends the bytes of one file, an HTTP request, over and over on keep-alive connections, one at a time on each, and prints how many answers came in how long:
 *
 *     bench_http WHERE CONNECTIONS COUNT FILE   ->   {"count": 100000, "seconds": 2.1, "failed": 0}
 *
 * WHERE is a port of 127.0.0.1, or the path of a unix socket.  * It does as little as it can, so that it takes as little as it can of the machine that it shares with the server it measures: no HTTP library, one thread,
 * an answer is over when its Content-Length has come. tests/bench/http drives it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/macros.h"

#define CONNECTIONS_MAX 1024u
#define ANSWER_BYTES    (64u * 1024)

struct connection {
    int fd;
    size_t sent, got, want; /* bytes; want 0: the headers are not there yet */
    char answer[ANSWER_BYTES];
};

static struct connection connections[CONNECTIONS_MAX];
static char *request;
static size_t request_bytes;
static uint64_t left, answered, failed;

static void fail(const char *what)
{
    fprintf(stderr, "bench_http: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static void read_request(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;

    if (!file || fstat(fileno(file), &st) < 0)
        fail(path);
    request_bytes = (size_t)st.st_size;
    request = malloc(request_bytes + 1);
    if (!request || fread(request, 1, request_bytes, file) != request_bytes)
        fail(path);
    fclose(file);
}

static int connect_tcp(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        fail("connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path))
        fail("a path too long for a socket");
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        fail("connect");
    return fd;
}

static int connect_to(const char *where)
{
    return strchr(where, '/') ? connect_unix(where) : connect_tcp((uint16_t)strtoul(where, NULL, 10));
}

/* The socket blocks; a request fits its buffers, so that this does not. */
static void send_request(struct connection *c)
{
    for (c->sent = 0; c->sent < request_bytes;) {
        ssize_t n = send(c->fd, request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL);
        if (n < 0)
            fail("send");
        c->sent += (size_t)n;
    }
    c->got = c->want = 0;
    left--;
}

/* Headers and body of the answer, in bytes; 0: not known yet. */
static size_t answer_bytes(struct connection *c)
{
    c->answer[c->got] = '\0';
    const char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "\r\nContent-Length:");

    if (!end)
        return 0;
    if (!length || length > end)
        fail("an answer without Content-Length");
    failed += strncmp(c->answer, "HTTP/1.1 200", 12) != 0;
    return (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10);
}

static void receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->got, sizeof(c->answer) - 1 - c->got, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        fail("the server closed the connection");
    c->got += (size_t)n;
    if (c->want == 0)
        c->want = answer_bytes(c);
    if (c->want == 0 || c->got < c->want)
        return;
    answered++;
    if (left > 0)
        send_request(c);
}

static void run(const char *where, size_t n, uint64_t count)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[64];

    left = count;
    for (size_t i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        connections[i].fd = connect_to(where);
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connections[i].fd, &event) < 0)
            fail("epoll_ctl");
    }
    for (size_t i = 0; i < n && left > 0; i++)
        send_request(&connections[i]);
    while (answered < count) {
        int ready = epoll_wait(epoll_fd, events, XN_ARRAY_LEN(events), -1);
        for (int i = 0; i < ready; i++)
            receive(events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: bench_http WHERE CONNECTIONS COUNT FILE");
    size_t n = strtoul(argv[2], NULL, 10);
    uint64_t count = strtoull(argv[3], NULL, 10), start_ns;

    if (n < 1 || n > CONNECTIONS_MAX || count < 1)
        fail("connections or count");
    read_request(argv[4]);
    start_ns = xn_clock_now_ns();
    run(argv[1], n, count);
    printf("{\"count\": %llu, \"seconds\": %.6f, \"failed\": %llu}\n", (unsigned long long)count,
           (double)(xn_clock_now_ns() - start_ns) / 1e9, (unsigned long long)failed);
    return 0;
}
