/* SPDX-License-Identifier: Apache-2.0
 * See plan.h. Each thread remembers the last few plans. They are recalled by the whole JSON and the network's digest, so a plan can not be another's. */
#include "daemon/http/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"

#define REMEMBERED      8u    /* plans a thread: a client with some slots in shared memory has as many */
#define JSON_REMEMBERED 1024u /* bytes */

/* ---- the input ---------------------------------------------------------------------------------------------------- */

static const char *v2_datatype(enum xn_dtype dtype)
{
    return dtype == XN_DTYPE_U8 ? "UINT8" : "INT8";
}

/* Shape: [n,h,w,c], or [h,w,c] for one image; BYTES: [n] or [n,1]. */
static int read_shape(const json_t *input, const struct xn_network *network, struct xn_plan *plan,
                      struct xn_error *error)
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
    plan->n = rank == 3 ? 1 : (size_t)dims[0];
    const int64_t *hwc = rank == 3 ? dims : dims + 1;
    bool fits = plan->pictures ? rank <= 2 && dims[1] == 1
                               : rank >= 3 && hwc[0] == spec->h && hwc[1] == spec->w && hwc[2] == spec->channels;
    if (!fits)
        return xn_error_set(error, -EINVAL,
                            plan->pictures ? "inputs[0].shape: BYTES has shape [n]"
                                           : "inputs[0].shape: must be [n,%u,%u,%u]",
                            spec->h, spec->w, spec->channels);
    return 0;
}

static int read_datatype(const json_t *input, const struct xn_network *network, struct xn_plan *plan,
                         struct xn_error *error)
{
    const char *datatype = json_string_value(json_object_get(input, "datatype"));
    const char *own = v2_datatype(network->input.dtype);

    plan->pictures = datatype && strcmp(datatype, "BYTES") == 0 && network->input.is_image;
    if (!datatype || (!plan->pictures && strcmp(datatype, own) != 0))
        return xn_error_set(error, -EINVAL, "inputs[0].datatype: must be %s%s, is %.32s", own,
                            network->input.is_image ? " or BYTES (JPEG or PNG)" : "", datatype ? datatype : "missing");
    return 0;
}

static int read_size(const json_t *parameters, const char *key, const char *what, uint64_t *ret, struct xn_error *error)
{
    const json_t *value = json_object_get(parameters, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return xn_error_set(error, -EINVAL, "%s.parameters.%s: must be a number of bytes", what, key);
    *ret = (uint64_t)json_integer_value(value);
    return 0;
}

/* Names that are too long are no region's. */
static int read_part(const json_t *parameters, const char *what, struct xn_plan_part *part, struct xn_error *error)
{
    const json_t *name = json_object_get(parameters, "shared_memory_region");

    if (!json_is_string(name) || json_string_length(name) < 1 || json_string_length(name) >= sizeof(part->region))
        return xn_error_set(error, -EINVAL, "%s.parameters.shared_memory_region: must be a name of 1 to %zu bytes",
                            what, sizeof(part->region) - 1);
    memcpy(part->region, json_string_value(name), json_string_length(name) + 1);
    int r = read_size(parameters, "shared_memory_byte_size", what, &part->bytes, error);
    if (r >= 0 && json_object_get(parameters, "shared_memory_offset"))
        r = read_size(parameters, "shared_memory_offset", what, &part->offset, error);
    return r;
}

/* Exactly one of data, binary_data_size and shared_memory_region. */
static int read_source(const json_t *input, struct xn_plan *plan, struct xn_error *error)
{
    const json_t *parameters = json_object_get(input, "parameters");
    bool binary = json_object_get(parameters, "binary_data_size") != NULL;
    bool shared = json_object_get(parameters, "shared_memory_region") != NULL;

    plan->data = json_object_get(input, "data");
    if (!!plan->data + binary + shared != 1)
        return xn_error_set(error, -EINVAL,
                            "inputs[0]: must have exactly one of data, parameters.binary_data_size and "
                            "parameters.shared_memory_region");
    plan->source = binary ? XN_PLAN_BINARY : shared ? XN_PLAN_SHARED : XN_PLAN_DATA;
    if (shared)
        return read_part(parameters, "inputs[0]", &plan->input, error);
    return binary ? read_size(parameters, "binary_data_size", "inputs[0]", &plan->binary_bytes, error) : 0;
}

static int read_input(const json_t *root, const struct xn_network *network, struct xn_plan *plan,
                      struct xn_error *error)
{
    const json_t *inputs = json_object_get(root, "inputs"), *input = json_array_get(inputs, 0);
    const char *name = json_string_value(json_object_get(input, "name"));

    if (!json_is_array(inputs) || json_array_size(inputs) != 1 || !json_is_object(input))
        return xn_error_set(error, -EINVAL, "inputs: must be an array of one object: the network has one input");
    if (!name || strcmp(name, network->input_name) != 0)
        return xn_error_set(error, -EINVAL, "inputs[0].name: must be \"%s\", is \"%.64s\"", network->input_name,
                            name ? name : "");
    int r = read_datatype(input, network, plan, error);
    if (r >= 0)
        r = read_shape(input, network, plan, error);
    return r < 0 ? r : read_source(input, plan, error);
}

/* ---- what is asked for -------------------------------------------------------------------------------------------- */

static int read_classification(const json_t *parameters, const char *what, struct xn_ask_output *output,
                               struct xn_error *error)
{
    const json_t *k = json_object_get(parameters, "classification");

    if (k && (!json_is_integer(k) || json_integer_value(k) < 0 || json_integer_value(k) > XN_TOP_K_MAX))
        return xn_error_set(error, -EINVAL, "%s.parameters.classification: must be 0 (none) to %u", what, XN_TOP_K_MAX);
    output->classification = (uint32_t)json_integer_value(k);
    return 0;
}

static int read_output(const json_t *json, bool binary_default, const char *what, struct xn_ask_output *output,
                       struct xn_plan_part *part, struct xn_error *error)
{
    const char *name = json_string_value(json_object_get(json, "name"));
    const json_t *parameters = json_object_get(json, "parameters");
    const json_t *binary = json_object_get(parameters, "binary_data");

    if (!name || (strcmp(name, "logits") != 0 && strcmp(name, "accumulators") != 0))
        return xn_error_set(error, -EINVAL, "%s.name: must be \"logits\" or \"accumulators\"", what);
    if (binary && !json_is_boolean(binary))
        return xn_error_set(error, -EINVAL, "%s.parameters.binary_data: must be true or false", what);
    *output = (struct xn_ask_output){.accumulators = name[0] == 'a',
                                     .binary = binary ? json_is_true(binary) : binary_default};
    int r = read_classification(parameters, what, output, error);
    if (r < 0 || !json_object_get(parameters, "shared_memory_region"))
        return r;
    output->binary = false;
    if (output->classification)
        return xn_error_set(error, -EINVAL, "%s: classification does not go to shared memory", what);
    return read_part(parameters, what, part, error);
}

static int read_outputs(const json_t *root, struct xn_plan *plan, struct xn_error *error)
{
    const json_t *outputs = json_object_get(root, "outputs");
    const json_t *all = json_object_get(json_object_get(root, "parameters"), "binary_data_output");
    struct xn_ask *ask = &plan->ask;
    size_t n = json_array_size(outputs);
    char what[16];

    if (outputs && (!json_is_array(outputs) || n > XN_BODY_OUTPUTS))
        return xn_error_set(error, -EINVAL, "outputs: must be an array of at most 2 objects: logits, accumulators");
    if (all && !json_is_boolean(all))
        return xn_error_set(error, -EINVAL, "parameters.binary_data_output: must be true or false");
    for (size_t i = 0; i < n; i++) {
        snprintf(what, sizeof(what), "outputs[%u]", (unsigned)(i % XN_BODY_OUTPUTS));
        int r =
            read_output(json_array_get(outputs, i), json_is_true(all), what, &ask->outputs[i], &plan->parts[i], error);
        if (r < 0)
            return r;
    }
    ask->n_outputs = (uint32_t)n;
    if (n == 2 && ask->outputs[0].accumulators == ask->outputs[1].accumulators)
        return xn_error_set(error, -EINVAL, "outputs: the same output twice");
    if (n == 0) {
        ask->outputs[0] = (struct xn_ask_output){.accumulators = false, .binary = json_is_true(all)};
        ask->outputs[1] = (struct xn_ask_output){.accumulators = true, .binary = json_is_true(all)};
        ask->n_outputs = 2;
    }
    return 0;
}

static int read_parameters(const json_t *parameters, struct xn_plan *plan, struct xn_error *error)
{
    const json_t *timeout = json_object_get(parameters, "timeout"), *priority = json_object_get(parameters, "priority");

    if (parameters && !json_is_object(parameters))
        return xn_error_set(error, -EINVAL, "parameters: must be an object");
    if (timeout && (!json_is_integer(timeout) || json_integer_value(timeout) < 0 ||
                    json_integer_value(timeout) > (json_int_t)XN_TIMEOUT_MS_MAX * 1000))
        return xn_error_set(error, -EINVAL, "parameters.timeout: must be microseconds, 0 to %u000", XN_TIMEOUT_MS_MAX);
    if (json_integer_value(timeout) > 0)
        plan->ask.timeout_ns = (uint64_t)json_integer_value(timeout) * XN_NS_PER_US;
    if (priority && (!json_is_integer(priority) || json_integer_value(priority) < 0))
        return xn_error_set(error, -EINVAL,
                            "parameters.priority: must be 0 (the default), 1 (high), 2 (normal) or 3 (low)");
    plan->has_priority = json_integer_value(priority) > 0;
    plan->ask.priority = xn_ask_priority((uint64_t)json_integer_value(priority));
    return 0;
}

static int read_request(const json_t *root, struct xn_plan *plan, struct xn_error *error)
{
    const json_t *id = json_object_get(root, "id");
    struct xn_ask *ask = &plan->ask;

    if (id && (!json_is_string(id) || json_string_length(id) >= sizeof(ask->id)))
        return xn_error_set(error, -EINVAL, "id: must be a string of at most %zu bytes", sizeof(ask->id) - 1);
    if (id) {
        memcpy(ask->id, json_string_value(id), json_string_length(id) + 1);
        ask->has_id = ask->id[0] != '\0';
    }
    return read_parameters(json_object_get(root, "parameters"), plan, error);
}

int xn_plan_read(const json_t *root, const struct xn_network *network, struct xn_plan *ret_plan, struct xn_error *error)
{
    *ret_plan = (struct xn_plan){0};
    int r = read_request(root, ret_plan, error);
    if (r >= 0)
        r = read_outputs(root, ret_plan, error);
    return r < 0 ? r : read_input(root, network, ret_plan, error);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

struct memory {
    size_t bytes; /* of `json`; 0: free */
    uint8_t sha256[sizeof(((struct xn_network *)NULL)->sha256)];
    char json[JSON_REMEMBERED];
    struct xn_plan plan;
};

static _Thread_local struct memory memories[REMEMBERED];
static _Thread_local uint32_t n_remembered; /* ever: the oldest gives way */

const struct xn_plan *xn_plan_recall(const struct xn_network *network, const void *json, size_t bytes)
{
    for (uint32_t i = 0; i < REMEMBERED; i++) {
        const struct memory *m = &memories[i];
        if (m->bytes == bytes && bytes > 0 && memcmp(m->json, json, bytes) == 0 &&
            memcmp(m->sha256, network->sha256, sizeof(m->sha256)) == 0)
            return &m->plan;
    }
    return NULL;
}

void xn_plan_remember(const struct xn_network *network, const void *json, size_t bytes, const struct xn_plan *plan)
{
    struct memory *m = &memories[n_remembered % REMEMBERED];

    if (bytes > sizeof(m->json) || plan->source == XN_PLAN_DATA)
        return;
    n_remembered++;
    m->bytes = bytes;
    memcpy(m->sha256, network->sha256, sizeof(m->sha256));
    memcpy(m->json, json, bytes);
    m->plan = *plan;
}
