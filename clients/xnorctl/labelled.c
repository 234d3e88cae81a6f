/* SPDX-License-Identifier: Apache-2.0
 * Labelled sets. zlib's gzread reads plain files as they are. */
#include "clients/xnorctl/labelled.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "clients/xnorctl/ctl.h"

#define RANK_MAX 4u

/* ---- IDX ---------------------------------------------------------------------------------------------------------- */

struct idx {
    uint32_t rank, dims[RANK_MAX];
    uint8_t *data;
    uint64_t bytes;
};

/* Exactly `bytes`. */
static bool read_fully(gzFile file, void *to, uint64_t bytes)
{
    uint8_t *at = to;

    while (bytes > 0) {
        unsigned part = (unsigned)XN_MIN(bytes, 1u << 30);
        int n = gzread(file, at, part);
        if (n <= 0)
            return false;
        at += n;
        bytes -= (uint64_t)n;
    }
    return true;
}

static int read_idx_header(gzFile file, const char *path, struct idx *ret, struct xn_error *error)
{
    uint8_t head[4], dims[4 * RANK_MAX];

    if (!read_fully(file, head, sizeof(head)) || head[0] || head[1] || head[2] != 8 || head[3] < 1 ||
        head[3] > RANK_MAX)
        return xn_error_set(error, -EBADMSG, "%s: not an IDX file of unsigned bytes (as those of MNIST are)", path);
    ret->rank = head[3];
    if (!read_fully(file, dims, 4 * ret->rank))
        return xn_error_set(error, -EBADMSG, "%s: ends within its header", path);
    ret->bytes = 1;
    for (uint32_t i = 0; i < ret->rank; i++) {
        ret->dims[i] = (uint32_t)dims[4 * i] << 24 | (uint32_t)dims[4 * i + 1] << 16 | (uint32_t)dims[4 * i + 2] << 8 |
                       dims[4 * i + 3];
        if (ret->dims[i] == 0)
            return xn_error_set(error, -EBADMSG, "%s: dimension %u is 0", path, i);
        if (ret->bytes > XN_SET_BYTES_MAX / ret->dims[i])
            return xn_error_set(error, -EFBIG, "%s: claims more than %" PRIu64 " bytes of data", path,
                                XN_SET_BYTES_MAX);
        ret->bytes *= ret->dims[i];
    }
    return 0;
}

static int read_idx(const char *path, struct idx *ret, struct xn_error *error)
{
    struct idx idx = {0};
    uint8_t extra;

    gzFile file = gzopen(path, "rbe");
    if (!file)
        return xn_error_set(error, errno ? -errno : -ENOMEM, "%s: %s", path, errno ? strerror(errno) : "no memory");
    int r = read_idx_header(file, path, &idx, error);
    if (r >= 0) {
        idx.data = xn_ctl_alloc(idx.bytes, 1);
        if (!read_fully(file, idx.data, idx.bytes))
            r = xn_error_set(error, -EBADMSG, "%s: ends before the %" PRIu64 " bytes that its header announces", path,
                             idx.bytes);
        else if (gzread(file, &extra, 1) != 0)
            r = xn_error_set(error, -EBADMSG, "%s: has more bytes than the %" PRIu64 " that its header announces", path,
                             idx.bytes);
    }
    gzclose(file);
    if (r < 0) {
        free(idx.data);
        return r;
    }
    *ret = idx;
    return 0;
}

static int join_idx(struct idx *images, struct idx *labels, const char *image_path, const char *label_path,
                    struct xn_set *set, struct xn_error *error)
{
    if (images->rank < 3)
        return xn_error_set(error, -EINVAL, "%s: rank %u; images have rank 3 or 4", image_path, images->rank);
    if (labels->rank != 1)
        return xn_error_set(error, -EINVAL, "%s: rank %u; labels have rank 1", label_path, labels->rank);
    if (labels->dims[0] != images->dims[0])
        return xn_error_set(error, -EINVAL, "%s has %u labels, %s has %u images: they do not belong together",
                            label_path, labels->dims[0], image_path, images->dims[0]);
    set->n = images->dims[0];
    set->h = images->dims[1];
    set->w = images->dims[2];
    set->c = images->rank == 4 ? images->dims[3] : 1;
    set->pixels = images->data;
    images->data = NULL;
    set->classes = xn_ctl_alloc(set->n, sizeof(*set->classes));
    for (uint64_t i = 0; i < set->n; i++)
        set->classes[i] = labels->data[i];
    return 0;
}

int xn_set_load_idx(const char *images, const char *labels, struct xn_set **ret_set, struct xn_error *error)
{
    struct xn_set *set = xn_ctl_alloc(1, sizeof(*set));
    struct idx image_idx = {0}, label_idx = {0};

    int r = read_idx(images, &image_idx, error);
    if (r >= 0)
        r = read_idx(labels, &label_idx, error);
    if (r >= 0)
        r = join_idx(&image_idx, &label_idx, images, labels, set, error);
    free(image_idx.data);
    free(label_idx.data);
    if (r < 0) {
        xn_set_free(set);
        return r;
    }
    set->name = strdup(images);
    *ret_set = set;
    return 0;
}

static char *find_one(const char *folder, const char *split, const char *kind)
{
    static const char *const endings[] = {".gz", ""};
    char *path = NULL;

    for (size_t i = 0; i < XN_ARRAY_LEN(endings); i++) {
        if (asprintf(&path, "%s/%s-%s-ubyte%s", folder, split, kind, endings[i]) < 0)
            return NULL;
        if (access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

bool xn_set_find_idx(const char *folder, const char *split, char **ret_images, char **ret_labels)
{
    char *images = find_one(folder, split, "images-idx3"), *labels = find_one(folder, split, "labels-idx1");

    if (!images || !labels) {
        free(images);
        free(labels);
        return false;
    }
    *ret_images = images;
    *ret_labels = labels;
    return true;
}

/* ---- folders ------------------------------------------------------------------------------------------------------ */

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* The entries of a folder that are folders themselves, or that are files, sorted. */
static int list(const char *folder, bool folders, char ***ret_names, size_t *ret_n, struct xn_error *error)
{
    struct dirent **entries;
    int found = scandir(folder, &entries, visible, alphasort);
    size_t n = 0;

    if (found < 0)
        return xn_error_set(error, -errno, "%s: %s", folder, strerror(errno));
    char **names = xn_ctl_alloc((size_t)found, sizeof(*names));
    for (int i = 0; i < found; i++) {
        char *path;
        struct stat info;
        if (asprintf(&path, "%s/%s", folder, entries[i]->d_name) >= 0) {
            if (stat(path, &info) == 0 && (folders ? S_ISDIR(info.st_mode) : S_ISREG(info.st_mode)))
                names[n++] = folders ? strdup(entries[i]->d_name) : strdup(path);
            free(path);
        }
        free(entries[i]);
    }
    free(entries);
    *ret_names = names;
    *ret_n = n;
    return 0;
}

static int add_class(struct xn_set *set, const char *folder, uint32_t class_index, struct xn_error *error)
{
    char **paths, *path;
    size_t n;

    if (asprintf(&path, "%s/%s", folder, set->class_names[class_index]) < 0)
        return xn_error_set(error, -ENOMEM, "no memory");
    int r = list(path, false, &paths, &n, error);
    free(path);
    if (r < 0)
        return r;
    set->paths = xn_ctl_grow(set->paths, set->n + n, sizeof(*set->paths));
    set->classes = xn_ctl_grow(set->classes, set->n + n, sizeof(*set->classes));
    for (size_t i = 0; i < n; i++) {
        set->paths[set->n + i] = paths[i];
        set->classes[set->n + i] = class_index;
    }
    set->n += n;
    free(paths);
    return set->n > XN_SET_IMAGES_MAX
               ? xn_error_set(error, -EFBIG, "%s: more than %u images", folder, XN_SET_IMAGES_MAX)
               : 0;
}

int xn_set_load_folder(const char *folder, struct xn_set **ret_set, struct xn_error *error)
{
    struct xn_set *set = xn_ctl_alloc(1, sizeof(*set));
    size_t n = 0;

    int r = list(folder, true, &set->class_names, &n, error);
    set->n_classes = (uint32_t)XN_MIN(n, XN_SET_CLASSES_MAX);
    if (r >= 0 && n == 0)
        r = xn_error_set(error, -EINVAL, "%s: no sub-folder in it; a labelled set has one for each class", folder);
    if (r >= 0 && n > XN_SET_CLASSES_MAX)
        r = xn_error_set(error, -EFBIG, "%s: %zu sub-folders; at most %u classes are possible", folder, n,
                         XN_SET_CLASSES_MAX);
    for (uint32_t i = 0; r >= 0 && i < set->n_classes; i++)
        r = add_class(set, folder, i, error);
    if (r >= 0 && set->n == 0)
        r = xn_error_set(error, -EINVAL, "%s: its sub-folders hold no file", folder);
    if (r < 0) {
        xn_set_free(set);
        return r;
    }
    set->name = strdup(folder);
    *ret_set = set;
    return 0;
}

void xn_set_free(struct xn_set *set)
{
    if (!set)
        return;
    for (uint64_t i = 0; set->paths && i < set->n; i++)
        free(set->paths[i]);
    for (uint32_t i = 0; set->class_names && i < set->n_classes; i++)
        free(set->class_names[i]);
    free(set->paths);
    free(set->class_names);
    free(set->classes);
    free(set->pixels);
    free(set->name);
    free(set);
}
