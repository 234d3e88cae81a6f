// SPDX-License-Identifier: Apache-2.0
// DSP slices, by hand: yosys would take twice as many. Simulation has a model of the few things that are used of one; that
// its attributes make a DSP48E2 do the same was never run through a vendor's tool. rtl/gen/dsp proves what is made of them.
`include "xn_defs.svh"

// p = (a + d) * b + c, and with CASCADE what comes from the slice below, with SHIFT that >> 17. A register before the last
// addition (MREG), of c too, and one behind it (PREG).
module xn_dsp #(parameter CASCADE = 0, SHIFT = 0, MREG = 0, PREG = 0) (
    input wire clk, input wire signed [26:0] a, d, input wire signed [17:0] b, input wire signed [47:0] c, below,
    output wire signed [47:0] p, above
);
`ifdef VERILATOR
    reg signed [47:0] m_q, c_q, p_q;
    wire signed [26:0] ad = a + d;
    wire signed [44:0] m = ad * b;
    wire signed [47:0] from = !CASCADE ? 48'sd0 : SHIFT ? below >>> 17 : below;
    wire signed [47:0] sum = (MREG ? m_q + c_q : {{3{m[44]}}, m} + c) + from;
    assign p = PREG ? p_q : sum, above = p;
    always_ff @(posedge clk) {m_q, c_q, p_q} <= {{3{m[44]}}, m, c, sum};
`else
    localparam [8:0] OPMODE = {2'b11, !CASCADE ? 3'b000 : SHIFT ? 3'b101 : 3'b001, 4'b0101}; // W = C, Z, X and Y = M
    DSP48E2 #(
        .AMULTSEL("AD"), .USE_MULT("MULTIPLY"), .AREG(0), .ACASCREG(0), .BREG(0), .BCASCREG(0), .DREG(0), .ADREG(0),
        .CREG(MREG), .MREG(MREG), .PREG(PREG), .INMODEREG(0), .OPMODEREG(0), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0)
    ) slice (
        .CLK(clk), .A({{3{a[26]}}, a}), .B(b), .C(c), .D(d), .PCIN(below), .P(p), .PCOUT(above), .OPMODE(OPMODE),
        .INMODE(5'b00100), .ALUMODE(4'd0), .CARRYIN(1'b0), .CARRYINSEL(3'd0), .ACIN(30'd0), .BCIN(18'd0), .CARRYCASCIN(1'b0),
        .MULTSIGNIN(1'b0), .CEA1(1'b0), .CEA2(1'b0), .CEAD(1'b0), .CEALUMODE(1'b0), .CEB1(1'b0), .CEB2(1'b0), .CEC(1'b1),
        .CECARRYIN(1'b0), .CECTRL(1'b0), .CED(1'b0), .CEINMODE(1'b0), .CEM(1'b1), .CEP(1'b1), .RSTA(1'b0),
        .RSTALLCARRYIN(1'b0), .RSTALUMODE(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTCTRL(1'b0), .RSTD(1'b0), .RSTINMODE(1'b0),
        .RSTM(1'b0), .RSTP(1'b0));
`endif
endmodule

// v * m + b, exact, a cycle later. Two slices, or with WIDE = 0 one, and LUTs for the six highest bits of v, with m3 = 3 * m.
module xn_scale #(parameter WIDE = 1) (
    input wire clk, input wire [31:0] v, input wire [17:0] m, input wire [19:0] m3, input wire [49:0] b,
    output wire [49:0] result
);
    wire [47:0] low, high, cascade;
    generate
        if (WIDE) begin : two
            xn_dsp #(.MREG(1)) low_i (clk, {10'd0, v[16:0]}, 27'd0, m, {31'd0, b[16:0]}, 48'd0, low, cascade);
            xn_dsp #(.MREG(1), .CASCADE(1), .SHIFT(1)) high_i (
                clk, {{12{v[31]}}, v[31:17]}, 27'd0, m, {{15{b[49]}}, b[49:17]}, cascade, high, );
            assign result = {high[32:0], low[16:0]};
        end else begin : one
            reg [23:0] top;
            wire [23:0] m_1 = {{6{m[17]}}, m}, m_3 = {{4{m3[19]}}, m3};
            wire [23:0] digit0 = v[27] ? (v[26] ? m_3 : {m_1[22:0], 1'b0}) : v[26] ? m_1 : 24'd0;
            wire [21:0] digit1 = v[29] ? (v[28] ? m_3[21:0] : {m_1[20:0], 1'b0}) : v[28] ? m_1[21:0] : 22'd0;
            wire [19:0] digit2 = v[31] ? ~(v[30] ? m_1[19:0] : {m_1[18:0], 1'b0}) : v[30] ? m_1[19:0] : 20'd0; // -2m, -m
            wire [21:0] two_digits = digit0[23:2] + digit1;
            wire [20:0] three = {two_digits[21:2], 1'b1} + {digit2, v[31]};
            xn_dsp #(.MREG(1)) low_i (clk, {1'b0, v[25:0]}, 27'd0, m, {22'd0, b[25:0]}, 48'd0, low, cascade);
            always_ff @(posedge clk) top <= {three[20:1], two_digits[1:0], digit0[1:0]} + b[49:26];
            assign result = {top + {{2{low[47]}}, low[47:26]}, low[25:0]};
        end
    endgenerate
endmodule
