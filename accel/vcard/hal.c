/* SPDX-License-Identifier: Apache-2.0
 * The HAL of the virtual card: XRT's driver interface (xcl*, <xrt.h>) as $XILINX_XRT/lib/libxrt_core.so.2, so that the real
 * libxrt_coreutil takes the code path that it takes with hardware. This file has devices: opening, xclbins, contexts, registers,
 * reset. hal_memory.c has buffers, hal_exec.c commands, hal_link.c the connection to the card's process, glue.cpp XRT's own objects.
 *
 * An open device is a connection to a card. XRT opens one for each of its device objects, and closes it with the last handle of that. A card that is not there,
 * or no more, does not open; xclProbe counts those that there should be, as a driver counts a card that is in reset. */
#include "accel/vcard/hal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xclbin.h>
#include <xrt.h>

#include "hls/include/xnor_isa.h"

#define DEVICE_MAGIC 0x586c0c6cu /* what XRT has in struct xclDeviceInfo2 */

/* Declared without parameters by XRT, or not at all. */
unsigned xclProbe(void);
unsigned xclVersion(void);
int xclRegRead(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t *ret_value);
int xclRegWrite(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t value);
int xclP2pEnable(xclDeviceHandle handle, bool enable, bool force);

unsigned xclProbe(void)
{
    const char *text = getenv(XN_VCARD_ENV_CARDS);
    const unsigned long n = text && getenv(XN_VCARD_ENV_FOLDER) ? strtoul(text, NULL, 10) : 0;

    return n > XN_VCARD_CARDS_MAX ? XN_VCARD_CARDS_MAX : (unsigned)n;
}

unsigned xclVersion(void)
{
    return 2;
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

/* Devices are never freed: at exit XRT frees buffers of devices that it has closed before. A closed one has no buffers and is dead, so that
 * such calls find nothing. Slots are taken in turn, so that a slot is not another device's at once. */
static struct xn_hal_device devices[XN_HAL_DEVICES_MAX];
static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;

static struct xn_hal_device *device_new(unsigned index)
{
    static unsigned next;
    struct xn_hal_device *device = NULL;

    pthread_mutex_lock(&devices_lock);
    for (unsigned i = 0; !device && i < XN_HAL_DEVICES_MAX; i++) {
        struct xn_hal_device *slot = &devices[next++ % XN_HAL_DEVICES_MAX];
        device = slot->is_taken ? NULL : slot;
    }
    if (device) {
        if (!device->was_used) {
            pthread_mutex_init(&device->lock, NULL);
            pthread_cond_init(&device->answered, NULL);
            pthread_cond_init(&device->completed, NULL);
        }
        device->is_taken = device->was_used = true;
    }
    pthread_mutex_unlock(&devices_lock);
    if (!device)
        return NULL;
    pthread_mutex_lock(&device->lock);
    device->index = index;
    device->next_tag = 1;
    device->is_dead = false;
    device->completions = 0;
    device->n_units = 0;
    memset(device->units, 0, sizeof(device->units));
    pthread_mutex_unlock(&device->lock);
    return device;
}

static void device_free(struct xn_hal_device *device)
{
    pthread_mutex_lock(&device->lock);
    device->is_dead = true;
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_lock(&devices_lock);
    device->is_taken = false;
    pthread_mutex_unlock(&devices_lock);
}

xclDeviceHandle xclOpen(unsigned index, const char *unused, enum xclVerbosityLevel verbosity)
{
    const char *folder = getenv(XN_VCARD_ENV_FOLDER);
    char path[128];

    (void)unused, (void)verbosity;
    if (index >= xclProbe() || snprintf(path, sizeof(path), "%s/card-%u", folder, index) >= (int)sizeof(path)) {
        errno = ENODEV;
        return NULL;
    }
    struct xn_hal_device *device = device_new(index);
    if (!device)
        return NULL;
    const int r = xn_hal_link_open(device, path);
    if (r < 0) {
        device_free(device);
        errno = -r;
        return NULL;
    }
    device->core = xn_hal_core_new(device, index);
    if (!device->core) {
        xclClose(device);
        errno = ENOMEM;
        return NULL;
    }
    return device;
}

void xclClose(xclDeviceHandle handle)
{
    struct xn_hal_device *device = handle;

    if (!device || !device->is_taken)
        return;
    xn_hal_link_close(device);
    xn_hal_free_buffers(device);
    xn_hal_core_free(device->core);
    device_free(device);
}

int xclGetDeviceInfo2(xclDeviceHandle handle, struct xclDeviceInfo2 *info)
{
    const struct xn_hal_device *device = handle;

    *info = (struct xclDeviceInfo2){.mMagic = DEVICE_MAGIC,
                                    .mName = XN_VCARD_PLATFORM,
                                    .mVendorId = 0x10ee,
                                    .mHALMajorVersion = 2,
                                    .mDDRSize = device->hello.memory_bytes,
                                    .mDDRFreeSize = device->hello.memory_bytes,
                                    .mDDRBankCount = (unsigned short)device->hello.banks,
                                    .mDataAlignment = XN_VCARD_PAGE,
                                    .mMinTransferSize = 1,
                                    .mNumClocks = 1,
                                    .mOCLFrequency = {(unsigned short)device->hello.clock_mhz}};
    return 0;
}

/* ---- xclbins ------------------------------------------------------------------------------------------------------- */

static int memory_file(const void *bytes, size_t n)
{
    const int file = memfd_create("xclbin", MFD_CLOEXEC);
    size_t done = 0;

    while (file >= 0 && done < n) {
        const ssize_t written = write(file, (const char *)bytes + done, n - done);
        if (written <= 0) {
            close(file);
            return -ENOSPC;
        }
        done += (size_t)written;
    }
    return file < 0 ? -errno : file;
}

/** Compute units that the xclbin, which the card has checked, has. */
static uint32_t count_units(const struct axlf *top)
{
    const struct axlf_section_header *section = top->m_sections;

    for (uint32_t i = 0; i < top->m_header.m_numSections; i++, section++) {
        if (section->m_sectionKind != IP_LAYOUT)
            continue;
        int32_t n;
        memcpy(&n, (const char *)top + section->m_sectionOffset, sizeof(n));
        return (uint32_t)n;
    }
    return 0;
}

int xclLoadXclBin(xclDeviceHandle handle, const struct axlf *top)
{
    struct xn_hal_device *device = handle;

    if (memcmp(top->m_magic, "xclbin2", sizeof(top->m_magic)) != 0 || top->m_header.m_length < sizeof(*top) ||
        top->m_header.m_length > XN_VCARD_XCLBIN_MAX)
        return -EINVAL;
    const int file = memory_file(top, top->m_header.m_length);
    if (file < 0)
        return file;
    int r = xn_hal_ask(device, XN_VCARD_LOAD, top->m_header.m_length, 0, file, NULL);
    close(file);
    if (r < 0)
        return r;
    pthread_mutex_lock(&device->lock);
    device->n_units = XN_MIN(count_units(top), device->hello.units);
    pthread_mutex_unlock(&device->lock);
    return xn_hal_core_register(device->core, top);
}

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

static int enable_interrupts(struct xn_hal_device *device, unsigned unit)
{
    const uint64_t base = XN_VCARD_UNITS + (uint64_t)unit * XN_VCARD_UNIT_BYTES;
    const struct xn_vcard_message writes[] = {{XN_VCARD_WRITE, 0, base + XN_VCARD_REG_GIE, 1},
                                              {XN_VCARD_WRITE, 0, base + XN_VCARD_REG_IER, 1}};

    return xn_hal_send(device, writes, XN_ARRAY_LEN(writes));
}

static void set_open(struct xn_hal_device *device, unsigned unit, bool is_open)
{
    pthread_mutex_lock(&device->lock);
    device->units[unit].is_open = is_open;
    if (!is_open)
        xn_hal_abort_unit_locked(device, &device->units[unit]); /* the card has stopped it */
    pthread_mutex_unlock(&device->lock);
}

/** `is_shared` makes no difference: threads of one process share a unit, processes do not (protocol.h). An index that is no unit is XRT's
 *  context of the device as a whole. */
int xclOpenContext(xclDeviceHandle handle, const xuid_t uuid, unsigned unit, bool is_shared)
{
    struct xn_hal_device *device = handle;

    (void)uuid, (void)is_shared;
    if (unit >= XN_VCARD_UNITS_MAX)
        return 0;
    int r = xn_hal_ask(device, XN_VCARD_OPEN_UNIT, unit, 0, -1, NULL);
    if (r == 0)
        r = enable_interrupts(device, unit);
    if (r == 0)
        set_open(device, unit, true);
    return r;
}

int xclCloseContext(xclDeviceHandle handle, const xuid_t uuid, unsigned unit)
{
    struct xn_hal_device *device = handle;

    (void)uuid;
    if (unit >= XN_VCARD_UNITS_MAX)
        return 0;
    XN_UNUSED const int r = xn_hal_ask(device, XN_VCARD_CLOSE_UNIT, unit, 0, -1, NULL);
    set_open(device, unit, false);
    return 0; /* of a dead card it is closed; and XRT throws in a destructor, which ends the program, where this fails */
}

int xclIPName2Index(xclDeviceHandle handle, const char *name)
{
    const struct xn_hal_device *device = handle;
    const char *digits = strrchr(name, '_');
    const unsigned long n = digits ? strtoul(digits + 1, NULL, 10) : 0;

    return n >= 1 && n <= device->hello.units ? (int)n - 1 : -ENOENT;
}

/* ---- registers ----------------------------------------------------------------------------------------------------- */

static bool is_register(const struct xn_hal_device *device, uint32_t unit, uint32_t offset)
{
    return unit < device->hello.units && offset % 4 == 0 && offset < XN_VCARD_UNIT_BYTES;
}

int xclRegRead(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t *ret_value)
{
    struct xn_hal_device *device = handle;
    uint64_t value = 0;

    if (!is_register(device, unit, offset))
        return -EINVAL;
    const int r =
        xn_hal_ask(device, XN_VCARD_READ, XN_VCARD_UNITS + unit * XN_VCARD_UNIT_BYTES + offset, 0, -1, &value);
    if (r == 0)
        *ret_value = (uint32_t)value;
    return r;
}

int xclRegWrite(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t value)
{
    struct xn_hal_device *device = handle;
    const struct xn_vcard_message message = {XN_VCARD_WRITE, 0, XN_VCARD_UNITS + unit * XN_VCARD_UNIT_BYTES + offset,
                                             value};

    return is_register(device, unit, offset) ? xn_hal_send(device, &message, 1) : -EINVAL;
}

size_t xclRead(xclDeviceHandle handle, enum xclAddressSpace space, uint64_t offset, void *to, size_t bytes)
{
    (void)space;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        uint64_t value = 0;
        if (xn_hal_ask(handle, XN_VCARD_READ, offset + i, 0, -1, &value) < 0)
            return 0;
        const uint32_t word = (uint32_t)value;
        memcpy((char *)to + i, &word, sizeof(word));
    }
    return bytes;
}

size_t xclWrite(xclDeviceHandle handle, enum xclAddressSpace space, uint64_t offset, const void *from, size_t bytes)
{
    (void)space;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        uint32_t word;
        memcpy(&word, (const char *)from + i, sizeof(word));
        const struct xn_vcard_message message = {XN_VCARD_WRITE, 0, offset + i, word};
        if (xn_hal_send(handle, &message, 1) < 0)
            return 0;
    }
    return bytes;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------ */

/** All units stop, every outstanding command of every process completes as aborted. Memory, the xclbin and contexts stay. */
int xn_hal_reset(void *handle)
{
    struct xn_hal_device *device = handle;

    return xn_hal_ask(device, XN_VCARD_RESET, 0, 0, -1, NULL); /* STOPPED comes before the answer: hal_exec.c */
}

unsigned xn_hal_index(const void *handle)
{
    return ((const struct xn_hal_device *)handle)->index;
}

unsigned xn_hal_clock_mhz(const void *handle)
{
    return ((const struct xn_hal_device *)handle)->hello.clock_mhz;
}

int xclResetDevice(xclDeviceHandle handle, enum xclResetKind kind)
{
    (void)kind;
    return xn_hal_reset(handle);
}

int xclReClock2(xclDeviceHandle handle, unsigned short region, const unsigned short *mhz)
{
    (void)handle, (void)region, (void)mhz;
    return -ENOSYS;
}

int xclP2pEnable(xclDeviceHandle handle, bool enable, bool force)
{
    (void)handle, (void)enable, (void)force;
    return -ENOSYS;
}
