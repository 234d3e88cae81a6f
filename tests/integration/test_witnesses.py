# SPDX-License-Identifier: Apache-2.0
"""Every shipped network gives the same logits everywhere: PyTorch oracle, Python interpreter, C reference, CPU backend at every level of this processor.

The short form of `make verify`, which does the same on whole test sets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
XNORCTL = (ROOT / os.environ.get("XN_BUILD", "build/release") / "xnorctl").resolve()
IMAGES = 300
SHIPPED = sorted((ROOT / "models").glob("*/*.xnor"))

pytestmark = pytest.mark.skipif(not XNORCTL.exists(), reason=f"{XNORCTL} is not built (make all)")

sys.path[:0] = [str(ROOT / "train"), str(ROOT / "train/tests")]

from small import every_op, resealed  # noqa: E402
from xnortrain import interpret, verify  # noqa: E402
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
