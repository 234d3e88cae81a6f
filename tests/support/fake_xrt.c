/* SPDX-License-Identifier: Apache-2.0
 * See fake_xrt.h. */
#include "tests/support/fake_xrt.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hls/include/xnor_sim.h"

#define ARGUMENTS 8u
enum { PROGRAM, STREAM, INPUT, OUTPUT, IMAGES, INPUT_BYTES, OUTPUT_WORDS, STATUS };

struct xn_xrt_device {
    uint32_t serial; /* what is made of one opening is of no use to another */
};
struct xn_xrt_unit {
    uint32_t serial, index;
    pthread_mutex_t lock; /* one run after another, as hardware has it */
    struct xn_sim *sim;
};
struct xn_xrt_buffer {
    uint32_t serial, argument;
    uint64_t bytes;
    uint8_t *host, *card;
};
struct xn_xrt_run {
    struct xn_xrt_unit *unit;
    struct xn_xrt_buffer *buffers[ARGUMENTS];
    uint32_t scalars[ARGUMENTS];
    enum xn_xrt_state state;
    bool looked_at; /* never done at the first look */
};

static struct fake_xrt *fake;
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER; /* guards *fake */
static const struct xn_isa_geometry small = {
    .p = 4, .pi = 2, .pr = 2, .am_rows = 16384, .rm_rows = 16384, .wb_words = 1024};

static int say(struct xn_xrt_why *why, int code, const char *text)
{
    snprintf(why->text, sizeof(why->text), "%s", text);
    return code;
}

/** Counts down; true when it strikes. */
static bool strikes(uint32_t *count)
{
    pthread_mutex_lock(&fake_lock);
    const bool now = *count > 0 && --*count == 0;
    pthread_mutex_unlock(&fake_lock);
    return now;
}

static const struct xn_isa_geometry *geometry(void)
{
    return fake->geometry.p ? &fake->geometry : &small;
}

static int fake_image(const char *path, const char *kernel, struct xn_xrt_image *ret_image, struct xn_xrt_why *why)
{
    memset(ret_image, 0, sizeof(*ret_image));
    if (strcmp(path, "fake.xclbin") != 0)
        return say(why, strcmp(path, "missing.xclbin") == 0 ? -ENOENT : -EINVAL, "not a file of the fake");
    snprintf(ret_image->uuid, sizeof(ret_image->uuid), "fake");
    ret_image->n_units = fake->units ? fake->units : 1;
    for (uint32_t i = 0; i < ret_image->n_units; i++)
        snprintf(ret_image->units[i], sizeof(ret_image->units[i]), "%s_%u", kernel, i + 1);
    return 0;
}

static int fake_count(uint32_t *ret_n, struct xn_xrt_why *why)
{
    (void)why;
    *ret_n = fake->cards ? fake->cards : 1;
    return 0;
}

static int fake_open(const char *device, struct xn_xrt_device **ret_device, struct xn_xrt_why *why)
{
    pthread_mutex_lock(&fake_lock);
    const bool fails = fake->open_fails > 0;
    fake->open_fails -= fails;
    fake->opened += !fails;
    pthread_mutex_unlock(&fake_lock);
    if (fails || strtoul(device, NULL, 0) >= (fake->cards ? fake->cards : 1))
        return say(why, -ENODEV, "no such card");
    *ret_device = calloc(1, sizeof(**ret_device));
    if (!*ret_device)
        return say(why, -ENOMEM, "no memory");
    (*ret_device)->serial = fake->opened;
    return 0;
}

static void fake_close(struct xn_xrt_device *device)
{
    free(device);
}

static void fake_info(struct xn_xrt_device *device, struct xn_xrt_device_info *ret_info)
{
    (void)device;
    *ret_info = (struct xn_xrt_device_info){.name = "fake", .clock_hz = 300000000};
    if (!fake->is_embedded)
        snprintf(ret_info->address, sizeof(ret_info->address), "0000:01:00.1");
}

static int fake_load(struct xn_xrt_device *device, const char *path, struct xn_xrt_why *why)
{
    (void)device;
    (void)path;
    (void)why;
    return 0;
}

static int fake_loaded(struct xn_xrt_device *device, char ret_uuid[XN_XRT_UUID_BYTES], struct xn_xrt_why *why)
{
    (void)device;
    (void)why;
    snprintf(ret_uuid, XN_XRT_UUID_BYTES, "%s", fake->loaded ? fake->loaded : "fake");
    return 0;
}

static int fake_reset(struct xn_xrt_device *device, struct xn_xrt_why *why)
{
    (void)device;
    pthread_mutex_lock(&fake_lock);
    fake->resets++;
    pthread_mutex_unlock(&fake_lock);
    return fake->reset_fails ? say(why, -EIO, "it does not reset") : 0;
}

static int fake_unit_open(struct xn_xrt_device *device, const char *kernel, const char *unit,
                          struct xn_xrt_unit **ret_unit, struct xn_xrt_why *why)
{
    const char *reason = "no memory";
    struct xn_xrt_unit *u = calloc(1, sizeof(*u));

    if (fake->busy_units || strncmp(unit, kernel, strlen(kernel)) != 0) {
        free(u);
        return say(why, fake->busy_units ? -EBUSY : -EINVAL, "held by another process");
    }
    if (u)
        u->sim = xn_sim_open(geometry(), &reason);
    if (!u || !u->sim) {
        free(u);
        return say(why, -ENOMEM, reason);
    }
    pthread_mutex_init(&u->lock, NULL);
    u->serial = device->serial;
    u->index = (uint32_t)strtoul(strrchr(unit, '_') + 1, NULL, 10) - 1;
    *ret_unit = u;
    return 0;
}

static int fake_unit_bank(struct xn_xrt_unit *unit, uint32_t argument, uint32_t *ret_bank, struct xn_xrt_why *why)
{
    (void)argument;
    (void)why;
    *ret_bank = unit->index % (fake->banks ? fake->banks : 1);
    return 0;
}

static void fake_unit_close(struct xn_xrt_unit *unit)
{
    xn_sim_close(unit->sim);
    pthread_mutex_destroy(&unit->lock);
    free(unit);
}

static void fake_buffer_free(struct xn_xrt_buffer *buffer)
{
    pthread_mutex_lock(&fake_lock);
    fake->memory_used -= buffer->bytes;
    fake->buffers--;
    pthread_mutex_unlock(&fake_lock);
    free(buffer->host);
    free(buffer->card);
    free(buffer);
}

static int fake_buffer_new(struct xn_xrt_unit *unit, uint32_t argument, uint64_t bytes, int cached,
                           struct xn_xrt_buffer **ret_buffer, void **ret_host, struct xn_xrt_why *why)
{
    struct xn_xrt_buffer *b = calloc(1, sizeof(*b));

    if (b) {
        b->serial = unit->serial;
        b->argument = argument;
        b->bytes = bytes;
        b->host = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        b->card = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    }
    if (!b || !b->host || !b->card)
        abort();
    memset(b->host, 0xa5, bytes);
    memset(b->card, 0x5a, bytes);
    pthread_mutex_lock(&fake_lock);
    fake->memory_used += bytes;
    fake->memory_peak = fake->memory_used > fake->memory_peak ? fake->memory_used : fake->memory_peak;
    fake->buffers++;
    fake->cached += (uint32_t)cached;
    const bool full = fake->memory_bytes && fake->memory_used > fake->memory_bytes;
    pthread_mutex_unlock(&fake_lock);
    if (full) {
        fake_buffer_free(b);
        return say(why, -ENOMEM, "the card is full");
    }
    *ret_buffer = b;
    *ret_host = b->host;
    return 0;
}

static int fake_buffer_sync(struct xn_xrt_buffer *buffer, int to_device, uint64_t bytes, struct xn_xrt_why *why)
{
    if (bytes > buffer->bytes)
        return say(why, -EINVAL, "beyond the buffer");
    pthread_mutex_lock(&fake_lock);
    if (to_device && (buffer->argument == PROGRAM || buffer->argument == STREAM))
        fake->weight_bytes += bytes;
    pthread_mutex_unlock(&fake_lock);
    memcpy(to_device ? buffer->card : buffer->host, to_device ? buffer->host : buffer->card, bytes);
    return 0;
}

static int fake_run_new(struct xn_xrt_unit *unit, struct xn_xrt_run **ret_run, struct xn_xrt_why *why)
{
    *ret_run = calloc(1, sizeof(**ret_run));
    if (!*ret_run)
        return say(why, -ENOMEM, "no memory");
    (*ret_run)->unit = unit;
    return 0;
}

static void fake_run_free(struct xn_xrt_run *run)
{
    free(run);
}

static int fake_run_buffer(struct xn_xrt_run *run, uint32_t argument, struct xn_xrt_buffer *buffer,
                           struct xn_xrt_why *why)
{
    if (buffer->serial != run->unit->serial)
        return say(why, -EINVAL, "a buffer of a device that was given up");
    run->buffers[argument] = buffer;
    return 0;
}

static int fake_run_scalar(struct xn_xrt_run *run, uint32_t argument, uint32_t value, struct xn_xrt_why *why)
{
    (void)why;
    run->scalars[argument] = value;
    return 0;
}

static void compute(struct xn_xrt_run *run)
{
    struct xn_xrt_buffer *const *b = run->buffers;
    struct xn_isa_status *status = (struct xn_isa_status *)(void *)b[STATUS]->card;
    const struct xn_sim_job job = {.program = (const struct xn_isa_descriptor *)(const void *)b[PROGRAM]->card,
                                   .program_count = b[PROGRAM]->bytes / sizeof(struct xn_isa_descriptor),
                                   .stream = b[STREAM]->card,
                                   .stream_bytes = b[STREAM]->bytes,
                                   .input = b[INPUT]->card,
                                   .input_bytes = run->scalars[INPUT_BYTES],
                                   .images = run->scalars[IMAGES],
                                   .output_words = run->scalars[OUTPUT_WORDS],
                                   .output = (int32_t *)(void *)b[OUTPUT]->card};
    struct xn_isa_status got;

    pthread_mutex_lock(&run->unit->lock);
    const int r = xn_sim_run(run->unit->sim, &job, &got);
    pthread_mutex_unlock(&run->unit->lock);
    if (r < 0)
        abort(); /* a compiled program leaves its memory */
    if (fake->version)
        got.version = fake->version;
    if (strikes(&fake->wrong_at))
        got.error = XN_ISA_ERROR_SOURCE;
    *status = got;
}

static int fake_run_start(struct xn_xrt_run *run, struct xn_xrt_why *why)
{
    (void)why;
    pthread_mutex_lock(&fake_lock);
    fake->runs++;
    pthread_mutex_unlock(&fake_lock);
    run->state = XN_XRT_DONE;
    run->looked_at = false;
    if (strikes(&fake->hang_at))
        run->state = XN_XRT_RUNNING;
    else if (strikes(&fake->fail_at))
        run->state = XN_XRT_FAILED;
    else if (!strikes(&fake->silent_at))
        compute(run);
    return 0;
}

static int fake_run_wait(struct xn_xrt_run *run, uint32_t ms, enum xn_xrt_state *ret_state, struct xn_xrt_why *why)
{
    (void)why;
    if (run->state == XN_XRT_RUNNING)
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
    *ret_state = run->looked_at ? run->state : XN_XRT_RUNNING;
    run->looked_at = true;
    return 0;
}

const struct xn_xrt_api *fake_xrt_api(struct fake_xrt *state)
{
    static const struct xn_xrt_api table = {
        .version = XN_XRT_API_VERSION,
        .image = fake_image,
        .count = fake_count,
        .open = fake_open,
        .close = fake_close,
        .info = fake_info,
        .load = fake_load,
        .loaded = fake_loaded,
        .reset = fake_reset,
        .unit_open = fake_unit_open,
        .unit_close = fake_unit_close,
        .unit_bank = fake_unit_bank,
        .buffer_new = fake_buffer_new,
        .buffer_free = fake_buffer_free,
        .buffer_sync = fake_buffer_sync,
        .run_new = fake_run_new,
        .run_free = fake_run_free,
        .run_buffer = fake_run_buffer,
        .run_scalar = fake_run_scalar,
        .run_start = fake_run_start,
        .run_wait = fake_run_wait,
    };
    fake = state;
    return &table;
}
