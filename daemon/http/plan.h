/* SPDX-License-Identifier: Apache-2.0
 * What the JSON of the Open Inference Protocol's infer says, apart from tensors: read once, and remembered by its very bytes, as clients send the same JSON with
 * other tensors over and over. Pure. */
#ifndef XN_DAEMON_HTTP_PLAN_H
#define XN_DAEMON_HTTP_PLAN_H

#include "daemon/http/body.h"

/** A part of a shared memory region. */
struct xn_plan_part {
    char region[XN_REGION_NAME_BYTES]; /**< "": none */
    uint64_t offset, bytes;
};

enum xn_plan_source {
    XN_PLAN_DATA,   /**< numbers or strings in the JSON */
    XN_PLAN_BINARY, /**< what follows the JSON */
    XN_PLAN_SHARED, /**< in a region */
};

struct xn_plan {
    size_t n;                   /**< batch, at least 1 */
    bool pictures;              /**< BYTES, encoded pictures; false: tensors */
    enum xn_plan_source source; /**< of the input */
    uint64_t binary_bytes;      /**< XN_PLAN_BINARY: that follow, as the client says */
    struct xn_plan_part input;  /**< XN_PLAN_SHARED */
    const json_t *data;         /**< XN_PLAN_DATA; the tree's */
    struct xn_ask ask;          /**< but for top_k and `shared` of its outputs; timeout_ns 0: nothing is said */
    bool has_priority;
    struct xn_plan_part parts[XN_BODY_OUTPUTS]; /**< where each output goes */
};

/** Read `root`. Errors: -EINVAL with a text. */
XN_MUST_CHECK int xn_plan_read(const json_t *root, const struct xn_network *network, struct xn_plan *ret_plan,
                               struct xn_error *error);

/** The plan that the same JSON gave for the same network before, or NULL. Valid until the thread remembers another. Threads: each its own. */
const struct xn_plan *xn_plan_recall(const struct xn_network *network, const void *json, size_t bytes);
/** Keep `plan`, unless its JSON is long or has the tensors in it. */
void xn_plan_remember(const struct xn_network *network, const void *json, size_t bytes, const struct xn_plan *plan);

#endif
