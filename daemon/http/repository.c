/* SPDX-License-Identifier: Apache-2.0
 * The model repository extension of the protocol: index, load, unload. Loads are done by the repository's thread; their connection is suspended meanwhile. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "daemon/http/internal.h"

/* ---- index -------------------------------------------------------------------------------------------------------- */

int xn_post_parse_index(json_t *body, bool *ret_ready, struct xn_error *error)
{
    const char *key;
    json_t *value;

    *ret_ready = false;
    json_object_foreach(body, key, value)
    {
        if (strcmp(key, "ready") != 0)
            continue; /* Triton's repository_name: there is one repository */
        if (!json_is_boolean(value))
            return xn_error_set(error, -EINVAL, "ready: must be true or false");
        *ret_ready = json_is_true(value);
    }
    return 0;
}

static json_t *row_json(const struct xn_repository_row *row)
{
    static const char *const states[] = {"READY", "LOADING", "UNLOADING", "UNAVAILABLE"};
    json_t *object = json_pack("{s:s, s:s}", "name", row->model.name, "state", states[row->model.state]);

    if (row->model.version[0])
        json_object_set_new(object, "version", json_string(row->model.version));
    if (row->reason[0])
        json_object_set_new(object, "reason", json_string(row->reason));
    return object;
}

enum MHD_Result xn_post_index(struct xn_post *post)
{
    struct xn_repository_row *rows;
    uint32_t n;
    json_t *body = NULL;
    bool ready = false;
    int r = xn_post_json(post, &body);

    if (r < 0)
        return xn_post_fail(post, r);
    r = xn_post_parse_index(body, &ready, &post->error);
    xn_body_free_json(body);
    if (r >= 0 && xn_repository_index(post->http->next.repository, &rows, &n) < 0)
        r = xn_error_set(&post->error, -ENOMEM, "no memory for the index");
    if (r < 0)
        return xn_post_fail(post, r);
    json_t *index = json_array();
    for (uint32_t i = 0; i < n; i++) {
        if (!ready || rows[i].model.state == XN_MODEL_READY)
            json_array_append_new(index, row_json(&rows[i]));
    }
    free(rows);
    return xn_post_answer(post, 200, index);
}

/* ---- load, unload ------------------------------------------------------------------------------------------------- */

int xn_post_parse_load(json_t *body, char **ret_config, struct xn_error *error)
{
    json_t *parameters = json_object_get(body, "parameters"), *value;
    const char *key;

    *ret_config = NULL;
    if (parameters && !json_is_object(parameters))
        return xn_error_set(error, -EINVAL, "parameters: must be an object");
    json_object_foreach(parameters, key, value)
    {
        if (strncmp(key, "file:", 5) == 0)
            return xn_error_set(error, -EOPNOTSUPP,
                                "parameters: a model's file cannot come with the request; put it into the repository");
    }
    value = json_object_get(parameters, "config");
    if (!value)
        return 0;
    if (!json_is_string(value))
        return xn_error_set(error, -EINVAL, "parameters.config: must be a string, with JSON in it");
    *ret_config = xn_strdup(json_string_value(value));
    return *ret_config ? 0 : xn_error_set(error, -ENOMEM, "no memory");
}

static enum MHD_Result answer_done(struct xn_post *post)
{
    return post->status < 0 ? xn_post_fail(post, post->status) : xn_post_answer_empty(post);
}

static void repository_done(void *user, int status, const struct xn_error *error)
{
    xn_post_resume(user, status, error);
}

/* A name that no model can have does not get as far as the repository. */
static int check_name(struct xn_post *post)
{
    const char *name = post->segments[0];

    if (xn_config_is_name(name))
        return 0;
    return xn_error_set(&post->error, -ENOENT, "no model is called \"%.64s\" in the repository or the configuration",
                        name);
}

/* Not taken, so nobody resumes but us. */
static void resume_refused(struct xn_post *post, int r)
{
    struct xn_error error;

    if (r == -EAGAIN)
        xn_error_set(&error, r, "%u loads wait already; try again later", XN_REPOSITORY_JOBS_MAX);
    else
        xn_error_set(&error, r, "the server is stopping");
    xn_post_resume(post, r, &error);
}

static int read_load(struct xn_post *post, char **ret_config)
{
    json_t *body = NULL;
    int r = xn_post_json(post, &body);

    if (r < 0)
        return r;
    r = xn_post_parse_load(body, ret_config, &post->error);
    xn_body_free_json(body);
    return r;
}

enum MHD_Result xn_post_load(struct xn_post *post)
{
    char *config = NULL;
    int r = xn_post_allowed(post);

    if (r >= 0)
        r = check_name(post);
    if (r >= 0)
        r = read_load(post, &config);
    if (r < 0)
        return xn_post_fail(post, r);
    xn_post_suspend(post, answer_done);
    r = xn_repository_load(post->http->next.repository, post->segments[0], config, repository_done, post);
    if (r < 0)
        resume_refused(post, r);
    return MHD_YES;
}

/* The body may say parameters.unload_dependents: no model here has any. */
enum MHD_Result xn_post_unload(struct xn_post *post)
{
    int r = xn_post_allowed(post);

    if (r >= 0)
        r = check_name(post);
    if (r < 0)
        return xn_post_fail(post, r);
    xn_post_suspend(post, answer_done);
    r = xn_repository_unload(post->http->next.repository, post->segments[0], repository_done, post);
    if (r < 0)
        resume_refused(post, r);
    return MHD_YES;
}
