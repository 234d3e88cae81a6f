/* SPDX-License-Identifier: Apache-2.0
 * An accelerator whose every step is the test's: jobs end when they are let, fail or hang on demand, and never by the clock. It answers logit
 * k = first input byte + k, so that results can be told apart. */
#ifndef XN_TESTS_SUPPORT_FAKE_ACCEL_H
#define XN_TESTS_SUPPORT_FAKE_ACCEL_H

#include "daemon/request.h"

#define FAKE_FOREVER UINT32_MAX
#define FAKE_CLASSES 3u

/** A healthy instance that ends each job at once. Owner: caller, fake_accel_free. */
struct xn_accel *fake_accel_new(const char *name, uint32_t inflight_max);
void fake_accel_free(struct xn_accel *accel);

/** The next `n` jobs that are waited for fail with `status`: -EIO, or -ETIMEDOUT as if it hung until its deadline. */
void fake_accel_fail(struct xn_accel *accel, uint32_t n, int status);
/** The next `n` resets fail. */
void fake_accel_fail_resets(struct xn_accel *accel, uint32_t n);
/** From now on jobs end only when permitted; fake_accel_permit lets `n` more end (FAKE_FOREVER: all, ever). */
void fake_accel_hold(struct xn_accel *accel);
void fake_accel_permit(struct xn_accel *accel, uint32_t n);
/** It predicts `ns` for every batch (0, as at first: nothing). */
void fake_accel_predict(struct xn_accel *accel, uint64_t ns);
/** Block until `n` jobs have been submitted, or until `n` resets have been tried, since the start. */
void fake_accel_await_submitted(struct xn_accel *accel, uint32_t n);
void fake_accel_await_resets(struct xn_accel *accel, uint32_t n);
uint32_t fake_accel_submitted(struct xn_accel *accel);
/** Models loaded and not unloaded. */
uint32_t fake_accel_loaded(struct xn_accel *accel);

/** A model on all `instances`, with FAKE_CLASSES classes and a one-byte input. Its memory is the caller's. */
void fake_model_init(struct xn_model *model, struct xn_network *network, struct xn_instances *instances, uint32_t slot,
                     uint32_t max_batch, uint32_t max_delay_us);

#endif
