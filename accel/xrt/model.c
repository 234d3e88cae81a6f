/* SPDX-License-Identifier: Apache-2.0
 * A network on one compute unit: its program, kept on the host so that a reset card is filled again from there; its weights in card memory, which it
 * shares (store.c); and two places for the tensors of a job. Settled, it has all of them; else none. */
#include "accel/xrt/xrt.h"
#include "common/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- on the host ------------------------------------------------------------------------------------------------------------ */

int xn_xrt_model_new(const struct xn_network *network, const struct xn_isa_geometry *geometry, uint32_t max_batch,
                     struct xn_accel_model **ret_model, struct xn_error *error)
{
    struct xn_accel_model *model = xn_calloc(1, sizeof(*model));
    int r;

    if (!model)
        return xn_error_set(error, -ENOMEM, "no memory to load model \"%s\"", network->name);
    model->network = network;
    model->max_batch = max_batch;
    r = xn_engine_compile(network, geometry, XN_ENGINE_TURN, &model->program, error);
    if (r < 0) {
        free(model);
        return r == -ENOMEM ? xn_error_set(error, r, "no memory to load model \"%s\"", network->name) : r;
    }
    for (uint32_t i = 0; i < XN_XRT_COSTS; i++)
        if (i == 0 || UINT32_C(1) << (i - 1) < max_batch)
            model->cycles[i] = xn_engine_cycles(model->program, UINT32_C(1) << i, NULL);
    *ret_model = model;
    return 0;
}

void xn_xrt_model_free(struct xn_accel_model *model)
{
    if (!model)
        return;
    assert(!model->weights);
    xn_engine_program_free(model->program);
    free(model);
}

uint64_t xn_xrt_model_cycles(const struct xn_accel_model *model, uint32_t batch)
{
    uint32_t i = 0;

    while (UINT32_C(1) << i < batch)
        i++;
    const uint64_t above = model->cycles[i], below = model->cycles[i > 0 ? i - 1 : 0];
    const uint32_t more = (UINT32_C(1) << i) - batch, span = i > 0 ? UINT32_C(1) << (i - 1) : 1;
    return above - (above - below) * more / span;
}

/* ---- on the card ------------------------------------------------------------------------------------------------------------ */

/** What the host reads is cached where card memory is its own. What it only writes need not be, and so need not be flushed. */
static int take_slot(const struct xn_xrt_place *place, const struct xn_accel_model *model, struct xn_xrt_slot *slot,
                     struct xn_xrt_why *why)
{
    const struct xn_xrt_api *api = place->api;
    struct xn_xrt_unit *unit = place->unit;
    const int cached = place->is_own_memory;
    const uint64_t input_bytes = (uint64_t)model->max_batch * model->program->input_bytes;
    const uint64_t output_bytes = (uint64_t)model->max_batch * model->program->output_words * sizeof(int32_t);
    void *input = NULL, *output = NULL, *status = NULL;
    int r = api->buffer_new(unit, XN_XRT_INPUT, input_bytes, 0, &slot->input, &input, why);

    if (r == 0)
        r = api->buffer_new(unit, XN_XRT_OUTPUT, output_bytes, cached, &slot->output, &output, why);
    if (r == 0)
        r = api->buffer_new(unit, XN_XRT_STATUS, sizeof(struct xn_isa_status), cached, &slot->status, &status, why);
    if (r == 0)
        r = api->run_new(unit, &slot->run, why);
    slot->input_host = input;
    slot->output_host = output;
    slot->status_host = status;
    return r;
}

static int set_arguments(const struct xn_xrt_api *api, const struct xn_accel_model *model, struct xn_xrt_slot *slot,
                         struct xn_xrt_why *why)
{
    struct xn_xrt_buffer *const buffers[] = {[XN_XRT_PROGRAM] = model->weights->program_buffer,
                                             [XN_XRT_STREAM] = model->weights->stream_buffer,
                                             [XN_XRT_INPUT] = slot->input,
                                             [XN_XRT_OUTPUT] = slot->output,
                                             [XN_XRT_STATUS] = slot->status};
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < XN_ARRAY_LEN(buffers); i++)
        r = buffers[i] ? api->run_buffer(slot->run, i, buffers[i], why) : 0;
    if (r == 0)
        r = api->run_scalar(slot->run, XN_XRT_INPUT_BYTES, model->program->input_bytes, why);
    if (r == 0)
        r = api->run_scalar(slot->run, XN_XRT_OUTPUT_WORDS, model->program->output_words, why);
    return r;
}

int xn_xrt_model_settle_locked(struct xn_xrt_store *store, struct xn_accel_model *model,
                               const struct xn_xrt_place *place, struct xn_error *error)
{
    const struct xn_engine_program *p = model->program;
    struct xn_xrt_why why;
    int r = xn_xrt_weights_get_locked(store, place, p, &model->weights, &why);

    if (r == -ENOMEM)
        return xn_error_set(error, r, "no memory to load model \"%s\"", model->network->name);
    for (uint32_t i = 0; r == 0 && i < XN_XRT_INFLIGHT; i++) {
        r = take_slot(place, model, &model->slots[i], &why);
        if (r == 0)
            r = set_arguments(place->api, model, &model->slots[i], &why);
    }
    if (r == 0)
        return 0;
    xn_xrt_model_evict_locked(place->api, store, model);
    return xn_error_set(
        error, r == -ENOMEM ? -ENOSPC : r,
        "model \"%s\" does not get its %zu bytes of program and two batches of %u images in card memory: %s",
        model->network->name, p->stream_bytes + p->n * sizeof(*p->descriptors), model->max_batch, why.text);
}

void xn_xrt_model_evict_locked(const struct xn_xrt_api *api, struct xn_xrt_store *store, struct xn_accel_model *model)
{
    for (uint32_t i = 0; i < XN_XRT_INFLIGHT; i++) {
        struct xn_xrt_slot *slot = &model->slots[i];
        struct xn_xrt_buffer *const buffers[] = {slot->input, slot->output, slot->status};
        if (slot->run)
            api->run_free(slot->run);
        for (size_t k = 0; k < XN_ARRAY_LEN(buffers); k++)
            if (buffers[k])
                api->buffer_free(buffers[k]);
        *slot = (struct xn_xrt_slot){0};
    }
    if (model->weights)
        xn_xrt_weights_put_locked(api, store, model->weights);
    model->weights = NULL;
}
