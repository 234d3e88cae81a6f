/* SPDX-License-Identifier: Apache-2.0
 * getopt_long over a table. Options and operands may be mixed; "--" ends options; "-" is an operand. */
#include "clients/xnorctl/options.h"
#include "common/number.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN   26
#define FIRST_VALUE   256 /* of options, above every letter */
#define COMMON        6u
#define LETTERS_BYTES (2 * (XN_OPTIONS_MAX + COMMON) + 1)

bool xn_opt_double(const char *text, double low, double high, double *ret)
{
    char *end;

    if ((*text < '0' || *text > '9') && *text != '.')
        return false;
    double value = strtod(text, &end);
    if (*end || !isfinite(value) || value < low || value > high)
        return false;
    *ret = value;
    return true;
}

void xn_opt_usage(const struct xn_ctl *ctl, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "xnorctl %s: ", ctl->command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see xnorctl %s --help\n", ctl->command);
    exit(XN_CTL_USAGE);
}

static void print_option(const struct xn_opt *o)
{
    int width = o->letter ? printf("  -%c, --%s", o->letter, o->name) : printf("      --%s", o->name);

    if (o->metavar)
        width += printf(" %s", o->metavar);
    const char *gap = width > HELP_COLUMN - 2 ? "\n" : "";
    printf("%s%*s", gap, *gap ? HELP_COLUMN : HELP_COLUMN - width, "");
    for (const char *c = o->help; *c; c++) {
        putchar(*c);
        if (*c == '\n')
            printf("%*s", HELP_COLUMN, "");
    }
    putchar('\n');
}

static void print_help(const struct xn_ctl *ctl, const struct xn_opt_about *about, const struct xn_opt *opts, size_t n)
{
    printf("usage: xnorctl %s [OPTION]...%s%s\n\n%s\n\n", ctl->command, *about->usage ? " " : "", about->usage,
           about->summary);
    for (size_t i = 0; i < n; i++)
        print_option(&opts[i]);
    if (about->after)
        printf("\n%s\n", about->after);
}

static void take(const struct xn_ctl *ctl, const struct xn_opt *o, const char *value)
{
    switch (o->kind) {
    case XN_OPT_FLAG:
        *(bool *)o->to = true;
        return;
    case XN_OPT_TEXT:
        *(const char **)o->to = value;
        return;
    case XN_OPT_U64:
        if (!xn_number_u64(value, (uint64_t)o->low, (uint64_t)o->high, o->to))
            xn_opt_usage(ctl, "--%s: must be a whole number from %.0f to %.0f, not \"%.40s\"", o->name, o->low, o->high,
                         value);
        return;
    case XN_OPT_DOUBLE:
        if (!xn_opt_double(value, o->low, o->high, o->to))
            xn_opt_usage(ctl, "--%s: must be a number from %g to %g, not \"%.40s\"", o->name, o->low, o->high, value);
        return;
    }
}

/* The command's options and the common ones, in one table. */
static size_t join(struct xn_ctl *ctl, const struct xn_opt_about *about, const struct xn_opt *opts, size_t n,
                   bool *help, struct xn_opt ret[static XN_OPTIONS_MAX + COMMON])
{
    size_t all = 0;

    for (; all < n && all < XN_OPTIONS_MAX; all++)
        ret[all] = opts[all];
    const struct xn_opt online[] = {
        {"url", 'u', XN_OPT_TEXT, &ctl->url, 0, 0, "URL",
         "the server, or unix:PATH (default $XNORD_URL, else\n" XN_CTL_URL ")"},
        {"cacert", 0, XN_OPT_TEXT, &ctl->cacert, 0, 0, "FILE", "https: trust the authorities in this PEM file"},
        {"insecure", 0, XN_OPT_FLAG, &ctl->insecure, 0, 0, NULL, "https: take any certificate"},
        {"token-file", 0, XN_OPT_TEXT, &ctl->token_file, 0, 0, "FILE", "send the token in FILE (default $XNORD_TOKEN)"},
    };
    for (size_t i = 0; !about->offline && i < XN_ARRAY_LEN(online); i++)
        ret[all++] = online[i];
    ret[all++] =
        (struct xn_opt){"json", 'j', XN_OPT_FLAG, &ctl->json, 0, 0, NULL, "print JSON instead of text for people"};
    ret[all++] = (struct xn_opt){"help", 'h', XN_OPT_FLAG, help, 0, 0, NULL, "this"};
    return all;
}

/* The tables of getopt_long. */
static void to_getopt(const struct xn_opt *opts, size_t n, struct option *ret_long, char *ret_letters)
{
    for (size_t i = 0; i < n; i++) {
        bool flag = opts[i].kind == XN_OPT_FLAG;
        ret_long[i] = (struct option){opts[i].name, flag ? no_argument : required_argument, NULL, FIRST_VALUE + (int)i};
        if (opts[i].letter) {
            *ret_letters++ = opts[i].letter;
            if (!flag)
                *ret_letters++ = ':';
        }
    }
    ret_long[n] = (struct option){NULL, 0, NULL, 0};
    *ret_letters = '\0';
}

static const struct xn_opt *option_of(const struct xn_opt *opts, size_t n, int c)
{
    if (c >= FIRST_VALUE)
        return &opts[c - FIRST_VALUE];
    for (size_t i = 0; i < n; i++) {
        if (opts[i].letter == c)
            return &opts[i];
    }
    return NULL;
}

int xn_opt_parse(struct xn_ctl *ctl, const struct xn_opt_about *about, const struct xn_opt *opts, size_t n, int argc,
                 char **argv, char ***ret_operands)
{
    struct xn_opt all[XN_OPTIONS_MAX + COMMON];
    struct option long_options[XN_OPTIONS_MAX + COMMON + 1];
    char letters[LETTERS_BYTES];
    bool help = false;
    int c;

    size_t count = join(ctl, about, opts, n, &help, all);
    to_getopt(all, count, long_options, letters);
    char *name = argv[0], full[64];
    snprintf(full, sizeof(full), "xnorctl %s", ctl->command);
    argv[0] = full; /* getopt begins its messages with it */
    optind = 0;     /* main.c has used getopt before */
    while ((c = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
        const struct xn_opt *o = c == '?' ? NULL : option_of(all, count, c);
        if (!o) {
            fprintf(stderr, "see xnorctl %s --help\n", ctl->command);
            exit(XN_CTL_USAGE);
        }
        take(ctl, o, optarg);
    }
    argv[0] = name;
    if (help) {
        print_help(ctl, about, all, count);
        exit(XN_CTL_OK);
    }
    *ret_operands = argv + optind;
    return argc - optind;
}
