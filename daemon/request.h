/* SPDX-License-Identifier: Apache-2.0
 * A request and its items (one item: one image or tensor through the network), as they travel
 *
 *     http/ -> (image/) -> sched/ -> accelerator -> http/
 *
 * Request: taken from its pool by http/ when admitted, given back when its last reference goes.
 *
 *     FREE -> RECEIVING (http/ streams the body) -> RUNNING (items with image/ and sched/) -> ANSWERING (http/) -> FREE
 *
 * Item: settled exactly once, by whoever comes first; the last item of a request to settle calls request->done.
 *
 *     NEW -> DECODING -> QUEUED -> RUNNING -> settled: 0
 *       \________\__________\_________\_____> settled: -ETIMEDOUT (timer), -ECANCELED (shutdown), -EBADMSG (undecodable image) ...
 *
 * One owner at a time holds an item (decoder, queue, batch); that holder has a reference on the request, because an item can settle by
 * time-out while an accelerator still writes its buffers: the request is answered at once, and its memory stays until the holder
 * lets go. http/ reads an item's results only when it settled with 0. */
#ifndef XN_DAEMON_REQUEST_H
#define XN_DAEMON_REQUEST_H

#include <stdatomic.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/heap.h"
#include "common/pool.h"
#include "daemon/models.h"
#include "daemon/regions.h"

struct xn_request;

/** Stages whose times are reported. */
enum xn_stage { XN_STAGE_RECEIVE, XN_STAGE_DECODE, XN_STAGE_QUEUE, XN_STAGE_EXECUTE, XN_STAGE_RESPOND, XN_STAGE_COUNT };

#define XN_REQUEST_REGIONS_MAX 3u /**< one input, two outputs */

#define XN_ITEM_UNSETTLED 1 /* value of `settled` before any status (all statuses are <= 0) */

/** Whose work goes first where deadlines leave a choice, and is refused last. */
enum xn_priority { XN_PRIORITY_NORMAL, XN_PRIORITY_HIGH, XN_PRIORITY_LOW, XN_PRIORITY_COUNT };

struct xn_item {
    struct xn_request *request;
    struct xn_item *next, *prev; /**< links of whoever owns it now */
    uint32_t index;              /**< position in the request */
    struct {
        struct xn_heap_node due, expiry;
        uint64_t due_ns, place, work_ns, lump_ns;
        uint32_t flow;
    } sched;             /**< private to sched/ */
    const void *encoded; /**< JPEG or PNG bytes in the request's body; NULL: `input` is ready */
    size_t encoded_bytes;
    void *input;                                                           /**< tensor of network->input_bytes */
    int32_t *logits;                                                       /**< [n_classes] */
    uint64_t decode_start_ns, queued_ns, execute_start_ns, execute_end_ns; /**< CLOCK_MONOTONIC; 0: not reached */
    uint64_t exec_ns;                                                      /**< of its batch, on the accelerator */
    uint32_t batch_size;                                                   /**< it rode in */
    uint32_t instance;       /**< index in xn_instances; UINT32_MAX until it is in a batch */
    uint32_t attempts;       /**< runs that failed under it */
    struct xn_energy energy; /**< its share of its batch's */
    atomic_int settled;      /**< XN_ITEM_UNSETTLED, then its status; release by xn_item_settle, acquire by readers */
    struct xn_error error;   /**< text for a negative status; written before it settles, by the winner only */
};

struct xn_request {
    atomic_uint refs;       /**< http/ + one for each item that image/ or sched/ holds */
    atomic_uint unsettled;  /**< items not yet settled */
    struct xn_model *model; /**< a reference of its own; NULL until known */
    uint64_t start_ns;      /**< first header byte handled */
    uint64_t received_ns;   /**< body complete */
    uint64_t deadline_ns;   /**< absolute; XN_NEVER_NS */
    uint64_t answer_ns;     /**< that an answer is expected to take, from the end of its batch until it has left */
    uint32_t client;        /**< who asks: a hash of the token's name or the address; fair shares are by it */
    uint8_t priority;       /**< enum xn_priority */
    struct xn_buf body;     /**< raw body */
    size_t body_bytes;
    struct xn_buf tensors;                             /**< decoded or converted inputs of its items */
    struct xn_buf logits;                              /**< outputs of its items */
    struct xn_region *regions[XN_REQUEST_REGIONS_MAX]; /**< shared memory it reads or writes, each with a reference */
    uint32_t n_regions;
    uint32_t n_items;
    struct xn_item *items; /**< [limits.images_per_request], from the same pool object */
    void (*done)(
        struct xn_request
            *request); /**< called once, when all items have settled; any thread, no lock held; must not block */
    void *user;        /**< http/'s connection */
    struct xn_requests *pool;
};

struct xn_requests; /**< the pool of requests and their buffers */

XN_MUST_CHECK int xn_requests_new(const struct xn_config *config, struct xn_requests **ret_requests);
void xn_requests_free(struct xn_requests *requests);
/** A fresh request with one reference, or NULL: all are out (answer 503). Threads: any. */
struct xn_request *xn_request_new(struct xn_requests *requests);
struct xn_request *xn_request_ref(struct xn_request *request);
/** The last release gives buffers, regions and model back. */
void xn_request_unref(struct xn_request *request);
/** Buffers of its pool; see xn_buf_take. */
XN_MUST_CHECK int xn_request_buf_take(struct xn_request *request, size_t bytes, struct xn_buf *ret_buf);
/** Give a buffer of xn_request_buf_take back and clear it. */
void xn_request_buf_give(struct xn_request *request, struct xn_buf *buf);
/** Admitted requests not yet given back. */
size_t xn_requests_active(const struct xn_requests *requests);

/** When its items have to be done for the answer to be there by the deadline; XN_NEVER_NS. */
static inline uint64_t xn_request_aim_ns(const struct xn_request *request)
{
    return request->deadline_ns == XN_NEVER_NS
               ? XN_NEVER_NS
               : request->deadline_ns - XN_MIN(request->answer_ns, request->deadline_ns);
}

/** Set up item i = 0..n-1 (n <= images_per_request): unsettled, no times. Also sets request->unsettled = n. Then, as one buffer, take room for n
 *  tensors and n logits rows and point the items at them. Errors: -E2BIG (n), -ENOBUFS. */
XN_MUST_CHECK int xn_request_items_init(struct xn_request *request, uint32_t n);

/** Settle `item` with `status` (0 or negative errno) unless it already is. Returns true for the winner. `error` (may be NULL) is copied by the winner
 *  before it becomes visible. Calls request->done from the last item of the request. Threads: any; call without locks. The caller must hold a
 *  reference on the request. */
bool xn_item_settle(struct xn_item *item, int status, const struct xn_error *error);

/** True once settled; then *ret_status is its status. */
bool xn_item_settled(const struct xn_item *item, int *ret_status);

#endif
