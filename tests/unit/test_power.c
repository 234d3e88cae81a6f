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
    struct xn_metrics *metrics;
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
    assert_int_equal(xn_metrics_new(&b->instances, &b->metrics), 0);
    for (uint32_t slot = 0; slot < 2; slot++)
        xn_metrics_set_model(b->metrics, slot, slot == 0 ? "m0" : "m1", "1");
    assert_int_equal(xn_power_prepare(&b->config, &b->instances, b->metrics, &b->power, NULL), 0);
}

static void teardown(struct board *b)
{
    char command[128];

    xn_power_free(b->power);
    xn_metrics_free(b->metrics);
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

static uint64_t at(double seconds)
{
    return T0 + (uint64_t)(seconds * (double)XN_NS_PER_S);
}

/* Joules that `family` has of one instance (NULL: all), model (NULL: all) and source, by /metrics. */
static double counted(const struct board *b, const char *family, const char *accelerator, const char *model,
                      const char *source)
{
    char *text = NULL, *rest = NULL;
    double sum = 0;
    size_t bytes;

    assert_int_equal(xn_metrics_render(b->metrics, &text, &bytes), 0);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, family, strlen(family)) == 0 && line[strlen(family)] == '{' && strstr(line, source) &&
            (!accelerator || strstr(line, accelerator)) && (!model || strstr(line, model)))
            sum += strtod(strchr(line, '}') + 1, NULL);
    }
    free(text);
    return sum;
}

/* A batch of the model in `slot`, all that its instance does; what its answer says. */
static struct xn_energy run(const struct board *b, uint32_t instance, uint32_t slot, double from_s, double to_s)
{
    struct xn_energy energy = {.joules = -1, .active_j = -1};

    xn_power_busy(b->power, instance, true, at(from_s));
    (void)xn_power_batch_energy(b->power, instance, slot, at(to_s), &energy);
    xn_power_busy(b->power, instance, false, at(to_s));
    return energy;
}

#define RUN    "xnord_inference_energy_joules_total"
#define ACTIVE "xnord_inference_active_energy_joules_total"
#define IDLE   "xnord_idle_energy_joules_total"
#define IDLE_W "xnord_idle_power_watts"
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
    struct xn_energy energy = run(&b, 0, 0, 2, 2.001); /* no sample has seen work yet: the sensor's figure */
    assert_near(energy.joules, 9.35e-3);
    assert_true(energy.active_j < 0);
    assert_int_equal(energy.source, XN_ENERGY_SENSOR);
    xn_power_busy(b.power, 0, true, at(2.002));
    assert_true(fabs(run(&b, 1, 0, 2.002, 2.003).joules - 9.35e-3 / 2) < 1e-8); /* both at work: half each */
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
    xn_power_busy(b.power, 0, true, T0);
    sample_at(&b, 1);
    struct xn_energy energy;
    assert_true(xn_power_batch_energy(b.power, 0, 0, at(1), &energy));
    assert_near(energy.joules, 7.15); /* both sums together */
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
    struct xn_energy energy;
    assert_false(xn_power_batch_energy(b.power, 2, 0, T0 + 1, &energy));
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
    struct xn_energy energy; /* half a machine's energy is not its energy */
    assert_false(xn_power_batch_energy(b.power, 0, 0, T0 + XN_NS_PER_S, &energy));
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
    struct xn_energy energy;
    assert_false(xn_power_batch_energy(b.power, 0, 0, at(2), &energy));
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
    struct xn_energy energy = run(&b, 0, 0, 0, 0.5);
    assert_int_equal(energy.source, XN_ENERGY_ESTIMATE);
    assert_near(energy.active_j, 4 * 0.5);
    assert_near(energy.joules, (2 + 4) * 0.5);
    xn_power_busy(b.power, 1, true, at(0.5)); /* and still running at the next sample */
    sample_at(&b, 1);
    assert_near(figure(&b, WATTS, "cpu", "declared0", "estimate"), 6); /* one of two busy all the time */
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), 6);
    assert_near(counted(&b, RUN, "accel0", "m0", "estimate"), 3);
    assert_near(counted(&b, ACTIVE, "accel0", "m0", "estimate"), 2);
    sample_at(&b, 3);
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), 6 + 12);
    assert_true(xn_power_batch_energy(b.power, 1, 1, at(3), &energy));
    xn_power_busy(b.power, 1, false, at(3));
    assert_near(energy.joules, 3 + 12);
    assert_near(energy.active_j, 2 + 8);
    assert_near(counted(&b, RUN, NULL, "m1", "estimate"), 15);
    sample_at(&b, 4);
    assert_near(figure(&b, IDLE, "cpu", "declared0", "estimate"), 2); /* the last second */
    teardown(&b);
}

/* A sensor beats what is declared; while it is down the estimate steps in, and says that it is one. */
static void test_sensor_beats_estimate(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    b.config.accelerators[0].idle_watts = 1;
    b.config.accelerators[0].busy_watts = 3;
    begin(&b);
    sample_at(&b, 0);
    sample_at(&b, 1);
    assert_near(figure(&b, WATTS, "cpu", "declared0", "estimate"), NAN);
    assert_int_equal(run(&b, 0, 0, 1, 1.5).source, XN_ENERGY_SENSOR);
    write_value(&b, "hwmon/hwmon1/power1_input", "-5");
    sample_at(&b, 2);
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), NAN);
    xn_power_busy(b.power, 0, true, at(2));
    sample_at(&b, 3);
    struct xn_energy energy;
    assert_true(xn_power_batch_energy(b.power, 0, 0, at(4), &energy));
    assert_int_equal(energy.source, XN_ENERGY_ESTIMATE);
    assert_near(energy.joules, 2 * 3);
    assert_near(figure(&b, JOULES, "cpu", "declared0", "estimate"), 3); /* since the first sample that had no sensor */
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

/* ---- attribution -------------------------------------------------------------------------------------------------- */

/* A machine with two instances and a counter that tells exactly what it drew: 10 W, and 15 and 30 more while they work. */
static const double machine_idle_w = 10, machine_active_w[2] = {15, 30};

struct machine {
    struct board b;
    double now_s, joules;
};

static void machine_begin(struct machine *m)
{
    m->now_s = m->joules = 0;
    setup(&m->b, "pc", (const char *const[]){"cpu", "cpu", NULL});
    write_value(&m->b, "powercap/intel-rapl:0/energy_uj", "0");
    begin(&m->b);
    sample_at(&m->b, 0);
}

/* Until `to_s`, in which the instances worked for so long. */
static void machine_sample(struct machine *m, double to_s, double busy0_s, double busy1_s)
{
    char text[32];

    m->joules += machine_idle_w * (to_s - m->now_s) + machine_active_w[0] * busy0_s + machine_active_w[1] * busy1_s;
    m->now_s = to_s;
    snprintf(text, sizeof(text), "%.0f", m->joules * 1e6);
    write_value(&m->b, "powercap/intel-rapl:0/energy_uj", text);
    sample_at(&m->b, to_s);
}

static void assert_close(double value, double wanted, double tolerance)
{
    if (!(fabs(value - wanted) <= tolerance))
        fail_msg("%.9g, not %.9g (%.2g)", value, wanted, tolerance);
}

/* Batches far shorter than a sample, with the instance idle for most of the time: each takes what it takes, not the mean of a time in which little happened. */
static void test_short_batches(void **state)
{
    (void)state;
    struct machine m;

    machine_begin(&m);
    machine_sample(&m, 0.1, 0, 0);
    machine_sample(&m, 0.2, 0, 0);
    assert_near(figure(&m.b, IDLE_W, "cpu", "all", "sensor"), machine_idle_w);
    struct xn_energy energy = {0};
    for (int i = 0; i < 200; i++) {
        energy = run(&m.b, 0, 0, m.now_s + 0.05, m.now_s + 0.051);
        assert_true(i > 20 || energy.active_j < 0); /* not yet known from so little */
        machine_sample(&m, m.now_s + 0.1, 0.001, 0);
    }
    assert_close(counted(&m.b, ACTIVE, "accel0", "m0", "sensor"), 200 * 0.015, 1e-5);
    assert_close(counted(&m.b, RUN, "accel0", "m0", "sensor"), 200 * 0.025, 1e-5);
    assert_close(figure(&m.b, IDLE, "cpu", "all", "sensor"), m.joules - 200 * 0.025, 1e-5);
    assert_close(energy.active_j, 0.015, 1e-6); /* and so its answer says */
    assert_close(energy.joules, 0.025, 1e-6);
    teardown(&m.b);
}

/* Random work of two instances, with two models, two batches in flight and all lengths: every joule of the sensor goes somewhere, and goes there once. */
static void test_every_joule_once(void **state)
{
    (void)state;
    const char *given = getenv("XN_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : 20260731;
    struct machine m;
    struct xn_energy energy;
    double end_s[2] = {0}, work_s[2] = {0}, answers_j = 0, answers_active_j = 0;
    bool busy[2] = {false, false};

    printf("# seed %u (XN_SEED=)\n", seed);
    machine_begin(&m);
    machine_sample(&m, 0.1, 0, 0);
    for (int sample = 0; sample < 400; sample++) {
        double from_s = m.now_s, to_s = m.now_s + 0.1, busy_s[2] = {0, 0};
        for (uint32_t i = 0; i < 2; i++) {
            for (double now_s = from_s; now_s < to_s;) {
                if (!busy[i]) { /* sometimes nothing comes for long */
                    double start_s = now_s + (rand_r(&seed) % 4 == 0 ? 0.3 : 0.01) * (rand_r(&seed) % 1000) / 1000;
                    if (start_s >= to_s)
                        break;
                    end_s[i] = start_s + (rand_r(&seed) % 8 == 0 ? 0.4 : 0.004) * (1 + rand_r(&seed) % 1000) / 1000;
                    xn_power_busy(m.b.power, i, busy[i] = true, at(start_s));
                    now_s = start_s;
                }
                double until_s = fmin(end_s[i], to_s);
                busy_s[i] += until_s - now_s;
                now_s = until_s;
                if (end_s[i] > to_s)
                    break;
                assert_true(xn_power_batch_energy(m.b.power, i, (uint32_t)rand_r(&seed) % 2, at(end_s[i]), &energy));
                answers_j += energy.joules;
                answers_active_j += fmax(energy.active_j, 0);
                if (rand_r(&seed) % 2) /* another one was in flight behind it */
                    end_s[i] += 0.01;
                else
                    xn_power_busy(m.b.power, i, busy[i] = false, at(end_s[i]));
            }
            work_s[i] += busy_s[i];
        }
        machine_sample(&m, to_s, busy_s[0], busy_s[1]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (busy[i]) {
            assert_true(xn_power_batch_energy(m.b.power, i, 0, at(m.now_s), &energy));
            xn_power_busy(m.b.power, i, false, at(m.now_s));
        }
    }
    machine_sample(&m, m.now_s + 0.1, 0, 0);
    double active_j = counted(&m.b, ACTIVE, NULL, NULL, "sensor"), run_j = counted(&m.b, RUN, NULL, NULL, "sensor");
    double drawn_j = machine_active_w[0] * work_s[0] + machine_active_w[1] * work_s[1];
    assert_close(run_j + figure(&m.b, IDLE, "cpu", "all", "sensor"), m.joules, 1e-4);
    assert_close(figure(&m.b, JOULES, "cpu", "package-0", "rapl"), m.joules, 1e-4);
    assert_close(active_j, drawn_j, 1e-3 * drawn_j);
    assert_true(run_j > active_j && run_j < active_j + machine_idle_w * m.now_s);
    assert_close(answers_j, run_j, 0.15 * run_j); /* which had to tell before the sample did */
    assert_close(answers_active_j, active_j, 0.15 * active_j);
    teardown(&m.b);
}

/* Two instances that work at the same time share by how long each did. */
static void test_shares_by_time(void **state)
{
    (void)state;
    struct machine m;

    machine_begin(&m);
    machine_sample(&m, 0.1, 0, 0);
    xn_power_busy(m.b.power, 0, true, at(0.11));
    (void)run(&m.b, 1, 1, 0.12, 0.13);
    struct xn_energy energy;
    assert_true(xn_power_batch_energy(m.b.power, 0, 0, at(0.14), &energy));
    xn_power_busy(m.b.power, 0, false, at(0.14));
    machine_sample(&m, 0.2, 0.03, 0.01);
    double active_j = 15 * 0.03 + 30 * 0.01, run_j = active_j + 10 * 0.03; /* one of them or both, 30 ms in all */
    assert_close(counted(&m.b, ACTIVE, "accel0", "m0", "sensor"), active_j * 3 / 4, 1e-6);
    assert_close(counted(&m.b, ACTIVE, "accel1", "m1", "sensor"), active_j / 4, 1e-6);
    assert_close(counted(&m.b, RUN, "accel0", "m0", "sensor"), run_j * 3 / 4, 1e-6);
    assert_close(counted(&m.b, RUN, "accel1", "m1", "sensor"), run_j / 4, 1e-6);
    teardown(&m.b);
}

/* Batches in flight one behind another: their common time counts once. A long one gets what the samples in its time say. */
static void test_batches_in_flight(void **state)
{
    (void)state;
    struct machine m;
    struct xn_energy first, second;

    machine_begin(&m);
    machine_sample(&m, 0.1, 0, 0);
    xn_power_busy(m.b.power, 0, true, at(0.1));
    machine_sample(&m, 0.2, 0.1, 0);
    machine_sample(&m, 0.3, 0.1, 0);
    assert_true(xn_power_batch_energy(m.b.power, 0, 0, at(0.35), &first));
    assert_true(xn_power_batch_energy(m.b.power, 0, 1, at(0.4), &second)); /* submitted long before */
    xn_power_busy(m.b.power, 0, false, at(0.4));
    assert_close(first.active_j, 15 * 0.25, 1e-6);
    assert_close(second.active_j, 15 * 0.05, 1e-6);
    assert_close(counted(&m.b, ACTIVE, NULL, "m0", "sensor"), 15 * 0.2, 1e-6);
    machine_sample(&m, 0.4, 0.1, 0);
    assert_close(counted(&m.b, ACTIVE, NULL, "m0", "sensor"), 15 * 0.25, 1e-6);
    assert_close(counted(&m.b, ACTIVE, NULL, "m1", "sensor"), 15 * 0.05, 1e-6);
    teardown(&m.b);
}

/* A server that had work from its first moment does not know what it would draw without: what inferences take over idle is absent until it does. */
static void test_never_idle(void **state)
{
    (void)state;
    struct machine m;
    struct xn_energy energy;

    machine_begin(&m);
    xn_power_busy(m.b.power, 0, true, at(0));
    machine_sample(&m, 0.1, 0.1, 0);
    machine_sample(&m, 0.2, 0.1, 0);
    assert_true(xn_power_batch_energy(m.b.power, 0, 0, at(0.2), &energy));
    assert_true(energy.active_j < 0);
    assert_close(energy.joules, 25 * 0.2, 1e-6);
    assert_near(figure(&m.b, IDLE_W, "cpu", "all", "sensor"), NAN);
    xn_power_busy(m.b.power, 0, false, at(0.2));
    machine_sample(&m, 0.3, 0, 0);
    machine_sample(&m, 0.4, 0, 0);
    assert_near(figure(&m.b, IDLE_W, "cpu", "all", "sensor"), machine_idle_w);
    assert_close(counted(&m.b, ACTIVE, NULL, NULL, "sensor"), 0, 0);
    (void)run(&m.b, 0, 0, 0.41, 0.42);
    machine_sample(&m, 0.5, 0.01, 0);
    assert_close(counted(&m.b, ACTIVE, NULL, NULL, "sensor"), 0.15, 1e-6);
    assert_close(run(&m.b, 0, 0, 0.51, 0.52).active_j, 0.15, 1e-6);
    teardown(&m.b);
}

/* Of a gauge, one reading before there is work is enough to begin with. */
static void test_first_reading(void **state)
{
    (void)state;
    struct board b;
    struct xn_energy energy;

    setup(&b, "kv260", (const char *const[]){"cpu", NULL});
    begin(&b);
    sample_at(&b, 0);
    xn_power_busy(b.power, 0, true, at(0.001));
    write_value(&b, "hwmon/hwmon1/power1_input", "9350000");
    for (int i = 1; i <= 10; i++)
        sample_at(&b, i);
    assert_true(xn_power_batch_energy(b.power, 0, 0, at(10), &energy));
    assert_close(energy.active_j, 2 * 9 + 1, 0.01);
    assert_close(energy.joules, 9.35 * 9 + 8.35, 0.01);
    teardown(&b);
}

/* What else runs on the machine makes samples scatter by far more than a batch takes: the sum stays right. */
static void test_noise(void **state)
{
    (void)state;
    const int n = 4000;
    struct machine m;

    machine_begin(&m);
    for (int i = 1; i <= 600; i++)
        machine_sample(&m, i * 0.1, 0, 0);
    for (int i = 0; i < n; i++) {
        (void)run(&m.b, 0, 0, m.now_s + 0.05, m.now_s + 0.06);
        m.joules += i % 2 ? 0.5 : -0.5; /* 5 W up and down */
        machine_sample(&m, m.now_s + 0.1, 0.01, 0);
    }
    assert_close(counted(&m.b, ACTIVE, NULL, NULL, "sensor"), n * 0.15, 0.01 * n * 0.15);
    teardown(&m.b);
}

/* Idle power that was taken too high (of a card that was just configured, say) is found out while there is work. */
static void test_idle_too_high(void **state)
{
    (void)state;
    struct machine m;

    machine_begin(&m);
    m.joules += 2; /* 30 W in the only idle sample */
    machine_sample(&m, 0.1, 0, 0);
    assert_close(figure(&m.b, IDLE_W, "cpu", "all", "sensor"), 30, 1e-6);
    for (int i = 0; i < 100; i++) {
        (void)run(&m.b, 0, 0, m.now_s + 0.05, m.now_s + 0.06);
        machine_sample(&m, m.now_s + 0.1, 0.01, 0);
    }
    assert_close(figure(&m.b, IDLE_W, "cpu", "all", "sensor"), 11.5, 0.2); /* nothing was less */
    assert_close(counted(&m.b, RUN, NULL, NULL, "sensor") + figure(&m.b, IDLE, "cpu", "all", "sensor"), m.joules, 1e-4);
    teardown(&m.b);
}

/* A card tells what was up to a second ago: joules that come when the work is over are still the work's. */
static void test_lagging_sensor(void **state)
{
    (void)state;
    struct board b;
    double watts = 20, joules = 0;

    setup(&b, "alveo", (const char *const[]){"0000:65:00.1", NULL});
    for (int i = 0; i < 200; i++) { /* a second of samples a second; work from 5 to 6 s shows from 6 to 7 s */
        char text[32];
        double before = watts;
        watts = i >= 60 && i < 70 ? 50 : 20;
        snprintf(text, sizeof(text), "%.0f", watts * 1e6);
        write_value(&b, "pci/0000:65:00.1/xmc.u.14680064/xmc_power", text);
        if (i == 0)
            begin(&b);
        if (i == 50)
            xn_power_busy(b.power, 0, true, at(5));
        if (i == 60) {
            struct xn_energy energy;
            assert_true(xn_power_batch_energy(b.power, 0, 0, at(6), &energy));
            xn_power_busy(b.power, 0, false, at(6));
        }
        sample_at(&b, i * 0.1);
        joules += i > 0 ? (before + watts) / 2 * 0.1 : 0;
    }
    assert_close(counted(&b, ACTIVE, NULL, "m0", "sensor"), 30, 1);
    assert_close(figure(&b, IDLE_W, "0000:65:00.1", "all", "sensor"), 20, 0.1);
    assert_close(counted(&b, RUN, NULL, "m0", "sensor") + figure(&b, IDLE, "0000:65:00.1", "all", "sensor"), joules,
                 1e-4);
    teardown(&b);
}

/* A virtual card's sensor is no sensor, and says so. */
static void test_simulated(void **state)
{
    (void)state;
    struct board b;

    setup(&b, "alveo", (const char *const[]){"0000:b3:00.1", NULL});
    write_value(&b, "pci/0000:b3:00.1/hwmon/hwmon5/name", "xnor_vcard");
    begin(&b);
    sample_at(&b, 0);
    assert_near(figure(&b, WATTS, "0000:b3:00.1", "card", "simulated"), 33);
    assert_near(figure(&b, WATTS, "0000:b3:00.1", "card", "xocl"), NAN);
    assert_int_equal(run(&b, 0, 0, 0, 1).source, XN_ENERGY_SIMULATED);
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
        assert_int_equal(xn_power_new(&b.config, &b.instances, NULL, &b.power, NULL), 0);
        while (figure(&b, UP, "cpu", "package-0", "rapl") != 1 ||
               isnan(figure(&b, WATTS, "cpu", "package-0", "rapl"))) {
            struct xn_energy energy;
            xn_power_busy(b.power, 0, true, xn_clock_now_ns());
            (void)xn_power_batch_energy(b.power, 0, 0, xn_clock_now_ns(), &energy);
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
    for (uint64_t nth = 1; nth <= 5; nth++) {
        xn_fault_arm("alloc", nth, false);
        assert_int_equal(xn_power_new(&b.config, &b.instances, NULL, &b.power, &error), -ENOMEM);
        assert_null(b.power);
    }
    xn_fault_arm("alloc", 0, false);
    xn_fault_arm("power.thread", 1, false);
    assert_int_equal(xn_power_new(&b.config, &b.instances, NULL, &b.power, &error), -EAGAIN);
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
        cmocka_unit_test(test_short_batches),
        cmocka_unit_test(test_every_joule_once),
        cmocka_unit_test(test_shares_by_time),
        cmocka_unit_test(test_batches_in_flight),
        cmocka_unit_test(test_never_idle),
        cmocka_unit_test(test_first_reading),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_idle_too_high),
        cmocka_unit_test(test_lagging_sensor),
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_thread),
#ifdef XN_FAULTS
        cmocka_unit_test(test_faults),
#endif
    };
    xn_log_init(XN_LOG_ERROR, XN_LOG_STDERR);
    return cmocka_run_group_tests_name("power", tests, NULL, NULL);
}
