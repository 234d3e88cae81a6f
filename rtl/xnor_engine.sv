// SPDX-License-Identifier: Apache-2.0
// The engine (hls/include/xnor_isa.h): ports, the order of passes, memories, and the way from memories to sums.
//
//     S0 step taken   S1 S2 S3 addresses   S4 words   S5 words of pixels   S6 products   S7 sums   then the post lanes
//
// Nothing waits between S0 and the writing of results; what could not go on is not begun.
`include "xn_defs.svh"
module xnor_engine #(
    parameter P = 4, PI = 2, PR = 2, AM_ROWS = 256, RM_ROWS = 256, WB_WORDS = 64,
    parameter WIDE = P >= 8,       // post lanes of four DSPs instead of two
    parameter URAM = P >= 8        // AM and RM in URAM
) (
    input wire clk, rst,
    input wire [6:0] s_axi_control_awaddr, input wire s_axi_control_awvalid, output wire s_axi_control_awready,
    input wire [31:0] s_axi_control_wdata, input wire [3:0] s_axi_control_wstrb, input wire s_axi_control_wvalid,
    output wire s_axi_control_wready,
    output wire [1:0] s_axi_control_bresp, output wire s_axi_control_bvalid, input wire s_axi_control_bready,
    input wire [6:0] s_axi_control_araddr, input wire s_axi_control_arvalid, output wire s_axi_control_arready,
    output wire [31:0] s_axi_control_rdata, output wire [1:0] s_axi_control_rresp, output wire s_axi_control_rvalid,
    input wire s_axi_control_rready,
    output wire [63:0] m_axi_araddr, output wire [7:0] m_axi_arlen, output wire m_axi_arvalid, input wire m_axi_arready,
    input wire [255:0] m_axi_rdata, input wire m_axi_rlast, m_axi_rvalid, output wire m_axi_rready,
    output wire [63:0] m_axi_awaddr, output wire [7:0] m_axi_awlen, output wire m_axi_awvalid, input wire m_axi_awready,
    output wire [255:0] m_axi_wdata, output wire [31:0] m_axi_wstrb, output wire m_axi_wlast, m_axi_wvalid,
    input wire m_axi_wready, m_axi_bvalid, output wire m_axi_bready
);
    localparam ROWS = AM_ROWS > RM_ROWS ? AM_ROWS : RM_ROWS;
    localparam AW = $clog2(ROWS) + 1, LW = $clog2(WB_WORDS) + 1, LB = $clog2(2 * P);
    localparam IDLE = 0, NEXT = 1, SETUP = 2, RUN = 3, INPUT = 4, STATUS = 5, STATUS_END = 6, ANSWERS = 7;
    genvar g;
    integer i, b;

    // ---- ports
    wire start;
    wire [63:0] program_at, stream_at, first_input_at, first_output_at, status_at;
    wire [31:0] images, input_bytes, output_words;
    wire [2:0] req, ack;
    wire [117:0] fetch_at;
    wire [19:0] fetch_beats;
    wire [58:0] input_req_at;
    wire [9:0] input_req_beats;
    wire r_valid;
    wire [255:0] r_data;
    wire [1:0] r_client;
    reg write_req;
    wire write_ready, writes_quiet;
    reg [63:0] write_at;
    reg [255:0] write_data;
    reg [31:0] write_strobe;
    reg [2:0] state;

    xn_registers registers_i (
        clk, rst, s_axi_control_awaddr, s_axi_control_awvalid, s_axi_control_awready, s_axi_control_wdata,
        s_axi_control_wstrb, s_axi_control_wvalid, s_axi_control_wready, s_axi_control_bresp, s_axi_control_bvalid,
        s_axi_control_bready, s_axi_control_araddr, s_axi_control_arvalid, s_axi_control_arready, s_axi_control_rdata,
        s_axi_control_rresp, s_axi_control_rvalid, s_axi_control_rready, start, state == ANSWERS && writes_quiet,
        state == IDLE, program_at, stream_at, first_input_at, first_output_at, status_at, images, input_bytes, output_words);
    xn_reader reader_i (
        clk, rst, req, ack, {input_req_at, fetch_at}, {input_req_beats, fetch_beats}, r_valid, r_data, r_client,
        m_axi_araddr, m_axi_arlen, m_axi_arvalid, m_axi_arready, m_axi_rdata, m_axi_rlast, m_axi_rvalid, m_axi_rready);
    xn_writer writer_i (
        clk, rst, write_req, write_ready, write_at, write_data, write_strobe, writes_quiet, m_axi_awaddr, m_axi_awlen,
        m_axi_awvalid, m_axi_awready, m_axi_wdata, m_axi_wstrb, m_axi_wlast, m_axi_wvalid, m_axi_wready, m_axi_bvalid,
        m_axi_bready);

    // ---- what comes from card memory
    wire next_valid;
    wire [1023:0] next_d;
    wire [12:0] next_index;
    wire [2:0] next_error;
    wire [18:0] next_steps;
    wire [16:0] next_groups;
    wire [AW-1:0] next_row_pitch, next_first_row, next_stride_rows, next_dest_row, next_dest_skip;
    wire [12:0] next_dest_x0, turn_image;
    wire [31:0] image;
    wire tail, next_turn_end, next_rewinds;
    wire take = state == NEXT && next_valid && error == 0;
    wire [1:0] weights_full, post_full, post_free;
    reg [1:0] weights_free;
    wire [1023:0] weights;
    wire post_in, post_into;
    wire [3:0] post_lane;
    wire [255:0] post;
    wire [LW:0] s3_weight;
    wire s3_valid;

    xn_fetch #(P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS, AW, LW) fetch_i (
        clk, rst, start, program_at, stream_at, images, input_bytes, output_words, req[1:0], ack[1:0], fetch_at,
        fetch_beats, r_valid, r_data, r_client, next_valid, take, next_d, next_index, next_error, next_steps, next_groups,
        next_row_pitch, next_first_row, next_stride_rows, next_dest_x0, next_dest_row, next_dest_skip, image, turn_image, tail,
        next_turn_end, next_rewinds, weights_full, weights_free, s3_valid, s3_weight, weights,
        post_full, post_free, post_in, post_into, post_lane, post);

    // ---- programs and passes
    reg [1023:0] d;
    reg [12:0] index;
    reg [18:0] steps;
    reg [16:0] groups;
    reg [AW-1:0] row_pitch, first_row, stride_rows, dest_row, dest_skip;
    reg [12:0] dest_x0;
    reg [63:0] input_at, output_at, tail_output_at, cycles; // of the image; of the turn's first
    reg [31:0] turn_words;                                  // of the outputs of the turn's images so far
    wire [63:0] next_output_at = output_at + {output_words, 2'b00};
    wire [12:0] next_images = tail ? turn_image + 1 : 1; // that BATCH has
    reg [2:0] error;
    reg [2:0] fault;
    reg input_start;
    wire input_busy, running, post_quiet, step, tile_in;
    reg [7:0] tiles_open; // begun to be added up, not yet with the post lanes
    wire [2:0] op = d[2:0];
    wire pass_end = !running && tiles_open == 0 && post_quiet;
    wire status_write = state == STATUS || state == STATUS_END;

    always_ff @(posedge clk) begin
        input_start <= 0;
        if (state != IDLE) cycles <= cycles + 1;
        case (state)
            IDLE: if (start) begin
                state <= images == 0 ? STATUS : NEXT;
                cycles <= 1;
                index <= 0;
                error <= 0;
                input_at <= first_input_at;
                output_at <= first_output_at;
                tail_output_at <= first_output_at;
                turn_words <= output_words;
            end
            NEXT: if (take) begin
                d <= next_d;
                if (`FLAG(next_d, `BATCH) && next_d[2:0] != `OP_LARGEST && next_d[32 * `OUT_W +: 13] > next_images)
                    d[32 * `OUT_W +: 13] <= next_images;
                index <= next_index;
                error <= next_error;
                steps <= next_steps;
                groups <= next_groups;
                row_pitch <= next_row_pitch;
                first_row <= next_first_row;
                stride_rows <= next_stride_rows;
                dest_x0 <= next_dest_x0;
                dest_row <= next_dest_row;
                dest_skip <= next_dest_skip;
                if (next_error != 0) state <= STATUS;
                else if (next_d[2:0] == `OP_INPUT) begin
                    input_start <= 1;
                    state <= INPUT;
                end else if (!`IS_END(next_d)) state <= SETUP;
                else if (next_rewinds) begin
                    input_at <= input_at + input_bytes;
                    output_at <= next_output_at;
                    turn_words <= next_turn_end ? output_words : turn_words + output_words;
                    if (next_turn_end) begin
                        tail_output_at <= next_output_at;
                        if (image + 1 == images) state <= STATUS;
                    end
                end
            end
            SETUP: state <= RUN;
            RUN: if (pass_end) state <= NEXT;
            INPUT: if (!input_busy && !input_start) state <= NEXT;
            STATUS: if (write_ready) state <= STATUS_END;
            STATUS_END: if (write_ready) state <= ANSWERS;
            default: if (writes_quiet) state <= IDLE;
        endcase
        if (fault != 0 && (state == RUN || state == INPUT || state == NEXT)) begin // the checker let something through
            error <= fault;
            state <= STATUS;
        end
        if (rst) state <= IDLE;
    end

    // ---- steps
    reg weights_waiting_0, weights_waiting_1;
    reg [1:0] weights_given, post_given; // given back at the issue of a step, free only when the step is through
    reg post_buffer;
    reg [5:0] spacing;
    reg [4:0] last_steps; // the last step of a window, 1 to 5 cycles ago
    wire now_last, now_chunk_end, now_group_end, weights_buffer, s3_chunk_end;
    wire [4:0] now_post;
    wire stream_ready = (!`HAS_WEIGHTS(d) || (weights_full[weights_buffer] && !weights_given[weights_buffer]))
                        && (op == `OP_LARGEST || (post_full[post_buffer] && !post_given[post_buffer]));
    wire post_ready = !now_last || (spacing == 0 && !(`FLAG(d, `LOGITS) && (tiles_open != 0 || !post_quiet)));
    // The only conflict at a read port: a residual is read eight cycles after a window's last step, a source word of RM three.
    wire rm_taken = last_steps[4] && d[32 * `SOURCE +: 2] == `I16 && `FLAG(d, `RESIDUAL);
    reg s3_buffer;

    assign step = state == RUN && running && stream_ready && post_ready && !rm_taken;
    always_ff @(posedge clk) begin
        last_steps <= {last_steps[3:0], step && now_last};
        tiles_open <= tiles_open + {7'd0, step && now_last} - {7'd0, tile_in};
        if (step && now_last) spacing <= `FLAG(d, `QUANTIZE) ? {now_post, 1'b0} - 1 : {1'b0, now_post} - 1;
        else if (spacing != 0) spacing <= spacing - 1;
        weights_given <= (weights_given & ~weights_free) | (step && now_chunk_end ? 2'b1 << weights_buffer : 2'b0);
        post_given <= (post_given & ~post_free) | (step && now_group_end && op != `OP_LARGEST ? 2'b1 << post_buffer : 2'b0);
        if (step && now_group_end && op != `OP_LARGEST) post_buffer <= !post_buffer;
        weights_free <= s3_chunk_end ? 2'b1 << (s3_weight >= WB_WORDS) : 2'b0;
        if (rst || start) {last_steps, tiles_open, spacing, weights_given, post_given, post_buffer} <= 0;
    end

    wire [2*P-1:0] am_re;
    wire [2*P*AW-1:0] am_read_at;
    wire rm_source_re;
    wire [AW-1:0] rm_source_at;
    wire s3_first, s3_last, s3_tap, s3_half;
    wire [2:0] s3_part;
    wire [P-1:0] s3_enable, s3_inside;
    wire [P*LB-1:0] s3_bank;

    xn_address #(P, PI, PR, AW, LW, WB_WORDS, LB) address_i (
        clk, rst || start, state == SETUP, step, d, steps, groups, row_pitch, first_row, stride_rows, running, now_last,
        now_chunk_end, now_group_end, now_post, weights_buffer, am_re, am_read_at, rm_source_re, rm_source_at, s3_valid,
        s3_first, s3_last, s3_tap, s3_half, s3_chunk_end, s3_part, s3_enable, s3_inside, s3_bank, s3_weight);

    // ---- memories
    wire [8*P-1:0] post_am_we;
    wire [AW-1:0] post_am_at, input_am_at, rm_read_at, rm_write_at;
    wire [128*P-1:0] am_data;
    wire [64*P-1:0] post_am_out; // banks P apart have the same
    wire [2*P-1:0] input_am_we, am_read_fault, am_write_fault;
    wire [63:0] input_am_data;
    wire rm_residual_re, rm_read_fault, rm_write_fault;
    wire [PR-1:0] rm_we;
    wire [256*PR-1:0] rm_data, rm_out;

    generate
        for (g = 0; g < 2 * P; g = g + 1) begin : am
            xn_ram #(.WIDTH(64), .PARTS(4), .ROWS(AM_ROWS), .AW(AW), .STYLE(URAM ? "ultra" : "block")) bank (
                .clk(clk), .we(state == INPUT ? {4{input_am_we[g]}} : post_am_we[4 * g +: 4]),
                .waddr(state == INPUT ? input_am_at : post_am_at),
                .wdata(state == INPUT ? input_am_data : post_am_out[64 * (g % P) +: 64]),
                .re(am_re[g]), .raddr(am_read_at[AW * g +: AW]), .rdata(am_data[64 * g +: 64]),
                .read_fault(am_read_fault[g]), .write_fault(am_write_fault[g]));
        end
    endgenerate
    xn_ram #(.WIDTH(256 * PR), .PARTS(PR), .ROWS(RM_ROWS), .AW(AW), .STYLE(URAM ? "ultra" : "block")) rm (
        .clk(clk), .we(rm_we), .waddr(rm_write_at), .wdata(rm_out), .re(rm_residual_re || rm_source_re),
        .raddr(rm_residual_re ? rm_read_at : rm_source_at), .rdata(rm_data), .read_fault(rm_read_fault),
        .write_fault(rm_write_fault));

    xn_input #(P, AW) input_i (
        clk, rst || start, input_start, d, input_at, req[2], ack[2], input_req_at, input_req_beats, r_valid && r_client == 2,
        r_data, input_am_we, input_am_at, input_am_data, input_busy);

    // ---- S4: words of banks; S5: words of pixels
    reg s4_valid, s4_first, s4_last, s4_tap, s4_half, s5_valid, s5_first, s5_last, s5_tap, s5_half, s6_last, s7_last;
    reg [2:0] s4_part, s5_part;
    reg [P-1:0] s4_enable, s4_inside, s5_enable, s5_add;
    reg [P*LB-1:0] s4_bank;
    reg [64*P-1:0] s5_words;
    reg [255:0] s5_residual;
    reg [1023:0] s5_weights;
    wire minus_one = `FLAG(d, `PAD_MINUS_ONE);
    assign tile_in = s7_last;

    always_ff @(posedge clk) begin
        {s4_valid, s4_first, s4_last, s4_tap, s4_half, s4_part, s4_enable, s4_inside, s4_bank} <=
            {s3_valid, s3_first, s3_last && s3_valid, s3_tap, s3_half, s3_part, s3_enable, s3_inside, s3_bank};
        {s5_valid, s5_first, s5_last, s5_tap, s5_half, s5_part} <= {s4_valid, s4_first, s4_last, s4_tap, s4_half, s4_part};
        s5_enable <= s4_valid ? s4_enable : {P{1'b0}};
        s5_add <= s4_inside | {P{minus_one}};
        for (i = 0; i < P; i = i + 1) begin
            s5_words[64 * i +: 64] <= am_data[64 * s4_bank[LB * i +: LB] +: 64];
            if (!s4_inside[i]) s5_words[64 * i +: 64] <= 0;
        end
        s5_residual <= rm_data[256 * (s4_bank[LB-1:0] & (PR - 1)) +: 256];
        s5_weights <= weights;
        s6_last <= s5_last;
        s7_last <= s6_last;
        if (rst || start) {s4_last, s5_last, s6_last, s7_last, s5_enable} <= 0;
    end

    // ---- sums
    wire [P*16*25-1:0] binary_sums;
    wire [P*25-1:0] seen;
    wire [PI*16*32-1:0] int8_sums;
    wire [511:0] vector_sums;
    wire [64*P-1:0] largest;

    xn_binary #(P) binary_i (clk, s5_enable, s5_add, s5_first, s5_tap, d[32 * `CHANNELS_IN +: 25], s5_words, s5_weights,
                             binary_sums, seen);
    xn_int8 #(PI) int8_i (clk, s5_enable[PI-1:0], s5_add[PI-1:0], s5_first, d[32 * `SOURCE +: 2], s5_part, s5_words[64*PI-1:0],
                          s5_weights, int8_sums);
    xn_vector vector_i (clk, s5_enable[0], s5_add[0], s5_first, s5_half, `FLAG(d, `MAX), d[32 * `SOURCE +: 2], s5_part[1:0],
                        s5_words[63:0], s5_residual, `HAS_WEIGHTS(d) ? s5_weights : {16{64'd1}}, vector_sums);
    xn_largest #(P) largest_i (clk, s5_enable, s5_add, s5_first, d[32 * `SOURCE +: 2], s5_words, largest);

    // ---- results
    wire out_req;
    wire [31:0] out_index, out_data;
    wire out_fault = out_req && out_index >= (tail && `FLAG(d, `BATCH) ? turn_words : output_words);
    wire [63:0] out_at = (tail ? tail_output_at : output_at) + {out_index, 2'b00};

    xn_post #(P, PI, PR, AW, WIDE) post_i (
        clk, rst || start, state == SETUP, d, dest_x0, dest_row, dest_skip, next_d, post_in, post_into, post_lane, post, post_free,
        start, s6_last, tile_in, binary_sums, seen, int8_sums, vector_sums, largest, post_quiet, rm_residual_re, rm_read_at, rm_data, rm_we,
        rm_write_at, rm_out, post_am_we, post_am_at, post_am_out, out_req, write_ready && !status_write, out_index, out_data);

    always_comb begin
        write_req = status_write || (out_req && !out_fault);
        write_at = state == STATUS ? status_at : state == STATUS_END ? status_at + 32 : out_at;
        write_strobe = status_write ? 32'hffffffff : 32'hf << out_at[4:0];
        write_data = {8{out_data}};
        if (state == STATUS)
            write_data = {PI[31:0], P[31:0], cycles, 32'h00010001, error == 0 ? images : image, {19'd0, index},
                          {29'd0, error}};
        if (state == STATUS_END)
            write_data = {128'd0, WB_WORDS[31:0], RM_ROWS[31:0], AM_ROWS[31:0], PR[31:0]};
    end
    always_ff @(posedge clk) begin
        if (fault == 0)
            fault <= |am_read_fault || rm_read_fault ? `ERROR_SOURCE : |am_write_fault || rm_write_fault ? `ERROR_DEST
                     : out_fault ? `ERROR_OUTPUT : 3'd0;
        if (rst || start) fault <= 0;
    end
endmodule
