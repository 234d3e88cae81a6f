/* SPDX-License-Identifier: Apache-2.0
 * Small files of /sys. They are opened anew for each sample: a driver that is unbound and bound again leaves
 * descriptors behind that only fail, while its path works again. */
#include "daemon/observe/sensor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_file(const char *path, char *ret_line, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, ret_line, capacity - 1);
    int r = n < 0 ? -errno : 0;
    close(fd);
    if (r < 0)
        return r;
    ret_line[n] = '\0';
    ret_line[strcspn(ret_line, "\n")] = '\0';
    return 0;
}

static int parse_number(const char *line, uint64_t *ret_value)
{
    char *end;

    if (line[0] < '0' || line[0] > '9')
        return -ENODATA;
    errno = 0;
    unsigned long long value = strtoull(line, &end, 10);
    if (errno != 0 || (*end != '\0' && *end != ' '))
        return -ENODATA;
    *ret_value = value;
    return 0;
}

int xn_sensor_read_line(const char *folder, const char *file, char *ret_line, size_t capacity)
{
    char path[XN_SENSOR_PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s/%s", folder, file);

    if (n < 0 || (size_t)n >= sizeof(path))
        return -ENAMETOOLONG;
    return read_file(path, ret_line, capacity);
}

int xn_sensor_read_number(const char *folder, const char *file, uint64_t *ret_value)
{
    char line[64];
    int r = xn_sensor_read_line(folder, file, line, sizeof(line));

    return r < 0 ? r : parse_number(line, ret_value);
}

int xn_sensor_read(const struct xn_sensor *sensor, uint64_t *ret_value)
{
    uint64_t sum = 0, value;
    char line[64];

    for (uint32_t i = 0; i < sensor->n_files; i++) {
        int r = read_file(sensor->files[i], line, sizeof(line));
        if (r >= 0)
            r = parse_number(line, &value);
        if (r < 0)
            return r;
        sum += value;
    }
    *ret_value = sum;
    return 0;
}

struct xn_sensor *xn_sensor_list_get(struct xn_sensor_list *list, const char *source, const char *domain,
                                     const char *name)
{
    for (uint32_t i = 0; i < list->n; i++) {
        struct xn_sensor *s = &list->sensors[i];
        if (strcmp(s->source, source) == 0 && strcmp(s->domain, domain) == 0 && strcmp(s->name, name) == 0)
            return s;
    }
    if (list->n == XN_SENSORS_MAX)
        return NULL;
    struct xn_sensor *s = &list->sensors[list->n++];
    *s = (struct xn_sensor){.source = source, .unit = 1e-6};
    snprintf(s->domain, sizeof(s->domain), "%s", domain);
    snprintf(s->name, sizeof(s->name), "%s", name);
    return s;
}

void xn_sensor_add_file(struct xn_sensor *sensor, const char *folder, const char *file)
{
    if (sensor->n_files == XN_SENSOR_FILES_MAX)
        return;
    int n = snprintf(sensor->files[sensor->n_files], XN_SENSOR_PATH_BYTES, "%s/%s", folder, file);
    if (n > 0 && (size_t)n < XN_SENSOR_PATH_BYTES)
        sensor->n_files++;
}

void xn_sensor_each(const char *folder, const char *prefix,
                    void (*each)(void *user, const char *path, const char *name), void *user)
{
    char path[XN_SENSOR_PATH_BYTES];
    DIR *dir = opendir(folder);

    if (!dir)
        return;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        int n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        bool fits = n > 0 && (size_t)n < sizeof(path);
        if (fits && entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            each(user, path, entry->d_name);
    }
    closedir(dir);
}
