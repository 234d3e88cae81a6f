/* SPDX-License-Identifier: Apache-2.0
 * The same random programs through the scalar definition and through other simulators of the engine, shared libraries behind
 * hls/include/xnor_sim.h: statuses, outputs and every word of AM and RM after each pass.
 *
 *     test_simulators [--geometry P,PI,PR,AM,RM,WB] [--seed S] [--seeds N] [--damaged] [--stalls] [--cycles] [--verbose] LIBRARY...
 *
 * A program is run again and again, cut by an END behind its first pass, its second, ..., so that no pass's result is
 * overwritten before it is looked at and the first pass that differs is the one that is shown. Without --geometry each seed has its
 * own; a library that refuses it skips the seed. --damaged: bits of the descriptors flipped; statuses alone are compared, and
 * then the logits of the program as it was, on the engine as the damaged one left it; and a program has no end. --stalls: the
 * memory port stalls at random (RTL). --cycles: an engine that counts cycles has counted those of the cycle model (accel/engine/cycles.c),
 * with --stalls no fewer. Exit 1: something differs, or a library ran nothing. */
#include <dlfcn.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "hls/include/xnor_sim.h"
#include "tests/support/random_network.h"
#include "tests/support/random_program.h"

#define LIBRARIES_MAX 8
#define CYCLES_MAX    50000000u

struct simulator {
    const char *name;
    struct xn_sim *(*open)(const struct xn_isa_geometry *geometry, const char **ret_why);
    void (*close)(struct xn_sim *sim);
    int (*run)(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status);
    uint64_t (*am)(const struct xn_sim *sim, uint32_t row, uint32_t bank);
    void (*rm)(const struct xn_sim *sim, uint32_t row, uint32_t bank, int16_t ret_channels[XN_ISA_LANES]);
    uint32_t ran, skipped;
};

struct options {
    struct xn_isa_geometry geometry; /**< p = 0: one of its own for each seed */
    uint64_t seed, seeds;
    bool damaged, stalls, cycles, verbose;
};

/** A program within a comparison. */
struct comparison {
    const struct options *options;
    const struct xn_random_program *program;
    uint64_t seed;
    uint32_t passes; /**< that were run, END not included */
};

static void load(const char *path, struct simulator *ret_simulator)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    *ret_simulator = (struct simulator){.name = path};
    if (library) {
        *(void **)&ret_simulator->open = dlsym(library, "xn_sim_open");
        *(void **)&ret_simulator->close = dlsym(library, "xn_sim_close");
        *(void **)&ret_simulator->run = dlsym(library, "xn_sim_run");
        *(void **)&ret_simulator->am = dlsym(library, "xn_sim_am");
        *(void **)&ret_simulator->rm = dlsym(library, "xn_sim_rm");
    }
    if (!library || !ret_simulator->open || !ret_simulator->close || !ret_simulator->run || !ret_simulator->am ||
        !ret_simulator->rm) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
}

/* ---- what differs ---------------------------------------------------------------------------------------------------- */

/** Says where, and with what program. */
static void complain(const struct comparison *c, const char *name)
{
    const struct xn_isa_geometry *g = &c->program->geometry;

    printf("  %s differs from the scalar definition: --geometry %u,%u,%u,%u,%u,%u --seed %" PRIu64 " --seeds 1%s%s%s\n",
           name, g->p, g->pi, g->pr, g->am_rows, g->rm_rows, g->wb_words, c->seed,
           c->options->damaged ? " --damaged" : "", c->options->stalls ? " --stalls" : "",
           c->options->cycles ? " --cycles" : "");
    printf("  after pass %u (from 0) of\n", c->passes - 1);
    for (uint32_t i = 0; i < c->passes; i++) {
        printf("  %2u %c ", i, i + 1 == c->passes ? '>' : ' ');
        xn_random_descriptor_print(&c->program->descriptors[i], stdout);
    }
}

static bool same_am(const struct comparison *c, const struct simulator *s, const struct xn_sim *sim,
                    const struct xn_sim *want)
{
    const struct xn_isa_geometry *g = &c->program->geometry;

    for (uint32_t row = 0; row < g->am_rows; row++) {
        for (uint32_t bank = 0; bank < 2 * g->p; bank++) {
            uint64_t got = s->am(sim, row, bank), expected = xn_sim_am(want, row, bank);
            if (got != expected) {
                printf("AM row %u bank %u: %016" PRIx64 ", not %016" PRIx64 "\n", row, bank, got, expected);
                return false;
            }
        }
    }
    return true;
}

static bool same_rm(const struct comparison *c, const struct simulator *s, const struct xn_sim *sim,
                    const struct xn_sim *want)
{
    const struct xn_isa_geometry *g = &c->program->geometry;
    int16_t got[XN_ISA_LANES], expected[XN_ISA_LANES];

    for (uint32_t row = 0; row < g->rm_rows; row++) {
        for (uint32_t bank = 0; bank < g->pr; bank++) {
            s->rm(sim, row, bank, got);
            xn_sim_rm(want, row, bank, expected);
            for (uint32_t l = 0; l < XN_ISA_LANES; l++) {
                if (got[l] != expected[l]) {
                    printf("RM row %u bank %u lane %u: %d, not %d\n", row, bank, l, got[l], expected[l]);
                    return false;
                }
            }
        }
    }
    return true;
}

static bool same_output(const struct xn_sim_job *got, const struct xn_sim_job *want)
{
    for (uint32_t i = 0; i < got->images * got->output_words; i++) {
        if (got->output[i] != want->output[i]) {
            printf("output word %u: %d, not %d\n", i, got->output[i], want->output[i]);
            return false;
        }
    }
    return true;
}

static bool same_status(int got_r, const struct xn_isa_status *got, int want_r, const struct xn_isa_status *want)
{
    bool is_same = got_r == want_r && got->error == want->error && got->image == want->image &&
                   got->version == want->version && (!want->error || got->descriptor == want->descriptor);

    if (!is_same)
        printf("%d: error %u at descriptor %u, image %u; not %d: error %u at descriptor %u, image %u\n", got_r,
               got->error, got->descriptor, got->image, want_r, want->error, want->descriptor, want->image);
    return is_same;
}

/** Whether an engine that counts has counted what the model says. */
static bool same_cycles(const struct comparison *c, struct xn_isa_descriptor *cut, const struct xn_isa_status *got)
{
    const struct xn_random_program *p = c->program;
    const struct xn_engine_program program = {
        .geometry = p->geometry, .descriptors = cut, .n = c->passes + 1, .input_bytes = p->input_bytes};
    const uint64_t want = xn_engine_cycles(&program, p->images, NULL);
    const bool is_same = got->cycles == want || got->cycles == 0 || (c->options->stalls && got->cycles > want);

    if (!is_same)
        printf("%" PRIu64 " cycles for %u images, the model says %" PRIu64 "\n", got->cycles, p->images, want);
    return is_same;
}

/* ---- runs ------------------------------------------------------------------------------------------------------------ */

static struct xn_sim_job job_of(const struct comparison *c, const struct xn_isa_descriptor *cut)
{
    const struct xn_random_program *p = c->program;
    size_t bytes = (size_t)p->images * p->output_words * sizeof(int32_t);
    struct xn_sim_job job = {.program = cut,
                             .program_count = c->passes + 1,
                             .stream = p->stream,
                             .stream_bytes = p->stream_bytes,
                             .input = p->input,
                             .input_bytes = p->input_bytes,
                             .images = p->images,
                             .output_words = p->output_words,
                             .output = malloc(bytes + 1),
                             .stall_seed = c->options->stalls ? (uint32_t)c->seed | 1 : 0,
                             .cycles_max = CYCLES_MAX};

    if (!job.output)
        abort();
    memset(job.output, 0x5a, bytes);
    return job;
}

/** The first c->passes passes, in both. */
static bool compare(const struct comparison *c, const struct simulator *s, struct xn_sim *sim, struct xn_sim *want)
{
    struct xn_isa_descriptor cut[XN_RANDOM_PROGRAM_MAX] = {0};
    memcpy(cut, c->program->descriptors, c->passes * sizeof(cut[0]));
    struct xn_sim_job got_job = job_of(c, cut), want_job = job_of(c, cut);
    struct xn_isa_status got = {0}, expected = {0};
    int want_r = xn_sim_run(want, &want_job, &expected), got_r = s->run(sim, &got_job, &got);
    bool is_same = same_status(got_r, &got, want_r, &expected);

    if (!c->options->damaged)
        is_same = is_same && same_output(&got_job, &want_job) && same_am(c, s, sim, want) && same_rm(c, s, sim, want);
    if (c->options->cycles && !got.error)
        is_same = is_same && same_cycles(c, cut, &got);
    if (!is_same)
        complain(c, s->name);
    free(got_job.output);
    free(want_job.output);
    return is_same;
}

/** The whole undamaged program after the damaged one, in engines that were not reset. Outputs are compared and not memories: a damaged pass
 *  may read what it writes, in an order that is nobody's. */
static bool compare_after(const struct comparison *c, const struct simulator *s, struct xn_sim *sim,
                          struct xn_sim *want)
{
    struct xn_random_program *whole = xn_random_program_new(c->seed, &c->program->geometry);
    struct comparison after = {c->options, whole, c->seed, whole->n - 1};
    struct xn_sim_job got_job = job_of(&after, whole->descriptors), want_job = job_of(&after, whole->descriptors);
    struct xn_isa_status got = {0}, expected = {0};

    int want_r = xn_sim_run(want, &want_job, &expected), got_r = s->run(sim, &got_job, &got);
    bool is_same = same_status(got_r, &got, want_r, &expected) && same_output(&got_job, &want_job) &&
                   same_cycles(&after, whole->descriptors, &got);
    if (!is_same) {
        printf("  started again after the damaged program\n");
        complain(&after, s->name);
    }
    free(got_job.output);
    free(want_job.output);
    xn_random_program_free(whole);
    return is_same;
}

/** A seed: every beginning of its program, a damaged one as a whole. */
static bool run_seed(const struct options *options, struct simulator *s, uint64_t seed)
{
    struct xn_isa_geometry geometry = options->geometry.p ? options->geometry : xn_random_geometry(seed);
    const char *why = NULL;
    struct xn_sim *sim = s->open(&geometry, &why), *want = xn_sim_open(&geometry, &why);
    bool is_same = true;

    if (!want)
        abort();
    if (!sim) {
        if (!s->skipped++)
            printf("# %s: %s\n", s->name, why ? why : "does not open");
        xn_sim_close(want);
        return true;
    }
    struct xn_random_program *program = xn_random_program_new(seed, &geometry);
    if (options->damaged)
        xn_random_program_damage(program, seed);
    struct comparison c = {options, program, seed, options->damaged ? program->n - 1 : 1};
    for (; is_same && c.passes < program->n; c.passes++)
        is_same = compare(&c, s, sim, want);
    if (is_same && options->damaged)
        is_same = compare_after(&c, s, sim, want);
    if (options->verbose && is_same)
        printf("# seed %" PRIu64 ": %u passes\n", seed, program->n - 1);
    s->ran++;
    xn_random_program_free(program);
    s->close(sim);
    xn_sim_close(want);
    return is_same;
}

/** A program that nothing ends, but perhaps a TURN in its last place: refused behind that. */
static bool run_endless(const struct options *options, const struct simulator *s, bool turns)
{
    static struct xn_isa_descriptor program[XN_ISA_DESCRIPTORS_MAX + 1];
    static const uint8_t input[2];
    const struct xn_isa_geometry g = options->geometry.p ? options->geometry : xn_random_geometry(options->seed);
    const struct xn_sim_job job = {.program = program,
                                   .program_count = XN_ARRAY_LEN(program),
                                   .input = input,
                                   .input_bytes = 1,
                                   .images = 2,
                                   .cycles_max = CYCLES_MAX};
    struct xn_isa_status got = {0}, expected = {0};
    const char *why;
    struct xn_sim *sim = s->open(&g, &why), *want = xn_sim_open(&g, &why);
    bool is_same = !sim;

    for (uint32_t i = 0; i < XN_ARRAY_LEN(program); i++)
        program[i] = (struct xn_isa_descriptor){
            .op = XN_ISA_INPUT, .height = 1, .out_w = 1, .channels = 1, .dest_pitch = 1, .input_row_bytes = 1};
    if (turns)
        program[XN_ISA_DESCRIPTORS_MAX - 1] = (struct xn_isa_descriptor){.op = XN_ISA_TURN, .out_w = 2};
    if (sim) {
        int want_r = xn_sim_run(want, &job, &expected), got_r = s->run(sim, &job, &got);
        is_same = same_status(got_r, &got, want_r, &expected);
        s->close(sim);
    }
    xn_sim_close(want);
    return is_same;
}

/* ---- arguments ------------------------------------------------------------------------------------------------------- */

static void usage(const char *name)
{
    fprintf(stderr,
            "usage: %s [--geometry P,PI,PR,AM,RM,WB] [--seed S] [--seeds N] [--damaged] [--stalls] [--verbose] "
            "LIBRARY...\n",
            name);
    exit(2);
}

static void parse(int argc, char **argv, struct options *ret_options)
{
    static const struct option names[] = {
        {"geometry", required_argument, NULL, 'g'}, {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'n'},    {"damaged", no_argument, NULL, 'd'},
        {"stalls", no_argument, NULL, 't'},         {"cycles", no_argument, NULL, 'c'},
        {"verbose", no_argument, NULL, 'v'},        {0}};
    struct xn_isa_geometry *g = &ret_options->geometry;

    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 'g' &&
            sscanf(optarg, "%u,%u,%u,%u,%u,%u", &g->p, &g->pi, &g->pr, &g->am_rows, &g->rm_rows, &g->wb_words) == 6)
            continue;
        if (option == 's')
            ret_options->seed = strtoull(optarg, NULL, 0);
        else if (option == 'n')
            ret_options->seeds = strtoull(optarg, NULL, 0);
        else if (option == 'd')
            ret_options->damaged = true;
        else if (option == 't')
            ret_options->stalls = true;
        else if (option == 'c')
            ret_options->cycles = true;
        else if (option == 'v')
            ret_options->verbose = true;
        else
            usage(argv[0]);
    }
    if (optind >= argc)
        usage(argv[0]);
}

int main(int argc, char **argv)
{
    struct options options = {.seed = xn_random_seed(1), .seeds = 100};
    uint32_t failed = 0;

    parse(argc, argv, &options);
    for (int i = optind; i < argc; i++) {
        struct simulator s;
        load(argv[i], &s);
        uint32_t differ = 0;
        for (uint64_t seed = options.seed; seed < options.seed + options.seeds && differ < 3; seed++)
            differ += !run_seed(&options, &s, seed);
        if (options.damaged)
            differ += !run_endless(&options, &s, false) || !run_endless(&options, &s, true);
        printf("%s - %s: %u programs, %u of other geometries left out\n", differ || !s.ran ? "not ok" : "ok", s.name,
               s.ran, s.skipped);
        failed += differ || !s.ran;
    }
    return failed ? 1 : 0;
}
