/* SPDX-License-Identifier: Apache-2.0
 * accel.h's slots over compute units of the engine.
 *
 * A job's tensors are copied into the host side of its slot's buffers and travel to the card while the job before it runs; its results are
 * copied out when it has ended. So no device ever writes into a caller's memory, whatever becomes of a run. A run is believed if its
 * status, cleared before, says that all images went through.
 *
 * A run that does not end by its deadline, or ends badly, quarantines the instance. Reset takes everything that was made of the card before
 * away, has the card reset (unless another instance of it has just done so: then this one's runs were ended too), and settles the
 * models anew. Whether the unit works is found out by running it on a program of one END, as when it is opened.
 *
 * Models of all units of a card share its memory (store.c); where it is short, the one that has not run for longest leaves, and comes back when it is
 * to run. That costs the run its upload.
 *
 * Locks: an instance's load_lock serialises load, unload and reset; the lock of the card's store, under which models settle and leave again, is a
 * leaf that submit takes too. Fault points: accel.xrt.submit and accel.xrt.wait fail with -EIO, accel.xrt.hang makes a job that does not end until reset,
 * accel.xrt.reset fails once to bring the instance back. */
#include "accel/xrt/xrt.h"
#include "common/clock.h"
#include "common/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_NS   (2 * XN_NS_PER_S)  /**< for a program of one END */
#define WARM_UP_NS (60 * XN_NS_PER_S) /**< for an image; simulations are slow */
#define WAIT_MS    1000u              /**< of one call of XRT at most */
#define CARDS_MAX  16u

enum state { READY, QUARANTINED };

struct flight {
    struct xn_accel_job *job;
    struct xn_xrt_slot *slot;
    uint64_t submitted_ns;
};

/** struct xn_accel, seen from inside. */
struct xrt {
    struct xn_accel_base base; /* first: see accel.h */
    const struct xn_xrt_api *api;
    struct xn_xrt_card *card;
    struct xn_xrt_store *store; /* the card's */
    char unit_name[XN_XRT_NAME_BYTES];
    struct xn_isa_geometry geometry;
    uint64_t clock_hz; /* for costs; planned where the card does not say */
    pthread_mutex_t load_lock;
    /* Changed by reset, under load_lock. */
    struct xn_xrt_unit *unit;
    uint32_t generation;
    _Atomic int state; /* enum state; load may find that the unit hangs, so any thread sets it */
    /* Of the thread that submits, waits and resets. */
    struct flight flights[XN_XRT_INFLIGHT]; /* the oldest first */
    uint32_t n_flights;
    bool hung; /* accel.xrt.hang struck */
    uint64_t last_end_ns;
};

static struct xrt *xrt_of(struct xn_accel *accel)
{
    return (struct xrt *)(void *)accel;
}

static struct xn_xrt_place place_of(const struct xrt *x)
{
    return (struct xn_xrt_place){.api = x->api,
                                 .unit = x->unit,
                                 .generation = x->generation,
                                 .is_own_memory = !xn_xrt_card_info(x->card)->address[0]};
}

/** The next model of `x` behind `model` in the card's store; the first for NULL. */
static struct xn_accel_model *next_model_locked(const struct xrt *x, const struct xn_accel_model *model)
{
    struct xn_accel_model *m = model ? model->next : x->store->models;

    while (m && m->owner != (const struct xn_accel *)(const void *)x)
        m = m->next;
    return m;
}

/* ---- which instances there are ---------------------------------------------------------------------------------------------- */

/** What options come to: units of the file on each of some cards. */
struct choice {
    const struct xn_xrt_api *api;
    struct xn_xrt_image image;
    char cards[CARDS_MAX][32];
    uint32_t n_cards, n;
};

static int choose_cards(const struct xn_accel_options *options, struct choice *c, struct xn_error *error)
{
    struct xn_xrt_why why;
    uint32_t n = 0;

    if (options->device && options->device[0]) {
        snprintf(c->cards[0], sizeof(c->cards[0]), "%s", options->device);
        c->n_cards = 1;
        return 0;
    }
    const int r = c->api->count(&n, &why);
    if (r < 0)
        return xn_error_set(error, r, "xrt: %s", why.text);
    if (n == 0)
        return xn_error_set(error, -ENODEV, "xrt: XRT finds no card; is its driver loaded?");
    for (c->n_cards = 0; c->n_cards < XN_MIN(n, CARDS_MAX); c->n_cards++)
        snprintf(c->cards[c->n_cards], sizeof(c->cards[0]), "%u", c->n_cards);
    return 0;
}

static int choose(const struct xn_accel_options *options, struct choice *c, struct xn_error *error)
{
    struct xn_xrt_why why;
    int r = xn_xrt_module(&c->api, error);

    if (r < 0)
        return r;
    if (!options->image || !options->image[0])
        return xn_error_set(error, -EINVAL, "xrt: \"image\" must name the .xclbin file with the engine");
    r = choose_cards(options, c, error);
    if (r < 0)
        return r;
    r = c->api->image(options->image, XN_XRT_KERNEL, &c->image, &why);
    if (r < 0)
        return xn_error_set(error, r == -ENOENT ? -ENODEV : -EINVAL, "xrt: %s: %s", options->image, why.text);
    c->n = c->n_cards * c->image.n_units;
    if (options->instances > c->n)
        return xn_error_set(error, -EINVAL, "xrt: %u instances asked for; %u cards with %u units each of %s make %u",
                            options->instances, c->n_cards, c->image.n_units, options->image, c->n);
    c->n = options->instances ? options->instances : c->n;
    return 0;
}

static int xrt_probe(const struct xn_accel_options *options, uint32_t *ret_n, struct xn_error *error)
{
    struct choice c = {0};
    const int r = choose(options, &c, error);

    if (r == 0)
        *ret_n = c.n;
    return r;
}

/* ---- running ---------------------------------------------------------------------------------------------------------------- */

/** Wait for a run until `deadline_ns`. 0; -ETIMEDOUT; -EIO: it ended badly. */
static int await(const struct xrt *x, struct xn_xrt_run *run, uint64_t deadline_ns, struct xn_xrt_why *why)
{
    enum xn_xrt_state state = XN_XRT_RUNNING;

    for (;;) {
        const uint64_t now_ns = xn_clock_now_ns(), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        const int r = x->api->run_wait(run, (uint32_t)XN_MIN(left_ns / XN_NS_PER_MS + 1, WAIT_MS), &state, why);
        if (r < 0)
            return -EIO;
        if (state == XN_XRT_DONE)
            return 0;
        if (state == XN_XRT_FAILED) {
            snprintf(why->text, sizeof(why->text), "the run was ended by the card or its driver");
            return -EIO;
        }
        if (left_ns == 0)
            return -ETIMEDOUT;
    }
}

/** Is `status` that of a run of `images` images that went well? */
static int believe(const struct xn_isa_status *status, uint32_t images, struct xn_xrt_why *why)
{
    if (status->version >> 16 == XN_ISA_MAJOR && status->error == XN_ISA_OK && status->image == images)
        return 0;
    if (status->version == 0)
        snprintf(why->text, sizeof(why->text), "the engine wrote no status");
    else
        snprintf(why->text, sizeof(why->text), "the engine stopped with error %u at descriptor %u of image %u",
                 status->error, status->descriptor, status->image);
    return -EIO;
}

/** Start what lies in `slot` on `images` images. */
static int start(const struct xrt *x, const struct xn_xrt_slot *slot, uint32_t images, uint64_t input_bytes,
                 struct xn_xrt_why *why)
{
    int r = 0;

    *slot->status_host = (struct xn_isa_status){.image = UINT32_MAX};
    if (input_bytes)
        r = x->api->buffer_sync(slot->input, 1, input_bytes, why);
    if (r == 0)
        r = x->api->buffer_sync(slot->status, 1, sizeof(*slot->status_host), why);
    if (r == 0)
        r = x->api->run_scalar(slot->run, XN_XRT_IMAGES, images, why);
    return r == 0 ? x->api->run_start(slot->run, why) : r;
}

/** Await what start began and fetch its status and outputs. */
static int finish(const struct xrt *x, const struct xn_xrt_slot *slot, uint32_t images, uint64_t output_bytes,
                  uint64_t deadline_ns, struct xn_xrt_why *why)
{
    int r = await(x, slot->run, deadline_ns, why);

    if (r == 0)
        r = x->api->buffer_sync(slot->status, 0, sizeof(*slot->status_host), why);
    if (r == 0)
        r = believe(slot->status_host, images, why);
    if (r == 0 && output_bytes)
        r = x->api->buffer_sync(slot->output, 0, output_bytes, why);
    return r;
}

/** Run a program of one END: whether the unit works, and which geometry it has. */
static int probe_unit(const struct xrt *x, struct xn_isa_status *ret_status, struct xn_error *error)
{
    static const struct xn_isa_descriptor end = {.op = XN_ISA_END};
    const struct xn_engine_program program = {
        .descriptors = (struct xn_isa_descriptor *)(uintptr_t)&end, .n = 1, .input_bytes = 1, .output_words = 1};
    static const struct xn_network nothing = {.name = "probe"};
    struct xn_accel_model model = {
        .network = &nothing, .program = (struct xn_engine_program *)(uintptr_t)&program, .max_batch = 1};
    const struct xn_xrt_place place = place_of(x);
    struct xn_xrt_why why;

    pthread_mutex_lock(&x->store->lock);
    int r = xn_xrt_store_settle_locked(x->store, &model, &place, error);
    pthread_mutex_unlock(&x->store->lock);
    if (r < 0)
        return r;
    r = start(x, &model.slots[0], 0, 0, &why);
    if (r == 0)
        r = finish(x, &model.slots[0], 0, 0, xn_clock_now_ns() + PROBE_NS, &why);
    *ret_status = *model.slots[0].status_host;
    if (r == -ETIMEDOUT)
        snprintf(why.text, sizeof(why.text), "it did not end within %d s", (int)(PROBE_NS / XN_NS_PER_S));
    pthread_mutex_lock(&x->store->lock);
    xn_xrt_model_evict_locked(x->api, x->store, &model);
    pthread_mutex_unlock(&x->store->lock);
    return r < 0 ? xn_error_set(error, r, "%s: an empty program on unit %s failed: %s", x->base.info.name, x->unit_name,
                                why.text)
                 : 0;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static int take_geometry(struct xrt *x, const struct xn_isa_status *s, struct xn_error *error)
{
    const struct xn_isa_geometry g = {
        .p = s->p, .pi = s->pi, .pr = s->pr, .am_rows = s->am_rows, .rm_rows = s->rm_rows, .wb_words = s->wb_words};
    const char *name = x->base.info.name;

    if (s->version >> 16 != XN_ISA_MAJOR || (s->version & 0xffff) < XN_ISA_MINOR)
        return xn_error_set(
            error, -ENODEV,
            "%s: the engine in the .xclbin has instruction set %u.%u, this xnord needs %u.%u: build it anew", name,
            s->version >> 16, s->version & 0xffff, XN_ISA_MAJOR, XN_ISA_MINOR);
    const int r = xn_engine_geometry_check(&g, error);
    if (r < 0)
        return xn_error_prefix(error, -ENODEV, "%s", name);
    x->geometry = g;
    return 0;
}

#define CLOCK_HZ UINT64_C(250000000) /* planned, where the card does not say */

static void describe(struct xrt *x, uint32_t card, uint32_t unit)
{
    const struct xn_xrt_device_info *device = xn_xrt_card_info(x->card);
    struct xn_accel_info *info = &x->base.info;

    snprintf(info->name, sizeof(info->name), "xrt%u.%u", card, unit);
    snprintf(info->kind, sizeof(info->kind), "xrt");
    snprintf(info->device, sizeof(info->device), "%s", device->name);
    snprintf(info->power_domain, sizeof(info->power_domain), "%s", device->address);
    info->clock_hz = device->clock_hz;
    info->inflight_max = XN_XRT_INFLIGHT;
    x->clock_hz = device->clock_hz ? device->clock_hz : CLOCK_HZ;
}

static void describe_geometry(struct xrt *x)
{
    const struct xn_isa_geometry *g = &x->geometry;

    snprintf(x->base.info.geometry, sizeof(x->base.info.geometry), "P%u PE%u S%u PI%u PR%u", g->p, XN_ISA_LANES,
             XN_ISA_WORD_BITS, g->pi, g->pr);
}

static int open_unit(struct xrt *x, struct xn_error *error)
{
    struct xn_isa_status status;
    int r = xn_xrt_card_unit(x->card, x->unit_name, &x->unit, &x->generation, error);

    if (r < 0) {
        x->unit = NULL;
        return r;
    }
    r = probe_unit(x, &status, error);
    return r == 0 ? take_geometry(x, &status, error) : r;
}

static void xrt_close(struct xn_accel *accel);

static int xrt_open(const struct xn_accel_options *options, uint32_t index, struct xn_accel **ret_accel,
                    struct xn_error *error)
{
    struct choice c = {0};
    int r = choose(options, &c, error);

    if (r < 0)
        return r;
    if (index >= c.n)
        return xn_error_set(error, -EINVAL, "xrt: instance %u does not exist; there are %u", index, c.n);
    struct xrt *x = xn_calloc(1, sizeof(*x));
    if (!x)
        return xn_error_set(error, -ENOMEM, "xrt: no memory to open instance %u", index);
    const uint32_t card = index / c.image.n_units, unit = index % c.image.n_units;
    x->base.backend = &xn_accel_xrt;
    x->api = c.api;
    pthread_mutex_init(&x->load_lock, NULL);
    snprintf(x->unit_name, sizeof(x->unit_name), "%s", c.image.units[unit]);
    r = xn_xrt_card_get(c.api, c.cards[card], options->image, &c.image, &x->card, error);
    if (r == 0) {
        x->store = xn_xrt_card_store(x->card);
        describe(x, card, unit);
        r = open_unit(x, error);
    }
    if (r < 0) {
        xrt_close((struct xn_accel *)(void *)x);
        return r == -EIO || r == -ETIMEDOUT || r == -ENOSPC ? -ENODEV : r;
    }
    describe_geometry(x);
    *ret_accel = (struct xn_accel *)(void *)x;
    return 0;
}

/* ---- models ----------------------------------------------------------------------------------------------------------------- */

/** An image of zeros through a model that no job uses yet. */
static int warm_up(struct xrt *x, struct xn_accel_model *model, struct xn_error *error)
{
    struct xn_xrt_slot *slot = &model->slots[0];
    struct xn_xrt_why why;

    memset(slot->input_host, 0, model->program->input_bytes);
    int r = start(x, slot, 1, model->program->input_bytes, &why);
    if (r == 0)
        r = finish(x, slot, 1, model->program->output_words * sizeof(int32_t), xn_clock_now_ns() + WARM_UP_NS, &why);
    if (r == 0)
        return 0;
    if (r == -ETIMEDOUT)
        snprintf(why.text, sizeof(why.text), "it did not end within %d s", (int)(WARM_UP_NS / XN_NS_PER_S));
    atomic_store(&x->state, QUARANTINED);
    return xn_error_set(error, -EIO, "%s: an image of zeros through model \"%s\" failed: %s", x->base.info.name,
                        model->network->name, why.text);
}

static int load_model(struct xrt *x, const struct xn_network *network, uint32_t max_batch,
                      struct xn_accel_model **ret_model, struct xn_error *error)
{
    const struct xn_xrt_place place = place_of(x);
    struct xn_accel_model *model;
    int r = xn_xrt_model_new(network, &x->geometry, max_batch, &model, error);

    if (r < 0)
        return r;
    model->owner = (const struct xn_accel *)(const void *)x;
    pthread_mutex_lock(&x->store->lock);
    r = xn_xrt_store_settle_locked(x->store, model, &place, error);
    pthread_mutex_unlock(&x->store->lock);
    if (r == 0)
        r = warm_up(x, model, error); /* not in the store yet, so nobody evicts it */
    pthread_mutex_lock(&x->store->lock);
    if (r < 0) {
        xn_xrt_model_evict_locked(x->api, x->store, model);
    } else {
        model->next = x->store->models;
        x->store->models = model;
    }
    pthread_mutex_unlock(&x->store->lock);
    if (r < 0)
        xn_xrt_model_free(model);
    else
        *ret_model = model;
    return r;
}

static int xrt_load(struct xn_accel *accel, const struct xn_network *network, uint32_t max_batch,
                    struct xn_accel_model **ret_model, struct xn_error *error)
{
    struct xrt *x = xrt_of(accel);
    const char *name = x->base.info.name;

    if (max_batch == 0 || max_batch > XN_ACCEL_BATCH_MAX)
        return xn_error_set(error, -EINVAL, "%s: model \"%s\" asks for batches of %u; 1 to %u are possible", name,
                            network->name, max_batch, XN_ACCEL_BATCH_MAX);
    pthread_mutex_lock(&x->load_lock);
    int r = atomic_load(&x->state) == READY
                ? load_model(x, network, max_batch, ret_model, error)
                : xn_error_set(error, -EIO, "quarantined after a failed run; it loads models again after a reset");
    pthread_mutex_unlock(&x->load_lock);
    return r < 0 ? xn_error_prefix(error, r, "%s", name) : 0;
}

static void xrt_unload(struct xn_accel *accel, struct xn_accel_model *model)
{
    struct xrt *x = xrt_of(accel);

    pthread_mutex_lock(&x->load_lock);
    pthread_mutex_lock(&x->store->lock);
    struct xn_accel_model **at = &x->store->models;
    while (*at && *at != model)
        at = &(*at)->next;
    assert(*at == model);
    *at = model->next;
    xn_xrt_model_evict_locked(x->api, x->store, model);
    pthread_mutex_unlock(&x->store->lock);
    pthread_mutex_unlock(&x->load_lock);
    xn_xrt_model_free(model);
}

static int xrt_cost(struct xn_accel *accel, const struct xn_accel_model *model, uint32_t batch, uint64_t *ret_ns)
{
    const struct xrt *x = xrt_of(accel);
    *ret_ns = xn_xrt_model_cycles(model, batch) * 1000 / XN_MAX(x->clock_hz / 1000000, 1);
    return 0;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------------------- */

static int quarantine(struct xrt *x, int code, struct xn_error *error, const char *what, const char *why)
{
    atomic_store(&x->state, QUARANTINED);
    return xn_error_set(error, code, "%s: %s: %s; quarantined until a reset", x->base.info.name, what, why);
}

/** A place for the job's tensors in a model that is on the card. */
static int take_slot(struct xrt *x, struct xn_accel_model *model, struct xn_xrt_slot **ret_slot, struct xn_error *error)
{
    const struct xn_xrt_place place = place_of(x);
    int r = 0;

    pthread_mutex_lock(&x->store->lock);
    if (!model->weights)
        r = xn_xrt_store_settle_locked(x->store, model, &place, error);
    if (r == 0) {
        struct xn_xrt_slot *slot = model->slots;
        while (slot->busy) /* there are as many as jobs in flight */
            slot++;
        slot->busy = true;
        model->inflight++;
        model->used = ++x->store->runs;
        *ret_slot = slot;
    }
    pthread_mutex_unlock(&x->store->lock);
    return r;
}

static void give_slot(struct xrt *x, struct xn_accel_model *model, struct xn_xrt_slot *slot)
{
    pthread_mutex_lock(&x->store->lock);
    slot->busy = false;
    model->inflight--;
    pthread_mutex_unlock(&x->store->lock);
}

static int start_job(struct xrt *x, struct xn_accel_job *job, struct xn_xrt_slot *slot, struct xn_error *error)
{
    const uint32_t input_bytes = job->model->program->input_bytes;
    struct xn_xrt_why why;

    for (uint32_t i = 0; i < job->batch; i++)
        memcpy(slot->input_host + (size_t)i * input_bytes, job->inputs[i], input_bytes);
    x->hung = XN_FAULT("accel.xrt.hang");
    const int r = x->hung ? 0 : start(x, slot, job->batch, (uint64_t)job->batch * input_bytes, &why);
    if (r < 0)
        return quarantine(x, -EIO, error, "a batch could not be started", why.text);
    x->flights[x->n_flights++] = (struct flight){job, slot, xn_clock_now_ns()};
    return 0;
}

static int xrt_submit(struct xn_accel *accel, struct xn_accel_job *job, struct xn_error *error)
{
    struct xrt *x = xrt_of(accel);
    const char *name = x->base.info.name;
    struct xn_xrt_slot *slot = NULL;

    if (atomic_load(&x->state) != READY)
        return xn_error_set(error, -ESTALE, "%s: quarantined after a failed run; it takes jobs again after a reset",
                            name);
    if (x->n_flights == XN_XRT_INFLIGHT)
        return xn_error_set(error, -EBUSY, "%s: %u batches are in flight; it takes no more", name, x->n_flights);
    if (job->batch == 0 || job->batch > job->model->max_batch)
        return xn_error_set(error, -EINVAL, "%s: batch of %u images; model \"%s\" was loaded for 1 to %u", name,
                            job->batch, job->model->network->name, job->model->max_batch);
    if (xn_xrt_card_generation(x->card) != x->generation)
        return quarantine(x, -EIO, error, "a batch could not be started", "the card was reset for another instance");
    if (XN_FAULT("accel.xrt.submit"))
        return quarantine(x, -EIO, error, "a batch could not be started", "injected fault");
    int r = take_slot(x, job->model, &slot, error);
    if (r < 0)
        return quarantine(x, -EIO, error, "a model cannot come back to the card", error ? error->text : "");
    r = start_job(x, job, slot, error);
    if (r < 0)
        give_slot(x, job->model, slot);
    return r;
}

static int hang(uint64_t deadline_ns)
{
    const struct timespec until = xn_clock_timespec(deadline_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
    return -ETIMEDOUT;
}

static void copy_outputs(const struct xn_accel_job *job, const struct xn_xrt_slot *slot)
{
    const uint32_t words = job->model->program->output_words;

    for (uint32_t i = 0; i < job->batch; i++)
        memcpy(job->outputs[i], slot->output_host + (size_t)i * words, words * sizeof(int32_t));
}

/** XRT's waits have whole milliseconds. */
static int xrt_poll(struct xn_accel *accel, struct xn_accel_job *job, uint64_t until_ns)
{
    struct xrt *x = xrt_of(accel);
    enum xn_xrt_state state = XN_XRT_RUNNING;
    struct xn_xrt_why why;

    (void)job;
    while (!x->hung && state == XN_XRT_RUNNING) {
        const uint64_t now_ns = xn_clock_now_ns(), left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        if (left_ns < XN_NS_PER_MS)
            return -EAGAIN;
        if (x->api->run_wait(x->flights[0].slot->run, (uint32_t)XN_MIN(left_ns / XN_NS_PER_MS, WAIT_MS), &state, &why) <
            0)
            break;
    }
    return x->hung ? -EAGAIN : 0;
}

static int xrt_wait(struct xn_accel *accel, struct xn_accel_job *job, uint64_t deadline_ns, struct xn_error *error)
{
    struct xrt *x = xrt_of(accel);
    const struct flight f = x->flights[0];
    struct xn_xrt_why why = {"injected fault"};

    if (x->n_flights == 0 || f.job != job)
        return xn_error_set(error, -EINVAL, "%s: wait for a job that is not the oldest in flight", x->base.info.name);
    const uint64_t output_bytes = (uint64_t)job->batch * job->model->program->output_words * sizeof(int32_t);
    int r = x->hung ? hang(deadline_ns) : finish(x, f.slot, job->batch, output_bytes, deadline_ns, &why);
    if (r == 0 && XN_FAULT("accel.xrt.wait"))
        r = -EIO;
    if (r == -ETIMEDOUT)
        return quarantine(x, r, error, "a batch did not end by its deadline", job->model->network->name);
    if (r == 0) {
        const uint64_t end_ns = xn_clock_now_ns(), begin_ns = XN_MAX(f.submitted_ns, x->last_end_ns);
        job->exec_ns = end_ns - begin_ns;
        x->last_end_ns = end_ns;
        copy_outputs(job, f.slot);
    }
    give_slot(x, job->model, f.slot);
    x->n_flights--;
    memmove(x->flights, x->flights + 1, x->n_flights * sizeof(x->flights[0]));
    return r < 0 ? quarantine(x, -EIO, error, "a batch failed", why.text) : 0;
}

/* ---- reset and close -------------------------------------------------------------------------------------------------------- */

/** Everything that was made of the card for this instance goes. */
static void leave_card(struct xrt *x)
{
    pthread_mutex_lock(&x->store->lock);
    for (struct xn_accel_model *m = next_model_locked(x, NULL); m; m = next_model_locked(x, m)) {
        xn_xrt_model_evict_locked(x->api, x->store, m);
        m->inflight = 0;
    }
    pthread_mutex_unlock(&x->store->lock);
    if (x->unit)
        x->api->unit_close(x->unit);
    x->unit = NULL;
    x->n_flights = 0;
    x->hung = false;
}

/** Open the unit and settle its models; those that do not fit, as they did not before either, when they are to run. */
static int return_to_card(struct xrt *x, struct xn_error *error)
{
    int r = open_unit(x, error);

    if (r < 0)
        return r;
    const struct xn_xrt_place place = place_of(x);
    pthread_mutex_lock(&x->store->lock);
    xn_xrt_store_forget_locked(x->api, x->store, x->generation);
    for (struct xn_accel_model *m = next_model_locked(x, NULL); r == 0 && m; m = next_model_locked(x, m))
        r = xn_xrt_model_settle_locked(x->store, m, &place, error);
    pthread_mutex_unlock(&x->store->lock);
    return r == -ENOSPC ? 0 : r;
}

static int xrt_reset(struct xn_accel *accel, struct xn_error *error)
{
    struct xrt *x = xrt_of(accel);

    if (atomic_load(&x->state) == READY)
        return 0;
    if (XN_FAULT("accel.xrt.reset"))
        return xn_error_set(error, -EIO, "%s: reset failed (injected fault)", x->base.info.name);
    pthread_mutex_lock(&x->load_lock);
    /* First the card, so that no run writes into memory that is given back. */
    int r = xn_xrt_card_reset(x->card, x->generation, error);
    if (r == 0) {
        leave_card(x);
        r = return_to_card(x, error);
    }
    if (r == 0)
        atomic_store(&x->state, READY);
    pthread_mutex_unlock(&x->load_lock);
    return r == 0 ? 0 : r == -ETIMEDOUT ? r : -EIO;
}

static struct xn_accel_model *first_model(struct xrt *x)
{
    pthread_mutex_lock(&x->store->lock);
    struct xn_accel_model *model = next_model_locked(x, NULL);
    pthread_mutex_unlock(&x->store->lock);
    return model;
}

static void xrt_close(struct xn_accel *accel)
{
    if (!accel)
        return;
    struct xrt *x = xrt_of(accel);
    /* What still runs would write into memory that is given back. There is nothing to be done where the reset fails. */
    const int r = x->n_flights > 0 ? xn_xrt_card_reset(x->card, x->generation, NULL) : 0;
    (void)r;
    if (x->card) {
        leave_card(x);
        for (struct xn_accel_model *m; (m = first_model(x));)
            xrt_unload(accel, m);
    }
    xn_xrt_card_put(x->card);
    pthread_mutex_destroy(&x->load_lock);
    free(x);
}

const struct xn_accel_backend xn_accel_xrt = {
    .kind = "xrt",
    .probe = xrt_probe,
    .open = xrt_open,
    .load = xrt_load,
    .unload = xrt_unload,
    .submit = xrt_submit,
    .wait = xrt_wait,
    .poll = xrt_poll,
    .reset = xrt_reset,
    .close = xrt_close,
    .cost = xrt_cost,
};
