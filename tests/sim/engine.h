/* SPDX-License-Identifier: Apache-2.0
 * The state of one run, which engine.c moves and check.c reads. Private to the simulator. */
#ifndef XN_TESTS_SIM_ENGINE_H
#define XN_TESTS_SIM_ENGINE_H

#include "tests/sim/sim.h"

enum sim_state { SIM_FREE, SIM_ANNOUNCED, SIM_WAITING, SIM_RUNNING };

/* A model object: one of a slot and its generations. */
struct sim_object {
    struct xn_model model;
    double factor; /* of the work that the scenario says */
};

enum sim_event_kind { SIM_PUSH, SIM_LEAVE, SIM_END, SIM_HUNG, SIM_RESET, SIM_RELOAD, SIM_JUMP };

struct sim_event {
    uint64_t at_ns, order;
    enum sim_event_kind kind;
    uint32_t index; /* instance, reload or jump; SIM_LEAVE: items */
    uint64_t epoch; /* of the instance: an event of an earlier one is void */
    struct sim_item *item;
    struct xn_model *model;
};

struct sim_flight {
    struct xn_batch *batch;
    uint64_t submitted_ns, exec_ns;
    bool hung;
};

struct sim_instance {
    struct sim_random random;
    bool healthy;
    struct sim_flight flights[XN_ACCEL_INFLIGHT_MAX]; /* a ring, oldest at `first` */
    uint32_t first, n_flights;
    uint64_t busy_until_ns; /* as it will be */
    uint64_t expected_free_ns,
        expected_left_ns; /* when all that runs should have ended, and what it takes in all, by what the policy knew when each batch started */
    uint64_t epoch, reset_pause_ns;
};

struct sim {
    const struct sim_scenario *scenario;
    const struct sim_trace *trace;
    const struct sim_policy *policy;
    const struct sim_options *options;
    struct sim_result *result;
    void *state; /* the policy's */

    uint64_t now_ns;
    uint64_t stalled_until_ns,
        shift_ns; /* of jumps: the process sees nothing before; all that is to come is later by */
    uint64_t wake_ns;
    size_t next_arrival;
    struct sim_event *events; /* a binary heap by (at_ns, order) */
    size_t n_events, events_capacity;
    uint64_t event_order;

    struct sim_object *objects; /* [n_models + n_reloads] */
    uint32_t n_objects;
    struct xn_model *current[SIM_MODELS_MAX];
    struct sim_instance *instances;

    struct sim_item *items; /* a pool: [n_items] */
    size_t n_items, fresh;
    struct sim_item *free_items;
    uint64_t numbers;

    uint32_t waiting[SIM_MODELS_MAX], announced[SIM_MODELS_MAX], waiting_total, announced_total, running_instances;
    uint64_t open; /* admitted items not yet given back by the policy */
    struct sim_record *records;
    size_t n_records, records_capacity;

    /* For check.c. */
    uint32_t deepest;       /* the most that ever waited */
    double joules_expected; /* of all batches, as was expected */
    double joules_largest;  /* of one batch */
    double running_watts;
    uint64_t checks;
    double starved_ns;                   /* the longest that an item without deadline waited after it was due */
    uint64_t useless_wakes, hasty_wakes; /* in a row; of them those that are to be followed by another one at once */
};

/* Say what does not hold; the first one stays, and ends the run. */
void sim_violate(struct sim *sim, const char *format, ...) XN_PRINTF(2, 3);

static inline bool sim_violated(const struct sim *sim)
{
    return sim->result->violation[0] != '\0';
}

static inline const struct sim_object *sim_object_of(const struct xn_model *model)
{
    return (const struct sim_object *)(const void *)model; /* `model` is its first member */
}

/* A batch that the policy has just given out to start now. */
void sim_check_batch(struct sim *sim, const struct xn_batch *batch);
/* An item has got its answer. */
void sim_check_answer(struct sim *sim, const struct sim_item *item, enum sim_outcome outcome);
/* Nothing is left to start now. */
void sim_check_settled(struct sim *sim);
/* Everything is over. Errors: -ENOMEM. */
XN_MUST_CHECK int sim_check_end(struct sim *sim);

#endif
