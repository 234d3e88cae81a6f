/* SPDX-License-Identifier: Apache-2.0
 * A piece of /sys that is not the kernel's. The power is a model's, not a measurement; energy is the same model's, exact to the busy time of the
 * units, so that a program that integrates the sensor can be compared with it. */
#include "accel/vcard/sysfs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

#define SENSOR_NAME "xnor_vcard"
#define VENDOR      "0x10ee" /* Xilinx */
#define PATH_BYTES  512u

/** What is above a card's own folder. */
static const char *const parents[] = {"", "/bus", "/bus/pci", "/bus/pci/devices"};

/** Of card `index`: "", "/hwmon", "/hwmon/hwmonN" or a file in these. Errors: -ENAMETOOLONG. */
static int path_of(const char *sys, uint32_t index, const char *what, char ret[static PATH_BYTES])
{
    const int n = snprintf(ret, PATH_BYTES, "%s/bus/pci/devices/%s%s", sys, xn_vcard_address_of(index).text, what);

    return n < 0 || (size_t)n >= PATH_BYTES ? -ENAMETOOLONG : 0;
}

static int make_folder(const char *path)
{
    return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/** Replace the file in one go, as a reader of /sys sees values whole. */
static int write_file(const char *sys, uint32_t index, const char *what, const char *text)
{
    char path[PATH_BYTES], temporary[PATH_BYTES + 4];
    const int r = path_of(sys, index, what, path);

    if (r < 0)
        return r;
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    FILE *f = fopen(temporary, "we");
    if (!f)
        return -errno;
    fprintf(f, "%s\n", text);
    return fclose(f) != 0 || rename(temporary, path) < 0 ? -errno : 0;
}

/* ---- energy -------------------------------------------------------------------------------------------------------- */

void xn_vcard_power_account(const struct xn_vcard_options *options, uint32_t index, struct xn_vcard_card_stats *card,
                            struct xn_vcard_power *power)
{
    const struct xn_vcard_watts *watts = &options->watts[index];
    const uint64_t now_ns = xn_clock_now_ns(), busy_ns = xn_vcard_stats_busy_ns(card, options->units, now_ns);
    const double passed = power->read_ns ? (double)(now_ns - power->read_ns) : 0;
    const double busy = busy_ns > power->busy_ns ? (double)(busy_ns - power->busy_ns) / options->units : 0;
    const double share = passed <= 0 ? 0 : busy < passed ? busy / passed : 1;

    if (!xn_vcard_counted(&card->process)) {
        *power = (struct xn_vcard_power){0};
        return;
    }
    *power = (struct xn_vcard_power){
        .read_ns = now_ns, .busy_ns = busy_ns, .watts = watts->idle + (watts->busy - watts->idle) * share};
    xn_vcard_count(&card->energy_uj, (uint64_t)(power->watts * passed * 1e-3));
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

int xn_vcard_sysfs_add(const char *sys, uint32_t index)
{
    static const char *const folders[] = {"", "/hwmon", "/hwmon/hwmon0"};
    char path[PATH_BYTES];
    int r = 0;

    for (size_t i = 0; r == 0 && i < XN_ARRAY_LEN(parents); i++) {
        const int n = snprintf(path, sizeof(path), "%s%s", sys, parents[i]);
        r = n < 0 || (size_t)n >= sizeof(path) ? -ENAMETOOLONG : make_folder(path);
    }
    for (size_t i = 0; r == 0 && i < XN_ARRAY_LEN(folders); i++) {
        r = path_of(sys, index, folders[i], path);
        r = r < 0 ? r : make_folder(path);
    }
    if (r == 0)
        r = write_file(sys, index, "/vendor", VENDOR);
    return r < 0 ? r : write_file(sys, index, "/hwmon/hwmon0/name", SENSOR_NAME);
}

int xn_vcard_sysfs_write(const char *sys, uint32_t index, const struct xn_vcard_power *power)
{
    static const char sensor[] = "/hwmon/hwmon0/power1_input";
    char path[PATH_BYTES], text[32];
    int r;

    if (!power->read_ns) {
        r = path_of(sys, index, sensor, path);
        return r < 0 ? r : unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    }
    snprintf(text, sizeof(text), "%.0f", power->watts * 1e6);
    return write_file(sys, index, sensor, text);
}

void xn_vcard_sysfs_remove(const char *sys, uint32_t cards)
{
    static const char *const files[] = {"/hwmon/hwmon0/power1_input", "/hwmon/hwmon0/name", "/vendor"};
    static const char *const folders[] = {"/hwmon/hwmon0", "/hwmon", ""};
    char path[PATH_BYTES];

    for (uint32_t card = 0; card < cards; card++) {
        for (size_t i = 0; i < XN_ARRAY_LEN(files); i++)
            if (path_of(sys, card, files[i], path) == 0)
                unlink(path);
        for (size_t i = 0; i < XN_ARRAY_LEN(folders); i++)
            if (path_of(sys, card, folders[i], path) == 0)
                rmdir(path);
    }
    for (size_t i = XN_ARRAY_LEN(parents); i-- > 0;) {
        snprintf(path, sizeof(path), "%s%s", sys, parents[i]);
        rmdir(path);
    }
}
