/* SPDX-License-Identifier: Apache-2.0
 * common/: error texts, clock, log lines, pools (alone, from several threads, and when memory runs out), fault
 * points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/fault.h"
#include "common/heap.h"
#include "common/log.h"
#include "common/pool.h"
#include "common/program.h"

static void test_error_text_is_one_safe_line(void **state)
{
    (void)state;
    struct xn_error e;
    assert_int_equal(xn_error_set(&e, -EINVAL, "key %s: %d", "a\nb\x1b[2J", 3), -EINVAL);
    assert_string_equal(e.text, "key a?b?[2J: 3");
    xn_error_set(&e, -EINVAL, "%s", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x9f");
    assert_string_equal(e.text, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x9f");
    xn_error_set(&e, -EINVAL, "%s", "\xc0\xaf|\xed\xa0\x80|\xf5|\xe2\x82|\xc2\x85|\x80");
    assert_string_equal(e.text, "??|???|?|\?\?|\?\?|?");
    xn_error_set(&e, -EINVAL, "%s", "\xe0\x80\x80|\xf0\x80\x80\x80|\xf4\x90\x80\x80"); /* overlong, beyond U+10FFFF */
    assert_string_equal(e.text, "\?\?\?|\?\?\?\?|\?\?\?\?");
    assert_int_equal(xn_error_set(NULL, -EIO, "x"), -EIO);
}

static void test_error_text_is_cut_on_a_character(void **state)
{
    (void)state;
    struct xn_error e;
    char text[600];
    memset(text, 'x', sizeof(text));
    memcpy(text + 509, "\xe2\x82\xac", 4); /* its third byte would not fit */
    xn_error_set(&e, -EINVAL, "%s", text);
    assert_int_equal(strlen(e.text), 509);
    memset(text, 'x', sizeof(text));
    text[599] = '\0';
    xn_error_set(&e, -EINVAL, "%s", text);
    assert_int_equal(strlen(e.text), XN_ERROR_TEXT_BYTES - 1);
}

static void test_error_prefix(void **state)
{
    (void)state;
    struct xn_error e;
    xn_error_set(&e, -EINVAL, "layer %d", 4);
    assert_int_equal(xn_error_prefix(&e, -EINVAL, "file %s", "a.xnor"), -EINVAL);
    assert_string_equal(e.text, "file a.xnor: layer 4");
    char text[600];
    memset(text, 'p', sizeof(text));
    text[599] = '\0';
    xn_error_prefix(&e, -EINVAL, "%s", text);
    assert_int_equal(strlen(e.text), XN_ERROR_TEXT_BYTES - 1);
}

static void test_clock(void **state)
{
    (void)state;
    const uint64_t a = xn_clock_now_ns(), cpu = xn_clock_thread_cpu_ns();
    assert_true(xn_clock_now_ns() >= a);
    assert_true(xn_clock_thread_cpu_ns() >= cpu);
    const struct timespec t = xn_clock_timespec(3 * XN_NS_PER_S + 7);
    assert_int_equal(t.tv_sec, 3);
    assert_int_equal(t.tv_nsec, 7);
    assert_true(xn_clock_timespec(XN_NEVER_NS).tv_nsec < (long)XN_NS_PER_S);
}

/* What `log_it` writes to stderr, into `ret` with a NUL. */
static void capture_stderr(void (*log_it)(void), char *ret, size_t capacity)
{
    int ends[2];
    const int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    log_it();
    assert_true(dup2(saved, STDERR_FILENO) >= 0); /* closes the last writer */
    close(saved);
    size_t used = 0;
    for (ssize_t n = 1; n > 0 && used<capacity - 1; used += n> 0 ? (size_t)n : 0)
        n = read(ends[0], ret + used, capacity - 1 - used);
    ret[used] = '\0';
    close(ends[0]);
}

static void log_samples(void)
{
    const struct xn_log_field fields[] = {{"MODEL", "fashion"}, {"WHY", "a \"b\"\n"}, {"NONE", NULL}};
    xn_log_init(XN_LOG_INFO, XN_LOG_STDERR);
    errno = ENOSPC;
    xn_log_fields(XN_LOG_WARNING, fields, XN_ARRAY_LEN(fields), "model %s\x1b[1m failed", "m\r\n");
    assert_int_equal(errno, ENOSPC);
    xn_log_debug("not shown");
    xn_log_set_level(XN_LOG_DEBUG);
    xn_log_debug("shown");
}

static void test_log_lines(void **state)
{
    (void)state;
    char text[4096];
    capture_stderr(log_samples, text, sizeof(text));
    assert_string_equal(text,
                        "WARNING model m\\x0d\\x0a\\x1b[1m failed MODEL=fashion WHY=\"a \\\"b\\\"\\x0a\" NONE=\"\"\n"
                        "DEBUG shown\n");
}

static void test_log_leaves_errno_alone(void **state)
{
    (void)state;
    const int full = open("/dev/full", O_WRONLY), saved = dup(STDERR_FILENO);
    assert_true(full >= 0 && saved >= 0);
    xn_log_init(XN_LOG_INFO, XN_LOG_STDERR);
    dup2(full, STDERR_FILENO);
    errno = EPERM;
    xn_log_info("nobody reads this");
    const int after = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(full);
    assert_int_equal(after, EPERM);
}

static void log_long(void)
{
    char text[8000];
    memset(text, '\n', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    const struct xn_log_field field = {"LONG", text};
    xn_log_init(XN_LOG_INFO, XN_LOG_STDERR);
    xn_log_fields(XN_LOG_ERROR, &field, 1, "%s", text);
}

static void test_log_line_is_bounded(void **state)
{
    (void)state;
    char text[16384];
    capture_stderr(log_long, text, sizeof(text));
    assert_in_range(strlen(text), 1000, 4095);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void log_once(void)
{
    xn_log_init(XN_LOG_INFO, XN_LOG_AUTO);
    xn_log_info("to stderr");
}

static void test_log_target_auto_compares_the_stream(void **state)
{
    (void)state;
    char text[256];
    setenv("JOURNAL_STREAM", "1:2", 1); /* a journal, but not what stderr is connected to */
    capture_stderr(log_once, text, sizeof(text));
    unsetenv("JOURNAL_STREAM");
    assert_string_equal(text, "INFO to stderr\n");
}

static void test_log_levels(void **state)
{
    (void)state;
    enum xn_log_level level = XN_LOG_ERROR;
    assert_int_equal(xn_log_level_parse("debug", &level), 0);
    assert_int_equal(level, XN_LOG_DEBUG);
    assert_int_equal(xn_log_level_parse("loud", &level), -EINVAL);
    assert_int_equal(level, XN_LOG_DEBUG);
    assert_string_equal(xn_log_level_name(XN_LOG_WARNING), "warning");
}

static void test_pool_hands_out_each_object_once(void **state)
{
    (void)state;
    struct xn_pool *pool = NULL;
    void *objects[5];
    assert_int_equal(xn_pool_new(100, 5, &pool), 0);
    for (size_t i = 0; i < 5; i++) {
        objects[i] = xn_pool_take(pool);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % XN_CACHE_LINE, 0);
        for (size_t b = 0; b < 100; b++)
            assert_int_equal(((uint8_t *)objects[i])[b], 0);
        memset(objects[i], (int)i + 1, 100);
    }
    assert_null(xn_pool_take(pool));
    assert_int_equal(xn_pool_used(pool), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(((uint8_t *)objects[i])[99], i + 1);
        xn_pool_give(pool, objects[i]);
    }
    xn_pool_give(pool, NULL);
    assert_int_equal(xn_pool_used(pool), 0);
    assert_ptr_equal(xn_pool_take(pool), objects[4]); /* the one whose cache lines are warm */
    xn_pool_give(pool, objects[4]);
    xn_pool_free(pool);
    xn_pool_free(NULL);
}

static void test_pool_refuses_bad_sizes(void **state)
{
    (void)state;
    struct xn_pool *pool = NULL;
    assert_int_equal(xn_pool_new(0, 1, &pool), -EINVAL);
    assert_int_equal(xn_pool_new(1, 0, &pool), -EINVAL);
    assert_int_equal(xn_pool_new(SIZE_MAX, 1, &pool), -EINVAL);
    assert_int_equal(xn_pool_new(SIZE_MAX / 4, 1u << 20, &pool), -EINVAL);
    assert_null(pool);
}

#define RACE_THREADS 4
#define RACE_ROUNDS  20000

static void *race(void *user)
{
    struct xn_pool *pool = user;
    for (int i = 0; i < RACE_ROUNDS; i++) {
        int *a = xn_pool_take(pool), *b = xn_pool_take(pool);
        if (a)
            *a += 1; /* ThreadSanitizer and the sum both tell when two threads hold one object */
        if (b)
            *b += 1;
        xn_pool_give(pool, a);
        xn_pool_give(pool, b);
    }
    return NULL;
}

static void test_pool_under_contention(void **state)
{
    (void)state;
    struct xn_pool *pool = NULL;
    pthread_t threads[RACE_THREADS];
    assert_int_equal(xn_pool_new(sizeof(int), 2 * RACE_THREADS, &pool), 0);
    for (int i = 0; i < RACE_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, race, pool), 0);
    for (int i = 0; i < RACE_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(xn_pool_used(pool), 0);
    int sum = 0;
    int *all[2 * RACE_THREADS];
    for (int i = 0; i < 2 * RACE_THREADS; i++) {
        all[i] = xn_pool_take(pool);
        assert_non_null(all[i]);
        sum += *all[i];
    }
    assert_int_equal(sum, 2 * RACE_THREADS * RACE_ROUNDS); /* never empty: an object for each hand */
    for (int i = 0; i < 2 * RACE_THREADS; i++)
        xn_pool_give(pool, all[i]);
    xn_pool_free(pool);
}

static void test_buffers_come_from_the_smallest_class_that_has_one(void **state)
{
    (void)state;
    const struct xn_buf_class classes[] = {{100, 1}, {5000, 2}};
    struct xn_buf_pool *pool = NULL;
    struct xn_buf a, b, c, d = {0};
    assert_int_equal(xn_buf_pool_new(classes, 2, &pool), 0);
    assert_int_equal(xn_buf_take(pool, 5001, &d), -EMSGSIZE);
    assert_int_equal(xn_buf_take(pool, 101, &a), 0);
    assert_int_equal(a.capacity_bytes, 5000);
    xn_buf_give(pool, &a);
    assert_int_equal(xn_buf_take(pool, 100, &a), 0);
    assert_int_equal(a.capacity_bytes, 100);
    assert_int_equal(xn_buf_take(pool, 1, &b), 0);
    assert_int_equal(b.capacity_bytes, 5000);
    assert_int_equal(xn_buf_take(pool, 101, &c), 0);
    assert_int_equal(xn_buf_take(pool, 1, &d), -ENOBUFS);
    assert_null(d.data);
    assert_int_equal(xn_buf_pool_used_bytes(pool), 10100);
    memset(a.data, 1, 100);
    memset(b.data, 2, 5000);
    memset(c.data, 3, 5000);
    assert_int_equal(a.data[99], 1);
    assert_int_equal(b.data[4999], 2);
    xn_buf_give(pool, &a);
    assert_null(a.data);
    xn_buf_give(pool, &a); /* cleared: legal */
    xn_buf_give(pool, &b);
    xn_buf_give(pool, &c);
    assert_int_equal(xn_buf_pool_used_bytes(pool), 0);
    xn_buf_pool_free(pool);
    xn_buf_pool_free(NULL);
}

static void test_large_buffers_give_their_pages_back(void **state)
{
    (void)state;
    const struct xn_buf_class classes[] = {{64, 1}, {256u << 10, 1}};
    struct xn_buf_pool *pool = NULL;
    struct xn_buf small, large;
    assert_int_equal(xn_buf_pool_new(classes, 2, &pool), 0);
    assert_int_equal(xn_buf_take(pool, 64, &small), 0);
    assert_int_equal(xn_buf_take(pool, 65, &large), 0);
    memset(small.data, 7, 64);
    memset(large.data, 7, large.capacity_bytes);
    xn_buf_give(pool, &small);
    xn_buf_give(pool, &large);
    assert_int_equal(xn_buf_take(pool, 64, &small), 0);
    assert_int_equal(xn_buf_take(pool, 65, &large), 0);
    assert_int_equal(small.data[63], 7);
    assert_int_equal(large.data[0], 0); /* fresh pages */
    assert_int_equal(large.data[large.capacity_bytes - 1], 0);
    xn_buf_give(pool, &small);
    xn_buf_give(pool, &large);
    xn_buf_pool_free(pool);
}

static void test_buffer_pool_refuses_bad_classes(void **state)
{
    (void)state;
    struct xn_buf_pool *pool = NULL;
    const struct xn_buf_class descending[] = {{64, 1}, {64, 1}}, empty[] = {{64, 0}}, huge[] = {{SIZE_MAX / 3, 4}};
    assert_int_equal(xn_buf_pool_new(descending, 0, &pool), -EINVAL);
    assert_int_equal(xn_buf_pool_new(descending, XN_BUF_CLASSES_MAX + 1, &pool), -EINVAL);
    assert_int_equal(xn_buf_pool_new(descending, 2, &pool), -EINVAL);
    assert_int_equal(xn_buf_pool_new(empty, 1, &pool), -EINVAL);
    assert_int_equal(xn_buf_pool_new(huge, 1, &pool), -EINVAL);
    assert_null(pool);
}

static void test_calloc_checks_its_sizes(void **state)
{
    (void)state;
    volatile size_t huge = SIZE_MAX / 2 + 1; /* volatile: gcc would warn of the constant */
    assert_null(xn_calloc(huge, 2));
    assert_null(xn_calloc_aligned(huge, 2));
    assert_null(xn_calloc_aligned(2, huge - 1));
    void *memory = xn_calloc_aligned(3, 5);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 64, 0);
    free(memory);
    char *copy = xn_strdup("abc");
    assert_string_equal(copy, "abc");
    free(copy);
}

static void test_fault_points(void **state)
{
    (void)state;
#ifdef XN_FAULTS
    xn_fault_arm("test.point", 2, false);
    assert_false(XN_FAULT("test.point"));
    assert_true(XN_FAULT("test.point"));
    assert_false(XN_FAULT("test.point"));
    assert_int_equal(xn_fault_passes("test.point"), 3);
    xn_fault_arm("test.point", 1, true);
    assert_true(XN_FAULT("test.point"));
    assert_true(XN_FAULT("test.point"));
    xn_fault_arm("test.point", 0, false);
    assert_false(XN_FAULT("test.point"));
    assert_false(XN_FAULT("test.unknown"));
#else
    print_message("fault points are compiled in only with XN_FAULTS (debug, asan, tsan)\n");
    skip();
#endif
}

static void test_pools_survive_every_failed_allocation(void **state)
{
    (void)state;
#ifdef XN_FAULTS
    const struct xn_buf_class classes[] = {{64, 1}, {128, 1}};
    struct xn_pool *pool = NULL;
    struct xn_buf_pool *buffers = NULL;
    for (uint64_t n = 1; n <= 3; n++) {
        xn_fault_arm("alloc", n, false);
        assert_int_equal(xn_pool_new(8, 8, &pool), -ENOMEM);
    }
    for (uint64_t n = 1; n <= 4; n++) {
        xn_fault_arm("alloc", n, false);
        assert_int_equal(xn_buf_pool_new(classes, 2, &buffers), -ENOMEM);
    }
    xn_fault_arm("alloc", 0, false);
    assert_null(pool);
    assert_null(buffers);
#else
    print_message("fault points are compiled in only with XN_FAULTS (debug, asan, tsan)\n");
    skip();
#endif
}

/* ---- heap --------------------------------------------------------------------------------------------------------- */

#define NODES 300u

/* The least of those that are in, by looking through all; equals in the order in which they came. */
static struct xn_heap_node *least(struct xn_heap_node *nodes, const uint32_t *came)
{
    struct xn_heap_node *best = NULL;

    for (uint32_t i = 0; i < NODES; i++) {
        struct xn_heap_node *n = &nodes[i];
        if (!n->queued)
            continue;
        if (!best || n->major < best->major ||
            (n->major == best->major &&
             (n->minor < best->minor || (n->minor == best->minor && came[i] < came[best - nodes]))))
            best = n;
    }
    return best;
}

static void test_heap_beside_a_list(void **state)
{
    struct xn_heap heap = {0};
    static struct xn_heap_node nodes[NODES];
    static uint32_t came[NODES];
    uint64_t chance = 88172645463325252u;
    (void)state;

    for (uint32_t step = 0; step < 50000; step++) {
        chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
        uint32_t i = (uint32_t)(chance % NODES);
        bool again = nodes[i].sequence != 0 && chance % 7 == 0;
        if (nodes[i].queued) {
            xn_heap_remove(&heap, step % 3 == 0 ? heap.root : &nodes[i]);
        } else {
            xn_heap_insert(&heap, &nodes[i], chance >> 8 & 3, chance >> 16 & 7, again);
            came[i] = again ? came[i] : step;
        }
        assert_ptr_equal(heap.root, least(nodes, came));
    }
    while (heap.root)
        xn_heap_remove(&heap, heap.root);
    for (uint32_t i = 0; i < NODES; i++)
        assert_false(nodes[i].queued);
    xn_heap_remove(&heap, &nodes[0]); /* in no heap: nothing happens */
}

/* This program lies in BUILD/tests/unit; under an emulator the system may tell the emulator's folder. */
static void test_program_folder(void **state)
{
    char folder[PATH_MAX];
    (void)state;

    xn_program_folder(folder);
    assert_true(folder[0] == '/' && folder[strlen(folder) - 1] != '/');
    assert_int_equal(access(folder, X_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_text_is_one_safe_line),
        cmocka_unit_test(test_error_text_is_cut_on_a_character),
        cmocka_unit_test(test_error_prefix),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_line_is_bounded),
        cmocka_unit_test(test_log_leaves_errno_alone),
        cmocka_unit_test(test_log_target_auto_compares_the_stream),
        cmocka_unit_test(test_log_levels),
        cmocka_unit_test(test_pool_hands_out_each_object_once),
        cmocka_unit_test(test_pool_refuses_bad_sizes),
        cmocka_unit_test(test_pool_under_contention),
        cmocka_unit_test(test_buffers_come_from_the_smallest_class_that_has_one),
        cmocka_unit_test(test_large_buffers_give_their_pages_back),
        cmocka_unit_test(test_buffer_pool_refuses_bad_classes),
        cmocka_unit_test(test_calloc_checks_its_sizes),
        cmocka_unit_test(test_heap_beside_a_list),
        cmocka_unit_test(test_program_folder),
        cmocka_unit_test(test_fault_points),
        cmocka_unit_test(test_pools_survive_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("common", tests, NULL, NULL);
}
