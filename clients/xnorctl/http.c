/* SPDX-License-Identifier: Apache-2.0
 * Requests to the server, one at a time: libcurl. */
#include "clients/xnorctl/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/xnorctl/ctl.h"

#define CONNECT_TIMEOUT_MS 5000L
#define TOKEN_BYTES_MAX    512u
#define UNIX_SCHEME        "unix:"

struct xn_client {
    CURL *curl;
    char *url;  /* as it was given, without a trailing slash: for messages */
    char *base; /* what paths are put behind */
    struct xn_reply *reply;
    size_t capacity;
    char why[CURL_ERROR_SIZE];
};

static size_t receive(char *data, size_t size, size_t count, void *user)
{
    struct xn_client *client = user;
    struct xn_reply *reply = client->reply;
    size_t bytes = size * count;

    if (bytes > XN_REPLY_BYTES_MAX - reply->bytes)
        return 0;
    if (reply->bytes + bytes + 1 > client->capacity) {
        client->capacity = 2 * (reply->bytes + bytes + 1);
        reply->body = xn_ctl_grow(reply->body, client->capacity, 1);
    }
    memcpy(reply->body + reply->bytes, data, bytes);
    reply->bytes += bytes;
    reply->body[reply->bytes] = '\0';
    return bytes;
}

/* The path of the unix socket that `url` names, or NULL. */
static const char *unix_path_of(const char *url)
{
    size_t n = strlen(UNIX_SCHEME);

    return strncmp(url, UNIX_SCHEME, n) == 0 && url[n] ? url + n : NULL;
}

static int check_url(const char *url, struct xn_error *error)
{
    if (unix_path_of(url))
        return 0;
    CURLU *parts = curl_url();
    CURLUcode code = parts ? curl_url_set(parts, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;

    curl_url_cleanup(parts);
    if (code == CURLUE_OUT_OF_MEMORY)
        return xn_error_set(error, -ENOMEM, "no memory");
    if (code != CURLUE_OK || (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        return xn_error_set(error, -EINVAL, "\"%.200s\" is not a URL of a server, such as " XN_CTL_URL, url);
    return 0;
}

static char *copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;

    return memcpy(xn_ctl_alloc(bytes, 1), text, bytes);
}

/* The token to send, the caller's; NULL: none. */
static int read_token(const struct xn_ctl *ctl, char **ret_token, struct xn_error *error)
{
    const char *set = getenv("XNORD_TOKEN");
    uint8_t *data = NULL;
    size_t bytes = 0;

    *ret_token = NULL;
    if (!ctl->token_file && (!set || !*set))
        return 0;
    int r = ctl->token_file ? xn_file_read(ctl->token_file, TOKEN_BYTES_MAX, &data, &bytes, error) : 0;
    if (r < 0)
        return r;
    char *token = xn_ctl_alloc((data ? bytes : strlen(set)) + 1, 1);
    memcpy(token, data ? (const char *)data : set, data ? bytes : strlen(set));
    free(data);
    token[strcspn(token, "\r\n")] = '\0';
    for (const char *c = token; *c || c == token; c++) {
        if (*c > ' ' && *c <= '~')
            continue;
        free(token);
        return xn_error_set(error, -EINVAL, "%s: not a token: it has blanks or bytes that are not ASCII, or is empty",
                            ctl->token_file ? ctl->token_file : "$XNORD_TOKEN");
    }
    *ret_token = token;
    return 0;
}

/* Where to, who asks, whom to trust. */
static int set_access(struct xn_client *client, const struct xn_ctl *ctl, struct xn_error *error)
{
    const char *path = unix_path_of(ctl->url);
    char *token;

    int r = read_token(ctl, &token, error);
    if (r < 0)
        return r;
    if (token) {
        curl_easy_setopt(client->curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(client->curl, CURLOPT_XOAUTH2_BEARER, token);
    }
    free(token);
    if (path)
        curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, path);
    if (ctl->cacert)
        curl_easy_setopt(client->curl, CURLOPT_CAINFO, ctl->cacert);
    if (ctl->insecure) {
        curl_easy_setopt(client->curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(client->curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return 0;
}

int xn_client_new(const struct xn_ctl *ctl, uint64_t timeout_ms, struct xn_client **ret_client, struct xn_error *error)
{
    int r = check_url(ctl->url, error);
    if (r < 0)
        return r;
    struct xn_client *client = xn_ctl_alloc(1, sizeof(*client));
    client->url = copy_text(ctl->url);
    for (size_t n = strlen(client->url); n > 0 && client->url[n - 1] == '/'; n--)
        client->url[n - 1] = '\0';
    client->base = copy_text(unix_path_of(ctl->url) ? "http://localhost" : client->url);
    client->curl = curl_easy_init();
    r = client->curl ? set_access(client, ctl, error)
                     : xn_error_set(error, -ENOMEM, "libcurl does not start: no memory");
    if (r < 0) {
        xn_client_free(client);
        return r;
    }
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, client);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->why);
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(client->curl, CURLOPT_USERAGENT, "xnorctl/" XN_VERSION);
    *ret_client = client;
    return 0;
}

void xn_client_free(struct xn_client *client)
{
    if (!client)
        return;
    if (client->curl)
        curl_easy_cleanup(client->curl);
    free(client->base);
    free(client->url);
    free(client);
}

static int explain(struct xn_client *client, CURLcode code, const char *url, struct xn_error *error)
{
    const char *why = client->why[0] ? client->why : curl_easy_strerror(code);

    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return xn_error_set(error, -ECONNREFUSED,
                            "nothing answers at %s (%s); is xnord running, and is --url or $XNORD_URL right?",
                            client->url, why);
    case CURLE_COULDNT_RESOLVE_HOST:
        return xn_error_set(error, -EHOSTUNREACH, "%s: %s; check --url or $XNORD_URL", client->url, why);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return xn_error_set(error, -EPROTO, "%s: %s; --cacert names the authorities to trust", client->url, why);
    case CURLE_OPERATION_TIMEDOUT:
        return xn_error_set(error, -ETIMEDOUT, "%s did not answer in time: %s", url, why);
    case CURLE_WRITE_ERROR:
        return xn_error_set(error, -EFBIG, "%s: the answer is longer than %u bytes", url, XN_REPLY_BYTES_MAX);
    default:
        return xn_error_set(error, -EIO, "%s: %s", url, why);
    }
}

static int perform(struct xn_client *client, const char *path, struct xn_reply *ret_reply, struct xn_error *error)
{
    struct xn_reply reply = {0};
    size_t room = strlen(client->base) + strlen(path) + 1;
    char *url = xn_ctl_alloc(room, 1);

    snprintf(url, room, "%s%s", client->base, path);
    client->capacity = 4096;
    reply.body = xn_ctl_alloc(client->capacity, 1);
    client->reply = &reply;
    client->why[0] = '\0';
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    CURLcode code = curl_easy_perform(client->curl);
    int r = code == CURLE_OK ? 0 : explain(client, code, url, error);
    free(url);
    if (r < 0) {
        xn_reply_done(&reply);
        return r;
    }
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &reply.status);
    *ret_reply = reply;
    return 0;
}

int xn_client_get(struct xn_client *client, const char *path, struct xn_reply *ret_reply, struct xn_error *error)
{
    curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
    return perform(client, path, ret_reply, error);
}

int xn_client_post(struct xn_client *client, const char *path, const char *content_type, const void *body, size_t bytes,
                   struct xn_reply *ret_reply, struct xn_error *error)
{
    char type[160];
    struct curl_slist *headers;

    snprintf(type, sizeof(type), "Content-Type: %s", content_type);
    headers = curl_slist_append(NULL, type);
    struct curl_slist *all = headers ? curl_slist_append(headers, "Expect:") : NULL;
    if (!all) {
        curl_slist_free_all(headers);
        return xn_error_set(error, -ENOMEM, "no memory");
    }
    curl_easy_setopt(client->curl, CURLOPT_POST, 1L);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, all);
    int r = perform(client, path, ret_reply, error);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, NULL);
    curl_slist_free_all(all);
    return r;
}

void xn_reply_done(struct xn_reply *reply)
{
    free(reply->body);
    *reply = (struct xn_reply){0};
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

void xn_reply_reason(long status, const char *body, size_t bytes, char ret[static XN_ERROR_TEXT_BYTES])
{
    json_t *root = json_loadb(body, bytes, 0, NULL);
    const char *said = json_string_value(json_object_get(root, "error"));
    struct xn_error text;

    if (said)
        xn_error_set(&text, 0, "%s (status %ld)", said, status);
    else if (bytes > 0)
        xn_error_set(&text, 0, "status %ld: %.*s", status, (int)XN_MIN(bytes, 160), body);
    else
        xn_error_set(&text, 0, "status %ld", status);
    memcpy(ret, text.text, XN_ERROR_TEXT_BYTES);
    json_decref(root);
}

static int get_good(struct xn_client *client, const char *path, struct xn_reply *ret_reply, struct xn_error *error)
{
    char reason[XN_ERROR_TEXT_BYTES];
    int r = xn_client_get(client, path, ret_reply, error);

    if (r < 0 || ret_reply->status == 200)
        return r;
    xn_reply_reason(ret_reply->status, ret_reply->body, ret_reply->bytes, reason);
    xn_reply_done(ret_reply);
    return xn_error_set(error, -EPROTO, "%s%s: %s", client->url, path, reason);
}

int xn_client_get_json(struct xn_client *client, const char *path, json_t **ret_value, struct xn_error *error)
{
    struct xn_reply reply;
    json_error_t where;
    int r = get_good(client, path, &reply, error);

    if (r < 0)
        return r;
    *ret_value = json_loadb(reply.body, reply.bytes, 0, &where);
    xn_reply_done(&reply);
    if (!*ret_value)
        return xn_error_set(error, -EBADMSG, "%s%s: the answer is not JSON (%s); is this an xnord?", client->url, path,
                            where.text);
    return 0;
}

int xn_client_get_text(struct xn_client *client, const char *path, char **ret_text, struct xn_error *error)
{
    struct xn_reply reply;
    int r = get_good(client, path, &reply, error);

    if (r >= 0)
        *ret_text = reply.body;
    return r;
}

char *xn_infer_path(const char *model, uint64_t top_k, uint64_t timeout_ms)
{
    char *name = model ? curl_easy_escape(NULL, model, 0) : NULL;
    size_t room = (name ? strlen(name) : 0) + 96;
    char *path = xn_ctl_alloc(room, 1), number[24];
    const char *between = "?";

    strcpy(path, "/infer");
    if (name) {
        strcat(strcat(strcat(path, between), "model="), name);
        between = "&";
    }
    if (top_k) {
        snprintf(number, sizeof(number), "%" PRIu64, top_k);
        strcat(strcat(strcat(path, between), "top_k="), number);
        between = "&";
    }
    if (timeout_ms) {
        snprintf(number, sizeof(number), "%" PRIu64, timeout_ms);
        strcat(strcat(strcat(path, between), "timeout_ms="), number);
    }
    curl_free(name);
    return path;
}

int xn_status_model(json_t *status, const char *name, json_t **ret_model, struct xn_error *error)
{
    json_t *models = json_object_get(status, "models"), *model;
    char there[256] = "";
    size_t i;

    if (json_array_size(models) == 0)
        return xn_error_set(error, -EBADMSG, "the server's /v1/status lists no model");
    json_array_foreach(models, i, model)
    {
        const char *its = json_string_value(json_object_get(model, "name"));
        if (its && (name ? strcmp(its, name) == 0 : json_is_true(json_object_get(model, "default")))) {
            *ret_model = model;
            return 0;
        }
        size_t used = strlen(there);
        snprintf(there + used, sizeof(there) - used, "%s%s", i ? ", " : "", its ? its : "?");
    }
    return xn_error_set(error, -ENOENT, "the server has no model \"%.64s\"; it has %s", name ? name : "(default)",
                        there);
}

/* ---- URLs --------------------------------------------------------------------------------------------------------- */

/* One part of a URL, copied; NULL where there is none. */
static char *part_of(CURLU *parts, CURLUPart which, unsigned flags)
{
    char *text = NULL, *copy = NULL;

    if (curl_url_get(parts, which, &text, flags) == CURLUE_OK) {
        copy = xn_ctl_alloc(strlen(text) + 1, 1);
        memcpy(copy, text, strlen(text));
    }
    curl_free(text);
    return copy;
}

static int parse_http(const char *url, struct xn_target *target, struct xn_error *error)
{
    CURLU *parts = curl_url();

    if (!parts || curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK) {
        curl_url_cleanup(parts);
        return xn_error_set(error, -EINVAL, "\"%.200s\" is not a URL", url);
    }
    target->host = part_of(parts, CURLUPART_HOST, 0);
    target->port = part_of(parts, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    target->prefix = part_of(parts, CURLUPART_PATH, 0);
    curl_url_cleanup(parts);
    size_t n = strlen(target->prefix);
    while (n > 0 && target->prefix[n - 1] == '/')
        target->prefix[--n] = '\0';
    size_t room = strlen(target->host) + strlen(target->port) + 2;
    target->authority = xn_ctl_alloc(room, 1);
    snprintf(target->authority, room, "%s:%s", target->host, target->port);
    if (target->host[0] == '[') { /* an IPv6 literal: getaddrinfo takes it bare */
        memmove(target->host, target->host + 1, strlen(target->host));
        target->host[strcspn(target->host, "]")] = '\0';
    }
    return 0;
}

int xn_target_parse(const struct xn_ctl *ctl, struct xn_target *ret_target, struct xn_error *error)
{
    const char *path = unix_path_of(ctl->url);
    struct xn_target target = {0};

    int r = check_url(ctl->url, error);
    target.tls = strncmp(ctl->url, "https://", 8) == 0;
    target.insecure = ctl->insecure;
    target.cacert = ctl->cacert;
    if (r >= 0)
        r = read_token(ctl, &target.token, error);
    if (r >= 0 && path) {
        target.unix_path = copy_text(path);
        target.prefix = copy_text("");
        target.authority = copy_text("localhost");
    } else if (r >= 0) {
        r = parse_http(ctl->url, &target, error);
    }
    if (r < 0) {
        xn_target_done(&target);
        return r;
    }
    *ret_target = target;
    return 0;
}

void xn_target_done(struct xn_target *target)
{
    free(target->host);
    free(target->port);
    free(target->prefix);
    free(target->unix_path);
    free(target->token);
    free(target->authority);
    *target = (struct xn_target){0};
}

/* ---- bodies ------------------------------------------------------------------------------------------------------- */

int xn_file_read(const char *path, size_t max, uint8_t **ret_data, size_t *ret_bytes, struct xn_error *error)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    size_t bytes = 0, capacity = 65536;

    if (!file) {
        int r = -errno;
        return xn_error_set(error, r, "%s: %s", path, strerror(-r));
    }
    uint8_t *data = xn_ctl_alloc(capacity, 1);
    int r = 0;
    for (;;) {
        size_t got = fread(data + bytes, 1, capacity - bytes, file);
        bytes += got;
        if (bytes > max)
            r = xn_error_set(error, -EFBIG, "%s: larger than %zu bytes", path, max);
        else if (got == 0 && ferror(file))
            r = xn_error_set(error, -EIO, "%s: %s", path, strerror(errno));
        if (r < 0 || got == 0)
            break;
        if (bytes == capacity) {
            capacity *= 2;
            data = xn_ctl_grow(data, capacity, 1);
        }
    }
    if (file != stdin)
        fclose(file);
    if (r < 0) {
        free(data);
        return r;
    }
    *ret_data = data;
    *ret_bytes = bytes;
    return 0;
}

bool xn_is_picture(const uint8_t *data, size_t bytes)
{
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff}, png[] = {0x89, 'P', 'N', 'G'};

    return (bytes >= sizeof(jpeg) && memcmp(data, jpeg, sizeof(jpeg)) == 0) ||
           (bytes >= sizeof(png) && memcmp(data, png, sizeof(png)) == 0);
}

uint8_t *xn_multipart_body(const struct xn_piece *pieces, size_t n, size_t *ret_bytes)
{
    static const char head[] = "--" XN_MULTIPART_BOUNDARY "\r\nContent-Disposition: form-data; name=\"image\"; "
                               "filename=\"image\"\r\nContent-Type: application/octet-stream\r\n\r\n";
    static const char tail[] = "--" XN_MULTIPART_BOUNDARY "--\r\n";
    size_t total = sizeof(tail) - 1;

    for (size_t i = 0; i < n; i++)
        total += sizeof(head) - 1 + pieces[i].bytes + 2;
    uint8_t *body = xn_ctl_alloc(total, 1), *at = body;
    for (size_t i = 0; i < n; i++) {
        at = mempcpy(at, head, sizeof(head) - 1);
        at = mempcpy(at, pieces[i].data, pieces[i].bytes);
        at = mempcpy(at, "\r\n", 2);
    }
    memcpy(at, tail, sizeof(tail) - 1);
    *ret_bytes = total;
    return body;
}
