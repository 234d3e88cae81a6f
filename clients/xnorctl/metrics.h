/* SPDX-License-Identifier: Apache-2.0
 * The text of GET /metrics, as much of it as xnorctl asks for: sums over series, by labels. docs/metrics.md says what each family
 * means. Pure. */
#ifndef XN_CLIENTS_XNORCTL_METRICS_H
#define XN_CLIENTS_XNORCTL_METRICS_H

#include "common/macros.h"

#define XN_METRIC_LABELS_MAX 8u

struct xn_metric_label {
    const char *name, *value; /**< not unescaped: no label of xnord needs it */
    size_t name_bytes, value_bytes;
};

/** One sample. Points into the text. */
struct xn_metric {
    const char *name;
    size_t name_bytes;
    struct xn_metric_label labels[XN_METRIC_LABELS_MAX];
    size_t n_labels;
    double value;
};

/** The next sample at *at, which moves behind it; comments and lines that are none are passed over. False at the end. */
bool xn_metric_next(const char **at, struct xn_metric *ret);
/** Is it of this family? */
bool xn_metric_is(const struct xn_metric *metric, const char *name);
/** The value of its label in `ret` of `capacity` bytes ("" where it has none, cut where it is longer). Returns ret. */
const char *xn_metric_label(const struct xn_metric *metric, const char *label, char *ret, size_t capacity);
/** Does its label have this value? */
bool xn_metric_has(const struct xn_metric *metric, const char *label, const char *value);

/** Sum over the family's samples; `label` (may be NULL) must have `value`. *ret_n, where not NULL, is how many there were:
 *  a sum of none is absent, not 0. */
double xn_metrics_sum(const char *text, const char *name, const char *label, const char *value, size_t *ret_n);

#endif
