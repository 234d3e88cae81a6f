/* SPDX-License-Identifier: Apache-2.0
 * Whole networks through a simulator of the engine, a shared library behind hls/include/xnor_sim.h: compiled for its
 * geometry, run on random images in one job, all logits equal to the scalar reference's.
 *
 *     test_networks --geometry 4T [--images N] [--seed S] [--cycles] LIBRARY NETWORK.xnor...
 *
 * Prints images a second of the simulation and, where the library counts them, its cycles an image. --cycles: those of the whole
 * job are the cycle model's. All networks run on one engine, one after another, as a host switches them. Exit 1: something differs. */
#include <dlfcn.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "common/clock.h"
#include "hls/include/xnor_sim.h"
#include "model/reference.h"
#include "tests/support/random_network.h"

struct simulator {
    const char *name;
    struct xn_sim *(*open)(const struct xn_isa_geometry *geometry, const char **ret_why);
    void (*close)(struct xn_sim *sim);
    int (*run)(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status);
};

struct options {
    const char *geometry;
    uint32_t images;
    uint64_t seed;
    bool cycles;
};

_Noreturn static void fail(const char *what, const char *why)
{
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void *checked(void *memory)
{
    if (!memory)
        fail("malloc", "out of memory");
    return memory;
}

static struct simulator load_simulator(const char *path)
{
    struct simulator s = {.name = path};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        fail(path, dlerror());
    *(void **)&s.open = dlsym(library, "xn_sim_open");
    *(void **)&s.close = dlsym(library, "xn_sim_close");
    *(void **)&s.run = dlsym(library, "xn_sim_run");
    if (!s.open || !s.close || !s.run)
        fail(path, "not a simulator");
    return s;
}

/** Random bytes; the first image all 0, the second all 0xff. */
static uint8_t *random_images(const struct options *options, size_t image_bytes)
{
    size_t n = options->images * image_bytes;
    uint8_t *images = checked(malloc(n));
    struct xn_random random = {options->seed};

    for (size_t i = 0; i < n; i++)
        images[i] = i < image_bytes ? 0 : i < 2 * image_bytes ? 0xff : (uint8_t)xn_random_below(&random, 256);
    return images;
}

/** How many images' logits are not the reference's. */
static uint32_t count_different(const struct xn_network *network, const struct xn_sim_job *job)
{
    struct xn_reference *reference;
    int32_t *want = checked(calloc(network->n_classes, sizeof(*want)));
    uint32_t different = 0;

    if (xn_reference_new(network, &reference) < 0)
        fail("reference", "out of memory");
    for (uint32_t i = 0; i < job->images; i++) {
        xn_reference_run(reference, (const uint8_t *)job->input + (size_t)i * job->input_bytes, want);
        different += memcmp(want, job->output + (size_t)i * job->output_words, network->n_classes * sizeof(*want)) != 0;
    }
    xn_reference_free(reference);
    free(want);
    return different;
}

static bool same_cycles(const struct xn_engine_program *program, const struct xn_sim_job *job, uint64_t got)
{
    uint64_t want = xn_engine_cycles(program, job->images, NULL);

    if (got != want)
        printf("%" PRIu64 " cycles for %u images, the model says %" PRIu64 "\n", got, job->images, want);
    return got == want;
}

/** One network: whether it ran to its end and all images are the reference's. */
static bool run_network(const struct options *options, const struct simulator *s, struct xn_sim *sim,
                        const struct xn_isa_geometry *geometry, const char *path)
{
    struct xn_error error = {0};
    struct xn_network *network;
    struct xn_engine_program *program;
    struct xn_isa_status status = {0};

    if (xn_network_load(path, &network, &error) < 0 ||
        xn_engine_compile(network, geometry, XN_ENGINE_TURN, &program, &error) < 0)
        fail(path, error.text);
    uint8_t *images = random_images(options, network->input_bytes);
    int32_t *output = checked(calloc(options->images, program->output_words * sizeof(*output)));
    struct xn_sim_job job = {.program = program->descriptors,
                             .program_count = program->n,
                             .stream = program->stream,
                             .stream_bytes = program->stream_bytes,
                             .input = images,
                             .input_bytes = program->input_bytes,
                             .images = options->images,
                             .output_words = program->output_words,
                             .output = output};
    uint64_t start_ns = xn_clock_now_ns();
    int r = s->run(sim, &job, &status);
    double seconds = (double)(xn_clock_now_ns() - start_ns) * 1e-9;
    uint32_t different = r < 0 || status.error ? options->images : count_different(network, &job);

    printf("%s - %s, %s: %u images, %u differ, error %u; %.1f images/s simulated, %" PRIu64 " cycles/image\n",
           different ? "not ok" : "ok", path, s->name, options->images, different, status.error,
           options->images / seconds, status.cycles / options->images);
    bool ok = different == 0 && (!options->cycles || same_cycles(program, &job, status.cycles));
    free(images);
    free(output);
    xn_engine_program_free(program);
    xn_network_free(network);
    return ok;
}

static void usage(const char *name)
{
    fprintf(stderr, "usage: %s --geometry G [--images N] [--seed S] [--cycles] LIBRARY NETWORK.xnor...\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"geometry", required_argument, NULL, 'g'},
                                          {"images", required_argument, NULL, 'i'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"cycles", no_argument, NULL, 'c'},
                                          {0}};
    struct options options = {.images = 50, .seed = xn_random_seed(1)};
    struct xn_isa_geometry geometry;
    struct xn_error error = {0};
    const char *why = NULL;
    bool ok = true;

    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 'g')
            options.geometry = optarg;
        else if (option == 'i')
            options.images = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 's')
            options.seed = strtoull(optarg, NULL, 0);
        else if (option == 'c')
            options.cycles = true;
        else
            usage(argv[0]);
    }
    if (!options.geometry || options.images < 1 || optind + 2 > argc)
        usage(argv[0]);
    if (xn_engine_geometry_parse(options.geometry, &geometry, &error) < 0)
        fail(options.geometry, error.text);
    struct simulator s = load_simulator(argv[optind]);
    struct xn_sim *sim = s.open(&geometry, &why);
    if (!sim)
        fail(s.name, why);
    for (int i = optind + 1; i < argc; i++)
        ok = run_network(&options, &s, sim, &geometry, argv[i]) && ok;
    s.close(sim);
    return ok ? 0 : 1;
}
