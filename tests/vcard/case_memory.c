/* SPDX-License-Identifier: Apache-2.0
 * Buffers: ranges, banks, too much. The card has 64 MiB in two banks and two units. */
#include <string.h>

#include "accel/vcard/protocol.h"
#include "tests/vcard/bed.h"

#define MIB (UINT64_C(1) << 20)

static void check_ranges(const struct bed_device *device, xrtMemoryGroup bank)
{
    const size_t n = 4 * 4096, at = 4096 + 16, part = 200;
    xrtBufferHandle buffer = xrtBOAlloc(device->handle, n, XRT_BO_FLAGS_NONE, bank);
    CHECK(buffer, "bank %u", bank);
    uint8_t *host = xrtBOMap(buffer);

    memset(host, 0xaa, n);
    CHECK(xrtBOSync(buffer, XCL_BO_SYNC_BO_TO_DEVICE, n, 0) == 0, "all");
    memset(host, 0xbb, n);
    CHECK(xrtBOSync(buffer, XCL_BO_SYNC_BO_TO_DEVICE, part, at) == 0, "a part");
    memset(host, 0, n);
    CHECK(xrtBOSync(buffer, XCL_BO_SYNC_BO_FROM_DEVICE, n, 0) == 0, "back");
    for (size_t i = 0; i < n; i++)
        CHECK(host[i] == (i >= at && i < at + part ? 0xbb : 0xaa), "byte %zu is %x", i, host[i]);
    CHECK(xrtBOSync(buffer, XCL_BO_SYNC_BO_TO_DEVICE, n, 1) != 0, "beyond the end");
    CHECK(xrtBOSync(buffer, XCL_BO_SYNC_BO_TO_DEVICE, 1, SIZE_MAX) != 0, "overflow");
    xrtBOFree(buffer);
}

/** Fill a bank; what is freed can be had again. */
static void check_full(const struct bed_device *device, xrtMemoryGroup bank, xrtMemoryGroup other)
{
    xrtBufferHandle buffers[8] = {NULL};
    unsigned n = 0;

    while (n < 8 && (buffers[n] = xrtBOAlloc(device->handle, 8 * MIB, XRT_BO_FLAGS_NONE, bank)) != NULL)
        n++;
    CHECK(n == 4, "%u buffers of 8 MiB fit into 32 MiB", n);
    CHECK(!xrtBOAlloc(device->handle, 40 * MIB, XRT_BO_FLAGS_NONE, other), "more than a bank");
    xrtBufferHandle elsewhere = xrtBOAlloc(device->handle, 8 * MIB, XRT_BO_FLAGS_NONE, other);
    CHECK(elsewhere, "the other bank is free");
    xrtBOFree(elsewhere);
    xrtBOFree(buffers[1]);
    buffers[1] = xrtBOAlloc(device->handle, 8 * MIB, XRT_BO_FLAGS_NONE, bank);
    CHECK(buffers[1], "freed memory");
    for (unsigned i = 0; i < n; i++)
        xrtBOFree(buffers[i]);
}

int case_memory(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit units[2] = {bed_unit_open(&device, 0, 0, 0, 0, 0), bed_unit_open(&device, 1, 0, 0, 0, 0)};
    const uint64_t bank_bytes = 32 * MIB;

    (void)argc, (void)argv;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t address = xrtBOAddress(units[i].stream.handle);
        CHECK(address % 4096 == 0, "alignment");
        CHECK(xrtKernelArgGroupId(units[i].kernel, ARG_INPUT) == (int)i, "bank of unit %u", i);
        CHECK((address - XN_VCARD_MEMORY_BASE) / bank_bytes == i, "address %llx", (unsigned long long)address);
        check_ranges(&device, i);
        bed_unit_close(&units[i]);
    }
    CHECK(!xrtBOAlloc(device.handle, MIB, XRT_BO_FLAGS_NONE, 2), "a bank that is not there");
    check_full(&device, 0, 1);
    check_full(&device, 1, 0);
    bed_close(&device);
    return 0;
}
