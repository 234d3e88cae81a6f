/* SPDX-License-Identifier: Apache-2.0
 * The CPU as an accelerator: accel.h's slots round a plan (plan.c), kernels of one instruction set level (level.c) and a team of
 * threads (team.c).
 *
 * An instance takes one job at a time. submit hands it to the helpers; the thread that waits works too, so that with one thread
 * nothing is handed over at all. A run's deadline is looked at between images: one that passes ends the run within an image a
 * thread, and the instance is quarantined as the contract asks, although nothing still writes.
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
    uint8_t **arenas;          /* [n_arenas], one a thread */
    _Atomic uint64_t image_ns; /* expected time of one image on one thread; a smoothed guess, so relaxed */
};

enum state { READY, RUNNING, QUARANTINED };

/** struct xn_accel, seen from inside. state to started_ns belong to the thread that submits, waits and resets. */
struct cpu {
    struct xn_accel_base base; /* first: see accel.h */
    const struct xn_cpu_kernels *kernels;
    struct xn_cpu_team *team;
    uint32_t threads;
    enum state state;
    bool hung; /* accel.cpu.hang struck the job in flight */
    struct xn_accel_job *job;
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
    xn_cpu_plan_free(model->plan);
    free(model);
}

static int no_memory(const struct cpu *cpu, const struct xn_network *network, struct xn_error *error)
{
    return xn_error_set(error, -ENOMEM, "%s: no memory to load model \"%s\"", cpu->base.info.name, network->name);
}

static int take_arenas(const struct cpu *cpu, struct xn_accel_model *model)
{
    model->arenas = xn_calloc(cpu->threads, sizeof(uint8_t *));
    if (!model->arenas)
        return -ENOMEM;
    model->n_arenas = cpu->threads;
    for (uint32_t i = 0; i < cpu->threads; i++) {
        model->arenas[i] = xn_calloc_aligned(1, model->plan->arena_bytes);
        if (!model->arenas[i])
            return -ENOMEM;
    }
    return 0;
}

/** Two images of zeros: pages and caches, then a first guess of the time an image takes. */
static int warm_up(const struct cpu *cpu, struct xn_accel_model *model)
{
    const struct xn_network *network = model->plan->network;
    uint8_t *input = xn_calloc(network->input_bytes, 1);
    int32_t *logits = xn_calloc(network->n_classes, sizeof(*logits));
    const int r = input && logits ? 0 : -ENOMEM;

    for (int i = 0; r == 0 && i < 2; i++) {
        const uint64_t start_ns = xn_clock_now_ns();
        xn_cpu_plan_run(model->plan, cpu->kernels, model->arenas[0], input, logits);
        atomic_store_explicit(&model->image_ns, XN_MAX(xn_clock_now_ns() - start_ns, 1), memory_order_relaxed);
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
    int r = xn_cpu_plan_new(network, &model->plan, error);
    if (r == 0 && (r = take_arenas(cpu, model)) == 0)
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

static int cpu_cost(struct xn_accel *accel, const struct xn_accel_model *model, uint32_t batch, uint64_t *ret_ns)
{
    const uint64_t image_ns = atomic_load_explicit(&model->image_ns, memory_order_relaxed);
    *ret_ns = image_ns * xn_div_up(batch, cpu_of(accel)->threads);
    return 0;
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static void run_image(void *context, uint32_t thread, uint32_t i)
{
    struct cpu *cpu = context;
    const struct xn_accel_job *job = cpu->job;
    const struct xn_accel_model *model = job->model;
    xn_cpu_plan_run(model->plan, cpu->kernels, model->arenas[thread], job->inputs[i], job->outputs[i]);
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
        xn_cpu_team_begin(cpu->team, run_image, cpu, job->batch);
    return 0;
}

/** The guess moves an eighth of the way to what was measured. */
static void learn_cost(struct cpu *cpu, const struct xn_accel_job *job)
{
    struct xn_accel_model *model = job->model;
    const uint64_t seen = job->exec_ns / xn_div_up(job->batch, cpu->threads);
    const uint64_t guess = atomic_load_explicit(&model->image_ns, memory_order_relaxed);
    atomic_store_explicit(&model->image_ns, XN_MAX(guess - guess / 8 + seen / 8, 1), memory_order_relaxed);
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
    if (cpu->threads == 1 || job->batch == 1)
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
