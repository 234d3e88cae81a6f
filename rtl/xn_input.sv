// SPDX-License-Identifier: Apache-2.0
// INPUT: rows of the image from card memory into a ring of 1024 beats, from there word by word into AM. Rows are fetched
// ahead as far as the ring holds them.
`include "xn_defs.svh"
module xn_input #(parameter P = 4, AW = 8) (
    input wire clk, rst, start,
    input wire [1023:0] d,
    input wire [63:0] image_at,
    output wire req, input wire ack, output wire [58:0] req_at, output wire [9:0] req_beats,
    input wire r_valid, input wire [255:0] r_data,
    output reg [2*P-1:0] am_we, output reg [AW-1:0] am_at, output reg [63:0] am_data,
    output wire busy
);
    wire [14:0] row_bytes = d[32 * `ROW_BYTES +: 15];
    wire [12:0] height = d[32 * `HEIGHT +: 13], out_w = d[32 * `OUT_W +: 13], pitch = d[32 * `DEST_PITCH +: 13];
    wire [15:0] channels = d[32 * `CHANNELS +: 16];

    // ---- rows into the ring
    reg [63:0] fetch_at;
    reg [12:0] fetch_row;
    reg [10:0] room, have; // beats not asked for, beats that lie there
    reg [9:0] ring_in;
    wire [14:0] fetch_span = {10'd0, fetch_at[4:0]} + row_bytes + 31;
    reg release_row;
    wire [9:0] pack_beats;

    assign req = fetch_row != 0 && room >= {1'b0, req_beats};
    assign req_at = fetch_at[63:5];
    assign req_beats = fetch_span[14:5];
    always_ff @(posedge clk) begin
        if (ack) begin
            fetch_at <= fetch_at + {49'd0, row_bytes};
            fetch_row <= fetch_row - 1;
        end
        if (r_valid) ring_in <= ring_in + 1;
        room <= room - (ack ? {1'b0, req_beats} : 11'd0) + (release_row ? {1'b0, pack_beats} : 11'd0);
        have <= have + {10'd0, r_valid} - (release_row ? {1'b0, pack_beats} : 11'd0);
        if (start) begin
            fetch_at <= image_at;
            fetch_row <= height;
            room <= 1024;
            have <= 0;
            ring_in <= 0;
        end
        if (rst) fetch_row <= 0;
    end

    // ---- words out of it
    reg [12:0] rows, x, w;
    reg [4:0] offset;             // of the row in its first beat
    reg [9:0] ring_out;           // the row's first beat
    reg signed [27:0] pixel_byte; // of the row: of word 0
    reg [AW-1:0] column;
    wire signed [27:0] byte_at = pixel_byte + $signed({12'd0, w, 3'd0});
    wire [14:0] span = {10'd0, offset} + row_bytes + 31;
    wire go = rows != 0 && have >= {1'b0, pack_beats};
    wire w_end = w + 1 == pitch, x_end = x + 1 == out_w;
    wire [14:0] ring_byte = {ring_out, offset} + byte_at[14:0];
    wire [9:0] beat = ring_byte[14:5], beat_after = beat + 1;
    wire [255:0] even, odd;
    wire [12:0] bank_mask = 2 * P - 1;
    integer k;

    assign pack_beats = span[14:5];
    xn_ram #(.WIDTH(256), .PARTS(1), .ROWS(512), .AW(9)) even_i (
        .clk(clk), .we(r_valid && !ring_in[0]), .waddr(ring_in[9:1]), .wdata(r_data), .re(go), .raddr(beat_after[9:1]),
        .rdata(even), .read_fault(), .write_fault());
    xn_ram #(.WIDTH(256), .PARTS(1), .ROWS(512), .AW(9)) odd_i (
        .clk(clk), .we(r_valid && ring_in[0]), .waddr(ring_in[9:1]), .wdata(r_data), .re(go), .raddr(beat[9:1]),
        .rdata(odd), .read_fault(), .write_fault());

    // a cycle later: the word; another: the write
    reg read;
    reg [5:0] from;
    reg [7:0] keep;
    reg [2*P-1:0] bank;
    reg [AW-1:0] at;
    wire [511:0] two = from[5] ? {even, odd} : {odd, even};
    wire [63:0] word = two[{from[4:0], 3'd0} +: 64];

    assign busy = rows != 0 || read || |am_we;
    always_ff @(posedge clk) begin
        release_row <= 0;
        if (go && !release_row) begin
            w <= w_end ? 0 : w + 1;
            if (w_end) begin
                x <= x + 1;
                pixel_byte <= pixel_byte + $signed({13'd0, d[32 * `STRIDE_W +: 15]});
                if ((x & bank_mask) == bank_mask || x_end) column <= column + pitch;
                if (x_end) begin
                    x <= 0;
                    pixel_byte <= -$signed({13'd0, d[32 * `PAD_LEFT +: 15]});
                    release_row <= 1;
                end
            end
        end
        if (release_row) begin
            rows <= rows - 1;
            ring_out <= ring_out + pack_beats;
            offset <= offset + row_bytes[4:0];
        end
        read <= go && !release_row;
        from <= ring_byte[5:0];
        for (k = 0; k < 8; k = k + 1)
            keep[k] <= {w, 3'd0} + k < channels && byte_at + k >= 0 && byte_at + k < $signed({13'd0, row_bytes});
        bank <= 1 << (x & bank_mask);
        at <= column + w;
        am_we <= read ? bank : 0;
        am_at <= at;
        for (k = 0; k < 8; k = k + 1)
            am_data[8 * k +: 8] <= keep[k] ? word[8 * k +: 8] : 8'd0;
        if (start) begin
            rows <= height;
            x <= 0;
            w <= 0;
            offset <= image_at[4:0];
            ring_out <= 0;
            pixel_byte <= -$signed({13'd0, d[32 * `PAD_LEFT +: 15]});
            column <= d[32 * `DEST_BASE +: AW];
        end
        if (rst) begin
            rows <= 0;
            read <= 0;
            am_we <= 0;
            release_row <= 0;
        end
    end
endmodule
