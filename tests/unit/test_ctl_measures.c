/* SPDX-License-Identifier: Apache-2.0
 * What xnorctl computes: percentiles, arrivals, confusion tables, labelled sets, numbers for people. Random parts print their seed ($XN_SEED). */
#include "common/number.h"
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "clients/xnorctl/arrivals.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/histogram.h"
#include "clients/xnorctl/labelled.h"
#include "clients/xnorctl/options.h"
#include "clients/xnorctl/score.h"
#include "tests/support/random_network.h"

/* ---- histogram ---------------------------------------------------------------------------------------------------- */

#define VALUES 20000

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_quantiles_against_sorting(void **state)
{
    static const double parts[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.99999, 1};
    struct xn_random random = {xn_random_seed(1)};
    struct xn_histogram *h = calloc(1, sizeof(*h));
    uint64_t *values = calloc(VALUES, sizeof(*values));

    (void)state;
    assert_non_null(h);
    assert_non_null(values);
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = xn_random_next(&random) >> (22 + xn_random_below(&random, 42)); /* all magnitudes up to 2^42 */
        xn_histogram_add(h, values[i]);
    }
    qsort(values, VALUES, sizeof(*values), compare);
    for (size_t k = 0; k < XN_ARRAY_LEN(parts); k++) {
        size_t rank = (size_t)ceil(parts[k] * VALUES);
        uint64_t exact = values[rank > 0 ? rank - 1 : 0], got = xn_histogram_quantile(h, parts[k]);
        assert_true(got >= exact);
        assert_true((double)(got - exact) <= (double)exact / 128 + 1e-9);
    }
    assert_int_equal(h->min, values[0]);
    assert_int_equal(h->max, values[VALUES - 1]);
    assert_int_equal(xn_histogram_quantile(h, 1), values[VALUES - 1]);
    free(values);
    free(h);
}

static void test_histogram_ends(void **state)
{
    struct xn_histogram *h = calloc(1, sizeof(*h));

    (void)state;
    assert_non_null(h);
    assert_int_equal(xn_histogram_quantile(h, 0.5), 0);
    assert_true(xn_histogram_mean(h) == 0);
    xn_histogram_add(h, UINT64_MAX);
    assert_int_equal(xn_histogram_quantile(h, 0.5), UINT64_MAX);
    xn_histogram_add(h, 0);
    assert_int_equal(xn_histogram_quantile(h, 0.5), 0);
    assert_int_equal(h->min, 0);
    free(h);
}

/* ---- arrivals ----------------------------------------------------------------------------------------------------- */

static void test_uniform_arrivals(void **state)
{
    struct xn_arrivals a;

    (void)state;
    xn_arrivals_init(&a, 1000, false, 7);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(llabs((long long)xn_arrivals_due_ns(&a) - (long long)(i * 1000000)) <= 1);
        xn_arrivals_advance(&a);
    }
}

static void test_poisson_arrivals(void **state)
{
    const uint64_t seed = xn_random_seed(1);
    const size_t n = 100000;
    struct xn_arrivals a, same;
    double previous = 0, sum = 0, squares = 0;

    (void)state;
    xn_arrivals_init(&a, 1000, true, seed);
    xn_arrivals_init(&same, 1000, true, seed);
    for (size_t i = 0; i < n; i++) {
        double gap = a.at_ns - previous;
        assert_true(gap >= 0);
        sum += gap;
        squares += gap * gap;
        previous = a.at_ns;
        assert_int_equal(xn_arrivals_due_ns(&a), xn_arrivals_due_ns(&same));
        xn_arrivals_advance(&a);
        xn_arrivals_advance(&same);
    }
    /* Mean 1 ms, and a deviation of the same: six standard errors are 2 % and 6 %, whatever the seed. */
    double mean = sum / (double)n, deviation = sqrt(squares / (double)n - mean * mean);
    assert_true(fabs(mean / 1e6 - 1) < 0.02);
    assert_true(fabs(deviation / 1e6 - 1) < 0.06);
}

/* ---- scores ------------------------------------------------------------------------------------------------------- */

static void test_score(void **state)
{
    struct xn_score s;
    double value = -1;

    (void)state;
    xn_score_init(&s, 4);
    for (int i = 0; i < 3; i++)
        xn_score_add(&s, 0, 0);
    xn_score_add(&s, 0, 1);
    xn_score_add(&s, 1, 1);
    xn_score_add(&s, 1, 0);
    xn_score_add(&s, 2, 0);
    assert_int_equal(s.answered, 7);
    assert_int_equal(s.correct, 4);
    assert_int_equal(xn_score_at(&s, 0, 1), 1);
    assert_int_equal(xn_score_of_class(&s, 0), 4);
    assert_int_equal(xn_score_taken_for(&s, 0), 5);
    assert_true(xn_score_precision(&s, 0, &value));
    assert_true(fabs(value - 0.6) < 1e-12);
    assert_true(xn_score_recall(&s, 0, &value));
    assert_true(fabs(value - 0.75) < 1e-12);
    assert_true(xn_score_recall(&s, 2, &value));
    assert_true(value == 0);
    value = -1;
    assert_false(xn_score_precision(&s, 2, &value)); /* nothing was taken for it */
    assert_false(xn_score_recall(&s, 3, &value));    /* none of it was there */
    assert_true(value == -1);
    xn_score_done(&s);
}

/* ---- labelled sets ------------------------------------------------------------------------------------------------ */

struct folder {
    char path[64];
    char file[3][128];
};

static int folder_setup(void **state)
{
    struct folder *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    strcpy(f->path, "/tmp/xnorctl-test-XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    for (size_t i = 0; i < 3; i++)
        snprintf(f->file[i], sizeof(f->file[i]), "%s/%zu", f->path, i);
    *state = f;
    return 0;
}

static int folder_teardown(void **state)
{
    struct folder *f = *state;

    for (size_t i = 0; i < 3; i++)
        unlink(f->file[i]);
    rmdir(f->path);
    free(f);
    return 0;
}

static void write_bytes(const char *path, const void *data, size_t bytes, bool gzip)
{
    gzFile file = gzopen(path, gzip ? "wb" : "wbT");

    assert_non_null(file);
    assert_int_equal(gzwrite(file, data, (unsigned)bytes), bytes);
    assert_int_equal(gzclose(file), Z_OK);
}

static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 10, 11, 12, 20, 21, 22};
static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 255};

static void test_idx(void **state)
{
    struct folder *f = *state;
    struct xn_error error;

    for (int gzip = 0; gzip < 2; gzip++) {
        struct xn_set *set;
        write_bytes(f->file[0], images, sizeof(images), gzip);
        write_bytes(f->file[1], labels, sizeof(labels), !gzip);
        assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), 0);
        assert_int_equal(set->n, 2);
        assert_int_equal(set->h, 1);
        assert_int_equal(set->w, 3);
        assert_int_equal(set->c, 1);
        assert_int_equal(set->classes[0], 4);
        assert_int_equal(set->classes[1], 255);
        assert_memory_equal(set->pixels, images + 16, 6);
        xn_set_free(set);
    }
}

/* Every prefix, and files that do not belong together, are refused with the name of the file. */
static void test_bad_idx(void **state)
{
    static const uint8_t three[] = {0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3}, wrong_type[] = {0, 0, 9, 1, 0, 0, 0, 1, 1};
    static const uint8_t huge[] = {0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    static const uint8_t longer[] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 1, 0};
    struct folder *f = *state;
    struct xn_set *set = NULL;
    struct xn_error error;

    for (size_t n = 0; n < sizeof(images); n++) {
        write_bytes(f->file[0], images, n, false);
        write_bytes(f->file[1], labels, sizeof(labels), false);
        assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), -EBADMSG);
        assert_non_null(strstr(error.text, f->file[0]));
    }
    write_bytes(f->file[0], images, sizeof(images), false);
    write_bytes(f->file[1], three, sizeof(three), false);
    assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), -EINVAL);
    assert_non_null(strstr(error.text, "3 labels"));
    assert_non_null(strstr(error.text, "2 images"));
    write_bytes(f->file[1], wrong_type, sizeof(wrong_type), false);
    assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), -EBADMSG);
    write_bytes(f->file[1], longer, sizeof(longer), false);
    assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), -EBADMSG);
    assert_int_equal(xn_set_load_idx(f->file[1], f->file[0], &set, &error), -EBADMSG);
    assert_int_equal(xn_set_load_idx(f->file[0], f->file[0], &set, &error), -EINVAL); /* images as labels */
    write_bytes(f->file[0], huge, sizeof(huge), false);
    assert_int_equal(xn_set_load_idx(f->file[0], f->file[1], &set, &error), -EFBIG);
    assert_int_equal(xn_set_load_idx(f->file[2], f->file[1], &set, &error), -ENOENT);
    assert_null(set);
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(xn_words_ns(0).text, "0.00 ns");
    assert_string_equal(xn_words_ns(999.4).text, "999 ns");
    assert_string_equal(xn_words_ns(999.6).text, "1.00 us");
    assert_string_equal(xn_words_ns(9.996e3).text, "10.0 us");
    assert_string_equal(xn_words_ns(2.5e9).text, "2.50 s");
    assert_string_equal(xn_words_bytes(784).text, "784 B");
    assert_string_equal(xn_words_bytes(1536).text, "1.50 KiB");
    assert_string_equal(xn_words_count(1000).text, "1000");
    assert_string_equal(xn_words_count(613e6).text, "613 M");
    assert_string_equal(xn_words_joules(4.2e-5).text, "42.0 uJ");
    assert_string_equal(xn_words_joules(1500).text, "1.50 kJ");
    assert_string_equal(xn_words_span(7).text, "0:07");
    assert_string_equal(xn_words_span(3723).text, "1:02:03");
    assert_string_equal(xn_words_span(2 * 86400 + 3600).text, "2 d 01:00");
}

static void test_table(void **state)
{
    struct xn_table *t = xn_table_new("lr");
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);

    (void)state;
    assert_non_null(to);
    xn_table_cell(t, "NAME");
    xn_table_cell(t, "N");
    xn_table_cell(t, "h\xc3\xa9\x1b");
    xn_table_cell(t, "%d", 10);
    xn_table_cell(t, "x");
    xn_table_cell(t, "%s", "");
    xn_table_end(t, to, 1);
    assert_int_equal(fclose(to), 0);
    assert_string_equal(text, " NAME   N\n h\xc3\xa9?   10\n x\n");
    free(text);
}

static void test_numbers_of_options(void **state)
{
    uint64_t u = 5;
    double d = 5;

    (void)state;
    assert_true(xn_number_u64("0", 0, 10, &u) && u == 0);
    assert_true(xn_number_u64("10", 0, 10, &u) && u == 10);
    assert_false(xn_number_u64("11", 0, 10, &u));
    assert_false(xn_number_u64("", 0, 10, &u));
    assert_false(xn_number_u64("-1", 0, 10, &u));
    assert_false(xn_number_u64(" 1", 0, 10, &u));
    assert_false(xn_number_u64("1x", 0, 10, &u));
    assert_false(xn_number_u64("99999999999999999999", 0, UINT64_MAX, &u));
    assert_int_equal(u, 10);
    assert_true(xn_opt_double("2.5", 0, 10, &d) && d == 2.5);
    assert_true(xn_opt_double(".5", 0, 10, &d) && d == 0.5);
    assert_false(xn_opt_double("nan", 0, 10, &d));
    assert_false(xn_opt_double("1e999", 0, 10, &d));
    assert_false(xn_opt_double("1s", 0, 10, &d));
    assert_true(d == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_against_sorting),
        cmocka_unit_test(test_histogram_ends),
        cmocka_unit_test(test_uniform_arrivals),
        cmocka_unit_test(test_poisson_arrivals),
        cmocka_unit_test(test_score),
        cmocka_unit_test_setup_teardown(test_idx, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_bad_idx, folder_setup, folder_teardown),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_numbers_of_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
