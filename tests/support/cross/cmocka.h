/* SPDX-License-Identifier: Apache-2.0
 * As much of cmocka's interface as tests/checkasm needs, for cross-built programs: the libraries of a foreign architecture need not be
 * installed. Tests run one after another; a failed assertion ends its test. Output is TAP. */
#ifndef XN_TESTS_SUPPORT_CROSS_CMOCKA_H
#define XN_TESTS_SUPPORT_CROSS_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

typedef void (*CMUnitTestFunction)(void **state);
struct CMUnitTest {
    const char *name;
    CMUnitTestFunction test_func;
    void *setup_func, *teardown_func;
    void *initial_state;
};
#define cmocka_unit_test(f)                                                                                            \
    {                                                                                                                  \
#f, f, NULL, NULL, NULL                                                                                        \
    }

static jmp_buf cross_end; /* of the test that runs: 1 failed, 2 skipped */

#define print_message(...) printf(__VA_ARGS__)
#define skip()             longjmp(cross_end, 2)
#define fail_msg(...)                                                                                                  \
    (printf("# %s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), longjmp(cross_end, 1))
#define assert_true(x)     ((x) ? (void)0 : fail_msg("%s", #x))
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_int_equal(a, b)                                                                                         \
    ((a) == (b) ? (void)0 : fail_msg("%s is %lld, %s %lld", #a, (long long)(a), #b, (long long)(b)))

static inline int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests, size_t n, void *setup,
                                          void *teardown)
{
    static volatile size_t i, failed;
    (void)setup;
    (void)teardown;
    printf("# %s\n1..%zu\n", group, n);
    for (i = 0; i < n; i++) {
        void *state = tests[i].initial_state;
        const int end = setjmp(cross_end);
        if (end == 0)
            tests[i].test_func(&state);
        failed += end == 1;
        printf("%s %zu - %s%s\n", end == 1 ? "not ok" : "ok", i + 1, tests[i].name, end == 2 ? " # SKIP" : "");
        fflush(stdout);
    }
    return (int)failed;
}

#endif
