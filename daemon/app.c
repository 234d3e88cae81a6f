/* SPDX-License-Identifier: Apache-2.0
 * Wiring. A request's way through the callbacks here:
 *
 *     http/ --admit--> announced --submit--> encoded items: image/ --decoded--+
 *                                            tensors: ------------------------+--> dispatch --settle--> http/
 *
 * Start: accelerators, metrics, models, power, dispatch, image, http. Each stage gets only function pointers to the next, so none includes another.
 *
 * Stop: image and dispatch are stopped first, which settles every item, so that http has no connection suspended when it stops; but they are freed only
 * after it, because until then its threads may call them (a body that is complete only now is refused with -ECANCELED, a scrape reads gauges). A
 * device that hangs may touch jobs, requests and models until it is closed: it is closed before they are freed. A half-built app can be freed: xn_app_free
 * takes what is there. */
#include "daemon/app.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "accel/accel.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "daemon/http/http.h"
#include "daemon/image/stage.h"
#include "daemon/models.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/power.h"
#include "daemon/repository.h"
#include "daemon/request.h"
#include "daemon/sched/dispatch.h"

#define SUBMIT_CHUNK 64          /* tensors that go to the scheduler under one lock */
#define ANSWERS_NS   XN_NS_PER_S /* longest wait at the stop for answers under way */
#define LOAD_NS      XN_NS_PER_S /* and for a load that is, where the drain has not seen its end */

struct xn_app {
    struct xn_config config;
    struct xn_instances instances;
    struct xn_models *models;
    struct xn_repository *repository;
    struct xn_requests *requests;
    struct xn_regions *regions;
    struct xn_metrics *metrics;
    struct xn_power *power;
    struct xn_dispatch *dispatch;
    struct xn_image_stage *image;
    struct xn_http *http;
    uint32_t n_missing; /* accelerators that could not be opened; when_missing */
    uint64_t start_ns;
    atomic_bool ready;    /* relaxed: what /readyz says; set once after start, cleared once when draining begins */
    atomic_bool draining; /* relaxed: for GET /v1/status */
    atomic_bool stopping; /* relaxed: new work is refused */
    struct {
        bool under_way; /* main's */
        /* Of xn-models until it sets over: */
        struct xn_config config;
        int result;
        struct xn_error error;
        atomic_bool over; /* released by xn-models, acquired by main: what stands above is main's again */
        struct xn_http_secrets *secrets;
        int fd; /* eventfd: over */
    } reload;
};

/* ---- the path of a request ---------------------------------------------------------------------------------------- */

static int admit(void *user, const struct xn_request *request, uint32_t n, uint64_t *ret_retry_ns)
{
    struct xn_app *app = user;
    struct xn_sched_ask ask = {.model = request->model,
                               .n = n,
                               .deadline_ns = xn_request_aim_ns(request),
                               .client = request->client,
                               .priority = request->priority};

    if (atomic_load_explicit(&app->stopping, memory_order_relaxed))
        return -ESHUTDOWN;
    return xn_dispatch_admit(app->dispatch, &ask, ret_retry_ns);
}

static void retract(void *user, const struct xn_model *model, uint32_t n)
{
    struct xn_app *app = user;

    xn_dispatch_retract(app->dispatch, model, n);
}

/* The item will not reach the queue: take its announcement back, settle it and let its request go. */
static void drop_item(struct xn_app *app, struct xn_item *item, int status, const struct xn_error *error)
{
    struct xn_request *request = item->request;

    xn_dispatch_retract(app->dispatch, request->model, 1);
    xn_item_settle(item, status, error);
    xn_request_unref(request);
}

/* Why `what` did not take an item; returns `r`. */
static int explain_refusal(struct xn_error *error, int r, const char *what)
{
    if (r == -ECANCELED)
        return xn_error_set(error, r, "the server is stopping");
    return xn_error_set(error, r, "%s: the queue is full; try again later", what);
}

static void push_items(struct xn_app *app, struct xn_item *const *items, uint32_t n)
{
    struct xn_error error;

    while (n > 0) {
        uint32_t taken;
        int r = xn_dispatch_push(app->dispatch, items, n, &taken);
        items += taken;
        n -= taken;
        if (r < 0) {
            drop_item(app, *items, explain_refusal(&error, r, (*items)->request->model->name), &error);
            items++;
            n--;
        }
    }
}

static void image_done(void *user, struct xn_item *item, int status)
{
    struct xn_app *app = user;

    if (status < 0)
        drop_item(app, item, status, NULL);
    else
        push_items(app, &item, 1);
}

static void push_picture(struct xn_app *app, struct xn_item *item)
{
    struct xn_error error;
    int r = xn_image_stage_push(app->image, item);

    if (r < 0)
        drop_item(app, item, explain_refusal(&error, r, "picture decoding"), &error);
}

/* Tensors go to the scheduler a handful at a time. */
static void submit(void *user, struct xn_request *const *requests, uint32_t n)
{
    struct xn_app *app = user;
    struct xn_item *tensors[SUBMIT_CHUNK];
    uint32_t n_tensors = 0;

    for (uint32_t k = 0; k < n; k++) {
        struct xn_request *request = requests[k];
        uint32_t n_items = request->n_items;
        /* Every item's reference is taken first: the request may be answered, and given back, while this loop runs. */
        for (uint32_t i = 0; i < n_items; i++)
            (void)xn_request_ref(request);
        for (uint32_t i = 0; i < n_items; i++) {
            struct xn_item *item = &request->items[i];
            if (item->encoded) {
                push_picture(app, item);
                continue;
            }
            tensors[n_tensors++] = item;
            if (n_tensors < SUBMIT_CHUNK)
                continue;
            push_items(app, tensors, n_tensors);
            n_tensors = 0;
        }
    }
    push_items(app, tensors, n_tensors);
}

/* ---- what the stages tell of each other -------------------------------------------------------------------------- */

static void instance_busy(void *user, uint32_t instance, bool busy, uint64_t now_ns)
{
    struct xn_app *app = user;

    xn_power_busy(app->power, instance, busy, now_ns);
}

static void batch_done(void *user, const struct xn_batch *batch, uint64_t exec_ns, int status)
{
    struct xn_app *app = user;

    xn_metrics_batch(app->metrics, batch, exec_ns, status);
    if (status < 0)
        return;
    xn_model_stats_batch(batch->model->stats, batch->n, exec_ns);
}

static bool batch_energy(void *user, const struct xn_batch *batch, uint64_t end_ns, struct xn_energy *ret_energy)
{
    struct xn_app *app = user;

    return xn_power_batch_energy(app->power, batch->instance, batch->model->slot, end_ns, ret_energy);
}

static void instance_health(void *user, uint32_t instance, bool healthy, const char *why)
{
    struct xn_app *app = user;
    const struct xn_accel_info *info = xn_accel_info(app->instances.accel[instance]);
    struct xn_log_field fields[] = {{"DEVICE", info->name}};

    if (healthy)
        xn_log_fields(XN_LOG_INFO, fields, 1, "instance %s is back in service", info->name);
    else
        xn_log_fields(XN_LOG_ERROR, fields, 1, "instance %s is out of service: %s; it will be reset", info->name, why);
}

static bool is_ready(void *user)
{
    struct xn_app *app = user;

    return atomic_load_explicit(&app->ready, memory_order_relaxed) && xn_dispatch_serving(app->dispatch);
}

static void model_published(void *user, const struct xn_model *model)
{
    struct xn_app *app = user;

    xn_metrics_set_model(app->metrics, model->slot, model->name, model->version);
    if (app->dispatch)
        xn_dispatch_learn(app->dispatch, model);
}

/* ---- gauges of /metrics ------------------------------------------------------------------------------------------- */

static void render_instances(void *user, struct xn_metrics_text *text)
{
    struct xn_app *app = user;
    struct xn_metrics_instance rows[XN_INSTANCES_MAX]; /* 72 KiB of this thread's stack */

    for (uint32_t i = 0; i < app->instances.n; i++) {
        const struct xn_accel_info *info = xn_accel_info(app->instances.accel[i]);
        struct xn_instance_status status;
        xn_dispatch_status(app->dispatch, i, &status);
        rows[i] = (struct xn_metrics_instance){.name = info->name,
                                               .kind = info->kind,
                                               .device = info->device,
                                               .geometry = info->geometry,
                                               .healthy = status.healthy,
                                               .busy_ns = status.busy_ns,
                                               .retries = status.retries,
                                               .quarantines = status.quarantines,
                                               .resets = status.resets,
                                               .reset_failures = status.reset_failures};
    }
    xn_metrics_render_instances(text, rows, app->instances.n);
    xn_metrics_family(text, "xnord_accelerators_missing", "gauge",
                      "Configured accelerators that could not be opened at the start.");
    xn_metrics_sample(text, "xnord_accelerators_missing", "", app->n_missing);
}

static void render_models(void *user, struct xn_metrics_text *text)
{
    struct xn_app *app = user;
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    struct xn_metrics_model rows[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(app->models, models, XN_CONFIG_MODELS_MAX);

    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct xn_metrics_model){.name = models[i]->name,
                                            .version = models[i]->version,
                                            .sha256_hex = models[i]->network->sha256_hex,
                                            .queue_depth = xn_dispatch_depth(app->dispatch, models[i]->slot)};
    xn_metrics_render_models(text, rows, n);
    for (uint32_t i = 0; i < n; i++)
        xn_model_unref(models[i]);
}

static void render_requests(void *user, struct xn_metrics_text *text)
{
    struct xn_app *app = user;

    xn_metrics_render_requests(text, xn_requests_active(app->requests));
}

static void render_power(void *user, struct xn_metrics_text *text)
{
    struct xn_app *app = user;

    xn_power_render(app->power, text);
}

static void add_sources(struct xn_app *app)
{
    static void (*const renders[])(void *, struct xn_metrics_text *) = {render_instances, render_models,
                                                                        render_requests, render_power};

    for (size_t i = 0; i < XN_ARRAY_LEN(renders); i++)
        xn_metrics_add_source(app->metrics, &(struct xn_metrics_source){.user = app, .render = renders[i]});
}

/* ---- GET /v1/status ----------------------------------------------------------------------------------------------- */

static json_t *models_json(struct xn_app *app)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(app->models, models, XN_CONFIG_MODELS_MAX);
    struct xn_model *main_model = xn_models_get(app->models, NULL, NULL);
    json_t *array = json_array();

    for (uint32_t i = 0; i < n; i++) {
        const struct xn_model *m = models[i];
        json_t *on = json_array();
        for (uint32_t k = 0; k < app->instances.n; k++) {
            if (m->loaded[k])
                json_array_append_new(on, json_string(xn_accel_info(app->instances.accel[k])->name));
        }
        json_array_append_new(
            array,
            json_pack(
                "{s:s, s:s, s:s, s:b, s:[i,i,i], s:s, s:b, s:b, s:i, s:I, s:I, s:i, s:i, s:i, s:i, s:I, s:I, s:o}",
                "name", m->name, "version", m->version, "sha256", m->network->sha256_hex, "default", m == main_model,
                "input_shape", (int)m->network->input.h, (int)m->network->input.w, (int)m->network->input.channels,
                "input_type", xn_dtype_name(m->network->input.dtype), "takes_images", m->network->input.is_image,
                "plain_pixels", m->network->input.is_image && m->network->input.identity, "classes",
                (int)m->network->n_classes, "binary_macs", (json_int_t)m->network->binary_macs, "int8_macs",
                (json_int_t)m->network->int8_macs, "max_batch", (int)m->max_batch, "max_delay_us", (int)m->max_delay_us,
                "queue_limit", (int)m->queue_limit, "queue_depth", (int)xn_dispatch_depth(app->dispatch, m->slot),
                "inferences", (json_int_t)atomic_load(&m->stats->inference_count), "batches",
                (json_int_t)atomic_load(&m->stats->execution_count), "instances", on));
        xn_model_unref(models[i]);
    }
    xn_model_unref(main_model);
    return array;
}

static json_t *instances_json(struct xn_app *app)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < app->instances.n; i++) {
        const struct xn_accel_info *info = xn_accel_info(app->instances.accel[i]);
        struct xn_instance_status status;
        xn_dispatch_status(app->dispatch, i, &status);
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:s, s:s, s:b, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", info->name,
                             "kind", info->kind, "device", info->device, "geometry", info->geometry, "healthy",
                             status.healthy, "busy_seconds", (double)status.busy_ns / (double)XN_NS_PER_S, "batches",
                             (json_int_t)status.batches, "images", (json_int_t)status.images, "failures",
                             (json_int_t)status.failures, "retries", (json_int_t)status.retries, "quarantines",
                             (json_int_t)status.quarantines, "resets", (json_int_t)status.resets, "reset_failures",
                             (json_int_t)status.reset_failures));
    }
    return array;
}

static char *status_json(void *user)
{
    struct xn_app *app = user;
    json_t *root = json_pack(
        "{s:s, s:s, s:i, s:f, s:b, s:b, s:I, s:o, s:o}", "version", XN_VERSION, "git", XN_GIT, "pid", (int)getpid(),
        "uptime_seconds", (double)(xn_clock_now_ns() - app->start_ns) / (double)XN_NS_PER_S, "ready", is_ready(app),
        "draining", atomic_load_explicit(&app->draining, memory_order_relaxed), "requests_active",
        (json_int_t)xn_requests_active(app->requests), "models", models_json(app), "instances", instances_json(app));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(root);
    return text;
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

static void log_instance(const struct xn_accel_info *info)
{
    struct xn_log_field fields[] = {{"DEVICE", info->name}};

    xn_log_fields(XN_LOG_INFO, fields, 1, "instance %s: %s, %s", info->name, info->device, info->geometry);
}

static int open_accelerator(struct xn_app *app, const struct xn_config_accelerator *config, struct xn_error *error)
{
    const struct xn_accel_backend *backend = xn_accel_find(config->kind);
    struct xn_accel_options options = {.device = config->device,
                                       .image = config->image,
                                       .threads = config->threads,
                                       .instances = config->instances,
                                       .cpu_mask = config->cpu_mask};
    struct xn_instances *all = &app->instances;
    uint32_t n;

    if (!backend)
        return xn_error_set(error, -ENODEV, "accelerator \"%s\" is not built into this xnord", config->kind);
    int r = backend->probe(&options, &n, error);
    if (r < 0)
        return xn_error_prefix(error, r, "accelerator \"%s\"", config->kind);
    for (uint32_t i = 0; i < n; i++) {
        if (all->n == XN_INSTANCES_MAX)
            return xn_error_set(error, -E2BIG, "accelerators: more than %u instances in all", XN_INSTANCES_MAX);
        r = backend->open(&options, i, &all->accel[all->n], error);
        if (r < 0)
            return xn_error_prefix(error, r, "accelerator \"%s\", instance %u", config->kind, i);
        all->config[all->n] = config;
        log_instance(xn_accel_info(all->accel[all->n++]));
    }
    return 0;
}

static int open_accelerators(struct xn_app *app, struct xn_error *error)
{
    for (uint32_t i = 0; i < app->config.n_accelerators; i++) {
        const struct xn_config_accelerator *config = &app->config.accelerators[i];
        int r = open_accelerator(app, config, error);
        if (r >= 0)
            continue;
        if (config->when_missing == XN_MISSING_REFUSE || (r != -ENODEV && r != -EBUSY))
            return r;
        app->n_missing++;
        xn_log_error("%s; serving without it until the next restart", error->text);
    }
    if (app->instances.n == 0)
        return xn_error_set(error, -ENODEV, "no accelerator: the configuration's \"accelerators\" gave no instance");
    return 0;
}

/* Those published before there was a scheduler. */
static void learn_models(struct xn_app *app)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(app->models, models, XN_CONFIG_MODELS_MAX);

    for (uint32_t i = 0; i < n; i++) {
        xn_dispatch_learn(app->dispatch, models[i]);
        xn_model_unref(models[i]);
    }
}

static int start_path(struct xn_app *app, struct xn_error *error)
{
    struct xn_config *config = &app->config;
    struct xn_dispatch_hooks hooks = {.user = app,
                                      .busy = instance_busy,
                                      .batch_done = batch_done,
                                      .energy = batch_energy,
                                      .health = instance_health};
    uint32_t items = config->limits.requests * config->limits.images_per_request;

    uint32_t regions = config->shared_memory == XN_SHARED_OFF ? 0 : config->limits.shared_regions;

    int r = xn_regions_new(regions, config->limits.shared_bytes, &app->regions);
    if (r >= 0)
        r = xn_requests_new(config, &app->requests);
    if (r < 0)
        return xn_error_set(error, r, "no memory for limits.requests = %u with %" PRIu64 " bytes of buffers",
                            config->limits.requests, config->limits.buffer_bytes);
    r = xn_dispatch_new(&app->instances, items, config, &hooks, &app->dispatch, error);
    if (r < 0)
        return r;
    learn_models(app);
    return xn_image_stage_new(config->image.threads, config->limits.image_pixels, items, image_done, app, &app->image,
                              error);
}

static int start_http(struct xn_app *app, struct xn_error *error)
{
    struct xn_http_next next = {.user = app,
                                .models = app->models,
                                .repository = app->repository,
                                .requests = app->requests,
                                .regions = app->regions,
                                .metrics = app->metrics,
                                .instances = &app->instances,
                                .admit = admit,
                                .retract = retract,
                                .submit = submit,
                                .ready = is_ready,
                                .status_json = status_json};

    return xn_http_new(&app->config, &next, &app->http, error);
}

static int start(struct xn_app *app, struct xn_error *error)
{
    int r = open_accelerators(app, error);
    if (r < 0)
        return r;
    r = xn_metrics_new(&app->instances, &app->metrics);
    if (r < 0)
        return xn_error_set(error, r, "no memory for metrics");
    r = xn_models_new(&app->instances, model_published, app, &app->models);
    if (r < 0)
        return xn_error_set(error, r, "no memory for the table of models");
    r = xn_repository_new(&app->config, app->models, &app->repository, error);
    if (r < 0)
        return r;
    r = xn_power_new(&app->config, &app->instances, app->metrics, &app->power, error);
    if (r < 0)
        return r;
    r = start_path(app, error);
    if (r < 0)
        return r;
    add_sources(app);
    r = xn_repository_start(app->repository, error);
    if (r < 0)
        return r;
    return start_http(app, error);
}

int xn_app_new(struct xn_config *config, struct xn_app **ret_app, struct xn_error *error)
{
    struct xn_app *app = xn_calloc(1, sizeof(*app));
    if (!app)
        return xn_error_set(error, -ENOMEM, "no memory to start");

    /* jansson seeds its hash tables from this; request JSON is foreign. */
    unsigned seed;
    if (getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
        json_object_seed(seed);
    app->start_ns = xn_clock_now_ns();
    app->config = *config;
    xn_config_init(&app->reload.config);
    app->reload.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = app->reload.fd < 0 ? xn_error_set(error, -errno, "eventfd: %s", strerror(errno)) : start(app, error);
    if (r < 0) {
        *config = app->config; /* still the caller's, with names that its models may have been given */
        xn_config_init(&app->config);
        (void)xn_app_free(app); /* where a load goes on, it ends with the process */
        return r;
    }
    xn_config_init(config);
    atomic_store_explicit(&app->ready, true, memory_order_relaxed);
    *ret_app = app;
    return 0;
}

/* ---- while it runs ------------------------------------------------------------------------------------------------ */

uint16_t xn_app_port(const struct xn_app *app)
{
    return xn_http_port(app->http, 0);
}

void xn_app_status_line(struct xn_app *app, char *ret_text, size_t capacity)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(app->models, models, XN_CONFIG_MODELS_MAX), healthy = 0;

    for (uint32_t i = 0; i < n; i++)
        xn_model_unref(models[i]);
    for (uint32_t i = 0; i < app->instances.n; i++) {
        struct xn_instance_status status;
        xn_dispatch_status(app->dispatch, i, &status);
        healthy += status.healthy;
    }
    snprintf(ret_text, capacity, "%u model%s on %u of %u instances, %zu requests in flight", n, n == 1 ? "" : "s",
             healthy, app->instances.n, xn_requests_active(app->requests));
}

bool xn_app_alive(struct xn_app *app, uint64_t stale_ns)
{
    uint64_t now_ns = xn_clock_now_ns();
    uint64_t heartbeat_ns = xn_dispatch_heartbeat_ns(app->dispatch);

    return xn_dispatch_serving(app->dispatch) && (heartbeat_ns >= now_ns || now_ns - heartbeat_ns <= stale_ns);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_listeners(const struct xn_config *a, const struct xn_config *b)
{
    bool same = a->n_listeners == b->n_listeners;

    for (uint32_t i = 0; same && i < a->n_listeners; i++) {
        const struct xn_config_listener *x = &a->listeners[i], *y = &b->listeners[i];
        same = same_text(x->address, y->address) && x->port == y->port && same_text(x->unix_path, y->unix_path) &&
               x->mode == y->mode && same_text(x->name, y->name) && same_text(x->certificate, y->certificate) &&
               same_text(x->key, y->key);
    }
    return same;
}

static bool same_accelerators(const struct xn_config *a, const struct xn_config *b)
{
    bool same = a->n_accelerators == b->n_accelerators;

    for (uint32_t i = 0; same && i < a->n_accelerators; i++) {
        const struct xn_config_accelerator *x = &a->accelerators[i], *y = &b->accelerators[i];
        same = same_text(x->kind, y->kind) && same_text(x->device, y->device) && same_text(x->image, y->image) &&
               same_text(x->cpu_mask, y->cpu_mask) && x->instances == y->instances && x->threads == y->threads &&
               x->when_missing == y->when_missing && !(x->idle_watts < y->idle_watts) &&
               !(x->idle_watts > y->idle_watts) && !(x->busy_watts < y->busy_watts) && !(x->busy_watts > y->busy_watts);
    }
    return same;
}

static bool same_power(const struct xn_config *a, const struct xn_config *b)
{
    bool same = a->power.sample_ms == b->power.sample_ms && same_text(a->power.hwmon_root, b->power.hwmon_root) &&
                same_text(a->power.powercap_root, b->power.powercap_root) &&
                same_text(a->power.pci_root, b->power.pci_root) && a->power.n_sensors == b->power.n_sensors;

    for (uint32_t i = 0; same && i < a->power.n_sensors; i++)
        same = same_text(a->power.sensors[i].kind, b->power.sensors[i].kind) &&
               same_text(a->power.sensors[i].domain, b->power.sensors[i].domain) &&
               same_text(a->power.sensors[i].match, b->power.sensors[i].match);
    return same;
}

/* The parts of a new configuration that need a restart are named, so that nobody waits for a change that does not come. */
static void log_kept_settings(const struct xn_config *running, const struct xn_config *wanted)
{
    /* The plain sections are numbers, and zeroed whole before they are filled. */
    const struct {
        const char *name;
        bool same;
    } sections[] = {
        {"listen", same_listeners(running, wanted)},
        {"accelerators", same_accelerators(running, wanted)},
        {"http", memcmp(&running->http, &wanted->http, sizeof(running->http)) == 0},
        {"limits", memcmp(&running->limits, &wanted->limits, sizeof(running->limits)) == 0},
        {"shared_memory", running->shared_memory == wanted->shared_memory},
        {"image", memcmp(&running->image, &wanted->image, sizeof(running->image)) == 0},
        {"power", same_power(running, wanted)},
        {"repository.control", running->repository.control == wanted->repository.control},
        {"log.target", running->log.target == wanted->log.target},
        {"drain_timeout_s", running->drain_timeout_s == wanted->drain_timeout_s},
    };

    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        if (!sections[i].same)
            xn_log_warning("reload: %s is changed, which takes effect at the next restart", sections[i].name);
    }
}

/* On the thread xn-models. */
static void reload_done(void *user, int status, const struct xn_error *error)
{
    struct xn_app *app = user;

    app->reload.result = status;
    if (status < 0)
        app->reload.error = *error;
    atomic_store_explicit(&app->reload.over, true, memory_order_release);
    (void)eventfd_write(app->reload.fd, 1);
}

int xn_app_reload(struct xn_app *app, struct xn_config *config, struct xn_error *error)
{
    int r = xn_http_secrets_read(&app->config, config->tokens, &app->reload.secrets, error);

    if (r < 0)
        return r;
    app->reload.config = *config;
    atomic_store_explicit(&app->reload.over, false, memory_order_relaxed);
    r = xn_repository_reload(app->repository, &app->reload.config, reload_done, app);
    if (r < 0) {
        xn_http_secrets_free(app->reload.secrets);
        app->reload.secrets = NULL;
        xn_config_init(&app->reload.config);
        return xn_error_set(error, r, "%s", r == -EBUSY ? "another reload is under way" : "the server is stopping");
    }
    app->reload.under_way = true;
    xn_config_init(config);
    return 0;
}

int xn_app_reload_fd(const struct xn_app *app)
{
    return app->reload.fd;
}

int xn_app_reload_end(struct xn_app *app, struct xn_error *error)
{
    eventfd_t n;

    if (!app->reload.under_way || !atomic_load_explicit(&app->reload.over, memory_order_acquire))
        return -EAGAIN;
    (void)eventfd_read(app->reload.fd, &n);
    app->reload.under_way = false;
    int r = app->reload.result;
    if (r < 0) {
        *error = app->reload.error;
        xn_http_secrets_free(app->reload.secrets);
    } else {
        xn_http_secrets_take(app->http, app->reload.secrets);
        xn_log_set_level(app->reload.config.log.level);
        log_kept_settings(&app->config, &app->reload.config);
    }
    app->reload.secrets = NULL;
    xn_config_done(&app->reload.config);
    return r;
}

/* ---- stop --------------------------------------------------------------------------------------------------------- */

uint64_t xn_app_drain(struct xn_app *app)
{
    atomic_store_explicit(&app->ready, false, memory_order_relaxed);
    atomic_store_explicit(&app->draining, true, memory_order_relaxed);
    xn_http_quiesce(app->http);
    xn_repository_quit(app->repository);
    (void)xn_dispatch_drain(app->dispatch, 0); /* batches close at once from now on */
    return xn_clock_now_ns() + app->config.drain_timeout_s * XN_NS_PER_S;
}

bool xn_app_drained(const struct xn_app *app)
{
    /* Not the requests that are out: a device that hangs may hold some that have long been answered. */
    return xn_http_open(app->http) == 0 && xn_repository_ended(app->repository);
}

/* Answers that were settled by the stop are on their way to their clients: give them a moment. */
static void let_answers_out(const struct xn_app *app)
{
    const struct timespec pause = {.tv_nsec = 2 * (long)XN_NS_PER_MS};
    uint64_t until_ns = xn_clock_now_ns() + ANSWERS_NS;

    while (app->http && xn_http_active(app->http) > 0 && xn_clock_now_ns() < until_ns)
        nanosleep(&pause, NULL);
}

static void close_accelerators(struct xn_app *app)
{
    for (uint32_t i = 0; i < app->instances.n; i++) {
        xn_accel_backend(app->instances.accel[i])->close(app->instances.accel[i]);
        app->instances.accel[i] = NULL;
    }
}

bool xn_app_free(struct xn_app *app)
{
    if (!app)
        return true;
    atomic_store_explicit(&app->stopping, true, memory_order_relaxed);
    xn_image_stage_stop(app->image);
    xn_dispatch_stop(app->dispatch);
    bool ended = xn_repository_stop(app->repository, xn_clock_now_ns() + LOAD_NS);
    let_answers_out(app);
    xn_http_free(app->http);
    xn_image_stage_free(app->image);
    if (!ended) {
        xn_log_warning("a model is still being loaded, which is not waited for");
        return false;
    }
    xn_http_secrets_free(app->reload.secrets);
    xn_config_done(&app->reload.config);
    if (app->reload.fd >= 0)
        close(app->reload.fd);
    xn_power_free(app->power);
    close_accelerators(app);
    xn_dispatch_free(app->dispatch);
    xn_repository_free(app->repository);
    xn_models_free(app->models);
    xn_requests_free(app->requests);
    xn_regions_free(app->regions);
    xn_metrics_free(app->metrics);
    xn_config_done(&app->config);
    free(app);
    return true;
}
