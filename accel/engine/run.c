/* SPDX-License-Identifier: Apache-2.0
 * The definition of the instruction set: programs run one descriptor after another, one pixel after another, one
 * channel after another, in exact integers. It is written to be read and compared with, not to be fast; tests hold
 * the HLS C simulation and the Verilated RTL to every word that it leaves in AM, RM and the output.
 *
 * xn_isa_check stands before each pass, so a pass addresses only its memories and its output. What the descriptors
 * do not bound is the stream, whose end no register tells the engine: the job says how long it is, and a pass that
 * would read beyond stops the run with -1, as does a program that is not ended within program_count.
 *
 * Sums are kept modulo 2^32 and the post lanes work modulo 2^64, so that programs that no compiler makes are defined
 * too. In what a compiler makes neither wraps. */
#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hls/include/xnor_sim.h"

#define LANES           XN_ISA_LANES
#define MEMORY_ROWS_MAX (1u << 22)

static_assert(sizeof(struct xn_isa_descriptor) == XN_ISA_DESCRIPTOR_BYTES, "as in card memory");
static_assert(sizeof(struct xn_isa_lane) == XN_ISA_LANE_BYTES, "as in card memory");
static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "programs are read in place");

struct xn_sim {
    struct xn_isa_geometry geometry;
    uint64_t *am; /**< [am_rows][2P] */
    int16_t *rm;  /**< [rm_rows][PR][LANES] */
};

/** Where a run stands. */
struct turn {
    uint32_t image;  /**< of the job; in a tail the turn's last */
    uint32_t before; /**< images of the turn before it */
    bool is_tail;
};

/** A pass at one group of output channels. */
struct pass {
    struct xn_sim *sim;
    const struct xn_sim_job *job;
    const struct turn *turn;
    const struct xn_isa_descriptor *d;
    uint32_t out_w; /**< pixels side by side that it makes: BATCH limits them */
    uint32_t group;
    const uint8_t *weights; /**< [steps][XN_ISA_WEIGHT_BYTES] of this group, if it has weights */
    struct xn_isa_lane lanes[LANES];
};

/* ---- memories ---------------------------------------------------------------------------------------------------- */

/** Word `w` of pixel (y, x) of a map `width` wide in AM. */
static uint64_t *am_word(const struct xn_sim *s, uint32_t base, uint32_t pitch, uint32_t width, uint32_t y, uint32_t x,
                         uint32_t w)
{
    uint32_t banks = 2 * s->geometry.p;
    uint64_t row = base + (y * xn_isa_ceil(width, banks) + x / banks) * pitch + w;

    return &s->am[row * banks + x % banks];
}

/** The 16 channels of group `group` of pixel (y, x) of a map `width` wide in RM. */
static int16_t *rm_word(const struct xn_sim *s, uint32_t base, uint32_t pitch, uint32_t width, uint32_t y, uint32_t x,
                        uint32_t group)
{
    uint32_t banks = s->geometry.pr;
    uint64_t row = base + (y * xn_isa_ceil(width, banks) + x / banks) * pitch + group;

    return &s->rm[(row * banks + x % banks) * LANES];
}

static uint64_t source_word(const struct pass *p, uint32_t y, uint32_t x, uint32_t w)
{
    return *am_word(p->sim, p->d->base, p->d->pitch, p->d->width, y, x, w);
}

static uint64_t *dest_word(const struct pass *p, uint32_t y, uint32_t x, uint32_t w)
{
    return am_word(p->sim, p->d->dest_base, p->d->dest_pitch, xn_isa_dest_width(p->d), y, x, w);
}

/** The element of the source map that tap (ky, kx) of output (y, x) sees; false: it lies outside. */
static bool tap(const struct xn_isa_descriptor *d, uint32_t y, uint32_t x, uint32_t ky, uint32_t kx, uint32_t *ret_y,
                uint32_t *ret_x)
{
    *ret_y = y * d->stride_h + ky - d->pad_top; /* below 0: wraps to beyond the map */
    *ret_x = x * d->stride_w + kx - d->pad_left;
    return *ret_y < d->height && *ret_x < d->width;
}

/* ---- INPUT and LARGEST ------------------------------------------------------------------------------------------------ */

static void run_input(struct pass *p)
{
    const struct xn_isa_descriptor *d = p->d;
    const uint8_t *image = (const uint8_t *)p->job->input + (size_t)p->turn->image * p->job->input_bytes;

    for (uint32_t y = 0; y < d->height; y++) {
        for (uint32_t x = 0; x < d->out_w; x++) {
            for (uint32_t w = 0; w < d->dest_pitch; w++)
                *dest_word(p, y, x, w) = 0;
            for (uint32_t c = 0; c < d->channels; c++) {
                uint32_t at = x * d->stride_w + c - d->pad_left; /* before the row: wraps to beyond it */
                uint64_t byte = at < d->input_row_bytes ? image[y * d->input_row_bytes + at] : 0;
                *dest_word(p, y, x, c / 8) |= byte << c % 8 * 8;
            }
        }
    }
}

/** Element by element. */
static uint64_t larger(uint64_t a, uint64_t b, uint32_t source)
{
    uint64_t word = 0;

    if (source == XN_ISA_BITS)
        return a | b;
    for (uint32_t i = 0; i < 64; i += 8) {
        const uint8_t flip =
            source == XN_ISA_I8 ? 0x80 : 0; /* the order of int8 is that of uint8 with the sign turned */
        const uint8_t x = (uint8_t)(a >> i) ^ flip, y = (uint8_t)(b >> i) ^ flip;
        word |= (uint64_t)((x > y ? x : y) ^ flip) << i;
    }
    return word;
}

static uint64_t largest_of_window(const struct pass *p, uint32_t y, uint32_t x, uint32_t w)
{
    uint64_t word = p->d->source == XN_ISA_I8 ? UINT64_C(0x8080808080808080) : 0; /* the least */
    uint32_t sy, sx;

    for (uint32_t ky = 0; ky < p->d->kernel_h; ky++)
        for (uint32_t kx = 0; kx < p->d->kernel_w; kx++)
            if (tap(p->d, y, x, ky, kx, &sy, &sx))
                word = larger(word, source_word(p, sy, sx, w), p->d->source);
    return word;
}

static void run_largest(struct pass *p)
{
    const uint32_t column = p->d->flags & XN_ISA_BATCH ? p->turn->before * p->d->dest_step : 0;

    for (uint32_t w = 0; w < p->d->words; w++)
        for (uint32_t y = 0; y < p->d->out_h; y++)
            for (uint32_t x = 0; x < p->out_w; x++)
                *dest_word(p, y, column + x, p->d->dest_group / 4 + w) = largest_of_window(p, y, x, w);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/** The 64 bits of weight word `step` that are lane `lane`'s. */
static uint64_t weight(const struct pass *p, uint32_t step, uint32_t lane)
{
    uint64_t bits;

    memcpy(&bits, p->weights + (size_t)step * XN_ISA_WEIGHT_BYTES + lane * 8, sizeof(bits));
    return bits;
}

/** +1 or -1: bit `i` of `bits`. */
static int32_t sign_of(uint64_t bits, uint32_t i)
{
    return bits >> i & 1 ? 1 : -1;
}

/** Byte `i` of `word` as an element of type `source`. */
static int32_t byte_of(uint64_t word, uint32_t i, uint32_t source)
{
    uint8_t byte = (uint8_t)(word >> 8 * i);

    return source == XN_ISA_I8 ? (int8_t)byte : byte;
}

/** A step of BINARY. The constant of a tap, its channels, comes with the first of its words. */
static void step_binary(const struct pass *p, uint32_t step, bool inside, uint32_t y, uint32_t x, uint32_t sums[LANES])
{
    uint32_t w = step % p->d->words;
    uint64_t word = inside ? source_word(p, y, x, w) : 0;

    if (!inside && !(p->d->flags & XN_ISA_PAD_MINUS_ONE))
        return;
    for (uint32_t l = 0; l < LANES; l++)
        sums[l] += (w == 0 ? p->d->channels_in : 0) - 2 * (uint32_t)__builtin_popcountll(word ^ weight(p, step, l));
}

static void step_int8(const struct pass *p, uint32_t step, uint32_t y, uint32_t x, uint32_t sums[LANES])
{
    bool bits = p->d->source == XN_ISA_BITS;
    uint32_t w = step % p->d->words;
    uint64_t word = bits ? source_word(p, y, x, w / 8) >> 8 * (w % 8) : source_word(p, y, x, w);

    for (uint32_t l = 0; l < LANES; l++) {
        for (uint32_t i = 0; i < 8; i++) {
            int32_t element = bits ? sign_of(word, i) : byte_of(word, i, p->d->source);
            sums[l] += (uint32_t)(element * byte_of(weight(p, step, l), i, XN_ISA_I8));
        }
    }
}

/** The element that lane `lane` of VECTOR reads. */
static int32_t vector_element(const struct pass *p, uint32_t y, uint32_t x, uint32_t lane)
{
    const struct xn_isa_descriptor *d = p->d;
    uint32_t group = p->group + d->source_group;

    if (d->source == XN_ISA_I16)
        return rm_word(p->sim, d->base, d->pitch, d->width, y, x, group)[lane];
    if (d->source == XN_ISA_BITS)
        return sign_of(source_word(p, y, x, group / 4), group % 4 * LANES + lane);
    return byte_of(source_word(p, y, x, 2 * group + lane / 8), lane % 8, d->source);
}

static void step_vector(const struct pass *p, uint32_t step, uint32_t y, uint32_t x, uint32_t sums[LANES])
{
    for (uint32_t l = 0; l < LANES; l++) {
        int32_t element = vector_element(p, y, x, l);
        if (xn_isa_has_weights(p->d))
            sums[l] += (uint32_t)(element * byte_of(weight(p, step, l), 0, XN_ISA_I8));
        else if (!(p->d->flags & XN_ISA_MAX))
            sums[l] += (uint32_t)element;
        else if (element > (int32_t)sums[l])
            sums[l] = (uint32_t)element;
    }
}

/** The 16 sums, or largest elements, of output pixel (y, x). MAX starts at the least int16. */
static void sum_window(const struct pass *p, uint32_t y, uint32_t x, uint32_t sums[LANES])
{
    const struct xn_isa_descriptor *d = p->d;
    uint32_t taps = d->kernel_h * d->kernel_w, sy, sx;

    for (uint32_t l = 0; l < LANES; l++)
        sums[l] = d->flags & XN_ISA_MAX ? (uint32_t)INT16_MIN : 0;
    for (uint32_t step = 0; step < taps * d->words; step++) {
        uint32_t t = step / d->words;
        bool inside = tap(d, y, x, t / d->kernel_w, t % d->kernel_w, &sy, &sx);
        if (d->op == XN_ISA_BINARY)
            step_binary(p, step, inside, sy, sx, sums);
        else if (inside && d->op == XN_ISA_INT8)
            step_int8(p, step, sy, sx, sums);
        else if (inside)
            step_vector(p, step, sy, sx, sums);
    }
}

/* ---- post lanes -------------------------------------------------------------------------------------------------- */

static int64_t clamp(int64_t v, int64_t least, int64_t most)
{
    return v < least ? least : v > most ? most : v;
}

/** (m * v + b + half) >> shift, rounding to nearest, ties up. */
static int64_t multiply_shift(int64_t m, int64_t v, int64_t b, uint32_t shift)
{
    uint64_t half = shift > 0 ? UINT64_C(1) << (shift - 1) : 0;

    return (int64_t)((uint64_t)m * (uint64_t)v + (uint64_t)b + half) >> shift;
}

/** From a sum to the value that the destinations take. */
static int64_t finish(const struct xn_isa_descriptor *d, const struct xn_isa_lane *lane, int64_t v, int16_t residual)
{
    if (d->flags & XN_ISA_SCALE)
        v = multiply_shift(lane->m1, v, lane->b1, d->shift & 0xff);
    if (d->flags & XN_ISA_RESIDUAL)
        v = (int64_t)((uint64_t)v + (uint64_t)residual);
    if (d->flags & XN_ISA_SATURATE)
        v = clamp(v, INT16_MIN, INT16_MAX);
    if (d->flags & XN_ISA_RPRELU) {
        int64_t t = (int64_t)((uint64_t)v + (uint64_t)lane->a);
        v = clamp((t >= 0 ? t : t >> (lane->k & 15)) + lane->d, INT16_MIN, INT16_MAX);
    }
    return v;
}

/** 16 bits into their quarter of a word. The first group of a word clears the others. */
static void write_signs(const struct pass *p, uint32_t y, uint32_t x, const int64_t v[LANES], uint32_t lanes)
{
    uint32_t group = p->group + p->d->dest_group, at = group % 4 * LANES;
    uint64_t *word = dest_word(p, y, x, group / 4), bits = 0;

    for (uint32_t l = 0; l < lanes; l++)
        bits |= (uint64_t)(v[l] >= p->lanes[l].t) << l;
    *word = at == 0 ? bits : (*word & ~(UINT64_C(0xffff) << at)) | bits << at;
}

static void write_bytes(const struct pass *p, uint32_t y, uint32_t x, const int64_t v[LANES], uint32_t lanes)
{
    uint32_t group = p->group + p->d->dest_group;
    bool is_unsigned = p->d->flags & XN_ISA_UNSIGNED;
    uint64_t words[2] = {0};

    for (uint32_t l = 0; l < lanes; l++) {
        const struct xn_isa_lane *lane = &p->lanes[l];
        int64_t q = multiply_shift(lane->m2, v[l], lane->b2, p->d->shift >> 8);
        q = is_unsigned ? clamp(q, 0, UINT8_MAX) : clamp(q, INT8_MIN, INT8_MAX);
        words[l / 8] |= (uint64_t)(uint8_t)q << l % 8 * 8;
    }
    *dest_word(p, y, x, 2 * group) = words[0];
    *dest_word(p, y, x, 2 * group + 1) = words[1];
}

static void write_logits(const struct pass *p, uint32_t y, uint32_t x, const int64_t v[LANES], uint32_t lanes)
{
    const uint32_t first = p->turn->image - (p->turn->is_tail ? p->turn->before : 0);
    int32_t *z = p->job->output + (size_t)first * p->job->output_words + ((size_t)y * p->out_w + x) * p->d->channels +
                 p->group * LANES;

    for (uint32_t l = 0; l < lanes; l++)
        z[l] = (int32_t)multiply_shift(p->lanes[l].t, v[l], p->lanes[l].b2, 0);
}

static void post(const struct pass *p, uint32_t y, uint32_t x, const uint32_t sums[LANES])
{
    const struct xn_isa_descriptor *d = p->d;
    uint32_t left = d->channels - p->group * LANES, lanes = left < LANES ? left : LANES;
    const int16_t *residual = NULL;
    int64_t v[LANES] = {0};

    if (d->flags & XN_ISA_RESIDUAL)
        residual = rm_word(p->sim, d->residual_base, d->residual_pitch, p->out_w, y, x, p->group);
    for (uint32_t l = 0; l < lanes; l++)
        v[l] = finish(d, &p->lanes[l], (int32_t)sums[l], residual ? residual[l] : 0);
    if (d->flags & XN_ISA_STORE) {
        int16_t *stream = rm_word(p->sim, d->stream_base, d->stream_pitch, p->out_w, y, x, p->group);
        for (uint32_t l = 0; l < LANES; l++)
            stream[l] = (int16_t)v[l];
    }
    if (d->flags & XN_ISA_SIGN)
        write_signs(p, y, x, v, lanes);
    if (d->flags & XN_ISA_QUANTIZE)
        write_bytes(p, y, x, v, lanes);
    if (d->flags & XN_ISA_LOGITS)
        write_logits(p, y, x, v, lanes);
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static void run_group(struct pass *p)
{
    uint32_t sums[LANES];

    for (uint32_t y = 0; y < p->d->out_h; y++) {
        for (uint32_t x = 0; x < p->out_w; x++) {
            sum_window(p, y, x, sums);
            post(p, y, x, sums);
        }
    }
}

/** What of the stream has not been read. */
struct stream {
    const uint8_t *at;
    size_t bytes;
};

/** BINARY, INT8 or VECTOR: group after group, each with its part of the stream. -1: the stream ends before. */
static int run_groups(struct pass *p, struct stream *stream)
{
    const uint64_t group_bytes = xn_isa_group_bytes(p->d);

    for (p->group = 0; p->group < xn_isa_ceil(p->d->channels, LANES); p->group++) {
        if (stream->bytes < group_bytes)
            return -1;
        memcpy(p->lanes, stream->at, XN_ISA_POST_BYTES);
        p->weights = stream->at + XN_ISA_POST_BYTES;
        run_group(p);
        stream->at += group_bytes;
        stream->bytes -= group_bytes;
    }
    return 0;
}

static int run_pass(struct pass *p, struct stream *stream)
{
    if (p->d->op == XN_ISA_INPUT)
        run_input(p);
    else if (p->d->op == XN_ISA_LARGEST)
        run_largest(p);
    else
        return run_groups(p, stream);
    return 0;
}

/** Descriptors from `*at` on, to an END or TURN, whose index *at becomes. 0: to there; 1: stopped by an error, which *status tells;
 *  -1: read outside the job's memory. */
static int run_section(struct xn_sim *sim, const struct xn_sim_job *job, const struct turn *turn, uint32_t *at,
                       struct stream *stream, struct xn_isa_status *status)
{
    for (; *at < XN_ISA_DESCRIPTORS_MAX; ++*at) {
        if (*at == job->program_count)
            return -1;
        const struct xn_isa_descriptor *d = &job->program[*at];
        struct pass p = {.sim = sim, .job = job, .turn = turn, .d = d};
        p.out_w = xn_isa_out_w(d, turn->is_tail ? turn->before + 1 : 1);
        status->image = turn->image;
        status->descriptor = *at;
        status->error = xn_isa_check(d, &sim->geometry, job->input_bytes, job->output_words, turn->before);
        if (status->error)
            return 1;
        if (d->op == XN_ISA_END || d->op == XN_ISA_TURN)
            return 0;
        if (run_pass(&p, stream) < 0)
            return -1;
    }
    status->descriptor = XN_ISA_DESCRIPTORS_MAX;
    status->error = XN_ISA_ERROR_LENGTH;
    return 1;
}

/** The turn that begins with image *image, which becomes the first behind it. Returns as run_section does. */
static int run_turn(struct xn_sim *sim, const struct xn_sim_job *job, uint32_t *image, struct xn_isa_status *status)
{
    struct turn turn = {.image = *image};
    struct stream stream;
    uint32_t at;
    int r;

    for (;; turn.image++, turn.before++) {
        stream = (struct stream){job->stream, job->stream_bytes};
        at = 0;
        r = run_section(sim, job, &turn, &at, &stream, status);
        if (r != 0)
            return r;
        if (job->program[at].op == XN_ISA_END || turn.before + 1 == job->program[at].out_w ||
            turn.image + 1 == job->images)
            break;
    }
    *image = turn.image + 1;
    if (job->program[at].op == XN_ISA_END)
        return 0;
    turn.is_tail = true;
    at++;
    return run_section(sim, job, &turn, &at, &stream, status);
}

int xn_sim_run(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status)
{
    struct xn_isa_status status = xn_isa_status_of(&sim->geometry);
    uint32_t image = 0;
    int r = 0;

    while (r == 0 && image < job->images)
        r = run_turn(sim, job, &image, &status);
    if (r == 0)
        status.image = job->images;
    *ret_status = status;
    return r < 0 ? -1 : 0;
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

static bool is_power_of_two(uint32_t v)
{
    return v && !(v & (v - 1));
}

static const char *geometry_fault(const struct xn_isa_geometry *g)
{
    if (!is_power_of_two(g->p) || g->p > 16)
        return "P is not 1, 2, 4, 8 or 16";
    if (!is_power_of_two(g->pi) || g->pi > g->p || !is_power_of_two(g->pr) || g->pr > g->p)
        return "PI and PR are not powers of two up to P";
    if (g->am_rows < 1 || g->am_rows > MEMORY_ROWS_MAX || g->rm_rows < 1 || g->rm_rows > MEMORY_ROWS_MAX)
        return "AM or RM has no rows or too many";
    return g->wb_words < 1 || g->wb_words > XN_ISA_STEPS_MAX ? "the weight buffer has no words or too many" : NULL;
}

struct xn_sim *xn_sim_open(const struct xn_isa_geometry *geometry, const char **ret_why)
{
    struct xn_sim *sim;
    const char *why = geometry_fault(geometry);

    if (why) {
        *ret_why = why;
        return NULL;
    }
    sim = calloc(1, sizeof(*sim));
    if (sim) {
        sim->geometry = *geometry;
        sim->am = calloc(geometry->am_rows, (size_t)2 * geometry->p * sizeof(*sim->am));
        sim->rm = calloc(geometry->rm_rows, (size_t)geometry->pr * LANES * sizeof(*sim->rm));
    }
    if (!sim || !sim->am || !sim->rm) {
        xn_sim_close(sim);
        *ret_why = "out of memory";
        return NULL;
    }
    return sim;
}

void xn_sim_close(struct xn_sim *sim)
{
    if (!sim)
        return;
    free(sim->am);
    free(sim->rm);
    free(sim);
}

uint64_t xn_sim_am(const struct xn_sim *sim, uint32_t row, uint32_t bank)
{
    return sim->am[(size_t)row * 2 * sim->geometry.p + bank];
}

void xn_sim_rm(const struct xn_sim *sim, uint32_t row, uint32_t bank, int16_t ret_channels[XN_ISA_LANES])
{
    memcpy(ret_channels, &sim->rm[((size_t)row * sim->geometry.pr + bank) * LANES], LANES * sizeof(int16_t));
}
