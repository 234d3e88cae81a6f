/* SPDX-License-Identifier: Apache-2.0
 * `status`: how a server is doing, from /v1/status and /metrics. With --watch it reads again and again, and shows what happened in between as
 * rates; the first reading shows means since the server started. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/xnorctl/document.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/http.h"
#include "clients/xnorctl/metrics.h"
#include "clients/xnorctl/options.h"
#include "common/clock.h"

#define TIMEOUT_MS 10000

/* One reading of the server. */
struct reading {
    uint64_t taken_ns;
    json_t *status;
    char *metrics;
};

/* A reading and the one that it is compared with: an empty one means since the start. */
struct span {
    const struct reading *now, *before;
    double seconds;
};

static void reading_done(struct reading *reading)
{
    json_decref(reading->status);
    free(reading->metrics);
    *reading = (struct reading){0};
}

static int take(struct xn_client *client, struct reading *ret, struct xn_error *error)
{
    struct reading reading = {.taken_ns = xn_clock_now_ns()};
    int r = xn_client_get_json(client, "/v1/status", &reading.status, error);

    if (r >= 0)
        r = xn_client_get_text(client, "/metrics", &reading.metrics, error);
    if (r < 0) {
        reading_done(&reading);
        return r;
    }
    *ret = reading;
    return 0;
}

static double number_of(json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* How much a counter of an entry of "models" or "instances" has risen. A server that was started again begins anew. */
static double risen(const struct span *span, const char *array, json_t *entry, const char *key)
{
    double now = number_of(entry, key);
    json_t *before = xn_document_find(json_object_get(span->before->status, array), entry);
    double earlier = before ? number_of(before, key) : 0;

    return now >= earlier ? now - earlier : now;
}

static double metric_risen(const struct span *span, const char *family, const char *label, const char *value)
{
    double now = xn_metrics_sum(span->now->metrics, family, label, value, NULL);
    double earlier = span->before->metrics ? xn_metrics_sum(span->before->metrics, family, label, value, NULL) : 0;

    return now >= earlier ? now - earlier : now;
}

/* ---- energy, power, refusals as JSON ------------------------------------------------------------------------------- */

static const char *const sources[] = {"sensor", "estimate", "simulated"};

/* How much `family` has risen in the span, of a model or an instance and a source. */
static double energy_risen(const struct span *span, const char *family, const char *label, json_t *entry,
                           const char *source)
{
    const char *texts[2] = {span->before->metrics ? span->before->metrics : "", span->now->metrics};
    bool is_model = strcmp(label, "model") == 0;
    double sum[2] = {0, 0};
    struct xn_metric m;

    for (size_t i = 0; i < 2; i++) {
        const char *at = texts[i];
        while (xn_metric_next(&at, &m)) {
            if (xn_metric_is(&m, family) && xn_metric_has(&m, label, xn_document_text(entry, "name")) &&
                (!is_model || xn_metric_has(&m, "version", xn_document_text(entry, "version"))) &&
                xn_metric_has(&m, "source", source))
                sum[i] += m.value;
        }
    }
    return sum[1] - sum[0];
}

/* Joules an inference of a model (`label` "model") or an instance ("accelerator") in the span, of the source that has any: {label: name, source, joules,
 * joules_per_inference, and where idle power is known active_joules and active_joules_per_inference}, or NULL where nothing was measured. */
static json_t *energy_of(const struct span *span, const char *label, json_t *entry)
{
    bool is_model = strcmp(label, "model") == 0;
    double inferences = risen(span, is_model ? "models" : "instances", entry, is_model ? "inferences" : "images");

    for (size_t k = 0; k < XN_ARRAY_LEN(sources) && inferences > 0; k++) {
        double joules = energy_risen(span, "xnord_inference_energy_joules_total", label, entry, sources[k]);
        double active = energy_risen(span, "xnord_inference_active_energy_joules_total", label, entry, sources[k]);
        if (joules <= 0)
            continue;
        json_t *energy = json_pack("{s:s, s:s, s:f, s:f}", label, xn_document_text(entry, "name"), "source", sources[k],
                                   "joules", joules, "joules_per_inference", joules / inferences);
        if (active > 0) {
            json_object_set_new(energy, "active_joules", json_real(active));
            json_object_set_new(energy, "active_joules_per_inference", json_real(active / inferences));
        }
        return energy;
    }
    return NULL;
}

static const char *const power_labels[] = {"domain", "sensor", "source"};

/* The entry of this sample's domain, sensor and source; made where it is not there yet. */
static json_t *power_entry(json_t *array, const struct xn_metric *metric)
{
    json_t *entry;
    size_t i;

    json_array_foreach(array, i, entry)
    {
        size_t same = 0;
        for (size_t k = 0; k < XN_ARRAY_LEN(power_labels); k++)
            same += xn_metric_has(metric, power_labels[k], xn_document_text(entry, power_labels[k]));
        if (same == XN_ARRAY_LEN(power_labels))
            return entry;
    }
    entry = json_object();
    for (size_t k = 0; k < XN_ARRAY_LEN(power_labels); k++) {
        char text[96];
        json_object_set_new(entry, power_labels[k],
                            json_string(xn_metric_label(metric, power_labels[k], text, sizeof(text))));
    }
    json_array_append_new(array, entry);
    return entry;
}

/* Every power sensor, and every estimate that stands in for one: {domain, sensor, source, up (sensors only), watts where known}. */
static json_t *power_json(const struct reading *now)
{
    json_t *array = json_array();
    const char *at = now->metrics;
    struct xn_metric m;

    while (xn_metric_next(&at, &m)) {
        if (xn_metric_is(&m, "xnord_power_sensor_up"))
            json_object_set_new(power_entry(array, &m), "up", json_boolean(m.value > 0));
        else if (xn_metric_is(&m, "xnord_power_watts"))
            json_object_set_new(power_entry(array, &m), "watts", json_real(m.value));
    }
    return array;
}

static json_t *rejected_json(const struct span *span)
{
    json_t *object = json_object();
    const char *at = span->now->metrics;
    struct xn_metric m;
    char why[32];

    while (xn_metric_next(&at, &m)) {
        if (!xn_metric_is(&m, "xnord_requests_rejected_total"))
            continue;
        xn_metric_label(&m, "reason", why, sizeof(why));
        double n = metric_risen(span, "xnord_requests_rejected_total", "reason", why);
        if (n > 0)
            json_object_set_new(object, why, json_integer((json_int_t)n));
    }
    return object;
}

/* /v1/status with what /metrics adds to it. */
static json_t *to_json(const struct span *span, const char *url)
{
    json_t *root = json_deep_copy(span->now->status), *energy = json_array(), *model;
    size_t i;

    json_object_set_new(root, "url", json_string(url));
    json_object_set_new(root, "span_seconds", json_real(span->seconds));
    json_object_set_new(root, "rejected", rejected_json(span));
    json_object_set_new(root, "power", power_json(span->now));
    json_array_foreach(json_object_get(root, "models"), i, model)
    {
        json_object_set_new(
            model, "images_per_s",
            json_real(span->seconds > 0 ? risen(span, "models", model, "inferences") / span->seconds : 0));
        json_t *joules = energy_of(span, "model", model);
        if (joules)
            json_array_append_new(energy, joules);
    }
    json_array_foreach(json_object_get(root, "instances"), i, model)
    {
        if (span->seconds > 0)
            json_object_set_new(model, "utilisation",
                                json_real(risen(span, "instances", model, "busy_seconds") / span->seconds));
        json_t *joules = energy_of(span, "accelerator", model);
        if (joules)
            json_array_append_new(energy, joules);
    }
    json_object_set_new(root, "energy", energy);
    return root;
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static void joules_cell(struct xn_table *t, json_t *energy, const char *key)
{
    if (json_object_get(energy, key))
        xn_table_cell(t, "%s%s", strcmp(xn_document_text(energy, "source"), "sensor") != 0 ? "~" : "",
                      xn_words_joules(number_of(energy, key)).text);
    else
        xn_table_cell(t, "-");
}

/* Joules an inference while it ran, and over idle; "~": not measured. */
static void energy_cells(struct xn_table *t, const struct span *span, const char *label, json_t *entry)
{
    json_t *energy = energy_of(span, label, entry);

    joules_cell(t, energy, "joules_per_inference");
    joules_cell(t, energy, "active_joules_per_inference");
    json_decref(energy);
}

static void print_models(const struct span *span)
{
    struct xn_table *t = xn_table_new("llrrrrrr");
    json_t *model;
    size_t i;

    xn_table_cell(t, "MODEL");
    xn_table_cell(t, "VERSION");
    xn_table_cell(t, "QUEUE");
    xn_table_cell(t, "IMAGES");
    xn_table_cell(t, "IMAGES/S");
    xn_table_cell(t, "MEAN BATCH");
    xn_table_cell(t, "ENERGY/IMAGE");
    xn_table_cell(t, "OVER IDLE");
    json_array_foreach(json_object_get(span->now->status, "models"), i, model)
    {
        double images = risen(span, "models", model, "inferences"), batches = risen(span, "models", model, "batches");
        xn_table_cell(t, "%s", xn_document_text(model, "name"));
        xn_table_cell(t, "%s", xn_document_text(model, "version"));
        xn_table_cell(t, "%.0f/%.0f", number_of(model, "queue_depth"), number_of(model, "queue_limit"));
        xn_table_cell(t, "%.0f", number_of(model, "inferences"));
        xn_table_cell(t, "%.1f", span->seconds > 0 ? images / span->seconds : 0);
        if (batches > 0)
            xn_table_cell(t, "%.2f", images / batches);
        else
            xn_table_cell(t, "-");
        energy_cells(t, span, "model", model);
    }
    xn_table_end(t, stdout, 2);
}

static void print_instances(const struct span *span)
{
    struct xn_table *t = xn_table_new("llrrrrrrll");
    json_t *instance;
    size_t i;

    xn_table_cell(t, "INSTANCE");
    xn_table_cell(t, "STATE");
    xn_table_cell(t, "BUSY");
    xn_table_cell(t, "IMAGES");
    xn_table_cell(t, "ENERGY/IMAGE");
    xn_table_cell(t, "OVER IDLE");
    xn_table_cell(t, "FAILURES");
    xn_table_cell(t, "RESETS");
    xn_table_cell(t, "GEOMETRY");
    xn_table_cell(t, "DEVICE");
    json_array_foreach(json_object_get(span->now->status, "instances"), i, instance)
    {
        double busy = span->seconds > 0 ? risen(span, "instances", instance, "busy_seconds") / span->seconds : 0;
        xn_table_cell(t, "%s", xn_document_text(instance, "name"));
        xn_table_cell(t, "%s", json_is_true(json_object_get(instance, "healthy")) ? "in service" : "QUARANTINED");
        xn_table_cell(t, "%.0f %%", 100 * busy);
        xn_table_cell(t, "%.0f", number_of(instance, "images"));
        energy_cells(t, span, "accelerator", instance);
        xn_table_cell(t, "%.0f", number_of(instance, "failures"));
        xn_table_cell(t, "%.0f", number_of(instance, "resets"));
        xn_table_cell(t, "%s", xn_document_text(instance, "geometry"));
        xn_table_cell(t, "%s", xn_document_text(instance, "device"));
    }
    xn_table_end(t, stdout, 2);
}

static bool is_estimated(json_t *sensors, const char *domain)
{
    json_t *sensor;
    size_t i;

    json_array_foreach(sensors, i, sensor)
    {
        if (strcmp(xn_document_text(sensor, "domain"), domain) == 0 &&
            strcmp(xn_document_text(sensor, "source"), "estimate") == 0)
            return true;
    }
    return false;
}

static void print_power(const struct reading *now)
{
    json_t *sensors = power_json(now), *sensor;
    size_t i;

    json_array_foreach(sensors, i, sensor)
    {
        const char *domain = xn_document_text(sensor, "domain"), *name = xn_document_text(sensor, "sensor");
        const char *source = xn_document_text(sensor, "source");
        json_t *watts = json_object_get(sensor, "watts");
        if (watts && strcmp(source, "estimate") == 0)
            printf("  power of %s: ~%.2f W (estimate from declared watts, not measured)\n", domain,
                   json_number_value(watts));
        else if (watts && strcmp(source, "simulated") == 0)
            printf("  power of %s: ~%.2f W (of a simulated card, not measured)\n", domain, json_number_value(watts));
        else if (watts)
            printf("  power of %s: %.2f W (%s, %s)\n", domain, json_number_value(watts), name, source);
        else if (strcmp(name, "none") != 0)
            printf("  power of %s: sensor %s (%s) cannot be read now\n", domain, name, source);
        else if (!is_estimated(sensors, domain))
            printf("  power of %s: no sensor, so energy is not known\n", domain);
    }
    json_decref(sensors);
}

static void print_rejected(const struct span *span)
{
    json_t *rejected = rejected_json(span), *n;
    const char *why, *between = "  refused or failed: ";

    json_object_foreach(rejected, why, n)
    {
        printf("%s%" JSON_INTEGER_FORMAT " %s", between, json_integer_value(n), why);
        between = ", ";
    }
    if (json_object_size(rejected) > 0)
        putchar('\n');
    json_decref(rejected);
}

static void print_text(const struct span *span, const char *url)
{
    json_t *s = span->now->status;
    double resident = xn_metrics_sum(span->now->metrics, "process_resident_memory_bytes", NULL, NULL, NULL);
    bool draining = json_is_true(json_object_get(s, "draining"));

    printf("xnord %s at %s: %s, up %s, pid %.0f, %s resident\n", xn_document_text(s, "version"), url,
           draining                                    ? "DRAINING"
           : json_is_true(json_object_get(s, "ready")) ? "ready"
                                                       : "NOT READY",
           xn_words_span((uint64_t)number_of(s, "uptime_seconds")).text, number_of(s, "pid"),
           xn_words_bytes((uint64_t)resident).text);
    double answered = metric_risen(span, "xnord_http_requests_total", "route", "infer") +
                      metric_risen(span, "xnord_http_requests_total", "route", "v2_infer");
    printf("  %.1f requests/s %s %s, %.0f under way\n\n", span->seconds > 0 ? answered / span->seconds : 0,
           span->before->status ? "over the last" : "since the start,",
           xn_words_span((uint64_t)llround(span->seconds)).text, number_of(s, "requests_active"));
    print_models(span);
    putchar('\n');
    print_instances(span);
    putchar('\n');
    print_power(span->now);
    print_rejected(span);
}

static void show(const struct xn_ctl *ctl, const struct span *span, bool watch, bool first)
{
    if (ctl->json) {
        json_t *root = to_json(span, ctl->url);
        json_dumpf(root, stdout, (watch ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(root);
    } else {
        if (watch && isatty(STDOUT_FILENO))
            fputs("\x1b[H\x1b[J", stdout);
        else if (!first)
            putchar('\n');
        print_text(span, ctl->url);
    }
    fflush(stdout);
}

static int watch(const struct xn_ctl *ctl, struct xn_client *client, double every_s, uint64_t count,
                 struct xn_error *error)
{
    struct reading before = {0}, now = {0};
    int r = 0;

    for (uint64_t i = 0; r >= 0 && i < count; i++) {
        if (i > 0) {
            const struct timespec pause = xn_clock_timespec((uint64_t)(every_s * (double)XN_NS_PER_S));
            nanosleep(&pause, NULL);
        }
        r = take(client, &now, error);
        if (r < 0)
            break;
        double seconds = before.status ? (double)(now.taken_ns - before.taken_ns) / (double)XN_NS_PER_S
                                       : number_of(now.status, "uptime_seconds");
        struct span span = {&now, &before, seconds};
        show(ctl, &span, count > 1, i == 0);
        reading_done(&before);
        before = now;
        now = (struct reading){0};
    }
    reading_done(&before);
    return r;
}

int xn_ctl_status(struct xn_ctl *ctl, int argc, char **argv)
{
    double every_s = 2;
    uint64_t count = 0;
    bool again = false;
    const struct xn_opt opts[] = {
        {"watch", 'w', XN_OPT_FLAG, &again, 0, 0, NULL,
         "again and again, with rates of the time between; ends with ^C"},
        {"interval", 'i', XN_OPT_DOUBLE, &every_s, 0.01, 86400, "S", "seconds between two readings (default 2)"},
        {"count", 'n', XN_OPT_U64, &count, 1, 1e12, "N", "end after N readings (default 1; endless with --watch)"},
    };
    const struct xn_opt_about about = {
        "",
        "Say how a server is doing. Once: means since it started. With --watch: rates between two readings,\n"
        "with --json one line for each.",
        "Exit status: 0 the server answered, 1 it did not, 2 wrong command line.", false};
    struct xn_client *client = NULL;
    struct xn_error error;
    char **operands;

    if (xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &operands) > 0)
        xn_opt_usage(ctl, "takes no arguments besides options");
    int r = xn_client_new(ctl, TIMEOUT_MS, &client, &error);
    if (r >= 0)
        r = watch(ctl, client, every_s, count ? count : again ? UINT64_MAX : 1, &error);
    xn_client_free(client);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}
