/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a file of tokens: either every entry is sound, or there is a message that shows nothing of the file. The same bytes as an Authorization
 * header: a token that is found in it lies in it. */
#include <stdlib.h>
#include <string.h>

#include "daemon/http/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_list(const struct xn_token_list *list)
{
    if (!list->required || list->n > XN_TOKENS_MAX)
        abort();
    for (uint32_t i = 0; i < list->n; i++) {
        const struct xn_token *token = &list->tokens[i];
        size_t length = strnlen(token->name, sizeof(token->name));
        if (length == 0 || length == sizeof(token->name) || token->roles == 0 ||
            (token->roles & ~(unsigned)XN_ROLE_ANY))
            abort();
    }
}

static void check_header(const char *header)
{
    size_t bytes = 0;
    const char *token = xn_tokens_bearer(header, &bytes);

    if (token && (bytes == 0 || bytes > XN_TOKEN_BYTES_MAX || token < header + 7 ||
                  token + bytes > header + strlen(header) || memchr(token, ' ', bytes)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xn_token_list list;
    struct xn_error error = {""};
    char *header = malloc(size + 1);

    int r = xn_tokens_parse("fuzz", (const char *)data, size, &list, &error);
    if (r > 0 || (r < 0 && strncmp(error.text, "fuzz:", 5) != 0))
        abort();
    if (r == 0) {
        check_list(&list);
        (void)xn_tokens_find(&list, (const char *)data, size);
    }
    if (!header)
        abort();
    memcpy(header, data, size);
    header[size] = '\0';
    check_header(header);
    free(header);
    return 0;
}
