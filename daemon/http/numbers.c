/* SPDX-License-Identifier: Apache-2.0
 * See numbers.h. Finding walks the document only as far as strings and brackets go. On JSON that is enough to know where a value is; on anything else it finds whatever it does, and
 * jansson, which reads the rest, says so. Names are compared as they are written: one with escapes is left to jansson, as are names that come twice. */
#include "daemon/http/numbers.h"

#include <endian.h>
#include <string.h>

static bool is_blank(char c)
{
    return c <= ' ' && (c == ' ' || c == '\n' || c == '\t' || c == '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && is_blank(*at))
        at++;
    return at;
}

/* ---- the array ---------------------------------------------------------------------------------------------------- */

/* How many digits there are, and their value; 4: more than three. All at once: how many they are is different each time, and no processor foresees it. */
static unsigned read_digits(const char *at, const char *end, int *ret)
{
    uint32_t word = 0;

    if (XN_LIKELY(end - at >= (ptrdiff_t)sizeof(word)))
        memcpy(&word, at, sizeof(word));
    else
        memcpy(&word, at, (size_t)(end - at));
    word = le32toh(word) ^ UINT32_C(0x30303030); /* digits become 0 to 9; 6 more are below 16, of nothing else */
    uint32_t others = ((word + UINT32_C(0x06060606)) | word) & UINT32_C(0xf0f0f0f0);
    if (others == 0)
        return 4;
    unsigned n = (unsigned)__builtin_ctz(others) / 8;
    word = (uint32_t)((uint64_t)word << 8 * (4 - n)); /* right-aligned, zeros before them */
    *ret = (int)((word >> 8 & 255) * 100 + (word >> 16 & 255) * 10 + (word >> 24));
    return n;
}

/* A whole number of at most three digits, and of zeros behind a point; behind it. NULL: something else, which need not be wrong. What follows must be a comma, a bracket or a blank: the
 * caller looks. */
static const char *read_number(const char *at, const char *end, int *ret)
{
    bool is_negative = at < end && *at == '-';
    int value = 0;

    at += is_negative;
    unsigned n = read_digits(at, end, &value);
    if (n == 0 || n > 3 || (*at == '0' && n > 1))
        return NULL;
    at += n;
    if (at < end && *at == '.') {
        const char *point = at++;
        while (at < end && *at == '0')
            at++;
        if (at - point == 1)
            return NULL;
    }
    *ret = is_negative ? -value : value;
    return at;
}

/* Numbers and the commas between them; at what comes then. NULL: not all are plain numbers. */
static const char *read_row(const char *at, const char *end, struct xn_numbers *n, size_t *ret_size)
{
    int value, low = n->low, high = n->high;
    size_t size = 0;

    do {
        at = read_number(skip_blanks(at, end), end, &value);
        if (!at)
            return NULL;
        low = XN_MIN(low, value);
        high = XN_MAX(high, value);
        size++;
        at = skip_blanks(at, end);
    } while (at < end && *at == ',' && at++);
    n->low = low;
    n->high = high;
    n->count += size;
    *ret_size = size;
    return at;
}

/* One level closes: as many elements as its sisters had? */
static bool close_level(struct xn_shape *shape, size_t level, size_t size)
{
    if (shape->size[level] == 0)
        shape->size[level] = size;
    return shape->size[level] == size;
}

/* The array at the cursor. Each turn reads a row, with the brackets that open before it and close behind it, and the comma. */
static bool read_array(const char *at, const char *end, struct xn_numbers *n)
{
    size_t depth = 0, size[XN_NESTING_MAX] = {0};

    *n = (struct xn_numbers){.text = at, .low = INT32_MAX, .high = INT32_MIN};
    do {
        for (at = skip_blanks(at, end); at < end && *at == '['; at = skip_blanks(at + 1, end)) {
            if (depth == XN_NESTING_MAX)
                return false;
            size[depth++] = 0;
        }
        n->shape.rank = n->shape.rank == 0 ? depth : n->shape.rank;
        if (depth != n->shape.rank || !(at = read_row(at, end, n, &size[depth - 1])))
            return false;
        for (; depth > 0 && at < end && *at == ']'; at = skip_blanks(at, end)) {
            depth--;
            if (!close_level(&n->shape, depth, size[depth]))
                return false;
            if (depth > 0)
                size[depth - 1]++;
            n->bytes = (size_t)(++at - n->text);
        }
    } while (depth > 0 && at < end && *at++ == ',');
    return depth == 0;
}

/* ---- the document ------------------------------------------------------------------------------------------------- */

struct cursor {
    const char *at, *end;
};

/* Behind a string's closing quote; what is in between is *ret_text. The cursor is behind the opening one. */
static bool skip_string(struct cursor *c, const char **ret_text, size_t *ret_bytes)
{
    const char *first = c->at, *quote = first;

    for (;;) { /* pictures are long strings: to the next quote at once, and back over what escapes it */
        quote = memchr(quote, '"', (size_t)(c->end - quote));
        if (!quote)
            return false;
        const char *escape = quote;
        while (escape > first && escape[-1] == '\\')
            escape--;
        if ((quote - escape) % 2 == 0)
            break;
        quote++;
    }
    *ret_text = first;
    *ret_bytes = (size_t)(quote - first);
    c->at = quote + 1;
    return true;
}

/* Behind the colon, where one follows: the string was a name. */
static bool skip_colon(struct cursor *c)
{
    c->at = skip_blanks(c->at, c->end);
    if (c->at >= c->end || *c->at != ':')
        return false;
    c->at = skip_blanks(c->at + 1, c->end);
    return true;
}

static bool is_name(const char *text, size_t bytes, const char *name)
{
    return strlen(name) == bytes && memcmp(text, name, bytes) == 0;
}

/* The path to where the cursor is: brackets that are open, the outermost first, and the last name in the outermost object. */
struct path {
    char open[3];
    size_t depth;
    bool in_inputs;
};

static bool leads_to(const struct path *path, enum xn_numbers_place place, const char *name, size_t bytes)
{
    if (place == XN_NUMBERS_V2)
        return path->depth == 3 && path->in_inputs && memcmp(path->open, "{[{", 3) == 0 && is_name(name, bytes, "data");
    return path->depth == 1 && path->open[0] == '{' &&
           (is_name(name, bytes, "tensor") || is_name(name, bytes, "tensors"));
}

static void follow_bracket(struct path *path, char c)
{
    if (c == '{' || c == '[') {
        if (path->depth < sizeof(path->open))
            path->open[path->depth] = c;
        path->depth++;
    } else if ((c == '}' || c == ']') && path->depth > 0) {
        path->depth--;
    }
}

bool xn_numbers_find(const void *json, size_t bytes, enum xn_numbers_place place, struct xn_numbers *ret)
{
    struct cursor c = {json, (const char *)json + bytes};
    struct path path = {.depth = 0};
    const char *name;
    size_t name_bytes;

    while (c.at < c.end) {
        char byte = *c.at++;
        if (byte != '"') {
            follow_bracket(&path, byte);
            continue;
        }
        if (!skip_string(&c, &name, &name_bytes))
            return false;
        if (!skip_colon(&c))
            continue;
        if (leads_to(&path, place, name, name_bytes)) {
            bool is_read = c.at < c.end && *c.at == '[' && read_array(c.at, c.end, ret);
            ret->is_list = name[name_bytes - 1] == 's';
            return is_read;
        }
        if (path.depth == 1)
            path.in_inputs = is_name(name, name_bytes, "inputs");
    }
    return false;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

bool xn_shape_fits(const struct xn_shape *shape, const struct xn_input_spec *spec, size_t n, size_t count)
{
    const size_t want[] = {n, spec->h, spec->w, spec->channels};
    size_t k = 0;

    if (shape->rank == 1)
        return shape->size[0] == count;
    for (size_t i = 0; i < shape->rank; i++) {
        if (shape->size[i] == 1)
            continue;
        while (k < XN_ARRAY_LEN(want) && want[k] == 1)
            k++;
        if (k == XN_ARRAY_LEN(want) || want[k++] != shape->size[i])
            return false;
    }
    while (k < XN_ARRAY_LEN(want) && want[k] == 1)
        k++;
    return k == XN_ARRAY_LEN(want);
}

bool xn_numbers_fit(const struct xn_numbers *numbers, const struct xn_network *network, size_t n)
{
    const struct xn_input_spec *spec = &network->input;
    struct xn_shape each = {.rank = numbers->shape.rank - numbers->is_list};
    bool is_u8 = spec->dtype == XN_DTYPE_U8;
    size_t count;

    if (numbers->low < (is_u8 ? 0 : -128) || numbers->high > (is_u8 ? 255 : 127))
        return false;
    if (!xn_mul_size(network->input_bytes, n, &count) || count != numbers->count || each.rank == 0)
        return false;
    memcpy(each.size, numbers->shape.size + numbers->is_list, each.rank * sizeof(each.size[0]));
    return numbers->is_list ? numbers->shape.size[0] == n && xn_shape_fits(&each, spec, 1, network->input_bytes)
                            : xn_shape_fits(&each, spec, n, count);
}

void xn_numbers_put(const struct xn_numbers *numbers, struct xn_request *request)
{
    const char *at = numbers->text, *end = at + numbers->bytes;
    size_t one = request->model->network->input_bytes;

    for (uint32_t i = 0; i < request->n_items; i++) {
        uint8_t *input = request->items[i].input;
        for (size_t k = 0; k < one; k++) {
            int value = 0;
            while (*at != '-' && !is_digit(*at)) /* as many follow as were counted */
                at++;
            at = read_number(at, end, &value);
            input[k] = (uint8_t)value;
        }
    }
}
