/* SPDX-License-Identifier: Apache-2.0
 * What the parsers of bodies and the writers of answers need, without a server: a model, an instance, a pool of requests. */
#ifndef XN_TESTS_SUPPORT_HTTP_BED_H
#define XN_TESTS_SUPPORT_HTTP_BED_H

#include "daemon/http/internal.h"

#define BED_IMAGES_MAX   8u
#define BED_BODY_BYTES   (1u << 20)
#define BED_CLASSES_MAX  2000u
#define BED_REGION       "r"   /**< a shared memory region */
#define BED_REGION_BYTES 1000u /**< its size */

struct http_bed {
    struct xn_config config;
    struct xn_network network;
    struct xn_layer logits;
    struct xn_model model;
    struct xn_instances instances;
    struct xn_http http;
    struct xn_requests *requests;
    struct xn_regions *regions;
    struct xn_region *region; /**< BED_REGION, a reference */
    struct xn_call call;      /**< of the request under way */
};

/** A model "bed", version "7", [4][3][2] uint8 pictures (two channels decode nowhere, which no parser minds), input "pixels", 5 classes without
 *  labels. Change bed->network as the test needs it before the first request. Running out of memory ends the test. */
void http_bed_init(struct http_bed *bed);
void http_bed_done(struct http_bed *bed);

/** Start a request whose body lies in memory of exactly `bytes`. Ends the one before. bed->call.request is it. */
void http_bed_request(struct http_bed *bed, const void *body, size_t bytes);
void http_bed_end(struct http_bed *bed);

/** True where what a successful parse left is sound: every item has either a picture in the body, or a tensor in the body, in the request's
 *  own memory or in the region, which the request holds then; and outputs that go to the region have room there. */
bool http_bed_items_are_sound(const struct http_bed *bed);

#endif
