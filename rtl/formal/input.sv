// SPDX-License-Identifier: Apache-2.0
// xn_input, of a descriptor that the check accepts: the ring takes no beat that it has no room for, and gives none that has not
// come; a row is packed of as many beats as were asked for; every write is the next one of the map, in its bank, at base + (y *
// columns + x / banks) * pitch + w, and so inside; the unit is busy until the last. The memory gives what was asked for.
`include "xn_defs.svh"
// The ring's memory: what it holds does not matter here (ram.sv).
module xn_ram #(parameter WIDTH = 64, PARTS = 4, ROWS = 16, AW = 8) (
    input wire clk, input wire [PARTS-1:0] we, input wire [AW-1:0] waddr, input wire [WIDTH-1:0] wdata, input wire re,
    input wire [AW-1:0] raddr, output wire [WIDTH-1:0] rdata, output wire read_fault, output wire write_fault
);
    assign rdata = 0;
    assign read_fault = 0;
    assign write_fault = 0;
endmodule

module f_input (input wire clk, rst, start, ack, r_valid, input wire [255:0] r_data);
    localparam P = 2, AW = 6, ROWS = 40;
    (* anyconst *) reg [1023:0] free;
    (* anyconst *) reg [63:0] image_at;
    wire [2:0] height = free[2:0], out_w = free[5:3], pitch = free[8:6];
    wire [5:0] channels = free[14:9], base = free[20:15];
    wire [7:0] stride_w = free[36:29], pad_left = free[44:37];
`ifdef RING
    wire [14:0] row_bytes = free[59:45];
`else
    wire [7:0] row_bytes = free[28:21];
`endif
    reg [1023:0] d;
    wire req, busy;
    wire [58:0] req_at;
    wire [9:0] req_beats;
    wire [2*P-1:0] am_we;
    wire [AW-1:0] am_at;
    wire [63:0] am_data;
    (* hierconn *) wire [10:0] \dut.room ;
    (* hierconn *) wire [10:0] \dut.have ;
    (* hierconn *) wire [9:0] \dut.ring_in ;
    (* hierconn *) wire [9:0] \dut.ring_out ;
    (* hierconn *) wire [12:0] \dut.rows ;
    (* hierconn *) wire [12:0] \dut.fetch_row ;
    (* hierconn *) wire [9:0] \dut.pack_beats ;
    (* hierconn *) wire \dut.release_row ;
    (* hierconn *) wire \dut.read ;

    xn_input #(.P(P), .AW(AW)) dut (
        .clk(clk), .rst(rst), .start(start), .d(d), .image_at(image_at), .req(req), .ack(ack), .req_at(req_at),
        .req_beats(req_beats), .r_valid(r_valid), .r_data(r_data), .am_we(am_we), .am_at(am_at), .am_data(am_data), .busy(busy));

    wire [4:0] columns = (out_w + 2 * P - 1) / (2 * P);
    reg begun = 0, running = 0;
    reg [10:0] inflight;
    reg [2:0] y, x, w; // of the write that is next
    reg ended;
    wire [9:0] map_rows = height * columns * pitch;
    wire [AW-1:0] want = base + (y * columns + x / (2 * P)) * pitch + w;
    always @* begin
        d = 0;
        d[31:0] = `OP_INPUT;
        `WORD(d, `HEIGHT) = height;
        `WORD(d, `OUT_W) = out_w;
        `WORD(d, `CHANNELS) = channels;
        `WORD(d, `DEST_PITCH) = pitch;
        `WORD(d, `DEST_BASE) = base;
        `WORD(d, `ROW_BYTES) = row_bytes;
        `WORD(d, `STRIDE_W) = stride_w;
        `WORD(d, `PAD_LEFT) = pad_left;
        assume (height != 0 && out_w != 0 && pitch != 0 && channels != 0 && channels <= 8 * pitch && row_bytes != 0 && row_bytes <= 16384);
`ifndef RING
        assume (base + map_rows <= ROWS);
`endif
        if (!begun) assume (rst && !start);
        assume (!start || (!busy && inflight == 0 && !rst)); // the engine: one pass after another
        if (ack) assume (req);
        if (begun && r_valid) assume (inflight != 0);
    end
    always @(posedge clk) begin
        begun <= 1;
        running <= start || (running && !rst);
        inflight <= rst || start ? 0 : inflight + (ack ? req_beats : 0) - r_valid;
        if (am_we != 0) begin
            w <= w + 1;
            if (w + 1 == pitch) begin
                w <= 0;
                x <= x + 1;
                if (x + 1 == out_w) begin
                    x <= 0;
                    y <= y + 1;
                    if (y + 1 == height) ended <= 1;
                end
            end
        end
        if (start || rst) {y, x, w} <= 0;
        if (start || rst) ended <= 0;
    end
    always @* if (running) begin
`ifdef RING
        assert (!req || req_beats != 0);
        assert (\dut.room <= 1024 && \dut.have <= 1024 && inflight <= 1024);
        assert (\dut.room + \dut.have + inflight <= 1024);
        assert (!\dut.release_row || \dut.have >= \dut.pack_beats );
        cover (inflight > 256);
`else
        if (am_we != 0) begin
            assert (!ended && y < height);
            assert (am_we == 1 << x % (2 * P));
            assert (am_at == want && am_at >= base && am_at < base + map_rows);
        end
        assert (busy || ended);
`endif
    end
`ifndef RING
    always @* begin
        cover (running && am_we != 0 && x == 1 && w == 1);
        cover (running && ended && !busy);
    end
`endif
endmodule
