// SPDX-License-Identifier: Apache-2.0
// The order of a pass: groups, chunks, rows, tiles, then the window's taps and words; nested counters that hold what is
// added to, not what is multiplied. `step` takes the cycle that stands at the outputs `now_*`; three cycles later its bank
// addresses stand at `am_*` or `rm_*`, and what belongs to them at `s3_*`.
//
// Pixel j of a tile lies `j * stride` beside the first, in a column of banks of its own: column * pitch is one multiplier a
// pixel; counters for it would be three registers and two adders a pixel. Strides with which two pixels of a tile share
// a bank (multiples of 4 where tiles have P pixels) take a cycle a pixel; where a map has one pixel, the
// tile's others are not read. LARGEST's words are groups here.
`include "xn_defs.svh"
module xn_address #(parameter P = 4, PI = 2, PR = 2, AW = 8, LW = 6, WB_WORDS = 64, LB = 3) (
    input wire clk, rst, init, step,
    input wire [1023:0] d,
    input wire [18:0] steps, input wire [16:0] groups,
    input wire [AW-1:0] row_pitch, first_row, stride_rows,
    output reg running,
    output wire now_last,       // of a window
    output wire now_chunk_end,  // the weight buffer is not needed again
    output wire now_group_end,
    output wire [4:0] now_post, // post groups of this tile
    output reg weights_buffer,
    output reg [2*P-1:0] am_re, output reg [2*P*AW-1:0] am_at,
    output reg rm_re, output reg [AW-1:0] rm_at,
    output reg s3_valid, s3_first, s3_last, s3_tap, s3_half, s3_chunk_end,
    output reg [2:0] s3_part, // quarter of a word of bits (VECTOR), byte (INT8)
    output reg [P-1:0] s3_enable, s3_inside,
    output reg [P*LB-1:0] s3_bank,
    output reg [LW:0] s3_weight
);
    localparam LR = $clog2(PR);
    wire [2:0] op = d[2:0];
    wire [1:0] source = d[32 * `SOURCE +: 2];
    wire [12:0] height = d[32 * `HEIGHT +: 13], width = d[32 * `WIDTH +: 13], out_h = d[32 * `OUT_H +: 13];
    wire [12:0] out_w = d[32 * `OUT_W +: 13], kernel_h = d[32 * `KERNEL_H +: 13], kernel_w = d[32 * `KERNEL_W +: 13];
    wire [12:0] stride_h = d[32 * `STRIDE_H +: 13], stride_w = d[32 * `STRIDE_W +: 13];
    wire [16:0] words = op == `OP_LARGEST ? 17'd1 : d[32 * `WORDS +: 17], pitch = d[32 * `PITCH +: 17];
    wire is_rm = source == `I16;
    wire has_p = `HAS_P(d), has_pi = op == `OP_INT8;
    wire [4:0] tile = `TILE(d);
    wire shared = out_w > 1 && ((has_p && P > 1 && stride_w[1:0] == 0)
                                || (has_pi && PI > 1 && (stride_w & (4 * P / PI - 1)) == 0));
    wire halves = op == `OP_VECTOR && (source == `U8 || source == `I8);
    wire [4:0] sub_last = shared ? tile - 5'd1 : {4'd0, halves};

    reg [16:0] group, w;
    reg [12:0] y, x, ky, kx;
    reg [4:0] sub;
    reg [18:0] word; // of the chunk
    reg signed [25:0] iy0, iy, ix0, ix; // of the source: the window's first pixel, this one
    reg [AW-1:0] row0, row;
    wire sub_end = sub == sub_last, w_end = w + 1 == words, kx_end = kx + 1 == kernel_w, ky_end = ky + 1 == kernel_h;
    wire window_end = w_end && kx_end && ky_end, x_end = {1'b0, x} + {9'd0, tile} >= {1'b0, out_w}, y_end = y + 1 == out_h;
    wire signed [25:0] tile_stride = has_p ? P * stride_w : has_pi ? PI * stride_w : stride_w;
    wire signed [25:0] left = -$signed({13'd0, d[32 * `PAD_LEFT +: 13]}), top = -$signed({13'd0, d[32 * `PAD_TOP +: 13]});
    wire [12:0] rest = out_w - x, tile_pixels = rest < {8'd0, tile} ? rest : {8'd0, tile};
    wire chunk_full = word + 1 == d[32 * `CHUNK +: 19];
    wire [12:0] post_groups = (tile_pixels + PR - 1) >> LR;

    assign now_last = sub_end && window_end;
    assign now_group_end = now_last && x_end && y_end;
    assign now_chunk_end = `HAS_WEIGHTS(d) && sub_end && (window_end ? x_end && y_end : chunk_full);
    assign now_post = op == `OP_LARGEST ? 5'd1 : post_groups[4:0];

    always_ff @(posedge clk) begin
        if (step) begin
            sub <= sub_end ? 0 : sub + 1;
            if (sub_end) begin
                word <= window_end || chunk_full ? 0 : word + 1;
                w <= w_end ? 0 : w + 1;
                if (w_end) begin
                    kx <= kx_end ? 0 : kx + 1;
                    ix <= kx_end ? ix0 : ix + 1;
                    if (kx_end) begin
                        ky <= ky_end ? 0 : ky + 1;
                        iy <= ky_end ? iy0 : iy + 1;
                        row <= ky_end ? row0 : row + row_pitch;
                        if (ky_end) begin
                            x <= x_end ? 0 : x + tile;
                            ix0 <= x_end ? left : ix0 + tile_stride;
                            ix <= x_end ? left : ix0 + tile_stride;
                            if (x_end) begin
                                y <= y_end ? 0 : y + 1;
                                iy0 <= y_end ? top : iy0 + $signed({13'd0, stride_h});
                                iy <= y_end ? top : iy0 + $signed({13'd0, stride_h});
                                row0 <= y_end ? first_row : row0 + stride_rows;
                                row <= y_end ? first_row : row0 + stride_rows;
                                if (y_end) begin
                                    group <= group + 1;
                                    if (group + 1 == groups) running <= 0;
                                end
                            end
                        end
                    end
                end
            end
            if (now_chunk_end) weights_buffer <= !weights_buffer;
        end
        if (init) begin
            running <= 1;
            {sub, word, w, kx, ky, x, y, group} <= 0;
            ix0 <= left;
            ix <= left;
            iy0 <= top;
            iy <= top;
            row0 <= first_row;
            row <= first_row;
        end
        if (rst) begin
            running <= 0;
            weights_buffer <= 0;
        end
    end

    // ---- to addresses
    reg s1_valid, s1_first, s1_last, s1_tap, s1_half, s1_chunk_end, s1_row_inside;
    reg [2:0] s1_part;
    reg [P-1:0] s1_enable;
    reg [LW:0] s1_weight;
    reg [AW-1:0] s1_row;
    reg [P*26-1:0] s1_ix;
    reg s2_valid, s2_first, s2_last, s2_tap, s2_half, s2_chunk_end;
    reg [2:0] s2_part;
    reg [P-1:0] s2_enable, s2_inside;
    reg [LW:0] s2_weight;
    reg [AW-1:0] s2_row;
    reg [P*AW-1:0] s2_column;
    reg [P*LB-1:0] s2_bank;
    wire [16:0] source_group = d[32 * `SOURCE_GROUP +: 17] + group;
    wire [17:0] offset = op == `OP_LARGEST ? {1'b0, group} : op == `OP_VECTOR ? (is_rm ? {1'b0, source_group} : source == `BITS
        ? {3'd0, source_group[16:2]} : {source_group, sub[0]}) : op == `OP_INT8 && source == `BITS ? {4'd0, w[16:3]} : {1'b0, w};
    wire [AW-1:0] s1_pixel0_column = is_rm ? s1_ix[25:0] >> LR : s1_ix[25:0] >> LB;
    reg [P*26-1:0] beside; // j * stride, once a pass
    integer j, b;

    always_ff @(posedge clk) begin
        for (j = 0; j < P; j = j + 1)
            beside[26 * j +: 26] <= (j & 1 ? stride_w : 26'd0) + (j & 2 ? {stride_w, 1'd0} : 26'd0)
                                    + (j & 4 ? {stride_w, 2'd0} : 26'd0) + (j & 8 ? {stride_w, 3'd0} : 26'd0);
        s1_valid <= step;
        s1_first <= w == 0 && kx == 0 && ky == 0;
        s1_last <= now_last;
        s1_tap <= w == 0;
        s1_half <= halves && sub[0];
        s1_chunk_end <= step && now_chunk_end;
        s1_part <= op == `OP_VECTOR ? {1'b0, source_group[1:0]} : w[2:0];
        s1_enable <= shared ? 1 << sub : out_w == 1 ? 1 : has_p ? {P{1'b1}} : has_pi ? {PI{1'b1}} : 1;
        s1_weight <= word + (weights_buffer ? WB_WORDS : 0);
        s1_row <= row + offset;
        s1_row_inside <= $unsigned(iy) < height;
        for (j = 0; j < P; j = j + 1)
            s1_ix[26 * j +: 26] <= ix + beside[26 * j +: 26];

        {s2_valid, s2_first, s2_last, s2_tap, s2_half, s2_chunk_end, s2_part, s2_enable, s2_weight, s2_row} <=
            {s1_valid, s1_first, s1_last, s1_tap, s1_half, s1_chunk_end, s1_part, s1_enable, s1_weight, s1_row};
        for (j = 0; j < P; j = j + 1) begin
            s2_inside[j] <= s1_row_inside && s1_ix[26 * j +: 26] < width;
            s2_bank[LB * j +: LB] <= is_rm ? s1_ix[26 * j +: LB] & (PR - 1) : s1_ix[26 * j +: LB];
            s2_column[AW * j +: AW] <= (j == 0 ? s1_pixel0_column : s1_ix[26 * j + LB +: 12]) * pitch;
        end

        {s3_valid, s3_first, s3_last, s3_tap, s3_half, s3_chunk_end, s3_part, s3_enable, s3_weight, s3_inside, s3_bank} <=
            {s2_valid, s2_first, s2_last, s2_tap, s2_half, s2_chunk_end, s2_part, s2_enable, s2_weight, s2_inside, s2_bank};
        am_re <= 0;
        for (b = 0; b < 2 * P; b = b + 1)
            for (j = 0; j < P; j = j + 1)
                if (s2_bank[LB * j +: LB] == b && s2_inside[j] && s2_enable[j]) begin
                    am_re[b] <= s2_valid && !is_rm;
                    am_at[AW * b +: AW] <= s2_column[AW * j +: AW] + s2_row;
                end
        rm_re <= s2_valid && is_rm && s2_inside[0];
        rm_at <= s2_column[0 +: AW] + s2_row;
        if (rst) {s1_valid, s2_valid, s3_valid, s1_chunk_end, s2_chunk_end, s3_chunk_end} <= 0;
    end
endmodule
