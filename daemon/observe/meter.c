/* SPDX-License-Identifier: Apache-2.0
 * With every sample a meter's joules are split three ways:
 *
 *     joules = active (over idle)  +  idle power while instances worked  +  idle power while none did
 *              `---------------- to batches, by their time -----------'    `--- idle_j: to nobody --'
 *
 * Idle power is the mean of samples without work. Samples scatter: where one with work is below idle, what it lacks is a debt that later ones pay before any of
 * it is active energy, so that the sum stays right; a debt of a second's idle power says that idle is less than was thought.
 *
 * A batch's time is known to the ns and its joules are not, as a sample may hold many batches. So the joules of a sample go by time, to batches that ended in it and to the one under
 * way. A sensor that lags shows them later than they were spent: their time then fades with the lag instead of ending with its sample, and joules without any work near count as idle. */
#include "daemon/observe/meter.h"

#include <math.h>
#include <string.h>

#include "common/clock.h"

#define LEARN_S   60.0 /* of idle time that idle_watts follows */
#define RATE_S    20.0 /* what a second of work takes: of the last such time with work */
#define DEBT_S    1.0  /* of idle power, the most that is owed */
#define EXPECT_S  1e-3 /* of work that a declaration counts as */
#define ENOUGH_S  0.1  /* of work, before samples tell what it takes: of less, they mostly tell their own scatter */
#define RATE_LAGS 2    /* of samples with work, before they tell what it takes */
#define TAIL_LAGS 3    /* a sensor's figure may show work for so many lags */

static double seconds_of(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / (double)XN_NS_PER_S : 0;
}

void xn_meter_init(struct xn_meter *m, enum xn_energy_source source, double idle_watts)
{
    *m = (struct xn_meter){
        .source = source, .idle_watts = idle_watts, .is_declared = !isnan(idle_watts), .watts = idle_watts};
}

void xn_meter_expect(struct xn_meter *m, double active_watts)
{
    m->rate_s = EXPECT_S;
    m->rate_active_j = active_watts * EXPECT_S;
    m->rate_j = (m->idle_watts + active_watts) * EXPECT_S;
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

static void enter(struct xn_meter *m, uint64_t now_ns)
{
    if (m && m->depth++ == 0)
        m->since_ns = now_ns;
}

static void leave(struct xn_meter *m, uint64_t now_ns)
{
    if (!m || --m->depth > 0)
        return;
    m->busy_ns += now_ns > m->since_ns ? now_ns - m->since_ns : 0;
    m->worked_ns = now_ns;
}

void xn_share_busy(struct xn_share *s, bool busy, uint64_t now_ns)
{
    if (busy && s->depth++ == 0) {
        s->timed_ns = now_ns;
        enter(s->meter, now_ns);
    } else if (!busy && --s->depth == 0) {
        leave(s->meter, now_ns);
    }
}

/* Time of the batch under way until now. */
static double take_time(struct xn_share *s, uint64_t now_ns)
{
    double seconds = seconds_of(s->timed_ns, now_ns);

    s->timed_ns = XN_MAX(s->timed_ns, now_ns);
    if (s->meter)
        s->meter->batch_s += seconds;
    return seconds;
}

void xn_share_count(struct xn_share *s, uint64_t now_ns)
{
    if (s->depth > 0)
        s->running_s += take_time(s, now_ns);
}

/* Time that any instance of the meter worked since the last sample. */
static double take_busy(struct xn_meter *m, double seconds, uint64_t now_ns)
{
    double busy_s = (double)m->busy_ns / (double)XN_NS_PER_S + (m->depth > 0 ? seconds_of(m->since_ns, now_ns) : 0);

    m->busy_ns = 0;
    m->since_ns = XN_MAX(m->since_ns, now_ns);
    return fmin(busy_s, seconds);
}

static void forget_time(struct xn_share *s)
{
    s->running_s = s->ended_s = 0;
    memset(s->model_s, 0, sizeof(s->model_s));
}

void xn_share_set_meter(struct xn_share *s, struct xn_meter *meter, uint64_t now_ns)
{
    if (s->meter == meter)
        return;
    if (s->depth > 0) {
        leave(s->meter, now_ns);
        enter(meter, now_ns);
    }
    if (s->meter) /* what its batch under way has taken is of another source than what it will take */
        s->meter->idle_j += s->running_j;
    s->running_j = s->running_active_j = 0;
    forget_time(s);
    s->meter = meter;
}

/* ---- a batch ends ------------------------------------------------------------------------------------------------- */

static bool knows_rate(const struct xn_meter *m)
{
    return m->is_declared || (m->rate_s >= ENOUGH_S && m->seen_s >= RATE_LAGS * seconds_of(0, m->lag_ns));
}

/* active_j NaN: not known. */
static struct xn_energy energy_of(const struct xn_share *s, double joules, double active_j)
{
    return (struct xn_energy){.joules = joules,
                              .active_j = isnan(active_j) ? -1 : active_j,
                              .is_typical = knows_rate(s->meter),
                              .source = s->meter->source};
}

static void pay(const struct xn_share *s, uint32_t slot, double joules, double active_j, struct xn_metrics *metrics)
{
    const struct xn_energy energy = energy_of(s, joules, active_j);

    if (metrics && joules > 0)
        xn_metrics_energy(metrics, slot, s->instance, &energy);
}

/* Joules of `seconds` of work that no sample has covered yet. Before they have seen enough, the sensor's last figure, which instances that work share. */
static void expect(const struct xn_meter *m, double seconds, double *ret_j, double *ret_active_j)
{
    bool is_known = knows_rate(m);

    *ret_j = seconds * (is_known ? m->rate_j / m->rate_s : m->watts / XN_MAX(m->depth, 1u));
    *ret_active_j = seconds * (is_known ? m->rate_active_j / m->rate_s : NAN);
}

bool xn_share_batch(struct xn_share *s, uint32_t slot, uint64_t end_ns, struct xn_energy *ret,
                    struct xn_metrics *metrics)
{
    double rest_s = take_time(s, end_ns), joules, active_j;

    if (!s->meter)
        return false;
    expect(s->meter, rest_s, &joules, &active_j);
    pay(s, slot, s->running_j, s->running_active_j, metrics);
    joules += s->running_j;
    active_j += s->running_active_j;
    s->model_s[slot] += s->running_s + rest_s;
    s->ended_s += s->running_s + rest_s;
    s->running_s = s->running_j = s->running_active_j = 0;
    if (isnan(joules))
        return false;
    *ret = energy_of(s, joules, isnan(active_j) ? NAN : fmin(active_j, joules));
    return true;
}

/* ---- a sample ----------------------------------------------------------------------------------------------------- */

static void learn_idle(struct xn_meter *m, double joules, double seconds)
{
    m->debt_j = m->debt_s = 0;
    if (m->is_declared)
        return;
    m->learned_s = fmin(m->learned_s + seconds, LEARN_S);
    if (isnan(m->idle_watts))
        m->idle_watts = joules / seconds;
    m->idle_watts += (joules / seconds - m->idle_watts) * seconds / m->learned_s;
}

/* The active part of a sample's joules; NaN: not known. */
static double active_of(struct xn_meter *m, double joules, double seconds)
{
    double active_j = joules - m->idle_watts * seconds + m->debt_j;

    m->debt_j = fmin(active_j, 0);
    m->debt_s = active_j < 0 ? m->debt_s + seconds : 0;
    if (!m->is_declared && m->debt_j < -m->idle_watts * DEBT_S) {
        m->idle_watts += m->debt_j / m->debt_s;
        m->debt_j = m->debt_s = 0;
    }
    return isnan(active_j) ? NAN : fmax(active_j, 0);
}

/* `joules` to the instance, by time: to batches that ended, and to the one under way. */
static void give(struct xn_share *s, double joules, double active_j, double keep, struct xn_metrics *metrics)
{
    double all_s = s->ended_s + s->running_s;

    s->running_j += joules * s->running_s / all_s;
    s->running_active_j += active_j * s->running_s / all_s;
    s->running_s *= keep;
    for (uint32_t slot = 0; s->ended_s > 0 && slot < XN_CONFIG_MODELS_MAX; slot++) {
        if (s->model_s[slot] > 0)
            pay(s, slot, joules * s->model_s[slot] / all_s, active_j * s->model_s[slot] / all_s, metrics);
        s->model_s[slot] *= keep;
    }
    s->ended_s *= keep;
}

static void learn_rate(struct xn_meter *m, double joules, double active_j, double seconds)
{
    m->seen_s += seconds;
    double keep = exp(-seconds / RATE_S);

    m->rate_s = m->rate_s * keep + m->batch_s;
    m->rate_j = m->rate_j * keep + joules;
    if (!isnan(m->rate_active_j))
        m->rate_active_j = m->rate_active_j * keep + active_j;
    else if (m->batch_s > 0) /* idle power was not known before: as if it had always been like this */
        m->rate_active_j = active_j / m->batch_s * m->rate_s;
}

static double time_of_all(const struct xn_meter *m, const struct xn_share *shares, uint32_t n)
{
    double all_s = 0;

    for (uint32_t i = 0; i < n; i++)
        all_s += shares[i].meter == m ? shares[i].running_s + shares[i].ended_s : 0;
    return all_s;
}

void xn_meter_sample(struct xn_meter *m, struct xn_share *shares, uint32_t n, double joules, double seconds,
                     uint64_t now_ns, struct xn_metrics *metrics)
{
    double busy_s = take_busy(m, fmax(seconds, 0), now_ns), all_s = time_of_all(m, shares, n);
    bool in_tail = m->worked_ns != 0 && m->lag_ns > 0 && now_ns <= m->worked_ns + TAIL_LAGS * m->lag_ns;
    bool works = seconds > 0 && all_s > 0 && (m->depth > 0 || busy_s > 0 || in_tail);
    double keep = m->lag_ns > 0 ? exp(-seconds / seconds_of(0, m->lag_ns)) : 0;

    if (works) {
        double active_j = active_of(m, joules, seconds);
        double given_j =
            isnan(active_j) ? joules * busy_s / seconds : active_j + (joules - active_j) * busy_s / seconds;
        learn_rate(m, given_j, active_j, seconds);
        m->idle_j += joules - given_j;
        for (uint32_t i = 0; i < n; i++) {
            double mine_s = shares[i].running_s + shares[i].ended_s;
            if (shares[i].meter == m && mine_s > 0)
                give(&shares[i], given_j * mine_s / all_s, active_j * mine_s / all_s, keep, metrics);
        }
    } else {
        for (uint32_t i = 0; i < n; i++) {
            if (shares[i].meter == m)
                forget_time(&shares[i]);
        }
    }
    if (!works && seconds > 0) {
        m->idle_j += joules;
        learn_idle(m, joules, seconds);
    } else if (isnan(m->idle_watts) && m->depth == 0 && m->worked_ns == 0) {
        m->idle_watts =
            m->watts; /* the first reading, before any work: better than none where there is work from then on */
    }
    m->batch_s = 0;
}
