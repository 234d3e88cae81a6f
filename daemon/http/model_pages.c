/* SPDX-License-Identifier: Apache-2.0
 * What the Open Inference Protocol has to read of models: metadata, readiness, configuration, statistics. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http/internal.h"
#include "daemon/model_config.h"

static enum MHD_Result reply(struct xn_get *get, unsigned code, json_t *value)
{
    return xn_http_answer_json(get->http, get->connection, get->route, get->start_ns, code, value);
}

static enum MHD_Result fail(struct xn_get *get, int code, const struct xn_error *error)
{
    return xn_http_answer_error(get->http, get->connection, get->route, get->start_ns, code, error, NULL);
}

int xn_http_model(struct xn_http *http, const char *name, const char *version, struct xn_model **ret_model,
                  struct xn_error *error)
{
    struct xn_model *model = xn_models_get(http->next.models, name, version);
    struct xn_model *other = model ? NULL : xn_models_get(http->next.models, name, NULL);

    if (model) {
        *ret_model = model;
        return 0;
    }
    if (other)
        xn_error_set(error, -ENOENT, "model %s has version %s, not %.16s", other->name, other->version, version);
    else if (name)
        xn_error_set(error, -ENOENT, "no model is called \"%.64s\"; GET / lists those there are", name);
    else
        xn_error_set(error, -ENOENT, "the default model is not served; name one, GET / lists those there are");
    xn_model_unref(other);
    return -ENOENT;
}

/* What the path names. */
static int model_of(struct xn_get *get, struct xn_model **ret_model, struct xn_error *error)
{
    return xn_http_model(get->http, get->segments[0], get->segments[1][0] ? get->segments[1] : NULL, ret_model, error);
}

/* ---- metadata ----------------------------------------------------------------------------------------------------- */

static json_t *versions_json(struct xn_http *http, const struct xn_model *model)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(http->next.models, models, XN_CONFIG_MODELS_MAX);
    json_t *versions = json_array();

    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(models[i]->name, model->name) == 0)
            json_array_append_new(versions, json_string(models[i]->version));
        xn_model_unref(models[i]);
    }
    return versions;
}

enum MHD_Result xn_page_v2_model(struct xn_get *get)
{
    struct xn_model *model = NULL;
    struct xn_error error;
    int r = model_of(get, &model, &error);

    if (r < 0)
        return fail(get, r, &error);
    const struct xn_network *n = model->network;
    json_t *meta = json_pack(
        "{s:s, s:o, s:s, s:[{s:s, s:s, s:[i,i,i,i]}], s:[{s:s, s:s, s:[i,i]}, {s:s, s:s, s:[i,i]}]}", "name",
        model->name, "versions", versions_json(get->http, model), "platform", "xnor", "inputs", "name", n->input_name,
        "datatype", n->input.dtype == XN_DTYPE_U8 ? "UINT8" : "INT8", "shape", -1, (int)n->input.h, (int)n->input.w,
        (int)n->input.channels, "outputs", "name", "logits", "datatype", "FP32", "shape", -1, (int)n->n_classes, "name",
        "accumulators", "datatype", "INT32", "shape", -1, (int)n->n_classes);
    xn_model_unref(model);
    return reply(get, 200, meta);
}

enum MHD_Result xn_page_v2_model_config(struct xn_get *get)
{
    struct xn_model *model = NULL;
    struct xn_error error;
    int r = model_of(get, &model, &error);

    if (r < 0)
        return fail(get, r, &error);
    json_t *config = xn_model_config_json(model);
    xn_model_unref(model);
    return reply(get, 200, config);
}

/* ---- readiness ---------------------------------------------------------------------------------------------------- */

/* Is the name, or the version, known to the repository without being served? */
static bool is_known(struct xn_get *get)
{
    struct xn_repository_row *rows;
    bool known = false;
    uint32_t n;

    if (xn_repository_index(get->http->next.repository, &rows, &n) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        known = known || (strcmp(rows[i].model.name, get->segments[0]) == 0 &&
                          (!get->segments[1][0] || strcmp(rows[i].model.version, get->segments[1]) == 0));
    free(rows);
    return known;
}

enum MHD_Result xn_page_v2_model_ready(struct xn_get *get)
{
    struct xn_model *model = NULL;
    struct xn_error error;
    int r = model_of(get, &model, &error);
    bool ready = r >= 0 && get->http->next.ready(get->http->next.user);

    xn_model_unref(model);
    if (r < 0 && !is_known(get))
        return fail(get, r, &error);
    return reply(get, ready ? 200 : 503, json_pack("{s:s, s:b}", "name", get->segments[0], "ready", ready));
}

/* ---- statistics --------------------------------------------------------------------------------------------------- */

static json_int_t load(const atomic_uint_fast64_t *value)
{
    return (json_int_t)atomic_load_explicit(value, memory_order_relaxed);
}

static json_t *count_json(json_int_t count, json_int_t ns)
{
    return json_pack("{s:I, s:I}", "count", count, "ns", ns);
}

static json_t *json_of(const struct xn_count *count)
{
    return count_json(load(&count->count), load(&count->ns));
}

/* Requests go on while this is read: what was computed is counted once, for all parts of it, as perf_analyzer ends where they differ. */
static json_t *inference_stats(const struct xn_model_stats *stats)
{
    json_int_t n = load(&stats->compute_output.count);

    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "success", json_of(&stats->success), "fail", json_of(&stats->fail),
        "queue", json_of(&stats->queue), "compute_input", count_json(n, load(&stats->compute_input.ns)),
        "compute_infer", count_json(n, load(&stats->compute_infer.ns)), "compute_output",
        count_json(n, load(&stats->compute_output.ns)), "cache_hit", count_json(0, 0), "cache_miss", count_json(0, 0));
}

/* Tensors go to an accelerator and come back inside its run, so that a batch's input and output take no time of their own. */
static json_t *batch_stats(const struct xn_model_stats *stats)
{
    json_t *array = json_array();

    for (uint32_t n = 1; n <= XN_CONFIG_BATCH_MAX; n++) {
        json_int_t count = load(&stats->batch[n].count);
        if (count > 0)
            json_array_append_new(array, json_pack("{s:i, s:o, s:o, s:o}", "batch_size", (int)n, "compute_input",
                                                   count_json(count, 0), "compute_infer",
                                                   count_json(count, load(&stats->batch[n].ns)), "compute_output",
                                                   count_json(count, 0)));
    }
    return array;
}

static json_t *stats_json(const struct xn_model *model)
{
    const struct xn_model_stats *stats = model->stats;

    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:{}, s:o, s:[]}", "name", model->name, "version", model->version,
                     "last_inference", load(&stats->last_inference_ms), "inference_count",
                     load(&stats->inference_count), "execution_count", load(&stats->execution_count), "inference_stats",
                     inference_stats(stats), "response_stats", "batch_stats", batch_stats(stats), "memory_usage");
}

/* Of all models, of all versions of one, or of one version. An unknown one is an invalid argument, as in Triton. */
enum MHD_Result xn_page_v2_model_stats(struct xn_get *get)
{
    const char *name = get->segments[0], *version = get->segments[1];
    struct xn_model *models[XN_CONFIG_MODELS_MAX], *model = NULL;
    struct xn_error error;
    int r = name[0] ? model_of(get, &model, &error) : 0;

    xn_model_unref(model);
    if (r < 0)
        return fail(get, -EINVAL, &error);
    uint32_t n = xn_models_list(get->http->next.models, models, XN_CONFIG_MODELS_MAX);
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++) {
        if ((!name[0] || strcmp(models[i]->name, name) == 0) &&
            (!version[0] || strcmp(models[i]->version, version) == 0))
            json_array_append_new(array, stats_json(models[i]));
        xn_model_unref(models[i]);
    }
    return reply(get, 200, json_pack("{s:o}", "model_stats", array));
}
