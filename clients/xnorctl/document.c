/* SPDX-License-Identifier: Apache-2.0 */
#include "clients/xnorctl/document.h"

#include <string.h>

const char *xn_document_text(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "?";
}

json_t *xn_document_find(json_t *array, json_t *like)
{
    json_t *entry;
    size_t i;

    json_array_foreach(array, i, entry)
    {
        if (strcmp(xn_document_text(entry, "name"), xn_document_text(like, "name")) == 0 &&
            strcmp(xn_document_text(entry, "version"), xn_document_text(like, "version")) == 0)
            return entry;
    }
    return NULL;
}
