/* SPDX-License-Identifier: Apache-2.0
 * A line of progress on standard error. */
#include "clients/xnorctl/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clients/xnorctl/format.h"
#include "common/clock.h"

#define FIRST_NS  (XN_NS_PER_S / 2)
#define PERIOD_NS (XN_NS_PER_S / 10)
#define BAR       24

void xn_progress_init(struct xn_progress *progress, const char *what, uint64_t total)
{
    *progress = (struct xn_progress){
        .what = what, .total = total, .start_ns = xn_clock_now_ns(), .rate = true, .on = isatty(STDERR_FILENO)};
}

void xn_progress_at(struct xn_progress *progress, uint64_t done, const char *note)
{
    if (!progress->on || done == 0)
        return;
    uint64_t now_ns = xn_clock_now_ns(), past_ns = now_ns - progress->start_ns;
    if (past_ns < FIRST_NS || now_ns - progress->shown_ns < PERIOD_NS)
        return;
    progress->shown_ns = now_ns;
    double rate = (double)done * (double)XN_NS_PER_S / (double)past_ns;
    double left_s = progress->total > done ? (double)(progress->total - done) / rate : 0;
    double part = progress->total ? (double)done / (double)progress->total : 0;
    char bar[BAR + 1];
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)(XN_MIN(part, 1.0) * BAR));
    bar[BAR] = '\0';
    fprintf(stderr, "\r[%s] %3.0f%%  %s of %s %s", bar, 100 * part, xn_words_count((double)done).text,
            xn_words_count((double)progress->total).text, progress->what);
    if (progress->rate)
        fprintf(stderr, "  %s/s", xn_words_count(rate).text);
    fprintf(stderr, "  ETA %s%s%s\x1b[K", xn_words_span((uint64_t)left_s).text, *note ? "  " : "", note);
}

void xn_progress_done(struct xn_progress *progress)
{
    if (progress->on && progress->shown_ns)
        fputs("\r\x1b[K", stderr);
    progress->on = false;
}
