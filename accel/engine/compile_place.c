/* SPDX-License-Identifier: Apache-2.0
 * Where maps lie. Each takes the first gap that is large enough, from the step that first touches it to the last. A residual that
 * ends where the stream that replaces it begins gives it its place: every lane reads before it writes. */
#include "accel/engine/compile.h"
#include "common/fault.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/** Maps that live, in order of their bases. */
struct memory {
    uint32_t *live; /**< [n_maps] */
    uint32_t n, banks, rows, used;
    uint32_t word_bytes;
    const char *name;
};

static uint64_t map_rows(const struct xn_engine_map *map, const struct memory *memory)
{
    return xn_isa_map_rows(map->h, map->w, map->pitch, memory->banks) + map->slack;
}

static uint32_t root(const struct xn_compiler *c, uint32_t map)
{
    while (c->maps[map].same != map)
        map = c->maps[map].same;
    return map;
}

/** May the stream of step `i`, and of those that make it together with it, take the place of map `r`, its residual? */
static bool may_share(const struct xn_compiler *c, uint32_t i, uint32_t r)
{
    const struct xn_engine_step *first = &c->steps[i];
    const struct xn_engine_map *from = &c->maps[r], *to = &c->maps[first->stream.map];

    if (from->last != i + first->together - 1 || to->first != i || first->residual.group || first->stream.group ||
        from->pitch != to->pitch)
        return false;
    for (uint32_t k = i; k <= from->last; k++) {
        const struct xn_engine_step *step = &c->steps[k];
        if (step->stream.map != first->stream.map || step->residual.map != first->residual.map ||
            (step->source.map != XN_ENGINE_NONE && root(c, step->source.map) == r))
            return false;
    }
    return true;
}

static void share_residuals(struct xn_compiler *c)
{
    for (uint32_t i = 0; i < c->n_steps; i++) {
        const struct xn_engine_step *step = &c->steps[i];
        if (!step->together || step->residual.map == XN_ENGINE_NONE || step->stream.map == XN_ENGINE_NONE)
            continue;
        const uint32_t r = root(c, step->residual.map);
        struct xn_engine_map *to = &c->maps[step->stream.map];
        if (!may_share(c, i, r))
            continue;
        to->same = r;
        c->maps[r].last = to->last;
    }
}

static void forget(const struct xn_compiler *c, struct memory *memory, uint32_t step)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < memory->n; i++)
        if (c->maps[memory->live[i]].last >= step)
            memory->live[n++] = memory->live[i];
    memory->n = n;
}

static double kib(const struct memory *memory, uint64_t rows)
{
    return (double)rows * memory->banks * memory->word_bytes / 1024;
}

static int place(const struct xn_compiler *c, struct memory *memory, uint32_t id)
{
    struct xn_engine_map *map = &c->maps[id];
    const uint64_t rows = map_rows(map, memory);
    uint64_t base = 0;
    uint32_t at = 0;

    forget(c, memory, map->first);
    for (; at < memory->n; at++) {
        const struct xn_engine_map *other = &c->maps[memory->live[at]];
        if (base + rows <= other->base)
            break;
        base = other->base + map_rows(other, memory);
    }
    if (base + rows > memory->rows)
        return xn_compiler_refuse(c, map->layer, -ENOSPC,
                                  "its output does not fit %s: with what else lives there it takes %" PRIu64
                                  " rows (%.0f KiB) of %u (%.0f KiB)",
                                  memory->name, base + rows, kib(memory, base + rows), memory->rows,
                                  kib(memory, memory->rows));
    for (uint32_t i = memory->n++; i > at; i--)
        memory->live[i] = memory->live[i - 1];
    memory->live[at] = id;
    map->base = (uint32_t)base;
    memory->used = XN_MAX(memory->used, (uint32_t)(base + rows));
    return 0;
}

static int place_all(struct xn_compiler *c, struct memory *am, struct memory *rm)
{
    uint32_t before = 0;

    for (uint32_t i = 0; i < c->n_maps; i++) {
        const int r = c->maps[i].kept ? place(c, am, i) : 0;
        if (r < 0)
            return r;
    }
    for (uint32_t i = 0; i < c->n_maps; i++) {
        struct xn_engine_map *map = &c->maps[i];
        if (map->kept)
            continue;
        assert(map->first >= before);
        before = map->first;
        if (map->same != i) {
            map->base = c->maps[root(c, i)].base;
            continue;
        }
        const int r = place(c, map->stream ? rm : am, i);
        if (r < 0)
            return r;
    }
    return 0;
}

int xn_compiler_place(struct xn_compiler *c, uint32_t *ret_am_rows, uint32_t *ret_rm_rows)
{
    const struct xn_isa_geometry *g = c->geometry;
    struct memory am = {
        xn_calloc(c->n_maps, sizeof(uint32_t)), 0, 2 * g->p, g->am_rows, 0, XN_ISA_WORD_BYTES, "the activation memory"};
    struct memory rm = {
        xn_calloc(c->n_maps, sizeof(uint32_t)), 0, g->pr, g->rm_rows, 0, 2 * XN_ISA_LANES, "the residual memory"};
    int r = -ENOMEM;

    if (am.live && rm.live) {
        share_residuals(c);
        r = place_all(c, &am, &rm);
    }
    free(am.live);
    free(rm.live);
    if (r == 0) {
        *ret_am_rows = am.used;
        *ret_rm_rows = rm.used;
    }
    return r;
}
