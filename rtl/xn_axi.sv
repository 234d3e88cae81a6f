// SPDX-License-Identifier: Apache-2.0
// The engine's ports: registers (AXI4-Lite), read master, write master (AXI4, 256 bits).
`include "xn_defs.svh"

// Registers of XN_ISA_REG_*. Writes and reads one at a time.
module xn_registers (
    input wire clk, rst,
    input wire [6:0] awaddr, input wire awvalid, output wire awready,
    input wire [31:0] wdata, input wire [3:0] wstrb, input wire wvalid, output wire wready,
    output wire [1:0] bresp, output reg bvalid, input wire bready,
    input wire [6:0] araddr, input wire arvalid, output wire arready,
    output reg [31:0] rdata, output wire [1:0] rresp, output reg rvalid, input wire rready,
    output reg start,
    input wire done, idle,
    output wire [63:0] program_at, stream_at, input_at, output_at, status_at,
    output wire [31:0] images, input_bytes, output_words
);
    reg [31:0] file [0:31];
    reg done_seen;
    wire write = awvalid && wvalid && (!bvalid || bready);
    wire read = arvalid && (!rvalid || rready);
    integer i;

    assign awready = write;
    assign wready = write;
    assign arready = read;
    assign bresp = 0;
    assign rresp = 0;
    assign program_at = {file[5], file[4]};
    assign stream_at = {file[8], file[7]};
    assign input_at = {file[11], file[10]};
    assign output_at = {file[14], file[13]};
    assign images = file[16];
    assign input_bytes = file[18];
    assign output_words = file[20];
    assign status_at = {file[23], file[22]};

    always_ff @(posedge clk) begin
        start <= 0;
        if (bready) bvalid <= 0;
        if (rready) rvalid <= 0;
        if (write) begin
            bvalid <= 1;
            for (i = 0; i < 4; i = i + 1)
                if (wstrb[i] && awaddr[6:2] != 0) file[awaddr[6:2]][8 * i +: 8] <= wdata[8 * i +: 8];
            if (awaddr[6:2] == 0 && wstrb[0] && wdata[0] && idle && !start) start <= 1;
        end
        if (read) begin
            rvalid <= 1;
            rdata <= araddr[6:2] == 0 ? {28'd0, idle, idle, done_seen, !idle} : file[araddr[6:2]];
            if (araddr[6:2] == 0) done_seen <= 0;
        end
        if (done) done_seen <= 1;
        if (rst) begin
            bvalid <= 0;
            rvalid <= 0;
            done_seen <= 0;
        end
    end
endmodule

// Reads for three clients (0 descriptors, 1 stream, 2 input), 0 first, then 2, then 1. A request is a number of beats from a
// beat's address on; it is cut at 4 KB. Clients have room for what they ask: rready is always set. Data comes in the order
// of the requests; r_client says whose it is.
module xn_reader (
    input wire clk, rst,
    input wire [2:0] req, output reg [2:0] ack,
    input wire [59*3-1:0] req_at, input wire [10*3-1:0] req_beats,
    output wire r_valid, output wire [255:0] r_data, output wire [1:0] r_client,
    output reg [63:0] araddr, output reg [7:0] arlen, output reg arvalid, input wire arready,
    input wire [255:0] rdata, input wire rlast, rvalid, output wire rready
);
    reg active;
    reg [1:0] client, pick;
    reg [58:0] at;
    reg [9:0] beats;
    reg [1:0] tags [0:63]; // of bursts on their way
    reg [5:0] tag_in, tag_out;
    wire [7:0] page = 8'd128 - {1'b0, at[6:0]};
    wire [9:0] burst = beats < {2'd0, page} ? beats : {2'd0, page};
    wire full = tag_in + 6'd1 == tag_out;
    wire send = active && !full && (!arvalid || arready);

    assign rready = 1;
    assign r_valid = rvalid;
    assign r_data = rdata;
    assign r_client = tags[tag_out];

    always_comb begin
        pick = req[0] ? 0 : req[2] ? 2 : 1;
        ack = 0;
        if (|req && (!active || (send && burst == beats))) ack[pick] = 1;
    end
    always_ff @(posedge clk) begin
        if (arready) arvalid <= 0;
        if (send) begin
            arvalid <= 1;
            araddr <= {at, 5'd0};
            arlen <= burst[7:0] - 8'd1;
            tags[tag_in] <= client;
            tag_in <= tag_in + 1;
            at <= at + {49'd0, burst};
            beats <= beats - burst;
            if (burst == beats) active <= 0;
        end
        if (|ack) begin
            active <= 1;
            client <= pick;
            at <= req_at[59 * pick +: 59];
            beats <= req_beats[10 * pick +: 10];
        end
        if (rvalid && rlast) tag_out <= tag_out + 1;
        if (rst) begin
            active <= 0;
            arvalid <= 0;
            tag_in <= 0;
            tag_out <= 0;
        end
    end
endmodule

// Single beats. `quiet`: all are answered.
module xn_writer (
    input wire clk, rst,
    input wire req, output wire ready, input wire [63:0] at, input wire [255:0] data, input wire [31:0] strobe,
    output wire quiet,
    output reg [63:0] awaddr, output wire [7:0] awlen, output reg awvalid, input wire awready,
    output reg [255:0] wdata, output reg [31:0] wstrb, output wire wlast, output reg wvalid, input wire wready,
    input wire bvalid, output wire bready
);
    reg [7:0] open;

    assign awlen = 0;
    assign wlast = 1;
    assign bready = 1;
    assign ready = (!awvalid || awready) && (!wvalid || wready) && !open[7];
    assign quiet = open == 0;
    always_ff @(posedge clk) begin
        if (awready) awvalid <= 0;
        if (wready) wvalid <= 0;
        if (req && ready) begin
            awvalid <= 1;
            wvalid <= 1;
            awaddr <= {at[63:5], 5'd0};
            wdata <= data;
            wstrb <= strobe;
        end
        open <= open + {7'd0, req && ready} - {7'd0, bvalid};
        if (rst) begin
            awvalid <= 0;
            wvalid <= 0;
            open <= 0;
        end
    end
endmodule
