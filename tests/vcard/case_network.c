/* SPDX-License-Identifier: Apache-2.0
 * Networks through buffers and runs: all units of all cards at once, each with images of its own. */
#include <string.h>

#include <ert.h>

#include "accel/engine/engine.h"
#include "common/clock.h"
#include "model/reference.h"
#include "tests/support/random_network.h"
#include "tests/vcard/bed.h"

#define LANES_MAX 64u
#define WAIT_MS   120000u

struct lane {
    struct bed_unit unit;
    int32_t *want;
};

struct lanes {
    const struct xn_network *network;
    const struct xn_engine_program *program;
    uint32_t images;
    struct bed_device devices[16];
    struct lane lane[LANES_MAX];
    uint32_t n;
};

static void *checked(void *memory)
{
    CHECK(memory, "out of memory");
    return memory;
}

/** The geometry that the card says it has. */
static struct xn_isa_geometry geometry_of(const struct bed_device *device)
{
    struct bed_unit unit = bed_unit_open(device, 0, 0, 0, 0, 0);

    bed_run_end(&unit);
    const struct xn_isa_status s = bed_status(&unit);
    bed_unit_close(&unit);
    return (struct xn_isa_geometry){s.p, s.pi, s.pr, s.am_rows, s.rm_rows, s.wb_words};
}

static void open_lanes(struct lanes *l, unsigned cards, unsigned units)
{
    const struct xn_engine_program *p = l->program;
    const size_t output_bytes = (size_t)l->images * p->output_words * sizeof(int32_t);

    for (unsigned card = 0; card < cards; card++) {
        for (unsigned i = 0; i < units; i++) {
            struct lane *lane = &l->lane[l->n++];
            lane->unit = bed_unit_open(&l->devices[card], i, p->n * sizeof(*p->descriptors), p->stream_bytes,
                                       (size_t)l->images * p->input_bytes, output_bytes);
            lane->want = checked(malloc(output_bytes));
            memcpy(lane->unit.program.host, p->descriptors, p->n * sizeof(*p->descriptors));
            if (p->stream_bytes)
                memcpy(lane->unit.stream.host, p->stream, p->stream_bytes);
            bed_to_card(&lane->unit.program);
            bed_to_card(&lane->unit.stream);
        }
    }
}

/** Random images and what the reference says of them. */
static void fill(struct lanes *l, struct lane *lane, struct xn_random *random)
{
    uint8_t *input = lane->unit.input.host;
    struct xn_reference *reference;

    for (size_t i = 0; i < (size_t)l->images * l->program->input_bytes; i++)
        input[i] = (uint8_t)xn_random_below(random, 256);
    CHECK(xn_reference_new(l->network, &reference) == 0, "reference");
    for (uint32_t i = 0; i < l->images; i++)
        xn_reference_run(reference, input + (size_t)i * l->program->input_bytes,
                         lane->want + (size_t)i * l->program->output_words);
    xn_reference_free(reference);
}

static void start(const struct lanes *l, struct lane *lane)
{
    memset(lane->unit.output.host, 0xee, lane->unit.output.bytes);
    bed_to_card(&lane->unit.output);
    bed_to_card(&lane->unit.input);
    bed_start(&lane->unit, l->images, l->program->input_bytes, l->program->output_words);
}

static void finish(const struct lanes *l, struct lane *lane, uint32_t index)
{
    const int state = bed_wait(&lane->unit, WAIT_MS);
    const size_t bytes = (size_t)l->images * l->program->output_words * sizeof(int32_t);

    CHECK(state == ERT_CMD_STATE_COMPLETED, "lane %u: state %d", index, state);
    const struct xn_isa_status status = bed_status(&lane->unit);
    CHECK(status.error == 0 && status.image == l->images, "lane %u: error %u at descriptor %u", index, status.error,
          status.descriptor);
    CHECK(status.cycles == xn_engine_cycles(l->program, l->images, NULL), "lane %u: %llu cycles", index,
          (unsigned long long)status.cycles);
    CHECK(bed_from_card(&lane->unit.output) == 0, "lane %u", index);
    CHECK(memcmp(lane->unit.output.host, lane->want, bytes) == 0, "lane %u: logits differ", index);
}

/** network CARDS UNITS IMAGES RUNS FILE: RUNS times IMAGES on every unit. */
int case_network(int argc, char **argv)
{
    struct lanes *l = checked(calloc(1, sizeof(*l)));
    struct xn_random random = {xn_random_seed(1)};
    struct xn_error error = {0};
    struct xn_network *network;
    struct xn_engine_program *program;

    CHECK(argc == 5, "network CARDS UNITS IMAGES RUNS FILE");
    const unsigned cards = (unsigned)atoi(argv[0]), units = (unsigned)atoi(argv[1]);
    const unsigned runs = (unsigned)atoi(argv[3]);
    l->images = (uint32_t)atoi(argv[2]);
    CHECK(xn_network_load(argv[4], &network, &error) == 0, "%s", error.text);
    for (unsigned i = 0; i < cards; i++)
        l->devices[i] = bed_open(i);
    const struct xn_isa_geometry geometry = geometry_of(&l->devices[0]);
    CHECK(xn_engine_compile(network, &geometry, XN_ENGINE_TURN, &program, &error) == 0, "%s", error.text);
    l->network = network;
    l->program = program;
    open_lanes(l, cards, units);
    uint64_t busy_ns = 0;
    for (unsigned run = 0; run < runs; run++) {
        for (uint32_t i = 0; i < l->n; i++)
            fill(l, &l->lane[i], &random);
        const uint64_t begin_ns = xn_clock_now_ns();
        for (uint32_t i = 0; i < l->n; i++)
            start(l, &l->lane[i]);
        for (uint32_t i = 0; i < l->n; i++)
            finish(l, &l->lane[i], i);
        busy_ns += xn_clock_now_ns() - begin_ns;
    }
    printf("# %u lanes x %u runs x %u images, %.2f ms a run\n", l->n, runs, l->images,
           (double)busy_ns * 1e-6 / runs / l->n);
    for (uint32_t i = 0; i < l->n; i++) {
        bed_unit_close(&l->lane[i].unit);
        free(l->lane[i].want);
    }
    for (unsigned i = 0; i < cards; i++)
        bed_close(&l->devices[i]);
    xn_engine_program_free(program);
    xn_network_free(network);
    free(l);
    return 0;
}
