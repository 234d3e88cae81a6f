/* SPDX-License-Identifier: Apache-2.0
 * `token`: a bearer token, and the line for the server's file of tokens, which has its hash alone. What the daemon checks is in
 * docs/http-api.md; this side knows only that. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <jansson.h>
#include <nettle/sha2.h>

#include "clients/xnorctl/options.h"

#define TOKEN_BYTES 32u
#define PREFIX      "xnor_" /* so that who finds one in the wrong place knows what it is */

static void write_hex(char *to, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sprintf(to + 2 * i, "%02x", bytes[i]);
}

static bool is_name(const char *text)
{
    size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return n > 0 && n < 64 && text[n] == '\0' && text[0] != '.';
}

static bool are_roles(const char *text)
{
    static const char *const names[] = {"infer", "read", "admin"};

    for (;;) {
        size_t n = strcspn(text, ","), i = 0;
        while (i < XN_ARRAY_LEN(names) && (strlen(names[i]) != n || strncmp(names[i], text, n) != 0))
            i++;
        if (i == XN_ARRAY_LEN(names))
            return false;
        if (text[n] == '\0')
            return true;
        text += n + 1;
    }
}

static int print_token(const struct xn_ctl *ctl, const char *name, const char *roles)
{
    uint8_t bytes[TOKEN_BYTES], hash[SHA256_DIGEST_SIZE];
    char token[sizeof(PREFIX) + 2 * TOKEN_BYTES] = PREFIX, hex[2 * SHA256_DIGEST_SIZE + 1];
    struct sha256_ctx sha;

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return xn_ctl_failf(ctl, "no random bytes: %s", strerror(errno));
    write_hex(token + strlen(PREFIX), bytes, sizeof(bytes));
    sha256_init(&sha);
    sha256_update(&sha, strlen(token), (const uint8_t *)token);
    sha256_digest(&sha, sizeof(hash), hash);
    write_hex(hex, hash, sizeof(hash));
    if (ctl->json)
        printf("{\"token\": \"%s\", \"line\": \"%s %s %s\"}\n", token, name, roles, hex);
    else
        printf(
            "token, for the client (it is shown this once):\n%s\n\nline, for the server's file of tokens:\n%s %s %s\n",
            token, name, roles, hex);
    return XN_CTL_OK;
}

int xn_ctl_token(struct xn_ctl *ctl, int argc, char **argv)
{
    const char *roles = "infer";
    const struct xn_opt opts[] = {
        {"roles", 'r', XN_OPT_TEXT, &roles, 0, 0, "ROLE,...",
         "what it allows: infer (default), read (metrics,\nstatus), admin (everything)"},
    };
    const struct xn_opt_about about = {
        "NAME",
        "Make a bearer token for a client called NAME, and its line for the file that \"tokens\" of xnord.json(5) "
        "names.",
        "The server reads the file again on SIGHUP. A client sends it with --token-file or $XNORD_TOKEN.", true};
    char **operands;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &operands);
    if (n != 1)
        xn_opt_usage(ctl, "give one NAME");
    if (!is_name(operands[0]))
        xn_opt_usage(ctl, "a name is 1..63 characters of A-Z a-z 0-9 . _ - and does not begin with a dot");
    if (!are_roles(roles))
        xn_opt_usage(ctl, "--roles: must be infer, read, admin, with commas between them");
    return print_token(ctl, operands[0], roles);
}
