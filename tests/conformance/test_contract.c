/* SPDX-License-Identifier: Apache-2.0
 * The contract of accel.h, over every backend: states, ownership, refusals, batches, models beside one another, time-outs and
 * quarantine. Builds with fault points go through failures of the device and of every allocation too. */
#include "tests/conformance/targets.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/clock.h"
#include "common/fault.h"
#include "model/reference.h"
#include "tests/support/random_network.h"

#define BATCH_MAX 9u
#define UNTOUCHED INT32_C(0x5ca1ab1e) /* no logit of these tests, by their luck with the seed */

static uint64_t seed;
static struct xn_network *networks[2]; /* small ones; whole group */
static struct xn_network *slow;

/* ---- a batch and what it must give ------------------------------------------------------------------------------------ */

struct batch {
    const struct xn_network *network;
    uint8_t *memory; /* [BATCH_MAX] inputs, at odd addresses */
    const void *inputs[BATCH_MAX];
    int32_t *want[BATCH_MAX], *got[BATCH_MAX];
    uint32_t wanted; /* images whose logits are known; 2 of a slow network are enough */
    struct xn_accel_job job;
};

static void batch_init(struct batch *b, const struct xn_network *network, uint64_t stream)
{
    struct xn_random random = {seed + stream};
    struct xn_reference *reference;
    const size_t pitch = network->input_bytes | 1;

    *b = (struct batch){.network = network, .memory = malloc(1 + BATCH_MAX * pitch)};
    b->wanted = network == slow ? 2 : BATCH_MAX;
    assert_non_null(b->memory);
    assert_int_equal(xn_reference_new(network, &reference), 0);
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        uint8_t *input = b->memory + 1 + i * pitch;
        xn_random_bytes(&random, input, network->input_bytes);
        b->inputs[i] = input;
        b->want[i] = calloc(network->n_classes, sizeof(int32_t));
        b->got[i] = calloc(network->n_classes, sizeof(int32_t));
        assert_true(b->want[i] && b->got[i]);
        if (i < b->wanted)
            xn_reference_run(reference, input, b->want[i]);
    }
    xn_reference_free(reference);
    b->job = (struct xn_accel_job){.inputs = b->inputs, .outputs = b->got};
}

static void batch_done(struct batch *b)
{
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        free(b->want[i]);
        free(b->got[i]);
    }
    free(b->memory);
}

static void clear_outputs(struct batch *b)
{
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        for (uint32_t k = 0; k < b->network->n_classes; k++)
            b->got[i][k] = UNTOUCHED;
}

/** The first n images have their logits, the others were not touched. */
static void check_outputs(const struct batch *b, uint32_t n)
{
    assert_true(n <= b->wanted);
    for (uint32_t i = 0; i < BATCH_MAX; i++)
        for (uint32_t k = 0; k < b->network->n_classes; k++)
            assert_int_equal(b->got[i][k], i < n ? b->want[i][k] : UNTOUCHED);
}

static void must(int r, const struct xn_error *error)
{
    if (r < 0)
        fail_msg("%d: %s", r, error->text);
}

static void submit(struct xn_accel *accel, struct batch *b, uint32_t n)
{
    struct xn_error error;
    clear_outputs(b);
    b->job.batch = n;
    must(xn_accel_backend(accel)->submit(accel, &b->job, &error), &error);
}

static void finish(struct xn_accel *accel, struct batch *b, uint32_t n)
{
    struct xn_error error;
    must(xn_accel_backend(accel)->wait(accel, &b->job, XN_NEVER_NS, &error), &error);
    check_outputs(b, n);
}

static struct xn_accel_model *load(struct xn_accel *accel, const struct xn_network *network, uint32_t max_batch)
{
    struct xn_accel_model *model = NULL;
    struct xn_error error;
    must(xn_accel_backend(accel)->load(accel, network, max_batch, &model, &error), &error);
    assert_non_null(model);
    return model;
}

/** Submit and wait must still work, and give the right integers. */
static void check_ready(struct xn_accel *accel, struct batch *b)
{
    submit(accel, b, 2);
    finish(accel, b, 2);
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static void probe_and_open(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0), *other = NULL;
    const struct xn_accel_info *info = xn_accel_info(accel);
    struct xn_error error;
    uint32_t n = 0;

    assert_int_equal(target->backend->probe(&target->options, &n, &error), 0);
    assert_true(n >= 1);
    assert_ptr_equal(xn_accel_backend(accel), target->backend);
    assert_string_equal(info->kind, target->backend->kind);
    assert_true(info->name[0] && info->device[0] && info->geometry[0]);
    assert_in_range(info->inflight_max, 1, XN_ACCEL_INFLIGHT_MAX);
    assert_int_equal(target->backend->open(&target->options, n, &other, &error), -EINVAL);
    assert_null(other);
    assert_non_null(strstr(error.text, "instance"));
    target->backend->close(accel);
    target->backend->close(NULL);
    assert_ptr_equal(xn_accel_find(target->backend->kind), target->backend);
    assert_null(xn_accel_find("no such kind"));
}

/** Several instances: different names, and each runs while another does. */
static void instances_are_independent(void **state)
{
    struct target target = *(struct target *)*state;
    struct xn_accel *accel[2];
    struct batch b[2];

    struct xn_error error;
    uint32_t n;

    target.options.instances = 2;
    if (target.backend->probe(&target.options, &n, &error) == -EINVAL) {
        print_message("# one instance only: %s\n", error.text);
        skip();
    }
    for (uint32_t i = 0; i < 2; i++) {
        accel[i] = target_open(&target, i);
        batch_init(&b[i], networks[i], i);
        b[i].job.model = load(accel[i], networks[i], BATCH_MAX);
    }
    assert_string_not_equal(xn_accel_info(accel[0])->name, xn_accel_info(accel[1])->name);
    submit(accel[0], &b[0], BATCH_MAX);
    submit(accel[1], &b[1], BATCH_MAX);
    finish(accel[1], &b[1], BATCH_MAX);
    finish(accel[0], &b[0], BATCH_MAX);
    for (uint32_t i = 0; i < 2; i++) {
        target.backend->close(accel[i]);
        batch_done(&b[i]);
    }
}

static void cpu_options(void **state)
{
    const struct xn_accel_backend *cpu = xn_accel_find("cpu");
    struct xn_accel_options options = {.cpu_mask = "sse9"};
    struct xn_accel *accel = NULL;
    struct xn_error error;
    uint32_t n = 77;
    (void)state;

    assert_int_equal(cpu->probe(&options, &n, &error), -EINVAL);
    assert_int_equal(n, 77);
    assert_non_null(strstr(error.text, "sse9"));
    for (size_t i = 0; i < xn_cpu_levels(); i++)
        assert_non_null(strstr(error.text, xn_cpu_level_at(i)->level));
    assert_int_equal(cpu->open(&options, 0, &accel, &error), -EINVAL);
    options = (struct xn_accel_options){.threads = 100000};
    assert_int_equal(cpu->probe(&options, &n, &error), -EINVAL);
    options = (struct xn_accel_options){.instances = 100000};
    assert_int_equal(cpu->probe(&options, &n, NULL), -EINVAL);

    options = (struct xn_accel_options){.threads = 2, .instances = 3, .cpu_mask = "portable"};
    assert_int_equal(cpu->probe(&options, &n, &error), 0);
    assert_int_equal(n, 3);
    assert_int_equal(cpu->open(&options, 2, &accel, &error), 0);
    assert_string_equal(xn_accel_info(accel)->name, "cpu2");
    assert_string_equal(xn_accel_info(accel)->geometry, "2 threads, portable");
    cpu->close(accel);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static void every_batch_size(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct batch b;

    batch_init(&b, networks[0], 1);
    b.job.model = load(accel, networks[0], BATCH_MAX);
    for (uint32_t n = 1; n <= BATCH_MAX; n++) {
        submit(accel, &b, n);
        finish(accel, &b, n);
        assert_true(b.job.exec_ns > 0);
    }
    target->backend->unload(accel, b.job.model);
    target->backend->close(accel);
    batch_done(&b);
}

static void several_models(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct xn_accel_model *twin;
    struct batch b[2];

    for (uint32_t i = 0; i < 2; i++) {
        batch_init(&b[i], networks[i], i);
        b[i].job.model = load(accel, networks[i], BATCH_MAX);
    }
    twin = load(accel, networks[0], 1); /* the same network once more is another model */
    assert_ptr_not_equal(twin, b[0].job.model);
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t i = 0; i < 2; i++) {
            submit(accel, &b[i], 3 + round);
            finish(accel, &b[i], 3 + round);
        }
    target->backend->unload(accel, twin);
    target->backend->unload(accel, b[1].job.model);
    check_ready(accel, &b[0]);
    b[1].job.model = load(accel, networks[1], 2);
    check_ready(accel, &b[1]);
    target->backend->close(accel); /* both still loaded */
    batch_done(&b[0]);
    batch_done(&b[1]);
}

struct reloader {
    struct xn_accel *accel;
    atomic_bool stop;
    atomic_uint loads;
};

static void *reload_until_stopped(void *argument)
{
    struct reloader *r = argument;
    const struct xn_accel_backend *backend = xn_accel_backend(r->accel);
    while (!atomic_load(&r->stop)) {
        struct xn_accel_model *model;
        if (backend->load(r->accel, networks[1], 4, &model, NULL) < 0)
            break;
        backend->unload(r->accel, model);
        atomic_fetch_add(&r->loads, 1);
    }
    return NULL;
}

/** Models come and go while another runs. */
static void hot_load(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct reloader reloader = {.accel = accel};
    pthread_t thread;
    struct batch b;

    batch_init(&b, networks[0], 1);
    b.job.model = load(accel, networks[0], BATCH_MAX);
    assert_int_equal(pthread_create(&thread, NULL, reload_until_stopped, &reloader), 0);
    for (uint32_t round = 0; round < 40 || atomic_load(&reloader.loads) < 4; round++) {
        submit(accel, &b, 1 + round % BATCH_MAX);
        finish(accel, &b, 1 + round % BATCH_MAX);
    }
    atomic_store(&reloader.stop, true);
    pthread_join(thread, NULL);
    target->backend->close(accel);
    batch_done(&b);
}

static void inflight_limit(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    const uint32_t limit = xn_accel_info(accel)->inflight_max;
    struct batch b[XN_ACCEL_INFLIGHT_MAX + 1];
    struct xn_accel_model *model = load(accel, networks[0], BATCH_MAX);
    struct xn_error error;

    for (uint32_t i = 0; i <= limit; i++) {
        batch_init(&b[i], networks[0], i);
        b[i].job.model = model;
        if (i < limit)
            submit(accel, &b[i], 2);
    }
    clear_outputs(&b[limit]);
    b[limit].job.batch = 2;
    assert_int_equal(target->backend->submit(accel, &b[limit].job, &error), -EBUSY);
    assert_int_equal(target->backend->wait(accel, &b[limit].job, XN_NEVER_NS, &error), -EINVAL);
    for (uint32_t i = 0; i < limit; i++)
        finish(accel, &b[i], 2);
    check_outputs(&b[limit], 0);
    assert_int_equal(target->backend->wait(accel, &b[0].job, XN_NEVER_NS, &error), -EINVAL);
    check_ready(accel, &b[limit]);
    target->backend->close(accel);
    for (uint32_t i = 0; i <= limit; i++)
        batch_done(&b[i]);
}

/* Where a backend can be asked whether a job has ended: it stays in flight until wait, whatever the answer was. */
static void polled(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct batch b;

    if (!target->backend->poll) {
        target->backend->close(accel);
        print_message("# skipped: %s has no poll\n", target->backend->kind);
        return;
    }
    batch_init(&b, networks[0], 1);
    b.job.model = load(accel, networks[0], BATCH_MAX);
    submit(accel, &b, 2);
    int r = target->backend->poll(accel, &b.job, 0);
    assert_true(r == 0 || r == -EAGAIN);
    assert_int_equal(target->backend->poll(accel, &b.job, XN_NEVER_NS), 0);
    assert_int_equal(target->backend->poll(accel, &b.job, XN_NEVER_NS), 0);
    finish(accel, &b, 2);
    check_ready(accel, &b);
    target->backend->close(accel);
    batch_done(&b);
}

static void wrong_arguments(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct xn_accel_model *model = NULL;
    struct xn_error error;
    struct batch b;

    assert_int_equal(target->backend->load(accel, networks[0], 0, &model, &error), -EINVAL);
    assert_int_equal(target->backend->load(accel, networks[0], XN_ACCEL_BATCH_MAX + 1, &model, &error), -EINVAL);
    assert_null(model);
    batch_init(&b, networks[0], 1);
    clear_outputs(&b);
    b.job.model = load(accel, networks[0], 4);
    b.job.batch = 0;
    assert_int_equal(target->backend->submit(accel, &b.job, &error), -EINVAL);
    b.job.batch = 5;
    assert_int_equal(target->backend->submit(accel, &b.job, &error), -EINVAL);
    assert_non_null(strstr(error.text, "5"));
    assert_int_equal(target->backend->submit(accel, &b.job, NULL), -EINVAL);
    check_outputs(&b, 0);
    assert_int_equal(target->backend->reset(accel, &error), 0); /* a ready instance stays ready */
    check_ready(accel, &b);
    target->backend->close(accel);
    batch_done(&b);
}

static void optional_slots(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct xn_accel_model *model = load(accel, networks[0], BATCH_MAX);
    uint64_t one_ns = 0, many_ns = 0;
    double watts = -1;

    if (target->backend->cost) {
        assert_int_equal(target->backend->cost(accel, model, 1, &one_ns), 0);
        assert_int_equal(target->backend->cost(accel, model, BATCH_MAX, &many_ns), 0);
        assert_true(one_ns > 0 && many_ns >= one_ns);
    }
    if (target->backend->power) {
        const int r = target->backend->power(accel, &watts);
        assert_true(r == -ENODATA || (r == 0 && watts > 0));
    }
    target->backend->close(accel);
}

/* ---- time-outs, failures ---------------------------------------------------------------------------------------------- */

/** After a time-out: nothing is taken until a reset, then all is as before, the models too. */
static void check_quarantine(struct xn_accel *accel, struct batch *other)
{
    const struct xn_accel_backend *backend = xn_accel_backend(accel);
    struct xn_error error;

    other->job.batch = 1;
    assert_int_equal(backend->submit(accel, &other->job, &error), -ESTALE);
    must(backend->reset(accel, &error), &error);
    check_ready(accel, other);
}

static void timeout(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct xn_error error;
    struct batch b, other;
    const void *inputs[256];
    int32_t *outputs[256];

    batch_init(&other, networks[0], 1);
    other.job.model = load(accel, networks[0], BATCH_MAX);
    batch_init(&b, slow, 2);
    for (uint32_t i = 0; i < 256; i++) {
        inputs[i] = b.inputs[i % BATCH_MAX];
        outputs[i] = b.got[0]; /* what it holds is not looked at */
    }
    struct xn_accel_job job = {.model = load(accel, slow, 256), .batch = 256, .inputs = inputs, .outputs = outputs};
    for (uint32_t i = 0; i < 256; i++)
        outputs[i] = calloc(slow->n_classes, sizeof(int32_t));
    must(target->backend->submit(accel, &job, &error), &error);
    assert_int_equal(target->backend->wait(accel, &job, xn_clock_now_ns() + 1, &error), -ETIMEDOUT);
    assert_true(error.text[0]);
    check_quarantine(accel, &other);
    for (uint32_t i = 0; i < 256; i++)
        free(outputs[i]); /* after the reset they are ours */
    b.job.model = job.model;
    check_ready(accel, &b);
    target->backend->close(accel);
    batch_done(&b);
    batch_done(&other);
}

static void close_while_running(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct batch b;

    batch_init(&b, slow, 2);
    b.job.model = load(accel, slow, BATCH_MAX);
    submit(accel, &b, BATCH_MAX);
    target->backend->close(accel);
    batch_done(&b); /* a backend that still wrote would be found by the sanitizers */
}

#ifdef XN_FAULTS

static char *point(const struct target *target, const char *what)
{
    static char name[48];
    snprintf(name, sizeof(name), "accel.%s.%s", target->backend->kind, what);
    return name;
}

static void faults_quarantine(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    struct xn_error error;
    struct batch b;

    batch_init(&b, networks[0], 1);
    b.job.model = load(accel, networks[0], BATCH_MAX);
    b.job.batch = 3;

    xn_fault_arm(point(target, "submit"), 1, false);
    assert_int_equal(target->backend->submit(accel, &b.job, &error), -EIO);
    check_quarantine(accel, &b);

    xn_fault_arm(point(target, "wait"), 1, false);
    submit(accel, &b, 3);
    assert_int_equal(target->backend->wait(accel, &b.job, XN_NEVER_NS, &error), -EIO);
    xn_fault_arm(point(target, "reset"), 1, false);
    assert_int_equal(target->backend->reset(accel, &error), -EIO);
    check_quarantine(accel, &b);

    xn_fault_arm(point(target, "hang"), 1, false);
    submit(accel, &b, 3);
    const uint64_t deadline_ns = xn_clock_now_ns() + 3 * XN_NS_PER_MS;
    assert_int_equal(target->backend->wait(accel, &b.job, deadline_ns, &error), -ETIMEDOUT);
    assert_true(xn_clock_now_ns() >= deadline_ns);
    check_outputs(&b, 0);
    check_quarantine(accel, &b);

    xn_fault_arm(point(target, "hang"), 1, false);
    submit(accel, &b, 3);
    target->backend->close(accel);
    batch_done(&b);
}

/** Each allocation of open and load fails in turn: an error, nothing lost, and the next try works. */
static void every_allocation_fails(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = NULL;
    struct xn_accel_model *model = NULL;
    struct xn_error error;
    uint64_t nth = 0;
    int r;

    target->backend->close(target_open(target, 0));
    do {
        xn_fault_arm("alloc", ++nth, false);
        r = target->backend->open(&target->options, 0, &accel, &error);
        assert_true(r == 0 || r == -ENOMEM);
    } while (r < 0);
    assert_true(nth > 1);
    nth = 0;
    do {
        xn_fault_arm("alloc", ++nth, false);
        r = target->backend->load(accel, networks[0], BATCH_MAX, &model, &error);
        assert_true(r == 0 || r == -ENOMEM);
        assert_true(r == 0 || strstr(error.text, networks[0]->name));
    } while (r < 0);
    assert_true(nth > 5);
    xn_fault_arm("alloc", 0, false);
    target->backend->close(accel);
}

#endif

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

/** A random network from seed *next on that no backend refuses; *next becomes the one behind it. */
static struct xn_network *network_for_all(uint64_t *next)
{
    const struct xn_isa_geometry geometry = {
        .p = 1, .pi = 1, .pr = 1, .am_rows = 100000, .rm_rows = 100000, .wb_words = 1024};

    for (;;) {
        struct xn_network *network = xn_random_network((*next)++);
        struct xn_engine_program *program = NULL;
        const int r = xn_engine_compile(network, &geometry, 1, &program, NULL);
        xn_engine_program_free(program);
        if (r == 0)
            return network;
        xn_network_free(network);
    }
}

static int make_networks(void **state)
{
    (void)state;
    uint64_t next = seed;
    networks[0] = network_for_all(&next);
    networks[1] = network_for_all(&next);
    slow = xn_random_slow(seed);
    return 0;
}

static int free_networks(void **state)
{
    (void)state;
    xn_network_free(networks[0]);
    xn_network_free(networks[1]);
    xn_network_free(slow);
    return 0;
}

int main(void)
{
    static const struct {
        const char *what;
        CMUnitTestFunction function;
    } contract[] = {
        {"probe_and_open", probe_and_open},
        {"instances_are_independent", instances_are_independent},
        {"every_batch_size", every_batch_size},
        {"several_models", several_models},
        {"hot_load", hot_load},
        {"inflight_limit", inflight_limit},
        {"polled", polled},
        {"wrong_arguments", wrong_arguments},
        {"optional_slots", optional_slots},
        {"timeout", timeout},
        {"close_while_running", close_while_running},
#ifdef XN_FAULTS
        {"faults_quarantine", faults_quarantine},
        {"every_allocation_fails", every_allocation_fails},
#endif
    };
    static struct target targets[TARGETS_MAX];
    static struct CMUnitTest tests[1 + TARGETS_MAX * XN_ARRAY_LEN(contract)];
    const size_t n_targets = targets_list(targets, false);
    size_t n = 0;

    seed = xn_random_seed(7);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(cpu_options);
    for (size_t i = 0; i < XN_ARRAY_LEN(contract); i++)
        targets_tests(tests, &n, targets, n_targets, contract[i].what, contract[i].function);
    return _cmocka_run_group_tests("accelerators keep their contract", tests, n, make_networks, free_networks);
}
