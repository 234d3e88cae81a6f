#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the avx512 level, as assembly. This program is their source: `make` runs it and assembles what it prints.

Why not C with intrinsics: the loops below keep 16 or more vector sums alive that every instruction overwrites. Compilers copy and spill
them, and reach half of what the machine does.

Functions, for n output pixels (struct xn_cpu_tile in accel/cpu/kernels.h; offsets are checked by accel/cpu/kernels/avx512.c):

  xn_cpu_pair_avx512_<n>(tile)          n = 1..8: bits x bits, by the PAIR identity; leaves sums
  xn_cpu_pair_bits_avx512_<n>(tile)     the same and the chain behind it: bits,
  xn_cpu_pair_stream_avx512_<n>(tile)   scale, residual, stream and bits,
  xn_cpu_pair_rprelu_avx512_<n>(tile)   the same with RPReLU
  xn_cpu_bytes_avx512_<n>(tile)         n = 1..6: uint8 x int8

and the yardstick of the benchmark, on registers alone, `rounds` rounds of 16 vectors of 512 bits: xor, popcount, add

  xn_cpu_peak_avx512(rounds)

PAIR. For two vectors of +-1 as bits a0, a1, weights w0, w1, with A = a0 ^ a1, W = w0 ^ w1:

  popcount(a0 ^ w0) + popcount(a1 ^ w1) = 2 * popcount(G) + popcount(A) - popcount(W),    G = A == W ? a0 ^ w0 : W

One popcount for two vectors. Maps hold (a0, A) and weights (w0, W), so that G is an xor and one ternary operation. popcount(W) is a constant
of the channel, popcount(A) one of the pixel: the sums start from half of it (tile->init), and whoever reads them knows the rest.

A vector is 16 output channels x 32 bits; a block is 32 channels in two vectors. One word of 64 bits of a map is a pair of 32 channels: its two
halves are broadcast to all lanes. For each word: four vectors of weights (w0 and W of both halves of the block), and for each pixel two
broadcasts and twice xor, ternary, popcount, add.

Registers: zmm0..2n-1 sums (pixel p: p and n + p), zmm28..31 weights, the rest temporaries in turn.
  rdi tile   rsi offset into the pixels' rows   rdx weights   rcx sums in memory   r8..r15 pixels   eax words left in this row   ebx rows left
  rbp from the end of a row of taps to the next
What finishes a block may use all but rdi, rdx and rbp, and rcx where sums go to memory.

BYTES. vpdpbusd adds four products of uint8 and int8 to each int32. Vectors are 256 bits: wide multiplications make the processor lower its
clock, for longer than a first layer takes, and the binary layers after it would pay. A block is 32 channels in four vectors, ymm28..31 its
weights; pixel p's sums are ymm4p..4p+3 and start from tile->start (r14).
"""

from __future__ import annotations

# struct xn_cpu_tile
PIXELS, INIT, WEIGHTS, ACC, ACC_BYTES, ROW_BYTES, ROWS, RUN, BLOCKS, START = 0, 64, 72, 80, 88, 96, 104, 108, 112, 128
FUSED, CLASS_ROW, STREAM_OFFSET, SPOTS = 136, 144, 152, 160
# struct xn_cpu_fused
(TABLE, TABLE_PITCH, FACTOR, RESIDUAL, STREAM, STREAM_PITCH, LIMIT, KNEE, HALF, SLOPE, SUM, BIAS, BENT, WORDS, WORDS_PITCH, COUNTS, ALWAYS,
 SHIFT) = [8 * i for i in range(18)]
PAIR_TILE, BYTES_TILE = 8, 6
PAIR_UNROLL, BYTES_UNROLL = 2, 2  # units a round
PIXEL_REGISTERS = [f"%r{i}" for i in range(8, 16)]
SAVED = ["%rbx", "%rbp", "%r12", "%r13", "%r14", "%r15"]

# dest = dest's bit where the two others agree, else the second operand's: (t, W, A) -> A == W ? t : W
SELECT = 0xD4


class Function:
    """The text of one function, and temporaries in turn so that neighbours do not wait for each other."""

    def __init__(self, name: str, temporaries: range, register: str = "zmm") -> None:
        self.name, self.register = name, register
        self.lines = [f"\t.globl {name}", f"\t.type {name}, @function", "\t.p2align 6", f"{name}:"]
        self.temporaries, self.turn = temporaries, 0

    def __call__(self, line: str) -> None:
        self.lines.append("\t" + line)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def v(self, n: int) -> str:
        return f"%{self.register}{n}"

    def temporary(self) -> str:
        self.turn += 1
        return self.v(self.temporaries[self.turn % len(self.temporaries)])

    def text(self) -> str:
        return "\n".join([*self.lines, f"\t.size {self.name}, .-{self.name}", ""])


def enter(f: Function, unit_bytes: int) -> None:
    for register in SAVED:
        f(f"push {register}")
    f(f"mov {WEIGHTS}(%rdi), %rdx")
    f(f"mov {RUN}(%rdi), %eax")
    f("neg %rax")
    f(f"lea (,%rax,{unit_bytes}), %rbp")
    f(f"add {ROW_BYTES}(%rdi), %rbp")  # from the end of a row to the next one's beginning


def leave(f: Function) -> None:
    for register in reversed(SAVED):
        f(f"pop {register}")
    f("vzeroupper")
    f("ret")


def sum_block(f: Function, n: int, unit_bytes: int, weight_bytes: int, step, unroll: int) -> None:
    """For each row of taps, for each unit of the row: step(i), which reads unit i from rsi and rdx on. `unroll` units a round, and what is left one
    by one: the scalar instructions of a round compete with vectors for ports."""

    def units(label: str, count: int) -> None:
        f(".p2align 5")
        f.label(label)
        for i in range(count):
            step(i)
        f(f"add ${count * unit_bytes}, %rsi")
        f(f"add ${count * weight_bytes}, %rdx")

    for p in range(n):
        f(f"mov {PIXELS + 8 * p}(%rdi), {PIXEL_REGISTERS[p]}")
    f("xor %esi, %esi")
    f(f"mov {ROWS}(%rdi), %ebx")
    f.label("2")
    f(f"mov {RUN}(%rdi), %eax")
    if unroll > 1:
        f(f"cmp ${unroll}, %eax")
        f("jb 4f")
        units("3", unroll)
        f(f"sub ${unroll}, %eax")
        f(f"cmp ${unroll}, %eax")
        f("jae 3b")
        f("test %eax, %eax")
        f("jz 5f")
    units("4", 1)
    f("dec %eax")
    f("jnz 4b")
    f.label("5")
    f("add %rbp, %rsi")
    f("dec %ebx")
    f("jnz 2b")


def each_block(f: Function, block) -> None:
    """`block` for each of tile->blocks."""
    f(f"mov {ACC}(%rdi), %rcx")
    f(f"mov {BLOCKS}(%rdi), %eax")
    f("push %rax")
    f.label("1")
    block()
    f("decq (%rsp)")
    f("jnz 1b")
    f("pop %rax")


# ---- bits ---------------------------------------------------------------------------------------------------------------------------------


def sum_pairs(f: Function, n: int, unroll: int) -> None:
    """The sums of one block, of 16 channels each in zmm p and n + p."""

    def add_pair(a0: str, a: str, half: int, total: int, t: str) -> None:
        f(f"vpxord {a0}, {f.v(28 + 2 * half)}, {t}")
        f(f"vpternlogd ${SELECT}, {a}, {f.v(29 + 2 * half)}, {t}")
        f(f"vpopcntd {t}, {t}")
        f(f"vpaddd {t}, {f.v(total)}, {f.v(total)}")

    def step(unit: int) -> None:
        for i in range(4):
            f(f"vmovdqa64 {256 * unit + 64 * i}(%rdx), {f.v(28 + i)}")
        for p in range(n):
            a0, a, t = f.temporary(), f.temporary(), f.temporary()
            f(f"vpbroadcastd {8 * unit}({PIXEL_REGISTERS[p]},%rsi), {a0}")
            f(f"vpbroadcastd {8 * unit + 4}({PIXEL_REGISTERS[p]},%rsi), {a}")
            add_pair(a0, a, 0, p, t)
            add_pair(a0, a, 1, n + p, a0)

    f(f"mov {INIT}(%rdi), %rax")
    for p in range(n):
        f(f"vpbroadcastd {4 * p}(%rax), {f.v(p)}")
        f(f"vmovdqa64 {f.v(p)}, {f.v(n + p)}")
    sum_block(f, n, 8, 256, step, unroll)


def pair(n: int) -> Function:
    f = Function(f"xn_cpu_pair_avx512_{n}", range(2 * n, 28))

    def block() -> None:
        sum_pairs(f, n, PAIR_UNROLL)
        f("mov %rcx, %rax")
        for p in range(n):
            f(f"vmovdqu64 {f.v(p)}, (%rax)")
            f(f"vmovdqu64 {f.v(n + p)}, 64(%rax)")
            if p + 1 < n:
                f(f"add {ACC_BYTES}(%rdi), %rax")
        f("add $128, %rcx")

    enter(f, 8)
    each_block(f, block)
    leave(f)
    return f


def class_offset(f: Function, p: int) -> None:
    """rsi: bytes from the table's first class to pixel p's, of r9 bytes each; r10: the pixels' classes."""
    f(f"mov {4 * p}(%r10), %esi")
    f("imul %r9, %rsi")


def write_mask(f: Function, p: int, block: int, k: str) -> None:
    """The 32 bits of pixel p to its word of the map: the low half as it is, the high half as low ^ high, which is counted. r15: words, rbx: their
    pitch, r8: counts. The last block's weights have been read: rdx is free."""
    f(f"mov {SPOTS + 4 * p}(%rdi), %esi")
    if block == 0:
        f("imul %rbx, %rsi")
        f(f"kmovd {k}, (%r15,%rsi)")
        return
    f("mov %esi, %edx")
    f("imul %rbx, %rsi")
    f(f"kmovd {k}, %eax")
    f("xor (%r15,%rsi), %eax")
    f("mov %eax, 4(%r15,%rsi)")
    f("popcnt %eax, %eax")
    f("add %eax, (%r8,%rdx,4)")


def load_words(f: Function) -> None:
    f(f"mov {WORDS}(%rbx), %r15")
    f(f"mov {COUNTS}(%rbx), %r8")
    f(f"mov {WORDS_PITCH}(%rbx), %rbx")


def compare_counts(f: Function, n: int, block: int) -> None:
    """Bits straight from sums: count <= limit."""
    f(f"mov {FUSED}(%rdi), %rbx")
    f(f"mov {TABLE}(%rbx), %r11")
    f(f"mov {TABLE_PITCH}(%rbx), %r9")
    f(f"mov {CLASS_ROW}(%rdi), %r10")
    load_words(f)
    for p in range(n):
        k = f"%k{1 + p % 7}"
        class_offset(f, p)
        f(f"vpackssdw {f.v(n + p)}, {f.v(p)}, {f.v(p)}")
        f(f"vpcmplew {64 * block}(%r11,%rsi), {f.v(p)}, {k}")
        write_mask(f, p, block, k)


def add_to_stream(f: Function, n: int, block: int, rprelu: bool) -> None:
    """(origin - m*count) >> shift, packed to int16, added to the residual; RPReLU; stored; bits where x > limit. accel/cpu/narrow.c has the
    reasons, kernels/narrow.c the same in C."""
    factor, high_factor, shift, limit, knee, half, slope, total, bias, sign = [f.v(i) for i in range(16, 26)]
    f(f"mov {FUSED}(%rdi), %rbx")
    f(f"mov {FACTOR}(%rbx), %r8")
    f(f"vmovdqu64 {128 * block}(%r8), {factor}")
    f(f"vmovdqu64 {128 * block + 64}(%r8), {high_factor}")
    f(f"vpbroadcastd {SHIFT}(%rbx), {shift}")
    f(f"kmovd {ALWAYS + 4 * block}(%rbx), %k6")
    vectors = [(LIMIT, limit)]
    if rprelu:
        vectors += [(KNEE, knee), (HALF, half), (SLOPE, slope), (SUM, total), (BIAS, bias)]
        f("mov $0x80008000, %esi")
        f(f"vpbroadcastd %esi, {sign}")
        f(f"mov {BENT}(%rbx), %r8")
        f(f"kmovd {4 * block}(%r8), %k7")
    for offset, register in vectors:
        f(f"mov {offset}(%rbx), %r8")
        f(f"vmovdqu64 {64 * block}(%r8), {register}")
    f(f"mov {TABLE}(%rbx), %r11")
    f(f"mov {TABLE_PITCH}(%rbx), %r9")
    f(f"mov {CLASS_ROW}(%rdi), %r10")
    f(f"mov {STREAM_OFFSET}(%rdi), %rax")
    f(f"mov {RESIDUAL}(%rbx), %r12")
    f("add %rax, %r12")
    f(f"mov {STREAM}(%rbx), %r13")
    f("add %rax, %r13")
    f(f"mov {STREAM_PITCH}(%rbx), %r14")
    load_words(f)
    for p in range(n):
        low, high, t, k = f.v(p), f.v(n + p), f.v(26 + p % 6), f"%k{2 + p % 4}"
        class_offset(f, p)
        f(f"vpmaddwd {factor}, {low}, {low}")
        f(f"vpmaddwd {high_factor}, {high}, {high}")
        f(f"vpaddd {128 * block}(%r11,%rsi), {low}, {low}")
        f(f"vpaddd {128 * block + 64}(%r11,%rsi), {high}, {high}")
        f(f"vpsravd {shift}, {low}, {low}")
        f(f"vpsravd {shift}, {high}, {high}")
        f(f"vpackssdw {high}, {low}, {low}")
        f(f"vpaddsw {64 * block}(%r12), {low}, {low}")
        if rprelu:
            f(f"vpcmpltw {knee}, {low}, %k1{{%k7}}")
            f(f"vpxord {sign}, {low}, {t}")
            f(f"vpavgw {half}, {t}, {t}")
            f(f"vpxord {sign}, {t}, {t}")
            f(f"vpsravw {slope}, {t}, {t}")
            f(f"vpaddsw {total}, {low}, {low}")
            f(f"vpaddsw {bias}, {t}, {low}{{%k1}}")
        f(f"vmovdqu64 {low}, {64 * block}(%r13)")
        f(f"vpcmpgtw {limit}, {low}, {k}")
        f(f"kord {k}, %k6, {k}")
        write_mask(f, p, block, k)
        if p + 1 < n:
            f("add %r14, %r12")
            f("add %r14, %r13")


def fetch_stream(f: Function, n: int, block: int) -> None:
    """The lines of the stream that the end of this block will read."""
    f(f"mov {FUSED}(%rdi), %rbx")
    f(f"mov {STREAM_OFFSET}(%rdi), %rax")
    f(f"add {RESIDUAL}(%rbx), %rax")
    f(f"mov {STREAM_PITCH}(%rbx), %rsi")
    for p in range(n):
        f(f"prefetcht0 {64 * block}(%rax)")
        if p + 1 < n:
            f("add %rsi, %rax")


def fused(kind: str, n: int) -> Function:
    """Both blocks of a chunk with the chain behind them."""
    f = Function(f"xn_cpu_pair_{kind}_avx512_{n}", range(2 * n, 28))
    enter(f, 8)
    for block in range(2):
        if kind != "bits":
            fetch_stream(f, n, block)
        sum_pairs(f, n, PAIR_UNROLL if kind == "bits" else 1)
        if kind == "bits":
            compare_counts(f, n, block)
        else:
            add_to_stream(f, n, block, kind == "rprelu")
    leave(f)
    return f


# ---- bytes --------------------------------------------------------------------------------------------------------------------------------


def bytes_(n: int) -> Function:
    f = Function(f"xn_cpu_bytes_avx512_{n}", range(4 * n, 28), "ymm")

    def step(unit: int) -> None:
        for j in range(4):
            f(f"vmovdqa32 {128 * unit + 32 * j}(%rdx), {f.v(28 + j)}")
        for p in range(n):
            x = f.temporary()
            f(f"vpbroadcastd {4 * unit}({PIXEL_REGISTERS[p]},%rsi), {x}")
            for j in range(4):
                f(f"vpdpbusd {f.v(28 + j)}, {x}, {f.v(4 * p + j)}")

    def block() -> None:
        for j in range(4):
            f(f"vmovdqu32 {32 * j}(%r14), {f.v(j)}")
        for p in range(1, n):
            for j in range(4):
                f(f"vmovdqa32 {f.v(j)}, {f.v(4 * p + j)}")
        f("add $128, %r14")
        sum_block(f, n, 4, 128, step, BYTES_UNROLL)
        f("mov %rcx, %rax")
        for p in range(n):
            for j in range(4):
                f(f"vmovdqu32 {f.v(4 * p + j)}, {32 * j}(%rax)")
            if p + 1 < n:
                f(f"add {ACC_BYTES}(%rdi), %rax")
        f("add $128, %rcx")

    enter(f, 4)
    f(f"mov {START}(%rdi), %r14")
    each_block(f, block)
    leave(f)
    return f


def ceiling() -> Function:
    """16 sums in zmm0..15, operands in zmm16 and 17: what the execution units can do when nothing else is asked of them."""
    f = Function("xn_cpu_peak_avx512", range(18, 32))
    f("\t.p2align 5")
    f.label("1")
    for total in range(16):
        t = f.temporary()
        f(f"vpxord {f.v(16)}, {f.v(17)}, {t}")
        f(f"vpopcntd {t}, {t}")
        f(f"vpaddd {t}, {f.v(total)}, {f.v(total)}")
    f("dec %rdi")
    f("jnz 1b")
    f("vzeroupper")
    f("ret")
    return f


def main() -> None:
    functions = [pair(n) for n in range(1, PAIR_TILE + 1)]
    functions += [fused(kind, n) for kind in ("bits", "stream", "rprelu") for n in range(1, PAIR_TILE + 1)]
    functions += [bytes_(n) for n in range(1, BYTES_TILE + 1)] + [ceiling()]
    print("\t.text")
    for f in functions:
        print(f.text())
    print('\t.section .note.GNU-stack, "", @progbits')


if __name__ == "__main__":
    main()
