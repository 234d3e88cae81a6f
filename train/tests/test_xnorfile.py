# SPDX-License-Identifier: Apache-2.0
"""The writer and the reader of .xnor files: what is written is read, and what the format cannot hold is refused with its name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from small import every_op, resealed, signs
from xnortrain import interpret, oracle
from xnortrain.xnorfile import HEADER, OPS, FormatError, Layer, Network, pack_bits, unpack_bits

ROOT = Path(__file__).resolve().parents[2]


def same_layer(a: Layer, b: Layer) -> bool:
    plain = [{**dataclasses.asdict(layer), "tensors": None, "scale": np.float32(layer.scale), "offset": np.float32(layer.offset)} for layer in (a, b)]
    return plain[0] == plain[1] and len(a.tensors) == len(b.tensors) and all(
        s.dtype == t.dtype and np.array_equal(s.array.reshape(-1), t.array.reshape(-1)) for s, t in zip(a.tensors, b.tensors))


def test_every_operation_is_written_and_read(tmp_path: Path) -> None:
    net = every_op()
    assert {layer.op for layer in net.layers} == set(OPS)
    net.save(tmp_path / "net.xnor")
    read = Network.load(tmp_path / "net.xnor")
    assert len(read.layers) == len(net.layers)
    for a, b in zip(net.layers, read.layers):
        assert same_layer(a, b), (a, b)
    assert read.values == net.values
    assert read.metadata["name"] == "every-op" and read.metadata["description"] == "äöü" and read.metadata["input"]["shape"] == [9, 10, 3]
    assert read.to_bytes() == net.to_bytes()
    images = np.random.default_rng(2).integers(0, 256, (7, 9, 10, 3)).astype(np.uint8)
    want = interpret.run(net, images)
    assert len(np.unique(want)) > 10
    assert np.array_equal(interpret.run(read, images), want) and np.array_equal(oracle.run(read, images), want)


def test_same_network_same_bytes() -> None:
    assert every_op(3).to_bytes() == every_op(3).to_bytes() != every_op(4).to_bytes()


def test_layout_of_the_file() -> None:
    """Tensors at multiples of 64, tables at multiples of 8, sizes as the header says, the digest over all."""
    data = every_op().to_bytes()
    fields = HEADER.unpack_from(data)
    assert fields[4] == len(data) and fields[5] == 160 and fields[7] % 8 == 0 and fields[10] % 8 == 0 and fields[13] % 64 == 0
    assert resealed(data) == data


@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 128, 200])
def test_bits_are_packed_as_specified(n: int) -> None:
    values = signs(np.random.default_rng(n), 5, n)
    words = pack_bits(values)
    assert words.shape == (5, -(-n // 64)) and words.dtype == np.dtype("<u8")
    for row in range(5):
        for e in range(64 * words.shape[1]):
            bit = int(words[row, e // 64]) >> (e % 64) & 1
            assert bit == (1 if e < n and values[row, e] == 1 else 0)
    assert np.array_equal(unpack_bits(words, n), values)


def test_random_networks_written_by_c_are_written_back_byte_for_byte_alike(tmp_path: Path) -> None:
    """Layers and tensors of files from the C writer survive reading and writing."""
    tool = Path(os.environ.get("XN_BUILD", ROOT / "build/release")) / "tests/tools/random_networks"
    if not tool.exists():
        pytest.skip(f"{tool} is not built (make test-programs)")
    seed = os.environ.get("XN_SEED") or str(int(time.time()))
    print(f"XN_SEED={seed}")
    subprocess.run([tool.resolve(), seed, "60", tmp_path], check=True, timeout=120, stdout=subprocess.DEVNULL)
    for index in range(60):
        net = Network.load(tmp_path / f"{index}.xnor")
        again = Network.from_bytes(net.to_bytes())
        assert len(net.layers) == len(again.layers) and all(same_layer(a, b) for a, b in zip(net.layers, again.layers)), f"XN_SEED={seed}, network {index}"


# ---- refusals -------------------------------------------------------------------------------------------------------


def refused(match: str):  # type: ignore[no-untyped-def]
    return pytest.raises(FormatError, match=match)


def test_values_that_a_tensor_cannot_hold_are_refused() -> None:
    net = Network((4, 4, 2))
    with refused("conv weights: not all values are int8"):
        net.conv(net.input, np.full((1, 1, 1, 2), 128), bits=False)
    with refused("dense weights: not all values are int8"):
        net.dense(net.input, np.full((1, 32), 0.5), bits=False)
    with refused("dense weights: not all values are int8"):
        net.dense(net.input, np.full((1, 32), np.nan), bits=False)
    with refused("bits are"):
        net.dense(net.input, np.zeros((1, 32)), bits=True)
    s = net.conv(net.input, np.ones((3, 1, 1, 2)), bits=True)
    with refused("thresholds: not all values are int32"):
        net.threshold(s, np.full(3, 2**31))
    with refused("multipliers: not all values are int16"):
        net.scale(s, np.full(3, 40000), np.zeros(3), 1)
    with refused("biases are not within 2\\^46"):
        net.scale(s, np.ones(3), np.full(3, 2**46 + 1), 1)
    h = net.scale(s, np.ones(3), np.zeros(3), 1)
    with refused("K is not 0 to 15"):
        net.rprelu(h, np.zeros(3), np.full(3, 16), np.zeros(3))
    assert [layer.op for layer in net.layers] == ["conv", "scale"], "what is refused leaves no layer behind"


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    net = Network((4, 4, 2))
    with refused("do not fit 2 channels"):
        net.conv(net.input, np.ones((2, 3, 3, 3)), bits=True)
    with refused("do not fit 32 inputs"):
        net.dense(net.input, np.ones((2, 31)), bits=True)
    with refused("does not fit on 4x4"):
        net.conv(net.input, np.ones((2, 5, 5, 2)), bits=True)
    with refused("1 to 7"):
        net.conv(net.input, np.ones((2, 8, 8, 2)), bits=True, pad=4, pad_mode="zero")
    with refused("stride"):
        net.conv(net.input, np.ones((2, 1, 1, 2)), bits=True, stride=3)
    with refused("less than the kernel"):
        net.conv(net.input, np.ones((2, 1, 1, 2)), bits=True, pad=1, pad_mode="zero")
    with refused("minus_one"):
        net.conv(net.input, np.ones((2, 3, 3, 2)), bits=True, pad=1, pad_mode="minus_one")
    with refused("pad_mode"):
        net.conv(net.input, np.ones((2, 3, 3, 2)), bits=True, pad=1)
    s = net.conv(net.input, np.ones((3, 1, 1, 2)), bits=True)
    with refused("thresholds.*3 channels"):
        net.threshold(s, np.zeros(2))
    with refused("conv.*takes bits, uint8, int8, not int32"):
        net.conv(s, np.ones((3, 1, 1, 3)), bits=True)
    with refused("add.*takes int16, not int32"):
        net.add(s, s)
    with refused("maxpool.*not int32"):
        net.maxpool(s, 2, 2)
    with refused("shift.*0 to 30"):
        net.scale(s, np.ones(3), np.zeros(3), 31)
    h = net.scale(s, np.ones(3), np.zeros(3), 0)
    with refused("residual"):
        net.scale(s, np.ones(3), np.zeros(3), 0, residual=net.input)
    with refused("residual"):
        net.scale(s, np.ones(3), np.zeros(3), 0, residual=h, dtype="int8")
    with refused("inputs differ"):
        net.concat([h, net.maxpool(h, 2, 2)])
    with refused("2 to 8"):
        net.concat([h])
    with refused("1x1"):
        net.logits(s)
    with refused("input"):
        Network((0, 4, 2))
    with refused("uint8 or int8"):
        Network((4, 4, 2), "int16")


def test_a_network_without_logits_or_name_is_refused() -> None:
    net = Network((1, 1, 4))
    with refused("last layer is logits"):
        net.to_bytes()
    net.logits(net.dense(net.input, np.ones((2, 4)), bits=True))
    with refused("name"):
        net.to_bytes()
    for name in ("", ".hidden", "a b", "x" * 64, 7):
        net.metadata = {"name": name}
        with refused("name"):
            net.to_bytes()
    net.metadata = {"name": "fine", "labels": ["only one"]}
    with refused("1 labels for 2 classes"):
        net.to_bytes()
    net.metadata = {"name": "fine", "labels": ["a", "b"]}
    net.to_bytes()


def test_sums_beyond_the_bounds_are_refused() -> None:
    """What a reader proves, the writer proves before: the file would be refused everywhere."""
    net = Network((64, 64, 1024))
    with refused("2\\^30"):
        net.dense(net.input, np.full((1, 64 * 64 * 1024), 127, np.int8), bits=False)
    net = Network((1, 1, 64))
    with refused("int32"):
        net.logits(net.dense(net.input, np.full((2, 64), 127), bits=False), multiplier=np.full(2, 2**20))


def test_damaged_files_are_refused_and_never_misread() -> None:
    """Every prefix; and with the digest made to fit, every byte of header and tables changed: read, or refused with a FormatError and nothing else."""
    data = every_op().to_bytes()
    for length in range(0, len(data), 61):
        with pytest.raises(FormatError):
            Network.from_bytes(data[:length])
    with refused("SHA-256"):
        Network.from_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    end = HEADER.unpack_from(data)[13]
    refusals = 0
    for at in range(end):
        for bit in (1, 0x80):
            changed = bytearray(data)
            changed[at] ^= bit
            try:
                Network.from_bytes(resealed(bytes(changed)))
            except FormatError:
                refusals += 1
    assert refusals > end / 2
