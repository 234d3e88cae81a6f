/* SPDX-License-Identifier: Apache-2.0
 * The threads that serve connections. Each drives a libmicrohttpd daemon of its own, which has no thread, in rounds:
 *
 *     wait until there is something to do -> resume the connections whose work is done -> MHD_run: read, parse, answer -> start the work that has come in
 *
 * So what comes at once goes on at once, and costs one wake-up: requests whose bodies were read in one round start together at its end, or as soon as XN_LOOP_STARTING_MAX
 * of them wait, and those that are done before the thread looks are resumed together, by the thread itself, which takes no system call where another's resumption takes one.
 *
 * Work that is done lies on a stack without a lock. Who finds it empty wakes the thread; whoever comes later before that has looked need not. The event is edge-triggered, so nobody
 * reads it. libmicrohttpd resumes in the order in which it suspended, so that the stack turns the order round does not matter. */
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/http/internal.h"

#define SOURCES 2 /* of events: the daemon's epoll and our event */

static _Thread_local struct xn_loop *here; /* the loop of this thread */

/* ---- work --------------------------------------------------------------------------------------------------------- */

static void start_all(struct xn_loop *loop)
{
    if (loop->n_starting > 0)
        loop->next->submit(loop->next->user, loop->starting, loop->n_starting);
    loop->n_starting = 0;
}

/* Suspended first: the work may end, and resume it, before whoever hands it on returns. */
void xn_loop_suspend(struct xn_exchange *exchange, struct xn_request *request)
{
    exchange->loop = here;
    MHD_suspend_connection(exchange->connection);
    if (!request)
        return;
    here->starting[here->n_starting++] = request;
    if (here->n_starting == XN_LOOP_STARTING_MAX)
        start_all(here);
}

void xn_loop_resume(struct xn_exchange *exchange)
{
    struct xn_loop *loop = exchange->loop;
    struct xn_exchange *top = atomic_load_explicit(&loop->done, memory_order_relaxed);

    do
        exchange->next = top;
    while (!atomic_compare_exchange_weak_explicit(&loop->done, &top, exchange, memory_order_release,
                                                  memory_order_relaxed));
    if (!top)
        (void)eventfd_write(loop->event_fd, 1);
}

static void resume_all(struct xn_loop *loop)
{
    struct xn_exchange *exchange = atomic_exchange_explicit(&loop->done, NULL, memory_order_acquire);

    while (exchange) {
        struct xn_exchange *next = exchange->next;
        MHD_resume_connection(exchange->connection);
        exchange = next;
    }
}

/* ---- thread ------------------------------------------------------------------------------------------------------- */

/* For how long nothing can be to do, in ms; -1: for ever. */
static int idle_ms(const struct xn_loop *loop)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (atomic_load_explicit(&loop->done, memory_order_relaxed))
        return 0;
    if (MHD_get_timeout(loop->daemon, &ms) != MHD_YES)
        return -1;
    return (int)XN_MIN(ms, (MHD_UNSIGNED_LONG_LONG)INT_MAX);
}

static void *loop_main(void *argument)
{
    struct xn_loop *loop = argument;
    struct epoll_event events[SOURCES];

    here = loop;
    while (!atomic_load_explicit(&loop->stop, memory_order_relaxed)) {
        int ms = idle_ms(loop);
        if (ms != 0)
            (void)epoll_wait(loop->epoll_fd, events, SOURCES, ms);
        if (atomic_load_explicit(&loop->quiesce, memory_order_relaxed))
            (void)MHD_quiesce_daemon(loop->daemon);
        resume_all(loop);
        (void)MHD_run(loop->daemon);
        start_all(loop);
    }
    resume_all(loop);
    return NULL;
}

static int watch(const struct xn_loop *loop, int fd, uint32_t how)
{
    struct epoll_event event = {.events = how, .data.fd = fd};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int xn_loop_start(struct xn_loop *loop, const struct xn_http_next *next, struct MHD_Daemon *daemon, const char *name)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);

    loop->next = next;
    loop->daemon = daemon;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!info || loop->epoll_fd < 0 || loop->event_fd < 0)
        return -EMFILE;
    int r = watch(loop, info->epoll_fd, EPOLLIN);
    if (r >= 0)
        r = watch(loop, loop->event_fd, EPOLLIN | EPOLLET);
    if (r >= 0)
        r = -pthread_create(&loop->thread, NULL, loop_main, loop);
    if (r < 0)
        return r;
    loop->started = true;
    pthread_setname_np(loop->thread, name);
    return 0;
}

void xn_loop_quiesce(struct xn_loop *loop)
{
    atomic_store_explicit(&loop->quiesce, true, memory_order_relaxed);
    if (loop->started)
        (void)eventfd_write(loop->event_fd, 1);
}

void xn_loop_stop(struct xn_loop *loop)
{
    if (loop->started) {
        atomic_store_explicit(&loop->stop, true, memory_order_relaxed);
        (void)eventfd_write(loop->event_fd, 1);
        pthread_join(loop->thread, NULL);
    }
    if (loop->daemon) {
        (void)MHD_quiesce_daemon(loop->daemon); /* else it closes the socket */
        MHD_stop_daemon(loop->daemon);
    }
    if (loop->event_fd >= 0)
        close(loop->event_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
}
