# SPDX-License-Identifier: Apache-2.0
"""Every shipped network gives the same logits everywhere: PyTorch oracle, Python interpreter, C reference, CPU backend at every level of this processor.

The short form of `make verify`, which does the same on whole test sets."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
XNORCTL = (ROOT / os.environ.get("XN_BUILD", "build/release") / "xnorctl").resolve()
IMAGES = 100
SHIPPED = sorted((ROOT / "models").glob("*/*.xnor"))

pytestmark = pytest.mark.skipif(not XNORCTL.exists(), reason=f"{XNORCTL} is not built (make all)")

sys.path[:0] = [str(ROOT / "train"), str(ROOT / "train/tests")]

import onnx_networks  # noqa: E402
from small import every_op, resealed  # noqa: E402
from xnortrain import interpret, qonnx, verify  # noqa: E402
from xnortrain.qonnx_graph import read  # noqa: E402
from xnortrain.xnorfile import HEADER, FormatError, Network  # noqa: E402


def run_verify(path: Path, images: int = IMAGES) -> str:
    command = [sys.executable, "-m", "xnortrain", "verify", path, "--images", str(images), "--xnorctl", XNORCTL]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "train")}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def witnesses_wanted() -> list[str]:
    return ["PyTorch oracle", "Python interpreter", "C reference", *(f"C cpu:{level}" for level in verify.cpu_levels()[0])]


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_network(path: Path) -> None:
    out = run_verify(path)
    for name in witnesses_wanted():
        assert f"{name:20} identical" in out, out


def test_every_operation_on_random_inputs(tmp_path: Path) -> None:
    every_op().save(tmp_path / "every-op.xnor")
    out = run_verify(tmp_path / "every-op.xnor")
    assert f"{IMAGES} random inputs" in out
    for name in witnesses_wanted():
        assert f"{name:20} identical" in out, out


def test_c_reads_what_python_wrote_and_not_something_else(tmp_path: Path) -> None:
    """verify compares C with the file it was given: logits of another network are told apart."""
    every_op(1).save(tmp_path / "one.xnor")
    images = np.random.default_rng(1).integers(0, 256, (20, 9, 10, 3)).astype(np.uint8)
    got = verify.run_c(XNORCTL, tmp_path / "one.xnor", images, "reference", 5)
    assert np.array_equal(got, interpret.run(every_op(1), images))
    assert verify.first_difference(interpret.run(every_op(2), images), got)


def test_a_level_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    every_op().save(tmp_path / "net.xnor")
    images = np.zeros((1, 9, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="xnorctl run --backend cpu:none"):
        verify.run_c(XNORCTL, tmp_path / "net.xnor", images, "cpu:none", 5)
    for level in verify.cpu_levels()[1]:
        with pytest.raises(ValueError, match="does not run that level"):
            verify.run_c(XNORCTL, tmp_path / "net.xnor", images, f"cpu:{level}", 5)


def mutations(data: bytes, count: int, random: np.random.Generator) -> list[tuple[str, bytes]]:
    """Files with one or two fields of header, metadata or tables changed and the digest made to fit."""
    fields = HEADER.unpack_from(data)
    tables, end = fields[7], fields[13]
    found = []
    for _ in range(count):
        changed, told = bytearray(data), []
        for _ in range(random.integers(1, 3)):
            at = int(random.integers(tables if random.random() < 0.7 else 0, end))
            value = int(random.choice([changed[at] ^ (1 << int(random.integers(0, 8))), 0, 1, 2, 255, int(random.integers(0, 256))]))
            changed[at] = value
            told.append(f"byte {at} = {value}")
        found.append((", ".join(told), resealed(bytes(changed))))
    return found


def test_python_and_c_accept_the_same_files(tmp_path: Path) -> None:
    """Two readers of one specification: what one refuses, the other refuses."""
    seed = int(os.environ.get("XN_SEED") or time.time())
    print(f"XN_SEED={seed}")
    random = np.random.default_rng(seed)
    both = {True: 0, False: 0}
    for what, data in mutations(every_op().to_bytes(), 500, random):
        (tmp_path / "net.xnor").write_bytes(data)
        try:
            Network.from_bytes(data)
            python = "accepted"
        except FormatError as error:
            python = str(error)
        done = subprocess.run([XNORCTL, "inspect", tmp_path / "net.xnor"], capture_output=True, text=True, timeout=60)
        accepted = done.returncode == 0
        assert accepted == (python == "accepted"), f"XN_SEED={seed}, {what}: C {done.stderr.strip() or 'accepted'}; Python {python}"
        both[accepted] += 1
    assert min(both.values()) > 30, both


METADATA = [
    ({}, False), ({"name": "a"}, True), ({"name": ".a"}, False), ({"name": "a b"}, False), ({"name": "x" * 63}, True), ({"name": "x" * 64}, False), ({"name": 1}, False),
    ({"name": "a", "version": "0123"}, True), ({"name": "a", "version": 1}, False), ({"name": "a", "version": "1" * 16}, False), ({"name": "a", "version": ""}, False),
    ({"name": "a", "description": "x" * 4095}, True), ({"name": "a", "description": "x" * 4096}, False), ({"name": "a", "description": "x\ny"}, False),
    ({"name": "a", "license": "MIT"}, True), ({"name": "a", "license": 5}, False), ({"name": "a", "labels": ["ä"] * 5}, True), ({"name": "a", "labels": ["ä"] * 4}, False),
    ({"name": "a", "labels": ["x" * 256] * 5}, False), ({"name": "a", "labels": ["x"] * 4 + [1]}, False), ({"name": "a", "labels": "xxxxx"}, False),
    ({"name": "a", "input": {"image": {"color": "rgb"}}}, True), ({"name": "a", "input": {"image": {"color": "gray"}}}, False), ({"name": "a", "input": {"image": {}}}, False),
    ({"name": "a", "input": {"image": {"color": "rgb", "fit": "squash"}}}, False), ({"name": "a", "input": {"image": {"color": "rgb", "multiplier": [1, 2]}}}, False),
    ({"name": "a", "input": {"image": {"color": "rgb", "multiplier": [1, 2, 1 << 24], "offset": [-(1 << 24)] * 3, "shift": 24}}}, True),
    ({"name": "a", "input": {"image": {"color": "rgb", "multiplier": [1, 2, (1 << 24) + 1]}}}, False), ({"name": "a", "input": {"image": {"color": "rgb", "shift": 25}}}, False),
    ({"name": "a", "input": {"image": {"color": "rgb", "offset": [1.0, 2, 3]}}}, False), ({"name": "a", "input": {"shape": [9, 10, 4]}}, False), ({"name": "a", "input": 3}, False),
    ({"name": "a", "input": {"shape": [9, 10, 3], "dtype": "uint8"}}, True), ({"name": "a", "input": {"dtype": "int8"}}, False), ({"name": "a", "provenance": []}, False),
    ({"name": "a", "other": {"x": [None]}}, True), ([], False), ("a", False)]


def with_metadata(text: bytes) -> bytes:
    """every_op() with other metadata, put at the end of the file, where there is room for any."""
    data = bytearray(every_op().to_bytes())
    offset = len(data)
    struct.pack_into("<QQQ", data, 16, offset + len(text), offset, len(text))
    return resealed(bytes(data) + text)


@pytest.mark.parametrize("case", range(len(METADATA) + 3))
def test_python_and_c_take_the_same_metadata(tmp_path: Path, case: int) -> None:
    special = [(b'{"name":"a","name":"b"}', False), (b'{"name":"\xff"}', False), (b'{"name":"a","x":NaN}', False)]
    text, good = special[case - len(METADATA)] if case >= len(METADATA) else (json.dumps(METADATA[case][0]).encode(), METADATA[case][1])
    (tmp_path / "net.xnor").write_bytes(with_metadata(text))
    done = subprocess.run([XNORCTL, "inspect", tmp_path / "net.xnor"], capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == good, f"C: {text!r:.200} {done.stderr}"
    try:
        Network.load(tmp_path / "net.xnor")
        assert good, f"Python took {text!r:.200}"
    except FormatError as error:
        assert not good, f"Python: {text!r:.200} {error}"


def test_imported_networks(tmp_path: Path) -> None:
    """What the importer writes is what C loads and runs alike."""
    for make in (onnx_networks.tfc, onnx_networks.cnv, onnx_networks.mixed):
        qonnx.import_graph(read(make(tmp_path / "net.onnx", 1)), qonnx.Options())[0].save(tmp_path / "net.xnor", {"name": "imported"})
        out = run_verify(tmp_path / "net.xnor", 60)
        for name in witnesses_wanted():
            assert f"{name:20} identical" in out, out
