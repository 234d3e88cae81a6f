/* SPDX-License-Identifier: Apache-2.0
 * The decoder on files that a fuzzer makes. The last bytes choose the network's input. A decoder lives on from file to file, as in the daemon, and must then still
 * decode a picture that is known to be good to the same tensor. */
#include <stdlib.h>
#include <string.h>

#include <turbojpeg.h>

#include "daemon/image/image.h"

#define MAX_PIXELS (UINT64_C(1) << 18) /* small, so that inputs are many */
#define TAIL_BYTES 6u
#define SIDE       40u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct xn_image_decoder *decoder;
static unsigned char *good;
static unsigned long good_bytes;

static struct xn_input_spec choose_spec(const uint8_t tail[TAIL_BYTES])
{
    struct xn_input_spec spec = {.w = 1 + tail[0] % SIDE, .h = 1 + tail[1] % SIDE, .is_image = true};

    spec.channels = tail[2] & 1 ? 3 : 1;
    spec.dtype = tail[2] & 2 ? XN_DTYPE_I8 : XN_DTYPE_U8;
    spec.identity = tail[2] & 4;
    spec.fit = (enum xn_resize_fit)(tail[3] % 3);
    spec.shift = tail[4] % 25;
    for (uint32_t c = 0; c < spec.channels; c++) {
        spec.multiplier[c] = (tail[5] - 128) * (1 << 16);
        spec.offset[c] = (tail[4] - 128) * (1 << 16);
    }
    return spec;
}

/* What the decoder makes of a good picture: the same whenever it is asked. */
static void decode_good(uint8_t ret_tensor[64])
{
    static const struct xn_input_spec spec = {
        .w = 8, .h = 8, .channels = 1, .dtype = XN_DTYPE_U8, .is_image = true, .identity = true};
    struct xn_error error;

    if (xn_image_decode(decoder, good, good_bytes, &spec, ret_tensor, &error) < 0)
        abort();
}

static void start(uint8_t ret_tensor[64])
{
    uint8_t pixels[256];
    tjhandle encoder = tjInitCompress();

    for (unsigned i = 0; i < 256; i++)
        pixels[i] = (uint8_t)(i * 7);
    if (!encoder || tjCompress2(encoder, pixels, 16, 16, 16, TJPF_GRAY, &good, &good_bytes, TJSAMP_GRAY, 90, 0) < 0 ||
        xn_image_decoder_new(MAX_PIXELS, &decoder) < 0)
        abort();
    tjDestroy(encoder);
    decode_good(ret_tensor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t tensor[SIDE * SIDE * 3 + 1], want[64];
    struct xn_error error;

    if (!decoder)
        start(want);
    if (bytes < TAIL_BYTES)
        return 0;
    struct xn_input_spec spec = choose_spec(data + bytes - TAIL_BYTES);
    tensor[(size_t)spec.w * spec.h * spec.channels] = 0xa5; /* the byte behind */
    int r = xn_image_decode(decoder, data, bytes - TAIL_BYTES, &spec, tensor, &error);
    if (tensor[(size_t)spec.w * spec.h * spec.channels] != 0xa5 || (r < 0 && error.text[0] == '\0'))
        abort();
    decode_good(tensor);
    if (memcmp(tensor, want, sizeof(want)) != 0)
        abort();
    return 0;
}
