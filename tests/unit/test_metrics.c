/* SPDX-License-Identifier: Apache-2.0
 * Metrics: exact sums whatever the threads, buckets at their bounds, escaping, slots that change hands, and
 * Prometheus' own checker on the whole text. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/observe/metrics.h"

static struct xn_accel_base accels[2] = {{.info = {.name = "cpu0", .kind = "cpu"}},
                                         {.info = {.name = "x\"y\\z\n", .kind = "xrt"}}};
static struct xn_instances instances = {
    .n = 2, .accel = {(struct xn_accel *)(void *)&accels[0], (struct xn_accel *)(void *)&accels[1]}};

static struct xn_metrics *fresh(void)
{
    struct xn_metrics *metrics = NULL;

    assert_int_equal(xn_metrics_new(&instances, &metrics), 0);
    return metrics;
}

static char *render(struct xn_metrics *metrics)
{
    char *text = NULL;
    size_t bytes = 0;

    assert_int_equal(xn_metrics_render(metrics, &text, &bytes), 0);
    assert_int_equal(strlen(text), bytes);
    return text;
}

/* The value of the sample that begins a line with `series`; NaN: there is none. */
static double value_of(struct xn_metrics *metrics, const char *series)
{
    char *text = render(metrics);
    double value = NAN;

    for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, series, strlen(series)) == 0 && line[strlen(series)] == ' ')
            value = strtod(line + strlen(series), NULL);
    }
    free(text);
    return value;
}

static void assert_value(struct xn_metrics *metrics, const char *series, double wanted)
{
    double value = value_of(metrics, series);

    if (isnan(wanted) ? !isnan(value) : !(fabs(value - wanted) <= 1e-12 * fabs(wanted)))
        fail_msg("%s is %.17g, not %.17g", series, value, wanted);
}

static void run_batch(struct xn_metrics *metrics, uint32_t slot, uint32_t instance, uint32_t n, int status)
{
    struct xn_model model = {.slot = slot};
    struct xn_batch *batch = calloc(1, sizeof(*batch));

    batch->model = &model;
    batch->instance = instance;
    batch->n = n;
    batch->reason = XN_CLOSE_DELAY;
    xn_metrics_batch(metrics, batch, 3 * XN_NS_PER_MS, status);
    free(batch);
}

static void test_counts(void **state)
{
    (void)state;
    struct xn_metrics *m = fresh();

    xn_metrics_set_model(m, 3, "net", "1");
    xn_metrics_http(m, XN_ROUTE_INFER, 200, 1);
    xn_metrics_http(m, XN_ROUTE_INFER, 200, 2 * XN_NS_PER_S);
    xn_metrics_http(m, XN_ROUTE_OTHER, 404, 1);
    xn_metrics_http(m, XN_ROUTE_OTHER, 70000, 1);
    xn_metrics_reject(m, XN_REJECT_QUEUE_FULL);
    run_batch(m, 3, 0, 4, 0);
    xn_metrics_energy(m, 3, 0, &(struct xn_energy){.joules = 0.5, .active_j = 0.125, .source = XN_ENERGY_ESTIMATE});
    xn_metrics_energy(m, 3, 0, &(struct xn_energy){.joules = 0.5, .active_j = -1, .source = XN_ENERGY_SIMULATED});
    run_batch(m, 3, 0, 2, -EIO);

    assert_value(m, "xnord_http_requests_total{route=\"infer\",code=\"200\"}", 2);
    assert_value(m, "xnord_http_requests_total{route=\"other\",code=\"404\"}", 1);
    assert_value(m, "xnord_http_requests_total{route=\"other\",code=\"000\"}", 1);
    assert_value(m, "xnord_http_request_duration_seconds_count{route=\"infer\"}", 2);
    assert_value(m, "xnord_http_request_duration_seconds_sum{route=\"infer\"}", 2.000000001);
    assert_value(m, "xnord_requests_rejected_total{reason=\"queue_full\"}", 1);
    assert_value(m, "xnord_requests_rejected_total{reason=\"timeout\"}", 0);
    assert_value(m, "xnord_batches_total{model=\"net\",version=\"1\",accelerator=\"cpu0\",reason=\"delay\"}", 2);
    assert_value(m, "xnord_batches_total{model=\"net\",version=\"1\",accelerator=\"cpu0\",reason=\"full\"}", 0);
    assert_value(m, "xnord_batch_size_bucket{model=\"net\",version=\"1\",le=\"2\"}", 1);
    assert_value(m, "xnord_batch_size_bucket{model=\"net\",version=\"1\",le=\"4\"}", 2);
    assert_value(m, "xnord_batch_size_sum{model=\"net\",version=\"1\"}", 6);
    assert_value(m, "xnord_inferences_total{model=\"net\",version=\"1\"}", 4);
    assert_value(m, "xnord_instance_inferences_total{model=\"net\",version=\"1\",accelerator=\"cpu0\"}", 4);
    assert_value(m, "xnord_inference_failures_total{model=\"net\",version=\"1\"}", 2);
    assert_value(m, "xnord_batch_duration_seconds_sum{model=\"net\",version=\"1\",accelerator=\"cpu0\"}", 0.006);
    assert_value(
        m, "xnord_inference_energy_joules_total{model=\"net\",version=\"1\",accelerator=\"cpu0\",source=\"estimate\"}",
        0.5);
    assert_value(
        m, "xnord_inference_energy_joules_total{model=\"net\",version=\"1\",accelerator=\"cpu0\",source=\"sensor\"}",
        NAN);
#define ACTIVE "xnord_inference_active_energy_joules_total{model=\"net\",version=\"1\",accelerator=\"cpu0\""
    assert_value(m, ACTIVE ",source=\"estimate\"}", 0.125);
    assert_value(m, ACTIVE ",source=\"simulated\"}", NAN);
    assert_value(m, "xnord_batches_total{model=\"net\",version=\"1\",accelerator=\"x\\\"y\\\\z\\n\",reason=\"delay\"}",
                 0);
    xn_metrics_free(m);
}

/* A value on a bound belongs to that bound's bucket ("le"), one more to the next; buckets accumulate. */
static void test_bucket_bounds(void **state)
{
    (void)state;
    struct xn_metrics *m = fresh();

    xn_metrics_set_model(m, 0, "a", "1");
    xn_metrics_stage(m, 0, XN_STAGE_QUEUE, 10 * XN_NS_PER_US);
    xn_metrics_stage(m, 0, XN_STAGE_QUEUE, 10 * XN_NS_PER_US + 1);
    xn_metrics_stage(m, 0, XN_STAGE_QUEUE, 10 * XN_NS_PER_S);
    xn_metrics_stage(m, 0, XN_STAGE_QUEUE, 10 * XN_NS_PER_S + 1);
    xn_metrics_stage(m, XN_CONFIG_MODELS_MAX, XN_STAGE_QUEUE, 1); /* no such slot: nothing */
    assert_value(m, "xnord_stage_duration_seconds_bucket{model=\"a\",version=\"1\",stage=\"queue\",le=\"1e-05\"}", 1);
    assert_value(m, "xnord_stage_duration_seconds_bucket{model=\"a\",version=\"1\",stage=\"queue\",le=\"2e-05\"}", 2);
    assert_value(m, "xnord_stage_duration_seconds_bucket{model=\"a\",version=\"1\",stage=\"queue\",le=\"5\"}", 2);
    assert_value(m, "xnord_stage_duration_seconds_bucket{model=\"a\",version=\"1\",stage=\"queue\",le=\"10\"}", 3);
    assert_value(m, "xnord_stage_duration_seconds_bucket{model=\"a\",version=\"1\",stage=\"queue\",le=\"+Inf\"}", 4);
    assert_value(m, "xnord_stage_duration_seconds_count{model=\"a\",version=\"1\",stage=\"queue\"}", 4);
    xn_metrics_free(m);
}

enum { THREADS = 24, EVENTS = 5000 }; /* more threads than shards */

static void *count_events(void *argument)
{
    struct xn_metrics *m = argument;

    for (int i = 0; i < EVENTS; i++) {
        xn_metrics_http(m, XN_ROUTE_INFER, 200, (uint64_t)i * XN_NS_PER_US);
        xn_metrics_reject(m, XN_REJECT_TIMEOUT);
        xn_metrics_stage(m, 0, XN_STAGE_EXECUTE, 1000);
    }
    return NULL;
}

static void *render_meanwhile(void *argument)
{
    for (int i = 0; i < 20; i++) {
        xn_metrics_set_model(argument, 1, i % 2 ? "odd" : "even", "1");
        free(render(argument));
    }
    return NULL;
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    struct xn_metrics *m = fresh();
    pthread_t threads[THREADS + 1];
    double total = (double)THREADS * EVENTS;

    xn_metrics_set_model(m, 0, "a", "1");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_events, m), 0);
    assert_int_equal(pthread_create(&threads[THREADS], NULL, render_meanwhile, m), 0);
    for (int i = 0; i <= THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_value(m, "xnord_http_requests_total{route=\"infer\",code=\"200\"}", total);
    assert_value(m, "xnord_http_request_duration_seconds_count{route=\"infer\"}", total);
    assert_value(m, "xnord_http_request_duration_seconds_sum{route=\"infer\"}",
                 THREADS * ((double)EVENTS * (EVENTS - 1) / 2) * 1e-6);
    assert_value(m, "xnord_requests_rejected_total{reason=\"timeout\"}", total);
    assert_value(m, "xnord_stage_duration_seconds_sum{model=\"a\",version=\"1\",stage=\"execute\"}", total * 1e-6);
    xn_metrics_free(m);
}

static void test_slot_changes_hands(void **state)
{
    (void)state;
    struct xn_metrics *m = fresh();

    xn_metrics_set_model(m, 0, "old", "1");
    xn_metrics_stage(m, 0, XN_STAGE_QUEUE, 1);
    run_batch(m, 0, 1, 3, 0);
    xn_metrics_set_model(m, 0, "old", "1"); /* a reload of the same name keeps its counts */
    assert_value(m, "xnord_inferences_total{model=\"old\",version=\"1\"}", 3);
    xn_metrics_set_model(m, 0, "new", "1");
    assert_value(m, "xnord_inferences_total{model=\"old\",version=\"1\"}", NAN);
    assert_value(m, "xnord_inferences_total{model=\"new\",version=\"1\"}", 0);
    assert_value(m, "xnord_stage_duration_seconds_count{model=\"new\",version=\"1\",stage=\"queue\"}", 0);
    xn_metrics_free(m);
}

static void test_escape(void **state)
{
    (void)state;
    char out[8];

    assert_string_equal(xn_metrics_escape("a\"b\\\n", out, sizeof(out)), "a\\\"b\\\\");
    assert_string_equal(xn_metrics_escape("abcdef\"", out, sizeof(out)), "abcdef"); /* an escape is never cut in two */
    assert_string_equal(xn_metrics_escape("abcdefgh", out, sizeof(out)), "abcdefg");
    assert_string_equal(xn_metrics_escape("x", out, 1), "");
}

static void render_state(void *user, struct xn_metrics_text *text)
{
    static const struct xn_metrics_instance some[] = {{.name = "cpu0",
                                                       .kind = "cpu",
                                                       .device = "a \"CPU\"",
                                                       .geometry = "2 threads, avx2",
                                                       .healthy = true,
                                                       .busy_ns = 1500000000,
                                                       .retries = 3,
                                                       .quarantines = 4,
                                                       .resets = 5,
                                                       .reset_failures = 6}};
    static const struct xn_metrics_model models[] = {
        {.name = "net", .version = "1", .sha256_hex = "00ff", .queue_depth = 7}};

    *(bool *)user = true;
    xn_metrics_render_instances(text, some, 1);
    xn_metrics_render_models(text, models, 1);
    xn_metrics_render_requests(text, 5);
    xn_metrics_family(text, "xnord_odd_numbers", "gauge", "Numbers that are hard to print.");
    xn_metrics_sample(text, "xnord_odd_numbers", "n=\"nan\"", NAN);
    xn_metrics_sample(text, "xnord_odd_numbers", "n=\"inf\"", -INFINITY);
    xn_metrics_sample(text, "xnord_odd_numbers", "n=\"third\"", 1.0 / 3);
    xn_metrics_sample(text, "xnord_odd_numbers", "n=\"tenth\"", 0.1);
}

static void test_sources(void **state)
{
    (void)state;
    struct xn_metrics *m = fresh();
    bool called = false;
    struct xn_metrics_source source = {&called, render_state};

    xn_metrics_add_source(m, &source);
    assert_value(m, "xnord_instance_busy_seconds_total{accelerator=\"cpu0\",kind=\"cpu\"}", 1.5);
    assert_true(called);
    assert_value(m,
                 "xnord_instance_info{accelerator=\"cpu0\",kind=\"cpu\",device=\"a \\\"CPU\\\"\","
                 "geometry=\"2 threads, avx2\"}",
                 1);
    assert_value(m, "xnord_instance_healthy{accelerator=\"cpu0\",kind=\"cpu\"}", 1);
    assert_value(m, "xnord_instance_retries_total{accelerator=\"cpu0\",kind=\"cpu\"}", 3);
    assert_value(m, "xnord_instance_quarantines_total{accelerator=\"cpu0\",kind=\"cpu\"}", 4);
    assert_value(m, "xnord_instance_resets_total{accelerator=\"cpu0\",kind=\"cpu\"}", 5);
    assert_value(m, "xnord_instance_reset_failures_total{accelerator=\"cpu0\",kind=\"cpu\"}", 6);
    assert_value(m, "xnord_queue_depth{model=\"net\",version=\"1\"}", 7);
    assert_value(m, "xnord_model_info{model=\"net\",version=\"1\",sha256=\"00ff\"}", 1);
    assert_value(m, "xnord_requests_active", 5);
    char *text = render(m);
    assert_non_null(strstr(text, "xnord_odd_numbers{n=\"nan\"} NaN\n"));
    assert_non_null(strstr(text, "xnord_odd_numbers{n=\"inf\"} -Inf\n"));
    assert_non_null(strstr(text, "xnord_odd_numbers{n=\"tenth\"} 0.1\n"));
    assert_non_null(strstr(text, "xnord_odd_numbers{n=\"third\"} 0.333333333333333"));
    free(text);
    assert_true(value_of(m, "process_resident_memory_bytes") > 1e5);
    assert_true(value_of(m, "process_open_fds") >= 3);
    assert_true(value_of(m, "process_cpu_seconds_total") > 0);
    assert_true(value_of(m, "process_start_time_seconds") > 1.6e9);
    xn_metrics_free(m);
}

/* Prometheus' own tool reads the whole text and has nothing to say. */
static void test_promtool(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0) {
        print_message("# SKIP promtool is not installed\n");
        skip();
    }
    struct xn_metrics *m = fresh();
    bool called = false;
    struct xn_metrics_source source = {&called, render_state};
    xn_metrics_add_source(m, &source);
    xn_metrics_set_model(m, 0, "net", "1");
    xn_metrics_set_model(m, 63, "b.c-d_e", "1");
    xn_metrics_http(m, XN_ROUTE_INFER, 200, 12345);
    run_batch(m, 0, 1, 8, 0);
    xn_metrics_energy(m, 0, 1, &(struct xn_energy){.joules = 0.25, .active_j = 0.125, .source = XN_ENERGY_SENSOR});
    char *text = render(m);
    FILE *promtool = popen("promtool check metrics 2>&1 | (! grep .)", "w");
    assert_non_null(promtool);
    fputs(text, promtool);
    int status = pclose(promtool);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    free(text);
    xn_metrics_free(m);
}

#ifdef XN_FAULTS
static void test_no_memory(void **state)
{
    (void)state;
    struct xn_metrics *m = NULL;

    for (uint64_t nth = 1; nth <= 4; nth++) {
        xn_fault_arm("alloc", nth, false);
        assert_int_equal(xn_metrics_new(&instances, &m), -ENOMEM);
        assert_null(m);
    }
    xn_fault_arm("alloc", 0, false);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_bucket_bounds),
        cmocka_unit_test(test_threads_lose_nothing),
        cmocka_unit_test(test_slot_changes_hands),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_promtool),
#ifdef XN_FAULTS
        cmocka_unit_test(test_no_memory),
#endif
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
