/* SPDX-License-Identifier: Apache-2.0
 * A batch is a row of stages, a stage a number of pieces. One word, `turn`, says which stage is open and which of its pieces nobody has taken:
 *
 *     begin:  stage 0 opens, the caller holds its first piece
 *     take:   a piece off one end of `turn`, by compare-and-swap
 *     pass:   one less unfinished; who brings that to 0 opens the next stage and holds its first piece, or closes the batch
 *
 * Whoever holds nothing is owed nothing: it reads `turn` and its own helper, no more. So there is no joining and no leaving, a thread that the
 * system has taken off its processor delays the piece that it holds, if it holds one, and never the batch, and a swap that succeeds has
 * always taken a piece of the batch that is open, however old the look before it. What a piece wrote is visible in all later stages: `unfinished`
 * is counted down with acquire and release, `turn` is stored with release and read with acquire.
 *
 * Even threads take pieces from the front, odd ones from the back: of two threads each mostly finds in its cache what it wrote a stage ago.
 *
 * Who waits spins for a moment and then sleeps on a bell. A helper whose batches follow one another closely spins until the next is due, but
 * gives its processor to whoever else wants it.
 */
#include "accel/cpu/team.h"
#include "common/clock.h"
#include "common/fault.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOKS       64               /* between two looks at the clock, microseconds in all */
#define SPIN_NS     UINT64_C(50000)  /* about what it takes to wake a thread on a virtual processor that was halted */
#define PATIENCE_NS UINT64_C(300000) /* for the next batch, where the last one came so soon */

/** Where threads sleep. Sequentially consistent: either who sleeps sees what it waits for, or who rings sees the sleeper. */
struct bell {
    _Atomic uint32_t rings, sleepers;
};

struct helper {
    pthread_t thread;
    struct xn_cpu_team *team;
    uint32_t index; /* 1.. */
};

struct xn_cpu_team {
    XN_ALIGNED(XN_CACHE_LINE) _Atomic uint64_t turn;       /* see turn_of */
    XN_ALIGNED(XN_CACHE_LINE) _Atomic uint32_t unfinished; /* pieces of the open stage */
    /* The batch: written by begin, read by who holds a piece, which `turn` orders. */
    XN_ALIGNED(XN_CACHE_LINE) struct xn_cpu_batch batch;
    _Atomic bool stop; /* begin no more pieces */
    _Atomic bool cut;  /* some were not begun */

    XN_ALIGNED(XN_CACHE_LINE) struct bell helpers_bell, caller_bell;
    _Atomic uint64_t patience_ns; /* a hint, relaxed */
    _Atomic bool quit;
    uint64_t ended_ns; /* the caller's: when the last batch was over */

    uint32_t n_helpers;
    struct helper helpers[];
};

struct piece {
    uint32_t stage, i;
};

/* ---- turn ------------------------------------------------------------------------------------------------------------- */

/** Stage `stage` is open, and its pieces from..to-1 are to be had. */
static uint64_t turn_of(uint32_t stage, uint32_t from, uint32_t to)
{
    return (uint64_t)stage << 32 | from << 16 | to;
}
static uint32_t turn_stage(uint64_t turn)
{
    return (uint32_t)(turn >> 32);
}
static uint32_t turn_from(uint64_t turn)
{
    return (uint32_t)(turn >> 16 & UINT16_MAX);
}
static uint32_t turn_to(uint64_t turn)
{
    return (uint32_t)(turn & UINT16_MAX);
}
static bool has_pieces(uint64_t turn)
{
    return turn_from(turn) < turn_to(turn);
}

/* ---- bells ------------------------------------------------------------------------------------------------------------ */

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    (void)syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void ring(struct bell *bell, uint32_t most)
{
    if (most == 0 || atomic_load(&bell->sleepers) == 0)
        return;
    atomic_fetch_add(&bell->rings, 1);
    futex(&bell->rings, FUTEX_WAKE, most);
}

typedef bool ready_fn(struct xn_cpu_team *team);

static bool spin(struct xn_cpu_team *team, ready_fn *ready, uint64_t patience_ns)
{
    const uint64_t start_ns = xn_clock_now_ns();

    for (uint64_t spent_ns = 0; spent_ns < SPIN_NS || spent_ns < patience_ns; spent_ns = xn_clock_now_ns() - start_ns) {
        for (int i = 0; i < LOOKS; i++) {
            if (ready(team))
                return true;
            relax();
        }
        if (spent_ns >= SPIN_NS)
            sched_yield();
    }
    return false;
}

static void await(struct xn_cpu_team *team, ready_fn *ready, uint64_t patience_ns, struct bell *bell)
{
    if (ready(team) || spin(team, ready, patience_ns))
        return;
    atomic_fetch_add(&bell->sleepers, 1);
    for (;;) {
        const uint32_t rings = atomic_load(&bell->rings);
        if (ready(team))
            break;
        futex(&bell->rings, FUTEX_WAIT, rings);
    }
    atomic_fetch_sub(&bell->sleepers, 1);
}

static bool helper_ready(struct xn_cpu_team *team)
{
    return has_pieces(atomic_load(&team->turn)) || atomic_load(&team->quit);
}

static bool caller_ready(struct xn_cpu_team *team)
{
    const uint64_t turn = atomic_load(&team->turn);
    return has_pieces(turn) || turn_stage(turn) == team->batch.stages;
}

/* ---- pieces ----------------------------------------------------------------------------------------------------------- */

/** A piece of the open stage. False: there is none now. */
static bool take(struct xn_cpu_team *team, uint32_t thread, struct piece *ret_piece)
{
    uint64_t turn = atomic_load_explicit(&team->turn, memory_order_acquire); /* pairs with open_stage */

    while (has_pieces(turn)) {
        const uint32_t from = turn_from(turn), to = turn_to(turn), back = thread % 2;
        const uint64_t rest = turn_of(turn_stage(turn), from + !back, to - back);
        if (atomic_compare_exchange_weak_explicit(&team->turn, &turn, rest, memory_order_acquire,
                                                  memory_order_acquire)) {
            *ret_piece = (struct piece){turn_stage(turn), back ? to - 1 : from};
            return true;
        }
    }
    return false;
}

/** Open `stage` but for its first piece (of even threads; of odd ones its last), which the caller holds from now on. */
static void open_stage(struct xn_cpu_team *team, uint32_t thread, uint32_t stage, struct piece *ret_piece)
{
    const uint32_t n = team->batch.pieces[stage % team->batch.period], back = thread % 2;

    assert(n > 0 && n <= UINT16_MAX);
    atomic_store_explicit(&team->unfinished, n, memory_order_relaxed);
    atomic_store(&team->turn, turn_of(stage, !back, n - back));
    *ret_piece = (struct piece){stage, back ? n - 1 : 0};
    ring(&team->helpers_bell, n - 1);
    if (thread > 0)
        ring(&team->caller_bell, n - 1);
}

static void close_batch(struct xn_cpu_team *team, uint32_t thread, uint32_t stages)
{
    atomic_store(&team->turn, turn_of(stages, 0, 0));
    if (thread > 0) /* the team outlives its batch */
        ring(&team->caller_bell, 1);
}

/** A piece is done. True: it was the stage's last, and `piece` is now one of the next stage. */
static bool pass(struct xn_cpu_team *team, uint32_t thread, struct piece *piece)
{
    if (atomic_fetch_sub_explicit(&team->unfinished, 1, memory_order_acq_rel) > 1)
        return false;
    const uint32_t stages = team->batch.stages;
    if (piece->stage + 1 < stages && !atomic_load_explicit(&team->stop, memory_order_relaxed)) {
        open_stage(team, thread, piece->stage + 1, piece);
        return true;
    }
    if (piece->stage + 1 < stages)
        atomic_store_explicit(&team->cut, true, memory_order_relaxed); /* close_batch publishes it */
    close_batch(team, thread, stages);
    return false;
}

/** The piece at hand, and those of next stages that come to hand with it. */
static void run(struct xn_cpu_team *team, uint32_t thread, struct piece piece, uint64_t deadline_ns)
{
    do {
        if (deadline_ns != XN_NEVER_NS && xn_clock_now_ns() >= deadline_ns)
            atomic_store_explicit(&team->stop, true, memory_order_relaxed);
        if (atomic_load_explicit(&team->stop, memory_order_relaxed))
            atomic_store_explicit(&team->cut, true, memory_order_relaxed); /* pass publishes it */
        else
            team->batch.fn(team->batch.context, thread, piece.stage, piece.i);
    } while (pass(team, thread, &piece));
}

static void *helper_main(void *argument)
{
    const struct helper *helper = argument;
    struct xn_cpu_team *team = helper->team;
    struct piece piece;

    while (!atomic_load(&team->quit)) {
        if (take(team, helper->index, &piece))
            run(team, helper->index, piece, XN_NEVER_NS);
        else
            await(team, helper_ready, atomic_load_explicit(&team->patience_ns, memory_order_relaxed),
                  &team->helpers_bell);
    }
    return NULL;
}

/** The caller's next piece, once there is one. False: the batch is over. */
static bool next_piece(struct xn_cpu_team *team, struct piece *ret_piece)
{
    while (!take(team, 0, ret_piece)) {
        await(team, caller_ready, 0, &team->caller_bell);
        if (turn_stage(atomic_load_explicit(&team->turn, memory_order_acquire)) == team->batch.stages)
            return false;
    }
    return true;
}

void xn_cpu_team_begin(struct xn_cpu_team *team, const struct xn_cpu_batch *batch)
{
    struct piece first; /* finish runs it */
    const bool soon = xn_clock_now_ns() - team->ended_ns < PATIENCE_NS;

    assert(batch->stages > 0 && batch->period > 0);
    atomic_store_explicit(&team->patience_ns, soon ? PATIENCE_NS : 0, memory_order_relaxed);
    team->batch = *batch;
    atomic_store_explicit(&team->stop, false, memory_order_relaxed);
    atomic_store_explicit(&team->cut, false, memory_order_relaxed);
    open_stage(team, 0, 0, &first);
}

int xn_cpu_team_finish(struct xn_cpu_team *team, uint64_t deadline_ns)
{
    struct piece piece = {0, 0}; /* begin took it */

    do
        run(team, 0, piece, deadline_ns);
    while (next_piece(team, &piece));
    team->ended_ns = xn_clock_now_ns();
    return atomic_load_explicit(&team->cut, memory_order_relaxed) ? -ETIMEDOUT : 0;
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
    atomic_store(&team->quit, true);
    ring(&team->helpers_bell, INT32_MAX);
    for (uint32_t i = 0; i < team->n_helpers; i++)
        pthread_join(team->helpers[i].thread, NULL);
    free(team);
}
