/* SPDX-License-Identifier: Apache-2.0
 * The metadata: a JSON object that says what the network is called and how an image becomes its input. Every known
 * key is checked for type and range and named in the complaint; unknown keys are left to whoever knows them. The
 * parsed tree stays with the network, which points into it. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "model/internal.h"

#define FACTOR_MAX            (1 << 24) /* of multiplier and offset */
#define SHIFT_MAX             24
#define DESCRIPTION_BYTES_MAX 4096u /* of the licence too */

struct meta_reader {
    struct xn_network_storage *storage;
    struct xn_network *network;
    struct xn_error *error;
};

static int complain(const struct meta_reader *reader, const char *key, const char *format, ...) XN_PRINTF(3, 4);
static int complain(const struct meta_reader *reader, const char *key, const char *format, ...)
{
    char text[XN_ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return xn_error_set(reader->error, -EINVAL, "metadata: %s %s", key, text);
}

/* What a value is, in words, for complaints. */
static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

/* Text of at most `bytes_max` bytes with its NUL, on one line. */
static int read_text(const struct meta_reader *reader, const char *key, const json_t *value, size_t bytes_max,
                     const char **ret_text)
{
    if (!json_is_string(value))
        return complain(reader, key, "is %s, must be a string", type_name(value));
    const char *text = json_string_value(value);
    const size_t length = json_string_length(value);
    if (length >= bytes_max)
        return complain(reader, key, "has %zu bytes, must have %zu at most", length, bytes_max - 1);
    if (!xn_text_is_safe(text))
        return complain(reader, key, "has a control character");
    *ret_text = text;
    return 0;
}

static int read_integer(const struct meta_reader *reader, const char *key, const json_t *value, int64_t low,
                        int64_t high, int64_t *ret)
{
    if (!json_is_integer(value))
        return complain(reader, key, "is %s, must be an integer", type_name(value));
    const int64_t v = json_integer_value(value);
    if (v < low || v > high)
        return complain(reader, key, "is %" PRId64 ", must be %" PRId64 "..%" PRId64, v, low, high);
    *ret = v;
    return 0;
}

/* One of `n` words; gives its index. */
static int read_word(const struct meta_reader *reader, const char *key, const json_t *value, const char *const *words,
                     size_t n, size_t *ret_index)
{
    const char *text;
    const int e = read_text(reader, key, value, 64, &text);
    if (e < 0)
        return e;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    return complain(reader, key, "is \"%s\", must be \"%s\", \"%s\"%s%s%s", text, words[0], words[1],
                    n > 2 ? " or \"" : "", n > 2 ? words[2] : "", n > 2 ? "\"" : "");
}

/* [A-Za-z0-9._-], not starting with a dot: safe in URLs, file names, labels and terminals. */
static int read_name(const struct meta_reader *reader, const char *key, const json_t *value, char *ret_name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *text;
    const int e = read_text(reader, key, value, XN_MODEL_NAME_BYTES, &text);
    if (e < 0)
        return e;
    if (!*text || *text == '.' || text[strspn(text, allowed)])
        return complain(reader, key, "is \"%s\", must be letters, digits, '.', '_' or '-' and not begin with '.'",
                        text);
    strcpy(ret_name, text);
    return 0;
}

static int read_version(const struct meta_reader *reader)
{
    const json_t *value = json_object_get(reader->storage->meta, "version");
    const char *text = "1";
    const int e = value ? read_text(reader, "version", value, sizeof(reader->network->version), &text) : 0;
    if (e < 0)
        return e;
    if (!*text || text[strspn(text, "0123456789")])
        return complain(reader, "version", "is \"%s\", must be a decimal number", text);
    strcpy(reader->network->version, text);
    return 0;
}

static int read_description(const struct meta_reader *reader)
{
    const json_t *value = json_object_get(reader->storage->meta, "description");
    reader->network->description = "";
    if (!value)
        return 0;
    return read_text(reader, "description", value, DESCRIPTION_BYTES_MAX, &reader->network->description);
}

/* What the network does not need but shows: it must be what readers take it for. */
static int check_origin(const struct meta_reader *reader)
{
    const json_t *license = json_object_get(reader->storage->meta, "license");
    const json_t *provenance = json_object_get(reader->storage->meta, "provenance");
    const char *text;
    if (provenance && !json_is_object(provenance))
        return complain(reader, "provenance", "is %s, must be an object", type_name(provenance));
    return license ? read_text(reader, "license", license, DESCRIPTION_BYTES_MAX, &text) : 0;
}

static int read_labels(const struct meta_reader *reader)
{
    const json_t *labels = json_object_get(reader->storage->meta, "labels");
    const uint32_t n = reader->network->n_classes;
    if (!labels)
        return 0;
    if (!json_is_array(labels))
        return complain(reader, "labels", "is %s, must be an array", type_name(labels));
    if (json_array_size(labels) != n)
        return complain(reader, "labels", "has %zu entries, must have %u: one for each class", json_array_size(labels),
                        n);
    reader->storage->labels = xn_calloc(n, sizeof(*reader->storage->labels));
    if (!reader->storage->labels)
        return xn_error_set(reader->error, -ENOMEM, "no memory for %u labels", n);
    for (uint32_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof(key), "labels[%u]", i);
        const int e =
            read_text(reader, key, json_array_get(labels, i), XN_LABEL_BYTES_MAX, &reader->storage->labels[i]);
        if (e < 0)
            return e;
    }
    reader->network->labels = reader->storage->labels;
    return 0;
}

/* `n` integers within +-FACTOR_MAX, one for each channel. */
static int read_factors(const struct meta_reader *reader, const char *key, const json_t *value, uint32_t n,
                        int32_t *ret)
{
    if (!value)
        return 0;
    if (!json_is_array(value) || json_array_size(value) != n)
        return complain(reader, key, "must be an array of %u integers, one for each channel", n);
    for (uint32_t i = 0; i < n; i++) {
        int64_t v;
        const int e = read_integer(reader, key, json_array_get(value, i), -FACTOR_MAX, FACTOR_MAX, &v);
        if (e < 0)
            return e;
        ret[i] = (int32_t)v;
    }
    return 0;
}

static bool is_identity(const struct xn_input_spec *spec)
{
    bool identity = spec->dtype == XN_DTYPE_U8 && spec->shift == 0;
    for (uint32_t c = 0; c < spec->channels; c++)
        identity = identity && spec->multiplier[c] == 1 && spec->offset[c] == 0;
    return identity;
}

static int read_normalisation(const struct meta_reader *reader, const json_t *image)
{
    struct xn_input_spec *spec = &reader->network->input;
    const json_t *shift = json_object_get(image, "shift");
    int64_t n = 0;
    for (uint32_t c = 0; c < XN_ARRAY_LEN(spec->multiplier); c++)
        spec->multiplier[c] = 1;
    int e = read_factors(reader, "input.image.multiplier", json_object_get(image, "multiplier"), spec->channels,
                         spec->multiplier);
    if (e == 0)
        e = read_factors(reader, "input.image.offset", json_object_get(image, "offset"), spec->channels, spec->offset);
    if (e == 0 && shift)
        e = read_integer(reader, "input.image.shift", shift, 0, SHIFT_MAX, &n);
    spec->shift = (uint32_t)n;
    spec->identity = is_identity(spec);
    return e;
}

static int read_image(const struct meta_reader *reader, const json_t *image)
{
    static const char *const colors[] = {"gray", "rgb"}, *const fits[] = {"stretch", "crop", "pad"};
    static const uint32_t channels[] = {1, 3};
    struct xn_input_spec *spec = &reader->network->input;
    size_t color = 0, fit = 0;
    if (!json_is_object(image))
        return complain(reader, "input.image", "is %s, must be an object", type_name(image));
    const json_t *color_value = json_object_get(image, "color"), *fit_value = json_object_get(image, "fit");
    if (!color_value)
        return complain(reader, "input.image.color", "is missing, must be \"gray\" or \"rgb\"");
    int e = read_word(reader, "input.image.color", color_value, colors, XN_ARRAY_LEN(colors), &color);
    if (e == 0 && fit_value)
        e = read_word(reader, "input.image.fit", fit_value, fits, XN_ARRAY_LEN(fits), &fit);
    if (e < 0)
        return e;
    if (channels[color] != spec->channels)
        return complain(reader, "input.image.color", "is \"%s\", which has %u channels: the input has %u",
                        colors[color], channels[color], spec->channels);
    spec->is_image = true;
    spec->fit = (enum xn_resize_fit)fit;
    return read_normalisation(reader, image);
}

/* The shape is in the header; where the metadata repeat it they must agree. */
static int check_shape(const struct meta_reader *reader, const json_t *shape)
{
    const struct xn_input_spec *spec = &reader->network->input;
    const uint32_t want[3] = {spec->h, spec->w, spec->channels};
    if (!json_is_array(shape) || json_array_size(shape) != 3)
        return complain(reader, "input.shape", "must be an array of 3 integers: [height, width, channels]");
    for (size_t i = 0; i < 3; i++) {
        int64_t v;
        const int e = read_integer(reader, "input.shape", json_array_get(shape, i), 1, XN_CHANNELS_MAX, &v);
        if (e < 0)
            return e;
        if (v != want[i])
            return complain(reader, "input.shape", "has %" PRId64 " at %zu, the header says %ux%ux%u", v, i, spec->h,
                            spec->w, spec->channels);
    }
    return 0;
}

static int check_dtype(const struct meta_reader *reader, const json_t *value)
{
    const char *text, *want = xn_dtype_name(reader->network->input.dtype);
    const int e = read_text(reader, "input.dtype", value, 16, &text);
    if (e == 0 && strcmp(text, want) != 0)
        return complain(reader, "input.dtype", "is \"%s\", the header says \"%s\"", text, want);
    return e;
}

static int read_input(const struct meta_reader *reader)
{
    const struct xn_value *x = &reader->storage->values[0];
    const json_t *input = json_object_get(reader->storage->meta, "input"), *value;
    reader->network->input = (struct xn_input_spec){.h = x->h, .w = x->w, .channels = x->c, .dtype = x->dtype};
    strcpy(reader->network->input_name, "input");
    if (!input)
        return 0;
    if (!json_is_object(input))
        return complain(reader, "input", "is %s, must be an object", type_name(input));
    int e = 0;
    if ((value = json_object_get(input, "name")))
        e = read_name(reader, "input.name", value, reader->network->input_name);
    if (e == 0 && (value = json_object_get(input, "shape")))
        e = check_shape(reader, value);
    if (e == 0 && (value = json_object_get(input, "dtype")))
        e = check_dtype(reader, value);
    if (e == 0 && (value = json_object_get(input, "image")))
        e = read_image(reader, value);
    return e;
}

static int parse_json(const struct meta_reader *reader)
{
    struct xn_network_storage *storage = reader->storage;
    const size_t bytes = storage->header.meta_bytes;
    json_error_t why;
    storage->meta_json = xn_calloc(bytes + 1, 1);
    if (!storage->meta_json)
        return xn_error_set(reader->error, -ENOMEM, "no memory for %zu bytes of metadata", bytes);
    memcpy(storage->meta_json, storage->file + storage->header.meta_offset, bytes);
    reader->network->meta_json = storage->meta_json;
    reader->network->meta_bytes = bytes;
    storage->meta = json_loadb(storage->meta_json, bytes, JSON_REJECT_DUPLICATES, &why);
    const bool no_memory = !why.text[0] || json_error_code(&why) == json_error_out_of_memory;
    if (!storage->meta && no_memory) /* where its own allocation fails, jansson says nothing at all */
        return xn_error_set(reader->error, -ENOMEM, "no memory to parse %zu bytes of metadata", bytes);
    if (!storage->meta)
        return xn_error_set(reader->error, -EINVAL, "metadata: line %d, column %d: %s", why.line, why.column, why.text);
    if (!json_is_object(storage->meta))
        return xn_error_set(reader->error, -EINVAL, "metadata: is %s, must be an object", type_name(storage->meta));
    return 0;
}

int xn_meta_read(struct xn_network_storage *storage, struct xn_error *error)
{
    const struct meta_reader reader = {.storage = storage, .network = &storage->network, .error = error};
    int e = parse_json(&reader);
    if (e < 0)
        return e;
    const json_t *name = json_object_get(storage->meta, "name");
    if (!name)
        return complain(&reader, "name", "is missing");
    e = read_name(&reader, "name", name, storage->network.name);
    if (e == 0)
        e = read_version(&reader);
    if (e == 0)
        e = read_description(&reader);
    if (e == 0)
        e = check_origin(&reader);
    if (e == 0)
        e = read_labels(&reader);
    if (e == 0)
        e = read_input(&reader);
    return e;
}
