/* SPDX-License-Identifier: Apache-2.0
 * What /metrics tells (docs/metrics.md). Counters and histograms are sharded by thread and lock-free on the request
 * path; gauges are pulled when rendered. Metrics can never stop or fail a request. */
#ifndef XN_DAEMON_OBSERVE_METRICS_H
#define XN_DAEMON_OBSERVE_METRICS_H

#include "daemon/request.h"
#include "daemon/sched/sched.h"

struct xn_metrics;
struct xn_metrics_text; /**< the text being made by a render */

#define XN_METRICS_SOURCES_MAX 8u
/** Room for a label value after escaping, with its NUL. */
#define XN_METRICS_LABEL_BYTES 192u

/** Why a request was refused or failed before it could be answered with results. */
enum xn_reject {
    XN_REJECT_BAD_REQUEST,
    XN_REJECT_BAD_IMAGE,
    XN_REJECT_UNSUPPORTED_MEDIA,
    XN_REJECT_TOO_LARGE,
    XN_REJECT_UNKNOWN_MODEL,
    XN_REJECT_QUEUE_FULL,
    XN_REJECT_SHARE,
    XN_REJECT_CLIENT_LIMIT,
    XN_REJECT_UNAUTHORIZED,
    XN_REJECT_FORBIDDEN,
    XN_REJECT_DEADLINE,
    XN_REJECT_NO_BUFFER,
    XN_REJECT_TIMEOUT,
    XN_REJECT_SHUTDOWN,
    XN_REJECT_ACCELERATOR,
    XN_REJECT_SLOW_CLIENT,
    XN_REJECT_NOT_FOUND,
    XN_REJECT_METHOD,
    XN_REJECT_INTERNAL,
    XN_REJECT_COUNT
};
const char *xn_reject_name(enum xn_reject reason); /**< "bad_request", ... */

/** Doors a request comes through: for the label `route`. */
enum xn_route {
    XN_ROUTE_INFER,
    XN_ROUTE_V2_INFER,
    XN_ROUTE_V2,
    XN_ROUTE_METRICS,
    XN_ROUTE_HEALTH,
    XN_ROUTE_INDEX,
    XN_ROUTE_OTHER,
    XN_ROUTE_COUNT
};

/** Pulled at render time; called on an HTTP thread without locks. */
struct xn_metrics_source {
    void *user;
    void (*render)(void *user, struct xn_metrics_text *text);
};

/** Names of `instances` are copied. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_metrics_new(const struct xn_instances *instances, struct xn_metrics **ret_metrics);
void xn_metrics_free(struct xn_metrics *metrics);

/** Give `slot` its labels; called when models are published. The texts are copied. A slot that changes hands starts again
 *  from zero. Threads: one at a time, beside events and renders. */
void xn_metrics_set_model(struct xn_metrics *metrics, uint32_t slot, const char *name, const char *version);
/** Copies *source; its user must outlive the metrics' last render. At most XN_METRICS_SOURCES_MAX. Threads: main,
 *  beside renders. */
void xn_metrics_add_source(struct xn_metrics *metrics, const struct xn_metrics_source *source);

/* Events. Threads: any; lock-free. */
void xn_metrics_http(struct xn_metrics *metrics, enum xn_route route, unsigned status, uint64_t duration_ns);
void xn_metrics_reject(struct xn_metrics *metrics, enum xn_reject reason);
/** An image (or, for RECEIVE and RESPOND, a request) took duration_ns in `stage`. */
void xn_metrics_stage(struct xn_metrics *metrics, uint32_t slot, enum xn_stage stage, uint64_t duration_ns);
/** A batch has run on its instance: counts it and its images, as failures where `status` is negative. */
void xn_metrics_batch(struct xn_metrics *metrics, const struct xn_batch *batch, uint64_t exec_ns, int status);
/** Energy attributed to inferences of the model in `slot`. */
void xn_metrics_energy(struct xn_metrics *metrics, uint32_t slot, uint32_t instance, const struct xn_energy *energy);

/** The whole text in Prometheus format 0.0.4, malloc'ed and NUL-terminated, *ret_bytes long. Errors: -ENOMEM.
 *  Threads: any. */
XN_MUST_CHECK int xn_metrics_render(struct xn_metrics *metrics, char **ret_text, size_t *ret_bytes);

/* For sources: families and samples. help and type are written once for each family call; names are literals
 * "xnord_...". */
void xn_metrics_family(struct xn_metrics_text *text, const char *name, const char *type, const char *help);
/** One sample: labels is "" or `model="a",accelerator="cpu0"` with values already escaped by xn_metrics_escape. */
void xn_metrics_sample(struct xn_metrics_text *text, const char *name, const char *labels, double value);
/** Escape a label value into ret (capacity bytes), cut when too long. Returns ret. */
char *xn_metrics_escape(const char *value, char *ret, size_t capacity);

/* Families whose figures others keep; a source of app.c fills these in. */
struct xn_metrics_instance {
    const char *name, *kind, *device, *geometry; /**< as xn_accel_info */
    bool healthy;
    uint64_t busy_ns;
    uint64_t retries, quarantines, resets, reset_failures; /**< as struct xn_instance_status */
};
struct xn_metrics_model {
    const char *name, *version, *sha256_hex;
    uint32_t queue_depth;
};

/** xnord_instance_info, xnord_instance_busy_seconds_total, xnord_instance_healthy, and xnord_instance_(quarantines, resets, reset_failures,
 *  retries)_total. */
void xn_metrics_render_instances(struct xn_metrics_text *text, const struct xn_metrics_instance *instances, size_t n);
/** xnord_model_info, xnord_queue_depth. */
void xn_metrics_render_models(struct xn_metrics_text *text, const struct xn_metrics_model *models, size_t n);
/** xnord_requests_active. */
void xn_metrics_render_requests(struct xn_metrics_text *text, size_t active);

#endif
