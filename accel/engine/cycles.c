/* SPDX-License-Identifier: Apache-2.0
 * The cycle model: when each part of the hardware (rtl/) does what, with a memory port that never stalls and answers after
 * MEMORY cycles. Not a cycle is stepped through; each part has a time at which it is free, and a tile, a chunk or a descriptor moves
 * these times on.
 *
 *     fetch    reads a descriptor and checks it; then, in the order of the stream, post parameters into one of two
 *              buffers and chunks of weights into one of two, a beat a cycle. It waits for a buffer to be free, and, behind
 *              the last chunk, for its descriptor to be taken; then it goes on to the next descriptor.
 *     array    takes a descriptor when the pass before has written everything; needs a chunk's buffer to be full; makes a
 *              step a cycle; the last steps of two tiles are as far apart as the post lanes need for the first
 *     post     PR pixels of a tile at a time, while the array sums the next tile; logits one by one, the array waiting
 *
 * So a pass takes, but for the ends, the largest of
 *
 *     array    groups x tiles x steps x cycles of a step
 *     post     groups x the tiles' pixels / PR x cycles of a post
 *     memory   beats of its stream and its descriptor
 *
 * Every latency of the hardware is a constant here and nowhere else. The counter of the RTL is the same to the cycle
 * (test_simulators --cycles). Two things of INPUT are left out: an image larger than its ring of 1024 beats shares the port with the
 * next pass's stream, and no more than 15 bursts are on their way, which only rows shorter than three beats can notice. */
#include "accel/engine/engine.h"

#include <string.h>

enum {
    MEMORY = 32,          /**< of the memory: from an address to its first beat */
    READ = MEMORY + 2,    /**< from a request within the engine to its first beat */
    QUEUE = 1,            /**< from a beat of the stream to the buffers' door */
    DESCRIPTOR_BEATS = 4, /**< of XN_ISA_DESCRIPTOR_BYTES */
    DECODE = 1,           /**< from its last beat to END or TURN being known */
    CHECK = 17,           /**< of any other */
    RELEASE = 4,          /**< from behind a chunk's last step to its buffer being free */
    SETUP = 2,            /**< from a descriptor's being taken to its first step */
    SUM = 8,              /**< from a tile's last step to its first pixels in the post lanes */
    POST = 9,             /**< from pixels in the post lanes to these being empty; QUANTIZE: one more */
    SERIAL = 7,           /**< from pixels in the post lanes to their first logit */
    RESIDUAL = 5,         /**< from a tile's last step to the step that its residual takes from a source in RM */
    RING_BEATS = 1024,    /**< of INPUT */
    INPUT_END = 4,        /**< from the last word's reading to the next descriptor */
    SETTLED = 3,          /**< turns after which all of the same alignment take the same time */
};

/** Times, in cycles from the start. */
struct clock {
    uint64_t ask;   /**< the next descriptor is asked for */
    uint64_t next;  /**< the next descriptor can be taken */
    uint64_t fetch; /**< the next beat of the stream can go into a buffer */
    uint64_t port;  /**< beats asked for by INPUT are through */
    uint64_t weights_free[2], post_free[2];
    uint32_t weights_buffer, post_buffer; /**< that are filled next */
    uint64_t array;                       /**< the next step can be made */
    uint64_t ready;                       /**< the next tile's last step can be made */
    uint64_t parameters;                  /**< the post lanes need the last group's parameters no more */
    uint64_t quiet;                       /**< the post lanes are empty */
    uint32_t last_steps; /**< bit i: a tile's last step i + 1 cycles ago; only where residuals take steps */
};

/** What a pass does, whatever group. */
struct shape {
    uint64_t steps, groups, step_cycles;
    uint32_t tile, pr;
    bool has_stream, has_weights;
    bool shares_rm; /**< residuals take steps */
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
    struct shape s = {.steps = xn_isa_steps(d),
                      .groups = xn_isa_ceil(d->channels, XN_ISA_LANES),
                      .step_cycles = shares_banks(d, g, tile) ? tile : xn_isa_step_cycles(d),
                      .tile = tile,
                      .pr = g->pr,
                      .has_stream = xn_isa_has_stream(d),
                      .has_weights = xn_isa_has_weights(d),
                      .shares_rm = d->source == XN_ISA_I16 && d->flags & XN_ISA_RESIDUAL};

    if (d->op == XN_ISA_LARGEST) { /* a word at a time is what a group is elsewhere, and tiles are written whole */
        s.steps /= d->words;
        s.groups = d->words;
        s.pr = tile;
    }
    return s;
}

/** Cycles of the post lanes for `pixels` pixels of a tile. */
static uint64_t post_cycles(const struct xn_isa_descriptor *d, const struct shape *s, uint32_t pixels)
{
    return xn_isa_ceil(pixels, s->pr) * xn_isa_post_cycles(d);
}

/* ---- the array and the post lanes ---------------------------------------------------------------------------------- */

/** Steps, the last of which ends a tile or not, where a residual may take the port of RM: cycle by cycle. */
static void make_steps_sharing_rm(struct clock *c, uint64_t cycles, bool ends_tile)
{
    while (cycles > 0) {
        const bool is_last = ends_tile && cycles == 1;
        const bool made = !(c->last_steps >> (RESIDUAL - 1) & 1) && (!is_last || c->array >= c->ready);
        c->last_steps = c->last_steps << 1 | (is_last && made);
        c->array++;
        cycles -= made;
    }
}

static void make_steps(struct clock *c, const struct shape *s, uint64_t steps, bool ends_tile)
{
    if (s->shares_rm) {
        make_steps_sharing_rm(c, steps * s->step_cycles, ends_tile);
        return;
    }
    c->array += steps * s->step_cycles;
    if (ends_tile)
        c->array = later(c->array, c->ready + 1);
}

/** A chunk is there from `full` on: until then no step. */
static void await(struct clock *c, uint64_t full)
{
    if (full <= c->array)
        return;
    c->last_steps = full - c->array < 32 ? c->last_steps << (full - c->array) : 0;
    c->array = full;
}

/** Logits of a tile at `x` in the post lanes: each lane that has a pixel one by one, each other a cycle. */
static void post_logits(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s, uint64_t group,
                        uint32_t x, uint32_t pixels)
{
    const uint64_t channels = XN_MIN(d->channels - group * XN_ISA_LANES, XN_ISA_LANES);
    const uint32_t end = x + pixels;
    uint64_t at = c->array - 1 + SUM;

    for (; x < end; x += XN_MIN(s->tile, s->pr)) {
        const uint32_t first = x % s->pr, n = XN_MIN(XN_MIN(s->tile, s->pr), end - x);
        const uint64_t cycles = n * channels + s->pr - n;
        c->parameters = at + SERIAL + cycles;
        at = later(at + POST, c->parameters + (first + n == s->pr));
    }
    c->quiet = c->ready = at;
}

/** The tile whose last step was just made goes through the post lanes. */
static void post_tile(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s, uint64_t group,
                      uint32_t x, uint32_t pixels)
{
    const uint64_t last_step = c->array - 1, cycles = post_cycles(d, s, pixels);

    if (d->flags & XN_ISA_LOGITS) {
        post_logits(c, d, s, group, x, pixels);
        return;
    }
    const uint64_t last = last_step + SUM + cycles - xn_isa_post_cycles(d);
    c->ready = last_step + cycles;
    c->parameters = last + POST;
    c->quiet = last + (s->has_stream ? POST + xn_isa_post_cycles(d) - 1 : 1);
}

/** All tiles of a group with whole windows. */
static void run_tiles(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s, uint64_t group)
{
    for (uint32_t y = 0; y < d->out_h; y++) {
        for (uint32_t x = 0; x < d->out_w; x += s->tile) {
            make_steps(c, s, s->steps, true);
            post_tile(c, d, s, group, x, XN_MIN(s->tile, d->out_w - x));
        }
    }
}

/** Load post parameters or a chunk into a buffer that is free from `free` on. Returns when it is full. */
static uint64_t load(struct clock *c, uint64_t free, uint64_t beats)
{
    c->fetch = later(c->fetch, free) + beats;
    return c->fetch;
}

/** The weights of a group and its steps: one chunk for all tiles, or several for the only tile. */
static void run_chunks(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s, uint64_t group)
{
    for (uint64_t at = 0; at < s->steps; at += d->chunk) {
        const uint64_t words = XN_MIN(d->chunk, s->steps - at);
        const uint32_t w = c->weights_buffer;
        await(c, load(c, c->weights_free[w], words * XN_ISA_WEIGHT_BEATS));
        if (words == s->steps)
            run_tiles(c, d, s, group);
        else
            make_steps(c, s, words, at + words == s->steps);
        c->weights_free[w] = c->array + RELEASE;
        c->weights_buffer ^= 1;
    }
    if (d->chunk < s->steps)
        post_tile(c, d, s, group, 0, d->out_w);
}

/** A group with its part of the stream. */
static void run_group(struct clock *c, const struct xn_isa_descriptor *d, const struct shape *s, uint64_t group)
{
    const uint32_t p = c->post_buffer;
    const uint64_t there = load(c, c->post_free[p], XN_ISA_POST_BEATS);

    if (s->has_weights) {
        run_chunks(c, d, s, group);
    } else {
        await(c, there);
        run_tiles(c, d, s, group);
    }
    c->post_free[p] = c->parameters;
    c->post_buffer ^= 1;
}

/* ---- passes -------------------------------------------------------------------------------------------------------- */

/** Beats that hold row `y` of an image whose first byte is `offset` bytes behind a beat's. */
static uint64_t row_beats(const struct xn_isa_descriptor *d, uint64_t offset, uint32_t y)
{
    const uint64_t at = offset + (uint64_t)y * d->input_row_bytes;

    return (at + d->input_row_bytes - 1) / XN_ISA_BEAT_BYTES - at / XN_ISA_BEAT_BYTES + 1;
}

/** INPUT, taken at `taken`. The next descriptor is asked for just before its rows. */
static void run_input(struct clock *c, const struct xn_isa_descriptor *d, uint64_t offset, uint64_t taken)
{
    const uint64_t words = (uint64_t)d->out_w * d->dest_pitch;
    uint64_t there = taken + SETUP + READ + DESCRIPTOR_BEATS, at = 0, ring = 0;
    uint32_t oldest = 0;
    uint64_t ends[RING_BEATS]; /* when row `y % RING_BEATS` left the ring: no more rows than beats are in it */

    for (uint32_t y = 0; y < d->height; y++) {
        const uint64_t beats = row_beats(d, offset, y);
        for (ring += beats; ring > RING_BEATS; oldest++) {
            ring -= row_beats(d, offset, oldest);
            there = later(there, ends[oldest % RING_BEATS] + 1 + READ);
        }
        there += beats;
        at = later(at, there) + words;
        ends[y % RING_BEATS] = at;
        at++; /* the row leaves the ring */
    }
    c->port = there;
    c->next = at - 2 + INPUT_END;
}

static void run_groups(struct clock *c, const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g,
                       uint64_t taken)
{
    const struct shape s = shape_of(d, g);

    c->array = c->ready = taken + SETUP;
    c->last_steps = 0;
    for (uint64_t group = 0; group < s.groups; group++) {
        if (s.has_stream)
            run_group(c, d, &s, group);
        else
            run_tiles(c, d, &s, group);
    }
    c->next = c->quiet + 1;
}

/** From the request of a descriptor to the end of its pass. `rewinds`: it is an END, or the TURN of an image that is not the turn's last. */
static void run_descriptor(struct clock *c, const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g,
                           uint64_t offset, bool rewinds)
{
    const bool is_pass = d->op != XN_ISA_END && d->op != XN_ISA_TURN;
    const uint64_t valid = c->ask + READ + DESCRIPTOR_BEATS + DECODE + (is_pass ? CHECK : 0);
    const uint64_t taken = later(valid, c->next);

    c->fetch = valid;
    c->next = taken + 1;
    if (d->op == XN_ISA_INPUT) {
        run_input(c, d, offset, taken);
    } else if (is_pass) {
        if (xn_isa_has_stream(d))
            c->fetch = later(valid + READ, c->port) + QUEUE;
        run_groups(c, d, g, taken);
    }
    c->ask = later(c->fetch, taken + 1) + (rewinds ? 2 : 1);
}

/* ---- what each unit would take alone ------------------------------------------------------------------------------- */

static uint64_t pass_post(const struct xn_isa_descriptor *d, const struct shape *s)
{
    const uint32_t full = d->out_w / s->tile, rest = d->out_w % s->tile;

    return s->groups * d->out_h * (full * post_cycles(d, s, s->tile) + (rest ? post_cycles(d, s, rest) : 0));
}

static struct xn_engine_cost cost_of(const struct xn_isa_descriptor *d, const struct xn_isa_geometry *g)
{
    struct xn_engine_cost cost = {.memory = DESCRIPTOR_BEATS, .bound = XN_BOUND_ARRAY};

    if (d->op == XN_ISA_INPUT) {
        cost.array = (uint64_t)d->height * d->out_w * d->dest_pitch;
        cost.bound = XN_BOUND_INPUT;
        for (uint32_t y = 0; y < d->height; y++)
            cost.memory += row_beats(d, 0, y);
    } else if (d->op != XN_ISA_END && d->op != XN_ISA_TURN) {
        const struct shape s = shape_of(d, g);
        cost.array = s.groups * d->out_h * xn_isa_ceil(d->out_w, s.tile) * s.steps * s.step_cycles;
        cost.post = pass_post(d, &s);
        if (s.has_stream)
            cost.memory += s.groups * xn_isa_group_bytes(d) / XN_ISA_BEAT_BYTES;
        if (cost.post > cost.array)
            cost.bound = XN_BOUND_POST;
    }
    if (cost.memory > cost.array && cost.memory > cost.post)
        cost.bound = XN_BOUND_MEMORY;
    return cost;
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

/** A run of turns. */
struct run {
    const struct xn_engine_program *program;
    struct clock clock;
    uint32_t turn;                /**< images of a turn */
    uint32_t split;               /**< index of the TURN, or of the END where there is none */
    uint64_t image;               /**< the next */
    struct xn_engine_cost *costs; /**< each pass's are added to it; NULL */
};

static void add_cost(struct xn_engine_cost *sum, const struct xn_engine_cost *cost, uint64_t cycles)
{
    sum->cycles += cycles;
    sum->array += cost->array;
    sum->post += cost->post;
    sum->memory += cost->memory;
    sum->bound = cost->bound;
}

/** Index of the END or TURN that ends the section from `from` on. */
static uint32_t section_end(const struct xn_engine_program *p, uint32_t from)
{
    while (p->descriptors[from].op != XN_ISA_END && p->descriptors[from].op != XN_ISA_TURN)
        from++;
    return from;
}

/** Descriptors from..to for `images` images of the turn (the head: one at a time). */
static void run_section(struct run *r, uint32_t from, uint32_t to, uint32_t images, bool rewinds)
{
    const struct xn_engine_program *p = r->program;

    for (uint32_t i = from; i <= to; i++) {
        struct xn_isa_descriptor d = p->descriptors[i];
        const uint64_t before = r->clock.next;
        d.out_w = xn_isa_out_w(&d, images);
        run_descriptor(&r->clock, &d, &p->geometry, r->image * p->input_bytes, rewinds && i == to);
        if (r->costs) {
            const struct xn_engine_cost cost = cost_of(&d, &p->geometry);
            add_cost(&r->costs[i], &cost, r->clock.next - before);
        }
    }
}

static void run_turn(struct run *r, uint32_t images)
{
    const bool has_tail = r->split + 1 < r->program->n;

    for (uint32_t i = 0; i < images; i++) {
        run_section(r, 0, r->split, 1, !has_tail || i + 1 < images);
        r->image++;
    }
    r->image--; /* the tail's */
    if (has_tail)
        run_section(r, r->split + 1, section_end(r->program, r->split + 1), images, true);
    r->image++;
}

/** Turns after which images lie in beats of the memory as the first does. */
static uint32_t alignments(uint64_t turn_bytes)
{
    uint32_t n = 1;

    while (turn_bytes * n % XN_ISA_BEAT_BYTES)
        n *= 2;
    return n;
}

uint64_t xn_engine_cycles(const struct xn_engine_program *program, uint32_t images, struct xn_engine_cost *ret_costs)
{
    struct run r = {.program = program, .clock = {.ask = 1, .next = 1}, .split = section_end(program, 0)};
    uint64_t ends[SETTLED + XN_ISA_BEAT_BYTES + 2] = {1};

    r.turn = program->descriptors[r.split].op == XN_ISA_TURN ? program->descriptors[r.split].out_w : 1;
    const uint32_t period = alignments((uint64_t)r.turn * program->input_bytes), turns = images / r.turn;
    const uint32_t skipped = turns > SETTLED ? (turns - SETTLED) / period : 0; /* periods, each like the first */
    const uint32_t left = turns - skipped * period, all = ret_costs || skipped ? SETTLED + period : left;
    uint64_t end = 0;

    if (ret_costs)
        memset(ret_costs, 0, program->n * sizeof(*ret_costs));
    for (uint32_t turn = 0; turn <= all; turn++) {
        if (turn == left) {
            struct run rest = r;
            rest.costs = NULL;
            if (images % r.turn)
                run_turn(&rest, images % r.turn);
            end = rest.clock.next;
        }
        r.costs = turn == SETTLED ? ret_costs : NULL;
        if (turn < all)
            run_turn(&r, r.turn);
        ends[XN_MIN(turn + 1, all)] = r.clock.next;
    }
    return end + skipped * (ends[SETTLED + period] - ends[SETTLED]);
}
