/* SPDX-License-Identifier: Apache-2.0
 * Bodies of the Open Inference Protocol's infer: JSON, and the binary tensor extension (JSON of Inference-Header-Content-Length bytes, then the tensors
 * in listed order). A network has one input; it may come as a tensor [n,h,w,c] of its own type, or, for image networks, as BYTES [n], each element an
 * encoded picture. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "daemon/http/body.h"

struct tensor {            /* one input, as described */
    size_t n;              /* batch */
    bool bytes;            /* BYTES: encoded pictures */
    const uint8_t *binary; /* its bytes behind the JSON; NULL: `data` */
    size_t binary_bytes;
    const json_t *data;
};

static const char *v2_datatype(enum xn_dtype dtype)
{
    return dtype == XN_DTYPE_U8 ? "UINT8" : "INT8";
}

/* Shape: [n,h,w,c], or [h,w,c] for one image; BYTES: [n] or [n,1]. */
static int read_shape(const json_t *input, const struct xn_network *network, struct tensor *t, struct xn_error *error)
{
    const struct xn_input_spec *spec = &network->input;
    const json_t *shape = json_object_get(input, "shape");
    int64_t dims[4] = {1, 1, 1, 1};
    size_t rank = json_array_size(shape);

    if (!json_is_array(shape) || rank < 1 || rank > 4)
        return xn_error_set(error, -EINVAL, "inputs[0].shape: must be an array of 1 to 4 numbers");
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1 || json_integer_value(dim) > INT32_MAX)
            return xn_error_set(error, -EINVAL, "inputs[0].shape[%zu]: must be a whole number of at least 1", i);
        dims[i] = json_integer_value(dim);
    }
    t->n = rank == 3 ? 1 : (size_t)dims[0];
    const int64_t *hwc = rank == 3 ? dims : dims + 1;
    bool fits = t->bytes ? rank <= 2 && dims[1] == 1
                         : rank >= 3 && hwc[0] == spec->h && hwc[1] == spec->w && hwc[2] == spec->channels;
    if (!fits)
        return xn_error_set(error, -EINVAL,
                            t->bytes ? "inputs[0].shape: BYTES has shape [n]" : "inputs[0].shape: must be [n,%u,%u,%u]",
                            spec->h, spec->w, spec->channels);
    return 0;
}

static int read_datatype(const json_t *input, const struct xn_network *network, struct tensor *t,
                         struct xn_error *error)
{
    const char *datatype = json_string_value(json_object_get(input, "datatype"));
    const char *own = v2_datatype(network->input.dtype);

    t->bytes = datatype && strcmp(datatype, "BYTES") == 0 && network->input.is_image;
    if (!datatype || (!t->bytes && strcmp(datatype, own) != 0))
        return xn_error_set(error, -EINVAL, "inputs[0].datatype: must be %s%s, is %.32s", own,
                            network->input.is_image ? " or BYTES (JPEG or PNG)" : "", datatype ? datatype : "missing");
    return 0;
}

/* Exactly one of data and binary_data_size; the binary bytes are what follows the JSON. */
static int read_source(const json_t *input, const uint8_t *binary, size_t binary_bytes, struct tensor *t,
                       struct xn_error *error)
{
    const json_t *parameters = json_object_get(input, "parameters");
    const json_t *size = json_object_get(parameters, "binary_data_size");

    t->data = json_object_get(input, "data");
    if (json_object_get(parameters, "shared_memory_region"))
        return xn_error_set(error, -EOPNOTSUPP, "inputs[0]: shared memory is not supported by this server");
    if (!t->data == !size)
        return xn_error_set(error, -EINVAL, "inputs[0]: must have exactly one of data and parameters.binary_data_size");
    if (t->data && binary_bytes > 0)
        return xn_error_set(error, -EINVAL, "%zu bytes follow the JSON, but no input has a binary_data_size",
                            binary_bytes);
    if (t->data)
        return 0;
    if (!json_is_integer(size) || json_integer_value(size) < 0 || (uint64_t)json_integer_value(size) != binary_bytes)
        return xn_error_set(error, -EINVAL,
                            "inputs[0].parameters.binary_data_size: %zu bytes follow the JSON, it says %" PRId64,
                            binary_bytes, (int64_t)json_integer_value(size));
    t->binary = binary;
    t->binary_bytes = binary_bytes;
    return 0;
}

static int read_input(const json_t *root, const struct xn_network *network, const uint8_t *binary, size_t binary_bytes,
                      struct tensor *t, struct xn_error *error)
{
    const json_t *inputs = json_object_get(root, "inputs"), *input = json_array_get(inputs, 0);
    const char *name = json_string_value(json_object_get(input, "name"));

    if (!json_is_array(inputs) || json_array_size(inputs) != 1 || !json_is_object(input))
        return xn_error_set(error, -EINVAL, "inputs: must be an array of one object: the network has one input");
    if (!name || strcmp(name, network->input_name) != 0)
        return xn_error_set(error, -EINVAL, "inputs[0].name: must be \"%s\", is \"%.64s\"", network->input_name,
                            name ? name : "");
    int r = read_datatype(input, network, t, error);
    if (r >= 0)
        r = read_shape(input, network, t, error);
    return r < 0 ? r : read_source(input, binary, binary_bytes, t, error);
}

/* ---- contents ----------------------------------------------------------------------------------------------------- */

static int put_binary_tensor(struct xn_request *request, const struct tensor *t, struct xn_error *error)
{
    size_t one = request->model->network->input_bytes, all;

    if (!xn_mul_size(one, t->n, &all) || all != t->binary_bytes)
        return xn_error_set(error, -EINVAL, "inputs[0]: %zu tensors of %zu bytes expected, %zu bytes came", t->n, one,
                            t->binary_bytes);
    for (uint32_t i = 0; i < t->n; i++)
        request->items[i].input = (void *)(uintptr_t)(t->binary + i * one);
    return 0;
}

/* u32 length and that many bytes, for each element. */
static int put_binary_pictures(struct xn_request *request, const struct tensor *t, struct xn_error *error)
{
    const uint8_t *at = t->binary, *end = at + t->binary_bytes;

    for (uint32_t i = 0; i < t->n; i++) {
        size_t left = (size_t)(end - at), length = 0;
        for (int k = 3; left >= 4 && k >= 0; k--)
            length = length << 8 | at[k];
        if (left < 4 || length > left - 4)
            return xn_error_set(error, -EINVAL, "inputs[0]: element %u of %zu is cut short", i, t->n);
        int r = xn_body_set_item(request, i, at + 4, length, error);
        if (r < 0)
            return xn_error_prefix(error, r, "inputs[0], element %u", i);
        at += 4 + length;
    }
    return at == end ? 0
                     : xn_error_set(error, -EINVAL, "inputs[0]: %zu bytes too many after %zu elements",
                                    (size_t)(end - at), t->n);
}

static int put_contents(struct xn_request *request, const struct tensor *t, struct xn_error *error)
{
    int r = xn_body_init_items(request, t->n, error);

    if (r < 0)
        return r;
    if (t->bytes && !t->binary)
        return xn_error_set(error, -EINVAL,
                            "inputs[0]: BYTES with pictures need the binary tensor extension (binary_data_size)");
    if (t->bytes)
        return put_binary_pictures(request, t, error);
    if (t->binary)
        return put_binary_tensor(request, t, error);
    return xn_body_numbers(request, t->data, 0, (uint32_t)t->n, "inputs[0].data", error);
}

/* ---- what is asked for -------------------------------------------------------------------------------------------- */

static int read_output(const json_t *output, bool binary_default, size_t i, struct xn_ask *ask, struct xn_error *error)
{
    const char *name = json_string_value(json_object_get(output, "name"));
    const json_t *parameters = json_object_get(output, "parameters");
    const json_t *binary = json_object_get(parameters, "binary_data");

    if (!name || (strcmp(name, "logits") != 0 && strcmp(name, "accumulators") != 0))
        return xn_error_set(error, -EINVAL, "outputs[%zu].name: must be \"logits\" or \"accumulators\"", i);
    if (binary && !json_is_boolean(binary))
        return xn_error_set(error, -EINVAL, "outputs[%zu].parameters.binary_data: must be true or false", i);
    if (json_object_get(parameters, "classification") || json_object_get(parameters, "shared_memory_region"))
        return xn_error_set(error, -EOPNOTSUPP,
                            "outputs[%zu]: classification and shared memory are not supported by this server", i);
    ask->outputs[ask->n_outputs++] = (struct xn_ask_output){.accumulators = name[0] == 'a',
                                                            .binary = binary ? json_is_true(binary) : binary_default};
    return 0;
}

static int read_outputs(const json_t *root, struct xn_ask *ask, struct xn_error *error)
{
    const json_t *outputs = json_object_get(root, "outputs");
    bool binary = json_is_true(json_object_get(json_object_get(root, "parameters"), "binary_data_output"));
    size_t n = json_array_size(outputs);

    if (outputs && (!json_is_array(outputs) || n > XN_ARRAY_LEN(ask->outputs)))
        return xn_error_set(error, -EINVAL, "outputs: must be an array of at most 2 objects: logits, accumulators");
    for (size_t i = 0; i < n; i++) {
        int r = read_output(json_array_get(outputs, i), binary, i, ask, error);
        if (r < 0)
            return r;
    }
    if (n == 2 && ask->outputs[0].accumulators == ask->outputs[1].accumulators)
        return xn_error_set(error, -EINVAL, "outputs: the same output twice");
    if (n == 0) {
        ask->outputs[0] = (struct xn_ask_output){.accumulators = false, .binary = binary};
        ask->outputs[1] = (struct xn_ask_output){.accumulators = true, .binary = binary};
        ask->n_outputs = 2;
    }
    return 0;
}

static int read_request(const json_t *root, struct xn_ask *ask, struct xn_error *error)
{
    const json_t *id = json_object_get(root, "id");
    const json_t *timeout = json_object_get(json_object_get(root, "parameters"), "timeout");

    if (id && (!json_is_string(id) || json_string_length(id) >= sizeof(ask->id)))
        return xn_error_set(error, -EINVAL, "id: must be a string of at most %zu bytes", sizeof(ask->id) - 1);
    if (id) {
        memcpy(ask->id, json_string_value(id), json_string_length(id) + 1);
        ask->has_id = ask->id[0] != '\0';
    }
    if (timeout && (!json_is_integer(timeout) || json_integer_value(timeout) < 0 ||
                    json_integer_value(timeout) > (json_int_t)XN_TIMEOUT_MS_MAX * 1000))
        return xn_error_set(error, -EINVAL, "parameters.timeout: must be microseconds, 0 to %u000", XN_TIMEOUT_MS_MAX);
    if (json_integer_value(timeout) > 0)
        ask->timeout_ns = (uint64_t)json_integer_value(timeout) * XN_NS_PER_US;
    return 0;
}

/* Inference-Header-Content-Length: 0. The whole body is the one input, a tensor or a picture; outputs are binary. */
static int parse_raw(struct xn_request *request, struct xn_ask *ask, struct xn_error *error)
{
    ask->outputs[0] = (struct xn_ask_output){.binary = true};
    ask->outputs[1] = (struct xn_ask_output){.accumulators = true, .binary = true};
    ask->n_outputs = 2;
    int r = xn_body_init_items(request, 1, error);
    return r < 0 ? r : xn_body_set_item(request, 0, request->body.data, request->body_bytes, error);
}

int xn_body_parse_v2(struct xn_request *request, int64_t header_bytes, struct xn_ask *ask, struct xn_error *error)
{
    const uint8_t *body = request->body.data;
    size_t json_bytes = header_bytes < 0 ? request->body_bytes : (size_t)header_bytes;
    struct tensor t = {0};
    json_t *root;

    if (json_bytes > request->body_bytes)
        return xn_error_set(error, -EINVAL, "Inference-Header-Content-Length says %zu, the body has %zu bytes",
                            json_bytes, request->body_bytes);
    if (header_bytes == 0)
        return parse_raw(request, ask, error);
    int r = xn_body_load_json(body, json_bytes, &root, error);
    if (r < 0)
        return r;
    r = read_request(root, ask, error);
    if (r >= 0)
        r = read_outputs(root, ask, error);
    if (r >= 0)
        r = read_input(root, request->model->network, body + json_bytes, request->body_bytes - json_bytes, &t, error);
    if (r >= 0)
        r = put_contents(request, &t, error);
    xn_body_free_json(root);
    return r;
}
