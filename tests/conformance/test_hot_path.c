/* SPDX-License-Identifier: Apache-2.0
 * After a model is loaded, a batch on the CPU allocates nothing, touches no page for the first time, and takes no lock, on however many
 * threads. The program's own malloc and pthread_mutex_lock count their calls and pass them on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "accel/accel.h"
#include "common/clock.h"
#include "tests/support/random_network.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define BATCH   4u
#define BATCHES 10u /* a round */
#define ROUNDS  30u /* tries for one without a page fault: the kernel may take pages away for reasons of its own */

static _Atomic uint64_t allocations, locks;

#if !SANITIZED
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes)
{
    allocations++;
    return __libc_calloc(n, bytes);
}
void *realloc(void *memory, size_t bytes)
{
    allocations++;
    return __libc_realloc(memory, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes)
{
    allocations++;
    return __libc_memalign(alignment, bytes);
}
int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*_Atomic next)(pthread_mutex_t *);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    locks++;
    return next(mutex);
}
#endif

struct rig {
    struct xn_accel *accel;
    struct xn_network *network;
    struct xn_accel_job job;
    void *inputs[BATCH];
    int32_t *outputs[BATCH];
};

static void rig_init(struct rig *rig, uint32_t threads, struct xn_network *network)
{
    const struct xn_accel_options options = {.threads = threads};
    const struct xn_accel_backend *cpu = xn_accel_find("cpu");
    struct xn_error error;

    *rig = (struct rig){.network = network};
    if (cpu->open(&options, 0, &rig->accel, &error) < 0 ||
        cpu->load(rig->accel, network, BATCH, &rig->job.model, &error) < 0)
        fail_msg("%s", error.text);
    for (uint32_t i = 0; i < BATCH; i++) {
        rig->inputs[i] = calloc(network->input_bytes, 1);
        rig->outputs[i] = calloc(network->n_classes, sizeof(int32_t));
    }
    rig->job.inputs = (const void *const *)rig->inputs;
    rig->job.outputs = rig->outputs;
}

static void rig_done(struct rig *rig)
{
    xn_accel_backend(rig->accel)->close(rig->accel);
    for (uint32_t i = 0; i < BATCH; i++) {
        free(rig->inputs[i]);
        free(rig->outputs[i]);
    }
    xn_network_free(rig->network);
}

static void run(struct rig *rig, uint32_t batch)
{
    const struct xn_accel_backend *cpu = xn_accel_backend(rig->accel);
    struct xn_error error;
    rig->job.batch = batch;
    if (cpu->submit(rig->accel, &rig->job, &error) < 0 || cpu->wait(rig->accel, &rig->job, XN_NEVER_NS, &error) < 0)
        fail_msg("%s", error.text);
}

static long page_faults(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt + usage.ru_majflt;
}

static void check(uint32_t threads, struct xn_network *network)
{
    struct rig rig;
    bool quiet = false;

    rig_init(&rig, threads, network);
    run(&rig, 1);
    run(&rig, BATCH);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t allocations_before = allocations, locks_before = locks;
        const long faults_before = page_faults();
        for (uint32_t i = 0; i < BATCHES; i++)
            run(&rig, i % 2 ? BATCH : 1);
        const long faults = page_faults() - faults_before;
        assert_int_equal(allocations - allocations_before, 0);
        assert_int_equal(locks - locks_before, 0);
        quiet = quiet || faults == 0;
    }
    assert_true(quiet);
    rig_done(&rig);
}

static void hot_path(void **state)
{
    if (SANITIZED) {
        print_message("# skipped: sanitizers have a malloc of their own\n");
        skip();
    }
    check(*(const uint32_t *)*state, xn_random_resnet18(1));
    check(*(const uint32_t *)*state, xn_random_vgg_small(1));
}

/** The counters count: else the test above could not fail. */
static void counters_count(void **state)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    const uint64_t allocations_before = allocations, locks_before = locks;
    void *volatile memory;
    (void)state;

    if (SANITIZED) {
        print_message("# skipped: sanitizers have a malloc of their own\n");
        skip();
    }
    memory = malloc(10);
    free(memory);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    assert_int_equal(allocations - allocations_before, 1);
    assert_int_equal(locks - locks_before, 1);
}

int main(void)
{
    static uint32_t one = 1, two = 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_count),
        {.name = "hot_path [1 thread]", .test_func = hot_path, .initial_state = &one},
        {.name = "hot_path [2 threads]", .test_func = hot_path, .initial_state = &two},
    };
    return cmocka_run_group_tests_name("no allocation, lock or page fault after warm-up", tests, NULL, NULL);
}
