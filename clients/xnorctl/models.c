/* SPDX-License-Identifier: Apache-2.0
 * `models`: what a server serves, from /v1/status, and what else its repository knows, from its index. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clients/xnorctl/document.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/http.h"
#include "clients/xnorctl/options.h"

#define TIMEOUT_MS 10000

static json_int_t number_of(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_model(struct xn_table *t, json_t *m)
{
    json_t *shape = json_object_get(m, "input_shape"), *on = json_object_get(m, "instances"), *name;
    char instances[256] = "";
    size_t i;

    json_array_foreach(on, i, name)
    {
        size_t used = strlen(instances);
        snprintf(instances + used, sizeof(instances) - used, "%s%s", i ? "," : "", json_string_value(name));
    }
    xn_table_cell(t, "%s%s", xn_document_text(m, "name"), json_is_true(json_object_get(m, "default")) ? " *" : "");
    xn_table_cell(t, "%s", xn_document_text(m, "version"));
    xn_table_cell(t, "%dx%dx%d", (int)json_integer_value(json_array_get(shape, 0)),
                  (int)json_integer_value(json_array_get(shape, 1)), (int)json_integer_value(json_array_get(shape, 2)));
    xn_table_cell(t, "%d", (int)number_of(m, "classes"));
    xn_table_cell(t, "%s", xn_words_count((double)number_of(m, "binary_macs")).text);
    xn_table_cell(t, "%s", xn_words_count((double)number_of(m, "int8_macs")).text);
    xn_table_cell(t, "%d", (int)number_of(m, "max_batch"));
    xn_table_cell(t, "%s", xn_words_ns(1e3 * (double)number_of(m, "max_delay_us")).text);
    xn_table_cell(t, "%" JSON_INTEGER_FORMAT, number_of(m, "inferences"));
    xn_table_cell(t, "%s", instances);
    xn_table_cell(t, "%.12s", xn_document_text(m, "sha256"));
}

/* State and reason of each model; those that are not served are added. */
static void add_index(json_t *models, json_t *index)
{
    json_t *row;
    size_t i;

    json_array_foreach(index, i, row)
    {
        json_t *model = xn_document_find(models, row);
        if (model)
            json_object_update_missing(model, row);
        else
            json_array_append(models, row);
    }
}

static int get_index(struct xn_client *client, json_t **ret_index, struct xn_error *error)
{
    static const char path[] = "/v2/repository/index";
    char reason[XN_ERROR_TEXT_BYTES];
    struct xn_reply reply;
    int r = xn_client_post(client, path, "application/json", "", 0, &reply, error);

    if (r < 0)
        return r;
    json_t *index = reply.status == 200 ? json_loadb(reply.body, reply.bytes, 0, NULL) : NULL;
    if (!index) {
        xn_reply_reason(reply.status, reply.body, reply.bytes, reason);
        r = xn_error_set(error, -EBADMSG, "%s: %s", path, reason);
    }
    xn_reply_done(&reply);
    *ret_index = index;
    return r;
}

/* Those that are not served, and newer files that were not taken. */
static void print_states(json_t *models)
{
    struct xn_table *t = xn_table_new("llll");
    bool any = false;
    json_t *m;
    size_t i;

    json_array_foreach(models, i, m)
    {
        const char *reason = json_string_value(json_object_get(m, "reason"));
        if (!reason && strcmp(xn_document_text(m, "state"), "READY") == 0)
            continue;
        if (!any)
            putchar('\n');
        any = true;
        xn_table_cell(t, "%s", xn_document_text(m, "name"));
        xn_table_cell(t, "%s", json_object_get(m, "version") ? xn_document_text(m, "version") : "");
        xn_table_cell(t, "%s", xn_document_text(m, "state"));
        xn_table_cell(t, "%s", reason ? reason : "");
    }
    xn_table_end(t, stdout, 0);
}

static void print_models(json_t *models)
{
    static const char *const heading[] = {"MODEL",     "VERSION",   "INPUT",  "CLASSES",   "BINARY MAC", "OTHER MAC",
                                          "MAX BATCH", "MAX DELAY", "IMAGES", "INSTANCES", "SHA-256"};
    struct xn_table *t = xn_table_new("lllrrrrrrll");
    json_t *model;
    size_t i;

    for (i = 0; i < XN_ARRAY_LEN(heading); i++)
        xn_table_cell(t, "%s", heading[i]);
    json_array_foreach(models, i, model)
    {
        if (json_object_get(model, "sha256"))
            print_model(t, model);
    }
    xn_table_end(t, stdout, 0);
    puts("* answers where no model is named");
    print_states(models);
}

int xn_ctl_models(struct xn_ctl *ctl, int argc, char **argv)
{
    const struct xn_opt_about about = {"",
                                       "List the models that a server has, and those that its repository knows and "
                                       "that are not served, with the reason.",
                                       NULL, false};
    struct xn_client *client = NULL;
    struct xn_error error;
    json_t *status = NULL, *index = NULL;
    char **operands;

    if (xn_opt_parse(ctl, &about, NULL, 0, argc, argv, &operands) > 0)
        xn_opt_usage(ctl, "takes no arguments besides options");
    int r = xn_client_new(ctl, TIMEOUT_MS, &client, &error);
    if (r >= 0)
        r = xn_client_get_json(client, "/v1/status", &status, &error);
    if (r >= 0)
        r = get_index(client, &index, &error);
    if (r >= 0)
        add_index(json_object_get(status, "models"), index);
    if (r >= 0 && ctl->json) {
        json_dumpf(json_object_get(status, "models"), stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (r >= 0) {
        print_models(json_object_get(status, "models"));
    }
    xn_client_free(client);
    json_decref(status);
    json_decref(index);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}
