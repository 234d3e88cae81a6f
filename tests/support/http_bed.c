/* SPDX-License-Identifier: Apache-2.0
 * See http_bed.h. */
#include "tests/support/http_bed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/fake_accel.h"

static void *check(void *memory)
{
    if (!memory) {
        fprintf(stderr, "http_bed: out of memory\n");
        abort();
    }
    return memory;
}

static void init_network(struct http_bed *bed)
{
    struct xn_network *n = &bed->network;

    strcpy(n->name, "bed");
    strcpy(n->version, "7");
    strcpy(n->input_name, "pixels");
    n->input = (struct xn_input_spec){.h = 4, .w = 3, .channels = 2, .dtype = XN_DTYPE_U8, .is_image = true};
    n->input_bytes = 4 * 3 * 2;
    n->n_classes = 5;
    bed->logits = (struct xn_layer){.op = XN_OP_LOGITS, .scale = 0.25f, .offset = -1.0f};
    n->n_layers = 1;
    n->layers = &bed->logits;
}

/* An object of our own, forgotten by name once it is mapped. */
static void init_region(struct http_bed *bed)
{
    struct xn_error error = {""};
    char key[64];

    snprintf(key, sizeof(key), "/xnord-bed-%d", (int)getpid());
    int fd = shm_open(key, O_CREAT | O_TRUNC | O_RDWR, 0600);
    bool ok = fd >= 0 && ftruncate(fd, BED_REGION_BYTES + 24) == 0 && xn_regions_new(1, 4096, &bed->regions) == 0 &&
              xn_regions_register(bed->regions, BED_REGION, key, 24, BED_REGION_BYTES, &error) == 0;
    if (fd >= 0)
        close(fd);
    (void)shm_unlink(key);
    bed->region = check(ok ? xn_regions_get(bed->regions, BED_REGION) : NULL);
    bed->http.next.regions = bed->regions;
}

void http_bed_init(struct http_bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    bed->config.limits.requests = 2;
    bed->config.limits.images_per_request = BED_IMAGES_MAX;
    bed->config.limits.body_bytes = BED_BODY_BYTES;
    bed->config.limits.json_bytes = BED_BODY_BYTES;
    bed->config.limits.buffer_bytes = 8 * BED_BODY_BYTES;
    if (xn_requests_new(&bed->config, &bed->requests) < 0)
        check(NULL);
    init_network(bed);
    bed->instances.n = 1;
    bed->instances.accel[0] = check(fake_accel_new("fake0", 1));
    atomic_init(&bed->model.refs, 1);
    bed->model.name = "bed";
    strcpy(bed->model.version, bed->network.version);
    bed->model.network = &bed->network;
    bed->model.instances = &bed->instances;
    bed->http.config = &bed->config;
    init_region(bed);
    bed->http.next.instances = &bed->instances;
    xn_body_init();
}

void http_bed_done(struct http_bed *bed)
{
    http_bed_end(bed);
    fake_accel_free(bed->instances.accel[0]);
    xn_requests_free(bed->requests);
    xn_region_unref(bed->region);
    xn_regions_free(bed->regions);
}

void http_bed_request(struct http_bed *bed, const void *body, size_t bytes)
{
    http_bed_end(bed);
    struct xn_request *request = check(xn_request_new(bed->requests));
    request->model = xn_model_ref(&bed->model);
    request->body.data = check(malloc(bytes ? bytes : 1));
    request->body.capacity_bytes = request->body_bytes = bytes;
    if (bytes)
        memcpy(request->body.data, body, bytes);
    bed->call = (struct xn_call){.http = &bed->http, .request = request, .header_bytes = -1, .ask.top_k = 1};
}

void http_bed_end(struct http_bed *bed)
{
    struct xn_request *request = bed->call.request;

    if (!request)
        return;
    free(request->body.data); /* not the pool's */
    request->body = (struct xn_buf){0};
    xn_request_unref(request);
    bed->call.request = NULL;
}

static bool inside(const void *data, size_t bytes, const struct xn_buf *buf, size_t buf_bytes)
{
    const uint8_t *p = data;

    return buf->data && p >= buf->data && bytes <= buf_bytes && p <= buf->data + (buf_bytes - bytes);
}

/* `bytes` at `data` in the region, which the request holds. */
static bool in_region(const struct http_bed *bed, const void *data, size_t bytes)
{
    const struct xn_buf region = {.data = bed->region->data, .capacity_bytes = bed->region->bytes};
    const struct xn_request *r = bed->call.request;

    return r->n_regions > 0 && r->regions[0] == bed->region && inside(data, bytes, &region, region.capacity_bytes);
}

static bool outputs_are_sound(const struct http_bed *bed)
{
    const struct xn_ask *ask = &bed->call.ask;
    size_t need = (size_t)bed->call.request->n_items * bed->network.n_classes * sizeof(int32_t);

    for (uint32_t i = 0; i < ask->n_outputs; i++) {
        const struct xn_ask_output *output = &ask->outputs[i];
        if (output->shared && (output->shared_bytes < need || !in_region(bed, output->shared, output->shared_bytes)))
            return false;
    }
    return true;
}

bool http_bed_items_are_sound(const struct http_bed *bed)
{
    const struct xn_request *r = bed->call.request;
    size_t tensor_bytes = bed->network.input_bytes;

    if (r->n_items < 1 || r->n_items > BED_IMAGES_MAX || atomic_load(&r->unsettled) != r->n_items)
        return false;
    for (uint32_t i = 0; i < r->n_items; i++) {
        const struct xn_item *item = &r->items[i];
        bool own = inside(item->input, tensor_bytes, &r->tensors, r->tensors.capacity_bytes);
        bool picture = item->encoded && inside(item->encoded, item->encoded_bytes, &r->body, r->body_bytes) && own;
        bool tensor = !item->encoded && (own || inside(item->input, tensor_bytes, &r->body, r->body_bytes) ||
                                         in_region(bed, item->input, tensor_bytes));
        if (!picture && !tensor)
            return false;
    }
    return outputs_are_sound(bed);
}
