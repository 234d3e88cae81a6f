/* SPDX-License-Identifier: Apache-2.0
 * Looking at a model repository's folder. Two layouts, which may stand side by side:
 *
 *     NAME.xnor                        one version, whose number the file has
 *     NAME/VERSION/ANY.xnor            the folder's number is the version; one file in it, or one called model.xnor
 *     NAME/config.json                 settings, optional; see model_config.h
 *
 * Everything else is not looked at. Private to daemon/repository.c. */
#ifndef XN_DAEMON_REPOSITORY_SCAN_H
#define XN_DAEMON_REPOSITORY_SCAN_H

#include "common/error.h"
#include "daemon/models.h"

/** A name in the folder. */
struct xn_found {
    char name[XN_MODEL_NAME_BYTES];
    bool folder;   /**< NAME/ rather than NAME.xnor; the folder wins where both are there */
    uint64_t mark; /**< of all that belongs to it: another one when a file was written, added or removed. Never 0 */
};

/** A version of a name. */
struct xn_found_version {
    uint64_t number; /**< 0: the file says it */
    char *path;      /**< malloc'ed; "": its folder has no .xnor file, or several and none called model.xnor */
};

/** Names in `root`, in alphabetical order, at most `max`. Returns how many. Errors: -ENOENT, -EACCES, -ENOTDIR ..., -E2BIG (more than `max`). */
XN_MUST_CHECK int xn_scan_names(const char *root, struct xn_found *ret_found, uint32_t max, struct xn_error *error);

/** Versions of `found`, highest first, at most `max`; of more the highest. Returns how many; free each path. Errors: -ENOMEM, and what reading a folder
 *  gives. */
XN_MUST_CHECK int xn_scan_versions(const char *root, const struct xn_found *found,
                                   struct xn_found_version *ret_versions, uint32_t max, struct xn_error *error);

#endif
