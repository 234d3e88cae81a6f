# SPDX-License-Identifier: Apache-2.0
"""Every shipped network gives the same logits everywhere: PyTorch oracle, Python interpreter, C reference, CPU backend at every level of this processor.

The short form of `make verify`, which does the same on whole test sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
XNORCTL = (ROOT / os.environ.get("XN_BUILD", "build/release") / "xnorctl").resolve()
IMAGES = 300
SHIPPED = sorted((ROOT / "models").glob("*/*.xnor"))

pytestmark = pytest.mark.skipif(not XNORCTL.exists(), reason=f"{XNORCTL} is not built (make all)")

sys.path[:0] = [str(ROOT / "train"), str(ROOT / "train/tests")]

from small import every_op  # noqa: E402
from xnortrain import interpret, verify  # noqa: E402


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
