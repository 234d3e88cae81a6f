/* SPDX-License-Identifier: Apache-2.0
 * hwmon: power monitors of Zynq, Kria and Versal boards, known by the device's name:
 *
 *     ina260...          Kria KV260: one, for the whole module
 *     ina226_uNN         ZCU102 and relatives: one a rail; ZCU102's are summed into "ps", "pl"
 *     ...hwmon_sdm...    Versal cards: the channel labelled "Total Power"
 *
 * power1_input is in microwatts (Documentation/hwmon/sysfs-interface.rst). A rule with `match` takes every device
 * whose name begins so, as it is. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/observe/sensor.h"

#define BOARD "board"

/* Rails of the ZCU102 (its user guide, UG1182): who they feed, by the monitor's reference. */
static const int ps_rails[] = {76, 77, 78, 87, 85, 86, 93, 88, 15, 92};
static const int pl_rails[] = {79, 81, 80, 84, 16, 65, 74, 75};

struct search {
    const struct xn_config_sensor *rule;
    struct xn_sensor_list *list;
};

static bool is_rail(const int *rails, size_t n, int rail)
{
    for (size_t i = 0; i < n; i++) {
        if (rails[i] == rail)
            return true;
    }
    return false;
}

static const char *domain_of(const struct search *search)
{
    return search->rule->domain ? search->rule->domain : BOARD;
}

static bool has_file(const char *path, const char *file)
{
    char line[64];

    return xn_sensor_read_line(path, file, line, sizeof(line)) != -ENOENT;
}

/* A device that is a sensor of its own. Where several share a name, the folder's tells them apart. */
static void add_device(const struct search *search, const char *path, const char *hwmon, const char *name)
{
    struct xn_sensor *sensor = xn_sensor_list_get(search->list, "hwmon", domain_of(search), name);

    if (sensor && sensor->n_files > 0) {
        char unique[XN_SENSOR_NAME_BYTES];
        snprintf(unique, sizeof(unique), "%.40s.%.20s", name, hwmon);
        sensor = xn_sensor_list_get(search->list, "hwmon", domain_of(search), unique);
    }
    if (sensor && sensor->n_files == 0)
        xn_sensor_add_file(sensor, path, "power1_input");
}

static void add_rail(const struct search *search, const char *path, const char *hwmon, const char *name)
{
    const char *digits = strstr(name, "_u");
    int rail = digits ? atoi(digits + 2) : 0;
    const char *sum = is_rail(ps_rails, XN_ARRAY_LEN(ps_rails), rail)   ? "ps"
                      : is_rail(pl_rails, XN_ARRAY_LEN(pl_rails), rail) ? "pl"
                                                                        : NULL;

    if (!sum) {
        add_device(search, path, hwmon, name);
        return;
    }
    struct xn_sensor *sensor = xn_sensor_list_get(search->list, "hwmon", domain_of(search), sum);
    if (sensor)
        xn_sensor_add_file(sensor, path, "power1_input");
}

/* PCI address of the device that the hwmon folder belongs to, or "board". */
static void pci_address(const char *path, char *ret, size_t capacity)
{
    char link[PATH_MAX], target[PATH_MAX];

    snprintf(ret, capacity, "%s", BOARD);
    snprintf(link, sizeof(link), "%s/device", path);
    if (!realpath(link, target))
        return;
    const char *base = strrchr(target, '/');
    unsigned domain, bus, slot, function;
    if (base && sscanf(base + 1, "%4x:%2x:%2x.%1x", &domain, &bus, &slot, &function) == 4)
        snprintf(ret, capacity, "%s", base + 1);
}

/* Sensor channel `channel` of a Versal card. The driver's unit modifier is a power of ten of watts; older ones have
 * none. */
static void add_channel(const struct search *search, const char *path, int channel)
{
    char domain[XN_SENSOR_NAME_BYTES], file[32], modifier[16];

    pci_address(path, domain, sizeof(domain));
    struct xn_sensor *sensor =
        xn_sensor_list_get(search->list, "hwmon", search->rule->domain ? search->rule->domain : domain, "total");
    if (!sensor || sensor->n_files > 0)
        return;
    snprintf(file, sizeof(file), "power%d_unitm", channel);
    if (xn_sensor_read_line(path, file, modifier, sizeof(modifier)) == 0)
        sensor->unit = pow(10, atoi(modifier));
    else
        snprintf(sensor->name, sizeof(sensor->name), "total_unverified_unit");
    snprintf(file, sizeof(file), "power%d_input", channel);
    xn_sensor_add_file(sensor, path, file);
}

static void add_versal(const struct search *search, const char *path)
{
    char file[32], label[64];

    for (int channel = 1; channel <= 16; channel++) {
        snprintf(file, sizeof(file), "power%d_label", channel);
        if (xn_sensor_read_line(path, file, label, sizeof(label)) == 0 && strcmp(label, "Total Power") == 0) {
            add_channel(search, path, channel);
            return;
        }
    }
}

static void consider(void *user, const char *path, const char *hwmon)
{
    const struct search *search = user;
    const char *match = search->rule->match;
    char name[XN_SENSOR_NAME_BYTES];

    if (xn_sensor_read_line(path, "name", name, sizeof(name)) < 0)
        return;
    if (match && strncmp(name, match, strlen(match)) != 0)
        return;
    if (strstr(name, "hwmon_sdm"))
        add_versal(search, path);
    else if (!has_file(path, "power1_input"))
        return;
    else if (strncmp(name, "ina226", 6) == 0 && !match)
        add_rail(search, path, hwmon, name);
    else if (match || strncmp(name, "ina260", 6) == 0)
        add_device(search, path, hwmon, name);
}

void xn_sensor_find_hwmon(const struct xn_config *config, const struct xn_config_sensor *rule,
                          struct xn_sensor_list *list)
{
    struct search search = {rule, list};

    xn_sensor_each(config->power.hwmon_root, "hwmon", consider, &search);
}
