/* SPDX-License-Identifier: Apache-2.0
 * One table says of every key of the document whether it may be changed (`put`) or is fixed by the model's file, and is compared with it. */
#include "daemon/model_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static json_t *input_json(const struct xn_network *n)
{
    return json_pack("{s:s, s:s, s:s, s:[i,i,i], s:b, s:b, s:b}", "name", n->input_name, "data_type",
                     n->input.dtype == XN_DTYPE_U8 ? "TYPE_UINT8" : "TYPE_INT8", "format", "FORMAT_NHWC", "dims",
                     (int)n->input.h, (int)n->input.w, (int)n->input.channels, "is_shape_tensor", 0,
                     "allow_ragged_batch", 0, "optional", 0);
}

static json_t *output_json(const struct xn_network *n, const char *name, const char *type)
{
    return json_pack("{s:s, s:s, s:[i], s:s, s:b}", "name", name, "data_type", type, "dims", (int)n->n_classes,
                     "label_filename", "", "is_shape_tensor", 0);
}

static json_t *instances_json(const struct xn_model *model)
{
    json_t *groups = json_array();

    for (uint32_t i = 0; i < model->instances->n; i++) {
        struct xn_accel *accel = model->instances->accel[i];
        if (!accel || !model->loaded[i])
            continue;
        const struct xn_accel_info *info = xn_accel_info(accel);
        json_array_append_new(groups, json_pack("{s:s, s:s, s:i, s:[]}", "name", info->name, "kind",
                                                strcmp(info->kind, "cpu") == 0 ? "KIND_CPU" : "KIND_MODEL", "count", 1,
                                                "gpus"));
    }
    return groups;
}

static json_t *policy_json(const struct xn_version_policy *policy)
{
    if (policy->n_listed > 0) {
        json_t *versions = json_array();
        for (uint32_t i = 0; i < policy->n_listed; i++)
            json_array_append_new(versions, json_integer((json_int_t)policy->listed[i]));
        return json_pack("{s:{s:o}}", "specific", "versions", versions);
    }
    if (policy->latest == UINT32_MAX)
        return json_pack("{s:{}}", "all");
    return json_pack("{s:{s:i}}", "latest", "num_versions", policy->latest ? (int)policy->latest : 1);
}

static json_t *batching_json(const struct xn_model *model)
{
    json_t *preferred = json_array();

    if (model->preferred_batch > 0)
        json_array_append_new(preferred, json_integer(model->preferred_batch));
    return json_pack("{s:o, s:i, s:b, s:{s:s, s:I, s:b, s:i}}", "preferred_batch_size", preferred,
                     "max_queue_delay_microseconds", (int)model->max_delay_us, "preserve_ordering", 0,
                     "default_queue_policy", "timeout_action", "REJECT", "default_timeout_microseconds",
                     (json_int_t)model->timeout_ms * 1000, "allow_timeout_override", 1, "max_queue_size",
                     (int)model->queue_limit);
}

/* Triton's parameters are strings. Labels: they stand in the .xnor file, not in one of their own. */
static json_t *parameters_json(const struct xn_network *n)
{
    json_t *labels = json_array(), *parameters = json_pack("{s:{s:s}}", "sha256", "string_value", n->sha256_hex);

    for (uint32_t i = 0; n->labels && i < n->n_classes; i++)
        json_array_append_new(labels, json_string(n->labels[i]));
    char *text = n->labels ? json_dumps(labels, JSON_COMPACT) : NULL;
    if (text)
        json_object_set_new(parameters, "labels", json_pack("{s:s}", "string_value", text));
    json_decref(labels);
    free(text);
    return parameters;
}

json_t *xn_model_config_json(const struct xn_model *model)
{
    const struct xn_network *n = model->network;

    return json_pack("{s:s, s:s, s:s, s:o, s:i, s:[o], s:[o,o], s:o, s:o, s:o, s:{s:b}, s:{s:b}}", "name", model->name,
                     "platform", "xnor", "backend", "xnor", "version_policy", policy_json(&model->policy),
                     "max_batch_size", (int)model->max_batch, "input", input_json(n), "output",
                     output_json(n, "logits", "TYPE_FP32"), output_json(n, "accumulators", "TYPE_INT32"),
                     "dynamic_batching", batching_json(model), "instance_group", instances_json(model), "parameters",
                     parameters_json(n), "model_transaction_policy", "decoupled", 0, "response_cache", "enable", 0);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static int put_number(json_t *value, const char *name, uint64_t min, uint64_t max, uint32_t *ret,
                      struct xn_error *error)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 || (uint64_t)number < min || (uint64_t)number > max)
        return xn_error_set(error, -EINVAL, "config: %s: must be a whole number %" PRIu64 "..%" PRIu64, name, min, max);
    *ret = (uint32_t)number;
    return 0;
}

static int put_max_batch(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    return put_number(value, "max_batch_size", 1, XN_CONFIG_BATCH_MAX, &config->max_batch, error);
}

static int unknown_key(const char *section, const char *key, struct xn_error *error)
{
    return xn_error_set(error, -EINVAL, "config: %s: \"%.64s\" is not supported", section, key);
}

/* Several sizes: the smallest. A batch of a multiple of it closes at once, so where the others are multiples that is all of them. */
static int put_preferred(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    uint32_t least = 0, size = 0;
    json_t *element;
    size_t i;

    if (!json_is_array(value))
        return xn_error_set(error, -EINVAL, "config: preferred_batch_size: must be an array");
    json_array_foreach(value, i, element)
    {
        int r = put_number(element, "preferred_batch_size", 1, XN_CONFIG_BATCH_MAX, &size, error);
        if (r < 0)
            return r;
        least = least == 0 ? size : XN_MIN(least, size);
    }
    config->preferred_batch = least;
    return 0;
}

static int put_timeout(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    uint32_t us = 0;
    int r = put_number(value, "default_timeout_microseconds", 0, UINT64_C(600000000), &us, error);

    if (r >= 0 && us > 0) /* 0 is Triton's "none"; ours stays as it is */
        config->timeout_ms = XN_MAX(us / 1000, 1u);
    return r;
}

static int put_queue_policy(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    const char *key;
    json_t *member;
    int r = 0;

    if (!json_is_object(value))
        return xn_error_set(error, -EINVAL, "config: default_queue_policy: must be an object");
    json_object_foreach(value, key, member)
    {
        if (strcmp(key, "max_queue_size") == 0)
            r = put_number(member, key, 1, 65536, &config->queue_limit, error);
        else if (strcmp(key, "default_timeout_microseconds") == 0)
            r = put_timeout(config, member, error);
        else if (strcmp(key, "allow_timeout_override") == 0 ? !json_is_true(member)
                 : strcmp(key, "timeout_action") == 0
                     ? !json_is_string(member) || strcmp(json_string_value(member), "REJECT") != 0
                     : true)
            r = unknown_key("default_queue_policy", key, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int put_batching(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    const char *key;
    json_t *member;
    int r = 0;

    if (!json_is_object(value))
        return xn_error_set(error, -EINVAL, "config: dynamic_batching: must be an object");
    json_object_foreach(value, key, member)
    {
        if (strcmp(key, "preferred_batch_size") == 0)
            r = put_preferred(config, member, error);
        else if (strcmp(key, "max_queue_delay_microseconds") == 0)
            r = put_number(member, key, 0, 1000000, &config->max_delay_us, error);
        else if (strcmp(key, "default_queue_policy") == 0)
            r = put_queue_policy(config, member, error);
        else if (strcmp(key, "preserve_ordering") != 0 || !json_is_false(member))
            r = unknown_key("dynamic_batching", key, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int put_specific(struct xn_version_policy *policy, json_t *versions, struct xn_error *error)
{
    json_t *version;
    size_t i;

    if (json_array_size(versions) < 1 || json_array_size(versions) > XN_CONFIG_VERSIONS_MAX)
        return xn_error_set(error, -EINVAL,
                            "config: version_policy: specific.versions must be an array of 1..%u numbers",
                            XN_CONFIG_VERSIONS_MAX);
    json_array_foreach(versions, i, version)
    {
        if (!json_is_integer(version) || json_integer_value(version) < 1)
            return xn_error_set(error, -EINVAL, "config: version_policy: a version is a whole number from 1");
        policy->listed[policy->n_listed++] = (uint64_t)json_integer_value(version);
    }
    return 0;
}

static int put_policy(struct xn_config_model *config, json_t *value, struct xn_error *error)
{
    json_t *latest = json_object_get(value, "latest"), *specific = json_object_get(value, "specific");
    json_t *all = json_object_get(value, "all");
    struct xn_version_policy policy;
    int r = 0;

    memset(&policy, 0, sizeof(policy)); /* it is compared whole */
    if (!json_is_object(value) || json_object_size(value) != 1 || !(latest || specific || all))
        return xn_error_set(error, -EINVAL, "config: version_policy: must have one of latest, specific, all");
    if (all)
        policy.latest = UINT32_MAX;
    else if (latest)
        r = put_number(json_object_get(latest, "num_versions"), "version_policy.latest.num_versions", 1,
                       XN_CONFIG_VERSIONS_MAX, &policy.latest, error);
    else
        r = put_specific(&policy, json_object_get(specific, "versions"), error);
    if (r >= 0)
        config->policy = policy;
    return r;
}

static const struct {
    const char *key;
    int (*put)(struct xn_config_model *config, json_t *value, struct xn_error *error); /* NULL: fixed */
} keys[] = {
    {"max_batch_size", put_max_batch},
    {"dynamic_batching", put_batching},
    {"version_policy", put_policy},
    {"name", NULL},
    {"platform", NULL},
    {"backend", NULL},
    {"input", NULL},
    {"output", NULL},
    {"instance_group", NULL},
    {"parameters", NULL},
    {"model_transaction_policy", NULL},
    {"response_cache", NULL},
};

int xn_model_config_parse(const char *text, size_t bytes, struct xn_config_model *config, json_t **ret_document,
                          struct xn_error *error)
{
    json_error_t where;
    const char *key;
    json_t *value;

    if (bytes > XN_MODEL_CONFIG_BYTES_MAX)
        return xn_error_set(error, -EINVAL, "config: longer than %u bytes", XN_MODEL_CONFIG_BYTES_MAX);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return xn_error_set(error, -EINVAL, "config: line %d, column %d: %s", where.line, where.column, where.text);
    int r = json_is_object(root) ? 0 : xn_error_set(error, -EINVAL, "config: must be an object");
    json_object_foreach(root, key, value)
    {
        size_t i = 0;
        while (i < XN_ARRAY_LEN(keys) && strcmp(keys[i].key, key) != 0)
            i++;
        if (i == XN_ARRAY_LEN(keys))
            r = xn_error_set(error, -EINVAL, "config: \"%.64s\" is not supported", key);
        else if (keys[i].put)
            r = keys[i].put(config, value, error);
        if (r < 0)
            break;
    }
    if (r < 0) {
        json_decref(root);
        return r;
    }
    *ret_document = root;
    return 0;
}

int xn_model_config_check(const struct xn_model *model, json_t *document, struct xn_error *error)
{
    json_t *is = xn_model_config_json(model);
    int r = is ? 0 : xn_error_set(error, -ENOMEM, "no memory");

    for (size_t i = 0; r >= 0 && i < XN_ARRAY_LEN(keys); i++) {
        json_t *wanted = json_object_get(document, keys[i].key);
        if (!keys[i].put && wanted && !json_equal(wanted, json_object_get(is, keys[i].key)))
            r = xn_error_set(
                error, -EINVAL,
                "config: \"%s\" cannot be changed: the model's file, and the accelerators there are, decide it",
                keys[i].key);
    }
    json_decref(is);
    return r;
}
