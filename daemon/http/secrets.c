/* SPDX-License-Identifier: Apache-2.0
 * What the server reads from files of its own: all of it first, so that where one is broken everything stays as it was. */
#include <errno.h>
#include <stdlib.h>

#include "common/fault.h"
#include "daemon/http/internal.h"

struct xn_http_secrets {
    struct xn_token_list tokens;
    struct xn_tls_pair *pairs[XN_CONFIG_LISTENERS_MAX];
};

int xn_http_secrets_read(const struct xn_config *config, const char *tokens, struct xn_http_secrets **ret_secrets,
                         struct xn_error *error)
{
    struct xn_http_secrets *secrets = xn_calloc(1, sizeof(*secrets));

    if (!secrets)
        return xn_error_set(error, -ENOMEM, "no memory for tokens and certificates");
    int r = xn_tokens_read(tokens, &secrets->tokens, error);
    for (uint32_t i = 0; r >= 0 && i < config->n_listeners; i++) {
        const struct xn_config_listener *listener = &config->listeners[i];
        if (listener->certificate)
            r = xn_tls_pair_read(listener->certificate, listener->key, &secrets->pairs[i], error);
    }
    if (r < 0) {
        xn_http_secrets_free(secrets);
        return r;
    }
    *ret_secrets = secrets;
    return 0;
}

void xn_http_secrets_take(struct xn_http *http, struct xn_http_secrets *secrets)
{
    xn_tokens_apply(http->tokens, &secrets->tokens);
    for (uint32_t i = 0; i < http->config->n_listeners; i++) {
        if (!secrets->pairs[i])
            continue;
        xn_tls_apply(http->doors[i].tls, secrets->pairs[i]);
        secrets->pairs[i] = NULL;
    }
    xn_http_secrets_free(secrets);
}

void xn_http_secrets_free(struct xn_http_secrets *secrets)
{
    for (uint32_t i = 0; secrets && i < XN_CONFIG_LISTENERS_MAX; i++)
        xn_tls_pair_unref(secrets->pairs[i]);
    free(secrets);
}
