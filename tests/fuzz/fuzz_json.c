/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as the body of an inference request, through every parser of both doors; where one takes it, the answer is written too. Byte 0 chooses:
 *
 *     bits 0..2   0 plain   1 multipart, Content-Type up to the first line feed   2 JSON of /infer   3 JSON of /v2
 *                 4 /v2 with Inference-Header-Content-Length, the two bytes that follow, little-endian   5 the same, 0
 *                 (/v2 may name the shared memory region "r", of 1000 bytes)
 *     bit 3       a network of int8 tensors without pictures        bit 4   with labels        bits 5..7   top_k 1..8 where the body has none
 *
 * JSON is parsed once more with its tensors' names written so that only jansson finds them: both are the same.
 * Whatever comes: either a status of the 400s or 501 and a text that says why, or sound items and an answer that is JSON within the promised size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/numbers_twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum door { PLAIN, MULTIPART, JSON, V2, V2_BINARY, V2_RAW, DOORS };

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void choose_network(struct http_bed *bed, uint8_t choice)
{
    static const char *const labels[] = {"a", "\"b\"\\", "\xc3\xa4\x01\n", "", "\xf0\x9f\x98\x80"};

    bed->network.input.dtype = choice & 8 ? XN_DTYPE_I8 : XN_DTYPE_U8;
    bed->network.input.is_image = !(choice & 8);
    bed->network.labels = choice & 16 ? labels : NULL;
    bed->network.sha256[0] = choice & 8; /* another network */
}

static int parse(struct http_bed *bed, enum door door, const uint8_t *data, size_t size, struct xn_error *error)
{
    struct xn_call *call = &bed->call;
    char content_type[128] = "";

    if (door == MULTIPART) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t length = end ? (size_t)(end - data) : 0;
        memcpy(content_type, data, XN_MIN(length, sizeof(content_type) - 1));
        data += end ? length + 1 : 0;
        size -= end ? length + 1 : 0;
    } else if (door == V2_BINARY && size >= 2) {
        call->header_bytes = data[0] | data[1] << 8;
        data += 2;
        size -= 2;
    }
    int64_t header_bytes = door == V2_RAW ? 0 : call->header_bytes;
    uint32_t top_k = call->ask.top_k;
    http_bed_request(bed, data, size);
    call->header_bytes = header_bytes;
    call->ask.top_k = top_k;
    call->route = door >= V2 ? XN_ROUTE_V2_INFER : XN_ROUTE_INFER;
    if (door == PLAIN)
        return xn_body_parse_plain(call->request, NULL, error);
    if (door == MULTIPART)
        return xn_body_parse_multipart(call->request, content_type, error);
    if (door == JSON)
        return xn_body_parse_json(call->request, &call->ask, error);
    return xn_body_parse_v2(call->request, header_bytes, bed->regions, &call->ask, error);
}

/* The answer to a request that was taken, with numbers of all sizes. */
static void answer(struct http_bed *bed)
{
    struct xn_call *call = &bed->call;
    struct xn_request *request = call->request;
    static const int32_t values[] = {INT32_MIN, -1, 0, 1000000, INT32_MAX};
    size_t capacity = xn_results_capacity(call), json_bytes;
    struct xn_text text;

    for (uint32_t i = 0; i < request->n_items; i++) {
        for (uint32_t k = 0; k < bed->network.n_classes; k++)
            request->items[i].logits[k] = values[(i + k) % XN_ARRAY_LEN(values)];
        request->items[i].energy.joules = i % 2 ? 1e-300 : -1;
        request->items[i].instance = 0;
    }
    char *memory = malloc(capacity);
    require(memory);
    xn_text_init(&text, memory, capacity);
    if (call->route == XN_ROUTE_V2_INFER) {
        json_bytes = xn_results_write_v2(call, &text);
        json_bytes = json_bytes ? json_bytes : text.bytes;
    } else {
        xn_results_write_infer(call, &text);
        json_bytes = text.bytes;
    }
    require(!text.overflow);
    json_t *root = json_loadb(text.data, json_bytes, JSON_REJECT_DUPLICATES, NULL);
    require(root != NULL);
    json_decref(root);
    free(memory);
}

/* Numbers that xnord reads itself are those that jansson reads. */
static void compare(struct http_bed *bed, enum door door, const uint8_t *data, size_t size)
{
    size_t json_bytes = size;
    struct xn_error error;

    if (door == V2_BINARY && size >= 2) {
        json_bytes = XN_MIN((size_t)(data[0] | data[1] << 8), size - 2);
        data += 2;
        size -= 2;
    }
    if (door == JSON || door == V2 || door == V2_BINARY)
        require(numbers_twin_agrees(bed, door != JSON, data, XN_MIN(json_bytes, size), data + XN_MIN(json_bytes, size),
                                    size - XN_MIN(json_bytes, size), &error));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_bed bed;
    struct xn_error error = {""};

    if (size == 0 || (data[0] & 7) >= DOORS)
        return 0;
    if (!bed.requests)
        http_bed_init(&bed);
    choose_network(&bed, data[0]);
    bed.call.header_bytes = -1;
    bed.call.ask.top_k = 1 + (data[0] >> 5);
    int r = parse(&bed, data[0] & 7, data + 1, size - 1, &error);
    if (r < 0) {
        unsigned code = xn_status_of(r).code;
        require(error.text[0] && xn_text_is_safe(error.text) && ((code >= 400 && code < 500) || code == 501));
    } else {
        require(r == 0 && http_bed_items_are_sound(&bed));
        answer(&bed);
    }
    compare(&bed, data[0] & 7, data + 1, size - 1);
    http_bed_end(&bed);
    require(xn_requests_active(bed.requests) == 0);
    return 0;
}
