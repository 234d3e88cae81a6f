/* SPDX-License-Identifier: Apache-2.0
 * The daemon as a whole: makes the stages, wires each one's `next`, and takes them down in order. The only file that knows them all. */
#ifndef XN_DAEMON_APP_H
#define XN_DAEMON_APP_H

#include "common/error.h"
#include "daemon/config.h"

struct xn_app;

/** Open the accelerators, load the models, start every stage and listen. `*config` is moved into the app on success (and left as after
 *  xn_config_init). When it returns 0 the server answers and is ready. Errors: of whatever failed, named in the text. Threads: main. */
XN_MUST_CHECK int xn_app_new(struct xn_config *config, struct xn_app **ret_app, struct xn_error *error);

/** Begin to apply a configuration read anew: models, tokens, certificates and log level change, without dropping a request; what cannot change while running (listeners, accelerators, limits) is kept,
 *  and named in the log where it differs. Returns at once: models are loaded on a thread of their own, and xn_app_reload_fd becomes readable when that is over. `*config` is moved into the app on success. Errors, and
 *  then everything stays as it was: -EBUSY (another reload is under way), of whatever failed, named in the text. Threads: main. */
XN_MUST_CHECK int xn_app_reload(struct xn_app *app, struct xn_config *config, struct xn_error *error);
/** A descriptor to poll for reading. */
int xn_app_reload_fd(const struct xn_app *app);
/** End the reload: put the rest in force. Errors: -EAGAIN (none has come to its end); of whatever failed, named in the text, and then everything stays as it was. Threads: main. */
XN_MUST_CHECK int xn_app_reload_end(struct xn_app *app, struct xn_error *error);

/** Port of listener 0 as bound. */
uint16_t xn_app_port(const struct xn_app *app);

/** One line for sd_notify's STATUS=, at most `capacity` bytes with its NUL. */
void xn_app_status_line(struct xn_app *app, char *ret_text, size_t capacity);

/** True while an instance is in service, and the timer and every worker that is not inside a device call has been seen alive within the last
 *  `stale_ns`: one hung accelerator does not count while another serves. For the watchdog. */
bool xn_app_alive(struct xn_app *app, uint64_t stale_ns);

/** SIGTERM: fail readiness, take no new connection, and answer what those that are open still ask. Returns at once; the result is when drain_timeout_s will have passed
 *  (CLOCK_MONOTONIC). Threads: main. */
uint64_t xn_app_drain(struct xn_app *app);

/** True once every request has been answered, every connection closed, and no model is being loaded any more. Threads: any. */
bool xn_app_drained(const struct xn_app *app);

/** Stop and free. What has not been answered by now is answered 503. False: the load of a model hangs, and all that it may touch is left; the process can only end. NULL is legal. */
bool xn_app_free(struct xn_app *app);

#endif
