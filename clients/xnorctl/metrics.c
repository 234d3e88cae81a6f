/* SPDX-License-Identifier: Apache-2.0
 * Prometheus text format 0.0.4, read line by line. */
#include "clients/xnorctl/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* {name="value",...} from behind the brace; NULL where it is malformed. Returns behind the closing brace. */
static const char *read_labels(const char *at, struct xn_metric *ret)
{
    while (*at && *at != '}') {
        struct xn_metric_label label = {.name = at, .name_bytes = strcspn(at, "=\n")};
        at += label.name_bytes;
        if (at[0] != '=' || at[1] != '"')
            return NULL;
        label.value = at += 2;
        while (*at && *at != '"' && *at != '\n')
            at += at[0] == '\\' && at[1] ? 2 : 1;
        if (*at != '"')
            return NULL;
        label.value_bytes = (size_t)(at++ - label.value);
        if (ret->n_labels < XN_METRIC_LABELS_MAX)
            ret->labels[ret->n_labels++] = label;
        if (*at == ',')
            at++;
    }
    return *at == '}' ? at + 1 : NULL;
}

static bool read_line(const char *line, struct xn_metric *ret)
{
    char *end;

    *ret = (struct xn_metric){.name = line, .name_bytes = strcspn(line, "{ \n")};
    const char *at = line + ret->name_bytes;
    if (*line == '#' || ret->name_bytes == 0)
        return false;
    if (*at == '{')
        at = read_labels(at + 1, ret);
    if (!at || *at != ' ')
        return false;
    ret->value = strtod(at, &end);
    return end != at && (*end == '\n' || *end == ' ' || *end == '\0');
}

bool xn_metric_next(const char **at, struct xn_metric *ret)
{
    while (**at) {
        const char *line = *at;
        size_t length = strcspn(line, "\n");
        *at = line + length + (line[length] == '\n');
        if (read_line(line, ret))
            return true;
    }
    return false;
}

bool xn_metric_is(const struct xn_metric *metric, const char *name)
{
    return strlen(name) == metric->name_bytes && memcmp(metric->name, name, metric->name_bytes) == 0;
}

static const struct xn_metric_label *find(const struct xn_metric *metric, const char *label)
{
    for (size_t i = 0; i < metric->n_labels; i++) {
        const struct xn_metric_label *l = &metric->labels[i];
        if (strlen(label) == l->name_bytes && memcmp(l->name, label, l->name_bytes) == 0)
            return l;
    }
    return NULL;
}

const char *xn_metric_label(const struct xn_metric *metric, const char *label, char *ret, size_t capacity)
{
    const struct xn_metric_label *l = find(metric, label);

    snprintf(ret, capacity, "%.*s", l ? (int)XN_MIN(l->value_bytes, capacity) : 0, l ? l->value : "");
    return ret;
}

bool xn_metric_has(const struct xn_metric *metric, const char *label, const char *value)
{
    const struct xn_metric_label *l = find(metric, label);

    return l && strlen(value) == l->value_bytes && memcmp(l->value, value, l->value_bytes) == 0;
}

double xn_metrics_sum(const char *text, const char *name, const char *label, const char *value, size_t *ret_n)
{
    struct xn_metric metric;
    double sum = 0;
    size_t n = 0;

    while (xn_metric_next(&text, &metric)) {
        if (!xn_metric_is(&metric, name) || (label && !xn_metric_has(&metric, label, value)))
            continue;
        sum += metric.value;
        n++;
    }
    if (ret_n)
        *ret_n = n;
    return sum;
}
