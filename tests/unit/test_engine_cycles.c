/* SPDX-License-Identifier: Apache-2.0
 * The cycle model: what bounds a pass and by how much, against counts by hand; what holds for every program; and what the engine
 * is to reach on well-known networks. Latencies are not tested here: the RTL's counter is their witness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "tests/support/random_network.h"
#include "tests/support/random_program.h"

#define ENDS 80u /* cycles that a pass may take beside what bounds it: filling and emptying pipelines */

static const struct xn_isa_geometry geometry = {
    .p = 4, .pi = 2, .pr = 2, .am_rows = 4096, .rm_rows = 4096, .wb_words = 512};

/** 3x3 over 16x16x64 bits to 64 channels of bits: 4 groups x 16 rows x 4 tiles x 9 steps. */
static const struct xn_isa_descriptor conv = {.op = XN_ISA_BINARY,
                                              .flags = XN_ISA_SIGN,
                                              .height = 16,
                                              .width = 16,
                                              .pitch = 1,
                                              .words = 1,
                                              .channels_in = 64,
                                              .kernel_h = 3,
                                              .kernel_w = 3,
                                              .stride_h = 1,
                                              .stride_w = 1,
                                              .pad_top = 1,
                                              .pad_left = 1,
                                              .out_h = 16,
                                              .out_w = 16,
                                              .channels = 64,
                                              .chunk = 9,
                                              .dest_base = 1000,
                                              .dest_pitch = 1};

/** Cost of `d` within a batch, behind a pass and before one. */
static struct xn_engine_cost cost_of(struct xn_isa_descriptor d)
{
    struct xn_isa_descriptor descriptors[] = {conv, d, conv, {0}};
    const struct xn_engine_program program = {
        .geometry = geometry, .descriptors = descriptors, .n = XN_ARRAY_LEN(descriptors)};
    struct xn_engine_cost costs[XN_ARRAY_LEN(descriptors)];

    assert_int_equal(xn_isa_check(&d, &geometry, 1 << 16, 1 << 16, 0), XN_ISA_OK);
    assert_true(xn_engine_cycles(&program, 2, costs) > 0);
    return costs[1];
}

static void expect(struct xn_isa_descriptor d, enum xn_engine_bound bound, uint64_t array, uint64_t post,
                   uint64_t memory)
{
    const struct xn_engine_cost cost = cost_of(d);

    assert_int_equal(cost.bound, bound);
    assert_int_equal(cost.array, array);
    assert_int_equal(cost.post, post);
    assert_int_equal(cost.memory, memory);
    assert_in_range(cost.cycles, XN_MAX(array, post), XN_MAX(XN_MAX(array, post), memory) + ENDS);
}

static void test_bounds(void **state)
{
    (void)state;
    struct xn_isa_descriptor d = conv;
    expect(d, XN_BOUND_ARRAY, 4 * 16 * 4 * 9, 4 * 16 * 4 * 2, 4 + 4 * (16 + 9 * 4));
    d.out_w = 15; /* no fewer tiles; the last of 3 pixels */
    expect(d, XN_BOUND_ARRAY, 4 * 16 * 4 * 9, 4 * 16 * 4 * 2, 4 + 4 * (16 + 9 * 4));
    d.out_w = 13; /* the last of 1 pixel */
    expect(d, XN_BOUND_ARRAY, 4 * 16 * 4 * 9, 4 * 16 * (3 * 2 + 1), 4 + 4 * (16 + 9 * 4));

    d = conv; /* 1x1 to bytes */
    d.kernel_h = d.kernel_w = d.chunk = 1;
    d.pad_top = d.pad_left = 0;
    d.flags = XN_ISA_QUANTIZE;
    d.dest_pitch = 8;
    expect(d, XN_BOUND_POST, 4 * 16 * 4, 4 * 16 * 4 * 2 * 2, 4 + 4 * (16 + 4));

    d = conv; /* the whole map, to logits, in two chunks */
    d.kernel_h = d.kernel_w = 16;
    d.pad_top = d.pad_left = 0;
    d.out_h = d.out_w = 1;
    d.chunk = 200;
    d.flags = XN_ISA_LOGITS;
    expect(d, XN_BOUND_MEMORY, 4 * 256, 4 * 16, 4 + 4 * (16 + 256 * 4));
}

static void test_other_operations(void **state)
{
    (void)state;
    struct xn_isa_descriptor d = conv;
    d.stride_w = 4; /* the pixels of a tile share a bank */
    d.out_w = 4;
    d.out_h = 4;
    expect(d, XN_BOUND_ARRAY, 4 * 4 * 4 * 9, 4 * 4 * 2, 4 + 4 * (16 + 9 * 4));

    d = conv;
    d.op = XN_ISA_INT8;
    d.source = XN_ISA_U8;
    d.words = 2;
    d.chunk = 18;
    d.pitch = 2;
    d.channels_in = 0;
    expect(d, XN_BOUND_ARRAY, 4 * 16 * 8 * 18, 4 * 16 * 8, 4 + 4 * (16 + 18 * 4));

    d.op = XN_ISA_VECTOR; /* two cycles a step of bytes */
    d.words = 1;
    d.chunk = 9;
    d.pitch = 8;
    expect(d, XN_BOUND_ARRAY, 4 * 256 * 9 * 2, 4 * 256, 4 + 4 * (16 + 9 * 4));

    d = conv;
    d.op = XN_ISA_LARGEST;
    d.flags = d.chunk = d.channels_in = 0;
    expect(d, XN_BOUND_ARRAY, 64 * 9, 64, 4); /* P pixels at a time */
    d.flags = XN_ISA_BATCH;                   /* one */
    d.dest_step = d.dest_width = 16;
    expect(d, XN_BOUND_ARRAY, 256 * 9, 256, 4);

    d = (struct xn_isa_descriptor){.op = XN_ISA_INPUT,
                                   .height = 32,
                                   .out_w = 32,
                                   .channels = 3,
                                   .stride_w = 3,
                                   .input_row_bytes = 96,
                                   .dest_pitch = 1};
    expect(d, XN_BOUND_INPUT, 32 * 32, 0, 4 + 32 * 3);
}

static uint32_t turn_of(const struct xn_random_program *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->descriptors[i].op == XN_ISA_TURN)
            return p->descriptors[i].out_w;
    return 1;
}

/** Every program: no pass is faster than its array and its post lanes; another turn costs what the passes cost. */
static void test_random_programs(void **state)
{
    (void)state;
    uint64_t seed = xn_random_seed(1);

    for (uint32_t k = 0; k < 300; k++, seed++) {
        const struct xn_isa_geometry g = xn_random_geometry(seed);
        struct xn_random_program *p = xn_random_program_new(seed, &g);
        const struct xn_engine_program program = {.geometry = g, .descriptors = p->descriptors, .n = p->n};
        struct xn_engine_cost costs[XN_RANDOM_PROGRAM_MAX];
        const uint32_t turn = turn_of(p), images = 9 * turn;
        const uint64_t nine = xn_engine_cycles(&program, images, costs),
                       ten = xn_engine_cycles(&program, images + turn, NULL);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < p->n; i++) {
            sum += costs[i].cycles;
            if (costs[i].cycles < XN_MAX(costs[i].array, costs[i].post))
                fail_msg("seed %llu pass %u: %llu cycles", (unsigned long long)seed, i,
                         (unsigned long long)costs[i].cycles);
        }
        assert_int_equal(ten - nine, sum);
        xn_random_program_free(p);
    }
}

/** Two operations a binary multiply-accumulate, 250 MHz. */
static double effective_tops(struct xn_network *network, const char *name)
{
    struct xn_isa_geometry g;
    struct xn_engine_program *program;
    struct xn_error error;

    assert_int_equal(xn_engine_geometry_parse(name, &g, &error), 0);
    if (xn_engine_compile(network, &g, XN_ENGINE_TURN, &program, &error) < 0)
        fail_msg("%s", error.text);
    const uint64_t cycles = xn_engine_cycles(program, 64, NULL);
    const double tops = 2 * 64 * (double)network->binary_macs / ((double)cycles / 250e6) / 1e12;
    xn_engine_program_free(program);
    xn_network_free(network);
    return tops;
}

static void test_well_known_networks(void **state)
{
    (void)state;
    assert_true(effective_tops(xn_random_vgg_small(1), "4T") >= 2);
    assert_true(effective_tops(xn_random_resnet18(1), "4T") >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_other_operations),
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_well_known_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
