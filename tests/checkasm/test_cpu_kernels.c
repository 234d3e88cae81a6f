/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of every level against the portable one, on random and extreme operands of random shapes. Outputs lie between
 * guards, start as garbage and must come out the same to the last byte that the kernel owns. $XN_SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/cpu/kernels.h"
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

/* ---- convolutions ----------------------------------------------------------------------------------------------------- */

static size_t weight_bytes(enum xn_cpu_conv_kind kind)
{
    static const size_t bytes[XN_CPU_CONV_KINDS] = {XN_CPU_OCTET * 8, XN_CPU_OCTET * 4, 8, 2};
    return bytes[kind];
}

/** int16 operands as layers have them: pixels of 9 bits at most, weights of 8. */
static void narrow(int16_t *v, size_t n, int16_t low, int16_t high)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (int16_t)(v[i] < low ? low + (v[i] & 63) : v[i] > high ? high - (v[i] & 63) : v[i]);
}

/** The tile `n` pixels wide by the portable kernel, one pixel at a time. */
static void run_portable(enum xn_cpu_conv_kind kind, const struct xn_cpu_tile *tile, int32_t *acc)
{
    for (uint32_t p = 0; p < tile->n; p++) {
        struct xn_cpu_tile one = *tile;
        one.n = 1;
        one.pixels[0] = tile->pixels[p];
        one.acc = acc + p * tile->acc_pitch;
        portable->conv[kind].one(&one);
    }
}

static void check_conv(const struct xn_cpu_kernels *kernels, enum xn_cpu_conv_kind kind, struct xn_random *random,
                       bool many)
{
    const bool words = kind == XN_CPU_CONV_BITS || kind == XN_CPU_CONV_DW_BITS;
    const bool depthwise = kind == XN_CPU_CONV_DW_BITS || kind == XN_CPU_CONV_DW_I16;
    const size_t lanes = kind == XN_CPU_CONV_DW_BITS ? 64 : kind == XN_CPU_CONV_DW_I16 ? 1 : XN_CPU_OCTET;
    struct xn_cpu_tile tile = {
        .n = many ? kernels->conv[kind].tile : 1,
        .rows = 1 + xn_random_below(random, 7),
        .run = 1 + xn_random_below(random, depthwise                    ? 7
                                           : xn_random_below(random, 4) ? 12
                                                                        : 90),
        .blocks = 1 + xn_random_below(random, kind == XN_CPU_CONV_DW_I16 ? 150 : 5),
    };
    const size_t unit = (words ? 8 : depthwise ? 2 : 4) * (depthwise ? tile.blocks : 1);
    const size_t n_weights = (size_t)tile.rows * tile.run * tile.blocks * weight_bytes(kind);
    const size_t step = unit * xn_random_below(random, 3);

    tile.row_bytes = tile.run * unit + step * tile.n;
    tile.acc_pitch = tile.blocks * lanes;
    const size_t map_bytes = tile.rows * tile.row_bytes;
    struct guarded map = guarded_new(map_bytes), weights = guarded_new(n_weights);
    struct guarded want = guarded_new(tile.n * tile.acc_pitch * 4), got = guarded_new(tile.n * tile.acc_pitch * 4);
    fill(random, map.data, map_bytes);
    fill(random, weights.data, n_weights);
    if (!words) {
        narrow((int16_t *)(void *)map.data, map_bytes / 2, -128, 255);
        narrow((int16_t *)(void *)weights.data, n_weights / 2, -128, 127);
    }
    for (uint32_t p = 0; p < tile.n; p++)
        tile.pixels[p] = map.data + p * step;
    tile.weights = weights.data;
    run_portable(kind, &tile, (int32_t *)(void *)want.data);
    tile.acc = (int32_t *)(void *)got.data;
    (many ? kernels->conv[kind].many : kernels->conv[kind].one)(&tile);
    compare(&want, &got, "convolution");
    guarded_free(&map);
    guarded_free(&weights);
}

static void convolutions(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (int kind = 0; kind < XN_CPU_CONV_KINDS; kind++)
        for (uint32_t round = 0; round < ROUNDS; round++)
            check_conv(kernels, (enum xn_cpu_conv_kind)kind, &random, round % 2);
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
        .pixels = {map}, .n = 1, .rows = 1, .run = 40, .blocks = 1, .weights = weights, .acc = acc, .acc_pitch = 8};
    portable->conv[XN_CPU_CONV_BITS].one(&tile);
    for (uint32_t lane = 0; lane < 8; lane++) {
        int32_t count = 0;
        for (uint32_t k = 0; k < 40; k++)
            for (uint64_t x = map[k] ^ weights[8 * k + lane]; x; x &= x - 1)
                count++;
        assert_int_equal(acc[lane], count);
    }
}

/* ---- epilogue --------------------------------------------------------------------------------------------------------- */

#define PIXELS 5u

/** Parameters of a chain: each array padded to whole chunks. */
struct parameters {
    int32_t m[256], b32[256], k[256], t[256];
    int64_t b64[256];
};

static void random_parameters(struct xn_random *random, struct parameters *p, uint32_t c)
{
    memset(p, 0, sizeof(*p));
    for (uint32_t i = 0; i < c; i++) {
        p->m[i] = (int32_t)xn_random_between(random, INT16_MIN, INT16_MAX);
        p->b32[i] = (int32_t)xn_random_between(random, INT16_MIN, INT16_MAX);
        p->b64[i] = xn_random_between(random, -(INT64_C(1) << 46), (INT64_C(1) << 46) + (1 << 29));
        p->k[i] = (int32_t)xn_random_below(random, 16);
        p->t[i] = xn_random_below(random, 8) ? (int32_t)xn_random_between(random, -40000, 40000)
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

/** All stages, each with an output of its own; the residual lies at 0 of the arena. Returns the arena's size. */
static size_t random_chain(struct xn_random *random, struct xn_cpu_chain *chain, const struct parameters *p, uint32_t c,
                           bool wide)
{
    const struct xn_cpu_stage all[] = {
        {.op = wide ? XN_CPU_STAGE_SCALE_64 : XN_CPU_STAGE_SCALE,
         .min = INT16_MIN,
         .max = INT16_MAX,
         .m = p->m,
         .b32 = p->b32,
         .b64 = p->b64,
         .shift = xn_random_below(random, 31),
         .residual = xn_random_below(random, 2)},
        {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I16},
        {.op = XN_CPU_STAGE_BITS, .dtype = XN_DTYPE_BITS, .m = p->t},
        {.op = XN_CPU_STAGE_ADD, .min = INT16_MIN, .max = INT16_MAX},
        {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I32},
        {.op = XN_CPU_STAGE_RPRELU, .min = INT16_MIN, .max = INT16_MAX, .m = p->m, .b32 = p->b32, .k = p->k},
        {.op = XN_CPU_STAGE_BITS, .dtype = XN_DTYPE_BITS, .m = p->t},
        {.op = XN_CPU_STAGE_SCALE, .min = 0, .max = 255, .m = p->k, .b32 = p->b32, .b64 = p->b64, .shift = 6},
        {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_U8},
        {.op = XN_CPU_STAGE_STORE, .dtype = XN_DTYPE_I8},
    };
    size_t end = xn_align_up(value_bytes(XN_DTYPE_I16, PIXELS, c), 64);

    *chain = (struct xn_cpu_chain){.c = c, .n_stages = XN_ARRAY_LEN(all)};
    for (size_t i = 0; i < XN_ARRAY_LEN(all); i++) {
        chain->stages[i] = all[i];
        if (!all[i].dtype)
            continue;
        chain->stages[i].out_offset = end;
        end = xn_align_up(end + value_bytes(all[i].dtype, PIXELS, c), 64);
    }
    return end;
}

static void check_epilogue(const struct xn_cpu_kernels *kernels, struct xn_random *random)
{
    static const enum xn_dtype types[] = {XN_DTYPE_U8, XN_DTYPE_I8, XN_DTYPE_I16, XN_DTYPE_I32};
    static struct parameters p;
    static int32_t bias[256];
    const uint32_t c = 1 + xn_random_below(random, 200);
    const bool popcounts = xn_random_below(random, 2), wide = xn_random_below(random, 2);
    const enum xn_dtype dtype = popcounts ? XN_DTYPE_I32 : types[xn_random_below(random, 4)];
    const size_t element = dtype == XN_DTYPE_I32 ? 4 : dtype == XN_DTYPE_I16 ? 2 : 1;
    struct xn_cpu_chain chain;

    random_parameters(random, &p, c);
    const size_t bytes = random_chain(random, &chain, &p, c, wide);
    struct guarded rows = guarded_new(PIXELS * c * element), want = guarded_new(bytes), got = guarded_new(bytes);
    xn_random_bytes(random, rows.data, rows.bytes);
    for (uint32_t i = 0; element == 4 && i < PIXELS * c; i++) /* what the narrow scale is proven for */
        ((int32_t *)(void *)rows.data)[i] %= wide ? 1 << 30 : 1 << 14;
    for (uint32_t i = 0; i < c; i++)
        bias[i] = (int32_t)xn_random_below(random, 5000);
    xn_random_bytes(random, want.data, bytes);
    memcpy(got.data, want.data, bytes);
    struct xn_cpu_rows from = {
        .popcounts = popcounts, .dtype = dtype, .data = rows.data, .pitch_bytes = c * element, .n = PIXELS};
    for (uint32_t i = 0; i < PIXELS; i++)
        from.bias[i] = bias;
    portable->epilogue(&chain, &from, want.data);
    kernels->epilogue(&chain, &from, got.data);
    compare(&want, &got, "epilogue");
    guarded_free(&rows);
}

static void epilogues(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; round < 4 * ROUNDS; round++)
        check_epilogue(kernels, &random);
}

/* ---- maps ------------------------------------------------------------------------------------------------------------- */

static void check_pool(const struct xn_cpu_kernels *kernels, struct xn_random *random, bool max)
{
    static const enum xn_dtype types[] = {XN_DTYPE_BITS, XN_DTYPE_U8, XN_DTYPE_I8, XN_DTYPE_I16};
    const uint32_t side = 1 + xn_random_below(random, 9), c = 1 + xn_random_below(random, 150);
    const uint32_t kernel = 1 + xn_random_below(random, XN_MIN(side, 7)), pad = xn_random_below(random, kernel);
    struct xn_cpu_pool pool = {
        .dtype = types[xn_random_below(random, 4)],
        .in_h = side,
        .in_w = side,
        .c = c,
        .kernel_h = kernel,
        .kernel_w = kernel,
        .pad_top = pad,
        .pad_left = pad,
        .stride_h = 1 + xn_random_below(random, 3),
        .stride_w = 1 + xn_random_below(random, 3),
        .multiplier = 1 + (int32_t)xn_random_below(random, 65536),
        .shift = xn_random_below(random, 31),
    };
    pool.out_h = (side + pad - kernel) / pool.stride_h + 1;
    pool.out_w = (side + pad - kernel) / pool.stride_w + 1;
    pool.out_dtype = max ? pool.dtype : xn_random_below(random, 2) ? XN_DTYPE_I16 : XN_DTYPE_I32;
    const size_t out_bytes = value_bytes(pool.out_dtype, (size_t)pool.out_h * pool.out_w, c);
    struct guarded in = guarded_new(value_bytes(pool.dtype, (size_t)side * side, c));
    struct guarded sums = guarded_new(xn_align_up(c, 64) * 4), want = guarded_new(out_bytes),
                   got = guarded_new(out_bytes);
    fill(random, in.data, in.bytes);
    pool.in = in.data;
    pool.sums = (int32_t *)(void *)sums.data;
    pool.out = want.data;
    (max ? portable->max_pool : portable->average_pool)(&pool);
    pool.out = got.data;
    (max ? kernels->max_pool : kernels->average_pool)(&pool);
    compare(&want, &got, max ? "max pool" : "average pool");
    guarded_free(&sums);
    guarded_free(&in);
}

static void pools(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};
    for (uint32_t round = 0; round < 2 * ROUNDS; round++)
        check_pool(kernels, &random, round % 2);
}

static void widening(void **state)
{
    const struct xn_cpu_kernels *kernels = level_or_skip(state);
    struct xn_random random = {seed};

    for (uint32_t round = 0; round < 3 * ROUNDS; round++) {
        const size_t n = 1 + xn_random_below(&random, 300), first = xn_random_below(&random, 70);
        struct guarded in = guarded_new(xn_div_up(first + n, 64) * 8);
        struct guarded want = guarded_new(2 * n), got = guarded_new(2 * n);
        fill(&random, in.data, in.bytes);
        int16_t *a = (int16_t *)(void *)want.data, *b = (int16_t *)(void *)got.data;
        if (round % 3 == 0) {
            portable->widen_bits(a, (const uint64_t *)(void *)in.data, first, n);
            kernels->widen_bits(b, (const uint64_t *)(void *)in.data, first, n);
        } else {
            const enum xn_dtype dtype = round % 3 == 1 ? XN_DTYPE_U8 : XN_DTYPE_I8;
            const size_t some = XN_MIN(n, in.bytes);
            portable->widen(a, in.data, dtype, some);
            kernels->widen(b, in.data, dtype, some);
        }
        compare(&want, &got, "widening");
        guarded_free(&in);
    }
}

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct {
        const char *what;
        CMUnitTestFunction function;
    } checks[] = {{"convolutions", convolutions}, {"epilogues", epilogues}, {"pools", pools}, {"widening", widening}};
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
