/* SPDX-License-Identifier: Apache-2.0
 * Counters and histograms.
 *
 * What many threads count at once (requests, stages, refusals) is sharded: a thread picks one of SHARDS copies when
 * it first counts, and a render adds the copies up. What belongs to an accelerator instance (batches) has one copy
 * an instance, which in practice its worker alone writes. All are relaxed atomic additions: nothing is ordered by
 * them, a sum taken after the counting threads were joined is exact, and one taken meanwhile may miss the latest. A
 * histogram's count is the sum of its buckets, so the two always agree.
 *
 * Label values of models may change at a reload: labels_lock guards them, for a copy at a time. */
#include "daemon/observe/metrics.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/observe/text.h"

#define SHARDS      16u
#define STATUS_MAX  600u /* HTTP status codes below; index 0 for anything else */
#define MODELS      XN_CONFIG_MODELS_MAX
#define BUCKETS_MAX 19u
#define LABEL_BYTES XN_METRICS_LABEL_BYTES

typedef atomic_uint_fast64_t counter;

/* 10 us to 10 s by 1, 2, 5: a request of a small network on a CPU takes tens of microseconds, a time-out seconds. */
static const uint64_t duration_bounds_ns[] = {
    10 * XN_NS_PER_US,  20 * XN_NS_PER_US, 50 * XN_NS_PER_US,  100 * XN_NS_PER_US, 200 * XN_NS_PER_US,
    500 * XN_NS_PER_US, 1 * XN_NS_PER_MS,  2 * XN_NS_PER_MS,   5 * XN_NS_PER_MS,   10 * XN_NS_PER_MS,
    20 * XN_NS_PER_MS,  50 * XN_NS_PER_MS, 100 * XN_NS_PER_MS, 200 * XN_NS_PER_MS, 500 * XN_NS_PER_MS,
    1 * XN_NS_PER_S,    2 * XN_NS_PER_S,   5 * XN_NS_PER_S,    10 * XN_NS_PER_S,
};
static const uint64_t batch_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

struct scale {
    const uint64_t *bounds;
    size_t n;
    double unit; /* of the metric, in units of the bounds */
};
static const struct scale durations = {duration_bounds_ns, XN_ARRAY_LEN(duration_bounds_ns), 1e-9};
static const struct scale batch_sizes = {batch_bounds, XN_ARRAY_LEN(batch_bounds), 1};

_Static_assert(XN_ARRAY_LEN(duration_bounds_ns) <= BUCKETS_MAX && XN_ARRAY_LEN(batch_bounds) <= BUCKETS_MAX,
               "BUCKETS_MAX");

struct histogram {
    counter bucket[BUCKETS_MAX + 1];
    counter sum;
};

/* One thread's, or a few threads', share of what is counted on the request path. */
struct shard {
    struct histogram stage[MODELS][XN_STAGE_COUNT];
    struct histogram request[XN_ROUTE_COUNT];
    counter status[XN_ROUTE_COUNT][STATUS_MAX];
    counter rejected[XN_REJECT_COUNT];
} XN_ALIGNED(XN_CACHE_LINE);

/* Batches of one model on one instance. */
struct pair {
    struct histogram exec, size;
    counter reason[XN_CLOSE_COUNT];
    counter inferences, failures;
    counter energy_nj[XN_ENERGY_SOURCES], active_nj[XN_ENERGY_SOURCES];
};

struct instance {
    char label[LABEL_BYTES]; /* the name, escaped */
    struct pair models[MODELS];
} XN_ALIGNED(XN_CACHE_LINE);

struct xn_metrics {
    struct shard *shards;
    struct instance *instances;
    uint32_t n_instances;
    double start_time_s;
    struct xn_metrics_source sources[XN_METRICS_SOURCES_MAX];
    atomic_uint n_sources; /* release: the source below it is written; acquire in render */
    pthread_mutex_t labels_lock;
    char (*labels)[LABEL_BYTES]; /* [MODELS], model="...",version="...", escaped; "" for a free slot */
};

/* ---- counting ---- */

static uint32_t shard_index(void)
{
    static atomic_uint next;
    static _Thread_local uint32_t mine = UINT32_MAX;

    if (XN_UNLIKELY(mine == UINT32_MAX))
        mine = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % SHARDS;
    return mine;
}

static void add(counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint64_t get(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static void observe(struct histogram *h, const struct scale *scale, uint64_t value)
{
    size_t i = 0;

    while (i < scale->n && value > scale->bounds[i])
        i++;
    add(&h->bucket[i], 1);
    add(&h->sum, value);
}

void xn_metrics_http(struct xn_metrics *metrics, enum xn_route route, unsigned status, uint64_t duration_ns)
{
    struct shard *shard = &metrics->shards[shard_index()];

    if ((unsigned)route >= XN_ROUTE_COUNT)
        route = XN_ROUTE_OTHER;
    add(&shard->status[route][status < STATUS_MAX ? status : 0], 1);
    observe(&shard->request[route], &durations, duration_ns);
}

void xn_metrics_reject(struct xn_metrics *metrics, enum xn_reject reason)
{
    if ((unsigned)reason >= XN_REJECT_COUNT)
        reason = XN_REJECT_INTERNAL;
    add(&metrics->shards[shard_index()].rejected[reason], 1);
}

void xn_metrics_stage(struct xn_metrics *metrics, uint32_t slot, enum xn_stage stage, uint64_t duration_ns)
{
    if (slot < MODELS && (unsigned)stage < XN_STAGE_COUNT)
        observe(&metrics->shards[shard_index()].stage[slot][stage], &durations, duration_ns);
}

void xn_metrics_batch(struct xn_metrics *metrics, const struct xn_batch *batch, uint64_t exec_ns, int status)
{
    uint32_t slot = batch->model->slot;

    if (slot >= MODELS || batch->instance >= metrics->n_instances || (unsigned)batch->reason >= XN_CLOSE_COUNT)
        return;
    struct pair *pair = &metrics->instances[batch->instance].models[slot];
    add(&pair->reason[batch->reason], 1);
    observe(&pair->size, &batch_sizes, batch->n);
    observe(&pair->exec, &durations, exec_ns);
    add(status < 0 ? &pair->failures : &pair->inferences, batch->n);
}

void xn_metrics_energy(struct xn_metrics *metrics, uint32_t slot, uint32_t instance, const struct xn_energy *energy)
{
    if (slot >= MODELS || instance >= metrics->n_instances)
        return;
    struct pair *pair = &metrics->instances[instance].models[slot];
    if (energy->joules > 0)
        add(&pair->energy_nj[energy->source], (uint64_t)(energy->joules * 1e9 + 0.5));
    if (energy->active_j > 0)
        add(&pair->active_nj[energy->source], (uint64_t)(energy->active_j * 1e9 + 0.5));
}

/* ---- labels and sources ---- */

static void reset_histogram(struct histogram *h)
{
    for (size_t i = 0; i <= BUCKETS_MAX; i++)
        atomic_store_explicit(&h->bucket[i], 0, memory_order_relaxed);
    atomic_store_explicit(&h->sum, 0, memory_order_relaxed);
}

static void reset_pair(struct pair *pair)
{
    reset_histogram(&pair->exec);
    reset_histogram(&pair->size);
    for (size_t i = 0; i < XN_CLOSE_COUNT; i++)
        atomic_store_explicit(&pair->reason[i], 0, memory_order_relaxed);
    atomic_store_explicit(&pair->inferences, 0, memory_order_relaxed);
    atomic_store_explicit(&pair->failures, 0, memory_order_relaxed);
    for (size_t i = 0; i < XN_ENERGY_SOURCES; i++) {
        atomic_store_explicit(&pair->energy_nj[i], 0, memory_order_relaxed);
        atomic_store_explicit(&pair->active_nj[i], 0, memory_order_relaxed);
    }
}

static void reset_slot(struct xn_metrics *metrics, uint32_t slot)
{
    for (uint32_t i = 0; i < metrics->n_instances; i++)
        reset_pair(&metrics->instances[i].models[slot]);
    for (uint32_t i = 0; i < SHARDS; i++) {
        for (uint32_t stage = 0; stage < XN_STAGE_COUNT; stage++)
            reset_histogram(&metrics->shards[i].stage[slot][stage]);
    }
}

void xn_metrics_set_model(struct xn_metrics *metrics, uint32_t slot, const char *name, const char *version)
{
    char label[LABEL_BYTES], a[LABEL_BYTES / 2], b[LABEL_BYTES / 4];

    if (slot >= MODELS)
        return;
    memset(label, 0, sizeof(label));
    snprintf(label, sizeof(label), "model=\"%s\",version=\"%s\"", xn_metrics_escape(name, a, sizeof(a)),
             xn_metrics_escape(version, b, sizeof(b)));
    pthread_mutex_lock(&metrics->labels_lock);
    bool changes_hands = metrics->labels[slot][0] != '\0' && strcmp(metrics->labels[slot], label) != 0;
    memcpy(metrics->labels[slot], label, sizeof(label));
    pthread_mutex_unlock(&metrics->labels_lock);
    if (changes_hands)
        reset_slot(metrics, slot);
}

void xn_metrics_add_source(struct xn_metrics *metrics, const struct xn_metrics_source *source)
{
    unsigned n = atomic_load_explicit(&metrics->n_sources, memory_order_relaxed);

    if (n == XN_METRICS_SOURCES_MAX)
        return;
    metrics->sources[n] = *source;
    atomic_store_explicit(&metrics->n_sources, n + 1, memory_order_release);
}

int xn_metrics_new(const struct xn_instances *instances, struct xn_metrics **ret_metrics)
{
    struct xn_metrics *m = xn_calloc(1, sizeof(*m));
    struct timespec now;

    if (!m)
        return -ENOMEM;
    pthread_mutex_init(&m->labels_lock, NULL);
    m->n_instances = instances->n;
    m->shards = xn_calloc_aligned(SHARDS, sizeof(*m->shards));
    m->instances = xn_calloc_aligned(XN_MAX(instances->n, 1u), sizeof(*m->instances));
    m->labels = xn_calloc(MODELS, sizeof(*m->labels));
    if (!m->shards || !m->instances || !m->labels) {
        xn_metrics_free(m);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < instances->n; i++)
        xn_metrics_escape(xn_accel_info(instances->accel[i])->name, m->instances[i].label, LABEL_BYTES);
    clock_gettime(CLOCK_REALTIME, &now);
    m->start_time_s = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    *ret_metrics = m;
    return 0;
}

void xn_metrics_free(struct xn_metrics *metrics)
{
    if (!metrics)
        return;
    pthread_mutex_destroy(&metrics->labels_lock);
    free(metrics->shards);
    free(metrics->instances);
    free(metrics->labels);
    free(metrics);
}

/* ---- rendering ---- */

static const char *const route_names[XN_ROUTE_COUNT] = {"infer",  "v2_infer", "v2",   "metrics",
                                                        "health", "index",    "other"};
static const char *const stage_names[XN_STAGE_COUNT] = {"receive", "decode", "queue", "execute", "respond"};
static const char *const reject_names[XN_REJECT_COUNT] = {
    "bad_request",  "bad_image",    "unsupported_media", "too_large", "unknown_model", "queue_full", "share",
    "client_limit", "unauthorized", "forbidden",         "deadline",  "no_buffer",     "timeout",    "shutdown",
    "accelerator",  "slow_client",  "not_found",         "method",    "internal",
};

const char *xn_reject_name(enum xn_reject reason)
{
    return (unsigned)reason < XN_REJECT_COUNT ? reject_names[reason] : "internal";
}

/* What one render works with: the labels as they are at its beginning. */
struct render {
    const struct xn_metrics *metrics;
    struct xn_metrics_text *text;
    char labels[MODELS][LABEL_BYTES];
};

/* Plain sums of a histogram's copies. */
struct totals {
    uint64_t bucket[BUCKETS_MAX + 1], sum;
};

static void add_histogram(struct totals *totals, const struct histogram *h)
{
    for (size_t i = 0; i <= BUCKETS_MAX; i++)
        totals->bucket[i] += get(&h->bucket[i]);
    totals->sum += get(&h->sum);
}

static void put_histogram(struct xn_metrics_text *text, const char *name, const char *labels, const struct scale *scale,
                          const struct totals *totals)
{
    xn_metrics_text_histogram(text, name, labels, scale->bounds, totals->bucket, scale->n, totals->sum, scale->unit);
}

static void render_statuses(struct render *r)
{
    static const char name[] = "xnord_http_requests_total";
    char labels[64];

    xn_metrics_family(r->text, name, "counter", "HTTP requests answered.");
    for (uint32_t route = 0; route < XN_ROUTE_COUNT; route++) {
        for (uint32_t status = 0; status < STATUS_MAX; status++) {
            uint64_t n = 0;
            for (uint32_t i = 0; i < SHARDS; i++)
                n += get(&r->metrics->shards[i].status[route][status]);
            if (n == 0)
                continue;
            snprintf(labels, sizeof(labels), "route=\"%s\",code=\"%03u\"", route_names[route], status);
            xn_metrics_sample(r->text, name, labels, (double)n);
        }
    }
}

static void render_requests(struct render *r)
{
    static const char name[] = "xnord_http_request_duration_seconds";
    char labels[64];

    xn_metrics_family(r->text, name, "histogram", "Time from a request's first header to its answer's last byte.");
    for (uint32_t route = 0; route < XN_ROUTE_COUNT; route++) {
        struct totals totals = {0};
        for (uint32_t i = 0; i < SHARDS; i++)
            add_histogram(&totals, &r->metrics->shards[i].request[route]);
        snprintf(labels, sizeof(labels), "route=\"%s\"", route_names[route]);
        put_histogram(r->text, name, labels, &durations, &totals);
    }
}

static void render_rejects(struct render *r)
{
    static const char name[] = "xnord_requests_rejected_total";
    char labels[64];

    xn_metrics_family(r->text, name, "counter", "Requests refused or failed, by reason.");
    for (uint32_t reason = 0; reason < XN_REJECT_COUNT; reason++) {
        uint64_t n = 0;
        for (uint32_t i = 0; i < SHARDS; i++)
            n += get(&r->metrics->shards[i].rejected[reason]);
        snprintf(labels, sizeof(labels), "reason=\"%s\"", reject_names[reason]);
        xn_metrics_sample(r->text, name, labels, (double)n);
    }
}

static void render_stages(struct render *r)
{
    static const char name[] = "xnord_stage_duration_seconds";
    char labels[LABEL_BYTES + 64];

    xn_metrics_family(r->text, name, "histogram", "Time that images (receive, respond: requests) spent in each stage.");
    for (uint32_t slot = 0; slot < MODELS; slot++) {
        for (uint32_t stage = 0; r->labels[slot][0] != '\0' && stage < XN_STAGE_COUNT; stage++) {
            struct totals totals = {0};
            for (uint32_t i = 0; i < SHARDS; i++)
                add_histogram(&totals, &r->metrics->shards[i].stage[slot][stage]);
            snprintf(labels, sizeof(labels), "%s,stage=\"%s\"", r->labels[slot], stage_names[stage]);
            put_histogram(r->text, name, labels, &durations, &totals);
        }
    }
}

static void render_batch_sizes(struct render *r)
{
    static const char name[] = "xnord_batch_size";
    char labels[LABEL_BYTES + 16];

    xn_metrics_family(r->text, name, "histogram", "Images in a batch.");
    for (uint32_t slot = 0; slot < MODELS; slot++) {
        struct totals totals = {0};
        if (r->labels[slot][0] == '\0')
            continue;
        for (uint32_t i = 0; i < r->metrics->n_instances; i++)
            add_histogram(&totals, &r->metrics->instances[i].models[slot].size);
        snprintf(labels, sizeof(labels), "%s", r->labels[slot]);
        put_histogram(r->text, name, labels, &batch_sizes, &totals);
    }
}

/* A counter of each model: the sum over instances of the counter at `offset` in struct pair. */
static void render_model_counter(struct render *r, const char *name, const char *help, size_t offset)
{
    char labels[LABEL_BYTES + 16];

    xn_metrics_family(r->text, name, "counter", help);
    for (uint32_t slot = 0; slot < MODELS; slot++) {
        uint64_t n = 0;
        if (r->labels[slot][0] == '\0')
            continue;
        for (uint32_t i = 0; i < r->metrics->n_instances; i++)
            n += get((const counter *)(const void *)((const char *)&r->metrics->instances[i].models[slot] + offset));
        snprintf(labels, sizeof(labels), "%s", r->labels[slot]);
        xn_metrics_sample(r->text, name, labels, (double)n);
    }
}

/* Calls `put` for each model on each instance. */
static void each_pair(struct render *r, void (*put)(struct render *r, const struct pair *pair, const char *labels))
{
    char labels[2 * LABEL_BYTES + 32];

    for (uint32_t slot = 0; slot < MODELS; slot++) {
        for (uint32_t i = 0; r->labels[slot][0] != '\0' && i < r->metrics->n_instances; i++) {
            const struct instance *instance = &r->metrics->instances[i];
            snprintf(labels, sizeof(labels), "%s,accelerator=\"%s\"", r->labels[slot], instance->label);
            put(r, &instance->models[slot], labels);
        }
    }
}

static void put_reasons(struct render *r, const struct pair *pair, const char *labels)
{
    char all[2 * LABEL_BYTES + 64];

    for (uint32_t reason = 0; reason < XN_CLOSE_COUNT; reason++) {
        snprintf(all, sizeof(all), "%s,reason=\"%s\"", labels, xn_close_reason_name((enum xn_close_reason)reason));
        xn_metrics_sample(r->text, "xnord_batches_total", all, (double)get(&pair->reason[reason]));
    }
}

static void put_exec(struct render *r, const struct pair *pair, const char *labels)
{
    struct totals totals = {0};

    add_histogram(&totals, &pair->exec);
    put_histogram(r->text, "xnord_batch_duration_seconds", labels, &durations, &totals);
}

static void put_inferences(struct render *r, const struct pair *pair, const char *labels)
{
    xn_metrics_sample(r->text, "xnord_instance_inferences_total", labels, (double)get(&pair->inferences));
}

/* Energy that nobody measured is absent, not 0. */
static void put_sources(struct render *r, const char *family, const counter nj[static XN_ENERGY_SOURCES],
                        const char *labels)
{
    char all[2 * LABEL_BYTES + 64];

    for (uint32_t source = 0; source < XN_ENERGY_SOURCES; source++) {
        snprintf(all, sizeof(all), "%s,source=\"%s\"", labels, xn_energy_source_names[source]);
        if (get(&nj[source]) > 0)
            xn_metrics_sample(r->text, family, all, (double)get(&nj[source]) * 1e-9);
    }
}

static void put_energy(struct render *r, const struct pair *pair, const char *labels)
{
    put_sources(r, "xnord_inference_energy_joules_total", pair->energy_nj, labels);
}

static void put_active(struct render *r, const struct pair *pair, const char *labels)
{
    put_sources(r, "xnord_inference_active_energy_joules_total", pair->active_nj, labels);
}

static void render_batches(struct render *r)
{
    xn_metrics_family(r->text, "xnord_batches_total", "counter", "Batches run, by the reason why each was closed.");
    each_pair(r, put_reasons);
    xn_metrics_family(r->text, "xnord_batch_duration_seconds", "histogram",
                      "Time a batch ran on its accelerator instance.");
    each_pair(r, put_exec);
    render_model_counter(r, "xnord_inferences_total", "Images run through a network.",
                         offsetof(struct pair, inferences));
    xn_metrics_family(r->text, "xnord_instance_inferences_total", "counter",
                      "Images run through a network, by the instance that ran them.");
    each_pair(r, put_inferences);
    render_model_counter(r, "xnord_inference_failures_total", "Images in batches that failed on an accelerator.",
                         offsetof(struct pair, failures));
    xn_metrics_family(r->text, "xnord_inference_energy_joules_total", "counter",
                      "Energy of inferences while they ran, their share of idle power included.");
    each_pair(r, put_energy);
    xn_metrics_family(r->text, "xnord_inference_active_energy_joules_total", "counter",
                      "Energy of inferences over idle; absent while idle power is not known.");
    each_pair(r, put_active);
}

static void render_build(struct render *r)
{
    xn_metrics_family(r->text, "xnord_build_info", "gauge", "Always 1; its labels say which build this is.");
    xn_metrics_sample(r->text, "xnord_build_info", "version=\"" XN_VERSION "\",git=\"" XN_GIT "\"", 1);
}

static void render_sources(struct render *r)
{
    unsigned n = atomic_load_explicit(&r->metrics->n_sources, memory_order_acquire);

    for (unsigned i = 0; i < n; i++)
        r->metrics->sources[i].render(r->metrics->sources[i].user, r->text);
}

int xn_metrics_render(struct xn_metrics *metrics, char **ret_text, size_t *ret_bytes)
{
    struct xn_metrics_text text = {0};
    struct render r = {.metrics = metrics, .text = &text};

    pthread_mutex_lock(&metrics->labels_lock);
    memcpy(r.labels, metrics->labels, sizeof(r.labels));
    pthread_mutex_unlock(&metrics->labels_lock);
    render_build(&r);
    render_statuses(&r);
    render_requests(&r);
    render_rejects(&r);
    render_stages(&r);
    render_batch_sizes(&r);
    render_batches(&r);
    render_sources(&r);
    xn_metrics_text_process(&text, metrics->start_time_s);
    if (text.failed) {
        free(text.data);
        return -ENOMEM;
    }
    *ret_text = text.data;
    *ret_bytes = text.length;
    return 0;
}

/* ---- families whose figures others keep ---- */

static const char *instance_labels(const struct xn_metrics_instance *instance, char ret[static 2 * LABEL_BYTES + 32])
{
    char name[LABEL_BYTES], kind[LABEL_BYTES];

    snprintf(ret, 2 * LABEL_BYTES + 32, "accelerator=\"%s\",kind=\"%s\"",
             xn_metrics_escape(instance->name, name, sizeof(name)),
             xn_metrics_escape(instance->kind, kind, sizeof(kind)));
    return ret;
}

static void render_failures(struct xn_metrics_text *text, const struct xn_metrics_instance *instances, size_t n)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } counters[] = {
        {"xnord_instance_quarantines_total", "Times an instance was taken out of service because it failed or hung.",
         offsetof(struct xn_metrics_instance, quarantines)},
        {"xnord_instance_resets_total", "Resets that brought an instance back into service.",
         offsetof(struct xn_metrics_instance, resets)},
        {"xnord_instance_reset_failures_total", "Resets that did not; each is followed by another.",
         offsetof(struct xn_metrics_instance, reset_failures)},
        {"xnord_instance_retries_total", "Images of batches that failed on an instance which were tried once more.",
         offsetof(struct xn_metrics_instance, retries)},
    };
    char labels[4 * LABEL_BYTES + 64];

    for (size_t k = 0; k < XN_ARRAY_LEN(counters); k++) {
        xn_metrics_family(text, counters[k].name, "counter", counters[k].help);
        for (size_t i = 0; i < n; i++)
            xn_metrics_sample(
                text, counters[k].name, instance_labels(&instances[i], labels),
                (double)*(const uint64_t *)(const void *)((const char *)&instances[i] + counters[k].offset));
    }
}

void xn_metrics_render_instances(struct xn_metrics_text *text, const struct xn_metrics_instance *instances, size_t n)
{
    char labels[4 * LABEL_BYTES + 64], device[LABEL_BYTES], geometry[LABEL_BYTES];

    xn_metrics_family(text, "xnord_instance_info", "gauge",
                      "Always 1; its labels say what an instance is and how it computes.");
    for (size_t i = 0; i < n; i++) {
        const size_t used = strlen(instance_labels(&instances[i], labels));
        snprintf(labels + used, sizeof(labels) - used, ",device=\"%s\",geometry=\"%s\"",
                 xn_metrics_escape(instances[i].device, device, sizeof(device)),
                 xn_metrics_escape(instances[i].geometry, geometry, sizeof(geometry)));
        xn_metrics_sample(text, "xnord_instance_info", labels, 1);
    }
    xn_metrics_family(text, "xnord_instance_busy_seconds_total", "counter", "Time an instance had a batch running.");
    for (size_t i = 0; i < n; i++)
        xn_metrics_sample(text, "xnord_instance_busy_seconds_total", instance_labels(&instances[i], labels),
                          (double)instances[i].busy_ns * 1e-9);
    xn_metrics_family(text, "xnord_instance_healthy", "gauge",
                      "1 while an instance is in service, 0 while quarantined.");
    for (size_t i = 0; i < n; i++)
        xn_metrics_sample(text, "xnord_instance_healthy", instance_labels(&instances[i], labels), instances[i].healthy);
    render_failures(text, instances, n);
}

void xn_metrics_render_models(struct xn_metrics_text *text, const struct xn_metrics_model *models, size_t n)
{
    char name[LABEL_BYTES], version[LABEL_BYTES], labels[2 * LABEL_BYTES + 128];

    xn_metrics_family(text, "xnord_model_info", "gauge",
                      "Always 1; its labels say which file a model was loaded from.");
    for (size_t i = 0; i < n; i++) {
        snprintf(labels, sizeof(labels), "model=\"%s\",version=\"%s\",sha256=\"%.64s\"",
                 xn_metrics_escape(models[i].name, name, sizeof(name)),
                 xn_metrics_escape(models[i].version, version, sizeof(version)), models[i].sha256_hex);
        xn_metrics_sample(text, "xnord_model_info", labels, 1);
    }
    xn_metrics_family(text, "xnord_queue_depth", "gauge", "Images waiting for a batch.");
    for (size_t i = 0; i < n; i++) {
        snprintf(labels, sizeof(labels), "model=\"%s\",version=\"%s\"",
                 xn_metrics_escape(models[i].name, name, sizeof(name)),
                 xn_metrics_escape(models[i].version, version, sizeof(version)));
        xn_metrics_sample(text, "xnord_queue_depth", labels, models[i].queue_depth);
    }
}

void xn_metrics_render_requests(struct xn_metrics_text *text, size_t active)
{
    xn_metrics_family(text, "xnord_requests_active", "gauge", "Requests admitted and not yet answered.");
    xn_metrics_sample(text, "xnord_requests_active", "", (double)active);
}
