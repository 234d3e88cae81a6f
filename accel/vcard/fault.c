/* SPDX-License-Identifier: Apache-2.0
 * Every so many: exactly without a seed, which tests count on; with one, at distances of 1..2n-1, all as likely. */
#include "accel/vcard/fault.h"

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/** splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += GOLDEN;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t distance(struct xn_vcard_fault_state *state, const struct xn_vcard_options *options, size_t kind)
{
    const uint64_t every = options->fault_every[kind];

    return every > 1 && options->seed ? 1 + next_random(&state->random) % (2 * every - 1) : every;
}

void xn_vcard_faults_init(struct xn_vcard_fault_state *state, const struct xn_vcard_options *options, uint64_t salt)
{
    state->random = options->seed + salt * GOLDEN;
    for (size_t kind = 0; kind < XN_VCARD_FAULTS; kind++)
        state->left[kind] = distance(state, options, kind);
}

bool xn_vcard_fault_due(struct xn_vcard_fault_state *state, const struct xn_vcard_options *options,
                        enum xn_vcard_fault kind)
{
    if (state->left[kind] == 0 || --state->left[kind] > 0)
        return false;
    state->left[kind] = distance(state, options, kind);
    return true;
}
