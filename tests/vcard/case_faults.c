/* SPDX-License-Identifier: Apache-2.0
 * What goes wrong: runs that never end, cards that die, xclbins that are none, addresses outside of memory, a unit of another process. */
#include <dirent.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ert.h>

#include "accel/vcard/protocol.h"
#include "tests/vcard/bed.h"

#define SHORT_MS 300u
#define LONG_MS  60000u

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/** Opened again, the card works. */
static void check_new(void)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    bed_run_end(&unit);
    bed_unit_close(&unit);
    bed_close(&device);
}

/** hang, --fault hang@2: the second run times out; closing everything ends it, and the card is as new. */
int case_hang(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    bed_run_end(&unit);
    bed_start(&unit, 0, 0, 0);
    CHECK(bed_wait(&unit, SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "it ended");
    CHECK(bed_wait(&unit, SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "it ended late");
    bed_unit_close(&unit);
    bed_close(&device);
    check_new();
    return 0;
}

/** lost, --fault lost@1: the run is done, status and all, and nobody hears of it. */
int case_lost(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    memset(unit.status.host, 0xee, sizeof(struct xn_isa_status));
    bed_to_card(&unit.status);
    bed_start(&unit, 0, 0, 0);
    CHECK(bed_wait(&unit, SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "an interrupt came");
    CHECK(bed_status(&unit).error == XN_ISA_OK, "no status");
    bed_unit_close(&unit);
    bed_close(&device);
    return 0;
}

/** crash, --fault crash@2: the second run aborts, all after it fails, and a later opening finds a new card. */
int case_crash(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    bed_run_end(&unit);
    bed_start(&unit, 0, 0, 0);
    CHECK(bed_wait(&unit, LONG_MS) == ERT_CMD_STATE_ABORT, "it did not abort");
    CHECK(bed_from_card(&unit.status) != 0, "a dead card answers");
    CHECK(xrtRunStart(unit.run) != 0, "a dead card runs");
    CHECK(!xrtBOAlloc(device.handle, 4096, XRT_BO_FLAGS_NONE, 0), "a dead card has memory");
    bed_unit_close(&unit);
    bed_close(&device);
    for (unsigned i = 0;; i++) {
        CHECK(i < 1000, "the card did not come back");
        device.handle = xrtDeviceOpen(0);
        if (device.handle)
            break;
        sleep_ms(20);
    }
    bed_close(&device);
    check_new();
    return 0;
}

static unsigned open_files(void)
{
    unsigned n = 0;
    DIR *folder = opendir("/proc/self/fd");

    CHECK(folder, "/proc/self/fd");
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static long resident_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;

    CHECK(f && fscanf(f, "%ld %ld", &size, &resident) == 2, "/proc/self/statm");
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/** reopen TIMES: files and memory stay as they are, also where a hung run is left behind (--fault hang@N). */
int case_reopen(int argc, char **argv)
{
    const unsigned times = argc > 0 ? (unsigned)atoi(argv[0]) : 100;
    unsigned files = 0;
    long kib = 0;

    for (unsigned i = 0; i < times; i++) {
        struct bed_device device = bed_open(0);
        struct bed_unit unit = bed_unit_open(&device, 0, 0, 1 << 20, 1 << 20, 4096);
        bed_to_card(&unit.stream);
        bed_start(&unit, 0, 0, 0);
        const int state = bed_wait(&unit, SHORT_MS);
        CHECK(state == ERT_CMD_STATE_COMPLETED || state == ERT_CMD_STATE_TIMEOUT, "state %d", state);
        bed_unit_close(&unit);
        bed_close(&device);
        if (i == times / 4) {
            files = open_files();
            kib = resident_kib();
        }
    }
    printf("# files %u, then %u; memory %ld KiB, then %ld\n", files, open_files(), kib, resident_kib());
    CHECK(open_files() == files, "files");
    return 0;
}

/** bus-hang, --bus-error hang: a run whose program is nowhere hangs; closing ends it. */
int case_bus_hang(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    ((struct xn_isa_descriptor *)unit.program.host)[0].op = XN_ISA_INPUT;
    bed_to_card(&unit.program);
    bed_start(&unit, UINT32_MAX, UINT32_MAX, 0);
    CHECK(bed_wait(&unit, SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "it ended");
    bed_unit_close(&unit);
    bed_close(&device);
    check_new();
    return 0;
}

/** corrupt, --fault corrupt@1: the run ends, and its status says that it is wrong. */
int case_corrupt(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    bed_start(&unit, 0, 0, 0);
    CHECK(bed_wait(&unit, LONG_MS) == ERT_CMD_STATE_COMPLETED, "it did not end");
    CHECK(bed_status(&unit).error == XN_VCARD_ERROR_PARITY, "error %u", bed_status(&unit).error);
    bed_unit_close(&unit);
    bed_close(&device);
    return 0;
}

static int load(xrtDeviceHandle device, const uint8_t *bytes)
{
    return xrtDeviceLoadXclbin(device, (const struct axlf *)(const void *)bytes);
}

/** xclbin OTHER: damaged ones, and OTHER, which is of another engine, do not load; then the right one does. */
int case_xclbin(int argc, char **argv)
{
    xrtDeviceHandle device = xrtDeviceOpen(0);
    FILE *f = fopen(getenv(XN_VCARD_ENV_XCLBIN), "rb");
    static uint8_t bytes[65536], damaged[65536];
    const size_t n = f ? fread(bytes, 1, sizeof(bytes), f) : 0;

    CHECK(device && n > 512 && n < sizeof(bytes) && argc == 1, "%zu bytes", n);
    fclose(f);
    for (size_t at = n - 1; at > 600; at -= 97) { /* behind what XRT itself follows: header and section table */
        memcpy(damaged, bytes, n);
        damaged[at] ^= 0x20;
        if (at > n / 2) /* not the sizes that XRT reads before it asks the driver */
            CHECK(load(device, damaged) != 0, "byte %zu damaged", at);
    }
    memcpy(damaged, bytes, n);
    damaged[0] = 'X';
    CHECK(load(device, damaged) != 0, "no magic");
    CHECK(xrtDeviceLoadXclbinFile(device, argv[0]) != 0, "%s", argv[0]);
    CHECK(xrtDeviceLoadXclbinFile(device, "/nonexistent") != 0, "no file");
    CHECK(load(device, bytes) == 0, "the right one");
    xrtDeviceClose(device);
    struct bed_device opened = bed_open(0);
    struct bed_unit unit = bed_unit_open(&opened, 0, 0, 0, 0, 0);
    bed_run_end(&unit);
    bed_unit_close(&unit);
    bed_close(&opened);
    return 0;
}

/** refuse, --fault refuse@1 */
int case_refuse(int argc, char **argv)
{
    xrtDeviceHandle device = xrtDeviceOpen(0);

    (void)argc, (void)argv;
    CHECK(device, "device");
    CHECK(xrtDeviceLoadXclbinFile(device, getenv(XN_VCARD_ENV_XCLBIN)) != 0, "loaded");
    xrtDeviceClose(device);
    return 0;
}

/** taken: the first unit is another process's. */
int case_taken(int argc, char **argv)
{
    struct bed_device device = bed_open(0);

    (void)argc, (void)argv;
    CHECK(!xrtPLKernelOpen(device.handle, device.uuid, "xnor_engine:{xnor_engine_1}"), "it opened");
    struct bed_unit unit = bed_unit_open(&device, 1, 0, 0, 0, 0);
    bed_run_end(&unit);
    bed_unit_close(&unit);
    bed_close(&device);
    return 0;
}

static int run_self(const char *name)
{
    const pid_t child = fork();

    if (child == 0) {
        execl("/proc/self/exe", "card_test", name, (char *)NULL);
        _exit(99);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "status %x", status);
    return WEXITSTATUS(status);
}

/** busy: two units; while this process has the first, another gets the second alone; then both. */
int case_busy(int argc, char **argv)
{
    struct bed_device device = bed_open(0);
    struct bed_unit unit = bed_unit_open(&device, 0, 0, 0, 0, 0);

    (void)argc, (void)argv;
    bed_run_end(&unit);
    CHECK(run_self("taken") == 0, "another process");
    bed_run_end(&unit);
    bed_unit_close(&unit);
    CHECK(run_self("end") == 0, "another process, later");
    bed_close(&device);
    return 0;
}
