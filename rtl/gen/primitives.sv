// SPDX-License-Identifier: Apache-2.0
// What the primitives do that compressor.py places, for simulation; synthesis has its own.

// Six inputs, one output; or two outputs that share five, I5 = 1.
module LUT6_2 #(parameter [63:0] INIT = 0) (output wire O6, O5, input wire I0, I1, I2, I3, I4, I5);
    assign O6 = INIT[{I5, I4, I3, I2, I1, I0}];
    assign O5 = INIT[{1'b0, I4, I3, I2, I1, I0}];
endmodule

// A chain of eight carries, or (DUAL_CY4) two of four: a position adds where S says that one carry more makes one more.
module CARRY8 #(parameter CARRY_TYPE = "SINGLE_CY8") (output wire [7:0] O, CO, input wire CI, CI_TOP, input wire [7:0] S, DI);
    wire [8:0] low, high;
    assign low[0] = CI;
    assign high[4:0] = {CARRY_TYPE == "DUAL_CY4" ? CI_TOP : low[4], 4'd0};
    genvar i;
    generate
        for (i = 0; i < 4; i = i + 1) begin : position
            assign low[i + 1] = S[i] ? low[i] : DI[i];
            assign high[i + 5] = S[i + 4] ? high[i + 4] : DI[i + 4];
        end
    endgenerate
    assign low[8:5] = high[8:5];
    assign CO = low[8:1];
    assign O = S ^ {high[7:4], low[3:0]};
endmodule
