/* SPDX-License-Identifier: Apache-2.0
 * A fake hwmon tree: the power is a model's, not a measurement. */
#include "accel/vcard/hwmon.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

#define SENSOR_NAME "xnor_vcard"

/** Replace `folder`/`name` in one go, as a reader of /sys sees values whole. */
static int write_file(const char *folder, const char *name, const char *text)
{
    char path[4096], temporary[4096];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    snprintf(temporary, sizeof(temporary), "%s/.%s", folder, name);
    FILE *f = fopen(temporary, "we");
    if (!f)
        return -errno;
    fprintf(f, "%s\n", text);
    return fclose(f) != 0 || rename(temporary, path) < 0 ? -errno : 0;
}

static double share_busy(const struct xn_vcard_options *options, const struct xn_vcard_card_stats *card,
                         struct xn_vcard_power *power)
{
    const uint64_t now_ns = xn_clock_now_ns();
    const uint64_t busy_ns = xn_vcard_stats_busy_ns(card, options->units, now_ns);
    const double passed = (double)(now_ns - power->read_ns) * options->units;
    const double busy = busy_ns > power->busy_ns ? (double)(busy_ns - power->busy_ns) : 0;

    *power = (struct xn_vcard_power){now_ns, busy_ns};
    return passed <= 0 ? 0 : busy < passed ? busy / passed : 1;
}

int xn_vcard_hwmon_write(const struct xn_vcard_options *options, uint32_t index, const struct xn_vcard_card_stats *card,
                         struct xn_vcard_power *power)
{
    const double share = share_busy(options, card, power);
    char folder[2048], path[4096], text[32];

    if (snprintf(folder, sizeof(folder), "%s/hwmon%u", options->hwmon, index) >= (int)sizeof(folder))
        return -ENAMETOOLONG;
    if ((mkdir(options->hwmon, 0755) < 0 && errno != EEXIST) || (mkdir(folder, 0755) < 0 && errno != EEXIST))
        return -errno;
    if (!xn_vcard_counted(&card->process)) {
        snprintf(path, sizeof(path), "%s/power1_input", folder);
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    }
    const int r = write_file(folder, "name", SENSOR_NAME);
    const double watts = options->idle_w + (options->busy_w - options->idle_w) * share;
    snprintf(text, sizeof(text), "%.0f", watts * 1e6);
    return r < 0 ? r : write_file(folder, "power1_input", text);
}
