// SPDX-License-Identifier: Apache-2.0
// The generated dot products of one size, a multiple of 16, against $countones: -DBITS, -DCOMPRESSORS and -DPAIR name size and modules.
// Every pattern of x and w in every window of four bits, and of two with the two that pair with them, the rest at 0, at 1, and at random; runs of
// differing bits of every length at every place; random vectors; at S = 16 every x ^ w. The pair form is checked by its identity, 2 G + A - W.
module bench;
    reg [`BITS-1:0] x, w, other_x, other_w;
    wire [31:0] count, pairs;
    integer vectors = 0, at, pattern, rest, i;
    assign count[31:$bits(compressors.count)] = 0;
    assign pairs[31:$bits(pair.count)] = 0;
    `COMPRESSORS compressors (x, w, count[$bits(compressors.count)-1:0]);
    `PAIR pair (x, w, pairs[$bits(pair.count)-1:0]);

    function automatic integer differ(input [`BITS/2-1:0] a, b);
        return $countones(a ^ b);
    endfunction

    task check;
        #1 vectors = vectors + 1;
        if (count != $countones(x ^ w)
            || 2 * pairs + differ(x[`BITS/2-1:0], x[`BITS-1:`BITS/2]) - differ(w[`BITS/2-1:0], w[`BITS-1:`BITS/2]) != $countones(x ^ w)) begin
            $display("x %h w %h: %0d differ, compressors %0d, G %0d", x, w, $countones(x ^ w), count, pairs);
            $fatal;
        end
    endtask

    task random;
        for (i = 0; i < `BITS; i = i + 16) begin
            x[i +: 16] = 16'($urandom);
            w[i +: 16] = 16'($urandom);
        end
    endtask

    initial begin
        random;
        for (rest = 0; rest < 3; rest = rest + 1) begin
            other_x = rest == 0 ? 0 : rest == 1 ? ~0 : x;
            other_w = rest == 0 ? 0 : rest == 1 ? ~0 : w;
            for (at = 0; at < `BITS; at = at + 1)
                for (pattern = 0; pattern < 512; pattern = pattern + 1) begin
                    x = other_x;
                    w = other_w;
                    for (i = 0; i < 4; i = i + 1) begin // four neighbours, or two and the bits that pair with them
                        x[(at + (i & 1) + (i / 2) * (pattern[8] ? 2 : `BITS / 2)) % `BITS] = pattern[i];
                        w[(at + (i & 1) + (i / 2) * (pattern[8] ? 2 : `BITS / 2)) % `BITS] = pattern[4 + i];
                    end
                    check;
                end
        end
        for (at = 0; at <= `BITS; at = at + 1)
            for (pattern = 0; pattern < `BITS; pattern = pattern + 1) begin
                random;
                other_x = at == `BITS ? ~0 : (`BITS'd1 << at) - 1;
                other_x = (other_x << pattern) | (other_x >> (`BITS - pattern));
                w = x ^ other_x;
                check;
            end
        for (rest = 0; rest < 100000; rest = rest + 1) begin
            random;
            check;
        end
        if (`BITS <= 16)
            for (at = 0; at < 1 << `BITS; at = at + 1) begin
                random;
                x = w ^ `BITS'(at);
                check;
            end
        $display("S = %0d: %0d vectors: equal", `BITS, vectors);
        $finish;
    end
endmodule
