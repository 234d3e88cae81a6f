// SPDX-License-Identifier: Apache-2.0
// xn_registers: one answer for each request, held with what it says until it is taken; a register reads as it was last
// written; done is kept until it is read, also one that comes while it is; a run is started once.
`default_nettype none
module f_registers (
    input wire clk, rst, input wire [6:0] awaddr, araddr, input wire awvalid, wvalid, bready, arvalid, rready,
    input wire [31:0] wdata, input wire [3:0] wstrb, input wire end_of_run
);
    wire awready, wready, bvalid, arready, rvalid, start;
    wire [1:0] bresp, rresp;
    wire [31:0] rdata, images, input_bytes, output_words;
    wire [63:0] program_at, stream_at, input_at, output_at, status_at;
    reg idle, done; // the engine: runs from the cycle after start on, as long as it likes

    xn_registers dut (
        .clk(clk), .rst(rst), .awaddr(awaddr), .awvalid(awvalid), .awready(awready), .wdata(wdata), .wstrb(wstrb),
        .wvalid(wvalid), .wready(wready), .bresp(bresp), .bvalid(bvalid), .bready(bready), .araddr(araddr),
        .arvalid(arvalid), .arready(arready), .rdata(rdata), .rresp(rresp), .rvalid(rvalid), .rready(rready), .start(start),
        .done(done), .idle(idle), .program_at(program_at), .stream_at(stream_at), .input_at(input_at), .output_at(output_at),
        .status_at(status_at), .images(images), .input_bytes(input_bytes), .output_words(output_words));

    reg begun = 0;
    always @* begin
        if (!begun) assume (rst);
        if (rst) assume (!awvalid && !wvalid && !arvalid); // as AXI has it
    end
    always @* done = !idle && end_of_run;
    always @(posedge clk) begin
        begun <= 1;
        if (done) idle <= 1;
        if (idle && start) idle <= 0;
        if (rst) idle <= 1;
    end

    wire write = awvalid && awready, read = arvalid && arready;

`ifdef FILE
    // ---- a byte of a register, free but fixed
    (* anyconst *) reg [4:0] at;
    (* anyconst *) reg [1:0] byte_at;
    reg [7:0] last, read_byte;
    reg known = 0, byte_owed = 0;
    wire [7:0] out = (at == 4 ? program_at[31:0] : at == 5 ? program_at[63:32] : at == 7 ? stream_at[31:0] : at == 8 ? stream_at[63:32]
        : at == 10 ? input_at[31:0] : at == 11 ? input_at[63:32] : at == 13 ? output_at[31:0] : at == 14 ? output_at[63:32]
        : at == 16 ? images : at == 18 ? input_bytes : at == 20 ? output_words : at == 22 ? status_at[31:0] : status_at[63:32]) >> 8 * byte_at;
    wire has_out = at == 4 || at == 5 || at == 7 || at == 8 || at == 10 || at == 11 || at == 13 || at == 14 || at == 16 || at == 18
                   || at == 20 || at == 22 || at == 23;
    always @(posedge clk) begin
        if (write && awaddr[6:2] == at && wstrb[byte_at]) {known, last} <= {1'b1, wdata[8 * byte_at +: 8]};
        if (read) {byte_owed, read_byte} <= {known && araddr[6:2] == at, last};
    end
    always @* begin
        assume (at != 0);
        if (known && has_out) assert (out == last);
        if (byte_owed) assert (rdata[8 * byte_at +: 8] == read_byte);
        cover (byte_owed && rvalid && read_byte == 8'h5a && has_out);
    end
`else
    // ---- the protocol: a write is taken when address and data are; not more than one answer is owed, and at once
    reg write_owed, read_owed;
    always @(posedge clk) begin
        write_owed <= !rst && (write || (write_owed && !bready));
        read_owed <= !rst && (read || (read_owed && !rready));
    end
    always @* if (begun) begin
        assert (write == (wvalid && wready));
        assert (bvalid == write_owed && rvalid == read_owed);
        assert (!(write && write_owed) || bready);
        assert (!(read && read_owed) || rready);
        assert (bresp == 0 && rresp == 0);
        if (awvalid && wvalid && (!bvalid || bready)) assert (write); // never waits for anything else
        if (arvalid && (!rvalid || rready)) assert (read);
    end
    always @(posedge clk) if (begun && !rst && !$past(rst) && $past(rvalid && !rready)) assert ($stable(rdata));

    // ---- done and start
    reg kept, started;
    reg [31:0] control; // what a read of register 0 is to say
    reg control_owed;
    always @(posedge clk) begin
        kept <= !rst && (done || (kept && !(read && araddr[6:2] == 0)));
        started <= !rst && write && awaddr[6:2] == 0 && wstrb[0] && wdata[0] && idle && !start;
        if (read) {control_owed, control} <= {araddr[6:2] == 0, 28'd0, idle, idle, kept, !idle};
    end
    always @* if (begun) begin
        assert (start == started);
        assert (!start || idle); // never in a run
        if (rvalid && control_owed) assert (rdata == control);
        cover (rvalid && control_owed && rdata == 32'he && !kept);
        cover (rvalid && control_owed && rdata == 32'h1);
        cover (start && kept);
        cover (write && write_owed && read && read_owed);
    end
`endif
endmodule
