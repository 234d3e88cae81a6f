/* SPDX-License-Identifier: Apache-2.0
 * Bodies of POST /infer. Images and tensors are used where they lie in the body; only JSON has to be converted. */
#include "daemon/http/body.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <nettle/base64.h>

#include "common/clock.h"
#include "daemon/http/multipart.h"
#include "daemon/image/image.h"

/* Deeper nesting than a batch of [h][w][c] is no tensor of ours. */
#define NESTING_MAX 5

int xn_body_init_items(struct xn_request *request, size_t n, struct xn_error *error)
{
    int r = n > UINT32_MAX ? -E2BIG : xn_request_items_init(request, (uint32_t)n);

    if (r == -E2BIG)
        return xn_error_set(error, r, "%zu images in one request are more than limits.images_per_request allows", n);
    if (r < 0)
        return xn_error_set(error, -EAGAIN, "no buffer is free for %zu tensors; try again later", n);
    return 0;
}

int xn_body_set_item(struct xn_request *request, uint32_t i, const void *data, size_t bytes, struct xn_error *error)
{
    const struct xn_network *network = request->model->network;
    const struct xn_input_spec *spec = &network->input;
    struct xn_item *item = &request->items[i];

    if (xn_image_sniff(data, bytes) != XN_IMAGE_UNKNOWN) {
        if (!spec->is_image)
            return xn_error_set(error, -EMEDIUMTYPE, "model %s takes tensors of %zu bytes, not pictures",
                                request->model->name, network->input_bytes);
        item->encoded = data;
        item->encoded_bytes = bytes;
        return 0;
    }
    if (bytes != network->input_bytes)
        return xn_error_set(
            error, bytes == 0 ? -EINVAL : -EMEDIUMTYPE,
            "%zu bytes are neither a JPEG nor a PNG, nor a tensor of model %s: [%u][%u][%u] %s, %zu bytes", bytes,
            request->model->name, spec->h, spec->w, spec->channels, xn_dtype_name(spec->dtype), network->input_bytes);
    /* The accelerator reads it in place; it is not written. */
    item->input = (void *)(uintptr_t)data;
    return 0;
}

int xn_body_parse_plain(struct xn_request *request, struct xn_error *error)
{
    const uint8_t *data = request->body.data;
    size_t tensor_bytes = request->model->network->input_bytes;
    bool image = xn_image_sniff(data, request->body_bytes) != XN_IMAGE_UNKNOWN;
    size_t n = !image && request->body_bytes > 0 && request->body_bytes % tensor_bytes == 0
                   ? request->body_bytes / tensor_bytes
                   : 1;

    if (request->body_bytes == 0)
        return xn_error_set(error, -EINVAL,
                            "the body is empty; send a JPEG, a PNG, a tensor, multipart/form-data or JSON");
    int r = xn_body_init_items(request, n, error);
    for (size_t i = 0; r >= 0 && i < n; i++)
        r = xn_body_set_item(request, (uint32_t)i, data + i * tensor_bytes, n > 1 ? tensor_bytes : request->body_bytes,
                             error);
    return r;
}

int xn_body_parse_multipart(struct xn_request *request, const char *content_type, struct xn_error *error)
{
    struct xn_multipart m;
    struct xn_part part;
    size_t n = 0;

    int r = xn_multipart_init(&m, content_type, request->body.data, request->body_bytes, error);
    if (r < 0)
        return r;
    const char *first = m.at;
    while ((r = xn_multipart_next(&m, &part, error)) > 0)
        n++;
    if (r < 0)
        return r;
    if (n == 0)
        return xn_error_set(error, -EINVAL, "multipart body: no part in it");
    r = xn_body_init_items(request, n, error);
    m.at = first;
    for (uint32_t i = 0; r >= 0 && i < n; i++) {
        if (xn_multipart_next(&m, &part, error) <= 0)
            return -EINVAL;
        r = xn_body_set_item(request, i, part.data, part.bytes, error);
        if (r < 0)
            xn_error_prefix(error, r, "part %u", i);
    }
    return r;
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

int xn_body_load_json(const void *data, size_t bytes, json_t **ret_object, struct xn_error *error)
{
    json_error_t where;
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &where);

    if (!root)
        return xn_error_set(error, -EINVAL, "JSON, line %d, column %d: %s", where.line, where.column, where.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return xn_error_set(error, -EINVAL, "the JSON body must be an object");
    }
    *ret_object = root;
    return 0;
}

static int put_number(const json_t *value, const struct xn_input_spec *spec, const char *what, size_t at, uint8_t *ret,
                      struct xn_error *error)
{
    int64_t low = spec->dtype == XN_DTYPE_U8 ? 0 : -128, high = spec->dtype == XN_DTYPE_U8 ? 255 : 127;
    double number = json_number_value(value);

    if (!json_is_number(value) || !(number >= (double)low && number <= (double)high) || number != floor(number))
        return xn_error_set(error, -EINVAL, "%s: element %zu is not a whole number from %" PRId64 " to %" PRId64, what,
                            at, low, high);
    *ret = (uint8_t)(int64_t)number;
    return 0;
}

/* Depth first over nested arrays with an explicit stack: the elements in row-major order. */
int xn_body_numbers(const json_t *array, const struct xn_input_spec *spec, const char *what, void *ret, size_t count,
                    struct xn_error *error)
{
    struct {
        const json_t *array;
        size_t next;
    } stack[NESTING_MAX] = {{array, 0}};
    size_t depth = 1, n = 0;
    uint8_t *out = ret;

    if (!json_is_array(array))
        return xn_error_set(error, -EINVAL, "%s: must be an array of numbers", what);
    while (depth > 0) {
        const json_t *value = json_array_get(stack[depth - 1].array, stack[depth - 1].next++);
        if (!value) {
            depth--;
        } else if (json_is_array(value)) {
            if (depth == NESTING_MAX)
                return xn_error_set(error, -EINVAL, "%s: nested deeper than %d", what, NESTING_MAX);
            stack[depth].array = value;
            stack[depth++].next = 0;
        } else {
            if (n == count)
                return xn_error_set(error, -EINVAL, "%s: more than the %zu elements that the model takes", what, count);
            int r = put_number(value, spec, what, n, &out[n], error);
            if (r < 0)
                return r;
            n++;
        }
    }
    if (n != count)
        return xn_error_set(error, -EINVAL, "%s: %zu elements, the model takes %zu", what, n, count);
    return 0;
}

/* Decoded pictures lie where their base64 text came from: it is longer, and has been copied by the JSON parser. */
static int put_base64(struct xn_request *request, uint32_t i, const json_t *value, uint8_t **at, struct xn_error *error)
{
    struct base64_decode_ctx ctx;
    size_t room = (size_t)(request->body.data + request->body.capacity_bytes - *at);
    size_t length = json_string_length(value), decoded = room;

    if (!json_is_string(value))
        return xn_error_set(error, -EINVAL, "image %u: must be a string of base64", i);
    if (BASE64_DECODE_LENGTH(length) > room)
        return xn_error_set(error, -EINVAL, "image %u: base64 longer than the body", i);
    base64_decode_init(&ctx);
    if (!base64_decode_update(&ctx, &decoded, *at, length, json_string_value(value)) || !base64_decode_final(&ctx))
        return xn_error_set(error, -EINVAL, "image %u: not valid base64", i);
    uint8_t *data = *at;
    *at += decoded;
    int r = xn_body_set_item(request, i, data, decoded, error);
    return r < 0 ? xn_error_prefix(error, r, "image %u", i) : 0;
}

static int put_images(struct xn_request *request, const json_t *array, struct xn_error *error)
{
    uint8_t *at = request->body.data;
    size_t n = json_array_size(array);

    int r = xn_body_init_items(request, n, error);
    for (uint32_t i = 0; r >= 0 && i < n; i++)
        r = put_base64(request, i, json_array_get(array, i), &at, error);
    return r;
}

static int put_tensors(struct xn_request *request, const json_t *array, struct xn_error *error)
{
    const struct xn_network *network = request->model->network;
    size_t n = json_array_size(array);
    char what[32];

    int r = xn_body_init_items(request, n, error);
    for (uint32_t i = 0; r >= 0 && i < n; i++) {
        snprintf(what, sizeof(what), "tensor %u", i);
        r = xn_body_numbers(json_array_get(array, i), &network->input, what, request->items[i].input,
                            network->input_bytes, error);
    }
    return r;
}

static int read_uint(const json_t *value, const char *key, uint64_t max, uint64_t *ret, struct xn_error *error)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1 || (uint64_t)json_integer_value(value) > max)
        return xn_error_set(error, -EINVAL, "%s: must be a whole number from 1 to %" PRIu64, key, max);
    *ret = (uint64_t)json_integer_value(value);
    return 0;
}

/* Options, and which one of the four kinds of content there is. */
static int read_keys(json_t *root, struct xn_ask *ask, const char **ret_kind, struct xn_error *error)
{
    const char *key;
    json_t *value;
    uint64_t number;
    int r = 0;

    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "top_k") == 0) {
            r = read_uint(value, key, XN_TOP_K_MAX, &number, error);
            if (r >= 0)
                ask->top_k = (uint32_t)number;
        } else if (strcmp(key, "timeout_ms") == 0) {
            r = read_uint(value, key, XN_TIMEOUT_MS_MAX, &number, error);
            if (r >= 0)
                ask->timeout_ns = number * XN_NS_PER_MS;
        } else if (strcmp(key, "image") == 0 || strcmp(key, "images") == 0 || strcmp(key, "tensor") == 0 ||
                   strcmp(key, "tensors") == 0) {
            if (*ret_kind)
                return xn_error_set(error, -EINVAL, "\"%s\" and \"%s\" in one request: choose one", *ret_kind, key);
            *ret_kind = key;
        } else {
            return xn_error_set(error, -EINVAL,
                                "unknown key \"%.64s\"; known: image, images, tensor, tensors, top_k, timeout_ms", key);
        }
        if (r < 0)
            return r;
    }
    if (!*ret_kind)
        return xn_error_set(error, -EINVAL, "no \"image\", \"images\", \"tensor\" or \"tensors\" in the request");
    return 0;
}

static int parse_json_object(struct xn_request *request, json_t *root, struct xn_ask *ask, struct xn_error *error)
{
    const char *kind = NULL;
    int r = read_keys(root, ask, &kind, error);

    if (r < 0)
        return r;
    json_t *content = json_object_get(root, kind);
    bool one = kind[strlen(kind) - 1] != 's';
    json_t *array = one ? json_pack("[O]", content) : json_incref(content);
    if (!json_is_array(array) || json_array_size(array) == 0)
        r = xn_error_set(error, -EINVAL, "\"%s\" must be an array that is not empty", kind);
    else
        r = kind[0] == 'i' ? put_images(request, array, error) : put_tensors(request, array, error);
    json_decref(array);
    return r;
}

int xn_body_parse_json(struct xn_request *request, struct xn_ask *ask, struct xn_error *error)
{
    json_t *root;
    int r = xn_body_load_json(request->body.data, request->body_bytes, &root, error);

    if (r < 0)
        return r;
    r = parse_json_object(request, root, ask, error);
    json_decref(root);
    return r;
}
