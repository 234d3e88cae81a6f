/* SPDX-License-Identifier: Apache-2.0
 * What the files of http/ share: the server, the state of a POST under way, and how an answer is made. */
#ifndef XN_DAEMON_HTTP_INTERNAL_H
#define XN_DAEMON_HTTP_INTERNAL_H

#include <microhttpd.h>

#include "daemon/http/body.h"
#include "daemon/http/http.h"
#include "daemon/http/text.h"

#define XN_REQUEST_ID_BYTES 129u /**< X-Request-Id that is echoed, with NUL */

/** One TCP connection, for the sweep that ends those that take too long. From a pool; owner: MHD's connection. */
struct xn_link {
    struct xn_link *next, *prev; /**< guarded by links_lock */
    int fd;
    bool swept; /**< guarded by links_lock: shut down already */
    /** relaxed: when the current phase has taken too long, XN_NEVER_NS: it may take as long as it needs (a request is being worked on) */
    _Atomic uint64_t limit_ns;
    atomic_bool in_body; /**< relaxed: a body is being received (408), else headers or nothing */
};

/** An inference request on its way through http/. From a pool; owner: MHD's request (con_cls).
 *
 *     RECEIVING (body comes in) -> WORKING (suspended; items with image/ and sched/) -> ready to answer: all items settled
 *         \-> failed: `status` is set; the rest of the body is passed over, then the error is answered */
struct xn_call {
    struct xn_http *http;
    struct MHD_Connection *connection;
    struct xn_link *link;
    struct xn_request *request; /**< a reference */
    enum xn_route route;
    bool working; /**< submitted: the next callback answers */
    int failure;  /**< negative errno of what went wrong before the items were submitted; 0: nothing */
    struct xn_error error;
    uint32_t announced;   /**< items admitted and not yet submitted */
    size_t passed_over;   /**< bytes of body thrown away after a failure */
    int64_t header_bytes; /**< v2: Inference-Header-Content-Length, -1: none */
    struct xn_ask ask;
    char request_id[XN_REQUEST_ID_BYTES];
};

struct xn_http {
    const struct xn_config *config;
    struct xn_http_next next;
    uint32_t n_daemons;
    struct MHD_Daemon *daemons[XN_CONFIG_LISTENERS_MAX];
    struct xn_pool *calls, *links;
    pthread_mutex_t links_lock; /**< guards first_link and the list */
    struct xn_link *first_link;
    pthread_t sweeper;
    bool sweeping;
    pthread_cond_t sweep_wake; /**< with links_lock */
    bool stop;                 /**< guarded by links_lock */
    atomic_bool quiesced;      /**< relaxed: answers carry Connection: close */
};

/** An HTTP request as the handlers of GETs see it. */
struct xn_get {
    struct xn_http *http;
    struct MHD_Connection *connection;
    enum xn_route route;
    uint64_t start_ns;
    char segments[4][XN_MODEL_NAME_BYTES]; /**< what {m} and {n} of the pattern matched */
};

/* routes.c */

/** MHD's access handler. */
enum MHD_Result xn_http_handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *upload, size_t *upload_bytes, void **call);

/* answer.c */

/** What to answer besides status and body. Strings may be NULL. */
struct xn_answer {
    unsigned code;
    const char *content_type;
    unsigned retry_after_s;
    const char *allow; /**< 405 */
    const char *request_id;
    int64_t header_bytes; /**< Inference-Header-Content-Length; 0: none */
    bool close;           /**< Connection: close */
};

/** Queue `body` (copied unless `owned`, then freed with free()). Also counts it. */
enum MHD_Result xn_http_answer(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                               uint64_t start_ns, const struct xn_answer *answer, const void *body, size_t bytes,
                               bool owned);
/** {"error": "..."} with the status of `error_code`; counted as rejected. */
enum MHD_Result xn_http_answer_error(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                     uint64_t start_ns, int error_code, const struct xn_error *error,
                                     const char *request_id, const char *allow);

/* infer.c */

/** First callback of POST /infer or v2 infer: admit or refuse. `model_name` NULL: the default. */
enum MHD_Result xn_call_begin(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              const char *model_name, const char *version, void **ret_call);
/** Later callbacks. */
enum MHD_Result xn_call_continue(struct xn_call *call, const char *upload, size_t *upload_bytes);
/** The request is over, answered or not. */
void xn_call_end(struct xn_call *call);

/* results.c: answers of finished calls, written into `text`. */

/** Bytes that are certainly enough for the answer of `call`. */
size_t xn_results_capacity(const struct xn_call *call);
void xn_results_write_infer(const struct xn_call *call, struct xn_text *text);
/** Returns the length of the JSON where binary tensors follow it, else 0. */
size_t xn_results_write_v2(const struct xn_call *call, struct xn_text *text);

/* pages.c: handlers of GETs. */
enum MHD_Result xn_page_index(struct xn_get *get);
enum MHD_Result xn_page_healthz(struct xn_get *get);
enum MHD_Result xn_page_readyz(struct xn_get *get);
enum MHD_Result xn_page_metrics(struct xn_get *get);
enum MHD_Result xn_page_status(struct xn_get *get);
enum MHD_Result xn_page_v2(struct xn_get *get);
enum MHD_Result xn_page_v2_live(struct xn_get *get);
enum MHD_Result xn_page_v2_ready(struct xn_get *get);
enum MHD_Result xn_page_v2_model(struct xn_get *get);
enum MHD_Result xn_page_v2_model_ready(struct xn_get *get);

#endif
