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
#include "hls/include/xnor_sim.h"
#include "model/reference.h"
#include "tests/support/random_network.h"
#include "tests/support/sample_networks.h"
#include "tests/support/xnor_writer.h"

#ifdef XN_FAULTS
#define NETWORKS 100u /* debug and sanitizer builds are slow */
#else
#define NETWORKS 600u
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

static void bed_init(struct bed *bed, const char *name, const struct xn_engine_program *program)
{
    const struct xn_network *n = program->network;
    const char *why;

    *bed = (struct bed){.network = n, .program = program, .name = name};
    bed->sim = xn_sim_open(&program->geometry, &why);
    bed->input = malloc(n->input_bytes);
    bed->want = calloc(n->n_classes, sizeof(int32_t));
    bed->got = calloc(n->n_classes, sizeof(int32_t));
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
    const uint32_t row = at->base + (uint32_t)(y * xn_isa_ceil(value->w, banks) + x / banks) * at->pitch;
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

static void run(struct bed *bed, const struct xn_isa_descriptor *descriptors, uint32_t n, const uint8_t *stream,
                size_t stream_bytes)
{
    struct xn_isa_status status;
    const struct xn_sim_job job = {.program = descriptors,
                                   .program_count = n,
                                   .stream = stream,
                                   .stream_bytes = stream_bytes,
                                   .input = bed->input,
                                   .input_bytes = bed->program->input_bytes,
                                   .images = 1,
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
        run(bed, one, 2, p->stream + at, p->passes[i].stream_bytes);
        at += p->passes[i].stream_bytes;
        for (uint32_t v = 0; v < bed->network->n_values; v++)
            if (p->places[v].memory != XN_PLACE_NONE && p->places[v].made_by == i)
                compare_value(bed, v);
    }
    assert_int_equal(at, p->stream_bytes);
}

static void compare_logits(const struct bed *bed)
{
    for (uint32_t k = 0; k < bed->network->n_classes; k++)
        if (bed->got[k] != bed->want[k])
            fail_msg("%s: class %u: %d, reference %d", bed->name, k, bed->got[k], bed->want[k]);
}

/** `images` random images through the whole program, the first one pass by pass. */
static void compare_images(const char *name, const struct xn_engine_program *p, uint64_t seed, uint32_t images)
{
    struct xn_random random = {seed};
    struct bed bed;

    bed_init(&bed, name, p);
    for (uint32_t i = 0; i < images; i++) {
        xn_random_bytes(&random, bed.input, p->input_bytes);
        xn_reference_run(bed.reference, bed.input, bed.want);
        if (i == 0)
            compare_passes(&bed);
        else
            run(&bed, p->descriptors, p->n, p->stream, p->stream_bytes);
        compare_logits(&bed);
    }
    bed_done(&bed);
}

/* ---- random networks ---------------------------------------------------------------------------------------------------- */

static const char *const geometries[] = {"1T", "2T", "4T", "P1,PI1,PR1,AM100000,RM100000,WB512",
                                         "P16,PI2,PR8,AM100000,RM100000,WB1024"};

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
        const int r = xn_engine_compile(network, &g, &p, &error);
        if (r == -ENOTSUP) {
            refused++;
            print_message("# %s is refused: %s\n", name, error.text);
        } else if (r < 0) {
            fail_msg("%s: %s", name, error.text);
        } else {
            passes += p->n;
            compare_images(name, p, seed + i, 3);
        }
        xn_engine_program_free(p);
        xn_network_free(network);
    }
    print_message("# %" PRIu64 " of %" PRIu64 " networks refused, %" PRIu64 " passes compared\n", refused, n, passes);
    if (!text)
        assert_in_range(refused, 0, n / 10);
}

static void compile_and_compare(const char *name, struct xn_network *network, const char *geometry, uint32_t images)
{
    const struct xn_isa_geometry g = geometry_of(geometry);
    struct xn_engine_program *p;
    struct xn_error error;

    if (xn_engine_compile(network, &g, &p, &error) < 0)
        fail_msg("%s: %s", name, error.text);
    compare_images(name, p, 1, images);
    xn_engine_program_free(p);
}

static void test_known_shapes(void **state)
{
    (void)state;
    struct xn_network *one_pixel = xn_random_one_pixel(1), *shortcuts = xn_random_shortcuts(1);
    compile_and_compare("one pixel", one_pixel, "1T", 2);
    compile_and_compare("shortcuts", shortcuts, "2T", 2);
    xn_network_free(one_pixel);
    xn_network_free(shortcuts);
}

static void test_shipped_networks(void **state)
{
    const char *top = getenv("XN_ROOT");
    char pattern[512];
    glob_t found;
    (void)state;

    snprintf(pattern, sizeof(pattern), "%s/models/*/*.xnor", top ? top : ".");
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct xn_network *network;
        struct xn_error error;
        if (xn_network_load(found.gl_pathv[i], &network, &error) < 0)
            fail_msg("%s", error.text);
        compile_and_compare(found.gl_pathv[i], network, geometries[i % 3], 1);
        xn_network_free(network);
    }
    globfree(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_networks),
        cmocka_unit_test(test_known_shapes),
        cmocka_unit_test(test_shipped_networks),
    };
    (void)assert_contains;
    return cmocka_run_group_tests_name("engine compiler", tests, NULL, NULL);
}
