/* SPDX-License-Identifier: Apache-2.0
 * One pass over the text, keeping the path of the value that the scanner stands at. A stack frame is one open array
 * or object: how long the path was when it opened, and, for arrays, which element comes next. Keys are compared as
 * written, so a key spelled with \u escapes is not found and its parent's line is given: good enough for a message. */
#include "daemon/config_locate.h"

#include <stdio.h>
#include <string.h>

#define PATH_BYTES 512u

struct frame {
    size_t path_length; /* of the array or object itself */
    bool is_array;
    uint32_t index; /* of the element that comes next */
};

struct scanner {
    const char *at, *end;
    const char *wanted;
    unsigned line, best_line;
    size_t best_length;
    bool expect_element; /* the next value or key begins a member */
    char path[PATH_BYTES];
    size_t path_length;
    struct frame frames[XN_JSON_DEPTH_MAX];
    unsigned depth;
};

/* The path has changed: remember the line if it is the wanted one or the longest ancestor so far. */
static void note(struct scanner *s)
{
    if (s->path_length <= s->best_length || strncmp(s->wanted, s->path, s->path_length) != 0)
        return;
    char after = s->wanted[s->path_length];
    if (after != '\0' && after != '.' && after != '[')
        return;
    s->best_line = s->line;
    s->best_length = s->path_length;
}

/* The scanner stands at a member of `frame`: its path is the frame's and then ".key" or "[3]". One too long for the
 * buffer is cut, and so cannot be the wanted one. */
static void enter_member(struct scanner *s, const struct frame *frame, const char *dot, const char *name, size_t length)
{
    size_t room = PATH_BYTES - frame->path_length;
    int n = snprintf(s->path + frame->path_length, room, "%s%.*s", dot, (int)XN_MIN(length, room), name);

    s->path_length = frame->path_length + XN_MIN(n < 0 ? 0 : (size_t)n, room - 1);
    note(s);
}

static void enter_element(struct scanner *s, struct frame *frame)
{
    char suffix[16];
    int n = snprintf(suffix, sizeof(suffix), "[%u]", frame->index++);

    enter_member(s, frame, "", suffix, (size_t)n);
}

/* At an opening quote: to the byte after the closing one. Returns the string's length as written. */
static size_t skip_string(struct scanner *s)
{
    const char *start = ++s->at;

    while (s->at < s->end && *s->at != '"')
        s->at += *s->at == '\\' && s->at + 1 < s->end ? 2 : 1;
    size_t length = (size_t)(s->at - start);
    if (s->at < s->end)
        s->at++;
    return length;
}

/* A string, which is a key where a member begins inside an object. */
static void scan_string(struct scanner *s, struct frame *frame)
{
    const char *start = s->at + 1;
    size_t length = skip_string(s);

    if (!frame || frame->is_array || !s->expect_element)
        return;
    s->expect_element = false;
    enter_member(s, frame, frame->path_length > 0 ? "." : "", start, length);
}

static bool open_frame(struct scanner *s, bool is_array)
{
    if (s->depth == XN_JSON_DEPTH_MAX)
        return false;
    s->frames[s->depth++] = (struct frame){.path_length = s->path_length, .is_array = is_array};
    s->expect_element = true;
    return true;
}

static void close_frame(struct scanner *s)
{
    if (s->depth > 0)
        s->path_length = s->frames[--s->depth].path_length;
    s->path[s->path_length] = '\0';
    s->expect_element = false;
}

/* One byte that is not white space. Returns false where the text nests too deep to follow. */
static bool scan_token(struct scanner *s)
{
    struct frame *frame = s->depth > 0 ? &s->frames[s->depth - 1] : NULL;
    char c = *s->at;

    if (frame && frame->is_array && s->expect_element && c != ']') {
        s->expect_element = false;
        enter_element(s, frame);
    }
    if (c == '"') {
        scan_string(s, frame);
        return true;
    }
    s->at++;
    if (c == '{' || c == '[')
        return open_frame(s, c == '[');
    if (c == '}' || c == ']')
        close_frame(s);
    else if (c == ',')
        s->expect_element = true;
    return true;
}

unsigned xn_json_line(const char *text, size_t bytes, const char *path)
{
    struct scanner s = {.at = text, .end = text + bytes, .wanted = path, .line = 1, .best_line = 1};

    while (s.at < s.end) {
        char c = *s.at;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            s.line += c == '\n';
            s.at++;
        } else if (!scan_token(&s)) {
            break;
        }
    }
    return s.best_line;
}

unsigned xn_json_too_deep(const char *text, size_t bytes, unsigned depth_max)
{
    unsigned line = 1, depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        line += c == '\n';
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > depth_max)
                return line;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        }
    }
    return 0;
}
