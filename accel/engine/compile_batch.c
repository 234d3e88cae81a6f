/* SPDX-License-Identifier: Apache-2.0
 * The tail of a program: the last steps that make one pixel, fully connected layers as a rule. Run image by image each would use one
 * pixel of a tile and fetch all its weights; run once a turn, with the images side by side in one wide map, it fills tiles.
 *
 *     head                                       for each image
 *     LARGEST with BATCH, a copy for each map that the tail reads and the head has made: to the image's columns of a wide map
 *     TURN
 *     tail                                       out_w = images; what it makes is one row of pixels, one an image
 *
 * A wide map lives all through the program: other images' heads run while it holds those before. Its columns are as far apart as the map is
 * wide, or one more, so that the pixels of a tile lie in different banks. */
#include "accel/engine/compile.h"

#include <assert.h>
#include <string.h>

static bool is_made_before(const struct xn_compiler *c, struct xn_engine_ref ref, uint32_t step)
{
    return ref.map != XN_ENGINE_NONE && c->maps[ref.map].first < step;
}

/** May step `i` run once for all images, in a tail from step `from` on? Of what the head has made it reads maps in AM, and it writes into none. */
static bool can_batch(const struct xn_compiler *c, uint32_t i, uint32_t from)
{
    const struct xn_engine_step *step = &c->steps[i];
    const struct xn_isa_descriptor *d = &step->d;

    return d->op != XN_ISA_INPUT && d->out_h == 1 && d->out_w == 1 && d->pad_left == 0 && d->kernel_w <= d->width &&
           (d->source != XN_ISA_I16 || !is_made_before(c, step->source, from)) &&
           !is_made_before(c, step->residual, from) && !is_made_before(c, step->stream, from) &&
           !is_made_before(c, step->dest, from);
}

/** The first step of the longest tail; n_steps: there is none. A tail that begins later has more maps made before it, so each is tried. */
static uint32_t find_tail(const struct xn_compiler *c)
{
    uint32_t from = c->n_steps;

    while (from > 1 && c->steps[from - 1].d.out_h == 1 && c->steps[from - 1].d.out_w == 1)
        from--;
    for (; from < c->n_steps; from++) {
        uint32_t i = from;
        while (i < c->n_steps && can_batch(c, i, from))
            i++;
        if (i == c->n_steps)
            break;
    }
    return from;
}

/** Columns from one image of a wide map to the next. Multiples of 4 put pixels of a tile into one bank (xn_address.sv). */
static uint32_t column_step(uint32_t width)
{
    return width % 4 == 0 ? width + 1 : width;
}

/** The copy of a map into its image's columns of `wide`, for a step of the tail that reads it. */
static struct xn_engine_step copy_to(const struct xn_compiler *c, const struct xn_engine_step *reader, uint32_t wide)
{
    const struct xn_engine_map *map = &c->maps[reader->source.map];
    struct xn_engine_step copy = xn_compiler_new_step(XN_ISA_LARGEST, reader->first_layer);
    struct xn_isa_descriptor *d = &copy.d;

    d->flags = XN_ISA_BATCH;
    d->source = reader->d.source;
    d->height = d->out_h = map->h;
    d->width = d->out_w = map->w;
    d->words = map->pitch;
    d->kernel_h = d->kernel_w = d->stride_h = d->stride_w = 1;
    d->channels =
        XN_MIN(map->pitch * (d->source == XN_ISA_BITS ? XN_ISA_WORD_BITS : XN_ISA_WORD_BYTES), XN_CHANNELS_MAX);
    d->dest_width = c->maps[wide].w;
    d->dest_step = column_step(map->w);
    copy.source.map = reader->source.map;
    copy.source.group = 0;
    copy.dest.map = wide;
    copy.dest.group = 0;
    return copy;
}

static uint32_t add_wide(struct xn_compiler *c, uint32_t map, uint32_t turn)
{
    struct xn_engine_map wide = c->maps[map];

    wide.w = turn * column_step(wide.w);
    wide.kept = true;
    wide.first = 0;
    wide.same = c->n_maps;
    c->maps[c->n_maps] = wide;
    return c->n_maps++;
}

/** What a tail is made with. */
struct batch {
    uint32_t turn, from;
    struct xn_engine_step copies[XN_ENGINE_TAIL_MAPS_MAX];
    uint32_t n;
};

/** The wide map that holds `reader`'s source; NONE: there are too many. */
static uint32_t wide_of(struct xn_compiler *c, struct batch *b, const struct xn_engine_step *reader)
{
    for (uint32_t k = 0; k < b->n; k++)
        if (b->copies[k].source.map == reader->source.map)
            return b->copies[k].dest.map;
    if (b->n == XN_ENGINE_TAIL_MAPS_MAX)
        return XN_ENGINE_NONE;
    const uint32_t wide = add_wide(c, reader->source.map, b->turn);
    b->copies[b->n++] = copy_to(c, reader, wide);
    return wide;
}

/** Step `i` for all images of the turn. */
static bool widen(struct xn_compiler *c, struct batch *b, uint32_t i)
{
    struct xn_engine_step *step = &c->steps[i];
    const bool crosses = is_made_before(c, step->source, b->from);

    if (crosses) {
        const uint32_t wide = wide_of(c, b, step);
        if (wide == XN_ENGINE_NONE)
            return false;
        step->d.stride_w = column_step(step->d.width);
        step->d.width = c->maps[wide].w;
        step->source.map = wide;
    } else {
        step->d.width = b->turn;
        step->d.stride_w = 1;
    }
    step->d.out_w = b->turn;
    if (step->d.op != XN_ISA_LARGEST)
        step->d.flags |= XN_ISA_BATCH;
    return true;
}

/** Copies and the TURN between head and tail; what maps say of steps follows. */
static void insert(struct xn_compiler *c, const struct batch *b)
{
    const uint32_t more = b->n + 1;
    struct xn_engine_step turn = xn_compiler_new_step(XN_ISA_TURN, c->steps[b->from].first_layer);

    turn.d.out_w = b->turn;
    memmove(&c->steps[b->from + more], &c->steps[b->from], (c->n_steps - b->from) * sizeof(*c->steps));
    memcpy(&c->steps[b->from], b->copies, b->n * sizeof(*c->steps));
    c->steps[b->from + b->n] = turn;
    c->n_steps += more;
    for (uint32_t m = 0; m < c->n_maps; m++) {
        struct xn_engine_map *map = &c->maps[m];
        map->first += map->first >= b->from ? more : 0;
        map->last += map->last >= b->from ? more : 0;
    }
    for (uint32_t k = 0; k < b->n; k++)
        c->maps[b->copies[k].source.map].last = b->from + k;
    for (uint32_t v = 0; v < c->network->n_values; v++)
        c->values[v].made_by += c->values[v].made_by >= b->from ? more : 0;
}

/** The most images that side by side are no wider than a map can be. */
static uint32_t limit_turn(const struct xn_compiler *c, uint32_t from, uint32_t turn)
{
    for (uint32_t i = from; i < c->n_steps; i++)
        while (turn > 1 && turn * column_step(c->steps[i].d.width) > XN_ISA_SIDE_MAX)
            turn /= 2;
    return turn;
}

uint32_t xn_compiler_batch(struct xn_compiler *c, uint32_t turn)
{
    const uint32_t from = find_tail(c), n_maps = c->n_maps;
    struct batch b = {.turn = limit_turn(c, from, turn), .from = from};

    if (from == c->n_steps || b.turn == 1 || c->n_steps + XN_ENGINE_TAIL_MAPS_MAX + 1 >= XN_ISA_DESCRIPTORS_MAX)
        return 1;
    for (uint32_t i = from; i < c->n_steps; i++)
        if (!widen(c, &b, i))
            return 1;
    for (uint32_t m = 0; m < n_maps; m++)
        if (c->maps[m].first >= from)
            c->maps[m].w = b.turn;
    insert(c, &b);
    return b.turn;
}
