/* SPDX-License-Identifier: Apache-2.0
 * Pages of the system shared memory extension; see daemon/regions.h. */
#include <errno.h>
#include <string.h>

#include "daemon/http/internal.h"

static json_t *describe(const struct xn_region *region)
{
    return json_pack("{s:s, s:s, s:I, s:I}", "name", region->name, "key", region->key, "offset",
                     (json_int_t)region->offset, "byte_size", (json_int_t)region->bytes);
}

enum MHD_Result xn_page_shared_status(struct xn_get *get)
{
    struct xn_region *regions[XN_REGIONS_MAX]; /* 8 KiB of this thread's stack */
    uint32_t n = xn_regions_list(get->http->next.regions, regions, XN_REGIONS_MAX);
    const char *name = get->segments[0];
    json_t *list = json_array();
    struct xn_error error;

    for (uint32_t i = 0; i < n; i++) {
        if (!name[0] || strcmp(name, regions[i]->name) == 0)
            json_array_append_new(list, describe(regions[i]));
        xn_region_unref(regions[i]);
    }
    if (!name[0] || json_array_size(list) > 0)
        return xn_http_answer_json(get->http, get->connection, get->route, get->start_ns, 200, list);
    json_decref(list);
    xn_error_set(&error, -ENXIO, "no shared memory region is registered as \"%.64s\"", name);
    return xn_http_answer_error(get->http, get->connection, get->route, get->start_ns, -ENXIO, &error, NULL);
}

/* {"key": "/name", "offset": 0, "byte_size": 784}; offset may be absent. */
static int read_registration(const json_t *root, const char **ret_key, uint64_t *ret_offset, uint64_t *ret_bytes,
                             struct xn_error *error)
{
    const json_t *offset = json_object_get(root, "offset"), *bytes = json_object_get(root, "byte_size");

    *ret_key = json_string_value(json_object_get(root, "key"));
    if (!*ret_key)
        return xn_error_set(error, -EINVAL, "key: must be the name of a shared memory object");
    if (offset && (!json_is_integer(offset) || json_integer_value(offset) < 0))
        return xn_error_set(error, -EINVAL, "offset: must be a number of bytes");
    if (!json_is_integer(bytes) || json_integer_value(bytes) < 1)
        return xn_error_set(error, -EINVAL, "byte_size: must be a number of bytes, at least 1");
    *ret_offset = (uint64_t)json_integer_value(offset);
    *ret_bytes = (uint64_t)json_integer_value(bytes);
    return 0;
}

enum MHD_Result xn_post_shared_register(struct xn_post *post)
{
    struct xn_regions *regions = post->http->next.regions;
    uint64_t offset = 0, bytes = 0;
    const char *key = NULL;
    json_t *root;

    int r = xn_http_may_share(post->http->config, post->link, &post->error);
    if (r >= 0)
        r = xn_post_json(post, &root);
    if (r < 0)
        return xn_post_fail(post, r);
    r = read_registration(root, &key, &offset, &bytes, &post->error);
    if (r >= 0)
        r = xn_regions_register(regions, post->segments[0], key, offset, bytes, &post->error);
    xn_body_free_json(root);
    return r < 0 ? xn_post_fail(post, r) : xn_post_answer_empty(post);
}

/* One that is not registered is no error: clients make sure, before they begin, that nothing of theirs is left. */
enum MHD_Result xn_post_shared_unregister(struct xn_post *post)
{
    int r = xn_http_may_share(post->http->config, post->link, &post->error);

    if (r < 0)
        return xn_post_fail(post, r);
    (void)xn_regions_unregister(post->http->next.regions, post->segments[0][0] ? post->segments[0] : NULL);
    return xn_post_answer_empty(post);
}
