// SPDX-License-Identifier: Apache-2.0
// What comes from card memory ahead of the arrays: descriptors, checked and with what follows from them; then, group by
// group, post parameters and chunks of weights, each into one of two buffers. A descriptor stays here until it is taken and
// its stream is loaded; then the next one is read, while the arrays still work.
//
// The stream's beats are asked for as soon as a descriptor says how many there are, as long as the queue has room.
`include "xn_defs.svh"

// xn_isa_check, with one multiplier: 16 products, one a cycle, and `ready` in the cycle after them.
module xn_checker #(parameter P = 4, PI = 2, PR = 2, AM_ROWS = 64, RM_ROWS = 64, WB_WORDS = 64, AW = 8) (
    input wire clk, start,
    input wire [1023:0] d,
    input wire [31:0] input_bytes, output_words,
    input wire [12:0] turn_image,
    output wire ready,
    output reg [2:0] error,
    output reg [18:0] steps, output reg [16:0] groups, output wire [33:0] beats,
    output reg [AW-1:0] row_pitch, first_row, stride_rows, // of the source
    output wire [12:0] dest_x0, output reg [AW-1:0] dest_row, dest_skip // of the destination in AM, see xn_walk
);
    localparam LB = $clog2(2 * P), LR = $clog2(PR);
    localparam [31:0] SIDE = 4096, STEPS = 262144, LINE = 16384, WIDE = 65536;
    reg [4:0] at = 0;
    reg [47:0] product, am_rows, rm_rows, residual_rows, dest_rows, outputs, input_size;
    reg steps_bad;
    reg [24:0] dest_first; // column
    reg [31:0] a;
    reg [16:0] b;
    wire [31:0] op = `OP(d), source = `WORD(d, `SOURCE), out_h = `WORD(d, `OUT_H), out_w = `WORD(d, `OUT_W);
    wire [31:0] height = `WORD(d, `HEIGHT), width = `WORD(d, `WIDTH), words = `WORD(d, `WORDS);
    wire [31:0] kernel_h = `WORD(d, `KERNEL_H), kernel_w = `WORD(d, `KERNEL_W), channels = `WORD(d, `CHANNELS);
    wire [31:0] stride_h = `WORD(d, `STRIDE_H), stride_w = `WORD(d, `STRIDE_W), pitch = `WORD(d, `PITCH);
    wire [31:0] pad_top = `WORD(d, `PAD_TOP), pad_left = `WORD(d, `PAD_LEFT), chunk = `WORD(d, `CHUNK);
    wire [31:0] row_bytes = `WORD(d, `ROW_BYTES), shift = `WORD(d, `SHIFT), dest_pitch = `WORD(d, `DEST_PITCH);
    wire [31:0] stream_pitch = `WORD(d, `STREAM_PITCH), residual_pitch = `WORD(d, `RESIDUAL_PITCH);
    wire [31:0] dest_group = `WORD(d, `DEST_GROUP), source_group = `WORD(d, `SOURCE_GROUP);
    wire scattered = op == `OP_LARGEST && `FLAG(d, `BATCH), logits = `FLAG(d, `LOGITS);
    wire [31:0] dest_step = `WORD(d, `DEST_STEP), dest_width = `WORD(d, `DEST_WIDTH);
    wire is_rm = source == `I16;
    // Sides of 14 bits and more are wrong by themselves, before what is made of them matters.
    wire [12:0] dest_w = scattered ? dest_width[12:0] : out_w[12:0], dest_last = dest_x0 + out_w[12:0] - 1;
    wire [12:0] columns = is_rm ? (width[12:0] + PR - 1) >> LR : (width[12:0] + 2 * P - 1) >> LB;
    wire [12:0] rm_columns = (out_w[12:0] + PR - 1) >> LR, am_columns = (dest_w + 2 * P - 1) >> LB;
    wire [12:0] dest_column = dest_x0 >> LB, dest_columns = am_columns - (dest_last >> LB) + dest_column;
    wire [31:0] all_groups = (channels + 15) >> 4;

    assign ready = at == 17;
    assign dest_x0 = dest_first[12:0];
    assign beats = {product[31:0], 2'b00};

    always_comb begin
        a = product[31:0];
        b = 0;
        case (at)
            1: begin a = kernel_h[12:0]; b = kernel_w[16:0]; end
            2: b = words[16:0];
            3: begin a = columns; b = pitch[16:0]; end
            4: b = height[16:0];
            5: begin a = {{(32 - AW){1'b0}}, row_pitch}; b = pad_top[16:0]; end
            6: begin a = {{(32 - AW){1'b0}}, row_pitch}; b = stride_h[16:0]; end
            7: begin a = scattered ? turn_image : rm_columns; b = scattered ? dest_step[16:0] : stream_pitch[16:0]; end
            8: b = out_h[16:0];
            9: begin a = rm_columns; b = residual_pitch[16:0]; end
            10: b = out_h[16:0];
            11: begin a = am_columns; b = dest_pitch[16:0]; end
            12: b = op == `OP_INPUT ? height[16:0] : out_h[16:0];
            13: begin a = logits ? out_h[12:0] : dest_column; b = logits ? out_w[16:0] : dest_pitch[16:0]; end
            14: begin a = logits ? product[31:0] : dest_columns; b = logits ? channels[16:0] : dest_pitch[16:0]; end
            15: begin a = row_bytes[14:0]; b = height[16:0]; end
            16: begin a = (`HAS_WEIGHTS(d) ? {13'd0, steps} : 0) + 4; b = all_groups[16:0]; end
            default: ;
        endcase
    end
    always_ff @(posedge clk) begin
        product <= a * b;
        case (at)
            3: begin steps <= product[18:0]; steps_bad <= product > {16'd0, STEPS}; end
            4: row_pitch <= product[AW-1:0];
            5: am_rows <= product;
            6: first_row <= `WORD(d, `BASE) - product;
            7: stride_rows <= product[AW-1:0];
            8: dest_first <= scattered ? product[24:0] : 0;
            9: rm_rows <= product;
            11: residual_rows <= product;
            13: dest_rows <= product;
            14: dest_row <= `WORD(d, `DEST_BASE) + product;
            15: begin outputs <= product; dest_skip <= product[AW-1:0]; end
            16: begin input_size <= product; groups <= op == `OP_LARGEST ? words[16:0] : all_groups[16:0]; end
            default: ;
        endcase
        at <= start ? 1 : at == 0 || at == 17 ? 0 : at + 1;
    end

    function bad_side(input [31:0] v);
        bad_side = v < 1 || v > SIDE;
    endfunction
    function bad_stream(input [31:0] base, p, input [47:0] rows);
        bad_stream = p < all_groups || p > WIDE || {17'd0, base} + {1'b0, rows} + {17'd0, all_groups} > RM_ROWS + {17'd0, p};
    endfunction

    wire dest_outside = {1'b0, dest_rows} + {17'd0, `WORD(d, `DEST_BASE)} > AM_ROWS;
    wire [2:0] wrong_input =
        `WORD(d, 1) != 0 || source != 0 ? `ERROR_OP
        : bad_side(height) || bad_side(out_w) || bad_side(dest_pitch) || channels < 1 || channels > dest_pitch << 3 || row_bytes < 1
              || row_bytes > LINE || stride_w > LINE || pad_left > LINE ? `ERROR_SHAPE
        : product > {16'd0, input_bytes} ? `ERROR_INPUT
        : dest_outside ? `ERROR_DEST : 3'd0;
    wire wrong_op =
        op < `OP_BINARY || op > `OP_LARGEST || `WORD(d, 1) >> 13 != 0 || source > `I16
        || {1'b0, `FLAG(d, `SIGN)} + {1'b0, `FLAG(d, `QUANTIZE)} + {1'b0, logits} > 2'd1
        || (`FLAG(d, `PAD_MINUS_ONE) && op != `OP_BINARY) || ((`FLAG(d, `MAX) || `FLAG(d, `ONES)) && op != `OP_VECTOR)
        || (op == `OP_LARGEST && ((`WORD(d, 1) & ~(32'd1 << `BATCH)) != 0 || is_rm || dest_group[1:0] != 0))
        || (op == `OP_BINARY && source != `BITS) || (op == `OP_INT8 && source == `I16);
    wire [31:0] tile = `TILE(d);
    wire wrong_shape =
        bad_side(height) || bad_side(width) || bad_side(out_h) || bad_side(out_w) || bad_side(kernel_h)
        || bad_side(kernel_w) || bad_side(stride_h) || bad_side(stride_w) || pad_top >= kernel_h || pad_left >= kernel_w
        || words < 1 || words > WIDE || pitch < 1 || pitch > WIDE || channels < 1 || channels > WIDE || steps_bad
        || (`HAS_WEIGHTS(d) && (chunk < 1 || chunk > WB_WORDS || (chunk < {13'd0, steps} && (out_h > 1 || out_w > tile))))
        || shift[7:0] > 30 || shift >> 8 > 30 || `WORD(d, `CHANNELS_IN) > words << 6 || (op == `OP_VECTOR && words != 1)
        || (`FLAG(d, `BATCH) && !scattered && out_h[12:0] != 1);
    wire [31:0] read_groups = source_group + all_groups;
    wire [31:0] read = op == `OP_VECTOR ? (is_rm ? read_groups : source == `BITS ? (read_groups + 3) >> 2 : read_groups << 1)
                     : op == `OP_INT8 && source == `BITS ? (words + 7) >> 3 : words;
    wire wrong_source = source_group > WIDE || read > pitch
        || {1'b0, am_rows} + {17'd0, `WORD(d, `BASE)} > (is_rm ? RM_ROWS : AM_ROWS);
    wire to_am = `FLAG(d, `SIGN) || `FLAG(d, `QUANTIZE) || op == `OP_LARGEST;
    wire [31:0] last_group = dest_group + (op == `OP_LARGEST ? words << 2 : all_groups);
    wire [31:0] dest_words = `FLAG(d, `QUANTIZE) ? last_group << 1 : (last_group + 3) >> 2;
    wire wrong_dest =
        (`FLAG(d, `STORE) && bad_stream(`WORD(d, `STREAM_BASE), stream_pitch, rm_rows))
        || (`FLAG(d, `RESIDUAL) && bad_stream(`WORD(d, `RESIDUAL_BASE), residual_pitch, residual_rows))
        || (to_am && (dest_group > WIDE || dest_pitch > WIDE || dest_words > dest_pitch || dest_outside))
        || (scattered && (bad_side(dest_width) || bad_side(dest_step) || {1'b0, dest_first} + out_w[12:0] > dest_width[12:0]));

    // Of one clock more than the others, but long settled: every term is a register from step 15 on at the latest.
    wire [2:0] wrong = op == `OP_INPUT ? wrong_input : wrong_op ? `ERROR_OP : wrong_shape ? `ERROR_SHAPE
                     : wrong_source ? `ERROR_SOURCE : wrong_dest ? `ERROR_DEST
                     : logits && (`FLAG(d, `BATCH) ? channels != output_words : outputs > {16'd0, output_words}) ? `ERROR_OUTPUT
                     : 3'd0;

    always_ff @(posedge clk)
        if (at == 16) error <= wrong;
endmodule

module xn_fetch #(parameter P = 4, PI = 2, PR = 2, AM_ROWS = 64, RM_ROWS = 64, WB_WORDS = 64, AW = 8, LW = 7) (
    input wire clk, rst, start,
    input wire [63:0] program_at, stream_at,
    input wire [31:0] images, input_bytes, output_words,
    output wire [1:0] req, input wire [1:0] ack, output wire [117:0] req_at, output wire [19:0] req_beats,
    input wire r_valid, input wire [255:0] r_data, input wire [1:0] r_client,
    // the descriptor that is next
    output reg valid, input wire take,
    output reg [1023:0] d, output reg [12:0] index, output reg [2:0] error,
    output wire [18:0] steps, output wire [16:0] groups,
    output wire [AW-1:0] row_pitch, first_row, stride_rows,
    output wire [12:0] dest_x0, output wire [AW-1:0] dest_row, dest_skip,
    // where programs stand: unchanged until an END or TURN was taken
    output reg [31:0] image, output reg [12:0] turn_image, output reg tail,
    output wire turn_end, rewinds,
    // buffers
    output reg [1:0] weights_full, input wire [1:0] weights_free,
    input wire weights_re, input wire [LW:0] weights_at, output wire [1023:0] weights,
    output reg [1:0] post_full, input wire [1:0] post_free,
    output wire post_in, output reg post_into, output reg [3:0] post_lane, output wire [255:0] post // a channel's, to the lanes
);
    localparam IDLE = 0, ASK = 1, READ = 2, CHECK = 3, POST = 4, WEIGHTS = 5, HELD = 6, REWIND = 7;
    localparam QUEUE = 64;
    reg [2:0] state;
    reg [1:0] beat;
    reg check;
    wire checked;
    wire [2:0] check_error;
    wire [33:0] beats;

    xn_checker #(P, PI, PR, AM_ROWS, RM_ROWS, WB_WORDS, AW) checker_i (
        clk, check, d, input_bytes, output_words, turn_image, checked, check_error, steps, groups, beats, row_pitch, first_row,
        stride_rows, dest_x0, dest_row, dest_skip);

    // ---- turns
    assign turn_end = `OP(d) == `OP_END || tail; // that is: where d is an END or TURN
    assign rewinds = `IS_END(d) && (turn_end || (turn_image + 1 != `WORD(d, `OUT_W) && image + 1 != images));

    // ---- the queue of the stream
    reg [255:0] queue [0:QUEUE-1];
    reg [5:0] queue_in, queue_out;
    reg [6:0] queue_used, queue_room;
    reg [58:0] stream;
    reg [33:0] owed;
    wire [9:0] ask = owed < 16 ? owed[9:0] : 10'd16;
    wire pop;
    wire [255:0] head = queue[queue_out];
    wire push = r_valid && r_client == 1;
    wire has_stream = `OP(d) >= `OP_BINARY && `OP(d) <= `OP_VECTOR;

    assign req = {owed != 0 && queue_room >= 16, state == ASK && index != 4096};
    assign req_at = {stream, program_at[63:5] + {44'd0, index, 2'b00}};
    assign req_beats = {ask, 10'd4};
    always_ff @(posedge clk) begin
        if (push) begin
            queue[queue_in] <= r_data;
            queue_in <= queue_in + 1;
        end
        if (pop) queue_out <= queue_out + 1;
        queue_used <= queue_used + {6'd0, push} - {6'd0, pop};
        queue_room <= queue_room + {6'd0, pop} - (ack[1] ? ask[6:0] : 7'd0);
        if (ack[1]) begin
            stream <= stream + {49'd0, ask};
            owed <= owed - {24'd0, ask};
        end
        if (checked && check_error == 0 && has_stream) owed <= beats;
        if (start || state == REWIND) stream <= stream_at[63:5];
        if (rst || start) begin
            queue_in <= 0;
            queue_out <= 0;
            queue_used <= 0;
            queue_room <= QUEUE;
            owed <= 0;
        end
    end

    // ---- buffers
    genvar g;
    integer i;
    reg [16:0] group;
    reg [18:0] left; // words of this group that are still to come
    reg [LW-1:0] word;
    reg [1:0] quarter;
    reg weights_into;
    wire post_pop = state == POST && !post_full[post_into] && queue_used != 0;
    wire weights_pop = state == WEIGHTS && !weights_full[weights_into] && queue_used != 0;
    reg [18:0] word_left; // of the chunk; a chunk ends with the window at the latest

    assign pop = post_pop || weights_pop;
    assign post_in = post_pop;
    assign post = head;
    generate
        for (g = 0; g < 4; g = g + 1) begin : weight
            xn_ram #(.WIDTH(256), .PARTS(1), .ROWS(2 * WB_WORDS), .AW(LW + 1)) ram (
                .clk(clk), .we(weights_pop && quarter == g),
                .waddr(weights_into ? WB_WORDS + {1'b0, word} : {1'b0, word}), .wdata(head), .re(weights_re), .raddr(weights_at),
                .rdata(weights[256 * g +: 256]), .read_fault(), .write_fault());
        end
    endgenerate

    always_ff @(posedge clk) begin
        check <= 0;
        weights_full <= weights_full & ~weights_free;
        post_full <= post_full & ~post_free;
        if (take) valid <= 0;
        case (state)
            ASK: if (ack[0]) begin
                state <= READ;
                beat <= 0;
            end
            READ: if (r_valid && r_client == 0) begin
                for (i = 0; i < 4; i = i + 1)
                    if (beat == i) d[256 * i +: 256] <= r_data;
                beat <= beat + 1;
                if (beat == 3) begin
                    state <= CHECK;
                    check <= !`IS_END(d);
                end
            end
            CHECK: if (`IS_END(d) || index == 4096 || checked) begin
                valid <= 1;
                error <= index == 4096 ? `ERROR_LENGTH : !`IS_END(d) ? check_error
                         : `OP(d) == `OP_TURN && (`WORD(d, `OUT_W) - 1) >> 12 != 0 ? `ERROR_SHAPE : 0;
                group <= 0;
                post_lane <= 0;
                state <= checked && check_error == 0 && has_stream ? POST : HELD;
            end
            POST: if (post_pop) begin
                post_lane <= post_lane + 1;
                left <= steps;
                word <= 0;
                quarter <= 0;
                if (post_lane == 15) begin
                    post_full[post_into] <= 1;
                    post_into <= !post_into;
                    word_left <= `WORD(d, `CHUNK) < {13'd0, steps} ? `WORD(d, `CHUNK) : {13'd0, steps};
                    if (`HAS_WEIGHTS(d)) state <= WEIGHTS;
                    else begin
                        group <= group + 1;
                        state <= group + 1 == groups ? HELD : POST;
                    end
                end
            end
            WEIGHTS: if (weights_pop) begin
                quarter <= quarter + 1;
                if (quarter == 3) begin
                    word <= word + 1;
                    word_left <= word_left - 1;
                    left <= left - 1;
                    if (word_left == 1) begin
                        word <= 0;
                        weights_full[weights_into] <= 1;
                        weights_into <= !weights_into;
                        word_left <= `WORD(d, `CHUNK) < {13'd0, left} - 1 ? `WORD(d, `CHUNK) : {13'd0, left} - 1;
                        if (left == 1) begin
                            group <= group + 1;
                            state <= group + 1 == groups ? HELD : POST;
                        end
                    end
                end
            end
            HELD: if (!valid) begin // taken, and loaded
                index <= index + 1;
                state <= error != 0 ? IDLE : rewinds ? REWIND : ASK;
                if (`OP(d) == `OP_TURN && !rewinds) tail <= 1;
            end
            REWIND: begin
                index <= 0;
                image <= image + 1;
                turn_image <= turn_end ? 0 : turn_image + 1;
                tail <= 0;
                state <= image + 1 == images ? IDLE : ASK;
            end
            default: ;
        endcase
        if (state == ASK && index == 4096) state <= CHECK; // no END: nothing more is read
        if (start) begin
            state <= images == 0 ? IDLE : ASK;
            index <= 0;
            image <= 0;
            turn_image <= 0;
            tail <= 0;
            weights_full <= 0;
            post_full <= 0;
            weights_into <= 0;
            post_into <= 0;
        end
        if (rst) begin
            state <= IDLE;
            valid <= 0;
        end
    end
endmodule
