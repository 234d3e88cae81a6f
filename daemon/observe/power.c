/* SPDX-License-Identifier: Apache-2.0
 * Who measures whom:
 *
 *     sensor --+
 *     sensor --+--> feed (a power domain that has sensors) <-- group (instances of one power domain)
 *                                       group without a feed: declared watts, or no figure
 *
 * A group is fed by the feed of its own domain, else by that of the whole board ("board"), where the sensors of Zynq
 * and Kria modules sit. The thread xn-power alone writes sensors and tables; other threads read atomics. Tables only
 * grow, and their counts are published with release after what they count. Who gets the joules (meter.c) is decided under
 * meters_lock, for which workers never wait longer than a sample takes to be shared out.
 *
 * Energy is integrated sensor by sensor: a gauge by the trapezoid between two good samples, a counter by its
 * difference. Across a time when a sensor was down nothing is added: energy is never invented. */
#include "daemon/observe/power.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "daemon/observe/meter.h"
#include "daemon/observe/power_internal.h"
#include "daemon/observe/sensor.h"

#define FEEDS_MAX   XN_SENSORS_MAX
#define NO_FEED     (-1)
#define BOARD       "board"
#define LABEL_BYTES XN_METRICS_LABEL_BYTES

/* A double that one thread writes and others read, relaxed: each value stands for itself. */
struct real {
    atomic_uint_fast64_t bits;
};

/* A sensor in use. domain, name and source never change once published; files may, in the thread, when it is found
 * again. */
struct source {
    struct xn_sensor sensor;
    bool primed;   /* the last sample was good */
    bool measured; /* and the one before: delta_j is what it took in between */
    int error;     /* of the last sample; logged when it changes */
    uint64_t last_ns, last_value;
    double last_watts, delta_j;
    uint32_t feed;
    atomic_bool up;
    struct real watts, joules; /* watts: NaN while not known */
};

struct feed {
    char domain[XN_SENSOR_NAME_BYTES];
    bool is_up;            /* all its sensors are: what they take from here on will be known */
    struct xn_meter meter; /* its sensors together */
};

struct group {
    char domain[XN_SENSOR_NAME_BYTES];
    atomic_int feed;
};

/* An accelerator entry of the configuration that declares its watts. */
struct declared {
    const struct xn_config_accelerator *config;
    char name[32];
    uint32_t group, n_instances;
    struct xn_meter meter;
    atomic_bool active; /* no sensor measures it: the estimate counts */
    struct real watts, joules;
};

struct xn_power {
    const struct xn_config *config;
    uint64_t sample_ns, rescan_ns;
    struct xn_sensor_list *found; /* scratch of a scan */
    struct source *sources;       /* [XN_SENSORS_MAX] */
    struct feed *feeds;           /* [FEEDS_MAX] */
    atomic_uint n_sources, n_feeds;
    struct xn_metrics *metrics;
    uint64_t last_ns; /* when it was sampled last */
    pthread_mutex_t meters_lock;
    struct xn_share *shares; /* [n_instances], guarded by meters_lock, as are the meters of feeds and declared */
    struct declared *declared_of[XN_INSTANCES_MAX]; /* NULL: no estimate */
    uint32_t group_of[XN_INSTANCES_MAX];
    struct group groups[XN_INSTANCES_MAX];
    struct declared declared[XN_CONFIG_ACCELERATORS_MAX];
    uint32_t n_instances, n_groups, n_declared;
    pthread_t thread;
    bool started;
    pthread_mutex_t stop_lock;
    pthread_cond_t stop_cond;
    bool stop; /* guarded by stop_lock */
};

static void put(struct real *real, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    atomic_store_explicit(&real->bits, bits, memory_order_relaxed);
}

static double get(const struct real *real)
{
    uint64_t bits = atomic_load_explicit(&real->bits, memory_order_relaxed);
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t count(const atomic_uint *n)
{
    return atomic_load_explicit(n, memory_order_acquire);
}

/* ---- finding sensors ---- */

static void find_by_rule(struct xn_power *p, const struct xn_config_sensor *rule)
{
    struct xn_sensor_list *list = p->found;
    uint32_t before = list->n, kept = before;

    if (strcmp(rule->kind, "rapl") == 0)
        xn_sensor_find_rapl(p->config, rule, list);
    else if (strcmp(rule->kind, "xocl") == 0)
        xn_sensor_find_xocl(p->config, rule, list);
    else
        xn_sensor_find_hwmon(p->config, rule, list);
    /* A domain that an earlier rule measures is not measured twice. */
    for (uint32_t i = before; i < list->n; i++) {
        bool taken = list->sensors[i].n_files == 0;
        for (uint32_t k = 0; k < before; k++)
            taken = taken || strcmp(list->sensors[k].domain, list->sensors[i].domain) == 0;
        if (!taken && kept != i)
            list->sensors[kept] = list->sensors[i];
        kept += !taken;
    }
    list->n = kept;
}

static void find_sensors(struct xn_power *p)
{
    static char *const kinds[] = {"rapl", "xocl", "hwmon"};

    p->found->n = 0;
    for (uint32_t i = 0; i < p->config->power.n_sensors; i++)
        find_by_rule(p, &p->config->power.sensors[i]);
    for (size_t i = 0; p->config->power.n_sensors == 0 && i < XN_ARRAY_LEN(kinds); i++) {
        const struct xn_config_sensor rule = {.kind = kinds[i]};
        find_by_rule(p, &rule);
    }
}

static int find_feed(const struct xn_power *p, const char *domain)
{
    uint32_t n = count(&p->n_feeds);

    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(p->feeds[i].domain, domain) == 0)
            return (int)i;
    }
    return NO_FEED;
}

static uint32_t get_feed(struct xn_power *p, const char *domain, bool is_simulated)
{
    uint32_t n = count(&p->n_feeds);
    int feed = find_feed(p, domain);

    if (feed != NO_FEED)
        return (uint32_t)feed;
    snprintf(p->feeds[n].domain, sizeof(p->feeds[n].domain), "%s", domain);
    xn_meter_init(&p->feeds[n].meter, is_simulated ? XN_ENERGY_SIMULATED : XN_ENERGY_SENSOR, NAN);
    atomic_store_explicit(&p->n_feeds, n + 1, memory_order_release);
    return n;
}

/* A sensor found: new, or one we know, whose files may have moved. */
static void adopt(struct xn_power *p, const struct xn_sensor *found)
{
    uint32_t n = count(&p->n_sources);

    for (uint32_t i = 0; i < n; i++) {
        struct xn_sensor *known = &p->sources[i].sensor;
        if (known->source != found->source || strcmp(known->domain, found->domain) != 0 ||
            strcmp(known->name, found->name) != 0)
            continue;
        known->n_files = found->n_files;
        memcpy(known->files, found->files, sizeof(known->files));
        return;
    }
    if (n == XN_SENSORS_MAX)
        return;
    struct source *source = &p->sources[n];
    source->sensor = *found;
    source->feed = get_feed(p, found->domain, strcmp(found->source, xn_energy_source_names[XN_ENERGY_SIMULATED]) == 0);
    /* Of a gauge, energy between two samples is half the earlier one's. */
    struct xn_meter *meter = &p->feeds[source->feed].meter;
    pthread_mutex_lock(&p->meters_lock);
    meter->lag_ns = XN_MAX(meter->lag_ns, XN_MAX(found->lag_ms * XN_NS_PER_MS, found->is_counter ? 0 : p->sample_ns));
    pthread_mutex_unlock(&p->meters_lock);
    put(&source->watts, NAN);
    atomic_store_explicit(&p->n_sources, n + 1, memory_order_release);
    xn_log_info("power sensor %s/%s measures %s (%s)", found->source, found->name, found->domain, found->files[0]);
}

static void scan(struct xn_power *p)
{
    find_sensors(p);
    for (uint32_t i = 0; i < p->found->n; i++)
        adopt(p, &p->found->sensors[i]);
    for (uint32_t i = 0; i < p->n_groups; i++) {
        int feed = find_feed(p, p->groups[i].domain);
        if (feed == NO_FEED)
            feed = find_feed(p, BOARD);
        atomic_store_explicit(&p->groups[i].feed, feed, memory_order_release);
    }
}

/* True while something may be missing that a scan could find. */
static bool incomplete(const struct xn_power *p)
{
    uint32_t n = count(&p->n_sources);

    for (uint32_t i = 0; i < n; i++) {
        if (!atomic_load_explicit(&p->sources[i].up, memory_order_relaxed))
            return true;
    }
    for (uint32_t i = 0; i < p->n_groups; i++) {
        if (atomic_load_explicit(&p->groups[i].feed, memory_order_relaxed) == NO_FEED)
            return true;
    }
    return false;
}

/* ---- sampling ---- */

static double seconds_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? (double)(to_ns - from_ns) / (double)XN_NS_PER_S : 0;
}

static void log_source(const struct source *s, int error)
{
    const struct xn_sensor *sensor = &s->sensor;

    if (error == 0)
        xn_log_info("power sensor %s/%s works", sensor->source, sensor->name);
    else if (error == -EACCES)
        xn_log_warning("power sensor %s/%s: %s may be read by root only: no energy is reported for %s; see xnord's "
                       "docs/metrics.md, "
                       "\"Power\", for the permission to give",
                       sensor->source, sensor->name, sensor->files[0], sensor->domain);
    else
        xn_log_warning("power sensor %s/%s: %s: %s; it will be looked for again", sensor->source, sensor->name,
                       sensor->files[0], strerror(-error));
}

static void go_down(struct source *s, int error)
{
    if (s->error != error)
        log_source(s, error);
    s->error = error;
    s->primed = s->measured = false;
    put(&s->watts, NAN);
    atomic_store_explicit(&s->up, false, memory_order_relaxed);
}

/* From a counter's two values; it starts again from 0 after `range`. */
static uint64_t counter_delta(const struct xn_sensor *sensor, uint64_t from, uint64_t to)
{
    if (to >= from)
        return to - from;
    return from <= sensor->range ? sensor->range - from + to : to;
}

static void sample_source(struct source *s, uint64_t now_ns)
{
    uint64_t value;
    int r = xn_sensor_read(&s->sensor, &value);

    s->delta_j = 0;
    if (r < 0) {
        go_down(s, r);
        return;
    }
    if (s->error != 0)
        log_source(s, 0);
    s->error = 0;
    double seconds = s->primed ? seconds_between(s->last_ns, now_ns) : 0;
    double watts = s->sensor.is_counter ? NAN : (double)value * s->sensor.unit;
    if (seconds > 0 && s->sensor.is_counter) {
        s->delta_j = (double)counter_delta(&s->sensor, s->last_value, value) * s->sensor.unit;
        watts = s->delta_j / seconds;
    } else if (seconds > 0) {
        s->delta_j = (s->last_watts + watts) / 2 * seconds;
    }
    s->measured = seconds > 0;
    s->primed = true;
    s->last_ns = now_ns;
    s->last_value = value;
    s->last_watts = watts;
    put(&s->joules, get(&s->joules) + s->delta_j);
    put(&s->watts, watts);
    atomic_store_explicit(&s->up, true, memory_order_relaxed);
}

/* Of all its sensors together: no figure as soon as one has none. */
static void sample_feed_locked(struct xn_power *p, struct feed *feed, uint64_t now_ns)
{
    double watts = 0, joules = 0, seconds = seconds_between(p->last_ns, now_ns);
    uint32_t n = count(&p->n_sources);

    feed->is_up = true;
    for (uint32_t i = 0; i < n; i++) {
        const struct source *s = &p->sources[i];
        if (&p->feeds[s->feed] != feed)
            continue;
        watts += get(&s->watts);
        joules += s->delta_j;
        seconds = s->measured ? seconds : 0;
        feed->is_up = feed->is_up && s->primed;
    }
    feed->meter.watts = watts;
    xn_meter_sample(&feed->meter, p->shares, p->n_instances, joules, seconds, now_ns, p->metrics);
}

static void sample_declared_locked(struct xn_power *p, struct declared *d, uint64_t now_ns)
{
    double seconds = seconds_between(p->last_ns, now_ns);
    double utilisation = seconds > 0 ? fmin(d->meter.batch_s / (seconds * d->n_instances), 1) : 0;
    double watts = d->config->idle_watts + (d->config->busy_watts - d->config->idle_watts) * utilisation;
    bool active = atomic_load_explicit(&d->active, memory_order_relaxed);

    if (active && seconds > 0) {
        put(&d->watts, watts);
        put(&d->joules, get(&d->joules) + watts * seconds);
    }
    xn_meter_sample(&d->meter, p->shares, p->n_instances, watts * seconds, active ? seconds : 0, now_ns, p->metrics);
}

/* Who measures each instance until the next sample: a sensor, where all of its domain are up, else what is declared. */
static void assign_meters_locked(struct xn_power *p, uint64_t now_ns)
{
    for (uint32_t i = 0; i < p->n_declared; i++)
        atomic_store_explicit(&p->declared[i].active, false, memory_order_relaxed);
    for (uint32_t i = 0; i < p->n_instances; i++) {
        int feed = atomic_load_explicit(&p->groups[p->group_of[i]].feed, memory_order_relaxed);
        struct declared *d = p->declared_of[i];
        bool is_measured = feed != NO_FEED && p->feeds[feed].is_up;
        xn_share_set_meter(&p->shares[i], is_measured ? &p->feeds[feed].meter : d ? &d->meter : NULL, now_ns);
        if (!is_measured && d)
            atomic_store_explicit(&d->active, true, memory_order_relaxed);
    }
}

static void share_out(struct xn_power *p, uint64_t now_ns)
{
    pthread_mutex_lock(&p->meters_lock);
    for (uint32_t i = 0; i < p->n_instances; i++)
        xn_share_count(&p->shares[i], now_ns);
    for (uint32_t i = 0; i < count(&p->n_feeds); i++)
        sample_feed_locked(p, &p->feeds[i], now_ns);
    for (uint32_t i = 0; i < p->n_declared; i++)
        sample_declared_locked(p, &p->declared[i], now_ns);
    assign_meters_locked(p, now_ns);
    pthread_mutex_unlock(&p->meters_lock);
}

void xn_power_sample(struct xn_power *p, uint64_t now_ns)
{
    if (p->rescan_ns == 0)
        p->rescan_ns = now_ns + XN_POWER_RESCAN_NS;
    if (now_ns >= p->rescan_ns) {
        if (incomplete(p))
            scan(p);
        p->rescan_ns = now_ns + XN_POWER_RESCAN_NS;
    }
    for (uint32_t i = 0; i < count(&p->n_sources); i++)
        sample_source(&p->sources[i], now_ns);
    share_out(p, now_ns);
    p->last_ns = now_ns;
}

static void *sample_thread(void *argument)
{
    struct xn_power *p = argument;
    uint64_t due_ns = xn_clock_now_ns();

    pthread_mutex_lock(&p->stop_lock);
    while (!p->stop) {
        pthread_mutex_unlock(&p->stop_lock);
        uint64_t now_ns = xn_clock_now_ns();
        xn_power_sample(p, now_ns);
        due_ns = XN_MAX(due_ns + p->sample_ns,
                        now_ns); /* a slow sensor delays, but is not sampled twice to make up for it */
        struct timespec due = xn_clock_timespec(due_ns);
        pthread_mutex_lock(&p->stop_lock);
        while (!p->stop && xn_clock_now_ns() < due_ns)
            pthread_cond_timedwait(&p->stop_cond, &p->stop_lock, &due);
    }
    pthread_mutex_unlock(&p->stop_lock);
    return NULL;
}

/* ---- attribution ---- */

void xn_power_busy(struct xn_power *p, uint32_t index, bool busy, uint64_t now_ns)
{
    pthread_mutex_lock(&p->meters_lock);
    xn_share_busy(&p->shares[index], busy, now_ns);
    pthread_mutex_unlock(&p->meters_lock);
}

bool xn_power_batch_energy(struct xn_power *p, uint32_t index, uint32_t slot, uint64_t end_ns,
                           struct xn_energy *ret_energy)
{
    pthread_mutex_lock(&p->meters_lock);
    bool is_known = xn_share_batch(&p->shares[index], slot, end_ns, ret_energy, p->metrics);
    pthread_mutex_unlock(&p->meters_lock);
    return is_known;
}

/* ---- start and stop ---- */

static uint32_t get_group(struct xn_power *p, const char *domain)
{
    for (uint32_t i = 0; i < p->n_groups; i++) {
        if (strcmp(p->groups[i].domain, domain) == 0)
            return i;
    }
    struct group *group = &p->groups[p->n_groups];
    snprintf(group->domain, sizeof(group->domain), "%s", domain);
    atomic_init(&group->feed, NO_FEED);
    return p->n_groups++;
}

static struct declared *get_declared(struct xn_power *p, const struct xn_config_accelerator *config, uint32_t group)
{
    if (!config || config->idle_watts < 0 || config->busy_watts < 0)
        return NULL;
    for (uint32_t i = 0; i < p->n_declared; i++) {
        if (p->declared[i].config == config)
            return &p->declared[i];
    }
    if (p->n_declared == XN_CONFIG_ACCELERATORS_MAX)
        return NULL;
    struct declared *d = &p->declared[p->n_declared];
    snprintf(d->name, sizeof(d->name), "declared%u", p->n_declared++);
    d->config = config;
    d->group = group;
    put(&d->watts, config->idle_watts);
    xn_meter_init(&d->meter, XN_ENERGY_ESTIMATE, config->idle_watts);
    return d;
}

static int prepare(struct xn_power *p, const struct xn_instances *instances)
{
    p->found = xn_calloc(1, sizeof(*p->found));
    p->sources = xn_calloc(XN_SENSORS_MAX, sizeof(*p->sources));
    p->feeds = xn_calloc(FEEDS_MAX, sizeof(*p->feeds));
    p->shares = xn_calloc(XN_MAX(instances->n, 1u), sizeof(*p->shares));
    if (!p->found || !p->sources || !p->feeds || !p->shares)
        return -ENOMEM;
    p->n_instances = instances->n;
    for (uint32_t i = 0; i < instances->n; i++) {
        p->shares[i].instance = i;
        p->group_of[i] = get_group(p, xn_accel_info(instances->accel[i])->power_domain);
        p->declared_of[i] = get_declared(p, instances->config[i], p->group_of[i]);
        if (p->declared_of[i])
            p->declared_of[i]->n_instances++;
    }
    for (uint32_t i = 0; i < p->n_declared; i++) {
        struct declared *d = &p->declared[i];
        xn_meter_expect(&d->meter, (d->config->busy_watts - d->config->idle_watts) / d->n_instances);
    }
    scan(p);
    assign_meters_locked(p, 0); /* nobody else has it yet */
    return 0;
}

int xn_power_prepare(const struct xn_config *config, const struct xn_instances *instances, struct xn_metrics *metrics,
                     struct xn_power **ret_power, struct xn_error *error)
{
    struct xn_power *p = xn_calloc(1, sizeof(*p));
    pthread_condattr_t monotonic;

    if (!p)
        return xn_error_set(error, -ENOMEM, "no memory for power sensors");
    p->config = config;
    p->metrics = metrics;
    p->sample_ns = config->power.sample_ms * XN_NS_PER_MS;
    pthread_mutex_init(&p->stop_lock, NULL);
    pthread_mutex_init(&p->meters_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->stop_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int r = prepare(p, instances);
    if (r < 0) {
        xn_power_free(p);
        return xn_error_set(error, r, "no memory for power sensors");
    }
    *ret_power = p;
    return 0;
}

int xn_power_new(const struct xn_config *config, const struct xn_instances *instances, struct xn_metrics *metrics,
                 struct xn_power **ret_power, struct xn_error *error)
{
    struct xn_power *p;
    int r = xn_power_prepare(config, instances, metrics, &p, error);

    if (r < 0)
        return r;
    r = XN_FAULT("power.thread") ? EAGAIN : pthread_create(&p->thread, NULL, sample_thread, p);
    if (r != 0) {
        xn_power_free(p);
        return xn_error_set(error, -r, "power sensors: cannot start their thread: %s", strerror(r));
    }
    pthread_setname_np(p->thread, "xn-power");
    p->started = true;
    *ret_power = p;
    return 0;
}

void xn_power_free(struct xn_power *p)
{
    if (!p)
        return;
    if (p->started) {
        pthread_mutex_lock(&p->stop_lock);
        p->stop = true;
        pthread_cond_signal(&p->stop_cond);
        pthread_mutex_unlock(&p->stop_lock);
        pthread_join(p->thread, NULL);
    }
    pthread_cond_destroy(&p->stop_cond);
    pthread_mutex_destroy(&p->stop_lock);
    pthread_mutex_destroy(&p->meters_lock);
    free(p->found);
    free(p->sources);
    free(p->feeds);
    free(p->shares);
    free(p);
}

/* ---- rendering ---- */

#define LABELS_BYTES (3 * LABEL_BYTES)

static const char *labels_of(const char *domain, const char *sensor, const char *source, char ret[static LABELS_BYTES])
{
    char safe_domain[LABEL_BYTES], safe_sensor[LABEL_BYTES];

    snprintf(ret, LABELS_BYTES, "domain=\"%s\",sensor=\"%s\",source=\"%s\"",
             xn_metrics_escape(domain[0] != '\0' ? domain : "unknown", safe_domain, sizeof(safe_domain)),
             xn_metrics_escape(sensor, safe_sensor, sizeof(safe_sensor)), source);
    return ret;
}

static const char *declared_labels(const struct xn_power *p, const struct declared *d, char ret[static LABELS_BYTES])
{
    return labels_of(p->groups[d->group].domain, d->name, "estimate", ret);
}

static void render_energy(const struct xn_power *p, struct xn_metrics_text *text)
{
    static const char name[] = "xnord_energy_joules_total";
    char labels[LABELS_BYTES];

    xn_metrics_family(text, name, "counter", "Energy integrated from each sensor, or estimated from declared watts.");
    for (uint32_t i = 0; i < count(&p->n_sources); i++) {
        const struct xn_sensor *s = &p->sources[i].sensor;
        if (get(&p->sources[i].joules) > 0 || atomic_load_explicit(&p->sources[i].up, memory_order_relaxed))
            xn_metrics_sample(text, name, labels_of(s->domain, s->name, s->source, labels), get(&p->sources[i].joules));
    }
    for (uint32_t i = 0; i < p->n_declared; i++) {
        if (get(&p->declared[i].joules) > 0)
            xn_metrics_sample(text, name, declared_labels(p, &p->declared[i], labels), get(&p->declared[i].joules));
    }
}

static void render_watts(const struct xn_power *p, struct xn_metrics_text *text)
{
    static const char name[] = "xnord_power_watts";
    char labels[LABELS_BYTES];

    xn_metrics_family(text, name, "gauge", "Power at the last sample; absent where there is no figure.");
    for (uint32_t i = 0; i < count(&p->n_sources); i++) {
        const struct xn_sensor *s = &p->sources[i].sensor;
        double watts = get(&p->sources[i].watts);
        if (!isnan(watts))
            xn_metrics_sample(text, name, labels_of(s->domain, s->name, s->source, labels), watts);
    }
    for (uint32_t i = 0; i < p->n_declared; i++) {
        if (atomic_load_explicit(&p->declared[i].active, memory_order_relaxed))
            xn_metrics_sample(text, name, declared_labels(p, &p->declared[i], labels), get(&p->declared[i].watts));
    }
}

/* A domain that nothing measures has a line of its own: an alert on 0 sees it. */
static void render_up(const struct xn_power *p, struct xn_metrics_text *text)
{
    static const char name[] = "xnord_power_sensor_up";
    char labels[LABELS_BYTES];

    xn_metrics_family(text, name, "gauge", "1 while a sensor can be read, 0 while it cannot or a domain has none.");
    for (uint32_t i = 0; i < count(&p->n_sources); i++) {
        const struct xn_sensor *s = &p->sources[i].sensor;
        xn_metrics_sample(text, name, labels_of(s->domain, s->name, s->source, labels),
                          atomic_load_explicit(&p->sources[i].up, memory_order_relaxed));
    }
    for (uint32_t i = 0; i < p->n_groups; i++) {
        if (atomic_load_explicit(&p->groups[i].feed, memory_order_relaxed) == NO_FEED)
            xn_metrics_sample(text, name, labels_of(p->groups[i].domain, "none", "none", labels), 0);
    }
}

/* A meter's figures as they are now. */
static struct xn_meter look_at(struct xn_power *p, const struct xn_meter *meter)
{
    pthread_mutex_lock(&p->meters_lock);
    struct xn_meter now = *meter;
    pthread_mutex_unlock(&p->meters_lock);
    return now;
}

static void render_idle_of(struct xn_power *p, struct xn_metrics_text *text, const char *name,
                           double (*figure)(const struct xn_meter *meter))
{
    char labels[LABELS_BYTES];

    for (uint32_t i = 0; i < count(&p->n_feeds); i++) {
        struct xn_meter m = look_at(p, &p->feeds[i].meter);
        if (!isnan(figure(&m)))
            xn_metrics_sample(
                text, name, labels_of(p->feeds[i].domain, "all", xn_energy_source_names[m.source], labels), figure(&m));
    }
    for (uint32_t i = 0; i < p->n_declared; i++) {
        struct xn_meter m = look_at(p, &p->declared[i].meter);
        if (get(&p->declared[i].joules) > 0)
            xn_metrics_sample(text, name, declared_labels(p, &p->declared[i], labels), figure(&m));
    }
}

static double idle_joules(const struct xn_meter *meter)
{
    return meter->idle_j > 0 ? meter->idle_j : NAN;
}

static double idle_watts(const struct xn_meter *meter)
{
    return meter->idle_watts;
}

static void render_idle(struct xn_power *p, struct xn_metrics_text *text)
{
    xn_metrics_family(text, "xnord_idle_energy_joules_total", "counter",
                      "Energy of each domain that no inference is charged with.");
    render_idle_of(p, text, "xnord_idle_energy_joules_total", idle_joules);
    xn_metrics_family(text, "xnord_idle_power_watts", "gauge",
                      "Power of each domain without work, as measured or declared.");
    render_idle_of(p, text, "xnord_idle_power_watts", idle_watts);
}

void xn_power_render(struct xn_power *p, struct xn_metrics_text *text)
{
    render_energy(p, text);
    render_idle(p, text);
    render_watts(p, text);
    render_up(p, text);
}
