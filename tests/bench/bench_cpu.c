/* SPDX-License-Identifier: Apache-2.0
 * How fast the CPU backend runs whole networks, as JSON: the shipped ones, and two well-known shapes with random weights, image
 * by image and in batches of 8, on one thread and on all.
 *
 *     bench_cpu [LEVEL [SECONDS]]      LEVEL: highest instruction set level; SECONDS of each measurement, 0.5
 *
 * Machines are shared: runs alternate with a short run of the same level's xor + popcount + add alone on operands in L1 (the
 * ceiling of plain binary convolution), and a figure is given with its share of that ceiling. One thread is measured in CPU time of
 * that thread, several in wall time. Times are medians and 5th percentiles. A multiply-accumulate is two operations. */
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu/kernels.h"
#include "common/clock.h"
#include "tests/support/random_network.h"

#define SAMPLES_MAX 4096u
#define SAMPLES_MIN 11u
#define BATCH_MAX   8u
#define ROUNDS      2000u /* of the ceiling, a sample */

struct samples {
    double ns[SAMPLES_MAX];
    size_t n;
};

static const struct xn_cpu_kernels *kernels;
static double seconds = 0.5;

static _Noreturn void die(const struct xn_error *error)
{
    fprintf(stderr, "bench_cpu: %s\n", error->text);
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/** The value below which `part` of the samples lie. Sorts them. */
static double percentile(struct samples *s, double part)
{
    qsort(s->ns, s->n, sizeof(double), ascending);
    return s->ns[(size_t)(part * (double)(s->n - 1) + 0.5)];
}

static void add_sample(struct samples *s, double ns)
{
    if (s->n < SAMPLES_MAX)
        s->ns[s->n++] = ns;
}

/** Time of one multiply-accumulate at the ceiling. */
static double ceiling_mac_ns(void)
{
    XN_ALIGNED(64) static uint64_t words[XN_CPU_CEILING_WORDS * 8];
    uint64_t sums[8];
    struct xn_random random = {1};

    xn_random_bytes(&random, words, sizeof(words));
    const uint64_t start_ns = xn_clock_thread_cpu_ns();
    kernels->ceiling(words, ROUNDS, sums);
    const double ns = (double)(xn_clock_thread_cpu_ns() - start_ns);
    const double macs = 64.0 * 8 * XN_CPU_CEILING_WORDS * kernels->conv[XN_CPU_CONV_BITS].tile * ROUNDS;
    return ns / macs;
}

/** Run batches of `batch` for the time given, each followed by a sample of the ceiling. */
static void measure(struct xn_accel *accel, struct xn_accel_job *job, bool alone, struct samples *runs,
                    struct samples *ceiling)
{
    const struct xn_accel_backend *backend = xn_accel_backend(accel);
    const uint64_t end_ns = xn_clock_now_ns() + (uint64_t)(seconds * 1e9);
    struct xn_error error;

    runs->n = ceiling->n = 0;
    while (runs->n < SAMPLES_MIN || (xn_clock_now_ns() < end_ns && runs->n < SAMPLES_MAX)) {
        const uint64_t start_ns = alone ? xn_clock_thread_cpu_ns() : xn_clock_now_ns();
        if (backend->submit(accel, job, &error) < 0 || backend->wait(accel, job, XN_NEVER_NS, &error) < 0)
            die(&error);
        add_sample(runs, (double)((alone ? xn_clock_thread_cpu_ns() : xn_clock_now_ns()) - start_ns));
        add_sample(ceiling, ceiling_mac_ns());
    }
}

static void print_run(const struct xn_network *network, uint32_t threads, uint32_t batch, struct samples *runs,
                      struct samples *ceiling)
{
    const double median_ns = percentile(runs, 0.5) / batch, p5_ns = percentile(runs, 0.05) / batch;
    const double ceiling_ns = percentile(ceiling, 0.5) / threads, macs = (double)network->binary_macs;

    printf("      {\"threads\": %u, \"batch\": %u, \"images_per_s\": %.1f, \"image_us_median\": %.1f, \"image_us_p5\": "
           "%.1f, "
           "\"binary_tops\": %.4f, \"ceiling_tops\": %.4f, \"ceiling_share\": %.3f, \"samples\": %zu}",
           threads, batch, 1e9 / median_ns, median_ns / 1e3, p5_ns / 1e3, 2e-3 * macs / median_ns, 2e-3 / ceiling_ns,
           macs * ceiling_ns / median_ns, runs->n);
}

static void bench_on(const struct xn_network *network, uint32_t threads, bool last)
{
    static struct samples runs, ceiling;
    const struct xn_accel_options options = {.threads = threads, .cpu_mask = kernels->level};
    const struct xn_accel_backend *cpu = xn_accel_find("cpu");
    const void *inputs[BATCH_MAX];
    int32_t *outputs[BATCH_MAX];
    struct xn_random random = {1};
    struct xn_accel *accel;
    struct xn_accel_job job = {.inputs = inputs, .outputs = outputs};
    struct xn_error error;

    if (cpu->open(&options, 0, &accel, &error) < 0 || cpu->load(accel, network, BATCH_MAX, &job.model, &error) < 0)
        die(&error);
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        void *input = malloc(network->input_bytes);
        outputs[i] = calloc(network->n_classes, sizeof(int32_t));
        if (!input || !outputs[i])
            abort();
        xn_random_bytes(&random, input, network->input_bytes);
        inputs[i] = input;
    }
    for (job.batch = 1; job.batch <= BATCH_MAX; job.batch += BATCH_MAX - 1) {
        measure(accel, &job, threads == 1, &runs, &ceiling);
        print_run(network, threads, job.batch, &runs, &ceiling);
        printf("%s\n", last && job.batch == BATCH_MAX ? "" : ",");
    }
    cpu->close(accel);
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        free((void *)(uintptr_t)inputs[i]);
        free(outputs[i]);
    }
}

/** Measure `network` and free it. */
static void bench(struct xn_network *network, uint32_t threads, bool first)
{
    printf("%s    {\"network\": \"%s\", \"binary_macs\": %" PRIu64 ", \"int8_macs\": %" PRIu64 ", \"runs\": [\n",
           first ? "" : ",\n", network->name, network->binary_macs, network->int8_macs);
    bench_on(network, 1, threads == 1);
    if (threads > 1)
        bench_on(network, threads, true);
    printf("    ]}");
    fflush(stdout);
    xn_network_free(network);
}

/** Threads that an instance has unless told otherwise. */
static uint32_t all_threads(void)
{
    struct xn_accel *accel;
    struct xn_error error;
    uint32_t threads = 1;
    if (xn_accel_find("cpu")->open(&(struct xn_accel_options){0}, 0, &accel, &error) < 0)
        die(&error);
    if (sscanf(xn_accel_info(accel)->geometry, "%" SCNu32, &threads) != 1)
        threads = 1;
    printf("  \"device\": \"%s\", ", xn_accel_info(accel)->device);
    xn_accel_backend(accel)->close(accel);
    return threads;
}

int main(int argc, char **argv)
{
    struct xn_error error;
    struct xn_network *network;
    bool first = true;
    glob_t shipped = {0};

    if (xn_cpu_level_best(argc > 1 ? argv[1] : NULL, &kernels, &error) < 0)
        die(&error);
    if (argc > 2)
        seconds = atof(argv[2]);
    printf("{\n");
    const uint32_t threads = all_threads();
    printf("\"level\": \"%s\", \"threads\": %u,\n  \"networks\": [\n", kernels->level, threads);
    if (glob("models/*/*.xnor", 0, NULL, &shipped) != 0)
        shipped.gl_pathc = 0;
    for (size_t i = 0; i < shipped.gl_pathc; i++, first = false) {
        if (xn_network_load(shipped.gl_pathv[i], &network, &error) < 0)
            die(&error);
        bench(network, threads, first);
    }
    globfree(&shipped);
    bench(xn_random_vgg_small(1), threads, first);
    bench(xn_random_resnet18(1), threads, false);
    printf("\n  ]\n}\n");
    return 0;
}
