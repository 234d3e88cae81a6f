/* SPDX-License-Identifier: Apache-2.0
 * How fast the CPU backend is, beside what the machine could do.
 *
 *     xnor-bench kernels [--json] [--level LEVEL] [--seconds S] [--only TEXT]   single layers, with their epilogues
 *     xnor-bench network [--json] [--level LEVEL] [--seconds S] [--only NAME] [--threads N] [FILE.xnor...]
 *                        whole networks: those of the files, else the shipped ones and well-known shapes
 *     xnor-bench steps   [--json] [--level LEVEL] [--seconds S] FILE.xnor...
 *                        where the time of a network goes: each step of its plan
 *     xnor-bench write FOLDER
 *                        the well-known shapes as FOLDER/NAME.xnor, for xnorctl estimate and other tools
 *
 * The yardstick is C0: xor, popcount and add alone at the same instruction set level, on registers (kernels->ceiling): the ceiling of plain
 * binary convolution. Machines are shared and change their clock, so every sample of a layer or network stands beside a sample of C0 taken
 * right before it, layers take turns, and figures are medians of times and ratios, with the 5th percentile beside. One thread is
 * measured in CPU time of that thread, several in wall time. A multiply-accumulate is two operations.
 */
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu/plan.h"
#include "common/clock.h"
#include "tests/support/random_network.h"
#include "tests/support/samples.h"

#define BATCH_MAX 8u
#define SAMPLE_NS 50000.0 /* at least, of a layer */

static const struct xn_cpu_kernels *kernels;
static double seconds = 0.5;
static bool json;
static uint32_t threads_max;  /* 0: as many as an instance has */
static const char *only = ""; /* layers whose name has this in it; the network of this name */

static _Noreturn void die(const struct xn_error *error)
{
    fprintf(stderr, "xnor-bench: %s\n", error->text);
    exit(1);
}

/** Time of one multiply-accumulate at the ceiling. */
static double ceiling_mac_ns(void)
{
    static uint64_t rounds = 16;
    double macs;
    uint64_t ns;

    do {
        const uint64_t start_ns = xn_clock_thread_cpu_ns();
        macs = kernels->ceiling(rounds);
        ns = xn_clock_thread_cpu_ns() - start_ns;
        if ((double)ns < SAMPLE_NS)
            rounds *= 2;
    } while ((double)ns < SAMPLE_NS);
    return (double)ns / macs;
}

#define STREAM_BYTES (1u << 20) /* lies in L2 on what this runs on, and not in L1 */

/** Bytes a nanosecond that this core reads from L2: the slanted roof of the roofline. */
static double stream_gb_s(void)
{
    typedef uint64_t vector __attribute__((vector_size(16)));
    static vector memory[STREAM_BYTES / sizeof(vector)];
    vector a = {0}, b = {0}, c = {0}, d = {0};
    double best = 0;

    for (int repeat = 0; repeat < 50; repeat++) {
        const vector *from = memory;
        const uint64_t start_ns = xn_clock_thread_cpu_ns();
        __asm__ volatile("" : "+r"(from) : : "memory"); /* the compiler must not know what is there */
        for (size_t i = 0; i < XN_ARRAY_LEN(memory); i += 4) {
            a ^= from[i];
            b ^= from[i + 1];
            c ^= from[i + 2];
            d ^= from[i + 3];
        }
        a ^= b ^ c ^ d;
        const volatile uint64_t sum = a[0] ^ a[1];
        (void)sum;
        best = XN_MAX(best, STREAM_BYTES / (double)(xn_clock_thread_cpu_ns() - start_ns));
    }
    return best;
}

/* ---- kernels ---------------------------------------------------------------------------------------------------------- */

struct layer {
    const char *name;
    struct xn_random_layer shape;
    struct xn_network *network;
    struct xn_cpu_plan *plan;
    struct xn_cpu_image image;
    uint32_t step;
    uint64_t macs;
    uint32_t repeats;
    struct samples runs, ceiling, ratio;
};

#define BITS_3X3(c, oc, side, stride, pad)                                                                             \
    {                                                                                                                  \
        side, c, oc, 3, stride, false, false, pad, XN_RANDOM_BITS                                                      \
    }
static struct layer layers[] = {
    {.name = "3x3 64", .shape = BITS_3X3(64, 64, 56, 1, XN_PAD_ZERO)},
    {.name = "3x3 128", .shape = BITS_3X3(128, 128, 28, 1, XN_PAD_ZERO)},
    {.name = "3x3 256", .shape = BITS_3X3(256, 256, 14, 1, XN_PAD_ZERO)},
    {.name = "3x3 512", .shape = BITS_3X3(512, 512, 7, 1, XN_PAD_ZERO)},
    {.name = "3x3 64, -1 padding", .shape = BITS_3X3(64, 64, 56, 1, XN_PAD_MINUS_ONE)},
    {.name = "3x3 128, -1 padding", .shape = BITS_3X3(128, 128, 28, 1, XN_PAD_MINUS_ONE)},
    {.name = "3x3 256, -1 padding", .shape = BITS_3X3(256, 256, 14, 1, XN_PAD_MINUS_ONE)},
    {.name = "3x3 512, -1 padding", .shape = BITS_3X3(512, 512, 7, 1, XN_PAD_MINUS_ONE)},
    {.name = "3x3 128 on 32x32", .shape = BITS_3X3(128, 128, 32, 1, XN_PAD_ZERO)},
    {.name = "3x3 256 on 16x16", .shape = BITS_3X3(256, 256, 16, 1, XN_PAD_ZERO)},
    {.name = "3x3 512 on 8x8", .shape = BITS_3X3(512, 512, 8, 1, XN_PAD_ZERO)},
    {.name = "3x3 64 residual", .shape = {56, 64, 64, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RESIDUAL}},
    {.name = "3x3 128 residual", .shape = {28, 128, 128, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RESIDUAL}},
    {.name = "3x3 256 residual", .shape = {14, 256, 256, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RESIDUAL}},
    {.name = "3x3 512 residual", .shape = {7, 512, 512, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RESIDUAL}},
    {.name = "3x3 64 residual, RPReLU", .shape = {56, 64, 64, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RPRELU}},
    {.name = "3x3 128 residual, RPReLU", .shape = {28, 128, 128, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RPRELU}},
    {.name = "3x3 256 residual, RPReLU", .shape = {14, 256, 256, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RPRELU}},
    {.name = "3x3 512 residual, RPReLU", .shape = {7, 512, 512, 3, 1, false, false, XN_PAD_ZERO, XN_RANDOM_RPRELU}},
    {.name = "1x1 64", .shape = {56, 64, 64, 1, 1, false, false, XN_PAD_NONE, XN_RANDOM_BITS}},
    {.name = "1x1 128", .shape = {28, 128, 128, 1, 1, false, false, XN_PAD_NONE, XN_RANDOM_BITS}},
    {.name = "1x1 256", .shape = {14, 256, 256, 1, 1, false, false, XN_PAD_NONE, XN_RANDOM_BITS}},
    {.name = "1x1 512", .shape = {7, 512, 512, 1, 1, false, false, XN_PAD_NONE, XN_RANDOM_BITS}},
    {.name = "3x3 64 to 128, stride 2", .shape = BITS_3X3(64, 128, 56, 2, XN_PAD_ZERO)},
    {.name = "3x3 256 to 512, stride 2", .shape = BITS_3X3(256, 512, 14, 2, XN_PAD_ZERO)},
    {.name = "5x5 64", .shape = {28, 64, 64, 5, 1, false, false, XN_PAD_ZERO, XN_RANDOM_BITS}},
    {.name = "3x3 96", .shape = BITS_3X3(96, 96, 28, 1, XN_PAD_ZERO)},
    {.name = "depthwise 3x3 64", .shape = {56, 64, 64, 3, 1, true, false, XN_PAD_ZERO, XN_RANDOM_BITS}},
    {.name = "depthwise 3x3 256", .shape = {14, 256, 256, 3, 1, true, false, XN_PAD_ZERO, XN_RANDOM_BITS}},
    {.name = "int8 3x3, 3 to 128", .shape = {32, 3, 128, 3, 1, false, true, XN_PAD_ZERO, XN_RANDOM_BITS}},
    {.name = "int8 7x7, 3 to 64, stride 2", .shape = {224, 3, 64, 7, 2, false, true, XN_PAD_ZERO, XN_RANDOM_BITS}},
    {.name = "int8 1x1 64", .shape = {28, 64, 64, 1, 1, false, true, XN_PAD_NONE, XN_RANDOM_BITS}},
};

/** The step that runs the layer, the last convolution of its kernel size that the network has. */
static void find_step(struct layer *layer)
{
    for (uint32_t i = 0; i < layer->plan->n_steps; i++) {
        const struct xn_cpu_step *step = &layer->plan->steps[i];
        const struct xn_layer *made = &layer->network->layers[step->layer];
        if (step->kind != XN_CPU_STEP_CONV || made->kernel_h != layer->shape.kernel || step->chain.c != layer->shape.oc)
            continue;
        layer->step = i;
        layer->macs = made->macs;
    }
}

static void open_layer(struct layer *layer)
{
    struct xn_error error;
    layer->network = xn_random_layer(1, &layer->shape);
    if (xn_cpu_plan_new(layer->network, kernels, &layer->plan, &error) < 0)
        die(&error);
    layer->image = (struct xn_cpu_image){.arena = aligned_alloc(64, xn_align_up(layer->plan->arena_bytes, 64)),
                                         .input = malloc(layer->network->input_bytes),
                                         .logits = calloc(layer->network->n_classes, sizeof(int32_t))};
    if (!layer->image.arena || !layer->image.input || !layer->image.logits)
        abort();
    struct xn_random random = {1};
    xn_random_bytes(&random, (void *)(uintptr_t)layer->image.input, layer->network->input_bytes);
    xn_cpu_plan_run(layer->plan, &layer->image);
    find_step(layer);
    layer->repeats = 1;
}

static void run_layer(const struct layer *layer)
{
    /* A padded integer layer copies its map in the step before. */
    if (layer->plan->steps[layer->step].conv.in.value == XN_CPU_SCRATCH)
        xn_cpu_plan_step(layer->plan, layer->step - 1, &layer->image, 0, 1);
    xn_cpu_plan_step(layer->plan, layer->step, &layer->image, 0, 1);
}

static double time_layer(const struct layer *layer)
{
    const uint64_t start_ns = xn_clock_thread_cpu_ns();
    for (uint32_t i = 0; i < layer->repeats; i++)
        run_layer(layer);
    return (double)(xn_clock_thread_cpu_ns() - start_ns);
}

/** The layer between two samples of the ceiling, so that a change of the clock strikes both alike. */
static void sample_layer(struct layer *layer)
{
    double ns, mac_ns;

    run_layer(layer); /* its weights and maps come back to L2 from where the other layers have driven them */
    for (;;) {
        mac_ns = ceiling_mac_ns();
        ns = time_layer(layer);
        if (ns >= SAMPLE_NS)
            break;
        layer->repeats *= 2;
    }
    mac_ns = (mac_ns + ceiling_mac_ns()) / 2;
    ns /= layer->repeats;
    samples_add(&layer->runs, ns);
    samples_add(&layer->ceiling, mac_ns);
    samples_add(&layer->ratio, (double)layer->macs * mac_ns / ns);
}

static void print_layer(struct layer *layer, bool last)
{
    const double ns = samples_percentile(&layer->runs, 0.5), p5_ns = samples_percentile(&layer->runs, 0.05);
    const double ceiling_ns = samples_percentile(&layer->ceiling, 0.5), ratio = samples_percentile(&layer->ratio, 0.5);
    const double macs = (double)layer->macs;
    const struct xn_random_layer *s = &layer->shape;

    if (json)
        printf("    {\"layer\": \"%s\", \"side\": %u, \"c\": %u, \"oc\": %u, \"kernel\": %u, \"stride\": %u, \"macs\": "
               "%" PRIu64
               ", \"us_median\": %.2f, \"us_p5\": %.2f, \"tops_median\": %.4f, \"tops_p5\": %.4f, \"c0_tops\": %.4f, "
               "\"of_c0\": %.3f, \"samples\": %zu}%s\n",
               layer->name, s->side, s->c, s->oc, s->kernel, s->stride, layer->macs, ns / 1e3, p5_ns / 1e3,
               2e-3 * macs / ns, 2e-3 * macs / p5_ns, 2e-3 / ceiling_ns, ratio, layer->runs.n, last ? "" : ",");
    else
        printf("%-30s %4ux%-4u %9.2f us %8.3f TOPS (p5 %6.3f)  %5.1f %% of C0\n", layer->name, s->side, s->side,
               ns / 1e3, 2e-3 * macs / ns, 2e-3 * macs / p5_ns, 100 * ratio);
}

/** Layers whose name has `only` in it: those of popcounts, or all others. Multiplications draw another clock than popcounts, and the
 *  processor takes its time to change: they take turns among themselves. */
static size_t choose_layers(struct layer **chosen, bool popcounts)
{
    size_t n = 0;
    for (size_t i = 0; i < XN_ARRAY_LEN(layers); i++)
        if (strstr(layers[i].name, only) && popcounts == (!layers[i].shape.bytes && !layers[i].shape.depthwise))
            chosen[n++] = &layers[i];
    return n;
}

static void measure_layers(struct layer **chosen, size_t n)
{
    for (size_t i = 0; i < n; i++)
        open_layer(chosen[i]);
    const uint64_t end_ns = xn_clock_now_ns() + (uint64_t)(seconds * 1e9 * (double)n);
    while (n > 0 && (chosen[0]->runs.n < SAMPLES_MIN || xn_clock_now_ns() < end_ns))
        for (size_t i = 0; i < n; i++)
            sample_layer(chosen[i]);
}

static void bench_kernels(void)
{
    struct layer *chosen[XN_ARRAY_LEN(layers)];
    size_t n = choose_layers(chosen, true);

    measure_layers(chosen, n);
    const size_t others = choose_layers(chosen + n, false);
    measure_layers(chosen + n, others);
    n += others;
    if (json)
        printf("{\n  \"level\": \"%s\",\n  \"l2_gb_s\": %.1f,\n  \"layers\": [\n", kernels->level, stream_gb_s());
    else
        printf("level %s; side of the input\n", kernels->level);
    for (size_t i = 0; i < n; i++)
        print_layer(chosen[i], i + 1 == n);
    if (json)
        printf("  ]\n}\n");
}

/* ---- networks --------------------------------------------------------------------------------------------------------- */

/** Run batches of `batch` for the time given, each after a sample of the ceiling. */
static void measure(struct xn_accel *accel, struct xn_accel_job *job, bool alone, struct samples *runs,
                    struct samples *ceiling)
{
    const struct xn_accel_backend *backend = xn_accel_backend(accel);
    const uint64_t end_ns = xn_clock_now_ns() + (uint64_t)(seconds * 1e9);
    struct xn_error error;

    runs->n = ceiling->n = 0;
    while (runs->n < SAMPLES_MIN || (xn_clock_now_ns() < end_ns && runs->n < SAMPLES_MAX)) {
        samples_add(ceiling, ceiling_mac_ns());
        const uint64_t start_ns = alone ? xn_clock_thread_cpu_ns() : xn_clock_now_ns();
        if (backend->submit(accel, job, &error) < 0 || backend->wait(accel, job, XN_NEVER_NS, &error) < 0)
            die(&error);
        samples_add(runs, (double)((alone ? xn_clock_thread_cpu_ns() : xn_clock_now_ns()) - start_ns));
    }
}

static void print_run(const struct xn_network *network, uint32_t threads, uint32_t batch, struct samples *runs,
                      struct samples *ceiling, bool last)
{
    const double median_ns = samples_percentile(runs, 0.5) / batch, p5_ns = samples_percentile(runs, 0.05) / batch;
    const double ceiling_ns = samples_percentile(ceiling, 0.5) / threads, macs = (double)network->binary_macs;

    if (json)
        printf("      {\"threads\": %u, \"batch\": %u, \"images_per_s\": %.1f, \"image_us_median\": %.1f, "
               "\"image_us_p5\": %.1f, "
               "\"binary_tops\": %.4f, \"ceiling_tops\": %.4f, \"ceiling_share\": %.3f, \"samples\": %zu}%s\n",
               threads, batch, 1e9 / median_ns, median_ns / 1e3, p5_ns / 1e3, 2e-3 * macs / median_ns,
               2e-3 / ceiling_ns, macs * ceiling_ns / median_ns, runs->n, last ? "" : ",");
    else
        printf("%-20s %u thread%s batch %u: %9.1f images/s, %9.1f us an image (p5 %9.1f), binary %6.3f TOPS, %5.1f %% "
               "of C0\n",
               network->name, threads, threads == 1 ? ", " : "s,", batch, 1e9 / median_ns, median_ns / 1e3, p5_ns / 1e3,
               2e-3 * macs / median_ns, 100 * macs * ceiling_ns / median_ns);
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
        print_run(network, threads, job.batch, &runs, &ceiling, last && job.batch == BATCH_MAX);
    }
    cpu->close(accel);
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        free((void *)(uintptr_t)inputs[i]);
        free(outputs[i]);
    }
}

/** Measure `network`, if it is asked for, and free it. */
static void bench_network(struct xn_network *network, uint32_t threads)
{
    static bool first = true;

    if (*only && strcmp(network->name, only) != 0) {
        xn_network_free(network);
        return;
    }
    if (json)
        printf("%s    {\"network\": \"%s\", \"binary_macs\": %" PRIu64 ", \"int8_macs\": %" PRIu64 ", \"runs\": [\n",
               first ? "" : ",\n", network->name, network->binary_macs, network->int8_macs);
    first = false;
    bench_on(network, 1, threads == 1);
    if (threads > 1)
        bench_on(network, threads, true);
    if (json)
        printf("    ]}");
    fflush(stdout);
    xn_network_free(network);
}

/** Threads that an instance has unless told otherwise; prints what the machine is. */
static uint32_t all_threads(void)
{
    struct xn_accel *accel;
    struct xn_error error;
    uint32_t threads = 1;
    if (xn_accel_find("cpu")->open(&(struct xn_accel_options){0}, 0, &accel, &error) < 0)
        die(&error);
    if (sscanf(xn_accel_info(accel)->geometry, "%" SCNu32, &threads) != 1)
        threads = 1;
    if (threads_max)
        threads = XN_MIN(threads, threads_max);
    if (json)
        printf("{\n  \"device\": \"%s\", \"level\": \"%s\", \"threads\": %u,\n  \"networks\": [\n",
               xn_accel_info(accel)->device, kernels->level, threads);
    xn_accel_backend(accel)->close(accel);
    return threads;
}

static struct xn_network *load_file(const char *path)
{
    struct xn_network *network;
    struct xn_error error;
    if (xn_network_load(path, &network, &error) < 0)
        die(&error);
    return network;
}

static void bench_files(char **paths, size_t n)
{
    const uint32_t threads = all_threads();
    for (size_t i = 0; i < n; i++)
        bench_network(load_file(paths[i]), threads);
    if (json)
        printf("\n  ]\n}\n");
}

static void bench_networks(void)
{
    struct xn_network *(*const make[])(uint64_t) = {xn_random_vgg_small, xn_random_resnet18,
                                                    xn_random_resnet18_imagenet};
    const uint32_t threads = all_threads();
    glob_t shipped = {0};

    if (glob("models/*/*.xnor", 0, NULL, &shipped) != 0)
        shipped.gl_pathc = 0;
    for (size_t i = 0; i < shipped.gl_pathc; i++)
        bench_network(load_file(shipped.gl_pathv[i]), threads);
    globfree(&shipped);
    for (size_t i = 0; i < XN_ARRAY_LEN(make); i++)
        bench_network(make[i](1), threads);
    if (json)
        printf("\n  ]\n}\n");
}

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

static const char *step_kind(const struct xn_cpu_step *step)
{
    static const char *const convs[XN_CPU_CONV_KINDS] = {[XN_CPU_CONV_BITS] = "bits",
                                                         [XN_CPU_CONV_BYTES] = "bytes",
                                                         [XN_CPU_CONV_I16] = "int16",
                                                         [XN_CPU_CONV_DW_BITS] = "dw bits",
                                                         [XN_CPU_CONV_DW_I16] = "dw int8"};
    static const char *const others[] = {
        [XN_CPU_STEP_COPY] = "copy",         [XN_CPU_STEP_CHAIN] = "element-wise",
        [XN_CPU_STEP_MAX_POOL] = "max pool", [XN_CPU_STEP_AVERAGE_POOL] = "average pool",
        [XN_CPU_STEP_CONCAT] = "concat",     [XN_CPU_STEP_LOGITS] = "logits"};
    return step->kind == XN_CPU_STEP_CONV ? convs[step->conv.kind] : others[step->kind];
}

/** How a step's chain runs. */
static const char *step_chain(const struct xn_cpu_step *step)
{
    const bool conv = step->kind == XN_CPU_STEP_CONV;
    if (!conv && step->kind != XN_CPU_STEP_CHAIN)
        return "";
    if (conv && step->conv.slice_weights)
        return "sliced";
    if (step->chain.fused != XN_CPU_FUSED_NONE)
        return "fused";
    return step->chain.narrow ? "16 bits" : "32 bits";
}

static void print_steps(const struct xn_cpu_plan *plan, struct samples *runs)
{
    double total_ns = 0;

    for (uint32_t i = 0; i < plan->n_steps; i++)
        total_ns += samples_percentile(&runs[i], 0.5);
    if (json)
        printf("{\"network\": \"%s\", \"level\": \"%s\", \"steps\": [", plan->network->name, kernels->level);
    else
        printf("%s, level %s: %.1f us an image\n", plan->network->name, kernels->level, total_ns / 1e3);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const struct xn_cpu_step *step = &plan->steps[i];
        const struct xn_value *out = &plan->network->values[step->layer + 1];
        const double ns = samples_percentile(&runs[i], 0.5);
        if (json)
            printf("%s\n  {\"layer\": %u, \"kind\": \"%s\", \"chain\": \"%s\", \"us\": %.3f}", i ? "," : "",
                   step->layer + 1, step_kind(step), step_chain(step), ns / 1e3);
        else
            printf("%4u %-13s %-8s %4ux%ux%-5u %8.2f us %5.1f %%\n", step->layer + 1, step_kind(step), step_chain(step),
                   out->h, out->w, out->c, ns / 1e3, 100 * ns / total_ns);
    }
    if (json)
        printf("]}\n");
}

/** Each step alone, one after another as an image takes them, so that what it reads lies where it does in a run. */
static void bench_steps(const char *path)
{
    struct xn_network *network = load_file(path);
    struct xn_random random = {1};
    struct xn_cpu_plan *plan;
    struct xn_error error;

    if (xn_cpu_plan_new(network, kernels, &plan, &error) < 0)
        die(&error);
    struct samples *runs = calloc(plan->n_steps, sizeof(*runs));
    uint8_t *input = malloc(network->input_bytes), *arena = aligned_alloc(64, xn_align_up(plan->arena_bytes, 64));
    int32_t *logits = calloc(network->n_classes, sizeof(*logits));
    if (!runs || !input || !arena || !logits)
        abort();
    xn_random_bytes(&random, input, network->input_bytes);
    const struct xn_cpu_image image = {arena, input, logits};
    const uint64_t end_ns = xn_clock_now_ns() + (uint64_t)(seconds * 1e9);
    while (runs[0].n < SAMPLES_MIN || (xn_clock_now_ns() < end_ns && runs[0].n < SAMPLES_MAX))
        for (uint32_t i = 0; i < plan->n_steps; i++) {
            const uint64_t start_ns = xn_clock_now_ns();
            xn_cpu_plan_step(plan, i, &image, 0, 1);
            samples_add(&runs[i], (double)(xn_clock_now_ns() - start_ns));
        }
    print_steps(plan, runs);
    free(logits);
    free(arena);
    free(input);
    free(runs);
    xn_cpu_plan_free(plan);
    xn_network_free(network);
}

/* ---- write ------------------------------------------------------------------------------------------------------------ */

static void write_networks(const char *folder)
{
    const char *name;
    uint8_t *data;
    size_t bytes;

    for (uint32_t i = 0; (data = xn_random_known_file(i, 1, &name, &bytes)); i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s.xnor", folder, name);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
            fprintf(stderr, "xnor-bench: %s cannot be written\n", path);
            exit(1);
        }
        free(data);
    }
}

/* ---- command line ----------------------------------------------------------------------------------------------------- */

static _Noreturn void usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: xnor-bench kernels|network|steps|write [--json] [--level LEVEL] [--seconds S] [--only TEXT] "
            "[--threads N] "
            "[FILE.xnor...|FOLDER]\n"
            "  kernels    single layers with their epilogues, beside the xor + popcount ceiling of the level\n"
            "  network    whole networks: the files', else the shipped ones and well-known shapes\n"
            "  steps      where the time of each file's network goes\n"
            "  write      the well-known shapes as .xnor files into the folder that is given\n"
            "  --level    highest instruction set level to use (default: the machine's best)\n"
            "  --only     kernels: layers whose name has this in it; network: the one of this name\n"
            "  --threads  network: at most so many (default: one, and as many as an instance has)\n"
            "  --seconds  time for each layer or run (default: 0.5)\n");
    exit(status);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"level", required_argument, NULL, 'l'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *level = NULL;
    struct xn_error error;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'j':
            json = true;
            break;
        case 'l':
            level = optarg;
            break;
        case 's':
            seconds = atof(optarg);
            break;
        case 'o':
            only = optarg;
            break;
        case 't':
            threads_max = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        default:
            usage(option == 'h' ? 0 : 2);
        }
    }
    if (optind == argc)
        usage(2);
    char **files = argv + optind + 1;
    const size_t n_files = (size_t)(argc - optind - 1);
    if (xn_cpu_level_best(level, &kernels, &error) < 0)
        die(&error);
    if (strcmp(argv[optind], "kernels") == 0 && n_files == 0)
        bench_kernels();
    else if (strcmp(argv[optind], "network") == 0 && n_files == 0)
        bench_networks();
    else if (strcmp(argv[optind], "network") == 0)
        bench_files(files, n_files);
    else if (strcmp(argv[optind], "steps") == 0 && n_files > 0)
        for (size_t i = 0; i < n_files; i++)
            bench_steps(files[i]);
    else if (strcmp(argv[optind], "write") == 0 && n_files == 1)
        write_networks(files[0]);
    else
        usage(2);
    return 0;
}
