/* SPDX-License-Identifier: Apache-2.0
 * A deterministic simulator of a serving fleet. Time is virtual, events come from a trace that a seed gives, and what decides is a policy: the daemon's own
 * batcher and scheduler (daemon/sched, the very same code), or a peer's, written anew here (peers.c).
 *
 *     scenario.c   what is simulated: models, fleet, streams of requests, faults; by name, or at random from a seed
 *     trace.c      the arrivals of a scenario
 *     engine.c     the events of one run, and what becomes of each item
 *     check.c      what must hold at every step
 *     clairvoyant.c what one who knows the future would reach on the same trace
 *     xnord.c, peers.c   the policies
 *     compare.c    policies beside one another on the same traces, each at its best setting
 *
 * Threads: none. Nothing here reads a clock: the same scenario and trace give the same run, event for event. */
#ifndef XN_TESTS_SIM_SIM_H
#define XN_TESTS_SIM_SIM_H

#include <stdio.h>

#include "common/clock.h"
#include "common/heap.h"
#include "daemon/sched/sched.h"
#include "tests/sim/random.h"

#define SIM_MODELS_MAX  8u
#define SIM_STREAMS_MAX 32u
#define SIM_CLIENTS_MAX 32u
#define SIM_RELOADS_MAX 8u
#define SIM_JUMPS_MAX   4u

/* ---- what is simulated -------------------------------------------------------------------------------------------- */

struct sim_model {
    uint32_t max_batch, max_delay_us, queue_limit;
    uint32_t preferred; /**< a preferred batch; 0: none */
    double work;        /**< of an image, in those of the devices */
    uint32_t every;     /**< instances 0, every, 2 every, ... have it */
};

/** A batch of n images takes fixed_ns + n * image_ns * work, more or less. */
struct sim_device {
    double fixed_ns, image_ns;
    uint32_t inflight;
    double watts; /**< above idle while it runs */
};

enum sim_process {
    SIM_POISSON,
    SIM_BURSTY,  /**< Poisson while on, nothing while off; both last exponentially */
    SIM_DIURNAL, /**< Poisson, the rate a sine from 0 to twice the average */
    SIM_VOLLEY   /**< `volley` requests at once, each period */
};

/** What one client asks of one model. */
struct sim_stream {
    enum sim_process process;
    double rate;                  /**< requests a second, on average; not of volleys */
    double on_ns, on_share;       /**< bursty: how long a burst is, what share of the time */
    uint64_t period_ns, phase_ns; /**< diurnal and volley */
    uint32_t volley;
    uint32_t client, model;
    uint8_t priority;
    uint32_t items_max;   /**< of a request: 1..items_max */
    uint64_t relative_ns; /**< deadline, from arrival; XN_NEVER_NS: none */
    double spread;        /**< the deadline is up to so many times longer */
    double decode_ns;     /**< average time between announcement and push of an item; 0: at once */
    double gone_share;    /**< of requests whose items are announced and do not come */
};

struct sim_jump {
    uint64_t at_ns, by_ns;
    bool stall; /**< the process alone stood still: devices and clients went on. Else the whole machine did */
};

struct sim_scenario {
    char name[48];
    uint64_t seed, duration_ns;
    uint32_t n_models, n_instances, n_streams, n_jumps, n_reloads;
    struct sim_model models[SIM_MODELS_MAX];
    struct sim_device *devices; /**< [n_instances] */
    struct sim_stream streams[SIM_STREAMS_MAX];
    struct sim_jump jumps[SIM_JUMPS_MAX];
    struct {
        uint64_t at_ns;
        uint32_t model;
        double factor; /**< of its work, to what it was */
    } reloads[SIM_RELOADS_MAX];
    double noise;                     /**< relative spread of times */
    double stall_share, stall_factor; /**< batches that take so many times longer */
    double hang_share;                /**< batches that never end */
    bool warm;                        /**< costs are observed before the first request */
    bool eager;                       /**< an instance that ends a batch asks by itself for the next one */
    uint32_t queue_total;
    double watts_cap, watts_budget;
    uint32_t eco_delay_us;
};

/** A scenario at random. It is the same for the same seed. Errors: -ENOMEM. */
XN_MUST_CHECK int sim_scenario_random(uint64_t seed, struct sim_scenario *ret_scenario);
/** A scenario of the comparison: `load` times what the fleet can do in full batches. Errors: -ENOENT (no such name), -ENOMEM. */
XN_MUST_CHECK int sim_scenario_named(const char *name, double load, uint64_t seed, struct sim_scenario *ret_scenario);
/** Names of the comparison's scenarios, NULL at the end. */
extern const char *const sim_scenario_names[];
void sim_scenario_done(struct sim_scenario *scenario);

/** Does instance `index` have model `model`? */
bool sim_has(const struct sim_scenario *scenario, uint32_t index, uint32_t model);
/** What a batch takes without noise, ns. `factor`: of the model's work. */
double sim_cost_ns(const struct sim_scenario *scenario, uint32_t index, uint32_t model, double factor, uint32_t n);
/** Fleet time of an image in full batches on all instances that have the model, ns. */
double sim_image_ns(const struct sim_scenario *scenario, uint32_t model);
/** Images a second that the fleet can do of the mix that the streams ask for. */
double sim_capacity(const struct sim_scenario *scenario);

struct sim_arrival {
    uint64_t at_ns, relative_ns;
    uint32_t client, n, order;
    uint8_t model, priority;
    bool gone;
    uint32_t decode_ns;
};

struct sim_trace {
    struct sim_arrival *arrivals; /**< by time */
    size_t n;
    uint64_t items;
};

/** Errors: -ENOMEM. */
XN_MUST_CHECK int sim_trace_new(const struct sim_scenario *scenario, struct sim_trace *ret_trace);
void sim_trace_done(struct sim_trace *trace);

/* ---- what decides ------------------------------------------------------------------------------------------------- */

/** One item, with a request of its own: what daemon/sched reads of a request is the same for all items of one. */
struct sim_item {
    struct xn_request request;
    struct xn_item item;
    uint64_t arrived_ns, number;
    uint64_t group; /**< peers: the batch that it waits in */
    uint32_t model;
    uint8_t state; /**< check.c's */
    bool answered;
    struct sim_item *next_free;
};

static inline struct sim_item *sim_item_of(struct xn_item *item)
{
    return XN_CONTAINER_OF(item, struct sim_item, item);
}

/** Settings of a policy; each reads its own. */
struct sim_knobs {
    uint32_t max_batch; /**< 0: the model's */
    double delay_ns;    /**< Triton: max_queue_delay; AMD: time-out; Clipper: batch delay */
    double
        timeout_share; /**< Triton: queue time-out, of the request's deadline; Clipper: when it is dropped, likewise. 0: never */
    double objective_share; /**< Clipper: how long a batch may run, of the request's deadline */
    double step;            /**< Clipper: additive increase */
    uint32_t queue_limit;   /**< 0: the model's */
};

struct sim_policy {
    const char *name;
    bool is_xnord; /**< daemon/sched: all invariants are checked */
    int (*create)(const struct sim_scenario *scenario, const struct sim_knobs *knobs, void **ret_state);
    void (*destroy)(void *state);
    int (*admit)(void *state, const struct xn_sched_ask *ask, uint64_t now_ns, uint64_t *ret_retry_ns);
    void (*retract)(void *state, const struct xn_model *model, uint32_t n);
    int (*push)(void *state, struct xn_item *item, uint64_t now_ns);
    void (*requeue)(void *state, struct xn_item *item);
    struct xn_batch *(*next)(void *state, uint32_t instance, uint64_t now_ns);
    void (*done)(void *state, struct xn_batch *batch, uint64_t exec_ns, int status, uint64_t now_ns);
    void (*observe)(void *state, const struct xn_model *model, uint32_t instance, uint32_t n, uint64_t exec_ns);
    uint32_t (*expire)(void *state, uint64_t now_ns, struct xn_expired *ret_expired, uint32_t max);
    uint32_t (*ready)(void *state, uint64_t now_ns, uint32_t *ret_instances, uint32_t max);
    uint64_t (*wake)(void *state, uint64_t now_ns);
    void (*set_healthy)(void *state, uint32_t instance, bool healthy);
    bool (*can_run)(void *state, const struct xn_model *model);
    uint32_t (*depth)(void *state, uint32_t slot);
};

extern const struct sim_policy sim_xnord, sim_triton, sim_clipper, sim_amd;

/** What daemon/sched expects of `n` images; 0: nothing measured. `state` is sim_xnord's. */
uint64_t sim_xnord_expects_ns(void *state, uint32_t slot, uint32_t instance, uint32_t n);

/* ---- a run -------------------------------------------------------------------------------------------------------- */

enum sim_outcome {
    SIM_DONE,    /**< before its deadline */
    SIM_LATE,    /**< run to the end, after its deadline (peers) */
    SIM_EXPIRED, /**< given up, in the queue or while it ran */
    SIM_REFUSED, /**< not admitted */
    SIM_FAILED,  /**< its instance failed, and there was no other */
    SIM_GONE,    /**< announced, and the client went */
    SIM_OUTCOMES
};

const char *sim_outcome_name(enum sim_outcome outcome);

/** What became of one item that was admitted and came. */
struct sim_record {
    uint64_t pushed_ns, due_ns, deadline_ns, answered_ns;
    uint32_t model;
    uint8_t outcome;
    bool retried;
};

#define SIM_LATENCY_BUCKETS 2048u

struct sim_result {
    uint64_t items, outcomes[SIM_OUTCOMES];
    uint64_t client_done[SIM_CLIENTS_MAX], client_items[SIM_CLIENTS_MAX], model_done[SIM_MODELS_MAX];
    uint64_t batches, images;
    uint64_t refused_full, refused_time, refused_share;
    uint64_t latency[SIM_LATENCY_BUCKETS]; /**< of what ran to the end */
    uint64_t end_ns;                       /**< when all was answered */
    uint64_t hash;                         /**< of the event log */
    uint64_t steps, wakes, idle_wakes;
    double joules;
    double starved;      /**< the longest that an item without deadline waited after it was due, of the bound */
    char violation[320]; /**< "": none */
};

struct sim_options {
    FILE *log;  /**< print each event; NULL: no */
    bool check; /**< invariants */
};

/** Run `trace` under `policy`. The return value is of errors of the simulator (-ENOMEM); violations are in the result. */
XN_MUST_CHECK int sim_run(const struct sim_scenario *scenario, const struct sim_trace *trace,
                          const struct sim_policy *policy, const struct sim_knobs *knobs,
                          const struct sim_options *options, struct sim_result *ret_result);

/** The latency that `share` of what ran to the end kept, ns (to 1.6 %). */
double sim_latency_ns(const struct sim_result *result, double share);

/* ---- what one who knows the future would reach -------------------------------------------------------------------- */

/** Items done before their deadline (or at all, without one) by a fleet that is one machine: full-batch speed for every image, no waiting for a batch, each instance doing what it is
 *  relatively best at. The better of earliest deadline first and least work first, each dropping what cannot be done in time any more. Errors: -ENOMEM. */
XN_MUST_CHECK int sim_clairvoyant(const struct sim_scenario *scenario, const struct sim_trace *trace,
                                  uint64_t *ret_done);

/** Of `records` the first one that was missed although that machine, at `speed` times its speed and doing everything that was admitted in the order in which it is due (earliest deadline first, with the
 *  patience of priorities), has it done `bound_ns` before its deadline; n: none. Errors: -ENOMEM. */
XN_MUST_CHECK int sim_missed(const struct sim_scenario *scenario, const struct sim_record *records, size_t n,
                             double speed, double bound_ns, size_t *ret_index);

/* ---- modes -------------------------------------------------------------------------------------------------------- */

/** Run the random scenario of `seed` under `policy` with all checks that concern it; events go to `log`, where it is not NULL. Errors: -ENOMEM. */
XN_MUST_CHECK int sim_check_seed(uint64_t seed, const struct sim_policy *policy, FILE *log,
                                 struct sim_result *ret_result);

enum sim_format { SIM_TABLE, SIM_JSON, SIM_CSV };

/** What a comparison is by: each peer's setting is the one with the most of it. */
enum sim_measure {
    SIM_ITEMS, /**< items done in time */
    SIM_WORK, /**< their work: the time that the whole fleet takes for them in full batches, of the time of the trace */
    SIM_LEAST /**< done in time of what was asked, by the client who got the least of that */
};

struct sim_comparison {
    enum sim_format format;
    const char *scenario; /**< NULL: all */
    const char *policy;   /**< NULL: all */
    enum sim_measure measure;
    const double *loads; /**< [n_loads] */
    uint32_t n_loads;
    double seconds; /**< of each trace */
    uint64_t seed;
};

/** Run the policies on the same traces and print what comes of it. Errors: -ENOMEM, -EPROTO (a policy broke a rule; the text is on stderr), -ENOENT (no such scenario). */
XN_MUST_CHECK int sim_compare(const struct sim_comparison *comparison);

/** The highest load, to 0.01, at which every client gets at least 99 % of what it asks in time, for each policy at its best setting for that load, and for the clairvoyant by all items together.
 *  Prints and fails as sim_compare does; `loads` is not read. */
XN_MUST_CHECK int sim_compare_sustained(const struct sim_comparison *comparison);

/** daemon/sched with and without saving, on the fleet of "bursty-gateway" and others: joules an inference against the load. Prints as sim_compare does. */
XN_MUST_CHECK int sim_compare_saving(const struct sim_comparison *comparison);

#endif
