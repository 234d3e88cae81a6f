/* SPDX-License-Identifier: Apache-2.0
 * Power: what is found on each board of tests/fixtures/power, integration with a clock of the test's own, wraps,
 * sensors that vanish and return, estimates and attribution. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "daemon/observe/power.h"
#include "daemon/observe/power_internal.h"
#include "daemon/observe/text.h"

#define T0 (1000 * XN_NS_PER_S)

/* A copy of a board's tree that the test may change, and instances beside it. */
struct board {
    char root[64], hwmon[80], powercap[80], pci[80];
    struct xn_config config;
    struct xn_accel_base accels[3];
    struct xn_instances instances;
    struct xn_power *power;
};

static void setup(struct board *b, const char *fixture, const char *const *domains)
{
    const char *repository = getenv("XN_ROOT") ? getenv("XN_ROOT") : ".";
    char command[512];

    memset(b, 0, sizeof(*b));
    snprintf(b->root, sizeof(b->root), "/tmp/xn-power-XXXXXX");
    assert_non_null(mkdtemp(b->root));
    snprintf(command, sizeof(command), "cp -r '%s/tests/fixtures/power/%s/.' %s", repository, fixture, b->root);
    assert_int_equal(system(command), 0);
    snprintf(b->hwmon, sizeof(b->hwmon), "%s/hwmon", b->root);
    snprintf(b->powercap, sizeof(b->powercap), "%s/powercap", b->root);
    snprintf(b->pci, sizeof(b->pci), "%s/pci", b->root);
    xn_config_init(&b->config);
    assert_int_equal(xn_config_set(&b->config, "power.hwmon_root", b->hwmon, NULL), 0);
    assert_int_equal(xn_config_set(&b->config, "power.powercap_root", b->powercap, NULL), 0);
    assert_int_equal(xn_config_set(&b->config, "power.pci_root", b->pci, NULL), 0);
    for (uint32_t i = 0; domains[i]; i++) {
        snprintf(b->accels[i].info.name, sizeof(b->accels[i].info.name), "accel%u", i);
        snprintf(b->accels[i].info.power_domain, sizeof(b->accels[i].info.power_domain), "%s", domains[i]);
        b->instances.accel[i] = (struct xn_accel *)(void *)&b->accels[i];
        b->instances.config[i] = &b->config.accelerators[0];
        b->instances.n++;
    }
}

static void begin(struct board *b)
{
    assert_int_equal(xn_power_prepare(&b->config, &b->instances, &b->power, NULL), 0);
}

static void teardown(struct board *b)
{
    char command[128];

    xn_power_free(b->power);
    xn_config_done(&b->config);
    snprintf(command, sizeof(command), "rm -rf %s", b->root);
    assert_int_equal(system(command), 0);
}

static void write_value(const struct board *b, const char *file, const char *value)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", b->root, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n", value);
    fclose(f);
}

static void sample_at(const struct board *b, double seconds)
{
    xn_power_sample(b->power, T0 + (uint64_t)(seconds * (double)XN_NS_PER_S));
}

/* The sample of `family` with these labels, NaN where there is none. */
static double figure(const struct board *b, const char *family, const char *domain, const char *sensor,
                     const char *source)
{
    struct xn_metrics_text text = {0};
    char series[256];
    double value = NAN;

    snprintf(series, sizeof(series), "\n%s{domain=\"%s\",sensor=\"%s\",source=\"%s\"} ", family, domain, sensor,
             source);
    xn_power_render(b->power, &text);
    const char *at = strstr(text.data, series);
    if (at)
        value = strtod(at + strlen(series), NULL);
    free(text.data);
    return value;
}

static void assert_near(double value, double wanted)
{
    if (isnan(wanted) ? !isnan(value) : !(fabs(value - wanted) <= 1e-9 * (1 + fabs(wanted))))
        fail_msg("%.12g, not %.12g", value, wanted);
}

#define UP     "xnord_power_sensor_up"
#define WATTS  "xnord_power_watts"
#define JOULES "xnord_energy_joules_total"

static void test_kv260(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "kv260", (const char *const[]){"cpu", "fabric", NULL});
    begin(&b);
    assert_near(figure(&b, UP, "board", "ina260_u14", "hwmon"), 0); /* not yet read */
    sample_at(&b, 0);
    assert_near(figure(&b, UP, "board", "ina260_u14", "hwmon"), 1);
    assert_near(figure(&b, WATTS, "board", "ina260_u14", "hwmon"), 7.35);
    write_value(&b, "hwmon/hwmon1/power1_input", "9350000");
    sample_at(&b, 2);
    assert_near(figure(&b, JOULES, "board", "ina260_u14", "hwmon"), (7.35 + 9.35) / 2 * 2);
    /* The board feeds both the CPU's and the fabric's instances: neither lacks a sensor. */
    assert_near(figure(&b, UP, "cpu", "none", "none"), NAN);
    double joules;
    enum xn_energy_source source = XN_ENERGY_ESTIMATE;
    xn_power_busy(b.power, 0, true, T0 + 2 * XN_NS_PER_S);
    assert_true(
        xn_power_batch_energy(b.power, 0, T0 + 2 * XN_NS_PER_S, T0 + 2 * XN_NS_PER_S + XN_NS_PER_MS, &joules, &source));
    assert_near(joules, 9.35e-3);
    assert_int_equal(source, XN_ENERGY_SENSOR);
    xn_power_busy(b.power, 1, true, T0 + 2 * XN_NS_PER_S); /* both at work: half each */
    assert_true(
        xn_power_batch_energy(b.power, 1, T0 + 2 * XN_NS_PER_S, T0 + 2 * XN_NS_PER_S + XN_NS_PER_MS, &joules, &source));
    assert_near(joules, 9.35e-3 / 2);
    teardown(&b);
}

static void test_zcu102(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "zcu102", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "board", "ps", "hwmon"), 2.45);
    assert_near(figure(&b, WATTS, "board", "pl", "hwmon"), 4.7);
    sample_at(&b, 1);
    double joules;
    enum xn_energy_source source;
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source));
    assert_near(joules, 7.15); /* both sums together */
    teardown(&b);
}

static void test_alveo(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "alveo", (const char *const[]){"0000:65:00.1", "0000:b3:00.1", "cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "0000:65:00.1", "xmc", "xocl"), 21.5);
    assert_near(figure(&b, WATTS, "0000:65:00.1", "card", "xocl"), NAN); /* once is enough */
    assert_near(figure(&b, WATTS, "0000:b3:00.1", "card", "xocl"), 33);
    assert_near(figure(&b, WATTS, "0000:01:00.0", "card", "xocl"), NAN); /* another maker's */
    assert_near(figure(&b, UP, "cpu", "none", "none"), 0);
    double joules;
    enum xn_energy_source source;
    assert_false(xn_power_batch_energy(b.power, 2, T0, T0 + 1, &joules, &source));
    teardown(&b);
}

static void test_versal(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "versal", (const char *const[]){"0000:17:00.0", NULL});
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "0000:17:00.0", "total", "hwmon"), 14.1);
    assert_near(figure(&b, WATTS, "board", "total_unverified_unit", "hwmon"), 25);
    teardown(&b);
}

static void test_rapl_wraps(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "pc", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, UP, "cpu", "package-0", "rapl"), 1);
    assert_near(figure(&b, WATTS, "cpu", "package-0", "rapl"), NAN); /* a counter needs two readings */
    assert_near(figure(&b, UP, "cpu", "psys", "rapl"), NAN);
    assert_near(figure(&b, UP, "board", "corsairpsu", "hwmon"), NAN);
    write_value(&b, "powercap/intel-rapl:0/energy_uj", "3500000");
    write_value(&b, "powercap/intel-rapl:1/energy_uj", "1000");
    sample_at(&b, 0.5);
    assert_near(figure(&b, JOULES, "cpu", "package-0", "rapl"), 2.5);
    assert_near(figure(&b, WATTS, "cpu", "package-0", "rapl"), 5);
    assert_near(figure(&b, JOULES, "cpu", "package-1", "rapl"), 1850e-6); /* 850 to the end of the range, 1000 after */
    teardown(&b);
}

static void test_unreadable_counter(void **state)
{
    (void)state;
    struct board b;
    char path[256];

    setup(&b, "pc", (const char *const[]){"cpu", NULL});
    /* In place of a file that only root may read, which a test run by root could not make: it can be opened, and not
     * read. */
    snprintf(path, sizeof(path), "%s/intel-rapl:0/energy_uj", b.powercap);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    begin(&b);
    sample_at(&b, 0);
    sample_at(&b, 1);
    assert_near(figure(&b, UP, "cpu", "package-0", "rapl"), 0);
    assert_near(figure(&b, WATTS, "cpu", "package-0", "rapl"), NAN);
    assert_near(figure(&b, UP, "cpu", "package-1", "rapl"), 1);
    double joules;
    enum xn_energy_source source; /* half a machine's energy is not its energy */
    assert_false(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source));
    teardown(&b);
}

/* A sensor that fails is down, adds nothing while it is, and works again; one that moved is found again. */
static void test_vanishes_and_returns(void **state)
{
    (void)state;
    struct board b;
    char from[256], to[256];

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    sample_at(&b, 1);
    assert_near(figure(&b, JOULES, "board", "ina260_u14", "hwmon"), 7.35);
    snprintf(from, sizeof(from), "%s/hwmon1", b.hwmon);
    snprintf(to, sizeof(to), "%s/hwmon7", b.hwmon);
    assert_int_equal(rename(from, to), 0);
    sample_at(&b, 2);
    assert_near(figure(&b, UP, "board", "ina260_u14", "hwmon"), 0);
    assert_near(figure(&b, WATTS, "board", "ina260_u14", "hwmon"), NAN);
    assert_near(figure(&b, JOULES, "board", "ina260_u14", "hwmon"), 7.35);
    double joules;
    enum xn_energy_source source;
    assert_false(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source));
    sample_at(&b, 40); /* past the rescan */
    sample_at(&b, 41);
    assert_near(figure(&b, UP, "board", "ina260_u14", "hwmon"), 1);
    assert_near(figure(&b, JOULES, "board", "ina260_u14", "hwmon"), 2 * 7.35); /* and nothing for the gap */
    write_value(&b, "hwmon/hwmon7/power1_input", "no figure");
    sample_at(&b, 42);
    assert_near(figure(&b, UP, "board", "ina260_u14", "hwmon"), 0);
    teardown(&b);
}

static void test_estimate(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "alveo", (const char *const[]){"cpu", "cpu", NULL});
    b.config.accelerators[0].idle_watts = 2;
    b.config.accelerators[0].busy_watts = 10;
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "cpu", "declared0", "estimate"), 2);
    assert_near(figure(&b, UP, "cpu", "declared0", "estimate"), NAN);
    xn_power_busy(b.power, 0, true, T0);
    xn_power_busy(b.power, 0, false, T0 + XN_NS_PER_S / 2);
    xn_power_busy(b.power, 1, true, T0 + XN_NS_PER_S / 2); /* and still running at the next sample */
    sample_at(&b, 1);
    assert_near(figure(&b, WATTS, "cpu", "declared0", "estimate"), 6); /* one of two busy all the time */
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), 6);
    double joules;
    enum xn_energy_source source = XN_ENERGY_SENSOR;
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S / 2, &joules, &source));
    assert_int_equal(source, XN_ENERGY_ESTIMATE);
    assert_near(joules, 6 * 0.5);
    sample_at(&b, 3);
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), 6 + 12);
    teardown(&b);
}

/* A sensor beats what is declared; while it is down the estimate steps in, and says that it is one. */
static void test_sensor_beats_estimate(void **state)
{
    (void)state;
    struct board b;
    double joules;
    enum xn_energy_source source;

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    b.config.accelerators[0].idle_watts = 1;
    b.config.accelerators[0].busy_watts = 3;
    begin(&b);
    sample_at(&b, 0);
    sample_at(&b, 1);
    assert_near(figure(&b, WATTS, "cpu", "declared0", "estimate"), NAN);
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source) &&
                source == XN_ENERGY_SENSOR);
    write_value(&b, "hwmon/hwmon1/power1_input", "-5");
    sample_at(&b, 2);
    sample_at(&b, 3);
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"),
                2); /* idle, for the two samples that had no sensor */
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source) &&
                source == XN_ENERGY_ESTIMATE);
    teardown(&b);
}

static void test_rules(void **state)
{
    (void)state;
    struct board b;
    static const char text[] =
        "{\"power\":{\"sensors\":[{\"kind\":\"hwmon\",\"match\":\"corsair\",\"domain\":\"cpu\"},{\"kind\":\"rapl\"}]}}";

    setup(&b, "pc", (const char *const[]){"cpu", NULL});
    char *hwmon = strdup(b.hwmon), *powercap = strdup(b.powercap);
    assert_int_equal(xn_config_load_memory(&b.config, "x", text, sizeof(text) - 1, NULL), 0);
    assert_int_equal(xn_config_set(&b.config, "power.hwmon_root", hwmon, NULL), 0);
    assert_int_equal(xn_config_set(&b.config, "power.powercap_root", powercap, NULL), 0);
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "cpu", "corsairpsu", "hwmon"), 85);
    assert_near(figure(&b, UP, "cpu", "package-0", "rapl"), NAN); /* the domain is measured already */
    free(hwmon);
    free(powercap);
    teardown(&b);
}

/* A batch longer than a sample: the mean over its time, not the last reading. */
static void test_long_batch(void **state)
{
    (void)state;
    struct board b;
    double joules;
    enum xn_energy_source source;

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    for (int i = 1; i <= 200; i++) { /* more samples than the ring holds */
        write_value(&b, "hwmon/hwmon1/power1_input", i % 2 ? "2000000" : "4000000");
        sample_at(&b, i);
    }
    assert_true(xn_power_batch_energy(b.power, 0, T0 + 190 * XN_NS_PER_S, T0 + 200 * XN_NS_PER_S, &joules, &source));
    assert_near(joules, 30);
    teardown(&b);
}

/* Two batches in flight on one instance: their common time counts once. */
static void test_overlapping_batches(void **state)
{
    (void)state;
    struct board b;
    double joules[2];
    enum xn_energy_source source;

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    sample_at(&b, 1);
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S / 2, &joules[0], &source));
    assert_true(xn_power_batch_energy(b.power, 0, T0 + XN_NS_PER_S / 4, T0 + XN_NS_PER_S, &joules[1], &source));
    assert_near(joules[0] + joules[1], 7.35);
    teardown(&b);
}

/* An instance that is never idle, as batches are in flight one behind another, notices when another of its domain begins and ends. */
static void test_sharers_of_a_long_spell(void **state)
{
    (void)state;
    struct board b;
    enum xn_energy_source source;
    double joules, sum = 0;

    setup(&b, "alveo", (const char *const[]){"0000:65:00.1", "0000:65:00.1", NULL});
    begin(&b);
    for (int i = 0; i <= 4; i++)
        sample_at(&b, i);
    xn_power_busy(b.power, 0, true, T0);
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source));
    assert_near(joules, 21.5);
    xn_power_busy(b.power, 1, true, T0 + XN_NS_PER_S);
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + 2 * XN_NS_PER_S, &joules, &source));
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(xn_power_batch_energy(b.power, i, T0 + 2 * XN_NS_PER_S, T0 + 3 * XN_NS_PER_S, &joules, &source));
        assert_near(joules, 21.5 / 2);
        sum += joules;
    }
    assert_near(sum, 21.5); /* no more than the card took */
    xn_power_busy(b.power, 1, false, T0 + 3 * XN_NS_PER_S);
    (void)xn_power_batch_energy(b.power, 0, T0 + 3 * XN_NS_PER_S, T0 + 3 * XN_NS_PER_S + 1, &joules, &source);
    assert_true(xn_power_batch_energy(b.power, 0, T0 + 3 * XN_NS_PER_S, T0 + 4 * XN_NS_PER_S + 1, &joules, &source));
    assert_near(joules, 21.5);
    teardown(&b);
}

/* A virtual card's sensor is no sensor, and says so. */
static void test_simulated(void **state)
{
    (void)state;
    struct board b;
    enum xn_energy_source source;
    double joules;

    setup(&b, "alveo", (const char *const[]){"0000:b3:00.1", NULL});
    write_value(&b, "pci/0000:b3:00.1/hwmon/hwmon5/name", "xnor_vcard");
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "0000:b3:00.1", "card", "simulated"), 33);
    assert_near(figure(&b, WATTS, "0000:b3:00.1", "card", "xocl"), NAN);
    assert_true(xn_power_batch_energy(b.power, 0, T0, T0 + XN_NS_PER_S, &joules, &source));
    assert_int_equal(source, XN_ENERGY_SIMULATED);
    teardown(&b);
}

/* The real thread, over and over: starts, samples, renders beside, stops. */
static void test_thread(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "pc", (const char *const[]){"cpu", NULL});
    assert_int_equal(xn_config_set(&b.config, "power.sample_ms", "10", NULL), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(xn_power_new(&b.config, &b.instances, &b.power, NULL), 0);
        while (figure(&b, UP, "cpu", "package-0", "rapl") != 1 ||
               isnan(figure(&b, WATTS, "cpu", "package-0", "rapl"))) {
            double joules;
            enum xn_energy_source source;
            xn_power_busy(b.power, 0, true, xn_clock_now_ns());
            (void)xn_power_batch_energy(b.power, 0, 0, xn_clock_now_ns(), &joules, &source);
            xn_power_busy(b.power, 0, false, xn_clock_now_ns());
        }
        xn_power_free(b.power);
    }
    b.power = NULL;
    teardown(&b);
}

#ifdef XN_FAULTS
static void test_faults(void **state)
{
    (void)state;
    struct board b;
    struct xn_error error;

    setup(&b, "pc", (const char *const[]){"cpu", NULL});
    for (uint64_t nth = 1; nth <= 4; nth++) {
        xn_fault_arm("alloc", nth, false);
        assert_int_equal(xn_power_new(&b.config, &b.instances, &b.power, &error), -ENOMEM);
        assert_null(b.power);
    }
    xn_fault_arm("alloc", 0, false);
    xn_fault_arm("power.thread", 1, false);
    assert_int_equal(xn_power_new(&b.config, &b.instances, &b.power, &error), -EAGAIN);
    xn_fault_arm("power.thread", 0, false);
    teardown(&b);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv260),
        cmocka_unit_test(test_zcu102),
        cmocka_unit_test(test_alveo),
        cmocka_unit_test(test_versal),
        cmocka_unit_test(test_rapl_wraps),
        cmocka_unit_test(test_unreadable_counter),
        cmocka_unit_test(test_vanishes_and_returns),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_sensor_beats_estimate),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_long_batch),
        cmocka_unit_test(test_overlapping_batches),
        cmocka_unit_test(test_sharers_of_a_long_spell),
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_thread),
#ifdef XN_FAULTS
        cmocka_unit_test(test_faults),
#endif
    };
    xn_log_init(XN_LOG_ERROR, XN_LOG_STDERR);
    return cmocka_run_group_tests_name("power", tests, NULL, NULL);
}
