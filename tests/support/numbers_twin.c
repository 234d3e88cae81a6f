/* SPDX-License-Identifier: Apache-2.0
 * See numbers_twin.h. */
#include "tests/support/numbers_twin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What parsing left, without addresses. */
struct outcome {
    int r;
    struct xn_error error;
    struct xn_ask ask;
    uint32_t n;
    size_t bytes[BED_IMAGES_MAX]; /* of the picture or the tensor */
    bool is_picture[BED_IMAGES_MAX];
    uint8_t *content;
    size_t content_bytes;
};

static const struct {
    const char *name, *twin;
} names[] = {{"\"data\"", "\"d\\u0061ta\""}, {"\"tensor\"", "\"t\\u0065nsor\""}, {"\"tensors\"", "\"t\\u0065nsors\""}};

/* `text` with the names exchanged, malloc'ed. */
static char *make_twin(const char *text, size_t bytes, size_t *ret_bytes)
{
    char *twin = malloc(2 * bytes + 1), *at = twin;

    if (!twin)
        abort();
    for (size_t i = 0; i < bytes;) {
        size_t k = 0;
        while (k < XN_ARRAY_LEN(names) &&
               (bytes - i < strlen(names[k].name) || memcmp(text + i, names[k].name, strlen(names[k].name)) != 0))
            k++;
        if (k < XN_ARRAY_LEN(names)) {
            at = stpcpy(at, names[k].twin);
            i += strlen(names[k].name);
        } else {
            *at++ = text[i++];
        }
    }
    *ret_bytes = (size_t)(at - twin);
    return twin;
}

static void keep_content(struct outcome *o, uint32_t i, const void *content, size_t bytes)
{
    o->content = realloc(o->content, o->content_bytes + bytes + 1);
    if (!o->content)
        abort();
    memcpy(o->content + o->content_bytes, content, bytes);
    o->content_bytes += bytes;
    o->bytes[i] = bytes;
}

static struct outcome parse(struct http_bed *bed, bool is_v2, const char *json, size_t json_bytes, const void *behind,
                            size_t behind_bytes)
{
    struct outcome o = {0};
    char *body = malloc(json_bytes + behind_bytes + 1);

    if (!body)
        abort();
    memcpy(body, json, json_bytes);
    if (behind_bytes > 0)
        memcpy(body + json_bytes, behind, behind_bytes);
    http_bed_request(bed, body, json_bytes + behind_bytes);
    free(body);
    struct xn_call *call = &bed->call;
    o.r = is_v2 ? xn_body_parse_v2(call->request, (int64_t)json_bytes, bed->regions, &call->ask, &o.error)
                : xn_body_parse_json(call->request, &call->ask, &o.error);
    o.ask = call->ask;
    for (uint32_t i = 0; o.r >= 0 && i < call->request->n_items; i++) {
        const struct xn_item *item = &call->request->items[i];
        o.is_picture[i] = item->encoded != NULL;
        keep_content(&o, i, item->encoded ? item->encoded : item->input,
                     item->encoded ? item->encoded_bytes : bed->network.input_bytes);
        o.n++;
    }
    return o;
}

/* A place in the document is another one in its twin. */
static bool same_text(const char *a, const char *b)
{
    static const char syntax[] = "JSON, line ";

    return strcmp(a, b) == 0 || (strncmp(a, syntax, strlen(syntax)) == 0 && strncmp(b, syntax, strlen(syntax)) == 0);
}

static bool same_ask(const struct xn_ask *a, const struct xn_ask *b)
{
    bool same = a->top_k == b->top_k && a->timeout_ns == b->timeout_ns && a->priority == b->priority &&
                strcmp(a->id, b->id) == 0 && a->n_outputs == b->n_outputs;

    for (uint32_t i = 0; same && i < a->n_outputs; i++)
        same = a->outputs[i].accumulators == b->outputs[i].accumulators &&
               a->outputs[i].binary == b->outputs[i].binary &&
               a->outputs[i].classification == b->outputs[i].classification &&
               a->outputs[i].shared == b->outputs[i].shared && a->outputs[i].shared_bytes == b->outputs[i].shared_bytes;
    return same;
}

bool numbers_twin_agrees(struct http_bed *bed, bool is_v2, const void *json, size_t json_bytes, const void *behind,
                         size_t behind_bytes, struct xn_error *ret_error)
{
    size_t twin_bytes;
    char *twin = make_twin(json, json_bytes, &twin_bytes);
    struct outcome a = parse(bed, is_v2, json, json_bytes, behind, behind_bytes);
    struct outcome b = parse(bed, is_v2, twin, twin_bytes, behind, behind_bytes);
    /* Numbers that are no tree need no memory for one. */
    bool is_lighter = a.r == 0 && (b.r == -E2BIG || b.r == -EAGAIN);

    bool same = a.r == b.r && (a.r >= 0 || same_text(a.error.text, b.error.text));
    same = same && (a.r < 0 || (same_ask(&a.ask, &b.ask) && a.n == b.n && a.content_bytes == b.content_bytes &&
                                memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0 &&
                                memcmp(a.is_picture, b.is_picture, sizeof(a.is_picture)) == 0 &&
                                (a.n == 0 || memcmp(a.content, b.content, a.content_bytes) == 0)));
    if (!same)
        (void)xn_error_set(ret_error, -EINVAL, "%d %.100s, and jansson %d %.100s", a.r, a.error.text, b.r,
                           b.error.text);
    free(twin);
    free(a.content);
    free(b.content);
    return same || is_lighter;
}
