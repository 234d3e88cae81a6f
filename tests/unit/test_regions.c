/* SPDX-License-Identifier: Apache-2.0
 * Shared memory regions: what is mapped, who holds it, and what happens where it is gone. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/regions.h"

#define PAGE 4096u

static struct xn_regions *regions;
static struct xn_error error;
static char key[64];
static int object;

static int set_up(void **state)
{
    (void)state;
    snprintf(key, sizeof(key), "/xnord-test-regions-%d", (int)getpid());
    object = shm_open(key, O_CREAT | O_EXCL | O_RDWR, 0600);
    return object < 0 || ftruncate(object, 8 * PAGE) < 0 ? -1 : 0;
}

/* Within each test: cmocka catches signals too, and what was installed last counts. */
static void begin(void)
{
    assert_int_equal(ftruncate(object, 8 * PAGE), 0);
    assert_int_equal(xn_regions_new(3, 6 * PAGE, &regions), 0);
}

static void end(uint32_t named)
{
    assert_int_equal(xn_regions_unregister(regions, NULL), named);
    xn_regions_free(regions);
    regions = NULL;
}

static int tear_down(void **state)
{
    (void)state;
    close(object);
    return shm_unlink(key);
}

static void put(const char *text, off_t at)
{
    assert_int_equal(pwrite(object, text, strlen(text), at), strlen(text));
}

static void test_in_place(void **state)
{
    char seen[8] = "";
    (void)state;
    begin();
    put("hello", PAGE + 10);
    assert_int_equal(xn_regions_register(regions, "a", key, PAGE + 10, 20, &error), 0);
    struct xn_region *a = xn_regions_get(regions, "a");
    assert_non_null(a);
    assert_true(a->writable && a->bytes == 20 && a->offset == PAGE + 10 && !xn_region_lost(a));
    assert_memory_equal(a->data, "hello", 5);
    memcpy(a->data, "HELLO", 5);
    assert_int_equal(pread(object, seen, 5, PAGE + 10), 5);
    assert_string_equal(seen, "HELLO");
    xn_region_unref(a);
    assert_int_equal(xn_regions_unregister(regions, "a"), 1);
    assert_null(xn_regions_get(regions, "a"));
    assert_null(xn_regions_get(NULL, "a"));
    end(0);
}

/* The name goes at once, the memory with the last user; its bytes and its place count until then. */
static void test_unregister_while_in_use(void **state)
{
    (void)state;
    begin();
    assert_int_equal(xn_regions_register(regions, "a", key, 0, 4 * PAGE, &error), 0);
    struct xn_region *a = xn_regions_get(regions, "a");
    assert_int_equal(xn_regions_unregister(regions, NULL), 1);
    assert_null(xn_regions_get(regions, "a"));
    a->data[4 * PAGE - 1] = 7;
    assert_int_equal(xn_regions_register(regions, "a", key, 0, 4 * PAGE, &error), -EFBIG);
    assert_int_equal(xn_regions_register(regions, "a", key, 0, 2 * PAGE, &error), 0);
    xn_region_unref(a);
    assert_int_equal(xn_regions_register(regions, "b", key, 0, 4 * PAGE, &error), 0);
    end(2);
}

static void test_list_and_limits(void **state)
{
    static const char *const names[] = {"a", "b", "c"};
    struct xn_region *list[8];
    (void)state;
    begin();
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(xn_regions_register(regions, names[i], key, 0, 1, &error), 0);
    assert_int_equal(xn_regions_register(regions, "d", key, 0, 1, &error), -EAGAIN);
    assert_int_equal(xn_regions_register(regions, "b", key, 0, 1, &error), -EINVAL);
    assert_int_equal(xn_regions_list(regions, list, 2), 2);
    xn_region_unref(list[0]);
    xn_region_unref(list[1]);
    assert_int_equal(xn_regions_list(regions, list, 8), 3);
    for (size_t i = 0; i < 3; i++)
        xn_region_unref(list[i]);
    assert_int_equal(xn_regions_unregister(regions, "nobody"), 0);
    end(3);
}

/* The object shrinks: pages that are gone read as zeros, and the region says so, for ever. Others keep theirs. */
static void test_truncation(void **state)
{
    (void)state;
    begin();
    assert_int_equal(xn_regions_register(regions, "a", key, 0, 4 * PAGE, &error), 0);
    assert_int_equal(xn_regions_register(regions, "b", key, 0, PAGE, &error), 0);
    struct xn_region *a = xn_regions_get(regions, "a"), *b = xn_regions_get(regions, "b");
    memset(a->data, 9, 4 * PAGE);
    assert_int_equal(ftruncate(object, PAGE), 0);
    assert_int_equal(a->data[10], 9);
    assert_false(xn_region_lost(a)); /* nothing of what is gone has been touched */
    assert_int_equal(((volatile uint8_t *)a->data)[2 * PAGE], 0);
    assert_true(xn_region_lost(a) && !xn_region_lost(b));
    a->data[3 * PAGE] = 1;
    assert_int_equal(b->data[10], 9);
    xn_region_unref(a);
    xn_region_unref(b);
    assert_int_equal(ftruncate(object, 8 * PAGE), 0);
    assert_int_equal(xn_regions_unregister(regions, NULL), 2);
    assert_int_equal(xn_regions_register(regions, "a", key, 0, 4 * PAGE, &error), 0);
    a = xn_regions_get(regions, "a");
    assert_false(xn_region_lost(a));
    xn_region_unref(a);
    end(1);
}

/* One byte of each 64, the one that `argument` points to first: threads have bytes of their own. */
static void *touch(void *argument)
{
    volatile uint8_t *at = argument;

    for (size_t i = 0; i < 4 * PAGE; i += 64)
        at[i] = 1;
    return NULL;
}

/* Several threads meet the missing pages at once. */
static void test_truncation_met_by_many(void **state)
{
    pthread_t threads[4];
    (void)state;
    begin();
    for (int round = 0; round < 50; round++) {
        assert_int_equal(ftruncate(object, 8 * PAGE), 0);
        assert_int_equal(xn_regions_register(regions, "a", key, 0, 4 * PAGE, &error), 0);
        struct xn_region *a = xn_regions_get(regions, "a");
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, touch, a->data + i), 0);
        assert_int_equal(ftruncate(object, 0), 0);
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        touch(a->data);
        assert_true(xn_region_lost(a));
        xn_region_unref(a);
        assert_int_equal(xn_regions_unregister(regions, "a"), 1);
    }
    end(0);
}

/* A SIGBUS elsewhere still ends the process. */
static void test_other_faults_are_fatal(void **state)
{
    int status = 0;
    (void)state;
    assert_int_equal(ftruncate(object, 8 * PAGE), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)close(STDERR_FILENO);    /* a sanitizer's report */
        (void)signal(SIGBUS, SIG_DFL); /* cmocka's goes on with the other tests */
        if (xn_regions_new(1, PAGE, &regions) < 0)
            _exit(3);
        volatile uint8_t *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, object, 7 * PAGE);
        if (ftruncate(object, PAGE) < 0)
            _exit(3);
        other[0] = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS
                                    : WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_unregister_while_in_use),
        cmocka_unit_test(test_list_and_limits),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_truncation_met_by_many),
        cmocka_unit_test(test_other_faults_are_fatal),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
