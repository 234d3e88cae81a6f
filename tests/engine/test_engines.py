# SPDX-License-Identifier: Apache-2.0
"""The engine's simulations, C simulation of the HLS kernel and Verilated SystemVerilog, against the scalar definition: short forms of `make hls-test` and `make rtl-test`. Proofs of its units that take seconds, of `make rtl-formal`.

A library that was not built skips its tests: `make test` builds them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
PROGRAMS = BUILD / "tests/engine"
MODELS = sorted(ROOT.glob("models/*/*.xnor"))
HLS = dict(re.findall(r"^HLS_(p\d+) := (\S+)$", (ROOT / "hls/hls.mk").read_text(), re.MULTILINE))
RTL = re.findall(r"^RTL_GEOMETRIES := (\S+)", (ROOT / "rtl/rtl.mk").read_text(), re.MULTILINE)[0]
FORMAL = ["writer", "ram", "registers", "reader", "walk"]  # rtl/formal/prove --quick
HLS_SEEDS, RTL_SEEDS, IMAGES = 20, 8, 4
TIMEOUT_S = 300


def run(program: Path, *arguments: object) -> None:
    if not program.exists():
        pytest.skip(f"{program} was not built")
    done = subprocess.run([str(program), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def library(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} was not built")
    return path


@pytest.mark.parametrize("bench", [path.stem for path in sorted((ROOT / "hls/test").glob("test_*.cpp"))] + ["kernel"])
def test_hls_units(bench: str) -> None:
    run(BUILD / "hls" / bench, HLS_SEEDS)


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
@pytest.mark.parametrize("name", HLS)
def test_hls_random_programs(name: str, damaged: bool) -> None:
    run(PROGRAMS / "test_simulators", *["--damaged"] * damaged, "--geometry", HLS[name], "--seeds", HLS_SEEDS, library(BUILD / f"libxnor-sim-hls-{name}.so"))


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_hls_networks(model: Path) -> None:
    run(PROGRAMS / "test_networks", "--geometry", "4T", "--images", IMAGES, library(BUILD / "libxnor-sim-hls-4t.so"), model)


@pytest.mark.parametrize("how", ["--cycles", "--stalls", "--damaged"])
def test_rtl_random_programs(how: str) -> None:
    run(PROGRAMS / "test_simulators", "--geometry", RTL, "--seeds", RTL_SEEDS, how, library(ROOT / "build/rtl" / f"{RTL.replace(',', '-')}.so"))


@pytest.mark.parametrize("name", FORMAL)
def test_rtl_formal(name: str) -> None:
    if shutil.which("z3") is None or shutil.which("yosys-smtbmc") is None:
        pytest.skip("no yosys-smtbmc or no z3")
    run(ROOT / "rtl/formal/prove", name)


def test_rtl_formal_can_fail() -> None:
    """A writer broken in each of some ways is not proven."""
    if shutil.which("z3") is None or shutil.which("yosys-smtbmc") is None:
        pytest.skip("no yosys-smtbmc or no z3")
    run(ROOT / "rtl/formal/prove", "--mutants", "writer")


def test_boards_fit() -> None:
    """AM, RM and weights of each board's geometry fit its part."""
    run(ROOT / "hls/boards/build", "--check")
