/* SPDX-License-Identifier: Apache-2.0
 * Buffer objects. As on a card behind PCIe each has memory on the card, which the card shares out among processes, and a copy on the host;
 * synchronising copies between the two, so that a forgotten synchronisation shows. With a link of limited speed (the card's hello) a
 * transfer takes at least its bytes' time: all transfers of this process to a card go through one link, one behind another. */
#include "accel/vcard/hal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xrt.h>
#include <xrt_mem.h>

#define BUFFERS_MAX 65536u
/** Shorter waits are owed: a sleep takes longer than they. */
#define SLEEP_LEAST_NS 50000u
#define NS_PER_S       UINT64_C(1000000000)

struct xn_hal_buffer *xn_hal_buffer_locked(struct xn_hal_device *device, uint32_t handle)
{
    return handle < device->buffers_room ? device->buffers[handle] : NULL;
}

static struct xn_hal_buffer *find(struct xn_hal_device *device, uint32_t handle)
{
    pthread_mutex_lock(&device->lock);
    struct xn_hal_buffer *buffer = xn_hal_buffer_locked(device, handle);
    pthread_mutex_unlock(&device->lock);
    return buffer;
}

/* ---- making and freeing -------------------------------------------------------------------------------------------- */

/** Room for one more in the table. */
static bool grow_locked(struct xn_hal_device *device)
{
    const uint32_t room = device->buffers_room ? 2 * device->buffers_room : 64;
    struct xn_hal_buffer **grown = room > BUFFERS_MAX ? NULL : realloc(device->buffers, room * sizeof(*grown));

    if (!grown)
        return false;
    memset(grown + device->buffers_room, 0, (room - device->buffers_room) * sizeof(*grown));
    device->buffers = grown;
    device->buffers_room = room;
    return true;
}

/** Give `buffer` a handle. False: there is none left. */
static bool publish(struct xn_hal_device *device, struct xn_hal_buffer *buffer)
{
    uint32_t at = 1; /* 0 is no handle to some of XRT */

    pthread_mutex_lock(&device->lock);
    while (at < device->buffers_room && device->buffers[at])
        at++;
    const bool ok = at < device->buffers_room || grow_locked(device);
    if (ok) {
        buffer->handle = at;
        device->buffers[at] = buffer;
    }
    pthread_mutex_unlock(&device->lock);
    return ok;
}

static void destroy(struct xn_hal_device *device, struct xn_hal_buffer *buffer)
{
    if (buffer->address != UINT64_MAX) {
        const struct xn_vcard_message message = {XN_VCARD_FREE, 0, buffer->address, 0};
        XN_UNUSED const int r = xn_hal_send(device, &message, 1); /* of a dead card there is nothing to free */
    }
    if (buffer->owns_host)
        free(buffer->host);
    free(buffer);
}

static int allocate(struct xn_hal_device *device, struct xn_hal_buffer *buffer, void *user)
{
    const size_t room = xn_align_up(buffer->bytes, XN_VCARD_PAGE);

    buffer->host = user;
    if (!user && !(buffer->flags & XCL_BO_FLAGS_DEV_ONLY)) {
        buffer->host = aligned_alloc(XN_VCARD_PAGE, room);
        if (!buffer->host)
            return -ENOMEM;
        memset(buffer->host, 0, room);
        buffer->owns_host = true;
    }
    if (buffer->is_command)
        return 0;
    return xn_hal_ask(device, XN_VCARD_ALLOCATE, room, buffer->flags & XRT_BO_FLAGS_MEMIDX_MASK, -1, &buffer->address);
}

static xclBufferHandle new_buffer(struct xn_hal_device *device, void *user, size_t bytes, unsigned flags)
{
    if (bytes == 0 || bytes > device->hello.memory_bytes || flags & (XCL_BO_FLAGS_HOST_ONLY | XCL_BO_FLAGS_P2P)) {
        errno = EINVAL;
        return NULLBO;
    }
    struct xn_hal_buffer *buffer = calloc(1, sizeof(*buffer));
    if (!buffer)
        return NULLBO;
    *buffer = (struct xn_hal_buffer){
        .flags = flags, .bytes = bytes, .address = UINT64_MAX, .is_command = flags & XCL_BO_FLAGS_EXECBUF};
    int r = allocate(device, buffer, user);
    if (r < 0)
        buffer->address = UINT64_MAX;
    else if (!publish(device, buffer))
        r = -ENOMEM;
    if (r == 0)
        return buffer->handle;
    destroy(device, buffer);
    errno = -r;
    return NULLBO;
}

xclBufferHandle xclAllocBO(xclDeviceHandle handle, size_t bytes, int unused, unsigned flags)
{
    (void)unused;
    return new_buffer(handle, NULL, bytes, flags);
}

xclBufferHandle xclAllocUserPtrBO(xclDeviceHandle handle, void *user, size_t bytes, unsigned flags)
{
    return new_buffer(handle, user, bytes, flags);
}

void xclFreeBO(xclDeviceHandle handle, xclBufferHandle bo)
{
    struct xn_hal_device *device = handle;

    pthread_mutex_lock(&device->lock);
    struct xn_hal_buffer *buffer = xn_hal_buffer_locked(device, bo);
    if (buffer) {
        device->buffers[bo] = NULL;
        xn_hal_forget_command_locked(device, buffer);
    }
    pthread_mutex_unlock(&device->lock);
    if (buffer)
        destroy(device, buffer);
}

void xn_hal_free_buffers(struct xn_hal_device *device)
{
    for (uint32_t i = 0; i < device->buffers_room; i++)
        if (device->buffers[i])
            destroy(device, device->buffers[i]);
    free(device->buffers);
    pthread_mutex_lock(&device->lock);
    device->buffers = NULL;
    device->buffers_room = 0;
    pthread_mutex_unlock(&device->lock);
}

/* ---- looking and copying ------------------------------------------------------------------------------------------- */

void *xclMapBO(xclDeviceHandle handle, xclBufferHandle bo, bool write)
{
    const struct xn_hal_buffer *buffer = find(handle, bo);

    (void)write;
    return buffer ? buffer->host : NULL;
}

int xclUnmapBO(xclDeviceHandle handle, xclBufferHandle bo, void *address)
{
    (void)handle, (void)bo, (void)address;
    return 0;
}

int xclGetBOProperties(xclDeviceHandle handle, xclBufferHandle bo, struct xclBOProperties *properties)
{
    const struct xn_hal_buffer *buffer = find(handle, bo);

    if (!buffer)
        return -EINVAL;
    *properties =
        (struct xclBOProperties){.handle = bo, .flags = buffer->flags, .size = buffer->bytes, .paddr = buffer->address};
    return 0;
}

static bool is_inside(const struct xn_hal_buffer *buffer, size_t bytes, size_t offset)
{
    return buffer && offset <= buffer->bytes && bytes <= buffer->bytes - offset;
}

/** Where the card has byte `offset` of a buffer. */
static uint8_t *card_side(struct xn_hal_device *device, const struct xn_hal_buffer *buffer, size_t offset)
{
    return device->memory + (buffer->address - XN_VCARD_MEMORY_BASE) + offset;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/** Until the link has carried `bytes` more. */
static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t
    link_free_ns[XN_VCARD_CARDS_MAX]; /* under links_lock: when the transfers so far are through a card's link */

static void wait_for_link(const struct xn_hal_device *device, size_t bytes)
{
    if (!device->hello.link_bytes_s)
        return;
    const uint64_t now = now_ns(), takes = (uint64_t)((double)bytes * 1e9 / (double)device->hello.link_bytes_s);
    pthread_mutex_lock(&links_lock);
    link_free_ns[device->index] = XN_MAX(link_free_ns[device->index], now) + takes;
    const uint64_t until = link_free_ns[device->index];
    pthread_mutex_unlock(&links_lock);
    const struct timespec t = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    while (until > now_ns() + SLEEP_LEAST_NS && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static bool is_dead(struct xn_hal_device *device)
{
    pthread_mutex_lock(&device->lock);
    const bool dead = device->is_dead;
    pthread_mutex_unlock(&device->lock);
    return dead;
}

int xclSyncBO(xclDeviceHandle handle, xclBufferHandle bo, enum xclBOSyncDirection direction, size_t bytes,
              size_t offset)
{
    struct xn_hal_device *device = handle;
    const struct xn_hal_buffer *buffer = find(device, bo);

    if (is_dead(device))
        return -EIO;
    if (!is_inside(buffer, bytes, offset) || !buffer->host || buffer->is_command)
        return -EINVAL;
    uint8_t *host = (uint8_t *)buffer->host + offset, *card = card_side(device, buffer, offset);
    if (direction == XCL_BO_SYNC_BO_TO_DEVICE)
        memcpy(card, host, bytes);
    else if (direction == XCL_BO_SYNC_BO_FROM_DEVICE)
        memcpy(host, card, bytes);
    else
        return -EINVAL;
    wait_for_link(device, bytes);
    return is_dead(device) ? -EIO : 0;
}

int xclCopyBO(xclDeviceHandle handle, xclBufferHandle to_bo, xclBufferHandle from_bo, size_t bytes, size_t to_offset,
              size_t from_offset)
{
    struct xn_hal_device *device = handle;
    const struct xn_hal_buffer *to = find(device, to_bo), *from = find(device, from_bo);

    if (is_dead(device))
        return -EIO;
    if (!is_inside(to, bytes, to_offset) || !is_inside(from, bytes, from_offset) || to->is_command || from->is_command)
        return -EINVAL;
    memmove(card_side(device, to, to_offset), card_side(device, from, from_offset), bytes);
    return 0;
}

size_t xclWriteBO(xclDeviceHandle handle, xclBufferHandle bo, const void *from, size_t bytes, size_t offset)
{
    const struct xn_hal_buffer *buffer = find(handle, bo);

    if (!is_inside(buffer, bytes, offset) || !buffer->host)
        return EINVAL; /* as XRT's own: 0 is success */
    memcpy((uint8_t *)buffer->host + offset, from, bytes);
    return 0;
}

size_t xclReadBO(xclDeviceHandle handle, xclBufferHandle bo, void *to, size_t bytes, size_t offset)
{
    const struct xn_hal_buffer *buffer = find(handle, bo);

    if (!is_inside(buffer, bytes, offset) || !buffer->host)
        return EINVAL;
    memcpy(to, (const uint8_t *)buffer->host + offset, bytes);
    return 0;
}

xclBufferExportHandle xclExportBO(xclDeviceHandle handle, xclBufferHandle bo)
{
    (void)handle, (void)bo;
    return NULLBOEXPORT;
}

xclBufferHandle xclImportBO(xclDeviceHandle handle, xclBufferExportHandle from, unsigned flags)
{
    (void)handle, (void)from, (void)flags;
    return NULLBO;
}

ssize_t xclUnmgdPread(xclDeviceHandle handle, unsigned flags, void *to, size_t bytes, uint64_t address)
{
    struct xn_hal_device *device = handle;
    const uint64_t offset = address - XN_VCARD_MEMORY_BASE;

    (void)flags;
    if (offset > device->hello.memory_bytes || bytes > device->hello.memory_bytes - offset)
        return -EINVAL;
    memcpy(to, device->memory + offset, bytes);
    return 0;
}

ssize_t xclUnmgdPwrite(xclDeviceHandle handle, unsigned flags, const void *from, size_t bytes, uint64_t address)
{
    struct xn_hal_device *device = handle;
    const uint64_t offset = address - XN_VCARD_MEMORY_BASE;

    (void)flags;
    if (offset > device->hello.memory_bytes || bytes > device->hello.memory_bytes - offset)
        return -EINVAL;
    memcpy(device->memory + offset, from, bytes);
    return 0;
}
