/* SPDX-License-Identifier: Apache-2.0
 * The confusion table. */
#include "clients/xnorctl/score.h"

#include <assert.h>
#include <stdlib.h>

#include "clients/xnorctl/ctl.h"

void xn_score_init(struct xn_score *score, uint32_t n)
{
    *score = (struct xn_score){.n = n, .table = xn_ctl_alloc((size_t)n * n, sizeof(*score->table))};
}

void xn_score_done(struct xn_score *score)
{
    free(score->table);
    *score = (struct xn_score){0};
}

void xn_score_add(struct xn_score *score, uint32_t truth, uint32_t answer)
{
    assert(truth < score->n && answer < score->n);
    score->table[(size_t)truth * score->n + answer]++;
    score->answered++;
    score->correct += truth == answer;
}

uint64_t xn_score_of_class(const struct xn_score *score, uint32_t class_index)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < score->n; i++)
        sum += xn_score_at(score, class_index, i);
    return sum;
}

uint64_t xn_score_taken_for(const struct xn_score *score, uint32_t class_index)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < score->n; i++)
        sum += xn_score_at(score, i, class_index);
    return sum;
}

static bool divide(uint64_t part, uint64_t whole, double *ret)
{
    if (whole == 0)
        return false;
    *ret = (double)part / (double)whole;
    return true;
}

bool xn_score_precision(const struct xn_score *score, uint32_t class_index, double *ret)
{
    return divide(xn_score_at(score, class_index, class_index), xn_score_taken_for(score, class_index), ret);
}

bool xn_score_recall(const struct xn_score *score, uint32_t class_index, double *ret)
{
    return divide(xn_score_at(score, class_index, class_index), xn_score_of_class(score, class_index), ret);
}
