/* SPDX-License-Identifier: Apache-2.0
 * Two ways to the same tensor: numbers that xnord reads itself (daemon/http/numbers.h), and jansson's. A body's twin has the names of tensors written with an escape, so that only
 * jansson finds them. */
#ifndef XN_TESTS_SUPPORT_NUMBERS_TWIN_H
#define XN_TESTS_SUPPORT_NUMBERS_TWIN_H

#include "tests/support/http_bed.h"

/** Parse the JSON, with `behind` it for /v2 what follows, and its twin: true where both gave the same. If not, *ret_error says how. Afterwards the bed has the twin's request. */
bool numbers_twin_agrees(struct http_bed *bed, bool is_v2, const void *json, size_t json_bytes, const void *behind,
                         size_t behind_bytes, struct xn_error *ret_error);

#endif
