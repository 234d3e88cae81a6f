/* SPDX-License-Identifier: Apache-2.0
 * Which models are served while the daemon runs: those of the configuration, and those of the repository, a folder whose files come and go. One thread (xn-models) looks at
 * the folder, loads and unloads, for requests over HTTP and for reloads of the configuration too, so that nobody else waits for a load. docs/http-api.md and xnord.json(5)
 * describe the folder. */
#ifndef XN_DAEMON_REPOSITORY_H
#define XN_DAEMON_REPOSITORY_H

#include "common/error.h"
#include "daemon/models.h"

struct xn_repository;

#define XN_REPOSITORY_NAMES_MAX 256u /**< names that are known, served or not */
#define XN_REPOSITORY_JOBS_MAX  16u  /**< loads and unloads that wait */

/** Load what `config` lists, then what its folder has. A model of the configuration that cannot be loaded is an error, one of the folder a line in the log. `models` must outlive it, `config` need not. Threads:
 *  main. */
XN_MUST_CHECK int xn_repository_new(struct xn_config *config, struct xn_models *models,
                                    struct xn_repository **ret_repository, struct xn_error *error);

/** Start the thread. Errors: -EAGAIN. */
XN_MUST_CHECK int xn_repository_start(struct xn_repository *repository, struct xn_error *error);

/** What a load, an unload or a reload came to: 0, -ENOENT (nothing is called that), -EINVAL (it cannot be loaded, and why; what was served is served still), -ENOMEM, -ESHUTDOWN. On the thread xn-models,
 *  no lock held; must not block. `error` is valid until it returns. */
typedef void (*xn_repository_done)(void *user, int status, const struct xn_error *error);

/** Load `name` anew from its file or folder, with `config` (JSON as Triton's, see model_config.h; NULL: none) over its settings until its next load; or unload it, until it is loaded by a
 *  call or a reload. `config` (malloc'ed) is taken over, also on failure. `done` is called once where it returns 0. Threads: any. Errors: -EAGAIN (XN_REPOSITORY_JOBS_MAX wait), -ESHUTDOWN. */
XN_MUST_CHECK int xn_repository_load(struct xn_repository *repository, const char *name, char *config,
                                     xn_repository_done done, void *user);
XN_MUST_CHECK int xn_repository_unload(struct xn_repository *repository, const char *name, xn_repository_done done,
                                       void *user);

/** Apply the models of a configuration read anew, and look at its folder, behind a load that is under way and before those that wait. Where something is wrong nothing is changed. `config` is the thread's until
 *  `done`, which is called once where it returns 0, with the errors of xn_models_apply besides. Threads: any, after xn_repository_start. Errors: -EBUSY (another one is not done), -ESHUTDOWN. */
XN_MUST_CHECK int xn_repository_reload(struct xn_repository *repository, struct xn_config *config,
                                       xn_repository_done done, void *user);

struct xn_repository_row {
    struct xn_model_row model;        /**< version "": not known */
    char reason[XN_ERROR_TEXT_BYTES]; /**< why it is not served, or why its newer file is not; "": nothing is wrong */
};

/** Every name that is known, with the state of its versions. *ret_rows: malloc'ed, [*ret_n]. Threads: any. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_repository_index(struct xn_repository *repository, struct xn_repository_row **ret_rows,
                                      uint32_t *ret_n);

/** Load no more: the thread ends after a load that is under way; what waits is done with -ESHUTDOWN, and what comes is refused. Does not block. Threads: any. */
void xn_repository_quit(struct xn_repository *repository);
/** Has it ended, or never been started? Threads: any. */
bool xn_repository_ended(struct xn_repository *repository);
/** xn_repository_quit, and wait for the end until `until_ns` (CLOCK_MONOTONIC). False: a load takes longer. Then everything that waits is done with -ESHUTDOWN, also who waits for that load; the
 *  thread goes on, so that neither the repository nor the models may be freed. NULL is legal. Threads: main. */
bool xn_repository_stop(struct xn_repository *repository, uint64_t until_ns);
/** Stop if that was not done, however long it takes, and free. NULL is legal. The models stay. */
void xn_repository_free(struct xn_repository *repository);

#endif
