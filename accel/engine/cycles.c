/* SPDX-License-Identifier: Apache-2.0
 * The cycle model: when each part of the hardware does what, with a memory port that never stalls. Not a cycle is stepped
 * through; each part has a time at which it is free, and a tile, a chunk or a descriptor moves these times on.
 *
 *     fetch    reads a descriptor and checks it; then, in the order of the stream, post parameters into one of two
 *              buffers and chunks of weights into one of two, a beat a cycle. It waits for a buffer to be free, and, behind
 *              the last chunk, for its descriptor to be taken; then it goes on to the next descriptor.
 *     array    takes a descriptor when the pass before has written everything; needs a chunk's buffer to be full; makes a
 *              step a cycle; ends a tile when the post lanes have taken over the sums of the tile before
 *     post     PR pixels of a tile at a time, while the array sums the next tile
 *
 * So a pass takes, but for the ends, the largest of
 *
 *     array    groups x tiles x steps x cycles of a step
 *     post     groups x the tiles' pixels / PR x cycles of a post
 *     memory   beats of its stream and its descriptor
 *
 * Every latency of the hardware is a constant here and nowhere else. */
#include "accel/engine/engine.h"

enum {
    START = 2,            /**< from the start register to the first descriptor's request */
    READ = 5,             /**< from a request to its first beat */
    DESCRIPTOR_BEATS = 4, /**< of XN_ISA_DESCRIPTOR_BYTES */
    CHECK = 18,           /**< of a descriptor */
    NEXT = 1,             /**< from the end of a stream to the next descriptor's request */
    TAKE = 2,             /**< from an idle array and a checked descriptor to its first step */
    RELEASE = 4,          /**< from a chunk's last step to its buffer being free */
    SUM = 8,              /**< from a step's address to its sum */
    POST = 8,             /**< from a sum through the post lanes into memory */
    INPUT_ROW = 1,        /**< between rows of INPUT */
    INPUT_WRITE = 3,      /**< from a row in the ring to its last word's write */
    DONE = 4,             /**< from the last image's END to the status in memory */
    SETTLED = 3,          /**< images after which all take the same time */
};

/** Times, in cycles from the start, at which parts are free. */
struct clock {
    uint64_t fetch;           /**< what was asked for is loaded */
    uint64_t weights_free[2]; /**< the buffer may be filled */
    uint64_t post_free[2];
    uint32_t weights_buffer, post_buffer; /**< that are filled next */
    uint64_t array;                       /**< the next step can be made */
    uint64_t post;                        /**< the sums of the next tile can be taken over */
    uint64_t idle;                        /**< everything is written */
};

/** What a pass does, whatever group. */
struct shape {
    uint64_t steps, groups, step_cycles;
    uint32_t tile, post_cycles, pr;
    bool has_stream;
};

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/** Whether two pixels of a tile lie in the same bank, so that they are read one by one. */
static bool shares_banks(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g, uint32_t tile)
{
    return d->out_w > 1 && tile > 1 && d->stride_w % (4 * g->p / tile) == 0;
}

static struct shape shape_of(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    const uint32_t tile = xn_isa_tile(d, g);
    struct shape s = {.steps = (uint64_t)d->kernel_h * d->kernel_w * d->words,
                      .groups = xn_isa_ceil(d->channels, XN_ISA_LANES),
                      .step_cycles = shares_banks(d, g, tile) ? tile : xn_isa_step_cycles(d),
                      .tile = tile,
                      .post_cycles = xn_isa_post_cycles(d),
                      .pr = g->pr,
                      .has_stream = d->op != XN_ISA_OR};

    if (d->op == XN_ISA_OR) { /* a word at a time is what a group is elsewhere */
        s.steps /= d->words;
        s.groups = d->words;
    }
    return s;
}

/** Cycles of the post lanes for `pixels` pixels of a tile. */
static uint64_t post_cycles(const struct shape *s, uint32_t pixels)
{
    return xn_isa_ceil(pixels, s->pr) * s->post_cycles;
}

/** Load post parameters or a chunk into a buffer that is free from `free` on. Returns when it is full. */
static uint64_t load(struct clock *c, uint64_t free, uint64_t beats)
{
    c->fetch = later(c->fetch, free) + beats;
    return c->fetch;
}

/** The last step of a tile is made: its sums replace those that the post lanes have done with. */
static void end_tile(struct clock *c, const struct shape *s, uint32_t pixels)
{
    c->array = later(c->array, c->post > SUM ? c->post - SUM : 0);
    c->post = later(c->array + SUM, c->post) + post_cycles(s, pixels);
}

/** All tiles of a group with whole windows. */
static void run_tiles(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s)
{
    for (uint32_t y = 0; y < d->out_h; y++) {
        for (uint32_t x = 0; x < d->out_w; x += s->tile) {
            c->array += s->steps * s->step_cycles;
            end_tile(c, s, XN_MIN(s->tile, d->out_w - x));
        }
    }
}

/** A group with its part of the stream: one chunk for all tiles, or several for the only tile. */
static void run_group(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s)
{
    const uint32_t p = c->post_buffer;

    load(c, c->post_free[p], XN_ISA_POST_BEATS);
    for (uint64_t at = 0; at < s->steps; at += d->chunk) {
        const uint64_t words = XN_MIN(d->chunk, s->steps - at);
        const uint32_t w = c->weights_buffer;
        c->array = later(c->array, load(c, c->weights_free[w], words * XN_ISA_WEIGHT_BEATS));
        if (words == s->steps)
            run_tiles(c, d, s);
        else
            c->array += words * s->step_cycles;
        c->weights_free[w] = c->array + RELEASE;
        c->weights_buffer ^= 1;
    }
    if (d->chunk < s->steps)
        end_tile(c, s, d->out_w);
    c->post_free[p] = c->post + POST;
    c->post_buffer ^= 1;
}

/** Beats of row `y` of the image. */
static uint64_t row_beats(const struct xn_isa_descriptor *d, uint32_t y)
{
    const uint64_t at = (uint64_t)y * d->input_row_bytes;

    return (at + d->input_row_bytes - 1) / XN_ISA_BEAT_BYTES - at / XN_ISA_BEAT_BYTES + 1;
}

static void run_input(struct clock *c, const struct xn_isa_descriptor *d)
{
    uint64_t loaded = c->array + READ;

    for (uint32_t y = 0; y < d->height; y++) {
        loaded += row_beats(d, y);
        c->array = later(c->array, loaded) + (uint64_t)d->out_w * d->dest_pitch + INPUT_ROW;
    }
    c->post = c->array + INPUT_WRITE;
}

/** From the request of a descriptor to the end of its pass. */
static void run_descriptor(struct clock *c, const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    const uint64_t checked = c->fetch + READ + DESCRIPTOR_BEATS + CHECK, taken = later(checked, c->idle);

    c->fetch = checked;
    c->array = c->post = taken + TAKE;
    if (d->op == XN_ISA_INPUT) {
        run_input(c, d);
    } else if (d->op != XN_ISA_END) {
        const struct shape s = shape_of(d, g);
        c->fetch += READ;
        for (uint64_t group = 0; group < s.groups; group++) {
            if (s.has_stream)
                run_group(c, d, &s);
            else
                run_tiles(c, d, &s);
        }
    }
    c->idle = d->op == XN_ISA_END ? taken : c->post + POST;
    c->fetch = later(c->fetch, taken) + NEXT;
}

/* ---- what each unit would take alone ------------------------------------------------------------------------------- */

static uint64_t pass_post(const struct xn_isa_descriptor *d, const struct shape *s)
{
    const uint32_t full = d->out_w / s->tile, rest = d->out_w % s->tile;

    return s->groups * d->out_h * (full * post_cycles(s, s->tile) + (rest ? post_cycles(s, rest) : 0));
}

static struct xn_engine_cost cost_of(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    struct xn_engine_cost cost = {.memory = DESCRIPTOR_BEATS, .bound = XN_BOUND_ARRAY};

    if (d->op == XN_ISA_INPUT) {
        cost.array = (uint64_t)d->height * d->out_w * d->dest_pitch;
        cost.bound = XN_BOUND_INPUT;
        for (uint32_t y = 0; y < d->height; y++)
            cost.memory += row_beats(d, y);
    } else if (d->op != XN_ISA_END) {
        const struct shape s = shape_of(d, g);
        cost.array = s.groups * d->out_h * xn_isa_ceil(d->out_w, s.tile) * s.steps * s.step_cycles;
        cost.post = pass_post(d, &s);
        if (s.has_stream)
            cost.memory += s.groups * (XN_ISA_POST_BEATS + s.steps * XN_ISA_WEIGHT_BEATS);
        if (cost.post > cost.array)
            cost.bound = XN_BOUND_POST;
    }
    if (cost.memory > cost.array && cost.memory > cost.post)
        cost.bound = XN_BOUND_MEMORY;
    return cost;
}

uint64_t xn_engine_cycles(const struct xn_engine_program *program, uint32_t images, struct xn_engine_cost *ret_costs)
{
    struct clock c = {.fetch = START};
    uint64_t ends[SETTLED + 1] = {0};

    for (uint32_t image = 1; image <= SETTLED; image++) {
        for (uint32_t i = 0; i < program->n; i++) {
            const uint64_t before = c.idle;
            run_descriptor(&c, &program->descriptors[i], &program->geometry);
            if (ret_costs) {
                ret_costs[i] = cost_of(&program->descriptors[i], &program->geometry);
                ret_costs[i].cycles = c.idle - before;
            }
        }
        ends[image] = c.idle;
    }
    const uint64_t more = images > SETTLED ? images - SETTLED : 0;
    return images == 0 ? 0 : ends[images - more] + more * (ends[SETTLED] - ends[SETTLED - 1]) + DONE;
}
