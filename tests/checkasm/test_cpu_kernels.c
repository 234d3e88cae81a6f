/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of every level against the portable one, on random and extreme operands of random shapes. Outputs lie between
 * guards, start as garbage and must come out the same to the last byte that the kernel owns. Kernels are called with canaries in the
 * registers that they must preserve. $XN_SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"
#include "tests/support/checked_call.h"
#include "tests/support/random_network.h"

#define ROUNDS      60u
#define GUARD_BYTES 64u
#define GUARD_VALUE 0xa7

static uint64_t seed;
static const struct xn_cpu_kernels *portable;

/* ---- guarded memory --------------------------------------------------------------------------------------------------- */

/** `bytes` with a guard before and after; the end is tight, whatever the alignment of the start. */
struct guarded {
    uint8_t *memory, *data;
    size_t bytes;
};

static struct guarded guarded_new(size_t bytes)
{
    struct guarded g = {.memory = aligned_alloc(64, xn_align_up(bytes + 2 * GUARD_BYTES, 64)), .bytes = bytes};
    assert_non_null(g.memory);
    g.data = g.memory + GUARD_BYTES;
    memset(g.memory, GUARD_VALUE, bytes + 2 * GUARD_BYTES);
    return g;
}

static void guarded_free(struct guarded *g)
{
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (g->memory[i] != GUARD_VALUE || g->data[g->bytes + i] != GUARD_VALUE)
            fail_msg("a kernel wrote outside its output of %zu bytes", g->bytes);
    free(g->memory);
}

/** Outputs of the portable kernel and of the one under test, which must be equal; frees both. */
static void compare(struct guarded *want, struct guarded *got, const char *what)
{
    for (size_t i = 0; i < want->bytes; i++)
        if (want->data[i] != got->data[i])
            fail_msg("%s: byte %zu of %zu is %u, portable %u", what, i, want->bytes, got->data[i], want->data[i]);
    guarded_free(want);
    guarded_free(got);
}

/** Random bytes; now and then all zeros, or all ones. */
static void fill(struct xn_random *random, void *to, size_t bytes)
{
    const uint32_t kind = xn_random_below(random, 6);
    if (kind < 2)
        memset(to, kind ? 0xff : 0, bytes);
    else
        xn_random_bytes(random, to, bytes);
}

static const struct xn_cpu_kernels *level_or_skip(void **state)
{
    const size_t i = *(const size_t *)*state;
    if (!xn_cpu_level_runs(i)) {
        print_message("# skipped %s: this processor does not have the instructions\n", xn_cpu_level_at(i)->level);
        skip();
    }
    return xn_cpu_level_at(i);
}

/** Call a kernel of up to four arguments and look at the registers that it must preserve. */
#define CALL(function, ...)                                                                                            \
    do {                                                                                                               \
        const uint64_t arguments_[XN_CHECKED_ARGUMENTS] = {__VA_ARGS__};                                               \
        const int clobbered_ = xn_checked_call((void (*)(void))(function), arguments_);                                \
        if (clobbered_ > 0)                                                                                            \
            fail_msg("a kernel changed callee-saved register %d", clobbered_);                                         \
    } while (0)
#define P(pointer) (uint64_t)(uintptr_t)(pointer)

/* ---- convolutions ----------------------------------------------------------------------------------------------------- */

/** A tile with its operands: `plain` words as the portable level reads them, and the same as the level under test does. */
struct operands {
    struct xn_cpu_tile tile, portable;
    struct guarded map, plain_map;
    uint8_t *weights, *portable_weights;
    int32_t init[XN_CPU_TILE_MAX];
    int32_t start[XN_CPU_CHUNK];
    uint32_t oc;
    uint32_t u[XN_CPU_TILE_MAX], v[XN_CPU_CHUNK]; /* popcounts of low ^ high: of pixels' taps, of weights */
};

static uint32_t pair_count(uint64_t word)
{
    return (uint32_t)__builtin_popcount((uint32_t)word ^ (uint32_t)(word >> 32));
}

static size_t unit_of_row(enum xn_cpu_conv_kind kind)
{
    static const size_t bytes[XN_CPU_CONV_KINDS] = {8, 4, 4, 8, 2 * XN_CPU_CHUNK};
    return bytes[kind];
}

/** A random raw unit of weights, as xn_cpu_conv_kernel's pack takes it. */
static uint64_t raw_weights(struct xn_random *random, enum xn_cpu_conv_kind kind)
{
    static const uint64_t extreme[] = {0, UINT64_MAX, UINT64_C(0xffffffff), UINT64_C(0x8080808080808080),
                                       UINT64_C(0x7f7f7f7f7f7f7f7f)};
    uint64_t raw = xn_random_below(random, 8) ? xn_random_next(random) : extreme[xn_random_below(random, 5)];
    if (kind == XN_CPU_CONV_I16) /* two int8, widened */
        raw = (uint16_t)(int8_t)raw | (uint64_t)(uint16_t)(int8_t)(raw >> 8) << 16;
    return kind == XN_CPU_CONV_BITS ? raw : raw & UINT32_MAX;
}

/** Pack the same random weights for both levels. */
static void random_weights(struct operands *o, const struct xn_cpu_conv_kernel *kernel,
                           const struct xn_cpu_conv_kernel *plain, enum xn_cpu_conv_kind kind, struct xn_random *random)
{
    const size_t units = (size_t)o->tile.rows * o->tile.run;
    const uint32_t blocks = (uint32_t)xn_div_up(o->oc, kernel->block),
                   plain_blocks = (uint32_t)xn_div_up(o->oc, plain->block);

    o->weights = aligned_alloc(64, xn_align_up(blocks * units * kernel->unit_bytes, 64));
    o->portable_weights = aligned_alloc(64, xn_align_up(plain_blocks * units * plain->unit_bytes, 64));
    assert_true(o->weights && o->portable_weights);
    memset(o->weights, 0, blocks * units * kernel->unit_bytes);
    memset(o->portable_weights, 0, plain_blocks * units * plain->unit_bytes);
    for (uint32_t c = 0; c < o->oc; c++)
        for (size_t k = 0; k < units; k++) {
            const uint64_t raw = raw_weights(random, kind);
            kernel->pack(o->weights + (c / kernel->block * units + k) * kernel->unit_bytes, c % kernel->block, raw);
            plain->pack(o->portable_weights + (c / plain->block * units + k) * plain->unit_bytes, c % plain->block,
                        raw);
            o->v[c] += pair_count(raw);
        }
    o->tile.weights = o->weights;
    o->tile.blocks = blocks;
    o->portable.weights = o->portable_weights;
    o->portable.blocks = plain_blocks;
}

/** A map of whole rows of taps; pixels begin `step` units apart. Tight: nothing lies behind it but the guard. */
static void random_map(struct operands *o, const struct xn_cpu_kernels *kernels, enum xn_cpu_conv_kind kind,
                       struct xn_random *random)
{
    const bool words = kind == XN_CPU_CONV_BITS || kind == XN_CPU_CONV_DW_BITS;
    const size_t unit = unit_of_row(kind), step = unit * xn_random_below(random, 3);

    o->tile.tap_bytes = unit;
    o->tile.row_bytes = o->tile.run * unit + step * o->tile.n;
    const size_t bytes = o->tile.rows * o->tile.row_bytes;
    o->map = guarded_new(bytes);
    o->plain_map = guarded_new(bytes);
    fill(random, o->plain_map.data, bytes);
    if (kind == XN_CPU_CONV_I16 || kind == XN_CPU_CONV_DW_I16)
        for (size_t i = 0; i < bytes / 2; i++) /* what bytes widen to */
            ((int16_t *)(void *)o->plain_map.data)[i] =
                (int16_t)((o->plain_map.data[2 * i] & 1 ? 0 : -128) + o->plain_map.data[2 * i + 1] % 256);
    memcpy(o->map.data, o->plain_map.data, bytes);
    if (words && kernels->bits->encoded)
        for (size_t i = 0; i < bytes / 8; i++)
            ((uint64_t *)(void *)o->map.data)[i] = xn_bits_encode(((uint64_t *)(void *)o->map.data)[i]);
    o->portable.tap_bytes = o->tile.tap_bytes;
    o->portable.row_bytes = o->tile.row_bytes;
    for (uint32_t p = 0; p < o->tile.n; p++) {
        o->tile.pixels[p] = o->map.data + p * step;
        o->portable.pixels[p] = o->plain_map.data + p * step;
        for (uint32_t y = 0; words && y < o->tile.rows; y++)
            for (uint32_t k = 0; k < o->tile.run; k++)
                o->u[p] += pair_count(
                    ((const uint64_t *)(const void *)(o->plain_map.data + p * step + y * o->tile.row_bytes))[k]);
        o->init[p] = (int32_t)(o->u[p] / 2);
    }
}

static struct operands random_operands(const struct xn_cpu_kernels *kernels, enum xn_cpu_conv_kind kind,
                                       struct xn_random *random)
{
    const bool depthwise = kind == XN_CPU_CONV_DW_BITS || kind == XN_CPU_CONV_DW_I16;
    const struct xn_cpu_conv_kernel *kernel = kernels->conv[kind], *plain = portable->conv[kind];
    struct operands o = {.oc = depthwise ? XN_CPU_CHUNK : 1 + xn_random_below(random, XN_CPU_CHUNK)};

    o.tile.n = 1 + xn_random_below(random, kernel->tile);
    o.tile.rows = 1 + xn_random_below(random, 7);
    o.tile.run = 1 + xn_random_below(random, depthwise ? 7 : xn_random_below(random, 4) ? 12 : 90);
    o.tile.acc_bytes = XN_CPU_CHUNK * sizeof(int32_t);
    o.portable = o.tile;
    random_map(&o, kernels, kind, random);
    if (!depthwise) {
        random_weights(&o, kernel, plain ? plain : kernel, kind, random);
        return o;
    }
    const size_t bytes = (size_t)o.tile.rows * o.tile.run * unit_of_row(kind);
    o.weights = aligned_alloc(64, xn_align_up(bytes, 64));
    assert_non_null(o.weights);
    fill(random, o.weights, bytes);
    if (kind == XN_CPU_CONV_DW_I16)
        for (size_t i = 0; i < bytes / 2; i++)
            ((int16_t *)(void *)o.weights)[i] = (int8_t)o.weights[2 * i];
    o.tile.weights = o.portable.weights = o.weights;
    o.tile.blocks = o.portable.blocks = 1;
    return o;
}

static void operands_done(struct operands *o)
{
    guarded_free(&o->map);
    guarded_free(&o->plain_map);
    free(o->weights);
    free(o->portable_weights);
}

/** Sums of the portable level, one pixel at a time. */
static void run_portable(const struct operands *o, enum xn_cpu_conv_kind kind, int32_t *acc)
{
    for (uint32_t p = 0; p < o->portable.n; p++) {
        struct xn_cpu_tile one = o->portable;
        one.n = 1;
        one.pixels[0] = o->portable.pixels[p];
        one.acc = acc + p * XN_CPU_CHUNK;
        portable->conv[kind]->run(&one);
    }
}

static void check_conv(const struct xn_cpu_kernels *kernels, enum xn_cpu_conv_kind kind, struct xn_random *random)
{
    struct operands o = random_operands(kernels, kind, random);
    const struct xn_cpu_bits_kernel *bits = kernels->bits;
    const bool pairs = kind == XN_CPU_CONV_BITS && bits->pairs;
    int32_t want[XN_CPU_TILE_MAX * XN_CPU_CHUNK];
    struct guarded acc = guarded_new(o.tile.n * XN_CPU_CHUNK * sizeof(int32_t));

    o.tile.acc = (int32_t *)(void *)acc.data;
    o.tile.init = o.init;
    run_portable(&o, kind, want);
    CALL(kernels->conv[kind]->run, P(&o.tile));
    for (uint32_t p = 0; p < o.tile.n; p++)
        for (uint32_t c = 0; c < o.oc; c++) {
            const bool ordered = kind == XN_CPU_CONV_BITS || kind == XN_CPU_CONV_DW_BITS;
            const uint32_t place = ordered && bits->order ? bits->order[c] : c;
            const int32_t got = o.tile.acc[p * XN_CPU_CHUNK + place];
            const int32_t x = want[p * XN_CPU_CHUNK + c];
            const int32_t expected = pairs ? (x + (int32_t)o.v[c] - (int32_t)(o.u[p] % 2)) / 2 : x;
            if (got != expected)
                fail_msg("kind %d, pixel %u of %u, channel %u: %d, portable %d", kind, p, o.tile.n, c, got, expected);
        }
    guarded_free(&acc);
    operands_done(&o);
}

static void convolutions(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (int kind = 0; kind < XN_CPU_CONV_KINDS; kind++)
        for (uint32_t round = 0; kernels->conv[kind] && portable->conv[kind] && round < ROUNDS; round++)
            check_conv(kernels, (enum xn_cpu_conv_kind)kind, &random);
}

/** BYTES, which the portable level has not, against the definition. */
static void bytes(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};

    for (uint32_t round = 0; kernels->conv[XN_CPU_CONV_BYTES] && round < 2 * ROUNDS; round++) {
        struct operands o = random_operands(kernels, XN_CPU_CONV_BYTES, &random);
        const struct xn_cpu_conv_kernel *kernel = kernels->conv[XN_CPU_CONV_BYTES];
        const size_t units = (size_t)o.tile.rows * o.tile.run;
        struct guarded acc = guarded_new(o.tile.n * XN_CPU_CHUNK * sizeof(int32_t));
        for (uint32_t c = 0; c < XN_CPU_CHUNK; c++)
            o.start[c] = (int32_t)xn_random_between(&random, -100000, 100000);
        o.tile.start = o.start;
        o.tile.acc = (int32_t *)(void *)acc.data;
        CALL(kernel->run, P(&o.tile));
        for (uint32_t p = 0; p < o.tile.n; p++)
            for (uint32_t c = 0; c < o.oc; c++) {
                int32_t want = o.start[c];
                for (size_t k = 0; k < units; k++)
                    for (uint32_t i = 0; i < 4; i++) {
                        const uint8_t *x =
                            (const uint8_t *)o.tile.pixels[p] + k / o.tile.run * o.tile.row_bytes + k % o.tile.run * 4;
                        /* Undo pack: each lane's four bytes lie together. */
                        const int8_t *w =
                            (const int8_t *)o.weights + (c / kernel->block * units + k) * kernel->unit_bytes;
                        want += x[i] * w[c % kernel->block * 4 + i];
                    }
                assert_int_equal(o.tile.acc[p * XN_CPU_CHUNK + c], want);
            }
        guarded_free(&acc);
        operands_done(&o);
    }
}

/** The portable popcount kernel itself, against counting bit by bit. */
static void portable_counts_bits(void **state)
{
    uint64_t map[40], weights[40 * 8];
    int32_t acc[8];
    struct xn_random random = {seed};
    (void)state;

    xn_random_bytes(&random, map, sizeof(map));
    xn_random_bytes(&random, weights, sizeof(weights));
    struct xn_cpu_tile tile = {
        .pixels = {map}, .n = 1, .rows = 1, .run = 40, .blocks = 1, .weights = weights, .acc = acc, .acc_bytes = 32};
    portable->conv[XN_CPU_CONV_BITS]->run(&tile);
    for (uint32_t lane = 0; lane < 8; lane++) {
        int32_t count = 0;
        for (uint32_t k = 0; k < 40; k++)
            for (uint64_t x = map[k] ^ weights[8 * k + lane]; x; x &= x - 1)
                count++;
        assert_int_equal(acc[lane], count);
    }
}

/* ---- epilogue --------------------------------------------------------------------------------------------------------- */

#define CHANNELS 200u /* at most */
#define CLASSES  6u   /* rows of tables that have one a border class */

/** Parameters of a chain: each array padded to whole chunks. */
struct parameters {
    int32_t m[256], b32[256], k[256], t[256], a[256], b[256], m64[256];
    int64_t b64[256];
    int32_t bias[CLASSES * 256];
};

/** `wild`: anything that the format allows; else what narrow lanes can do. */
static void random_parameters(struct xn_random *random, struct parameters *p, uint32_t c, uint32_t shift, bool wild)
{
    const int32_t m_max = wild ? INT16_MAX : 200, b_max = wild ? INT16_MAX : 100;
    const int64_t half = shift ? INT64_C(1) << (shift - 1) : 0;

    memset(p, 0, sizeof(*p));
    for (uint32_t i = 0; i < c; i++) {
        p->m[i] = (int32_t)xn_random_between(random, -m_max - wild, m_max);
        p->b32[i] = (int32_t)(xn_random_between(random, INT16_MIN, INT16_MAX) + half);
        p->b64[i] = wild ? xn_random_between(random, -(INT64_C(1) << 46), (INT64_C(1) << 46) + (1 << 29)) : p->b32[i];
        p->a[i] = (int32_t)xn_random_between(random, -b_max - wild, b_max);
        p->b[i] = (int32_t)xn_random_between(random, -b_max, b_max);
        p->k[i] = (int32_t)xn_random_below(random, 16);
        p->t[i] = xn_random_below(random, 8)
                      ? (int32_t)xn_random_between(random, wild ? -40000 : -3000, wild ? 40000 : 3000)
                      : (int32_t)xn_random_next(random);
    }
}

static size_t value_bytes(enum xn_dtype dtype, size_t pixels, uint32_t c)
{
    return dtype == XN_DTYPE_BITS ? pixels * xn_div_up(c, 64) * 8
                                  : pixels * c *
                                        (dtype == XN_DTYPE_I32   ? 4
                                         : dtype == XN_DTYPE_I16 ? 2
                                                                 : 1);
}

/** A map of pixels and what is made of it: rows of a map `w` wide, of which one tile is written. */
struct scene {
    struct parameters p;
    struct xn_cpu_chain chain;
    struct xn_cpu_rows rows;
    uint32_t class_row[XN_CPU_TILE_MAX];
    uint32_t c, w, pixels;
    size_t arena_bytes; /* the residual lies at 0 */
};

/** Add a stage with an output of its own. */
static void add_stage(struct scene *s, struct xn_cpu_stage stage)
{
    if (stage.op == XN_CPU_STAGE_STORE) {
        stage.out_offset = s->arena_bytes;
        s->arena_bytes = xn_align_up(s->arena_bytes + value_bytes(stage.dtype, s->pixels, s->c), 64);
    }
    if (stage.op == XN_CPU_STAGE_BITS) {
        const uint32_t words = (uint32_t)xn_div_up(s->c, 64), pitch = s->w + 2, h = s->pixels / s->w + 2;
        stage.bits = (struct xn_cpu_bits_map){
            .offset = s->arena_bytes + (pitch + 1) * words * 8,
            .counts_offset = s->arena_bytes + (size_t)h * pitch * words * 8 + (pitch + 1) * 4,
            .counts = true,
            .pitch = pitch,
            .words = words,
        };
        s->arena_bytes = xn_align_up(s->arena_bytes + (size_t)h * pitch * (words * 8 + 4), 64);
    }
    s->chain.stages[s->chain.n_stages++] = stage;
}

enum chain_kind { CHAIN_ALL, CHAIN_BITS, CHAIN_STREAM, CHAIN_RPRELU, CHAIN_KINDS };

static void random_chain(struct xn_random *random, struct scene *s, enum chain_kind kind, bool wild, uint32_t shift)
{
    const struct parameters *p = &s->p;
    const struct xn_cpu_stage scale = {.op = wild ? XN_CPU_STAGE_SCALE_64 : XN_CPU_STAGE_SCALE,
                                       .min = INT16_MIN,
                                       .max = INT16_MAX,
                                       .m = p->m,
                                       .b32 = p->b32,
                                       .b64 = p->b64,
                                       .shift = shift,
                                       .residual = kind != CHAIN_ALL || xn_random_below(random, 2)};
    const struct xn_cpu_stage bits = {.op = XN_CPU_STAGE_BITS, .dtype = XN_DTYPE_BITS, .m = p->t};
    const struct xn_cpu_stage store = {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I16};
    const struct xn_cpu_stage rprelu = {
        .op = XN_CPU_STAGE_RPRELU, .min = INT16_MIN, .max = INT16_MAX, .m = p->a, .b32 = p->b, .k = p->k};
    const struct xn_cpu_stage add = {.op = XN_CPU_STAGE_ADD, .min = INT16_MIN, .max = INT16_MAX};

    if (kind == CHAIN_BITS || kind == CHAIN_ALL)
        add_stage(s, bits);
    if (kind == CHAIN_BITS)
        return;
    add_stage(s, scale);
    if (kind == CHAIN_ALL) {
        add_stage(s, store);
        add_stage(s, add);
        add_stage(s, bits);
    }
    if (kind != CHAIN_STREAM)
        add_stage(s, rprelu);
    add_stage(s, xn_random_below(random, 2) ? bits : store);
    add_stage(s, s->chain.stages[s->chain.n_stages - 1].op == XN_CPU_STAGE_BITS ? store : bits);
    if (kind == CHAIN_ALL && wild) {
        add_stage(s, (struct xn_cpu_stage){.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I32});
        add_stage(
            s,
            (struct xn_cpu_stage){
                .op = XN_CPU_STAGE_SCALE, .min = 0, .max = 255, .m = p->k, .b32 = p->b32, .b64 = p->b64, .shift = 6});
        add_stage(s, (struct xn_cpu_stage){.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_U8});
        add_stage(s, (struct xn_cpu_stage){.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I8});
    } else if (kind == CHAIN_ALL) { /* what an int8 layer reads of a stream */
        struct xn_cpu_stage again = scale;
        again.op = XN_CPU_STAGE_SCALE;
        again.residual = false;
        again.min = INT8_MIN;
        again.max = INT8_MAX;
        add_stage(s, again);
        add_stage(s, (struct xn_cpu_stage){.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I8});
    }
}

/** Let the first SCALE need 64 bits, for sums of an int8 layer. */
static void widen_scale(struct xn_random *random, struct scene *s)
{
    static const uint32_t shift = 18;
    for (uint32_t k = 0; k < s->chain.n_stages; k++) {
        struct xn_cpu_stage *stage = &s->chain.stages[k];
        if (stage->op != XN_CPU_STAGE_SCALE)
            continue;
        stage->op = XN_CPU_STAGE_SCALE_64;
        stage->shift = shift;
        stage->m = s->p.m64;
        break;
    }
    for (uint32_t i = 0; i < s->c; i++) {
        s->p.m64[i] = (int32_t)xn_random_between(random, INT16_MIN, INT16_MAX);
        s->p.b64[i] = xn_random_between(random, -(INT64_C(1) << 32), INT64_C(1) << 32);
    }
}

static struct scene *random_scene(struct xn_random *random, enum chain_kind kind, bool wild, uint32_t c)
{
    struct scene *s = calloc(1, sizeof(*s));
    const uint32_t shift = wild ? xn_random_below(random, 31) : 2 + xn_random_below(random, 8);
    assert_non_null(s);
    s->c = c;
    s->w = 1 + xn_random_below(random, 9);
    s->pixels = s->w * (2 + XN_CPU_TILE_MAX / s->w + 1);
    s->chain = (struct xn_cpu_chain){.c = c, .row_pitch = xn_align_up(c, XN_CPU_CHUNK)};
    s->arena_bytes = xn_align_up(value_bytes(XN_DTYPE_I16, s->pixels, c), 64);
    random_parameters(random, &s->p, c, shift, wild);
    random_chain(random, s, kind, wild, shift);
    s->rows.n = 1 + xn_random_below(random, XN_CPU_TILE_MAX);
    s->rows.first = xn_random_below(random, s->pixels - s->rows.n + 1);
    s->rows.w = s->w;
    s->rows.y = s->rows.first / s->w;
    s->rows.x = s->rows.first % s->w;
    s->rows.bias = s->p.bias;
    s->rows.class_row = s->class_row;
    for (uint32_t i = 0; i < CLASSES * s->chain.row_pitch; i++)
        s->p.bias[i] = (int32_t)xn_random_below(random, 2000);
    for (uint32_t p = 0; p < s->rows.n; p++)
        s->class_row[p] = xn_random_below(random, CLASSES);
    return s;
}

/** Garbage, but counts of bits are 0 before, and the level's words become plain ones: what a map means, not how it is held. */
static void prepare_arena(const struct scene *s, uint8_t *arena)
{
    for (uint32_t k = 0; k < s->chain.n_stages; k++) {
        const struct xn_cpu_stage *stage = &s->chain.stages[k];
        if (stage->op == XN_CPU_STAGE_BITS)
            memset(arena + stage->bits.counts_offset, 0, (s->pixels / s->w * (size_t)stage->bits.pitch - 2) * 4);
    }
}
static void decode_arena(const struct scene *s, const struct xn_cpu_kernels *kernels, uint8_t *arena)
{
    for (uint32_t k = 0; k < s->chain.n_stages; k++) {
        const struct xn_cpu_bits_map *map = &s->chain.stages[k].bits;
        if (s->chain.stages[k].op != XN_CPU_STAGE_BITS || !kernels->bits->encoded)
            continue;
        for (uint32_t i = 0; i < s->rows.n; i++) {
            const uint32_t pixel = s->rows.first + i;
            uint64_t *words = (uint64_t *)(void *)(arena + map->offset) +
                              ((size_t)(pixel / s->w) * map->pitch + pixel % s->w) * map->words;
            for (uint32_t w = 0; w < map->words; w++)
                words[w] = xn_bits_encode(words[w]);
        }
    }
}

typedef void epilogue_fn(const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows, uint8_t *arena);

/** All chunks of a row of numbers or sums at `data`. */
static void run_epilogue(const struct scene *s, epilogue_fn *function, const uint8_t *data, size_t element,
                         uint8_t *arena)
{
    struct xn_cpu_rows rows = s->rows;
    for (rows.c0 = 0; rows.c0 < s->c; rows.c0 += XN_CPU_CHUNK) {
        rows.c = XN_MIN(s->c - rows.c0, XN_CPU_CHUNK);
        rows.data = data + rows.c0 * element;
        CALL(function, P(&s->chain), P(&rows), P(arena));
    }
}

/** Sums in the order of channels to the order of a level. */
static void reorder(const struct xn_cpu_kernels *kernels, const struct scene *s, const int32_t *from, int32_t *to)
{
    const uint8_t *order = kernels->bits->order;
    const size_t pitch = s->chain.row_pitch;
    for (size_t i = 0; i < s->rows.n * pitch; i++) {
        const size_t lane = i % XN_CPU_CHUNK;
        to[i - lane + (order && s->rows.kind != XN_CPU_ROWS_NUMBERS ? order[lane] : lane)] = from[i];
    }
}

/** `narrow`: the level's 16-bit lanes, where they can run the chain, else its 32-bit ones. Returns whether it ran. */
static bool check_epilogue(const struct xn_cpu_kernels *kernels, struct xn_random *random, bool narrow)
{
    static const enum xn_dtype types[] = {XN_DTYPE_U8, XN_DTYPE_I8, XN_DTYPE_I16, XN_DTYPE_I32};
    static int32_t sums[XN_CPU_TILE_MAX * 256], ordered[XN_CPU_TILE_MAX * 256];
    const bool wild = !narrow && xn_random_below(random, 2);
    struct scene *s = random_scene(random, (enum chain_kind)xn_random_below(random, CHAIN_KINDS), wild,
                                   1 + xn_random_below(random, CHANNELS));
    struct xn_cpu_plan plan = {.kernels = kernels};
    const struct xn_cpu_conv conv = {.bias = s->p.bias, .bias_rows = CLASSES, .rows = 3, .run = 3, .pairs = true};
    const bool wide = narrow && xn_random_below(random, 3) == 0;
    const int32_t x_max = wild ? 1 << 30 : wide ? 400000 : 2000;

    if (wide)
        widen_scale(random, s);
    s->rows.kind = wide ? XN_CPU_ROWS_NUMBERS : (enum xn_cpu_rows_kind)xn_random_below(random, 3);
    s->rows.dtype = s->rows.kind == XN_CPU_ROWS_NUMBERS ? types[xn_random_below(random, 4)] : XN_DTYPE_I32;
    if (narrow) {
        const int64_t reach = s->rows.dtype == XN_DTYPE_I32 ? x_max : 32768; /* of what `packed` is filled with */
        assert_int_equal(xn_cpu_narrow(&plan, &s->chain, s->rows.kind, s->rows.dtype, -reach, reach, &conv), 0);
        if (!s->chain.narrow) {
            while (plan.blobs)
                plan.blobs = xn_cpu_blob_free(plan.blobs);
            free(s);
            return false;
        }
    }
    const size_t element = s->rows.dtype == XN_DTYPE_I32 ? 4 : s->rows.dtype == XN_DTYPE_I16 ? 2 : 1;
    const bool is_sums = element == 4; /* whole chunks lie behind each other; else rows are packed */
    s->rows.pitch_bytes = is_sums ? s->chain.row_pitch * 4 : s->c * element;
    for (uint32_t i = 0; i < XN_ARRAY_LEN(sums); i++)
        sums[i] = s->rows.kind == XN_CPU_ROWS_NUMBERS ? (int32_t)xn_random_between(random, -x_max, x_max)
                                                      : (int32_t)xn_random_below(random, 432);
    reorder(kernels, s, sums, ordered);
    struct guarded packed = guarded_new(s->rows.n * s->c * element);
    struct guarded want = guarded_new(s->arena_bytes), got = guarded_new(s->arena_bytes);
    fill(random, packed.data, packed.bytes);
    xn_random_bytes(random, want.data, s->arena_bytes);
    prepare_arena(s, want.data);
    memcpy(got.data, want.data, s->arena_bytes);
    run_epilogue(s, portable->epilogue, is_sums ? (const uint8_t *)sums : packed.data, element, want.data);
    run_epilogue(s, narrow ? kernels->narrow : kernels->epilogue, is_sums ? (const uint8_t *)ordered : packed.data,
                 element, got.data);
    decode_arena(s, kernels, got.data);
    compare(&want, &got, narrow ? "narrow epilogue" : "epilogue");
    guarded_free(&packed);
    while (plan.blobs)
        plan.blobs = xn_cpu_blob_free(plan.blobs);
    free(s);
    return true;
}

static void epilogues(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    uint32_t ran = 0;
    for (uint32_t round = 0; round < 6 * ROUNDS; round++)
        check_epilogue(kernels, &random, false);
    for (uint32_t round = 0; kernels->narrow && round < 20 * ROUNDS; round++)
        ran += check_epilogue(kernels, &random, true);
    assert_true(!kernels->narrow || ran > 4 * ROUNDS); /* the rest could not be narrow */
}

/** Every int16 through RPReLU in 16-bit lanes, 64 channels of random parameters, those at the limits among them. */
static void check_rprelu(const struct xn_cpu_kernels *kernels, struct xn_random *random)
{
    static const int32_t limits[] = {INT16_MIN + 1, -1, 0, 1, INT16_MAX};
    static struct parameters p;
    static int16_t x[XN_CPU_TILE_MAX][XN_CPU_CHUNK], out[2][XN_CPU_TILE_MAX][XN_CPU_CHUNK];
    const uint32_t c = xn_random_below(random, 2) ? XN_CPU_CHUNK : 1 + xn_random_below(random, XN_CPU_CHUNK);
    struct xn_cpu_plan plan = {.kernels = kernels};
    struct xn_cpu_chain chain = {
        .c = c,
        .n_stages = 2,
        .row_pitch = XN_CPU_CHUNK,
        .stages = {{.op = XN_CPU_STAGE_RPRELU, .min = INT16_MIN, .max = INT16_MAX, .m = p.a, .b32 = p.b, .k = p.k},
                   {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I16}}};
    const struct xn_cpu_rows rows = {.kind = XN_CPU_ROWS_NUMBERS,
                                     .dtype = XN_DTYPE_I16,
                                     .data = x,
                                     .pitch_bytes = sizeof(x[0]),
                                     .n = XN_CPU_TILE_MAX,
                                     .w = XN_CPU_TILE_MAX,
                                     .c = c};

    for (uint32_t i = 0; i < c; i++) {
        p.a[i] = xn_random_below(random, 2) ? limits[xn_random_below(random, XN_ARRAY_LEN(limits))]
                                            : (int32_t)xn_random_between(random, INT16_MIN + 1, INT16_MAX);
        p.b[i] = (int32_t)xn_random_between(random, XN_MAX(INT16_MIN - p.a[i], INT16_MIN),
                                            XN_MIN(INT16_MAX - p.a[i], INT16_MAX));
        p.k[i] = (int32_t)xn_random_below(random, 16);
    }
    assert_int_equal(xn_cpu_narrow(&plan, &chain, rows.kind, rows.dtype, INT16_MIN, INT16_MAX, NULL), 0);
    assert_true(chain.narrow);
    for (int32_t first = INT16_MIN; first <= INT16_MAX; first += (int32_t)XN_CPU_TILE_MAX) {
        for (uint32_t i = 0; i < XN_CPU_TILE_MAX * XN_CPU_CHUNK; i++)
            x[i / XN_CPU_CHUNK][i % XN_CPU_CHUNK] = (int16_t)(first + (int32_t)(i / XN_CPU_CHUNK));
        portable->epilogue(&chain, &rows, (uint8_t *)out[0]);
        CALL(kernels->narrow, P(&chain), P(&rows), P(out[1]));
        assert_memory_equal(out[1], out[0], sizeof(out[0]));
    }
    while (plan.blobs)
        plan.blobs = xn_cpu_blob_free(plan.blobs);
}

static void rprelus(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; kernels->narrow && round < 4; round++)
        check_rprelu(kernels, &random);
}

/** A convolution with the chain behind it in one kernel, against sums and chain one after the other. */
static bool check_fused(const struct xn_cpu_kernels *kernels, struct xn_random *random)
{
    static int32_t acc[XN_CPU_TILE_MAX * XN_CPU_CHUNK];
    const enum chain_kind kind = (enum chain_kind)(CHAIN_BITS + xn_random_below(random, 3));
    struct scene *s = random_scene(random, kind, false, XN_CPU_CHUNK * (1 + xn_random_below(random, 3)));
    struct operands o;
    struct xn_cpu_plan plan = {.kernels = kernels};

    do
        o = random_operands(kernels, XN_CPU_CONV_BITS, random);
    while (o.oc != XN_CPU_CHUNK && (operands_done(&o), true));
    const struct xn_cpu_conv conv = {
        .bias = s->p.bias, .bias_rows = CLASSES, .rows = o.tile.rows, .run = o.tile.run, .pairs = true};
    s->rows.n = o.tile.n;
    s->rows.first = xn_random_below(random, s->pixels - s->rows.n + 1);
    s->rows.y = s->rows.first / s->w;
    s->rows.x = s->rows.first % s->w;
    for (uint32_t p = 0; p < s->rows.n; p++)
        s->class_row[p] = xn_random_below(random, CLASSES);
    s->rows.kind = XN_CPU_ROWS_PAIRS;
    s->rows.dtype = XN_DTYPE_I32;
    assert_int_equal(xn_cpu_narrow(&plan, &s->chain, s->rows.kind, s->rows.dtype, -2000, 2000, &conv), 0);
    const bool fused = s->chain.fused != XN_CPU_FUSED_NONE;
    if (fused) {
        struct xn_cpu_fused args;
        struct guarded want = guarded_new(s->arena_bytes), got = guarded_new(s->arena_bytes);
        const uint32_t chunk = xn_random_below(random, s->c / XN_CPU_CHUNK);
        xn_random_bytes(random, want.data, s->arena_bytes);
        prepare_arena(s, want.data);
        memcpy(got.data, want.data, s->arena_bytes);
        o.tile.init = o.init;
        o.tile.acc = acc;
        kernels->conv[XN_CPU_CONV_BITS]->run(&o.tile);
        s->rows.c0 = chunk * XN_CPU_CHUNK;
        s->rows.c = XN_CPU_CHUNK;
        s->rows.data = acc;
        s->rows.pitch_bytes = XN_CPU_CHUNK * 4;
        kernels->narrow(&s->chain, &s->rows, want.data); /* which the other test holds against the portable level */
        kernels->fuse(&args, &s->chain, s->rows.c0, got.data);
        o.tile.fused = &args;
        o.tile.class_row = s->class_row;
        o.tile.stream_offset = (size_t)s->rows.first * s->c * 2;
        for (uint32_t p = 0; p < o.tile.n; p++)
            for (uint32_t k = 0; k < s->chain.n_stages; k++)
                if (s->chain.stages[k].op == XN_CPU_STAGE_BITS)
                    o.tile.spots[p] =
                        (s->rows.first + p) / s->w * s->chain.stages[k].bits.pitch + (s->rows.first + p) % s->w;
        CALL(args.run[o.tile.n - 1], P(&o.tile));
        compare(&want, &got, "fused");
    }
    operands_done(&o);
    while (plan.blobs)
        plan.blobs = xn_cpu_blob_free(plan.blobs);
    free(s);
    return fused;
}

static void fused(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    uint32_t ran = 0;
    for (uint32_t round = 0; kernels->fuse && round < 10 * ROUNDS; round++)
        ran += check_fused(kernels, &random);
    assert_true(!kernels->fuse || ran > 3 * ROUNDS);
}

/* ---- maps ------------------------------------------------------------------------------------------------------------- */

/** Plain words of a level's map, in place. */
static void recode(const struct xn_cpu_kernels *kernels, void *map, size_t bytes)
{
    for (size_t i = 0; kernels->bits->encoded && i < bytes / 8; i++)
        ((uint64_t *)map)[i] = xn_bits_encode(((uint64_t *)map)[i]);
}

static struct xn_cpu_pool random_pool(struct xn_random *random)
{
    static const enum xn_dtype types[] = {XN_DTYPE_BITS, XN_DTYPE_U8, XN_DTYPE_I8, XN_DTYPE_I16};
    const uint32_t side = 1 + xn_random_below(random, 9), c = 1 + xn_random_below(random, 150);
    const uint32_t kernel = 1 + xn_random_below(random, XN_MIN(side, 7)), pad = xn_random_below(random, kernel);
    struct xn_cpu_pool pool = {
        .dtype = types[xn_random_below(random, 4)],
        .in_h = side,
        .in_w = side,
        .c = c,
        .in_pitch = side + xn_random_below(random, 2),
        .kernel_h = kernel,
        .kernel_w = kernel,
        .pad_top = pad,
        .pad_left = pad,
        .stride_h = 1 + xn_random_below(random, 3),
        .stride_w = 1 + xn_random_below(random, 3),
        .multiplier = 1 + (int32_t)xn_random_below(random, xn_random_below(random, 2) ? 65536 : 4),
        .shift = xn_random_below(random, xn_random_below(random, 2) ? 31 : 6),
    };
    pool.out_h = (side + pad - kernel) / pool.stride_h + 1;
    pool.out_w = (side + pad - kernel) / pool.stride_w + 1;
    pool.out_pitch = pool.out_w + xn_random_below(random, 2);
    pool.y0 = xn_random_below(random, pool.out_h);
    pool.y1 = pool.y0 + xn_random_below(random, pool.out_h - pool.y0 + 1);
    return pool;
}

static void check_pool(const struct xn_cpu_kernels *kernels, struct xn_random *random, bool max)
{
    struct xn_cpu_pool pool = random_pool(random);
    pool.out_dtype = max ? pool.dtype : xn_random_below(random, 2) ? XN_DTYPE_I16 : XN_DTYPE_I32;
    const size_t out_pixels = (size_t)pool.out_h * pool.out_pitch;
    const size_t out_bytes = value_bytes(pool.out_dtype, out_pixels, pool.c);
    struct guarded in = guarded_new(value_bytes(pool.dtype, (size_t)pool.in_h * pool.in_pitch, pool.c));
    struct guarded want = guarded_new(out_bytes), got = guarded_new(out_bytes);
    struct guarded want_counts = guarded_new(out_pixels * 4), got_counts = guarded_new(out_pixels * 4);
    const bool counts = xn_random_below(random, 2);

    fill(random, in.data, in.bytes);
    pool.in = in.data;
    pool.out = want.data;
    pool.counts = counts ? (int32_t *)(void *)want_counts.data : NULL;
    (max ? portable->max_pool : portable->average_pool)(&pool);
    pool.out = got.data;
    pool.counts = counts ? (int32_t *)(void *)got_counts.data : NULL;
    if (pool.dtype == XN_DTYPE_BITS)
        recode(kernels, in.data, in.bytes);
    if (pool.out_dtype == XN_DTYPE_BITS) /* what is not written must compare equal too */
        recode(kernels, got.data, out_bytes);
    CALL(max ? kernels->max_pool : kernels->average_pool, P(&pool));
    if (pool.out_dtype == XN_DTYPE_BITS)
        recode(kernels, got.data, out_bytes);
    compare(&want, &got, max ? "max pool" : "average pool");
    compare(&want_counts, &got_counts, "counts of a max pool");
    guarded_free(&in);
}

static void pools(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; round < 4 * ROUNDS; round++)
        check_pool(kernels, &random, round % 2);
}

static void copying(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};

    for (uint32_t round = 0; round < 5 * ROUNDS; round++) {
        const size_t n = 1 + xn_random_below(&random, 300), first = xn_random_below(&random, 70);
        const enum xn_dtype dtype = round % 2 ? XN_DTYPE_U8 : XN_DTYPE_I8;
        const bool bits = round % 5 == 0, narrow = round % 5 > 2;
        struct guarded in = guarded_new(bits ? xn_div_up(first + n, 64) * 8 : n);
        struct guarded want = guarded_new(narrow ? n : 2 * n), got = guarded_new(narrow ? n : 2 * n);
        fill(&random, in.data, in.bytes);
        if (bits) {
            portable->widen_bits((int16_t *)(void *)want.data, (const uint64_t *)(void *)in.data, first, n);
            CALL(kernels->widen_bits, P(got.data), P(in.data), first, n);
        } else if (narrow) {
            portable->offset(want.data, in.data, dtype, n);
            CALL(kernels->offset, P(got.data), P(in.data), dtype, n);
        } else {
            portable->widen((int16_t *)(void *)want.data, in.data, dtype, n);
            CALL(kernels->widen, P(got.data), P(in.data), dtype, n);
        }
        compare(&want, &got, "copying");
        guarded_free(&in);
    }
}

static void pair_counts(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    uint64_t words[40];

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const size_t n = xn_random_below(&random, XN_ARRAY_LEN(words) + 1);
        fill(&random, words, sizeof(words));
        const uint32_t want = portable->count_pairs(words, n);
        recode(kernels, words, sizeof(words));
        assert_int_equal(kernels->count_pairs(words, n), want);
    }
}

static void check_slices(const struct xn_cpu_kernels *kernels, struct xn_random *random)
{
    struct xn_cpu_slices s = {
        .rows = 1 + xn_random_below(random, 7),
        .run = 1 + xn_random_below(random, 7),
        .words = 1 + xn_random_below(random, 5),
    };
    if (xn_random_below(random, 2))
        s.rows = s.run = 3;
    const uint32_t pixels = 1 + xn_random_below(random, 20), taps = s.rows * s.run;
    s.n = pixels * s.words;
    s.row_words = s.n + s.run * s.words;
    const size_t weights = (size_t)s.words * taps * XN_CPU_SLICE_WORDS * 8;
    const size_t limits = (size_t)s.words * (XN_CPU_SLICE_PLANES + 1) * XN_CPU_SLICE_WORDS * 8;
    struct guarded in = guarded_new(s.rows * s.row_words * 8 + XN_CPU_MAP_TAIL), w = guarded_new(weights),
                   l = guarded_new(limits);
    struct guarded out[2] = {guarded_new(s.n * 8), guarded_new(s.n * 8)};
    struct guarded counts[2] = {guarded_new(pixels * 4), guarded_new(pixels * 4)};

    fill(random, in.data, in.bytes);
    fill(random, w.data, w.bytes);
    fill(random, l.data, l.bytes);
    s.weights = (const uint64_t *)(void *)w.data;
    s.limits = (const uint64_t *)(void *)l.data;
    s.in = (const uint64_t *)(void *)in.data;
    for (uint32_t k = 0; k < 2; k++) {
        s.out = (uint64_t *)(void *)out[k].data;
        memset(counts[k].data, 0, counts[k].bytes);
        s.counts = taps % 2 ? (int32_t *)(void *)counts[k].data : NULL;
        if (k == 0) {
            portable->depthwise_sliced(&s);
            recode(kernels, in.data, in.bytes);
        } else {
            CALL(kernels->depthwise_sliced, P(&s));
            recode(kernels, out[k].data, out[k].bytes);
        }
    }
    compare(&out[0], &out[1], "sliced depthwise");
    compare(&counts[0], &counts[1], "counts of a sliced depthwise");
    guarded_free(&in);
    guarded_free(&w);
    guarded_free(&l);
}

static void slices(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; round < 3 * ROUNDS; round++)
        check_slices(kernels, &random);
}

static void check_start(const struct xn_cpu_kernels *kernels, struct xn_random *random)
{
    static int32_t counts[9 * 400];
    static uint8_t classes[128];
    struct xn_cpu_pairs row = {
        .counts = counts,
        .pitch = 200 + xn_random_below(random, 200),
        .rows = 1 + xn_random_below(random, 7),
        .columns = 1 + xn_random_below(random, 7),
        .stride = 1 + xn_random_below(random, 2),
        .n = 1 + xn_random_below(random, 60),
        .class = xn_random_below(random, 40),
        .column_class = classes,
    };
    struct guarded init[2] = {guarded_new(row.n * 4), guarded_new(row.n * 4)};
    struct guarded rows[2] = {guarded_new(row.n * 4), guarded_new(row.n * 4)};

    for (size_t i = 0; i < XN_ARRAY_LEN(counts); i++)
        counts[i] = (int32_t)xn_random_below(random, 5000);
    for (size_t i = 0; i < XN_ARRAY_LEN(classes); i++)
        classes[i] = (uint8_t)xn_random_below(random, 30);
    for (int i = 0; i < 2; i++) {
        row.init = (int32_t *)(void *)init[i].data;
        row.class_row = (uint32_t *)(void *)rows[i].data;
        CALL(i ? kernels->start_pairs : portable->start_pairs, P(&row));
    }
    compare(&init[0], &init[1], "starts of pairs");
    compare(&rows[0], &rows[1], "classes of pairs");
}

static void starts(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; round < 3 * ROUNDS; round++)
        check_start(kernels, &random);
}

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct {
        const char *what;
        CMUnitTestFunction function;
    } checks[] = {{"convolutions", convolutions},
                  {"bytes", bytes},
                  {"epilogues", epilogues},
                  {"rprelus", rprelus},
                  {"fused", fused},
                  {"pools", pools},
                  {"copying", copying},
                  {"pair_counts", pair_counts},
                  {"slices", slices},
                  {"starts", starts}};
    static struct CMUnitTest tests[1 + 8 * XN_ARRAY_LEN(checks)];
    static size_t levels[8];
    size_t n = 0;

    seed = xn_random_seed(1);
    portable = xn_cpu_level_at(0);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(portable_counts_bits);
    /* The portable level too: its tiles of several pixels against its single pixels. */
    for (size_t i = 0; i < xn_cpu_levels(); i++)
        for (size_t k = 0; k < XN_ARRAY_LEN(checks); k++) {
            char *name = NULL; /* lives as long as the program */
            levels[i] = i;
            if (asprintf(&name, "%s [%s]", checks[k].what, xn_cpu_level_at(i)->level) < 0)
                abort();
            tests[n++] =
                (struct CMUnitTest){.name = name, .test_func = checks[k].function, .initial_state = &levels[i]};
        }
    return _cmocka_run_group_tests("CPU kernels agree at every level", tests, n, NULL, NULL);
}
