/* SPDX-License-Identifier: Apache-2.0
 * `load`, `unload`, `log`: what changes a running server. It must allow it, see repository.control in xnord.json(5). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "clients/xnorctl/http.h"
#include "clients/xnorctl/options.h"
#include "common/log.h"

#define TIMEOUT_MS 600000 /* a card may take long to load a model */

static void *require(void *memory, struct xn_ctl *ctl)
{
    if (!memory)
        exit(xn_ctl_failf(ctl, "no memory"));
    return memory;
}

/* POST `body` (JSON, taken over) and check that the answer is 200. *ret_body: the answer, malloc'ed. */
static int post(struct xn_ctl *ctl, const char *path, json_t *body, char **ret_body, struct xn_error *error)
{
    struct xn_client *client = NULL;
    struct xn_reply reply = {0};
    char reason[XN_ERROR_TEXT_BYTES];
    char *text = require(json_dumps(require(body, ctl), JSON_COMPACT), ctl);
    int r = xn_client_new(ctl, TIMEOUT_MS, &client, error);

    if (r >= 0)
        r = xn_client_post(client, path, "application/json", text, strlen(text), &reply, error);
    if (r >= 0 && reply.status != 200) {
        xn_reply_reason(reply.status, reply.body, reply.bytes, reason);
        r = xn_error_set(error, -EPROTO, "%s", reason);
    }
    if (r >= 0) {
        *ret_body = reply.body;
        reply.body = NULL;
    }
    json_decref(body);
    free(text);
    xn_reply_done(&reply);
    xn_client_free(client);
    return r;
}

/* "/v2/repository/models/NAME/VERB", the name escaped. Owner: caller. */
static char *model_path(struct xn_ctl *ctl, const char *name, const char *verb)
{
    static const char before[] = "/v2/repository/models/";
    char *escaped = require(curl_easy_escape(NULL, name, 0), ctl);
    size_t bytes = sizeof(before) + strlen(escaped) + 1 + strlen(verb);
    char *path = xn_ctl_alloc(1, bytes);

    snprintf(path, bytes, "%s%s/%s", before, escaped, verb);
    curl_free(escaped);
    return path;
}

/* One model after the other; the first that fails ends it. */
static int change_models(struct xn_ctl *ctl, char **names, int n, const char *verb, const char *config)
{
    struct xn_error error;
    json_t *changed = json_array();
    int r = 0;

    for (int i = 0; r >= 0 && i < n; i++) {
        char *path = model_path(ctl, names[i], verb), *answer = NULL;
        r = post(ctl, path, config ? json_pack("{s:{s:s}}", "parameters", "config", config) : json_object(), &answer,
                 &error);
        free(path);
        free(answer);
        if (r >= 0 && ctl->json)
            json_array_append_new(changed, json_pack("{s:s, s:s}", "name", names[i], "done", verb));
        else if (r >= 0)
            printf("%s: %sed\n", names[i], verb);
    }
    if (ctl->json && r >= 0) {
        json_dumpf(changed, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(changed);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}

int xn_ctl_load(struct xn_ctl *ctl, int argc, char **argv)
{
    const char *config = NULL;
    const struct xn_opt opts[] = {
        {"config", 'c', XN_OPT_TEXT, &config, 0, 0, "JSON",
         "settings until the next load, as Triton has them, such as\n{\"max_batch_size\": 8}"},
    };
    const struct xn_opt_about about = {
        "MODEL...", "Load models anew from the server's repository or configuration.",
        "What is served of a model is replaced in one step; where its file is bad it stays. The server must allow it:\n"
        "repository.control in xnord.json(5).",
        false};
    char **operands;
    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &operands);

    if (n == 0)
        xn_opt_usage(ctl, "which model?");
    return change_models(ctl, operands, n, "load", config);
}

int xn_ctl_unload(struct xn_ctl *ctl, int argc, char **argv)
{
    const struct xn_opt_about about = {"MODEL...",
                                       "End the service of models, all versions, until they are loaded again.",
                                       "The server must allow it: repository.control in xnord.json(5).", false};
    char **operands;
    int n = xn_opt_parse(ctl, &about, NULL, 0, argc, argv, &operands);

    if (n == 0)
        xn_opt_usage(ctl, "which model?");
    return change_models(ctl, operands, n, "unload", NULL);
}

/* ---- log ---------------------------------------------------------------------------------------------------------- */

static json_t *settings_of(enum xn_log_level level)
{
    return json_pack("{s:b, s:b, s:i}", "log_warning", level >= XN_LOG_WARNING, "log_info", level >= XN_LOG_INFO,
                     "log_verbose_level", level >= XN_LOG_DEBUG ? 1 : 0);
}

static const char *level_of(json_t *settings)
{
    enum xn_log_level level = XN_LOG_ERROR;

    if (json_integer_value(json_object_get(settings, "log_verbose_level")) > 0)
        level = XN_LOG_DEBUG;
    else if (json_is_true(json_object_get(settings, "log_info")))
        level = XN_LOG_INFO;
    else if (json_is_true(json_object_get(settings, "log_warning")))
        level = XN_LOG_WARNING;
    return xn_log_level_name(level);
}

static int get_settings(struct xn_ctl *ctl, json_t **ret_settings, struct xn_error *error)
{
    struct xn_client *client = NULL;
    int r = xn_client_new(ctl, TIMEOUT_MS, &client, error);

    if (r >= 0)
        r = xn_client_get_json(client, "/v2/logging", ret_settings, error);
    xn_client_free(client);
    return r;
}

static int set_level(struct xn_ctl *ctl, enum xn_log_level level, json_t **ret_settings, struct xn_error *error)
{
    char *answer = NULL;
    int r = post(ctl, "/v2/logging", settings_of(level), &answer, error);

    if (r < 0)
        return r;
    *ret_settings = json_loads(answer, 0, NULL);
    free(answer);
    return *ret_settings ? 0 : xn_error_set(error, -EBADMSG, "%s/v2/logging did not answer JSON", ctl->url);
}

int xn_ctl_log(struct xn_ctl *ctl, int argc, char **argv)
{
    const struct xn_opt_about about = {
        "[LEVEL]", "Show the server's log level, or set it until its next reload: error, warning, info or debug.",
        "To set it the server must allow it: repository.control in xnord.json(5).", false};
    enum xn_log_level level;
    json_t *settings = NULL;
    struct xn_error error;
    char **operands;
    int n = xn_opt_parse(ctl, &about, NULL, 0, argc, argv, &operands), r;

    if (n > 1)
        xn_opt_usage(ctl, "takes one level");
    if (n == 1 && xn_log_level_parse(operands[0], &level) < 0)
        xn_opt_usage(ctl, "the level must be error, warning, info or debug, is \"%.32s\"", operands[0]);
    r = n == 1 ? set_level(ctl, level, &settings, &error) : get_settings(ctl, &settings, &error);
    if (r < 0)
        return xn_ctl_fail(ctl, &error);
    if (ctl->json)
        printf("{\"level\": \"%s\"}\n", level_of(settings));
    else
        puts(level_of(settings));
    json_decref(settings);
    return XN_CTL_OK;
}
