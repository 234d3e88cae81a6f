/* SPDX-License-Identifier: Apache-2.0
 * A card through XRT's C API, as a test has it: a device with its xclbin, a unit with the buffers of a run. What fails ends the program
 * with a line that says what. */
#ifndef XN_TESTS_VCARD_BED_H
#define XN_TESTS_VCARD_BED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include "hls/include/xnor_isa.h"

/** End the program where `condition` does not hold. */
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("not ok - %s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { ARG_PROGRAM, ARG_STREAM, ARG_INPUT, ARG_OUTPUT, ARG_IMAGES, ARG_INPUT_BYTES, ARG_OUTPUT_WORDS, ARG_STATUS };

struct bed_device {
    xrtDeviceHandle handle;
    xuid_t uuid;
};

/** Card `index` with the xclbin of the environment. */
struct bed_device bed_open(unsigned index);
void bed_close(struct bed_device *device);

/** A buffer and its host copy. */
struct bed_buffer {
    xrtBufferHandle handle;
    void *host;
    size_t bytes;
};

struct bed_unit {
    xrtDeviceHandle device;
    xrtKernelHandle kernel;
    xrtRunHandle run;
    struct bed_buffer program, stream, input, output, status;
};

/** Unit `unit` (from 0) with buffers of these sizes; the program is an END, the rest is 0. */
struct bed_unit bed_unit_open(const struct bed_device *device, unsigned unit, size_t program_bytes, size_t stream_bytes,
                              size_t input_bytes, size_t output_bytes);
void bed_unit_close(struct bed_unit *unit);

void bed_to_card(const struct bed_buffer *buffer);
/** 0 or -errno, as XRT says. */
int bed_from_card(const struct bed_buffer *buffer);

/** Arguments and start. */
void bed_start(struct bed_unit *unit, uint32_t images, uint32_t input_bytes, uint32_t output_words);
/** enum ert_cmd_state after at most `ms`. */
int bed_wait(struct bed_unit *unit, unsigned ms);
/** Of the last run, read from the card. */
struct xn_isa_status bed_status(struct bed_unit *unit);
/** An END program of no images, from start to its status, which is checked. */
void bed_run_end(struct bed_unit *unit);

/* What the program may be asked for. */
int case_network(int argc, char **argv);
int case_memory(int argc, char **argv);
int case_rate(int argc, char **argv);
int case_transfer(int argc, char **argv);
int case_saturate(int argc, char **argv);
int case_hang(int argc, char **argv);
int case_lost(int argc, char **argv);
int case_crash(int argc, char **argv);
int case_reopen(int argc, char **argv);
int case_bus_hang(int argc, char **argv);
int case_corrupt(int argc, char **argv);
int case_xclbin(int argc, char **argv);
int case_refuse(int argc, char **argv);
int case_taken(int argc, char **argv);
int case_busy(int argc, char **argv);
#ifdef __cplusplus
extern "C" {
#endif
int case_reset(int argc, char **argv);
int case_abort(int argc, char **argv);
int case_addresses(int argc, char **argv);
int case_devices(int argc, char **argv);
int case_storm(int argc, char **argv);
int case_lost_abort(int argc, char **argv);
int case_soak(int argc, char **argv);
#ifdef __cplusplus
}
#endif

#endif
