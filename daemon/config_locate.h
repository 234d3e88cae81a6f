/* SPDX-License-Identifier: Apache-2.0
 * Lines of keys in a JSON text, for messages: jansson tells the line of a syntax error, but not where a value that
 * it parsed came from. */
#ifndef XN_DAEMON_CONFIG_LOCATE_H
#define XN_DAEMON_CONFIG_LOCATE_H

#include "common/macros.h"

/** Deepest nesting of arrays and objects that xn_json_line follows. */
#define XN_JSON_DEPTH_MAX 16u

/** Line (from 1) where `path` ("models[0].max_batch") begins in the syntactically valid `text`, else that of its
 *  nearest ancestor that is there; 1 where nothing is. */
unsigned xn_json_line(const char *text, size_t bytes, const char *path);

/** Line where `text` first nests deeper than `depth_max`, 0 when it never does. Any bytes are legal. */
unsigned xn_json_too_deep(const char *text, size_t bytes, unsigned depth_max);

#endif
