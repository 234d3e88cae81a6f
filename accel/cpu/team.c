/* SPDX-License-Identifier: Apache-2.0
 * A batch is a counter. Whoever wants a piece takes the next number; past the end there is none left. To stop a batch is to set
 * the counter past the end.
 *
 *     begin:  fill batch, open, epoch + 1 ─────► helper: sees a new epoch while open, joins (active + 1), takes pieces,
 *     finish: take pieces, close, wait for active 0 ◄──── leaves (active - 1)
 *
 * Helpers join and leave under `lock`, so that after close and active == 0 none reads the batch any more, however late it woke.
 * Between batches a helper spins for a moment, since the next batch of a busy server is near, and then parks.
 */
#include "accel/cpu/team.h"
#include "common/clock.h"
#include "common/fault.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 1000 /* looks at an atomic, tens of microseconds in all */

struct helper {
    pthread_t thread;
    struct xn_cpu_team *team;
    uint32_t index; /* 1.. */
};

struct xn_cpu_team {
    /* The batch: written by begin while no helper is in it. */
    xn_cpu_team_fn *fn;
    void *context;
    uint32_t n;
    XN_ALIGNED(XN_CACHE_LINE) _Atomic uint32_t next; /* piece to take next; relaxed: the lock orders the batch itself */

    XN_ALIGNED(XN_CACHE_LINE) pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work, idle;
    /* Written under the lock, which orders them; read without it only to spin, so relaxed. */
    _Atomic uint32_t epoch;  /* batches opened */
    _Atomic uint32_t active; /* helpers in the batch */
    uint32_t sleeping;
    bool open, quit;

    uint32_t n_helpers;
    struct helper helpers[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool take_piece(struct xn_cpu_team *team, uint32_t *ret_i)
{
    /* The look before the count keeps the counter from wrapping, however often it is asked. */
    if (atomic_load_explicit(&team->next, memory_order_relaxed) >= team->n)
        return false;
    *ret_i = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
    return *ret_i < team->n;
}

/** Wait for a batch that is not `*seen`, and join it. False: the team is being freed. */
static bool join_batch(struct xn_cpu_team *team, uint32_t *seen)
{
    for (int i = 0; i < SPINS && atomic_load_explicit(&team->epoch, memory_order_relaxed) == *seen; i++)
        relax();

    pthread_mutex_lock(&team->lock);
    team->sleeping++;
    while (!team->quit && !(team->open && atomic_load_explicit(&team->epoch, memory_order_relaxed) != *seen))
        pthread_cond_wait(&team->work, &team->lock);
    team->sleeping--;
    const bool joined = !team->quit;
    if (joined) {
        *seen = atomic_load_explicit(&team->epoch, memory_order_relaxed);
        atomic_fetch_add_explicit(&team->active, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&team->lock);
    return joined;
}

static void leave_batch(struct xn_cpu_team *team)
{
    pthread_mutex_lock(&team->lock);
    if (atomic_fetch_sub_explicit(&team->active, 1, memory_order_relaxed) == 1)
        pthread_cond_signal(&team->idle);
    pthread_mutex_unlock(&team->lock);
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    struct xn_cpu_team *team = helper->team;
    uint32_t seen = 0, i;

    while (join_batch(team, &seen)) {
        while (take_piece(team, &i))
            team->fn(team->context, helper->index, i);
        leave_batch(team);
    }
    return NULL;
}

static void set_batch(struct xn_cpu_team *team, xn_cpu_team_fn *fn, void *context, uint32_t n)
{
    team->fn = fn;
    team->context = context;
    team->n = n;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
}

void xn_cpu_team_begin(struct xn_cpu_team *team, xn_cpu_team_fn *fn, void *context, uint32_t n)
{
    if (team->n_helpers == 0) { /* nobody to agree with */
        set_batch(team, fn, context, n);
        return;
    }
    pthread_mutex_lock(&team->lock);
    set_batch(team, fn, context, n);
    atomic_fetch_add_explicit(&team->epoch, 1, memory_order_relaxed);
    team->open = n > 1; /* a single piece is sooner done by the caller than handed over */
    const uint32_t wake = XN_MIN(team->sleeping, n - 1);
    pthread_mutex_unlock(&team->lock);
    for (uint32_t i = 0; i < wake; i++)
        pthread_cond_signal(&team->work);
}

/** No pieces from now on. True when some had not been begun. */
static bool stop_batch(struct xn_cpu_team *team)
{
    return atomic_exchange_explicit(&team->next, team->n, memory_order_relaxed) < team->n;
}

int xn_cpu_team_finish(struct xn_cpu_team *team, uint64_t deadline_ns)
{
    bool late = false;
    uint32_t i;

    while (!(late = deadline_ns != XN_NEVER_NS && xn_clock_now_ns() >= deadline_ns) && take_piece(team, &i))
        team->fn(team->context, 0, i);
    const bool cut = late && stop_batch(team);

    if (team->n_helpers == 0)
        return cut ? -ETIMEDOUT : 0;
    /* Every piece has been begun or never will be: helpers end within one. */
    pthread_mutex_lock(&team->lock);
    team->open = false;
    pthread_mutex_unlock(&team->lock);
    for (int s = 0; s < SPINS && atomic_load_explicit(&team->active, memory_order_relaxed) > 0; s++)
        relax();
    pthread_mutex_lock(&team->lock);
    while (atomic_load_explicit(&team->active, memory_order_relaxed) > 0)
        pthread_cond_wait(&team->idle, &team->lock);
    pthread_mutex_unlock(&team->lock);
    return cut ? -ETIMEDOUT : 0;
}

/* ---- gate ------------------------------------------------------------------------------------------------------------- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    (void)syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void xn_cpu_gate_wait(struct xn_cpu_gate *gate, uint32_t count)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&gate->done, memory_order_acquire) >= count) /* pairs with pass */
            return;
        relax();
    }
    /* Sequentially consistent, here and in pass: either this sees the last piece done, or pass sees the sleeper. */
    atomic_fetch_add(&gate->sleepers, 1);
    for (uint32_t done; (done = atomic_load(&gate->done)) < count;)
        futex(&gate->done, FUTEX_WAIT, done);
    atomic_fetch_sub(&gate->sleepers, 1);
}

void xn_cpu_gate_pass(struct xn_cpu_gate *gate)
{
    atomic_fetch_add(&gate->done, 1);
    if (atomic_load(&gate->sleepers) > 0)
        futex(&gate->done, FUTEX_WAKE, INT32_MAX);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static int start_helper(struct xn_cpu_team *team, uint32_t instance, uint32_t index)
{
    struct helper *helper = &team->helpers[index - 1];
    sigset_t all, before;
    char name[16];

    helper->team = team;
    helper->index = index;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the process's own threads */
    int r = pthread_create(&helper->thread, NULL, helper_main, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r)
        return -r;
    snprintf(name, sizeof(name), "xn-cpu%u-%u", instance % 1000, index % 1000);
    pthread_setname_np(helper->thread, name);
    team->n_helpers++;
    return 0;
}

int xn_cpu_team_new(uint32_t instance, uint32_t helpers, struct xn_cpu_team **ret_team, struct xn_error *error)
{
    const size_t bytes = sizeof(struct xn_cpu_team) + helpers * sizeof(struct helper);
    struct xn_cpu_team *team = xn_calloc_aligned(1, bytes);
    if (!team)
        return xn_error_set(error, -ENOMEM, "cpu%u: no memory for %u threads", instance, helpers + 1);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->idle, NULL);
    for (uint32_t i = 1; i <= helpers; i++) {
        int r = start_helper(team, instance, i);
        if (r < 0) {
            xn_cpu_team_free(team);
            return xn_error_set(error, r, "cpu%u: cannot start thread %u of %u: %s; ask for fewer threads", instance,
                                i + 1, helpers + 1, strerror(-r));
        }
    }
    *ret_team = team;
    return 0;
}

void xn_cpu_team_free(struct xn_cpu_team *team)
{
    if (!team)
        return;
    pthread_mutex_lock(&team->lock);
    team->quit = true;
    pthread_mutex_unlock(&team->lock);
    pthread_cond_broadcast(&team->work);
    for (uint32_t i = 0; i < team->n_helpers; i++)
        pthread_join(team->helpers[i].thread, NULL);
    pthread_cond_destroy(&team->idle);
    pthread_cond_destroy(&team->work);
    pthread_mutex_destroy(&team->lock);
    free(team);
}
