/* SPDX-License-Identifier: Apache-2.0
 * image/: where a picture goes (fit), what EXIF says, what the resize keeps, each allocation that fails, and the stage of threads: answers, a full queue,
 * deadlines, and shutdown with work left. That the tensors are those of training is for tests/integration/test_image.py. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <spng.h>
#include <turbojpeg.h>

#include "common/clock.h"
#include "common/fault.h"
#include "daemon/image/internal.h"
#include "daemon/image/stage.h"
#include "tests/support/fake_accel.h"

#define PICTURE_BYTES_MAX 65536u
#define MAX_PIXELS        (UINT64_C(1) << 22)

struct file {
    uint8_t data[PICTURE_BYTES_MAX];
    size_t bytes;
};

static struct xn_input_spec grey_spec(uint32_t w, uint32_t h, enum xn_resize_fit fit)
{
    return (struct xn_input_spec){.h = h,
                                  .w = w,
                                  .channels = 1,
                                  .dtype = XN_DTYPE_U8,
                                  .is_image = true,
                                  .fit = fit,
                                  .multiplier = {1},
                                  .identity = true};
}

/* A pattern that has no symmetry. */
static void paint(uint8_t *pixels, uint32_t w, uint32_t h)
{
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x++)
            pixels[y * w + x] = (uint8_t)(x * 7 + y * 31 + (x * y) % 13);
    }
}

static void make_png(struct file *file, const uint8_t *grey, uint32_t w, uint32_t h)
{
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr header = {.width = w, .height = h, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_GRAYSCALE};
    int r = 0;

    assert_non_null(png);
    spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    spng_set_ihdr(png, &header);
    assert_int_equal(spng_encode_image(png, grey, (size_t)w * h, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
    uint8_t *made = spng_get_png_buffer(png, &file->bytes, &r);
    assert_non_null(made);
    assert_true(file->bytes <= PICTURE_BYTES_MAX);
    memcpy(file->data, made, file->bytes);
    free(made);
    spng_ctx_free(png);
}

static void make_jpeg(struct file *file, const uint8_t *grey, int w, int h)
{
    tjhandle jpeg = tjInitCompress();
    unsigned char *made = NULL;
    unsigned long bytes = 0;

    assert_non_null(jpeg);
    assert_int_equal(tjCompress2(jpeg, grey, w, w, h, TJPF_GRAY, &made, &bytes, TJSAMP_GRAY, 100, 0), 0);
    assert_true(bytes <= PICTURE_BYTES_MAX);
    memcpy(file->data, made, bytes);
    file->bytes = bytes;
    tjFree(made);
    tjDestroy(jpeg);
}

static void test_sniff(void **state)
{
    (void)state;
    assert_int_equal(xn_image_sniff("\xff\xd8\xff\xe0", 4), XN_IMAGE_JPEG);
    assert_int_equal(xn_image_sniff("\xff\xd8\xff", 2), XN_IMAGE_UNKNOWN);
    assert_int_equal(xn_image_sniff("\x89PNG\r\n\x1a\n", 8), XN_IMAGE_PNG);
    assert_int_equal(xn_image_sniff("\x89PNG\r\n\x1a\n", 7), XN_IMAGE_UNKNOWN);
    assert_int_equal(xn_image_sniff("", 0), XN_IMAGE_UNKNOWN);
}

static void test_fit(void **state)
{
    static const struct {
        enum xn_resize_fit fit;
        uint32_t w, h; /* of the picture; the input is 30 x 20 */
        struct xn_placement want;
    } cases[] = {
        {XN_FIT_STRETCH, 7, 900, {0, 0, 7, 900, 30, 20, 0, 0}},
        {XN_FIT_CROP, 60, 40, {0, 0, 60, 40, 30, 20, 0, 0}},
        {XN_FIT_CROP, 61, 40, {0, 0, 60, 40, 30, 20, 0, 0}},
        {XN_FIT_CROP, 63, 40, {1, 0, 60, 40, 30, 20, 0, 0}},
        {XN_FIT_CROP, 83, 61, {0, 3, 83, 55, 30, 20, 0, 0}},
        {XN_FIT_CROP, 65535, 1, {32766, 0, 2, 1, 30, 20, 0, 0}},
        {XN_FIT_CROP, 1, 65535, {0, 32767, 1, 1, 30, 20, 0, 0}},
        {XN_FIT_CROP, 1, 1, {0, 0, 1, 1, 30, 20, 0, 0}},
        {XN_FIT_PAD, 60, 40, {0, 0, 60, 40, 30, 20, 0, 0}},
        {XN_FIT_PAD, 83, 61, {0, 0, 83, 61, 27, 20, 1, 0}},
        {XN_FIT_PAD, 90, 41, {0, 0, 90, 41, 30, 14, 0, 3}},
        {XN_FIT_PAD, 65535, 1, {0, 0, 65535, 1, 30, 1, 0, 9}},
        {XN_FIT_PAD, 1, 65535, {0, 0, 1, 65535, 1, 20, 14, 0}},
    };
    (void)state;

    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        struct xn_input_spec spec = grey_spec(30, 20, cases[i].fit);
        struct xn_placement got = xn_fit(&spec, cases[i].w, cases[i].h);
        if (memcmp(&got, &cases[i].want, sizeof(got)) != 0)
            fail_msg("case %zu: box %u %u %u %u to %u x %u at %u %u", i, got.box_x, got.box_y, got.box_w, got.box_h,
                     got.w, got.h, got.x, got.y);
    }
}

/* In memory of exactly its size, where a sanitizer sees a read behind its end. */
static unsigned orientation_of(const uint8_t *data, size_t bytes)
{
    uint8_t *exact = malloc(bytes + !bytes);

    assert_non_null(exact);
    memcpy(exact, data, bytes);
    unsigned orientation = xn_exif_orientation(exact, bytes);
    free(exact);
    return orientation;
}

static void test_exif_is_read_within_its_bytes(void **state)
{
    static const uint8_t head[] = {0xff, 0xd8, 0xff, 0xff, 0xff, 0xe0, 0,   4,   1,    2, /* fill, another segment */
                                   0xff, 0xe1, 0,    34,   'E',  'x',  'i', 'f', 0,    0, 'M',  'M', 0,
                                   '*',  0,    0,    0,    8,    0,    1,   1,   0x12, 0, 3,    0,   0,
                                   0,    1,    0,    6,    0,    0,    0,   0,   0,    0, 0xff, 0xd9};
    uint8_t data[sizeof(head)];
    (void)state;

    assert_int_equal(orientation_of(head, sizeof(head)), 6);
    for (size_t bytes = 0; bytes + 2 < sizeof(head); bytes++)
        assert_int_equal(orientation_of(head, bytes), 1);
    for (size_t at = 2; at < sizeof(head); at++) {
        for (unsigned value = 0; value < 256; value += 5) {
            memcpy(data, head, sizeof(head));
            data[at] = (uint8_t)value;
            unsigned orientation = orientation_of(data, sizeof(data));
            assert_in_range(orientation, 1, 8);
        }
    }
}

static void resize(const uint8_t *in, uint32_t in_w, uint32_t in_h, uint8_t *out, uint32_t out_w, uint32_t out_h)
{
    struct xn_resize r;

    memset(&r, 0, sizeof(r));
    assert_int_equal(xn_resize_begin(&r, in_w, in_h, out_w, out_h, 1, out, out_w), 0);
    for (uint32_t y = 0; y < in_h; y++)
        xn_resize_row(&r, in + (size_t)y * in_w);
    assert_int_equal(r.next_out, out_h);
    xn_scratch_trim(&r.x.memory, true);
    xn_scratch_trim(&r.y.memory, true);
    xn_scratch_trim(&r.memory, true);
}

static void test_resize(void **state)
{
    static const uint32_t sides[] = {1, 2, 3, 7, 16, 100, 1000};
    static uint8_t in[1000 * 100], out[1000 * 100];
    (void)state;

    for (size_t i = 0; i < XN_ARRAY_LEN(sides); i++) {
        for (size_t o = 0; o < XN_ARRAY_LEN(sides); o++) {
            memset(in, 77, sizeof(in)); /* what is flat stays so, to any size, on both axes */
            memset(out, 0, sizeof(out));
            resize(in, sides[i], 100, out, sides[o], 100);
            for (size_t k = 0; k < sides[o] * 100; k++)
                assert_int_equal(out[k], 77);
            memset(out, 0, sizeof(out));
            resize(in, 100, sides[i], out, 100, sides[o]);
            for (size_t k = 0; k < sides[o] * 100; k++)
                assert_int_equal(out[k], 77);
        }
    }
    paint(in, 100, 50); /* the same size: the same pixels */
    resize(in, 100, 50, out, 100, 50);
    assert_memory_equal(in, out, 5000);
}

static void test_a_resize_holds_what_one_output_needs(void **state)
{
    struct xn_resize r;
    uint8_t out[28 * 28];
    (void)state;

    memset(&r, 0, sizeof(r));
    assert_int_equal(xn_resize_begin(&r, 100, 65535, 28, 28, 1, out, 28), 0);
    assert_in_range(r.memory.bytes, 1, 28 * (4 + 2 * 65535 / 28 + 3));
    xn_scratch_trim(&r.x.memory, true);
    xn_scratch_trim(&r.y.memory, true);
    xn_scratch_trim(&r.memory, true);
}

static void test_png_and_jpeg_at_their_size(void **state)
{
    static uint8_t pixels[40 * 30], tensor[40 * 30];
    static struct file png, jpeg;
    struct xn_input_spec spec = grey_spec(40, 30, XN_FIT_STRETCH);
    struct xn_image_decoder *decoder;
    struct xn_error error;
    (void)state;

    paint(pixels, 40, 30);
    make_png(&png, pixels, 40, 30);
    make_jpeg(&jpeg, pixels, 40, 30);
    assert_int_equal(xn_image_decoder_new(MAX_PIXELS, &decoder), 0);
    assert_int_equal(xn_image_decode(decoder, png.data, png.bytes, &spec, tensor, &error), 0);
    assert_memory_equal(tensor, pixels, sizeof(pixels));
    memset(tensor, 0, sizeof(tensor));
    assert_int_equal(xn_image_decode(decoder, jpeg.data, jpeg.bytes, &spec, tensor, &error), 0);
    for (size_t i = 0; i < sizeof(pixels); i++)
        assert_in_range(tensor[i] + 3, pixels[i], pixels[i] + 6);
    xn_image_decoder_free(decoder);
    assert_int_equal(xn_image_decoder_new(40 * 30 - 1, &decoder), 0);
    assert_int_equal(xn_image_decode(decoder, png.data, png.bytes, &spec, tensor, &error), -EFBIG);
    assert_string_equal(error.text, "PNG: 40 x 30 pixels are more than the limit of 1199 (limits.image_pixels)");
    assert_int_equal(xn_image_decode(decoder, jpeg.data, jpeg.bytes, &spec, tensor, &error), -EFBIG);
    xn_image_decoder_free(decoder);
}

/* A handle of TurboJPEG that failed in a header reads the next file as its continuation. */
static void test_a_broken_jpeg_leaves_no_trace(void **state)
{
    static uint8_t pixels[40 * 30], first[40 * 30], tensor[40 * 30];
    static struct file jpeg;
    struct xn_input_spec spec = grey_spec(40, 30, XN_FIT_STRETCH);
    struct xn_image_decoder *decoder;
    struct xn_error error;
    (void)state;

    paint(pixels, 40, 30);
    make_jpeg(&jpeg, pixels, 40, 30);
    assert_int_equal(xn_image_decoder_new(MAX_PIXELS, &decoder), 0);
    assert_int_equal(xn_image_decode(decoder, jpeg.data, jpeg.bytes, &spec, first, &error), 0);
    for (size_t bytes = 3; bytes < jpeg.bytes; bytes += 3) {
        assert_int_equal(xn_image_decode(decoder, jpeg.data, bytes, &spec, tensor, &error), -EBADMSG);
        assert_int_equal(xn_image_decode(decoder, jpeg.data, jpeg.bytes, &spec, tensor, &error), 0);
        assert_memory_equal(tensor, first, sizeof(first));
    }
    xn_image_decoder_free(decoder);
}

static void test_every_allocation_may_fail(void **state)
{
#ifdef XN_FAULTS
    static uint8_t pixels[40 * 30], tensor[20 * 20];
    static struct file files[2];
    struct xn_input_spec spec = grey_spec(20, 20, XN_FIT_PAD);
    struct xn_image_decoder *decoder = NULL;
    struct xn_error error;
    uint64_t nth = 1;

    paint(pixels, 40, 30);
    make_png(&files[0], pixels, 40, 30);
    make_jpeg(&files[1], pixels, 40, 30);
    xn_fault_arm("alloc", 1, false);
    assert_int_equal(xn_image_decoder_new(MAX_PIXELS, &decoder), -ENOMEM);
    assert_null(decoder);
    for (size_t i = 0; i < XN_ARRAY_LEN(files); i++) {
        for (nth = 1;; nth++) {
            assert_int_equal(xn_image_decoder_new(MAX_PIXELS, &decoder), 0); /* nothing kept from before */
            xn_fault_arm("image.scratch", nth, false);
            int r = xn_image_decode(decoder, files[i].data, files[i].bytes, &spec, tensor, &error);
            xn_fault_arm("image.scratch", 0, false);
            assert_int_equal(xn_image_decode(decoder, files[i].data, files[i].bytes, &spec, tensor, &error), 0);
            xn_image_decoder_free(decoder);
            if (r == 0)
                break;
            assert_int_equal(r, -ENOMEM);
        }
        assert_int_equal(nth, 5); /* four allocations: a row or all pixels, two axes, the rows held */
    }
    (void)state;
#else
    (void)state;
    print_message("SKIP test_every_allocation_may_fail: needs a build with XN_FAULTS (debug, asan, tsan)\n");
    skip();
#endif
}

/* ---- the stage ---------------------------------------------------------------------------------------------------- */

#define ITEMS_MAX 64u

static struct {
    struct xn_network network;
    struct xn_model model;
    struct xn_instances instances;
    struct xn_requests *pool;
    struct xn_image_stage *stage;
    struct xn_request *requests[ITEMS_MAX];
    uint32_t n_requests;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;                             /* guarded by lock: next() waits */
    uint32_t n_next, n_waiting, n_done;    /* guarded by lock */
    int status[ITEMS_MAX];                 /* guarded by lock: by order of next() */
    const struct xn_item *item[ITEMS_MAX]; /* guarded by lock */
} bed;

static void on_next(void *user, struct xn_item *item, int status)
{
    (void)user;
    pthread_mutex_lock(&bed.lock);
    bed.n_waiting++;
    pthread_cond_broadcast(&bed.changed);
    while (bed.hold)
        pthread_cond_wait(&bed.changed, &bed.lock);
    bed.n_waiting--;
    bed.status[bed.n_next] = status;
    bed.item[bed.n_next++] = item;
    pthread_cond_broadcast(&bed.changed);
    pthread_mutex_unlock(&bed.lock);
    xn_request_unref(item->request);
}

static void on_done(struct xn_request *request)
{
    (void)request;
    pthread_mutex_lock(&bed.lock);
    bed.n_done++;
    pthread_mutex_unlock(&bed.lock);
}

static void await(const uint32_t *count, uint32_t n)
{
    pthread_mutex_lock(&bed.lock);
    while (*count < n)
        pthread_cond_wait(&bed.changed, &bed.lock);
    pthread_mutex_unlock(&bed.lock);
}

static void hold(bool on)
{
    pthread_mutex_lock(&bed.lock);
    bed.hold = on;
    pthread_cond_broadcast(&bed.changed);
    pthread_mutex_unlock(&bed.lock);
}

static void bed_init(uint32_t threads, size_t queue_limit)
{
    static struct xn_config config;
    struct xn_error error;

    memset(&bed, 0, sizeof(bed));
    pthread_mutex_init(&bed.lock, NULL);
    pthread_cond_init(&bed.changed, NULL);
    config.limits.requests = ITEMS_MAX;
    config.limits.images_per_request = 1;
    config.limits.body_bytes = PICTURE_BYTES_MAX;
    config.limits.json_bytes = PICTURE_BYTES_MAX;
    config.limits.buffer_bytes = 64u << 20;
    assert_int_equal(xn_requests_new(&config, &bed.pool), 0);
    fake_model_init(&bed.model, &bed.network, &bed.instances, 0, 1, 0);
    bed.network.input = grey_spec(40, 30, XN_FIT_STRETCH);
    bed.network.input_bytes = 40 * 30;
    assert_int_equal(xn_image_stage_new(threads, MAX_PIXELS, queue_limit, on_next, NULL, &bed.stage, &error), 0);
}

/* A request of one picture; the stage's reference is taken. */
static struct xn_item *make_item(const struct file *file, uint64_t deadline_ns)
{
    struct xn_request *request = xn_request_new(bed.pool);

    assert_non_null(request);
    bed.requests[bed.n_requests++] = request;
    request->model = xn_model_ref(&bed.model);
    request->deadline_ns = deadline_ns;
    request->done = on_done;
    assert_int_equal(xn_request_items_init(request, 1), 0);
    request->items[0].encoded = file->data;
    request->items[0].encoded_bytes = file->bytes;
    (void)xn_request_ref(request);
    return &request->items[0];
}

static void bed_done(void)
{
    xn_image_stage_free(bed.stage);
    for (uint32_t i = 0; i < bed.n_requests; i++)
        xn_request_unref(bed.requests[i]);
    assert_int_equal(xn_requests_active(bed.pool), 0);
    xn_requests_free(bed.pool);
    pthread_cond_destroy(&bed.changed);
    pthread_mutex_destroy(&bed.lock);
}

static void test_stage_decodes_and_settles_what_fails(void **state)
{
    static uint8_t pixels[40 * 30];
    static struct file good, bad;
    (void)state;

    paint(pixels, 40, 30);
    make_png(&good, pixels, 40, 30);
    bad = good;
    bad.bytes /= 2;
    bed_init(3, ITEMS_MAX);
    for (uint32_t i = 0; i < ITEMS_MAX; i++)
        assert_int_equal(xn_image_stage_push(bed.stage, make_item(i % 2 ? &bad : &good, XN_NEVER_NS)), 0);
    await(&bed.n_next, ITEMS_MAX);
    assert_int_equal(xn_image_stage_depth(bed.stage), 0);
    for (uint32_t i = 0; i < ITEMS_MAX; i++) {
        const struct xn_item *item = &bed.requests[i]->items[0];
        int status = 1;
        if (i % 2 == 0) { /* on its way: not settled by the stage */
            assert_false(xn_item_settled(item, &status));
            assert_memory_equal(item->input, pixels, sizeof(pixels));
        } else {
            assert_true(xn_item_settled(item, &status));
            assert_int_equal(status, -EBADMSG);
            assert_non_null(strstr(item->error.text, "PNG: "));
        }
    }
    assert_int_equal(bed.n_done, ITEMS_MAX / 2);
    bed_done();
}

static void test_stage_refuses_when_full_and_cancels_when_it_ends(void **state)
{
    static uint8_t pixels[40 * 30];
    static struct file good;
    struct xn_item *refused;
    int status = 1;
    (void)state;

    paint(pixels, 40, 30);
    make_png(&good, pixels, 40, 30);
    bed_init(1, 2);
    hold(true);
    assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, XN_NEVER_NS)), 0);
    await(&bed.n_waiting, 1); /* its only thread is busy */
    assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, XN_NEVER_NS)), 0);
    assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, 1)), 0); /* its deadline is long past */
    assert_int_equal(xn_image_stage_depth(bed.stage), 2);
    refused = make_item(&good, XN_NEVER_NS);
    assert_int_equal(xn_image_stage_push(bed.stage, refused), -ENOBUFS);
    xn_request_unref(refused->request); /* the reference stayed here */
    hold(false);
    await(&bed.n_next, 3);
    assert_int_equal(bed.status[0], 0); /* in order */
    assert_int_equal(bed.status[1], 0);
    assert_int_equal(bed.status[2], -ETIMEDOUT);
    assert_ptr_equal(bed.item[2], &bed.requests[2]->items[0]);
    hold(true);
    assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, XN_NEVER_NS)), 0);
    await(&bed.n_waiting, 1);
    struct xn_item *settled = make_item(&good, XN_NEVER_NS);
    assert_true(xn_item_settle(settled, -ETIMEDOUT, NULL)); /* answered while it waits: not decoded */
    memset(settled->input, 99, sizeof(pixels));
    assert_int_equal(xn_image_stage_push(bed.stage, settled), 0);
    hold(false);
    await(&bed.n_next, 5);
    assert_int_equal(bed.status[4], -ETIMEDOUT);
    assert_int_equal(*(const uint8_t *)settled->input, 99);
    assert_false(xn_item_settled(refused, &status));
    bed_done();
}

static void *free_stage(void *stage)
{
    xn_image_stage_free(stage);
    return NULL;
}

static void test_stage_settles_what_is_left(void **state)
{
    static uint8_t pixels[40 * 30];
    static struct file good;
    pthread_t thread;
    (void)state;

    paint(pixels, 40, 30);
    make_png(&good, pixels, 40, 30);
    bed_init(1, 10);
    hold(true);
    assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, XN_NEVER_NS)), 0);
    await(&bed.n_waiting, 1);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(xn_image_stage_push(bed.stage, make_item(&good, XN_NEVER_NS)), 0);
    assert_int_equal(pthread_create(&thread, NULL, free_stage, bed.stage), 0);
    struct xn_item *late = make_item(&good, XN_NEVER_NS);
    while (xn_image_stage_push(bed.stage, late) == -ENOBUFS) /* full; once it stops it says so */
        sched_yield();
    assert_int_equal(xn_image_stage_push(bed.stage, late), -ECANCELED);
    xn_request_unref(late->request);
    hold(false);
    assert_int_equal(pthread_join(thread, NULL), 0);
    bed.stage = NULL;
    assert_int_equal(bed.n_next, 11); /* each came out once */
    for (uint32_t i = 0; i < 11; i++) {
        int status = 1;
        assert_int_equal(bed.status[i], i == 0 ? 0 : -ECANCELED);
        assert_true(i == 0 || (xn_item_settled(bed.item[i], &status) && status == -ECANCELED));
    }
    bed_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sniff),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_exif_is_read_within_its_bytes),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_a_resize_holds_what_one_output_needs),
        cmocka_unit_test(test_png_and_jpeg_at_their_size),
        cmocka_unit_test(test_a_broken_jpeg_leaves_no_trace),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_stage_decodes_and_settles_what_fails),
        cmocka_unit_test(test_stage_refuses_when_full_and_cancels_when_it_ends),
        cmocka_unit_test(test_stage_settles_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
