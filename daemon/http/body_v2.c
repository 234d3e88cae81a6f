/* SPDX-License-Identifier: Apache-2.0
 * Bodies of the Open Inference Protocol's infer: JSON, the binary tensor extension (JSON of Inference-Header-Content-Length bytes, then the tensors
 * in listed order), and tensors in shared memory. A network has one input; it may come as a tensor [n,h,w,c] of its own type, or, for image networks, as BYTES
 * [n], each element an encoded picture. plan.c reads the JSON, numbers.c what
 * is large in it; here their plan is carried out. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/http/plan.h"

struct tensor { /* the input's contents */
    size_t n;
    const uint8_t *binary; /* NULL: `data` */
    size_t binary_bytes;
    const json_t *data;
    const struct xn_numbers *numbers; /* `data`, where it lies in the body; NULL: it is in the tree */
};

/* ---- where things are --------------------------------------------------------------------------------------------- */

/* The request holds the region from here on, once for each use. */
static int find_part(struct xn_request *request, struct xn_regions *regions, const struct xn_plan_part *part,
                     const char *what, struct xn_region **ret_region, struct xn_error *error)
{
    struct xn_region *region = xn_regions_get(regions, part->region);

    if (!region)
        return xn_error_set(error, -EINVAL, "%s: no shared memory region is registered as \"%.64s\"", what,
                            part->region);
    request->regions[request->n_regions++] = region;
    if (part->offset > region->bytes || part->bytes > region->bytes - part->offset)
        return xn_error_set(error, -EINVAL,
                            "%s: offset %" PRIu64 " and size %" PRIu64
                            " leave shared memory region \"%.64s\" of %zu bytes",
                            what, part->offset, part->bytes, region->name, region->bytes);
    *ret_region = region;
    return 0;
}

/* The input's contents; `behind` is what follows the JSON. */
static int find_input(struct xn_request *request, struct xn_regions *regions, const struct xn_plan *plan,
                      const uint8_t *behind, size_t behind_bytes, struct tensor *t, struct xn_error *error)
{
    struct xn_region *region = NULL;

    t->n = plan->n;
    t->data = plan->data;
    if (plan->source != XN_PLAN_BINARY && behind_bytes > 0)
        return xn_error_set(error, -EINVAL, "%zu bytes follow the JSON, but no input has a binary_data_size",
                            behind_bytes);
    if (plan->source == XN_PLAN_BINARY && plan->binary_bytes != behind_bytes)
        return xn_error_set(error, -EINVAL,
                            "inputs[0].parameters.binary_data_size: %zu bytes follow the JSON, it says %" PRIu64,
                            behind_bytes, plan->binary_bytes);
    if (plan->source == XN_PLAN_BINARY) {
        t->binary = behind;
        t->binary_bytes = behind_bytes;
    } else if (plan->source == XN_PLAN_SHARED) {
        int r = find_part(request, regions, &plan->input, "inputs[0]", &region, error);
        if (r < 0)
            return r;
        t->binary = region->data + plan->input.offset;
        t->binary_bytes = plan->input.bytes;
    }
    return 0;
}

/* Room for all numbers of the request in the parts of regions that outputs go to. */
static int find_outputs(struct xn_request *request, struct xn_regions *regions, const struct xn_plan *plan,
                        struct xn_ask *ask, struct xn_error *error)
{
    static const char *const names[] = {"outputs[0]", "outputs[1]"};
    size_t need = (size_t)request->n_items * request->model->network->n_classes * sizeof(int32_t);

    for (uint32_t i = 0; i < ask->n_outputs; i++) {
        struct xn_region *region = NULL;
        if (!plan->parts[i].region[0])
            continue;
        int r = find_part(request, regions, &plan->parts[i], names[i], &region, error);
        if (r < 0)
            return r;
        if (!region->writable)
            return xn_error_set(error, -EINVAL, "%s: this server may only read shared memory region \"%.64s\"",
                                names[i], region->name);
        if (plan->parts[i].bytes < need)
            return xn_error_set(error, -EINVAL,
                                "%s.parameters.shared_memory_byte_size: the output takes %zu bytes, it says %" PRIu64,
                                names[i], need, plan->parts[i].bytes);
        ask->outputs[i].shared = region->data + plan->parts[i].offset;
        ask->outputs[i].shared_bytes = plan->parts[i].bytes;
    }
    return 0;
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

/* Pictures of a region, moved into the body's buffer: decoders read their bytes more than once, and the client could change them in between. The JSON
 * that was there is a tree now. */
static int copy_shared(struct xn_request *request, struct tensor *t, struct xn_error *error)
{
    struct xn_buf larger;

    if (t->binary_bytes > request->body.capacity_bytes) {
        int r = xn_request_buf_take(request, t->binary_bytes, &larger);
        if (r < 0)
            return xn_error_set(error, r == -ENOBUFS ? -EAGAIN : r, "no buffer for %zu bytes of pictures is free",
                                t->binary_bytes);
        xn_request_buf_give(request, &request->body);
        request->body = larger;
    }
    memcpy(request->body.data, t->binary, t->binary_bytes);
    request->body_bytes = t->binary_bytes;
    t->binary = request->body.data;
    return 0;
}

/* A flat array of strings, or one of arrays of one string each. */
static int put_json_pictures(struct xn_request *request, const struct tensor *t, struct xn_error *error)
{
    uint8_t *at = request->body.data;
    int r = 0;

    if (json_array_size(t->data) != t->n)
        return xn_error_set(error, -EINVAL, "inputs[0].data: must be an array of %zu strings of base64", t->n);
    for (uint32_t i = 0; r >= 0 && i < t->n; i++) {
        const json_t *value = json_array_get(t->data, i);
        r = xn_body_base64(request, i, json_array_size(value) == 1 ? json_array_get(value, 0) : value, &at, error);
    }
    return r < 0 ? xn_error_prefix(error, r, "inputs[0].data") : 0;
}

static int put_contents(struct xn_request *request, const struct xn_plan *plan, struct tensor *t,
                        struct xn_error *error)
{
    int r = xn_body_init_items(request, t->n, error);

    if (r >= 0 && plan->pictures && plan->source == XN_PLAN_SHARED)
        r = copy_shared(request, t, error);
    if (r < 0)
        return r;
    if (plan->pictures)
        return t->binary ? put_binary_pictures(request, t, error) : put_json_pictures(request, t, error);
    if (t->binary)
        return put_binary_tensor(request, t, error);
    if (t->numbers) {
        xn_numbers_put(t->numbers, request);
        return 0;
    }
    return xn_body_numbers(request, t->data, 0, (uint32_t)t->n, "inputs[0].data", error);
}

/* What the JSON does not say stays as the arguments have it. */
static void follow_ask(const struct xn_plan *plan, struct xn_ask *ask)
{
    struct xn_ask before = *ask;

    *ask = plan->ask;
    ask->top_k = before.top_k;
    if (ask->timeout_ns == 0)
        ask->timeout_ns = before.timeout_ns;
    if (!plan->has_priority)
        ask->priority = before.priority;
}

/* `numbers`, where not NULL, fit. */
static int follow(struct xn_request *request, struct xn_regions *regions, const struct xn_plan *plan, size_t json_bytes,
                  const struct xn_numbers *numbers, struct xn_ask *ask, struct xn_error *error)
{
    struct tensor t = {.numbers = numbers};

    follow_ask(plan, ask);
    int r = find_input(request, regions, plan, request->body.data + json_bytes, request->body_bytes - json_bytes, &t,
                       error);
    if (r >= 0)
        r = put_contents(request, plan, &t, error);
    return r < 0 ? r : find_outputs(request, regions, plan, ask, error);
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

static int read_whole(struct xn_request *request, struct xn_regions *regions, size_t json_bytes, struct xn_ask *ask,
                      struct xn_error *error)
{
    const struct xn_network *network = request->model->network;
    struct xn_plan plan;
    json_t *root;

    int r = xn_body_load_json(request->body.data, json_bytes, NULL, &root, error);
    if (r < 0)
        return r;
    r = xn_plan_read(root, network, &plan, error);
    if (r >= 0) {
        xn_plan_remember(network, request->body.data, json_bytes, &plan);
        r = follow(request, regions, &plan, json_bytes, NULL, ask, error);
    }
    xn_body_free_json(root);
    return r;
}

/* The plan of JSON whose tensor was found in it. False: not all is right with it. */
static bool read_rest(const struct xn_request *request, size_t json_bytes, const struct xn_numbers *numbers,
                      struct xn_plan *ret_plan)
{
    const struct xn_network *network = request->model->network;
    struct xn_error error;
    json_t *root;

    if (xn_body_load_json(request->body.data, json_bytes, numbers, &root, &error) < 0)
        return false;
    bool is_right = xn_plan_read(root, network, ret_plan, &error) >= 0;
    ret_plan->data = NULL; /* it ends with the tree */
    xn_body_free_json(root);
    return is_right && !ret_plan->pictures && xn_numbers_fit(numbers, network, ret_plan->n);
}

/* JSON that this thread has not seen before. */
static int read_and_follow(struct xn_request *request, struct xn_regions *regions, size_t json_bytes,
                           struct xn_ask *ask, struct xn_error *error)
{
    struct xn_numbers numbers;
    struct xn_plan plan;

    if (xn_numbers_find(request->body.data, json_bytes, XN_NUMBERS_V2, &numbers) &&
        read_rest(request, json_bytes, &numbers, &plan))
        return follow(request, regions, &plan, json_bytes, &numbers, ask, error);
    return read_whole(request, regions, json_bytes, ask, error);
}

int xn_body_parse_v2(struct xn_request *request, int64_t header_bytes, struct xn_regions *regions, struct xn_ask *ask,
                     struct xn_error *error)
{
    size_t json_bytes = header_bytes < 0 ? request->body_bytes : (size_t)header_bytes;

    if (json_bytes > request->body_bytes)
        return xn_error_set(error, -EINVAL, "Inference-Header-Content-Length says %zu, the body has %zu bytes",
                            json_bytes, request->body_bytes);
    if (header_bytes == 0)
        return parse_raw(request, ask, error);
    const struct xn_plan *known = xn_plan_recall(request->model->network, request->body.data, json_bytes);
    return known ? follow(request, regions, known, json_bytes, NULL, ask, error)
                 : read_and_follow(request, regions, json_bytes, ask, error);
}
