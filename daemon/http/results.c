/* SPDX-License-Identifier: Apache-2.0
 * Answers of finished inferences: JSON of POST /infer, and JSON, binary tensors, classifications and shared memory of the Open Inference Protocol. The class comes from the integer
 * logits; scores are floats for people. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

#define CLASS_BYTES 80u /* "value:index:", with its quotes, comma or length: a float has up to 47 characters */

static const struct xn_layer *logits_layer(const struct xn_network *network)
{
    return &network->layers[network->n_layers - 1];
}

static size_t longest_label(const struct xn_network *network)
{
    size_t longest = 0;

    for (uint32_t i = 0; network->labels && i < network->n_classes; i++)
        longest = XN_MAX(longest, strlen(network->labels[i]));
    return longest;
}

/* Bytes, at most, that one image takes in `output`: numbers with their commas, or four bytes each, or classes. */
static size_t output_bytes(const struct xn_network *network, const struct xn_ask_output *output)
{
    if (output->shared)
        return 0;
    if (output->classification)
        return XN_MIN(output->classification, network->n_classes) * (CLASS_BYTES + 6 * longest_label(network));
    return network->n_classes * (output->binary ? sizeof(int32_t) : 17);
}

size_t xn_results_capacity(const struct xn_call *call)
{
    const struct xn_network *network = call->request->model->network;
    size_t n = call->request->n_items;

    if (call->route == XN_ROUTE_V2_INFER) {
        size_t image = 0; /* bytes of one image in all outputs */
        for (uint32_t i = 0; i < call->ask.n_outputs; i++)
            image += output_bytes(network, &call->ask.outputs[i]);
        return 1024 + 6 * XN_ID_BYTES_MAX + n * image;
    }
    size_t entry = 96 + 6 * longest_label(network);
    size_t entries = 1 + (call->ask.top_k > 1 ? XN_MIN(call->ask.top_k, network->n_classes) : 0);
    return 1024 + n * (512 + entries * entry);
}

/* ---- POST /infer -------------------------------------------------------------------------------------------------- */

struct ranking {
    const struct xn_network *network;
    const int32_t *z;
    int32_t largest;
    double sum; /* of exp(scale * (z - largest)) */
};

static struct ranking rank(const struct xn_network *network, const int32_t *z)
{
    struct ranking r = {.network = network, .z = z, .largest = z[xn_argmax(z, network->n_classes)]};
    double scale = (double)logits_layer(network)->scale;

    for (uint32_t i = 0; i < network->n_classes; i++)
        r.sum += exp(scale * ((double)z[i] - r.largest));
    return r;
}

static void put_class(struct xn_text *text, const struct ranking *r, uint32_t class_index)
{
    const struct xn_layer *layer = logits_layer(r->network);
    double scale = (double)layer->scale;

    xn_text_put(text, "\"class\":");
    xn_text_u64(text, class_index);
    if (r->network->labels) {
        xn_text_put(text, ",\"label\":");
        xn_text_string(text, r->network->labels[class_index]);
    }
    xn_text_put(text, ",\"score\":");
    xn_text_double(text, exp(scale * ((double)r->z[class_index] - r->largest)) / r->sum, 4);
    xn_text_put(text, ",\"logit\":");
    xn_text_double(text, scale * r->z[class_index] + (double)layer->offset, 6);
}

/* Is class a a better answer than b? By falling logit, then rising index. */
static bool better(const int32_t *z, uint32_t a, uint32_t b)
{
    return z[a] != z[b] ? z[a] > z[b] : a < b;
}

/* Let heap[i], which may be better than those below it, sink to its place; the worst is on top. */
static void sift_down(uint32_t *heap, uint32_t n, uint32_t i, const int32_t *z)
{
    for (;;) {
        uint32_t worst = i, left = 2 * i + 1, right = left + 1;
        if (left < n && better(z, heap[worst], heap[left]))
            worst = left;
        if (right < n && better(z, heap[worst], heap[right]))
            worst = right;
        if (worst == i)
            return;
        uint32_t class_index = heap[i];
        heap[i] = heap[worst];
        heap[worst] = class_index;
        i = worst;
    }
}

/* The n best classes, best first: one pass with a heap of the best so far, as a network may have 65,536 of them. */
static void find_top(const int32_t *z, uint32_t n_classes, uint32_t *ret_top, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ret_top[i] = i;
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(ret_top, n, i, z);
    for (uint32_t i = n; i < n_classes; i++) {
        if (!better(z, i, ret_top[0]))
            continue;
        ret_top[0] = i;
        sift_down(ret_top, n, 0, z);
    }
    for (uint32_t left = n; left > 1; left--) {
        uint32_t worst = ret_top[0];
        ret_top[0] = ret_top[left - 1];
        ret_top[left - 1] = worst;
        sift_down(ret_top, left - 1, 0, z);
    }
}

static void put_top(struct xn_text *text, const struct ranking *r, uint32_t top_k)
{
    uint32_t top[XN_TOP_K_MAX], n = XN_MIN(top_k, r->network->n_classes);

    find_top(r->z, r->network->n_classes, top, n);
    xn_text_put(text, ",\"top\":[");
    for (uint32_t i = 0; i < n; i++) {
        xn_text_put(text, i ? ",{" : "{");
        put_class(text, r, top[i]);
        xn_text_put(text, "}");
    }
    xn_text_put(text, "]");
}

static void put_us(struct xn_text *text, const char *key, uint64_t from_ns, uint64_t to_ns)
{
    xn_text_put(text, key);
    xn_text_u64(text, to_ns > from_ns ? (to_ns - from_ns) / XN_NS_PER_US : 0);
}

static void put_item(struct xn_text *text, const struct xn_call *call, const struct xn_item *item)
{
    struct ranking r = rank(call->request->model->network, item->logits);

    xn_text_put(text, "{");
    put_class(text, &r, xn_argmax(item->logits, r.network->n_classes));
    if (call->ask.top_k > 1)
        put_top(text, &r, call->ask.top_k);
    xn_text_put(text, ",\"batch_size\":");
    xn_text_u64(text, item->batch_size);
    xn_text_put(text, ",\"instance\":");
    xn_text_string(text, xn_accel_info(call->http->next.instances->accel[item->instance])->name);
    if (item->energy.active_j >= 0) {
        xn_text_put(text, ",\"active_energy_j\":");
        xn_text_double(text, item->energy.active_j, 4);
    }
    if (item->energy.joules >= 0) {
        xn_text_put(text, ",\"energy_j\":");
        xn_text_double(text, item->energy.joules, 4);
        xn_text_put(text, ",\"energy_source\":\"");
        xn_text_put(text, xn_energy_source_names[item->energy.source]);
        xn_text_put(text, "\"");
    }
    xn_text_put(text, ",\"timings_us\":{");
    if (item->decode_start_ns) {
        put_us(text, "\"decode\":", item->decode_start_ns, item->queued_ns);
        xn_text_put(text, ",");
    }
    put_us(text, "\"queue\":", item->queued_ns, item->execute_start_ns);
    put_us(text, ",\"execute\":", item->execute_start_ns, item->execute_end_ns);
    xn_text_put(text, "}}");
}

void xn_results_write_infer(const struct xn_call *call, struct xn_text *text)
{
    const struct xn_request *request = call->request;

    xn_text_put(text, "{\"model\":");
    xn_text_string(text, request->model->name);
    xn_text_put(text, ",\"version\":");
    xn_text_string(text, request->model->version);
    xn_text_put(text, ",\"results\":[");
    for (uint32_t i = 0; i < request->n_items; i++) {
        if (i)
            xn_text_put(text, ",");
        put_item(text, call, &request->items[i]);
    }
    put_us(text, "],\"timings_us\":{\"receive\":", request->start_ns, request->received_ns);
    put_us(text, ",\"total\":", request->start_ns, xn_clock_now_ns());
    xn_text_put(text, "}}\n");
}

/* ---- Open Inference Protocol -------------------------------------------------------------------------------------- */

static double logit(const struct xn_network *network, int32_t z)
{
    const struct xn_layer *layer = logits_layer(network);

    return (double)layer->scale * z + (double)layer->offset;
}

static void put_json_numbers(struct xn_text *text, const struct xn_request *request, bool accumulators)
{
    const struct xn_network *network = request->model->network;

    for (uint32_t i = 0; i < request->n_items; i++) {
        for (uint32_t k = 0; k < network->n_classes; k++) {
            if (i || k)
                xn_text_put(text, ",");
            if (accumulators)
                xn_text_i64(text, request->items[i].logits[k]);
            else
                xn_text_double(text, (double)(float)logit(network, request->items[i].logits[k]), 9);
        }
    }
}

static void put_le32(struct xn_text *text, uint32_t bits)
{
    const uint8_t bytes[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16), (uint8_t)(bits >> 24)};

    xn_text_raw(text, (const char *)bytes, sizeof(bytes));
}

static void put_numbers(struct xn_text *text, const struct xn_request *request, bool accumulators)
{
    const struct xn_network *network = request->model->network;

    for (uint32_t i = 0; i < request->n_items; i++) {
        for (uint32_t k = 0; k < network->n_classes; k++) {
            int32_t z = request->items[i].logits[k];
            float value = (float)logit(network, z);
            uint32_t bits = (uint32_t)z;
            if (!accumulators)
                memcpy(&bits, &value, sizeof(bits));
            put_le32(text, bits);
        }
    }
}

/* ---- classification extension ---- */

/* How the elements of a classification are written. */
enum classes_as { AS_JSON, AS_BINARY, AS_NOTHING };

/* "value:index", and ":label" where there are labels, which may be long: the parts are put one after the other. Returns its bytes. */
static size_t put_element(struct xn_text *text, const struct xn_network *network, bool accumulators, int32_t z,
                          uint32_t class_index, enum classes_as as)
{
    char head[CLASS_BYTES], *end = head;
    const char *label = network->labels ? network->labels[class_index] : NULL;
    size_t bytes;

    if (accumulators)
        end += snprintf(head, sizeof(head), "%d:%u", z, class_index);
    else
        end += snprintf(head, sizeof(head), "%.6f:%u", (double)(float)logit(network, z), class_index);
    if (label)
        *end++ = ':';
    *end = '\0';
    bytes = (size_t)(end - head) + (label ? strlen(label) : 0);
    if (as == AS_BINARY) {
        put_le32(text, (uint32_t)bytes);
        xn_text_raw(text, head, (size_t)(end - head));
        xn_text_put(text, label ? label : "");
    } else if (as == AS_JSON) {
        xn_text_put(text, "\"");
        xn_text_raw(text, head, (size_t)(end - head));
        xn_text_escaped(text, label ? label : "");
        xn_text_put(text, "\"");
    }
    return bytes;
}

/* The best classes of all images; AS_NOTHING: only how many bytes they take, with the length before each. */
static size_t put_classes(struct xn_text *text, const struct xn_request *request, const struct xn_ask_output *output,
                          enum classes_as as)
{
    const struct xn_network *network = request->model->network;
    uint32_t top[XN_TOP_K_MAX], k = XN_MIN(output->classification, network->n_classes);
    size_t bytes = 0;

    for (uint32_t i = 0; i < request->n_items; i++) {
        const int32_t *z = request->items[i].logits;
        find_top(z, network->n_classes, top, k);
        for (uint32_t j = 0; j < k; j++) {
            if (as == AS_JSON && (i || j))
                xn_text_put(text, ",");
            bytes += 4 + put_element(text, network, output->accumulators, z[top[j]], top[j], as);
        }
    }
    return bytes;
}

/* ---- outputs ---- */

static void put_description(struct xn_text *text, const struct xn_request *request, const struct xn_ask_output *output)
{
    uint32_t n_classes = request->model->network->n_classes, k = output->classification;

    xn_text_put(text, output->accumulators ? "{\"name\":\"accumulators\"" : "{\"name\":\"logits\"");
    xn_text_put(text, k                      ? ",\"datatype\":\"BYTES\",\"shape\":["
                      : output->accumulators ? ",\"datatype\":\"INT32\",\"shape\":["
                                             : ",\"datatype\":\"FP32\",\"shape\":[");
    xn_text_u64(text, request->n_items);
    xn_text_put(text, ",");
    xn_text_u64(text, k ? XN_MIN(k, n_classes) : n_classes);
    xn_text_put(text, "]");
}

/* parameters only with binary_data_size: clients take any others for a mistake. */
static void put_output(struct xn_text *text, const struct xn_request *request, const struct xn_ask_output *output)
{
    size_t bytes = (size_t)request->n_items * request->model->network->n_classes * sizeof(int32_t);

    put_description(text, request, output);
    if (output->binary) {
        xn_text_put(text, ",\"parameters\":{\"binary_data_size\":");
        xn_text_u64(text, output->classification ? put_classes(text, request, output, AS_NOTHING) : bytes);
        xn_text_put(text, "}");
    } else if (!output->shared) {
        xn_text_put(text, ",\"data\":[");
        if (output->classification)
            (void)put_classes(text, request, output, AS_JSON);
        else
            put_json_numbers(text, request, output->accumulators);
        xn_text_put(text, "]");
    }
    xn_text_put(text, "}");
}

/* What follows the JSON, and what goes to shared memory, where its size has been checked. */
static void put_binary(struct xn_text *text, const struct xn_request *request, const struct xn_ask_output *output)
{
    struct xn_text shared;

    if (output->shared) {
        xn_text_init(&shared, output->shared, output->shared_bytes);
        put_numbers(&shared, request, output->accumulators);
    } else if (output->binary && output->classification) {
        (void)put_classes(text, request, output, AS_BINARY);
    } else if (output->binary) {
        put_numbers(text, request, output->accumulators);
    }
}

size_t xn_results_write_v2(const struct xn_call *call, struct xn_text *text)
{
    const struct xn_request *request = call->request;
    const struct xn_ask *ask = &call->ask;
    bool binary = false;

    xn_text_put(text, "{");
    if (ask->has_id) {
        xn_text_put(text, "\"id\":");
        xn_text_string(text, ask->id);
        xn_text_put(text, ",");
    }
    xn_text_put(text, "\"model_name\":");
    xn_text_string(text, request->model->name);
    xn_text_put(text, ",\"model_version\":");
    xn_text_string(text, request->model->version);
    xn_text_put(text, ",\"outputs\":[");
    for (uint32_t i = 0; i < ask->n_outputs; i++) {
        if (i)
            xn_text_put(text, ",");
        put_output(text, request, &ask->outputs[i]);
        binary = binary || ask->outputs[i].binary;
    }
    xn_text_put(text, "]}");
    size_t json_bytes = text->bytes;
    for (uint32_t i = 0; i < ask->n_outputs; i++)
        put_binary(text, request, &ask->outputs[i]);
    return binary ? json_bytes : 0;
}
