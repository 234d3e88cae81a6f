/* SPDX-License-Identifier: Apache-2.0
 * What the conformance suite runs over: every backend built in, as it comes, and the CPU at each of its levels and with several
 * threads. A backend or an option that is to be covered is added here. */
#ifndef XN_TESTS_CONFORMANCE_TARGETS_H
#define XN_TESTS_CONFORMANCE_TARGETS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu/kernels.h"
#include "accel/xrt/xrt.h"
#include "tests/support/fake_xrt.h"

#define TARGETS_MAX 16u

struct target {
    char name[48];
    const struct xn_accel_backend *backend;
    struct xn_accel_options options;
    const char *missing; /**< why it cannot run here; NULL: it can, as far as is known */
};

static inline struct target *target_add(struct target targets[TARGETS_MAX], size_t *n,
                                        const struct xn_accel_backend *backend, const char *name)
{
    struct target *t = &targets[(*n)++];
    *t = (struct target){.backend = backend};
    snprintf(t->name, sizeof(t->name), "%s", name);
    return t;
}

/** Real XRT with a card, real or virtual, where `xnor-vcard run` or a person has set $XNOR_VCARD_XCLBIN; else XRT in the process. */
static inline void target_add_xrt(struct target targets[TARGETS_MAX], size_t *n)
{
    static struct fake_xrt fake = {.units = 2};
    const char *image = getenv("XNOR_VCARD_XCLBIN");

    if (!image)
        xn_xrt_module_replace(fake_xrt_api(&fake));
    target_add(targets, n, &xn_accel_xrt, image ? "xrt" : "xrt in the process")->options.image =
        image ? image : "fake.xclbin";
}

/** Fill `targets`; returns how many. `levels`: the CPU at each of its levels too, which matters to the integers and not to the
 *  contract. */
static inline size_t targets_list(struct target targets[TARGETS_MAX], bool levels)
{
    const struct xn_accel_backend *backend;
    size_t n = 0;

    for (size_t i = 0; (backend = xn_accel_at(i)) != NULL; i++)
        if (backend != &xn_accel_xrt)
            target_add(targets, &n, backend, backend->kind);
    target_add_xrt(targets, &n);
    backend = xn_accel_find("cpu");
    for (size_t i = 0; levels && i < xn_cpu_levels(); i++) {
        const char *level = xn_cpu_level_at(i)->level;
        struct target *t = target_add(targets, &n, backend, "cpu ");
        strncat(t->name, level, sizeof(t->name) - strlen(t->name) - 1);
        t->options = (struct xn_accel_options){.threads = 1, .cpu_mask = level};
        t->missing = xn_cpu_level_runs(i) ? NULL : "this processor does not have the instructions";
    }
    target_add(targets, &n, backend, "cpu 1 thread")->options.threads = 1;
    target_add(targets, &n, backend, "cpu 3 threads")->options.threads = 3;
    return n;
}

/** Add a test for each target to `tests`, called "what [target]". */
static inline void targets_tests(struct CMUnitTest *tests, size_t *n, struct target *targets, size_t n_targets,
                                 const char *what, CMUnitTestFunction function)
{
    for (size_t i = 0; i < n_targets; i++) {
        char *name = NULL; /* lives as long as the program */
        if (asprintf(&name, "%s [%s]", what, targets[i].name) < 0)
            abort();
        tests[(*n)++] = (struct CMUnitTest){.name = name, .test_func = function, .initial_state = &targets[i]};
    }
}

/** Open instance `index` of `target`, or skip the test, saying why. */
static inline struct xn_accel *target_open(const struct target *target, uint32_t index)
{
    struct xn_accel *accel = NULL;
    struct xn_error error;
    int r = target->missing ? -ENODEV : target->backend->open(&target->options, index, &accel, &error);
    if (r == -ENODEV) {
        print_message("# skipped %s: %s\n", target->name, target->missing ? target->missing : error.text);
        skip();
    }
    if (r < 0)
        fail_msg("open %s: %s", target->name, error.text);
    return accel;
}

#endif
