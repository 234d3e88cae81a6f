/* SPDX-License-Identifier: Apache-2.0
 * A model's configuration as Triton writes it, in JSON: what GET /v2/models/{model}/config answers, and what a load request or NAME/config.json may change of it. */
#ifndef XN_DAEMON_MODEL_CONFIG_H
#define XN_DAEMON_MODEL_CONFIG_H

#include <jansson.h>

#include "daemon/models.h"

#define XN_MODEL_CONFIG_BYTES_MAX (64u * 1024)

/** The configuration of `model`. Owner: caller; NULL: no memory. Threads: any. */
json_t *xn_model_config_json(const struct xn_model *model);

/** Read `text` over the settings of `config` (batching, queue, version policy). *ret_document is the whole, for xn_model_config_check. Owner: caller (json_decref). Errors, where
 *  *config may be half changed: -EINVAL (not JSON, an unknown key, a value out of its range). */
XN_MUST_CHECK int xn_model_config_parse(const char *text, size_t bytes, struct xn_config_model *config,
                                        json_t **ret_document, struct xn_error *error);

/** What a model's file alone decides (name, platform, inputs, outputs ...) may stand in a document, if it is what the file says. Errors: -EINVAL (it is not), -ENOMEM. */
XN_MUST_CHECK int xn_model_config_check(const struct xn_model *model, json_t *document, struct xn_error *error);

#endif
