/* SPDX-License-Identifier: Apache-2.0
 * The definition of the engine's programs (accel/engine/run.c): sums and maxima of random windows against plain loops over
 * [h][w][c] arrays, post lanes, layouts and errors against values computed by hand. LOGITS with ML = 1 shows sums as they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hls/include/xnor_sim.h"
#include "tests/support/random_network.h"

#define SIDE_MAX       7u
#define C_MAX          80u
#define KERNEL_MAX     4u
#define STREAM_MAX     (1u << 20)
#define PASSES_MAX     8u
#define AT(a, y, x, c) ((a)->data[((y) * (a)->w + (x)) * (a)->c + (c)])

static const struct xn_isa_geometry geometry = {
    .p = 2, .pi = 1, .pr = 2, .am_rows = 1024, .rm_rows = 512, .wb_words = 256};

/** [h][w][c] */
struct array {
    uint32_t h, w, c;
    int32_t data[SIDE_MAX * SIDE_MAX * C_MAX];
};

/** A program in the making. */
struct program {
    struct xn_isa_descriptor d[PASSES_MAX];
    uint32_t n;
    uint8_t stream[STREAM_MAX];
    size_t stream_bytes;
    uint8_t input[SIDE_MAX * SIDE_MAX * C_MAX];
    uint32_t input_bytes;
    int32_t output[2 * SIDE_MAX * SIDE_MAX * C_MAX];
    struct xn_isa_status status;
    struct xn_sim *sim;
};

static struct program *begin(void)
{
    const char *why = NULL;
    struct program *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    p->sim = xn_sim_open(&geometry, &why);
    assert_non_null(p->sim);
    return p;
}

static void end(struct program *p)
{
    xn_sim_close(p->sim);
    free(p);
}

static int run(struct program *p, uint32_t images, uint32_t output_words)
{
    struct xn_sim_job job = {.program = p->d,
                             .program_count = p->n + 1,
                             .stream = p->stream,
                             .stream_bytes = p->stream_bytes,
                             .input = p->input,
                             .input_bytes = p->input_bytes,
                             .images = images,
                             .output_words = output_words,
                             .output = p->output};
    return xn_sim_run(p->sim, &job, &p->status);
}

/* ---- passes ---------------------------------------------------------------------------------------------------------- */

/** INPUT of `h` x `w` x `c` bytes to row 0. */
static void add_input(struct program *p, uint32_t h, uint32_t w, uint32_t c)
{
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_INPUT,
                                              .height = h,
                                              .out_w = w,
                                              .channels = c,
                                              .stride_w = c,
                                              .input_row_bytes = w * c,
                                              .dest_pitch = 2 * ((c + 15) / 16)};
    p->input_bytes = h * w * c;
}

/** A pass whose post parameters are `lane` for every channel and whose weight words are all `weight`. */
static void add_uniform(struct program *p, struct xn_isa_descriptor d, struct xn_isa_lane lane, uint64_t weight)
{
    p->d[p->n++] = d;
    for (uint32_t group = 0; group < (d.channels + 15) / 16; group++) {
        for (uint32_t l = 0; l < 16; l++, p->stream_bytes += sizeof(lane))
            memcpy(p->stream + p->stream_bytes, &lane, sizeof(lane));
        for (uint32_t i = 0; i < 16 * d.kernel_h * d.kernel_w * d.words; i++, p->stream_bytes += 8)
            memcpy(p->stream + p->stream_bytes, &weight, sizeof(weight));
    }
}

/** VECTOR of one pixel to one: what `flags` make of every element of the map at `base`, in the type `source`. */
static struct xn_isa_descriptor pointwise(uint32_t source, uint32_t h, uint32_t w, uint32_t c, uint32_t base,
                                          uint32_t pitch, uint32_t flags)
{
    return (struct xn_isa_descriptor){.op = XN_ISA_VECTOR,
                                      .flags = flags,
                                      .source = source,
                                      .height = h,
                                      .width = w,
                                      .base = base,
                                      .pitch = pitch,
                                      .words = 1,
                                      .kernel_h = 1,
                                      .kernel_w = 1,
                                      .stride_h = 1,
                                      .stride_w = 1,
                                      .out_h = h,
                                      .out_w = w,
                                      .channels = c,
                                      .chunk = 1};
}

/* ---- sums of random windows -------------------------------------------------------------------------------------------- */

struct trial {
    struct xn_random random;
    struct program *p;
    struct xn_isa_descriptor d;
    struct array x;
    int8_t w[C_MAX][KERNEL_MAX][KERNEL_MAX][C_MAX]; /**< [output][ky][kx][input]; VECTOR: input 0 */
};

/** A map of the type that `source` says, at d.base, and the same in t->x. Bits and int16 are made of the input by a pass. */
static void make_source(struct trial *t, uint32_t source)
{
    struct program *p = t->p;
    struct array *x = &t->x;
    uint32_t h = x->h, w = x->w, c = x->c, groups = (c + 15) / 16;

    add_input(p, h, w, c);
    xn_random_bytes(&t->random, p->input, p->input_bytes);
    for (uint32_t i = 0; i < p->input_bytes; i++)
        x->data[i] = source == XN_ISA_U8     ? p->input[i]
                     : source == XN_ISA_BITS ? ((int8_t)p->input[i] >= 5 ? 1 : -1)
                     : source == XN_ISA_I16  ? (int8_t)p->input[i] * -127
                                             : (int8_t)p->input[i];
    t->d.source = source;
    t->d.pitch = 2 * groups;
    if (source == XN_ISA_BITS) {
        struct xn_isa_descriptor d = pointwise(XN_ISA_I8, h, w, c, 0, 2 * groups, XN_ISA_SIGN);
        t->d.base = d.dest_base = 600;
        t->d.pitch = d.dest_pitch = (c + 63) / 64;
        add_uniform(p, d, (struct xn_isa_lane){.t = 5}, 1);
    } else if (source == XN_ISA_I16) {
        struct xn_isa_descriptor d = pointwise(XN_ISA_I8, h, w, c, 0, 2 * groups, XN_ISA_STORE);
        t->d.base = d.stream_base = 7;
        t->d.pitch = d.stream_pitch = groups;
        add_uniform(p, d, (struct xn_isa_lane){0}, (uint8_t)-127);
    }
}

/** The pass under test, its weights packed from t->w, to LOGITS. */
static void add_window(struct trial *t)
{
    struct xn_isa_descriptor *d = &t->d;
    struct program *p = t->p;
    struct xn_isa_lane lane = {.t = 1};
    uint32_t a_word = d->op == XN_ISA_BINARY ? 64 : d->op == XN_ISA_INT8 ? 8 : 1;

    p->d[p->n++] = *d;
    for (uint32_t group = 0; group < (d->channels + 15) / 16; group++) {
        for (uint32_t l = 0; l < 16; l++, p->stream_bytes += sizeof(lane))
            memcpy(p->stream + p->stream_bytes, &lane, sizeof(lane));
        for (uint32_t step = 0; xn_isa_has_weights(d) && step < d->kernel_h * d->kernel_w * d->words; step++) {
            uint32_t tap = step / d->words, ky = tap / d->kernel_w, kx = tap % d->kernel_w;
            for (uint32_t l = 0; l < 16; l++, p->stream_bytes += 8) {
                for (uint32_t i = 0; i < a_word; i++) {
                    uint32_t oc = group * 16 + l, c = step % d->words * a_word + i;
                    int8_t w = oc < d->channels && c < C_MAX ? t->w[oc][ky][kx][c] : 0;
                    if (a_word == 64)
                        p->stream[p->stream_bytes + i / 8] |= (uint8_t)((w > 0) << i % 8);
                    else
                        p->stream[p->stream_bytes + i] = (uint8_t)w;
                }
            }
        }
    }
}

/** One output by plain loops. */
static int32_t plain(const struct trial *t, uint32_t oy, uint32_t ox, uint32_t oc)
{
    const struct xn_isa_descriptor *d = &t->d;
    bool is_vector = d->op == XN_ISA_VECTOR, is_max = d->flags & XN_ISA_MAX, ones = d->flags & XN_ISA_ONES;
    int32_t v = is_max ? -32768 : 0;

    for (uint32_t ky = 0; ky < d->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < d->kernel_w; kx++) {
            int32_t y = (int32_t)(oy * d->stride_h + ky) - (int32_t)d->pad_top;
            int32_t x = (int32_t)(ox * d->stride_w + kx) - (int32_t)d->pad_left;
            bool outside = y < 0 || x < 0 || y >= (int32_t)t->x.h || x >= (int32_t)t->x.w;
            for (uint32_t c = is_vector ? oc : 0; c < (is_vector ? oc + 1 : t->x.c); c++) {
                int32_t e =
                    outside ? (d->flags & XN_ISA_PAD_MINUS_ONE ? -1 : 0) : AT(&t->x, (uint32_t)y, (uint32_t)x, c);
                if (!is_max)
                    v += e * (ones ? 1 : t->w[oc][ky][kx][is_vector ? 0 : c]);
                else if (!outside && e > v)
                    v = e;
            }
        }
    }
    return v;
}

static void draw_window(struct trial *t, uint32_t op)
{
    struct xn_isa_descriptor *d = &t->d;
    struct xn_random *r = &t->random;

    d->op = op;
    d->height = t->x.h;
    d->width = t->x.w;
    d->kernel_h = 1 + xn_random_below(r, XN_MIN(KERNEL_MAX, t->x.h));
    d->kernel_w = 1 + xn_random_below(r, XN_MIN(KERNEL_MAX, t->x.w));
    d->stride_h = 1 + xn_random_below(r, 3);
    d->stride_w = 1 + xn_random_below(r, 3);
    d->pad_top = xn_random_below(r, d->kernel_h);
    d->pad_left = xn_random_below(r, d->kernel_w);
    d->out_h = (t->x.h + d->pad_top - d->kernel_h) / d->stride_h + 1;
    d->out_w = (t->x.w + d->pad_left - d->kernel_w) / d->stride_w + 1;
    d->flags = XN_ISA_LOGITS;
    d->words = op == XN_ISA_BINARY ? (t->x.c + 63) / 64 : op == XN_ISA_INT8 ? (t->x.c + 7) / 8 : 1;
    d->channels = op == XN_ISA_VECTOR ? t->x.c : 1 + xn_random_below(r, 40);
    d->channels_in = op == XN_ISA_BINARY ? t->x.c : 0;
    d->chunk = d->kernel_h * d->kernel_w * d->words;
}

static void check_window(uint64_t seed, uint32_t op, uint32_t source)
{
    struct trial *t = calloc(1, sizeof(*t));
    assert_non_null(t);
    t->random.state = seed;
    t->p = begin();
    t->x.h = 1 + xn_random_below(&t->random, SIDE_MAX);
    t->x.w = 1 + xn_random_below(&t->random, SIDE_MAX);
    t->x.c = 1 + xn_random_below(&t->random, C_MAX);
    make_source(t, source);
    draw_window(t, op);
    if (op == XN_ISA_VECTOR)
        t->d.flags |= seed % 3 == 0 ? XN_ISA_MAX : seed % 3 == 1 ? XN_ISA_ONES : 0;
    if (op == XN_ISA_BINARY && seed % 2)
        t->d.flags |= XN_ISA_PAD_MINUS_ONE;
    for (uint32_t i = 0; i < sizeof(t->w); i++) {
        int8_t w = (int8_t)xn_random_next(&t->random);
        ((int8_t *)t->w)[i] = op != XN_ISA_BINARY ? w : w >= 0 ? 1 : -1;
    }
    for (uint32_t oc = 0; oc < t->d.channels && op != XN_ISA_VECTOR;
         oc++) /* channels that are not there have weight 0 */
        for (uint32_t tap = 0; tap < KERNEL_MAX * KERNEL_MAX; tap++)
            memset(&t->w[oc][tap / KERNEL_MAX][tap % KERNEL_MAX][t->x.c], 0, C_MAX - t->x.c);
    add_window(t);
    assert_int_equal(run(t->p, 1, t->d.out_h * t->d.out_w * t->d.channels), 0);
    assert_int_equal(t->p->status.error, XN_ISA_OK);
    for (uint32_t y = 0, i = 0; y < t->d.out_h; y++)
        for (uint32_t x = 0; x < t->d.out_w; x++)
            for (uint32_t c = 0; c < t->d.channels; c++, i++)
                if (t->p->output[i] != plain(t, y, x, c))
                    fail_msg("op %u source %u seed %llu: (%u, %u, %u) is %d, not %d", op, source,
                             (unsigned long long)seed, y, x, c, t->p->output[i], plain(t, y, x, c));
    end(t->p);
    free(t);
}

static void test_windows(void **state)
{
    (void)state;
    uint64_t seed = xn_random_seed(1);

    for (uint32_t i = 0; i < 30; i++, seed++) {
        check_window(seed, XN_ISA_BINARY, XN_ISA_BITS);
        for (uint32_t source = XN_ISA_BITS; source <= XN_ISA_I16; source++) {
            if (source != XN_ISA_I16)
                check_window(seed, XN_ISA_INT8, source);
            check_window(seed, XN_ISA_VECTOR, source);
        }
    }
}

/* ---- post lanes -------------------------------------------------------------------------------------------------------- */

/** What `flags` make of `v` (an int8), with a residual of 100 * v. */
static int32_t post(int8_t v, uint32_t flags, struct xn_isa_lane lane, uint32_t shift)
{
    struct program *p = begin();
    struct xn_isa_descriptor d = pointwise(XN_ISA_I8, 1, 1, 1, 0, 2, XN_ISA_STORE);

    add_input(p, 1, 1, 1);
    p->input[0] = (uint8_t)v;
    d.stream_pitch = 1;
    add_uniform(p, d, (struct xn_isa_lane){0}, 100); /* RM row 0: 100 * v */
    d = pointwise(XN_ISA_I8, 1, 1, 1, 0, 2, flags);
    d.shift = shift;
    d.residual_pitch = d.stream_pitch = d.dest_pitch = 2;
    d.stream_base = 1;
    d.dest_base = 100;
    add_uniform(p, d, lane, 1);
    assert_int_equal(run(p, 1, 1), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    int16_t stream[16];
    xn_sim_rm(p->sim, 1, 0, stream);
    int32_t got = flags & (XN_ISA_SIGN | XN_ISA_QUANTIZE) ? (int32_t)xn_sim_am(p->sim, 100, 0)
                  : flags & XN_ISA_LOGITS                 ? p->output[0]
                                                          : stream[0];
    end(p);
    return got;
}
#define LANE(...) ((struct xn_isa_lane){__VA_ARGS__})

static void test_scale(void **state)
{
    (void)state;
    assert_int_equal(post(7, XN_ISA_SCALE | XN_ISA_LOGITS, LANE(.m1 = 3, .b1 = 4, .t = 1), 0), 25);
    assert_int_equal(post(7, XN_ISA_SCALE | XN_ISA_LOGITS, LANE(.m1 = 1, .b1 = 3, .t = 1), 2), 3); /* 2.5: ties up */
    assert_int_equal(post(-7, XN_ISA_SCALE | XN_ISA_LOGITS, LANE(.m1 = 1, .b1 = -3, .t = 1), 2),
                     -2); /* -2.5: ties up */
    assert_int_equal(post(-7, XN_ISA_SCALE | XN_ISA_LOGITS, LANE(.m1 = 1, .b1 = -4, .t = 1), 2), -3); /* -2.75 */
    assert_int_equal(post(-128, XN_ISA_SCALE | XN_ISA_LOGITS, LANE(.m1 = -131072, .b1 = INT64_C(1) << 46, .t = 1), 30),
                     65536);
}

static void test_residual_and_saturation(void **state)
{
    (void)state;
    assert_int_equal(post(7, XN_ISA_RESIDUAL | XN_ISA_STORE, LANE(0), 0), 707);
    assert_int_equal(post(7, XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_STORE, LANE(.m1 = 100000), 0),
                     32767);
    assert_int_equal(post(-7, XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_STORE, LANE(.m1 = 100000), 0),
                     -32768);
    /* the residual is added before the clamp: 33000 - 700 */
    assert_int_equal(post(-7, XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_STORE, LANE(.b1 = 33000), 0),
                     32300);
    /* 40 bits wide before it */
    assert_int_equal(post(1, XN_ISA_SCALE | XN_ISA_SATURATE | XN_ISA_STORE, LANE(.b1 = INT64_C(1) << 40), 0), 32767);
}

static void test_rprelu(void **state)
{
    (void)state;
    assert_int_equal(post(10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.a = -3, .d = 100, .k = 2), 0), 107);
    assert_int_equal(post(10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.a = -15, .d = 100, .k = 2), 0),
                     98); /* -5 >> 2 = -2 */
    assert_int_equal(post(10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.a = 32767, .d = 0, .k = 2), 0), 32767);
    assert_int_equal(post(10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.a = 32767, .d = -20, .k = 2), 0),
                     32757); /* one clamp, at the end */
    assert_int_equal(post(-10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.a = -32768, .d = -32768, .k = 0), 0), -32768);
    assert_int_equal(post(-10, XN_ISA_RPRELU | XN_ISA_STORE, LANE(.k = 15), 0), -1);
}

static void test_destinations(void **state)
{
    (void)state;
    assert_int_equal(post(5, XN_ISA_SIGN, LANE(.t = 5), 0), 1);
    assert_int_equal(post(4, XN_ISA_SIGN, LANE(.t = 5), 0), 0);
    assert_int_equal(post(-5, XN_ISA_SIGN, LANE(.t = INT32_MIN), 0), 1);
    assert_int_equal(post(100, XN_ISA_QUANTIZE, LANE(.m2 = 5, .b2 = 1), 2 << 8), 125);
    assert_int_equal(post(100, XN_ISA_QUANTIZE, LANE(.m2 = 5, .b2 = 100), 2 << 8), 127);
    assert_int_equal(post(-100, XN_ISA_QUANTIZE, LANE(.m2 = 5, .b2 = -100), 2 << 8), 0x80);
    assert_int_equal(post(100, XN_ISA_QUANTIZE | XN_ISA_UNSIGNED, LANE(.m2 = 5, .b2 = 400), 2 << 8), 225);
    assert_int_equal(post(100, XN_ISA_QUANTIZE | XN_ISA_UNSIGNED, LANE(.m2 = 500), 2 << 8), 255);
    assert_int_equal(post(-1, XN_ISA_QUANTIZE | XN_ISA_UNSIGNED, LANE(.m2 = 1), 0), 0);
    assert_int_equal(post(-7, XN_ISA_LOGITS, LANE(.t = 1000000, .b2 = 5), 0), -6999995);
}

/* ---- layouts ----------------------------------------------------------------------------------------------------------- */

static void test_input(void **state)
{
    (void)state;
    struct program *p = begin();
    /* three channels, taps of three pixels with stride 2 and padding 1 packed: 9 bytes a pixel */
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_INPUT,
                                              .height = 2,
                                              .out_w = 5,
                                              .channels = 9,
                                              .stride_w = 6,
                                              .pad_left = 3,
                                              .input_row_bytes = 27,
                                              .dest_base = 10,
                                              .dest_pitch = 2};
    p->input_bytes = 54;
    for (uint32_t i = 0; i < 54; i++)
        p->input[i] = (uint8_t)(i + 1);
    assert_int_equal(run(p, 1, 0), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    assert_int_equal(xn_sim_am(p->sim, 10, 0), 0x0504030201000000);
    assert_int_equal(xn_sim_am(p->sim, 11, 0), 0x06);
    assert_int_equal(xn_sim_am(p->sim, 10, 1), 0x0b0a090807060504);
    assert_int_equal(xn_sim_am(p->sim, 12, 0),
                     0x00001b1a19181716); /* pixel 4 of row 0; three bytes lie behind the row */
    assert_int_equal(xn_sim_am(p->sim, 14, 0), 0x201f1e1d1c000000); /* pixel 0 of row 1 */
    end(p);
}

/** Groups of bits and bytes of a map of 2 x 6, side by side; P = 2: four banks, two of them wide. */
static void test_groups(void **state)
{
    (void)state;
    struct program *p = begin();
    add_input(p, 2, 6, 20);
    for (uint32_t i = 0; i < p->input_bytes; i++)
        p->input[i] = (uint8_t)(i % 20);
    struct xn_isa_descriptor d = pointwise(XN_ISA_U8, 2, 6, 20, 0, 4, XN_ISA_SIGN | XN_ISA_STORE);
    d.dest_base = 500;
    d.dest_pitch = 2;
    d.stream_base = 300 + 1; /* second group of three */
    d.stream_pitch = 3;
    add_uniform(p, d, LANE(.t = 10), 1);
    d.flags = XN_ISA_SIGN;
    d.dest_group = 2;
    add_uniform(p, d, LANE(.t = 19), 1);
    d.flags = XN_ISA_QUANTIZE;
    d.dest_group = 1;
    d.dest_base = 600;
    d.dest_pitch = 6;
    add_uniform(p, d, LANE(.m2 = 1), 1);
    assert_int_equal(run(p, 1, 0), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    /* pixel (1, 5): bank 5 mod 4, row base + (1 * 2 + 1) * pitch */
    assert_int_equal(xn_sim_am(p->sim, 506, 1), UINT64_C(0x0008) << 48 | UINT64_C(0x0000) << 32 | 0x000ffc00);
    assert_int_equal(xn_sim_am(p->sim, 507, 1), 0);
    assert_int_equal(xn_sim_am(p->sim, 618, 1), 0);
    assert_int_equal(xn_sim_am(p->sim, 620, 1), 0x0706050403020100);
    assert_int_equal(xn_sim_am(p->sim, 622, 1), 0x13121110);
    assert_int_equal(xn_sim_am(p->sim, 623, 1), 0);
    int16_t v[16];
    xn_sim_rm(p->sim, 301 + (1 * 3 + 2) * 3 + 1, 1, v); /* RM has PR = 2 banks: three rows of words a row of pixels */
    for (int l = 0; l < 16; l++)
        assert_int_equal(v[l], l < 4 ? 16 + l : 0);
    end(p);
}

static void test_largest_of_bits(void **state)
{
    (void)state;
    struct program *p = begin();
    add_input(p, 3, 3, 3);
    p->input[(0 * 3 + 0) * 3 + 0] = p->input[(2 * 3 + 1) * 3 + 1] = p->input[(1 * 3 + 2) * 3 + 2] = 1;
    struct xn_isa_descriptor d = pointwise(XN_ISA_U8, 3, 3, 3, 0, 2, XN_ISA_SIGN);
    d.dest_base = 500;
    d.dest_pitch = 1;
    add_uniform(p, d, LANE(.t = 1), 1);
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_LARGEST,
                                              .height = 3,
                                              .width = 3,
                                              .base = 500,
                                              .pitch = 1,
                                              .words = 1,
                                              .kernel_h = 2,
                                              .kernel_w = 2,
                                              .stride_h = 2,
                                              .stride_w = 2,
                                              .pad_left = 1,
                                              .out_h = 2,
                                              .out_w = 2,
                                              .channels = 3,
                                              .dest_base = 600,
                                              .dest_pitch = 2,
                                              .dest_group = 4};
    assert_int_equal(run(p, 1, 0), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    assert_int_equal(xn_sim_am(p->sim, 601, 0), 1);
    assert_int_equal(xn_sim_am(p->sim, 601, 1), 4);
    assert_int_equal(xn_sim_am(p->sim, 603, 0), 0);
    assert_int_equal(xn_sim_am(p->sim, 603, 1), 2);
    end(p);
}

/** Of bytes: 2x2 over a map of one row of three pixels and two channels; the last window has one tap. */
static void check_largest_of_bytes(enum xn_isa_source source, uint64_t first, uint64_t second)
{
    struct program *p = begin();

    add_input(p, 1, 3, 2);
    memcpy(p->input, (const uint8_t[]){200, 1, 100, 2, 7, 0xff}, 6);
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_LARGEST,
                                              .source = source,
                                              .height = 1,
                                              .width = 3,
                                              .pitch = 2,
                                              .words = 1,
                                              .kernel_h = 2,
                                              .kernel_w = 2,
                                              .stride_h = 2,
                                              .stride_w = 2,
                                              .pad_top = 1,
                                              .out_h = 1,
                                              .out_w = 2,
                                              .channels = 2,
                                              .dest_base = 600,
                                              .dest_pitch = 2,
                                              .dest_group = 4};
    assert_int_equal(run(p, 1, 0), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    assert_int_equal(xn_sim_am(p->sim, 601, 0), first);
    assert_int_equal(xn_sim_am(p->sim, 601, 1), second);
    end(p);
}

static void test_largest_of_bytes(void **state)
{
    (void)state;
    check_largest_of_bytes(XN_ISA_U8, 2 << 8 | 200, 0xff << 8 | 7);
    check_largest_of_bytes(XN_ISA_I8, 2 << 8 | 100, 0xff << 8 | 7);
}

/* ---- turns --------------------------------------------------------------------------------------------------------------- */

/** Images of one byte, in turns of two: each into its column, then both to logits at once. */
static void test_turns(void **state)
{
    (void)state;
    struct program *p = begin();
    struct xn_isa_descriptor d = pointwise(XN_ISA_U8, 1, 2, 1, 0, 2, XN_ISA_LOGITS | XN_ISA_BATCH);

    add_input(p, 1, 1, 1);
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_LARGEST,
                                              .flags = XN_ISA_BATCH,
                                              .source = XN_ISA_U8,
                                              .height = 1,
                                              .width = 1,
                                              .pitch = 2,
                                              .words = 2,
                                              .kernel_h = 1,
                                              .kernel_w = 1,
                                              .stride_h = 1,
                                              .stride_w = 1,
                                              .out_h = 1,
                                              .out_w = 1,
                                              .channels = 1,
                                              .dest_base = 600,
                                              .dest_pitch = 2,
                                              .dest_width = 2,
                                              .dest_step = 1};
    p->d[p->n++] = (struct xn_isa_descriptor){.op = XN_ISA_TURN, .out_w = 2};
    d.base = 600;
    add_uniform(p, d, LANE(.t = 3), 1);
    memcpy(p->input, (const uint8_t[]){5, 6, 7}, 3);
    p->output[3] = -1;
    assert_int_equal(run(p, 3, 1), 0);
    assert_int_equal(p->status.error, XN_ISA_OK);
    assert_int_equal(p->status.image, 3);
    assert_int_equal(p->output[0], 15);
    assert_int_equal(p->output[1], 18);
    assert_int_equal(p->output[2], 21); /* the last turn has one image, and writes no more */
    assert_int_equal(p->output[3], -1);
    assert_int_equal(run(p, 3, 2), 0); /* not an image's whole output a pixel */
    assert_int_equal(p->status.error, XN_ISA_ERROR_OUTPUT);
    assert_int_equal(p->status.descriptor, 3);
    assert_int_equal(p->status.image, 1);
    p->d[2].out_w = 3; /* the third image has no column */
    assert_int_equal(run(p, 3, 1), 0);
    assert_int_equal(p->status.error, XN_ISA_ERROR_DEST);
    assert_int_equal(p->status.descriptor, 1);
    assert_int_equal(p->status.image, 2);
    p->d[2].out_w = 0;
    assert_int_equal(run(p, 1, 1), 0);
    assert_int_equal(p->status.error, XN_ISA_ERROR_SHAPE);
    end(p);
}

/* ---- how runs end -------------------------------------------------------------------------------------------------------- */

static void test_ends(void **state)
{
    (void)state;
    struct program *p = begin();
    struct xn_isa_descriptor d = pointwise(XN_ISA_U8, 1, 1, 1, 0, 2, XN_ISA_LOGITS);

    add_input(p, 1, 1, 1);
    add_uniform(p, d, LANE(.t = 3), 1);
    p->input[0] = 5;
    p->input[1] = 6;
    assert_int_equal(run(p, 2, 1), 0);
    assert_int_equal(p->status.image, 2);
    assert_int_equal(p->output[0], 15);
    assert_int_equal(p->output[1], 18);
    assert_int_equal(run(p, 2, 0), 0);
    assert_int_equal(p->status.error, XN_ISA_ERROR_OUTPUT);
    assert_int_equal(p->status.descriptor, 1);
    assert_int_equal(p->status.image, 0);
    p->stream_bytes--;
    assert_int_equal(run(p, 1, 1), -1);
    p->stream_bytes++;
    p->d[1].source = 9;
    assert_int_equal(run(p, 1, 1), 0);
    assert_int_equal(p->status.error, XN_ISA_ERROR_OP);
    p->n = 0; /* INPUT takes the place of END */
    assert_int_equal(run(p, 1, 1), -1);
    end(p);
}

static void test_unending_program(void **state)
{
    (void)state;
    struct program *p = begin();
    struct xn_isa_descriptor *d = calloc(XN_ISA_DESCRIPTORS_MAX + 1, sizeof(*d));
    struct xn_sim_job job = {
        .program = d, .program_count = XN_ISA_DESCRIPTORS_MAX + 1, .input = p->input, .input_bytes = 1, .images = 1};

    assert_non_null(d);
    add_input(p, 1, 1, 1);
    for (uint32_t i = 0; i < XN_ISA_DESCRIPTORS_MAX; i++)
        d[i] = p->d[0];
    assert_int_equal(xn_sim_run(p->sim, &job, &p->status), 0);
    assert_int_equal(p->status.error, XN_ISA_ERROR_LENGTH);
    free(d);
    end(p);
}

static void test_geometries(void **state)
{
    (void)state;
    static const struct xn_isa_geometry wrong[] = {{3, 1, 1, 9, 9, 9}, {32, 1, 1, 9, 9, 9}, {0, 0, 0, 9, 9, 9},
                                                   {4, 8, 1, 9, 9, 9}, {4, 1, 3, 9, 9, 9},  {4, 1, 1, 0, 9, 9},
                                                   {4, 1, 1, 9, 0, 9}, {4, 1, 1, 9, 9, 0},  {4, 1, 1, -1u, 9, 9}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *why = NULL;
        assert_null(xn_sim_open(&wrong[i], &why));
        assert_non_null(why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_residual_and_saturation),
        cmocka_unit_test(test_rprelu),
        cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_largest_of_bits),
        cmocka_unit_test(test_largest_of_bytes),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_unending_program),
        cmocka_unit_test(test_geometries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
