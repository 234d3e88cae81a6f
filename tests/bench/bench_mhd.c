/* SPDX-License-Identifier: Apache-2.0
 * The least that a server of xnord's kind can take: libmicrohttpd with one epoll thread, which suspends each POST when its body is there; another thread resumes it, and
 * the epoll thread answers. Nothing is parsed, scheduled or computed. tests/bench/http measures it beside xnord:
 *
 *     bench_mhd   prints its port, and ends at the end of its standard input */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#define WAITING_MAX 1024u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards waiting, n_waiting, stop */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct MHD_Connection *waiting[WAITING_MAX];
static size_t n_waiting;
static int stop;

static char received, handed_over; /* states of a request, by address */

static void hand_over(struct MHD_Connection *connection)
{
    MHD_suspend_connection(connection);
    pthread_mutex_lock(&lock);
    if (n_waiting == WAITING_MAX)
        abort();
    waiting[n_waiting++] = connection;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void *work(void *argument)
{
    struct MHD_Connection *taken[WAITING_MAX];
    size_t n;

    (void)argument;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (n_waiting == 0 && !stop)
            pthread_cond_wait(&wake, &lock);
        n = n_waiting;
        memcpy(taken, waiting, n * sizeof(taken[0]));
        n_waiting = 0;
        pthread_mutex_unlock(&lock);
        if (n == 0)
            return NULL;
        for (size_t i = 0; i < n; i++)
            MHD_resume_connection(taken[i]);
    }
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

int main(void)
{
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0, NULL, NULL, handle,
                         NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = daemon ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    pthread_t thread;

    if (!info || pthread_create(&thread, NULL, work, NULL) != 0)
        return 1;
    pthread_setname_np(thread, "xn-accel-0");
    printf("%u\n", info->port);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    pthread_mutex_lock(&lock);
    stop = 1;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    MHD_stop_daemon(daemon);
    return 0;
}
