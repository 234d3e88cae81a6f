/* SPDX-License-Identifier: Apache-2.0
 * From a whole body to the items of a request. Pure: no sockets, no MHD; fuzzed by tests/fuzz/fuzz_json.c. All functions expect request->model and
 * request->body, and on success leave items set up (encoded, or with their tensor), ready to be submitted. Errors: those of xn_status_of. */
#ifndef XN_DAEMON_HTTP_BODY_H
#define XN_DAEMON_HTTP_BODY_H

#include <jansson.h>

#include "daemon/http/numbers.h"
#include "daemon/request.h"

#define XN_TOP_K_MAX      1000u
#define XN_TIMEOUT_MS_MAX 600000u
#define XN_ID_BYTES_MAX   128u /**< request id, with NUL */
#define XN_BODY_OUTPUTS   2u   /**< logits, accumulators */
/** Memory that the tree of one JSON body may take: a body of 4 MiB of "[],[],..." would otherwise become 200 MiB. */
#define XN_JSON_TREE_BYTES_MAX (UINT64_C(64) << 20)
/** Of all trees at once: each body reserves what its tree could take, and gets 503 where that is not left. */
#define XN_JSON_TREES_BYTES_MAX (UINT64_C(256) << 20)

/** What a request asks for besides its images. */
struct xn_ask {
    uint32_t top_k;      /**< 1..XN_TOP_K_MAX */
    uint64_t timeout_ns; /**< 0: the model's default */
    enum xn_priority priority;
    char id[XN_ID_BYTES_MAX]; /**< v2: echoed; "" none */
    bool has_id;
    /* v2 outputs, in the order asked for */
    uint32_t n_outputs;
    struct xn_ask_output {
        bool accumulators;       /**< INT32 sums; false: FP32 logits */
        bool binary;             /**< behind the JSON */
        uint32_t classification; /**< this many best classes, as BYTES, in place of the numbers; 0: the numbers */
        uint8_t *shared;         /**< the numbers go here, in a region that the request holds; NULL: into the answer */
        size_t shared_bytes;     /**< what the client set aside there */
    } outputs[XN_BODY_OUTPUTS];
};

/** The protocol's number for a priority: 1 is the highest, 0 the model's own. */
static inline enum xn_priority xn_ask_priority(uint64_t number)
{
    return number == 1 ? XN_PRIORITY_HIGH : number > 2 ? XN_PRIORITY_LOW : XN_PRIORITY_NORMAL;
}

/** Once, before any other function here: lets the limit on JSON trees work. Threads: none but the caller may use jansson yet. */
void xn_body_init(void);

/** POST /infer with a body that is neither JSON nor multipart: one JPEG or PNG, or one or more raw tensors. `content_type` (may be NULL) decides only
 *  which error something else gets. */
XN_MUST_CHECK int xn_body_parse_plain(struct xn_request *request, const char *content_type, struct xn_error *error);
/** POST /infer, multipart/form-data: each part an image or a raw tensor. */
XN_MUST_CHECK int xn_body_parse_multipart(struct xn_request *request, const char *content_type, struct xn_error *error);
/** POST /infer, application/json: {"image"|"images"|"tensor"|"tensors": ..., "top_k", "timeout_ms", "priority"}. */
XN_MUST_CHECK int xn_body_parse_json(struct xn_request *request, struct xn_ask *ask, struct xn_error *error);
/** POST /v2/models/M/infer. `header_bytes`: Inference-Header-Content-Length, -1: absent (the body is JSON as a whole), 0: the body is one raw
 *  input. Tensors may lie in `regions` (NULL: there are none); the request then holds those it uses. */
XN_MUST_CHECK int xn_body_parse_v2(struct xn_request *request, int64_t header_bytes, struct xn_regions *regions,
                                   struct xn_ask *ask, struct xn_error *error);

/* Shared by the parsers. */

/** Point item `i` at `bytes` of `data`, an image or a tensor. */
XN_MUST_CHECK int xn_body_set_item(struct xn_request *request, uint32_t i, const void *data, size_t bytes,
                                   struct xn_error *error);
/** xn_request_items_init with a text. */
XN_MUST_CHECK int xn_body_init_items(struct xn_request *request, size_t n, struct xn_error *error);
/** Item `i` from a string of base64. What it says is put at *at in the request's body, which the JSON came from and has no more use for, and *at moves
 *  behind it. */
XN_MUST_CHECK int xn_body_base64(struct xn_request *request, uint32_t i, const json_t *value, uint8_t **at,
                                 struct xn_error *error);
/** Parse `bytes` of JSON, an object, with limits on depth, memory and duplicate keys. `without` (NULL: nothing): a part of it that is read as []. Owner: caller, xn_body_free_json on the same thread before
 *  the next is loaded. Errors: -EINVAL, -E2BIG (memory), -EAGAIN (memory of all). */
XN_MUST_CHECK int xn_body_load_json(const void *data, size_t bytes, const struct xn_numbers *without,
                                    json_t **ret_object, struct xn_error *error);
void xn_body_free_json(json_t *root);
/** The numbers of `array` into the inputs of items `first` to `first + n - 1`. It is flat, or nested as [n][h][w][c], where dimensions of 1 may be left
 *  out or put in. `what` names it in errors. */
XN_MUST_CHECK int xn_body_numbers(struct xn_request *request, const json_t *array, uint32_t first, uint32_t n,
                                  const char *what, struct xn_error *error);

#endif
