/* SPDX-License-Identifier: Apache-2.0
 * `bench`: load on a server, and what it made of it.
 *
 * Open loop (--rate): requests are due at times that the server has no influence on, and latency counts from when a request was due, whether or not
 * a connection was free. A server that stalls is charged with all the requests that were due meanwhile (no coordinated omission). Closed loop
 * (--concurrency): each connection sends its next request when its last one is answered; that finds the highest rate, and its latency says
 * little. Answers and refusals are measured apart, both from when they were due and from when they were sent: the difference is what the client itself, or its want of
 * connections, added. With a deadline, what counts is goodput: answers that came within it. Energy, batch sizes and the server's CPU time come from the difference of two readings of /metrics. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "clients/xnorctl/arrivals.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/histogram.h"
#include "clients/xnorctl/load.h"
#include "clients/xnorctl/metrics.h"
#include "clients/xnorctl/options.h"
#include "clients/xnorctl/progress.h"
#include "common/clock.h"

#define CONTROL_TIMEOUT_MS 10000
#define RANDOM_PAYLOADS    16u
#define PAYLOAD_BYTES_MAX  (256u << 20)
#define CONCURRENCY        16
#define OPEN_CONNECTIONS   64
#define SECONDS            10.0
#define WARMUP_S           1.0
#define STATUS_MAX         600
#define FAILURE_KINDS      16u

struct options {
    const char *model, *file, *arrivals, *source;
    double rate, seconds, warmup_s, timeout_s;
    uint64_t concurrency, connections, count, images, seed, timeout_ms;
};

struct payload {
    uint8_t *bytes;
    size_t length;
};

struct failure {
    int code; /* negative errno */
    uint64_t count;
};

/* From when a request was due, and from when it was sent. */
struct span {
    struct xn_histogram due, sent;
};

struct times {
    struct span answered;      /* with 200 */
    struct span refused;       /* 429 or 503, and when to try again */
    struct xn_histogram delay; /* send behind its due time */
};

/* A whole run; results are those of its measured part. */
struct bench {
    const struct options *options;
    bool open, poisson;
    struct payload *payloads;
    size_t n_payloads;

    /* of the phase under way */
    struct xn_arrivals arrivals;
    uint64_t start_ns, end_ns, last_ns, count_max, started, done, unsent;
    struct times *times;
    uint64_t in_time, in_time_sent; /* answered within timeout_ms, from due and from sent */
    uint64_t by_status[STATUS_MAX];
    struct failure failures[FAILURE_KINDS];
    size_t n_failures;
    struct xn_progress progress;
};

/* What the server and this process have used so far. */
struct reading {
    char *metrics;
    double client_cpu_s;
};

/* ---- hooks -------------------------------------------------------------------------------------------------------- */

/* The schedule is over. Arrivals that no connection was free for are still sent for a while, then counted. */
static enum xn_load_next past_end(struct bench *b, uint64_t now_ns)
{
    if (now_ns < b->end_ns + (uint64_t)(b->options->timeout_s * (double)XN_NS_PER_S))
        return XN_LOAD_SEND;
    while (b->started + b->unsent < b->count_max && b->start_ns + xn_arrivals_due_ns(&b->arrivals) < b->end_ns) {
        b->unsent++;
        xn_arrivals_advance(&b->arrivals);
    }
    return XN_LOAD_END;
}

static enum xn_load_next next(void *user, uint64_t now_ns, struct xn_shot *ret_shot)
{
    struct bench *b = user;
    const struct payload *payload = &b->payloads[b->started % b->n_payloads];
    uint64_t due_ns = b->open ? b->start_ns + xn_arrivals_due_ns(&b->arrivals) : now_ns;

    if (b->started == b->count_max || due_ns >= b->end_ns)
        return XN_LOAD_END;
    ret_shot->bytes = payload->bytes;
    ret_shot->length = payload->length;
    ret_shot->intended_ns = due_ns;
    if (now_ns < due_ns)
        return XN_LOAD_LATER;
    if (now_ns >= b->end_ns && past_end(b, now_ns) == XN_LOAD_END)
        return XN_LOAD_END;
    b->started++;
    if (b->open)
        xn_arrivals_advance(&b->arrivals);
    return XN_LOAD_SEND;
}

static void count_failure(struct bench *b, int code)
{
    size_t i = 0;

    while (i < b->n_failures && b->failures[i].code != code)
        i++;
    if (i == FAILURE_KINDS)
        i--;
    else if (i == b->n_failures)
        b->failures[b->n_failures++].code = code;
    b->failures[i].count++;
}

static void add_span(struct span *span, const struct xn_load_result *result)
{
    xn_histogram_add(&span->due, result->done_ns - result->shot->intended_ns);
    xn_histogram_add(&span->sent, result->done_ns - result->sent_ns);
}

static void count_answer(struct bench *b, const struct xn_load_result *result)
{
    uint64_t timeout_ns = b->options->timeout_ms * XN_NS_PER_MS;

    add_span(&b->times->answered, result);
    b->in_time += result->done_ns - result->shot->intended_ns <= timeout_ns;
    b->in_time_sent += result->done_ns - result->sent_ns <= timeout_ns;
}

static void done(void *user, const struct xn_load_result *result)
{
    struct bench *b = user;

    b->done++;
    b->last_ns = result->done_ns;
    if (result->status < 0)
        count_failure(b, result->status);
    else
        b->by_status[XN_MIN(result->status, STATUS_MAX - 1)]++;
    if (result->status == 200)
        count_answer(b, result);
    else if ((result->status == 429 || result->status == 503) && result->retry_after)
        add_span(&b->times->refused, result);
    if (b->open)
        xn_histogram_add(&b->times->delay, result->sent_ns - result->shot->intended_ns);
    if (b->progress.on && b->done % 64 == 0)
        xn_progress_at(&b->progress, (result->done_ns - b->start_ns) / XN_NS_PER_S, "");
}

static int run_phase(struct bench *b, struct xn_load *load, double seconds, uint64_t count, uint64_t seed,
                     struct xn_error *error)
{
    struct xn_load_hooks hooks = {.user = b, .next = next, .done = done};

    memset(b->times, 0, sizeof(*b->times));
    b->in_time = b->in_time_sent = 0;
    memset(b->by_status, 0, sizeof(b->by_status));
    b->n_failures = 0;
    memset(b->failures, 0, sizeof(b->failures));
    b->started = b->done = b->unsent = 0;
    b->count_max = count ? count : UINT64_MAX;
    if (b->open)
        xn_arrivals_init(&b->arrivals, b->options->rate, b->poisson, seed);
    b->last_ns = b->start_ns = xn_clock_now_ns();
    b->end_ns = seconds > 0 ? b->start_ns + (uint64_t)(seconds * (double)XN_NS_PER_S) : XN_NEVER_NS;
    xn_progress_init(&b->progress, "seconds", (uint64_t)seconds);
    b->progress.rate = false;
    b->progress.on = b->progress.on && seconds > 0;
    int r = xn_load_run(load, &hooks, error);
    xn_progress_done(&b->progress);
    return r;
}

/* ---- payloads ----------------------------------------------------------------------------------------------------- */

static void add_payload(struct bench *b, const struct xn_target *target, const char *path, const char *content_type,
                        const void *body, size_t bytes)
{
    b->payloads = xn_ctl_grow(b->payloads, b->n_payloads + 1, sizeof(*b->payloads));
    struct payload *p = &b->payloads[b->n_payloads++];
    p->bytes = xn_load_post(target, path, content_type, body, bytes, &p->length);
}

/* Tensors of the model's shape, as many to a request as asked for. */
static int add_random(struct bench *b, const struct xn_target *target, const char *path, json_t *model, uint64_t seed,
                      struct xn_error *error)
{
    size_t bytes = b->options->images;

    for (size_t i = 0; i < 3; i++) {
        json_int_t side = json_integer_value(json_array_get(json_object_get(model, "input_shape"), i));
        if (side < 1 || !xn_mul_size(bytes, (size_t)side, &bytes))
            return xn_error_set(error, -EBADMSG, "/v1/status gives the model no input_shape");
    }
    if (bytes > PAYLOAD_BYTES_MAX)
        return xn_error_set(error, -EFBIG, "a request of %zu bytes is too large; lower --images", bytes);
    size_t n = XN_MAX(XN_MIN(RANDOM_PAYLOADS, PAYLOAD_BYTES_MAX / bytes), 1);
    uint8_t *body = xn_ctl_alloc(bytes, 1);
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < bytes; i++)
            body[i] = (uint8_t)xn_ctl_random(&seed);
        add_payload(b, target, path, "application/octet-stream", body, bytes);
    }
    free(body);
    return 0;
}

/* `images` of the files, from the k-th on, as one request. */
static void add_files_request(struct bench *b, const struct xn_target *target, const char *path,
                              const struct xn_piece *files, size_t n, size_t k)
{
    size_t images = b->options->images, bytes;

    if (images == 1) {
        add_payload(b, target, path, "application/octet-stream", files[k].data, files[k].bytes);
        return;
    }
    struct xn_piece *pieces = xn_ctl_alloc(images, sizeof(*pieces));
    for (size_t i = 0; i < images; i++)
        pieces[i] = files[(k + i) % n];
    uint8_t *body = xn_multipart_body(pieces, images, &bytes);
    add_payload(b, target, path, XN_MULTIPART_CONTENT_TYPE, body, bytes);
    free(body);
    free(pieces);
}

static int add_files(struct bench *b, const struct xn_target *target, const char *path, char **names, size_t n,
                     struct xn_error *error)
{
    struct xn_piece *files = xn_ctl_alloc(n, sizeof(*files));
    size_t total = 0;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n; i++) {
        uint8_t *data;
        r = xn_file_read(names[i], PAYLOAD_BYTES_MAX, &data, &files[i].bytes, error);
        if (r >= 0) {
            files[i].data = data;
            total += files[i].bytes * b->options->images;
        }
        if (r >= 0 && total > PAYLOAD_BYTES_MAX)
            r = xn_error_set(error, -EFBIG, "the files come to more than %u bytes of requests", PAYLOAD_BYTES_MAX);
    }
    for (size_t k = 0; r >= 0 && k < n; k++)
        add_files_request(b, target, path, files, n, k);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)files[i].data);
    free(files);
    return r;
}

/* ---- readings ----------------------------------------------------------------------------------------------------- */

static int take_reading(struct xn_client *client, struct reading *ret, struct xn_error *error)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    ret->client_cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                        1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    return xn_client_get_text(client, "/metrics", &ret->metrics, error);
}

/* Difference of a sum between two readings; false where the series are not there. */
static bool risen(const struct reading r[2], const char *name, const char *label, const char *value, double *ret)
{
    size_t before_n, after_n;
    double before = xn_metrics_sum(r[0].metrics, name, label, value, &before_n);
    double after = xn_metrics_sum(r[1].metrics, name, label, value, &after_n);

    *ret = after - before;
    return after_n > 0 && after >= before;
}

/* The value of the sample of `family` that has the labels of `like`; 0: there is none. */
static double value_like(const char *metrics, const char *family, const struct xn_metric *like)
{
    struct xn_metric m;

    while (xn_metric_next(&metrics, &m)) {
        bool same = xn_metric_is(&m, family) && m.n_labels == like->n_labels;
        /* Label values of xnord may hold blanks (sensors have names): compare up to the brace that closes. */
        if (same && m.n_labels > 0) {
            const struct xn_metric_label *first = &like->labels[0], *last = &like->labels[like->n_labels - 1];
            same = strncmp(m.labels[0].name, first->name, (size_t)(last->value + last->value_bytes - first->name)) == 0;
        }
        if (same)
            return m.value;
    }
    return 0;
}

static double before_of(const char *metrics, const struct xn_metric *like)
{
    char family[128];

    snprintf(family, sizeof(family), "%.*s", (int)like->name_bytes, like->name);
    return value_like(metrics, family, like);
}

/* Images that ran on the instance, and through the model, of an energy sample; `all` where it is of no instance. */
static double inferences_on(const struct reading r[2], const struct xn_metric *energy, double all)
{
    char accelerator[96], model[96];
    const char *at = r[1].metrics;
    struct xn_metric m;

    xn_metric_label(energy, "accelerator", accelerator, sizeof(accelerator));
    xn_metric_label(energy, "model", model, sizeof(model));
    while (xn_metric_next(&at, &m)) {
        if (xn_metric_is(&m, "xnord_instance_inferences_total") && xn_metric_has(&m, "accelerator", accelerator) &&
            xn_metric_has(&m, "model", model))
            return XN_MAX(m.value - before_of(r[0].metrics, &m), 1);
    }
    return all;
}

/* Joules of one family an inference, by source; nothing where nothing was measured. Of inferences also those over idle. */
static void add_energy(json_t *array, const struct reading r[2], const char *family, const char *model,
                       double inferences)
{
    const char *at = r[1].metrics;
    struct xn_metric m;
    char text[128];

    while (xn_metric_next(&at, &m)) {
        if (!xn_metric_is(&m, family) || (model && !xn_metric_has(&m, "model", model)))
            continue;
        double joules = m.value - before_of(r[0].metrics, &m);
        if (!(joules > 0))
            continue;
        json_t *entry = json_object();
        for (size_t i = 0; i < m.n_labels; i++) {
            char name[64];
            snprintf(name, sizeof(name), "%.*s", (int)XN_MIN(m.labels[i].name_bytes, sizeof(name)), m.labels[i].name);
            json_object_set_new(entry, name, json_string(xn_metric_label(&m, name, text, sizeof(text))));
        }
        json_object_set_new(entry, "joules", json_real(joules));
        if (inferences > 0)
            json_object_set_new(entry, "joules_per_inference", json_real(joules / inferences_on(r, &m, inferences)));
        static const char over_idle[] = "xnord_inference_active_energy_joules_total";
        double active = value_like(r[1].metrics, over_idle, &m) - value_like(r[0].metrics, over_idle, &m);
        if (active > 0)
            json_object_set_new(entry, "active_joules", json_real(active));
        if (active > 0 && inferences > 0)
            json_object_set_new(entry, "active_joules_per_inference",
                                json_real(active / inferences_on(r, &m, inferences)));
        json_array_append_new(array, entry);
    }
}

static json_t *batch_sizes(const struct reading r[2], const char *model)
{
    const char *at = r[1].metrics;
    json_t *array = json_array();
    struct xn_metric m;
    double below = 0;
    char le[32];

    while (xn_metric_next(&at, &m)) {
        if (!xn_metric_is(&m, "xnord_batch_size_bucket") || !xn_metric_has(&m, "model", model))
            continue;
        double n = m.value - before_of(r[0].metrics, &m);
        double limit = strtod(xn_metric_label(&m, "le", le, sizeof(le)), NULL);
        if (n > below)
            json_array_append_new(array, json_pack("{s:o, s:I}", "up_to",
                                                   isfinite(limit) ? json_integer((json_int_t)limit) : json_null(),
                                                   "batches", (json_int_t)(n - below)));
        below = n;
    }
    return array;
}

/* By the label `reason` of a family; of `model`, or of all where it is NULL. */
static json_t *by_reason(const struct reading r[2], const char *family, const char *model)
{
    const char *at = r[1].metrics;
    json_t *reasons = json_object();
    struct xn_metric m;
    char why[32];

    while (xn_metric_next(&at, &m)) {
        if (!xn_metric_is(&m, family) || (model && !xn_metric_has(&m, "model", model)))
            continue;
        double n = m.value - before_of(r[0].metrics, &m);
        xn_metric_label(&m, "reason", why, sizeof(why));
        n += json_number_value(json_object_get(reasons, why));
        if (n > 0)
            json_object_set_new(reasons, why, json_integer((json_int_t)n));
    }
    return reasons;
}

static json_t *server_json(const struct bench *b, const struct reading r[2], const char *model)
{
    json_t *server = json_object(), *energy = json_array(), *sensors = json_array();
    double inferences, batches, images, cpu_s;

    if (risen(r, "xnord_inferences_total", "model", model, &inferences))
        json_object_set_new(server, "inferences", json_integer((json_int_t)inferences));
    if (risen(r, "xnord_batch_size_count", "model", model, &batches) && batches > 0 &&
        risen(r, "xnord_batch_size_sum", "model", model, &images)) {
        json_object_set_new(server, "batches", json_integer((json_int_t)batches));
        json_object_set_new(server, "batch_mean", json_real(images / batches));
        json_object_set_new(server, "batch_sizes", batch_sizes(r, model));
        json_object_set_new(server, "batch_reasons", by_reason(r, "xnord_batches_total", model));
    }
    json_object_set_new(server, "rejected", by_reason(r, "xnord_requests_rejected_total", NULL));
    if (risen(r, "process_cpu_seconds_total", NULL, NULL, &cpu_s) && b->done > 0)
        json_object_set_new(server, "cpu_us_per_request", json_real(1e6 * cpu_s / (double)b->done));
    add_energy(energy, r, "xnord_inference_energy_joules_total", model, inferences);
    add_energy(sensors, r, "xnord_energy_joules_total", NULL, inferences);
    if (json_array_size(energy) > 0)
        json_object_set(server, "energy", energy);
    if (json_array_size(sensors) > 0)
        json_object_set(server, "energy_of_domains", sensors);
    json_decref(energy);
    json_decref(sensors);
    return server;
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    double part;
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

static json_t *histogram_json(const struct xn_histogram *h)
{
    json_t *o = json_object();

    if (h->count == 0)
        return o;
    json_object_set_new(o, "min", json_real((double)h->min / 1e3));
    json_object_set_new(o, "mean", json_real(xn_histogram_mean(h) / 1e3));
    for (size_t i = 0; i < XN_ARRAY_LEN(quantiles); i++)
        json_object_set_new(o, quantiles[i].name, json_real((double)xn_histogram_quantile(h, quantiles[i].part) / 1e3));
    json_object_set_new(o, "max", json_real((double)h->max / 1e3));
    return o;
}

static const char *failure_name(int code)
{
    switch (code) {
    case -ETIMEDOUT:
        return "timeout";
    case -EBADMSG:
    case -EMSGSIZE:
        return "not_http";
    default:
        return "connection";
    }
}

static json_t *errors_json(const struct bench *b)
{
    json_t *errors = json_object();
    char name[16];

    for (int i = 0; i < STATUS_MAX; i++) {
        snprintf(name, sizeof(name), "%d", i);
        if (i != 200 && b->by_status[i] > 0)
            json_object_set_new(errors, name, json_integer((json_int_t)b->by_status[i]));
    }
    for (size_t i = 0; i < b->n_failures; i++) {
        const char *kind = failure_name(b->failures[i].code);
        json_int_t n = json_integer_value(json_object_get(errors, kind)) + (json_int_t)b->failures[i].count;
        json_object_set_new(errors, kind, json_integer(n));
    }
    if (b->unsent > 0)
        json_object_set_new(errors, "unsent", json_integer((json_int_t)b->unsent));
    return errors;
}

/* What was measured of answers and refusals. */
static void add_times(json_t *o, const struct bench *b, double seconds)
{
    const struct times *t = b->times;

    json_object_set_new(o, "latency_us", histogram_json(&t->answered.due));
    if (b->open) {
        json_object_set_new(o, "latency_sent_us", histogram_json(&t->answered.sent));
        json_object_set_new(o, "send_delay_us", histogram_json(&t->delay));
    }
    if (t->refused.due.count > 0) {
        json_object_set_new(o, "refused", json_integer((json_int_t)t->refused.due.count));
        json_object_set_new(o, "refusal_us", histogram_json(&t->refused.due));
        json_object_set_new(o, "refusal_sent_us", histogram_json(&t->refused.sent));
    }
    if (b->options->timeout_ms > 0) {
        json_object_set_new(o, "in_time", json_integer((json_int_t)b->in_time));
        json_object_set_new(o, "in_time_sent", json_integer((json_int_t)b->in_time_sent));
        json_object_set_new(o, "goodput_per_s", json_real(seconds > 0 ? (double)b->in_time / seconds : 0));
    }
}

static json_t *results_json(const struct bench *b, const struct xn_ctl *ctl, const struct xn_load *load,
                            const struct reading r[2], const char *model, uint64_t connections)
{
    double seconds = (double)(b->last_ns - b->start_ns) / (double)XN_NS_PER_S;
    double ok = (double)b->by_status[200], per_s = seconds > 0 ? ok / seconds : 0;
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "url", ctl->url, "model", model, "mode", b->open ? "open" : "closed",
                  "connections", (json_int_t)connections, "images_per_request", (json_int_t)b->options->images);

    json_object_set_new(o, "seed", json_integer((json_int_t)b->options->seed));
    if (b->open) {
        json_object_set_new(o, "rate", json_real(b->options->rate));
        json_object_set_new(o, "arrivals", json_string(b->poisson ? "poisson" : "uniform"));
    }
    json_object_set_new(o, "seconds", json_real(seconds));
    json_object_set_new(o, "requests", json_integer((json_int_t)(b->done + b->unsent)));
    json_object_set_new(o, "ok", json_integer((json_int_t)b->by_status[200]));
    json_object_set_new(o, "errors", errors_json(b));
    json_object_set_new(o, "requests_per_s", json_real(per_s));
    json_object_set_new(o, "images_per_s", json_real(per_s * (double)b->options->images));
    add_times(o, b, seconds);
    json_object_set_new(o, "reconnects", json_integer((json_int_t)xn_load_reconnects(load)));
    if (b->done > 0)
        json_object_set_new(o, "client_cpu_us_per_request",
                            json_real(1e6 * (r[1].client_cpu_s - r[0].client_cpu_s) / (double)b->done));
    json_object_set_new(o, "server", server_json(b, r, model));
    return o;
}

static void print_latency(const char *title, const struct xn_histogram *h)
{
    printf("%-12s", title);
    printf("mean %s", xn_words_ns(xn_histogram_mean(h)).text);
    for (size_t i = 0; i < XN_ARRAY_LEN(quantiles); i++)
        printf(", %s %s", quantiles[i].name, xn_words_ns((double)xn_histogram_quantile(h, quantiles[i].part)).text);
    printf(", max %s\n", xn_words_ns((double)h->max).text);
}

static void print_times(const struct bench *b, json_t *o)
{
    const struct times *t = b->times;

    if (t->answered.due.count > 0)
        print_latency("latency", &t->answered.due);
    else
        printf("%-12snone: no request was answered with 200\n", "latency");
    if (b->open && t->answered.sent.count > 0)
        print_latency("from sent", &t->answered.sent);
    if (t->refused.sent.count > 0)
        print_latency("refusals", &t->refused.sent);
    if (b->open && t->delay.count > 0)
        print_latency("send delay", &t->delay);
    if (b->options->timeout_ms > 0)
        printf("%-12s%.1f answers/s within %" PRIu64 " ms: %.3f %% of those answered, %.3f %% of all\n", "goodput",
               json_number_value(json_object_get(o, "goodput_per_s")), b->options->timeout_ms,
               100.0 * (double)b->in_time / (double)XN_MAX(t->answered.due.count, 1),
               100.0 * (double)b->in_time / (double)XN_MAX(b->done + b->unsent, 1));
}

static void print_pairs(const char *title, json_t *object, const char *unit)
{
    const char *key, *between = "";
    json_t *value;

    printf("%-12s", title);
    json_object_foreach(object, key, value)
    {
        printf("%s%" JSON_INTEGER_FORMAT " %s%s", between, json_integer_value(value), unit, key);
        between = ", ";
    }
    putchar('\n');
}

static void print_energy(json_t *array, const char *title, const char *what)
{
    json_t *entry;
    size_t i;

    json_array_foreach(array, i, entry)
    {
        const char *source = json_string_value(json_object_get(entry, "source"));
        const char *name = json_string_value(json_object_get(entry, what));
        json_t *active = json_object_get(entry, "active_joules_per_inference");
        printf("%-12s%s an inference", title,
               xn_words_joules(json_number_value(json_object_get(entry, "joules_per_inference"))).text);
        if (active)
            printf(", %s of them over idle", xn_words_joules(json_number_value(active)).text);
        printf(" (%s", name ? name : "");
        printf(", %s%s)\n", source ? source : "",
               !source                            ? ""
               : strcmp(source, "estimate") == 0  ? ": declared, not measured"
               : strcmp(source, "simulated") == 0 ? ": a virtual card's model, not measured"
                                                  : "");
    }
}

static void print_server(json_t *server)
{
    json_t *sizes = json_object_get(server, "batch_sizes"), *entry;
    size_t i;

    if (sizes) {
        printf("%-12smean %.2f:", "batches", json_number_value(json_object_get(server, "batch_mean")));
        json_array_foreach(sizes, i, entry)
        {
            json_t *limit = json_object_get(entry, "up_to");
            printf("%s %" JSON_INTEGER_FORMAT " of ", i ? "," : "",
                   json_integer_value(json_object_get(entry, "batches")));
            if (json_is_integer(limit))
                printf("<=%" JSON_INTEGER_FORMAT, json_integer_value(limit));
            else
                printf("more");
        }
        putchar('\n');
        print_pairs("closed by", json_object_get(server, "batch_reasons"), "");
    }
    print_energy(json_object_get(server, "energy"), "energy", "accelerator");
    print_energy(json_object_get(server, "energy_of_domains"), "with idle", "domain");
    if (!json_object_get(server, "energy"))
        printf("%-12snot measured here: no power sensor could be read (docs/metrics.md, Power)\n", "energy");
}

static void print_results(const struct bench *b, json_t *o)
{
    json_t *errors = json_object_get(o, "errors"), *server = json_object_get(o, "server");

    if (b->open)
        printf("%-12sopen loop, %g requests/s asked (%s, seed %" PRIu64 "), up to %" JSON_INTEGER_FORMAT
               " connections\n",
               "load", b->options->rate, b->poisson ? "poisson" : "uniform", b->options->seed,
               json_integer_value(json_object_get(o, "connections")));
    else
        printf("%-12sclosed loop, %" JSON_INTEGER_FORMAT " connections\n", "load",
               json_integer_value(json_object_get(o, "connections")));
    printf("%-12s%" PRIu64 " requests of %" PRIu64 " image%s in %.2f s, %" PRIu64 " answered with 200\n", "",
           b->done + b->unsent, b->options->images, b->options->images == 1 ? "" : "s",
           json_number_value(json_object_get(o, "seconds")), b->by_status[200]);
    printf("%-12s%.1f requests/s, %.1f images/s\n", "throughput",
           json_number_value(json_object_get(o, "requests_per_s")),
           json_number_value(json_object_get(o, "images_per_s")));
    print_times(b, o);
    if (json_object_size(errors) > 0)
        print_pairs("failed", errors, "x ");
    print_server(server);
    printf("%-12sserver %.1f us a request, this client %.1f us\n", "CPU time",
           json_number_value(json_object_get(server, "cpu_us_per_request")),
           json_number_value(json_object_get(o, "client_cpu_us_per_request")));
}

/* ---- the command -------------------------------------------------------------------------------------------------- */

static int make_payloads(struct bench *b, const struct xn_target *target, json_t *model, char **files, size_t n,
                         struct xn_error *error)
{
    const char *name = json_string_value(json_object_get(model, "name"));
    char *path = xn_infer_path(b->options->model ? name : NULL, 0, b->options->timeout_ms);
    int r = n > 0 ? add_files(b, target, path, files, n, error)
                  : add_random(b, target, path, model, b->options->seed, error);

    free(path);
    return r;
}

static int measure(struct bench *b, struct xn_ctl *ctl, struct xn_client *client, struct xn_load *load,
                   const char *model, uint64_t connections, struct xn_error *error)
{
    const struct options *o = b->options;
    struct reading readings[2] = {{0}};
    int r = 0;

    if (o->warmup_s > 0)
        r = run_phase(b, load, o->warmup_s, 0, o->seed + 1, error);
    if (r >= 0)
        r = take_reading(client, &readings[0], error);
    if (r >= 0)
        r = run_phase(b, load, o->seconds, o->count, o->seed, error);
    if (r >= 0)
        r = take_reading(client, &readings[1], error);
    if (r >= 0) {
        json_t *results = results_json(b, ctl, load, readings, model, connections);
        if (ctl->json) {
            json_dumpf(results, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
            putchar('\n');
        } else {
            print_results(b, results);
        }
        json_decref(results);
    }
    free(readings[0].metrics);
    free(readings[1].metrics);
    return r;
}

static int run(struct xn_ctl *ctl, struct bench *b, char **files, size_t n_files, struct xn_error *error)
{
    uint64_t connections = b->open ? b->options->connections : b->options->concurrency;
    struct xn_load_config config = {.connections = (uint32_t)connections,
                                    .timeout_ns = (uint64_t)(b->options->timeout_s * (double)XN_NS_PER_S),
                                    .source = b->options->source};
    struct xn_client *client = NULL;
    struct xn_load *load = NULL;
    struct xn_target target = {0};
    json_t *status = NULL, *model = NULL;

    int r = xn_target_parse(ctl, &target, error);
    if (r >= 0)
        r = xn_client_new(ctl, CONTROL_TIMEOUT_MS, &client, error);
    if (r >= 0)
        r = xn_client_get_json(client, "/v1/status", &status, error);
    if (r >= 0)
        r = xn_status_model(status, b->options->model, &model, error);
    if (r >= 0)
        r = make_payloads(b, &target, model, files, n_files, error);
    if (r >= 0)
        r = xn_load_new(&target, &config, &load, error);
    if (r >= 0)
        r = measure(b, ctl, client, load, json_string_value(json_object_get(model, "name")), connections, error);
    xn_load_free(load);
    xn_client_free(client);
    json_decref(status);
    xn_target_done(&target);
    return r;
}

static void check(struct xn_ctl *ctl, struct options *o)
{
    if (o->rate > 0 && o->concurrency)
        xn_opt_usage(
            ctl, "--rate is an open loop, --concurrency a closed one: choose one (--connections limits an open one)");
    if (o->connections && !(o->rate > 0))
        xn_opt_usage(ctl, "--connections needs --rate; a closed loop has --concurrency of them");
    if (strcmp(o->arrivals, "poisson") != 0 && strcmp(o->arrivals, "uniform") != 0)
        xn_opt_usage(ctl, "--arrivals: must be poisson or uniform, not \"%.40s\"", o->arrivals);
    if (!o->count && !(o->seconds > 0))
        o->seconds = SECONDS;
    if (o->warmup_s < 0)
        o->warmup_s = o->count ? 0 : WARMUP_S;
    o->concurrency = o->concurrency ? o->concurrency : CONCURRENCY;
    o->connections = o->connections ? o->connections : OPEN_CONNECTIONS;
}

int xn_ctl_bench(struct xn_ctl *ctl, int argc, char **argv)
{
    struct options o = {.arrivals = "poisson", .warmup_s = -1, .timeout_s = 30, .images = 1, .seed = UINT64_MAX};
    const struct xn_opt opts[] = {
        {"rate", 'r', XN_OPT_DOUBLE, &o.rate, 0.001, 1e7, "R", "open loop: R requests a second, come what may"},
        {"concurrency", 'c', XN_OPT_U64, &o.concurrency, 1, XN_LOAD_CONNECTIONS_MAX, "N",
         "closed loop: N connections, each one request at a time (default 16)"},
        {"connections", 0, XN_OPT_U64, &o.connections, 1, XN_LOAD_CONNECTIONS_MAX, "N",
         "open loop: at most N connections (default 64)"},
        {"arrivals", 0, XN_OPT_TEXT, &o.arrivals, 0, 0, "KIND", "open loop: poisson (default) or uniform"},
        {"seconds", 's', XN_OPT_DOUBLE, &o.seconds, 0.01, 1e6, "S", "length (default 10)"},
        {"count", 'n', XN_OPT_U64, &o.count, 1, 1e12, "N", "end after N requests instead, or whichever is first"},
        {"warmup", 'w', XN_OPT_DOUBLE, &o.warmup_s, 0, 1e6, "S",
         "seconds of the same load before that are not counted\n(default 1; 0 with --count)"},
        {"model", 'm', XN_OPT_TEXT, &o.model, 0, 0, "NAME", "model to ask (default: the server's default)"},
        {"file", 'f', XN_OPT_TEXT, &o.file, 0, 0, "FILE", "send this picture or tensor; as a FILE argument"},
        {"images", 'b', XN_OPT_U64, &o.images, 1, 1024, "N", "images in a request (default 1)"},
        {"timeout", 't', XN_OPT_DOUBLE, &o.timeout_s, 0.001, 3600, "S",
         "give a request up after S seconds (default 30)"},
        {"timeout-ms", 0, XN_OPT_U64, &o.timeout_ms, 1, 600000, "MS", "deadline that the server is asked to keep"},
        {"source", 0, XN_OPT_TEXT, &o.source, 0, 0, "ADDRESS",
         "numeric address to come from: to a server a client is an address"},
        {"seed", 0, XN_OPT_U64, &o.seed, 0, 1e15, "N", "of arrivals and random tensors (default: a new one, printed)"},
    };
    const struct xn_opt_about about = {
        "[FILE]...",
        "Put load on a server. FILEs (JPEG, PNG, raw tensors) are sent in turn; without one, random tensors of the\n"
        "model's shape are. Latency counts from when a request was due.",
        "Exit status: 0 measured, 1 no request succeeded or the server went away, 2 wrong command line.\n"
        "\n"
        "  xnorctl bench --rate 2000 --seconds 10       how long do requests take at 2000 a second?\n"
        "  xnorctl bench --concurrency 64 picture.jpg   how many pictures a second are possible?",
        false};
    struct xn_error error;
    char **files;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &files);
    check(ctl, &o);
    if (o.seed == UINT64_MAX)
        o.seed = xn_ctl_random_seed();
    if (o.file && n > 0)
        xn_opt_usage(ctl, "--file and FILE arguments: choose one");
    char *one[] = {(char *)(uintptr_t)o.file};
    struct bench b = {.options = &o, .open = o.rate > 0, .poisson = strcmp(o.arrivals, "poisson") == 0};
    b.times = xn_ctl_alloc(1, sizeof(*b.times));
    int r = run(ctl, &b, o.file ? one : files, o.file ? 1 : (size_t)n, &error);
    int status = r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
    if (r >= 0 && b.by_status[200] == 0)
        status = xn_ctl_failf(ctl, "no request was answered with 200; see \"failed\" above, or try xnorctl infer");
    for (size_t i = 0; i < b.n_payloads; i++)
        free(b.payloads[i].bytes);
    free(b.payloads);
    free(b.times);
    return status;
}
