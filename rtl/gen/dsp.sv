// SPDX-License-Identifier: Apache-2.0
// What is made of DSP slices (xn_dsp.sv, xn_int8_pair) against plain products: extreme and random vectors.
// A vector's products stand behind the first clock, its sums behind the second. `make rtl-test` runs it; +verilator+seed+N.
module bench;
    reg clk = 0, first, enable_a, enable_b;
    reg [35:0] a0, a1, b0, b1; // of two halves: Verilator 5.006 does not see all changes of what is wider than 64 bits
    reg [63:0] w;
    reg [31:0] v;
    reg [17:0] m;
    reg [49:0] c;
    wire [19:0] m3 = 20'(3 * 32'($signed(m)));
    wire signed [31:0] sum_a, sum_b;
    wire [49:0] wide, narrow;
    reg signed [31:0] want_a, want_b;
    reg [49:0] want;
    integer n, i;

    xn_int8_pair pair (clk, {a1, a0}, {b1, b0}, w, enable_a, enable_b, first, sum_a, sum_b);
    xn_scale #(1) wide_i (clk, v, m, m3, c, wide);
    xn_scale #(0) narrow_i (clk, v, m, m3, c, narrow);

    // The least, the greatest, 0, -1, or any of `bits`.
    function automatic signed [63:0] any(input integer bits);
        any = {$urandom, $urandom} << (64 - bits);
        case ($urandom % 8)
            0: any = 64'h8000000000000000;
            1: any = 64'h7fffffffffffffff;
            2: any = 0;
            3: any = -64'sd1;
            default: ;
        endcase
        any = any >>> (64 - bits);
    endfunction

    task tick;
        #1 clk = 1;
        #1 clk = 0;
    endtask

    initial begin
        for (n = 0; n < 200000; n = n + 1) begin
            reg signed [31:0] dot_a, dot_b;
            reg [8:0] a, b;
            dot_a = 0;
            dot_b = 0;
            for (i = 0; i < 8; i = i + 1) begin // int9 of -128 to 255; whole vectors of extremes now and then
                a = n % 16 == 0 ? 9'd255 : n % 16 == 1 ? 9'h180 : $urandom % 2 ? 9'(any(8)) : {1'b0, 8'(any(8))};
                b = n % 16 < 2 ? 9'd255 : n % 16 < 4 ? 9'h180 : $urandom % 2 ? 9'(any(8)) : {1'b0, 8'(any(8))};
                w[8 * i +: 8] = n % 32 < 4 ? 8'h80 : n % 32 < 20 && n % 32 > 15 ? 8'h7f : 8'(any(8));
                dot_a = dot_a + $signed(a) * $signed(w[8 * i +: 8]);
                dot_b = dot_b + $signed(b) * $signed(w[8 * i +: 8]);
                {a1, a0} = {a, a1, a0[35:9]};
                {b1, b0} = {b, b1, b0[35:9]};
            end
            v = 32'(any(32));
            m = 18'(any(18));
            c = 50'(any(49));
            first = n == 0 || $urandom % 8 == 0; // of the step whose products are through
            want = 50'(64'($signed(v)) * 64'($signed(m))) + c;
            tick; // products
            if (wide != want || narrow != want) begin
                $display("%h * %h + %h: %h, two slices %h, one %h", v, m, c, want, wide, narrow);
                $fatal;
            end
            enable_a = n == 0 || $urandom % 4 != 0;
            enable_b = n == 0 || $urandom % 4 != 0;
            if (enable_a) want_a = (first ? 0 : want_a) + dot_a;
            if (enable_b) want_b = (first ? 0 : want_b) + dot_b;
            tick; // sums
            enable_a = 0;
            enable_b = 0;
            if (sum_a != want_a || sum_b != want_b) begin
                $display("vector %0d, weights %h: %0d, %0d, sums %0d, %0d", n, w, want_a, want_b, sum_a, sum_b);
                $fatal;
            end
        end
        $display("DSP slices: %0d vectors: equal", n);
        $finish;
    end
endmodule
