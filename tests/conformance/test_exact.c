/* SPDX-License-Identifier: Apache-2.0
 * Every accelerator gives the reference interpreter's integers: on random networks that reach every operation, type, padding,
 * stride and group, and on known shapes. $XN_SEED and $XN_NETWORKS choose which and how many (and then only those). */
#include "tests/conformance/targets.h"

#include <inttypes.h>

#include "common/clock.h"
#include "model/reference.h"
#include "tests/support/random_network.h"

#ifdef XN_FAULTS
#define NETWORKS 60u /* debug and sanitizer builds are slow, and run the same kernels */
#else
#define NETWORKS 250u
#endif
#define BATCH 4u

static uint64_t seed;

/** Inputs and wanted logits of one batch, as the reference has them. */
struct batch {
    uint8_t *inputs[BATCH];
    int32_t *want[BATCH], *got[BATCH];
};

static void batch_init(struct batch *batch, const struct xn_network *network, struct xn_random *random)
{
    struct xn_reference *reference;
    assert_int_equal(xn_reference_new(network, &reference), 0);
    for (uint32_t i = 0; i < BATCH; i++) {
        batch->inputs[i] = malloc(network->input_bytes);
        batch->want[i] = calloc(network->n_classes, sizeof(int32_t));
        batch->got[i] = calloc(network->n_classes, sizeof(int32_t));
        assert_true(batch->inputs[i] && batch->want[i] && batch->got[i]);
        xn_random_bytes(random, batch->inputs[i], network->input_bytes);
        if (i == 0) /* one extreme input a network */
            memset(batch->inputs[i], (int)(xn_random_next(random) & 1 ? 0x80 : 0xff), network->input_bytes);
        xn_reference_run(reference, batch->inputs[i], batch->want[i]);
    }
    xn_reference_free(reference);
}

static void batch_done(struct batch *batch)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        free(batch->inputs[i]);
        free(batch->want[i]);
        free(batch->got[i]);
    }
}

/** False: the backend has said that it cannot run this one, and why. */
static bool compare(struct xn_accel *accel, const struct xn_network *network, uint64_t network_seed, uint32_t n)
{
    const struct xn_accel_backend *backend = xn_accel_backend(accel);
    struct xn_random random = {network_seed};
    struct xn_accel_job job = {.batch = n};
    struct xn_error error;
    struct batch batch;

    batch_init(&batch, network, &random);
    job.inputs = (const void *const *)batch.inputs;
    job.outputs = batch.got;
    const int r = backend->load(accel, network, BATCH, &job.model, &error);
    if (r == -ENOTSUP || r == -ENOSPC) {
        print_message("# network %" PRIu64 " is refused: %s\n", network_seed, error.text);
        batch_done(&batch);
        return false;
    }
    if (r < 0)
        fail_msg("network %" PRIu64 ": load: %s", network_seed, error.text);
    if (backend->submit(accel, &job, &error) < 0 || backend->wait(accel, &job, XN_NEVER_NS, &error) < 0)
        fail_msg("network %" PRIu64 ": %s", network_seed, error.text);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < network->n_classes; k++)
            if (batch.want[i][k] != batch.got[i][k])
                fail_msg("network %" PRIu64 " image %u class %u: %d, reference %d; repeat with XN_SEED=%" PRIu64
                         " XN_NETWORKS=1",
                         network_seed, i, k, batch.got[i][k], batch.want[i][k], network_seed);
    backend->unload(accel, job.model);
    batch_done(&batch);
    return true;
}

static void random_networks(void **state)
{
    const struct target *target = *state;
    struct xn_accel *accel = target_open(target, 0);
    const char *text = getenv("XN_NETWORKS");
    const uint64_t n = text ? strtoull(text, NULL, 0) : NETWORKS;
    uint64_t refused = 0;

    for (uint64_t i = 0; i < n; i++) {
        struct xn_network *network = xn_random_network(seed + i);
        refused += !compare(accel, network, seed + i, 1 + (uint32_t)(i % BATCH));
        xn_network_free(network);
    }
    if (n >= NETWORKS)
        assert_in_range(refused, 0, target->backend == &xn_accel_xrt ? n / 8 : 0); /* the engine has not all layers */
    target->backend->close(accel);
}

static void known_shapes(void **state)
{
    const struct target *target = *state;
    if (getenv("XN_NETWORKS")) {
        print_message("# skipped: $XN_NETWORKS asks for random networks\n");
        skip();
    }
    struct xn_accel *accel = target_open(target, 0);
    struct xn_network *(*const make[])(uint64_t) = {
        xn_random_one_pixel,
        xn_random_shortcuts,
#ifndef XN_FAULTS /* for minutes the reference would run in debug and sanitizer builds; test_rows.c has such steps */
        xn_random_vgg_small,
        xn_random_resnet18,
#endif
    };

    for (size_t i = 0; i < XN_ARRAY_LEN(make); i++) {
        struct xn_network *network = make[i](seed);
        if (!compare(accel, network, seed, 1))
            assert_ptr_equal(target->backend, &xn_accel_xrt);
        xn_network_free(network);
    }
    target->backend->close(accel);
}

/** A test of constants would pass anything: most networks' logits must depend on the input. */
static void networks_are_alive(void **state)
{
    uint32_t alive = 0;
    (void)state;

    for (uint64_t i = 0; i < 50; i++) {
        struct xn_network *network = xn_random_network(seed + i);
        struct xn_random random = {seed + i};
        struct batch batch;
        batch_init(&batch, network, &random);
        for (uint32_t k = 1; k < BATCH; k++)
            if (memcmp(batch.want[0], batch.want[k], network->n_classes * sizeof(int32_t)) != 0) {
                alive++;
                break;
            }
        batch_done(&batch);
        xn_network_free(network);
    }
    assert_in_range(alive, 20, 50);
}

int main(void)
{
    static struct target targets[TARGETS_MAX];
    static struct CMUnitTest tests[2 * TARGETS_MAX + 1];
    const size_t n_targets = targets_list(targets, true);
    size_t n = 0;

    seed = xn_random_seed(20261123);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(networks_are_alive);
    targets_tests(tests, &n, targets, n_targets, "random_networks", random_networks);
    targets_tests(tests, &n, targets, n_targets, "known_shapes", known_shapes);
    return _cmocka_run_group_tests("accelerators give the reference's integers", tests, n, NULL, NULL);
}
