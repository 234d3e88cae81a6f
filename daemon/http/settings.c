/* SPDX-License-Identifier: Apache-2.0
 * Settings that the protocol's clients read and write: the log's, which are the daemon's level in other words; those of tracing, which there is none of; and CUDA shared memory, of which
 * nothing is ever registered. */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "daemon/http/internal.h"

static enum MHD_Result reply(struct xn_get *get, json_t *value)
{
    return xn_http_answer_json(get->http, get->connection, get->route, get->start_ns, 200, value);
}

/* Read the body, which `parse` takes or refuses. */
static int read_body(struct xn_post *post, int (*parse)(struct xn_post *post, json_t *body))
{
    json_t *body = NULL;
    int r = xn_post_json(post, &body);

    if (r < 0)
        return r;
    r = parse(post, body);
    xn_body_free_json(body);
    return r;
}

/* ---- trace -------------------------------------------------------------------------------------------------------- */

static json_t *trace_json(void)
{
    return json_pack("{s:[s], s:s, s:s, s:s, s:s, s:s}", "trace_level", "OFF", "trace_rate", "1000", "trace_count",
                     "-1", "log_frequency", "0", "trace_file", "", "trace_mode", "triton");
}

/* null: back to the global setting, or the default. What is the setting already may be set. */
int xn_post_parse_trace(json_t *body, struct xn_error *error)
{
    json_t *is = trace_json(), *value;
    const char *key;
    int r = 0;

    json_object_foreach(body, key, value)
    {
        json_t *has = json_object_get(is, key);
        bool off =
            json_is_string(value) && strcmp(key, "trace_level") == 0 && strcmp(json_string_value(value), "OFF") == 0;
        if (!has)
            r = xn_error_set(error, -EINVAL, "\"%.64s\" is no trace setting", key);
        else if (!json_is_null(value) && !json_equal(value, has) && !off)
            r = xn_error_set(error, -EOPNOTSUPP,
                             "%s: tracing is not supported, so that only its present value can be set", key);
        if (r < 0)
            break;
    }
    json_decref(is);
    return r;
}

/* A setting of a model that is not there is an error, as in Triton. */
static int check_model(struct xn_http *http, const char *name, struct xn_error *error)
{
    struct xn_model *model = NULL;
    int r = name[0] ? xn_http_model(http, name, NULL, &model, error) : 0;

    if (model)
        xn_model_unref(model);
    return r;
}

enum MHD_Result xn_page_trace(struct xn_get *get)
{
    struct xn_error error;
    int r = check_model(get->http, get->segments[0], &error);

    if (r < 0)
        return xn_http_answer_error(get->http, get->connection, get->route, get->start_ns, r, &error, NULL);
    return reply(get, trace_json());
}

static int parse_trace(struct xn_post *post, json_t *body)
{
    return xn_post_parse_trace(body, &post->error);
}

enum MHD_Result xn_post_trace(struct xn_post *post)
{
    int r = check_model(post->http, post->segments[0], &post->error);

    if (r >= 0)
        r = read_body(post, parse_trace);
    return r < 0 ? xn_post_fail(post, r) : xn_post_answer(post, 200, trace_json());
}

/* ---- logging ------------------------------------------------------------------------------------------------------ */

static json_t *logging_json(enum xn_log_level level)
{
    return json_pack("{s:s, s:b, s:b, s:b, s:i, s:s}", "log_file", "", "log_info", level >= XN_LOG_INFO, "log_warning",
                     level >= XN_LOG_WARNING, "log_error", 1, "log_verbose_level", level >= XN_LOG_DEBUG ? 1 : 0,
                     "log_format", "default");
}

static int check_logging(const char *key, json_t *value, json_t *is, struct xn_error *error)
{
    json_t *has = json_object_get(is, key);
    bool flag = strcmp(key, "log_info") == 0 || strcmp(key, "log_warning") == 0;

    if (!has)
        return xn_error_set(error, -EINVAL, "\"%.64s\" is no log setting", key);
    if (flag && !json_is_boolean(value))
        return xn_error_set(error, -EINVAL, "%s: must be true or false", key);
    if (strcmp(key, "log_verbose_level") == 0)
        return json_is_integer(value) && json_integer_value(value) >= 0
                   ? 0
                   : xn_error_set(error, -EINVAL, "%s: must be a whole number from 0", key);
    if (!flag && !json_equal(value, has))
        return xn_error_set(error, -EOPNOTSUPP, "%s: cannot be changed", key);
    return 0;
}

/* What is logged of less weight is logged only with all of more: one level, where Triton has a switch for each. What is switched on brings what is above it, what is switched off
 * takes what is below it along, and off goes before on. */
int xn_post_parse_logging(json_t *body, enum xn_log_level level, enum xn_log_level *ret_level, struct xn_error *error)
{
    json_t *warning = json_object_get(body, "log_warning"), *info = json_object_get(body, "log_info");
    json_t *verbose = json_object_get(body, "log_verbose_level"), *is = logging_json(level), *value;
    const char *key;
    int r = 0;

    json_object_foreach(body, key, value)
    {
        r = check_logging(key, value, is, error);
        if (r < 0)
            break;
    }
    json_decref(is);
    if (r < 0)
        return r;
    if (verbose)
        level = json_integer_value(verbose) > 0 ? XN_LOG_DEBUG : XN_MIN(level, XN_LOG_INFO);
    if (json_is_true(info))
        level = XN_MAX(level, XN_LOG_INFO);
    if (json_is_true(warning))
        level = XN_MAX(level, XN_LOG_WARNING);
    if (json_is_false(info))
        level = XN_MIN(level, XN_LOG_WARNING);
    if (json_is_false(warning))
        level = XN_LOG_ERROR;
    *ret_level = level;
    return 0;
}

enum MHD_Result xn_page_logging(struct xn_get *get)
{
    return reply(get, logging_json(xn_log_level()));
}

static int parse_logging(struct xn_post *post, json_t *body)
{
    enum xn_log_level level;
    int r = xn_post_parse_logging(body, xn_log_level(), &level, &post->error);

    if (r >= 0)
        xn_log_set_level(level);
    return r;
}

enum MHD_Result xn_post_logging(struct xn_post *post)
{
    int r = xn_post_allowed(post);

    if (r >= 0)
        r = read_body(post, parse_logging);
    return r < 0 ? xn_post_fail(post, r) : xn_post_answer(post, 200, logging_json(xn_log_level()));
}

/* ---- CUDA shared memory ------------------------------------------------------------------------------------------- */

enum MHD_Result xn_page_cuda_status(struct xn_get *get)
{
    struct xn_error error;

    if (!get->segments[0][0])
        return reply(get, json_array());
    xn_error_set(&error, -EINVAL, "no CUDA shared memory region is called \"%.64s\"", get->segments[0]);
    return xn_http_answer_error(get->http, get->connection, get->route, get->start_ns, -EINVAL, &error, NULL);
}

/* Clients unregister everything before they begin: of nothing, that succeeds. */
enum MHD_Result xn_post_cuda_unregister(struct xn_post *post)
{
    return xn_post_answer_empty(post);
}

enum MHD_Result xn_post_cuda_register(struct xn_post *post)
{
    xn_error_set(&post->error, -EOPNOTSUPP, "CUDA shared memory is not supported");
    return xn_post_fail(post, -EOPNOTSUPP);
}
