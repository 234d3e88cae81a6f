/* SPDX-License-Identifier: Apache-2.0
 * The least that a server of xnord's kind can take: one thread drives libmicrohttpd in rounds as daemon/http/loop.c does, and suspends each POST when its body is there;
 * another thread takes what a round brought and gives it back, and the first resumes and answers. Nothing is parsed, scheduled or computed. tests/bench/http measures it beside xnord:
 *
 *     bench_mhd          prints its port, and ends at the end of its standard input
 *     bench_mhd SOCKET   the same on a unix socket at that path, which it prints */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <microhttpd.h>

#define WAITING_MAX 1024u

struct list {
    struct MHD_Connection *connections[WAITING_MAX];
    size_t n;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards asked, answered, stop */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct list round_asked, asked, answered; /* the first is the serving thread's */
static int stop, event_fd;

static char received, handed_over; /* states of a request, by address */

/* Move all of `from` to the end of `to`. */
static void move(struct list *to, struct list *from)
{
    if (to->n + from->n > WAITING_MAX)
        abort();
    memcpy(to->connections + to->n, from->connections, from->n * sizeof(from->connections[0]));
    to->n += from->n;
    from->n = 0;
}

/* ---- the other thread --------------------------------------------------------------------------------------------- */

static void *work(void *argument)
{
    (void)argument;
    pthread_mutex_lock(&lock);
    while (!stop) {
        if (asked.n == 0) {
            pthread_cond_wait(&wake, &lock);
            continue;
        }
        int first = answered.n == 0;
        move(&answered, &asked);
        pthread_mutex_unlock(&lock);
        if (first)
            (void)eventfd_write(event_fd, 1);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* ---- the serving thread ------------------------------------------------------------------------------------------- */

static void hand_over(struct MHD_Connection *connection)
{
    if (round_asked.n == WAITING_MAX)
        abort();
    MHD_suspend_connection(connection);
    round_asked.connections[round_asked.n++] = connection;
}

static void resume_all(void)
{
    static struct list taken;

    pthread_mutex_lock(&lock);
    move(&taken, &answered);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < taken.n; i++)
        MHD_resume_connection(taken.connections[i]);
    taken.n = 0;
}

static void start_all(void)
{
    if (round_asked.n == 0)
        return;
    pthread_mutex_lock(&lock);
    move(&asked, &round_asked);
    pthread_mutex_unlock(&lock);
    pthread_cond_signal(&wake);
}

static enum MHD_Result answer(struct MHD_Connection *connection)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(3, (void *)(uintptr_t) "ok\n", MHD_RESPMEM_PERSISTENT);
    enum MHD_Result r = MHD_queue_response(connection, 200, response);

    MHD_destroy_response(response);
    return r;
}

static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *upload, size_t *upload_bytes, void **state)
{
    (void)user;
    (void)url;
    (void)method;
    (void)version;
    (void)upload;
    if (!*state) {
        *state = &received;
    } else if (*upload_bytes > 0) {
        *upload_bytes = 0;
    } else if (*state == &received) {
        *state = &handed_over;
        hand_over(connection);
    } else {
        return answer(connection);
    }
    return MHD_YES;
}

/* A listening socket at `path`; -1 on failure. */
static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
        return -1;
    memcpy(address.sun_path, path, strlen(path));
    return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 128) < 0 ? -1 : fd;
}

static struct MHD_Daemon *start(const char *path)
{
    struct MHD_OptionItem socket_option[] = {{MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}};

    if (path)
        socket_option[0] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, listen_unix(path), NULL};
    if (path && socket_option[0].value < 0)
        return NULL;
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, NULL,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_ARRAY, socket_option,
                            MHD_OPTION_END);
}

static int watch(int epoll_fd, int fd, uint32_t how)
{
    struct epoll_event event = {.events = how, .data.fd = fd};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Rounds until the end of the standard input. */
static void serve(struct MHD_Daemon *daemon, int epoll_fd)
{
    struct epoll_event events[3];
    MHD_UNSIGNED_LONG_LONG ms;

    for (;;) {
        int wait = MHD_get_timeout(daemon, &ms) != MHD_YES, n = 0;
        if (wait || ms > 0)
            n = epoll_wait(epoll_fd, events, 3, wait ? -1 : (int)ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == STDIN_FILENO)
                return;
        }
        resume_all();
        (void)MHD_run(daemon);
        start_all();
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : NULL;
    struct MHD_Daemon *daemon = start(path);
    const union MHD_DaemonInfo *info = daemon ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    pthread_t thread;

    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!info || watch(epoll_fd, info->epoll_fd, EPOLLIN) < 0 || watch(epoll_fd, event_fd, EPOLLIN | EPOLLET) < 0 ||
        watch(epoll_fd, STDIN_FILENO, EPOLLIN) < 0 || pthread_create(&thread, NULL, work, NULL) != 0)
        return 1;
    pthread_setname_np(thread, "xn-accel-0");
    pthread_setname_np(pthread_self(), "xn-http-0");
    if (path)
        printf("%s\n", path);
    else
        printf("%u\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    serve(daemon, epoll_fd);
    pthread_mutex_lock(&lock);
    stop = 1;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    return 0; /* whatever is suspended ends with the process */
}
