/* SPDX-License-Identifier: Apache-2.0
 * Everything that is read with GET: health, metrics, status, the server's part of the Open Inference Protocol, and a plain page for people. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http/internal.h"

static enum MHD_Result reply(struct xn_get *get, unsigned code, const char *content_type, const void *body,
                             size_t bytes, enum xn_body_life life)
{
    struct xn_answer answer = {.code = code, .content_type = content_type, .no_store = true, .may_compress = true};

    return xn_http_answer(get->http, get->connection, get->route, get->start_ns, &answer, body, bytes, life);
}

static enum MHD_Result reply_json(struct xn_get *get, unsigned code, json_t *value)
{
    return xn_http_answer_json(get->http, get->connection, get->route, get->start_ns, code, value);
}

/* ---- health ------------------------------------------------------------------------------------------------------- */

enum MHD_Result xn_page_healthz(struct xn_get *get)
{
    return reply(get, 200, "text/plain; charset=utf-8", "ok\n", 3, XN_BODY_STAYS);
}

enum MHD_Result xn_page_readyz(struct xn_get *get)
{
    if (get->http->next.ready(get->http->next.user))
        return reply(get, 200, "text/plain; charset=utf-8", "ready\n", 6, XN_BODY_STAYS);
    return reply(get, 503, "text/plain; charset=utf-8", "not ready\n", 10, XN_BODY_STAYS);
}

enum MHD_Result xn_page_v2_live(struct xn_get *get)
{
    return reply_json(get, 200, json_pack("{s:b}", "live", 1));
}

enum MHD_Result xn_page_v2_ready(struct xn_get *get)
{
    bool ready = get->http->next.ready(get->http->next.user);

    return reply_json(get, ready ? 200 : 503, json_pack("{s:b}", "ready", ready));
}

/* ---- metrics, status ---------------------------------------------------------------------------------------------- */

enum MHD_Result xn_page_metrics(struct xn_get *get)
{
    char *text;
    size_t bytes;

    if (xn_metrics_render(get->http->next.metrics, &text, &bytes) < 0)
        return MHD_NO;
    return reply(get, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes, XN_BODY_OWNED);
}

enum MHD_Result xn_page_status(struct xn_get *get)
{
    char *text = get->http->next.status_json(get->http->next.user);

    return text ? reply(get, 200, "application/json", text, strlen(text), XN_BODY_OWNED) : MHD_NO;
}

/* ---- Open Inference Protocol -------------------------------------------------------------------------------------- */

enum MHD_Result xn_page_v2(struct xn_get *get)
{
    static const char *const extensions[] = {
        "binary_tensor_data", "classification", "system_shared_memory", "model_repository", "model_configuration",
        "statistics",         "logging"};
    const struct xn_config *config = get->http->config;
    bool shares = config->shared_memory != XN_SHARED_OFF && config->limits.shared_regions > 0;
    json_t *names = json_array();

    for (size_t i = 0; i < XN_ARRAY_LEN(extensions); i++) {
        if (shares || strcmp(extensions[i], "system_shared_memory") != 0)
            json_array_append_new(names, json_string(extensions[i]));
    }
    return reply_json(get, 200,
                      json_pack("{s:s, s:s, s:o}", "name", "xnord", "version", XN_VERSION, "extensions", names));
}

/* ---- index -------------------------------------------------------------------------------------------------------- */

static void write_escaped(FILE *to, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            fputs("&lt;", to);
        else if (*s == '&')
            fputs("&amp;", to);
        else
            fputc(*s, to);
    }
}

static void write_model(FILE *to, const struct xn_model *model, bool is_default)
{
    const struct xn_network *n = model->network;

    fprintf(
        to,
        "<tr><td><a href=\"/v2/models/%s\">%s</a>%s</td><td>%s</td><td>%u&times;%u&times;%u</td><td>%u</td><td>%.1f / "
        "%.1f</td><td>",
        model->name, model->name, is_default ? " (default)" : "", model->version, n->input.h, n->input.w,
        n->input.channels, n->n_classes, (double)n->binary_macs / 1e6, (double)n->int8_macs / 1e6);
    write_escaped(to, n->description);
    fputs("</td></tr>\n", to);
}

static void write_index(FILE *to, struct xn_http *http)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(http->next.models, models, XN_CONFIG_MODELS_MAX);

    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>xnord</title>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#123}"
          "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3em .6em;border-bottom:1px solid "
          "#ccd}"
          "pre{background:#eef4fa;padding:.8em;overflow:auto}</style></head><body>\n"
          "<h1>xnord " XN_VERSION "</h1>\n<p>Inference server for binary neural networks.</p>\n"
          "<h2>Models</h2>\n<table><tr><th>name</th><th>version</th><th>input</th><th>classes</th><th>binary / other "
          "MMAC</th>"
          "<th></th></tr>\n",
          to);
    for (uint32_t i = 0; i < n; i++) {
        write_model(to, models[i], i == 0);
        xn_model_unref(models[i]);
    }
    fputs("</table>\n<h2>Instances</h2>\n<table><tr><th>name</th><th>kind</th><th>device</th><th>geometry</th></tr>\n",
          to);
    for (uint32_t i = 0; i < http->next.instances->n; i++) {
        const struct xn_accel_info *info = xn_accel_info(http->next.instances->accel[i]);
        fprintf(to, "<tr><td>%s</td><td>%s</td><td>", info->name, info->kind);
        write_escaped(to, info->device);
        fprintf(to, "</td><td>%s</td></tr>\n", info->geometry);
    }
    fputs("</table>\n<h2>Ask</h2>\n<pre>curl --data-binary @picture.jpg http://HOST:PORT/infer</pre>\n"
          "<p><a href=\"/metrics\">/metrics</a> <a href=\"/v1/status\">/v1/status</a> <a href=\"/v2\">/v2</a> "
          "<a href=\"/readyz\">/readyz</a> <a href=\"/healthz\">/healthz</a></p>\n</body></html>\n",
          to);
}

enum MHD_Result xn_page_index(struct xn_get *get)
{
    char *page = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&page, &bytes);

    if (!to)
        return MHD_NO;
    write_index(to, get->http);
    if (fclose(to) != 0) {
        free(page);
        return MHD_NO;
    }
    return reply(get, 200, "text/html; charset=utf-8", page, bytes, XN_BODY_OWNED);
}
