// SPDX-License-Identifier: Apache-2.0
// xn_ram: a row holds what was last written to each of its parts, a read gives it one cycle later, an access beyond ROWS is
// reported in its cycle and changes neither a row nor what was read. One row, free but fixed, is followed.
`default_nettype none
module f_ram (
    input wire clk, re, input wire [1:0] we, input wire [2:0] waddr, raddr, input wire [3:0] wdata
);
    localparam ROWS = 5;
    wire [3:0] rdata;
    wire read_fault, write_fault;
    (* anyconst *) reg [2:0] row;

    xn_ram #(.WIDTH(4), .PARTS(2), .ROWS(ROWS), .AW(3)) dut (
        .clk(clk), .we(we), .waddr(waddr), .wdata(wdata), .re(re), .raddr(raddr), .rdata(rdata), .read_fault(read_fault),
        .write_fault(write_fault));

    reg [3:0] last, read;
    reg [1:0] known = 0;  // parts of the row that were written
    reg [1:0] read_known = 0;
    reg begun = 0, held = 0;
    always @(posedge clk) begin
        begun <= 1;
        held <= begun && (!re || raddr >= ROWS);
        if (we[0] && waddr == row) {last[1:0], known[0]} <= {wdata[1:0], 1'b1};
        if (we[1] && waddr == row) {last[3:2], known[1]} <= {wdata[3:2], 1'b1};
        if (re && raddr == row) {read, read_known} <= {last, known};
        else if (re && raddr < ROWS) read_known <= 0; // another row's
    end
    always @* begin
        assume (row < ROWS);
        assert (read_fault == (re && raddr >= ROWS));
        assert (write_fault == (we != 0 && waddr >= ROWS));
        if (read_known[0]) assert (rdata[1:0] == read[1:0]);
        if (read_known[1]) assert (rdata[3:2] == read[3:2]);
        cover (read_known == 3 && rdata == 4'b1001);
        cover (read_fault && write_fault && known == 3);
    end
    always @(posedge clk) if (held) assert ($stable(rdata));
endmodule
