// SPDX-License-Identifier: Apache-2.0
// xn_walk: `at` is the row of the pixel that stands at y, x by the definition's formula, base + (y * columns + x / BANKS) *
// pitch; the order is x, y, group. A pass has columns x0 to x1 - 1 of a map `width` wide; where it makes more than a pixel at a time, all of
// them. Sizes and addresses of few bits; rows wrap as they do in hardware.
`default_nettype none
module f_walk (input wire clk, init, next);
`ifdef BANKS
    localparam BANKS = `BANKS;
`else
    localparam BANKS = 4;
`endif
    localparam AW = 5, SIDE = 7;
    (* anyconst *) reg [12:0] out_h, x0, x1;
    (* anyconst *) reg [3:0] width;
    (* anyconst *) reg [4:0] pixels;
    (* anyconst *) reg [AW-1:0] base, pitch;
    wire [3:0] columns = (width + BANKS - 1) / BANKS;
    wire [AW-1:0] first = base + x0[2:0] / BANKS * pitch, skip = (columns - (x1[2:0] - 3'd1) / BANKS + x0[2:0] / BANKS) * pitch;
    wire [AW-1:0] at;
    wire [12:0] x;
    wire [16:0] group;
    wire row_end, map_end;
    (* hierconn *) wire [12:0] \dut.y ;

    xn_walk #(.BANKS(BANKS), .AW(AW)) dut (
        .clk(clk), .init(init), .next(next), .out_h(out_h), .x0(x0), .x1(x1), .pixels(pixels), .base(first), .pitch(pitch),
        .skip(skip), .at(at), .x(x), .group(group), .row_end(row_end), .map_end(map_end));

    // the order, as loops are nested
    reg begun = 0;
    reg [3:0] want_y, want_x;
    reg [16:0] want_group;
    wire [4:0] x_after = want_x + pixels;
    always @(posedge clk) begin
        begun <= 1;
        if (next) begin
            want_x <= x_after;
            if (x_after >= x1) begin
                want_x <= x0;
                want_y <= want_y + 1;
                if (want_y + 1 == out_h) begin
                    want_y <= 0;
                    want_group <= want_group + 1;
                end
            end
        end
        if (init) begin
            {want_y, want_group} <= 0;
            want_x <= x0;
        end
    end
    wire [7:0] place = want_y * columns + want_x / BANKS;
    wire [AW-1:0] want = base + place * pitch;
    always @* begin
        if (!begun) assume (init);
        assume (out_h >= 1 && out_h <= SIDE && x1 > x0 && x1 <= SIDE && x1 <= width && width <= 9);
        assume (pixels == 1 || (x0 == 0 && x1 == width));
        assume (pixels == 1 || (pixels == 2 && BANKS >= 2) || (pixels == 4 && BANKS >= 4));
        if (begun) begin
            assert (x == want_x && \dut.y == want_y && group == want_group && want_x >= x0 && want_x < x1 && want_y < out_h && want_x % pixels == 0);
            assert (at == want);
            assert (row_end == (x_after >= x1) && map_end == (row_end && want_y + 1 == out_h));
            cover (group == 1 && want_y == 2 && want_x != x0 && x1 % BANKS != 0 && x1 > BANKS && pitch > 1);
            cover (group == 1 && want_y == 2 && x0 == 3 && x1 == 6 && width == 9 && pitch > 1);
        end
    end
endmodule
