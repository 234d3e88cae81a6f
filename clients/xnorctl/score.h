/* SPDX-License-Identifier: Apache-2.0
 * How often each class was taken for which: the confusion table, and what follows from it. Pure. */
#ifndef XN_CLIENTS_XNORCTL_SCORE_H
#define XN_CLIENTS_XNORCTL_SCORE_H

#include "common/macros.h"

struct xn_score {
    uint32_t n;      /**< classes */
    uint64_t *table; /**< [truth][answer] */
    uint64_t answered, correct;
};

/** `n` classes, n*n counters. Owner: caller, xn_score_done. */
void xn_score_init(struct xn_score *score, uint32_t n);
void xn_score_done(struct xn_score *score);

/** One image of class `truth` was taken for `answer`; both below n. */
void xn_score_add(struct xn_score *score, uint32_t truth, uint32_t answer);

static inline uint64_t xn_score_at(const struct xn_score *score, uint32_t truth, uint32_t answer)
{
    return score->table[(size_t)truth * score->n + answer];
}

/** Images of the class, and images that were taken for it. */
uint64_t xn_score_of_class(const struct xn_score *score, uint32_t class_index);
uint64_t xn_score_taken_for(const struct xn_score *score, uint32_t class_index);

/** Of those taken for the class, the part that was of it; of those of the class, the part taken for it. False, where there is none to divide by:
 *  the figure does not exist. */
XN_MUST_CHECK bool xn_score_precision(const struct xn_score *score, uint32_t class_index, double *ret);
XN_MUST_CHECK bool xn_score_recall(const struct xn_score *score, uint32_t class_index, double *ret);

#endif
