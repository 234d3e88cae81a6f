/* SPDX-License-Identifier: Apache-2.0
 * See bed.h. */
#include "tests/vcard/bed.h"

#include <string.h>

#include <ert.h>

#include "accel/vcard/protocol.h"
#include "common/macros.h"

#define WAIT_MS 60000u
/** XRT gives a buffer's bytes to aligned_alloc as they are; sanitizers insist on a multiple of the alignment. */
#define PAGE 4096u

struct bed_device bed_open(unsigned index)
{
    struct bed_device device = {.handle = xrtDeviceOpen(index)};
    const char *xclbin = getenv(XN_VCARD_ENV_XCLBIN);

    CHECK(device.handle, "device %u", index);
    CHECK(xclbin, "no %s: run by xnor-vcard run", XN_VCARD_ENV_XCLBIN);
    const int r = xrtDeviceLoadXclbinFile(device.handle, xclbin);
    CHECK(r == 0, "error %d", r);
    CHECK(xrtDeviceGetXclbinUUID(device.handle, device.uuid) == 0, "no uuid");
    return device;
}

void bed_close(struct bed_device *device)
{
    CHECK(xrtDeviceClose(device->handle) == 0, "close");
}

static struct bed_buffer buffer_new(xrtDeviceHandle device, xrtKernelHandle kernel, int argument, size_t bytes)
{
    struct bed_buffer buffer = {.bytes = xn_align_up(bytes ? bytes : 1, PAGE)};

    buffer.handle =
        xrtBOAlloc(device, buffer.bytes, XRT_BO_FLAGS_NONE, (xrtMemoryGroup)xrtKernelArgGroupId(kernel, argument));
    CHECK(buffer.handle, "%zu bytes for argument %d", bytes, argument);
    buffer.host = xrtBOMap(buffer.handle);
    CHECK(buffer.host, "map");
    return buffer;
}

struct bed_unit bed_unit_open(const struct bed_device *device, unsigned unit, size_t program_bytes, size_t stream_bytes,
                              size_t input_bytes, size_t output_bytes)
{
    char name[64];
    struct bed_unit u = {.device = device->handle};

    snprintf(name, sizeof(name), "xnor_engine:{xnor_engine_%u}", unit + 1);
    u.kernel = xrtPLKernelOpen(device->handle, device->uuid, name);
    CHECK(u.kernel, "%s", name);
    u.program =
        buffer_new(device->handle, u.kernel, ARG_PROGRAM, program_bytes ? program_bytes : XN_ISA_DESCRIPTOR_BYTES);
    u.stream = buffer_new(device->handle, u.kernel, ARG_STREAM, stream_bytes);
    u.input = buffer_new(device->handle, u.kernel, ARG_INPUT, input_bytes);
    u.output = buffer_new(device->handle, u.kernel, ARG_OUTPUT, output_bytes);
    u.status = buffer_new(device->handle, u.kernel, ARG_STATUS, sizeof(struct xn_isa_status));
    u.run = xrtRunOpen(u.kernel);
    CHECK(u.run, "run");
    memset(u.program.host, 0, u.program.bytes);
    bed_to_card(&u.program);
    return u;
}

void bed_unit_close(struct bed_unit *unit)
{
    struct bed_buffer *const buffers[] = {&unit->program, &unit->stream, &unit->input, &unit->output, &unit->status};

    xrtRunClose(unit->run);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        xrtBOFree(buffers[i]->handle);
    xrtKernelClose(unit->kernel);
}

void bed_to_card(const struct bed_buffer *buffer)
{
    const int r = xrtBOSync(buffer->handle, XCL_BO_SYNC_BO_TO_DEVICE, buffer->bytes, 0);

    CHECK(r == 0, "error %d", r);
}

int bed_from_card(const struct bed_buffer *buffer)
{
    return xrtBOSync(buffer->handle, XCL_BO_SYNC_BO_FROM_DEVICE, buffer->bytes, 0);
}

void bed_start(struct bed_unit *unit, uint32_t images, uint32_t input_bytes, uint32_t output_words)
{
    const struct bed_buffer *const buffers[] = {&unit->program, &unit->stream, &unit->input, &unit->output};
    const uint32_t scalars[] = {images, input_bytes, output_words};

    for (int i = 0; i < 4; i++)
        CHECK(xrtRunSetArg(unit->run, ARG_PROGRAM + i, buffers[i]->handle) == 0, "argument %d", i);
    for (int i = 0; i < 3; i++)
        CHECK(xrtRunSetArg(unit->run, ARG_IMAGES + i, scalars[i]) == 0, "argument %d", ARG_IMAGES + i);
    CHECK(xrtRunSetArg(unit->run, ARG_STATUS, unit->status.handle) == 0, "status");
    CHECK(xrtRunStart(unit->run) == 0, "start");
}

int bed_wait(struct bed_unit *unit, unsigned ms)
{
    return (int)xrtRunWaitFor(unit->run, ms);
}

struct xn_isa_status bed_status(struct bed_unit *unit)
{
    struct xn_isa_status status;
    const int r = bed_from_card(&unit->status);

    CHECK(r == 0, "error %d", r);
    memcpy(&status, unit->status.host, sizeof(status));
    return status;
}

void bed_run_end(struct bed_unit *unit)
{
    memset(unit->program.host, 0, XN_ISA_DESCRIPTOR_BYTES);
    memset(unit->status.host, 0xee, sizeof(struct xn_isa_status));
    bed_to_card(&unit->program);
    bed_to_card(&unit->status);
    bed_start(unit, 0, 0, 0);
    const int state = bed_wait(unit, WAIT_MS);
    CHECK(state == ERT_CMD_STATE_COMPLETED, "state %d", state);
    const struct xn_isa_status status = bed_status(unit);
    CHECK(status.error == XN_ISA_OK && status.version == (XN_ISA_MAJOR << 16 | XN_ISA_MINOR), "error %u, version %x",
          status.error, status.version);
    CHECK(status.p >= 1 && status.am_rows >= 1 && status.wb_words >= 1, "geometry P%u AM%u", status.p, status.am_rows);
}
