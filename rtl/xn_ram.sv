// SPDX-License-Identifier: Apache-2.0
// A memory with one write port (an enable for each of PARTS parts of a row) and one read port, data one cycle later. An
// access beyond ROWS is not made but reported: the last line of defence behind the checker.
`include "xn_defs.svh"
module xn_ram #(parameter WIDTH = 64, PARTS = 4, ROWS = 16, AW = 8, parameter STYLE = "block") (
    input wire clk,
    input wire [PARTS-1:0] we,
    input wire [AW-1:0] waddr,
    input wire [WIDTH-1:0] wdata,
    input wire re,
    input wire [AW-1:0] raddr,
    output reg [WIDTH-1:0] rdata,
    output wire read_fault,
    output wire write_fault
);
    localparam PW = WIDTH / PARTS;
    localparam [AW:0] LIMIT = ROWS;
    (* ram_style = STYLE *) reg [WIDTH-1:0] mem [0:ROWS-1];
    integer i;

    assign read_fault = re && {1'b0, raddr} >= LIMIT;
    assign write_fault = |we && {1'b0, waddr} >= LIMIT;

    always_ff @(posedge clk) begin
        for (i = 0; i < PARTS; i = i + 1)
            if (we[i] && !write_fault)
                mem[waddr][i * PW +: PW] <= wdata[i * PW +: PW];
        if (re && !read_fault)
            rdata <= mem[raddr];
    end

`ifdef VERILATOR
    export "DPI-C" function xn_ram_peek;
    function longint xn_ram_peek(input int row, input int part64);
        xn_ram_peek = mem[row][part64 * 64 +: 64];
    endfunction
`endif
endmodule
