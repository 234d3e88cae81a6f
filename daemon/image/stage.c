/* SPDX-License-Identifier: Apache-2.0
 * A bounded queue of items and a few decoder threads. The queue is intrusive (item->next) and its lock a leaf; nothing is decoded for a request that has been
 * answered already. Expiry of an item that waits here: a decoder takes it when it gets to it, and no picture takes long, so the wait is bounded by the queue. */
#include "daemon/image/stage.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/image/image.h"

struct decoder_thread {
    struct xn_image_stage *stage;
    struct xn_image_decoder *decoder;
    pthread_t thread;
    bool started;
};

struct xn_image_stage {
    pthread_mutex_t queue_lock;
    pthread_cond_t not_empty;    /* with queue_lock */
    struct xn_item *head, *tail; /* guarded by queue_lock */
    size_t depth, limit;         /* depth guarded by queue_lock */
    uint32_t idle;               /* guarded by queue_lock: threads that wait */
    bool stop;                   /* guarded by queue_lock */
    xn_image_next next;
    void *user;
    struct decoder_thread *threads;
    uint32_t n_threads;
};

static struct xn_item *pop(struct xn_image_stage *stage)
{
    struct xn_item *item;

    pthread_mutex_lock(&stage->queue_lock);
    while (!stage->head && !stage->stop) {
        stage->idle++;
        pthread_cond_wait(&stage->not_empty, &stage->queue_lock);
        stage->idle--;
    }
    item = stage->stop ? NULL : stage->head;
    if (item) {
        stage->head = item->next;
        if (!stage->head)
            stage->tail = NULL;
        stage->depth--;
        item->next = NULL;
    }
    pthread_mutex_unlock(&stage->queue_lock);
    return item;
}

/* Returns the status that goes on to `next`. */
static int decode(struct xn_image_decoder *decoder, struct xn_item *item)
{
    const struct xn_network *network = item->request->model->network;
    struct xn_error error = {{0}};
    int status;

    if (xn_item_settled(item, &status))
        return status < 0 ? status : -ECANCELED;
    item->decode_start_ns = xn_clock_now_ns();
    if (item->request->deadline_ns <= item->decode_start_ns)
        status = xn_error_set(&error, -ETIMEDOUT, "the deadline passed while waiting for a decoder");
    else
        status = xn_image_decode(decoder, item->encoded, item->encoded_bytes, &network->input, item->input, &error);
    if (status < 0)
        xn_item_settle(item, status, &error);
    return status;
}

static void *decoder_main(void *argument)
{
    struct decoder_thread *self = argument;
    struct xn_image_stage *stage = self->stage;

    for (struct xn_item *item; (item = pop(stage));)
        stage->next(stage->user, item, decode(self->decoder, item));
    return NULL;
}

static int start_threads(struct xn_image_stage *stage, uint64_t max_pixels)
{
    char name[16];

    for (uint32_t i = 0; i < stage->n_threads; i++) {
        struct decoder_thread *t = &stage->threads[i];
        t->stage = stage;
        int r = xn_image_decoder_new(max_pixels, &t->decoder);
        if (r < 0)
            return r;
        r = -pthread_create(&t->thread, NULL, decoder_main, t);
        if (r < 0)
            return r;
        t->started = true;
        snprintf(name, sizeof(name), "xn-image-%u", (unsigned)(i % 1000));
        pthread_setname_np(t->thread, name);
    }
    return 0;
}

int xn_image_stage_new(uint32_t threads, uint64_t max_pixels, size_t queue_limit, xn_image_next next, void *user,
                       struct xn_image_stage **ret_stage, struct xn_error *error)
{
    struct xn_image_stage *stage = xn_calloc(1, sizeof(*stage));
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (!stage)
        return xn_error_set(error, -ENOMEM, "no memory for the image stage");
    pthread_mutex_init(&stage->queue_lock, NULL);
    pthread_cond_init(&stage->not_empty, NULL);
    stage->limit = queue_limit;
    stage->next = next;
    stage->user = user;
    stage->n_threads = threads ? threads : (uint32_t)XN_MAX(cpus, 1);
    stage->threads = xn_calloc(stage->n_threads, sizeof(*stage->threads));
    int r = stage->threads ? start_threads(stage, max_pixels) : -ENOMEM;
    if (r < 0) {
        uint32_t n = stage->n_threads;
        xn_image_stage_free(stage);
        return xn_error_set(error, r, "%u decoder threads: %s", n, strerror(-r));
    }
    *ret_stage = stage;
    return 0;
}

int xn_image_stage_push(struct xn_image_stage *stage, struct xn_item *item)
{
    int r = 0;
    bool wake = false;

    item->next = NULL;
    pthread_mutex_lock(&stage->queue_lock);
    if (stage->stop || stage->depth >= stage->limit) {
        r = stage->stop ? -ECANCELED : -ENOBUFS;
    } else {
        *(stage->tail ? &stage->tail->next : &stage->head) = item;
        stage->tail = item;
        stage->depth++;
        wake = stage->idle > 0;
    }
    pthread_mutex_unlock(&stage->queue_lock);
    if (wake)
        pthread_cond_signal(&stage->not_empty);
    return r;
}

size_t xn_image_stage_depth(struct xn_image_stage *stage)
{
    pthread_mutex_lock(&stage->queue_lock);
    size_t depth = stage->depth;
    pthread_mutex_unlock(&stage->queue_lock);
    return depth;
}

static void stop_threads(struct xn_image_stage *stage)
{
    pthread_mutex_lock(&stage->queue_lock);
    stage->stop = true;
    pthread_cond_broadcast(&stage->not_empty);
    pthread_mutex_unlock(&stage->queue_lock);
    for (uint32_t i = 0; stage->threads && i < stage->n_threads; i++) {
        if (stage->threads[i].started)
            pthread_join(stage->threads[i].thread, NULL);
        stage->threads[i].started = false;
    }
}

void xn_image_stage_stop(struct xn_image_stage *stage)
{
    struct xn_error error;

    if (!stage)
        return;
    stop_threads(stage);
    xn_error_set(&error, -ECANCELED, "the server is stopping");
    pthread_mutex_lock(&stage->queue_lock);
    struct xn_item *rest = stage->head;
    stage->head = stage->tail = NULL;
    stage->depth = 0;
    pthread_mutex_unlock(&stage->queue_lock);
    for (struct xn_item *item; (item = rest);) {
        rest = item->next;
        xn_item_settle(item, -ECANCELED, &error);
        stage->next(stage->user, item, -ECANCELED);
    }
}

void xn_image_stage_free(struct xn_image_stage *stage)
{
    if (!stage)
        return;
    xn_image_stage_stop(stage);
    for (uint32_t i = 0; stage->threads && i < stage->n_threads; i++)
        xn_image_decoder_free(stage->threads[i].decoder);
    free(stage->threads);
    pthread_cond_destroy(&stage->not_empty);
    pthread_mutex_destroy(&stage->queue_lock);
    free(stage);
}
