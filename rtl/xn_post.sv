// SPDX-License-Identifier: Apache-2.0
// From sums to what is written: PR x 16 lanes, a pipeline of eight stages, T1 to T8, that never waits: the issue of steps
// keeps tiles as far apart as their post groups take (LOGITS: waits until all is written).
`include "xn_defs.svh"

// A lane. Stage Tn's registers hold what the comment says; parameters are read where they are used, from the buffer that
// the stage's group has.
module xn_lane (
    input wire clk,
    input wire [1023:0] d, input wire [63:0] halves, // 2^(n-1) of both shifts
    input wire signed [31:0] sum, input wire [24:0] seen, input wire differ, // T0: sum, or seen - 2 * sum
    input wire signed [15:0] residual,                                      // T1
    input wire [511:0] post, input wire [8:1] which,
    output wire signed [31:0] value, // T6
    output reg sign,                 // T8
    output wire [7:0] quantized      // T8
);
    wire [4:0] n1 = d[32 * `SHIFT +: 5], n2 = d[32 * `SHIFT + 8 +: 5];
    wire signed [31:0] half1 = halves[31:0], half2 = halves[63:32];
    reg signed [31:0] v1, v2, v4, v5, v6;
    reg signed [15:0] residual2, residual3;
    reg signed [49:0] product2;
    reg signed [51:0] v3;
    reg signed [47:0] product7;
    reg signed [49:0] q8;
    reg sign7;
    wire [255:0] at1 = post[256 * which[1] +: 256], at2 = post[256 * which[2] +: 256], at4 = post[256 * which[4] +: 256];
    wire [255:0] at5 = post[256 * which[5] +: 256], at6 = post[256 * which[6] +: 256], at7 = post[256 * which[7] +: 256];
    wire signed [48:0] b1 = at2[48:0], b2 = at7[112:64];
    wire signed [31:0] t = at6[159:128];
    wire signed [17:0] m1 = at1[177:160];
    wire signed [15:0] m2 = at6[207:192], a = at4[223:208], shift_to = at5[239:224];
    wire [3:0] k = at4[243:240];
    wire signed [51:0] scaled = product2 + b1 + half1;
    wire signed [52:0] joined = v3 + (`FLAG(d, `RESIDUAL) ? residual3 : 16'sd0);
    wire signed [32:0] turned = v4 + a;
    wire signed [32:0] shifted = v5 + shift_to;
    wire signed [49:0] rounded = product7 + b2 + half2;

    function [31:0] clamp16(input signed [52:0] v);
        clamp16 = v[52:15] == 0 || &v[52:15] ? v[31:0] : v[52] ? -32'd32768 : 32'd32767;
    endfunction

    assign value = v6;
    assign quantized = `FLAG(d, `UNSIGNED) ? (q8[49] ? 8'd0 : q8[49:8] != 0 ? 8'd255 : q8[7:0])
                                           : (q8[49:7] == 0 || &q8[49:7] ? q8[7:0] : q8[49] ? 8'h80 : 8'h7f);
    always_ff @(posedge clk) begin
        v1 <= differ ? {7'd0, seen} - {sum[30:0], 1'b0} : sum;
        v2 <= v1;
        product2 <= v1 * m1;
        residual2 <= residual;
        v3 <= `FLAG(d, `SCALE) ? scaled >>> n1 : $signed({{20{v2[31]}}, v2});
        residual3 <= residual2;
        v4 <= `FLAG(d, `SATURATE) ? clamp16(joined) : joined[31:0];
        v5 <= `FLAG(d, `RPRELU) ? (turned < 0 ? turned >>> k : turned) : v4;
        v6 <= `FLAG(d, `RPRELU) ? clamp16(shifted) : v5;
        sign7 <= v6 >= t;
        product7 <= v6 * m2;
        sign <= sign7;
        q8 <= rounded >>> n2;
    end
endmodule

// The row of a memory of BANKS banks in which pixels of a map lie, in the order of a pass; `next` goes on by `pixels`.
module xn_walk #(parameter BANKS = 4, AW = 8) (
    input wire clk, init, next,
    input wire [12:0] out_h, out_w, input wire [4:0] pixels,
    input wire [AW-1:0] base, input wire [AW-1:0] pitch,
    output reg [AW-1:0] at, output reg [12:0] x, output reg [16:0] group,
    output wire row_end, map_end
);
    reg [12:0] y;
    wire [13:0] x_next = x + pixels;
    assign row_end = x_next >= out_w;
    assign map_end = row_end && y + 1 == out_h;
    always_ff @(posedge clk) begin
        if (next) begin
            x <= row_end ? 0 : x_next[12:0];
            if (row_end || (x_next & (BANKS - 1)) == 0) at <= at + pitch;
            if (row_end) y <= y + 1;
            if (map_end) begin
                y <= 0;
                at <= base;
                group <= group + 1;
            end
        end
        if (init) begin
            x <= 0;
            y <= 0;
            at <= base;
            group <= 0;
        end
    end
endmodule

module xn_post #(parameter P = 4, PI = 2, PR = 2, AW = 8) (
    input wire clk, rst, init,
    input wire [1023:0] d,
    input wire [8191:0] post, output wire [1:0] post_free, input wire restart,
    // a tile
    input wire tile_in,
    input wire [P*16*25-1:0] binary, input wire [P*25-1:0] seen, input wire [PI*16*32-1:0] int8,
    input wire [16*32-1:0] vector, input wire [63:0] any,
    output wire quiet,
    // memories
    output wire rm_re, output wire [AW-1:0] rm_read_at, input wire [256*PR-1:0] rm_data,
    output wire [PR-1:0] rm_we, output wire [AW-1:0] rm_at, output wire [256*PR-1:0] rm_out,
    output reg [8*P-1:0] am_we, output reg [AW-1:0] am_at, output reg [128*P-1:0] am_out,
    // logits
    output wire out_req, input wire out_ready, output wire [31:0] out_index, output wire [31:0] out_data
);
    localparam LR = $clog2(PR), LP = $clog2(P);
    wire [2:0] op = d[2:0];
    wire is_or = op == `OP_OR, logits = `FLAG(d, `LOGITS), quantize = `FLAG(d, `QUANTIZE);
    wire [12:0] out_h = d[32 * `OUT_H +: 13], out_w = d[32 * `OUT_W +: 13];
    wire [16:0] channels = d[32 * `CHANNELS +: 17];
    wire [4:0] tile = op == `OP_BINARY ? P : op == `OP_INT8 ? PI : 1;
    wire [4:0] pixels = tile < PR ? tile : PR;
    integer j, l, b;

    // ---- T0: a post group of the tile
    reg [P*16*32-1:0] sums; // tiles narrower than P again and again, so that a pixel stands in the lanes of its bank
    reg [P*25-1:0] sums_seen;
    reg [63:0] word;
    reg busy, second_cycle, which0;
    wire [12:0] x;
    wire [16:0] group;
    wire [AW-1:0] residual_at;
    wire row_end, map_end;
    reg [8:1] valid, which, group_end;
    reg [16*8-1:0] lane_masks;
    reg [PR*8-1:0] pixel_masks;
    reg serial, sending;
    wire fire = busy && !second_cycle && !(logits && (serial || sending || valid != 0));
    wire [12:0] x_after = x + pixels;
    wire tile_end = row_end || (x_after & (tile - 5'd1)) == 0;
    wire [12:0] x_lane0 = x & ~(PR - 1);
    wire [16:0] channels_left = channels - {group[12:0], 4'd0};
    reg [15:0] lane_mask;
    reg [PR-1:0] pixel_mask;

    xn_walk #(PR, AW) residual_i (clk, init, fire, out_h, out_w, pixels, d[32 * `RESIDUAL_BASE +: AW],
                                  d[32 * `RESIDUAL_PITCH +: AW], residual_at, x, group, row_end, map_end);
    assign rm_re = fire && `FLAG(d, `RESIDUAL);
    assign rm_read_at = residual_at + group;
    always_comb begin
        for (l = 0; l < 16; l = l + 1) lane_mask[l] = l < channels_left;
        for (j = 0; j < PR; j = j + 1)
            pixel_mask[j] = x_lane0 + j >= x && x_lane0 + j < x + pixels && x_lane0 + j < out_w;
    end
    always_ff @(posedge clk) begin
        if (tile_in) begin
            for (j = 0; j < P; j = j + 1) begin
                for (l = 0; l < 16; l = l + 1)
                    sums[32 * (16 * j + l) +: 32] <= op == `OP_BINARY ? {7'd0, binary[25 * (16 * j + l) +: 25]}
                        : op == `OP_INT8 ? int8[32 * (16 * (j % PI) + l) +: 32] : vector[32 * l +: 32];
            end
            sums_seen <= seen;
            word <= any;
        end
        if (fire && tile_end) busy <= 0;
        if (tile_in) busy <= 1;
        second_cycle <= fire && quantize;
        if (fire && map_end && !is_or) which0 <= !which0;
        if (restart) which0 <= 0;
        if (rst) begin
            busy <= 0;
            second_cycle <= 0;
        end
    end

    // ---- T1 to T8
    reg [63:0] halves;
    wire [4:0] n1 = d[32 * `SHIFT +: 5], n2 = d[32 * `SHIFT + 8 +: 5];
    always_ff @(posedge clk) halves <= {n2 == 0 ? 32'd0 : 32'd1 << (n2 - 1), n1 == 0 ? 32'd0 : 32'd1 << (n1 - 1)};
    wire [PR*16*32-1:0] values;
    wire [PR*16-1:0] signs;
    wire [PR*128-1:0] bytes;
    genvar p, c;
    generate
        for (p = 0; p < PR; p = p + 1) begin : pixel
            wire [LP:0] from = (x_lane0 + p) & (P - 1);
            for (c = 0; c < 16; c = c + 1) begin : channel
                wire sign;
                wire [7:0] quantized;
                wire signed [31:0] value;
                xn_lane lane (clk, d, halves, sums[32 * (16 * from + c) +: 32], sums_seen[25 * from +: 25], op == `OP_BINARY,
                              rm_data[256 * p + 16 * c +: 16], {post[256 * (16 + c) +: 256], post[256 * c +: 256]}, which,
                              value, sign, quantized);
                assign values[32 * (16 * p + c) +: 32] = value;
                assign signs[16 * p + c] = sign && lane_masks[16 * 7 + c];
                assign bytes[128 * p + 8 * c +: 8] = lane_masks[16 * 7 + c] ? quantized : 8'd0;
                assign rm_out[256 * p + 16 * c +: 16] = lane_masks[16 * 5 + c] ? value[15:0] : 16'd0;
            end
        end
    endgenerate
    always_ff @(posedge clk) begin
        valid <= {valid[7:1], fire && !is_or};
        which <= {which[7:1], which0};
        group_end <= {group_end[7:1], map_end};
        lane_masks <= {lane_masks[16*7-1:0], lane_mask};
        pixel_masks <= {pixel_masks[PR*7-1:0], pixel_mask};
        if (rst) valid <= 0;
    end

    // ---- T6: RM
    wire [AW-1:0] stream_at;
    wire [16:0] stream_group;
    assign rm_we = valid[6] && `FLAG(d, `STORE) ? pixel_masks[PR*5 +: PR] : 0;
    assign rm_at = stream_at + stream_group;
    xn_walk #(PR, AW) stream_i (clk, init, valid[6], out_h, out_w, pixels, d[32 * `STREAM_BASE +: AW],
                                d[32 * `STREAM_PITCH +: AW], stream_at, , stream_group, , );

    // ---- T8, OR's T0, QUANTIZE's second word: AM
    reg second;
    reg [8*P-1:0] second_we;
    reg [AW-1:0] second_at;
    reg [PR*64-1:0] second_bytes;
    wire [AW-1:0] dest_at;
    wire [12:0] dest_x;
    wire [16:0] dest_group;
    wire [17:0] to_group = d[32 * `DEST_GROUP +: 17] + dest_group;
    wire to_am = `FLAG(d, `SIGN) || quantize;
    wire or_fire = fire && is_or;
    reg [8*P-1:0] here; // the four quarters of each bank that this post group's pixels lie in
    xn_walk #(2 * P, AW) dest_i (clk, init, valid[8] || or_fire, out_h, out_w, pixels, d[32 * `DEST_BASE +: AW],
                                 d[32 * `DEST_PITCH +: AW], dest_at, dest_x, dest_group, , );
    always_comb begin
        for (b = 0; b < 2 * P; b = b + 1)
            here[4 * b +: 4] = {4{is_or ? (dest_x & (2 * P - 1)) == b : pixel_masks[PR * 7 + b % PR]
                                                                           && (dest_x & (2 * P - 1) & ~(PR - 1)) == b / PR * PR}};
        am_we = 0;
        am_at = dest_at + (is_or ? d[32 * `DEST_GROUP + 2 +: 15] + dest_group : quantize ? {to_group, 1'b0} : to_group[17:2]);
        for (b = 0; b < 2 * P; b = b + 1)
            am_out[64 * b +: 64] = is_or ? word : quantize ? bytes[128 * (b % PR) +: 64]
                : to_group[1:0] == 0 ? {48'd0, signs[16 * (b % PR) +: 16]} : {4{signs[16 * (b % PR) +: 16]}};
        if (or_fire || (valid[8] && quantize)) am_we = here;
        else if (valid[8] && to_am) am_we = to_group[1:0] == 0 ? here : here & {2 * P{4'b1 << to_group[1:0]}};
        else if (second) begin
            am_we = second_we;
            am_at = second_at;
            for (b = 0; b < 2 * P; b = b + 1) am_out[64 * b +: 64] = second_bytes[64 * (b % PR) +: 64];
        end
    end
    always_ff @(posedge clk) begin
        second <= valid[8] && quantize;
        second_we <= here;
        second_at <= am_at + 1;
        for (j = 0; j < PR; j = j + 1) second_bytes[64 * j +: 64] <= bytes[128 * j + 64 +: 64];
        if (rst) second <= 0;
    end

    // ---- LOGITS: one by one
    reg [PR*16*32-1:0] kept;
    reg [PR-1:0] kept_pixels;
    reg kept_which, kept_end;
    reg [4:0] at_pixel;
    reg [3:0] at_lane;
    reg [16:0] logit_group;
    reg [31:0] pixel_index; // of the output: of the pixel's channel 0
    reg [31:0] index, data;
    wire [16:0] logits_left = channels - {logit_group[12:0], 4'd0};
    wire go = serial && (!sending || out_ready);
    wire lane_end = at_lane == 15 || at_lane + 1 == logits_left || !kept_pixels[at_pixel];
    wire serial_end = go && lane_end && at_pixel == PR - 1;
    wire [255:0] logit_post = post[256 * {kept_which, at_lane} +: 256];

    assign out_req = sending;
    assign out_index = index;
    assign out_data = data;
    always_ff @(posedge clk) begin
        if (valid[6] && logits) begin
            serial <= 1;
            kept <= values;
            kept_pixels <= pixel_masks[PR*5 +: PR];
            kept_which <= which[6];
            kept_end <= group_end[6];
            at_pixel <= 0;
            at_lane <= 0;
        end
        if (out_ready) sending <= 0;
        if (go) begin
            sending <= kept_pixels[at_pixel];
            index <= pixel_index + {11'd0, logit_group, 4'd0} + at_lane;
            data <= logit_post[159:128] * kept[32 * (16 * at_pixel + at_lane) +: 32] + logit_post[95:64];
            at_lane <= at_lane + 1;
            if (lane_end) begin
                at_lane <= 0;
                at_pixel <= at_pixel + 1;
                if (kept_pixels[at_pixel]) pixel_index <= pixel_index + channels;
            end
            if (serial_end) begin
                serial <= 0;
                if (kept_end) begin
                    pixel_index <= 0;
                    logit_group <= logit_group + 1;
                end
            end
        end
        if (init) begin
            pixel_index <= 0;
            logit_group <= 0;
        end
        if (rst) begin
            serial <= 0;
            sending <= 0;
        end
    end

    assign post_free = logits ? (serial_end && kept_end ? 2'b1 << kept_which : 0)
                              : (valid[8] && group_end[8] ? 2'b1 << which[8] : 0);
    assign quiet = !busy && !second_cycle && valid == 0 && !second && !serial && !sending;
endmodule
