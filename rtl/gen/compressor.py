#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write a binary dot product's count of bits that differ, popcount(x ^ w), as LUT6_2 and CARRY8 in structural Verilog.

    rtl/gen/compressor.py 64 256            modules xn_dot_behavioural_S, xn_dot_compressors_S, xn_dot_pair_S and PEs of them
    rtl/gen/compressor.py --form compressors 64

A module has ports x, w (S bits) and count. Bits of one weight stand in a column; what is placed takes bits out of columns and puts fewer back:

  three pairs    sum and carry of three x ^ w at once: a LUT each
  two pairs      two x ^ w in one LUT6_2, for the bits that threes leave over
  counter 7:3    two LUT6_2 on a carry chain, the seventh bit as its carry in. First position: O6 the parity of six bits, O5 that of five, which equals
                 the sixth where the parity is 0, as DI must. Second: bits 1 and 2 of the sum of five; where bit 1 is 0, bit 2 is the carry
  full adder     3:2 in one LUT6_2
  ternary adder  the last three rows in one LUT6_2 a column: the sum of three bits with the carry that O5 of the column before hands on as DI.
                 The first column takes two bits more, as DI and as carry in

A 7:3 counter and a ternary adder both take away two bits a LUT; a full adder one.

The pair form counts half as many bits. Of two pairs (x0, w0), (x1, w1), with A = x0 ^ x1 and W = w0 ^ w1, let G = A == W ? x0 ^ w0 : W. Then

    (x0 ^ w0) + (x1 ^ w1) = 2 G + A - W

G is one LUT of four inputs. `count` is that of G; a pixel's A are counted once for all channels, a channel's W are a constant of its weights."""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable

FORMS = ("behavioural", "compressors", "pair")
ZERO, ONE = "1'b0", "1'b1"
ACCUMULATOR_BITS = 16
Function = Callable[[list[int]], int]


def majority(bits: list[int]) -> int:
    return int(sum(bits[:3]) >= 2)


def parity(bits: list[int]) -> int:
    return sum(bits) & 1


def differ(bits: list[int]) -> list[int]:
    """Of pairs one after another: which differ."""
    return [bits[i] ^ bits[i + 1] for i in range(0, len(bits) - 1, 2)]


def pair(bits: list[int]) -> int:
    """G of x0, x1, w0, w1."""
    x0, x1, w0, w1 = bits[:4]
    return x0 ^ w0 if x0 ^ x1 == w0 ^ w1 else w0 ^ w1


def table(inputs: int, function: Function) -> int:
    return sum(function([i >> k & 1 for k in range(inputs)]) << i for i in range(1 << inputs))


class Netlist:
    """A module of primitives in the making, and what it has cost."""

    def __init__(self, bits: int) -> None:
        self.width = bits.bit_length()
        self.columns: list[collections.deque[str]] = [collections.deque() for _ in range(self.width)]
        self.lines: list[str] = []
        self.luts = 0
        self.chains = 0
        self.half: tuple[list[tuple[str, str]], str, str] | None = None  # a chain of up to four that waits for another

    def wire(self, name: str, width: int = 1) -> str:
        name += str(len(self.lines))
        self.lines.append(f"wire {f'[{width - 1}:0] ' if width > 1 else ''}{name};")
        return name

    def lut(self, ins: list[str], o6: Function, o5: Function | None = None) -> tuple[str, str]:
        """O6 of all inputs. With O5: at most five inputs each, or six where O5 is O6 with the sixth 0."""
        high, low = self.wire("h"), self.wire("l") if o5 else ""
        if o5 and len(ins) < 6:
            init = table(5, o5) | table(5, o6) << 32
            pins = ins + [ZERO] * (5 - len(ins)) + [ONE]
        else:
            init = table(6, o6)
            pins = ins + [ZERO] * (6 - len(ins))
        inputs = ", ".join(f".I{k}({pin})" for k, pin in enumerate(pins))
        self.lines.append(f"LUT6_2 #(.INIT(64'h{init:016x})) u{len(self.lines)} (.O6({high}), .O5({low}), {inputs});")
        self.luts += 1
        return high, low

    def carry(self, name: str, kind: str, positions: list[tuple[str, str]], carry: str, top: str) -> None:
        filled = positions + [(ZERO, ZERO)] * (8 - len(positions))
        s, di = (", ".join(p[k] for p in reversed(filled)) for k in (0, 1))
        self.lines.append(f'CARRY8 #(.CARRY_TYPE("{kind}")) u{len(self.lines)} (.O({name}_o), .CO({name}_c), .CI({carry}), .CI_TOP({top}), .S({{{s}}}), .DI({{{di}}}));')

    def short_chain(self, positions: list[tuple[str, str]], carry: str) -> tuple[list[str], str]:
        """At most four positions of S and DI: half a CARRY8. Returns sums and the carry out."""
        self.chains += 1
        last = len(positions) - 1
        if self.half:
            first, first_carry, name = self.half
            self.half = None
            self.carry(name, "DUAL_CY4", first + [(ZERO, ZERO)] * (4 - len(first)) + positions, first_carry, carry)
            return [f"{name}_o[{4 + i}]" for i in range(last + 1)], f"{name}_c[{4 + last}]"
        name = f"k{len(self.lines)}"
        self.lines += [f"wire [7:0] {name}_o, {name}_c;"]
        self.half = positions, carry, name
        return [f"{name}_o[{i}]" for i in range(last + 1)], f"{name}_c[{last}]"

    def put(self, column: int, bit: str) -> None:
        """A bit beyond the width is never set: no count is that large."""
        if column < self.width:
            self.columns[column].append(bit)

    def take(self, column: int, number: int) -> list[str]:
        return [self.columns[column].popleft() for _ in range(min(number, len(self.columns[column])))]

    def counter(self, column: int) -> None:
        bits = self.take(column, 7)
        s0, d0 = self.lut(bits[:6], parity, parity)
        s1, d1 = self.lut(bits[:5], lambda b: sum(b) >> 1 & 1, lambda b: sum(b) >> 2)
        sums, out = self.short_chain([(s0, d0), (s1, d1)], bits[6] if len(bits) > 6 else ZERO)
        for i, bit in enumerate([*sums, out]):
            self.put(column + i, bit)

    def full_adder(self, column: int) -> None:
        for i, bit in enumerate(self.lut(self.take(column, 3), parity, majority)):
            self.put(column + i, bit)

    def reduce(self) -> None:
        """Columns down to what the ternary adder takes. Oldest bits first, so that the tree is shallow."""
        for column, bits in enumerate(self.columns):
            while len(bits) > (3 if column else 5):
                if len(bits) >= 6:
                    self.counter(column)
                else:
                    self.full_adder(column)

    def ternary(self) -> None:
        """The sum of what stands in the columns, as `count`."""
        positions: list[tuple[str, str]] = []
        extra = self.take(0, 5)
        self.columns[0].extend(extra[:3])
        data, carry = (extra[3:] + [ZERO, ZERO])[:2]
        while len(positions) < self.width:
            bits = self.take(len(positions), 3)
            if not bits and data == ZERO:
                break  # the rest is the carry out
            inputs = bits + [ZERO] * (3 - len(bits)) + [data]
            s, more = self.lut(inputs, parity, majority)
            positions.append((s, data))
            data = more if len(bits) > 1 else ZERO
        for start in range(0, len(positions), 8):
            name = f"t{start}"
            self.lines.append(f"wire [7:0] {name}_o, {name}_c;")
            self.carry(name, "SINGLE_CY8", positions[start : start + 8], carry, ZERO)
            carry = f"{name}_c[7]"
        sums = [f"t{i & ~7}_o[{i & 7}]" for i in range(len(positions))]
        assert not any(self.columns) and len(sums) >= self.width - 1
        if len(sums) < self.width:
            last = len(sums) - 1
            sums.append(f"t{last & ~7}_c[{last & 7}]")
        self.lines.append(f"assign count = {{{', '.join(reversed(sums))}}};")

    def finish(self) -> None:
        self.reduce()
        if self.half:
            first, carry, name = self.half
            self.half = None
            self.carry(name, "DUAL_CY4", first, carry, ZERO)
        self.ternary()


def compressors(bits: int) -> Netlist:
    netlist = Netlist(bits)
    threes = bits // 3
    threes -= (bits - 3 * threes) % 2
    for i in range(0, 3 * threes, 3):
        ins = [f"{name}[{i + k}]" for k in range(3) for name in "xw"]
        netlist.put(0, netlist.lut(ins, lambda b: parity(differ(b)))[0])
        netlist.put(1, netlist.lut(ins, lambda b: majority(differ(b)))[0])
    for i in range(3 * threes, bits, 2):
        for bit in netlist.lut([f"x[{i}]", f"w[{i}]", f"x[{i + 1}]", f"w[{i + 1}]"], lambda b: b[0] ^ b[1], lambda b: b[2] ^ b[3]):
            netlist.put(0, bit)
    netlist.finish()
    return netlist


def pairs(bits: int) -> Netlist:
    half = bits // 2
    netlist = Netlist(half)
    for i in range(half):
        netlist.put(0, netlist.lut([f"x[{i}]", f"x[{i + half}]", f"w[{i}]", f"w[{i + half}]"], pair)[0])
    netlist.finish()
    return netlist


def count_width(form: str, bits: int) -> int:
    return (bits // 2 if form == "pair" else bits).bit_length()


def dot(form: str, bits: int) -> tuple[str, Netlist | None]:
    """The module's text, and its netlist if it is of primitives."""
    netlist = {"behavioural": lambda _: None, "compressors": compressors, "pair": pairs}[form](bits)
    ports = f"input wire [{bits - 1}:0] x, w, output wire [{count_width(form, bits) - 1}:0] count"
    lines = netlist.lines if netlist else ["assign count = $countones(x ^ w);"]
    cost = f"// {netlist.luts} LUT6_2, {netlist.chains} short chains\n" if netlist else ""
    return f"{cost}module xn_dot_{form}_{bits} ({ports});\n" + "".join(f"    {line}\n" for line in lines) + "endmodule\n", netlist


def processing_element(form: str, bits: int) -> str:
    """Dot product, accumulator, compare: what a multiply-accumulate costs in an array. `seen` of the pair form is the pixel's sum of A, and W is in the threshold."""
    width, acc = count_width(form, bits), ACCUMULATOR_BITS
    total = "{sum, 1'b0} + seen" if form == "pair" else "sum"
    return f"""module xn_dot_pe_{form}_{bits} (input wire clk, first, input wire [{bits - 1}:0] x, w, input wire [{acc - 1}:0] threshold, seen, output reg y);
    wire [{width - 1}:0] count;
    reg [{width - 1}:0] count_q;
    reg [{acc - 1}:0] sum;
    reg first_q;
    wire [{acc - 1}:0] total = {total};
    xn_dot_{form}_{bits} dot (x, w, count);
    always @(posedge clk) begin
        {{first_q, count_q}} <= {{first, count}};
        sum <= (first_q ? {acc}'d0 : sum) + {{{acc - width}'d0, count_q}};
        y <= total >= threshold;
    end
endmodule
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, action="append", help="only this one, without its PE")
    parser.add_argument("bits", type=int, nargs="+", help="S, even, 16 to 4096")
    arguments = parser.parse_args()
    for bits in arguments.bits:
        if bits % 2 or not 16 <= bits <= 4096:
            parser.error(f"S = {bits}: even, 16 to 4096")
        for form in arguments.form or FORMS:
            sys.stdout.write(dot(form, bits)[0] + ("" if arguments.form else processing_element(form, bits)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
