/* SPDX-License-Identifier: Apache-2.0
 * What the files of http/ share: the server, the state of a POST under way, and how an answer is made. */
#ifndef XN_DAEMON_HTTP_INTERNAL_H
#define XN_DAEMON_HTTP_INTERNAL_H

#include <gnutls/abstract.h>
#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>

#include "daemon/http/body.h"
#include "daemon/http/clients.h"
#include "daemon/http/coding.h"
#include "daemon/http/http.h"
#include "daemon/http/status.h"
#include "daemon/http/text.h"
#include "daemon/http/tokens.h"
#include "daemon/http/trace.h"

#define XN_REQUEST_ID_BYTES 129u /**< X-Request-Id that is echoed, with NUL */

/** What a connection is doing, as far as time is concerned. */
enum xn_phase {
    XN_PHASE_IDLE, /**< nothing, or headers: idle_timeout_s without a byte, idle + body_timeout_s in all */
    XN_PHASE_BODY, /**< a body comes in: body_timeout_s */
    XN_PHASE_WORK, /**< with the scheduler, whose deadlines hold: no limit here */
    XN_PHASE_SEND, /**< the client takes its answer: body_timeout_s */
};

/** One connection, for the sweep that ends those that take too long. From a pool; owner: MHD's connection. */
struct xn_link {
    struct xn_link *next, *prev; /**< guarded by links_lock */
    const struct xn_door *door;  /**< where it came in */
    gnutls_session_t tls;        /**< MHD's; for its own thread alone. NULL: plain */
    int fd;
    uint64_t peer;     /**< who is at the other end: a key for xn_clients_enter */
    bool local;        /**< it is on this machine */
    atomic_bool fresh; /**< relaxed: no request has come yet */
    bool linger;       /**< of its epoll thread: answered before everything was read */
    /** When the phase began (ns) << 2 | phase, or XN_LINK_SWEPT. Relaxed: the compare-and-swap alone decides who ends a connection, its epoll
     *  thread or the sweep, and nothing else is handed over with it. */
    _Atomic uint64_t phase;
};
#define XN_LINK_SWEPT UINT64_MAX

/* server.c */

/** Enter `phase` now. False: the sweep has ended the connection meanwhile. `link` may be NULL: it is not watched. Threads: the connection's. */
bool xn_link_enter(struct xn_link *link, enum xn_phase phase, uint64_t now_ns);
/** The link of `connection`, or NULL. */
struct xn_link *xn_link_of(struct MHD_Connection *connection);

/* listen.c */

/** A listening socket. */
struct xn_listening {
    int fd;         /**< -1: none */
    bool inherited; /**< from the service manager: it goes on listening when we end */
    bool ended;
};

/** Open, or take over, the sockets of all listeners into ret[n_listeners]. On failure those that were opened are there to be closed. Errors: -EADDRINUSE,
 *  -EADDRNOTAVAIL, -EACCES ... of the system; -EINVAL (a socket was handed over that no listener is for). */
XN_MUST_CHECK int xn_listen_open(const struct xn_config *config, struct xn_listening *ret, struct xn_error *error);
/** No more connections for us. */
void xn_listen_end(struct xn_listening *one, const struct xn_config_listener *listener);
void xn_listen_close(struct xn_listening *one, const struct xn_config_listener *listener);
/** "127.0.0.1 port 8000" or "unix socket /run/...", into ret. */
const char *xn_listen_describe(const struct xn_config_listener *listener, char *ret, size_t capacity);

/* tls.c */

struct xn_tls;      /**< what a listener shows to those who connect; may change while it listens */
struct xn_tls_pair; /**< a certificate with those that lead to its authority, and its key */

#define XN_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/** Read and check both files. Errors: -EINVAL (not PEM, or the key is another's), and of xn_secret_read. */
XN_MUST_CHECK int xn_tls_pair_read(const char *certificate, const char *key, struct xn_tls_pair **ret_pair,
                                   struct xn_error *error);
void xn_tls_pair_unref(struct xn_tls_pair *pair);
XN_MUST_CHECK int xn_tls_new(struct xn_tls **ret_tls);
void xn_tls_free(struct xn_tls *tls);
/** Show `pair` from now on; the reference is taken. Threads: any. */
void xn_tls_apply(struct xn_tls *tls, struct xn_tls_pair *pair);
/** For MHD_OPTION_HTTPS_CERT_CALLBACK2: the pair of the door that the session came in by. */
int xn_tls_retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                    struct gnutls_pcert_st **ret_chain, unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp,
                    unsigned *ret_n_ocsp, struct gnutls_privkey_st **ret_key, unsigned *ret_flags);

/* access.c */

/** Who a request comes from. */
struct xn_who {
    uint64_t key; /**< of the client, for limits and fair shares: the token, else the peer of the connection */
    char token[XN_TOKEN_NAME_BYTES]; /**< the name of its token; "": none was asked for */
    struct xn_client_slot *slot;     /**< counts the request until xn_http_left */
};

/** May this request be answered, on a route that takes `roles` (enum xn_role, as bits; XN_ROLE_ANYONE: no questions)? On success *ret_who is for
 *  xn_http_left; on failure nothing is to be undone. *ret_retry_after_s is for the refusal. Errors: -EACCES (401), -EPERM (403), -EUSERS (429).
 *  Threads: the connection's; no lock, no allocation. */
XN_MUST_CHECK int xn_http_allowed(struct xn_http *http, struct MHD_Connection *connection, const struct xn_link *link,
                                  unsigned roles, struct xn_who *ret_who, unsigned *ret_retry_after_s,
                                  struct xn_error *error);
/** The request is over. */
void xn_http_left(struct xn_who *who);
/** The key of who is at the other end of `fd`: the address; of IPv6 the network, as one host may have many addresses of it; of a unix socket the
 *  user. */
uint64_t xn_http_peer(const struct xn_http *http, int fd, const struct sockaddr *address);
/** Is `peer` on this machine, where the connection's own end has the address `own`: it comes by a unix socket, by loopback, or from that very address?
 *  NULL or of another family than IPv4 and IPv6: a unix socket. A proxy on this machine is, whoever speaks through it. */
bool xn_http_is_local(const struct sockaddr *peer, const struct sockaddr *own);
/** May who is at the other end of `link` (NULL: not known) register, use and unregister shared memory? Errors: -EPERM. */
XN_MUST_CHECK int xn_http_may_share(const struct xn_config *config, const struct xn_link *link, struct xn_error *error);

/* linger.c */

#define XN_LINGER_MAX 128u

/** Connections that are closed for the server, kept until the client has read its answer. All guarded by links_lock. */
struct xn_linger {
    int epoll_fd;
    uint32_t first, n; /**< a ring */
    struct xn_linger_entry {
        int fd; /**< -1: ended */
        uint64_t until_ns;
        bool whole_time; /**< reading was shut down, so that an end of file says nothing */
    } entries[XN_LINGER_MAX];
};

void xn_linger_init(struct xn_linger *linger, int epoll_fd);
/** Keep the connection of `fd`, which stays the caller's, open beyond its close. */
void xn_linger_add_locked(struct xn_linger *linger, int fd, bool whole_time);
/** epoll has an event for entry `i`. */
void xn_linger_event_locked(struct xn_linger *linger, uint32_t i);
/** Close those whose time is over (XN_NEVER_NS: all). */
void xn_linger_expire_locked(struct xn_linger *linger, uint64_t now_ns);

/** The headers that an inference request is read for; NULL: absent. They stay valid until the request is over. */
struct xn_headers {
    const char *content_type, *content_length, *content_encoding, *transfer_encoding, *request_id, *header_length;
    const char *accept_encoding, *traceparent, *tracestate;
    bool repeated; /**< one of them came twice, with different values */
};

/** A request with a body, as MHD's con_cls: what its later callbacks and its end are. The first member of what it is. */
struct xn_exchange {
    /** A piece of the body, or, with *upload_bytes 0, its end or the resumption. */
    enum MHD_Result (*go)(struct xn_exchange *exchange, const char *upload, size_t *upload_bytes);
    void (*end)(struct xn_exchange *exchange); /**< answered or not */
    struct MHD_Connection *connection;
    struct xn_loop *loop;     /**< of loop.c: whose connection is suspended */
    struct xn_exchange *next; /**< of loop.c */
};

/* loop.c */

#define XN_LOOP_STARTING_MAX 16u

/** A thread with its part of a door's connections. */
struct xn_loop {
    const struct xn_http_next *next;
    struct MHD_Daemon *daemon; /**< without threads; this loop's */
    pthread_t thread;
    bool started;
    int epoll_fd, event_fd;    /**< epoll has the daemon's epoll and event_fd; -1: none */
    atomic_bool quiesce, stop; /**< relaxed: event_fd makes the thread look, and nothing is handed over with them */
    /** Work that is done, a stack by `next`: pushed with release by any thread, taken whole with acquire by this one. */
    _Atomic(struct xn_exchange *) done;
    struct xn_request *starting[XN_LOOP_STARTING_MAX]; /**< [n_starting] of its thread: suspended, not submitted */
    uint32_t n_starting;
};

/** Run `daemon`, which is taken over, on a thread called `name`. *loop is all zero, with descriptors -1. On failure xn_loop_stop is still due. Errors: of
 *  the system. */
XN_MUST_CHECK int xn_loop_start(struct xn_loop *loop, const struct xn_http_next *next, struct MHD_Daemon *daemon,
                                const char *name);
/** Accept no more; soon. The socket stays the caller's. Threads: any. */
void xn_loop_quiesce(struct xn_loop *loop);
/** End the thread and all its connections; no work may be under way. */
void xn_loop_stop(struct xn_loop *loop);
/** Suspend the exchange's connection until xn_loop_resume, and submit `request`, now or at the end of the round; NULL: whoever calls hands on the work afterwards. Threads: the connection's. */
void xn_loop_suspend(struct xn_exchange *exchange, struct xn_request *request);
/** The work is done: the connection goes on, on its own thread. Must not be touched afterwards, it may be answered and gone. Threads: any; does not block. */
void xn_loop_resume(struct xn_exchange *exchange);

/** A body that comes in, plain or compressed; see receive.c. */
struct xn_intake {
    enum xn_coding coding;  /**< as it comes */
    uint64_t limit_bytes;   /**< of it as it is when inflated */
    struct xn_pool *codecs; /**< of struct xn_codec */
    struct xn_codec *codec; /**< inflates it; NULL: it comes plain, or is complete */
    struct xn_buf *into;
    size_t *bytes; /**< of `into` that are filled */
    /** `into` is to hold `need` bytes, at most limit_bytes; NULL: it has room for those. Errors: with a text. */
    int (*grow)(struct xn_intake *intake, size_t need);
    struct xn_error *error; /**< why something failed */
};

/** An inference request on its way through http/. From a pool; owner: MHD's request (con_cls).
 *
 *     RECEIVING (body comes in) -> WORKING (suspended; items with image/ and sched/) -> ready to answer: all items settled
 *         \-> failed: answered at once, and the connection ends where not all of the body has been read
 *     REFUSED (a small body comes in and is dropped) -> answered, and the connection goes on */
struct xn_call {
    struct xn_exchange exchange;
    struct xn_http *http;
    struct xn_link *link;
    struct xn_who who;
    struct xn_request *request; /**< a reference; NULL: refused */
    enum xn_route route;
    int refused; /**< negative errno: why, as soon as the body is there; 0: not */
    uint64_t start_ns;
    bool working; /**< submitted: the next callback answers */
    struct xn_error error;
    struct xn_headers headers;
    uint32_t announced;     /**< items admitted and not yet submitted */
    unsigned retry_after_s; /**< what a refusal says; 0: what its status does */
    int64_t header_bytes;   /**< v2: Inference-Header-Content-Length, -1: none */
    struct xn_ask ask;
    struct xn_intake intake; /**< of the body */
    char request_id[XN_REQUEST_ID_BYTES];
    char traceparent[XN_TRACEPARENT_BYTES]; /**< what the answer says; "" none */
};

struct xn_http {
    const struct xn_config *config;
    struct xn_http_next next;
    struct xn_door {
        struct xn_http *http;
        struct xn_loop *loops; /**< [n_loops] */
        uint32_t n_loops;
        struct xn_listening socket;
        struct xn_tls *tls;           /**< NULL: plain */
    } doors[XN_CONFIG_LISTENERS_MAX]; /**< [config->n_listeners] */
    struct xn_pool *calls, *posts, *links;
    struct xn_tokens *tokens;
    struct xn_clients *clients;
    uint64_t seed;              /**< of clients' keys */
    struct xn_pool *codecs;     /**< struct xn_codec */
    uint64_t span_seed;         /**< random */
    _Atomic uint64_t spans;     /**< relaxed: a count, of spans given out */
    pthread_mutex_t links_lock; /**< guards first_link, the list and linger */
    struct xn_link *first_link;
    struct xn_linger linger;
    pthread_t sweeper;
    bool sweeping;
    uint32_t n_sweeps;        /**< of the sweeper */
    uint64_t sweep_active_ns; /**< of the sweeper: when it last saw an inference request under way */
    uint64_t
        sweep_quiesced_ns; /**< of the sweeper: for how long the server has been stopping with none under way; 0: it is not */
    int sweep_fd, stop_fd;        /**< epoll of lingering connections; eventfd in it: stop */
    _Atomic uint64_t quiesced_ns; /**< relaxed: since then answers carry Connection: close; XN_NEVER_NS: not yet */
    /** Relaxed, and an update may be lost: from the end of a batch until an answer is handed over, smoothed, and its mean deviation; ns. */
    _Atomic uint64_t answer_ns, answer_deviation_ns;
};

#define XN_SEGMENT_BYTES 128u /**< of a path, with NUL */

/** An HTTP request as the handlers of GETs see it. */
struct xn_get {
    struct xn_http *http;
    struct MHD_Connection *connection;
    struct xn_link *link;
    enum xn_route route;
    uint64_t start_ns;
    char segments[4][XN_SEGMENT_BYTES]; /**< what {m} and {n} of the pattern matched */
};

/* routes.c */

/** con_cls of a request that is not an xn_exchange: it has been seen once and is answered on the next callback. */
extern void *const xn_http_reading;

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
    const char *traceparent, *tracestate;
    int64_t header_bytes;  /**< Inference-Header-Content-Length; 0: none */
    enum xn_coding coding; /**< the body is compressed already */
    bool
        may_compress; /**< the body depends on Accept-Encoding; an owned one is compressed here where the client takes that */
    bool no_store;           /**< Cache-Control: no-store, for what GET reads */
    bool says_what_it_takes; /**< Accept-Encoding: the codings that bodies may have */
};

/** How long an answer's body stays valid. */
enum xn_body_life {
    XN_BODY_COPY,  /**< until the call returns */
    XN_BODY_OWNED, /**< from malloc; freed here, also on failure */
    XN_BODY_STAYS, /**< until the request is over */
};

/** Queue `body`. Also counts it. */
enum MHD_Result xn_http_answer(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                               uint64_t start_ns, const struct xn_answer *answer, const void *body, size_t bytes,
                               enum xn_body_life life);
/** {"error": "..."} with the status of `error_code`; counted as rejected. `more` (may be NULL): allow, request_id, and retry_after_s where it is not the status's own. */
enum MHD_Result xn_http_answer_error(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                     uint64_t start_ns, int error_code, const struct xn_error *error,
                                     const struct xn_answer *more);
/** The same while a body is still coming in, when MHD takes no answer: written to the socket by hand. The connection lingers; the caller closes it
 *  by answering MHD_NO. */
void xn_http_answer_cut(struct xn_http *http, struct xn_link *link, enum xn_route route, uint64_t start_ns,
                        int error_code, const struct xn_error *error);
/** The bare answer: status line, headers, {"error": "..."}. Never blocks. Returns false where the connection did not take all of it. Threads: the
 *  connection's; where it is plain, any. */
bool xn_http_send_error(const struct xn_link *link, const struct xn_status *status, const char *text);

/** `value` (taken over; NULL: no memory) as JSON. */
enum MHD_Result xn_http_answer_json(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                                    uint64_t start_ns, unsigned code, json_t *value);

/* post.c: requests with a small body that are no inference */

#define XN_POST_BYTES_MAX (128u * 1024) /**< of such a body */
#define XN_POSTS_MAX      32u           /**< of such requests at a time */

/** One of them. From a pool; owner: MHD's request (con_cls).
 *
 *     RECEIVING (body comes in) -> handler -> answered
 *                                  \-> WORKING (suspended, see xn_post_suspend) -> answered by `answer` */
struct xn_post {
    struct xn_exchange exchange;
    struct xn_http *http;
    struct xn_link *link;
    enum xn_route route;
    enum MHD_Result (*handle)(struct xn_post *post); /**< the body is complete: answer, or suspend */
    enum MHD_Result (*answer)(struct xn_post *post); /**< after the resumption; NULL: not suspended */
    uint64_t start_ns;
    char segments[4][XN_SEGMENT_BYTES];
    int status; /**< what the work came to, for `answer` */
    struct xn_error error;
    struct xn_intake intake;
    struct xn_buf into; /**< body */
    size_t bytes;
    char body[XN_POST_BYTES_MAX];
};

/** First callback. */
enum MHD_Result xn_post_begin(const struct xn_get *get, enum MHD_Result (*handle)(struct xn_post *post),
                              void **ret_call);
/** The body as an object; an empty one is an empty object. Free with xn_body_free_json. Errors: as xn_body_load_json. */
XN_MUST_CHECK int xn_post_json(struct xn_post *post, json_t **ret_object);
/** May this server be changed over HTTP? Errors: -EPERM, -ESHUTDOWN. */
XN_MUST_CHECK int xn_post_allowed(struct xn_post *post);
enum MHD_Result xn_post_answer(struct xn_post *post, unsigned code, json_t *value);
/** 200 without a body, as Triton answers. */
enum MHD_Result xn_post_answer_empty(struct xn_post *post);
/** With the text of post->error. */
enum MHD_Result xn_post_fail(struct xn_post *post, int code);
/** Before the work is handed on; xn_post_resume ends it, from any thread. */
void xn_post_suspend(struct xn_post *post, enum MHD_Result (*answer)(struct xn_post *post));
void xn_post_resume(struct xn_post *post, int status, const struct xn_error *error);

/* repository.c, settings.c: handlers */
enum MHD_Result xn_post_index(struct xn_post *post);
enum MHD_Result xn_post_load(struct xn_post *post);
enum MHD_Result xn_post_unload(struct xn_post *post);
enum MHD_Result xn_post_trace(struct xn_post *post);
enum MHD_Result xn_post_logging(struct xn_post *post);
enum MHD_Result xn_post_cuda_unregister(struct xn_post *post);
enum MHD_Result xn_post_cuda_register(struct xn_post *post);
enum MHD_Result xn_page_trace(struct xn_get *get);
enum MHD_Result xn_page_logging(struct xn_get *get);
enum MHD_Result xn_page_cuda_status(struct xn_get *get);

/** What an index request asks for: `ready`, only what is served. Errors: -EINVAL. */
XN_MUST_CHECK int xn_post_parse_index(json_t *body, bool *ret_ready, struct xn_error *error);
/** What a load request asks for. *ret_config: its parameters.config, malloc'ed, or NULL. Errors: -EINVAL, -EOPNOTSUPP (files in the request), -ENOMEM. */
XN_MUST_CHECK int xn_post_parse_load(json_t *body, char **ret_config, struct xn_error *error);
/** Trace settings that change nothing: all there is. Errors: -EINVAL, -EOPNOTSUPP. */
XN_MUST_CHECK int xn_post_parse_trace(json_t *body, struct xn_error *error);
/** The log level that a logging request asks for, where `level` is what it is now. Errors: -EINVAL, -EOPNOTSUPP. */
XN_MUST_CHECK int xn_post_parse_logging(json_t *body, enum xn_log_level level, enum xn_log_level *ret_level,
                                        struct xn_error *error);

/* infer.c */

/** First callback of POST /infer or v2 infer: admit or refuse. `model_name` NULL: the default. `*who` is moved into the call. */
enum MHD_Result xn_call_begin(struct xn_http *http, struct MHD_Connection *connection, enum xn_route route,
                              struct xn_link *link, const struct xn_who *who, const char *model_name,
                              const char *version, void **ret_call);
/** The request is over, answered or not. */
void xn_call_end(struct xn_call *call);

/* receive.c: bodies as they come in. Errors have a text. */

/** What a Content-Encoding says (NULL: identity). Errors: -EOPNOTSUPP. */
XN_MUST_CHECK int xn_intake_coding(const char *content_encoding, enum xn_coding *ret_coding, struct xn_error *error);
/** What a Content-Length says (NULL: *ret_bytes stays). Errors: -EINVAL, -EFBIG (over limit_bytes). */
XN_MUST_CHECK int xn_intake_length(const char *content_length, uint64_t limit_bytes, uint64_t *ret_bytes,
                                   struct xn_error *error);
/** Take a codec where the body comes compressed; all members but `codec` are set. Whatever it returns, xn_intake_done follows. Errors: -EAGAIN (no codec is free), -ENOMEM. */
XN_MUST_CHECK int xn_intake_begin(struct xn_intake *intake);
/** `bytes` of it have come. Errors: -EFBIG, -EINVAL (does not inflate), those of grow. */
XN_MUST_CHECK int xn_intake_receive(struct xn_intake *intake, const void *data, size_t bytes);
/** All of it has come. Errors: -EINVAL (a compressed one is cut short). */
XN_MUST_CHECK int xn_intake_end(struct xn_intake *intake);
/** Give the codec back, if there is one. */
void xn_intake_done(struct xn_intake *intake);
/** Begin the body of a call: a buffer for it, and, where it comes compressed, a codec. Errors: -EINVAL (Content-Length), -EFBIG, -EAGAIN. */
XN_MUST_CHECK int xn_body_begin(struct xn_call *call);

/* slow.c */

/** Log `call`, which is about to be answered with results (code 0) or `error`, if it has taken log.slow_ms or longer. */
void xn_slow_log(const struct xn_call *call, int code, const struct xn_error *error);

/* results.c: answers of finished calls, written into `text`. */

/** Bytes that are certainly enough for the answer of `call`. */
size_t xn_results_capacity(const struct xn_call *call);
void xn_results_write_infer(const struct xn_call *call, struct xn_text *text);
/** Returns the length of the JSON where binary tensors follow it, else 0. */
size_t xn_results_write_v2(const struct xn_call *call, struct xn_text *text);

/* model_pages.c */

/** A reference to the model called `name` (NULL: the default) of `version` (NULL: the latest). Errors: -ENOENT. */
XN_MUST_CHECK int xn_http_model(struct xn_http *http, const char *name, const char *version,
                                struct xn_model **ret_model, struct xn_error *error);
enum MHD_Result xn_page_v2_model(struct xn_get *get);
enum MHD_Result xn_page_v2_model_ready(struct xn_get *get);
enum MHD_Result xn_page_v2_model_config(struct xn_get *get);
enum MHD_Result xn_page_v2_model_stats(struct xn_get *get);

/* pages.c: handlers of other GETs. */
enum MHD_Result xn_page_index(struct xn_get *get);
enum MHD_Result xn_page_healthz(struct xn_get *get);
enum MHD_Result xn_page_readyz(struct xn_get *get);
enum MHD_Result xn_page_metrics(struct xn_get *get);
enum MHD_Result xn_page_status(struct xn_get *get);
enum MHD_Result xn_page_v2(struct xn_get *get);
enum MHD_Result xn_page_v2_live(struct xn_get *get);
enum MHD_Result xn_page_v2_ready(struct xn_get *get);

/* shared.c */
enum MHD_Result xn_page_shared_status(struct xn_get *get);
enum MHD_Result xn_post_shared_register(struct xn_post *post);
enum MHD_Result xn_post_shared_unregister(struct xn_post *post);

#endif
