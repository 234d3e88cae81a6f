/* SPDX-License-Identifier: Apache-2.0
 * See repository_scan.h. A mark is a hash (FNV-1a) of names, inodes, sizes and times: no file is read here. Links are followed, as those who can write the folder decide
 * what is served anyway. */
#include "daemon/repository_scan.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "common/number.h"

#define PATH_BYTES 4352u /* of a key of the configuration, and two names */
#define SUFFIX     ".xnor"

static uint64_t hash(uint64_t mark, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < bytes; i++)
        mark = (mark ^ p[i]) * UINT64_C(1099511628211);
    return mark;
}

static uint64_t hash_file(uint64_t mark, const char *name, const struct stat *st)
{
    mark = hash(mark, name, strlen(name) + 1);
    mark = hash(mark, &st->st_ino, sizeof(st->st_ino));
    mark = hash(mark, &st->st_size, sizeof(st->st_size));
    mark = hash(mark, &st->st_mtim, sizeof(st->st_mtim));
    return hash(mark, &st->st_ctim, sizeof(st->st_ctim));
}

/* ret (PATH_BYTES) := a/b. False: too long. */
static bool join(char *ret, const char *a, const char *b)
{
    int n = snprintf(ret, PATH_BYTES, "%s/%s", a, b);

    return n > 0 && n < (int)PATH_BYTES;
}

static bool has_suffix(const char *file)
{
    size_t n = strlen(file);

    return n > strlen(SUFFIX) && file[0] != '.' && strcmp(file + n - strlen(SUFFIX), SUFFIX) == 0;
}

static bool is_version(const char *name, uint64_t *ret_number)
{
    return name[0] != '0' && strlen(name) < XN_MODEL_VERSION_BYTES && xn_number_u64(name, 1, UINT64_MAX, ret_number);
}

/* Calls `visit` for each entry of `path` that does not begin with a dot. Order: the file system's. */
static int each_entry(const char *path, int (*visit)(void *user, const char *path, const char *name), void *user)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    int r = 0;

    if (!folder)
        return -errno;
    for (errno = 0; r >= 0 && (entry = readdir(folder)) != NULL; errno = 0) {
        if (entry->d_name[0] != '.')
            r = visit(user, path, entry->d_name);
    }
    if (r >= 0 && errno != 0)
        r = -errno;
    closedir(folder);
    return r;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

/* Sums, because the order of entries is nobody's. */
static int mark_file(void *user, const char *path, const char *name)
{
    char file[PATH_BYTES];
    uint64_t *mark = user;
    struct stat st;

    if (has_suffix(name) && join(file, path, name) && stat(file, &st) == 0)
        *mark += hash_file(UINT64_C(14695981039346656037), file, &st);
    return 0;
}

static int mark_version(void *user, const char *path, const char *name)
{
    char file[PATH_BYTES];
    uint64_t *mark = user, number;
    struct stat st;

    if (!join(file, path, name))
        return 0;
    if (strcmp(name, "config.json") == 0 && stat(file, &st) == 0)
        *mark += hash_file(UINT64_C(14695981039346656037), file, &st);
    if (!is_version(name, &number) || stat(file, &st) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    *mark += hash(UINT64_C(14695981039346656037), file, strlen(file));
    (void)each_entry(file, mark_file, mark); /* gone meanwhile: the next look says so */
    return 0;
}

struct names {
    struct xn_found *found;
    uint32_t n, max;
};

static int add_name(struct names *names, const struct xn_found *found)
{
    for (uint32_t i = 0; i < names->n; i++) {
        if (strcmp(names->found[i].name, found->name) != 0)
            continue;
        if (found->folder)
            names->found[i] = *found;
        return 0;
    }
    if (names->n == names->max)
        return -E2BIG;
    names->found[names->n++] = *found;
    return 0;
}

static int visit_name(void *user, const char *path, const char *name)
{
    struct xn_found found = {.mark = UINT64_C(14695981039346656037)};
    char file[PATH_BYTES];
    struct stat st;

    if (!join(file, path, name) || stat(file, &st) < 0)
        return 0;
    size_t length = strlen(name) - (S_ISDIR(st.st_mode) || !has_suffix(name) ? 0 : strlen(SUFFIX));
    if (length >= sizeof(found.name))
        return 0;
    memcpy(found.name, name, length);
    if (!xn_config_is_name(found.name))
        return 0;
    if (S_ISDIR(st.st_mode)) {
        found.folder = true;
        (void)each_entry(file, mark_version, &found.mark);
    } else if (S_ISREG(st.st_mode) && has_suffix(name)) {
        found.mark = hash_file(found.mark, name, &st);
    } else {
        return 0;
    }
    found.mark |= 1;
    return add_name(user, &found);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct xn_found *)a)->name, ((const struct xn_found *)b)->name);
}

int xn_scan_names(const char *root, struct xn_found *ret_found, uint32_t max, struct xn_error *error)
{
    struct names names = {.found = ret_found, .max = max};
    int r = each_entry(root, visit_name, &names);

    if (r == -E2BIG)
        return xn_error_set(error, r, "repository %s: more than %u models", root, max);
    if (r < 0)
        return xn_error_set(error, r, "repository %s: %s", root, strerror(-r));
    qsort(ret_found, names.n, sizeof(*ret_found), by_name);
    return (int)names.n;
}

/* ---- versions ----------------------------------------------------------------------------------------------------- */

struct versions {
    struct xn_found_version *found;
    uint32_t n, max;
};

/* Keep the highest `max`, sorted. Takes version.path. */
static void add_version(struct versions *versions, struct xn_found_version version)
{
    uint32_t at = versions->n;

    while (at > 0 && versions->found[at - 1].number < version.number)
        at--;
    if (versions->n == versions->max) {
        if (at == versions->n) {
            free(version.path);
            return;
        }
        free(versions->found[--versions->n].path);
    }
    memmove(&versions->found[at + 1], &versions->found[at], (versions->n - at) * sizeof(version));
    versions->found[at] = version;
    versions->n++;
}

struct pick {
    char file[256];
    uint32_t n;
    bool sure; /* model.xnor */
};

static int pick_file(void *user, const char *path, const char *name)
{
    struct pick *pick = user;

    (void)path;
    if (!has_suffix(name) || pick->sure)
        return 0;
    pick->n++;
    pick->sure = strcmp(name, "model" SUFFIX) == 0;
    snprintf(pick->file, sizeof(pick->file), "%s", name);
    return 0;
}

static int visit_version(void *user, const char *path, const char *name)
{
    char folder[PATH_BYTES], file[PATH_BYTES] = "";
    struct xn_found_version version = {0};
    struct pick pick = {.n = 0};
    struct stat st;

    if (!is_version(name, &version.number) || !join(folder, path, name) || stat(folder, &st) < 0 ||
        !S_ISDIR(st.st_mode))
        return 0;
    int r = each_entry(folder, pick_file, &pick);
    if (r < 0 && r != -ENOENT)
        return r;
    if ((pick.n == 1 || pick.sure) && !join(file, folder, pick.file))
        return -ENAMETOOLONG;
    version.path = xn_strdup(file);
    if (!version.path)
        return -ENOMEM;
    add_version(user, version);
    return 0;
}

int xn_scan_versions(const char *root, const struct xn_found *found, struct xn_found_version *ret_versions,
                     uint32_t max, struct xn_error *error)
{
    struct versions versions = {.found = ret_versions, .max = max};
    char path[PATH_BYTES], file[XN_MODEL_NAME_BYTES + sizeof(SUFFIX)];
    int r = 0;

    snprintf(file, sizeof(file), "%s%s", found->name, found->folder ? "" : SUFFIX);
    if (!join(path, root, file))
        return xn_error_set(error, -ENAMETOOLONG, "%s/%s: the path is too long", root, file);
    if (found->folder) {
        r = each_entry(path, visit_version, &versions);
    } else {
        ret_versions[0] = (struct xn_found_version){.path = xn_strdup(path)};
        versions.n = ret_versions[0].path ? 1 : 0;
        r = versions.n ? 0 : -ENOMEM;
    }
    if (r >= 0)
        return (int)versions.n;
    for (uint32_t i = 0; i < versions.n; i++)
        free(ret_versions[i].path);
    return xn_error_set(error, r, "%s: %s", path, strerror(-r));
}
