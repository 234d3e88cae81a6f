/* SPDX-License-Identifier: Apache-2.0
 * `infer`: classify files. Each is a request of its own, so that one that is refused costs the others nothing; with --together they are
 * one request, and ride in one batch. A raw tensor file may hold several tensors and gives several results. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/xnorctl/format.h"
#include "clients/xnorctl/http.h"
#include "clients/xnorctl/options.h"

#define FILE_BYTES_MAX   (1u << 30)
#define TIMEOUT_MS       600000
#define TIMEOUT_SLACK_MS 10000

struct options {
    const char *model;
    uint64_t top_k, timeout_ms;
    bool together;
};

struct infer {
    const struct options *options;
    struct xn_ctl *ctl;
    struct xn_client *client;
    char *path;
    json_t *results;  /* of the server's entries, each with its file */
    json_t *failures; /* {file, error} */
    json_t *model, *version;
};

static void add_failure(struct infer *infer, const char *file, const char *why)
{
    bool named = *file == '\0' || strncmp(why, file, strlen(file)) == 0;
    json_t *failure = json_pack("{s:s, s:s}", "file", file, "error", why);

    if (!failure) /* a name that is not UTF-8 */
        failure = json_pack("{s:s, s:s}", "file", "?", "error", "see standard error");
    json_array_append_new(infer->failures, failure);
    fprintf(stderr, "xnorctl infer: %s%s", named ? "" : file, named ? "" : ": ");
    xn_put_safe(stderr, why);
    fputc('\n', stderr);
}

/* The answer of one request; result i is of file i, or all are of the one file. */
static void take_answer(struct infer *infer, char **files, size_t n, const struct xn_reply *reply)
{
    char reason[XN_ERROR_TEXT_BYTES];
    const char *name = n == 1 ? files[0] : "";
    json_t *answer = json_loadb(reply->body, reply->bytes, 0, NULL), *entries = json_object_get(answer, "results"),
           *entry;
    size_t i;

    if (reply->status != 200 || !json_is_array(entries)) {
        xn_reply_reason(reply->status, reply->body, reply->bytes, reason);
        add_failure(infer, name, reason);
        json_decref(answer);
        return;
    }
    json_array_foreach(entries, i, entry)
    {
        const char *file = n == 1 ? name : i < n ? files[i] : "?";
        json_t *result = json_pack("{s:s}", "file", file);
        if (!result) /* a name that is not UTF-8 */
            result = json_pack("{s:s}", "file", "?");
        if (n == 1 && json_array_size(entries) > 1)
            json_object_set_new(result, "index", json_integer((json_int_t)i));
        json_object_update(result, entry);
        json_object_set(result, "request_timings_us", json_object_get(answer, "timings_us"));
        json_array_append_new(infer->results, result);
    }
    json_decref(infer->model);
    json_decref(infer->version);
    infer->model = json_incref(json_object_get(answer, "model"));
    infer->version = json_incref(json_object_get(answer, "version"));
    json_decref(answer);
}

/* Returns a negative errno where it makes no sense to go on. */
static int ask(struct infer *infer, char **files, size_t n, const char *content_type, const void *body, size_t bytes)
{
    struct xn_reply reply;
    struct xn_error error;
    int r = xn_client_post(infer->client, infer->path, content_type, body, bytes, &reply, &error);

    if (r < 0) {
        add_failure(infer, n == 1 ? files[0] : "", error.text);
        return r == -ECONNREFUSED || r == -EHOSTUNREACH ? r : 0;
    }
    take_answer(infer, files, n, &reply);
    xn_reply_done(&reply);
    return 0;
}

static void each_alone(struct infer *infer, char **files, size_t n)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n; i++) {
        struct xn_error error;
        uint8_t *data;
        size_t bytes;
        if (xn_file_read(files[i], FILE_BYTES_MAX, &data, &bytes, &error) < 0) {
            add_failure(infer, files[i], error.text);
            continue;
        }
        r = ask(infer, &files[i], 1, "application/octet-stream", data, bytes);
        free(data);
    }
}

static void all_together(struct infer *infer, char **files, size_t n)
{
    struct xn_piece *pieces = xn_ctl_alloc(n, sizeof(*pieces));
    struct xn_error error;
    size_t bytes, total = 0;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n; i++) {
        uint8_t *data;
        r = xn_file_read(files[i], FILE_BYTES_MAX - total, &data, &pieces[i].bytes, &error);
        if (r >= 0) {
            pieces[i].data = data;
            total += pieces[i].bytes;
        }
    }
    if (r < 0) {
        add_failure(infer, "", error.text);
    } else {
        uint8_t *body = xn_multipart_body(pieces, n, &bytes);
        (void)ask(infer, files, n, XN_MULTIPART_CONTENT_TYPE, body, bytes);
        free(body);
    }
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)pieces[i].data);
    free(pieces);
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

struct columns {
    bool decode, energy;
};

static void cell_us(struct xn_table *t, json_t *timings, const char *key)
{
    json_t *us = json_object_get(timings, key);

    if (json_is_integer(us))
        xn_table_cell(t, "%s", us ? xn_words_ns(1e3 * (double)json_integer_value(us)).text : "");
    else
        xn_table_cell(t, "-");
}

static void cell_class(struct xn_table *t, json_t *entry)
{
    const char *label = json_string_value(json_object_get(entry, "label"));

    if (label)
        xn_table_cell(t, "%s", label);
    else
        xn_table_cell(t, "class %d", (int)json_integer_value(json_object_get(entry, "class")));
    xn_table_cell(t, "%.1f %%", 100 * json_number_value(json_object_get(entry, "score")));
}

/* The next best classes, under their picture. */
static void print_top(struct xn_table *t, json_t *result, size_t blanks)
{
    json_t *top = json_object_get(result, "top");

    for (size_t i = 1; i < json_array_size(top); i++) {
        xn_table_cell(t, "%s", "");
        cell_class(t, json_array_get(top, i));
        for (size_t k = 0; k < blanks; k++)
            xn_table_cell(t, "%s", "");
    }
}

static void print_result(struct xn_table *t, json_t *result, struct columns columns)
{
    json_t *timings = json_object_get(result, "timings_us"), *request = json_object_get(result, "request_timings_us");
    json_t *index = json_object_get(result, "index"), *energy = json_object_get(result, "energy_j");
    const char *file = json_string_value(json_object_get(result, "file"));
    const char *instance = json_string_value(json_object_get(result, "instance"));
    const char *source = json_string_value(json_object_get(result, "energy_source"));

    if (index)
        xn_table_cell(t, "%s#%d", file, (int)json_integer_value(index));
    else
        xn_table_cell(t, "%s", file);
    cell_class(t, result);
    if (columns.decode)
        cell_us(t, timings, "decode");
    cell_us(t, timings, "queue");
    cell_us(t, timings, "execute");
    cell_us(t, request, "total");
    xn_table_cell(t, "%s", instance ? instance : "?");
    xn_table_cell(t, "%d", (int)json_integer_value(json_object_get(result, "batch_size")));
    if (columns.energy && json_is_number(energy))
        xn_table_cell(t, "%s%s", source && strcmp(source, "sensor") != 0 ? "~" : "",
                      xn_words_joules(json_number_value(energy)).text);
    else if (columns.energy)
        xn_table_cell(t, "-");
    print_top(t, result, 5u + columns.decode + columns.energy);
}

static void print_table(const struct infer *infer)
{
    struct columns columns = {false, false};
    bool estimated = false, simulated = false;
    json_t *result;
    size_t i;

    json_array_foreach(infer->results, i, result)
    {
        const char *source = json_string_value(json_object_get(result, "energy_source"));
        columns.decode |= json_object_get(json_object_get(result, "timings_us"), "decode") != NULL;
        columns.energy |= json_object_get(result, "energy_j") != NULL;
        estimated |= source && strcmp(source, "estimate") == 0;
        simulated |= source && strcmp(source, "simulated") == 0;
    }
    char alignment[16];
    snprintf(alignment, sizeof(alignment), "llr%srrrlr%s", columns.decode ? "r" : "", columns.energy ? "r" : "");
    struct xn_table *t = xn_table_new(alignment);
    xn_table_cell(t, "FILE");
    xn_table_cell(t, "LABEL");
    xn_table_cell(t, "SCORE");
    if (columns.decode)
        xn_table_cell(t, "DECODE");
    xn_table_cell(t, "QUEUE");
    xn_table_cell(t, "EXECUTE");
    xn_table_cell(t, "TOTAL");
    xn_table_cell(t, "INSTANCE");
    xn_table_cell(t, "BATCH");
    if (columns.energy)
        xn_table_cell(t, "ENERGY");
    json_array_foreach(infer->results, i, result) print_result(t, result, columns);
    xn_table_end(t, stdout, 0);
    if (estimated)
        puts("~ an estimate from declared watts, not measured");
    if (simulated)
        puts("~ of a simulated card, not measured");
}

static void print_json(const struct infer *infer)
{
    json_t *root = json_pack("{s:O?, s:O?, s:O, s:O}", "model", infer->model, "version", infer->version, "results",
                             infer->results, "failures", infer->failures);

    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

int xn_ctl_infer(struct xn_ctl *ctl, int argc, char **argv)
{
    struct options o = {.top_k = 1};
    const struct xn_opt opts[] = {
        {"model", 'm', XN_OPT_TEXT, &o.model, 0, 0, "NAME", "model to ask (default: the server's default)"},
        {"top-k", 'k', XN_OPT_U64, &o.top_k, 1, 1000, "K", "show the K best classes (default 1)"},
        {"timeout-ms", 't', XN_OPT_U64, &o.timeout_ms, 1, 600000, "MS", "deadline that the server is asked to keep"},
        {"together", 0, XN_OPT_FLAG, &o.together, 0, 0, NULL, "all files in one request (default: one request each)"},
    };
    const struct xn_opt_about about = {
        "FILE...",
        "Classify JPEGs, PNGs or raw tensors; - is standard input. A file may hold several tensors, one after another.",
        "Exit status: 0 all classified, 1 some were not, 2 wrong command line.", false};
    struct infer infer = {.options = &o, .ctl = ctl};
    struct xn_error error;
    char **files;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &files);
    if (n == 0)
        xn_opt_usage(ctl, "no FILE given");
    int r = xn_client_new(ctl, o.timeout_ms ? o.timeout_ms + TIMEOUT_SLACK_MS : TIMEOUT_MS, &infer.client, &error);
    if (r < 0)
        return xn_ctl_fail(ctl, &error);
    infer.path = xn_infer_path(o.model, o.top_k > 1 ? o.top_k : 0, o.timeout_ms);
    infer.results = json_array();
    infer.failures = json_array();
    if (o.together && n > 1)
        all_together(&infer, files, (size_t)n);
    else
        each_alone(&infer, files, (size_t)n);
    if (ctl->json)
        print_json(&infer);
    else if (json_array_size(infer.results) > 0)
        print_table(&infer);
    int status = json_array_size(infer.failures) > 0 ? XN_CTL_FAILED : XN_CTL_OK;
    json_decref(infer.results);
    json_decref(infer.failures);
    json_decref(infer.model);
    json_decref(infer.version);
    xn_client_free(infer.client);
    free(infer.path);
    return status;
}
