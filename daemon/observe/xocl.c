/* SPDX-License-Identifier: Apache-2.0
 * Alveo cards under the xocl driver: the card's management controller tells the board's power in microwatts, about
 * once a second, as xmc_power of its sub-device, or as power1_input of its hwmon device (power2_* are limits and
 * peaks: not taken). The domain is the card's PCI address. A virtual card's hwmon device has a name of its own: its figures are a model's, and their
 * source says so. */
#include <stdio.h>
#include <string.h>

#include "daemon/models.h"
#include "daemon/observe/sensor.h"

#define VENDOR    "0x10ee"     /* Xilinx */
#define SIMULATED "xnor_vcard" /* name of a virtual card's hwmon device: accel/vcard/sysfs.h */

#define LAG_MS           1000 /* of a card's controller */
#define SIMULATED_LAG_MS 250  /* it tells the mean of a quarter of a second: accel/vcard/sysfs.c */

struct search {
    const struct xn_config_sensor *rule;
    struct xn_sensor_list *list;
    const char *address; /* of the card looked at */
};

static void add(const struct search *search, bool is_simulated, const char *name, const char *path, const char *file)
{
    const char *source = is_simulated ? xn_energy_source_names[XN_ENERGY_SIMULATED] : "xocl";
    const char *domain = search->rule->domain ? search->rule->domain : search->address;
    char line[64];

    if (xn_sensor_read_line(path, file, line, sizeof(line)) < 0)
        return;
    struct xn_sensor *sensor = xn_sensor_list_get(search->list, source, domain, name);
    if (!sensor || sensor->n_files > 0)
        return;
    sensor->lag_ms = is_simulated ? SIMULATED_LAG_MS : LAG_MS;
    xn_sensor_add_file(sensor, path, file);
}

static void consider_xmc(void *user, const char *path, const char *name)
{
    (void)name;
    add(user, false, "xmc", path, "xmc_power");
}

static void consider_hwmon(void *user, const char *path, const char *name)
{
    char driver[32];
    bool is_simulated =
        xn_sensor_read_line(path, "name", driver, sizeof(driver)) == 0 && strcmp(driver, SIMULATED) == 0;

    (void)name;
    add(user, is_simulated, "card", path, "power1_input");
}

static void consider_device(void *user, const char *path, const char *address)
{
    struct search search = *(const struct search *)user;
    uint32_t before = search.list->n;
    char vendor[16], folder[XN_SENSOR_PATH_BYTES + 8];

    if (xn_sensor_read_line(path, "vendor", vendor, sizeof(vendor)) < 0 || strcmp(vendor, VENDOR) != 0)
        return;
    if (search.rule->match && strncmp(address, search.rule->match, strlen(search.rule->match)) != 0)
        return;
    search.address = address;
    xn_sensor_each(path, "xmc.u.", consider_xmc, &search);
    if (search.list->n > before)
        return; /* the same figure: once is enough */
    snprintf(folder, sizeof(folder), "%s/hwmon", path);
    xn_sensor_each(folder, "hwmon", consider_hwmon, &search);
}

void xn_sensor_find_xocl(const struct xn_config *config, const struct xn_config_sensor *rule,
                         struct xn_sensor_list *list)
{
    struct search search = {rule, list, NULL};

    xn_sensor_each(config->power.pci_root, "", consider_device, &search);
}
