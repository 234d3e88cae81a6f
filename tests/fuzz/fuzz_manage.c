/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as the body of a request that manages the server, or as the configuration of a model. Byte 0 chooses:
 *
 *     0 repository index   1 load   2 trace settings   3 log settings (bits 4..5: the level before)   4 a model's configuration: config.json, or a load's parameters.config
 *
 * Whatever comes: a status of the 400s or 501 and a text that says why, or settings within their ranges. What a model says of itself it takes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/model_config.h"
#include "tests/support/http_bed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum what { INDEX, LOAD, TRACE, LOGGING, CONFIG, WHATS };

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void require_refusal(int r, const struct xn_error *error)
{
    unsigned code = xn_status_of(r).code;

    require(error->text[0] && xn_text_is_safe(error->text) && ((code >= 400 && code < 500) || code == 501));
}

static int read_config(const char *text, size_t bytes, const struct xn_model *model, struct xn_error *error)
{
    struct xn_config_model config;
    json_t *document = NULL;

    xn_config_model_init(&config);
    int r = xn_model_config_parse(text, bytes, &config, &document, error);
    if (r < 0)
        return r;
    require(config.max_batch >= 1 && config.max_batch <= XN_CONFIG_BATCH_MAX && config.max_delay_us <= 1000000);
    require(config.preferred_batch <= XN_CONFIG_BATCH_MAX && config.queue_limit >= 1 && config.queue_limit <= 65536);
    require(config.timeout_ms >= 1 && config.timeout_ms <= 600000);
    require(config.policy.n_listed <= XN_CONFIG_VERSIONS_MAX);
    r = xn_model_config_check(model, document, error);
    json_decref(document);
    return r;
}

static int read_body(enum what what, uint8_t choice, json_t *body, struct xn_error *error)
{
    enum xn_log_level level = XN_LOG_ERROR;
    char *config = NULL;
    bool ready;
    int r;

    if (what == INDEX)
        return xn_post_parse_index(body, &ready, error);
    if (what == TRACE)
        return xn_post_parse_trace(body, error);
    if (what == LOAD) {
        r = xn_post_parse_load(body, &config, error);
        require(r >= 0 || !config);
        free(config);
        return r;
    }
    r = xn_post_parse_logging(body, (enum xn_log_level)(choice >> 4 & 3), &level, error);
    require(level >= XN_LOG_ERROR && level <= XN_LOG_DEBUG);
    return r;
}

static void take_back_what_it_says(const struct xn_model *model)
{
    json_t *says = xn_model_config_json(model);
    struct xn_error error;

    require(says != NULL);
    char *text = json_dumps(says, 0);
    require(text && read_config(text, strlen(text), model, &error) == 0);
    free(text);
    json_decref(says);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_bed bed;
    struct xn_error error = {""};
    json_t *body = NULL;

    if (size == 0 || (data[0] & 15) >= WHATS)
        return 0;
    enum what what = data[0] & 15;
    if (!bed.requests) {
        http_bed_init(&bed);
        bed.model.max_batch = 4;
        bed.model.queue_limit = 8;
        bed.model.timeout_ms = 1000;
        take_back_what_it_says(&bed.model);
    }
    const char *text = (const char *)data + 1;
    int r = what == CONFIG ? read_config(text, size - 1, &bed.model, &error)
                           : xn_body_load_json(text, size - 1, NULL, &body, &error);
    if (r >= 0 && what != CONFIG) {
        r = read_body(what, data[0], body, &error);
        xn_body_free_json(body);
    }
    require(r <= 0);
    if (r < 0)
        require_refusal(r, &error);
    return 0;
}
