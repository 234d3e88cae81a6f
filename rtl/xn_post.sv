// SPDX-License-Identifier: Apache-2.0
// From sums to what is written: PR x 16 lanes, a pipeline of eight stages, T1 to T8, that never waits: the issue of steps
// keeps tiles as far apart as their post groups take (LOGITS: waits until all is written).
`include "xn_defs.svh"

// A lane. Stage Tn's registers hold what the comment says. Flags that are not set are parameters that change nothing
// (xn_post); what a flag still says here is the width.
module xn_lane #(parameter WIDE = 1) (
    input wire clk,
    input wire [4:0] n1, n2, input wire [17:0] above1, input wire [41:0] above2, // bits that are too many behind a shift
    input wire add_residual, saturate, rprelu, unsigned_bytes,
    input wire signed [31:0] sum, input wire [24:0] seen, input wire differ, // T0: sum, or seen - 2 * sum
    input wire signed [15:0] residual,                                      // T1
    input wire [87:0] scale1,   // T1: 3 * m1, b1, m1
    input wire [19:0] turn,     // T4: a, k
    input wire signed [15:0] d, // T5
    input wire [83:0] scale2,   // T6: 3 * m2, b2, m2
    input wire shift6, hold6, clear6, clear8, input wire signed [31:0] beside,
    output reg signed [31:0] value, // T6
    output reg sign,                // T8
    output wire [7:0] quantized     // T8
);
    reg signed [31:0] v1, v3, v4, v5;
    reg signed [15:0] residual2, residual3;
    reg over3, below3, over8, below8;
    reg [7:0] q8;
    wire [31:0] part = differ ? ~{6'd0, sum[24:0], 1'b0} : sum;
    wire [32:0] signed_sum = {7'd0, seen, 1'b1} + {part, differ};
    wire signed [49:0] scaled, rounded;

    xn_scale #(WIDE) scale1_i (clk, v1, scale1[17:0], scale1[87:68], scale1[67:18], scaled); // T2
    xn_scale #(WIDE) scale2_i (                                                              // T7
        clk, value, {{2{scale2[15]}}, scale2[15:0]}, {{2{scale2[83]}}, scale2[83:66]}, scale2[65:16], rounded);

    // Shifts begin with what throws away most.
    wire signed [38:0] coarse2 = scaled >>> {n1[4:3], 3'd0};
    wire signed [32:0] middle2 = coarse2 >>> {n1[2:1], 1'b0};
    wire signed [14:0] coarse7 = rounded >>> {n2[4:3], 3'd0};
    wire signed [8:0] middle7 = coarse7 >>> {n2[2:1], 1'b0};
    wire signed [32:0] joined = v3 + residual3;
    wire below4 = over3 ? below3 : joined[32];
    wire clamp4 = saturate && (over3 || !(joined[32:15] == 0 || &joined[32:15]));
    wire signed [16:0] turned = $signed(v4[15:0]) + $signed(turn[19:4]);
    wire signed [16:0] bent = turned >>> (turn[3:0] & {4{turned[16]}});
    wire signed [17:0] shifted = $signed(v5[16:0]) + d;
    wire clamp6 = rprelu && !(shifted[17:15] == 0 || &shifted[17:15]);
    wire [31:0] v6 = {rprelu ? {17{shifted[17]}} : {v5[31:16], shifted[15]}, clamp6 ? {15{!shifted[17]}} : shifted[14:0]};

    assign quantized = unsigned_bytes ? {8{!below8}} & ({8{over8}} | q8) : over8 ? {below8, {7{!below8}}} : q8;
    always_ff @(posedge clk) begin
        v1 <= signed_sum[32:1];
        residual2 <= add_residual ? residual : 16'd0;
        v3 <= n1[0] ? middle2[32:1] : middle2[31:0];
        over3 <= |((scaled[48:31] ^ {18{scaled[49]}}) & above1);
        below3 <= scaled[49];
        residual3 <= residual2;
        v4 <= {saturate ? {17{below4}} : joined[31:15], clamp4 ? {15{!below4}} : joined[14:0]};
        v5 <= {rprelu ? {16{turned[16]}} : v4[31:16], bent[15:0]};
        if (!hold6) value <= shift6 ? beside : v6;
        if (clear6) value <= 0;
        sign <= !rounded[49];
        q8 <= n2[0] ? middle7[8:1] : middle7[7:0];
        over8 <= |((rounded[48:7] ^ {42{rounded[49]}}) & above2);
        below8 <= rounded[49];
        if (clear8) {sign, q8, over8, below8} <= 0;
    end
endmodule

// Parameters of a channel in both buffers.
module xn_parameters #(parameter WIDTH = 16, LROWS = 1) (
    input wire clk, we, input wire [LROWS-1:0] into, input wire [WIDTH-1:0] in, input wire [LROWS-1:0] which,
    output wire [WIDTH-1:0] out
);
    (* ram_style = "distributed" *) reg [WIDTH-1:0] mem [0:2**LROWS-1];
    assign out = mem[which];
    always_ff @(posedge clk) if (we) mem[into] <= in;
endmodule

// The row of a memory of BANKS banks in which pixels of a map lie, in the order of a pass; `next` goes on by `pixels`. The pass
// has columns x0 to x1 - 1 of the map; from its last pixel in one line of them to its first in the next are `skip` rows.
module xn_walk #(parameter BANKS = 4, AW = 8) (
    input wire clk, init, next,
    input wire [12:0] out_h, x0, x1, input wire [4:0] pixels,
    input wire [AW-1:0] base, pitch, skip,
    output reg [AW-1:0] at, output reg [12:0] x, output reg [16:0] group,
    output wire row_end, map_end
);
    reg [12:0] y;
    wire [13:0] x_next = x + pixels;
    assign row_end = x_next >= x1;
    assign map_end = row_end && y + 1 == out_h;
    always_ff @(posedge clk) begin
        if (next) begin
            x <= row_end ? x0 : x_next[12:0];
            if (row_end) at <= at + skip;
            else if ((x_next & (BANKS - 1)) == 0) at <= at + pitch;
            if (row_end) y <= y + 1;
            if (map_end) begin
                y <= 0;
                at <= base;
                group <= group + 1;
            end
        end
        if (init) begin
            x <= x0;
            y <= 0;
            at <= base;
            group <= 0;
        end
    end
endmodule

module xn_post #(parameter P = 4, PI = 2, PR = 2, AW = 8, WIDE = 1) (
    input wire clk, rst, init,
    input wire [1023:0] d,
    input wire [12:0] dest_x0, input wire [AW-1:0] dest_row, dest_skip,
    // parameters of a channel of the next pass's or group's, into one of two buffers
    input wire [1023:0] next_d, input wire post_in, post_into, input wire [3:0] post_lane, input wire [255:0] post,
    output wire [1:0] post_free, input wire restart,
    // a tile
    input wire tile_next, tile_in, // a cycle before, now
    input wire [P*16*25-1:0] binary, input wire [P*25-1:0] seen, input wire [PI*16*32-1:0] int8,
    input wire [16*32-1:0] vector, input wire [64*P-1:0] largest,
    output wire quiet,
    // memories
    output wire rm_re, output wire [AW-1:0] rm_read_at, input wire [256*PR-1:0] rm_data,
    output wire [PR-1:0] rm_we, output wire [AW-1:0] rm_at, output wire [256*PR-1:0] rm_out,
    output reg [8*P-1:0] am_we, output reg [AW-1:0] am_at, output reg [64*P-1:0] am_out,
    // logits
    output wire out_req, input wire out_ready, output wire [31:0] out_index, output wire [31:0] out_data
);
    localparam LR = $clog2(PR);
    wire [2:0] op = d[2:0];
    wire is_largest = op == `OP_LARGEST, logits = `FLAG(d, `LOGITS), quantize = `FLAG(d, `QUANTIZE);
    wire [12:0] out_h = d[32 * `OUT_H +: 13], out_w = d[32 * `OUT_W +: 13];
    wire [16:0] channels = d[32 * `CHANNELS +: 17];
    wire [4:0] tile = `TILE(d);
    wire [4:0] pixels = is_largest || tile < PR ? tile : PR;
    integer j, l, b;

    // ---- T0: a post group of the tile
    reg [P*16*32-1:0] sums; // the next post group first; of tiles narrower than PR each pixel in all lanes that can be its bank's
    reg [P*25-1:0] sums_seen;
    reg [1:0] sums_from;
    reg [64*P-1:0] words;
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

    xn_walk #(PR, AW) residual_i (clk, init, fire, out_h, 13'd0, out_w, pixels, d[32 * `RESIDUAL_BASE +: AW],
                                  d[32 * `RESIDUAL_PITCH +: AW], d[32 * `RESIDUAL_PITCH +: AW], residual_at, x, group,
                                  row_end, map_end);
    assign rm_re = fire && `FLAG(d, `RESIDUAL);
    assign rm_read_at = residual_at + group;
    always_comb begin
        for (l = 0; l < 16; l = l + 1) lane_mask[l] = l < channels_left;
        for (j = 0; j < PR; j = j + 1)
            pixel_mask[j] = x_lane0 + j >= x && x_lane0 + j < x + pixels && x_lane0 + j < out_w;
    end
    always_ff @(posedge clk) begin
        sums_from <= !tile_next ? 2'd0 : op == `OP_BINARY ? 2'd1 : op == `OP_INT8 ? 2'd2 : 2'd3;
        if (tile_in || fire)
            for (j = 0; j < P; j = j + 1) begin
                for (l = 0; l < 16; l = l + 1)
                    sums[32 * (16 * j + l) +: 32] <= // one LUT6 a bit, or less: x is what no pixel needs
                        sums_from[1] ? (sums_from[0] ? (j < PR ? vector[32 * l +: 32] : 32'bx)
                                                     : j < PR || j < PI ? int8[32 * (16 * (j % PI) + l) +: 32] : 32'bx)
                                     : (sums_from[0] ? {7'bx, binary[25 * (16 * j + l) +: 25]}
                                                     : j + PR < P ? sums[32 * (16 * ((j + PR) % P) + l) +: 32] : 32'bx);
                sums_seen[25 * j +: 25] <= !tile_in ? sums_seen[25 * ((j + PR) % P) +: 25]
                    : op == `OP_BINARY ? seen[25 * j +: 25] : 25'd0;
            end
        if (tile_in) words <= `FLAG(d, `BATCH) ? {P{largest[63:0]}} : largest; // BATCH: one, to any bank
        if (fire && tile_end) busy <= 0;
        if (tile_in) busy <= 1;
        second_cycle <= fire && quantize;
        if (fire && map_end && !is_largest) which0 <= !which0;
        if (restart) which0 <= 0;
        if (rst) begin
            busy <= 0;
            second_cycle <= 0;
        end
    end

    // ---- parameters, so that a flag that is not set needs nothing in the lanes: 1 * v + 0 for SCALE, v - T for SIGN, whose sign
    // then is the answer. LOGITS have a memory of their own.
    localparam M1 = WIDE ? 68 : 88, M2 = WIDE ? 66 : 84; // with 3 * m
    reg post_q, into_q;
    reg [3:0] lane_q;
    reg [255:0] q;
    wire scales = `FLAG(next_d, `SCALE), bends = `FLAG(next_d, `RPRELU), signs_next = `FLAG(next_d, `SIGN);
    wire [17:0] m1 = scales ? q[177:160] : 18'd1;
    wire [15:0] m2 = signs_next ? 16'd1 : q[207:192];
    wire [49:0] b1 = scales ? {q[48], q[48:0]} + half(next_d[32 * `SHIFT +: 5]) : 50'd0;
    wire [49:0] b2 = (signs_next ? ~{{18{q[159]}}, q[159:128]} : {q[112], q[112:64]})
                     + (signs_next ? 50'd1 : half(next_d[32 * `SHIFT + 8 +: 5]));
    wire [19:0] m1_3 = {{2{m1[17]}}, m1} + {m1[17], m1, 1'b0};
    wire [17:0] m2_3 = {{2{m2[15]}}, m2} + {m2[15], m2, 1'b0};
    function [49:0] half(input [4:0] n);
        half = {18'd0, (32'd1 << n) >> 1};
    endfunction
    always_ff @(posedge clk) {post_q, into_q, lane_q, q} <= {post_in, post_into, post_lane, post};

    // ---- T1 to T8
    reg [4:0] n1, n2;
    reg [17:0] above1;
    reg [41:0] above2;
    wire unsigned_bytes = `FLAG(d, `UNSIGNED), hold6 = logits && (valid[6] || serial);
    wire [PR-1:0] next_lane; // LOGITS: values go from lane to lane
    wire [PR*16*32-1:0] values;
    wire [PR*16-1:0] signs;
    wire [PR*128-1:0] bytes;
    genvar p, c;
    always_ff @(posedge clk) begin
        n1 <= `FLAG(d, `SCALE) ? d[32 * `SHIFT +: 5] : 5'd0;
        n2 <= d[32 * `SHIFT + 8 +: 5];
        for (j = 0; j < 18; j = j + 1) above1[j] <= n1 <= j;
        for (j = 0; j < 42; j = j + 1) above2[j] <= n2 + unsigned_bytes <= j;
    end
    generate
        for (c = 0; c < 16; c = c + 1) begin : channel
            wire [M1-1:0] scale1;
            wire [M2-1:0] scale2;
            wire [35:0] bend;
            reg [15:0] bend5;
            wire this_lane = post_q && lane_q == c;
            xn_parameters #(M1) scale1_i (clk, this_lane, into_q, M1'({m1_3, b1, m1}), which[1], scale1);
            xn_parameters #(36) bend_i (clk, this_lane, into_q, bends ? {q[239:208], q[243:240]} : 36'd0, which[4], bend);
            xn_parameters #(M2) scale2_i (clk, this_lane, into_q, M2'({m2_3, b2, m2}), which[6], scale2);
            always_ff @(posedge clk) bend5 <= bend[35:20];
            for (p = 0; p < PR; p = p + 1) begin : pixel
                xn_lane #(WIDE) lane (
                    clk, n1, n2, above1, above2, `FLAG(d, `RESIDUAL), `FLAG(d, `SATURATE), `FLAG(d, `RPRELU), unsigned_bytes,
                    sums[32 * (16 * p + c) +: 32], sums_seen[25 * p +: 25], op == `OP_BINARY,
                    rm_data[256 * p + 16 * c +: 16], 88'(scale1), bend[19:0], bend5, 84'(scale2),
                    hold6, hold6 && !next_lane[p], !hold6 && !lane_masks[16 * 4 + c], !lane_masks[16 * 6 + c],
                    values[32 * (16 * p + (c + 1) % 16) +: 32], values[32 * (16 * p + c) +: 32],
                    signs[16 * p + c], bytes[128 * p + 8 * c +: 8]);
                assign rm_out[256 * p + 16 * c +: 16] = values[32 * (16 * p + c) +: 16];
            end
        end
    endgenerate
    always_ff @(posedge clk) begin
        valid <= {valid[7:1], fire && !is_largest};
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
    xn_walk #(PR, AW) stream_i (clk, init, valid[6], out_h, 13'd0, out_w, pixels, d[32 * `STREAM_BASE +: AW],
                                d[32 * `STREAM_PITCH +: AW], d[32 * `STREAM_PITCH +: AW], stream_at, , stream_group, , );

    // ---- T8, LARGEST's T0, QUANTIZE's second word: AM
    reg second;
    reg [8*P-1:0] second_we;
    reg [AW-1:0] second_at;
    reg [PR*64-1:0] second_bytes;
    wire [AW-1:0] dest_at;
    wire [12:0] dest_x;
    wire [16:0] dest_group;
    wire [17:0] to_group = d[32 * `DEST_GROUP +: 17] + dest_group;
    wire to_am = `FLAG(d, `SIGN) || quantize;
    wire largest_fire = fire && is_largest;
    wire [12:0] dest_x1 = dest_x0 + out_w, dest_left = dest_x1 - dest_x;
    wire [12:0] dest_pixels = dest_left < tile ? dest_left : tile;
    reg [8*P-1:0] here; // the four quarters of each bank that this post group's pixels lie in; LARGEST: the tile's
    xn_walk #(2 * P, AW) dest_i (clk, init, valid[8] || largest_fire, out_h, dest_x0, dest_x1, pixels, dest_row,
                                 d[32 * `DEST_PITCH +: AW], dest_skip, dest_at, dest_x, dest_group, , );
    always_comb begin
        for (b = 0; b < 2 * P; b = b + 1)
            here[4 * b +: 4] = {4{is_largest ? ((b - dest_x) & (2 * P - 1)) < dest_pixels : pixel_masks[PR * 7 + b % PR]
                                  && (dest_x & (2 * P - 1) & ~(PR - 1)) == b / PR * PR}};
        am_we = 0;
        am_at = dest_at + (is_largest ? d[32 * `DEST_GROUP + 2 +: 15] + dest_group : quantize ? {to_group, 1'b0}
                           : to_group[17:2]);
        for (b = 0; b < P; b = b + 1)
            am_out[64 * b +: 64] = is_largest ? words[64 * b +: 64] : quantize ? bytes[128 * (b % PR) +: 64]
                : to_group[1:0] == 0 ? {48'd0, signs[16 * (b % PR) +: 16]} : {4{signs[16 * (b % PR) +: 16]}};
        if (largest_fire || (valid[8] && quantize)) am_we = here;
        else if (valid[8] && to_am) am_we = to_group[1:0] == 0 ? here : here & {2 * P{4'b1 << to_group[1:0]}};
        else if (second) begin
            am_we = second_we;
            am_at = second_at;
            for (b = 0; b < P; b = b + 1) am_out[64 * b +: 64] = second_bytes[64 * (b % PR) +: 64];
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
    reg [PR-1:0] kept_pixels; // the lanes hold their values
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
    wire [31:0] logit_value = values[512 * (at_pixel & (PR - 1)) +: 32], ml, bl;
    wire [47:0] logit_low, logit_high, logit_above, logit_above2;
    xn_parameters #(64, 5) logit_i (clk, post_q, {into_q, lane_q}, {q[159:128], q[95:64]}, {kept_which, at_lane}, {ml, bl});
    xn_dsp logit_low_i (
        clk, {10'd0, logit_value[16:0]}, 27'd0, {1'b0, ml[16:0]}, {31'd0, bl[16:0]}, 48'd0, logit_low, logit_above);
    xn_dsp #(.CASCADE(1), .SHIFT(1)) logit_middle_i (
        clk, {12'd0, logit_value[31:17]}, 27'd0, {1'b0, ml[16:0]}, {33'd0, bl[31:17]}, logit_above, , logit_above2);
    xn_dsp #(.CASCADE(1)) logit_high_i (
        clk, {10'd0, logit_value[16:0]}, 27'd0, {3'd0, ml[31:17]}, 48'd0, logit_above2, logit_high, );
    generate
        for (p = 0; p < PR; p = p + 1) begin : step
            assign next_lane[p] = go && at_pixel == p;
        end
    endgenerate

    assign out_req = sending;
    assign out_index = index;
    assign out_data = data;
    always_ff @(posedge clk) begin
        if (valid[6] && logits) begin
            serial <= 1;
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
            data <= {logit_high[14:0], logit_low[16:0]};
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
