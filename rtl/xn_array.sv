// SPDX-License-Identifier: Apache-2.0
// The units that make sums: two stages each, products of a step and their sum over steps. `first` begins a sum with this
// step; a pixel that is not `enable`d keeps its sums, one that is not `add`ed adds nothing.
`include "xn_defs.svh"

// Bits that differ.
module xn_differ (input wire [63:0] a, b, output wire [6:0] count);
`ifdef VERILATOR
    assign count = 7'($countones(a ^ b));
`else
    xn_dot_compressors_64 dot (a, b, count); // rtl/gen/compressor.py, by rtl/synth
`endif
endmodule

// A processing element of the binary array: one pixel, one channel, 64 bits a cycle.
module xn_binary_pe (
    input wire clk, input wire [63:0] word, weight, input wire enable_q, add_q, first_q, output reg [24:0] sum
);
    wire [6:0] count;
    reg [6:0] count_q;

    xn_differ differ (word, weight, count);
    always_ff @(posedge clk) begin
        count_q <= count;
        if (enable_q) sum <= (first_q ? 25'd0 : sum) + (add_q ? {18'd0, count_q} : 25'd0);
    end
endmodule

// P pixels x 16 channels: bits that differ in `sums`, channels seen in `seen`; the sum of products is seen - 2 * sums.
module xn_binary #(parameter P = 4) (
    input wire clk,
    input wire [P-1:0] enable, add, input wire first, tap,
    input wire [24:0] channels,
    input wire [64*P-1:0] words, input wire [1023:0] weights,
    output wire [P*16*25-1:0] sums, output reg [P*25-1:0] seen
);
    reg [P-1:0] enable_q, add_q;
    reg first_q, tap_q;
    integer j;
    genvar p, l;

    generate
        for (p = 0; p < P; p = p + 1) begin : pixel
            for (l = 0; l < 16; l = l + 1) begin : lane
                xn_binary_pe pe (clk, words[64 * p +: 64], weights[64 * l +: 64], enable_q[p], add_q[p], first_q,
                                 sums[25 * (16 * p + l) +: 25]);
            end
        end
    endgenerate
    always_ff @(posedge clk) begin
        {enable_q, add_q, first_q, tap_q} <= {enable, add, first, tap};
        for (j = 0; j < P; j = j + 1)
            if (enable_q[j])
                seen[25 * j +: 25] <= (first_q ? 25'd0 : seen[25 * j +: 25]) + (add_q[j] && tap_q ? channels : 25'd0);
    end
endmodule

// A processing element of the int8 array: 8 products of int9 and int8 a cycle.
module xn_int8_pe (
    input wire clk, input wire [71:0] elements, input wire [63:0] weight, input wire enable_q, add_q, first_q,
    output reg signed [31:0] sum
);
    reg signed [19:0] dot, dot_q;
    integer i;

    always_comb begin
        dot = 0;
        for (i = 0; i < 8; i = i + 1)
            dot = dot + $signed(elements[9 * i +: 9]) * $signed(weight[8 * i +: 8]);
    end
    always_ff @(posedge clk) begin
        dot_q <= dot;
        if (enable_q) sum <= (first_q ? 32'sd0 : sum) + (add_q ? {{12{dot_q[19]}}, dot_q} : 32'sd0);
    end
endmodule

// PI pixels x 16 channels x 8 inputs.
module xn_int8 #(parameter PI = 2) (
    input wire clk,
    input wire [PI-1:0] enable, add, input wire first,
    input wire [1:0] source, input wire [2:0] part, // of bits: the byte
    input wire [64*PI-1:0] words, input wire [1023:0] weights,
    output wire [PI*16*32-1:0] sums
);
    reg [PI-1:0] enable_q, add_q;
    reg first_q;
    reg [72*PI-1:0] elements;
    integer j, i;
    genvar p, l;

    always_comb
        for (j = 0; j < PI; j = j + 1)
            for (i = 0; i < 8; i = i + 1)
                elements[72 * j + 9 * i +: 9] =
                    source == `BITS ? (words[64 * j + 8 * part + i] ? 9'd1 : 9'h1ff)
                                    : {source == `I8 && words[64 * j + 8 * i + 7], words[64 * j + 8 * i +: 8]};
    generate
        for (p = 0; p < PI; p = p + 1) begin : pixel
            for (l = 0; l < 16; l = l + 1) begin : lane
                xn_int8_pe pe (clk, elements[72 * p +: 72], weights[64 * l +: 64], enable_q[p], add_q[p], first_q,
                               sums[32 * (16 * p + l) +: 32]);
            end
        end
    endgenerate
    always_ff @(posedge clk) {enable_q, add_q, first_q} <= {enable, add, first};
endmodule

// 16 channels of one pixel: sum of products or largest; the OR of words.
module xn_vector (
    input wire clk, enable, add, first, half, largest,
    input wire [1:0] source, part, // of bits: the quarter
    input wire [63:0] word, input wire [255:0] residual, input wire [1023:0] weights,
    output reg [16*32-1:0] sums, output reg [63:0] any
);
    reg [15:0] lanes, lanes_q; // that this step is for: words of int8 hold half of them
    reg signed [15:0] element [0:15];
    reg [16*24-1:0] products; // or elements
    reg enable_q, add_q, first_q;
    reg [63:0] word_q;
    reg signed [31:0] from, with_this;
    integer l;

    always_comb begin
        lanes = source == `U8 || source == `I8 ? (half ? 16'hff00 : 16'h00ff) : 16'hffff;
        for (l = 0; l < 16; l = l + 1)
            element[l] = source == `I16 ? residual[16 * l +: 16] : source == `BITS ? (word[16 * part + l] ? 16'd1 : 16'hffff)
                         : {{8{source == `I8 && word[8 * (l % 8) + 7]}}, word[8 * (l % 8) +: 8]};
    end
    always_ff @(posedge clk) begin
        {enable_q, add_q, first_q, lanes_q, word_q} <= {enable, add, first, lanes, word};
        for (l = 0; l < 16; l = l + 1)
            products[24 * l +: 24] <= element[l] * (largest ? 24'sd1 : $signed(weights[64 * l +: 8]));
        for (l = 0; l < 16; l = l + 1) begin
            from = first_q ? (largest ? -32'sd32768 : 32'sd0) : sums[32 * l +: 32];
            with_this = {{8{products[24 * l + 23]}}, products[24 * l +: 24]};
            if (enable_q && lanes_q[l])
                sums[32 * l +: 32] <= !add_q ? from : !largest ? from + with_this : with_this > from ? with_this : from;
        end
        if (enable_q) any <= (first_q ? 64'd0 : any) | (add_q ? word_q : 64'd0);
    end
endmodule
