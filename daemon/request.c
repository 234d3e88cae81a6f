/* SPDX-License-Identifier: Apache-2.0
 * Requests and their items. One pool object holds a request and its array of items; buffers of a few size classes hold bodies, tensors and
 * logits. Everything is taken at start: an empty pool is a refusal.
 *
 * Settling. `settled` goes from XN_ITEM_UNSETTLED to a status once, in two steps so that the winner can write the error text before anybody
 * reads it: UNSETTLED -> SETTLING (claimed by compare-and-swap) -> status (released). Readers see either no status or a whole one. The last
 * settled item of a request calls request->done; `unsettled` counts down with acquire-release order, so that the caller of done sees the results
 * of all items. */
#include "daemon/request.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"

#define SETTLING 2 /* claimed, status not yet visible */

struct xn_requests {
    struct xn_pool *pool;
    struct xn_buf_pool *buffers;
    uint32_t images_per_request;
};

/* How the address space for buffers is shared out: the largest class gets a quarter, the others as much as one another, so that there are the more of
 * a size the smaller it is. Classes are four times as large from one to the next: with wider steps a picture of 100 KiB would take a buffer of a megabyte,
 * and with it the place of ten others. */
static size_t plan_classes(const struct xn_config *config, struct xn_buf_class *classes)
{
    static const size_t small_bytes[] = {4096, 16384, 65536, 1u << 18, 1u << 20, 1u << 22};
    size_t largest = XN_MAX(config->limits.body_bytes, config->limits.json_bytes);
    size_t n = 0;

    for (size_t i = 0; i < XN_ARRAY_LEN(small_bytes) && small_bytes[i] < largest; i++)
        classes[n++].bytes = small_bytes[i];
    classes[n++].bytes = xn_align_up(largest, 4096);
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = config->limits.buffer_bytes;
        size_t share = n == 1 ? bytes : i + 1 == n ? bytes / 4 : bytes / 4 * 3 / (n - 1);
        /* No request takes more than a body, tensors and logits. */
        classes[i].count = XN_MAX(XN_MIN(share / classes[i].bytes, 3u * config->limits.requests), 2u);
    }
    return n;
}

int xn_requests_new(const struct xn_config *config, struct xn_requests **ret_requests)
{
    struct xn_buf_class classes[XN_BUF_CLASSES_MAX];
    struct xn_requests *all = xn_calloc(1, sizeof(*all));
    size_t object_bytes = sizeof(struct xn_request) + config->limits.images_per_request * sizeof(struct xn_item);

    if (!all)
        return -ENOMEM;
    memset(classes, 0, sizeof(classes));
    all->images_per_request = config->limits.images_per_request;
    int r = xn_pool_new(object_bytes, config->limits.requests, &all->pool);
    if (r >= 0)
        r = xn_buf_pool_new(classes, plan_classes(config, classes), &all->buffers);
    if (r < 0) {
        xn_requests_free(all);
        return r;
    }
    *ret_requests = all;
    return 0;
}

void xn_requests_free(struct xn_requests *requests)
{
    if (!requests)
        return;
    xn_buf_pool_free(requests->buffers);
    xn_pool_free(requests->pool);
    free(requests);
}

struct xn_request *xn_request_new(struct xn_requests *requests)
{
    struct xn_request *request = xn_pool_take(requests->pool);

    if (!request)
        return NULL;
    memset(request, 0, sizeof(*request));
    request->pool = requests;
    request->items = (struct xn_item *)(void *)(request + 1);
    request->deadline_ns = XN_NEVER_NS;
    atomic_init(&request->refs, 1);
    return request;
}

struct xn_request *xn_request_ref(struct xn_request *request)
{
    atomic_fetch_add_explicit(&request->refs, 1, memory_order_relaxed);
    return request;
}

void xn_request_unref(struct xn_request *request)
{
    if (!request)
        return;
    /* Release what this holder wrote; the last one acquires what all others wrote before it gives the memory back. */
    unsigned before = atomic_fetch_sub_explicit(&request->refs, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    struct xn_requests *all = request->pool;
    xn_buf_give(all->buffers, &request->body);
    xn_buf_give(all->buffers, &request->tensors);
    xn_buf_give(all->buffers, &request->logits);
    for (uint32_t i = 0; i < request->n_regions; i++)
        xn_region_unref(request->regions[i]);
    if (request->model)
        xn_model_unref(request->model);
    request->model = NULL;
    xn_pool_give(all->pool, request);
}

int xn_request_buf_take(struct xn_request *request, size_t bytes, struct xn_buf *ret_buf)
{
    return xn_buf_take(request->pool->buffers, bytes, ret_buf);
}

void xn_request_buf_give(struct xn_request *request, struct xn_buf *buf)
{
    xn_buf_give(request->pool->buffers, buf);
}

size_t xn_requests_active(const struct xn_requests *requests)
{
    return xn_pool_used(requests->pool);
}

/* Bytes of one item's tensor and logits, each padded so that every tensor starts on a cache line. */
static bool items_bytes(const struct xn_network *network, uint32_t n, size_t *ret_tensors, size_t *ret_logits)
{
    return xn_mul_size(xn_align_up(network->input_bytes, XN_CACHE_LINE), n, ret_tensors) &&
           xn_mul_size(xn_align_up(network->n_classes * sizeof(int32_t), XN_CACHE_LINE), n, ret_logits);
}

static void init_item(struct xn_request *request, uint32_t i, uint8_t *tensor, uint8_t *logits)
{
    struct xn_item *item = &request->items[i];

    memset(item, 0, offsetof(struct xn_item, error));
    item->request = request;
    item->index = i;
    item->input = tensor;
    item->logits = (int32_t *)(void *)logits;
    item->energy = (struct xn_energy){.joules = -1, .active_j = -1};
    item->error.text[0] = '\0';
    atomic_init(&item->settled, XN_ITEM_UNSETTLED);
}

int xn_request_items_init(struct xn_request *request, uint32_t n)
{
    const struct xn_network *network = request->model->network;
    size_t tensor_bytes, logit_bytes;

    if (n < 1 || n > request->pool->images_per_request || !items_bytes(network, n, &tensor_bytes, &logit_bytes))
        return -E2BIG;
    int r = xn_request_buf_take(request, tensor_bytes, &request->tensors);
    if (r >= 0)
        r = xn_request_buf_take(request, logit_bytes, &request->logits);
    if (r < 0)
        return r == -EMSGSIZE ? -E2BIG : r;
    for (uint32_t i = 0; i < n; i++)
        init_item(request, i, request->tensors.data + i * (tensor_bytes / n),
                  request->logits.data + i * (logit_bytes / n));
    request->n_items = n;
    atomic_store_explicit(&request->unsettled, n, memory_order_relaxed);
    return 0;
}

bool xn_item_settle(struct xn_item *item, int status, const struct xn_error *error)
{
    struct xn_request *request = item->request;
    int expected = XN_ITEM_UNSETTLED;

    assert(status <= 0);
    if (!atomic_compare_exchange_strong_explicit(&item->settled, &expected, SETTLING, memory_order_acquire,
                                                 memory_order_relaxed))
        return false;
    if (status < 0 && error)
        item->error = *error;
    atomic_store_explicit(&item->settled, status, memory_order_release); /* partner: xn_item_settled */
    if (atomic_fetch_sub_explicit(&request->unsettled, 1, memory_order_acq_rel) == 1)
        request->done(request);
    return true;
}

bool xn_item_settled(const struct xn_item *item, int *ret_status)
{
    int status = atomic_load_explicit(&item->settled, memory_order_acquire);

    if (status > 0)
        return false;
    *ret_status = status;
    return true;
}
