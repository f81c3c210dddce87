// Adders for ECP5 (techmap of Yosys). A chain starts with the carry of bit 0, made by the look-up table of its own
// half of the first CCU2C, and the sum of bit 0 is a look-up table apart. So no carry enters or leaves the chain by the
// fabric; with the stock mapping nextpnr puts a CCU2C in front of each chain and one behind it, four COMB an adder.
// CCU2C: sum = LUT4 ^ carry in; carry out = LUT4 ? carry in : LUT2(A, B), LUT2 = INIT[3:0] (Lattice TN1267).
(* techmap_celltype = "$add $sub" *)
module ecp5_adder (A, B, Y);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  parameter _TECHMAP_CELLTYPE_ = "";
  input [A_WIDTH-1:0] A;
  input [B_WIDTH-1:0] B;
  output [Y_WIDTH-1:0] Y;

  localparam SUBTRACT = _TECHMAP_CELLTYPE_ == "$sub";
  localparam HALVES = 2 * ((Y_WIDTH + 1) / 2);
  localparam [15:0] CARRY_OF_BIT_0 = SUBTRACT ? 16'h000B : 16'h0008;
  localparam [15:0] SUM = SUBTRACT ? 16'h99AA : 16'h66AA;
  wire _TECHMAP_FAIL_ = Y_WIDTH < 3;

  wire [Y_WIDTH-1:0] a_wide, b_wide;
  \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_a (.A(A), .Y(a_wide));
  \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_b (.A(B), .Y(b_wide));
  wire [HALVES-1:0] a = a_wide;
  wire [HALVES-1:0] b = b_wide;
  wire [HALVES-1:0] sum;
  wire [HALVES/2:0] carry;

  genvar i;
  generate
    for (i = 0; i < HALVES; i = i + 2) begin : pair
      CCU2C #(
        .INIT0(i == 0 ? CARRY_OF_BIT_0 : SUM), .INIT1(SUM), .INJECT1_0("NO"), .INJECT1_1("NO")
      ) cell (
        .CIN(carry[i/2]), .COUT(carry[i/2+1]),
        .A0(a[i]), .B0(b[i]), .C0(1'b0), .D0(1'b1), .S0(sum[i]),
        .A1(a[i+1]), .B1(b[i+1]), .C1(1'b0), .D1(1'b1), .S1(sum[i+1])
      );
    end
  endgenerate
  assign carry[0] = 1'b0;
  assign Y = {sum[Y_WIDTH-1:1], a[0] ^ b[0]};
endmodule
