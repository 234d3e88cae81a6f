/* SPDX-License-Identifier: Apache-2.0
 * What lies in a card's memory. Units of a card that run the same program, and whose arguments lie in the same banks, run it from one copy: what is
 * the same is found by comparing bytes, as a network may come from two files and a reload has it as another object.
 *
 * A model leaves by its unit alone, so a copy that another unit runs stays; the last to leave takes it along. Copies of before a reset are not shared
 * with models that settle after it: they were made of a device that is given up. */
#include "accel/xrt/xrt.h"
#include "common/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights ---------------------------------------------------------------------------------------------------------------- */

/** A buffer for `argument`, and `bytes` of `from` in it on the card. */
static int take(const struct xn_xrt_place *place, uint32_t argument, const void *from, size_t bytes,
                struct xn_xrt_buffer **ret_buffer, const void **ret_host, struct xn_xrt_why *why)
{
    const struct xn_xrt_api *api = place->api;
    void *host;
    int r = api->buffer_new(place->unit, argument, XN_MAX(bytes, 1), 0, ret_buffer, &host, why);

    if (r < 0) {
        *ret_buffer = NULL;
        return r == -ENOMEM ? -ENOSPC : r;
    }
    if (bytes)
        memcpy(host, from, bytes);
    *ret_host = host;
    return api->buffer_sync(*ret_buffer, 1, XN_MAX(bytes, 1), why);
}

static void weights_free(const struct xn_xrt_api *api, struct xn_xrt_weights *weights)
{
    if (weights->program_buffer)
        api->buffer_free(weights->program_buffer);
    if (weights->stream_buffer)
        api->buffer_free(weights->stream_buffer);
    free(weights);
}

static bool same(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return a_bytes == b_bytes && (a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

static struct xn_xrt_weights *find_locked(const struct xn_xrt_store *store, const struct xn_xrt_place *place,
                                          const struct xn_engine_program *program, const uint32_t banks[2])
{
    for (struct xn_xrt_weights *w = store->weights; w; w = w->next)
        if (w->generation == place->generation && w->banks[0] == banks[0] && w->banks[1] == banks[1] &&
            same(w->program_host, w->program_bytes, program->descriptors, program->n * sizeof(*program->descriptors)) &&
            same(w->stream_host, w->stream_bytes, program->stream, program->stream_bytes))
            return w;
    return NULL;
}

static int weights_new(const struct xn_xrt_place *place, const struct xn_engine_program *program,
                       const uint32_t banks[2], struct xn_xrt_weights **ret_weights, struct xn_xrt_why *why)
{
    struct xn_xrt_weights *w = xn_calloc(1, sizeof(*w));

    if (!w) {
        *why = (struct xn_xrt_why){"no memory"};
        return -ENOMEM;
    }
    w->generation = place->generation;
    w->banks[0] = banks[0];
    w->banks[1] = banks[1];
    w->program_bytes = program->n * sizeof(*program->descriptors);
    w->stream_bytes = program->stream_bytes;
    int r =
        take(place, XN_XRT_PROGRAM, program->descriptors, w->program_bytes, &w->program_buffer, &w->program_host, why);
    if (r == 0)
        r = take(place, XN_XRT_STREAM, program->stream, w->stream_bytes, &w->stream_buffer, &w->stream_host, why);
    if (r < 0) {
        weights_free(place->api, w);
        return r;
    }
    *ret_weights = w;
    return 0;
}

int xn_xrt_weights_get_locked(struct xn_xrt_store *store, const struct xn_xrt_place *place,
                              const struct xn_engine_program *program, struct xn_xrt_weights **ret_weights,
                              struct xn_xrt_why *why)
{
    uint32_t banks[2];
    int r = place->api->unit_bank(place->unit, XN_XRT_PROGRAM, &banks[0], why);

    if (r == 0)
        r = place->api->unit_bank(place->unit, XN_XRT_STREAM, &banks[1], why);
    if (r < 0)
        return r;
    struct xn_xrt_weights *w = find_locked(store, place, program, banks);
    if (!w) {
        r = weights_new(place, program, banks, &w, why);
        if (r < 0)
            return r;
        w->next = store->weights;
        store->weights = w;
    }
    w->users++;
    *ret_weights = w;
    return 0;
}

void xn_xrt_weights_put_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store, struct xn_xrt_weights *weights)
{
    struct xn_xrt_weights **at = &store->weights;

    if (--weights->users > 0)
        return;
    while (*at != weights)
        at = &(*at)->next;
    *at = weights->next;
    weights_free(api, weights);
}

/* ---- who stays -------------------------------------------------------------------------------------------------------------- */

/** The model that has not run for longest and is not at work leaves the card. False: there is none. */
static bool evict_one_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store)
{
    struct xn_accel_model *oldest = NULL;

    for (struct xn_accel_model *m = store->models; m; m = m->next)
        if (m->weights && m->inflight == 0 && (!oldest || m->used < oldest->used))
            oldest = m;
    if (oldest)
        xn_xrt_model_evict_locked(api, store, oldest);
    return oldest != NULL;
}

int xn_xrt_store_settle_locked(struct xn_xrt_store *store, struct xn_accel_model *model,
                               const struct xn_xrt_place *place, struct xn_error *error)
{
    int r;

    do
        r = xn_xrt_model_settle_locked(store, model, place, error);
    while (r == -ENOSPC && evict_one_locked(place->api, store));
    return r;
}

void xn_xrt_store_forget_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store, uint32_t generation)
{
    for (struct xn_accel_model *m = store->models; m; m = m->next)
        if (m->weights && m->weights->generation != generation && m->inflight == 0)
            xn_xrt_model_evict_locked(api, store, m);
}
