/* SPDX-License-Identifier: Apache-2.0
 * JSON from outside, as a tree of jansson's. A tree takes up to 80 times the memory of its text, so that is limited: for one body while it is parsed, by
 * counting what jansson allocates; for all by a reservation before. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http/body.h"

#define TRIM_BYTES        (UINT64_C(8) << 20) /* of a tree: from here on its memory goes back to the system at once */
#define TREE_BYTES_A_BYTE 96                  /* no JSON makes more tree of a byte: "{}," makes 80 */
#define KEEP_BYTES        (1 << 20)           /* of free memory that malloc may keep at the top of a heap */

/* Memory of the tree that this thread is parsing. */
static _Thread_local struct {
    bool on, exhausted;
    size_t used, peak, reserved;
} tree;

static atomic_size_t trees_reserved; /* relaxed: a count of bytes, nothing is handed over with it */

static bool reserve_tree(size_t body_bytes)
{
    size_t bytes = XN_MIN(body_bytes * TREE_BYTES_A_BYTE, XN_JSON_TREE_BYTES_MAX);

    if (atomic_fetch_add_explicit(&trees_reserved, bytes, memory_order_relaxed) > XN_JSON_TREES_BYTES_MAX - bytes) {
        atomic_fetch_sub_explicit(&trees_reserved, bytes, memory_order_relaxed);
        return false;
    }
    tree.reserved = bytes;
    return true;
}

static size_t chunk_bytes(void *memory)
{
    return malloc_usable_size(memory) + sizeof(size_t);
}

static void *tree_malloc(size_t bytes)
{
    if (!tree.on)
        return malloc(bytes);
    void *memory = bytes > XN_JSON_TREE_BYTES_MAX - tree.used ? NULL : malloc(bytes);
    if (!memory) {
        tree.exhausted = true;
        return NULL;
    }
    tree.used = XN_MIN(tree.used + chunk_bytes(memory), XN_JSON_TREE_BYTES_MAX);
    tree.peak = XN_MAX(tree.peak, tree.used);
    return memory;
}

static void tree_free(void *memory)
{
    if (tree.on && memory)
        tree.used -= XN_MIN(tree.used, chunk_bytes(memory));
    free(memory);
}

/* Fixed thresholds: left to itself malloc raises them with the largest piece that it has seen, and then keeps as much at the top of every thread's heap. */
void xn_body_init(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, KEEP_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
    json_set_alloc_funcs(tree_malloc, tree_free);
}

/* malloc keeps the small pieces that it gets back. After a large tree it is made to return them: the free of a large piece joins them with the top of
 * this thread's heap and cuts that, malloc_trim gives up whole pages in between. */
static void end_tree(void)
{
    if (tree.peak >= TRIM_BYTES) {
        void *volatile large = malloc(KEEP_BYTES / 2); /* volatile: to be done, not optimised away */
        free(large);
        malloc_trim(0);
    }
    tree.peak = 0;
    atomic_fetch_sub_explicit(&trees_reserved, tree.reserved, memory_order_relaxed);
    tree.reserved = 0;
}

void xn_body_free_json(json_t *root)
{
    json_decref(root);
    end_tree();
}

/* A text in pieces. */
struct pieces {
    struct piece {
        const char *text;
        size_t bytes;
    } piece[3];
    size_t at;
};

/* jansson's source: fills its buffer. */
static size_t next_piece(void *buffer, size_t capacity, void *user)
{
    struct pieces *p = user;

    while (p->at < XN_ARRAY_LEN(p->piece) && p->piece[p->at].bytes == 0)
        p->at++;
    if (p->at == XN_ARRAY_LEN(p->piece))
        return 0;
    struct piece *piece = &p->piece[p->at];
    size_t n = XN_MIN(capacity, piece->bytes);
    memcpy(buffer, piece->text, n);
    piece->text += n;
    piece->bytes -= n;
    return n;
}

static json_t *load(const char *data, size_t bytes, const struct xn_numbers *without, json_error_t *ret_where)
{
    if (!without)
        return json_loadb(data, bytes, JSON_REJECT_DUPLICATES, ret_where);
    const char *behind = without->text + without->bytes;
    struct pieces pieces = {
        .piece = {{data, (size_t)(without->text - data)}, {"[]", 2}, {behind, (size_t)(data + bytes - behind)}}};
    return json_load_callback(next_piece, &pieces, JSON_REJECT_DUPLICATES, ret_where);
}

int xn_body_load_json(const void *data, size_t bytes, const struct xn_numbers *without, json_t **ret_object,
                      struct xn_error *error)
{
    json_error_t where;

    if (!reserve_tree(bytes - (without ? without->bytes : 0)))
        return xn_error_set(error, -EAGAIN, "no memory for %zu bytes of JSON now; try again later", bytes);
    tree.on = true;
    tree.exhausted = false;
    tree.used = tree.peak = 0;
    json_t *root = load(data, bytes, without, &where);
    tree.on = false;
    if (!root)
        end_tree();
    if (!root && tree.exhausted)
        return xn_error_set(error, -E2BIG,
                            "the JSON needs more than %" PRIu64 " MiB to be read; send fewer images, or binary tensors",
                            XN_JSON_TREE_BYTES_MAX >> 20);
    if (!root)
        return xn_error_set(error, -EINVAL, "JSON, line %d, column %d: %s", where.line, where.column, where.text);
    if (!json_is_object(root)) {
        xn_body_free_json(root);
        return xn_error_set(error, -EINVAL, "the JSON body must be an object");
    }
    *ret_object = root;
    return 0;
}
