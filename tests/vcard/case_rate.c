/* SPDX-License-Identifier: Apache-2.0
 * How long the way of a run is, and whether units can be kept busy. */
#include <pthread.h>
#include <string.h>

#include <ert.h>

#include "accel/engine/engine.h"
#include "common/clock.h"
#include "tests/vcard/bed.h"

#define WAIT_MS   60000u
#define UNITS_MAX 16u

/** rate RUNS: END programs one after another, from start to the wait's return. */
int case_rate(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);
    const unsigned runs = argc > 0 ? (unsigned)atoi(argv[0]) : 1000;

    bed_run_end(&unit);
    const uint64_t begin_ns = xn_clock_now_ns();
    for (unsigned i = 0; i < runs; i++) {
        CHECK(xrtRunStart(unit.run) == 0, "start");
        CHECK(bed_wait(&unit, WAIT_MS) == ERT_CMD_STATE_COMPLETED, "run %u", i);
    }
    printf("# %.1f us a run\n", (double)(xn_clock_now_ns() - begin_ns) * 1e-3 / runs);
    bed_unit_close(&unit);
    bed_close(&device);
    return 0;
}

/** What one connection transfers. */
struct transfer {
    struct bed_device device;
    struct bed_unit unit;
    unsigned times;
    pthread_t thread;
};

static void *transfer_main(void *argument)
{
    const struct transfer *t = argument;

    for (unsigned i = 0; i < t->times; i++) {
        bed_to_card(&t->unit.stream);
        CHECK(bed_from_card(&t->unit.stream) == 0, "from the card");
    }
    return NULL;
}

/** transfer MIB TIMES CONNECTIONS: each of them, of a unit of its own, to the card and back at the same time. */
int case_transfer(int argc, char **argv)
{
    struct transfer t[UNITS_MAX];
    size_t bytes = 0;

    CHECK(argc == 3, "transfer MIB TIMES CONNECTIONS");
    const unsigned n = (unsigned)atoi(argv[2]);
    CHECK(n <= UNITS_MAX, "%u connections", n);
    for (unsigned i = 0; i < n; i++) {
        t[i].device = bed_open(0);
        t[i].unit = bed_unit_open(&t[i].device, i, 0, (size_t)atoi(argv[0]) << 20, 0, 0);
        t[i].times = (unsigned)atoi(argv[1]);
        bed_to_card(&t[i].unit.stream);
        bytes += 2 * t[i].times * t[i].unit.stream.bytes;
    }
    const uint64_t begin_ns = xn_clock_now_ns();
    for (unsigned i = 0; i < n; i++)
        CHECK(pthread_create(&t[i].thread, NULL, transfer_main, &t[i]) == 0, "thread");
    for (unsigned i = 0; i < n; i++)
        pthread_join(t[i].thread, NULL);
    printf("# GB/s %.3f\n", (double)bytes / (double)(xn_clock_now_ns() - begin_ns));
    for (unsigned i = 0; i < n; i++) {
        bed_unit_close(&t[i].unit);
        bed_close(&t[i].device);
    }
    return 0;
}

/** Two runs on a unit: one waits in the driver's queue while the other runs. */
struct pair {
    struct bed_unit unit;
    xrtRunHandle second;
};

static struct pair open_pair(const struct bed_device *device, unsigned index, const struct xn_engine_program *p,
                             uint32_t images)
{
    struct pair pair = {.unit = bed_unit_open(device, index, p->n * sizeof(*p->descriptors), p->stream_bytes,
                                              (size_t)images * p->input_bytes,
                                              (size_t)images * p->output_words * sizeof(int32_t))};
    const struct bed_unit *u = &pair.unit;
    const struct bed_buffer *const buffers[] = {&u->program, &u->stream, &u->input, &u->output};
    const uint32_t scalars[] = {images, p->input_bytes, p->output_words};

    memcpy(u->program.host, p->descriptors, p->n * sizeof(*p->descriptors));
    memcpy(u->stream.host, p->stream, p->stream_bytes);
    bed_to_card(&u->program);
    bed_to_card(&u->stream);
    pair.second = xrtRunOpen(u->kernel);
    CHECK(pair.second, "run");
    for (int i = 0; i < 4; i++)
        CHECK(xrtRunSetArg(pair.second, ARG_PROGRAM + i, buffers[i]->handle) == 0, "argument %d", i);
    for (int i = 0; i < 3; i++)
        CHECK(xrtRunSetArg(pair.second, ARG_IMAGES + i, scalars[i]) == 0, "argument %d", ARG_IMAGES + i);
    CHECK(xrtRunSetArg(pair.second, ARG_STATUS, u->status.handle) == 0, "status");
    return pair;
}

/** saturate UNITS IMAGES RUNS FILE, with --timing model: each unit always has a run waiting. Prints images a second, and what the clock
 *  and the cycle model say. */
int case_saturate(int argc, char **argv)
{
    struct xn_error error = {0};
    struct xn_network *network;
    struct xn_engine_program *program;
    struct xn_isa_geometry geometry;
    struct pair pairs[UNITS_MAX];

    CHECK(argc == 4, "saturate UNITS IMAGES RUNS FILE");
    const unsigned units = (unsigned)atoi(argv[0]), runs = (unsigned)atoi(argv[2]);
    const uint32_t images = (uint32_t)atoi(argv[1]);
    CHECK(units <= UNITS_MAX, "%u units", units);
    CHECK(xn_engine_geometry_parse("4T", &geometry, &error) == 0, "%s", error.text);
    CHECK(xn_network_load(argv[3], &network, &error) == 0, "%s", error.text);
    CHECK(xn_engine_compile(network, &geometry, XN_ENGINE_TURN, &program, &error) == 0, "%s", error.text);
    struct bed_device device = bed_open(0);
    for (unsigned i = 0; i < units; i++)
        pairs[i] = open_pair(&device, i, program, images);
    const uint64_t begin_ns = xn_clock_now_ns();
    for (unsigned i = 0; i < units; i++) {
        bed_start(&pairs[i].unit, images, program->input_bytes, program->output_words);
        CHECK(xrtRunStart(pairs[i].second) == 0, "start");
    }
    for (unsigned run = 0; run < 2 * runs; run++) {
        for (unsigned i = 0; i < units; i++) {
            xrtRunHandle handle = run % 2 ? pairs[i].second : pairs[i].unit.run;
            CHECK(xrtRunWaitFor(handle, WAIT_MS) == ERT_CMD_STATE_COMPLETED, "run %u", run);
            CHECK(run + 2 >= 2 * runs || xrtRunStart(handle) == 0, "start");
        }
    }
    const double seconds = (double)(xn_clock_now_ns() - begin_ns) * 1e-9;
    printf("# images/s %.1f seconds %.6f cycles %llu\n", 2.0 * runs * units * images / seconds, seconds,
           (unsigned long long)xn_engine_cycles(program, images, NULL));
    for (unsigned i = 0; i < units; i++) {
        xrtRunClose(pairs[i].second);
        bed_unit_close(&pairs[i].unit);
    }
    bed_close(&device);
    xn_engine_program_free(program);
    xn_network_free(network);
    return 0;
}
