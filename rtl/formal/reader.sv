// SPDX-License-Identifier: Apache-2.0
// xn_reader: AR stable until ready, within 4 KB, never empty; what is asked for is granted to who asks, and comes whole, in
// order, from its own addresses, and as its own: no request and no beat is lost or made up. The memory answers bursts in
// their order, only what it has taken.
`default_nettype none
module f_reader (
    input wire clk, rst, input wire [2:0] req, input wire [59*3-1:0] req_at, input wire [10*3-1:0] req_beats,
    input wire arready, rvalid, rlast, input wire [255:0] rdata
);
    wire [2:0] ack;
    wire r_valid, arvalid, rready;
    wire [255:0] r_data;
    wire [1:0] r_client;
    wire [63:0] araddr;
    wire [7:0] arlen;
    (* hierconn *) wire \dut.active ;
    (* hierconn *) wire [1:0] \dut.client ;
    (* hierconn *) wire [58:0] \dut.at ;
    (* hierconn *) wire [9:0] \dut.beats ;
    (* hierconn *) wire [5:0] \dut.tag_in ;
    (* hierconn *) wire [5:0] \dut.tag_out ;

    xn_reader dut (
        .clk(clk), .rst(rst), .req(req), .ack(ack), .req_at(req_at), .req_beats(req_beats), .r_valid(r_valid), .r_data(r_data),
        .r_client(r_client), .araddr(araddr), .arlen(arlen), .arvalid(arvalid), .arready(arready), .rdata(rdata), .rlast(rlast),
        .rvalid(rvalid), .rready(rready));

    reg begun = 0;
    wire [1:0] who = ack[0] ? 0 : ack[1] ? 1 : 2;
    wire [58:0] asked_at = ack[0] ? req_at[58:0] : ack[1] ? req_at[117:59] : req_at[176:118];
    wire [9:0] asked_beats = ack[0] ? req_beats[9:0] : ack[1] ? req_beats[19:10] : req_beats[29:20];
    wire granted = ack != 0, taken = arvalid && arready;
    wire [8:0] length = arlen + 9'd1;
    reg waits;
    reg [71:0] waiting;
    always @(posedge clk) begin
        begun <= 1;
        waits <= arvalid && !arready && !rst;
        waiting <= {araddr, arlen};
    end
    always @* begin
        if (!begun) assume (rst);
        if (req[0]) assume (req_beats[9:0] != 0); // nobody asks for nothing (input.sv; 4 or min(16, owed) in xn_fetch)
        if (req[1]) assume (req_beats[19:10] != 0);
        if (req[2]) assume (req_beats[29:20] != 0);
        // addresses of few bits, 8 pages: the adder's other bits are as these
        assume (req_at[58:10] == 0 && req_at[117:69] == 0 && req_at[176:128] == 0);
        if (begun) begin
            assert (ack == 0 || ack == 1 || ack == 2 || ack == 4);
            assert ((ack & ~req) == 0);
            if (waits) assert (arvalid && {araddr, arlen} == waiting);
            assert (req == 0 || granted || \dut.active ); // an idle port takes a request at once
            if (arvalid) assert (araddr[4:0] == 0 && araddr[11:5] + {1'b0, arlen} <= 127);
            assert (rready && r_valid == rvalid && r_data == rdata);
        end
    end

    // ---- requests: the one that bursts are of, and the next
    reg [9:0] now_left, next_left;  // beats not taken by the memory
    reg [58:0] now_at, next_at;
    reg [1:0] now_who, next_who;
    wire now_ends = taken && now_left == length;
    always @(posedge clk) begin
        if (taken) begin
            now_left <= now_left - length;
            now_at <= now_at + length;
        end
        if (now_ends) {now_left, now_at, now_who} <= {next_left, next_at, next_who};
        if (now_ends) next_left <= 0;
        if (granted) begin
            if (now_left == 0 || (now_ends && next_left == 0))
                {now_left, now_at, now_who} <= {asked_beats, asked_at, who};
            else {next_left, next_at, next_who} <= {asked_beats, asked_at, who};
        end
        if (rst) {now_left, next_left} <= 0;
    end
    wire [9:0] rest = now_left - length; // after the burst that waits
    always @* if (begun) begin
        if (granted) assert (next_left == 0 || now_ends); // not more than two are under way
        if (arvalid) assert (now_left != 0 && length <= now_left && araddr == {now_at, 5'd0});
        // what the unit still has to send is what is owed
        if (!arvalid || rest != 0) begin
            assert (next_left == 0 && \dut.active == (now_left != 0));
            if (now_left != 0) assert (\dut.at == now_at + (arvalid ? length : 0) && \dut.beats == (arvalid ? rest : now_left) && \dut.client == now_who);
        end else begin
            assert (\dut.active == (next_left != 0));
            if (next_left != 0) assert (\dut.at == next_at && \dut.beats == next_left && \dut.client == next_who);
        end
    end

    // ---- bursts on their way: one of them, free, is followed from AR to its last beat
    reg [6:0] out;                // taken by the memory, last beat not given
    reg [6:0] before;             // the followed one: bursts before it
    reg followed, seen = 0;
    reg [1:0] followed_who;
    reg [7:0] followed_left;
    (* anyseq *) reg follow;
    wire last = rvalid && rlast;
    always @* if (begun) begin
        if (rvalid) assume (out != 0);
        if (rvalid && followed && before == 0) assume (rlast == (followed_left == 1)); // the memory's part
    end
    always @(posedge clk) begin
        out <= rst ? 0 : out + taken - last;
        if (last && followed) before <= before - 1;
        if (last && followed && before == 0) followed <= 0;
        if (rvalid && followed && before == 0) followed_left <= followed_left - 1;
        if (taken && follow && !followed) begin
            followed <= 1;
            followed_who <= now_who;
            followed_left <= length;
            before <= out - last;
        end
        if (rst) followed <= 0;
    end
    wire [5:0] open = \dut.tag_in - \dut.tag_out ;
    always @* if (begun) begin
        assert (open == out + arvalid && out + arvalid <= 63); // the queue of clients never overflows
        if (followed) assert (before < out);
`ifdef ORDER
        if (followed && before == 0 && rvalid) assert (r_client == followed_who);
`endif
        cover (followed && rvalid && before == 0 && followed_who == 2 && out > 2);
        cover (arvalid && araddr[11:5] + {1'b0, arlen} == 127 && rest != 0 && arlen != 127);
        cover (granted && arvalid && !rst);
    end
endmodule
