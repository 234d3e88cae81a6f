/* SPDX-License-Identifier: Apache-2.0
 * Bodies of POST /infer. Images and tensors are used where they lie in the body; only JSON has to be converted. */
#include "daemon/http/body.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <nettle/base64.h>

#include "common/clock.h"
#include "daemon/http/multipart.h"
#include "daemon/image/image.h"

int xn_body_init_items(struct xn_request *request, size_t n, struct xn_error *error)
{
    int r = n > UINT32_MAX ? -E2BIG : xn_request_items_init(request, (uint32_t)n);

    if (r == -E2BIG)
        return xn_error_set(
            error, r, "%zu images in one request are more than limits.images_per_request, or a buffer, allows", n);
    if (r < 0)
        return xn_error_set(error, -EAGAIN, "no buffer is free for %zu tensors; try again later", n);
    return 0;
}

/* Pictures that are known, and not decoded here: told by name, and with another status than a tensor of the wrong size. */
static const char *foreign_picture(const uint8_t *data, size_t bytes)
{
    static const struct {
        const char *name;
        size_t at, n;
        const char *magic;
    } formats[] = {
        {"GIF", 0, 4, "GIF8"},          {"WebP", 8, 4, "WEBP"},      {"TIFF", 0, 4, "II*\0"}, {"TIFF", 0, 4, "MM\0*"},
        {"HEIF or AVIF", 4, 4, "ftyp"}, {"JPEG 2000", 4, 4, "jP  "}, {"BMP", 0, 2, "BM"},
    };

    for (size_t i = 0; i < XN_ARRAY_LEN(formats); i++) {
        if (bytes >= formats[i].at + formats[i].n && memcmp(data + formats[i].at, formats[i].magic, formats[i].n) == 0)
            return formats[i].name;
    }
    return NULL;
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
    if (bytes == network->input_bytes) {
        item->input = (void *)(uintptr_t)data; /* the accelerator reads it in place; it is not written */
        return 0;
    }
    const char *format = foreign_picture(data, bytes);
    if (format)
        return xn_error_set(error, -EMEDIUMTYPE, "%s pictures are not supported; send JPEG or PNG", format);
    return xn_error_set(error, -EINVAL,
                        "%zu bytes are neither a JPEG nor a PNG, nor a tensor of model %s: [%u][%u][%u] %s, %zu bytes",
                        bytes, request->model->name, spec->h, spec->w, spec->channels, xn_dtype_name(spec->dtype),
                        network->input_bytes);
}

int xn_body_parse_plain(struct xn_request *request, const char *content_type, struct xn_error *error)
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
    for (size_t i = 0; r >= 0 && i < n; i++) {
        if (n > 1) /* tensors in a row: a later one may well begin like a JPEG */
            request->items[i].input = (void *)(uintptr_t)(data + i * tensor_bytes);
        else
            r = xn_body_set_item(request, 0, data, request->body_bytes, error);
    }
    /* What was sent as a picture and is none: another medium than we take, rather than a tensor of the wrong size. */
    return r == -EINVAL && content_type && strncasecmp(content_type, "image/", 6) == 0 ? -EMEDIUMTYPE : r;
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

/* Taken from its first elements. */
static int find_shape(const json_t *array, const char *what, struct xn_shape *ret, struct xn_error *error)
{
    ret->rank = 0;
    if (!json_is_array(array))
        return xn_error_set(error, -EINVAL, "%s: must be an array of numbers", what);
    for (; json_is_array(array); array = json_array_get(array, 0)) {
        if (ret->rank == XN_NESTING_MAX)
            return xn_error_set(error, -EINVAL, "%s: nested deeper than %u", what, XN_NESTING_MAX);
        ret->size[ret->rank++] = json_array_size(array);
    }
    return 0;
}

static int shape_error(const struct xn_shape *shape, const struct xn_input_spec *spec, uint32_t n, size_t count,
                       const char *what, struct xn_error *error)
{
    char text[XN_NESTING_MAX * 22 + 1] = "";
    size_t used = 0;

    for (size_t i = 0; i < shape->rank; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "[%zu]", shape->size[i]);
    return xn_error_set(error, -EINVAL, "%s: has shape %s; must be flat [%zu], or [%u][%u][%u][%u]", what, text, count,
                        n, spec->h, spec->w, spec->channels);
}

/* Depth first over nested arrays with an explicit stack: the elements in row-major order. Every level is as long as its first array, so the
 * count needs no further check. */
int xn_body_numbers(struct xn_request *request, const json_t *array, uint32_t first, uint32_t n, const char *what,
                    struct xn_error *error)
{
    const struct xn_network *network = request->model->network;
    const struct xn_input_spec *spec = &network->input;
    size_t one = network->input_bytes, count, at = 0, depth = 1, next[XN_NESTING_MAX] = {0};
    const json_t *arrays[XN_NESTING_MAX] = {array};
    struct xn_shape shape;

    int r = find_shape(array, what, &shape, error);
    if (r >= 0 && (!xn_mul_size(one, n, &count) || !xn_shape_fits(&shape, spec, n, count)))
        r = shape_error(&shape, spec, n, one * n, what, error);
    while (r >= 0 && depth > 0) {
        const json_t *value = json_array_get(arrays[depth - 1], next[depth - 1]++);
        if (!value) {
            depth--;
        } else if (depth < shape.rank) {
            if (json_array_size(value) != shape.size[depth])
                return xn_error_set(error, -EINVAL, "%s: not rectangular: at element %zu, an array of %zu is expected",
                                    what, at, shape.size[depth]);
            arrays[depth] = value;
            next[depth++] = 0;
        } else {
            uint8_t *input = request->items[first + at / one].input;
            r = put_number(value, spec, what, at, &input[at % one], error);
            at++;
        }
    }
    return r;
}

/* Decoded pictures lie where their base64 text came from: it is longer, and has been copied by the JSON parser. */
int xn_body_base64(struct xn_request *request, uint32_t i, const json_t *value, uint8_t **at, struct xn_error *error)
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

/* Element i of "images" or "tensors", or the one "image" or "tensor". */
static const json_t *element(const json_t *content, bool one, size_t i)
{
    return one ? content : json_array_get(content, i);
}

static int put_images(struct xn_request *request, const json_t *content, bool one, struct xn_error *error)
{
    uint8_t *at = request->body.data;
    int r = 0;

    for (uint32_t i = 0; r >= 0 && i < request->n_items; i++)
        r = xn_body_base64(request, i, element(content, one, i), &at, error);
    return r;
}

static int put_tensors(struct xn_request *request, const json_t *content, bool one, struct xn_error *error)
{
    char what[32];
    int r = 0;

    for (uint32_t i = 0; r >= 0 && i < request->n_items; i++) {
        snprintf(what, sizeof(what), "tensor %u", i);
        r = xn_body_numbers(request, element(content, one, i), i, 1, what, error);
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
        } else if (strcmp(key, "priority") == 0) {
            r = read_uint(value, key, UINT32_MAX, &number, error);
            if (r >= 0)
                ask->priority = xn_ask_priority(number);
        } else if (strcmp(key, "image") == 0 || strcmp(key, "images") == 0 || strcmp(key, "tensor") == 0 ||
                   strcmp(key, "tensors") == 0) {
            if (*ret_kind)
                return xn_error_set(error, -EINVAL, "\"%s\" and \"%s\" in one request: choose one", *ret_kind, key);
            *ret_kind = key;
        } else {
            return xn_error_set(
                error, -EINVAL,
                "unknown key \"%.64s\"; known: image, images, tensor, tensors, top_k, timeout_ms, priority", key);
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
    const json_t *content = json_object_get(root, kind);
    bool one = kind[strlen(kind) - 1] != 's';
    size_t n = one ? 1 : json_array_size(content);
    if (n == 0)
        return xn_error_set(error, -EINVAL, "\"%s\" must be an array that is not empty", kind);
    r = xn_body_init_items(request, n, error);
    if (r < 0)
        return r;
    return kind[0] == 'i' ? put_images(request, content, one, error) : put_tensors(request, content, one, error);
}

static int parse_whole(struct xn_request *request, struct xn_ask *ask, struct xn_error *error)
{
    json_t *root;
    int r = xn_body_load_json(request->body.data, request->body_bytes, NULL, &root, error);

    if (r < 0)
        return r;
    r = parse_json_object(request, root, ask, error);
    xn_body_free_json(root);
    return r;
}

/* What a body asks for whose tensors were found. False: not all is right with it. */
static bool read_rest(const struct xn_request *request, const struct xn_numbers *numbers, struct xn_ask *ask)
{
    struct xn_error error;
    const char *kind = NULL;
    json_t *root;

    if (xn_body_load_json(request->body.data, request->body_bytes, numbers, &root, &error) < 0)
        return false;
    bool is_right = read_keys(root, ask, &kind, &error) >= 0;
    xn_body_free_json(root);
    return is_right;
}

int xn_body_parse_json(struct xn_request *request, struct xn_ask *ask, struct xn_error *error)
{
    const void *body = request->body.data;
    struct xn_ask asked = *ask;
    struct xn_numbers numbers;

    bool found = xn_numbers_find(body, request->body_bytes, XN_NUMBERS_INFER, &numbers);
    size_t n = found && numbers.is_list ? numbers.shape.size[0] : 1;
    if (!found || !xn_numbers_fit(&numbers, request->model->network, n) || !read_rest(request, &numbers, &asked))
        return parse_whole(request, ask, error);
    *ask = asked;
    int r = xn_body_init_items(request, n, error);
    if (r >= 0)
        xn_numbers_put(&numbers, request);
    return r;
}
