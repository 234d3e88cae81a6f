/* SPDX-License-Identifier: Apache-2.0
 * Looking after cards: their processes, the counters' file, the power sensors, and a command that uses them. */
#ifndef XN_ACCEL_VCARD_SERVE_H
#define XN_ACCEL_VCARD_SERVE_H

#include "accel/vcard/options.h"

/** Start the cards in `folder` (NULL: a temporary one), write the xclbin there, and serve: with `command` until it ends, else until SIGTERM or
 *  SIGINT. Returns the exit status of the program: the command's (128 + n: killed by signal n), or 0; 1: what failed is on stderr. */
int xn_vcard_serve(const struct xn_vcard_options *options, const char *folder, char **command);

#endif
