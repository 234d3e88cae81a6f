/* SPDX-License-Identifier: Apache-2.0
 * A labelled set of images: a pair of IDX files (the format of MNIST and Fashion-MNIST, gzip or plain), or a folder with one sub-folder a class. */
#ifndef XN_CLIENTS_XNORCTL_LABELLED_H
#define XN_CLIENTS_XNORCTL_LABELLED_H

#include "common/error.h"
#include "common/macros.h"

#define XN_SET_IMAGES_MAX  100000000u
#define XN_SET_BYTES_MAX   (UINT64_C(4) << 30) /**< of the pixels of an IDX file */
#define XN_SET_CLASSES_MAX 4096u

struct xn_set {
    uint64_t n;
    uint32_t *classes;  /**< [n]: IDX: the label itself; folder: index in class_names */
    uint32_t h, w, c;   /**< IDX; 0 for a folder */
    uint8_t *pixels;    /**< IDX: [n][h][w][c]; NULL for a folder */
    char **paths;       /**< folder: [n]; NULL for IDX */
    char **class_names; /**< folder: [n_classes], sorted; NULL for IDX */
    uint32_t n_classes;
    char *name; /**< for messages */
};

/** Read a pair of IDX files of unsigned bytes: images of rank 3 ([n][h][w]) or 4 ([n][h][w][c]), labels of rank 1. Errors: negative errno of
 *  the system, -EBADMSG (not such a file, or cut), -EINVAL (not as many labels as images), -EFBIG. */
XN_MUST_CHECK int xn_set_load_idx(const char *images, const char *labels, struct xn_set **ret_set,
                                  struct xn_error *error);

/** Read the names in `folder`: sub-folders are classes, files in them (but for hidden ones) are images. Errors: negative errno, -EINVAL (no class, or
 *  no image). */
XN_MUST_CHECK int xn_set_load_folder(const char *folder, struct xn_set **ret_set, struct xn_error *error);

/** The pair in `folder` that is called as MNIST's are: `split`-images-idx3-ubyte and `split`-labels-idx1-ubyte, perhaps with .gz. False where it is
 *  not there. Paths are the caller's. */
bool xn_set_find_idx(const char *folder, const char *split, char **ret_images, char **ret_labels);

void xn_set_free(struct xn_set *set);

#endif
