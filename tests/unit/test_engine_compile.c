/* SPDX-License-Identifier: Apache-2.0
 * Programs that the compiler makes give the reference interpreter's integers: on random networks and on those shipped, every value that
 * lies in memory after its pass, lane by lane, and the logits. $XN_SEED and $XN_NETWORKS choose which and how many. What the
 * engine has not is refused, and how much of it there may be is bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "common/fault.h"
#include "daemon/image/image.h"
#include "hls/include/xnor_sim.h"
#include "model/reference.h"
#include "tests/support/random_network.h"
#include "tests/support/xnor_writer.h"

#ifdef XN_FAULTS
#define NETWORKS     100u /* debug and sanitizer builds are slow */
#define PICTURE_STEP 8u   /* and one of so many pictures takes the paths of all */
#else
#define NETWORKS     300u
#define PICTURE_STEP 1u
#endif

static struct xn_isa_geometry geometry_of(const char *text)
{
    struct xn_isa_geometry g;
    struct xn_error error;
    if (xn_engine_geometry_parse(text, &g, &error) < 0)
        fail_msg("%s", error.text);
    return g;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static struct xn_engine_program *compile(const struct xn_network *network, const char *geometry)
{
    const struct xn_isa_geometry g = geometry_of(geometry);
    struct xn_engine_program *p;
    struct xn_error error;

    if (xn_engine_compile(network, &g, XN_ENGINE_TURN, &p, &error) < 0)
        fail_msg("%s", error.text);
    return p;
}

/* ---- running a program beside the reference ---------------------------------------------------------------------------- */

struct bed {
    const struct xn_network *network;
    const struct xn_engine_program *program;
    struct xn_reference *reference;
    struct xn_sim *sim;
    uint8_t *input;
    int32_t *want, *got;
    const char *name;
};

static void bed_init(struct bed *bed, const char *name, const struct xn_engine_program *program, uint32_t images)
{
    const struct xn_network *n = program->network;
    const char *why;

    *bed = (struct bed){.network = n, .program = program, .name = name};
    bed->sim = xn_sim_open(&program->geometry, &why);
    bed->input = malloc(images * n->input_bytes);
    bed->want = calloc((size_t)images * n->n_classes, sizeof(int32_t));
    bed->got = calloc((size_t)images * n->n_classes, sizeof(int32_t));
    assert_true(bed->sim && bed->input && bed->want && bed->got && xn_reference_new(n, &bed->reference) == 0);
}

static void bed_done(struct bed *bed)
{
    xn_reference_free(bed->reference);
    xn_sim_close(bed->sim);
    free(bed->input);
    free(bed->want);
    free(bed->got);
}

/** Lane `lane` of a place, as the memories have it now. */
static int32_t lane_at(const struct bed *bed, uint32_t v, uint32_t y, uint32_t x, uint32_t lane)
{
    const struct xn_engine_place *at = &bed->program->places[v];
    const struct xn_value *value = &bed->network->values[v];
    const uint32_t banks = at->memory == XN_PLACE_AM ? 2 * bed->program->geometry.p : bed->program->geometry.pr;
    const uint32_t row = at->base + (uint32_t)(y * xn_isa_ceil(at->width, banks) + x / banks) * at->pitch;
    const uint32_t i = at->group * XN_ISA_LANES + lane;

    if (at->memory == XN_PLACE_RM) {
        int16_t channels[XN_ISA_LANES];
        xn_sim_rm(bed->sim, row + i / XN_ISA_LANES, x % banks, channels);
        return channels[i % XN_ISA_LANES];
    }
    if (value->dtype == XN_DTYPE_BITS)
        return xn_sim_am(bed->sim, row + i / 64, x % banks) >> i % 64 & 1 ? 1 : -1;
    const uint8_t byte = (uint8_t)(xn_sim_am(bed->sim, row + i / 8, x % banks) >> i % 8 * 8);
    return value->dtype == XN_DTYPE_U8 ? byte : (int8_t)byte;
}

static void compare_value(const struct bed *bed, uint32_t v)
{
    const struct xn_engine_place *at = &bed->program->places[v];
    const struct xn_value *value = &bed->network->values[v];
    const int32_t *want = xn_reference_value(bed->reference, v);

    for (uint32_t y = 0; y < value->h; y++)
        for (uint32_t x = 0; x < value->w; x++)
            for (uint32_t lane = 0; lane < at->lanes; lane++) {
                const uint32_t c = at->channels ? at->channels[lane] : lane;
                const int32_t none = value->dtype == XN_DTYPE_BITS ? -1 : 0;
                const int32_t wanted = c == UINT32_MAX ? none : want[(y * value->w + x) * value->c + c];
                const int32_t got = lane_at(bed, v, y, x, lane);
                if (got != wanted)
                    fail_msg("%s: value %u (pass %u) at %u,%u lane %u: %d, reference %d", bed->name, v, at->made_by, y,
                             x, lane, got, wanted);
            }
}

/** `images` of bed->input to as many in bed->got. */
static void run(struct bed *bed, uint32_t images, const struct xn_isa_descriptor *descriptors, uint32_t n,
                const uint8_t *stream, size_t stream_bytes)
{
    struct xn_isa_status status;
    const struct xn_sim_job job = {.program = descriptors,
                                   .program_count = n,
                                   .stream = stream,
                                   .stream_bytes = stream_bytes,
                                   .input = bed->input,
                                   .input_bytes = bed->program->input_bytes,
                                   .images = images,
                                   .output_words = bed->program->output_words,
                                   .output = bed->got};
    if (xn_sim_run(bed->sim, &job, &status) < 0 || status.error)
        fail_msg("%s: the engine stopped with error %u at descriptor %u", bed->name, status.error, status.descriptor);
}

/** Pass after pass, with every value compared as soon as it is there. */
static void compare_passes(struct bed *bed)
{
    const struct xn_engine_program *p = bed->program;
    size_t at = 0;

    for (uint32_t i = 0; i + 1 < p->n; i++) {
        const struct xn_isa_descriptor one[2] = {p->descriptors[i], {.op = XN_ISA_END}};
        run(bed, 1, one, 2, p->stream + at, p->passes[i].stream_bytes);
        at += p->passes[i].stream_bytes;
        for (uint32_t v = 0; v < bed->network->n_values; v++)
            if (p->places[v].memory != XN_PLACE_NONE && p->places[v].made_by == i)
                compare_value(bed, v);
    }
    assert_int_equal(at, p->stream_bytes);
}

static void compare_logits(const struct bed *bed, uint32_t images)
{
    for (uint32_t k = 0; k < images * bed->network->n_classes; k++)
        if (bed->got[k] != bed->want[k])
            fail_msg("%s: image %u class %u: %d, reference %d", bed->name, k / bed->network->n_classes,
                     k % bed->network->n_classes, bed->got[k], bed->want[k]);
}

/** `images` random images through the whole program in one run, and the last one pass by pass. */
static void compare_images(const char *name, const struct xn_engine_program *p, uint64_t seed, uint32_t images)
{
    struct xn_random random = {seed};
    struct bed bed;

    bed_init(&bed, name, p, images);
    for (uint32_t i = 0; i < images; i++) {
        xn_random_bytes(&random, bed.input + (size_t)i * p->input_bytes, p->input_bytes);
        xn_reference_run(bed.reference, bed.input + (size_t)i * p->input_bytes, bed.want + (size_t)i * p->output_words);
    }
    run(&bed, images, p->descriptors, p->n, p->stream, p->stream_bytes);
    compare_logits(&bed, images);
    memmove(bed.input, bed.input + (size_t)(images - 1) * p->input_bytes, p->input_bytes);
    memmove(bed.want, bed.want + (size_t)(images - 1) * p->output_words, p->output_words * sizeof(*bed.want));
    compare_passes(&bed);
    compare_logits(&bed, 1);
    bed_done(&bed);
}

/* ---- random networks ---------------------------------------------------------------------------------------------------- */

static const char *const geometries[] = {"1T", "2T", "4T", "P1,PI1,PR1,AM100000,RM100000,WB512",
                                         "P16,PI2,PR8,AM100000,RM100000,WB1024"};

static const uint32_t turns[] = {1, 2, 5, XN_ENGINE_TURN};

static void test_random_networks(void **state)
{
    const uint64_t seed = xn_random_seed(20261129);
    const char *text = getenv("XN_NETWORKS");
    const uint64_t n = text ? strtoull(text, NULL, 0) : NETWORKS;
    uint64_t refused = 0, passes = 0;
    (void)state;

    for (uint64_t i = 0; i < n; i++) {
        struct xn_network *network = xn_random_network(seed + i);
        const struct xn_isa_geometry g = geometry_of(geometries[i % XN_ARRAY_LEN(geometries)]);
        struct xn_engine_program *p = NULL;
        struct xn_error error;
        char name[64];
        snprintf(name, sizeof(name), "network %" PRIu64, seed + i);
        const int r = xn_engine_compile(network, &g, turns[i % XN_ARRAY_LEN(turns)], &p, &error);
        if (r == -ENOTSUP || r == -ENOSPC) {
            refused++;
            print_message("# %s is refused: %s\n", name, error.text);
        } else if (r < 0) {
            fail_msg("%s: %s", name, error.text);
        } else {
            passes += p->n;
            compare_images(name, p, seed + i, 4);
        }
        xn_engine_program_free(p);
        xn_network_free(network);
    }
    print_message("# %" PRIu64 " of %" PRIu64 " networks refused, %" PRIu64 " passes compared\n", refused, n, passes);
    if (!text)
        assert_in_range(refused, 0, n / 10);
}

/** A program for `g`, made again for exactly the memory that it took; NULL: refused. */
static struct xn_engine_program *compile_tight(const struct xn_network *network, struct xn_isa_geometry g,
                                               uint32_t turn)
{
    struct xn_engine_program *p = NULL;
    struct xn_error error;

    for (uint32_t i = 0; i < 2; i++) {
        const int r = xn_engine_compile(network, &g, turn, &p, &error);
        if (i == 0 && (r == -ENOTSUP || r == -ENOSPC))
            return NULL;
        if (r < 0)
            fail_msg("%s", error.text);
        if (i > 0)
            break;
        g.am_rows = XN_MAX(p->am_rows_used, 1);
        g.rm_rows = XN_MAX(p->rm_rows_used, 1);
        xn_engine_program_free(p);
    }
    return p;
}

/** Any geometry, many too small: what is not refused runs, with not a row to spare. */
static void test_random_geometries(void **state)
{
    struct xn_random random = {xn_random_seed(20261130)};
    uint32_t fit = 0;
    (void)state;

    for (uint32_t i = 0; i < NETWORKS / 2; i++) {
        const uint64_t network_seed = xn_random_next(&random);
        struct xn_network *network = xn_random_network(network_seed);
        const uint32_t p_log2 = xn_random_below(&random, 5);
        const struct xn_isa_geometry g = {.p = 1u << p_log2,
                                          .pi = 1u << xn_random_below(&random, p_log2 + 1),
                                          .pr = 1u << xn_random_below(&random, p_log2 + 1),
                                          .am_rows = 1 + xn_random_below(&random, 1000),
                                          .rm_rows = 1 + xn_random_below(&random, 1000),
                                          .wb_words = 1 + xn_random_below(&random, 300)};
        struct xn_engine_program *p = compile_tight(network, g, turns[i % XN_ARRAY_LEN(turns)]);
        char name[64];
        snprintf(name, sizeof(name), "network %" PRIu64, network_seed);
        if (p) {
            compare_images(name, p, network_seed, 3);
            fit++;
        }
        xn_engine_program_free(p);
        xn_network_free(network);
    }
    print_message("# %u of %u fit\n", fit, NETWORKS / 2);
    assert_in_range(fit, NETWORKS / 8, NETWORKS / 2);
}

static void compile_and_compare(const char *name, struct xn_network *network, const char *geometry)
{
    struct xn_engine_program *p = compile(network, geometry);

    compare_images(name, p, 1, 2);
    xn_engine_program_free(p);
    xn_network_free(network);
}

static void test_known_shapes(void **state)
{
    (void)state;
    compile_and_compare("one pixel", xn_random_one_pixel(1), "1T");
    compile_and_compare("shortcuts", xn_random_shortcuts(1), "2T");
#ifndef XN_FAULTS /* for minutes the reference would run in debug and sanitizer builds */
    compile_and_compare("VGG-small", xn_random_vgg_small(1), "2T");
    compile_and_compare("ResNet-18 on CIFAR", xn_random_resnet18(1), "4T");
#endif
}

/** What the named geometries are made for fits them. */
static void test_named_geometries_hold_what_they_are_for(void **state)
{
    static const struct {
        struct xn_network *(*make)(uint64_t seed);
        const char *geometry;
    } fits[] = {
        {xn_random_vgg_small, "1T"},         {xn_random_resnet18, "1T"},  {xn_random_vgg_small, "2T"},
        {xn_random_resnet18, "2T"},          {xn_random_vgg_small, "4T"}, {xn_random_resnet18, "4T"},
        {xn_random_resnet18_imagenet, "4T"},
    };
    (void)state;

    for (size_t i = 0; i < XN_ARRAY_LEN(fits); i++) {
        struct xn_network *network = fits[i].make(1);
        struct xn_engine_program *p = compile(network, fits[i].geometry);
        uint64_t macs = 0;
        for (uint32_t k = 0; k < p->n; k++)
            macs += p->passes[k].macs;
        assert_int_equal(macs, network->binary_macs + network->int8_macs);
        print_message("# %s on %s: %u passes, %zu bytes of stream, AM %u of %u rows, RM %u of %u\n", network->name,
                      fits[i].geometry, p->n - 1, p->stream_bytes, p->am_rows_used, p->geometry.am_rows,
                      p->rm_rows_used, p->geometry.rm_rows);
        xn_engine_program_free(p);
        xn_network_free(network);
    }
}

/** The pictures shipped with the project, as a server would see them. */
static uint32_t compare_pictures(const char *name, const struct xn_engine_program *p, const glob_t *pictures)
{
    struct xn_image_decoder *decoder;
    struct bed bed;

    bed_init(&bed, name, p, 1);
    assert_int_equal(xn_image_decoder_new(1 << 20, &decoder), 0);
    for (size_t i = 0; i < pictures->gl_pathc; i += PICTURE_STEP) {
        static uint8_t bytes[1 << 16];
        FILE *file = fopen(pictures->gl_pathv[i], "rb");
        struct xn_error error;
        assert_non_null(file);
        const size_t n = fread(bytes, 1, sizeof(bytes), file);
        fclose(file);
        if (xn_image_decode(decoder, bytes, n, &p->network->input, bed.input, &error) < 0)
            fail_msg("%s: %s", pictures->gl_pathv[i], error.text);
        xn_reference_run(bed.reference, bed.input, bed.want);
        run(&bed, 1, p->descriptors, p->n, p->stream, p->stream_bytes);
        compare_logits(&bed, 1);
    }
    xn_image_decoder_free(decoder);
    bed_done(&bed);
    return (uint32_t)pictures->gl_pathc;
}

static void find(const char *pattern, glob_t *ret_found)
{
    const char *top = getenv("XN_ROOT");
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", top ? top : ".", pattern);
    if (glob(path, 0, NULL, ret_found) != 0)
        fail_msg("no %s", path);
}

static void test_shipped_networks(void **state)
{
    glob_t networks, pictures;
    (void)state;

    find("models/*/*.xnor", &networks);
    find("models/*/samples/*.png", &pictures);
    for (size_t i = 0; i < networks.gl_pathc; i++) {
        const char *name = networks.gl_pathv[i];
        struct xn_network *network;
        struct xn_error error;
        if (xn_network_load(name, &network, &error) < 0)
            fail_msg("%s", error.text);
        struct xn_engine_program *p = compile(network, geometries[i % 3]);
        compare_images(name, p, i, 2);
        assert_in_range(compare_pictures(name, p, &pictures), 1, 1000);
        xn_engine_program_free(p);
        xn_network_free(network);
    }
    globfree(&networks);
    globfree(&pictures);
}

/* ---- geometries ---------------------------------------------------------------------------------------------------------- */

static void test_geometry_text(void **state)
{
    char text[160];
    struct xn_isa_geometry g = geometry_of("P8,PI4,PR2,AM100,RM64,WB1024");
    (void)state;

    assert_int_equal(g.p, 8);
    assert_int_equal(g.pi, 4);
    assert_int_equal(g.pr, 2);
    assert_int_equal(g.am_rows, 100);
    assert_int_equal(g.rm_rows, 64);
    assert_int_equal(g.wb_words, 1024);
    xn_engine_geometry_print(&g, text, sizeof(text));
    assert_string_equal(text,
                        "P8 PE16 S64 PI4 PR2, AM 100 rows (12 KiB), RM 64 rows (4 KiB), WB 2 x 1024 words (256 KiB)");
    g = geometry_of("2T");
    assert_int_equal(g.p, 4);
}

static void test_geometry_is_checked(void **state)
{
    static const char *const wrong[] = {"",
                                        "3T",
                                        "P8",
                                        "P3,PI1,PR1,AM1,RM1,WB1",
                                        "P32,PI1,PR1,AM1,RM1,WB1",
                                        "P8,PI16,PR1,AM1,RM1,WB1",
                                        "P8,PI3,PR1,AM1,RM1,WB1",
                                        "P8,PI1,PR0,AM1,RM1,WB1",
                                        "P8,PI1,PR1,AM0,RM1,WB1",
                                        "P8,PI1,PR1,AM1,RM1,WB0",
                                        "P8,PI1,PR1,AM1,RM1,WB1,",
                                        "P8,PI1,PR1,AM1,RM1,WB1 ",
                                        "P8,PI1,PR1,AM-1,RM1,WB1",
                                        "P8,PI1,PR1,AM99999999999999999999,RM1,WB1",
                                        "P8,PR1,PI1,AM1,RM1,WB1"};
    (void)state;

    for (size_t i = 0; i < XN_ARRAY_LEN(wrong); i++) {
        struct xn_isa_geometry g;
        struct xn_error error;
        assert_int_equal(xn_engine_geometry_parse(wrong[i], &g, &error), -EINVAL);
        assert_contains(error.text, "geometry");
    }
}

/* ---- programs of networks made by hand ----------------------------------------------------------------------------------- */

static struct xn_network *load(struct xn_writer *writer)
{
    struct xn_network *network;
    struct xn_error error;
    size_t bytes;
    uint8_t *file = xn_writer_finish(writer, &bytes);

    if (xn_network_load_memory(file, bytes, &network, &error) < 0)
        fail_msg("%s", error.text);
    free(file);
    xn_writer_free(writer);
    return network;
}

/** Compiling ends with `code`, and the text says `part`. */
static void refuse(const struct xn_network *network, const char *geometry, int code, const char *part)
{
    const struct xn_isa_geometry g = geometry_of(geometry);
    struct xn_engine_program *p = NULL;
    struct xn_error error;

    assert_int_equal(xn_engine_compile(network, &g, XN_ENGINE_TURN, &p, &error), code);
    assert_null(p);
    assert_contains(error.text, part);
}

static const struct xn_writer_window same_3x3 = {3, 3, 1, 1, 1, 1, 1, 1, XN_PAD_ZERO};
static const struct xn_writer_window point = {1, 1, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
static int8_t signs[128 * 9 * 64]; /* random */
static const int32_t zeros[4096];

/** 8x8x64 bits of an input of bytes. */
static struct xn_writer *begin_bits(uint32_t *ret_bits)
{
    struct xn_writer *w = xn_writer_new(8, 8, 64, XN_DTYPE_I8);
    *ret_bits = xn_writer_threshold(w, 0, zeros);
    return w;
}

static uint32_t conv_64(struct xn_writer *w, uint32_t x)
{
    return xn_writer_conv(w, x, xn_writer_bits(w, 64, 576, signs), &same_3x3, 1);
}

static uint32_t to_stream(struct xn_writer *w, uint32_t x, uint32_t r)
{
    int16_t m[64];
    int64_t b[64];
    for (uint32_t i = 0; i < 64; i++) {
        m[i] = signs[i];
        b[i] = 100 * signs[64 + i];
    }
    return xn_writer_scale(w, x, r, m, b, 3, XN_DTYPE_I16);
}

static struct xn_network *end_with_pool(struct xn_writer *w, uint32_t x)
{
    xn_writer_logits(w, xn_writer_global_avgpool(w, x, 1, 0, XN_DTYPE_I32), zeros, zeros, 1.0f, 0.0f);
    return load(w);
}

static void test_shape_of_a_program(void **state)
{
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    const uint32_t stream = to_stream(w, conv_64(w, bits), XN_FORMAT_NONE);
    const uint32_t next = xn_writer_threshold(w, stream, zeros);
    const uint32_t sum = to_stream(w, conv_64(w, next), stream);
    struct xn_network *network = end_with_pool(w, sum);
    struct xn_engine_program *p = compile(network, "2T");
    const struct xn_isa_descriptor *d = p->descriptors;

    assert_int_equal(p->n, 6);
    assert_int_equal(d[0].op, XN_ISA_INPUT);
    assert_int_equal(d[1].op, XN_ISA_VECTOR);
    assert_int_equal(d[1].flags, XN_ISA_SIGN | XN_ISA_ONES);
    assert_int_equal(d[2].op, XN_ISA_BINARY);
    assert_int_equal(d[2].flags, XN_ISA_SCALE | XN_ISA_SATURATE | XN_ISA_STORE | XN_ISA_SIGN);
    assert_int_equal(d[2].channels_in, 64);
    assert_int_equal(d[2].chunk, 9);
    assert_int_equal(d[3].flags, XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_STORE);
    assert_int_equal(d[3].residual_base, d[3].stream_base); /* the sum takes the place of what it replaces */
    assert_int_equal(d[4].op, XN_ISA_VECTOR);
    assert_int_equal(d[4].source, XN_ISA_I16);
    assert_int_equal(d[4].flags, XN_ISA_LOGITS | XN_ISA_ONES);
    assert_int_equal(d[5].op, XN_ISA_END);
    assert_int_equal(p->passes[2].stream_bytes, 4 * (XN_ISA_POST_BYTES + 9 * XN_ISA_WEIGHT_BYTES));
    assert_int_equal(p->passes[2].macs, 64 * 576 * 64);
    assert_true(p->passes[2].binary);
    assert_int_equal(p->places[stream].memory, XN_PLACE_RM);
    assert_int_equal(p->places[stream].made_by, 2);
    assert_int_equal(p->places[next].memory, XN_PLACE_AM);
    assert_int_equal(p->places[next - 2].memory, XN_PLACE_NONE); /* sums */
    xn_engine_program_free(p);
    xn_network_free(network);
}

/** Two convolutions side by side, added to a stream: two passes, which take the stream's place together. */
static void test_a_concat_between_passes_is_nowhere(void **state)
{
    static int16_t m[128];
    static const int64_t b[128];
    static const uint8_t k[128];
    static int16_t a[128];
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    for (uint32_t i = 0; i < 128; i++)
        a[i] = m[i] = (int16_t)(i * 3 - 150); /* of each channel its own */
    const uint32_t filters = xn_writer_bits(w, 128, 576, signs);
    const uint32_t stream =
        xn_writer_scale(w, xn_writer_conv(w, bits, filters, &same_3x3, 1), XN_FORMAT_NONE, m, b, 3, XN_DTYPE_I16);
    const int8_t *half = signs + 999; /* of a convolution of 128 channels to 64 */
    const uint32_t next = xn_writer_threshold(w, stream, zeros);
    const uint32_t squeezed =
        xn_writer_threshold(w, xn_writer_conv(w, next, xn_writer_bits(w, 64, 128, half), &point, 1), zeros);
    const uint32_t left = to_stream(w, conv_64(w, squeezed), XN_FORMAT_NONE);
    const uint32_t right = to_stream(w, conv_64(w, squeezed), XN_FORMAT_NONE);
    const uint32_t both = xn_writer_concat(w, (const uint32_t[]){left, right}, 2);
    const uint32_t y = xn_writer_rprelu(w, xn_writer_add(w, stream, both), a, k, a);
    struct xn_network *network = end_with_pool(w, y);
    struct xn_engine_program *p = compile(network, "2T");
    const struct xn_isa_descriptor *d = p->descriptors;

    assert_int_equal(p->n, 8); /* input, threshold, four convolutions, pool, end */
    for (uint32_t i = 4; i < 6; i++) {
        assert_int_equal(d[i].op, XN_ISA_BINARY);
        assert_int_equal(d[i].flags, XN_ISA_SCALE | XN_ISA_RESIDUAL | XN_ISA_SATURATE | XN_ISA_RPRELU | XN_ISA_STORE);
        assert_int_equal(d[i].residual_base, d[2].stream_base + (i - 4) * 4);
        assert_int_equal(d[i].stream_base, d[i].residual_base);
        assert_int_equal(d[i].stream_pitch, 8);
    }
    assert_int_equal(p->places[both].memory, XN_PLACE_NONE);
    assert_int_equal(p->places[y].made_by, 5);
    compare_images("concat", p, 1, 2);
    xn_engine_program_free(p);
    xn_network_free(network);
}

/** The lanes add before they clamp: a clamp that may do something must not be left out. */
static void test_a_clamp_before_add_is_kept(void **state)
{
    int16_t m[64];
    const int64_t b[64] = {0};
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    for (uint32_t i = 0; i < 64; i++)
        m[i] = 32767;
    const uint32_t clamped = xn_writer_scale(w, conv_64(w, bits), XN_FORMAT_NONE, m, b, 3, XN_DTYPE_I16);
    const uint32_t sum = xn_writer_add(w, clamped, to_stream(w, conv_64(w, bits), XN_FORMAT_NONE));
    struct xn_network *network = end_with_pool(w, xn_writer_threshold(w, sum, zeros));
    struct xn_engine_program *p = compile(network, "2T");

    assert_int_equal(p->places[clamped].memory, XN_PLACE_RM);
    assert_int_equal(p->n, 8); /* the other convolution, whose clamp does nothing, adds it; the pool is a tail */
    compare_images("clamp", p, 1, 2);
    xn_engine_program_free(p);
    xn_network_free(network);
}

static void test_dead_layers_make_no_passes(void **state)
{
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    to_stream(w, conv_64(w, bits), XN_FORMAT_NONE);
    struct xn_network *network = end_with_pool(w, bits);
    struct xn_engine_program *p = compile(network, "1T");

    assert_int_equal(p->n, 6); /* input, threshold, copy, turn, pool, end */
    xn_engine_program_free(p);
    xn_network_free(network);
}

static void test_what_does_not_fit_is_named(void **state)
{
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    const uint32_t sums = conv_64(w, bits);
    xn_writer_name(w, "wide");
    const uint32_t stream = to_stream(w, sums, XN_FORMAT_NONE);
    xn_writer_name(w, "stream");
    struct xn_network *network = end_with_pool(w, stream);

    refuse(network, "P4,PI1,PR1,AM8,RM1000,WB64", -ENOSPC, "activation memory");
    refuse(network, "P4,PI1,PR1,AM1000,RM255,WB64", -ENOSPC,
           "\"stream\" (scale): its output does not fit the residual");
    refuse(network, "P4,PI1,PR1,AM1000,RM255,WB64", -ENOSPC, "256 rows (8 KiB) of 255");
    refuse(network, "P4,PI1,PR1,AM1000,RM1000,WB8", -ENOSPC, "\"wide\" (conv): its window takes 9 weight words");
    xn_engine_program_free(compile(network, "P4,PI1,PR1,AM72,RM256,WB64"));
    xn_network_free(network);
}

static void test_what_the_engine_has_not_is_named(void **state)
{
    struct xn_writer *w = xn_writer_new(2, 2, 3, XN_DTYPE_I8);
    (void)state;
    const uint32_t twice = xn_writer_concat(w, (const uint32_t[]){0, 0}, 2);
    xn_writer_name(w, "twice");
    xn_writer_logits(w, xn_writer_global_avgpool(w, twice, 1, 0, XN_DTYPE_I32), zeros, zeros, 1.0f, 0.0f);
    struct xn_network *network = load(w);
    refuse(network, "2T", -ENOTSUP, "different lanes");
    xn_network_free(network);

    w = xn_writer_new(1, 4096, 8, XN_DTYPE_I8);
    network = end_with_pool(w, 0);
    refuse(network, "2T", -ENOTSUP, "a row of the input has 32768 bytes");
    xn_network_free(network);
}

static void test_a_window_of_one_tile_comes_in_chunks(void **state)
{
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    const uint32_t z = xn_writer_dense(w, bits, xn_writer_bits(w, 5, 4096, signs));
    xn_writer_logits(w, z, zeros, zeros, 1.0f, 0.0f);
    struct xn_network *network = load(w);
    struct xn_engine_program *p = compile(network, "P1,PI1,PR1,AM1000,RM1,WB30");

    assert_int_equal(p->turn, 1); /* more tiles would need the whole window */
    assert_int_equal(p->descriptors[2].kernel_h * p->descriptors[2].kernel_w * p->descriptors[2].words, 64);
    assert_int_equal(p->descriptors[2].chunk, 22);
    compare_images("chunks", p, 1, 2);
    xn_engine_program_free(p);
    xn_network_free(network);
}

/** Fully connected layers: a turn's images beside one another, as many as the memories hold. */
static void test_a_tail(void **state)
{
    uint32_t bits;
    struct xn_writer *w = begin_bits(&bits);
    (void)state;
    const uint32_t first = xn_writer_dense(w, bits, xn_writer_bits(w, 16, 4096, signs));
    const uint32_t second = xn_writer_dense(w, xn_writer_threshold(w, first, zeros), xn_writer_bits(w, 5, 16, signs));
    xn_writer_logits(w, second, zeros, zeros, 1.0f, 0.0f);
    struct xn_network *network = load(w);
    static const struct {
        const char *geometry;
        uint32_t turn;
    } cases[] = {
        {"P2,PI1,PR1,AM10000,RM1,WB64", 64},
        {"P2,PI1,PR1,AM10000,RM1,WB63", 2}, /* one tile */
        {"P2,PI1,PR1,AM1000,RM1,WB64", 32}, /* 8 rows of 9 columns an image, and the head's two maps */
    };

    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        struct xn_engine_program *p = compile(network, cases[i].geometry);
        const struct xn_isa_descriptor *d = p->descriptors;
        assert_int_equal(p->turn, cases[i].turn);
        assert_int_equal(p->n, 7); /* input, threshold, copy, turn, two layers, end */
        assert_int_equal(d[2].op, XN_ISA_LARGEST);
        assert_int_equal(d[2].dest_step, 9);
        assert_int_equal(d[3].op, XN_ISA_TURN);
        assert_int_equal(d[3].out_w, p->turn);
        assert_int_equal(d[4].out_w, p->turn);
        assert_int_equal(d[4].stride_w, 9);
        compare_images("tail", p, 1, 2 * p->turn + 1);
        xn_engine_program_free(p);
    }
    xn_network_free(network);
}

/** A convolution in groups: passes that it takes, of which unit, and that they make what the reference does. */
static void check_groups(uint32_t c, uint32_t oc, uint32_t groups, bool bits, enum xn_pad pad, uint32_t passes,
                         enum xn_isa_op op)
{
    struct xn_random random = {7};
    struct xn_writer *w = xn_writer_new(5, 6, c, XN_DTYPE_I8);
    struct xn_writer_window window = same_3x3;
    int8_t *weights = malloc((size_t)oc * 9 * c);
    int16_t *m = malloc(oc * sizeof(*m));
    int64_t *b = calloc(oc, sizeof(*b));
    uint32_t n = 0;

    assert_true(weights && m && b);
    xn_random_bytes(&random, weights, (size_t)oc * 9 * c);
    for (uint32_t i = 0; i < oc; i++)
        m[i] = (int16_t)xn_random_between(&random, -99, 99);
    window.pad = pad;
    const uint32_t x = bits ? xn_writer_threshold(w, 0, zeros) : 0;
    const uint32_t t = bits ? xn_writer_bits(w, oc, 9 * (c / groups), weights)
                            : xn_writer_tensor(w, XN_DTYPE_I8, 4, (const uint32_t[]){oc, 3, 3, c / groups}, weights);
    const uint32_t sums = xn_writer_conv(w, x, t, &window, groups);
    const uint32_t r = xn_writer_scale(w, sums, XN_FORMAT_NONE, m, b, 6, XN_DTYPE_I16);
    const uint32_t y = xn_writer_scale(w, xn_writer_conv(w, x, t, &window, groups), r, m, b, 5, XN_DTYPE_I16);
    struct xn_network *network = end_with_pool(w, xn_writer_threshold(w, y, zeros));
    struct xn_engine_program *p = compile(network, "P4,PI2,PR2,AM300,RM1000,WB512");

    for (uint32_t i = 0; i < p->n; i++)
        n += p->passes[i].macs && p->descriptors[i].op == op;
    assert_int_equal(n, 2 * passes);
    compare_images("groups", p, random.state, 2);
    xn_engine_program_free(p);
    xn_network_free(network);
    free(weights);
    free(m);
    free(b);
}

static void test_groups(void **state)
{
    (void)state;
    check_groups(128, 64, 2, true, XN_PAD_ZERO, 2, XN_ISA_BINARY);
    check_groups(192, 48, 3, true, XN_PAD_MINUS_ONE, 3, XN_ISA_BINARY);
    check_groups(128, 32, 8, true, XN_PAD_ZERO, 2, XN_ISA_INT8);      /* runs of 4 groups */
    check_groups(128, 32, 8, true, XN_PAD_MINUS_ONE, 2, XN_ISA_INT8); /* with a border put into memory */
    check_groups(40, 80, 5, false, XN_PAD_ZERO, 5, XN_ISA_INT8);
    check_groups(24, 12, 3, false, XN_PAD_ZERO, 1, XN_ISA_INT8); /* 4 outputs a group: all together */
    check_groups(64, 64, 64, true, XN_PAD_MINUS_ONE, 1, XN_ISA_VECTOR);
    check_groups(48, 48, 48, false, XN_PAD_ZERO, 3, XN_ISA_INT8);
    check_groups(40, 40, 40, false, XN_PAD_ZERO, 1, XN_ISA_VECTOR); /* the last group is not whole */
}

static void test_each_allocation_may_fail(void **state)
{
    (void)state;
#ifndef XN_FAULTS
    print_message("fault points are compiled in only with XN_FAULTS (debug, asan, tsan)\n");
    skip();
#else
    const struct xn_isa_geometry g = geometry_of("1T");
    struct xn_network *network = xn_random_network(20261162 + 2); /* with a CONCAT that leaves lanes empty */
    int r = -ENOMEM;

    for (uint64_t i = 1; r == -ENOMEM; i++) {
        struct xn_engine_program *p = NULL;
        struct xn_error error = {{0}};
        xn_fault_arm("alloc", i, false);
        r = xn_engine_compile(network, &g, XN_ENGINE_TURN, &p, &error);
        assert_true(r != -ENOMEM || (!p && error.text[0]));
        xn_engine_program_free(p);
        assert_in_range(i, 1, 100);
    }
    xn_fault_arm("alloc", 0, false);
    xn_network_free(network);
#endif
}

int main(void)
{
    struct xn_random random = {1};
    xn_random_bytes(&random, signs, sizeof(signs));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometry_text),
        cmocka_unit_test(test_geometry_is_checked),
        cmocka_unit_test(test_shape_of_a_program),
        cmocka_unit_test(test_a_concat_between_passes_is_nowhere),
        cmocka_unit_test(test_a_clamp_before_add_is_kept),
        cmocka_unit_test(test_dead_layers_make_no_passes),
        cmocka_unit_test(test_what_does_not_fit_is_named),
        cmocka_unit_test(test_what_the_engine_has_not_is_named),
        cmocka_unit_test(test_a_window_of_one_tile_comes_in_chunks),
        cmocka_unit_test(test_a_tail),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_each_allocation_may_fail),
        cmocka_unit_test(test_random_networks),
        cmocka_unit_test(test_random_geometries),
        cmocka_unit_test(test_known_shapes),
        cmocka_unit_test(test_named_geometries_hold_what_they_are_for),
        cmocka_unit_test(test_shipped_networks),
    };
    return cmocka_run_group_tests_name("engine compiler", tests, NULL, NULL);
}
