/* SPDX-License-Identifier: Apache-2.0
 * A program grows pass by pass: one of the maps made so far is the source, what the pass makes becomes a map. Destinations
 * lie anywhere in their memory but on what the pass reads; maps that they overwrite are forgotten.
 *
 * Parameters are drawn by `reach`, what |v| can come to, which keeps the ranges of the instruction set, and `spread`, its
 * magnitude as a rule, so that signs and bytes are not all alike. Now and then they are extreme. */
#include "tests/support/random_program.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/random_network.h"

#define MAPS_MAX    16u
#define WORK_MAX    40000u     /* groups x pixels x steps of a pass: RTL runs it */
#define DAMAGED_MAX 4000000u   /* the same of a damaged program */
#define STREAM_MAX  (8u << 20) /* of a damaged program */
#define ATTEMPTS    200u
#define B_MAX       (INT64_C(1) << 47)
#define M1_MAX      131071
#define WIDE        (INT64_C(1) << 30)

enum kind { BYTES, BITS, STREAM };

struct map {
    enum kind kind;
    uint32_t h, w, channels, base, pitch;
    uint32_t image_w, image_step; /**< of the columns of each image, where a turn's images share it; else 0 */
};

struct growth {
    struct xn_random random;
    struct xn_random_program *program;
    struct map maps[MAPS_MAX];
    uint32_t n_maps;
    uint32_t turn;    /**< images of a turn, if there is to be a TURN; else 1 */
    bool is_tail;     /**< behind it */
    bool is_gathered; /**< the next pass puts the turn's images into one map */
    bool outputs_set; /**< output_words are what LOGITS with BATCH need */
};

/** A pass that is being drawn. */
struct draft {
    struct xn_isa_descriptor d;
    struct map source, dest, stream, residual; /* those that the flags name */
    int64_t reach;
    double spread;
};

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static bool chance(struct growth *g, uint32_t percent)
{
    return xn_random_below(&g->random, 100) < percent;
}

static uint32_t between(struct growth *g, uint32_t low, uint32_t high)
{
    return (uint32_t)xn_random_between(&g->random, low, high);
}

/** -most..most, small ones and the ends more often than not. */
static int64_t around_zero(struct growth *g, int64_t most)
{
    switch (xn_random_below(&g->random, 8)) {
    case 0:
        return -most;
    case 1:
        return most;
    case 2:
        return xn_random_between(&g->random, -1, 1);
    default:
        return xn_random_between(&g->random, -most, most);
    }
}

static int64_t limit(double v, int64_t most)
{
    return v > (double)most ? most : v < -(double)most ? -most : (int64_t)v;
}

/* ---- maps --------------------------------------------------------------------------------------------------------- */

static uint32_t groups_of(uint32_t channels)
{
    return (uint32_t)xn_isa_ceil(channels, XN_ISA_LANES);
}

/** Words that `channels` take of a pixel. */
static uint32_t words_of(enum kind kind, uint32_t channels)
{
    return kind == BITS ? (uint32_t)xn_isa_ceil(channels, 64) : groups_of(channels) * (kind == BYTES ? 2 : 1);
}

static uint32_t memory_rows(const struct growth *g, enum kind kind)
{
    const struct xn_isa_geometry *geometry = &g->program->geometry;
    return kind == STREAM ? geometry->rm_rows : geometry->am_rows;
}

static uint64_t rows_of(const struct growth *g, const struct map *m)
{
    const struct xn_isa_geometry *geometry = &g->program->geometry;
    return xn_isa_map_rows(m->h, m->w, m->pitch, m->kind == STREAM ? geometry->pr : 2 * geometry->p);
}

static bool overlap(const struct growth *g, const struct map *a, const struct map *b)
{
    return a->h && b->h && (a->kind == STREAM) == (b->kind == STREAM) && a->base < b->base + rows_of(g, b) &&
           b->base < a->base + rows_of(g, a);
}

/** A place for `m`, clear of two maps. */
static bool place(struct growth *g, struct map *m, const struct map *a, const struct map *b)
{
    uint64_t rows = rows_of(g, m), all = memory_rows(g, m->kind);

    for (uint32_t i = 0; i < 8 && rows <= all; i++) {
        m->base = between(g, 0, (uint32_t)(all - rows));
        if (!overlap(g, m, a) && !overlap(g, m, b))
            return true;
    }
    return false;
}

/** A map that `m`, drawn to be `pitch` words or more, can be appended to. NULL: there is none. */
static const struct map *with_room(const struct growth *g, const struct map *m, const struct map *a,
                                   const struct map *b, uint32_t align)
{
    for (uint32_t i = 0; i < g->n_maps; i++) {
        const struct map *o = &g->maps[i];
        if (o->kind == m->kind && o->h == m->h && o->w == m->w && o->channels % align == 0 &&
            words_of(o->kind, o->channels + m->channels) <= o->pitch && !overlap(g, o, a) && !overlap(g, o, b))
            return o;
    }
    return NULL;
}

/** Where `m` (its kind, shape and channels) goes: to new memory, or behind what a map holds. */
static bool place_output(struct growth *g, struct map *m, const struct map *a, const struct map *b, uint32_t align,
                         uint32_t *ret_group)
{
    const struct map *before = chance(g, 60) ? with_room(g, m, a, b, align) : NULL;

    *ret_group = 0;
    if (before) {
        *ret_group = groups_of(before->channels);
        m->channels += before->channels;
        m->base = before->base;
        m->pitch = before->pitch;
        return true;
    }
    m->pitch = words_of(m->kind, m->channels) + (chance(g, 50) ? between(g, 0, 3) : 0);
    return place(g, m, a, b);
}

static void remember(struct growth *g, const struct map *m)
{
    uint32_t kept = 0;

    if (!m->h)
        return;
    for (uint32_t i = 0; i < g->n_maps; i++)
        if (!overlap(g, &g->maps[i], m))
            g->maps[kept++] = g->maps[i];
    if (kept == MAPS_MAX)
        kept--;
    g->maps[kept++] = *m;
    g->n_maps = kept;
}

/* ---- the stream --------------------------------------------------------------------------------------------------- */

static void *stream_more(struct xn_random_program *p, size_t bytes)
{
    uint8_t *grown = realloc(p->stream, p->stream_bytes + bytes);

    if (!grown)
        abort();
    p->stream = grown;
    memset(p->stream + p->stream_bytes, 0, bytes);
    p->stream_bytes += bytes;
    return p->stream + p->stream_bytes - bytes;
}

/** M1 and B1. With SATURATE anything goes; without, the result must fit 32 bits. */
static void draw_scale(struct growth *g, const struct draft *t, struct xn_isa_lane *lane, double *spread)
{
    uint32_t n = t->d.shift & 0xff;
    double target = *spread < 300 ? 300 : 6000;

    if (!(t->d.flags & XN_ISA_SATURATE)) {
        lane->m1 = (int32_t)around_zero(g, XN_MAX(1, XN_MIN(M1_MAX, WIDE / 2 / t->reach)));
        lane->b1 = around_zero(g, WIDE / 2);
    } else if (chance(g, 10)) {
        lane->m1 = (int32_t)around_zero(g, M1_MAX) - (chance(g, 50) ? 1 : 0);
        lane->b1 = around_zero(g, B_MAX);
    } else {
        lane->m1 = (int32_t)limit(ldexp(target / *spread, (int)n) * (chance(g, 50) ? 1 : -1), M1_MAX);
        lane->b1 = limit(ldexp(target, (int)n) * (double)xn_random_between(&g->random, -100, 100) / 50, B_MAX);
    }
    *spread = XN_MAX(1, ldexp(fabs((double)lane->m1) * *spread, -(int)n));
}

static void draw_destination(struct growth *g, const struct draft *t, struct xn_isa_lane *lane, double spread)
{
    int64_t reach = t->d.flags & (XN_ISA_SATURATE | XN_ISA_RPRELU) ? 32768
                    : t->d.flags & XN_ISA_SCALE                    ? WIDE + WIDE / 2
                                                                   : t->reach + 32768;
    uint32_t n = t->d.shift >> 8;

    lane->t =
        (int32_t)(chance(g, 85) ? limit(spread * (double)xn_random_between(&g->random, -200, 200) / 100, INT32_MAX)
                                : around_zero(g, INT32_MAX) - (chance(g, 10) ? 1 : 0));
    if (t->d.flags & XN_ISA_LOGITS) {
        lane->t = (int32_t)around_zero(g, XN_MAX(1, WIDE / reach));
        lane->b2 = around_zero(g, WIDE / 4);
    } else if (chance(g, 15)) {
        lane->m2 = (int16_t)around_zero(g, INT16_MAX);
        lane->b2 = around_zero(g, B_MAX);
    } else {
        lane->m2 = (int16_t)limit(ldexp(60 / spread, (int)n) * (chance(g, 50) ? 1 : -1), INT16_MAX);
        lane->b2 = limit(ldexp(1, (int)n) * (double)xn_random_between(&g->random, -60, 120), B_MAX);
    }
}

static void draw_lane(struct growth *g, const struct draft *t, struct xn_isa_lane *lane)
{
    double spread = t->spread;

    if (t->d.flags & XN_ISA_SCALE)
        draw_scale(g, t, lane, &spread);
    if (t->d.flags & XN_ISA_SATURATE)
        spread = XN_MIN(spread, 32767);
    lane->a = (int16_t)(chance(g, 80) ? limit(spread / 2, 32767) : around_zero(g, 32767));
    lane->d = (int16_t)(chance(g, 80) ? around_zero(g, limit(spread / 2, 32767)) : around_zero(g, 32767));
    lane->k = (uint8_t)xn_random_below(&g->random, 16);
    draw_destination(g, t, lane, spread);
}

/** A weight word for step `step`; channels that the source has not have weight 0. */
static void draw_weights(struct growth *g, const struct draft *t, uint32_t step, uint8_t *to)
{
    uint32_t w = step % t->d.words;
    uint32_t a_word = t->d.op == XN_ISA_BINARY ? 64 : 8;
    uint32_t left = t->source.channels - w * a_word;

    for (uint32_t l = 0; l < XN_ISA_LANES; l++) {
        uint64_t bits = xn_random_next(&g->random);
        if (t->d.op == XN_ISA_VECTOR)
            bits = t->spread < 2 ? (uint64_t)(bits & 1 ? 1 : 0xff) : bits & 0xff;
        else if (left < a_word)
            bits &= (UINT64_C(1) << left * (64 / a_word)) - 1;
        memcpy(to + (size_t)l * 8, &bits, sizeof(bits));
    }
}

static void draw_stream(struct growth *g, const struct draft *t)
{
    uint32_t steps = xn_isa_has_weights(&t->d) ? (uint32_t)xn_isa_steps(&t->d) : 0;

    for (uint32_t group = 0; group < groups_of(t->d.channels); group++) {
        uint8_t *to = stream_more(g->program, XN_ISA_POST_BYTES + (size_t)steps * XN_ISA_WEIGHT_BYTES);
        for (uint32_t l = 0; l < XN_ISA_LANES; l++) {
            struct xn_isa_lane lane = {0};
            draw_lane(g, t, &lane);
            memcpy(to + l * sizeof(lane), &lane, sizeof(lane));
        }
        for (uint32_t step = 0; step < steps; step++)
            draw_weights(g, t, step, to + XN_ISA_POST_BYTES + (size_t)step * XN_ISA_WEIGHT_BYTES);
    }
}

/* ---- passes ------------------------------------------------------------------------------------------------------- */

/** An axis: kernel, stride, padding, outputs. */
static void draw_axis(struct growth *g, uint32_t n, uint32_t *ret_kernel, uint32_t *ret_stride, uint32_t *ret_pad,
                      uint32_t *ret_out)
{
    uint32_t kernel = chance(g, 40) ? 3 : between(g, 1, 7), pad = kernel / 2,
             stride = chance(g, 60) ? 1 : between(g, 2, chance(g, 60) ? 3 : 9);

    if (n > 4 && chance(g, 10))
        stride = 4u << xn_random_below(&g->random, 2); /* neighbours share banks */
    if (chance(g, 30))
        pad = between(g, 0, kernel - 1);
    if (kernel > n + pad)
        kernel = n + pad; /* pad < kernel still */
    *ret_kernel = kernel;
    *ret_stride = stride;
    *ret_pad = pad;
    *ret_out = (n + 2 * pad - kernel) / stride + 1;
    if (chance(g, 10))
        *ret_out = between(g, 1, *ret_out);
    else if (chance(g, 3))
        *ret_out += between(g, 1, 3); /* windows that are wholly outside */
}

static void draw_window(struct growth *g, struct draft *t)
{
    struct xn_isa_descriptor *d = &t->d;

    d->height = t->source.h;
    d->width = t->source.w;
    if (g->turn > 1 && !g->is_tail && !g->is_gathered && chance(g, 15)) { /* of one row, as passes with BATCH are */
        d->kernel_h = d->height;
        d->stride_h = d->out_h = 1;
        draw_axis(g, d->width, &d->kernel_w, &d->stride_w, &d->pad_left, &d->out_w);
        return;
    }
    if (g->is_tail && t->source.image_w && chance(g, 80)) { /* an image a pixel */
        d->kernel_h = d->height;
        d->kernel_w = t->source.image_w;
        d->stride_w = t->source.image_step;
        d->stride_h = d->out_h = 1;
        d->out_w = chance(g, 75) ? g->turn : between(g, 1, g->turn + 2);
        return;
    }
    if (chance(g, 20)) { /* the whole map at once */
        d->kernel_h = d->height;
        d->kernel_w = d->width;
        d->stride_h = d->out_h = d->out_w = 1;
        d->stride_w = between(g, 1, 9); /* where nothing is beside the pixel */
        return;
    }
    draw_axis(g, d->height, &d->kernel_h, &d->stride_h, &d->pad_top, &d->out_h);
    draw_axis(g, d->width, &d->kernel_w, &d->stride_w, &d->pad_left, &d->out_w);
    if (g->is_gathered) { /* few enough pixels for a window in the tail */
        d->out_h = between(g, 1, XN_MIN(d->out_h, 3));
        d->out_w = between(g, 1, XN_MIN(d->out_w, 3));
    }
}

/** BINARY, INT8 and LARGEST read words from any of the pixel's first on: the source becomes what is left of it. */
static void draw_words(struct growth *g, struct draft *t)
{
    uint32_t a_word = t->source.kind == BITS ? 64 : 8, first = 0;

    if (chance(g, 20) && t->source.channels > a_word)
        first = xn_random_below(&g->random, t->source.channels / a_word);
    if (t->source.base + rows_of(g, &t->source) + first > memory_rows(g, t->source.kind))
        first = 0;
    t->d.base = t->source.base + first;
    t->source.channels -= XN_MIN(t->source.channels - 1, first * a_word);
    if (t->d.op == XN_ISA_INT8)
        a_word = 8;
    t->d.words = (uint32_t)xn_isa_ceil(t->source.channels, a_word);
    if (chance(g, 20))
        t->d.words = between(g, 1, t->d.words);
    t->source.channels = XN_MIN(t->source.channels, t->d.words * a_word);
}

/** Operation, what it reads of the source, how many channels it makes. */
static void draw_operation(struct growth *g, struct draft *t)
{
    static const uint32_t of_bits[] = {XN_ISA_BINARY, XN_ISA_BINARY, XN_ISA_BINARY,
                                       XN_ISA_INT8,   XN_ISA_VECTOR, XN_ISA_LARGEST};
    static const uint32_t of_bytes[] = {XN_ISA_INT8, XN_ISA_INT8, XN_ISA_VECTOR, XN_ISA_LARGEST};
    struct xn_isa_descriptor *d = &t->d;

    d->op = g->is_gathered            ? XN_ISA_LARGEST
            : t->source.kind == BITS  ? of_bits[xn_random_below(&g->random, 6)]
            : t->source.kind == BYTES ? of_bytes[xn_random_below(&g->random, 4)]
                                      : XN_ISA_VECTOR;
    d->source = t->source.kind == BITS     ? XN_ISA_BITS
                : t->source.kind == STREAM ? XN_ISA_I16
                : chance(g, 50)            ? XN_ISA_U8
                                           : XN_ISA_I8;
    d->base = t->source.base;
    d->pitch = t->source.pitch;
    d->channels = chance(g, 50) ? 16 * between(g, 1, 6) : between(g, 1, 100);
    d->words = 1;
    if (d->op == XN_ISA_VECTOR) {
        d->source_group = chance(g, 30) ? xn_random_below(&g->random, groups_of(t->source.channels)) : 0;
        d->channels = XN_MIN(d->channels, t->source.channels - 16 * d->source_group);
        d->flags |= chance(g, 40) ? XN_ISA_MAX : chance(g, 40) ? XN_ISA_ONES : 0;
    } else {
        draw_words(g, t);
    }
    if (d->op == XN_ISA_LARGEST) {
        d->channels = t->source.channels;
        d->flags |= g->is_gathered || (g->turn > 1 && chance(g, 40)) ? XN_ISA_BATCH : 0;
    }
    if (d->op == XN_ISA_BINARY) {
        d->channels_in = t->source.channels;
        d->flags |= chance(g, 50) ? XN_ISA_PAD_MINUS_ONE : 0;
    }
}

/** What the sums can come to, and do as a rule. */
static void bound_sums(struct draft *t)
{
    const struct xn_isa_descriptor *d = &t->d;
    int64_t taps = (int64_t)d->kernel_h * d->kernel_w, n = taps * (d->op == XN_ISA_VECTOR ? 1 : t->source.channels);
    double element = d->source == XN_ISA_BITS ? 1 : d->source == XN_ISA_I16 ? 32768 : 255;

    t->reach = d->flags & XN_ISA_MAX                   ? 32768
               : d->op == XN_ISA_BINARY                ? n
               : d->op == XN_ISA_VECTOR && element < 2 ? n
                                                       : n * (int64_t)element * 128;
    t->spread =
        d->flags & XN_ISA_MAX ? XN_MAX(1, element / 8) : (double)t->reach / sqrt((double)n) / (element < 2 ? 1 : 8);
}

static void draw_flags(struct growth *g, struct draft *t)
{
    static const uint32_t ends[] = {
        XN_ISA_SIGN, XN_ISA_SIGN, XN_ISA_QUANTIZE, XN_ISA_QUANTIZE | XN_ISA_UNSIGNED, XN_ISA_LOGITS, 0};
    uint32_t *f = &t->d.flags;
    uint32_t end = ends[xn_random_below(&g->random, 6)];
    bool is_narrow = t->reach < 32768;

    *f |= t->d.out_h == 1 && chance(g, g->is_tail ? 70 : g->turn > 1 ? 40 : 10) ? XN_ISA_BATCH : 0;
    *f |= chance(g, 60) ? XN_ISA_SCALE : 0;
    *f |= chance(g, 40) ? XN_ISA_RESIDUAL : 0;
    *f |= !end || chance(g, 70) ? XN_ISA_SATURATE : 0;
    is_narrow = *f & XN_ISA_SATURATE || (is_narrow && !(*f & (XN_ISA_SCALE | XN_ISA_RESIDUAL)));
    *f |= is_narrow && chance(g, 40) ? XN_ISA_RPRELU : 0;
    *f |= end;
    *f |= is_narrow && (!end || chance(g, 40)) ? XN_ISA_STORE : 0;
    t->d.shift = between(g, 0, 30) | between(g, 0, 30) << 8;
}

/** The residual: a map of the pass's output's shape, or else whatever lies somewhere in RM. */
static bool draw_residual(struct growth *g, struct draft *t)
{
    struct xn_isa_descriptor *d = &t->d;
    struct map *m = &t->residual;

    *m = (struct map){.kind = STREAM, .h = d->out_h, .w = d->out_w, .channels = d->channels};
    m->pitch = groups_of(d->channels) + (chance(g, 20) ? between(g, 0, 3) : 0);
    if (!place(g, m, &(struct map){0}, &(struct map){0}))
        return false;
    for (uint32_t i = 0; i < g->n_maps; i++) {
        const struct map *o = &g->maps[i];
        if (o->kind == STREAM && o->h == m->h && o->w == m->w && groups_of(d->channels) <= o->pitch)
            *m = *o;
    }
    d->residual_base = m->base;
    d->residual_pitch = m->pitch;
    return true;
}

static bool draw_stores(struct growth *g, struct draft *t)
{
    struct xn_isa_descriptor *d = &t->d;
    struct map *m = &t->stream;
    uint32_t group = 0;

    *m = (struct map){.kind = STREAM, .h = d->out_h, .w = d->out_w, .channels = d->channels};
    if (d->flags & XN_ISA_RESIDUAL && chance(g, 40)) { /* the stream replaces its own residual */
        m->base = t->residual.base;
        m->pitch = t->residual.pitch;
        if (overlap(g, m, &t->source))
            return false;
    } else if (!place_output(g, m, &t->source, &t->residual, XN_ISA_LANES, &group)) {
        return false;
    }
    d->stream_base = m->base + group;
    d->stream_pitch = m->pitch;
    return true;
}

/** Leave words of a new map's pixels free before what the pass writes, from which on the map is remembered. */
static void move_within_pixel(struct growth *g, struct map *m, uint32_t *ret_group)
{
    const uint32_t a_group = m->kind == BITS ? 4 : 1; /* a word of bits has four */
    const uint32_t words = words_of(m->kind, 16 * a_group), free = m->pitch - words_of(m->kind, m->channels);
    const uint32_t n = between(g, 0, free / words);

    if (m->base + rows_of(g, m) + n * words > memory_rows(g, m->kind))
        return;
    m->base += n * words;
    *ret_group = n * a_group;
}

static bool draw_dest(struct growth *g, struct draft *t)
{
    struct xn_isa_descriptor *d = &t->d;
    struct map *m = &t->dest;
    uint32_t align = d->op == XN_ISA_LARGEST && d->source == XN_ISA_BITS ? 64 : XN_ISA_LANES;

    if (d->op == XN_ISA_LARGEST && d->flags & XN_ISA_BATCH) {
        d->dest_step = d->out_w + (chance(g, 50) ? between(g, 0, 2) : 0);
        d->dest_width = (g->turn - 1) * d->dest_step + d->out_w + (chance(g, 30) ? between(g, 0, 4) : 0);
    }
    *m = (struct map){
        .kind = d->flags & XN_ISA_QUANTIZE || (d->op == XN_ISA_LARGEST && d->source != XN_ISA_BITS) ? BYTES : BITS,
        .h = d->out_h,
        .w = xn_isa_dest_width(d),
        .channels = d->channels};
    if (!place_output(g, m, &t->source, &(struct map){0}, align, &d->dest_group))
        return false;
    d->dest_base = m->base;
    d->dest_pitch = m->pitch;
    if (d->dest_group == 0 && chance(g, 40))
        move_within_pixel(g, m, &d->dest_group);
    if (d->op == XN_ISA_LARGEST && d->source != XN_ISA_BITS)
        d->dest_group *= 8; /* it counts words, four groups each */
    if (d->op == XN_ISA_LARGEST && d->flags & XN_ISA_BATCH) {
        m->image_w = d->out_w;
        m->image_step = d->dest_step;
    }
    return true;
}

static bool draw_chunk(struct growth *g, struct xn_isa_descriptor *d)
{
    const struct xn_isa_geometry *geometry = &g->program->geometry;
    uint32_t steps = d->kernel_h * d->kernel_w * d->words, work = steps * d->out_h * d->out_w * groups_of(d->channels);
    bool one_tile = d->out_h * xn_isa_ceil(d->out_w, xn_isa_tile(d, geometry)) == 1;

    if (xn_isa_has_weights(d)) {
        d->chunk = XN_MIN(steps, geometry->wb_words);
        if (one_tile && chance(g, 50))
            d->chunk = between(g, 1, d->chunk);
    }
    return work <= WORK_MAX && (one_tile || d->chunk == steps || !xn_isa_has_weights(d));
}

/** LOGITS with BATCH have an image's output a pixel: they say how long it is, and no others are longer. */
static bool fits_output(const struct growth *g, const struct xn_isa_descriptor *d)
{
    const uint32_t words = d->out_h * d->out_w * d->channels, have = g->program->output_words;

    if (d->flags & XN_ISA_BATCH)
        return g->outputs_set ? d->channels == have : d->channels >= have;
    return !g->outputs_set || words <= have;
}

/** Try once. */
static bool draw_pass(struct growth *g, struct draft *t)
{
    *t = (struct draft){.source = g->maps[chance(g, 60) ? g->n_maps - 1 : xn_random_below(&g->random, g->n_maps)]};
    struct map whole = t->source;

    if (g->is_gathered && whole.kind == STREAM)
        return false;
    draw_operation(g, t);
    draw_window(g, t);
    if (!draw_chunk(g, &t->d))
        return false;
    if (t->d.op != XN_ISA_LARGEST) {
        bound_sums(t);
        if (t->reach > WIDE)
            return false;
        draw_flags(g, t);
    }
    uint32_t channels = t->source.channels;
    if (t->d.flags & XN_ISA_LOGITS && !fits_output(g, &t->d))
        return false;
    t->source = whole; /* all of it is to be kept */
    if (t->d.flags & XN_ISA_RESIDUAL && !draw_residual(g, t))
        return false;
    if (t->d.flags & XN_ISA_STORE && !draw_stores(g, t))
        return false;
    if ((t->d.flags & (XN_ISA_SIGN | XN_ISA_QUANTIZE) || t->d.op == XN_ISA_LARGEST) && !draw_dest(g, t))
        return false;
    t->source.channels = channels;
    return true;
}

static bool draw_input(struct growth *g, struct draft *t)
{
    struct xn_isa_descriptor *d = &t->d;
    uint32_t row;

    *t = (struct draft){.d.op = XN_ISA_INPUT};
    d->input_row_bytes = row = between(g, 1, XN_MIN(g->program->input_bytes, 120));
    d->height = between(g, 1, XN_MIN(g->program->input_bytes / row, 20));
    if (chance(g, 50)) {
        d->channels = d->stride_w = between(g, 1, XN_MIN(row, 40));
        d->out_w = row / d->channels;
    } else {
        d->channels = between(g, 1, 40);
        d->stride_w = between(g, 0, 12);
        d->pad_left = between(g, 0, 12);
        d->out_w = between(g, 1, 24);
    }
    t->dest = (struct map){.kind = BYTES, .h = d->height, .w = d->out_w, .channels = d->channels};
    t->dest.pitch = words_of(BYTES, d->channels) + (chance(g, 30) ? between(g, 0, 3) : 0);
    if (!place(g, &t->dest, &(struct map){0}, &(struct map){0}))
        return false;
    d->dest_base = t->dest.base;
    d->dest_pitch = t->dest.pitch;
    return true;
}

/** Add what was drawn to the program. */
static void add(struct growth *g, const struct draft *t)
{
    struct xn_random_program *p = g->program;

    if (t->d.flags & XN_ISA_LOGITS) {
        p->output_words = XN_MAX(p->output_words,
                                 t->d.flags & XN_ISA_BATCH ? t->d.channels : t->d.out_h * t->d.out_w * t->d.channels);
        g->outputs_set = g->outputs_set || t->d.flags & XN_ISA_BATCH;
    }
    if (xn_isa_check(&t->d, &p->geometry, p->input_bytes, p->output_words, g->turn - 1)) {
        xn_random_descriptor_print(&t->d, stderr);
        abort();
    }
    if (xn_isa_has_stream(&t->d))
        draw_stream(g, t);
    p->descriptors[p->n++] = t->d;
    remember(g, &t->stream);
    remember(g, &t->dest);
}

/** TURN, as a rule behind a pass that makes what the tail reads. */
static void add_turn(struct growth *g)
{
    struct xn_random_program *p = g->program;
    struct draft t;

    g->is_gathered = g->n_maps && chance(g, 85);
    for (uint32_t tries = 0; g->is_gathered && tries < ATTEMPTS; tries++) {
        if (draw_pass(g, &t)) {
            g->is_gathered = false;
            add(g, &t);
        }
    }
    g->is_gathered = false;
    p->descriptors[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_TURN, .out_w = g->turn};
    g->is_tail = true;
}

struct xn_random_program *xn_random_program_new(uint64_t seed, const struct xn_isa_geometry *geometry)
{
    struct growth g = {.random = {seed}, .program = calloc(1, sizeof(*g.program))};
    struct xn_random_program *p = g.program;
    struct draft t;

    if (!p)
        abort();
    p->geometry = *geometry;
    g.turn = chance(&g, 50) ? between(&g, 2, 5) : 1;
    p->images = between(&g, 1, g.turn > 1 ? 2 * g.turn : 2);
    p->input_bytes = between(&g, 1, 2000);
    p->output_words = g.turn > 1 ? 0 : between(&g, 0, 20);
    p->input = malloc((size_t)p->images * p->input_bytes);
    if (!p->input)
        abort();
    xn_random_bytes(&g.random, p->input, (size_t)p->images * p->input_bytes);
    const uint32_t wanted = g.turn > 1 ? between(&g, 5, XN_RANDOM_PROGRAM_MAX - 1) : between(&g, 2, 7);
    for (uint32_t tries = 0; p->n < wanted && tries < ATTEMPTS; tries++) {
        if (g.turn > 1 && !g.is_tail && p->n + 2 <= wanted && chance(&g, p->n ? 40 : 2))
            add_turn(&g);
        else if (g.n_maps && chance(&g, 95) ? draw_pass(&g, &t) : draw_input(&g, &t))
            add(&g, &t);
    }
    p->n++; /* END is all zero */
    return p;
}

void xn_random_program_free(struct xn_random_program *program)
{
    if (!program)
        return;
    free(program->stream);
    free(program->input);
    free(program);
}

struct xn_isa_geometry xn_random_geometry(uint64_t seed)
{
    struct xn_random random = {seed};
    uint32_t log_p = xn_random_below(&random, 5);

    return (struct xn_isa_geometry){.p = 1u << log_p,
                                    .pi = 1u << xn_random_below(&random, log_p + 1),
                                    .pr = 1u << xn_random_below(&random, log_p + 1),
                                    .am_rows = (uint32_t)xn_random_between(&random, 256, 2048),
                                    .rm_rows = (uint32_t)xn_random_between(&random, 256, 2048),
                                    .wb_words = (uint32_t)xn_random_between(&random, 64, 300)};
}

/* ---- damage ------------------------------------------------------------------------------------------------------- */

/** Work of the passes that would run, up to the first that is refused, and what they read of the stream. */
static void measure(const struct xn_random_program *p, double *ret_work, double *ret_stream_bytes)
{
    *ret_work = *ret_stream_bytes = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct xn_isa_descriptor *d = &p->descriptors[i];
        double steps = (double)d->kernel_h * d->kernel_w * d->words, groups = groups_of(d->channels);
        if (d->op == XN_ISA_END || xn_isa_check(d, &p->geometry, p->input_bytes, p->output_words, 0))
            return;
        if (d->op == XN_ISA_TURN)
            continue;
        if (d->op == XN_ISA_INPUT)
            *ret_work += (double)d->height * d->out_w * d->dest_pitch;
        else
            *ret_work += (double)d->out_h * d->out_w * steps * (d->op == XN_ISA_LARGEST ? 1 : groups);
        if (xn_isa_has_stream(d))
            *ret_stream_bytes += groups * (double)xn_isa_group_bytes(d);
    }
}

/** Turns of other lengths, in which the images' maps may not fit beside one another; a TURN too many, or a second one. */
static void damage_turns(struct xn_random_program *program, struct xn_random *random)
{
    struct xn_isa_descriptor *d = program->descriptors;

    if (xn_random_below(random, 4) == 0)
        d[xn_random_below(random, program->n - 1)].op = XN_ISA_TURN;
    for (uint32_t i = 0; i < program->n; i++)
        if (d[i].op == XN_ISA_TURN)
            d[i].out_w = xn_random_below(random, 10);
}

void xn_random_program_damage(struct xn_random_program *program, uint64_t seed)
{
    struct xn_random random = {seed};
    struct xn_isa_descriptor whole[XN_RANDOM_PROGRAM_MAX];
    double work, stream_bytes;

    memcpy(whole, program->descriptors, sizeof(whole));
    do {
        memcpy(program->descriptors, whole, sizeof(whole));
        for (uint32_t i = xn_random_below(&random, 3) + 1; i > 0; i--) {
            uint32_t words[32], at = xn_random_below(&random, 31);
            struct xn_isa_descriptor *d = &program->descriptors[xn_random_below(&random, program->n - 1)];
            memcpy(words, d, sizeof(words));
            words[at] = xn_random_below(&random, 4) ? words[at] ^ 1u << xn_random_below(&random, 32)
                                                    : (uint32_t)xn_random_next(&random);
            memcpy(d, words, sizeof(words));
        }
        if (xn_random_below(&random, 2))
            damage_turns(program, &random);
        measure(program, &work, &stream_bytes);
    } while (work > DAMAGED_MAX || stream_bytes > STREAM_MAX);
    if (stream_bytes > (double)program->stream_bytes)
        stream_more(program, (size_t)stream_bytes - program->stream_bytes);
}

/* ---- listing ------------------------------------------------------------------------------------------------------ */

void xn_random_descriptor_print(const struct xn_isa_descriptor *descriptor, FILE *out)
{
    static const char *const ops[] = {"END", "INPUT", "BINARY", "INT8", "VECTOR", "LARGEST", "TURN"};
    static const char *const flags[] = {"PAD_MINUS_ONE", "MAX",   "SCALE", "RESIDUAL", "SATURATE",
                                        "RPRELU",        "STORE", "SIGN",  "QUANTIZE", "UNSIGNED",
                                        "LOGITS",        "BATCH", "ONES"};
    static const char *const fields[] = {
        "op",          "flags",    "source",     "height",       "width",     "base",       "pitch",    "words",
        "channels_in", "kernel_h", "kernel_w",   "stride_h",     "stride_w",  "pad_top",    "pad_left", "out_h",
        "out_w",       "channels", "chunk",      "shift",        "stream",    "pitch",      "residual", "pitch",
        "dest",        "pitch",    "dest_group", "source_group", "input_row", "dest_width", "dest_step"};
    uint32_t words[32];

    memcpy(words, descriptor, sizeof(words));
    fprintf(out, "%s", words[0] < 7 ? ops[words[0]] : "?");
    for (uint32_t i = 0; i < 13; i++)
        if (words[1] >> i & 1)
            fprintf(out, " %s", flags[i]);
    for (uint32_t i = 2; i < 31; i++)
        if (words[i])
            fprintf(out, " %s=%" PRIu32, fields[i], words[i]);
    fprintf(out, "\n");
}
