/* SPDX-License-Identifier: Apache-2.0
 * See tokens.h. Two lists, one of them in force. A reader announces itself at the list it takes and looks again whether that is still in force; who puts
 * a new list in force writes the other one once no reader is left at it, which is a matter of microseconds. */
#include "daemon/http/tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nettle/sha2.h>

#include "common/fault.h"

#define FILE_BYTES_MAX (64u * 1024)

_Static_assert(XN_TOKEN_HASH_BYTES == SHA256_DIGEST_SIZE, "the hash is SHA-256");

/* ---- the file ----------------------------------------------------------------------------------------------------- */

/* The next word of the line from *at to `end`; its length in *ret_bytes, 0 at the end or before a comment. */
static const char *next_word(const char **at, const char *end, size_t *ret_bytes)
{
    const char *word = *at;

    while (word < end && (*word == ' ' || *word == '\t' || *word == '\r'))
        word++;
    const char *stop = word;
    while (stop < end && *stop != ' ' && *stop != '\t' && *stop != '\r' && *stop != '#')
        stop++;
    *at = stop;
    *ret_bytes = (size_t)(stop - word);
    return word;
}

static bool read_name(const char *word, size_t bytes, char *ret)
{
    if (bytes == 0 || bytes >= XN_TOKEN_NAME_BYTES || word[0] == '.')
        return false;
    for (size_t i = 0; i < bytes; i++) {
        bool good = (word[i] >= 'a' && word[i] <= 'z') || (word[i] >= 'A' && word[i] <= 'Z') ||
                    (word[i] >= '0' && word[i] <= '9') || word[i] == '.' || word[i] == '_' || word[i] == '-';
        if (!good)
            return false;
    }
    memcpy(ret, word, bytes);
    ret[bytes] = '\0';
    return true;
}

static bool read_roles(const char *word, size_t bytes, unsigned *ret)
{
    static const struct {
        const char *name;
        unsigned role;
    } names[] = {{"infer", XN_ROLE_INFER}, {"read", XN_ROLE_READ}, {"admin", XN_ROLE_ADMIN}};
    const char *end = word + bytes;

    *ret = 0;
    for (const char *at = word;; at++) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        size_t length = (size_t)((comma ? comma : end) - at), i = 0;
        while (i < XN_ARRAY_LEN(names) && (strlen(names[i].name) != length || memcmp(names[i].name, at, length) != 0))
            i++;
        if (i == XN_ARRAY_LEN(names))
            return false;
        *ret |= names[i].role;
        if (!comma)
            return true;
        at = comma;
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_hash(const char *word, size_t bytes, uint8_t *ret)
{
    if (bytes != 2u * XN_TOKEN_HASH_BYTES)
        return false;
    for (size_t i = 0; i < XN_TOKEN_HASH_BYTES; i++) {
        int high = hex_digit(word[2 * i]), low = hex_digit(word[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* What is wrong with the line, or NULL. An empty line leaves the list as it is. */
static const char *read_line(const char *line, const char *end, struct xn_token_list *list)
{
    struct xn_token *token = &list->tokens[list->n];
    size_t bytes;
    const char *word = next_word(&line, end, &bytes);

    if (bytes == 0)
        return line < end && *line != '#' ? "a character that does not belong there" : NULL;
    if (list->n == XN_TOKENS_MAX)
        return "too many tokens";
    if (!read_name(word, bytes, token->name))
        return "the name must be 1..63 characters of A-Z a-z 0-9 . _ - and not begin with a dot";
    word = next_word(&line, end, &bytes);
    if (bytes == 0 || !read_roles(word, bytes, &token->roles))
        return "behind the name must come its roles: infer, read, admin, with commas between them";
    word = next_word(&line, end, &bytes);
    if (!read_hash(word, bytes, token->hash))
        return "behind the roles must come the SHA-256 of the token, 64 hexadecimal digits (xnorctl token makes the "
               "line)";
    (void)next_word(&line, end, &bytes);
    if (bytes != 0)
        return "there is more behind the hash";
    for (uint32_t i = 0; i < list->n; i++) {
        if (strcmp(list->tokens[i].name, token->name) == 0)
            return "a token of that name stands above already";
        if (memcmp(list->tokens[i].hash, token->hash, sizeof(token->hash)) == 0)
            return "the same token stands above under another name";
    }
    list->n++;
    return NULL;
}

int xn_tokens_parse(const char *name, const char *text, size_t bytes, struct xn_token_list *ret_list,
                    struct xn_error *error)
{
    const char *end = text + bytes;
    unsigned line = 1;

    memset(ret_list, 0, sizeof(*ret_list));
    ret_list->required = true;
    for (const char *at = text; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        const char *why = read_line(at, stop, ret_list);
        if (why)
            return xn_error_set(error, ret_list->n == XN_TOKENS_MAX ? -E2BIG : -EINVAL, "%s:%u: %s", name, line, why);
        at = stop + 1;
    }
    return 0;
}

int xn_secret_read(const char *what, const char *path, size_t max_bytes, char **ret_text, size_t *ret_bytes,
                   struct xn_error *error)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    char *text = NULL;

    if (!file || fstat(fd, &status) < 0)
        r = xn_error_set(error, -errno, "%s %s: %s", what, path, strerror(errno));
    else if (S_ISREG(status.st_mode) && (status.st_mode & 027) != 0)
        r = xn_error_set(error, -EPERM, "%s %s: others may read it, or its group may write it; chmod 0600 or 0640",
                         what, path);
    else if (!(text = xn_calloc(1, max_bytes + 2)))
        r = xn_error_set(error, -ENOMEM, "%s %s: no memory", what, path);
    size_t bytes = r < 0 ? 0 : fread(text, 1, max_bytes + 1, file);
    if (r == 0 && ferror(file))
        r = xn_error_set(error, -EIO, "%s %s: %s", what, path, strerror(errno));
    else if (bytes > max_bytes)
        r = xn_error_set(error, -EFBIG, "%s %s: more than %zu bytes", what, path, max_bytes);
    if (file)
        fclose(file);
    else if (fd >= 0)
        close(fd);
    if (r < 0) {
        free(text);
        return r;
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return 0;
}

int xn_tokens_read(const char *path, struct xn_token_list *ret_list, struct xn_error *error)
{
    char *text;
    size_t bytes;

    memset(ret_list, 0, sizeof(*ret_list));
    if (!path)
        return 0;
    int r = xn_secret_read("tokens:", path, FILE_BYTES_MAX, &text, &bytes, error);
    if (r < 0)
        return r;
    r = xn_tokens_parse(path, text, bytes, ret_list, error);
    free(text);
    return r;
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

/* All of both is looked at, whatever is in them. By words: the list is gone through for each request. */
static bool is_same(const uint8_t *a, const uint8_t *b)
{
    uint64_t x[XN_TOKEN_HASH_BYTES / 8], y[XN_TOKEN_HASH_BYTES / 8], differ = 0;

    memcpy(x, a, sizeof(x));
    memcpy(y, b, sizeof(y));
    for (size_t i = 0; i < XN_ARRAY_LEN(x); i++)
        differ |= x[i] ^ y[i];
    return differ == 0;
}

int xn_tokens_find(const struct xn_token_list *list, const char *token, size_t bytes)
{
    struct sha256_ctx sha;
    uint8_t hash[XN_TOKEN_HASH_BYTES];
    int found = -1;

    sha256_init(&sha);
    sha256_update(&sha, bytes, (const uint8_t *)token);
    sha256_digest(&sha, sizeof(hash), hash);
    for (uint32_t i = 0; i < list->n; i++) {
        found = is_same(hash, list->tokens[i].hash) ? (int)i : found;
    }
    return found;
}

const char *xn_tokens_bearer(const char *header, size_t *ret_bytes)
{
    static const char scheme[] = "Bearer ";

    if (!header || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
        return NULL;
    const char *token = header + sizeof(scheme) - 1;
    token += strspn(token, " ");
    size_t bytes = strcspn(token, " \t");
    if (bytes == 0 || bytes > XN_TOKEN_BYTES_MAX || token[bytes + strspn(token + bytes, " \t")] != '\0')
        return NULL;
    *ret_bytes = bytes;
    return token;
}

/* ---- in force ----------------------------------------------------------------------------------------------------- */

enum outcome { ALLOWED, FORBIDDEN, OUTCOMES };

struct side {
    struct xn_token_list list;
    _Atomic uint64_t counts[XN_TOKENS_MAX][OUTCOMES]; /* relaxed */
    atomic_uint readers;
};

struct xn_tokens {
    struct side sides[2];
    atomic_uint current; /* sequentially consistent, with readers: see take_side */
};

int xn_tokens_new(struct xn_tokens **ret_tokens)
{
    *ret_tokens = xn_calloc(1, sizeof(**ret_tokens));
    return *ret_tokens ? 0 : -ENOMEM;
}

void xn_tokens_free(struct xn_tokens *tokens)
{
    free(tokens);
}

/* Either the writer sees this reader, or this reader sees that the side is not in force any more: all four steps are in one order. */
static struct side *take_side(struct xn_tokens *tokens)
{
    for (;;) {
        unsigned current = atomic_load(&tokens->current);
        struct side *side = &tokens->sides[current];
        atomic_fetch_add(&side->readers, 1);
        if (atomic_load(&tokens->current) == current)
            return side;
        atomic_fetch_sub(&side->readers, 1);
    }
}

static void give_side(struct side *side)
{
    atomic_fetch_sub(&side->readers, 1);
}

void xn_tokens_apply(struct xn_tokens *tokens, const struct xn_token_list *list)
{
    unsigned current = atomic_load(&tokens->current);
    struct side *from = &tokens->sides[current], *to = &tokens->sides[1 - current];

    while (atomic_load(&to->readers) != 0)
        sched_yield();
    to->list = *list;
    for (uint32_t i = 0; i < list->n; i++) {
        uint32_t old = 0;
        while (old < from->list.n && strcmp(from->list.tokens[old].name, list->tokens[i].name) != 0)
            old++;
        for (int k = 0; k < OUTCOMES; k++) {
            uint64_t count = old < from->list.n ? atomic_load_explicit(&from->counts[old][k], memory_order_relaxed) : 0;
            atomic_store_explicit(&to->counts[i][k], count, memory_order_relaxed);
        }
    }
    atomic_store(&tokens->current, 1 - current);
}

static int check_side(struct side *side, const char *header, unsigned roles, char *ret_name, struct xn_error *error)
{
    size_t bytes = 0;

    ret_name[0] = '\0';
    if (!side->list.required || roles == XN_ROLE_ANYONE)
        return 0;
    const char *token = xn_tokens_bearer(header, &bytes);
    if (!token)
        return xn_error_set(error, -EACCES, "this needs a token: send Authorization: Bearer TOKEN");
    int i = xn_tokens_find(&side->list, token, bytes);
    if (i < 0)
        return xn_error_set(error, -EACCES, "the token is not known here");
    const struct xn_token *known = &side->list.tokens[i];
    bool allowed = (known->roles & (roles | XN_ROLE_ADMIN)) != 0;
    atomic_fetch_add_explicit(&side->counts[i][allowed ? ALLOWED : FORBIDDEN], 1, memory_order_relaxed);
    memcpy(ret_name, known->name, XN_TOKEN_NAME_BYTES);
    return allowed ? 0 : xn_error_set(error, -EPERM, "the token %s does not have the role for this", known->name);
}

int xn_tokens_check(struct xn_tokens *tokens, const char *header, unsigned roles,
                    char ret_name[static XN_TOKEN_NAME_BYTES], struct xn_error *error)
{
    struct side *side = take_side(tokens);
    int r = check_side(side, header, roles, ret_name, error);

    give_side(side);
    return r;
}

void xn_tokens_render(void *tokens, struct xn_metrics_text *text)
{
    static const char name[] = "xnord_token_requests_total";
    static const char *const outcomes[OUTCOMES] = {"allowed", "forbidden"};
    struct side *side = take_side(tokens);
    char labels[XN_TOKEN_NAME_BYTES + 64];

    xn_metrics_family(text, name, "counter",
                      "Requests that came with a token, by its name and whether its roles were enough.");
    for (uint32_t i = 0; i < side->list.n; i++) {
        for (int k = 0; k < OUTCOMES; k++) {
            snprintf(labels, sizeof(labels), "token=\"%s\",outcome=\"%s\"", side->list.tokens[i].name, outcomes[k]);
            xn_metrics_sample(text, name, labels,
                              (double)atomic_load_explicit(&side->counts[i][k], memory_order_relaxed));
        }
    }
    give_side(side);
}
