/* SPDX-License-Identifier: Apache-2.0
 * The backend xrt over XRT in the process (tests/support/fake_xrt.h): what it makes of cards, units, files and failures. The contract as such is
 * tests/conformance's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/xrt/xrt.h"
#include "common/clock.h"
#include "model/reference.h"
#include "tests/support/fake_xrt.h"
#include "tests/support/random_network.h"

#define BATCH_MAX 70u /* more than a turn */

static const struct xn_accel_options options = {.image = "fake.xclbin"};

static struct xn_accel *open_instance(uint32_t index)
{
    struct xn_accel *accel;
    struct xn_error error;

    if (xn_accel_xrt.open(&options, index, &accel, &error) < 0)
        fail_msg("%s", error.text);
    return accel;
}

/** A network on an instance, and a batch for it. */
struct bed {
    struct xn_accel *accel;
    struct xn_network *network;
    struct xn_accel_model *model;
    uint8_t *input;
    int32_t *got, *want;
    const void *inputs[BATCH_MAX];
    int32_t *outputs[BATCH_MAX];
    struct xn_accel_job job;
};

static void bed_load(struct bed *bed, struct xn_accel *accel, uint64_t seed)
{
    struct xn_random random = {seed};
    struct xn_reference *reference;
    struct xn_error error;

    *bed = (struct bed){.accel = accel, .network = xn_random_one_pixel(seed)};
    const struct xn_network *n = bed->network;
    if (xn_accel_xrt.load(accel, n, BATCH_MAX, &bed->model, &error) < 0)
        fail_msg("%s", error.text);
    bed->input = malloc(BATCH_MAX * n->input_bytes);
    bed->got = malloc(BATCH_MAX * n->n_classes * sizeof(int32_t));
    bed->want = malloc(BATCH_MAX * n->n_classes * sizeof(int32_t));
    assert_true(bed->input && bed->got && bed->want && xn_reference_new(n, &reference) == 0);
    xn_random_bytes(&random, bed->input, BATCH_MAX * n->input_bytes);
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        bed->inputs[i] = bed->input + i * n->input_bytes;
        bed->outputs[i] = bed->got + i * n->n_classes;
        xn_reference_run(reference, bed->inputs[i], bed->want + i * n->n_classes);
    }
    bed->job = (struct xn_accel_job){.model = bed->model, .inputs = bed->inputs, .outputs = bed->outputs};
    xn_reference_free(reference);
}

static void bed_free(struct bed *bed)
{
    xn_network_free(bed->network);
    free(bed->input);
    free(bed->got);
    free(bed->want);
}

/** Run `batch` images; 0: and they are right. */
static int run(struct bed *bed, uint32_t batch, uint64_t patience_ns)
{
    struct xn_error error = {{0}};

    memset(bed->got, 0x5a, BATCH_MAX * bed->network->n_classes * sizeof(int32_t));
    bed->job.batch = batch;
    int r = xn_accel_xrt.submit(bed->accel, &bed->job, &error);
    if (r == 0)
        r = xn_accel_xrt.wait(bed->accel, &bed->job, xn_clock_now_ns() + patience_ns, &error);
    if (r == 0)
        assert_memory_equal(bed->got, bed->want, batch * bed->network->n_classes * sizeof(int32_t));
    else
        assert_true(error.text[0]);
    return r;
}

static int use(struct fake_xrt *state)
{
    xn_xrt_module_replace(fake_xrt_api(state));
    return 0;
}

/** Nothing is left of the card. */
static void done(struct fake_xrt *state)
{
    assert_int_equal(state->buffers, 0);
    assert_int_equal(state->memory_used, 0);
    xn_xrt_module_replace(NULL);
}

#define LONG_NS (10 * XN_NS_PER_S)

static void test_instances(void **unused)
{
    struct fake_xrt state = {.cards = 2, .units = 3};
    struct xn_accel_options some = options;
    struct xn_error error;
    uint32_t n = 0;
    (void)unused;

    use(&state);
    assert_int_equal(xn_accel_xrt.probe(&options, &n, NULL), 0);
    assert_int_equal(n, 6);
    some.device = "1";
    assert_int_equal(xn_accel_xrt.probe(&some, &n, NULL), 0);
    assert_int_equal(n, 3);
    some.instances = 4;
    assert_int_equal(xn_accel_xrt.probe(&some, &n, &error), -EINVAL);
    some = (struct xn_accel_options){.image = "missing.xclbin"};
    assert_int_equal(xn_accel_xrt.probe(&some, &n, &error), -ENODEV);
    some.image = "other.txt";
    assert_int_equal(xn_accel_xrt.probe(&some, &n, &error), -EINVAL);
    some.image = NULL;
    assert_int_equal(xn_accel_xrt.probe(&some, &n, &error), -EINVAL);
    struct xn_accel *first = open_instance(0), *last = open_instance(5), *same = open_instance(3);
    assert_string_equal(xn_accel_info(first)->name, "xrt0.0");
    assert_string_equal(xn_accel_info(last)->name, "xrt1.2");
    assert_string_equal(xn_accel_info(last)->geometry, "P4 PE16 S64 PI2 PR2");
    assert_int_equal(state.opened, 2); /* units of a card share it */
    xn_accel_xrt.close(first);
    xn_accel_xrt.close(last);
    xn_accel_xrt.close(same);
    done(&state);
}

static void test_what_cannot_be_opened(void **unused)
{
    struct fake_xrt state = {.busy_units = 1};
    struct xn_accel *accel;
    struct xn_error error;
    (void)unused;

    use(&state);
    assert_int_equal(xn_accel_xrt.open(&options, 0, &accel, &error), -EBUSY);
    assert_non_null(strstr(error.text, "another process"));
    state = (struct fake_xrt){.version = (XN_ISA_MAJOR + 1) << 16};
    assert_int_equal(xn_accel_xrt.open(&options, 0, &accel, &error), -ENODEV);
    state = (struct fake_xrt){.version = XN_ISA_MAJOR << 16}; /* an engine without turns */
    assert_int_equal(xn_accel_xrt.open(&options, 0, &accel, &error), -ENODEV);
    assert_non_null(strstr(error.text, "build it anew"));
    state = (struct fake_xrt){.silent_at = 1};
    assert_int_equal(xn_accel_xrt.open(&options, 0, &accel, &error), -ENODEV);
    assert_non_null(strstr(error.text, "no status"));
    state = (struct fake_xrt){.loaded = "another"}; /* by another process, between our load and our look */
    assert_int_equal(xn_accel_xrt.open(&options, 0, &accel, &error), -EBUSY);
    assert_non_null(strstr(error.text, "fake.xclbin"));
    assert_non_null(strstr(error.text, "loaded another and not fake"));
    done(&state);
}

/** Nothing of a model trusts another file's units: not those of a file that was replaced either, when a reset loads it. */
static void test_a_reset_loads_what_was_opened(void **unused)
{
    struct fake_xrt state = {0};
    struct xn_error error;
    struct bed bed;
    (void)unused;

    use(&state);
    bed_load(&bed, open_instance(0), 11);
    state.fail_at = 1;
    assert_int_equal(run(&bed, 1, LONG_NS), -EIO);
    state.loaded = "replaced";
    assert_int_equal(xn_accel_xrt.reset(bed.accel, &error), -EIO);
    assert_non_null(strstr(error.text, "replaced"));
    state.loaded = NULL;
    assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), 0);
    assert_int_equal(run(&bed, 1, LONG_NS), 0);
    xn_accel_xrt.close(bed.accel);
    bed_free(&bed);
    done(&state);
}

/** The fabric beside a processor: what the host reads is cached there, and nowhere else. */
static void test_memory_of_the_host(void **unused)
{
    struct fake_xrt card = {0}, zynq = {.is_embedded = true};
    struct bed bed;
    (void)unused;

    for (struct fake_xrt *state = &card; state; state = state == &card ? &zynq : NULL) {
        use(state);
        bed_load(&bed, open_instance(0), 12);
        assert_int_equal(run(&bed, 5, LONG_NS), 0);
        assert_string_equal(xn_accel_info(bed.accel)->power_domain, state->is_embedded ? "" : "0000:01:00.1");
        /* Output and status of each place for a job: of the program of one END, and of the network. */
        assert_int_equal(state->cached, state->is_embedded ? 2 * 2 * XN_XRT_INFLIGHT : 0);
        xn_accel_xrt.close(bed.accel);
        bed_free(&bed);
        done(state);
    }
}

static void test_batches(void **unused)
{
    struct fake_xrt state = {0};
    struct bed bed;
    uint64_t one_ns, most_ns;
    (void)unused;

    use(&state);
    bed_load(&bed, open_instance(0), 1);
    for (uint32_t batch = 1; batch <= BATCH_MAX; batch += 23)
        assert_int_equal(run(&bed, batch, LONG_NS), 0);
    assert_int_equal(xn_accel_xrt.cost(bed.accel, bed.model, 1, &one_ns), 0);
    assert_int_equal(xn_accel_xrt.cost(bed.accel, bed.model, BATCH_MAX, &most_ns), 0);
    assert_true(one_ns > 0 && most_ns > one_ns && most_ns < 2 * BATCH_MAX * one_ns);
    xn_accel_xrt.close(bed.accel);
    bed_free(&bed);
    done(&state);
}

/** Each way a run can go wrong quarantines; a reset brings it back, and its models. */
static void test_failed_runs(void **unused)
{
    struct fake_xrt state = {0};
    uint32_t *const faults[] = {&state.fail_at, &state.silent_at, &state.wrong_at, &state.hang_at};
    struct bed bed;
    (void)unused;

    use(&state);
    bed_load(&bed, open_instance(0), 2);
    for (size_t i = 0; i < XN_ARRAY_LEN(faults); i++) {
        *faults[i] = 1;
        assert_int_equal(run(&bed, 3, 20 * XN_NS_PER_MS), faults[i] == &state.hang_at ? -ETIMEDOUT : -EIO);
        assert_int_equal(run(&bed, 3, LONG_NS), -ESTALE);
        assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), 0);
        assert_int_equal(state.resets, i + 1);
        assert_int_equal(run(&bed, 3, LONG_NS), 0);
    }
    xn_accel_xrt.close(bed.accel);
    bed_free(&bed);
    done(&state);
}

/** A card that is away for a while; a unit that still hangs after its reset. */
static void test_resets_that_fail(void **unused)
{
    struct fake_xrt state = {0};
    struct bed bed;
    (void)unused;

    use(&state);
    bed_load(&bed, open_instance(0), 3);
    state.fail_at = 1;
    state.open_fails = 2;
    assert_int_equal(run(&bed, 1, LONG_NS), -EIO);
    assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), -EIO);
    assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), -EIO);
    state.hang_at = 1;
    assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), -ETIMEDOUT);
    assert_int_equal(run(&bed, 1, LONG_NS), -ESTALE);
    assert_int_equal(xn_accel_xrt.reset(bed.accel, NULL), 0);
    assert_int_equal(run(&bed, 1, LONG_NS), 0);
    xn_accel_xrt.close(bed.accel);
    bed_free(&bed);
    done(&state);
}

/** One reset for both units of a card: the other one's jobs fail, and it comes back without another. */
static void test_units_of_a_card_are_reset_together(void **unused)
{
    struct fake_xrt state = {.units = 2};
    struct bed a, b;
    (void)unused;

    use(&state);
    bed_load(&a, open_instance(0), 4);
    bed_load(&b, open_instance(1), 5);
    state.fail_at = 1;
    assert_int_equal(run(&a, 1, LONG_NS), -EIO);
    assert_int_equal(xn_accel_xrt.reset(a.accel, NULL), 0);
    assert_int_equal(run(&b, 1, LONG_NS), -EIO);
    assert_int_equal(xn_accel_xrt.reset(b.accel, NULL), 0);
    assert_int_equal(state.resets, 1);
    assert_int_equal(run(&a, 1, LONG_NS), 0);
    assert_int_equal(run(&b, 1, LONG_NS), 0);
    xn_accel_xrt.close(a.accel);
    xn_accel_xrt.close(b.accel);
    bed_free(&a);
    bed_free(&b);
    done(&state);
}

/** Three models where two fit: the one that has not run for longest leaves, and comes back when it runs. */
static void test_models_take_turns_in_memory(void **unused)
{
    struct fake_xrt state = {0};
    struct bed beds[3];
    (void)unused;

    use(&state);
    struct xn_accel *accel = open_instance(0);
    for (uint32_t i = 0; i < 2; i++)
        bed_load(&beds[i], accel, 6 + i);
    state.memory_bytes = state.memory_used;
    bed_load(&beds[2], accel, 6); /* as large as the first */
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(run(&beds[i * i % 3], 1 + i, LONG_NS), 0);
    struct xn_accel_model *model;
    struct xn_error error;
    state.memory_bytes = 10;
    assert_int_equal(xn_accel_xrt.load(accel, beds[0].network, 1, &model, &error), -ENOSPC);
    state.memory_bytes = 0;
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(run(&beds[i], 1, LONG_NS), 0);
    xn_accel_xrt.close(accel);
    for (uint32_t i = 0; i < 3; i++)
        bed_free(&beds[i]);
    done(&state);
}

/** Of any architecture: the runtime is asked for only when an accelerator of this kind is, and its absence says what to do. */
static void test_without_the_runtime(void **unused)
{
    struct xn_error error;
    uint32_t n;
    (void)unused;

    assert_int_equal(setenv("XNORD_XRT_MODULE", "/nonexistent/xnor-xrt.so", 1), 0);
    assert_int_equal(xn_accel_xrt.probe(&options, &n, &error), -ENODEV);
    assert_non_null(strstr(error.text, "/nonexistent/xnor-xrt.so"));
    assert_non_null(strstr(error.text, "libxrt1"));
    unsetenv("XNORD_XRT_MODULE");
}

/** Two units, the same network on both: how many bytes of weights came to the card. */
static uint64_t load_twins(const struct fake_xrt *state, struct bed beds[2])
{
    struct xn_accel *units[2] = {open_instance(0), open_instance(1)};
    const uint64_t before = state->weight_bytes;

    for (uint32_t i = 0; i < 2; i++)
        bed_load(&beds[i], units[i], 9);
    return state->weight_bytes - before;
}

static void close_twins(struct fake_xrt *state, struct bed beds[2])
{
    for (uint32_t i = 0; i < 2; i++) {
        xn_accel_xrt.close(beds[i].accel);
        bed_free(&beds[i]);
    }
    done(state);
}

static void test_units_share_weights(void **unused)
{
    struct fake_xrt apart = {.units = 2, .banks = 2}, state = {.units = 2};
    struct bed beds[2];
    (void)unused;

    use(&apart);
    const uint64_t both = load_twins(&apart, beds);
    close_twins(&apart, beds);
    use(&state);
    const uint64_t one = load_twins(&state, beds);
    assert_int_equal(both, 2 * one);
    state.memory_bytes = state.memory_used; /* no room for another copy from here on */
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(run(&beds[i], 1 + i, LONG_NS), 0);

    /* A reset card gets them once, though the other unit has not left its old ones when the first comes back. */
    const uint64_t before = state.weight_bytes;
    state.fail_at = 1;
    assert_int_equal(run(&beds[0], 1, LONG_NS), -EIO);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(xn_accel_xrt.reset(beds[i].accel, NULL), 0);
        assert_int_equal(run(&beds[i], 1, LONG_NS), i == 0 ? 0 : -EIO);
    }
    assert_int_equal(xn_accel_xrt.reset(beds[1].accel, NULL), 0);
    assert_int_equal(run(&beds[1], 1, LONG_NS), 0);
    const uint64_t probes = 2 * (sizeof(struct xn_isa_descriptor) + 1);
    assert_int_equal(state.weight_bytes - before, one + probes);

    /* What the other unit still runs is not shared: it was made of the device of before. */
    state.memory_bytes = 0;
    beds[1].job.batch = 1;
    assert_int_equal(xn_accel_xrt.submit(beds[1].accel, &beds[1].job, NULL), 0);
    state.fail_at = 1;
    assert_int_equal(run(&beds[0], 1, LONG_NS), -EIO);
    assert_int_equal(xn_accel_xrt.reset(beds[0].accel, NULL), 0);
    assert_int_equal(run(&beds[0], 1, LONG_NS), 0);
    assert_int_equal(xn_accel_xrt.wait(beds[1].accel, &beds[1].job, xn_clock_now_ns() + LONG_NS, NULL), 0);
    assert_int_equal(run(&beds[1], 1, LONG_NS), -EIO);
    assert_int_equal(xn_accel_xrt.reset(beds[1].accel, NULL), 0);
    assert_int_equal(state.weight_bytes - before, 2 * (one + probes));

    xn_accel_xrt.unload(beds[0].accel, beds[0].model); /* the other unit's stay */
    assert_int_equal(run(&beds[1], 2, LONG_NS), 0);
    assert_int_equal(state.weight_bytes - before, 2 * (one + probes));
    close_twins(&state, beds);
}

/** A card full of what two units have: who needs room gets it of the other unit's, but never of what runs there. */
static void test_units_share_memory(void **unused)
{
    struct fake_xrt state = {.units = 2};
    struct bed twins[2], more;
    struct xn_error error;
    (void)unused;

    use(&state);
    (void)load_twins(&state, twins);
    struct xn_accel *accel = twins[0].accel;
    bed_load(&more, accel, 10);
    xn_accel_xrt.unload(accel, more.model);
    state.memory_bytes = state.memory_peak - 1; /* not all of it at once */
    twins[1].job.batch = 3;
    assert_int_equal(xn_accel_xrt.submit(twins[1].accel, &twins[1].job, NULL), 0);
    assert_int_equal(xn_accel_xrt.load(accel, more.network, 8 * BATCH_MAX, &more.model, &error), -ENOSPC);
    assert_int_equal(xn_accel_xrt.load(accel, more.network, BATCH_MAX, &more.model, &error), 0);
    more.job.model = more.model;
    assert_int_equal(run(&more, 1, LONG_NS), 0);
    assert_int_equal(xn_accel_xrt.wait(twins[1].accel, &twins[1].job, xn_clock_now_ns() + LONG_NS, &error), 0);
    assert_memory_equal(twins[1].got, twins[1].want, 3 * twins[1].network->n_classes * sizeof(int32_t));
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(run(i % 3 == 2 ? &more : &twins[i % 3], 1 + i, LONG_NS), 0);

    /* Idle, it leaves for the other unit's model. */
    xn_accel_xrt.unload(accel, twins[0].model);
    state.memory_bytes = state.memory_used - 1;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(run(i % 2 ? &more : &twins[1], 1, LONG_NS), 0);
    bed_free(&more);
    close_twins(&state, twins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_a_reset_loads_what_was_opened),
        cmocka_unit_test(test_memory_of_the_host),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_failed_runs),
        cmocka_unit_test(test_resets_that_fail),
        cmocka_unit_test(test_units_of_a_card_are_reset_together),
        cmocka_unit_test(test_models_take_turns_in_memory),
        cmocka_unit_test(test_without_the_runtime),
        cmocka_unit_test(test_units_share_weights),
        cmocka_unit_test(test_units_share_memory),
    };
    return cmocka_run_group_tests_name("xrt", tests, NULL, NULL);
}
