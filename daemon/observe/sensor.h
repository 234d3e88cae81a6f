/* SPDX-License-Identifier: Apache-2.0
 * Power sensors as files: what a collector (rapl.c, hwmon.c, xocl.c) finds, and how it is read. Private to observe/. */
#ifndef XN_DAEMON_OBSERVE_SENSOR_H
#define XN_DAEMON_OBSERVE_SENSOR_H

#include "common/macros.h"
#include "daemon/config.h"

#define XN_SENSORS_MAX       32u
#define XN_SENSOR_FILES_MAX  24u
#define XN_SENSOR_NAME_BYTES 64u
#define XN_SENSOR_PATH_BYTES 256u

/** One figure: the sum of a few files. */
struct xn_sensor {
    char domain[XN_SENSOR_NAME_BYTES]; /**< what it measures: "cpu", "board", a PCI address */
    char name[XN_SENSOR_NAME_BYTES];   /**< unique within its domain and source */
    const char *source;                /**< "rapl", "hwmon", "xocl", "simulated" */
    bool is_counter;                   /**< files count energy, else they tell power */
    double unit;                       /**< joules or watts of a file's 1 */
    uint32_t lag_ms;                   /**< what it tells may be so old */
    uint64_t range;                    /**< a counter goes back to 0 after this value */
    uint32_t n_files;
    char files[XN_SENSOR_FILES_MAX][XN_SENSOR_PATH_BYTES];
};

struct xn_sensor_list {
    uint32_t n;
    struct xn_sensor sensors[XN_SENSORS_MAX];
};

/** Collectors: append what `rule` lets them find. Absent folders and devices are no error. `rule->domain` NULL: the
 *  kind's own. */
void xn_sensor_find_rapl(const struct xn_config *config, const struct xn_config_sensor *rule,
                         struct xn_sensor_list *list);
void xn_sensor_find_hwmon(const struct xn_config *config, const struct xn_config_sensor *rule,
                          struct xn_sensor_list *list);
void xn_sensor_find_xocl(const struct xn_config *config, const struct xn_config_sensor *rule,
                         struct xn_sensor_list *list);

/** The sensor so named, made where there is none yet (one gauge in microwatts, without files); NULL: the list is
 *  full. */
struct xn_sensor *xn_sensor_list_get(struct xn_sensor_list *list, const char *source, const char *domain,
                                     const char *name);
/** Append a file; one too many, or with too long a path, is left out. */
void xn_sensor_add_file(struct xn_sensor *sensor, const char *folder, const char *file);

/** Sum of the sensor's files, in their unit. Returns 0 or the first file's -errno; -ENODATA: not a number. */
XN_MUST_CHECK int xn_sensor_read(const struct xn_sensor *sensor, uint64_t *ret_value);

/** The first line of folder/file without its newline. Returns 0 or a negative errno. */
XN_MUST_CHECK int xn_sensor_read_line(const char *folder, const char *file, char *ret_line, size_t capacity);
/** The file's decimal number. Errors: those of open and read, -ENODATA: not a number, or negative. */
XN_MUST_CHECK int xn_sensor_read_number(const char *folder, const char *file, uint64_t *ret_value);

/** Call `each` with the path and the name of every entry of `folder` whose name begins with `prefix`. */
void xn_sensor_each(const char *folder, const char *prefix,
                    void (*each)(void *user, const char *path, const char *name), void *user);

#endif
