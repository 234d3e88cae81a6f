/* SPDX-License-Identifier: Apache-2.0
 * From a network to a program. Layers that the logits need become steps (compile_plan.c), steps get addresses
 * (compile_place.c), then each is a descriptor and its part of the stream (compile_pack.c). What comes out is checked as the
 * engine will check it: a program that fails is an error here and not of the network. */
#include "accel/engine/compile.h"
#include "common/fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

int xn_compiler_refuse(const struct xn_compiler *c, uint32_t layer, int code, const char *format, ...)
{
    const struct xn_layer *l = &c->network->layers[layer];
    struct xn_error why;
    va_list args;

    va_start(args, format);
    vsnprintf(why.text, sizeof(why.text), format, args);
    va_end(args);
    return xn_error_set(c->error, code, "layer %u \"%s\" (%s): %s", layer, l->name, xn_op_name(l->op), why.text);
}

/* ---- what is read by whom ---------------------------------------------------------------------------------------------- */

static void find_needed(struct xn_compiler *c)
{
    const struct xn_network *n = c->network;

    c->needed[n->n_layers - 1] = true;
    for (uint32_t i = n->n_layers; i-- > 0;)
        for (uint32_t k = 0; c->needed[i] && k < n->layers[i].n_inputs; k++)
            if (n->layers[i].inputs[k])
                c->needed[n->layers[i].inputs[k] - 1] = true;
}

static void find_readers(struct xn_compiler *c)
{
    const struct xn_network *n = c->network;

    for (uint32_t i = 0; i < n->n_layers; i++)
        for (uint32_t k = 0; c->needed[i] && k < n->layers[i].n_inputs; k++)
            c->first_reader[n->layers[i].inputs[k] + 1]++;
    for (uint32_t v = 0; v < n->n_values; v++)
        c->first_reader[v + 1] += c->first_reader[v];
    /* Filled from behind, so that each value's end becomes its beginning. */
    for (uint32_t i = n->n_layers; i-- > 0;)
        for (uint32_t k = 0; c->needed[i] && k < n->layers[i].n_inputs; k++)
            c->readers[--c->first_reader[n->layers[i].inputs[k] + 1]] = i;
    for (uint32_t v = 0; v < n->n_values; v++)
        c->first_reader[v] = c->first_reader[v + 1];
    c->first_reader[n->n_values] = 0;
    for (uint32_t i = 0; i < n->n_layers; i++)
        c->first_reader[n->n_values] += c->needed[i] ? n->layers[i].n_inputs : 0;
}

static int init(struct xn_compiler *c)
{
    const struct xn_network *n = c->network;

    c->values = xn_calloc(n->n_values, sizeof(*c->values));
    c->needed = xn_calloc(n->n_layers, sizeof(*c->needed));
    c->done = xn_calloc(n->n_layers, sizeof(*c->done));
    c->first_reader = xn_calloc(n->n_values + 1, sizeof(*c->first_reader));
    c->readers = xn_calloc((size_t)n->n_layers * XN_LAYER_INPUTS_MAX, sizeof(*c->readers));
    c->steps = xn_calloc(XN_ISA_DESCRIPTORS_MAX, sizeof(*c->steps));
    c->maps = xn_calloc(2 * XN_ISA_DESCRIPTORS_MAX, sizeof(*c->maps));
    if (!c->values || !c->needed || !c->done || !c->first_reader || !c->readers || !c->steps || !c->maps)
        return -ENOMEM;
    for (uint32_t v = 0; v < n->n_values; v++) {
        c->values[v].home = XN_ENGINE_NONE;
        c->values[v].at.map = XN_ENGINE_NONE;
    }
    find_needed(c);
    find_readers(c);
    return 0;
}

static void done(struct xn_compiler *c)
{
    free(c->values);
    free(c->needed);
    free(c->done);
    free(c->first_reader);
    free(c->readers);
    free(c->steps);
    free(c->maps);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------------- */

/** Equal chunks of the window, where its weights are more than a weight buffer has. */
static int set_chunk(const struct xn_compiler *c, struct xn_isa_descriptor *d, uint32_t layer)
{
    const uint64_t steps = xn_isa_steps(d), tiles = d->out_h * xn_isa_ceil(d->out_w, xn_isa_tile(d, c->geometry));
    const uint32_t room = c->geometry->wb_words;

    if (steps > XN_ISA_STEPS_MAX)
        return xn_compiler_refuse(c, layer, -ENOTSUP, "its window takes %llu steps, the engine has at most %u",
                                  (unsigned long long)steps, XN_ISA_STEPS_MAX);
    if (!xn_isa_has_weights(d))
        return 0;
    if (steps > room && tiles > 1)
        return xn_compiler_refuse(c, layer, -ENOSPC, "its window takes %llu weight words, the weight buffer has %u",
                                  (unsigned long long)steps, room);
    d->chunk = (uint32_t)xn_isa_ceil(steps, xn_isa_ceil(steps, room));
    return 0;
}

/** Channels of a word of the source. */
static uint32_t source_unit(const struct xn_isa_descriptor *d)
{
    return d->source == XN_ISA_BITS ? XN_ISA_WORD_BITS : XN_ISA_WORD_BYTES;
}

static void set_addresses(const struct xn_compiler *c, const struct xn_engine_step *step, struct xn_isa_descriptor *d)
{
    const struct xn_engine_map *maps = c->maps;

    if (step->source.map != XN_ENGINE_NONE) {
        d->base = maps[step->source.map].base + step->first_in / source_unit(d);
        d->pitch = maps[step->source.map].pitch;
        d->source_group = step->source.group;
    }
    if (step->residual.map != XN_ENGINE_NONE) {
        d->residual_base = maps[step->residual.map].base + step->residual.group;
        d->residual_pitch = maps[step->residual.map].pitch;
    }
    if (step->stream.map != XN_ENGINE_NONE) {
        d->stream_base = maps[step->stream.map].base + step->stream.group;
        d->stream_pitch = maps[step->stream.map].pitch;
    }
    if (step->dest.map != XN_ENGINE_NONE) {
        d->dest_base = maps[step->dest.map].base;
        d->dest_pitch = maps[step->dest.map].pitch;
        d->dest_group = step->dest.group;
        if (d->op == XN_ISA_LARGEST &&
            d->source != XN_ISA_BITS) /* LARGEST counts words, as if a group were a quarter of each */
            d->dest_group *= 4 * XN_ISA_LANES / XN_ISA_WORD_BYTES;
    }
}

static int make_descriptor(const struct xn_compiler *c, const struct xn_engine_step *step,
                           struct xn_isa_descriptor *ret)
{
    *ret = step->d;
    set_addresses(c, step, ret);
    if (step->d.op == XN_ISA_INPUT || step->d.op == XN_ISA_TURN)
        return 0;
    return set_chunk(c, ret, step->head != XN_ENGINE_NONE ? step->head : step->first_layer);
}

static int check(const struct xn_compiler *c, const struct xn_engine_program *p, uint32_t i)
{
    const uint32_t e = xn_isa_check(&p->descriptors[i], &p->geometry, p->input_bytes, p->output_words, p->turn - 1);

    if (e == XN_ISA_OK)
        return 0;
    return xn_compiler_refuse(c, p->passes[i].first_layer, -EIO,
                              "the engine would refuse pass %u (error %u): this is an error of the compiler", i, e);
}

static int make_descriptors(const struct xn_compiler *c, struct xn_engine_program *p)
{
    p->descriptors = xn_calloc(c->n_steps + 1, sizeof(*p->descriptors));
    p->passes = xn_calloc(c->n_steps + 1, sizeof(*p->passes));
    if (!p->descriptors || !p->passes)
        return -ENOMEM;
    p->n = c->n_steps + 1;
    for (uint32_t i = 0; i < c->n_steps; i++) {
        const struct xn_engine_step *step = &c->steps[i];
        p->passes[i].first_layer = step->first_layer;
        p->passes[i].last_layer = step->last_layer;
        p->passes[i].macs = step->macs;
        p->passes[i].binary = step->head != XN_ENGINE_NONE && c->network->layers[step->head].binary;
        int r = make_descriptor(c, step, &p->descriptors[i]);
        if (r == 0)
            r = check(c, p, i);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- stream, places -------------------------------------------------------------------------------------------- */

static int make_stream(const struct xn_compiler *c, struct xn_engine_program *p)
{
    size_t at = 0, bytes = 0;

    for (uint32_t i = 0; i < c->n_steps; i++) {
        if (!xn_compiler_stream_bytes(&c->steps[i], &bytes) || !xn_add_size(p->stream_bytes, bytes, &p->stream_bytes))
            return -ENOMEM;
        p->passes[i].stream_bytes = bytes;
    }
    p->stream = xn_calloc_aligned(XN_MAX(p->stream_bytes, 1), 1);
    if (!p->stream)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n_steps; i++) {
        xn_compiler_pack(c, &c->steps[i], p->stream + at);
        at += p->passes[i].stream_bytes;
    }
    return 0;
}

static int make_places(const struct xn_compiler *c, struct xn_engine_program *p)
{
    p->places = xn_calloc(c->network->n_values, sizeof(*p->places));
    if (!p->places)
        return -ENOMEM;
    for (uint32_t v = 0; v < c->network->n_values; v++) {
        const struct xn_engine_value *value = &c->values[v];
        if (value->at.map == XN_ENGINE_NONE || value->open) /* an open CONCAT may be a map for what moved in */
            continue;
        const struct xn_engine_map *map = &c->maps[value->at.map];
        p->places[v] = (struct xn_engine_place){.memory = map->stream ? XN_PLACE_RM : XN_PLACE_AM,
                                                .base = map->base,
                                                .pitch = map->pitch,
                                                .width = map->w,
                                                .group = value->at.group,
                                                .made_by = value->made_by,
                                                .lanes = xn_compiler_width(c, v),
                                                .channels = value->layout ? value->layout->channels : NULL};
    }
    return 0;
}

static int make_program(struct xn_compiler *c, struct xn_engine_program *p, uint32_t turn)
{
    int r = init(c);

    if (r == 0)
        r = xn_compiler_lay_out(c);
    p->layouts = c->layouts;
    if (r == 0)
        r = xn_compiler_plan(c);
    p->turn = r == 0 ? xn_compiler_batch(c, turn) : 1;
    if (r == 0)
        r = xn_compiler_place(c, &p->am_rows_used, &p->rm_rows_used);
    if (r == 0)
        r = make_descriptors(c, p);
    if (r == 0)
        r = make_stream(c, p);
    if (r == 0)
        r = make_places(c, p);
    return r;
}

static int compile(const struct xn_network *network, const struct xn_isa_geometry *geometry, uint32_t turn,
                   struct xn_engine_program **ret_program, struct xn_error *error)
{
    struct xn_compiler c = {.network = network, .geometry = geometry, .error = error};
    struct xn_engine_program *p = xn_calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->network = network;
    p->geometry = *geometry;
    p->input_bytes = (uint32_t)network->input_bytes;
    p->output_words = network->n_classes;
    const int r = make_program(&c, p, turn);
    done(&c);
    if (r < 0)
        xn_engine_program_free(p);
    else
        *ret_program = p;
    return r;
}

int xn_engine_compile(const struct xn_network *network, const struct xn_isa_geometry *geometry, uint32_t turn,
                      struct xn_engine_program **ret_program, struct xn_error *error)
{
    int r = xn_engine_geometry_check(geometry, error);

    if (r == 0 && (turn < 1 || turn > XN_ISA_SIDE_MAX))
        r = xn_error_set(error, -EINVAL, "images of a turn are 1..%u, not %u", XN_ISA_SIDE_MAX, turn);
    if (r < 0)
        return r;
    do {
        r = compile(network, geometry, turn, ret_program, error);
        turn /= 2;
    } while (r == -ENOSPC && turn > 0);
    return r == -ENOMEM ? xn_error_set(error, r, "no memory for the program") : r;
}

void xn_engine_program_free(struct xn_engine_program *p)
{
    if (!p)
        return;
    for (struct xn_engine_layout *l = p->layouts, *next; l; l = next) {
        next = l->next;
        free(l);
    }
    free(p->descriptors);
    free(p->passes);
    free(p->stream);
    free(p->places);
    free(p);
}
