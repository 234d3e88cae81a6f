// SPDX-License-Identifier: Apache-2.0
// Words of a descriptor and the constants of hls/include/xnor_isa.h, as it numbers them.
`ifndef XN_DEFS
`define XN_DEFS
`default_nettype none

`define OP(d) d[31:0]
`define FLAG(d, n) d[32 + (n)]
`define WORD(d, n) d[32 * (n) +: 32]
`define IS_END(d) (`OP(d) == `OP_END || `OP(d) == `OP_TURN)
`define HAS_P(d) (d[2:0] == `OP_BINARY || (d[2:0] == `OP_LARGEST && !`FLAG(d, `BATCH)))
`define HAS_WEIGHTS(d) (d[2:0] == `OP_BINARY || d[2:0] == `OP_INT8 || (d[2:0] == `OP_VECTOR && !`FLAG(d, `MAX) && !`FLAG(d, `ONES)))
`define TILE(d) (`HAS_P(d) ? P : d[2:0] == `OP_INT8 ? PI : 1)

`define SOURCE 2
`define HEIGHT 3
`define WIDTH 4
`define BASE 5
`define PITCH 6
`define WORDS 7
`define CHANNELS_IN 8
`define KERNEL_H 9
`define KERNEL_W 10
`define STRIDE_H 11
`define STRIDE_W 12
`define PAD_TOP 13
`define PAD_LEFT 14
`define OUT_H 15
`define OUT_W 16
`define CHANNELS 17
`define CHUNK 18
`define SHIFT 19
`define STREAM_BASE 20
`define STREAM_PITCH 21
`define RESIDUAL_BASE 22
`define RESIDUAL_PITCH 23
`define DEST_BASE 24
`define DEST_PITCH 25
`define DEST_GROUP 26
`define SOURCE_GROUP 27
`define ROW_BYTES 28
`define DEST_WIDTH 29
`define DEST_STEP 30

`define OP_END 0
`define OP_INPUT 1
`define OP_BINARY 2
`define OP_INT8 3
`define OP_VECTOR 4
`define OP_LARGEST 5
`define OP_TURN 6

`define BITS 0
`define U8 1
`define I8 2
`define I16 3

`define PAD_MINUS_ONE 0
`define MAX 1
`define SCALE 2
`define RESIDUAL 3
`define SATURATE 4
`define RPRELU 5
`define STORE 6
`define SIGN 7
`define QUANTIZE 8
`define UNSIGNED 9
`define LOGITS 10
`define BATCH 11
`define ONES 12

`define ERROR_OP 1
`define ERROR_SHAPE 2
`define ERROR_SOURCE 3
`define ERROR_DEST 4
`define ERROR_LENGTH 5
`define ERROR_OUTPUT 6
`define ERROR_INPUT 7

`endif
