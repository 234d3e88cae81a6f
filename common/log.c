/* SPDX-License-Identifier: Apache-2.0
 * One line a call, made on the caller's stack and handed over in one system call: to the journal as structured
 * fields, or to stderr as text. No lock of ours and no allocation, so any thread may log at any time; lines of
 * different threads never mix, because a write of less than PIPE_BUF bytes is atomic. */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LINE_BYTES_MAX  2048u /* less than PIPE_BUF */
#define FIELD_BYTES_MAX 1024u /* of a KEY=value in the journal */
#define FIELDS_MAX      8u

/* Relaxed: a level that changes late by a line harms nobody. */
static _Atomic int current_level = XN_LOG_INFO;
static _Atomic bool to_journal = false;

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const char *const level_tags[] = {"ERROR", "WARNING", "INFO", "DEBUG"};
static const int syslog_priority[] = {3, 4, 6, 7};

/* systemd gives "device:inode" of the stream it connected; stderr may have been redirected since. */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    if (!text || sscanf(text, "%llu:%llu", &device, &inode) != 2 || fstat(STDERR_FILENO, &st) < 0)
        return false;
    return st.st_dev == device && st.st_ino == inode;
}

void xn_log_init(enum xn_log_level level, enum xn_log_target target)
{
    xn_log_set_level(level);
    const bool journal = target == XN_LOG_JOURNAL || (target == XN_LOG_AUTO && stderr_is_journal());
    atomic_store_explicit(&to_journal, journal, memory_order_relaxed);
}

void xn_log_set_level(enum xn_log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum xn_log_level xn_log_level(void)
{
    return (enum xn_log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

int xn_log_level_parse(const char *text, enum xn_log_level *ret_level)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum xn_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *xn_log_level_name(enum xn_log_level level)
{
    return level_names[level];
}

struct line {
    char text[LINE_BYTES_MAX];
    size_t bytes;
};

/* Append one character, as \xNN where a terminal would act on it. The last byte stays free for the newline. */
static void put(struct line *line, char c)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char u = (unsigned char)c;
    const bool control = u < 0x20 || u == 0x7f;
    if (line->bytes + (control ? 4 : 1) >= sizeof(line->text))
        return;
    if (!control) {
        line->text[line->bytes++] = c;
        return;
    }
    const char escape[4] = {'\\', 'x', hex[u >> 4], hex[u & 15]};
    memcpy(line->text + line->bytes, escape, sizeof(escape));
    line->bytes += sizeof(escape);
}

static void put_text(struct line *line, const char *text)
{
    for (; *text; text++)
        put(line, *text);
}

/* "LEVEL message KEY=value", values with blanks or quotes in "...", so that the line can be taken apart again. */
static void write_stderr(enum xn_log_level level, const struct xn_log_field *fields, size_t n_fields,
                         const char *message)
{
    struct line line = {.bytes = 0};
    put_text(&line, level_tags[level]);
    put(&line, ' ');
    put_text(&line, message);
    for (size_t i = 0; i < n_fields; i++) {
        const char *value = fields[i].value ? fields[i].value : "";
        const bool quoted = !*value || strpbrk(value, " \"=") != NULL;
        put(&line, ' ');
        put_text(&line, fields[i].key);
        put_text(&line, quoted ? "=\"" : "=");
        for (; *value; value++) {
            if (*value == '"' || *value == '\\')
                put(&line, '\\');
            put(&line, *value);
        }
        if (quoted)
            put(&line, '"');
    }
    line.text[line.bytes++] = '\n';
    const ssize_t written = write(STDERR_FILENO, line.text, line.bytes);
    (void)written; /* a log that cannot be written has nobody to tell */
}

static void write_journal(enum xn_log_level level, const struct xn_log_field *fields, size_t n_fields,
                          const char *message)
{
    char text[FIELDS_MAX + 2][FIELD_BYTES_MAX];
    char message_field[LINE_BYTES_MAX + sizeof("MESSAGE=")];
    struct iovec parts[FIELDS_MAX + 3];
    size_t n = 0;
    const int length = snprintf(message_field, sizeof(message_field), "MESSAGE=%s", message);
    parts[n++] = (struct iovec){.iov_base = message_field, .iov_len = (size_t)length};
    snprintf(text[0], sizeof(text[0]), "PRIORITY=%d", syslog_priority[level]);
    snprintf(text[1], sizeof(text[1]), "SYSLOG_IDENTIFIER=%s", program_invocation_short_name);
    for (size_t i = 0; i < n_fields; i++)
        snprintf(text[i + 2], sizeof(text[0]), "%s=%s", fields[i].key, fields[i].value ? fields[i].value : "");
    for (size_t i = 0; i < n_fields + 2; i++)
        parts[n++] = (struct iovec){.iov_base = text[i], .iov_len = strlen(text[i])};
    (void)sd_journal_sendv(parts, (int)n);
}

void xn_log_fields(enum xn_log_level level, const struct xn_log_field *fields, size_t n_fields, const char *format, ...)
{
    if (level > xn_log_level())
        return;
    const int saved_errno = errno; /* logging is free of side effects for its caller */
    char message[LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    n_fields = XN_MIN(n_fields, FIELDS_MAX);
    if (atomic_load_explicit(&to_journal, memory_order_relaxed))
        write_journal(level, fields, n_fields, message);
    else
        write_stderr(level, fields, n_fields, message);
    errno = saved_errno;
}
