/* SPDX-License-Identifier: Apache-2.0
 * The CPU as an accelerator: accel.h's slots round a plan (plan.c), kernels of one instruction set level (level.c) and a team of
 * threads (team.c).
 *
 * An instance takes one job at a time. submit hands it to the helpers; the thread that waits works too, so that with one thread
 * nothing is handed over at all. A run's deadline is looked at between pieces: one that passes ends the run within a piece a
 * thread, and the instance is quarantined as the contract asks, although nothing still writes.
 *
 * Several threads share a batch in one of two ways. By images: each thread runs whole images, in an arena of its own; the most work a
 * second. By rows: image after image, the pixels of each step are shared out, and a step begins when the one before it is done; the
 * soonest answer to a few images. A step that takes no longer than handing it over is one thread's alone, a long one has more parts than
 * there are threads. Both are timed when a model is loaded, and learnt from every batch; a batch goes the way that is
 * expected to end first.
 *
 * Each model has an arena for each thread, taken at load; submit and wait allocate nothing. load and unload touch only their own
 * model and the list of models, so they may run beside a batch.
 *
 * Fault points: accel.cpu.submit and accel.cpu.wait fail with -EIO, accel.cpu.hang makes a job that never ends until reset,
 * accel.cpu.reset fails once to bring the instance back.
 */
#include "accel/cpu/cpu.h"
#include "accel/cpu/plan.h"
#include "accel/cpu/team.h"
#include "common/clock.h"
#include "common/fault.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct xn_accel_model {
    struct xn_accel_model *next; /* under models_lock */
    struct xn_cpu_plan *plan;
    uint32_t max_batch;
    uint32_t n_arenas;
    uint8_t **arenas; /* [n_arenas], one a thread */
    uint32_t *parts;  /* [plan->n_steps], of each step by rows */
    /* Expected times of one image; smoothed guesses, so relaxed. */
    _Atomic uint64_t image_ns;            /* on one thread */
    _Atomic uint64_t rows_ns;             /* by rows, on all threads */
    uint64_t image_best_ns, rows_best_ns; /* the best seen, at load first; the instance's thread's from then on */
};

enum state { READY, RUNNING, QUARANTINED };

/** struct xn_accel, seen from inside. state to started_ns belong to the thread that submits, waits and resets. */
struct cpu {
    struct xn_accel_base base; /* first: see accel.h */
    const struct xn_cpu_kernels *kernels;
    struct xn_cpu_team *team;
    uint32_t index, threads;
    enum state state;
    bool hung; /* accel.cpu.hang struck the job in flight */
    struct xn_accel_job *job;
    uint64_t batches; /* begun */
    bool by_rows;     /* how the job is shared */
    uint64_t started_ns;
    pthread_mutex_t models_lock; /* guards models */
    struct xn_accel_model *models;
};

static struct cpu *cpu_of(struct xn_accel *accel)
{
    return (struct cpu *)(void *)accel;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static uint32_t cpus_allowed(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return (uint32_t)XN_MAX(CPU_COUNT(&set), 1);
}

static uint32_t instances_of(const struct xn_accel_options *options)
{
    return options->instances ? options->instances : 1;
}

static uint32_t threads_of(const struct xn_accel_options *options, uint32_t index)
{
    if (options->threads)
        return options->threads;
    const uint32_t cpus = cpus_allowed(), instances = instances_of(options);
    const uint32_t share = cpus / instances + (index < cpus % instances);
    return XN_MIN(XN_MAX(share, 1), XN_CPU_THREADS_MAX);
}

static int cpu_probe(const struct xn_accel_options *options, uint32_t *ret_n, struct xn_error *error)
{
    const struct xn_cpu_kernels *kernels;
    int r = xn_cpu_level_best(options->cpu_mask, &kernels, error);
    if (r < 0)
        return r;
    if (options->threads > XN_CPU_THREADS_MAX)
        return xn_error_set(error, -EINVAL, "cpu: %u threads asked for an instance; at most %u are possible",
                            options->threads, XN_CPU_THREADS_MAX);
    if (options->instances > XN_CPU_INSTANCES_MAX)
        return xn_error_set(error, -EINVAL, "cpu: %u instances asked for; at most %u are possible", options->instances,
                            XN_CPU_INSTANCES_MAX);
    *ret_n = instances_of(options);
    return 0;
}

/** The processor's own name for itself; its architecture where it has none. */
static void name_device(char *to, size_t bytes)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");

    snprintf(to, bytes, "%s",
#if defined(__x86_64__)
             "x86-64"
#elif defined(__aarch64__)
             "aarch64"
#else
             "CPU"
#endif
    );
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(to, bytes, "%.*s", (int)bytes - 1, colon);
        break;
    }
    if (file)
        fclose(file);
}

static void describe(struct cpu *cpu, uint32_t index)
{
    struct xn_accel_info *info = &cpu->base.info;
    snprintf(info->name, sizeof(info->name), "cpu%u", index);
    snprintf(info->kind, sizeof(info->kind), "cpu");
    snprintf(info->power_domain, sizeof(info->power_domain), "cpu");
    snprintf(info->geometry, sizeof(info->geometry), "%u thread%s, %s", cpu->threads, cpu->threads == 1 ? "" : "s",
             cpu->kernels->level);
    name_device(info->device, sizeof(info->device));
    info->inflight_max = 1;
}

static int cpu_open(const struct xn_accel_options *options, uint32_t index, struct xn_accel **ret_accel,
                    struct xn_error *error)
{
    uint32_t n = 0;
    int r = cpu_probe(options, &n, error);
    if (r < 0)
        return r;
    if (index >= n)
        return xn_error_set(error, -EINVAL, "cpu: instance %u does not exist; there are %u", index, n);

    struct cpu *cpu = xn_calloc(1, sizeof(*cpu));
    if (!cpu)
        return xn_error_set(error, -ENOMEM, "cpu%u: no memory to open it", index);
    cpu->base.backend = &xn_accel_cpu;
    cpu->index = index;
    cpu->threads = threads_of(options, index);
    r = xn_cpu_level_best(options->cpu_mask, &cpu->kernels, error);
    if (r == 0)
        r = xn_cpu_team_new(index, cpu->threads - 1, &cpu->team, error);
    if (r < 0) {
        free(cpu);
        return r;
    }
    pthread_mutex_init(&cpu->models_lock, NULL);
    describe(cpu, index);
    *ret_accel = (struct xn_accel *)(void *)cpu;
    return 0;
}

/* ---- models ----------------------------------------------------------------------------------------------------------- */

static void model_free(struct xn_accel_model *model)
{
    if (!model)
        return;
    for (uint32_t i = 0; model->arenas && i < model->n_arenas; i++)
        free(model->arenas[i]);
    free(model->arenas);
    free(model->parts);
    xn_cpu_plan_free(model->plan);
    free(model);
}

static int no_memory(const struct cpu *cpu, const struct xn_network *network, struct xn_error *error)
{
    return xn_error_set(error, -ENOMEM, "%s: no memory to load model \"%s\"", cpu->base.info.name, network->name);
}

static int take_memory(const struct cpu *cpu, struct xn_accel_model *model)
{
    model->arenas = xn_calloc(cpu->threads, sizeof(uint8_t *));
    model->parts = xn_calloc(model->plan->n_steps, sizeof(*model->parts));
    if (!model->arenas || !model->parts)
        return -ENOMEM;
    model->n_arenas = cpu->threads;
    for (uint32_t i = 0; i < cpu->threads; i++) {
        model->arenas[i] = xn_calloc_aligned(1, model->plan->arena_bytes);
        if (!model->arenas[i])
            return -ENOMEM;
    }
    return 0;
}

/** One part of one step of one of a job's images. All images take turns in the first arena. */
static void run_part(const struct xn_accel_model *model, const struct xn_accel_job *job, uint32_t stage, uint32_t part)
{
    const uint32_t image = stage / model->plan->n_steps, step = stage % model->plan->n_steps;
    const struct xn_cpu_image at = {model->arenas[0], job->inputs[image], job->outputs[image]};

    xn_cpu_plan_step(model->plan, step, &at, part, model->parts[step]);
}

struct measured {
    const struct xn_accel_model *model;
    const struct xn_accel_job *job;
};

static void run_measured_part(void *context, uint32_t thread, uint32_t stage, uint32_t part)
{
    const struct measured *measured = context;
    (void)thread;
    run_part(measured->model, measured->job, stage, part);
}

/** A batch whose stages are the steps of `images` images. */
static struct xn_cpu_batch batch_by_rows(const struct xn_accel_model *model, uint32_t images, xn_cpu_team_fn *fn,
                                         void *context)
{
    return (struct xn_cpu_batch){.fn = fn,
                                 .context = context,
                                 .pieces = model->parts,
                                 .period = model->plan->n_steps,
                                 .stages = model->plan->n_steps * images};
}

#define WARM_UPS 3 /* images on one thread at least; the best counts */
#define MEASURE_NS                                                                                                     \
    (UINT64_C(20) * 1000000) /* and more by rows, which a busy machine disturbs more, as long as this has not passed */
#define MEASURES 16

/** Time of an image by rows, with a team of its own, since the instance's may be at work. */
static uint64_t time_by_rows(const struct cpu *cpu, const struct xn_accel_model *model, const struct xn_accel_job *job)
{
    struct xn_cpu_team *team;
    uint64_t best_ns = XN_NEVER_NS;

    if (cpu->threads == 1 || xn_cpu_team_new(cpu->index, cpu->threads - 1, &team, NULL) < 0)
        return XN_NEVER_NS;
    const uint64_t end_ns = xn_clock_now_ns() + MEASURE_NS;
    struct measured measured = {model, job};
    const struct xn_cpu_batch batch = batch_by_rows(model, 1, run_measured_part, &measured);
    for (int i = 0; i < WARM_UPS || (i < MEASURES && xn_clock_now_ns() < end_ns); i++) {
        const uint64_t start_ns = xn_clock_now_ns();
        xn_cpu_team_begin(team, &batch);
        if (xn_cpu_team_finish(team, XN_NEVER_NS) == 0)
            best_ns = XN_MIN(best_ns, XN_MAX(xn_clock_now_ns() - start_ns, 1));
    }
    xn_cpu_team_free(team);
    return best_ns;
}

#define PART_NS UINT64_C(2000) /* what handing over a part costs is little beside this */
#define FINE    2              /* parts a thread at most: what one thread is late with, another takes */

/** Parts of a step that takes one thread `step_ns`: one, or as many as there are threads, or a multiple of that. */
static uint32_t choose_parts(uint32_t threads, uint64_t step_ns, uint32_t most)
{
    const uint64_t worth = step_ns / PART_NS;
    const uint64_t parts = worth < threads ? worth : threads * XN_MIN(worth / threads, FINE);
    return (uint32_t)XN_MAX(XN_MIN(parts, most), 1);
}

/** Time each step on one thread, and decide how it is shared out. */
static void share_steps(const struct cpu *cpu, struct xn_accel_model *model, const struct xn_cpu_image *image)
{
    for (uint32_t s = 0; s < model->plan->n_steps; s++) {
        uint64_t best_ns = XN_NEVER_NS;
        for (int i = 0; i < WARM_UPS; i++) {
            const uint64_t start_ns = xn_clock_now_ns();
            xn_cpu_plan_step(model->plan, s, image, 0, 1);
            best_ns = XN_MIN(best_ns, xn_clock_now_ns() - start_ns);
        }
        model->parts[s] = choose_parts(cpu->threads, best_ns, xn_cpu_plan_parts(model->plan, s));
    }
}

/** Images of zeros through every arena: pages and caches; then first guesses of the times that an image takes. */
static int warm_up(const struct cpu *cpu, struct xn_accel_model *model)
{
    const struct xn_network *network = model->plan->network;
    void *input = xn_calloc(network->input_bytes, 1);
    int32_t *logits = xn_calloc(network->n_classes, sizeof(*logits));
    const struct xn_accel_job job = {.inputs = (const void *const *)&input, .outputs = &logits, .batch = 1};
    const int r = input && logits ? 0 : -ENOMEM;
    uint64_t best_ns = XN_NEVER_NS;

    for (uint32_t i = 0; r == 0 && i < model->n_arenas + WARM_UPS; i++) {
        const uint64_t start_ns = xn_clock_now_ns();
        const struct xn_cpu_image image = {model->arenas[i % model->n_arenas], input, logits};
        xn_cpu_plan_run(model->plan, &image);
        best_ns = XN_MIN(best_ns, XN_MAX(xn_clock_now_ns() - start_ns, 1));
    }
    if (r == 0) {
        model->image_best_ns = best_ns;
        share_steps(cpu, model, &(struct xn_cpu_image){model->arenas[0], input, logits});
        model->rows_best_ns = time_by_rows(cpu, model, &job);
        atomic_store_explicit(&model->image_ns, model->image_best_ns, memory_order_relaxed);
        atomic_store_explicit(&model->rows_ns, model->rows_best_ns, memory_order_relaxed);
    }
    free(input);
    free(logits);
    return r;
}

static int cpu_load(struct xn_accel *accel, const struct xn_network *network, uint32_t max_batch,
                    struct xn_accel_model **ret_model, struct xn_error *error)
{
    struct cpu *cpu = cpu_of(accel);

    if (max_batch == 0 || max_batch > XN_ACCEL_BATCH_MAX)
        return xn_error_set(error, -EINVAL, "%s: model \"%s\" asks for batches of %u; 1 to %u are possible",
                            cpu->base.info.name, network->name, max_batch, XN_ACCEL_BATCH_MAX);
    struct xn_accel_model *model = xn_calloc(1, sizeof(*model));
    if (!model)
        return no_memory(cpu, network, error);
    model->max_batch = max_batch;
    int r = xn_cpu_plan_new(network, cpu->kernels, &model->plan, error);
    if (r == 0 && (r = take_memory(cpu, model)) == 0)
        r = warm_up(cpu, model);
    if (r < 0) {
        model_free(model);
        return r == -ENOMEM ? no_memory(cpu, network, error) : r;
    }
    pthread_mutex_lock(&cpu->models_lock);
    model->next = cpu->models;
    cpu->models = model;
    pthread_mutex_unlock(&cpu->models_lock);
    *ret_model = model;
    return 0;
}

static void cpu_unload(struct xn_accel *accel, struct xn_accel_model *model)
{
    struct cpu *cpu = cpu_of(accel);

    pthread_mutex_lock(&cpu->models_lock);
    struct xn_accel_model **at = &cpu->models;
    while (*at && *at != model)
        at = &(*at)->next;
    assert(*at == model);
    *at = model->next;
    pthread_mutex_unlock(&cpu->models_lock);
    model_free(model);
}

/** Expected time of a batch each way. */
static uint64_t images_cost(const struct cpu *cpu, const struct xn_accel_model *model, uint32_t batch)
{
    return atomic_load_explicit(&model->image_ns, memory_order_relaxed) * xn_div_up(batch, cpu->threads);
}
static uint64_t rows_cost(const struct cpu *cpu, const struct xn_accel_model *model, uint32_t batch)
{
    const uint64_t image_ns = atomic_load_explicit(&model->rows_ns, memory_order_relaxed);
    const uint64_t stages = (uint64_t)model->plan->n_steps * batch;
    return cpu->threads == 1 || image_ns == XN_NEVER_NS || stages > INT32_MAX ? XN_NEVER_NS : image_ns * batch;
}

static int cpu_cost(struct xn_accel *accel, const struct xn_accel_model *model, uint32_t batch, uint64_t *ret_ns)
{
    const struct cpu *cpu = cpu_of(accel);
    *ret_ns = XN_MIN(images_cost(cpu, model, batch), rows_cost(cpu, model, batch));
    return 0;
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static void run_piece(void *context, uint32_t thread, uint32_t stage, uint32_t i)
{
    struct cpu *cpu = context;
    const struct xn_accel_job *job = cpu->job;
    const struct xn_accel_model *model = job->model;

    if (cpu->by_rows) {
        run_part(model, job, stage, i);
        return;
    }
    const struct xn_cpu_image image = {model->arenas[thread], job->inputs[i], job->outputs[i]};
    xn_cpu_plan_run(model->plan, &image);
}

#define EXPLORE 100 /* batches */

static void begin(struct cpu *cpu, const struct xn_accel_job *job)
{
    const struct xn_accel_model *model = job->model;
    const uint64_t rows_ns = rows_cost(cpu, model, job->batch), images_ns = images_cost(cpu, model, job->batch);
    cpu->by_rows = rows_ns < images_ns;
    /* Now and then the other way, within reason: it may have been measured at a bad moment. */
    if (++cpu->batches % EXPLORE == 0 && rows_ns != XN_NEVER_NS &&
        XN_MAX(rows_ns, images_ns) < 3 * XN_MIN(rows_ns, images_ns))
        cpu->by_rows = !cpu->by_rows;
    if (cpu->by_rows) {
        const struct xn_cpu_batch by_rows = batch_by_rows(model, job->batch, run_piece, cpu);
        xn_cpu_team_begin(cpu->team, &by_rows);
        return;
    }
    const struct xn_cpu_batch by_images = {
        .fn = run_piece, .context = cpu, .pieces = &job->batch, .period = 1, .stages = 1};
    xn_cpu_team_begin(cpu->team, &by_images);
}

static int cpu_submit(struct xn_accel *accel, struct xn_accel_job *job, struct xn_error *error)
{
    struct cpu *cpu = cpu_of(accel);
    const char *name = cpu->base.info.name;

    if (cpu->state == QUARANTINED)
        return xn_error_set(error, -ESTALE, "%s: quarantined after a failed run; it takes jobs again after a reset",
                            name);
    if (cpu->state == RUNNING)
        return xn_error_set(error, -EBUSY, "%s: a batch is running; it takes one at a time", name);
    if (job->batch == 0 || job->batch > job->model->max_batch)
        return xn_error_set(error, -EINVAL, "%s: batch of %u images; model \"%s\" was loaded for 1 to %u", name,
                            job->batch, job->model->plan->network->name, job->model->max_batch);
    if (XN_FAULT("accel.cpu.submit")) {
        cpu->state = QUARANTINED;
        return xn_error_set(error, -EIO, "%s: submit failed (injected fault)", name);
    }
    cpu->job = job;
    cpu->hung = XN_FAULT("accel.cpu.hang");
    cpu->state = RUNNING;
    cpu->started_ns = xn_clock_now_ns();
    if (!cpu->hung)
        begin(cpu, job);
    return 0;
}

/** What was measured counts as twice the guess at most: one batch that was held up says little about the next. */
static void move_guess(_Atomic uint64_t *guess_ns, uint64_t to_ns, uint64_t divisor)
{
    const uint64_t guess = atomic_load_explicit(guess_ns, memory_order_relaxed);
    if (guess == XN_NEVER_NS)
        return;
    to_ns = XN_MIN(to_ns, 2 * guess);
    atomic_store_explicit(guess_ns, XN_MAX(guess - guess / divisor + to_ns / divisor, 1), memory_order_relaxed);
}

/** The guess of the way that was taken moves an eighth of the way to what was measured, the other one slowly to the best that it ever
 *  was: a way that was slow for a while, because the machine was busy, is tried again. */
static void learn_cost(struct cpu *cpu, const struct xn_accel_job *job)
{
    struct xn_accel_model *model = job->model;
    const uint64_t seen = job->exec_ns / (cpu->by_rows ? job->batch : xn_div_up(job->batch, cpu->threads));

    uint64_t *best_ns = cpu->by_rows ? &model->rows_best_ns : &model->image_best_ns;
    *best_ns = XN_MIN(*best_ns, XN_MAX(seen, 1));
    move_guess(cpu->by_rows ? &model->rows_ns : &model->image_ns, seen, 8);
    if (cpu->by_rows)
        move_guess(&model->image_ns, model->image_best_ns, 64);
    else
        move_guess(&model->rows_ns, model->rows_best_ns, 64);
}

static int hang(uint64_t deadline_ns)
{
    const struct timespec until = xn_clock_timespec(deadline_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
    return -ETIMEDOUT;
}

static int cpu_wait(struct xn_accel *accel, struct xn_accel_job *job, uint64_t deadline_ns, struct xn_error *error)
{
    struct cpu *cpu = cpu_of(accel);
    const char *name = cpu->base.info.name;

    if (cpu->state != RUNNING || cpu->job != job)
        return xn_error_set(error, -EINVAL, "%s: wait for a job that is not in flight", name);
    if (cpu->threads == 1 || (job->batch == 1 && !cpu->by_rows))
        cpu->started_ns = xn_clock_now_ns(); /* nobody has begun before */
    const bool failed = XN_FAULT("accel.cpu.wait");
    int r = cpu->hung ? hang(deadline_ns) : xn_cpu_team_finish(cpu->team, failed ? 0 : deadline_ns);
    cpu->job = NULL;
    if (r == 0 && !failed) {
        job->exec_ns = xn_clock_now_ns() - cpu->started_ns;
        learn_cost(cpu, job);
        cpu->state = READY;
        return 0;
    }
    cpu->state = QUARANTINED;
    if (failed)
        return xn_error_set(error, -EIO, "%s: the run failed (injected fault); quarantined until a reset", name);
    return xn_error_set(error, -ETIMEDOUT,
                        "%s: a batch of %u images of model \"%s\" did not end by its deadline; "
                        "quarantined until a reset",
                        name, job->batch, job->model->plan->network->name);
}

static int cpu_reset(struct xn_accel *accel, struct xn_error *error)
{
    struct cpu *cpu = cpu_of(accel);

    if (cpu->state != QUARANTINED)
        return 0;
    if (XN_FAULT("accel.cpu.reset"))
        return xn_error_set(error, -EIO, "%s: reset failed (injected fault)", cpu->base.info.name);
    cpu->hung = false;
    cpu->state = READY;
    return 0;
}

static void cpu_close(struct xn_accel *accel)
{
    if (!accel)
        return;
    struct cpu *cpu = cpu_of(accel);
    if (cpu->state == RUNNING && !cpu->hung && xn_cpu_team_finish(cpu->team, 0) < 0)
        cpu->state = QUARANTINED;
    xn_cpu_team_free(cpu->team);
    while (cpu->models)
        cpu_unload(accel, cpu->models);
    pthread_mutex_destroy(&cpu->models_lock);
    free(cpu);
}

const struct xn_accel_backend xn_accel_cpu = {
    .kind = "cpu",
    .probe = cpu_probe,
    .open = cpu_open,
    .load = cpu_load,
    .unload = cpu_unload,
    .submit = cpu_submit,
    .wait = cpu_wait,
    .reset = cpu_reset,
    .close = cpu_close,
    .cost = cpu_cost,
};
