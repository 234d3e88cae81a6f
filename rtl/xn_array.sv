// SPDX-License-Identifier: Apache-2.0
// The units that make sums: two stages each, products of a step and their sum over steps (LARGEST: words, and the largest of
// them). `first` begins a sum with this step; a pixel that is not `enable`d keeps its sums, one that is not `add`ed adds nothing.
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

// A processing element of the int8 array: 8 products of int9 and int8 a cycle for each of two pixels, which share the weight and
// so the slice: (a << 18) + b times w. Four products of b fit 18 bits; a sum of them below zero has taken one from a's.
module xn_int8_pair (
    input wire clk, input wire [71:0] elements_a, elements_b, input wire [63:0] weight,
    input wire enable_a_q, enable_b_q, first_q,
    output reg signed [31:0] sum_a, sum_b
);
    wire [47:0] dots [0:1];
    genvar h, i;
    generate
        for (h = 0; h < 2; h = h + 1) begin : half
            wire [47:0] cascade [0:4], p [0:3];
            assign cascade[0] = 0;
            assign dots[h] = p[3];
            for (i = 0; i < 4; i = i + 1) begin : product
                wire [8:0] a = elements_a[36 * h + 9 * i +: 9], b = elements_b[36 * h + 9 * i +: 9];
                wire [7:0] w = weight[32 * h + 8 * i +: 8];
                xn_dsp #(.CASCADE(i > 0), .PREG(i == 3)) slice (
                    clk, {a, 18'd0}, {{18{b[8]}}, b}, {{10{w[7]}}, w}, 48'd0, cascade[i], p[i], cascade[i + 1]);
            end
        end
    endgenerate
    wire signed [17:0] low0 = dots[0][17:0], low1 = dots[1][17:0], high0 = dots[0][35:18], high1 = dots[1][35:18];
    // Each addition with a carry below it, needed or not: yosys would add three numbers at once, which takes more LUTs.
    wire signed [19:0] dot_b_2 = $signed({low0, 1'b0}) + $signed({low1, 1'b0});
    wire signed [19:0] dot_a_2 = $signed({high0, 1'b1}) + $signed({high1, low0[17]});
    wire signed [32:0] sum_a_2 = $signed({first_q ? 32'd0 : sum_a, 1'b1}) + $signed({dot_a_2[19:1], low1[17]});

    always_ff @(posedge clk) begin
        if (enable_a_q) sum_a <= sum_a_2[32:1];
        if (enable_b_q) sum_b <= (first_q ? 32'sd0 : sum_b) + $signed(dot_b_2[19:1]);
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
    localparam PAIRS = (PI + 1) / 2; // with one pixel a slice does one product
    reg [2*PAIRS-1:0] enable_q;
    reg first_q;
    reg [144*PAIRS-1:0] elements;
    wire [PAIRS*16*64-1:0] pair_sums;
    integer j, i;
    genvar p, l;

    always_comb begin
        elements = 0;
        for (j = 0; j < PI; j = j + 1)
            for (i = 0; i < 8; i = i + 1)
                if (add[j])
                    elements[72 * j + 9 * i +: 9] =
                        source == `BITS ? (words[64 * j + 8 * part + i] ? 9'd1 : 9'h1ff)
                                        : {source == `I8 && words[64 * j + 8 * i + 7], words[64 * j + 8 * i +: 8]};
    end
    generate
        for (p = 0; p < PAIRS; p = p + 1) begin : pixels
            for (l = 0; l < 16; l = l + 1) begin : lane
                xn_int8_pair pe (clk, elements[144 * p + 72 +: 72], elements[144 * p +: 72], weights[64 * l +: 64],
                                 enable_q[2 * p + 1], enable_q[2 * p], first_q,
                                 pair_sums[32 * (32 * p + 16 + l) +: 32], pair_sums[32 * (32 * p + l) +: 32]);
            end
        end
    endgenerate
    assign sums = pair_sums[PI*16*32-1:0];
    always_ff @(posedge clk) {enable_q, first_q} <= {(2 * PAIRS)'(enable), first};
endmodule

// 16 channels of one pixel: sum of products or largest.
module xn_vector (
    input wire clk, enable, add, first, half, largest,
    input wire [1:0] source, part, // of bits: the quarter
    input wire [63:0] word, input wire [255:0] residual, input wire [1023:0] weights,
    output reg [16*32-1:0] sums
);
    reg [15:0] lanes, lanes_q; // that this step is for: words of int8 hold half of them
    reg signed [15:0] element [0:15];
    reg [16*24-1:0] products; // or elements; 0 where nothing is added, -32768 where the largest of nothing begins
    reg enable_q, add_q, first_q;
    reg [15:0] greater;
    wire [15:0] quarter = word[16 * part +: 16];
    integer l;

    always_comb begin
        lanes = source == `U8 || source == `I8 ? (half ? 16'hff00 : 16'h00ff) : 16'hffff;
        for (l = 0; l < 16; l = l + 1)
            element[l] = !add ? {largest && first, 15'd0} : source == `I16 ? residual[16 * l +: 16]
                         : source == `BITS ? {{15{!quarter[l]}}, 1'b1}
                         : {{8{source == `I8 && word[8 * (l % 8) + 7]}}, word[8 * (l % 8) +: 8]};
        for (l = 0; l < 16; l = l + 1)
            greater[l] = $signed(products[24 * l +: 16]) > $signed(sums[32 * l +: 16]);
    end
    always_ff @(posedge clk) begin
        {enable_q, add_q, first_q, lanes_q} <= {enable, add, first, lanes};
        for (l = 0; l < 16; l = l + 1)
            products[24 * l +: 24] <= element[l] * $signed(weights[64 * l +: 8]);
        for (l = 0; l < 16; l = l + 1)
            if (enable_q && lanes_q[l] && (first_q || (add_q && (greater[l] || !largest))))
                sums[32 * l +: 32] <= (first_q || largest ? 32'sd0 : $signed(sums[32 * l +: 32])) + $signed(products[24 * l +: 24]);
    end
endmodule

// A word of P pixels: the OR of bits, the largest bytes. int8 has its sign turned in here, so that 0 is the least of all.
module xn_largest #(parameter P = 4) (
    input wire clk,
    input wire [P-1:0] enable, add, input wire first,
    input wire [1:0] source,
    input wire [64*P-1:0] words,
    output wire [64*P-1:0] largest
);
    reg [P-1:0] enable_q;
    reg first_q;
    reg [64*P-1:0] words_q, most;
    wire [63:0] turn = source == `I8 ? {8{8'h80}} : 64'd0;
    integer j;

    assign largest = most ^ {P{turn}};
    always_ff @(posedge clk) begin
        {enable_q, first_q} <= {enable, first};
        for (j = 0; j < P; j = j + 1)
            words_q[64 * j +: 64] <= add[j] ? words[64 * j +: 64] ^ turn : 64'd0;
        for (j = 0; j < 8 * P; j = j + 1)
            if (enable_q[j / 8])
                most[8 * j +: 8] <= source == `BITS && !first_q ? most[8 * j +: 8] | words_q[8 * j +: 8]
                    : first_q || words_q[8 * j +: 8] > most[8 * j +: 8] ? words_q[8 * j +: 8] : most[8 * j +: 8];
    end
endmodule
