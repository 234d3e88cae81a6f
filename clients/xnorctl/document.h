/* SPDX-License-Identifier: Apache-2.0
 * What commands read in the JSON that the server answers. */
#ifndef XN_CLIENTS_XNORCTL_DOCUMENT_H
#define XN_CLIENTS_XNORCTL_DOCUMENT_H

#include <jansson.h>

/** The text of member `key`, the object's; "?" where it is no text or absent. */
const char *xn_document_text(json_t *object, const char *key);

/** The entry of `array` (of objects; NULL: none) whose "name" and "version", where it has one, are those of `like`; borrowed. NULL: there is none. */
json_t *xn_document_find(json_t *array, json_t *like);

#endif
