/* SPDX-License-Identifier: Apache-2.0
 * RAPL: energy counters of x86 processor packages, Documentation/power/powercap of the kernel. Only the packages are
 * taken: cores and graphics are inside them, and intel-rapl-mmio shows the same counters a second time. energy_uj is
 * readable by root only (CVE-2020-8694); the range is readable by all, so a package whose counter is barred to us is
 * found, and shown as down. */
#include <string.h>

#include "daemon/observe/sensor.h"

struct search {
    const struct xn_config_sensor *rule;
    struct xn_sensor_list *list;
};

static void consider(void *user, const char *path, const char *zone)
{
    const struct search *search = user;
    const char *domain = search->rule->domain ? search->rule->domain : "cpu";
    const char *match = search->rule->match ? search->rule->match : "package-";
    char name[XN_SENSOR_NAME_BYTES];
    uint64_t range;

    (void)zone;
    if (xn_sensor_read_line(path, "name", name, sizeof(name)) < 0 || strncmp(name, match, strlen(match)) != 0)
        return;
    if (xn_sensor_read_number(path, "max_energy_range_uj", &range) < 0)
        return;
    struct xn_sensor *sensor = xn_sensor_list_get(search->list, "rapl", domain, name);
    if (!sensor || sensor->n_files > 0)
        return;
    sensor->is_counter = true;
    sensor->range = range;
    xn_sensor_add_file(sensor, path, "energy_uj");
}

void xn_sensor_find_rapl(const struct xn_config *config, const struct xn_config_sensor *rule,
                         struct xn_sensor_list *list)
{
    struct search search = {rule, list};

    xn_sensor_each(config->power.powercap_root, "intel-rapl:", consider, &search);
}
