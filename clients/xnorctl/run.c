/* SPDX-License-Identifier: Apache-2.0
 * `run`: a network over raw tensors without a server, for comparing implementations (train/xnortrain/verify.py). Input and output are plain:
 * tensors one after another in, little-endian int32 logits one image after another out. Work goes in slices of some images, so that memory stays
 * small and progress can be shown. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel/accel.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/options.h"
#include "clients/xnorctl/progress.h"
#include "common/clock.h"
#include "model/reference.h"

#define THREADS_MAX 256u
#define SLICE       64u /* images */

struct options {
    const char *input, *output, *backend;
    uint64_t threads;
};

/* One way to compute a slice. */
struct engine {
    const struct xn_network *network;
    /* reference: one interpreter a thread */
    struct xn_reference *references[THREADS_MAX];
    uint32_t n_references;
    /* an accelerator */
    struct xn_accel *accel;
    struct xn_accel_model *model;
};

/* ---- the reference ------------------------------------------------------------------------------------------------ */

struct slice {
    struct engine *engine;
    const uint8_t *inputs;
    int32_t *logits;
    uint32_t n;
    atomic_uint next; /* image; relaxed: only the count matters, joining orders the results */
};

struct worker {
    struct slice *slice;
    uint32_t index;
    pthread_t thread;
};

static void *run_images(void *argument)
{
    struct worker *w = argument;
    struct slice *s = w->slice;
    const struct xn_network *n = s->engine->network;
    uint32_t i;

    while ((i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < s->n)
        xn_reference_run(s->engine->references[w->index], s->inputs + i * n->input_bytes,
                         s->logits + (size_t)i * n->n_classes);
    return NULL;
}

static int run_reference(struct engine *e, const uint8_t *inputs, uint32_t n, int32_t *logits, struct xn_error *error)
{
    struct slice slice = {.engine = e, .inputs = inputs, .logits = logits, .n = n};
    struct worker workers[THREADS_MAX];
    uint32_t started = 1;
    int r = 0;

    for (; r == 0 && started < e->n_references; started++) {
        workers[started] = (struct worker){.slice = &slice, .index = started};
        r = pthread_create(&workers[started].thread, NULL, run_images, &workers[started]);
        if (r != 0)
            break;
    }
    workers[0] = (struct worker){.slice = &slice};
    run_images(&workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    return r ? xn_error_set(error, -r, "thread %u: %s", started, strerror(r)) : 0;
}

/* ---- an accelerator ----------------------------------------------------------------------------------------------- */

static int run_accel(struct engine *e, const uint8_t *inputs, uint32_t n, int32_t *logits, struct xn_error *error)
{
    const struct xn_accel_backend *backend = xn_accel_backend(e->accel);
    const void *in[SLICE];
    int32_t *out[SLICE];
    struct xn_accel_job job = {.model = e->model, .batch = n, .inputs = in, .outputs = out};

    for (uint32_t i = 0; i < n; i++) {
        in[i] = inputs + i * e->network->input_bytes;
        out[i] = logits + (size_t)i * e->network->n_classes;
    }
    int r = backend->submit(e->accel, &job, error);
    return r < 0 ? r : backend->wait(e->accel, &job, XN_NEVER_NS, error);
}

/* "cpu" or "cpu:avx2". A level that this machine does not run is an error: a comparison must not silently be one of something else. */
static int open_accel(struct engine *e, const struct options *o, struct xn_error *error)
{
    char kind[16];
    const char *level = strchr(o->backend, ':');
    struct xn_accel_options options = {.threads = (uint32_t)o->threads, .cpu_mask = level ? level + 1 : NULL};
    uint32_t n = 0;

    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(o->backend, ":"), o->backend);
    const struct xn_accel_backend *backend = xn_accel_find(kind);
    if (!backend)
        return xn_error_set(error, -ENODEV,
                            "--backend: no accelerator is called \"%s\"; there are reference and cpu[:LEVEL]", kind);
    int r = backend->probe(&options, &n, error);
    if (r >= 0)
        r = backend->open(&options, 0, &e->accel, error);
    if (r >= 0 && level) {
        const char *geometry = xn_accel_info(e->accel)->geometry, *runs = strstr(geometry, ", ");
        if (!runs || strcmp(runs + 2, level + 1) != 0)
            return xn_error_set(error, -ENODEV, "--backend %s: this machine does not run that level (it would be %s)",
                                o->backend, geometry);
    }
    return r < 0 ? r : backend->load(e->accel, e->network, SLICE, &e->model, error);
}

/* ---- both --------------------------------------------------------------------------------------------------------- */

static int engine_init(struct engine *e, const struct options *o, struct xn_error *error)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = (uint32_t)(o->threads ? o->threads : (uint64_t)XN_MAX(cpus, 1));

    if (strcmp(o->backend, "reference") != 0)
        return open_accel(e, o, error);
    for (; e->n_references < XN_MIN(threads, THREADS_MAX); e->n_references++) {
        if (xn_reference_new(e->network, &e->references[e->n_references]) < 0)
            return xn_error_set(error, -ENOMEM, "no memory for %u threads of the reference", threads);
    }
    return 0;
}

static void engine_done(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_references; i++)
        xn_reference_free(e->references[i]);
    if (e->accel)
        xn_accel_backend(e->accel)->close(e->accel);
}

static int engine_run(struct engine *e, const uint8_t *inputs, uint32_t n, int32_t *logits, struct xn_error *error)
{
    return e->accel ? run_accel(e, inputs, n, logits, error) : run_reference(e, inputs, n, logits, error);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

struct files {
    FILE *input, *output;
    const char *input_name, *output_name;
    uint64_t images; /* of the input, where it is a file of known size; else 0 */
};

static int open_one(const char *path, const char *mode, FILE *standard, FILE **ret, struct xn_error *error)
{
    if (strcmp(path, "-") == 0) {
        *ret = standard;
        return 0;
    }
    *ret = fopen(path, mode);
    return *ret ? 0 : xn_error_set(error, -errno, "%s: %s", path, strerror(errno));
}

static int open_input(const struct options *o, const struct xn_network *network, struct files *f,
                      struct xn_error *error)
{
    struct stat info;

    f->input_name = o->input;
    int r = open_one(o->input, "rbe", stdin, &f->input, error);
    if (r < 0)
        return r;
    if (fstat(fileno(f->input), &info) == 0 && S_ISREG(info.st_mode)) {
        uint64_t bytes = (uint64_t)info.st_size;
        if (bytes == 0 || bytes % network->input_bytes != 0)
            return xn_error_set(error, -EINVAL,
                                "%s: %" PRIu64 " bytes are not whole tensors of %zu bytes ([%u][%u][%u] %s)", o->input,
                                bytes, network->input_bytes, network->input.h, network->input.w,
                                network->input.channels, xn_dtype_name(network->input.dtype));
        f->images = bytes / network->input_bytes;
    }
    return 0;
}

/* Last of all: what failed before must not have emptied a file. */
static int open_output(const struct options *o, struct files *f, struct xn_error *error)
{
    f->output_name = o->output;
    return open_one(o->output, "wbe", stdout, &f->output, error);
}

static int close_files(struct files *f, int r, struct xn_error *error)
{
    if (f->input && f->input != stdin)
        fclose(f->input);
    if (f->output && fflush(f->output) != 0 && r >= 0)
        r = xn_error_set(error, -errno, "%s: %s", f->output_name, strerror(errno));
    if (f->output && f->output != stdout && fclose(f->output) != 0 && r >= 0)
        r = xn_error_set(error, -errno, "%s: %s", f->output_name, strerror(errno));
    return r;
}

/* The next images of the input. Returns how many, 0 at its end. */
static int read_slice(struct files *f, const struct xn_network *network, uint8_t *ret, struct xn_error *error)
{
    size_t bytes = fread(ret, 1, SLICE * network->input_bytes, f->input);

    if (ferror(f->input))
        return xn_error_set(error, -EIO, "%s: %s", f->input_name, strerror(errno));
    if (bytes % network->input_bytes != 0)
        return xn_error_set(error, -EINVAL, "%s: ends within a tensor of %zu bytes", f->input_name,
                            network->input_bytes);
    return (int)(bytes / network->input_bytes);
}

static int write_slice(struct files *f, int32_t *logits, size_t n, struct xn_error *error)
{
    for (size_t i = 0; i < n; i++)
        logits[i] = (int32_t)htole32((uint32_t)logits[i]);
    if (fwrite(logits, sizeof(*logits), n, f->output) != n)
        return xn_error_set(error, -EIO, "%s: %s", f->output_name, strerror(errno));
    return 0;
}

static int run_all(struct engine *e, struct files *f, uint64_t *ret_images, struct xn_error *error)
{
    const struct xn_network *network = e->network;
    uint8_t *inputs = xn_ctl_alloc(SLICE, network->input_bytes);
    int32_t *logits = xn_ctl_alloc((size_t)SLICE * network->n_classes, sizeof(*logits));
    struct xn_progress progress;
    uint64_t images = 0;
    int n;

    xn_progress_init(&progress, "images", f->images);
    while ((n = read_slice(f, network, inputs, error)) > 0) {
        int r = engine_run(e, inputs, (uint32_t)n, logits, error);
        if (r >= 0)
            r = write_slice(f, logits, (size_t)n * network->n_classes, error);
        if (r < 0) {
            n = r;
            break;
        }
        images += (uint64_t)n;
        if (f->images)
            xn_progress_at(&progress, images, "");
    }
    xn_progress_done(&progress);
    free(inputs);
    free(logits);
    *ret_images = images;
    return n;
}

static void report(const struct xn_ctl *ctl, const struct options *o, const struct engine *e, uint64_t images,
                   uint64_t ns)
{
    char how[128];
    double per_s = ns ? (double)images * (double)XN_NS_PER_S / (double)ns : 0;

    if (e->accel)
        snprintf(how, sizeof(how), "%s", xn_accel_info(e->accel)->geometry);
    else
        snprintf(how, sizeof(how), "%u thread%s", e->n_references, e->n_references == 1 ? "" : "s");
    /* Where the logits go to standard output, nothing else may. */
    FILE *to = strcmp(o->output, "-") == 0 ? stderr : stdout;
    if (ctl->json)
        fprintf(to,
                "{\"images\": %" PRIu64
                ", \"classes\": %u, \"backend\": \"%s\", \"geometry\": \"%s\", \"seconds\": %.6f, "
                "\"images_per_s\": %.1f}\n",
                images, e->network->n_classes, o->backend, how, (double)ns / (double)XN_NS_PER_S, per_s);
    else
        fprintf(to, "%" PRIu64 " images by %s (%s) in %s, %.1f images/s; int32 logits [%" PRIu64 "][%u] in %s\n",
                images, o->backend, how, xn_words_ns((double)ns).text, per_s, images, e->network->n_classes, o->output);
}

static int run(const struct xn_ctl *ctl, const struct options *o, const char *path, struct xn_error *error)
{
    struct xn_network *network = NULL;
    struct engine *engine = xn_ctl_alloc(1, sizeof(*engine));
    struct files files = {0};
    uint64_t images = 0;

    int r = xn_network_load(path, &network, error);
    if (r < 0)
        xn_error_prefix(error, r, "%s", path);
    engine->network = network;
    if (r >= 0)
        r = open_input(o, network, &files, error);
    if (r >= 0)
        r = engine_init(engine, o, error);
    if (r >= 0)
        r = open_output(o, &files, error);
    uint64_t start_ns = xn_clock_now_ns();
    if (r >= 0)
        r = run_all(engine, &files, &images, error);
    r = close_files(&files, r, error);
    if (r >= 0)
        report(ctl, o, engine, images, xn_clock_now_ns() - start_ns);
    engine_done(engine);
    free(engine);
    xn_network_free(network);
    return r;
}

int xn_ctl_run(struct xn_ctl *ctl, int argc, char **argv)
{
    struct options o = {.backend = "cpu"};
    const struct xn_opt opts[] = {
        {"input", 'i', XN_OPT_TEXT, &o.input, 0, 0, "FILE",
         "raw tensors [h][w][c], one after another; - is standard input"},
        {"output", 'o', XN_OPT_TEXT, &o.output, 0, 0, "FILE",
         "little-endian int32 logits [image][class]; - is standard output"},
        {"backend", 'b', XN_OPT_TEXT, &o.backend, 0, 0, "NAME",
         "reference (the arithmetic specification, slow), cpu (default), or\n"
         "cpu:LEVEL: portable, popcnt, avx2, avx512bw, avx512; neon"},
        {"threads", 't', XN_OPT_U64, &o.threads, 1, THREADS_MAX, "N",
         "threads, over images (default: as many as CPUs)"},
    };
    const struct xn_opt_about about = {
        "FILE.xnor --input FILE --output FILE",
        "Run a network over raw tensors without a server. Every backend gives the same integers.",
        "Exit status: 0 done, 1 failed, 2 wrong command line.", true};
    struct xn_error error;
    char **files;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &files);
    if (n != 1)
        xn_opt_usage(ctl, "one FILE.xnor is needed");
    if (!o.input || !o.output)
        xn_opt_usage(ctl, "--input and --output are needed");
    return run(ctl, &o, files[0], &error) < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}
