/* SPDX-License-Identifier: Apache-2.0
 * Registers and thread of a compute unit. Injected faults happen here. */
#include "accel/vcard/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"

/** A run as the thread has taken it. */
struct run {
    struct xn_vcard_arguments arguments;
    uint64_t epoch, start_ns;
    bool faults[XN_VCARD_FAULTS];
};

/* ---- registers ----------------------------------------------------------------------------------------------------- */

static void update_line_locked(struct xn_vcard_unit *unit)
{
    const bool line = unit->gie & 1 && unit->isr & 1;
    const bool rose = line && !unit->line;

    unit->line = line;
    if (rose)
        unit->hardware->on_interrupt_locked(unit->hardware->context, unit->index);
}

static void start_locked(struct xn_vcard_unit *unit)
{
    if (unit->is_running)
        return;
    unit->is_running = unit->is_started = true;
    unit->start_ns = xn_clock_now_ns();
    xn_vcard_set(&unit->stats->started_ns, unit->start_ns);
    if (unit->end_ns)
        xn_vcard_count(&unit->stats->idle_ns, unit->start_ns - unit->end_ns);
    pthread_cond_signal(&unit->changed);
}

void xn_vcard_unit_write_locked(struct xn_vcard_unit *unit, uint32_t offset, uint32_t value)
{
    if (offset == XN_ISA_REG_CONTROL) {
        if (value & XN_VCARD_CTRL_START)
            start_locked(unit);
    } else if (offset == XN_VCARD_REG_GIE) {
        unit->gie = value & 1;
    } else if (offset == XN_VCARD_REG_IER) {
        unit->ier = value & 3;
    } else if (offset == XN_VCARD_REG_ISR) {
        unit->isr ^= value & 3;
    } else if (offset % 4 == 0 && offset / 4 < XN_VCARD_REGISTERS) {
        unit->registers[offset / 4] = value;
    }
    update_line_locked(unit);
}

static uint32_t read_control_locked(struct xn_vcard_unit *unit)
{
    const uint32_t value = (unit->is_running ? XN_VCARD_CTRL_START : XN_VCARD_CTRL_IDLE) |
                           (unit->is_done ? XN_VCARD_CTRL_DONE : 0) | (unit->is_ready ? XN_VCARD_CTRL_READY : 0);

    unit->is_done = unit->is_ready = false;
    return value;
}

uint32_t xn_vcard_unit_read_locked(struct xn_vcard_unit *unit, uint32_t offset)
{
    switch (offset) {
    case XN_ISA_REG_CONTROL:
        return read_control_locked(unit);
    case XN_VCARD_REG_GIE:
        return unit->gie;
    case XN_VCARD_REG_IER:
        return unit->ier;
    case XN_VCARD_REG_ISR:
        return unit->isr;
    default:
        return offset % 4 == 0 && offset / 4 < XN_VCARD_REGISTERS ? unit->registers[offset / 4] : XN_VCARD_NOBODY;
    }
}

static int hand_new(struct xn_vcard_unit *unit, struct xn_vcard_hand **ret_hand, struct xn_error *error);

/** Where there is no other thread to be had the old one stays: a start then waits for it. */
static void replace_hand_locked(struct xn_vcard_unit *unit)
{
    struct xn_vcard_hand *old = unit->hand;

    if (hand_new(unit, &unit->hand, NULL) < 0)
        return;
    old->is_orphan = true;
    pthread_detach(old->thread);
    unit->hardware->orphans++;
}

void xn_vcard_unit_reset_locked(struct xn_vcard_unit *unit)
{
    if (unit->is_running) {
        xn_vcard_count(&unit->stats->stopped, 1);
        unit->end_ns = xn_clock_now_ns();
    }
    xn_vcard_set(&unit->stats->started_ns, 0);
    unit->epoch++;
    unit->is_running = unit->is_started = unit->is_done = unit->is_ready = unit->line = false;
    unit->gie = unit->ier = unit->isr = 0;
    for (uint32_t i = 0; i < XN_VCARD_REGISTERS; i++)
        unit->registers[i] = 0;
    pthread_cond_signal(&unit->changed);
    if (unit->hand->computes)
        replace_hand_locked(unit);
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

static uint64_t address_at(const struct xn_vcard_unit *unit, uint32_t offset)
{
    return unit->registers[offset / 4] | (uint64_t)unit->registers[offset / 4 + 1] << 32;
}

static struct run take_locked(struct xn_vcard_unit *unit)
{
    struct run run = {.arguments = {.program = address_at(unit, XN_ISA_REG_PROGRAM),
                                    .stream = address_at(unit, XN_ISA_REG_STREAM),
                                    .input = address_at(unit, XN_ISA_REG_INPUT),
                                    .output = address_at(unit, XN_ISA_REG_OUTPUT),
                                    .status = address_at(unit, XN_ISA_REG_STATUS),
                                    .images = unit->registers[XN_ISA_REG_IMAGES / 4],
                                    .input_bytes = unit->registers[XN_ISA_REG_INPUT_BYTES / 4],
                                    .output_words = unit->registers[XN_ISA_REG_OUTPUT_WORDS / 4]},
                      .epoch = unit->epoch,
                      .start_ns = unit->start_ns};

    unit->is_started = false;
    for (uint32_t kind = 0; kind < XN_VCARD_REFUSE; kind++) {
        run.faults[kind] = xn_vcard_fault_due(&unit->hardware->faults, unit->hardware->options, kind);
        xn_vcard_count(&unit->stats->faults[kind], run.faults[kind]);
    }
    return run;
}

/** Until then, a reset or the end. */
static void wait_locked(struct xn_vcard_unit *unit, const struct run *run, uint64_t until_ns)
{
    const struct timespec until = xn_clock_timespec(until_ns);

    while (!unit->hardware->quits && unit->epoch == run->epoch && xn_clock_now_ns() < until_ns) {
        if (until_ns == XN_NEVER_NS)
            pthread_cond_wait(&unit->changed, &unit->hardware->lock);
        else
            pthread_cond_clockwait(&unit->changed, &unit->hardware->lock, CLOCK_MONOTONIC, &until);
    }
}

/** When a run that took `cycles` is done at the earliest. */
static uint64_t done_ns(const struct xn_vcard_unit *unit, const struct run *run, uint64_t cycles)
{
    const struct xn_vcard_options *o = unit->hardware->options;

    return run->start_ns + (o->is_timed ? cycles * 1000 / o->clock_mhz : 0) +
           (run->faults[XN_VCARD_SLOW] ? o->slow_ms * XN_NS_PER_MS : 0);
}

static void corrupt(struct xn_vcard_result *result, uint64_t salt)
{
    if (result->output_words > 0)
        result->output[salt % result->output_words] ^= 0x55;
    result->status.error = XN_VCARD_ERROR_PARITY;
}

static void count_run_locked(struct xn_vcard_unit *unit, const struct run *run, const struct xn_vcard_result *result)
{
    struct xn_vcard_unit_stats *s = unit->stats;

    xn_vcard_count(&s->runs, 1);
    xn_vcard_count(&s->images, run->arguments.images);
    xn_vcard_count(&s->errors, result->status.error != XN_ISA_OK);
    xn_vcard_count(&s->cycles, result->status.cycles);
    xn_vcard_count(&s->model_ns, result->status.cycles * 1000 / unit->hardware->options->clock_mhz);
    unit->end_ns = xn_clock_now_ns();
    xn_vcard_set(&s->started_ns, 0);
    xn_vcard_count(&s->busy_ns, unit->end_ns - run->start_ns);
}

static void finish_locked(struct xn_vcard_unit *unit, const struct run *run, struct xn_vcard_result *result)
{
    const bool is_bus_error = result->status.error == XN_VCARD_ERROR_BUS;

    if (run->faults[XN_VCARD_HANG] || (is_bus_error && unit->hardware->options->hangs_on_bus))
        wait_locked(unit, run, XN_NEVER_NS);
    else
        wait_locked(unit, run, done_ns(unit, run, result->status.cycles));
    if (unit->hardware->quits || unit->epoch != run->epoch)
        return;
    if (run->faults[XN_VCARD_CORRUPT])
        corrupt(result, xn_vcard_counted(&unit->stats->runs));
    xn_vcard_job_publish(&unit->hardware->memory, &run->arguments, result);
    count_run_locked(unit, run, result);
    unit->is_running = false;
    unit->is_done = unit->is_ready = true;
    if (run->faults[XN_VCARD_LOST])
        return;
    unit->isr |= unit->ier & 1;
    update_line_locked(unit);
}

static void hand_free(struct xn_vcard_hand *hand)
{
    xn_vcard_worker_done(&hand->worker);
    free(hand);
}

/** Take a start and run it. False: nobody waits for this hand any more. */
static bool work_locked(struct xn_vcard_hand *hand)
{
    struct xn_vcard_unit *unit = hand->unit;
    struct xn_vcard_hardware *hardware = unit->hardware;
    const struct run run = take_locked(unit);
    struct xn_vcard_result result;

    hand->computes = true;
    pthread_mutex_unlock(&hardware->lock);
    if (run.faults[XN_VCARD_CRASH])
        kill(getpid(), SIGKILL);
    xn_vcard_job_run(&hand->worker, &run.arguments, &result);
    pthread_mutex_lock(&hardware->lock);
    hand->computes = false;
    if (!hand->is_orphan)
        finish_locked(unit, &run, &result);
    return !hand->is_orphan;
}

static void *hand_main(void *argument)
{
    struct xn_vcard_hand *hand = argument;
    struct xn_vcard_unit *unit = hand->unit;
    struct xn_vcard_hardware *hardware = unit->hardware;
    bool is_wanted = true;

    prctl(PR_SET_TIMERSLACK, 1); /* runs end when they should */
    pthread_mutex_lock(&hardware->lock);
    while (!hardware->quits && is_wanted) {
        if (unit->is_started)
            is_wanted = work_locked(hand);
        else
            pthread_cond_wait(&unit->changed, &hardware->lock);
    }
    if (!is_wanted) {
        hand_free(hand);
        hardware->orphans--;
    }
    pthread_mutex_unlock(&hardware->lock);
    return NULL;
}

static int hand_new(struct xn_vcard_unit *unit, struct xn_vcard_hand **ret_hand, struct xn_error *error)
{
    struct xn_vcard_hand *hand = calloc(1, sizeof(*hand));
    char name[16];
    int r;

    if (!hand)
        return xn_error_set(error, -ENOMEM, "no memory for a unit");
    hand->unit = unit;
    r = xn_vcard_worker_init(&hand->worker, unit->hardware->options, &unit->hardware->memory, error);
    if (r == 0) {
        r = -pthread_create(&hand->thread, NULL, hand_main, hand);
        if (r < 0)
            (void)xn_error_set(error, r, "thread of a unit: error %d", -r);
    }
    if (r < 0) {
        hand_free(hand);
        return r;
    }
    snprintf(name, sizeof(name), "xn-unit-%u", unit->index);
    pthread_setname_np(hand->thread, name);
    *ret_hand = hand;
    return 0;
}

int xn_vcard_unit_init(struct xn_vcard_unit *unit, struct xn_vcard_hardware *hardware, uint32_t index,
                       struct xn_vcard_unit_stats *stats, struct xn_error *error)
{
    *unit = (struct xn_vcard_unit){.hardware = hardware, .index = index, .stats = stats};
    xn_vcard_set(&stats->started_ns, 0); /* of a life before */
    pthread_cond_init(&unit->changed, NULL);
    const int r = hand_new(unit, &unit->hand, error);
    if (r < 0)
        pthread_cond_destroy(&unit->changed);
    return r;
}

void xn_vcard_unit_done(struct xn_vcard_unit *unit)
{
    pthread_mutex_lock(&unit->hardware->lock);
    pthread_cond_signal(&unit->changed);
    pthread_mutex_unlock(&unit->hardware->lock);
    pthread_join(unit->hand->thread, NULL);
    hand_free(unit->hand);
    pthread_cond_destroy(&unit->changed);
}
