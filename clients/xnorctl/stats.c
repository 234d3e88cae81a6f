/* SPDX-License-Identifier: Apache-2.0
 * `stats`: what a server has counted of its models, from /v2/models/stats, as means for each request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "clients/xnorctl/format.h"
#include "clients/xnorctl/http.h"
#include "clients/xnorctl/options.h"

#define TIMEOUT_MS 10000

static json_int_t number_of(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_mean(struct xn_table *t, json_t *stats, const char *key)
{
    json_t *count = json_object_get(stats, key);
    json_int_t n = number_of(count, "count");

    if (n > 0)
        xn_table_cell(t, "%s", xn_words_ns((double)number_of(count, "ns") / (double)n).text);
    else
        xn_table_cell(t, "-");
}

static void print_entry(struct xn_table *t, json_t *entry)
{
    static const char *const means[] = {"success", "compute_input", "queue", "compute_infer", "compute_output"};
    json_t *stats = json_object_get(entry, "inference_stats");
    json_int_t images = number_of(entry, "inference_count"), batches = number_of(entry, "execution_count");
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *version = json_string_value(json_object_get(entry, "version"));

    xn_table_cell(t, "%s", name ? name : "?");
    xn_table_cell(t, "%s", version ? version : "?");
    xn_table_cell(t, "%" JSON_INTEGER_FORMAT, number_of(json_object_get(stats, "success"), "count"));
    xn_table_cell(t, "%" JSON_INTEGER_FORMAT, number_of(json_object_get(stats, "fail"), "count"));
    xn_table_cell(t, "%" JSON_INTEGER_FORMAT, images);
    xn_table_cell(t, "%.2f", batches > 0 ? (double)images / (double)batches : 0);
    for (size_t i = 0; i < XN_ARRAY_LEN(means); i++)
        print_mean(t, stats, means[i]);
}

static void print_stats(json_t *all)
{
    static const char *const heading[] = {"MODEL", "VERSION", "ANSWERED", "FAILED", "IMAGES", "MEAN BATCH",
                                          "TIME",  "INPUT",   "QUEUE",    "RUN",    "OUTPUT"};
    struct xn_table *t = xn_table_new("llrrrrrrrrr");
    json_t *entry;
    size_t i;

    for (i = 0; i < XN_ARRAY_LEN(heading); i++)
        xn_table_cell(t, "%s", heading[i]);
    json_array_foreach(all, i, entry) print_entry(t, entry);
    xn_table_end(t, stdout, 0);
}

/* Owner: caller. */
static char *path_of(const char *model)
{
    char *escaped = model ? curl_easy_escape(NULL, model, 0) : NULL;
    size_t bytes = sizeof("/v2/models//stats") + (escaped ? strlen(escaped) : 0);
    char *path = xn_ctl_alloc(1, bytes);

    snprintf(path, bytes, "/v2/models/%s%sstats", escaped ? escaped : "", escaped ? "/" : "");
    curl_free(escaped);
    return path;
}

int xn_ctl_stats(struct xn_ctl *ctl, int argc, char **argv)
{
    const struct xn_opt_about about = {
        "[MODEL]",
        "Show what a server has counted of its models, or of one: requests, images, and mean times of a request.", NULL,
        false};
    struct xn_client *client = NULL;
    struct xn_error error;
    json_t *answer = NULL;
    char **operands;
    int n = xn_opt_parse(ctl, &about, NULL, 0, argc, argv, &operands);

    if (n > 1)
        xn_opt_usage(ctl, "takes one model");
    char *path = path_of(n == 1 ? operands[0] : NULL);
    int r = xn_client_new(ctl, TIMEOUT_MS, &client, &error);
    if (r >= 0)
        r = xn_client_get_json(client, path, &answer, &error);
    if (r >= 0 && ctl->json) {
        json_dumpf(json_object_get(answer, "model_stats"), stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (r >= 0) {
        print_stats(json_object_get(answer, "model_stats"));
    }
    free(path);
    xn_client_free(client);
    json_decref(answer);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}
