// SPDX-License-Identifier: Apache-2.0
// xn_writer: AW and W stable until ready, single beats with WLAST, one AW and one W for each request with what was asked,
// `quiet` only when every write is answered. The memory answers only what it has taken on both channels.
`default_nettype none
module f_writer (
    input wire clk, rst, req, input wire [63:0] at, input wire [255:0] data, input wire [31:0] strobe,
    input wire awready, wready, bvalid
);
    wire ready, quiet, awvalid, wvalid, wlast, bready;
    wire [63:0] awaddr;
    wire [7:0] awlen;
    wire [255:0] wdata;
    wire [31:0] wstrb;
    (* hierconn *) wire [7:0] \dut.open ;

    xn_writer dut (
        .clk(clk), .rst(rst), .req(req), .ready(ready), .at(at), .data(data), .strobe(strobe), .quiet(quiet), .awaddr(awaddr),
        .awlen(awlen), .awvalid(awvalid), .awready(awready), .wdata(wdata), .wstrb(wstrb), .wlast(wlast), .wvalid(wvalid),
        .wready(wready), .bvalid(bvalid), .bready(bready));

    reg begun = 0;
    reg [8:0] addresses, beats; // taken by the memory, not answered
    always @(posedge clk) begin
        begun <= 1;
        addresses <= rst ? 0 : addresses + (awvalid && awready) - (bvalid && bready);
        beats <= rst ? 0 : beats + (wvalid && wready) - (bvalid && bready);
    end
    always @* begin
        if (!begun) assume (rst);
        if (begun) assume (!bvalid || (addresses != 0 && beats != 0));
    end

    always @* if (begun) begin
        assert (awlen == 0 && wlast && bready && awaddr[4:0] == 0 || !awvalid);
        assert (!wvalid || wlast);
        assert (quiet == (!awvalid && !wvalid && addresses == 0 && beats == 0));
        assert (\dut.open == addresses + awvalid && \dut.open == beats + wvalid && \dut.open <= 128);
        cover (!rst && quiet && !$initstate && answered == 3);
        cover (awvalid && !wvalid && addresses == 0 && beats == 1);
    end
    reg [1:0] answered = 0;
    always @(posedge clk) begin
        if (rst) answered <= 0;
        else if (bvalid && answered != 3) answered <= answered + 1;
        if (begun && !rst && !$past(rst)) begin
            if ($past(awvalid && !awready)) assert (awvalid && $stable(awaddr));
            if ($past(wvalid && !wready)) assert (wvalid && $stable(wdata) && $stable(wstrb));
            if ($past(req && ready)) begin
                assert (awvalid && awaddr == {$past(at[63:5]), 5'd0});
                assert (wvalid && wdata == $past(data) && wstrb == $past(strobe));
            end else begin
                assert (!awvalid || $past(awvalid && !awready)); // nothing that was not asked for
                assert (!wvalid || $past(wvalid && !wready));
            end
        end
    end
endmodule
